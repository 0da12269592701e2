"""The cgroups of one jail, one in each hierarchy; `groups.py` keeps those of all jails.

Cost: each method does a few file operations in a file system without a disk, 10 to 70 µs each. Only
`attach` may be slow: before it moves another process, the kernel waits 5 to 20 ms for a grace period
(`cgroup_threadgroup_rwsem`), unless a process was moved in the last 20 ms or so. A single-threaded process
that writes its own `0` to the `tasks` file of version 1 does not wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from skyisland.drivers.linux.cgroup.hierarchy import kill_all, listed, remove_empty
from skyisland.model import Limits, Usage

if TYPE_CHECKING:
    from skyisland.drivers.linux.cgroup.groups import Cgroups

CPU_PERIOD_US = 100_000
LEFT_CHARGED_BYTES = 4 << 20
"""A group to which more memory is still charged (cached files, mostly) is not used again."""

WAITS = 4
"""How often `destroy` answers "not yet" where the group could be removed, to use it again."""

Key = tuple[int | None, int | None, float | None]


def key_of(limits: Limits) -> Key:
    return limits.memory_bytes, limits.pids, limits.cpus


class Group:
    """The cgroups of one jail, one in each hierarchy. None at all where nothing is enforced."""

    def __init__(self, cgroups: Cgroups, jail: str, slot: str, limits: Limits) -> None:
        self.jail = jail
        self.slot = slot
        """The name of its folders."""
        self.key = key_of(limits)
        self._cgroups = cgroups
        self._kernel = cgroups.kernel
        self._places = [(h, f"{h.parent}/{slot}") for h in cgroups.places.found]
        self._folders = {name: (h, folder) for h, folder in self._places for name in h.controllers}
        self._cpu_before_s = 0.0
        self.waited = 0
        self._alarm: int | None = None
        self._rang = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.join_paths: tuple[Path, ...] = tuple(
            Path(folder, "tasks" if h.version == 1 else "cgroup.procs") for h, folder in self._places
        )
        """Files for a process with one thread that joins before it executes a program: it writes `0`
        to each. On version 1 they are the `tasks` files, for which the kernel waits for nothing."""

    # Limits

    def make(self, limits: Limits) -> None:
        """Make the folders and set the limits; if that fails, nothing is left.

        Raises:
            FileExistsError: the slot is taken.
            OSError
        """
        made: list[str] = []
        try:
            for _, folder in self._places:
                self._kernel.make(folder)
                made.append(folder)
            for path, text in self._settings(limits):
                self._kernel.write(path, text)
            self._set_alarm()
        except OSError:
            for folder in made:
                with suppress(OSError):
                    self._kernel.remove(folder)
            raise

    def renew(self, jail: str) -> None:
        """Hand an empty group to the next jail. To set the quota again fills this period's budget."""
        self.jail = jail
        self.waited = 0
        for path, text in list(self._cpu_settings(self.key[2]))[-1:]:  # the quota; the period stays
            self._kernel.write(path, text)

    def _settings(self, limits: Limits) -> Iterator[tuple[str, str]]:
        if limits.memory_bytes is not None and "memory" in self._folders:
            hierarchy, folder = self._folders["memory"]
            size = str(limits.memory_bytes)
            if hierarchy.version == 2:
                yield f"{folder}/memory.max", size
                yield f"{folder}/memory.oom.group", "1"
                if self._cgroups.limits_swap:
                    yield f"{folder}/memory.swap.max", "0"
            else:
                yield f"{folder}/memory.limit_in_bytes", size
                yield f"{folder}/memory.swappiness", "0"
                if self._cgroups.limits_swap:
                    yield f"{folder}/memory.memsw.limit_in_bytes", size
        if limits.pids is not None and "pids" in self._folders:
            yield f"{self._folders['pids'][1]}/pids.max", str(limits.pids)
        yield from self._cpu_settings(limits.cpus)

    def _cpu_settings(self, cpus: float | None) -> Iterator[tuple[str, str]]:
        if cpus is not None and "cpu" in self._folders:
            hierarchy, folder = self._folders["cpu"]
            quota_us = max(1000, round(cpus * CPU_PERIOD_US))  # the kernel takes no less
            if hierarchy.version == 2:
                yield f"{folder}/cpu.max", f"{quota_us} {CPU_PERIOD_US}"
            else:
                yield f"{folder}/cpu.cfs_period_us", str(CPU_PERIOD_US)
                yield f"{folder}/cpu.cfs_quota_us", str(quota_us)

    # Out of memory: version 2 ends the whole group by itself, version 1 one process of it

    def _set_alarm(self) -> None:
        if "memory" in self._folders and self._folders["memory"][0].version == 1:
            with suppress(OSError):
                self._alarm = self._kernel.alarm(self._folders["memory"][1])

    def watch(self) -> None:
        """End all of the jail when it runs out of memory; nothing without a running event loop."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        if self._alarm is not None and self._loop is not None:
            self._loop.add_reader(self._alarm, self._ring)

    def _ring(self) -> None:
        self.unwatch()
        self._rang = True
        self.kill()

    def unwatch(self) -> None:
        if self._alarm is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._alarm)
        self._loop = None

    # Life

    def attach(self, pid: int) -> None:
        """Put a running process, with all its threads, into the group. May block for some 10 ms.

        Raises:
            ProcessLookupError: it has ended.
            OSError
        """
        for _, folder in self._places:
            self._kernel.write(f"{folder}/cgroup.procs", str(pid))

    def kill(self) -> None:
        """SIGKILL to every process in it. They may still be on their way out afterwards."""
        for _, folder in self._places:
            kill_all(self._kernel, folder)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed a process of this jail for want of memory."""
        if "memory" not in self._folders or self._rang:
            return self._rang
        hierarchy, folder = self._folders["memory"]
        with suppress(FileNotFoundError):
            if hierarchy.version == 2:
                return bool(self._field(f"{folder}/memory.events", "oom_kill"))
            killed = self._field(f"{folder}/memory.oom_control", "oom_kill")
            if killed is None:  # before Linux 4.13: how often the limit was hit
                killed = int(self._kernel.read(f"{folder}/memory.failcnt"))
            return killed > 0
        return False

    def usage(self) -> Usage:
        """What is used now; each part None where the host cannot tell."""
        if not self._places:
            return Usage()
        try:
            cpu_s = max(0.0, self._cpu_s() - self._cpu_before_s)
            return Usage(memory_bytes=self._memory_bytes(), cpu_s=cpu_s, pids=self._pids())
        except OSError:  # it was removed meanwhile
            return Usage()

    def _memory_bytes(self) -> int | None:
        if "memory" not in self._folders:
            return None
        hierarchy, folder = self._folders["memory"]
        name = "memory.usage_in_bytes" if hierarchy.version == 1 else "memory.current"
        return int(self._kernel.read(f"{folder}/{name}"))

    def _pids(self) -> int | None:
        if "pids" not in self._folders:
            return None
        return int(self._kernel.read(f"{self._folders['pids'][1]}/pids.current"))

    def _cpu_s(self) -> float:
        for hierarchy, folder in self._places:
            if hierarchy.counts_cpu and hierarchy.version == 2:
                return (self._field(f"{folder}/cpu.stat", "usage_usec") or 0) / 1e6
            if hierarchy.counts_cpu:
                return int(self._kernel.read(f"{folder}/cpuacct.usage")) / 1e9
        # The time of the living and of the children that they waited for (proc_pid_stat(5)). A jail's
        # init waits for all that are orphaned in it, so none is lost.
        ticks = 0
        for pid in listed(self._kernel, self._places[0][1]):
            with suppress(OSError):
                stat = self._kernel.read(f"{self._cgroups.proc}/{pid}/stat")
                ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _field(self, path: str, name: str) -> int | None:
        for line in self._kernel.read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
        return None

    # End

    def destroy(self) -> bool:
        """Remove the group, or keep it for the next jail; False while tasks are still on their way out.

        Kills nobody. May be repeated, and must be after False.
        """
        return self._cgroups.take_back(self)

    def set_aside(self) -> bool:
        """Keep the group of a jail that is dead for the next one; False if that cannot be: `destroy` it."""
        return self._cgroups.set_aside(self)

    def worth_waiting(self) -> bool:
        """Whether all that is left are the dead whom nobody has waited for, and may soon."""
        self.waited += 1
        return self.waited <= WAITS and bool(self._pids()) and not self._listed()

    def reusable(self) -> bool:
        """Whether the next jail could not tell it from a new one, now that no task is left in it."""
        if not self._places or self.ran_out_of_memory():
            return False
        if (self._memory_bytes() or 0) > LEFT_CHARGED_BYTES:
            return False
        self._cpu_before_s = self._cpu_s()
        return True

    def occupied(self) -> bool:
        """Whether a task is left; where tasks are counted, one number tells."""
        count = self._pids()
        return self._listed() if count is None else count > 0

    def _listed(self) -> bool:
        return any(self._kernel.read(f"{folder}/cgroup.procs") for _, folder in self._places)

    def remove(self) -> bool:
        """Remove the folders; False while a task is left."""
        self.unwatch()
        if self._alarm is not None:
            os.close(self._alarm)
            self._alarm = None
        return all(remove_empty(self._kernel, folder) for _, folder in self._places)
