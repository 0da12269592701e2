"""Limits on memory, processes and processors for jails: cgroups of version 1 or 2.

Theory of operation. `prepare` makes this island's parent group in each usable hierarchy (hierarchy.py).
Each jail gets a group below each parent, with the limits that can be set there. A limit that cannot be
enforced is no error: `capabilities` reports it with a reason and a remedy.

Reuse. Making and removing a group costs about 0.3 ms, reusing one 0.05 ms (version 1, three hierarchies).
So the group of a dead jail is kept for the next jail with the same limits. It is kept at once, while its
last tasks may still be exiting. The next jail takes it if no task is left in it, none was killed for memory
and little memory is still charged to it. At most `spare` groups are kept; `close` removes them. Because
jails share them, groups are numbered, and `existing` translates their numbers into jails' names.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

from skyisland.drivers.linux.cgroup.group import Group, Key, key_of
from skyisland.drivers.linux.cgroup.hierarchy import CONTROLLERS, Hierarchies, Kernel, kill_all, remove_empty
from skyisland.errors import DriverError
from skyisland.model import Limits
from skyisland.status import Capability

REUSE_CANDIDATES = 4
"""How many kept groups, oldest first, are tried for a jail before a new one is made. The oldest are the
likeliest to be empty; each costs three reads. A judgement."""
GIVE_BACK_PAUSES_S = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Pauses before each attempt to take back a group whose tasks are still exiting: most have after a few
milliseconds. That it ends after 0.9 s is a judgement."""


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
        """`root`: cgroup mounts outside of it are ignored. `spare`: how many groups are kept for reuse."""
        self.kernel = kernel or Kernel()
        self.proc = str(proc)
        self.hierarchies = Hierarchies(island, str(root), self.proc, self.kernel)
        self.limits_swap = False
        self._name = f"sky-{island}"
        self._spare = spare
        self._numbers = itertools.count()
        self._live: dict[str, Group] = {}
        self._kept: dict[str, Group] = {}
        """By slot, oldest first."""

    def prepare(self) -> None:
        """Find the hierarchies and make our parent group in each. Blocks: call it in a thread.

        May be repeated. Missing rights are no error: `capabilities` reports them.
        """
        self._remove_kept()
        self.hierarchies.find()
        self.limits_swap = False
        for hierarchy in self.hierarchies.usable:
            if "memory" in hierarchy.controllers:
                name = "memory.memsw.limit_in_bytes" if hierarchy.version == 1 else "memory.swap.max"
                with suppress(OSError):
                    self.kernel.read(f"{hierarchy.parent}/{name}")
                    self.limits_swap = True

    def create(self, jail: str, limits: Limits) -> Group:
        """An empty group for a jail, with every limit that this host can enforce.

        Raises:
            DriverError: the kernel refused.
        """
        try:
            group = self._reusable(key_of(limits))
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

    def _reusable(self, key: Key) -> Group | None:
        """A kept group that is as good as a new one. Removes those of the candidates that never will be."""
        candidates = (group for group in self._kept.values() if group.key == key)
        for group in list(itertools.islice(candidates, REUSE_CANDIDATES)):
            try:
                if group.occupied():
                    if group.worth_retrying():
                        continue
                elif group.reusable():
                    return group
            except FileNotFoundError:  # somebody else removed it
                pass
            if group.remove():
                del self._kept[group.slot]
        return None

    def _make(self, jail: str, limits: Limits) -> Group:
        while True:
            group = Group(
                jail,
                f"{self._name}-slot-{next(self._numbers)}",
                limits,
                hierarchies=self.hierarchies.usable,
                kernel=self.kernel,
                proc=self.proc,
                limits_swap=self.limits_swap,
            )
            with suppress(FileExistsError):  # an earlier run of this island left a group of that number
                group.make(limits)
                return group

    async def give_back(self, group: Group) -> None:
        """Take back the group of a dead jail. Waits until its last tasks have exited, if it must.

        Raises:
            DriverError: a task is still there after about a second.
        """
        if self.set_aside(group):
            return
        for pause_s in GIVE_BACK_PAUSES_S:
            await asyncio.sleep(pause_s)
            if self.destroy(group):
                return
        raise DriverError("a cgroup stays busy although its jail is dead")

    def destroy(self, group: Group) -> bool:
        """Remove the group, or keep it for the next jail; False while tasks are still exiting.

        Kills no process. After False the caller must repeat it; after True it may.
        """
        if self._live.get(group.slot) is not group:  # taken back already
            return True
        keep = len(self._kept) < self._spare
        try:
            if keep and group.worth_retrying():
                return False
            keep = keep and not group.occupied() and group.reusable()
        except OSError:  # some of its folders are removed already
            keep = False
        if keep:
            group.unwatch()
            self._kept[group.slot] = group
        elif not group.remove():
            return False
        del self._live[group.slot]
        return True

    def set_aside(self, group: Group) -> bool:
        """Keep the group of a dead jail for the next one, without waiting for tasks that are still exiting.

        False if it cannot be kept: the caller must `destroy` it.
        """
        if self._live.get(group.slot) is not group:  # taken back already
            return True
        if not self._spare or not group.join_paths:  # nothing may be kept, or the group has no folders
            return False
        if len(self._kept) >= self._spare:  # make room
            oldest = next(iter(self._kept.values()))
            if not oldest.remove():
                return False
            del self._kept[oldest.slot]
        group.unwatch()
        group.retries = 0
        self._kept[group.slot] = self._live.pop(group.slot)
        return True

    def _remove_kept(self) -> None:
        for group in self._kept.values():
            group.remove()
        self._kept.clear()

    def existing(self) -> list[str]:
        """Names of the jails that have a group, and the slots of groups that an earlier run left."""
        slots = {slot for folder in self.hierarchies.parents() for slot in self.kernel.folders(folder)}
        # Copies: we are in a thread, and the event loop may create and destroy groups meanwhile.
        kept = set(self._kept)
        live = list(self._live.values())
        ours = {slot for slot in slots if slot.startswith(f"{self._name}-")}
        return sorted({group.jail for group in live} | ours - kept - {group.slot for group in live})

    def remove(self, name: str, timeout_s: float = 2.0) -> bool:
        """Kill the processes in a group and remove it. Blocks: call it in a thread.

        `name`: one that `existing` gave. `timeout_s`: how long to wait until the killed processes have
        exited. Returns whether the group is gone; may be repeated.
        """
        deadline = time.monotonic() + timeout_s
        while not self._try_remove(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def _try_remove(self, name: str) -> bool:
        groups = [group for group in list(self._live.values()) if group.jail == name]
        for group in groups:
            group.kill()
        if groups:
            return all(self.destroy(group) for group in groups)
        if not name.startswith(f"{self._name}-") or "/" in name:  # not ours, or a path that leads away
            return True
        folders = [f"{parent}/{name}" for parent in self.hierarchies.parents()]
        for folder in folders:
            kill_all(self.kernel, folder)
        return all(remove_empty(self.kernel, folder) for folder in folders)

    def close(self) -> None:
        """Remove the kept groups and our empty parents, and move ourselves back to our first group."""
        self._remove_kept()
        self.hierarchies.undo()

    def capabilities(self) -> list[Capability]:
        """Which of memory (with swap), pids and cpu are enforced, as of `prepare`."""
        capabilities = []
        for name in CONTROLLERS:
            hierarchy = next((h for h in self.hierarchies.usable if name in h.controllers), None)
            if hierarchy is not None:
                where = os.path.dirname(hierarchy.parent)
                how, remedy = f"cgroup version {hierarchy.version}, in {where}", ""
                if name == "memory" and self.limits_swap:
                    how += ", swap included"
                elif name == "memory":
                    how, remedy = f"{how}; swap is not counted", "boot with swapaccount=1, or without swap"
                capabilities.append(Capability(name=name, enforced=True, how=how, remedy=remedy))
            elif name in self.hierarchies.refused:
                why = self.hierarchies.refused[name]
                capabilities.append(Capability(name=name, enforced=False, how=why.reason, remedy=why.remedy))
            else:
                capabilities.append(Capability(name=name, enforced=False, how="not looked at yet"))
        return capabilities

    def counting(self) -> Capability:
        """Whether the processor time of a jail can be measured, and so limited."""
        counted = bool(self.hierarchies.usable)
        how = "what a jail's group has used, looked at while it runs" if counted else "nobody counts it"
        remedy = "" if counted else "see the remedy for cpu"
        return Capability(name="cpu_time", enforced=counted, how=how, remedy=remedy)
