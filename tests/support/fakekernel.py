"""A fake of the kernel's rules for cgroups of version 2: files in memory, and refusals where it refuses."""

from __future__ import annotations

import errno
import os

from skyisland.drivers.linux.cgroup.hierarchy import Kernel

TOP = "/fake/cgroup"
ISLAND_PID = "100"

FILES = {
    "memory": {
        "memory.max": "max",
        "memory.oom.group": "0",
        "memory.swap.max": "max",
        "memory.current": "0",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    },
    "pids": {"pids.max": "max", "pids.current": "0"},
    "cpu": {"cpu.max": "max 100000", "cpu.stat": "usage_usec 0\nuser_usec 0\nsystem_usec 0\n"},
}


def refusal(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


class FakeGroup:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.procs: set[str] = set()
        self.enabled: set[str] = set()
        self.values: dict[str, str] = {}
        self.delegated = False
        self.zombies = 0
        """They count as tasks until somebody waits for them, but hold no group."""


class FakeKernel(Kernel):
    """The rules of cgroups(7) that matter here, kept in memory: a fake, and stricter than it is complete.

    The controllers of a group are those that its parent enabled. A group below the top never has both
    processes and enabled controllers: whoever tries gets EBUSY. Only an empty group is removed. A user
    writes only what is his.
    """

    def __init__(self, user: str = "root", controllers: tuple[str, ...] = ("memory", "pids", "cpu")) -> None:
        self.user = user
        self.offered = set(controllers)
        self.groups = {TOP: FakeGroup("root")}
        self.namespace = ""
        self.lost: set[str] = set()
        """Files that this kernel is too old for."""

    # What the test arranges

    def group(self, path: str, owner: str = "root", enabled: tuple[str, ...] = ()) -> FakeGroup:
        self.groups[f"{TOP}{path}"] = made = FakeGroup(owner)
        made.enabled = set(enabled)
        return made

    def island_in(self, path: str) -> None:
        self.groups[f"{TOP}{path}"].procs.add(ISLAND_PID)

    def where(self, pid: str = ISLAND_PID) -> str:
        return next(path for path, group in self.groups.items() if pid in group.procs)

    def controllers(self, folder: str) -> set[str]:
        return self.offered if folder == TOP else self.groups[folder.rpartition("/")[0]].enabled

    def children(self, folder: str) -> list[str]:
        return [path for path in self.groups if path.rpartition("/")[0] == folder]

    # What the kernel does

    def read(self, path: str) -> str:
        if path == "/fake/proc/self/mountinfo":
            seen = f"{self.namespace or '/'} {TOP}{self.namespace}"
            return f"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 20 0:26 {seen} rw - cgroup2 cgroup2 rw\n"
        if path == "/fake/proc/self/cgroup":
            return f"0::{self.where().removeprefix(TOP) or '/'}\n"
        folder, _, name = path.rpartition("/")
        if folder not in self.groups or name in self.lost:
            raise refusal(errno.ENOENT, path)
        group = self.groups[folder]
        if name == "cgroup.events" and folder != TOP:
            return f"populated {int(bool(group.procs))}\nfrozen 0\n"
        if name == "cgroup.controllers":
            return " ".join(sorted(self.controllers(folder))) + "\n"
        if name == "cgroup.subtree_control":
            return " ".join(sorted(group.enabled)) + "\n"
        if name == "cgroup.procs":
            return "".join(f"{pid}\n" for pid in sorted(group.procs))
        for controller in self.controllers(folder) if folder != TOP else ():
            if name in FILES[controller]:
                if name == "pids.current":
                    return f"{len(group.procs) + group.zombies}\n"
                return group.values.get(name, FILES[controller][name]) + "\n"
        raise refusal(errno.ENOENT, path)

    def write(self, path: str, text: str) -> None:
        folder, _, name = path.rpartition("/")
        if folder not in self.groups or name in self.lost:
            raise refusal(errno.ENOENT, path)
        if not self.writable(folder):
            raise refusal(errno.EACCES, path)
        group = self.groups[folder]
        if name == "cgroup.procs":
            if group.enabled and folder != TOP:
                raise refusal(errno.EBUSY, path)
            pid = ISLAND_PID if text == "0" else text
            for other in self.groups.values():
                other.procs.discard(pid)
            group.procs.add(pid)
        elif name == "cgroup.subtree_control":
            controller = text[1:]
            if controller not in self.controllers(folder):
                raise refusal(errno.ENOENT, path)
            if text[0] == "+":
                if group.procs and folder != TOP:
                    raise refusal(errno.EBUSY, path)
                group.enabled.add(controller)
            else:
                if any(controller in self.groups[child].enabled for child in self.children(folder)):
                    raise refusal(errno.EBUSY, path)
                group.enabled.discard(controller)
        elif name == "cgroup.kill":
            group.procs.clear()
        else:
            self.read(path)
            group.values[name] = text

    def make(self, folder: str) -> None:
        if folder in self.groups:
            raise FileExistsError(errno.EEXIST, "exists", folder)
        parent = folder.rpartition("/")[0]
        if parent not in self.groups:
            raise refusal(errno.ENOENT, folder)
        if not self.writable(parent):
            raise refusal(errno.EACCES, folder)
        self.groups[folder] = FakeGroup(self.user)

    def remove(self, folder: str) -> None:
        if folder not in self.groups:
            raise refusal(errno.ENOENT, folder)
        if self.groups[folder].procs or self.children(folder):
            raise refusal(errno.EBUSY, folder)
        del self.groups[folder]

    def folders(self, folder: str) -> list[str]:
        return [path.rpartition("/")[2] for path in self.children(folder)]

    def find(self, top: str, name: str) -> list[str]:
        return [path for path in self.groups if path.startswith(f"{top}/") and path.endswith(f"/{name}")]

    def writable(self, path: str) -> bool:
        folder = path if path in self.groups else path.rpartition("/")[0]
        return self.user in ("root", self.groups[folder].owner)

    def marked_delegated(self, folder: str) -> bool:
        return self.groups[folder].delegated

    def is_root(self) -> bool:
        return self.user == "root"
