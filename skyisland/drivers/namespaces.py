"""Jails on Linux for an island that is root: namespaces made by our own launcher.

The same confinement as `bubblewrap.py` in fewer steps. bwrap is executed anew for each jail, makes a user
namespace to be allowed the rest, and forks three times; the launcher is there already, small, and root
(see `launcher.py` for what it does). What a jail writes goes to a tmpfs of its own with a limit of its
own. An island that is not root cannot do this and uses bubblewrap.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from skyisland.drivers import launcher
from skyisland.drivers.bubblewrap import destroy_group, readable
from skyisland.drivers.cgroups import Cgroups, Group
from skyisland.drivers.rlimits import cpu_seconds
from skyisland.drivers.seccomp import compile_filter
from skyisland.errors import DriverError, HostUnfit
from skyisland.model import Capability, Clone, JailSpec, Limits, Network, Snapshot, Usage
from skyisland.process import Piped, Pipes, Process, spawn

SETUP_TIMEOUT_S = 10.0
SCRATCH_BYTES = 64 << 20
SCRATCH_INODES = 1 << 16
"""Files and folders that a jail may make."""


class Answer(msgspec.Struct):
    """What the launcher says to an order."""

    name: str = ""
    pid: int = 0
    error: str = ""


class Link:
    """The island's end of the socket to the launcher."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._waiting: dict[str, asyncio.Future[tuple[Answer, int]]] = {}
        self.lost = False
        asyncio.get_running_loop().add_reader(end, self._read)

    async def order(self, order: dict[str, Any], fds: list[int]) -> tuple[int, int]:
        """Have a jail made; returns its init's pid, and a pidfd that is the caller's.

        Raises:
            DriverError: the launcher refused, or is gone.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting[order["name"]] = future
        try:
            while True:
                try:
                    socket.send_fds(self._end, [msgspec.json.encode(order)], fds)
                    break
                except BlockingIOError:
                    await self._writable()
            answer, pidfd = await future
        except (BrokenPipeError, ConnectionError) as error:
            raise DriverError("the launcher of jails is gone; start the island again") from error
        finally:
            self._waiting.pop(order["name"], None)
        if pidfd < 0:
            raise DriverError(f"cannot make the jail: {answer.error}", jail=order["name"])
        return answer.pid, pidfd

    def _read(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._end, launcher.ORDER_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._lose()
                return
            answer = msgspec.json.decode(data, type=Answer)
            if answer.pid and not fds:
                # We had no descriptor left for its pidfd. It was made a moment ago: its number is its own.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(answer.pid, signal.SIGKILL)
                answer.error = os.strerror(errno.EMFILE)
            future = self._waiting.get(answer.name)
            if future is not None and not future.done():
                future.set_result((answer, fds[0] if fds else -1))
            elif fds:
                # Nobody waits any more: the jail must not live on unknown.
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fds[0], signal.SIGKILL)
                os.close(fds[0])

    def _lose(self) -> None:
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._end)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(DriverError("the launcher of jails is gone; start the island again"))

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._end, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._end)

    def close(self) -> None:
        if not self.lost:
            self._lose()
        self._end.close()


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
            self.failure = text.decode(errors="replace")

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

    def __init__(self, spec: JailSpec, process: Launched, group: Group) -> None:
        self.spec = spec
        self.process = process
        self._group = group

    @property
    def pid(self) -> int | None:
        return self.process.pid

    async def kill(self) -> None:
        self.process.kill()

    async def destroy(self) -> None:
        self.process.kill()
        await self.process.wait()
        await self.process.gone()
        await destroy_group(self._group)

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

    def __init__(self, island: str, run: Path, *, probe_uid: int) -> None:
        """`run`: a folder of ours for what lives no longer than the island; `probe_uid`: see `prepare`."""
        self.prefix = f"sky-{island}-"
        self._scratch = run / f"sky-{island}-root"
        self._folders = (self._scratch, Path(f"{self._scratch}.dev"))
        self._resolv = run / f"sky-{island}-resolv.conf"
        self._probe_uid = probe_uid
        self._cgroups = Cgroups(island)
        self._link: Link | None = None
        self._launcher: Process | None = None
        self._dns: tuple[str, ...] | None = None

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
        program = await asyncio.to_thread(compile_filter)
        await asyncio.to_thread(self._cgroups.prepare)
        await asyncio.to_thread(self._sweep)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            argv = [sys.executable, "-I", "-S", launcher.__file__, str(fd)]
            self._launcher = spawn(argv, env={}, pass_fds=[fd])
        setup = {"scratch": str(self._scratch), "filter": program.hex()}
        answer = await asyncio.to_thread(_exchange, ours, json.dumps(setup).encode())
        if error := json.loads(answer or b'{"error": "it ended"}').get("error"):
            ours.close()
            raise HostUnfit(f"the launcher of jails cannot start: {error}")
        self._link = Link(ours)
        await self._probe(base)

    async def _probe(self, base: Snapshot) -> None:
        name = f"{self.prefix}0"
        spec = JailSpec(
            name=name, jid=0, clone=Clone(name, base, None), argv=("/nonexistent",), uid=self._probe_uid
        )
        jail = await self.create(spec)
        try:
            await jail.process.wait()
            if not jail.process.failure.startswith("cannot execute /nonexistent"):
                raise HostUnfit(f"cannot make a jail here: {jail.process.failure or 'it said nothing'}")
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
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._launcher is not None:
            await self._launcher.wait()
            self._launcher = None
        await asyncio.to_thread(self._clear)
        await asyncio.to_thread(self._cgroups.close)

    # One jail

    async def create(self, spec: JailSpec) -> NamespaceJail:
        if self._link is None:
            raise DriverError("the launcher of jails is not running; start the island again")
        async with AsyncExitStack() as undo:
            group = self._cgroups.create(spec.name, spec.limits)
            undo.push_async_callback(destroy_group, group)
            try:
                pipes = Pipes()
                undo.callback(pipes.close)
                status_r, status_w = os.pipe()
                undo.callback(os.close, status_r)
                try:
                    order = await self._order(spec, group)
                    async with asyncio.timeout(SETUP_TIMEOUT_S):
                        pid, pidfd = await self._link.order(order, [*pipes.theirs, status_w])
                finally:
                    os.close(status_w)
            except TimeoutError as failure:
                raise DriverError("the launcher of jails does not answer", jail=spec.name) from failure
            except OSError as failure:
                raise DriverError(f"cannot make the jail: {failure.strerror}", jail=spec.name) from failure
            undo.pop_all()
        return NamespaceJail(spec, Launched(pipes, spec.limits, status_r, pid, pidfd), group)

    async def _order(self, spec: JailSpec, group: Group) -> dict[str, Any]:
        mounts = [(str(m.source), m.target, m.writable) for m in spec.mounts]
        if spec.network is Network.host:
            for name in ("/etc/resolv.conf", "/etc/hosts"):
                mounts.append((name, name, False))
        elif spec.dns:
            if spec.dns != self._dns:
                await asyncio.to_thread(self._write_resolv, spec.dns)
            mounts.append((str(self._resolv), "/etc/resolv.conf", False))
        size = spec.limits.disk_bytes or spec.limits.memory_bytes or SCRATCH_BYTES
        return {
            "name": spec.name,
            "argv": spec.argv,
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "uid": spec.uid,
            "base": str(spec.clone.origin.path),
            "clone": str(spec.clone.path) if spec.clone.path else "",
            "mounts": mounts,
            "network": str(spec.network),
            "cgroups": [str(path) for path in group.join_paths],
            "rlimits": _rlimits(spec.limits),
            "scratch": f"mode=755,size={size},nr_inodes={SCRATCH_INODES}",
        }

    def _write_resolv(self, dns: tuple[str, ...]) -> None:
        self._resolv.write_text("".join(f"nameserver {server}\n" for server in dns))
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
            Capability(
                name="seccomp",
                enforced=True,
                how="a filter on system calls, no new privileges, no capabilities",
            ),
            Capability(name="rlimits", enforced=True, how="open files, file size, processes, no core"),
            Capability(
                name="disk",
                enforced=True,
                how=f"a tmpfs of its own, {SCRATCH_INODES} files at most",
            ),
            *self._cgroups.capabilities(),
            self._cgroups.counting(),
        ]


def _rlimits(limits: Limits) -> dict[str, int]:
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_CPU": None if limits.cpu_time_s is None else cpu_seconds(limits.cpu_time_s),
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _exchange(end: socket.socket, message: bytes) -> bytes:
    """Send and hear the answer; blocks."""
    end.settimeout(SETUP_TIMEOUT_S)
    end.send(message)
    return end.recv(launcher.ORDER_BYTES)
