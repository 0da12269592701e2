"""Sends the answers of many inputs as they come: NDJSON, an answer a line, and the rest of the call last.

The response begins with the first answer, so what goes wrong before has its status. What goes wrong later
stands in the last line, as it would in a body of its own.
"""

from __future__ import annotations

import asyncio

from hypercorn.typing import ASGISendCallable

from skyisland.codec import encode
from skyisland.model import Returned
from skyisland.operations import LINES
from skyisland.wire import InputAnswer

AT_ONCE = 200
"""So many answers are written on the event loop: half a millisecond."""


def _lines(answers: list[Returned]) -> bytes:
    return b"".join(encode(InputAnswer.of(answer)) + b"\n" for answer in answers)


class Lines:
    """One response. `add` as answers come, and `end` it if it has `begun`; or `cancel` it."""

    def __init__(self, send: ASGISendCallable, id: str) -> None:  # noqa: A002 - as the answer's field is named
        self._send = send
        self._id = id
        self._waiting: list[Returned] = []
        """What the caller has yet to take: no more than a call may print."""
        self._last: bytes | None = None
        self._more = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return self._sending is not None

    def add(self, answers: list[Returned]) -> None:
        """Send these, without waiting for the caller to take them."""
        self._waiting += answers
        self._more.set()
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def end(self, last: bytes) -> None:
        """Send the last line, behind all others."""
        self._last = last.rstrip(b"\n") + b"\n"
        self._more.set()
        if self._sending is not None:
            await self._sending

    def cancel(self) -> None:
        """Nobody listens any more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _send_all(self) -> None:
        headers = [(b"content-type", LINES.encode()), (b"x-call-id", self._id.encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        ended = False
        while not ended:
            await self._more.wait()
            self._more.clear()
            answers, self._waiting = self._waiting, []
            ended = self._last is not None
            # A caller who takes none for a while gets thousands at once.
            body = _lines(answers) if len(answers) <= AT_ONCE else await asyncio.to_thread(_lines, answers)
            if ended:
                body += self._last or b""
            await self._send({"type": "http.response.body", "body": body, "more_body": not ended})
