"""Jails on Linux for an island that is root: namespaces made by our own launcher.

The same confinement as `bubblewrap.py` in fewer steps. bwrap is executed anew for each jail, makes a user
namespace to be allowed the rest, and forks three times; the launcher is there already, tiny, and root
(see `launcher/main.go` for what it does). What a jail writes goes to a tmpfs of its own with a
limit of its own. An island that is not root cannot do this and uses bubblewrap.
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
from skyisland.model import Capability, Clone, JailSpec, Limits, Network, Snapshot, Usage

log = logging.getLogger(__name__)

SETUP_TIMEOUT_S = 10.0
SCRATCH_BYTES = 64 << 20
SCRATCH_INODES = 1 << 16
"""Files and folders that a jail may make."""


class Launched(Piped):
    """The process in a jail (`process.Running`): its pipes, and its end as init tells it."""

    def __init__(self, pipes: Pipes, limits: Limits, status: int, pid: int, pidfd: int) -> None:
        super().__init__(pipes, limits.stdout_bytes, limits.stderr_bytes)
        self.pid = pid
        self.returncode: int | None = None
        self.failure = ""
        """Why it never started, if so."""
        self.disk_full = False
        self._pidfd = pidfd
        self._status = status
        self._told = b""
        self._ended = asyncio.Event()
        os.set_blocking(status, False)
        asyncio.get_running_loop().add_reader(status, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._status, 4096)
        except BlockingIOError:
            return
        self._told += chunk
        while b"\n" in self._told:
            line, _, self._told = self._told.partition(b"\n")
            self._take(line[:1], line[1:])
        if not chunk or self.returncode is not None:
            self._close()

    def _take(self, kind: bytes, text: bytes) -> None:
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
        asyncio.get_running_loop().remove_reader(self._status)
        os.close(self._status)
        if self.returncode is None:
            self.returncode = -signal.SIGKILL  # init is gone without a word
        self._ended.set()
        self.news.tell()

    async def wait(self) -> int:
        await self._ended.wait()
        self.collect()
        assert self.returncode is not None  # noqa: S101 - it has ended
        return self.returncode

    def kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until init, and so everything in the jail, is dead (pid_namespaces(7))."""
        if self._pidfd >= 0:
            fd, self._pidfd = self._pidfd, -1
            await readable(fd)
            os.close(fd)


