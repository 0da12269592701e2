"""The command lines of FreeBSD's programs for jails, and parsers for their output: pure functions.

Sources: the code and manuals of FreeBSD 14.3 and 15 (usr.sbin/jail, usr.sbin/jexec, usr.sbin/jls,
usr.bin/rctl, usr.bin/limits, sbin/devfs). `docs/freebsd-commands.md` shows an example of every line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from skyisland.errors import DriverError
from skyisland.model import JailSpec, Limits, Mount
from skyisland.status import Usage

RULESET = 61
"""The number of our devfs ruleset; FreeBSD's own rulesets are 1 to 5 (/etc/defaults/devfs.rules)."""
DEVICES = ("null", "zero", "full", "random", "urandom", "fd", "fd/*", "stdin", "stdout", "stderr")
"""The paths below /dev that the ruleset unhides."""
VISIBLE = frozenset(name for name in DEVICES if "*" not in name)
"""The names that a jail may see in /dev."""
FUNCTION_USER = "skyfn"
BUILD_USER = "skybuild"
DENIED = (
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
"""Permissions that a jail does not get. `allow.nosuser` is missing: with it, jexec -u cannot change to its
user (`jexec: setgid: Operation not permitted`, seen on 15.0)."""
JAIL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
"""Not all digits, which jail(8) takes for a jid; no dot, which means a child jail."""
PLAIN_PATH = re.compile(r"/[\w./-]+")
"""A path that needs no escapes in mount tables and jail configurations."""


# Command lines


def create_argv(
    spec: JailSpec, root: Path, network: Iterable[str], *, ruleset: int = RULESET, children_max: int = 0
) -> tuple[str, ...]:
    """jail(8): make a jail without a process (`persist`). Prints its jid. Names the defaults that we rely
    on, too."""
    return (
        *("jail", "-ic", f"name={spec.name}", f"path={root}", "persist", f"host.hostname={spec.name}"),
        *network,
        *("securelevel=3", f"children.max={children_max}", "enforce_statfs=2"),
        *("mount.devfs", f"devfs_ruleset={ruleset}"),
        *DENIED,
    )


def exec_argv(spec: JailSpec, user: str) -> tuple[str, ...]:
    """jexec(8): run the jail's program in it, under limits(1), with the variables of `spec.env` alone.

    jexec -u adds SHELL, HOME, USER and others (seen on 15.0), which `limits -E` drops again.
    Another working directory than / needs the jail's own sh(1): jexec -d is newer than FreeBSD 14.
    """
    limits = ["-E", "-c", "0"]
    if spec.limits.open_files is not None:
        limits += ["-n", str(spec.limits.open_files)]
    if spec.limits.file_bytes is not None:
        limits += ["-f", f"{-(-spec.limits.file_bytes // 1024)}k"]
    enter = () if spec.cwd == "/" else ("/bin/sh", "-c", 'cd "$0" && exec "$@"', spec.cwd)
    variables = (f"{name}={value}" for name, value in spec.env)
    return ("jexec", "-u", user, spec.name, "/usr/bin/limits", *limits, *variables, *enter, *spec.argv)


def remove_argv(name: str) -> tuple[str, ...]:
    """jail(8): kill a jail's processes and remove it, with `removal_config` on standard input.

    Without -q, under which a failure has no words.
    """
    return ("jail", "-f", "-", "-r", name)


def removal_config(name: str, root: Path) -> bytes:
    """A jail.conf(5) of one jail. It tells jail(8) of the devfs to unmount, and not to wait after SIGTERM."""
    return f'"{name}" {{ path="{root}"; mount.devfs; stop.timeout=0; }}\n'.encode()


LIST_JAILS = ("jls", "-d", "--libxo", "json", "-n", "jid", "name", "path", "dying")
LIST_MOUNTS = ("mount", "-p")
LIST_RULES = ("rctl", "jail:")
LIST_PARAMETERS = ("sysctl", "-N", "security.jail.param")
RACCT = ("sysctl", "-n", "kern.racct.enable")


def mount_argv(mount: Mount, root: Path) -> tuple[str, ...]:
    """mount(8): show a folder of the host in a clone, by nullfs."""
    options = "rw,nosuid" if mount.writable else "ro,nosuid"
    return ("mount", "-t", "nullfs", "-o", options, str(mount.source), f"{root}{mount.target}")


def umount_argv(point: str) -> tuple[str, ...]:
    return ("umount", "-f", point)


RESERVED_BYTES = 256 << 20
"""How much a function may reserve beyond its limit. A sleeping one counts 87 MB of swapuse (seen on 15.0)."""


def limit_argv(name: str, limits: Limits, *, hard: bool = True) -> tuple[str, ...]:
    """rctl(8): add the rules of a jail of this name; empty if nothing is limited.

    memoryuse has the action sigkill, because deny only pages memory out (vm_swapout.c). The kernel samples it
    once a second: 400 MB went through a limit of 256 (seen on 15.0). `hard`: bound swapuse too, which counts
    at once, with room for what a program reserves and does not use. vmemoryuse has no limit: a sleeping Go
    function counts 1.29 GB.
    """
    rules = []
    if limits.memory_bytes is not None:
        rules.append(f"memoryuse:sigkill={limits.memory_bytes}")
        if hard:
            rules.append(f"swapuse:deny={limits.memory_bytes + RESERVED_BYTES}")
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
    """devfs(8): the rules of our ruleset, which hide everything and then unhide `DEVICES`."""
    rule = ("devfs", "rule", "-s", str(ruleset), "add")
    return [(*rule, "hide"), *((*rule, "path", name, "unhide") for name in DEVICES)]


def user_argv(name: str) -> tuple[str, ...]:
    return ("pw", "usershow", "-n", name)


def add_user_argv(name: str, uid: int) -> tuple[str, ...]:
    about = "Sky Island, unprivileged"
    return ("pw", "useradd", "-n", name, "-u", str(uid), "-d", "/", "-s", "/usr/sbin/nologin", "-c", about)


# Output of programs


class ListedJail(Struct, frozen=True):
    """A jail in the output of jls(8)."""

    jid: int
    name: str
    path: str
    dying: bool
    """It is removed, but something still pins it, such as a socket in TIME_WAIT."""


def parse_jid(text: str) -> int:
    """The number of a new jail, the last line that `create_argv` prints.

    Raises:
        DriverError: the output has another format.
    """
    try:
        return int(text.split()[-1])
    except (IndexError, ValueError) as error:
        raise DriverError(f"jail -i says what nobody understands: {text[:200]!r}") from error


def parse_jls(text: str) -> list[ListedJail]:
    """The output of `LIST_JAILS`. Numbers and booleans may be strings, depending on the version of jls.

    Raises:
        DriverError: the output has another format.
    """
    try:
        jails = msgspec.json.decode(text)["jail-information"]["jail"]
        return [
            ListedJail(
                int(jail["jid"]), str(jail["name"]), str(jail["path"]), str(jail["dying"]).lower() == "true"
            )
            for jail in jails
        ]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DriverError(f"jls says what nobody understands: {text[:200]!r}") from error


def parse_mounts(text: str) -> list[str]:
    """The mount points in the output of `mount -p` (fstab(5) format), in the order of mounting."""
    return [words[1] for words in (line.split() for line in text.splitlines()) if len(words) >= 4]


def parse_rules(text: str) -> set[str]:
    """The names of the jails in the output of `LIST_RULES`."""
    return {words[1] for words in (line.split(":") for line in text.splitlines()) if len(words) >= 4}


def parse_usage(text: str) -> Usage:
    """The output of `usage_argv`; without figures if it has another format."""
    figures = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        return Usage(int(figures["memoryuse"]), float(figures["cputime"]), int(figures["maxproc"]))
    except (KeyError, ValueError):
        return Usage()
