"""The event stream of the API: what a `Watch` gives, as server-sent events (text/event-stream).

Each page is written once, for all streams that keep up. An event's id is `<life>-<number>`: a client that
comes back with the last id it saw goes on from there, as long as the ring remembers and the island lives. A
pulse has no id: nobody wants an old one.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from skyisland.codec import encode
from skyisland.errors import TooBusy
from skyisland.events import PULSE_S, Event, Events, Gap, Page, Pulse
from skyisland.watching import Watch

PAUSE_S = 0.5
"""Between two pages: each costs the island part of a millisecond per stream, however little is on it."""


class Feed:
    """All open streams of an island."""

    def __init__(
        self,
        events: Events,
        pulse: Callable[[], Awaitable[Pulse]],
        *,
        streams: int = 32,
        pulse_s: float = PULSE_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`streams`: how many may be open. The others as in `Watch`."""
        self._ring = events.ring
        self._watch = Watch(events, pulse, pause_s=pause_s, pulse_s=pulse_s)
        self._streams = streams
        self._life = secrets.token_hex(4)
        self._id = f"id: {self._life}-".encode()
        self._open = 0
        self._written: dict[bool | None, tuple[Page | Pulse, bytes]] = {}
        """The latest whole page, brief page and (None) pulse, each with its text."""

    @property
    def last_id(self) -> str:
        """The id of the latest event."""
        return f"{self._life}-{self._ring.number}"

    @property
    def open_streams(self) -> int:
        return self._open

    def open(self, last_event_id: str | None = None, *, brief: bool = False) -> AsyncGenerator[bytes, None]:
        """A stream of what happens from now on, or after `last_event_id`.

        `brief`: without the events that others of the same page make redundant.

        Raises:
            TooBusy: too many streams are open.
        """
        if self._full:
            raise TooBusy(f"{self._open} event streams are open; close one", retry_after_s=5)
        return self._stream(last_event_id, brief)

    @property
    def _full(self) -> bool:
        return self._open >= self._streams

    def close(self) -> None:
        """End all streams at once; may be repeated."""
        self._watch.close()

    async def _stream(self, last_event_id: str | None, brief: bool) -> AsyncGenerator[bytes, None]:
        if self._full:  # others may have come between `open` and this first step
            return
        self._open += 1
        try:
            number = self._number_of(last_event_id)
            yield b"retry: 1000\n\n"
            if number is None:
                number = self._ring.number
                yield self._event(number, Gap(missed=0))
            async with aclosing(self._watch.follow(number, brief=brief)) as news:
                async for item in news:
                    yield self._text(item, brief)
        finally:
            self._open -= 1

    def _number_of(self, event_id: str | None) -> int | None:
        """The number of the event with this id; of the latest without an id, None for one of another life."""
        if not event_id:
            return self._ring.number
        life, _, number = event_id.partition("-")
        if life == self._life and number.isascii() and number.isdigit() and len(number) < 19:
            return min(int(number), self._ring.number)
        return None

    def _text(self, item: Page | Pulse, brief: bool) -> bytes:
        kind = None if isinstance(item, Pulse) else brief
        if kind not in self._written or self._written[kind][0] is not item:
            self._written[kind] = item, self._write(item)
        return self._written[kind][1]

    def _write(self, item: Page | Pulse) -> bytes:
        if isinstance(item, Pulse):
            return _field(Pulse) + encode(item) + b"\n\n"
        return b"".join(self._event(number, event) for number, event in item.events.items())

    def _event(self, number: int, event: Event) -> bytes:
        return b"%b%d\n%b%b\n\n" % (self._id, number, _field(type(event)), encode(event))


@functools.cache
def _field(kind: type[Event]) -> bytes:
    return b"event: %b\ndata: " % kind.__name__.encode()
