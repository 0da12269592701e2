"""Limits on memory, processes and processors for jails: Linux control groups, version 1 or 2.

Theory of operation. `prepare` finds the places for this island's groups (cgroupfs.py tells where); each
jail gets a group in each of them, with the limits that can be set there. What cannot be had is no
error: `capabilities` tells what is enforced, and why not and what to do.

Used again. Making and removing a group costs more than all the rest of its life, so the group of a dead
jail is kept for the next one with the same limits. Its last tasks are still on their way out when it is
put aside, and nobody waits for that: the next jail looks whether no task is left in it, nobody was
killed for memory in it, and little memory is still charged to it. At most `spare` groups are kept, and
`close` removes them. Groups are therefore numbered, and `existing` gives the names of the jails in them.

What it costs: every call is a few operations on files without a disk, 10 to 70 µs each. One may be
slow: to attach another process the kernel waits for a grace period unless somebody did so in the last
20 ms or so (`cgroup_threadgroup_rwsem`), which blocks for 5 to 20 ms; `birth` avoids that on version 1,
where a thread that moves itself needs no such lock.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skyisland.drivers.cgroupfs import CONTROLLERS, Hierarchies, Kernel, kill_all, listed, remove_empty
from skyisland.errors import DriverError
from skyisland.model import Capability, Limits, Usage

CPU_PERIOD_US = 100_000
LEFT_CHARGED_BYTES = 4 << 20
"""A group to which more memory is still charged (cached files, mostly) is not used again."""

LOOKS = 4
"""So many kept groups, those kept for longest, are looked at for a jail before one is made."""

WAITS = 4
"""How often `destroy` answers "not yet" where the group could be removed, to use it again."""

Key = tuple[int | None, int | None, float | None]


def _key(limits: Limits) -> Key:
    return limits.memory_bytes, limits.pids, limits.cpus


class Group:
    """The cgroups of one jail, one in each hierarchy. None at all where nothing is enforced."""

    def __init__(self, cgroups: Cgroups, jail: str, slot: str, limits: Limits) -> None:
        self.jail = jail
        self.slot = slot
        """The name of its folders."""
        self.key = _key(limits)
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

    @contextmanager
    def birth(self) -> Iterator[bool]:
        """What the calling thread starts in this block is born in the group, if it yields True.

        Possible on version 1 only, and not for the main thread: what a process uses of memory is
        charged to the group of its main thread, and some of the island's would stay in the jail's.
        """
        main = threading.current_thread() is threading.main_thread()
        possible = not main and all(hierarchy.version == 1 for hierarchy, _ in self._places)
        try:
            if possible:
                for path in self.join_paths:
                    self._kernel.write(str(path), "0")
            yield possible
        finally:
            if possible:
                for hierarchy, _ in self._places:
                    self._kernel.write(f"{hierarchy.home}/tasks", "0")

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


class Cgroups:
    """cgroup v2 or v1 limits for jails, under one parent named sky-<island>."""

    def __init__(
        self,
        island: str,
        root: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
        *,
        spare: int = 16,
        kernel: Kernel | None = None,
    ) -> None:
        """`root`: mounts outside of it are not looked at. `spare`: how many empty groups are kept."""
        self.kernel = kernel or Kernel()
        self.proc = str(proc)
        self.places = Hierarchies(island, str(root), self.proc, self.kernel)
        self.limits_swap = False
        self._name = f"sky-{island}"
        self._spare = spare
        self._numbers = itertools.count()
        self._live: dict[str, Group] = {}
        self._kept: dict[str, Group] = {}
        """By slot, those kept for longest first."""

    def prepare(self) -> None:
        """Find the hierarchies and make our parent in each where we may; to be called in a thread.

        May be repeated. Never raises for lack of rights: `capabilities` says so.
        """
        self._sweep_kept()
        self.places.find()
        self.limits_swap = False
        for hierarchy in self.places.found:
            if "memory" in hierarchy.controllers:
                name = "memory.memsw.limit_in_bytes" if hierarchy.version == 1 else "memory.swap.max"
                with suppress(OSError):
                    self.kernel.read(f"{hierarchy.parent}/{name}")
                    self.limits_swap = True

    def create(self, jail: str, limits: Limits) -> Group:
        """A group for a jail, empty, with its limits set as far as this host enforces them.

        Raises:
            DriverError: the kernel refused.
        """
        try:
            group = self._ready(_key(limits))
            if group is None:
                group = self._make(jail, limits)
            else:
                group.renew(jail)
                del self._kept[group.slot]
        except OSError as error:
            raise DriverError(f"cannot make a cgroup for {jail}: {error}", jail=jail) from error
        self._live[group.slot] = group
        group.watch()
        return group

    def _ready(self, key: Key) -> Group | None:
        """A kept group that is as good as new; those that never will be are removed."""
        fitting = (group for group in self._kept.values() if group.key == key)
        for group in list(itertools.islice(fitting, LOOKS)):
            try:
                if group.occupied():
                    if group.worth_waiting():
                        continue
                elif group.reusable():
                    return group
            except FileNotFoundError:  # somebody has removed it
                pass
            if group.remove():
                del self._kept[group.slot]
        return None

    def _make(self, jail: str, limits: Limits) -> Group:
        while True:
            group = Group(self, jail, f"{self._name}-slot-{next(self._numbers)}", limits)
            with suppress(FileExistsError):  # left by an earlier life
                group.make(limits)
                return group

    def take_back(self, group: Group) -> bool:
        """`Group.destroy`."""
        if self._live.get(group.slot) is not group:
            return True
        keep = len(self._kept) < self._spare
        try:
            if keep and group.worth_waiting():
                return False
            keep = keep and not group.occupied() and group.reusable()
        except OSError:  # half of it is removed already
            keep = False
        if keep:
            group.unwatch()
            self._kept[group.slot] = group
        elif not group.remove():
            return False
        del self._live[group.slot]
        return True

    def set_aside(self, group: Group) -> bool:
        """`Group.set_aside`."""
        if self._live.get(group.slot) is not group:
            return True
        if not self._spare or not group.join_paths:
            return False
        if len(self._kept) >= self._spare:
            oldest = next(iter(self._kept.values()))
            if not oldest.remove():
                return False
            del self._kept[oldest.slot]
        group.unwatch()
        group.waited = 0
        self._kept[group.slot] = self._live.pop(group.slot)
        return True

    def _sweep_kept(self) -> None:
        for group in self._kept.values():
            group.remove()
        self._kept.clear()

    def existing(self) -> list[str]:
        """Names of the jails that have a group; where an earlier life left one, the group's own name."""
        slots = {slot for folder in self.places.parents() for slot in self.kernel.folders(folder)}
        # Copies, because the event loop may make and take back groups meanwhile.
        idle = set(self._kept)
        live = list(self._live.values())
        left = {slot for slot in slots if slot.startswith(f"{self._name}-")}
        return sorted({group.jail for group in live} | left - idle - {group.slot for group in live})

    def remove(self, jail: str, timeout_s: float = 2.0) -> bool:
        """Kill what is in a group and remove it, by a name that `existing` gave; to be called in a thread.

        Waits up to `timeout_s` for those that it killed. Returns whether it is gone; may be repeated.
        """
        until = time.monotonic() + timeout_s
        while not self._removed(jail):
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return True

    def _removed(self, jail: str) -> bool:
        groups = [group for group in list(self._live.values()) if group.jail == jail]
        for group in groups:
            group.kill()
        if groups:
            return all(group.destroy() for group in groups)
        if not jail.startswith(f"{self._name}-") or "/" in jail:
            return True
        folders = [f"{parent}/{jail}" for parent in self.places.parents()]
        for folder in folders:
            kill_all(self.kernel, folder)
        return all(remove_empty(self.kernel, folder) for folder in folders)

    def close(self) -> None:
        """Remove what is empty: kept groups and our parents; and move back to where we were."""
        self._sweep_kept()
        self.places.undo()

    def capabilities(self) -> list[Capability]:
        """What `prepare` found: memory (with swap), pids, cpu."""
        found = []
        for name in CONTROLLERS:
            hierarchy = next((h for h in self.places.found if name in h.controllers), None)
            if hierarchy is not None:
                where = os.path.dirname(hierarchy.parent)
                how, remedy = f"cgroup version {hierarchy.version}, in {where}", ""
                if name == "memory" and self.limits_swap:
                    how += ", swap included"
                elif name == "memory":
                    how, remedy = f"{how}; swap is not counted", "boot with swapaccount=1, or without swap"
                found.append(Capability(name=name, enforced=True, how=how, remedy=remedy))
            elif name in self.places.refused:
                why = self.places.refused[name]
                found.append(Capability(name=name, enforced=False, how=why.reason, remedy=why.remedy))
            else:
                found.append(Capability(name=name, enforced=False, how="not looked at yet"))
        return found

    def counting(self) -> Capability:
        """Whether the processor time of a jail is known."""
        how = (
            "what a jail's group has used, looked at while it runs"
            if self.places.found
            else "nobody counts it"
        )
        remedy = "" if self.places.found else "see the remedy for cpu"
        return Capability(name="cpu_time", enforced=bool(self.places.found), how=how, remedy=remedy)
