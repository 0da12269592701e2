"""Figures 1, 2, 3 and 5: the island and its peers running the same binary."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench import peers
from bench.cpu import Meter
from bench.load import Http, paced
from bench.rows import Row, Slice, Way, compare, cpu_row, interleave, p50, raw, row
from bench.stand import GEOHASH, Stand

RATE = 50.0
"""Calls in a second of a paced client: the pool has been refilled before the next one comes."""
CLIENTS = 8
TAIL = 10
"""A call that takes so many times the median is a slow one."""

Found = tuple[list[Row], dict[str, Any]]
"""Rows, and what the results keep beside them."""


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    calls: int
    """Per way and round."""
    containers: int
    """runc is slow; it gets so many per round."""
    burst: int
    """Calls of 8 clients per round."""


QUICK = Effort(rounds=5, calls=50, containers=10, burst=600)
FULL = Effort(rounds=9, calls=100, containers=20, burst=2000)


class Field(Struct, frozen=True, kw_only=True):
    """All who take part, ready and warm, and who counts their CPU time."""

    stand: Stand
    binary: Path
    forkserver: Http
    bare: Callable[[], float]
    bwrap: Callable[[], float]
    runc: Callable[[], float] | None
    no_runc: str
    meters: dict[str, Meter]

    def island(self, measure: Slice) -> Way:
        return Way(measure=measure, meter=self.meters["island"], settle=self.stand.settle)

    def forked(self, measure: Slice) -> Way:
        return Way(measure=measure, meter=self.meters["forkserver"])

    def spawned(self, call: Callable[[], float], count: int, rate: float) -> Way:
        """A program that the bench itself starts."""
        return Way(measure=lambda: paced(call, count, rate), meter=self.meters["bench"])


@contextmanager
def field(stand: Stand) -> Iterator[Field]:
    """Peers around an island that runs."""
    binary = stand.binary()
    runc, reason = peers.runc(binary, stand.folder)
    with peers.forkserver(stand, binary) as (pid, server), ExitStack() as meters:
        # The bench comes first: the others are below it, and leave its group for their own.
        parties = (("bench", os.getpid()), ("island", stand.pid), ("forkserver", pid))
        found = Field(
            stand=stand,
            binary=binary,
            forkserver=server,
            bare=peers.bare(binary),
            bwrap=peers.bwrap(binary, stand.base),
            runc=runc,
            no_runc=reason,
            meters={name: meters.enter_context(Meter(name, process)) for name, process in parties},
        )
        for one in (found.bare, found.bwrap):
            paced(one, 20, 1000)
        server.closed(50)
        stand.http().closed(50)
        stand.settle()
        yield found


def warm_call(on: Field, effort: Effort) -> Found:
    """1: a warm REST call, one client; paced, and in a closed loop without a pause."""
    count, ours, theirs = effort.calls, on.stand.http(), on.forkserver
    ways = {
        "island": on.island(lambda: ours.paced(count, RATE)),
        "forkserver": on.forked(lambda: theirs.paced(count, RATE)),
        "bare": on.spawned(on.bare, count, RATE),
    }
    if on.runc is not None:
        ways["runc"] = on.spawned(on.runc, effort.containers, RATE / 2)
    found = interleave(ways, effort.rounds)
    loop = interleave(
        {
            "island": on.island(lambda: ours.closed(count)[0]),
            "forkserver": on.forked(lambda: theirs.closed(count)[0]),
        },
        effort.rounds,
    )
    island, forked = found["island"], found["forkserver"]
    pace = f"1 client, {RATE:g} calls/s"
    rows = [
        row("1a", f"warm call, p50; {pace}", island, forked, "fork server", at_most=0.85),
        row("1b", "the same, p99", island, forked, "fork server", at_most=2, tail=True),
        row("1c", "the same, p50", island, found["bare"], "posix_spawn"),
        Row(
            figure="1d", what="the same, p50", ours="", peer_name="runc run", target="≤ 0.07", note=on.no_runc
        )
        if on.runc is None
        else row("1d", "the same, p50", island, found["runc"], "runc run", at_most=0.07),
        *cpu_row("1e", "the same, jail made ahead included", island, forked, "fork server"),
        row("1f", "no pause between calls, p50", loop["island"], loop["forkserver"], "fork server"),
        row("1g", "the same, p99", loop["island"], loop["forkserver"], "fork server", tail=True),
    ]
    return rows, {"paced": raw(found), "closed": raw(loop)}


def throughput(on: Field, effort: Effort) -> Found:
    """2: eight clients in a closed loop."""
    rates: dict[str, list[float]] = {"island": [], "forkserver": []}

    def burst(name: str, http: Http) -> Slice:
        def measure() -> list[float]:
            times, took = http.closed(effort.burst, CLIENTS)
            rates[name].append(len(times) / took)
            return times

        return measure

    before = on.stand.snapshot()["pool"]
    found = interleave(
        {
            "island": on.island(burst("island", on.stand.http())),
            "forkserver": on.forked(burst("forkserver", on.forkserver)),
        },
        effort.rounds,
    )
    after = on.stand.snapshot()["pool"]
    hits, misses = (after[name] - before[name] for name in ("hits", "misses"))
    ratio, low, high = compare(rates["island"], rates["forkserver"])
    times = found["island"].all
    slow = sum(time > TAIL * p50(times) for time in times) / len(times)
    rows = [
        Row(
            figure="2a",
            what=f"throughput, {CLIENTS} clients in a closed loop",
            ours=f"{statistics.median(rates['island']):.0f}/s",
            peer=f"{statistics.median(rates['forkserver']):.0f}/s",
            peer_name="fork server",
            ratio=ratio,
            low=low,
            high=high,
            target="≥ 0.35",
            hit=ratio >= 0.35,
            note=f"{hits / max(1, hits + misses):.0%} of the calls found a warm jail; aim 0.5",
        ),
        Row(
            figure="2b",
            what=f"calls slower than {TAIL} times the p50, of those",
            ours=f"{slow:.2%}",
            target="≤ 1 %",
            hit=slow <= 0.01,
        ),
        row("2c", "p50 under that load", found["island"], found["forkserver"], "fork server"),
        *cpu_row("2d", "a call under that load", found["island"], found["forkserver"], "fork server"),
    ]
    return rows, {"times": raw(found), "calls_per_s": rates, "hits": hits, "misses": misses}


def pool_miss(on: Field, effort: Effort) -> Found:
    """3: a jail made for the call, over REST, against bubblewrap by hand."""
    cold = on.stand.http(cold=True)
    found = interleave(
        {
            "island": on.island(lambda: cold.paced(effort.calls, RATE)),
            "bwrap": on.spawned(on.bwrap, effort.calls, RATE),
            "bare": on.spawned(on.bare, effort.calls, RATE),
        },
        effort.rounds,
    )
    island, bwrap = found["island"], found["bwrap"]
    rows = [
        row(
            "3a",
            f"pool miss over REST, p50; 1 client, {RATE:g} calls/s",
            island,
            bwrap,
            "bwrap by hand",
            at_most=1.3,
        ),
        row("3b", "the same, p99", island, bwrap, "bwrap by hand", tail=True),
        *cpu_row("3c", "the same", island, bwrap, "bwrap by hand"),
        row("3d", "bwrap by hand, p50", bwrap, found["bare"], "posix_spawn"),
    ]
    return rows, raw(found)


def arguments(on: Field, effort: Effort) -> Found:
    """5: the same arguments all the time, or never the same."""
    same = on.stand.http()
    # So near to the standard place that the hashes begin alike.
    places = (f"Encode(57.64911, {10.40744 + i / 1e9:.9f})" for i in range(effort.calls))
    different = on.stand.http(*((place, GEOHASH[:6]) for place in places))
    found = interleave(
        {
            "same": on.island(lambda: same.paced(effort.calls, RATE)),
            "different": on.island(lambda: different.paced(effort.calls, RATE)),
        },
        effort.rounds,
    )
    what = f"other arguments in every call, p50; 1 client, {RATE:g} calls/s"
    return [row("5", what, found["different"], found["same"], "same arguments", at_most=1.1)], raw(found)
