"""Orders for the launcher, command lines of FreeBSD's programs, parsers for their output: pure functions.

Sources: the code and manuals of FreeBSD 14.3 and 15 (sys/kern/kern_jail.c, usr.sbin/jls, usr.bin/rctl,
sbin/devfs). `docs/freebsd-commands.md` shows an example of every order and line.
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
"""Permissions that a jail does not get. `allow.nosuser` is missing: with it, root cannot change to the user
of the program once it is in the jail (seen on 15.0)."""
JAIL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
"""Not all digits, which the kernel takes for a jid; no dot, which means a child jail."""
PLAIN_PATH = re.compile(r"/[\w./-]+")
"""A path that needs no escapes in mount tables."""
NO_ADDRESS = ("iip4=0", "iip6=0")
"""The parameters of a jail without IP; the numbers are JAIL_SYS_* of sys/jail.h."""
HOST_NETWORK = ("iip4=2", "iip6=2")
"""Those of a jail that shares the host's network."""
CORE, FILE_BYTES, OPEN_FILES = 4, 1, 8
"""Numbers of resource limits (sys/resource.h): Python knows only those of the host it runs on."""


# Orders. `order.take` in launcher/order.go explains the first letter of each word.


def make_words(
    spec: JailSpec,
    root: Path,
    folders: Iterable[Mount],
    network: Iterable[str],
    user: tuple[str, int],
    *,
    island: int,
    rules: Iterable[str] = (),
    ruleset: int = RULESET,
    children_max: int = 0,
) -> list[str]:
    """Make a jail and run its program in it. Names the defaults that we rely on, too.

    `folders`: of the host, which the jail sees. `network`: its parameters. `user`: who runs the program, with
    the uid. `island`: the pid with which it dies. `rules`: see `limit_rules`.
    """
    limits = {
        CORE: 0,
        OPEN_FILES: spec.limits.open_files,
        FILE_BYTES: spec.limits.file_bytes,
    }
    return [
        *("make", f"n{spec.name}", f"c{root}", f"p{island}"),
        *(f"q{rule}" for rule in rules),
        *(
            word
            for folder in folders
            for word in (f"{'w' if folder.writable else 'r'}{folder.source}", f"t{folder.target}")
        ),
        *(f"shost.hostname={spec.name}", *network),
        *("isecurelevel=3", f"ichildren.max={children_max}", "ienforce_statfs=2"),
        *(f"idevfs_ruleset={ruleset}", f"d{ruleset}"),
        *(f"v{name}" for name in sorted(VISIBLE)),
        *(f"b{name}" for name in DENIED),
        *(f"l{number}={maximum}" for number, maximum in limits.items() if maximum is not None),
        *(f"u{user[0]}={user[1]}", f"h{spec.cwd}"),
        *(f"a{word}" for word in spec.argv),
        *(f"e{name}={value}" for name, value in spec.env),
    ]


def remove_words(name: str, root: Path) -> list[str]:
    """Kill what runs in a jail, and take it away with the mounts below its clone and its rules."""
    return ["remove", f"n{name}", f"c{root}"]


RESERVED_BYTES = 256 << 20
"""How much a function may reserve beyond its limit. A sleeping one counts 87 MB of swapuse (seen on 15.0)."""


def limit_rules(limits: Limits, *, hard: bool = True) -> list[str]:
    """The rctl(8) rules of a jail, without their subject.

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
    return rules


# Command lines


LIST_JAILS = ("jls", "-d", "--libxo", "json", "-n", "jid", "name", "path", "dying")
LIST_MOUNTS = ("mount", "-p")
LIST_RULES = ("rctl", "jail:")
LIST_PARAMETERS = ("sysctl", "-N", "security.jail.param")
RACCT = ("sysctl", "-n", "kern.racct.enable")


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
