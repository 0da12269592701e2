"""Jails on Linux made by bubblewrap (bwrap), with cgroups and a seccomp filter.

Theory of operation. We start bwrap with `--json-status-fd` and `--block-fd`. It makes the namespaces and
mounts, reports the host's pid of the jail's init, and waits. While it waits, we put init into its cgroups
and set its resource limits. Then we close the block descriptor: init forks the function's process, both load
the seccomp filter, and the process executes the binary. It gets descriptors 0 to 2 and no others.

The end of a jail. When the function's process ends, bwrap's outer process exits with its exit code (128+n
for a signal n). `--die-with-parent` then kills init, and with init its whole pid namespace. The outer process
dies when the island's thread that started it ends. `kill` relies on neither: it kills init by a pidfd.

The user in a jail. If root started bwrap, it would map the jail's uid to the host's root
(`/proc/self/uid_map` would be `65534 0 1`). So the island starts it as an unprivileged uid, a different one
for each living jail. Inside, every uid is `nobody`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from skyisland.drivers.linux.bwrap import BwrapStatus, arguments, check_program, find_bwrap
from skyisland.drivers.linux.cgroup.group import Group
from skyisland.drivers.linux.cgroup.groups import Cgroups
from skyisland.drivers.linux.ownfiles import OwnFiles
from skyisland.drivers.linux.rlimits import limit_process
from skyisland.drivers.linux.seccomp import compile_filter, seccomp_capability
from skyisland.errors import DriverError, HostUnfit
from skyisland.host.pipes import memory_file, readable
from skyisland.host.process import Process, spawn
from skyisland.jails.driver import jail_prefix, resolv_conf
from skyisland.model import Clone, JailSpec, Limits, Mount, Snapshot
from skyisland.status import Capability, Usage

SETUP_TIMEOUT_S = 10.0
"""How long bwrap may take until the jail is ready to run; it takes some 10 ms."""


class BubblewrapJail:
    """A jail that bwrap made."""

    def __init__(
        self,
        spec: JailSpec,
        process: Process,
        status: BwrapStatus,
        group: Group,
        cgroups: Cgroups,
        own: OwnFiles,
        *,
        init: int,
        init_pidfd: int,
    ) -> None:
        """`process`: bwrap's outer process. `init`: the pid of the jail's init."""
        self.spec = spec
        self.process = process
        self.pid: int | None = init
        self._status = status
        self._group = group
        self._cgroups = cgroups
        self._own = own
        self._init_pidfd: int | None = init_pidfd

    @property
    def pidfd(self) -> int | None:
        return self._init_pidfd

    async def kill(self) -> None:
        if self._init_pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_pidfd, signal.SIGKILL)
        self.process.kill()

    async def destroy(self) -> None:
        await self.kill()
        await self.process.wait()
        self._status.close()
        if self._init_pidfd is not None:
            # Init ends only after every other process of its namespace has (pid_namespaces(7)).
            pidfd, self._init_pidfd = self._init_pidfd, None
            await readable(pidfd)
            os.close(pidfd)
        await asyncio.to_thread(self._own.remove, self.spec.name)
        await self._cgroups.give_back(self._group)

    def ended(self) -> tuple[int | None, int | None]:
        code = self.process.returncode
        if code is None or code < 0:
            raise DriverError(f"bwrap of {self.spec.name} was killed from outside", jail=self.spec.name)
        # The status pipe alone is bwrap's word. What is on standard error may be the function's.
        if self._status.exit_code() is None:
            stderr = bytes(self.process.stderr.data).decode(errors="replace").strip()
            raise DriverError(f"bwrap could not start the jail: {stderr}", jail=self.spec.name)
        return (None, code - 128) if 128 < code < 128 + signal.NSIG else (code, None)

    def ran_out_of_memory(self) -> bool:
        return self._group.ran_out_of_memory()

    def filled_its_disk(self) -> bool:
        """Never known: the jail's files are in its memory, and when that is full the jail is killed."""
        return False

    def usage(self) -> Usage:
        return self._group.usage()


