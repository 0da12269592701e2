"""What was counted of calls: a tally of some, a series of tallies for a window of time.

Times go into buckets, of which four double the time: so a tally has a fixed size whatever it counted, tallies
can be added and subtracted, and percentiles are within a tenth.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from itertools import accumulate
from math import ceil
from operator import add, sub

from skyisland.cause import CANCELLED
from skyisland.events import InvocationFinished
from skyisland.figures import BINS, OTHER, Figures, Heat, Window
from skyisland.model import Verdict

KINDS = 8
"""Kinds of errors that a tally tells apart; the rest are `other`."""
BUCKETS_PER_OCTAVE = 4
OCTAVES = 22
BOUNDS_S = tuple(
    0.00025 * 2 ** (step / BUCKETS_PER_OCTAVE) for step in range(1, BUCKETS_PER_OCTAVE * OCTAVES + 1)
)
"""Upper bounds of the buckets, from a quarter of a millisecond to seventeen minutes."""
_MIDDLE = 2 ** (-0.5 / BUCKETS_PER_OCTAVE)

RAN = frozenset(map(str, Verdict))
"""How a call ends that ran in a jail."""


class Tally:
    """What was counted of some calls."""

    __slots__ = (
        "built",
        "calls",
        "cold",
        "errors",
        "kept",
        "longest_s",
        "ran",
        "reasons",
        "slow",
        "spent_s",
        "times",
    )

    def __init__(self) -> None:
        self.calls = self.errors = self.ran = self.cold = self.built = self.slow = self.kept = 0
        self.spent_s = self.longest_s = 0.0
        self.times = array("I", bytes(4 * (len(BOUNDS_S) + 1)))
        self.reasons: dict[str, int] = {}

    def count(self, end: InvocationFinished, slo_s: float) -> None:
        """Add one call."""
        self.calls += 1
        verdict = end.verdict
        if verdict in RAN:
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
            elif verdict == "ok":
                self.kept += 1
            if verdict == "ok":
                return
        elif verdict == CANCELLED:
            return
        self.errors += 1
        self._add_reason(end.cause.kind if end.cause else verdict, 1)

    def add_reasons(self, counts: Mapping[str, int]) -> None:
        """Add counts of errors by their kind."""
        for kind, count in counts.items():
            self._add_reason(kind, count)

    def _add_reason(self, kind: str, count: int) -> None:
        reasons = self.reasons
        if kind not in reasons and len(reasons) >= KINDS:
            kind = OTHER
        reasons[kind] = reasons.get(kind, 0) + count

    def add(self, other: Tally) -> None:
        """Add all but the kinds of errors."""
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
        self.kept += sign * other.kept
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
        last.add_reasons(tally.reasons)
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
            reasons.add_reasons(tally.reasons)
        return Figures(
            window=self.window,
            window_s=window_s,
            bin_s=bin_s,
            calls=total.calls,
            rate=total.calls / window_s,
            errors=total.errors,
            reasons=most_first(reasons.reasons),
            ran=total.ran,
            cold=total.cold,
            built=total.built,
            slow=total.slow,
            kept=total.kept,
            kept_share=total.kept / total.ran if total.ran else None,
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


def most_first(reasons: Mapping[str, int]) -> dict[str, int]:
    """Counts by kind, the largest first."""
    return dict(sorted(reasons.items(), key=lambda one: -one[1]))
