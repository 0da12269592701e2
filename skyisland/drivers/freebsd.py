"""Jails on FreeBSD: jail(8) on ZFS clones, with rctl(8) limits and a devfs of a few devices.

Theory of operation. Folders that a jail shall see are mounted into its clone by nullfs, single files
are copied into it (so a function's binary cannot change under it, and no mount is left of it). Limits
are laid on the jail's *name* before it exists, so there is no moment without them. `jail -c … persist`
then makes it empty, jexec(8) puts the process into it *in place* (same pid, its own exit status and
signal), and there it waits for its standard input.

Who ends what. Killing jexec kills one process; removing the jail kills all. `jail -r` alone would give
the processes ten seconds to obey SIGTERM, and would know nothing of mounts and addresses that came by
the command line. So it is told again, by a configuration for this one jail on its standard input, with
`stop.timeout=0` (command.c, term_procs). What is left of mounts is unmounted by the host's own table.

Who a jail is. jexec looks its user up on the host, before it enters the jail: `skyfn` for functions,
`skybuild` for builds, whose caches outlive their jails. limits(1) sets resource limits from inside,
because setusercontext(3) in jexec would overwrite those that we set.

Everything here is from sources and manuals of FreeBSD 14.3 and 15 (usr.sbin/jail, usr.sbin/jexec,
usr.sbin/jls, usr.bin/rctl, sys/kern/kern_jail.c); `skyisland doctor --full` tries it out on the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from skyisland.drivers import clonefs
from skyisland.drivers.freebsd_network import FreeBSDNetwork
from skyisland.drivers.programs import SEARCH, ProgramFailed, Programs
from skyisland.errors import DriverError, HostUnfit, IslandError
from skyisland.model import Capability, JailSpec, Limits, Mount, Network, Snapshot, Usage
from skyisland.process import Process

log = logging.getLogger(__name__)

RULESET = 61
DEVICES = ("null", "zero", "full", "random", "urandom", "fd", "fd/*", "stdin", "stdout", "stderr")
"""What a jail sees of /dev."""
VISIBLE = frozenset(name for name in DEVICES if "*" not in name)
FUNCTION_USER = "skyfn"
BUILD_USER = "skybuild"
CONFINED = (
    "allow.noset_hostname",
    "allow.noraw_sockets",
    "allow.nochflags",
    "allow.nomount",
    "allow.nosysvipc",
    "allow.noreserved_ports",
    "allow.nosocket_af",
    "allow.nomlock",
    "allow.noquotas",
    "allow.noread_msgbuf",
    "allow.nounprivileged_proc_debug",
)
"""Permissions that a jail does without. `allow.nosuser` is not among them: jexec -u could not change to
its user any more."""
JAIL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
PLAIN_PATH = re.compile(r"/[\w./-]+")
"""Paths that stand in mount tables and jail configurations as they are."""


# Command lines


def create_argv(
    spec: JailSpec, root: Path, network: Iterable[str], *, ruleset: int = RULESET, children_max: int = 0
) -> tuple[str, ...]:
    """One parameter per word, all that is locked down named; prints the number of the jail."""
    return (
        *("jail", "-ic", f"name={spec.name}", f"path={root}", "persist", f"host.hostname={spec.name}"),
        *network,
        *("securelevel=3", f"children.max={children_max}", "enforce_statfs=2"),
        *("mount.devfs", f"devfs_ruleset={ruleset}"),
        *CONFINED,
    )


def exec_argv(spec: JailSpec, user: str) -> tuple[str, ...]:
    """The process, under limits(1); a folder to start in needs the jail's own sh(1) (jexec -d is too new)."""
    limits = ["-c", "0"]
    if spec.limits.open_files is not None:
        limits += ["-n", str(spec.limits.open_files)]
    if spec.limits.file_bytes is not None:
        limits += ["-f", f"{-(-spec.limits.file_bytes // 1024)}k"]
    enter = () if spec.cwd == "/" else ("/bin/sh", "-c", 'cd "$0" && exec "$@"', spec.cwd)
    return ("jexec", "-u", user, spec.name, "/usr/bin/limits", *limits, *enter, *spec.argv)


REMOVE = ("jail", "-q", "-f", "-")


