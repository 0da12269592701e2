"""What a measurement says: rows with a ratio, its target and the verdict, from samples of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

Slice = Callable[[], list[float]]
"""Measures for a moment; returns milliseconds per call."""


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table."""

    figure: str
    """Number in the list of promises, with a letter where there is more than one line: `1a`."""
    what: str
    ours: str
    peer: str = ""
    peer_name: str = ""
    ratio: float | None = None
    low: float | None = None
    """Least and greatest ratio of a round."""
    high: float | None = None
    target: str = ""
    """`≤ 0.85`; empty for what is reported and has no target."""
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


def interleave(ways: Mapping[str, Slice], rounds: int) -> dict[str, list[list[float]]]:
    """Every way once per round, so that whatever disturbs the machine disturbs all; times by round.

    The order turns by one from round to round: nobody always follows the same one.
    """
    names = list(ways)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(ways[name]())
    return found


def all_of(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [time for times in rounds for time in times]


def compare(
    ours: Sequence[Sequence[float]],
    peer: Sequence[Sequence[float]],
    of: Callable[[Sequence[float]], float] = p50,
) -> tuple[float, float, float]:
    """The ratio of each round: median, least, greatest."""
    ratios = [of(mine) / of(theirs) for mine, theirs in zip(ours, peer, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def row(
    figure: str,
    what: str,
    ours: Sequence[Sequence[float]],
    peer: Sequence[Sequence[float]],
    peer_name: str,
    *,
    at_most: float | None = None,
    of: Callable[[Sequence[float]], float] = p50,
    note: str = "",
) -> Row:
    """A row of times against a peer's, by round. Tails are taken over all rounds: one has too few."""
    if of is p50:
        ratio, low, high = compare(ours, peer)
    else:
        ratio = of(all_of(ours)) / of(all_of(peer))
        low = high = None
    return Row(
        figure=figure,
        what=what,
        ours=ms(of(all_of(ours))),
        peer=ms(of(all_of(peer))),
        peer_name=peer_name,
        ratio=ratio,
        low=low,
        high=high,
        target="" if at_most is None else f"≤ {at_most:g}",
        hit=None if at_most is None else ratio <= at_most,
        note=note,
    )


def ms(time: float) -> str:
    return f"{time:.2f} ms"


def raw(samples: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Of samples what the results keep: counts and percentiles, per way and round."""
    return {
        name: {
            "samples": sum(map(len, rounds)),
            "p5_ms": round(percentile(all_of(rounds), 0.05), 3),
            "p50_ms": round(p50(all_of(rounds)), 3),
            "p95_ms": round(percentile(all_of(rounds), 0.95), 3),
            "p99_ms": round(p99(all_of(rounds)), 3),
            "p50_ms_by_round": [round(p50(times), 3) for times in rounds],
        }
        for name, rounds in samples.items()
    }
