"""The cgroup hierarchies of this host, and which controllers we may enable for groups of our own.

Input: /proc/self/mountinfo, /proc/self/cgroup and the cgroup file systems. Output: a `Hierarchy` for each
hierarchy in which we made the island's parent group `sky-<island>`, and for each controller that we cannot
use a reason and a remedy.

Versions 1 and 2 may be mounted side by side; each controller is in one hierarchy only. In a hierarchy of
version 1 we make the parent group below our own group. In version 2 a group can either contain processes
or enable controllers for its children (cgroups(7), "no internal processes" rule). So it depends:

- Our group is the root of the hierarchy, which is exempt from that rule: we make the parent group there.
- Our group is delegated to us (a unit with `Delegate=yes`, the root of a container's cgroup namespace, a
  group that an ordinary user may write to): we move ourselves one level down, into `sky-daemon-<island>`,
  and enable the controllers in what was our group. `undo` reverses both.
- We are root in a group that is not ours: we make the parent group at the root of the hierarchy, and use
  the controllers that are enabled there already.
- Otherwise nothing is enforced.

Beside those two writes to our own group, we change nothing but groups named `sky-…`.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from skyisland.errors import DriverError

log = logging.getLogger(__name__)

CONTROLLERS = ("memory", "pids", "cpu")

IN_A_UNIT = "start the island as a systemd unit with Delegate=yes"
IN_A_SCOPE = "systemd-run --user --scope -p Delegate=yes skyisland serve"
AS_ROOT = "run the island as root, or on a host with cgroup version 2"


READ_BYTES = 1 << 16
MAX_VALUE_BYTES = 1 << 10
"""A file that gave less than this is read to its end: values are short, and a list of processes comes in
pieces of about a page (seq_file)."""
KILL_ROUNDS = 1000
"""How often the processes of a group are listed and killed. A fork bomb may need several rounds; the number
only keeps the loop finite."""
KILL_BATCH = 64
"""How many pidfds are open at once while the processes of a group are killed. A judgement."""


class Kernel:
    """The file operations on cgroup file systems, so that tests can replace them. Raises OSError."""

    def read(self, path: str) -> str:
        # These files never block. O_NONBLOCK tells the tests' blockbuster so, which ignores such reads.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.read(fd, READ_BYTES)
            while len(data) >= MAX_VALUE_BYTES and (chunk := os.read(fd, READ_BYTES)):
                data += chunk
            return data.decode()
        finally:
            os.close(fd)

    def write(self, path: str, text: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def oom_event(self, folder: str) -> int:
        """An eventfd that becomes readable when a group of version 1 is out of memory."""
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.write(f"{folder}/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            raise
        return event

    def make(self, folder: str) -> None:
        os.mkdir(folder, 0o755)

    def remove(self, folder: str) -> None:
        os.rmdir(folder)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder; none if the folder does not exist."""
        return next((inner for _, inner, _ in os.walk(folder)), [])

    def find(self, top: str, name: str) -> list[str]:
        """Paths of all folders of that name below `top`."""
        return [f"{path}/{name}" for path, inner, _ in os.walk(top) if name in inner]

    def writable(self, path: str) -> bool:
        return os.access(path, os.W_OK)

    def marked_delegated(self, folder: str) -> bool:
        """Whether systemd marked a group as delegated to the unit in it (systemd, CGROUP_DELEGATION)."""
        for name in ("user.delegate", "trusted.delegate"):
            with suppress(OSError):
                return os.getxattr(folder, name) == b"1"
        return False

    def is_root(self) -> bool:
        return os.geteuid() == 0


def processes(kernel: Kernel, folder: str) -> set[int]:
    """The pids in a group, without those of processes outside of our pid namespace (the kernel shows 0)."""
    try:
        return {int(pid) for pid in kernel.read(f"{folder}/cgroup.procs").split()} - {0}
    except FileNotFoundError:
        return set()


def kill_all(kernel: Kernel, folder: str) -> None:
    """Send SIGKILL to every process of a group; a missing group is no error."""
    try:
        kernel.write(f"{folder}/cgroup.kill", "1")
        return
    except FileNotFoundError:
        pass  # version 1, or before Linux 5.14, or no such group
    # Kill in rounds until no new process appears: a process that was killed cannot fork.
    killed: set[int] = set()
    for _ in range(KILL_ROUNDS):
        fresh = [pid for pid in processes(kernel, folder) if pid not in killed][:KILL_BATCH]
        if not fresh:
            return
        pidfds: dict[int, int] = {}
        try:
            for pid in fresh:
                with suppress(ProcessLookupError):
                    pidfds[pid] = os.pidfd_open(pid)
            # List once more: a pid that is still in the group is the process that the pidfd was opened for,
            # and not one that got its number later.
            for pid in processes(kernel, folder) & pidfds.keys():
                killed.add(pid)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfds[pid], signal.SIGKILL)
        finally:
            for fd in pidfds.values():
                os.close(fd)
    log.warning("processes keep appearing in %s", folder)


