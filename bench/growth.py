"""Figure 6: the time of a call with many functions cached and many jails alive, and the memory of both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import peers
from bench.cpu import descendants
from bench.figures import RATE, Measured
from bench.load import Http
from bench.rows import Row, Samples, Way, interleave, ms, p50, raw
from bench.stand import Stand
from examples.publish import commit

FUNCTION = "func F{0}(x int) int {{ return x + {0} }}\n"
RSS_LIMIT_BYTES = 120_000_000


def growth(stand: Stand, functions: Sequence[int], jails: Sequence[int], calls: int, rounds: int) -> Measured:
    """p50 of a warm call by functions cached, and of a warm and a cold call by jails alive.

    The steps are minutes apart, and the machine's speed may change meanwhile. So each step is measured
    beside the fork server, and the ratios to it are compared.
    """
    _publish(stand, max(functions))
    rows: list[Row] = []
    kept: dict[str, Any] = {}
    most = max(jails) + 64
    settings = {
        # The stand is the only client.
        "jails": {
            "max_running": most,
            "running_per_client": most,
            "max_queued": 1000,
            "exec_timeout": "30m",
        },
        "api": {"calls_per_client": 0},
    }
    with stand.island(**settings):
        binary = stand.binary()
        rows.append(_idle(stand))
        with peers.forkserver(stand, binary) as (_, server):
            hot = stand.http(("F1(41)", "42"), package="many")
            cold = stand.http(("F1(41)", "42"), package="many", cold=True)
            steps: dict[str, dict[str, Samples]] = {}
            for number in functions:
                for n in range(1, number + 1):
                    stand.call("many", f"F{n}(41)")
                steps[f"{number} functions"] = _beside(stand, {"warm": hot}, server, calls, rounds)
            rows += _rows("6a", "warm call, functions cached:", "warm", steps)
            kept |= {step: raw(samples) for step, samples in steps.items()}
            rows.append(_jail_weight(stand))
            steps = {"0 alive": _beside(stand, {"warm": hot, "cold": cold}, server, calls, rounds)}
            for number in jails:
                with stand.sleepers(number):
                    step = _beside(stand, {"warm": hot, "cold": cold}, server, calls, rounds)
                steps[f"{number} alive"] = step
            rows += _rows("6b", "warm call, jails:", "warm", steps)
            rows += _rows("6c", "cold call, jails:", "cold", steps)
            kept |= {step: raw(samples) for step, samples in steps.items()}
    return rows, kept


def _publish(stand: Stand, number: int) -> None:
    """Make a repository with many functions. Each becomes an artifact of its own."""
    folder = stand.repositories / "many"
    if folder.exists():
        return
    folder.mkdir()
    (folder / "go.mod").write_text("module examples.skyisland.test/many\n\ngo 1.21\n")
    text = "".join(FUNCTION.format(n) for n in range(1, number + 1))
    (folder / "many.go").write_text(f"// Package many has many functions.\npackage many\n\n{text}")
    commit(folder, "First version")


def _beside(
    stand: Stand, loads: dict[str, Http], server: Http, calls: int, rounds: int
) -> dict[str, Samples]:
    for load in loads.values():
        load.closed(20)
    stand.settle()

    def way(load: Http) -> Way:
        return Way(measure=lambda: load.paced(calls, RATE), settle=stand.settle)

    ways = {name: way(load) for name, load in loads.items()}
    return interleave({**ways, "forkserver": Way(measure=lambda: server.paced(calls, RATE))}, rounds)


def _rows(figure: str, what: str, way: str, steps: dict[str, dict[str, Samples]]) -> list[Row]:
    """A row for each step after the first, compared with the first."""
    (first, base), *others = steps.items()

    def relative(step: dict[str, Samples]) -> float:
        pairs = zip(step[way].times, step["forkserver"].times, strict=True)
        return statistics.median(p50(mine) / p50(theirs) for mine, theirs in pairs)

    rows = []
    for name, step in others:
        ratio = relative(step) / relative(base)
        rows.append(
            Row(
                figure=figure,
                what=f"{what} {name}",
                ours=ms(p50(step[way].all)),
                peer=ms(p50(base[way].all)),
                peer_name=first,
                ratio=ratio,
                target="≤ 1.3",
                hit=ratio <= 1.3,
                note="each beside the fork server",
            )
        )
    return rows


def _idle(stand: Stand) -> Row:
    rss = sum(field(pid, "status", "VmRSS") for pid in (stand.pid, *stand.helpers()))
    return Row(
        figure="6d",
        what="the island idle: RSS of the daemon and its helpers",
        ours=f"{rss / 1e6:.0f} MB",
        target="< 120 MB",
        hit=rss < RSS_LIMIT_BYTES,
    )


def _jail_weight(stand: Stand) -> Row:
    """Memory of a warm jail. PSS divides a shared page among its users, so a sum over jails is true."""
    stand.settle()
    weights = [
        sum(field(pid, "smaps_rollup", "Pss") for pid in (init, *descendants(init)))
        for init in stand.warm_jails()
    ]
    what = "a warm jail: PSS of its processes"
    if not weights:
        return Row(figure="6e", what=what, ours="", note="no warm jail to be seen")
    return Row(
        figure="6e", what=what, ours=f"{statistics.mean(weights) / 1e6:.1f} MB", note=f"{len(weights)} jails"
    )


def field(pid: int, file: str, name: str) -> int:
    """A field of a process in /proc, in bytes; 0 if the process is gone."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
