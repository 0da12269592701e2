"""Calls counted by function and over windows of time (`skyisland.figures` has the shapes).

A call is added to one tally of its function and one of the whole island: some increments and two look-ups.
All else (sums of windows, percentiles) is made when somebody asks, or when a bin of five seconds is over.

Strangers choose the names of functions, so there are rows for `FUNCTIONS` that ran and `TRIED` that never
did; the rest are counted together as `other`. A row is given up for another when it was idle for an hour, or,
of those that never ran, at once. A tally has a fixed size, so all of it takes some 25 MB at the most.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from itertools import accumulate
from math import ceil
from operator import add, sub

from skyisland.cause import CANCELLED
from skyisland.errors import FunctionNotFound
from skyisland.events import Events, InvocationFinished
from skyisland.figures import (
    BINS,
    NAMES,
    OTHER,
    Figures,
    FunctionFigures,
    Heat,
    Report,
    Slo,
    Window,
    function_id,
    title,
)
from skyisland.model import Verdict

FUNCTIONS = 200
"""Rows of functions that ran. A judgement: more are on no screen, and a snapshot of them takes 150 KB."""
TRIED = 50
"""Rows of functions that never ran: their calls or builds fail."""
KINDS = 8
"""Kinds of errors that a tally tells apart; the rest are `other`."""
BUCKETS_PER_OCTAVE = 4
OCTAVES = 22
BOUNDS_S = tuple(
    0.00025 * 2 ** (step / BUCKETS_PER_OCTAVE) for step in range(1, BUCKETS_PER_OCTAVE * OCTAVES + 1)
)
"""Upper bounds of the buckets, from a quarter of a millisecond to seventeen minutes."""
_MIDDLE = 2 ** (-0.5 / BUCKETS_PER_OCTAVE)
SHORTEST_BIN_S = Window.five_minutes.bin_s
FRESH_S = 1.0
"""A report is made anew after so long, for its window moves on; of few rows also when a call has ended."""
FEW = 20
"""Of so many rows a report takes a millisecond, of all some ten."""

_RAN = frozenset(map(str, Verdict))


class Tally:
    """What was counted of some calls."""

    __slots__ = (
        "built",
        "calls",
        "cold",
        "errors",
        "longest_s",
        "ran",
        "reasons",
        "slow",
        "spent_s",
        "times",
    )

    def __init__(self) -> None:
        self.calls = self.errors = self.ran = self.cold = self.built = self.slow = 0
        self.spent_s = self.longest_s = 0.0
        self.times = array("I", bytes(4 * (len(BOUNDS_S) + 1)))
        self.reasons: dict[str, int] = {}

    def count(self, end: InvocationFinished, slo_s: float) -> None:
        """Add one call."""
        self.calls += 1
        verdict = end.verdict
        if verdict in _RAN:
            total_s = end.timings.total_s
            self.ran += 1
            self.spent_s += total_s
            if total_s > self.longest_s:
                self.longest_s = total_s
            self.times[bisect_left(BOUNDS_S, total_s)] += 1
            if not end.warm:
                self.cold += 1
                if not end.cached:
                    self.built += 1
            if total_s > slo_s:
                self.slow += 1
            if verdict == "ok":
                return
        elif verdict == CANCELLED:
            return
        self.errors += 1
        self._add_reason(end.cause.kind if end.cause else verdict, 1)

    def _add_reason(self, kind: str, count: int) -> None:
        reasons = self.reasons
        if kind not in reasons and len(reasons) >= KINDS:
            kind = OTHER
        reasons[kind] = reasons.get(kind, 0) + count

    def add(self, other: Tally) -> None:
        self._combine(other, 1)
        self.longest_s = max(self.longest_s, other.longest_s)
        self.times = array("I", map(add, self.times, other.times))

    def subtract(self, other: Tally) -> None:
        self._combine(other, -1)
        self.times = array("I", map(sub, self.times, other.times))

    def _combine(self, other: Tally, sign: int) -> None:
        self.calls += sign * other.calls
        self.errors += sign * other.errors
        self.ran += sign * other.ran
        self.cold += sign * other.cold
        self.built += sign * other.built
        self.slow += sign * other.slow
        self.spent_s += sign * other.spent_s

    def percentiles(self, longest_s: float, *shares: float) -> tuple[float | None, ...]:
        """The times below which these shares of the calls lie, as middles of buckets; None without any.

        `longest_s`: the longest of them, which a sum cannot tell once something was subtracted.
        """
        if not self.ran:
            return (None,) * len(shares)
        risen = list(accumulate(self.times))
        buckets = (bisect_left(risen, max(1, ceil(share * risen[-1]))) for share in shares)
        middles = (BOUNDS_S[min(bucket, len(BOUNDS_S) - 1)] * _MIDDLE for bucket in buckets)
        return tuple(min(middle, longest_s) for middle in middles)


class Series:
    """The tallies of a window's bins, with their sum. Only bins with a call take memory."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.seconds, self.bin_s = window.seconds, window.bin_s
        self._percentiles: tuple[float | None, ...] = (None, None, None)
        self._changed = False
        """Since they were worked out."""
        self._bins: deque[tuple[int, Tally]] = deque()
        self._sum = Tally()

    def put(self, at: int, tally: Tally) -> None:
        """Add what was counted at the time `at`."""
        number = at // self.bin_s
        if not self._bins or self._bins[-1][0] < number:
            self._bins.append((number, Tally()))
        last = self._bins[-1][1]
        for into in (last, self._sum):
            into.add(tally)
        for kind, count in tally.reasons.items():
            last._add_reason(kind, count)
        self._changed = True

    def expire(self, now: float) -> None:
        """Forget the bins that the window has left."""
        oldest = int(now) // self.bin_s - BINS + 1
        while self._bins and self._bins[0][0] < oldest:
            _, tally = self._bins.popleft()
            self._sum.subtract(tally)
            self._changed = True

    def percentiles(self, now: float) -> tuple[float | None, ...]:
        """The median, the 95th and the 99th of the times in it."""
        self.expire(now)
        if self._changed:
            longest_s = max((tally.longest_s for _, tally in self._bins), default=0.0)
            self._percentiles = self._sum.percentiles(longest_s, 0.5, 0.95, 0.99)
            self._changed = False
        return self._percentiles

    def figures(self, now: float, started_at: float, *, heat: bool) -> Figures:
        """Of the window that ends now. `started_at`: nothing was counted before."""
        p50_s, p95_s, p99_s = self.percentiles(now)
        total, bin_s = self._sum, self.bin_s
        # The bin of this moment has only begun.
        window_s = min(self.seconds - bin_s + now % bin_s, max(1.0, now - started_at))
        if not self._bins:
            return Figures(window=self.window, window_s=window_s, bin_s=bin_s)
        newest = int(now) // bin_s
        counts, failures = [0] * BINS, [0] * BINS
        reasons = Tally()
        for number, tally in self._bins:
            place = min(number - newest, 0) - 1
            counts[place] += tally.calls
            failures[place] += tally.errors
            for kind, count in tally.reasons.items():
                reasons._add_reason(kind, count)
        return Figures(
            window=self.window,
            window_s=window_s,
            bin_s=bin_s,
            calls=total.calls,
            rate=total.calls / window_s,
            errors=total.errors,
            reasons=_most_first(reasons.reasons),
            ran=total.ran,
            cold=total.cold,
            built=total.built,
            slow=total.slow,
            error_share=total.errors / total.calls if total.calls else None,
            cold_share=total.cold / total.ran if total.ran else None,
            p50_s=p50_s,
            p95_s=p95_s,
            p99_s=p99_s,
            counts=counts,
            failures=failures,
            heat=self._heat(newest) if heat else None,
        )

    def _heat(self, newest: int) -> Heat:
        columns: list[list[int]] = [[] for _ in range(BINS)]
        for number, tally in self._bins:
            times = tally.times
            octaves = [sum(times[start : start + BUCKETS_PER_OCTAVE]) for start in _OCTAVES]
            columns[min(number - newest, 0) - 1] = octaves
        return Heat(bounds_s=list(BOUNDS_S[BUCKETS_PER_OCTAVE - 1 :: BUCKETS_PER_OCTAVE]), counts=columns)


_OCTAVES = range(0, len(BOUNDS_S) + 1, BUCKETS_PER_OCTAVE)


def _most_first(reasons: dict[str, int]) -> dict[str, int]:
    return dict(sorted(reasons.items(), key=lambda one: -one[1]))


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
            for kind, count in self._tally.reasons.items():
                self.since_start._add_reason(kind, count)
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
            reasons=_most_first(whole.reasons),
            ran=whole.ran,
            cold=whole.cold,
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
        if end.verdict in _RAN:
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
