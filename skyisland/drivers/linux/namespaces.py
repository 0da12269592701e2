"""Jails on Linux for an island that is root: our own launcher makes them.

The confinement is that of `bubblewrap.py`, in fewer steps. bwrap is executed for each jail, needs a user
namespace to make the others, and forks three times. The launcher (`launcher/main.go`) already runs, is
small, is root and clones once. A jail writes to a tmpfs of its own, which has a limit of its own. An island
that is not root uses bubblewrap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from skyisland.drivers.linux.cgroup.group import Group
from skyisland.drivers.linux.cgroup.groups import Cgroups
from skyisland.drivers.linux.launching import Launcher, LauncherSocket, explain, start
from skyisland.drivers.linux.rlimits import by_number
from skyisland.drivers.linux.seccomp import compile_filter, seccomp_capability
from skyisland.errors import DriverError, HostUnfit
from skyisland.host.pipes import Piped, Pipes, readable
from skyisland.jails.driver import jail_prefix, resolv_conf
from skyisland.model import Clone, JailSpec, Limits, NetworkAccess, Snapshot
from skyisland.status import Capability, Usage

log = logging.getLogger(__name__)

SETUP_TIMEOUT_S = 10.0
"""A jail takes milliseconds; a launcher that does not answer for so long is broken."""
SCRATCH_BYTES = 64 << 20
"""The size of a jail's tmpfs if neither disk nor memory is limited. A judgement."""
SCRATCH_INODES = 1 << 16
"""Files and folders that a jail may make. tmpfs does not count them in its size, and each takes about 1 KiB
of kernel memory (inode 752 bytes, dentry 192)."""


class LaunchedProcess(Piped):
    """The process in a jail (`process.Running`). Its end comes from init, through the status pipe."""

    def __init__(self, pipes: Pipes, limits: Limits, status_fd: int, pid: int, pidfd: int) -> None:
        """`status_fd`: our end of the status pipe. `pid`, `pidfd`: init's."""
        super().__init__(pipes, limits.stdout_bytes, limits.stderr_bytes)
        self.pid = pid
        self.returncode: int | None = None
        self.failure = ""
        """Why the process never started; empty if it did."""
        self.disk_full = False
        self._pidfd = pidfd
        self._status_fd = status_fd
        self._partial_line = b""
        self._ended = asyncio.Event()
        os.set_blocking(status_fd, False)
        asyncio.get_running_loop().add_reader(status_fd, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._status_fd, 4096)
        except BlockingIOError:
            return
        self._partial_line += chunk
        while b"\n" in self._partial_line:
            line, _, self._partial_line = self._partial_line.partition(b"\n")
            self._handle(line[:1], line[1:])
        if not chunk or self.returncode is not None:
            self._close()

    def _handle(self, kind: bytes, text: bytes) -> None:
        """Handle a record of the status pipe (launcher/main.go, Protocol)."""
        if kind == b"e":
            self.returncode = int(text)
        elif kind == b"s":
            self.returncode = -int(text)
        elif kind == b"d":
            self.disk_full = True
        elif kind == b"!":
            self.failure = explain(text)

    def _close(self) -> None:
        if self._ended.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._status_fd)
        os.close(self._status_fd)
        if self.returncode is None:
            self.returncode = -signal.SIGKILL  # init was killed, and with it the process
        self._ended.set()
        self.news.announce()

    async def wait(self) -> int:
        await self._ended.wait()
        self.collect()
        assert self.returncode is not None  # noqa: S101 - it has ended
        return self.returncode

    def leave(self) -> None:
        """Listen no more to a process that has been killed: how it ended is known."""
        self._close()
        self.collect()

    @property
    def pidfd(self) -> int | None:
        """Init's; None once it is known to be gone."""
        return self._pidfd if self._pidfd >= 0 else None

    def kill(self) -> None:
        """Kill init, and so every process of the jail."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until init is dead, and so every other process of the jail (pid_namespaces(7))."""
        if self._pidfd >= 0:
            fd, self._pidfd = self._pidfd, -1
            await readable(fd)
            os.close(fd)


