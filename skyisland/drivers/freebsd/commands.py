"""What FreeBSD's programs are told about jails, and what they say: pure functions.

From the sources and manuals of FreeBSD 14.3 and 15: usr.sbin/jail, usr.sbin/jexec, usr.sbin/jls,
usr.bin/rctl, usr.bin/limits, sbin/devfs. `docs/freebsd-commands.md` shows every line as an example.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from skyisland.errors import DriverError
from skyisland.model import JailSpec, Limits, Mount, Usage

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


def removal(name: str, root: Path) -> bytes:
    """The one-jail configuration that `remove_argv` reads: jail.conf(5)."""
    return f'"{name}" {{ path="{root}"; mount.devfs; stop.timeout=0; }}\n'.encode()


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
