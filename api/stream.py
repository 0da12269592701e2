"""The event stream: server-sent events from one ring that all streams read.

A stream is a place in the ring and no queue of its own, so a slow reader costs nothing; one that falls
behind the ring's end is told how much it missed by a `Gap`. Ids are `<life>-<number>`: a reader that comes
back with the last id it saw goes on where it was, as long as the ring remembers and the island lives.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator

from msgspec import Struct

from api.wire import encode
from skyisland.errors import TooBusy
from skyisland.events import WORDY, Event, Events, Gap

BUNCH = 500
"""Events sent in one piece at most."""


class Fact(Struct):
    """An event in the ring."""

    number: int
    event: Event
    size: int
    """About how many bytes it keeps alive."""
    text: bytes = b""
    """The event as it is sent; made when the first stream wants it."""


class Feed:
    """All open streams, and the ring they read."""

    def __init__(
        self,
        events: Events,
        *,
        limit: int = 2000,
        limit_bytes: int = 4 << 20,
        streams: int = 32,
        heartbeat_s: float = 2.0,
        pause_s: float = 0.25,
    ) -> None:
        """`pause_s`: how long a stream gathers what happens before it sends again; each piece costs the
        island a fraction of a millisecond for each console, however little is in it."""
        self._limit, self._limit_bytes = limit, limit_bytes
        self._streams, self._heartbeat_s, self._pause_s = streams, heartbeat_s, pause_s
        self._life = secrets.token_hex(4)
        self._ring: deque[Fact] = deque()
        self._bytes = 0
        self._number = 0
        self._wakes: set[asyncio.Event] = set()
        self._closed = False
        self._untap = events.tap(self._fold)

    @property
    def last_id(self) -> str:
        """The id of the latest event."""
        return f"{self._life}-{self._number}"

    @property
    def open_streams(self) -> int:
        return len(self._wakes)

    def _fold(self, event: Event) -> None:
        self._number += 1
        size = 500
        if type(event) in WORDY:
            size += len(getattr(event, "call", "")) + len(getattr(event, "url", ""))
        self._ring.append(Fact(self._number, event, size))
        self._bytes += size
        while self._bytes > self._limit_bytes or len(self._ring) > self._limit:
            self._bytes -= self._ring.popleft().size
        for wake in self._wakes:
            wake.set()

    def open(self, last_event_id: str | None = None) -> AsyncIterator[bytes]:
        """What happens from now on, or from after `last_event_id`, as text/event-stream.

        Raises:
            TooBusy: too many streams are open.
        """
        if self._full:
            raise TooBusy(f"{len(self._wakes)} event streams are open; close one", retry_after_s=5)
        return self._follow(last_event_id)

    @property
    def _full(self) -> bool:
        return len(self._wakes) >= self._streams

    def close(self) -> None:
        """End all streams at once, and the ring; may be repeated."""
        if not self._closed:
            self._closed = True
            self._untap()
        for wake in self._wakes:
            wake.set()

    async def _follow(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        if self._full:  # others may have come between `open` and this first step
            return
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            number = self._known(last_event_id)
            yield b"retry: 1000\n\n"
            if number is None:
                number = self._number
                yield self._sent(Gap(missed=0), number)
            while not self._closed:
                wake.clear()
                missed, facts = self._since(number)
                if missed:
                    number += missed
                    yield self._sent(Gap(missed=missed), number)
                if facts:
                    number = facts[-1].number
                    yield b"".join(map(self._text, facts))
                    await asyncio.sleep(self._pause_s)
                    continue
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        await wake.wait()
                except TimeoutError:
                    yield b":\n\n"
        finally:
            self._wakes.discard(wake)

    def _since(self, number: int) -> tuple[int, list[Fact]]:
        """How many events after this one are forgotten, and the next ones after those."""
        oldest = self._ring[0].number if self._ring else self._number + 1
        start = max(0, number + 1 - oldest)
        return max(0, oldest - 1 - number), list(itertools.islice(self._ring, start, start + BUNCH))

    def _known(self, last_event_id: str | None) -> int | None:
        """The number of the event with this id; the latest for no id, None for one of another life."""
        if not last_event_id:
            return self._number
        life, _, number = last_event_id.partition("-")
        if life == self._life and number.isascii() and number.isdigit() and len(number) < 19:
            return min(int(number), self._number)
        return None

    def _text(self, fact: Fact) -> bytes:
        if not fact.text:
            fact.text = self._sent(fact.event, fact.number)
        return fact.text

    def _sent(self, event: Event, number: int) -> bytes:
        name = type(event).__name__
        return b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (
            self._life.encode(),
            number,
            name.encode(),
            encode(event),
        )