def remove_empty(kernel: Kernel, folder: str) -> bool:
    """Remove a group's folder if it exists; False while a task is left in it.

    Raises:
        DriverError
    """
    try:
        kernel.remove(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise DriverError(f"cannot remove cgroup {folder}: {error.strerror}") from error
    return True


class CgroupMount(Struct, frozen=True):
    """A mounted cgroup file system."""

    version: int
    mount_point: str
    root_group: str
    """The group that is visible at `mount_point`; not the hierarchy's root in a container."""
    options: frozenset[str]

    def folder(self, group: str) -> str:
        """The folder of a group of /proc/PID/cgroup; the mount point if the group is not visible there."""
        below = os.path.relpath(group, self.root_group)
        if below.startswith(".."):
            return self.mount_point
        return os.path.normpath(f"{self.mount_point}/{below}")


class Hierarchy(Struct, frozen=True):
    """A hierarchy in which the island makes groups."""

    version: int
    parent: str
    """The folder of the parent group, `sky-<island>`."""
    controllers: frozenset[str]
    """The controllers whose limits can be set in its children."""
    counts_cpu: bool
    """Whether its children count processor time."""


class Refusal(Struct, frozen=True):
    """Why a controller cannot be used, and what the operator can do about it."""

    reason: str
    remedy: str


class Hierarchies:
    """The hierarchies that one island uses: `find` makes the parent groups, `undo` removes them."""

    def __init__(self, island: str, root: str, proc: str, kernel: Kernel) -> None:
        self.name = f"sky-{island}"
        self.usable: list[Hierarchy] = []
        self.refused: dict[str, Refusal] = {}
        """By controller."""
        self.leftovers: list[str] = []
        """Folders named like our parent group elsewhere: an earlier run of this island was in another
        group."""
        self._daemon = f"sky-daemon-{island}"
        self._root = root
        self._proc = proc
        self._kernel = kernel
        self._moved_from: str | None = None
        self._enabled: list[str] = []

    def find(self) -> None:
        """Make the parent group in every hierarchy where we may. Missing rights are a refusal, no error.

        May be repeated.
        """
        self.usable = []
        self.refused = {
            name: Refusal("the kernel offers no such cgroup controller", f"boot with cgroup_enable={name}")
            for name in CONTROLLERS
        }
        mounts, groups = self._mounts(), self._groups()
        for mount in mounts:
            names = mount.options.intersection(CONTROLLERS) & groups.keys()
            if mount.version == 1 and names:
                self._find_v1(mount, mount.folder(groups[min(names)]), names)
        controllers = [name for name in CONTROLLERS if not any(name in mount.options for mount in mounts)]
        for mount in mounts:
            if mount.version == 2 and controllers and "" in groups:
                self._find_v2(mount, mount.folder(groups[""]), controllers)
        parents = {hierarchy.parent for hierarchy in self.usable}
        tops = {m.mount_point for m in mounts if any(_within(parent, m.mount_point) for parent in parents)}
        self.leftovers = sorted({f for top in tops for f in self._kernel.find(top, self.name)} - parents)

    def undo(self) -> None:
        """Remove the parent groups that are empty, and move ourselves back to our first group."""
        for folder in self.parents():
            with suppress(OSError):  # a jail's group is left in it; the next start removes both
                self._kernel.remove(folder)
        self._move_back()
        self.usable, self.leftovers = [], []

    def parents(self) -> list[str]:
        return [hierarchy.parent for hierarchy in self.usable] + self.leftovers

    # From /proc

    def _mounts(self) -> list[CgroupMount]:
        """From proc_pid_mountinfo(5)."""
        mounts = []
        with suppress(OSError):
            for line in self._kernel.read(f"{self._proc}/self/mountinfo").splitlines():
                before, _, after = line.partition(" - ")
                kind, _, options = after.split(" ", 2)
                root, point = (_unescaped(field) for field in before.split(" ")[3:5])
                if kind in ("cgroup", "cgroup2") and _within(point, self._root):
                    version = 1 if kind == "cgroup" else 2
                    mounts.append(CgroupMount(version, point, root, frozenset(options.split(","))))
        return mounts

    def _groups(self) -> dict[str, str]:
        """Our own group by v1 controller, and by "" for version 2 (cgroups(7), /proc/PID/cgroup)."""
        groups: dict[str, str] = {}
        with suppress(OSError):
            for line in self._kernel.read(f"{self._proc}/self/cgroup").splitlines():
                _, controllers, path = line.split(":", 2)
                groups.update(dict.fromkeys(controllers.split(","), path))
        return groups

    # Version 1

    def _find_v1(self, mount: CgroupMount, own: str, names: frozenset[str]) -> None:
        parent = f"{own}/{self.name}"
        reason = self._make(parent)
        if reason:
            self._refuse(names, reason, AS_ROOT)
        else:
            self.usable.append(Hierarchy(1, parent, names, "cpuacct" in mount.options))

    # Version 2

    def _find_v2(self, mount: CgroupMount, own: str, controllers: list[str]) -> None:
        remedy = IN_A_UNIT if self._kernel.is_root() else IN_A_SCOPE
        base, ours = own, True  # the group to make the parent in, and whether we may enable controllers there
        if os.path.basename(own) == self._daemon:  # an earlier `find` moved us there
            base = os.path.dirname(own)
        elif self._is_hierarchy_root(own):
            pass
        elif self._is_delegated(own, mount):
            reason = self._move(own, f"{own}/{self._daemon}")
            if reason:
                self._refuse(controllers, reason, remedy)
                return
        elif self._kernel.is_root():
            base, ours = mount.mount_point, False
        else:
            self._refuse(controllers, f"{own} is not delegated to this user", remedy)
            return
        parent = f"{base}/{self.name}"
        enabled = self._enable(base, controllers, remedy, ours=ours)
        if enabled:
            reason = self._make(parent)
            if reason:
                self._refuse(enabled, reason, remedy)
            enabled = [] if reason else self._enable(parent, enabled, remedy, ours=True)
        if enabled:
            self.usable.append(Hierarchy(2, parent, frozenset(enabled), counts_cpu=True))
        else:
            self._move_back()

    def _is_hierarchy_root(self, folder: str) -> bool:
        """Whether a group is the root of the hierarchy: only that one has no cgroup.events."""
        try:
            self._kernel.read(f"{folder}/cgroup.events")
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def _is_delegated(self, own: str, mount: CgroupMount) -> bool:
        if self._kernel.is_root():
            # Root may write everywhere, so that proves nothing. A group that is mounted but is not the
            # hierarchy's root is the root of a container's cgroup namespace.
            in_container = own == mount.mount_point and self._kernel.writable(own)
            return self._kernel.marked_delegated(own) or in_container
        files = ("", "/cgroup.procs", "/cgroup.subtree_control")
        return all(self._kernel.writable(own + name) for name in files)

    def _make(self, folder: str) -> str:
        """Make a group unless it exists. Returns "", or why we cannot use the group."""
        try:
            self._kernel.make(folder)
        except FileExistsError:
            if not self._kernel.writable(folder):
                return f"{folder} belongs to somebody else"
        except OSError as error:
            return f"cannot make {folder}: {error.strerror}"
        return ""

    def _move(self, own: str, home: str) -> str:
        """Move ourselves from our own group into `home` below it. Returns "", or why we cannot."""
        reason = self._make(home)
        if not reason:
            try:
                self._kernel.write(f"{home}/cgroup.procs", "0")
                self._moved_from = own
            except OSError as error:
                reason = f"cannot move into {home}: {error.strerror}"
                with suppress(OSError):
                    self._kernel.remove(home)
        return reason

    def _move_back(self) -> None:
        own, self._moved_from = self._moved_from, None
        if own is None:
            return
        with suppress(OSError):  # another group needs the controllers by now: we stay where we are
            while self._enabled:
                self._kernel.write(f"{own}/cgroup.subtree_control", f"-{self._enabled.pop()}")
            self._kernel.write(f"{own}/cgroup.procs", "0")
            self._kernel.remove(f"{own}/{self._daemon}")

    def _enable(self, folder: str, controllers: list[str], remedy: str, *, ours: bool) -> list[str]:
        """Enable controllers for the children of a group that is `ours`. Returns those that are enabled."""
        try:
            offered = self._kernel.read(f"{folder}/cgroup.controllers").split()
            enabled = self._kernel.read(f"{folder}/cgroup.subtree_control").split()
        except OSError as error:
            self._refuse(controllers, f"cannot read {folder}: {error.strerror}", remedy)
            return []
        for name in controllers:
            if name in enabled:
                continue
            if not ours or name not in offered:
                self._refuse([name], f"the {name} controller is not enabled in {folder}", remedy)
                continue
            try:
                self._kernel.write(f"{folder}/cgroup.subtree_control", f"+{name}")
                enabled.append(name)
                if folder == self._moved_from:
                    self._enabled.append(name)
            except OSError as error:
                busy = error.errno == errno.EBUSY
                reason = f"other processes are in {folder}" if busy else f"{folder}: {error.strerror}"
                self._refuse([name], reason, remedy)
        return [name for name in controllers if name in enabled]

    def _refuse(self, names: Iterable[str], reason: str, remedy: str) -> None:
        self.refused.update(dict.fromkeys(names, Refusal(reason, remedy)))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _unescaped(field: str) -> str:
    """Decode a path of mountinfo, which writes space, tab, newline and backslash in octal."""
    for escaped, plain in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(escaped, plain)
    return field