def remove_argv(name: str) -> tuple[str, ...]:
    return (*REMOVE, "-r", name)


def removal(name: str, root: Path, network: Iterable[str] = ()) -> bytes:
    """The one-jail configuration that `remove_argv` reads: jail.conf(5)."""
    lines = [f'path="{root}";', "mount.devfs;", "stop.timeout=0;"]
    for parameter in network:
        key, _, value = parameter.partition("=")
        if key == "ip4.addr":
            lines.append(f'{key}="{value}";')
    return f'"{name}" {{ {" ".join(lines)} }}\n'.encode()


LIST = ("jls", "-d", "--libxo", "json", "-n", "jid", "name", "path", "dying")
MOUNTS = ("mount", "-p")
RULES = ("rctl", "jail:")
RACCT = ("sysctl", "-n", "kern.racct.enable")
PARAMETERS = ("sysctl", "-N", "security.jail.param")


def mount_argv(mount: Mount, root: Path) -> tuple[str, ...]:
    options = "rw,nosuid" if mount.writable else "ro,nosuid"
    return ("mount", "-t", "nullfs", "-o", options, str(mount.source), f"{root}{mount.target}")


def umount_argv(point: str) -> tuple[str, ...]:
    return ("umount", "-f", point)


def limit_argv(name: str, limits: Limits) -> tuple[str, ...]:
    """rctl(8) rules for a jail of this name; empty where nothing is limited.

    memoryuse kills, for to deny it only pushes pages out (vm_swapout.c). Neither vmemoryuse nor swapuse:
    both count what is reserved, and Go reserves hundreds of megabytes that it never touches.
    """
    rules = []
    if limits.memory_bytes is not None:
        rules.append(f"memoryuse:sigkill={limits.memory_bytes}")
    if limits.pids is not None:
        rules += [f"maxproc:deny={limits.pids}", f"nthr:deny={limits.pids}"]
    if limits.cpus is not None:
        rules.append(f"pcpu:deny={max(1, round(limits.cpus * 100))}")
    return ("rctl", "-a", *(f"jail:{name}:{rule}" for rule in rules)) if rules else ()


def unlimit_argv(name: str) -> tuple[str, ...]:
    return ("rctl", "-r", f"jail:{name}")


def usage_argv(name: str) -> tuple[str, ...]:
    return ("rctl", "-u", f"jail:{name}")


def devices_argv(ruleset: int) -> tuple[str, ...]:
    return ("devfs", "rule", "-s", str(ruleset), "show")


def device_rules(ruleset: int) -> list[tuple[str, ...]]:
    """Hide everything, then show `DEVICES`."""
    rule = ("devfs", "rule", "-s", str(ruleset), "add")
    return [(*rule, "hide"), *((*rule, "path", name, "unhide") for name in DEVICES)]


def user_argv(name: str) -> tuple[str, ...]:
    return ("pw", "usershow", "-n", name)


def add_user_argv(name: str, uid: int) -> tuple[str, ...]:
    about = "Sky Island, unprivileged"
    return ("pw", "useradd", "-n", name, "-u", str(uid), "-d", "/", "-s", "/usr/sbin/nologin", "-c", about)


# What programs say


class Listed(Struct, frozen=True):
    """A jail, as jls(8) lists it."""

    jid: int
    name: str
    path: str
    dying: bool


def parse_jls(text: str) -> list[Listed]:
    """libxo output of every version: numbers and booleans may be strings.

    Raises:
        DriverError: it is something else.
    """
    try:
        jails = msgspec.json.decode(text)["jail-information"]["jail"]
        return [
            Listed(
                int(jail["jid"]), str(jail["name"]), str(jail["path"]), str(jail["dying"]).lower() == "true"
            )
            for jail in jails
        ]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise DriverError(f"jls says what nobody understands: {text[:200]!r}") from error


def parse_mounts(text: str) -> list[str]:
    """Mount points of `mount -p` (fstab(5) format), in the order in which they were mounted."""
    return [words[1] for words in (line.split() for line in text.splitlines()) if len(words) >= 4]


def parse_rules(text: str) -> set[str]:
    """Names of jails that rctl(8) rules are about."""
    return {words[1] for words in (line.split(":") for line in text.splitlines()) if len(words) >= 4}


