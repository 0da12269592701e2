"""Figure 8: system calls and instructions per call. Other work on the machine does not change them."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from bench.figures import Measured
from bench.rows import Row
from bench.stand import Stand

RATE = 10.0
"""Calls per second: slow enough for an island under strace."""
SETTLE_S = 1.0
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")


def counts(stand: Stand, calls: int) -> Measured:
    """Count those of a warm and a cold call, including jails made ahead, tear-down and history."""
    rows: list[Row] = []
    kept: dict[str, Any] = {}
    for letter, name, load in (("a", "warm", stand.http()), ("b", "cold", stand.http(cold=True))):
        load.closed(20)
        stand.settle()
        for who, flags in (("event loop", ()), ("island with its jails", ("-f",))):
            figure, what = f"8{letter}", f"system calls per {name} call: {who}"
            tracer = _strace(stand, flags)
            if tracer is None:
                rows.append(
                    Row(figure=figure, what=what, ours="", note="strace is not installed, or may not attach")
                )
                continue
            load.paced(calls, RATE)
            time.sleep(SETTLE_S)
            tracer.send_signal(signal.SIGINT)
            _, table = tracer.communicate()
            totals = _table(table.decode(errors="replace"))
            kept[f"{name}, {who}"] = {call: number / calls for call, number in totals.items()}
            rows.append(Row(figure=figure, what=what, ours=f"{sum(totals.values()) / calls:.0f}"))
            if not flags:
                turns = sum(number for call, number in totals.items() if call in WAITS)
                what = f"turns of the event loop per {name} call"
                rows.append(Row(figure=figure, what=what, ours=f"{turns / calls:.0f}"))
    rows.append(_instructions(stand, calls))
    return rows, kept


def _strace(stand: Stand, flags: Sequence[str]) -> subprocess.Popen[bytes] | None:
    """Start strace on the island's event loop or, with flags, on its helpers too: the launcher is one."""
    program = shutil.which("strace")
    if program is None:
        return None
    pids = [stand.pid, *(stand.helpers() if flags else ())]
    argv = [program, *flags, "-c", *(word for pid in pids for word in ("-p", str(pid)))]
    tracer = subprocess.Popen(argv, stderr=subprocess.PIPE)
    time.sleep(SETTLE_S)
    return tracer if tracer.poll() is None else None


def _table(text: str) -> dict[str, int]:
    """Number of calls by name, from strace's summary."""
    lines = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", text, re.MULTILINE)
    return {name: int(number) for number, name in lines if name != "total"}


def _instructions(stand: Stand, calls: int) -> Row:
    what = "instructions per warm call: island with its jails"
    program = shutil.which("perf")
    if program is None:
        return Row(figure="8c", what=what, ours="", note="perf is not installed")
    pids = ",".join(map(str, (stand.pid, *stand.helpers())))
    perf = subprocess.Popen(
        [program, "stat", "-x", ";", "-e", "instructions", "-p", pids], stderr=subprocess.PIPE
    )
    time.sleep(SETTLE_S)
    stand.http().paced(calls, RATE)
    time.sleep(SETTLE_S)
    perf.send_signal(signal.SIGINT)
    _, output = perf.communicate()
    counted = output.decode(errors="replace").partition(";")[0].strip()
    if not counted.isdigit():
        return Row(
            figure="8c", what=what, ours="", note="this machine has no hardware counters (a virtual one)"
        )
    return Row(figure="8c", what=what, ours=f"{int(counted) / calls / 1e6:.1f} million")