class NamespaceJail:
    """A jail that the launcher made."""

    def __init__(self, spec: JailSpec, process: Launched, group: Group, cgroups: Cgroups) -> None:
        self.spec = spec
        self.process = process
        self._group = group
        self._cgroups = cgroups

    @property
    def pid(self) -> int | None:
        return self.process.pid

    async def kill(self) -> None:
        self.process.kill()

    async def destroy(self) -> None:
        self.process.kill()
        await self.process.wait()
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
    """A `JailDriver` on our own launcher; for root."""

    name = "namespaces"
    connects_late = True

    def __init__(
        self, island: str, run: Path, launcher: Launcher, *, probe_uid: int, clones: Path | None = None
    ) -> None:
        """`run`: a folder of ours for what lives no longer than the island; `probe_uid`: of the first jail,
        which only tries whether there can be one; `clones`: where clones will be mounted, if they are."""
        self.launcher = launcher
        self._clones = clones
        self.prefix = jail_prefix(island)
        self._scratch = run / f"sky-{island}-root"
        self._folders = (self._scratch, Path(f"{self._scratch}.dev"))
        self._resolv = run / f"sky-{island}-resolv.conf"
        self._probe_uid = probe_uid
        self._cgroups = Cgroups(island)
        self._start: Callable[[], Awaitable[LauncherSocket]] | None = None
        self._starting = asyncio.Lock()
        self._socket: LauncherSocket | None = None
        self._dns: tuple[str, ...] | None = None

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
            await asyncio.to_thread(_must_be_shared, self._clones)
        program = await self.launcher.program()
        system_calls = await asyncio.to_thread(compile_filter)
        await asyncio.to_thread(self._cgroups.prepare)
        await asyncio.to_thread(self._sweep)
        self._start = partial(start, program, self._scratch, system_calls)
        self._socket = await self._start()
        await self._probe(base)

    async def _running(self) -> LauncherSocket:
        """The launcher; if it has ended, and every jail of its with it, another."""
        async with self._starting:
            if self._socket is None or self._start is None:
                raise DriverError("the island has not started its launcher of jails, or stops")
            if self._socket.lost:
                log.error("the launcher of jails has ended; another is started")
                await self._socket.close()
                self._socket = await self._start()
            return self._socket

    async def _probe(self, base: Snapshot) -> None:
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

    def _sweep(self) -> None:
        self._clear()
        for folder in self._folders:
            folder.mkdir(mode=0o700, parents=True)

    def _clear(self) -> None:
        for folder in self._folders:
            if folder.exists():
                shutil.rmtree(folder)
        self._resolv.unlink(missing_ok=True)

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        await asyncio.to_thread(self._clear)
        await asyncio.to_thread(self._cgroups.close)

    # One jail

    async def create(self, spec: JailSpec) -> NamespaceJail:
        launcher = await self._running()
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
        process = Launched(pipes, spec.limits, status_r, pid, pidfd)
        return NamespaceJail(spec, process, group, self._cgroups)

    async def _order(self, spec: JailSpec, group: Group) -> list[str]:
        """The words of an order; what their first letters mean tells `order.go`."""
        scratch, limits = self._scratch, spec.limits
        size = limits.disk_bytes or limits.memory_bytes or SCRATCH_BYTES
        words = [
            f"b{path.parent}" if path.name == "cgroup.procs" else f"g{path}" for path in group.join_paths
        ]
        words.append(f"tmode=755,size={size},nr_inodes={SCRATCH_INODES}")
        if spec.clone.path:
            words.append(f"c{spec.clone.path}")
        else:
            layers = f"lowerdir={_plain(spec.clone.origin.path)},upperdir={_plain(scratch)}/upper"
            words.append(f"o{layers},workdir={_plain(scratch)}/work")
        for m in spec.mounts:
            words += (f"{'w' if m.writable else 'r'}{m.source}", f"i{m.target}")
        if spec.network is Network.host:
            words.append("h")
            for name in ("/etc/resolv.conf", "/etc/hosts"):
                words += (f"r{name}", f"i{name}")
        elif spec.dns:
            if spec.dns != self._dns:
                await asyncio.to_thread(self._write_resolv, spec.dns)
            words += (f"r{self._resolv}", "i/etc/resolv.conf")
        words += [f"l{which}={most}" for which, most in by_number(limits).items()]
        words += (f"u{spec.uid}", f"d{spec.cwd}")
        words += [f"a{argument}" for argument in spec.argv]
        words += [f"e{name}={value}" for name, value in spec.env]
        return words

    def _write_resolv(self, dns: tuple[str, ...]) -> None:
        self._resolv.write_bytes(resolv_conf(dns))
        self._resolv.chmod(0o644)
        self._dns = dns

    # The reaper: every jail dies with the launcher, which dies with the island; groups are what can stay.

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
            Capability(name="rlimits", enforced=True, how="open files, file size, processes, no core"),
            Capability(
                name="disk",
                enforced=True,
                how=f"a tmpfs of its own, {SCRATCH_INODES} files at most",
            ),
            *self._cgroups.capabilities(),
            self._cgroups.counting(),
        ]


def _must_be_shared(folder: Path) -> None:
    """The launcher began with the mounts of then; those that come later must reach it."""
    if not shares(Path("/proc/self/mountinfo").read_text(), folder.resolve()):
        raise HostUnfit(
            f"this host does not share its mounts, so no jail would see its clone below {folder}; "
            'mount --make-rshared /, or set jails.driver = "bubblewrap"'
        )


def shares(mountinfo: str, folder: Path) -> bool:
    """Whether a mount made below `folder` shows in the mount namespaces that stem from ours
    (proc_pid_mountinfo(5), mount_namespaces(7))."""
    nearest, shared = "", False
    for line in mountinfo.splitlines():
        fields = line.partition(" - ")[0].split(" ")
        if folder.is_relative_to(fields[4]) and len(fields[4]) >= len(nearest):
            nearest, shared = fields[4], any(field.startswith("shared:") for field in fields[6:])
    return shared


def _plain(path: Path) -> str:
    """A path among overlayfs options, where three characters have a meaning."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
