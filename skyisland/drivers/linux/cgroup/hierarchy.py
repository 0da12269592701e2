"""Where control groups lie on this host, and which controllers we may hand to groups of our own.

Enters: /proc/self/mountinfo, /proc/self/cgroup and the cgroup file systems. Leaves: `Hierarchy` values,
one for each place where `sky-<island>` was made, and a reason with a remedy for each controller that
cannot be had.

Version 1 and version 2 may be mounted side by side, each controller being in one hierarchy only. On
version 1 our folder comes to be below our own group of each hierarchy. On version 2 a group either
holds processes or hands controllers to its children (cgroups(7), "no internal processes" rule), so:

- we are at the top of the hierarchy, which is exempt: the folder comes to be there;
- our own group is delegated to us (a unit with `Delegate=yes`, the root of a container's cgroup
  namespace, a group that an ordinary user may write): we move ourselves one level down, into
  `sky-daemon-<island>`, and enable the controllers in our own group; `undo` takes both back;
- we are root in a group that is somebody else's: the folder comes to be at the top, with the
  controllers that are enabled there already;
- otherwise nothing is enforced.

Nothing but groups named `sky-…` is touched beside those two writes to our own group.
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


class Kernel:
    """The file operations that a cgroup file system takes. Errors are OSErrors."""

    def read(self, path: str) -> str:
        # Not blocking, for such files never do: the tests' watch on the event loop takes it as a sign.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # A file with values comes in one piece; a list of processes may come in several.
            data = os.read(fd, 1 << 16)
            while len(data) >= 1 << 10 and (chunk := os.read(fd, 1 << 16)):
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

    def alarm(self, folder: str) -> int:
        """A descriptor that can be read when a group of version 1 has no memory left."""
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            told = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.write(f"{folder}/cgroup.event_control", f"{event} {told}")
            finally:
                os.close(told)
        except OSError:
            os.close(event)
            raise
        return event

    def make(self, folder: str) -> None:
        os.mkdir(folder, 0o755)

    def remove(self, folder: str) -> None:
        os.rmdir(folder)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder; none if it does not exist."""
        return next((inner for _, inner, _ in os.walk(folder)), [])

    def find(self, top: str, name: str) -> list[str]:
        """Every folder of that name below `top`."""
        return [f"{where}/{name}" for where, inner, _ in os.walk(top) if name in inner]

    def writable(self, path: str) -> bool:
        return os.access(path, os.W_OK)

    def handed_over(self, folder: str) -> bool:
        """Whether systemd marked a group as delegated to the unit in it (systemd, CGROUP_DELEGATION)."""
        for name in ("user.delegate", "trusted.delegate"):
            with suppress(OSError):
                return os.getxattr(folder, name) == b"1"
        return False

    def root(self) -> bool:
        return os.geteuid() == 0


def listed(kernel: Kernel, folder: str) -> set[int]:
    """The processes of a group; those that our process namespace does not show are left out."""
    try:
        return {int(pid) for pid in kernel.read(f"{folder}/cgroup.procs").split()} - {0}
    except FileNotFoundError:
        return set()


def kill_all(kernel: Kernel, folder: str) -> None:
    """SIGKILL to every process of a group, whether it exists or not."""
    try:
        kernel.write(f"{folder}/cgroup.kill", "1")
        return
    except FileNotFoundError:
        pass  # version 1, or before Linux 5.14, or no such group
    # Signal whoever is listed until nobody new appears: who has been signalled forks no more.
    signalled: set[int] = set()
    for _ in range(1000):
        fresh = [pid for pid in listed(kernel, folder) if pid not in signalled][:64]
        if not fresh:
            return
        opened: dict[int, int] = {}
        try:
            for pid in fresh:
                with suppress(ProcessLookupError):
                    opened[pid] = os.pidfd_open(pid)
            # Who is listed now as well is surely the one that we opened, and no later owner of its number.
            for pid in listed(kernel, folder) & opened.keys():
                signalled.add(pid)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(opened[pid], signal.SIGKILL)
        finally:
            for fd in opened.values():
                os.close(fd)
    log.warning("processes keep appearing in %s", folder)


