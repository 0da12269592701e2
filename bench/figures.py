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
"""Calls per second of a paced client: slow enough that the pool is full again before the next call."""
CLIENTS = 8
INPUTS = 1000
"""Inputs of one call. A judgement: a call of so many takes as long as a dozen separate ones."""
TAIL = 10
"""A call is slow if it takes this many times the median."""

Measured = tuple[list[Row], dict[str, Any]]
"""Rows, and the raw numbers that the results store beside them."""


class Effort(Struct, frozen=True, kw_only=True):
    """How many calls are measured."""

    rounds: int
    calls: int
    """Per program and round."""
    containers: int
    """Calls of runc per round: it is slow."""
    burst: int
    """Calls of all clients together per round."""


QUICK = Effort(rounds=5, calls=50, containers=10, burst=600)
FULL = Effort(rounds=9, calls=100, containers=20, burst=2000)


class Field(Struct, frozen=True, kw_only=True):
    """The island and its peers, started and warm, and the meters of their CPU time."""

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
        """The measurement of a program that the bench itself starts."""
        return Way(measure=lambda: paced(call, count, rate), meter=self.meters["bench"])


@contextmanager
def field(stand: Stand) -> Iterator[Field]:
    """Start the peers of a running island."""
    binary = stand.binary()
    runc, reason = peers.runc(binary, stand.folder)
    with peers.forkserver(stand, binary) as (pid, server), ExitStack() as meters:
        # The bench comes first: the others are its descendants, and leave its group for their own.
        parties = (("bench", os.getpid()), ("island", stand.pid), ("forkserver", pid))
        ready = Field(
            stand=stand,
            binary=binary,
            forkserver=server,
            bare=peers.bare(binary),
            bwrap=peers.bwrap(binary, stand.base),
            runc=runc,
            no_runc=reason,
            meters={name: meters.enter_context(Meter(name, process)) for name, process in parties},
        )
        for call in (ready.bare, ready.bwrap):
            paced(call, 20, 1000)
        server.closed(50)
        stand.http().closed(50)
        stand.settle()
        yield ready


def warm_call(on: Field, effort: Effort) -> Measured:
    """1: a warm REST call with one client, paced and in a closed loop."""
    count, ours, theirs = effort.calls, on.stand.http(), on.forkserver
    ways = {
        "island": on.island(lambda: ours.paced(count, RATE)),
        "forkserver": on.forked(lambda: theirs.paced(count, RATE)),
        "bare": on.spawned(on.bare, count, RATE),
    }
    if on.runc is not None:
        ways["runc"] = on.spawned(on.runc, effort.containers, RATE / 2)
    samples = interleave(ways, effort.rounds)
    loop = interleave(
        {
            "island": on.island(lambda: ours.closed(count)[0]),
            "forkserver": on.forked(lambda: theirs.closed(count)[0]),
        },
        effort.rounds,
    )
    island, forked = samples["island"], samples["forkserver"]
    pace = f"1 client, {RATE:g} calls/s"
    rows = [
        row("1a", f"warm call, p50; {pace}", island, forked, "fork server", at_most=0.85),
        row("1b", "the same, p99", island, forked, "fork server", at_most=2, tail=True),
        row("1c", "the same, p50", island, samples["bare"], "posix_spawn"),
        Row(
            figure="1d", what="the same, p50", ours="", peer_name="runc run", target="≤ 0.07", note=on.no_runc
        )
        if on.runc is None
        else row("1d", "the same, p50", island, samples["runc"], "runc run", at_most=0.07),
        *cpu_row("1e", "the same, jail made ahead included", island, forked, "fork server"),
        row("1f", "no pause between calls, p50", loop["island"], loop["forkserver"], "fork server"),
        row("1g", "the same, p99", loop["island"], loop["forkserver"], "fork server", tail=True),
    ]
    return rows, {"paced": raw(samples), "closed": raw(loop)}


