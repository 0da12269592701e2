"""Figures of the calls that ended, each of a window of time that has a name. An empty window has no figures.

Rates, shares and the heat map count every call. Percentiles of phases come from a sample of the latest.
"""

from __future__ import annotations

import bisect
from collections import deque
from typing import NamedTuple

from skyisland.model import Phase, Verdict
from tui.watch.rows import InvocationRow

WINDOW_S = 60
"""The window of the figures: long enough for some calls of a quiet island, short enough to be about now."""
HISTORY_S = 240
"""How far back the sparklines and the heat map reach: one second a cell, on the widest terminal."""
SAMPLE = 1000
"""So many of the calls that ended last are kept for the percentiles of phases, and for what is usual."""

BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the buckets of a histogram; one more bucket takes the rest."""


class Second:
    """The calls that ended in one second."""

    __slots__ = ("_sorted", "cold", "counts", "errors", "totals")

    def __init__(self) -> None:
        self.totals: list[float] = []
        """Total time of each, in seconds."""
        self.counts = [0] * (len(BUCKETS_S) + 1)
        """How many of these fall into each of `BUCKETS_S` and beyond."""
        self.errors = 0
        self.cold = 0
        """Good ones whose binary had to be built."""
        self._sorted = 0

    def ordered(self) -> list[float]:
        """The totals, ascending."""
        if self._sorted != len(self.totals):
            self.totals.sort()
            self._sorted = len(self.totals)
        return self.totals


class Window(NamedTuple):
    """The calls that ended within `WINDOW_S`."""

    totals: list[float]
    """Total time of each, ascending, in seconds."""
    errors: int
    cold: int

    @property
    def calls(self) -> int:
        return len(self.totals)


def percentile(ordered: list[float], share: float) -> float | None:
    """The value below which `share` of the `ordered` values lie (nearest rank)."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Figures:
    """The calls that ended, as figures."""

    def __init__(self) -> None:
        self._seconds: dict[int, Second] = {}
        self._sample: deque[InvocationRow] = deque(maxlen=SAMPLE)

    def add(self, invocation: InvocationRow, at: float) -> None:
        """Count a call that ended `at` that time."""
        self._sample.append(invocation)
        second = self._seconds.setdefault(int(at), Second())
        second.totals.append(invocation.total_s)
        second.counts[bisect.bisect_right(BUCKETS_S, invocation.total_s)] += 1
        second.errors += invocation.verdict != Verdict.ok
        second.cold += invocation.verdict == Verdict.ok and not invocation.cached
        if len(self._seconds) > 2 * HISTORY_S:
            for old in sorted(self._seconds)[:HISTORY_S]:
                del self._seconds[old]

    def series(self, now: float, count: int) -> list[Second]:
        """The last `count` whole seconds, oldest first."""
        end = int(now)
        empty = Second()
        return [self._seconds.get(second, empty) for second in range(end - count, end)]

    def window(self, now: float) -> Window:
        """The last `WINDOW_S` and the second that has begun."""
        seconds = [
            second
            for at in range(int(now) - WINDOW_S, int(now) + 1)
            if (second := self._seconds.get(at)) is not None
        ]
        totals = [total for second in seconds for total in second.ordered()]
        totals.sort()
        return Window(totals, sum(s.errors for s in seconds), sum(s.cold for s in seconds))

    def sample(self, now: float) -> tuple[list[InvocationRow], float]:
        """The calls of the window, the newest of them where there are many; and how far back they reach."""
        rows = [row for row in self._sample if row.at + row.total_s >= now - WINDOW_S]
        whole = len(rows) < SAMPLE
        return rows, WINDOW_S if whole else now - min(row.at + row.total_s for row in rows)

    def heat(self, now: float, columns: int) -> tuple[list[list[int]], int]:
        """How many calls fall into each of `BUCKETS_S` and beyond, in `columns` spans of time, oldest first.

        The second value is the length of a span in seconds.
        """
        step = max(1, HISTORY_S // columns)
        series = self.series(now, columns * step)
        parts = [series[n : n + step] for n in range(0, len(series), step)]
        spans = [[sum(counts) for counts in zip(*(s.counts for s in part), strict=True)] for part in parts]
        return spans, step

    def usual_s(self, invocation: InvocationRow) -> float | None:
        """The median total of the same function's calls, of those that ran; None where none did."""
        totals = sorted(
            row.total_s for row in self._sample if row.named == invocation.named and Phase.exec in row.spent
        )
        return percentile(totals, 0.5)


def phase_times(rows: list[InvocationRow]) -> dict[Phase, list[float]]:
    """For each phase the times of the calls that went through it, ascending, in seconds."""
    times: dict[Phase, list[float]] = {phase: [] for phase in Phase}
    for invocation in rows:
        for phase, spent in invocation.spent.items():
            times[phase].append(spent)
    for values in times.values():
        values.sort()
    return times