def parse_usage(text: str) -> Usage:
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        return Usage(int(found["memoryuse"]), float(found["cputime"]), int(found["maxproc"]))
    except (KeyError, ValueError):
        return Usage()


# Jails


class FreeBSDJail:
    """A jail that jail(8) made."""

    def __init__(self, spec: JailSpec, process: Process, driver: FreeBSDJails) -> None:
        self.spec = spec
        self.process = process
        self._driver = driver
        self._usage = Usage()
        self._sampled_at = 0.0
        self._sampling: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid

    async def kill(self) -> None:
        self.process.kill()
        await self._driver.end(self.spec)

    async def destroy(self) -> None:
        self.process.kill()
        await self.process.wait()
        if self._sampling is not None:
            await self._sampling
        await self._driver.take_back(self.spec)

    def ended(self) -> tuple[int | None, int | None]:
        code = self.process.returncode
        said = bytes(self.process.stderr.data)
        if code is None:
            raise DriverError(f"the process of {self.spec.name} has not ended", jail=self.spec.name)
        if code == 1 and said.startswith((b"jexec: ", b"limits: ")):
            text = said.decode(errors="replace").strip()
            raise DriverError(f"the process of {self.spec.name} never started: {text}", jail=self.spec.name)
        return (None, -code) if code < 0 else (code, None)

    def ran_out_of_memory(self) -> bool:
        """rctl leaves no trace but SIGKILL; what the process had by then tells it from other kills."""
        limit = self.spec.limits.memory_bytes
        if limit is None or not self._driver.limits or self.process.returncode != -signal.SIGKILL:
            return False
        return self._driver.peak_bytes(self.process) >= limit * 0.9

    def usage(self) -> Usage:
        """As of a second ago; asking starts the next look."""
        if self._driver.limits and time.monotonic() - self._sampled_at > 1:
            self._sampled_at = time.monotonic()
            self._sampling = asyncio.ensure_future(self._sample())
        return self._usage

    async def _sample(self) -> None:
        with contextlib.suppress(IslandError):
            self._usage = parse_usage(await self._driver.programs.run(usage_argv(self.spec.name)))


