"""Following an island: pages of its events as they happen, and its pulse.

All who follow by the same `Watch` get their pages at the same moments and, if they keep up, the same `Page`
objects, so that what is made of a page (its text for the API) can be made once for all of them. The pulse is
taken only while somebody follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from skyisland.events import PULSE_S, Events, Page, Pulse

log = logging.getLogger(__name__)


class Watch:
    """All who follow the events of an island at one pace."""

    def __init__(
        self,
        events: Events,
        pulse: Callable[[], Awaitable[Pulse]],
        *,
        pause_s: float,
        pulse_s: float = PULSE_S,
    ) -> None:
        """`pause_s`: how long events gather after a page before there is another. The first event after a
        silence does not wait. `pulse`: takes the pulse, every `pulse_s` seconds."""
        self._ring = events.ring
        self._take_pulse = pulse
        self._pause_s, self._pulse_s = pause_s, pulse_s
        self._followers = 0
        self._pulse: Pulse | None = None
        """The latest."""
        self._beating: asyncio.Task[None] | None = None
        self._pausing: asyncio.Event | None = None
        """Set at the end of the pause that there is now."""
        self._closed = False

    async def follow(
        self, after: int | None = None, *, brief: bool = False
    ) -> AsyncGenerator[Page | Pulse, None]:
        """Events with numbers above `after`, or those that happen from now on, until `close`.

        `brief`: without what others of the same page make redundant. To be closed when done (`aclosing`).
        """
        ring, pulse = self._ring, self._pulse
        number = ring.number if after is None else after
        self._followers += 1
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        try:
            while not self._closed:
                if self._pulse is not None and self._pulse is not pulse:
                    pulse = self._pulse
                    yield pulse
                elif number < ring.number:
                    page = ring.page(number, brief=brief)
                    number = page.last
                    behind = number < ring.number
                    if page.events:
                        yield page
                    if not behind:
                        await self._pause()
                else:
                    await ring.news()
        finally:
            self._followers -= 1
            if not self._followers:
                self._beating.cancel()
                self._beating = None

    def close(self) -> None:
        """End it for all who follow, at once; may be repeated."""
        self._closed = True
        self._ring.wake()
        self._end_pause()

    async def _beat(self) -> None:
        """Take the pulse; it is also a sign of life where nothing happens."""
        while True:
            await asyncio.sleep(self._pulse_s)
            try:
                self._pulse = await self._take_pulse()
            except Exception:
                log.exception("the island has no pulse")
            else:
                self._ring.wake()

    async def _pause(self) -> None:
        """Wait for the end of the pause, which is the same for all."""
        if self._pausing is None:
            self._pausing = asyncio.Event()
            asyncio.get_running_loop().call_later(self._pause_s, self._end_pause)
        await self._pausing.wait()

    def _end_pause(self) -> None:
        if self._pausing is not None:
            self._pausing.set()
            self._pausing = None
