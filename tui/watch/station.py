"""Where one island is watched from: what is known of it, whether that is true now, and orders to it.

A snapshot, then facts and a pulse, and again a snapshot when it is likely to tell more than they do. A line
that is lost is taken up again. Nothing here is drawn; `changed` and `refused` say when there is something to
draw, or to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from skyisland.errors import Forbidden, IslandError, Unauthorized
from skyisland.events import BuildFinished, Event, Gap, Pulse
from tui.watch.board import Board
from tui.watch.connection import Connection
from tui.watch.journal import Journal
from tui.watch.port import LinkLost, Port, Snapshot
from tui.words import line

POLL_S = 2.0
"""At least so long between two snapshots, and between two looks at the log."""
SNAPSHOT_S = 10.0
"""At most so long between two snapshots; each costs the island some milliseconds."""
_WHOLE_STORY: tuple[type[Event], ...] = (BuildFinished, Gap)
"""After these only a snapshot tells everything."""
HELD = 50_000
"""Facts that a pause keeps for later; of more, the newest."""
CONFIRM_S = 5.0
"""How long an order may wait for the event that confirms it."""


class Station:
    """An island behind a port, followed on the console's clock."""

    def __init__(
        self,
        port: Port,
        clock: Callable[[], float],
        *,
        changed: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        """`changed`: called when the line is lost or found. `refused`: when the island wants a token."""
        self.port = port
        self.clock = clock
        self.board = Board()
        self.connection = Connection()
        self.journal = Journal()
        self.poll_s = POLL_S
        self.reads_log = False
        """Somebody looks at log lines."""
        self.reads_closely = False
        """Somebody looks at what only snapshots tell."""
        self._due = False
        self._changed = changed
        self._refused = refused
        self._skew = 0.0
        self._stopped_at: float | None = None
        self._held: deque[Event | Snapshot] = deque(maxlen=HELD)
        self._again = asyncio.Event()
        self._orders: list[tuple[Callable[[Event], bool], asyncio.Event]] = []
        self.board.watch(self._confirm)

    # Time

    @property
    def now(self) -> float:
        """The island's time of what is known; it stands still while paused or cut off."""
        if self._stopped_at is not None:
            return self._stopped_at
        if self.connection.state in ("down", "unauthorized") and self.connection.heard_at is not None:
            return self.connection.heard_at + self._skew
        return self.time

    @property
    def time(self) -> float:
        """The island's time of day, whatever is shown."""
        return self.clock() + self._skew

    @property
    def good(self) -> bool:
        """What is known is of now, and an order will reach the island."""
        return self.connection.good(self.clock())

    # Following

    async def follow(self) -> None:
        """Snapshot, then facts, for ever; after a loss again, sooner or later or on `retry`."""
        while True:
            self._again.clear()
            wait: float | None = None
            try:
                self.receive(await self.port.snapshot())
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow_events())
                    group.create_task(self._poll())
            except* (Unauthorized, Forbidden) as refusals:
                self.connection.refused(line(_first(refusals)))
                self._refused()
            except* (LinkLost, IslandError) as losses:
                wait = self.connection.lost(line(_first(losses)), self.clock())
            self._changed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), wait)

    async def _follow_events(self) -> None:
        async for bunch in self.port.events():
            self.receive(bunch)
        raise LinkLost("the island ended the stream")

    async def _poll(self) -> None:
        age_s = 0.0
        while True:
            await asyncio.sleep(self.poll_s)
            age_s += self.poll_s
            if not self.paused and (self._due or self.reads_closely or age_s >= SNAPSHOT_S):
                age_s, self._due = 0.0, False
                self.receive(await self.port.snapshot())
            if self.reads_log:
                await self.fetch_log()

    async def fetch_log(self) -> None:
        """Take the lines that came since the last ones."""
        self.journal.take(await self.port.logs(self.journal.last))

    def receive(self, news: Snapshot | Sequence[Event]) -> None:
        """Take a snapshot or some facts; while paused they are kept for later."""
        was_live = self.connection.state == "live"
        self.connection.heard(self.clock())
        if isinstance(news, Snapshot):
            self._skew = news.at - self.clock()
            self._take(news)
        else:
            for event in news:
                self._due = self._due or isinstance(event, _WHOLE_STORY)
                self._take(event)
        if not was_live:
            self._changed()

    def look_again(self) -> None:
        """Take a snapshot at the next poll."""
        self._due = True

    def _take(self, news: Snapshot | Event) -> None:
        if not self.paused:
            self._know(news)
        elif not isinstance(news, Pulse):  # there will be a newer one
            self._held.append(news)
            if isinstance(news, Event):
                self._confirm(news)

    def _know(self, news: Snapshot | Event) -> None:
        if isinstance(news, Snapshot):
            self.board.load(news)
        else:
            self.board.fold(news)

    def retry(self) -> None:
        self._again.set()

    def authorize(self, token: str) -> None:
        self.port.authorize(token)
        self.retry()

    # Pausing

    @property
    def paused(self) -> bool:
        return self._stopped_at is not None

    def pause(self) -> None:
        """Let what is known stand still."""
        self._stopped_at = self.now

    def resume(self) -> None:
        """Take in what happened meanwhile."""
        self._stopped_at = None
        held = list(self._held)
        self._held.clear()
        for news in held:
            self._know(news)

    # Orders

    async def done(self, confirms: Callable[[Event], bool], order: Awaitable[None]) -> str:
        """Give an order and wait for the event that says it is done; returns what went wrong, or nothing."""
        arrived = asyncio.Event()
        entry = (confirms, arrived)
        self._orders.append(entry)
        try:
            await order
            await asyncio.wait_for(arrived.wait(), CONFIRM_S)
        except TimeoutError:
            return f"the island took it but has not confirmed it within {CONFIRM_S:.0f} s"
        except (IslandError, LinkLost) as failure:
            return str(failure)
        finally:
            self._orders.remove(entry)
        return ""

    def _confirm(self, event: Event) -> None:
        for confirms, arrived in self._orders:
            if confirms(event):
                arrived.set()


def _first(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
