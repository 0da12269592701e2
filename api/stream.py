"""The event stream: server-sent events from one ring that all streams read.

A stream is a place in the ring and no queue of its own, so a slow reader costs nothing; one that falls
behind the ring's end is told how much it missed by a `Gap`. Streams that keep up send at the same moments,
so each page of events is written once for all of them. Ids are `<life>-<number>`: a reader that comes back
with the last id it saw goes on where it was, as long as the ring remembers and the island lives.

While there are streams, the island's pulse is felt for them. It has no id: nobody wants an old one.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import Struct

from skyisland.errors import TooBusy
from skyisland.events import PULSE_S, WORDY, Event, Events, Gap, Pulse, included
from skyisland.wire import encode

log = logging.getLogger(__name__)

BUNCH = 1000
"""Events on a page at most."""


class Page(Struct, frozen=True):
    """The events after number `after` up to `last`, as they are sent."""

    after: int
    last: int
    text: bytes


class Feed:
    """All open streams, and the ring they read."""

    def __init__(
        self,
        events: Events,
        pulse: Callable[[], Awaitable[Pulse]],
        *,
        limit: int = 2000,
        limit_bytes: int = 4 << 20,
        streams: int = 32,
        pulse_s: float = PULSE_S,
        pause_s: float = 0.5,
    ) -> None:
        """`pause_s`: how long streams gather what happens before they send again; each page costs the island
        a fraction of a millisecond for each of them, however little is on it."""
        self._limit, self._limit_bytes = limit, limit_bytes
        self._streams, self._pulse_s, self._pause_s = streams, pulse_s, pause_s
        self._life = secrets.token_hex(4)
        self._id = f"id: {self._life}-".encode()
        self._ring: deque[Event] = deque()
        self._bytes = 0
        self._number = 0
        self._pages = {brief: Page(0, 0, b"") for brief in (False, True)}
        self._open = 0
        self._news = asyncio.Event()
        self._gathering: asyncio.Event | None = None
        self._feel = pulse
        self._pulse = b""
        """The latest, as it is sent."""
        self._pulses = 0
        self._feeling: asyncio.Task[None] | None = None
        self._closed = False
        self._untap = events.tap(self._fold)

    @property
    def last_id(self) -> str:
        """The id of the latest event."""
        return f"{self._life}-{self._number}"

    @property
    def open_streams(self) -> int:
        return self._open

    def _fold(self, event: Event) -> None:
        self._number += 1
        self._ring.append(event)
        self._bytes += _size(event)
        while self._bytes > self._limit_bytes or len(self._ring) > self._limit:
            self._bytes -= _size(self._ring.popleft())
        self._news.set()

    def open(self, last_event_id: str | None = None, *, brief: bool = False) -> AsyncIterator[bytes]:
        """What happens from now on, or from after `last_event_id`, as text/event-stream.

        `brief`: without the events that others of the same page include; of a busy island's, a third is left.

        Raises:
            TooBusy: too many streams are open.
        """
        if self._full:
            raise TooBusy(f"{self._open} event streams are open; close one", retry_after_s=5)
        return self._follow(last_event_id, brief)

    @property
    def _full(self) -> bool:
        return self._open >= self._streams

    def close(self) -> None:
        """End all streams at once, and the ring; may be repeated."""
        if not self._closed:
            self._closed = True
            self._untap()
        self._news.set()
        if self._gathering is not None:
            self._gathering.set()

    async def _follow(self, last_event_id: str | None, brief: bool) -> AsyncIterator[bytes]:
        if self._full:  # others may have come between `open` and this first step
            return
        self._open += 1
        if self._feeling is None:
            self._feeling = asyncio.create_task(self._feel_pulse())
        try:
            number, pulses = self._known(last_event_id), self._pulses
            yield b"retry: 1000\n\n"
            if number is None:
                number = self._number
                yield self._sent(Gap(missed=0), number)
            while not self._closed:
                missed = self._number - len(self._ring) - number
                if missed > 0:
                    number += missed
                    yield self._sent(Gap(missed=missed), number)
                elif pulses < self._pulses:
                    pulses = self._pulses
                    yield self._pulse
                elif number < self._number:
                    page = self._after(number, brief)
                    number = page.last
                    if page.text:
                        yield page.text
                    if page.last - page.after < BUNCH:  # else it is behind, and goes on at once
                        await self._gather()
                else:
                    self._news.clear()
                    await self._news.wait()
        finally:
            self._open -= 1
            if not self._open:
                self._feeling.cancel()
                self._feeling = None

    async def _feel_pulse(self) -> None:
        """Also a sign of life, where nothing happens."""
        while True:
            await asyncio.sleep(self._pulse_s)
            try:
                pulse = await self._feel()
            except Exception:
                log.exception("the island has no pulse")
                continue
            self._pulse = _kind(Pulse) + encode(pulse) + b"\n\n"
            self._pulses += 1
            self._news.set()

    def _after(self, number: int, brief: bool) -> Page:
        """The page that follows this event; one that is written is there for all."""
        last = min(self._number, number + BUNCH)
        page = self._pages[brief]
        if (page.after, page.last) == (number, last):
            return page
        start = number - (self._number - len(self._ring))
        events = list(itertools.islice(self._ring, start, start + BUNCH))
        leave = included(events) if brief else None
        text = b"".join(
            self._sent(event, number)
            for number, event in enumerate(events, number + 1)
            if leave is None or not leave(event)
        )
        page = self._pages[brief] = Page(number, last, text)
        return page

    async def _gather(self) -> None:
        """Wait until it is time for the next page, for all streams alike."""
        if self._gathering is None:
            self._gathering = asyncio.Event()
            asyncio.get_running_loop().call_later(self._pause_s, self._gathered)
        await self._gathering.wait()

    def _gathered(self) -> None:
        if self._gathering is not None:
            self._gathering.set()
            self._gathering = None

    def _known(self, last_event_id: str | None) -> int | None:
        """The number of the event with this id; the latest for no id, None for one of another life."""
        if not last_event_id:
            return self._number
        life, _, number = last_event_id.partition("-")
        if life == self._life and number.isascii() and number.isdigit() and len(number) < 19:
            return min(int(number), self._number)
        return None

    def _sent(self, event: Event, number: int) -> bytes:
        return b"%b%d\n%b%b\n\n" % (self._id, number, _kind(type(event)), encode(event))


def _size(event: Event) -> int:
    """About how many bytes an event keeps alive."""
    if type(event) in WORDY:
        return 500 + len(getattr(event, "call", "")) + len(getattr(event, "url", ""))
    return 500


@functools.cache
def _kind(kind: type[Event]) -> bytes:
    return b"event: %b\ndata: " % kind.__name__.encode()
