"""Follows one island: what is known of it, whether that is current, and the orders that it was given.

First it takes a snapshot, then events, then a snapshot whenever that may hold more than they do. It makes a
lost connection again. It draws nothing; it calls `changed` and `refused` when there is something to draw or
to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from skyisland.errors import CallNotFound, Forbidden, IslandError, Unauthorized
from skyisland.events import BuildFinished, Event, Gap, Pulse
from tui.watch.board import Board
from tui.watch.calls import CallRow
from tui.watch.connection import ConnectionState
from tui.watch.journal import Journal
from tui.watch.port import LinkLost, Others, Port, Snapshot
from tui.words import line

POLL_S = 2.0
"""The shortest time between two snapshots, and between two requests for log lines: as often as the pulse."""
SNAPSHOT_S = 10.0
"""The longest time between two snapshots. Each costs the island some milliseconds."""
_INCOMPLETE: tuple[type[Event], ...] = (BuildFinished, Gap)
"""Events that leave something out, which the next snapshot has: the artifact, and whatever was missed."""
MAX_HELD = 50_000
"""How many events a pause keeps, the newest: a minute or more of 100 calls a second."""
CONFIRM_S = 5.0
"""How long an order may wait for the event that confirms it. Most take milliseconds; a judgement."""


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
        """`clock`: the console's own, in seconds since the epoch. `changed`: called when the connection is
        lost or made. `refused`: called when the island wants another token."""
        self.port = port
        self.clock = clock
        self.board = Board()
        self.connection = ConnectionState()
        self.journal = Journal()
        self.poll_s = POLL_S
        self.snapshot_s = SNAPSHOT_S
        self.wants_log = False
        """A view shows log lines, so they are asked for at every poll."""
        self.wants_snapshots = False
        """A view shows what only snapshots have, so one is taken at every poll."""
        self.wants_names = False
        """A view shows names, which are in no snapshot, so they are asked for at every poll."""
        self.wants_calls = False
        """A view shows the calls that answer later, so they are asked for at every poll."""
        self.calls_fault = ""
        """Why the island did not tell them; empty if it did."""
        self._snapshot_due = False
        self._changed = changed
        self._refused = refused
        self._skew_s = 0.0
        """How much the island's clock is ahead of ours."""
        self._paused_at: float | None = None
        self._held: deque[Event | Snapshot] = deque(maxlen=MAX_HELD)
        self._retry = asyncio.Event()
        self._orders: list[tuple[Callable[[Event], bool], asyncio.Event]] = []
        """What confirms each order that is under way, and who waits for that."""
        self.board.watch(self._confirm)

    # Time

    @property
    def now(self) -> float:
        """The moment, by the island's clock, for which the board holds. It stops while paused or cut off."""
        if self._paused_at is not None:
            return self._paused_at
        if self.connection.state in ("down", "unauthorized") and self.connection.heard_at is not None:
            return self.connection.heard_at + self._skew_s
        return self.time

    @property
    def time(self) -> float:
        """The island's time of day; it never stops."""
        return self.clock() + self._skew_s

    @property
    def good(self) -> bool:
        """The data is current, and orders will reach the island."""
        return self.connection.good(self.clock())

    # Following

    async def follow(self) -> None:
        """Follow the island until cancelled. A lost connection is made again after a while, or on `retry`."""
        while True:
            self._retry.clear()
            wait_s: float | None = None
            try:
                self.receive(await self.port.snapshot())
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow_events())
                    group.create_task(self._poll())
            except* (Unauthorized, Forbidden) as refusals:
                self.connection.refused(line(_first(refusals)))
                self._refused()
            except* (LinkLost, IslandError) as losses:
                wait_s = self.connection.lost(line(_first(losses)), self.clock())
            self._changed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retry.wait(), wait_s)

    async def _follow_events(self) -> None:
        async for bunch in self.port.events():
            self.receive(bunch)
        raise LinkLost("the island ended the stream")

    async def _poll(self) -> None:
        since_snapshot_s = 0.0
        while True:
            await asyncio.sleep(self.poll_s)
            since_snapshot_s += self.poll_s
            due = self._snapshot_due or self.wants_snapshots or since_snapshot_s >= self.snapshot_s
            if due and not self.paused:
                since_snapshot_s, self._snapshot_due = 0.0, False
                self.receive(await self.port.snapshot())
            if self.board.node and not self.paused:
                await self.fetch_others()
            if self.wants_log:
                await self.fetch_log()
            if self.wants_names and not self.paused:
                await self.fetch_names()
            if self.wants_calls and not self.paused:
                await self.fetch_calls()

    async def fetch_others(self) -> None:
        """Take what the other islands of the fleet say. That they cannot be asked loses no connection.

        Raises:
            LinkLost, Unauthorized, Forbidden
        """
        try:
            self.board.others.take(await self.port.others())
        except (Unauthorized, Forbidden):
            raise
        except IslandError:
            self.board.others.take(Others({}, []))

    async def fetch_names(self) -> None:
        """Take the list of names.

        Raises:
            IslandError, LinkLost
        """
        self.board.load_names(await self.port.names())

    async def fetch_history(self, name: str) -> None:
        """Take what a name stood for.

        Raises:
            IslandError, LinkLost
        """
        self.board.histories[name] = await self.port.revisions(name)

    async def fetch_log(self) -> None:
        """Take the log lines that came since the last request.

        Raises:
            IslandError, LinkLost
        """
        self.journal.take(await self.port.logs(self.journal.last))

    async def fetch_calls(self) -> None:
        """Take the calls that answer later, and the results of those that were opened.

        Raises:
            IslandError, LinkLost
        """
        try:
            self.board.take_calls(await self.port.calls())
            self.calls_fault = ""
        except (Unauthorized, Forbidden):
            raise
        except IslandError as failure:  # it keeps none, or cannot read them: all else goes on
            self.calls_fault = line(str(failure))
        for row in list(self.board.calls.values()):
            if row.lacks_result:
                await self.fetch_result(row)

    async def fetch_result(self, row: CallRow) -> None:
        """Take a call with its result; one that is no longer kept stays as it was.

        Raises:
            IslandError, LinkLost
        """
        with contextlib.suppress(CallNotFound):
            row.take_result(await self.port.kept(row.id))

    def receive(self, news: Snapshot | Sequence[Event]) -> None:
        """Take a snapshot or some events; while paused they are kept for later."""
        was_live = self.connection.state == "live"
        self.connection.heard(self.clock())
        if isinstance(news, Snapshot):
            self._skew_s = news.at - self.clock()
            self._take(news)
        else:
            for event in news:
                self._snapshot_due = self._snapshot_due or isinstance(event, _INCOMPLETE)
                self._take(event)
        if not was_live:
            self._changed()

    def snapshot_soon(self) -> None:
        """Take a snapshot at the next poll."""
        self._snapshot_due = True

    def _take(self, news: Snapshot | Event) -> None:
        if not self.paused:
            self._apply(news)
        elif not isinstance(news, Pulse):  # there will be a newer one
            self._held.append(news)
            if isinstance(news, Event):
                self._confirm(news)

    def _apply(self, news: Snapshot | Event) -> None:
        if isinstance(news, Snapshot):
            self.board.load(news)
        else:
            self.board.fold(news)

    def retry(self) -> None:
        """Make a lost connection again at once."""
        self._retry.set()

    def authorize(self, token: str) -> None:
        """Use this token from now on."""
        self.port.authorize(token)
        self.retry()

    # Pausing

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    @property
    def held(self) -> Sequence[Event | Snapshot]:
        """What came during the pause, oldest first."""
        return self._held

    def pause(self) -> None:
        """Freeze the board."""
        self._paused_at = self.now

    def resume(self) -> None:
        """Take in what came during the pause."""
        self._paused_at = None
        held = list(self._held)
        self._held.clear()
        for news in held:
            self._apply(news)

    # Orders

    async def carry_out(self, confirms: Callable[[Event], bool], order: Awaitable[None]) -> str:
        """Give an order and wait for the event that confirms it.

        `confirms`: whether an event is that one. Returns the fault, in words; empty if all went well.
        """
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

    async def carry_out_elsewhere(self, order: Awaitable[None]) -> str:
        """Give an order to another island, whose events do not come here; returns the fault, in words."""
        try:
            await order
            await self.fetch_others()
        except (IslandError, LinkLost) as failure:
            return str(failure)
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
