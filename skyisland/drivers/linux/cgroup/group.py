"""The cgroups of one jail, one in each hierarchy; `groups.py` keeps those of all jails.

Cost: each method does a few file operations in a file system without a disk, 10 to 70 µs each. Only
`attach` may be slow: before it moves another process, the kernel waits 5 to 20 ms for a grace period
(`cgroup_threadgroup_rwsem`), unless a process was moved in the last 20 ms or so. A single-threaded process
that writes its own `0` to the `tasks` file of version 1 does not wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from skyisland.drivers.linux.cgroup.hierarchy import Hierarchy, Kernel, kill_all, processes, remove_empty
from skyisland.model import Limits
from skyisland.status import Usage

CPU_PERIOD_US = 100_000
"""The kernel's own default (sched-bwc.rst)."""
MIN_CPU_QUOTA_US = 1000
"""The kernel refuses a smaller quota (min_cfs_quota_period)."""
MAX_LEFT_CHARGED_BYTES = 4 << 20
"""A group is not reused while more memory than this is charged to it, cached files mostly: the next jail
would have less than its limit. The size is a judgement."""
MAX_RETRIES = 4
"""How many times a group with tasks that are already dead is asked for again, instead of being removed at
once: such tasks are reaped soon, and a group that is reused costs less than a new one. A judgement."""

Key = tuple[int | None, int | None, float | None]


def key_of(limits: Limits) -> Key:
    """Groups with equal keys have equal limits, so one can stand in for another."""
    return limits.memory_bytes, limits.pids, limits.cpus


