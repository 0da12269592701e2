"""Figures 1, 2, 3 and 5: the island and its peers running the same binary."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench import peers
from bench.load import Http, paced
from bench.rows import Row, Slice, all_of, interleave, p50, p99, raw, row
from bench.stand import CALL, GEOHASH, Stand

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
FULL = Effort(rounds=11, calls=250, containers=40, burst=4000)


class Field(Struct, frozen=True, kw_only=True):
    """All who take part, ready and warm."""

    stand: Stand
    binary: Path
    forkserver: Http
    bare: Callable[[], float]
    bwrap: Callable[[], float]
    runc: Callable[[], float] | None
    no_runc: str


@contextmanager
def field(stand: Stand) -> Iterator[Field]:
    """Peers around an island that runs."""
    binary = stand.binary()
    runc, reason = peers.runc(binary, stand.folder)
    with peers.forkserver(stand, binary) as server:
        found = Field(
            stand=stand,
            binary=binary,
            forkserver=server,
            bare=peers.bare(binary),
            bwrap=peers.bwrap(binary, stand.base),
            runc=runc,
            no_runc=reason,
        )
        for one in (found.bare, found.bwrap):
            paced(one, 20, 1000)
        server.closed(50)
        stand.http().closed(50)
        stand.settle()
        yield found


def warm_call(on: Field, effort: Effort) -> Found:
    """1: a warm REST call, one client; paced, and in a closed loop without a pause."""
    stand, count = on.stand, effort.calls
    ours = stand.http()
    ways: dict[str, Slice] = {
        "island": after(stand, lambda: ours.paced(count, RATE)),
        "forkserver": lambda: on.forkserver.paced(count, RATE),
        "bare": lambda: paced(on.bare, count, RATE),
    }
    if on.runc is not None:
        contained = on.runc
        ways["runc"] = lambda: paced(contained, effort.containers, RATE / 2)
    found = interleave(ways, effort.rounds)
    loop = interleave(
        {
            "island": after(stand, lambda: ours.closed(count)[0]),
            "forkserver": lambda: on.forkserver.closed(count)[0],
        },
        effort.rounds,
    )
    pace = f"1 client, {RATE:g} calls/s"
    rows = [
        row(
            "1a", f"warm call, p50; {pace}", found["island"], found["forkserver"], "fork server", at_most=0.85
        ),
        row(
            "1b",
            f"warm call, p99; {pace}",
            found["island"],
            found["forkserver"],
            "fork server",
            at_most=2,
            of=p99,
        ),
        row("1c", f"warm call, p50; {pace}", found["island"], found["bare"], "posix_spawn"),
    ]
    if on.runc is not None:
        rows.append(
            row("1d", f"warm call, p50; {pace}", found["island"], found["runc"], "runc run", at_most=0.07)
        )
    else:
        rows.append(
            Row(figure="1d", what="warm call against runc run", ours="", note=on.no_runc, target="≤ 0.07")
        )
    rows += [
        row(
            "1e",
            "closed loop without a pause, p50; 1 client",
            loop["island"],
            loop["forkserver"],
            "fork server",
        ),
        row("1f", "the same, p99", loop["island"], loop["forkserver"], "fork server", of=p99),
    ]
    return rows, {"paced": raw(found), "closed": raw(loop)}


def throughput(on: Field, effort: Effort) -> Found:
    """2: eight clients in a closed loop."""
    rates: dict[str, list[float]] = {"island": [], "forkserver": []}
    ours = on.stand.http()

    def burst(name: str, http: Http) -> Slice:
        def measure() -> list[float]:
            times, took = http.closed(effort.burst, CLIENTS)
            rates[name].append(len(times) / took)
            return times

        return measure

    before = on.stand.snapshot()["pool"]
    found = interleave(
        {"island": after(on.stand, burst("island", ours)), "forkserver": burst("forkserver", on.forkserver)},
        effort.rounds,
    )
    after_ = on.stand.snapshot()["pool"]
    ratios = [mine / theirs for mine, theirs in zip(rates["island"], rates["forkserver"], strict=True)]
    ratio = statistics.median(ratios)
    times = all_of(found["island"])
    slow = sum(time > TAIL * p50(times) for time in times) / len(times)
    hits, misses = (after_[name] - before[name] for name in ("hits", "misses"))
    rows = [
        Row(
            figure="2a",
            what=f"throughput, {CLIENTS} clients in a closed loop",
            ours=f"{statistics.median(rates['island']):.0f}/s",
            peer=f"{statistics.median(rates['forkserver']):.0f}/s",
            peer_name="fork server",
            ratio=ratio,
            low=min(ratios),
            high=max(ratios),
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
    ]
    return rows, {"times": raw(found), "calls_per_s": rates, "hits": hits, "misses": misses}


def pool_miss(on: Field, effort: Effort) -> Found:
    """3: a jail made for the call, over REST, against bubblewrap by hand."""
    cold = on.stand.http(cold=True)
    found = interleave(
        {
            "island": after(on.stand, lambda: cold.paced(effort.calls, RATE)),
            "bwrap": lambda: paced(on.bwrap, effort.calls, RATE),
            "bare": lambda: paced(on.bare, effort.calls, RATE),
        },
        effort.rounds,
    )
    what = f"pool miss over REST, p50; 1 client, {RATE:g} calls/s"
    rows = [
        row("3a", what, found["island"], found["bwrap"], "bwrap by hand", at_most=1.3),
        row("3b", "the same, p99", found["island"], found["bwrap"], "bwrap by hand", of=p99),
        row("3c", "bwrap by hand, p50", found["bwrap"], found["bare"], "posix_spawn"),
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
            "same": after(on.stand, lambda: same.paced(effort.calls, RATE)),
            "different": after(on.stand, lambda: different.paced(effort.calls, RATE)),
        },
        effort.rounds,
    )
    what = f"other arguments in every call, p50; {CALL.partition('(')[0]}"
    return [row("5", what, found["different"], found["same"], "same arguments", at_most=1.1)], raw(found)


def after(stand: Stand, measure: Slice) -> Slice:
    """Measure, and let the island come to rest, so that its work does not fall into a peer's time."""

    def measured() -> list[float]:
        times = measure()
        stand.settle()
        return times

    return measured
