"""Limits on memory, processes and processors for jails: Linux control groups, version 1 or 2.

Theory of operation. `prepare` finds the places for this island's groups (hierarchy.py tells where); each
jail gets a group in each of them, with the limits that can be set there. What cannot be had is no
error: `capabilities` tells what is enforced, and why not and what to do.

Used again. Making and removing a group costs more than all the rest of its life, so the group of a dead
jail is kept for the next one with the same limits. Its last tasks are still on their way out when it is
put aside, and nobody waits for that: the next jail looks whether no task is left in it, nobody was
killed for memory in it, and little memory is still charged to it. At most `spare` groups are kept, and
`close` removes them. Groups are therefore numbered, and `existing` gives the names of the jails in them.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

from skyisland.drivers.linux.cgroup.group import Group, Key, key_of
from skyisland.drivers.linux.cgroup.hierarchy import CONTROLLERS, Hierarchies, Kernel, kill_all, remove_empty
from skyisland.errors import DriverError
from skyisland.model import Capability, Limits

LOOKS = 4
"""So many kept groups, those kept for longest, are looked at for a jail before one is made."""


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
            group = self._ready(key_of(limits))
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
