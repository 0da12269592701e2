"""A call while it runs, as server-sent events (`Accept: text/event-stream`).

    event: phase      {"phase": "build", "duration_ms": 1234.5}, as each one ends
    event: stdout     {"text": "…"}, what the function printed since, and so `stderr`
    event: result     the answer of the call, or `problem`: its error
    event: call       of a call that answers later: its record, each time that its state changes

The response begins with the first event, so what is refused before has its status. Who watches looks at what
a jail wrote a few times a second, and adds nothing to the way of the call; the rest is sent at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from hypercorn.typing import ASGISendCallable

from skyisland.codec import encode
from skyisland.errors import IslandError
from skyisland.events import Event, PhaseFinished
from skyisland.island import Island
from skyisland.later.calls import Record
from skyisland.model import Phase

QUIET_S = 15.0
"""After so long without an event a comment is sent: proxies close what is quiet for a minute."""
LONG_BYTES = 64 << 10
"""A longer answer is read on a thread."""
HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)
QUART_HEADERS = {name.decode(): value.decode() for name, value in HEADERS}


def event(name: str, data: bytes) -> bytes:
    """One server-sent event; JSON has no line breaks of its own."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


class Watched:
    """What happens to one invocation after another, as events that wait to be sent."""

    def __init__(self, island: Island) -> None:
        self._island = island
        self._invocation = ""
        self._waiting: list[bytes] = []
        self._more = asyncio.Event()
        self._sent = {"stdout": 0, "stderr": 0}
        """Characters of each output."""
        self._following: asyncio.Task[None] | None = None
        self._over = False
        self._untap = island.events.tap(self._fold, PhaseFinished)

    def close(self) -> None:
        self._untap()
        self._leave()

    def _leave(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    def watch(self, invocation: str, *, runs: bool = False) -> None:
        """Tell of this one from now on. `runs`: it may be in its jail already."""
        self._leave()
        self._invocation, self._sent = invocation, {"stdout": 0, "stderr": 0}
        if runs:
            self._follow()

    def _fold(self, fact: Event) -> None:
        if isinstance(fact, PhaseFinished) and fact.invocation == self._invocation:
            spent = {"phase": fact.phase, "duration_ms": round(fact.duration_s * 1000, 3)}
            self.add("phase", encode(spent))
            if fact.phase is Phase.jail:
                self._follow()

    def _follow(self) -> None:
        self._following = asyncio.create_task(self._outputs())

    async def _outputs(self) -> None:
        with contextlib.suppress(IslandError):  # its jail is gone already; the answer has it all
            async for piece in self._island.live_output(self._invocation):
                self._write("stdout", piece.stdout)
                self._write("stderr", piece.stderr)

    def _write(self, name: str, text: str) -> None:
        if text:
            self._sent[name] += len(text)
            self.add(name, encode({"text": text}))

    def rest(self, answer: dict[str, Any]) -> None:
        """Send what of the outputs was not sent while it ran."""
        self._leave()
        for name, field in (("stdout", "data"), ("stderr", "stderr")):
            whole = answer.get(field)
            if isinstance(whole, str):
                self._write(name, whole[self._sent[name] :])

    def add(self, name: str, data: bytes) -> None:
        self._waiting.append(event(name, data))
        self._more.set()

    def end(self) -> None:
        """No event will come any more."""
        self._over = True
        self._more.set()

    async def pages(self) -> AsyncGenerator[bytes, None]:
        """What there is to send, until `end`."""
        while not self._over or self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), QUIET_S)
            self._more.clear()
            page, self._waiting = b"".join(self._waiting), []
            if page or not self._over:
                yield page or b": still here\n\n"


class Live:
    """The response to a call that is watched. `end` it if it has `begun`; or `cancel` it."""

    def __init__(self, island: Island, send: ASGISendCallable, id: str) -> None:  # noqa: A002 - as in `lines`
        self._send = send
        self._id = id
        self._watched = Watched(island)
        self._watched.watch(id)
        self._sending = asyncio.create_task(self._send_all())
        self._began = False
        self.over = False

    @property
    def begun(self) -> bool:
        return self._began or bool(self._watched._waiting)

    async def end(self, body: bytes) -> None:
        """Send the rest, and last the answer or the problem."""
        whole = await asyncio.to_thread(_read, body) if len(body) > LONG_BYTES else _read(body)
        good = "id" in whole
        self._watched.rest(whole if good else whole.get("details") or {})
        self._watched.add("result" if good else "problem", body.rstrip(b"\n"))
        self._watched.end()
        try:
            await self._sending
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody listens any more, or it was refused before anything happened."""
        self.over = True
        self._watched.close()
        self._sending.cancel()

    async def _send_all(self) -> None:
        async for page in self._watched.pages():
            if not self._began:
                self._began = True
                headers = [*HEADERS, (b"x-call-id", self._id.encode())]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": page, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _read(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(body)
    return found


async def kept(island: Island, call: str, client: str, watcher: str) -> AsyncGenerator[bytes, None]:
    """A call that answers later, until it is over. `client`: whose it must be, empty for anybody's;
    `watcher`: the client who is told.

    Raises:
        CallNotFound
    """
    record = await island.later.get(call, client)
    return _kept(island, record, client, watcher)


async def _kept(island: Island, record: Record, client: str, watcher: str) -> AsyncGenerator[bytes, None]:
    watched = Watched(island)
    telling = asyncio.create_task(_tell(island, watched, record, client, watcher))
    try:
        async for page in watched.pages():
            yield page
    finally:
        telling.cancel()
        watched.close()


async def _tell(island: Island, watched: Watched, record: Record, client: str, watcher: str) -> None:
    try:
        async with island.later.news(record.id) as attempts:
            record = await island.later.get(record.id, client)
            if record.attempts and not record.state.final:
                watched.watch(record.attempts[-1].id, runs=True)
            while not record.state.final:
                watched.add("call", _state(record))
                attempt = await attempts.get()
                if attempt:
                    watched.watch(attempt)
                record = await island.later.get(record.id, client)
                if island.later.stopping:
                    break
        record = record.shown_to(watcher)
        if not isinstance(record.result, msgspec.UnsetType):
            watched.rest(msgspec.json.decode(record.result))
        watched.add("call" if not record.state.final else "result", encode(record))
    finally:
        watched.end()


def _state(record: Record) -> bytes:
    return encode(msgspec.structs.replace(record, result=msgspec.UNSET))