def throughput(on: Field, effort: Effort) -> Measured:
    """2: the throughput of eight clients in a closed loop."""
    rates: dict[str, list[float]] = {"island": [], "forkserver": []}

    def burst(name: str, http: Http) -> Slice:
        def measure() -> list[float]:
            times, took = http.closed(effort.burst, CLIENTS)
            rates[name].append(len(times) / took)
            return times

        return measure

    before = on.stand.snapshot()["pool"]
    samples = interleave(
        {
            "island": on.island(burst("island", on.stand.http())),
            "forkserver": on.forked(burst("forkserver", on.forkserver)),
        },
        effort.rounds,
    )
    after = on.stand.snapshot()["pool"]
    hits, misses = (after[name] - before[name] for name in ("hits", "misses"))
    ratio, low, high = compare(rates["island"], rates["forkserver"])
    times = samples["island"].all
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
        row("2c", "p50 under that load", samples["island"], samples["forkserver"], "fork server"),
        *cpu_row("2d", "a call under that load", samples["island"], samples["forkserver"], "fork server"),
    ]
    return rows, {"times": raw(samples), "calls_per_s": rates, "hits": hits, "misses": misses}


def pool_miss(on: Field, effort: Effort) -> Measured:
    """3: a REST call that makes its jail, against bubblewrap by hand."""
    cold = on.stand.http(cold=True)
    samples = interleave(
        {
            "island": on.island(lambda: cold.paced(effort.calls, RATE)),
            "bwrap": on.spawned(on.bwrap, effort.calls, RATE),
            "bare": on.spawned(on.bare, effort.calls, RATE),
        },
        effort.rounds,
    )
    island, bwrap = samples["island"], samples["bwrap"]
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
        row("3d", "bwrap by hand, p50", bwrap, samples["bare"], "posix_spawn"),
    ]
    return rows, raw(samples)


def arguments(on: Field, effort: Effort) -> Measured:
    """5: calls with the same arguments against calls with ever new ones."""
    same = on.stand.http()
    # Places so near to the standard one that their hashes begin alike: `Http` checks the beginning.
    places = (f"Encode(57.64911, {10.40744 + i / 1e9:.9f})" for i in range(effort.calls))
    different = on.stand.http(*((place, GEOHASH[:6]) for place in places))
    samples = interleave(
        {
            "same": on.island(lambda: same.paced(effort.calls, RATE)),
            "different": on.island(lambda: different.paced(effort.calls, RATE)),
        },
        effort.rounds,
    )
    what = f"other arguments in every call, p50; 1 client, {RATE:g} calls/s"
    rows = [row("5", what, samples["different"], samples["same"], "same arguments", at_most=1.1)]
    return rows, raw(samples)


def inputs(on: Field, effort: Effort) -> Measured:
    """5: many inputs in one call against a call for each, of the island and of the fork server."""
    rates: dict[str, list[float]] = {"many": [], "island": [], "forkserver": []}
    many = on.stand.http(("Encode", GEOHASH), inputs=[[57.64911, 10.40744]] * INPUTS)

    def burst(name: str, http: Http, calls: int, each: int = 1) -> Slice:
        def measure() -> list[float]:
            times, took = http.closed(calls)
            rates[name].append(calls * each / took)
            return times

        return measure

    interleave(
        {
            "many": on.island(burst("many", many, max(1, effort.calls // 10), INPUTS)),
            "island": on.island(burst("island", on.stand.http(), effort.calls)),
            "forkserver": on.forked(burst("forkserver", on.forkserver, effort.calls)),
        },
        effort.rounds,
    )
    rows = []
    for letter, peer, peer_name in (("b", "island", "separate calls"), ("c", "forkserver", "fork server")):
        ratio, low, high = compare(rates["many"], rates[peer])
        rows.append(
            Row(
                figure=f"5{letter}",
                what=f"{INPUTS} inputs in one call, inputs per second; 1 client",
                ours=f"{statistics.median(rates['many']):.0f}/s",
                peer=f"{statistics.median(rates[peer]):.0f}/s",
                peer_name=peer_name,
                ratio=ratio,
                low=low,
                high=high,
                target="≥ 50" if peer == "island" else "",
                hit=ratio >= 50 if peer == "island" else None,
            )
        )
    return rows, {"inputs_per_s": rates}