class NamespaceJail:
    """A jail that the launcher made."""

    def __init__(self, spec: JailSpec, process: LaunchedProcess, group: Group, cgroups: Cgroups) -> None:
        self.spec = spec
        self.process = process
        self._group = group
        self._cgroups = cgroups

    @property
    def pid(self) -> int | None:
        return self.process.pid

    @property
    def pidfd(self) -> int | None:
        return self.process.pidfd

    async def kill(self) -> None:
        self.process.kill()

    async def destroy(self) -> None:
        self.process.kill()
        self.process.leave()
        await self.process.gone()
        await self._cgroups.give_back(self._group)

    def ended(self) -> tuple[int | None, int | None]:
        code = self.process.returncode
        if self.process.failure or code is None:
            raise DriverError(
                f"cannot start the jail: {self.process.failure or 'it has not ended'}", jail=self.spec.name
            )
        return (None, -code) if code < 0 else (code, None)

    def ran_out_of_memory(self) -> bool:
        return self._group.ran_out_of_memory()

    def filled_its_disk(self) -> bool:
        return self.process.disk_full

    def usage(self) -> Usage:
        return self._group.usage()


class NamespaceJails:
    """A `JailDriver` that uses our own launcher; only root can."""

    name = "namespaces"
    connects_late = True

    def __init__(
        self, island: str, run: Path, launcher: Launcher, *, probe_uid: int, clones: Path | None = None
    ) -> None:
        """`run`: a folder for files that are needed only while the island runs. `probe_uid`: the uid of the
        jail that `prepare` tries. `clones`: the folder where clones will be mounted, if they are mounts."""
        self.launcher = launcher
        self._clones = clones
        self.prefix = jail_prefix(island)
        self._scratch = run / f"sky-{island}-root"
        self._resolv = run / f"sky-{island}-resolv.conf"
        self._probe_uid = probe_uid
        self._cgroups = Cgroups(island)
        self._start: Callable[[], Awaitable[LauncherSocket]] | None = None
        self._starting = asyncio.Lock()
        self._socket: LauncherSocket | None = None
        self._dns: tuple[str, ...] | None = None
        """The name servers in the file at `_resolv`, which jails with an address share."""

    @property
    def launcher_pid(self) -> int | None:
        """The pid of the running launcher; None if there is none, or if it has ended."""
        return None if self._socket is None or self._socket.lost else self._socket.pid

    # Life

    async def prepare(self, base: Snapshot) -> None:
        """Start the launcher, find the cgroups, and try a jail.

        Raises:
            HostUnfit: no jail can be made here; the text says what to do.
        """
        if os.geteuid() != 0:
            raise HostUnfit(
                'only root can make jails of namespaces directly; set jails.driver = "bubblewrap"'
            )
        if self._clones is not None:
            await asyncio.to_thread(_check_shared, self._clones)
        program = await self.launcher.program()
        bpf = await asyncio.to_thread(compile_filter)
        await asyncio.to_thread(self._cgroups.prepare)
        await asyncio.to_thread(self._make_folders)
        self._start = partial(start, program, self._scratch, bpf)
        self._socket = await self._start()
        await self._probe(base)

    async def _running_launcher(self) -> LauncherSocket:
        """The running launcher. If it has ended, all its jails are dead, and another one is started."""
        async with self._starting:
            if self._socket is None or self._start is None:
                raise DriverError("the island has not started its launcher of jails, or stops")
            if self._socket.lost:
                log.error("the launcher of jails has ended; another is started")
                await self._socket.close()
                self._socket = await self._start()
            return self._socket

    async def _probe(self, base: Snapshot) -> None:
        """Make a jail whose program does not exist: if only executing it fails, this host can make jails."""
        name = f"{self.prefix}0"
        spec = JailSpec(
            name=name, jid=0, clone=Clone(name, base, None), argv=("/nonexistent",), uid=self._probe_uid
        )
        jail = await self.create(spec)
        try:
            await jail.process.wait()
            if not jail.process.failure.startswith("cannot execute /nonexistent"):
                why = jail.process.failure or "it said nothing"
                raise HostUnfit(
                    f"cannot make a jail here: {why}; the island must be root with all of its capabilities, "
                    'or set jails.driver = "bubblewrap"'
                )
        finally:
            await jail.destroy()

    def _make_folders(self) -> None:
        self._remove_folders()
        self._scratch.mkdir(mode=0o700, parents=True)

    def _remove_folders(self) -> None:
        if self._scratch.exists():
            shutil.rmtree(self._scratch)
        self._resolv.unlink(missing_ok=True)

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        await asyncio.to_thread(self._remove_folders)
        await asyncio.to_thread(self._cgroups.close)

    # One jail

    async def create(self, spec: JailSpec) -> NamespaceJail:
        launcher = await self._running_launcher()
        async with AsyncExitStack() as undo:
            group = self._cgroups.create(spec.name, spec.limits)
            undo.push_async_callback(self._cgroups.give_back, group)
            try:
                pipes = Pipes()
                undo.callback(pipes.close)
                status_r, status_w = os.pipe()
                undo.callback(os.close, status_r)
                try:
                    order = await self._order(spec, group)
                    async with asyncio.timeout(SETUP_TIMEOUT_S):
                        pid, pidfd = await launcher.order(spec.name, order, (*pipes.theirs, status_w))
                finally:
                    os.close(status_w)
            except TimeoutError as failure:
                raise DriverError("the launcher of jails does not answer", jail=spec.name) from failure
            except OSError as failure:
                raise DriverError(f"cannot make the jail: {failure.strerror}", jail=spec.name) from failure
            undo.pop_all()
        process = LaunchedProcess(pipes, spec.limits, status_r, pid, pidfd)
        return NamespaceJail(spec, process, group, self._cgroups)

    async def _order(self, spec: JailSpec, group: Group) -> list[str]:
        """The words of an order. `order.take` in order.go explains their first letters."""
        limits = spec.limits
        size = limits.disk_bytes or limits.memory_bytes or SCRATCH_BYTES
        words = [
            f"b{path.parent}" if path.name == "cgroup.procs" else f"g{path}" for path in group.join_paths
        ]
        words.append(f"tmode=755,size={size},nr_inodes={SCRATCH_INODES}")
        if spec.clone.path:
            words.append(f"c{spec.clone.path}")
        else:
            words.append(f"o{spec.clone.origin.path}")
        for m in spec.mounts:
            words += (f"{'w' if m.writable else 'r'}{m.source}", f"i{m.target}")
        if spec.network is NetworkAccess.host:
            words.append("h")
            for name in ("/etc/resolv.conf", "/etc/hosts"):
                words += (f"s{name}", f"i{name}")  # it may be a link, and builds run no code of strangers
        elif spec.dns:
            if spec.dns != self._dns:
                await asyncio.to_thread(self._write_resolv, spec.dns)
            words += (f"r{self._resolv}", "i/etc/resolv.conf")
        words += [f"l{resource}={maximum}" for resource, maximum in by_number(limits).items()]
        words += (f"u{spec.uid}", f"d{spec.cwd}")
        words += [f"a{argument}" for argument in spec.argv]
        words += [f"e{name}={value}" for name, value in spec.env]
        return words

    def _write_resolv(self, dns: tuple[str, ...]) -> None:
        self._resolv.write_bytes(resolv_conf(dns))
        self._resolv.chmod(0o644)
        self._dns = dns

    # Leftovers: jails die with the launcher, and the launcher with the island. Only cgroups can stay.

    async def existing(self) -> list[str]:
        groups = await asyncio.to_thread(self._cgroups.existing)
        return sorted(name for name in groups if name.startswith(self.prefix))

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._cgroups.remove, name)

    def capabilities(self) -> list[Capability]:
        return [
            Capability(
                name="namespaces",
                enforced=True,
                how="mount, pid, ipc, uts, cgroup, network; one unprivileged host uid per jail",
            ),
            seccomp_capability(),
            Capability(name="rlimits", enforced=True, how="open files, file size, no core"),
            Capability(
                name="disk",
                enforced=True,
                how=f"a tmpfs of its own, {SCRATCH_INODES} files at most",
            ),
            *self._cgroups.capabilities(),
            self._cgroups.counting(),
        ]


def _check_shared(folder: Path) -> None:
    """Check that clones that are mounted later will appear in the launcher's mount namespace."""
    if not shares(Path("/proc/self/mountinfo").read_text(), folder.resolve()):
        raise HostUnfit(
            f"this host does not share its mounts, so no jail would see its clone below {folder}; "
            'mount --make-rshared /, or set jails.driver = "bubblewrap"'
        )


def shares(mountinfo: str, folder: Path) -> bool:
    """Whether mounts below `folder` propagate to mount namespaces that were cloned from ours.

    See "shared:" in proc_pid_mountinfo(5), and mount_namespaces(7).
    """
    # The mount that `folder` is in has the longest mount point above it; of equal ones, the last is on top.
    nearest, shared = "", False
    for line in mountinfo.splitlines():
        fields = line.partition(" - ")[0].split(" ")
        if folder.is_relative_to(fields[4]) and len(fields[4]) >= len(nearest):
            nearest, shared = fields[4], any(field.startswith("shared:") for field in fields[6:])
    return shared