def remove_empty(kernel: Kernel, folder: str) -> bool:
    """Remove a group's folder, if it exists; False while a task is left in it.

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


class Mounted(Struct, frozen=True):
    """A cgroup file system."""

    version: int
    point: str
    top: str
    """The group that is seen at `point`."""
    options: frozenset[str]

    def folder(self, group: str) -> str:
        """Where a group of /proc/PID/cgroup lies; the mount point if it lies outside of what we see."""
        below = os.path.relpath(group, self.top)
        if below.startswith(".."):
            return self.point
        return os.path.normpath(f"{self.point}/{below}")


class Hierarchy(Struct, frozen=True):
    """A place for this island's groups, and what is limited there."""

    version: int
    parent: str
    """The folder of the island's groups: `sky-<island>`."""
    controllers: frozenset[str]
    counts_cpu: bool
    """Its groups count processor time."""


class Refusal(Struct, frozen=True):
    """Why a controller cannot be had, and what to do about it."""

    reason: str
    remedy: str


class Hierarchies:
    """The places of one island; `find` fills it, `undo` empties it."""

    def __init__(self, island: str, root: str, proc: str, kernel: Kernel) -> None:
        self.name = f"sky-{island}"
        self.found: list[Hierarchy] = []
        self.refused: dict[str, Refusal] = {}
        self.strays: list[str] = []
        """Folders of our name in other places: an earlier life was in another group."""
        self._daemon = f"sky-daemon-{island}"
        self._root = root
        self._proc = proc
        self._kernel = kernel
        self._moved_from: str | None = None
        self._enabled: list[str] = []

    def find(self) -> None:
        """Make our folder wherever we may. May be repeated; lack of rights is no error but a refusal."""
        self.found = []
        self.refused = {
            name: Refusal("the kernel offers no such cgroup controller", f"boot with cgroup_enable={name}")
            for name in CONTROLLERS
        }
        mounts, groups = self._mounts(), self._groups()
        for mount in mounts:
            names = mount.options.intersection(CONTROLLERS) & groups.keys()
            if mount.version == 1 and names:
                self._find_v1(mount, mount.folder(groups[min(names)]), names)
        wanted = [name for name in CONTROLLERS if not any(name in mount.options for mount in mounts)]
        for mount in mounts:
            if mount.version == 2 and wanted and "" in groups:
                self._find_v2(mount, mount.folder(groups[""]), wanted)
        parents = {hierarchy.parent for hierarchy in self.found}
        points = {m.point for m in mounts if any(_within(parent, m.point) for parent in parents)}
        self.strays = sorted({f for point in points for f in self._kernel.find(point, self.name)} - parents)

    def undo(self) -> None:
        """Remove our folders where they are empty, and move back to where we were."""
        for folder in self.parents():
            with suppress(OSError):  # a jail is left in it; the next start takes it away
                self._kernel.remove(folder)
        self._move_back()
        self.found, self.strays = [], []

    def parents(self) -> list[str]:
        return [hierarchy.parent for hierarchy in self.found] + self.strays

    # Facts

    def _mounts(self) -> list[Mounted]:
        """proc_pid_mountinfo(5)."""
        mounts = []
        with suppress(OSError):
            for line in self._kernel.read(f"{self._proc}/self/mountinfo").splitlines():
                before, _, after = line.partition(" - ")
                kind, _, options = after.split(" ", 2)
                top, point = (_unescaped(field) for field in before.split(" ")[3:5])
                if kind in ("cgroup", "cgroup2") and _within(point, self._root):
                    version = 1 if kind == "cgroup" else 2
                    mounts.append(Mounted(version, point, top, frozenset(options.split(","))))
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

    def _find_v1(self, mount: Mounted, own: str, names: frozenset[str]) -> None:
        parent = f"{own}/{self.name}"
        reason = self._make(parent)
        if reason:
            self._refuse(names, reason, AS_ROOT)
        else:
            self.found.append(Hierarchy(1, parent, names, "cpuacct" in mount.options))

    # Version 2

    def _find_v2(self, mount: Mounted, own: str, wanted: list[str]) -> None:
        remedy = IN_A_UNIT if self._kernel.root() else IN_A_SCOPE
        base, ours = own, True
        if os.path.basename(own) == self._daemon:  # an earlier `find` moved us there
            base = os.path.dirname(own)
        elif self._is_top(own):
            pass
        elif self._is_delegated(own, mount):
            reason = self._move(own, f"{own}/{self._daemon}")
            if reason:
                self._refuse(wanted, reason, remedy)
                return
        elif self._kernel.root():
            base, ours = mount.point, False
        else:
            self._refuse(wanted, f"{own} is not delegated to this user", remedy)
            return
        parent = f"{base}/{self.name}"
        enabled = self._enable(base, wanted, remedy, ours=ours)
        if enabled:
            reason = self._make(parent)
            if reason:
                self._refuse(enabled, reason, remedy)
            enabled = [] if reason else self._enable(parent, enabled, remedy, ours=True)
        if enabled:
            self.found.append(Hierarchy(2, parent, frozenset(enabled), counts_cpu=True))
        else:
            self._move_back()

    def _is_top(self, folder: str) -> bool:
        """Whether it is the root of the hierarchy itself, which alone has no cgroup.events."""
        try:
            self._kernel.read(f"{folder}/cgroup.events")
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def _is_delegated(self, own: str, mount: Mounted) -> bool:
        if self._kernel.root():
            # At the mount point and yet not at the top: the root of a container's cgroup namespace.
            return self._kernel.handed_over(own) or (own == mount.point and self._kernel.writable(own))
        files = ("", "/cgroup.procs", "/cgroup.subtree_control")
        return all(self._kernel.writable(own + name) for name in files)

    def _make(self, folder: str) -> str:
        """Make a folder or find it; the reason if it cannot be ours."""
        try:
            self._kernel.make(folder)
        except FileExistsError:
            if not self._kernel.writable(folder):
                return f"{folder} belongs to somebody else"
        except OSError as error:
            return f"cannot make {folder}: {error.strerror}"
        return ""

    def _move(self, own: str, home: str) -> str:
        """Move ourselves from our own group into `home` below it; the reason if we cannot."""
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
        with suppress(OSError):  # somebody else came to need the controllers; we stay where we are
            while self._enabled:
                self._kernel.write(f"{own}/cgroup.subtree_control", f"-{self._enabled.pop()}")
            self._kernel.write(f"{own}/cgroup.procs", "0")
            self._kernel.remove(f"{own}/{self._daemon}")

    def _enable(self, folder: str, wanted: list[str], remedy: str, *, ours: bool) -> list[str]:
        """Hand controllers to a group's children, if it is `ours`; returns those that they have."""
        try:
            offered = self._kernel.read(f"{folder}/cgroup.controllers").split()
            enabled = self._kernel.read(f"{folder}/cgroup.subtree_control").split()
        except OSError as error:
            self._refuse(wanted, f"cannot read {folder}: {error.strerror}", remedy)
            return []
        for name in wanted:
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
                said = f"other processes are in {folder}" if busy else f"{folder}: {error.strerror}"
                self._refuse([name], said, remedy)
        return [name for name in wanted if name in enabled]

    def _refuse(self, names: Iterable[str], reason: str, remedy: str) -> None:
        self.refused.update(dict.fromkeys(names, Refusal(reason, remedy)))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _unescaped(field: str) -> str:
    """A path of mountinfo, where space, tab, newline and backslash are written in octal."""
    for escaped, plain in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(escaped, plain)
    return field
