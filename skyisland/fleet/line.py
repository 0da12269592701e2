"""The line to a fleet's servers: what the rest of the room asks of it, whatever carries it.

    publish   to a subject, to all who listen
    listen    to a subject, which may end in `>` or have `*`; of a `queue`, one listener gets each message
    serve     the same, with an answer to each message
    request   one answer
    gather    the answers that come in a time

A line that is away carries nothing, keeps nothing for later, and says so at once (`Away`). `NatsLine`
(natsline.py) is the real one; tests have one in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from skyisland.errors import Unavailable
from skyisland.status import LineState

log = logging.getLogger(__name__)

AT_ONE_TIME = 256
"""Messages of one subject that are being answered; more are dropped, and who asked hears nothing. A
judgement: an island runs fewer calls."""


class Away(Unavailable):
    """The fleet's servers are away, did not answer in time, or refuse: what needs them is not done."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the fleet cannot be used: {why}", retry_after_s=2)


class Nobody(Unavailable):
    """Nobody listens to this subject."""


class Message(Struct, frozen=True):
    """What came on a subject. Its bytes are another's: `frames.unpack` reads them."""

    subject: str
    data: bytes
    reply: str = ""
    """Where an answer goes; empty if none is wanted."""
    nobody: bool = False
    """It is the servers' word that nobody listens where this line asked."""


Heard = Callable[[Message], None]
"""Takes a message. It is called on the event loop and must not raise; long work is a task."""
Answers = Callable[[Message], Awaitable[bytes | None]]
"""Makes the answer to a message; None for none. If it raises, who asked hears nothing."""


class Line(Protocol):
    """What the room needs of a connection."""

    @property
    def state(self) -> LineState: ...

    @property
    def largest_bytes(self) -> int:
        """The longest message that the servers take."""

    async def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """Raises: Away."""

    async def listen(self, subject: str, heard: Heard, *, queue: str = "") -> Listening:
        """From now on, and again after each time that the line was away."""

    def inbox(self) -> str:
        """A subject of this line's own, for answers."""


class Listening(Protocol):
    """One subject that is listened to."""

    async def end(self) -> None:
        """May be repeated."""


async def serve(line: Line, subject: str, answers: Answers, *, queue: str = "") -> Listening:
    """Answer each message of a subject, `AT_ONE_TIME` of them beside each other."""
    busy: set[asyncio.Task[None]] = set()

    async def answer(message: Message) -> None:
        try:
            reply = await answers(message)
            if message.reply and reply is not None:
                await line.publish(message.reply, reply)
        except Away:
            log.info("an answer to %s was not sent: the line is away", subject)
        except Exception:
            log.exception("a message on %s was not answered", subject)

    def heard(message: Message) -> None:
        if len(busy) >= AT_ONE_TIME:
            log.warning("%d messages on %s are being answered; one more is dropped", len(busy), subject)
            return
        task = asyncio.create_task(answer(message))
        busy.add(task)
        task.add_done_callback(busy.discard)

    return await line.listen(subject, heard, queue=queue)


async def request(line: Line, subject: str, data: bytes, *, within_s: float) -> bytes:
    """The first answer to a message.

    Raises:
        Away: there is none in time.
        Nobody: and there will be none.
    """
    first: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def heard(message: Message) -> None:
        if not first.done():
            first.set_result(message)

    inbox = line.inbox()
    listening = await line.listen(inbox, heard)
    try:
        await line.publish(subject, data, reply=inbox)
        async with asyncio.timeout(within_s):
            answer = await first
    except TimeoutError:
        raise Away(f"no answer on {subject} within {within_s:g} s") from None
    finally:
        await listening.end()
    if answer.nobody:
        raise Nobody(f"nobody listens to {subject}")
    return answer.data


async def gather(line: Line, subject: str, data: bytes, *, within_s: float, most: int) -> list[bytes]:
    """The answers that come within a time, in their order; `most` are enough.

    Raises:
        Away
    """
    answers: list[bytes] = []
    enough = asyncio.Event()

    def heard(message: Message) -> None:
        if not message.nobody and len(answers) < most:
            answers.append(message.data)
        if message.nobody or len(answers) >= most:
            enough.set()

    inbox = line.inbox()
    listening = await line.listen(inbox, heard)
    try:
        await line.publish(subject, data, reply=inbox)
        async with asyncio.timeout(within_s):
            await enough.wait()
    except TimeoutError:
        pass
    finally:
        await listening.end()
    return answers