class BubblewrapJails:
    """A `JailDriver` that uses bubblewrap."""

    name = "bubblewrap"
    connects_late = True

    def __init__(self, island: str, run: Path, *, probe_uid: int | None = None) -> None:
        """`run`: a folder for files that are needed only while the island runs; uids of jails must be able
        to reach it. `probe_uid`: the uid of the jail that `prepare` tries; None for our own."""
        self.prefix = jail_prefix(island)
        self._own = OwnFiles(run / f"sky-{island}-own")
        self._probe_uid = probe_uid
        self._cgroups = Cgroups(island)
        self._may_set_rlimits = True
        self._bwrap = Path()
        self._filter = b""

    async def prepare(self, base: Snapshot) -> None:
        """Find bwrap, compile the filter, find the cgroups, and try a jail.

        Raises:
            HostUnfit: no jail can be made here; the text says what to do.
        """
        self._bwrap = await asyncio.to_thread(find_bwrap)
        self._filter = await asyncio.to_thread(compile_filter)
        await asyncio.to_thread(self._cgroups.prepare)
        await asyncio.to_thread(self._own.prepare)
        await self._probe(base)

    async def _probe(self, base: Snapshot) -> None:
        """Make a jail whose program does not exist: if only executing it fails, this host can make jails.

        Raises:
            HostUnfit: bwrap's own message, and the remedy.
        """
        name = f"{self.prefix}0"
        spec = JailSpec(
            name=name,
            jid=0,
            clone=Clone(name, base, None),
            argv=("/nonexistent",),
            uid=self._probe_uid,
            limits=Limits(),
        )
        jail = await self._create(spec)
        try:
            await jail.process.feed(b"")
            await jail.process.wait()
            message = bytes(jail.process.stderr.data).decode(errors="replace").strip()
            if "execvp /nonexistent" not in message:
                raise HostUnfit(
                    f"bubblewrap cannot make a jail here: {message}. User namespaces must be allowed "
                    "(sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0, and on "
                    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), and every folder above "
                    f"{base.path} must be open to others (chmod o+x)"
                )
        finally:
            await jail.destroy()

    async def create(self, spec: JailSpec) -> BubblewrapJail:
        await asyncio.to_thread(check_program, spec)
        return await self._create(spec)

    async def _create(self, spec: JailSpec) -> BubblewrapJail:
        try:
            files = await asyncio.to_thread(self._own.make, spec.name, spec.mounts)
        except OSError as failure:
            raise DriverError(f"cannot make the jail: {failure}", jail=spec.name) from failure
        try:
            return await self._start(spec, files)
        except BaseException:
            await asyncio.to_thread(self._own.remove, spec.name)
            raise

    async def _start(self, spec: JailSpec, files: Sequence[Mount]) -> BubblewrapJail:
        inherited: list[int] = []
        with contextlib.ExitStack() as undo:
            try:
                status_r, status_w = os.pipe()
                inherited.append(status_w)
                undo.callback(os.close, status_r)
                block_r, block_w = os.pipe()
                inherited.append(block_r)
                undo.callback(os.close, block_w)
                process = self._spawn(spec, files, status_w, block_r, inherited)
            except OSError as failure:
                raise DriverError(f"cannot make the jail: {failure.strerror}", jail=spec.name) from failure
            finally:
                for fd in inherited:
                    os.close(fd)
            undo.pop_all()
        status = BwrapStatus(status_r)
        group: Group | None = None
        init_pidfd: int | None = None
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                group = self._cgroups.create(spec.name, spec.limits)
                init = await status.child_pid()
                if init is None:
                    await process.wait()
                    message = bytes(process.stderr.data).decode(errors="replace").strip()
                    raise DriverError(f"bwrap could not make the jail: {message}", jail=spec.name)
                init_pidfd = os.pidfd_open(init)
                self._limit(init, spec)
                _prefer_for_oom(init)
                # In a thread: to move another process may take the kernel some 10 ms.
                await asyncio.to_thread(group.attach, init)
        except BaseException as failure:
            if init_pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(init_pidfd, signal.SIGKILL)
                os.close(init_pidfd)
            process.kill()
            await process.wait()
            status.close()
            if group is not None:
                await self._cgroups.give_back(group)
            if isinstance(failure, (TimeoutError, OSError)):
                raise DriverError(f"bwrap could not make the jail: {failure!r}", jail=spec.name) from failure
            raise
        finally:
            os.close(block_w)  # now bwrap goes on
        return BubblewrapJail(
            spec, process, status, group, self._cgroups, self._own, init=init, init_pidfd=init_pidfd
        )

    def _spawn(
        self, spec: JailSpec, files: Sequence[Mount], status_fd: int, block_fd: int, inherited: list[int]
    ) -> Process:
        """Start bwrap with the descriptors in `inherited`.

        Appends to `inherited` what it opens; the caller closes them.
        """

        def passed(fd: int) -> int:
            inherited.append(fd)
            return fd

        words = arguments(
            spec,
            status_fd=status_fd,
            block_fd=block_fd,
            seccomp_fd=passed(memory_file(self._filter)),
            resolv_fd=passed(memory_file(resolv_conf(spec.dns))) if spec.dns else None,
            own=self._own,
            files=files,
            file_fds=[passed(os.open(file.source, os.O_RDONLY)) for file in files] if spec.clone.path else (),
        )
        # Arguments in a file: a jail can read its init's command line, and they tell where our files are.
        arguments_fd = passed(memory_file(b"".join(os.fsencode(word) + b"\0" for word in words)))
        limits = spec.limits
        return spawn(
            ["bwrap", "--hostname", spec.name, "--args", str(arguments_fd), "--", *spec.argv],
            program=self._bwrap,
            env={},
            uid=spec.uid,
            pass_fds=inherited,
            stdout_bytes=limits.stdout_bytes,
            stderr_bytes=limits.stderr_bytes,
        )

    def _limit(self, pid: int, spec: JailSpec) -> None:
        """Set resource limits. Without the right to do so, they are left out from now on, and `capabilities`
        reports that."""
        if self._may_set_rlimits:
            try:
                limit_process(pid, spec.uid, spec.limits)
            except PermissionError:
                self._may_set_rlimits = False

    async def existing(self) -> list[str]:
        processes = await asyncio.to_thread(lambda: [name for name, _ in self._processes()])
        groups = await asyncio.to_thread(self._cgroups.existing)
        folders = await asyncio.to_thread(self._own.existing)
        return sorted({name for name in (*processes, *groups, *folders) if name.startswith(self.prefix)})

    async def remove(self, name: str) -> None:
        for jail, pid in await asyncio.to_thread(lambda: list(self._processes())):
            if jail == name:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._cgroups.remove, name)
        await asyncio.to_thread(self._own.remove, name)

    def _processes(self) -> Iterable[tuple[str, int]]:
        """Jail and pid of every bwrap process of this island, outer ones and inits. The host name on its
        command line is the jail's name."""
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if words[0] == b"bwrap" and b"--hostname" in words:
                    name = words[words.index(b"--hostname") + 1].decode(errors="replace")
                    if name.startswith(self.prefix):
                        yield name, int(entry.name)

    async def close(self) -> None:
        await asyncio.to_thread(self._cgroups.close)
        await asyncio.to_thread(self._own.close)

    def capabilities(self) -> list[Capability]:
        who = "one unprivileged host uid per jail" if os.geteuid() == 0 else "the island's own uid"
        return [
            Capability(
                name="namespaces", enforced=True, how=f"user, mount, pid, ipc, uts, cgroup, network; {who}"
            ),
            seccomp_capability(),
            self._own.capability(),
            Capability(
                name="rlimits",
                enforced=self._may_set_rlimits,
                how="open files, file size, no core"
                if self._may_set_rlimits
                else "CAP_SYS_RESOURCE is missing",
                remedy="" if self._may_set_rlimits else "start the island with CAP_SYS_RESOURCE",
            ),
            *self._cgroups.capabilities(),
            self._cgroups.counting(),
        ]


def _prefer_for_oom(pid: int) -> None:
    """Let the kernel kill jails before the island when the host runs out of memory."""
    with contextlib.suppress(OSError):
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, b"1000")
        finally:
            os.close(fd)
