"""How busy this host is: a few numbers of the kernel's, read in some tenths of a millisecond.

Processor and memory come from /proc, so they are known on Linux alone; load and disk wherever there is Unix.
"""

from __future__ import annotations

import os
from pathlib import Path

from skyisland.status import HostLoad


class HostMeter:
    """Reads the load of this host."""

    def __init__(self, state_dir: Path, proc: Path = Path("/proc")) -> None:
        self._state_dir, self._proc = state_dir, proc
        self._ticks = (0, 0)
        """All ticks and the idle ones, at the last reading."""

    def read(self) -> HostLoad:
        """The load now. It reads small files and blocks for that long."""
        total, used = self._memory()
        size, free = self._disk()
        return HostLoad(
            cpus=os.cpu_count() or 1,
            cpu=self._cpu(),
            load=os.getloadavg()[0],
            memory_bytes=total,
            memory_used_bytes=used,
            disk_bytes=size,
            disk_free_bytes=free,
        )

    def _cpu(self) -> float | None:
        try:
            words = (self._proc / "stat").read_text().partition("\n")[0].split()
        except OSError:
            return None
        ticks = [int(word) for word in words[1:9]]  # guest time is in user time already
        total, idle = sum(ticks), ticks[3] + ticks[4]
        before, self._ticks = self._ticks, (total, idle)
        passed = total - before[0]
        return 1 - (idle - before[1]) / passed if before[0] and passed > 0 else None

    def _memory(self) -> tuple[int | None, int | None]:
        try:
            text = (self._proc / "meminfo").read_text()
        except OSError:
            return None, None
        kib = {
            name: int(rest.split()[0])
            for name, _, rest in (line.partition(":") for line in text.splitlines())
        }
        total = kib["MemTotal"] << 10
        return total, total - (kib["MemAvailable"] << 10)

    def _disk(self) -> tuple[int | None, int | None]:
        try:
            disk = os.statvfs(self._state_dir)
        except OSError:
            return None, None
        return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
