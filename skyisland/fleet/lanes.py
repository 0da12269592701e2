"""Asks a work-queue stream for what waits in it, in lanes, one message at a time.

A lane is a consumer of the stream, and has the orders of some clients: an island asks one lane after another,
so a client with many orders delays those of its own lane. A request stands until there is an order, on
whichever island that was put; so nothing is asked again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Collection
from functools import partial

from msgspec import Struct
from nats.js import api

from skyisland.fleet.line import Away, Listening, Message
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.streams import Stream, pull
from skyisland.host.tasks import Background
from skyisland.status import LineState

LANES = 8
"""More of them keep clients further apart, and cost each island as many requests when nothing is there."""
ASK_S = 30.0
"""How long a request for an order stands."""
SOON_S = 1.0
"""A request that ends sooner than that was refused, and is not made again at once."""
ANSWER_S = 2.0
"""How long an answer to "is there an order now?" may take."""


class Lane(Struct):
    """One consumer, as this island asks it."""

    number: int
    inbox: str
    listening: Listening | None = None
    asked_at: float | None = None
    """Monotonic: since when a request stands."""
    answer: asyncio.Future[bool] | None = None
    """Of who waits for whether there is an order now."""
    waiting: int = 0
    """Orders that it has not handed out, as far as is known."""

    @property
    def name(self) -> str:
        """Of its consumer."""
        return f"lane-{self.number}"


class Lanes:
    """The lanes of one stream. `open` comes first, `close` last; `make` when the servers are reached."""

    def __init__(self, line: NatsLine, stream: Stream, hold: Callable[[Lane, Message], bool]) -> None:
        """`hold`: takes what comes; False if that is nothing to take."""
        self._line, self._stream, self._hold = line, stream, hold
        self._lanes = [Lane(number, line.inbox()) for number in range(LANES)]
        self._next = 0
        self._made = False
        self._background = Background()
        self._hungry: Collection[str] | None = None
        self.wake: Callable[[], None] = lambda: None
        """Called when an order came that nobody waited for."""

    async def open(self) -> None:
        """Listen for orders."""
        for lane in self._lanes:
            lane.listening = await self._line.listen(lane.inbox, partial(self._come, lane))

    async def make(self, subject: Callable[[str], str], lease_s: float) -> None:
        """Make the consumers, if they are not there. `subject`: the pattern of a lane's subjects.

        Raises:
            Away
        """
        for lane in self._lanes:
            # Asked for and answered before the first order is: the answer to one that a consumer hands out
            # while it is being made would be lost, and the order run twice.
            config = api.ConsumerConfig(
                durable_name=lane.name,
                filter_subject=subject(str(lane.number)),
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=lease_s,
                max_deliver=-1,
                # Those that wait for their next attempt count, too; islands bound themselves.
                max_ack_pending=-1,
            )
            await self._stream.consume(config)
            lane.asked_at = None
        self._made = True
        self.wake()

    async def close(self) -> None:
        for lane in self._lanes:
            if lane.listening is not None:
                await lane.listening.end()
        await self._background.drain()

    def of(self, client: str) -> Lane:
        """The lane that a client's orders are in."""
        return self._lanes[place(client)[1]]

    @property
    def waiting(self) -> int:
        """Orders that were not handed out, as far as is known."""
        return sum(lane.waiting for lane in self._lanes)

    async def count(self) -> None:
        """Ask how many that are."""
        if self._made:
            with contextlib.suppress(Away):
                waiting = await self._stream.pending()
                for lane in self._lanes:
                    lane.waiting = waiting.get(lane.name, 0)

    def want(self, full: Collection[str] | None) -> None:
        """From now on an order is wanted, but of none of these clients; with None, no order is."""
        self._hungry = full

    async def look(self, full: Collection[str]) -> None:
        """Ask lanes of which nothing is asked, in turns, until one has an order now."""
        for lane in self._open(full):
            lane.answer = asyncio.get_running_loop().create_future()
            try:
                if not await self._ask(lane, None):
                    return
                async with asyncio.timeout(ANSWER_S):
                    found = await lane.answer
            except TimeoutError:
                return
            finally:
                lane.answer = None
            if found:
                self._next = lane.number + 1
                return
            if not await self._ask(lane, ASK_S):
                return

    async def ask_again(self) -> None:
        """Ask those of which nothing is asked any more, if an order is wanted. To be called now and then."""
        now = time.monotonic()
        for lane in self._lanes:
            lost = lane.asked_at is not None and now - lane.asked_at > ASK_S + ANSWER_S
            if lost or self._line.state is not LineState.joined:
                lane.asked_at = None
        if self._hungry is not None:
            for lane in self._open(self._hungry):
                await self._ask(lane, ASK_S)

    def _open(self, full: Collection[str]) -> list[Lane]:
        """Those of which nothing is asked. The lane of a client who gets nothing is left to other islands."""
        if not self._made or self._line.state is not LineState.joined:
            return []
        shut = {place(client)[1] for client in full}
        order = [*self._lanes[self._next % LANES :], *self._lanes[: self._next % LANES]]
        return [lane for lane in order if lane.asked_at is None and lane.number not in shut]

    async def _ask(self, lane: Lane, expires_s: float | None) -> bool:
        lane.asked_at = time.monotonic()
        try:
            # One order at a time: what is on its way to an island that has no place is late.
            await pull(self._line, self._stream.name, lane.name, lane.inbox, 1, expires_s)
        except Away:
            lane.asked_at = None
            return False
        return True

    def _come(self, lane: Lane, message: Message) -> None:
        """An order, or the word that there is none: that comes on the inbox's own subject."""
        asked_at, lane.asked_at = lane.asked_at, None
        found = message.subject != lane.inbox and self._hold(lane, message)
        if lane.answer is not None and not lane.answer.done():
            lane.answer.set_result(found)
        elif found:
            self.wake()
        elif self._hungry is not None and asked_at is not None and time.monotonic() - asked_at > SOON_S:
            self._background.start(self.ask_again())


def place(client: str) -> tuple[str, int]:
    """A client as a word of a subject, and the number of its lane."""
    digest = hashlib.blake2b(client.encode(), digest_size=8)
    return digest.hexdigest(), digest.digest()[0] % LANES
