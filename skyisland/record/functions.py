"""Calls counted by function and over windows of time (`skyisland.figures` has the shapes).

A call is added to one tally of its function and one of the whole island: some increments and two look-ups.
All else (sums of windows, percentiles) is made when somebody asks, or when a bin of five seconds is over.

Strangers choose the names of functions, so there are rows for `FUNCTIONS` that ran and `TRIED` that never
did; the rest are counted together as `other`. A row is given up for another when it was idle for an hour, or,
of those that never ran, at once. A tally has a fixed size, so all of it takes some 25 MB at the most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from skyisland.cause import CANCELLED
from skyisland.errors import FunctionNotFound
from skyisland.events import Events, InvocationFinished
from skyisland.figures import (
    NAMES,
    OTHER,
    Figures,
    FunctionFigures,
    Report,
    Slo,
    Window,
    function_id,
    title,
)
from skyisland.record.tallies import RAN, Series, Tally, most_first

FUNCTIONS = 200
"""Rows of functions that ran. A judgement: more are on no screen, and a snapshot of them takes 150 KB."""
TRIED = 50
"""Rows of functions that never ran: their calls or builds fail."""
SHORTEST_BIN_S = Window.five_minutes.bin_s
FRESH_S = 1.0
"""A report is made anew after so long, for its window moves on; of few rows also when a call has ended."""
FEW = 20
"""Of so many rows a report takes a millisecond, of all some ten."""


class Counted:
    """The calls of one function, or of the whole island."""

    def __init__(self, slo_s: float, key: tuple[str, str, str] = ("", "", OTHER)) -> None:
        self.key = key
        self.id = function_id(*key) if key[0] else OTHER
        self.slo_s = slo_s
        self.since_start = Tally()
        self.last_at = 0.0
        self.last_error = ""
        self.last_error_at: float | None = None
        self.last_failed: str | None = None
        self._tally = Tally()
        """Of the bin of `_at`."""
        self._at = 0
        """When that began: seconds since the epoch."""
        self._series = {window: Series(window) for window in Window}

    def count(self, end: InvocationFinished, slo_s: float) -> None:
        at = int(end.at)
        if at - self._at >= SHORTEST_BIN_S or at < self._at:
            self.close_bin()
            self._at = at - at % SHORTEST_BIN_S
        self._tally.count(end, slo_s)
        self.last_at = end.at
        if end.verdict not in _WELL:
            self.last_error = end.cause.text if end.cause else end.verdict
            self.last_error_at, self.last_failed = end.at, end.invocation

    def close_bin(self) -> None:
        """Put what was counted into the windows."""
        if self._tally.calls:
            for series in self._series.values():
                series.put(self._at, self._tally)
                series.expire(self._at)
            self.since_start.add(self._tally)
            self.since_start.add_reasons(self._tally.reasons)
            self._tally = Tally()

    def forget_start(self) -> None:
        """All until now was of an earlier life."""
        self.close_bin()
        self.since_start = Tally()

    def figures(self, window: Window, now: float, started_at: float, *, heat: bool = False) -> Figures:
        self.close_bin()
        return self._series[window].figures(now, started_at, heat=heat)

    def of_function(
        self, window: Window, now: float, started_at: float, *, heat: bool = False
    ) -> FunctionFigures:
        recent = self.figures(window, now, started_at, heat=heat)
        whole = self.since_start
        repository, package, name = self.key
        return FunctionFigures(
            id=self.id,
            repository=repository,
            package=package,
            name=name,
            slo_s=self.slo_s,
            last_at=self.last_at,
            usual_s=self._series[Window.hour].percentiles(now)[0],
            calls=whole.calls,
            errors=whole.errors,
            reasons=most_first(whole.reasons),
            ran=whole.ran,
            cold=whole.cold,
            kept=whole.kept,
            spent_s=whole.spent_s,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
            last_failed=self.last_failed,
            recent=recent,
        )


_WELL = ("ok", CANCELLED)


class Functions:
    """Every call of the island, counted."""

    def __init__(self, events: Events, slo: Slo, clock: Callable[[], float] = time.time) -> None:
        self.slo = slo
        self._targets: dict[str, float] = {}
        """Of functions with a name, in seconds."""
        self._clock = clock
        self._started_at = clock()
        self._every = Counted(slo.target_s)
        self._other = Counted(slo.target_s)
        self._ran: dict[tuple[str, str, str], Counted] = {}
        self._tried: dict[tuple[str, str, str], Counted] = {}
        self._full_until = 0.0
        """No row of `_ran` is given up before."""
        self._counted = 0
        self._reports: dict[Window, tuple[int, Report]] = {}
        """The latest of each window, with how many calls had been counted."""
        events.tap(self.count, InvocationFinished)

    def recall(self, ends: Iterable[InvocationFinished]) -> None:
        """Take in what ended in an earlier life, oldest first: it counts in windows and as a last error."""
        for end in ends:
            self._started_at = min(self._started_at, end.at)
            self.count(end)
        for counted in (self._every, self._other, *self._ran.values(), *self._tried.values()):
            counted.forget_start()

    def count(self, end: InvocationFinished) -> None:
        """Count one call."""
        row = self._row(end)
        row.count(end, row.slo_s)
        self._every.count(end, row.slo_s)
        self._counted += 1

    def _row(self, end: InvocationFinished) -> Counted:
        key = end.row
        if not key[0] or not key[2]:
            return self._other
        row = self._ran.get(key)
        if row is not None:
            return row
        row = self._tried.get(key)
        if end.verdict in RAN:
            if not self._has_room(end.at):
                return row or self._other
            self._tried.pop(key, None)
            row = self._ran[key] = row or self._new(key)
        elif row is None:
            if len(self._tried) >= TRIED:
                del self._tried[next(iter(self._tried))]
            row = self._tried[key] = self._new(key)
        return row

    def _new(self, key: tuple[str, str, str]) -> Counted:
        return Counted(self._slo_of(key), key)

    def aim(self, named: str, target_s: float | None) -> None:
        """Calls of this name are slow from now on beyond `target_s`; None for the settings' target."""
        self._targets.pop(named, None)
        if target_s is not None:
            self._targets[named] = target_s
        for rows in (self._ran, self._tried):
            if (row := rows.get((NAMES, "", named))) is not None:
                row.slo_s = self._slo_of(row.key)

    def _slo_of(self, key: tuple[str, str, str]) -> float:
        own = self._targets.get(key[2]) if key[0] == NAMES else None
        return self.slo.of(title(*key)) if own is None else own

    def _has_room(self, at: float) -> bool:
        """Whether one more function that ran may have a row; gives up one that was idle for long."""
        if len(self._ran) < FUNCTIONS:
            return True
        if at < self._full_until:
            return False
        key, idlest = min(self._ran.items(), key=lambda one: one[1].last_at)
        self._full_until = idlest.last_at + Window.hour.seconds
        if at < self._full_until:
            return False
        del self._ran[key]
        return True

    def report(self, window: Window = Window.five_minutes) -> Report:
        """The whole island, and each function that has a row."""
        now = self._clock()
        rows = [*self._ran.values(), *self._tried.values()]
        counted, latest = self._reports.get(window, (-1, None))
        fresh = latest is not None and 0 <= now - latest.at < FRESH_S
        if latest is not None and fresh and (counted == self._counted or len(rows) > FEW):
            return latest
        told = [row.of_function(window, now, self._started_at) for row in rows]
        told.sort(key=lambda one: (-one.recent.calls, -one.last_at))
        if self._other.last_at:
            told.append(self._other.of_function(window, now, self._started_at))
        every = self._every.figures(window, now, self._started_at, heat=True)
        latest = Report(at=now, every=every, functions=told)
        self._reports[window] = self._counted, latest
        return latest

    def function(self, function: str, window: Window = Window.five_minutes) -> FunctionFigures:
        """One of them, by its id or title, with its latency over time.

        Raises:
            FunctionNotFound
        """
        for row in (*self._ran.values(), *self._tried.values(), self._other):
            if function in (row.id, title(*row.key)):
                return row.of_function(window, self._clock(), self._started_at, heat=True)
        raise FunctionNotFound(
            f"no function {function!r} was called of late; `top` lists those that were", function=function
        )