class Group:
    """The cgroups of one jail, one in each hierarchy; no cgroup at all where nothing is enforced."""

    def __init__(
        self,
        jail: str,
        slot: str,
        limits: Limits,
        *,
        hierarchies: Iterable[Hierarchy],
        kernel: Kernel,
        proc: str,
        limits_swap: bool,
    ) -> None:
        """`proc`: where procfs is mounted. `limits_swap`: swap counts as memory."""
        self.jail = jail
        self.slot = slot
        """The name of its folder in each hierarchy."""
        self.key = key_of(limits)
        self._kernel = kernel
        self._proc = proc
        self._limits_swap = limits_swap
        self._folders = [(h, f"{h.parent}/{slot}") for h in hierarchies]
        self._controllers = {name: (h, folder) for h, folder in self._folders for name in h.controllers}
        self._earlier_cpu_s = 0.0
        """Processor time that earlier jails used in this group."""
        self.retries = 0
        self._oom_fd: int | None = None
        self._saw_oom = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.join_paths: tuple[Path, ...] = tuple(
            Path(folder, "tasks" if h.version == 1 else "cgroup.procs") for h, folder in self._folders
        )
        """Files for a single-threaded process that joins the group itself: it writes `0` to each before it
        executes a program. On version 1 these are the `tasks` files, which need no grace period."""

    # Limits

    def make(self, limits: Limits) -> None:
        """Make the folders and set the limits. A failure leaves no folder.

        Raises:
            FileExistsError: the slot is taken.
            OSError
        """
        new_folders: list[str] = []
        try:
            for _, folder in self._folders:
                self._kernel.make(folder)
                new_folders.append(folder)
            for path, text in self._settings(limits):
                self._kernel.write(path, text)
            self._open_oom_event()
        except OSError:
            for folder in new_folders:
                with suppress(OSError):
                    self._kernel.remove(folder)
            raise

    def renew(self, jail: str) -> None:
        """Hand an empty group to the next jail.

        Writing the quota again refills the budget of the current period, which the last jail may have spent.
        """
        self.jail = jail
        self.retries = 0
        if self._oom_fd is not None:
            with suppress(BlockingIOError):  # what the last jail met as it ended must not kill this one
                os.read(self._oom_fd, 8)
        for path, text in list(self._cpu_settings(self.key[2]))[-1:]:  # the quota; the period stays
            self._kernel.write(path, text)

    def _settings(self, limits: Limits) -> Iterator[tuple[str, str]]:
        """Path and text of each write that sets the limits."""
        if limits.memory_bytes is not None and "memory" in self._controllers:
            hierarchy, folder = self._controllers["memory"]
            size = str(limits.memory_bytes)
            if hierarchy.version == 2:
                yield f"{folder}/memory.max", size
                yield f"{folder}/memory.oom.group", "1"
                if self._limits_swap:
                    yield f"{folder}/memory.swap.max", "0"
            else:
                yield f"{folder}/memory.limit_in_bytes", size
                yield f"{folder}/memory.swappiness", "0"
                if self._limits_swap:  # last, because it must not be less than the limit
                    yield f"{folder}/memory.memsw.limit_in_bytes", size
        if limits.pids is not None and "pids" in self._controllers:
            yield f"{self._controllers['pids'][1]}/pids.max", str(limits.pids)
        yield from self._cpu_settings(limits.cpus)

    def _cpu_settings(self, cpus: float | None) -> Iterator[tuple[str, str]]:
        if cpus is not None and "cpu" in self._controllers:
            hierarchy, folder = self._controllers["cpu"]
            quota_us = max(MIN_CPU_QUOTA_US, round(cpus * CPU_PERIOD_US))
            if hierarchy.version == 2:
                yield f"{folder}/cpu.max", f"{quota_us} {CPU_PERIOD_US}"
            else:
                yield f"{folder}/cpu.cfs_period_us", str(CPU_PERIOD_US)
                yield f"{folder}/cpu.cfs_quota_us", str(quota_us)

    # Out of memory: version 2 kills the whole group (memory.oom.group), version 1 one process of it. So on
    # version 1 we wait for the event and kill the rest.

    def _open_oom_event(self) -> None:
        if "memory" in self._controllers and self._controllers["memory"][0].version == 1:
            with suppress(OSError):
                self._oom_fd = self._kernel.oom_event(self._controllers["memory"][1])

    def watch(self) -> None:
        """Kill the whole jail when it runs out of memory; does nothing without a running event loop."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        if self._oom_fd is not None and self._loop is not None:
            self._loop.add_reader(self._oom_fd, self._kill_on_oom)

    def _kill_on_oom(self) -> None:
        self.unwatch()
        self._saw_oom = True
        self.kill()

    def unwatch(self) -> None:
        if self._oom_fd is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._oom_fd)
        self._loop = None

    # Life

    def attach(self, pid: int) -> None:
        """Move a running process, with all its threads, into the group. May block for some 10 ms.

        Raises:
            ProcessLookupError: it has ended.
            OSError
        """
        for _, folder in self._folders:
            self._kernel.write(f"{folder}/cgroup.procs", str(pid))

    def kill(self) -> None:
        """Send SIGKILL to every process in the group. Does not wait until they have exited."""
        for _, folder in self._folders:
            kill_all(self._kernel, folder)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed a process of this jail because it was out of memory."""
        if "memory" not in self._controllers or self._saw_oom:
            return self._saw_oom
        hierarchy, folder = self._controllers["memory"]
        with suppress(FileNotFoundError):
            if hierarchy.version == 2:
                return bool(self._field(f"{folder}/memory.events", "oom_kill"))
            killed = self._field(f"{folder}/memory.oom_control", "oom_kill")
            if killed is None:  # before Linux 4.13: no count of kills, but one of limits hit
                killed = int(self._kernel.read(f"{folder}/memory.failcnt"))
            return killed > 0
        return False

    def usage(self) -> Usage:
        """Current usage; a field is None if no controller counts it."""
        if not self._folders:
            return Usage()
        try:
            cpu_s = max(0.0, self._cpu_s() - self._earlier_cpu_s)
            return Usage(memory_bytes=self._memory_bytes(), cpu_s=cpu_s, pids=self._task_count())
        except OSError:  # the group was removed meanwhile
            return Usage()

    def _memory_bytes(self) -> int | None:
        if "memory" not in self._controllers:
            return None
        hierarchy, folder = self._controllers["memory"]
        name = "memory.usage_in_bytes" if hierarchy.version == 1 else "memory.current"
        return int(self._kernel.read(f"{folder}/{name}"))

    def _task_count(self) -> int | None:
        """Tasks in the group, dead ones that are not reaped yet included."""
        if "pids" not in self._controllers:
            return None
        return int(self._kernel.read(f"{self._controllers['pids'][1]}/pids.current"))

    def _cpu_s(self) -> float:
        for hierarchy, folder in self._folders:
            if hierarchy.counts_cpu and hierarchy.version == 2:
                return (self._field(f"{folder}/cpu.stat", "usage_usec") or 0) / 1e6
            if hierarchy.counts_cpu:
                return int(self._kernel.read(f"{folder}/cpuacct.usage")) / 1e9
        # No controller counts it: add up utime, stime, cutime and cstime of the living (proc_pid_stat(5)).
        # The c… fields cover the dead, because a jail's init reaps every orphan in it.
        ticks = 0
        for pid in processes(self._kernel, self._folders[0][1]):
            with suppress(OSError):
                stat = self._kernel.read(f"{self._proc}/{pid}/stat")
                ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _field(self, path: str, name: str) -> int | None:
        for line in self._kernel.read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
        return None

    # End

    def worth_retrying(self) -> bool:
        """Whether the tasks left are all dead, so that the group may soon be empty; counts the retries."""
        self.retries += 1
        return self.retries <= MAX_RETRIES and bool(self._task_count()) and not self._has_processes()

    def reusable(self) -> bool:
        """Whether this empty group is as good as a new one for the next jail."""
        if not self._folders or self.ran_out_of_memory():
            return False
        if (self._memory_bytes() or 0) > MAX_LEFT_CHARGED_BYTES:
            return False
        self._earlier_cpu_s = self._cpu_s()
        return True

    def occupied(self) -> bool:
        """Whether a task is left. The pids controller answers that in one read."""
        count = self._task_count()
        return self._has_processes() if count is None else count > 0

    def _has_processes(self) -> bool:
        return any(self._kernel.read(f"{folder}/cgroup.procs") for _, folder in self._folders)

    def remove(self) -> bool:
        """Remove the folders; False while a task is left."""
        self.unwatch()
        if self._oom_fd is not None:
            os.close(self._oom_fd)
            self._oom_fd = None
        return all(remove_empty(self._kernel, folder) for _, folder in self._folders)
