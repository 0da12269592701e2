"""Figure 7: many calls at a steady rate, and the memory, files and processes of the island meanwhile."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.cpu import descendants
from bench.figures import Measured
from bench.growth import field
from bench.rows import Row, p50, percentile
from bench.stand import Stand

SAMPLES = 60
COUNTS = ("rss_bytes", "fds", "processes", "mounts", "cgroups", "files")
SLACK = {"rss_bytes": 0.05}
"""The relative growth that counts as flat. All other counts may grow by JITTER."""
JITTER = 12
"""How far a count may be off, because jails come and go while it is taken. A judgement."""


def soak(stand: Stand, calls: int, rate: float) -> Measured:
    """Check that nothing grows: compare the last quarter of the run with the second."""
    load = stand.http()
    load.closed(200)
    stand.settle()
    island = stand.snapshot()["island"]
    samples: list[dict[str, float]] = []
    times: list[float] = []
    began = time.monotonic()
    for _ in range(SAMPLES):
        times += load.paced(calls // SAMPLES, rate)
        samples.append(
            {"at_s": time.monotonic() - began, **_count(stand, island), "p50_ms": p50(times[-500:])}
        )
    rows = [_row(name, samples) for name in COUNTS]
    rows.append(
        Row(
            figure="7g",
            what=f"{len(times)} calls at {rate:g}/s: p50, p99.9, wrong answers",
            ours=f"{p50(times):.2f} ms, {percentile(times, 0.999):.1f} ms, {len(load.wrong)}",
            target="none wrong",
            hit=not load.wrong,
        )
    )
    return rows, {"calls": len(times), "rate": rate, "samples": samples, "wrong": load.wrong[:3]}


def _count(stand: Stand, island: str) -> dict[str, float]:
    prefix = f"sky-{island}"
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    groups = (folder for top in _controllers() for folder, _, _ in os.walk(top) if prefix in folder)
    return {
        "rss_bytes": field(stand.pid, "status", "VmRSS"),
        "fds": len(os.listdir(f"/proc/{stand.pid}/fd")),
        "processes": len(descendants(stand.pid)),
        "mounts": sum(str(stand.state) in line or prefix in line for line in mounts),
        "cgroups": sum(1 for _ in groups),
        "files": sum(1 for _ in stand.state.rglob("sky-*")),
    }


def _controllers() -> list[Path]:
    top = Path("/sys/fs/cgroup")
    return (
        [top] if (top / "cgroup.controllers").exists() else [path for path in top.iterdir() if path.is_dir()]
    )


def _row(name: str, samples: list[dict[str, float]]) -> Row:
    values = [sample[name] for sample in samples]
    quarter = len(values) // 4
    early, late = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
    shown: Callable[[float], str] = (
        (lambda v: f"{v / 1e6:.1f} MB") if name == "rss_bytes" else (lambda v: f"{v:.0f}")
    )
    slack = early * SLACK[name] if name in SLACK else JITTER
    letter = "abcdef"[COUNTS.index(name)]
    return Row(
        figure=f"7{letter}",
        what=f"soak: {name.removesuffix('_bytes')}, last quarter against second",
        ours=shown(late),
        peer=shown(early),
        ratio=late / early if early else None,
        target="flat",
        hit=late <= early + slack,
    )
