"""The machine of a run."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from bench import peers
from skyisland.drivers.linux.bwrap import find_bwrap


def machine() -> dict[str, Any]:
    """Names, versions and the current load average: other work disturbs the figures."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": _system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "go": (peers.toolchain() / "VERSION").read_text().splitlines()[0],
        "bwrap": _first_line([str(find_bwrap()), "--version"]),
        "runc": _first_line(["runc", "--version"]),
        "root": os.geteuid() == 0,
        "load_average": list(os.getloadavg()),
    }


class Processors:
    """The use of all processors together since this object was made (proc_stat(5))."""

    def __init__(self) -> None:
        self._busy, self._stolen = _ticks()

    def stolen(self) -> float:
        """CPU steal: the share of the time that this virtual machine wanted and its host gave to others."""
        busy, stolen = _ticks()
        busy, stolen = busy - self._busy, stolen - self._stolen
        return stolen / max(busy + stolen, 1)


def _ticks() -> tuple[int, int]:
    """Ticks spent working, and ticks stolen by the host."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return user + nice + system + irq + softirq, steal


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _first_line(argv: list[str]) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    try:
        output = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": path}).stdout
    except OSError:
        return ""
    return output.splitlines()[0] if output else ""