class FreeBSDJails:
    """A `JailDriver` on jail(8)."""

    name = "freebsd"

    def __init__(
        self,
        island: str,
        *,
        jails: Path,
        network: FreeBSDNetwork | None = None,
        build_uid: int = 1_900_000_000,
        children_max: int = 0,
        ruleset: int = RULESET,
        programs: Programs | None = None,
        peak_bytes: Callable[[Process], int] = lambda process: process.peak_memory_bytes,
    ) -> None:
        """`jails`: where clones are mounted. `build_uid`: the host uid of build jails; that of functions
        is the next one. `peak_bytes`: the most memory that a process had, which only FreeBSD's wait4(2)
        tells without what its parent had."""
        self.prefix = f"sky-{island}-"
        self.jails = jails
        self.programs = programs or Programs()
        self.peak_bytes = peak_bytes
        self.limits = False
        """Whether this kernel keeps account of resources (RACCT)."""
        self._network = network
        self._users = {BUILD_USER: build_uid, FUNCTION_USER: build_uid + 1}
        self._children_max = children_max
        self._ruleset = ruleset
        self._unlimited = "not looked at yet"

    # Life of the island

    async def prepare(self, base: Snapshot) -> None:
        """Look at the kernel; make the two users and the devfs rules where they are missing.

        Raises:
            HostUnfit: no jail can be made here; the text says what to do.
        """
        if os.geteuid() != 0:
            raise HostUnfit("only root can make jails; run the island as root (see config/rc.d/sky_island)")
        if not PLAIN_PATH.fullmatch(str(self.jails)):
            raise HostUnfit(
                f"jails.base_jail_dir: {self.jails} has characters that mount tables write otherwise; use "
                "letters, digits, dots, dashes and underscores"
            )
        await self._look_at_parameters()
        await self._look_at_racct()
        for user, uid in self._users.items():
            await self._have_user(user, uid)
        await self._have_devices()

    async def _look_at_parameters(self) -> None:
        said = await self.programs.run(PARAMETERS)
        known = {line.strip().removeprefix("security.jail.param.") for line in said.splitlines()}
        wanted = {name.replace("allow.no", "allow.", 1) for name in CONFINED}
        wanted |= {"securelevel", "enforce_statfs", "devfs_ruleset", "children.max"}
        if missing := sorted(wanted - known):
            raise HostUnfit(
                f"this kernel has no jail parameter {', '.join(missing)}; FreeBSD 14.3 or later is needed"
            )

    async def _look_at_racct(self) -> None:
        remedy = "echo kern.racct.enable=1 >> /boot/loader.conf, and reboot"
        try:
            self.limits = (await self.programs.run(RACCT)).strip() == "1"
            self._unlimited = f"RACCT is off; {remedy}"
        except ProgramFailed:
            self._unlimited = "this kernel is built without RACCT and RCTL; use GENERIC"

    async def _have_user(self, user: str, uid: int) -> None:
        try:
            said = await self.programs.run(user_argv(user))
        except ProgramFailed as failure:
            if "no such user" not in failure.said:
                raise
            await self.programs.run(add_user_argv(user, uid))
            return
        if said.split(":")[2:3] != [str(uid)]:
            raise HostUnfit(
                f"the account {user} has another uid than {uid}: set jails.uid_start to match, or "
                f"remove the account (pw userdel {user})"
            )

    async def _have_devices(self) -> None:
        """A ruleset of no rules hides nothing."""
        if not (await self.programs.run(devices_argv(self._ruleset))).strip():
            for rule in device_rules(self._ruleset):
                await self.programs.run(rule)
        if not (await self.programs.run(devices_argv(self._ruleset))).strip():
            raise HostUnfit(
                f"devfs ruleset {self._ruleset} is empty and cannot be filled; add it to /etc/devfs.rules "
                "(see the README) and run: service devfs restart"
            )

    # One jail

    async def create(self, spec: JailSpec) -> FreeBSDJail:
        root = self._root(spec)
        if not JAIL_NAME.fullmatch(spec.name):
            raise DriverError(f"{spec.name!r} is no name for a jail")
        user = BUILD_USER if spec.uid == self._users[BUILD_USER] else FUNCTION_USER
        try:
            folders = await asyncio.to_thread(_furnish, spec, root)
            for mount in folders:
                await self.programs.run(mount_argv(mount, root))
            if self.limits and (rules := limit_argv(spec.name, spec.limits)):
                await self.programs.run(rules)
            await self._create(spec, root)
            if spec.address is not None and self._network is not None:
                await self._network.attach(spec.address, spec.name, 0)
            process = await self.programs.spawn(
                exec_argv(spec, user),
                env={"PATH": SEARCH, **dict(spec.env)},
                stdout_bytes=spec.limits.stdout_bytes,
                stderr_bytes=spec.limits.stderr_bytes,
            )
        except BaseException:
            try:
                await self.take_back(spec)
            except IslandError as failure:
                log.error("what was made of %s stays until the next start: %s", spec.name, failure)
            raise
        return FreeBSDJail(spec, process, self)

    async def _create(self, spec: JailSpec, root: Path) -> None:
        argv = create_argv(
            spec,
            root,
            self._network_parameters(spec),
            ruleset=self._ruleset,
            children_max=self._children_max,
        )
        try:
            await self.programs.run(argv)
        except ProgramFailed as failure:
            if "unknown parameter" in failure.said:
                raise HostUnfit(f"{failure.message}; FreeBSD 14.3 or later is needed") from failure
            raise
        seen = set(await asyncio.to_thread(os.listdir, root / "dev"))
        if seen - VISIBLE:
            raise DriverError(
                f"the jail would see {', '.join(sorted(seen - VISIBLE)[:5])} in /dev: devfs ruleset "
                f"{self._ruleset} does not hide them; run: service devfs restart, then start the island anew",
                jail=spec.name,
            )

    def _network_parameters(self, spec: JailSpec) -> tuple[str, ...]:
        match spec.network:
            case Network.host:
                return ("ip4=inherit", "ip6=inherit")
            case Network.lease if spec.address is not None and self._network is not None:
                return self._network.parameters(spec.address)
        return ("ip4=disable", "ip6=disable")

    def _root(self, spec: JailSpec) -> Path:
        if spec.clone.path is None:
            raise DriverError('jails of FreeBSD need clones of their own; set filesystem.storage = "zfs"')
        return spec.clone.path

    # Its end

    async def end(self, spec: JailSpec) -> None:
        """Kill every process of a jail by removing it; its devfs and address go with it."""
        if self._network is not None and spec.address is not None:
            await self._network.withdraw(spec.name)
        await self._remove_jail(spec.name, self._root(spec), self._network_parameters(spec))

    async def take_back(self, spec: JailSpec) -> None:
        """Everything that was made for a jail; what is gone already is no error."""
        await self._all_of(self.end(spec), self._unmount(self._root(spec)), self._unlimit(spec.name))

    async def _all_of(self, *steps: Coroutine[Any, Any, None]) -> None:
        """Take every step, then tell the first failure."""
        failures: list[IslandError] = []
        for step in steps:
            try:
                await step
            except IslandError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    async def _remove_jail(self, name: str, root: Path, network: Iterable[str] = ()) -> None:
        try:
            await self.programs.run(remove_argv(name), stdin=removal(name, root, network))
        except ProgramFailed as failure:
            if "not found" not in failure.said:
                raise

    async def _unmount(self, root: Path) -> None:
        """Whatever is mounted below a clone, the last first."""
        points = parse_mounts(await self.programs.run(MOUNTS))
        for point in reversed([point for point in points if point.startswith(f"{root}/")]):
            await self.programs.run(umount_argv(point))

    async def _unlimit(self, name: str) -> None:
        if self.limits:
            try:
                await self.programs.run(unlimit_argv(name))
            except ProgramFailed as failure:
                if "No such process" not in failure.said:
                    raise

    # Leftovers

    async def existing(self) -> list[str]:
        """Jails, mounts below clones, and rules; a dying jail needs nobody."""
        living = {jail.path: jail.name for jail in await self._listed()}
        names = set(living.values())
        for point in parse_mounts(await self.programs.run(MOUNTS)):
            if point.startswith(f"{self.jails}/"):
                folder = point.removeprefix(f"{self.jails}/").split("/")[0]
                if point != f"{self.jails}/{folder}":  # the clone itself is the business of ZFS
                    names.add(living.get(f"{self.jails}/{folder}", folder))
        if self.limits:
            names |= parse_rules(await self.programs.run(RULES))
        return sorted(name for name in names if name.startswith(self.prefix))

    async def remove(self, name: str) -> None:
        paths = [Path(jail.path) for jail in await self._listed() if jail.name == name]
        root = paths[0] if paths else self.jails / name
        await self._all_of(self._remove_jail(name, root), self._unmount(root), self._unlimit(name))

    async def _listed(self) -> list[Listed]:
        return [jail for jail in parse_jls(await self.programs.run(LIST)) if not jail.dying]

    async def close(self) -> None:
        """Nothing to do: users and devfs rules stay for the next start."""

    def capabilities(self) -> list[Capability]:
        how = {"memory": "memoryuse, sampled each second", "pids": "maxproc and nthr", "cpu": "pcpu"}
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
        confined = f"jail(8) with securelevel 3, devfs ruleset {self._ruleset}, user {FUNCTION_USER}"
        return [Capability(name="confinement", enforced=True, how=confined), *limits]


def _furnish(spec: JailSpec, root: Path) -> list[Mount]:
    """Put files into the clone and make places for folders; returns the folders to be mounted. Blocks."""
    folders = []
    for mount in spec.mounts:
        if mount.source.is_dir():
            if not (PLAIN_PATH.fullmatch(mount.target) and PLAIN_PATH.fullmatch(str(mount.source))):
                raise DriverError(
                    f"{mount.source} at {mount.target}: mount tables write such names otherwise"
                )
            clonefs.make_folder(root, mount.target)
            folders.append(mount)
        elif mount.writable:
            raise DriverError(f"{mount.source}: a file cannot be shared with a jail, only copied into it")
        else:
            clonefs.place_file(root, mount.target, mount.source)
    if spec.network is Network.host:
        clonefs.place_file(root, "/etc/resolv.conf", Path("/etc/resolv.conf"), 0o444)
    elif spec.address is not None:
        lines = "".join(f"nameserver {server}\n" for server in spec.address.dns)
        clonefs.place_file(root, "/etc/resolv.conf", lines.encode(), 0o444)
    return folders
