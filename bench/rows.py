"""From samples of several rounds to rows: values, ratio, target and verdict."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from bench.cpu import Meter

Slice = Callable[[], list[float]]
"""One measurement; returns the milliseconds of each call."""


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table."""

    figure: str
    """The figure's number, and a letter if it has several lines: `1a`."""
    what: str
    ours: str
    peer: str = ""
    peer_name: str = ""
    ratio: float | None = None
    low: float | None = None
    """The least ratio of a round; `high` is the greatest."""
    high: float | None = None
    target: str = ""
    """`≤ 0.85`; empty if the row has no target."""
    hit: bool | None = None
    note: str = ""


def percentile(times: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the least sample that `share` of all do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def p50(times: Sequence[float]) -> float:
    return statistics.median(times)


def p99(times: Sequence[float]) -> float:
    return percentile(times, 0.99)


class Way(Struct, frozen=True, kw_only=True):
    """How one party runs the binary and is measured."""

    measure: Slice
    meter: Meter | None = None
    """Counts the CPU time of the party."""
    settle: Callable[[], None] = lambda: None
    """Waits for the work that calls leave behind: it is counted as theirs, and disturbs nobody else."""


class Samples(Struct, frozen=True):
    """The measurements of one party, by round."""

    times: list[list[float]] = []
    cpu_ms: list[float] = []
    """CPU time per call; empty if it is not counted."""

    @property
    def all(self) -> list[float]:
        return [time for times in self.times for time in times]


def interleave(ways: Mapping[str, Way], rounds: int) -> dict[str, Samples]:
    """Measure every party once per round, so that a disturbance of the machine reaches all.

    The order rotates from round to round, so that no party always follows the same other.
    """
    names = list(ways)
    by_name = {name: Samples() for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            way, samples = ways[name], by_name[name]
            before = way.meter.now_ms() if way.meter else 0.0
            times = way.measure()
            way.settle()
            samples.times.append(times)
            if way.meter and way.meter.counts:
                samples.cpu_ms.append((way.meter.now_ms() - before) / len(times))
    return by_name


def compare(ours: Sequence[float], peer: Sequence[float]) -> tuple[float, float, float]:
    """The ratio of each round: median, least, greatest."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def row(
    figure: str,
    what: str,
    ours: Samples,
    peer: Samples,
    peer_name: str,
    *,
    at_most: float | None = None,
    tail: bool = False,
    note: str = "",
) -> Row:
    """Compare medians or, with `tail`, the p99 of all rounds together: one round has too few calls."""
    of = p99 if tail else p50
    low: float | None = None
    high: float | None = None
    if tail:
        ratio = p99(ours.all) / p99(peer.all)
    else:
        ratio, low, high = compare([p50(times) for times in ours.times], [p50(times) for times in peer.times])
    return Row(
        figure=figure,
        what=what,
        ours=ms(of(ours.all)),
        peer=ms(of(peer.all)),
        peer_name=peer_name,
        ratio=ratio,
        low=low,
        high=high,
        target="" if at_most is None else f"≤ {at_most:g}",
        hit=None if at_most is None else ratio <= at_most,
        note=note,
    )


def cpu_row(figure: str, what: str, ours: Samples, peer: Samples, peer_name: str) -> list[Row]:
    """A row of the CPU time of a call, with all work that it causes; no row if it is not counted."""
    if not (ours.cpu_ms and peer.cpu_ms):
        return []
    ratio, low, high = compare(ours.cpu_ms, peer.cpu_ms)
    mine, theirs = statistics.median(ours.cpu_ms), statistics.median(peer.cpu_ms)
    return [
        Row(
            figure=figure,
            what=what,
            ours=ms(mine),
            peer=ms(theirs),
            peer_name=peer_name,
            ratio=ratio,
            low=low,
            high=high,
            note="CPU time",
        )
    ]


def ms(time: float) -> str:
    return f"{time:.2f} ms"


def raw(samples_of: Mapping[str, Samples]) -> dict[str, Any]:
    """The numbers that the results store: counts and percentiles, per party and round."""
    return {
        name: {
            "samples": len(samples.all),
            "p5_ms": round(percentile(samples.all, 0.05), 3),
            "p50_ms": round(p50(samples.all), 3),
            "p95_ms": round(percentile(samples.all, 0.95), 3),
            "p99_ms": round(p99(samples.all), 3),
            "p50_ms_by_round": [round(p50(times), 3) for times in samples.times],
            "cpu_ms_by_round": [round(spent, 3) for spent in samples.cpu_ms],
        }
        for name, samples in samples_of.items()
    }
