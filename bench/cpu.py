"""CPU time by the kernel's accounting, which other work on the machine disturbs far less than elapsed time.

Each party runs in a control group of its own (version 1, controller cpuacct), which counts the time of its
processes and their children. Jails are included: the island uses other controllers. Without this
controller, or without the right to use it, nothing is counted.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/cpuacct")


class Meter:
    """Counts the CPU time of a process and its descendants; a context manager."""

    def __init__(self, name: str, pid: int) -> None:
        self._pid = pid
        self._group = ROOT / f"sky-bench-{os.getpid()}-{name}"
        self.spent_ms = 0.0
        self.calls = 0

    def __enter__(self) -> Meter:
        self.counts = False
        with contextlib.suppress(OSError):
            if (ROOT / "cpuacct.usage").exists():
                self._group.mkdir()
                for pid in (self._pid, *descendants(self._pid)):
                    (self._group / "cgroup.procs").write_text(str(pid))
                self.counts = True
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.counts:
            return
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (ROOT / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            self._group.rmdir()

    def now_ms(self) -> float:
        """CPU time so far."""
        return int((self._group / "cpuacct.usage").read_text()) / 1e6 if self.counts else 0.0


def descendants(pid: int) -> list[int]:
    """The pids of children, of their children, and so on."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                pids += (child, *descendants(child))
    return pids
