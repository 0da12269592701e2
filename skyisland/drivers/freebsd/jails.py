"""Jails on FreeBSD: made by our own launcher on ZFS clones, with rctl(8) limits and a devfs of a few devices.

Theory of operation. Single files are copied into the clone: so a function's binary cannot change while it
runs, and there is no mount to undo. A process of the launcher (`launcher/main.go`) does the rest by system
calls: it mounts the folders that the jail shall see, adds the rctl rules, which name the jail and are there
before it is, makes the jail and enters it, and becomes the user and the program. So the program is this
island's child, with its own exit status or signal, and dies with the island. It waits for its standard input.

The end of a jail. Another process of the launcher removes the jail, which kills all of its processes, then
the mounts below its clone and its rules. It knows them by the names alone, so it takes back as well what an
earlier life left, or a making that failed halfway.

The orders and command lines are in `commands`; `skyisland doctor --full` tries them on the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from skyisland.drivers.freebsd import clonefs, commands, launching
from skyisland.drivers.freebsd.launching import Launcher
from skyisland.drivers.freebsd.network import FreeBSDNetwork
from skyisland.errors import DriverError, HostUnfit, IslandError
from skyisland.host.process import Process
from skyisland.host.programs import ProgramFailed, Programs
from skyisland.jails.driver import jail_prefix, resolv_conf
from skyisland.model import JailSpec, Limits, Mount, NetworkAccess, Snapshot
from skyisland.status import Capability, Usage

log = logging.getLogger(__name__)

FULL_BYTES = 128 << 10
"""A clone with less free space than this is full: ZFS writes records of that size."""
USAGE_AGE_S = 1.0
"""How often usage is sampled. The kernel does so once a second (rctl(8))."""
OOM_SHARE = 0.9
"""A killed process that had this share of its memory limit is taken to be killed for that. rctl samples
memory once a second, so the peak that we see may be under the limit. A judgement."""

GO_REFUSED = re.compile(
    rb"^(fatal error: |runtime: |fatal error: runtime: )"
    rb"(out of memory|cannot map pages in arena address space)",
    re.MULTILINE,
)
"""What Go's runtime says when the system gives it no memory (runtime/mem_bsd.go, mheap.go). The second is
what one said that asked for much at once: `swapuse:deny` refused it by EINVAL (seen on 15.0)."""


class FreeBSDJail:
    """A jail that the launcher made."""

    def __init__(self, spec: JailSpec, process: Process, driver: FreeBSDJails) -> None:
        self.spec = spec
        self.process = process
        self._driver = driver
        self._ending = asyncio.Lock()
        self._ended = False
        self._usage = Usage()
        self._looked_at = 0.0
        self._sampling: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid

    @property
    def pidfd(self) -> int | None:
        return None

    async def kill(self) -> None:
        self.process.kill()
        async with self._ending:
            if not self._ended:
                await self._driver.end(self.spec)
                self._ended = True

    async def destroy(self) -> None:
        self.process.kill()
        await self.process.wait()
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        async with self._ending:
            if not self._ended:
                await self._driver.undo(self.spec)
                self._ended = True

    def ended(self) -> tuple[int | None, int | None]:
        code = self.process.returncode
        if code is None:
            raise DriverError(f"the process of {self.spec.name} has not ended", jail=self.spec.name)
        return (None, -code) if code < 0 else (code, None)

    def ran_out_of_memory(self) -> bool:
        """A guess by the process's peak memory and last words: rctl leaves no trace but SIGKILL.

        A process that was refused memory at the hard bound ends as it likes. Go's runtime says why.
        """
        limit, blamed_bytes = self.spec.limits.memory_bytes, self._driver.blamed_bytes(self.spec.limits)
        if limit is None or blamed_bytes is None:
            return False
        killed = self.process.returncode == -signal.SIGKILL
        if self._driver.peak_bytes(self.process) >= (blamed_bytes if killed else limit + 1):
            return True
        # Killed or not: what Go says of its goroutines after that can fill an output.
        return GO_REFUSED.search(bytes(self.process.stderr.data)) is not None

    def filled_its_disk(self) -> bool:
        try:
            disk = os.statvfs(self.spec.clone.path or "/")
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < FULL_BYTES

    def usage(self) -> Usage:
        """The last sample; never waits for rctl(8)."""
        self._looked_at = time.monotonic()
        if self._driver.limits and (self._sampling is None or self._sampling.done()):
            self._sampling = asyncio.ensure_future(self._sample())
        return self._usage

    async def _sample(self) -> None:
        """Sample once; where processor time is limited, each second until the next look is due.

        Who watches over that limit looks when it can be reached at the earliest, and wants a young sample.
        """
        limits = self.spec.limits
        due_s = (limits.cpu_time_s or 0.0) / (limits.cpus or os.cpu_count() or 1)
        while self.process.returncode is None:
            with contextlib.suppress(IslandError):
                rctl_output = await self._driver.programs.run(commands.usage_argv(self.spec.name))
                self._usage = commands.parse_usage(rctl_output)
            await asyncio.sleep(USAGE_AGE_S)
            if time.monotonic() > self._looked_at + due_s + USAGE_AGE_S:
                return


class FreeBSDJails:
    """A `JailDriver` on jail(2), by the launcher."""

    name = "freebsd"

    def __init__(
        self,
        island: str,
        launcher: Launcher,
        *,
        jails: Path,
        network: FreeBSDNetwork | None = None,
        build_uid: int = 1_900_000_000,
        children_max: int = 0,
        ruleset: int = commands.RULESET,
        programs: Programs | None = None,
        peak_bytes: Callable[[Process], int] = lambda process: process.peak_memory_bytes,
    ) -> None:
        """`jails`: the folder where clones are mounted. `build_uid`: the host uid of build jails; functions
        have the next one. `peak_bytes`: the peak memory of a process that has ended. wait4(2) gives the
        process's own where the launcher took care of that; tests replace it."""
        self.launcher = launcher
        self.prefix = jail_prefix(island)
        self.jails = jails
        self.programs = programs or Programs()
        self.peak_bytes = peak_bytes
        self.limits = False
        """Whether this kernel accounts for resources (RACCT), so that rctl(8) rules work."""
        # An alias must exist before the jail that uses it; with VNET the jail must exist before it gets
        # its end of the epair.
        self.connects_late = network is not None and network.vnet
        self._network = network
        self._users = {commands.BUILD_USER: build_uid, commands.FUNCTION_USER: build_uid + 1}
        self._children_max = children_max
        self._ruleset = ruleset
        self._unlimited = "not looked at yet"
        self._program: Path | None = None

    # Life of the island

    async def prepare(self, base: Snapshot) -> None:
        """Check the host; compile the launcher if that is not done.

        Raises:
            HostUnfit: no jail can be made here; the text says what to do.
        """
        await self.check_host()
        self._program = await self.launcher.program()

    async def check_host(self) -> None:
        """Check the kernel; make the two users and the devfs rules if they are missing.

        Raises:
            HostUnfit: no jail can be made here; the text says what to do.
        """
        if os.geteuid() != 0:
            raise HostUnfit("only root can make jails; run the island as root (see config/rc.d/sky_island)")
        if not commands.PLAIN_PATH.fullmatch(str(self.jails)):
            raise HostUnfit(
                f"jails.base_jail_dir: {self.jails} has characters that mount tables write otherwise; use "
                "letters, digits, dots, dashes and underscores"
            )
        await self._check_parameters()
        await self._check_racct()
        for user, uid in self._users.items():
            await self._ensure_user(user, uid)
        await self._ensure_ruleset()

    async def _check_parameters(self) -> None:
        output = await self.programs.run(commands.LIST_PARAMETERS)
        known = {line.strip().removeprefix("security.jail.param.") for line in output.splitlines()}
        needed = {name.replace("allow.no", "allow.", 1) for name in commands.DENIED}
        needed |= {"securelevel", "enforce_statfs", "devfs_ruleset", "children.max"}
        if missing := sorted(needed - known):
            raise HostUnfit(
                f"this kernel has no jail parameter {', '.join(missing)}; FreeBSD 14.3 or later is needed"
            )

    async def _check_racct(self) -> None:
        remedy = "echo kern.racct.enable=1 >> /boot/loader.conf, and reboot"
        try:
            self.limits = (await self.programs.run(commands.RACCT)).strip() == "1"
            self._unlimited = f"RACCT is off; {remedy}"
        except ProgramFailed:
            self._unlimited = "this kernel is built without RACCT and RCTL; use GENERIC"

    async def _ensure_user(self, user: str, uid: int) -> None:
        try:
            entry = await self.programs.run(commands.user_argv(user))
        except ProgramFailed as failure:
            if "no such user" not in failure.stderr:
                raise
            await self.programs.run(commands.add_user_argv(user, uid))
            return
        if entry.split(":")[2:3] != [str(uid)]:
            raise HostUnfit(
                f"the account {user} has another uid than {uid}: set jails.uid_start to match, or "
                f"remove the account (pw userdel {user})"
            )

    async def _ensure_ruleset(self) -> None:
        """Fill our devfs ruleset if it is empty: an empty one hides nothing (61 devices, seen on 15.0)."""
        if (await self.programs.run(commands.devices_argv(self._ruleset))).strip():
            return
        for rule in commands.device_rules(self._ruleset):
            await self.programs.run(rule)
        if not (await self.programs.run(commands.devices_argv(self._ruleset))).strip():
            raise HostUnfit(
                f"devfs ruleset {self._ruleset} is empty and cannot be filled; add it to /etc/devfs.rules "
                "(docs/freebsd.md has the lines) and run: service devfs restart"
            )

    # One jail

    async def create(self, spec: JailSpec) -> FreeBSDJail:
        if not commands.JAIL_NAME.fullmatch(spec.name):
            raise DriverError(f"{spec.name!r} is no name for a jail")
        async with self.programs.places:
            try:
                return await self._make(spec)
            except BaseException:
                try:
                    await self.end(spec)
                except IslandError as failure:
                    log.error("what was made of %s stays until the next start: %s", spec.name, failure)
                raise

    async def _make(self, spec: JailSpec) -> FreeBSDJail:
        folders = await asyncio.to_thread(_furnish, spec, self._root(spec))
        if spec.address is not None and self._network is not None and not self.connects_late:
            await self._network.attach(spec.address, spec.name, 0)
        try:
            process, jid = await launching.make(
                self._launching(),
                self.order(spec, folders),
                blamed_bytes=self.blamed_bytes(spec.limits),
                stdout_bytes=spec.limits.stdout_bytes,
                stderr_bytes=spec.limits.stderr_bytes,
            )
        except DriverError as failure:
            if "unknown parameter" in failure.message:
                raise HostUnfit(f"{failure.message}; FreeBSD 14.3 or later is needed") from failure
            if "in /dev" in failure.message:  # somebody emptied or changed the ruleset since `prepare`
                remedy = "run: service devfs restart, then start the island anew"
                raise DriverError(f"{failure.message}; {remedy}") from failure
            raise
        return FreeBSDJail(structs.replace(spec, jid=jid), process, self)

    def blamed_bytes(self, limits: Limits) -> int | None:
        """The peak memory from which SIGKILL is taken to be the kernel's; None where nothing is limited."""
        if limits.memory_bytes is None or not self.limits:
            return None
        return int(limits.memory_bytes * OOM_SHARE)

    def _launching(self) -> Path:
        if self._program is None:
            raise DriverError("the island has not looked for its launcher of jails")
        return self._program

    def order(self, spec: JailSpec, folders: list[Mount]) -> list[str]:
        """The words of the order for a jail that sees these folders of the host."""
        builds = spec.uid == self._users[commands.BUILD_USER]
        user = commands.BUILD_USER if builds else commands.FUNCTION_USER
        # A build runs many compilers at once, and each reserves memory that it does not use.
        rules = commands.limit_rules(spec.limits, hard=not builds) if self.limits else []
        return commands.make_words(
            spec,
            self._root(spec),
            folders,
            self._network_parameters(spec),
            (user, self._users[user]),
            island=os.getpid(),
            rules=rules,
            ruleset=self._ruleset,
            children_max=self._children_max,
        )

    def _network_parameters(self, spec: JailSpec) -> tuple[str, ...]:
        if spec.network is NetworkAccess.host:
            return commands.HOST_NETWORK
        if self._network is None:
            return commands.NO_ADDRESS
        return self._network.parameters(spec.address)

    def _root(self, spec: JailSpec) -> Path:
        if spec.clone.path is None:
            raise DriverError('jails of FreeBSD need clones of their own; set filesystem.storage = "zfs"')
        return spec.clone.path

    # Its end

    async def end(self, spec: JailSpec) -> None:
        """Kill every process of a jail and take away all that the launcher made. May be repeated."""
        if self._network is not None:
            await self._network.withdraw(spec.name)
        await self._remove(spec.name, self._root(spec))

    async def undo(self, spec: JailSpec) -> None:
        """The same, when its turn comes."""
        async with self.programs.places:
            await self.end(spec)

    async def _remove(self, name: str, root: Path) -> None:
        await launching.remove(self._launching(), commands.remove_words(name, root))

    # Leftovers

    async def existing(self) -> list[str]:
        """Names of the jails of which anything exists: the jail, a mount below its clone, or a rule.

        A mount tells only its clone's folder; without a jail on that folder, the folder's name stands for it.
        A dying jail is left out: the kernel ends it by itself.
        """
        living = {jail.path: jail.name for jail in await self._living_jails()}
        names = set(living.values())
        for point in commands.parse_mounts(await self.programs.run(commands.LIST_MOUNTS)):
            if point.startswith(f"{self.jails}/"):
                folder = point.removeprefix(f"{self.jails}/").split("/")[0]
                if point != f"{self.jails}/{folder}":  # the clone's own mount belongs to ZFS
                    names.add(living.get(f"{self.jails}/{folder}", folder))
        if self.limits:
            names |= commands.parse_rules(await self.programs.run(commands.LIST_RULES))
        return sorted(name for name in names if name.startswith(self.prefix))

    async def remove(self, name: str) -> None:
        paths = [Path(jail.path) for jail in await self._living_jails() if jail.name == name]
        await self._remove(name, paths[0] if paths else self.jails / name)

    async def _living_jails(self) -> list[commands.ListedJail]:
        jails = commands.parse_jls(await self.programs.run(commands.LIST_JAILS))
        return [jail for jail in jails if not jail.dying]

    async def close(self) -> None:
        """Does nothing: the users and the devfs rules stay for the next start."""

    def capabilities(self) -> list[Capability]:
        how = {
            "memory": "memoryuse, sampled each second; of a function swapuse, at once",
            "pids": "maxproc and nthr",
            "cpu": "pcpu",
            "cpu_time": "cputime, looked at each second",
        }
        limits = [
            Capability(name=name, enforced=True, how=f"rctl(8): {rule}")
            if self.limits
            else Capability(
                name=name,
                enforced=False,
                how=self._unlimited.partition("; ")[0],
                remedy=self._unlimited.partition("; ")[2],
            )
            for name, rule in how.items()
        ]
        confined = f"jail(8) with securelevel 3, devfs ruleset {self._ruleset}, user {commands.FUNCTION_USER}"
        return [Capability(name="confinement", enforced=True, how=confined), *limits]


def _furnish(spec: JailSpec, root: Path) -> list[Mount]:
    """Copy the files of a jail into its clone, and make a mount point for each folder. Blocks.

    Returns the folders, which are still to be mounted.
    """
    folders = []
    for mount in spec.mounts:
        if mount.source.is_dir():
            if not all(commands.PLAIN_PATH.fullmatch(str(path)) for path in (mount.source, mount.target)):
                raise DriverError(
                    f"{mount.source} at {mount.target}: such names stand otherwise in mount tables"
                )
            clonefs.make_folder(root, mount.target)
            folders.append(mount)
        elif mount.writable:
            raise DriverError(f"{mount.source}: a file cannot be shared with a jail, only copied into it")
        else:
            clonefs.place_file(root, mount.target, mount.source)
    if spec.network is NetworkAccess.host:
        clonefs.place_file(root, "/etc/resolv.conf", Path("/etc/resolv.conf"), 0o444)
    elif spec.dns:
        clonefs.place_file(root, "/etc/resolv.conf", resolv_conf(spec.dns), 0o444)
    return folders
