"""The command lines of zfs(8) and parsers for its output: pure functions, and `zfs`, which runs it.

Nothing here is recursive, and nothing is promoted: `destroy -R` of a snapshot destroys every running clone,
and `promote` makes the base depend on a clone. `argv` refuses both. The texts of zfs(8) are those of OpenZFS
2.1 to 2.4 (cmd/zfs, lib/libzfs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.programs import ProgramFailed, Programs

READY = "ready"
"""The name of a base generation's snapshot. It is made last: without it the base is incomplete."""
HOLD = "sky"
"""The tag of the hold (zfs-hold(8)) that protects the snapshot from being destroyed."""
MARK = "skyisland:island"
"""The user property with the name of the island that a dataset belongs to."""
DESTROY_PROGRAM = b"""\
args = ...
results = {}
for _, dataset in ipairs(args["argv"]) do
  results[dataset] = zfs.sync.destroy(dataset)
end
return results
"""
"""A channel program (zfs-program(8)): destroys its arguments, and returns an errno for each."""
VERBS = frozenset({"clone", "create", "destroy", "get", "hold", "list", "mount", "program", "release", "set"})
VERBS |= {"snapshot", "version"}


REMEDIES = {
    "permission denied": "run the island as root",
    "modules cannot be auto-loaded": "load the kernel module: modprobe zfs, or kldload zfs",
    "The ZFS modules are not loaded": "load the kernel module: modprobe zfs, or kldload zfs",
    "/dev/zfs": "load the kernel module: modprobe zfs, or kldload zfs",
    "out of space": "make room in the pool: zfs list -o space",
    "encryption key not loaded": "load it: zfs load-key",
}
"""Texts of zfs(8) that mean that the host is unfit → what the operator can do."""


def argv(verb: str, *words: str) -> tuple[str, ...]:
    """A command line of zfs(8). Only `VERBS`, and no recursive flags.

    Raises:
        AssertionError: another verb, -r or -R.
    """
    flags = "".join(word for word in words if re.fullmatch(r"-[a-zA-Z]+", word))
    if verb not in VERBS or set(flags) & set("rR"):
        raise AssertionError(f"zfs {verb} {' '.join(words)} is not for us")
    return ("zfs", verb, *words)


def create_argv(dataset: str, **properties: str) -> tuple[str, ...]:
    options = [f"{name}={value}" for name, value in properties.items()]
    return argv("create", *(word for option in options for word in ("-o", option)), dataset)


def clone_argv(snapshot: str, dataset: str, quota_bytes: int | None) -> tuple[str, ...]:
    """`quota` and not `refquota`, which counts what the clone shares with the base
    (dsl_dataset_check_quota)."""
    quota = ("-o", f"quota={quota_bytes}") if quota_bytes else ()
    return argv("clone", *quota, snapshot, dataset)


def list_argv(dataset: str, *, depth: int, types: str = "filesystem") -> tuple[str, ...]:
    return argv("list", "-Hp", "-o", f"name,origin,mounted,{MARK}", "-t", types, "-d", str(depth), dataset)


def mounted_argv(dataset: str) -> tuple[str, ...]:
    return argv("get", "-Hpo", "value", "mounted", dataset)


def destroy_argv(dataset: str) -> tuple[str, ...]:
    return argv("destroy", "-f", dataset)


def retire_argv(snapshot: str) -> tuple[str, ...]:
    """Destroy a snapshot, deferred (-d): ZFS does it when the last clone of it is gone."""
    return argv("destroy", "-d", snapshot)


def program_argv(pool: str, datasets: Iterable[str]) -> tuple[str, ...]:
    return argv("program", "-j", pool, "-", *datasets)


def umount_argv(paths: Iterable[str]) -> tuple[str, ...]:
    return ("umount", "-f", *paths)


class Dataset(Struct, frozen=True):
    """A dataset or snapshot in the output of `list_argv`."""

    name: str
    origin: str
    """The snapshot that it is a clone of; `-` for none."""
    mounted: bool
    mark: str
    """The value of the property `MARK`; `-` for none."""


def parse_list(text: str) -> list[Dataset]:
    """The output of `list_argv` (`-Hp`: tab-separated, no header).

    Raises:
        DriverError: the output has another format.
    """
    rows = [line.split("\t") for line in text.split("\n") if line]
    try:
        return [Dataset(name, origin, mounted == "yes", mark) for name, origin, mounted, mark in rows]
    except ValueError as error:
        raise DriverError(f"zfs says what nobody understands: {text[:200]!r}") from error


def is_missing(failure: ProgramFailed) -> bool:
    """Whether zfs(8) failed because the dataset does not exist."""
    return "does not exist" in failure.stderr or "could not find any" in failure.stderr


def is_busy(failure: ProgramFailed) -> bool:
    """Whether zfs(8) failed because the dataset is in use."""
    return "busy" in failure.stderr


async def zfs(programs: Programs, command: tuple[str, ...]) -> str:
    """Run zfs(8) and return its output.

    Raises:
        HostUnfit: the host is to blame, not a dataset: no zfs(8), no kernel module, no rights, no room.
        ProgramFailed: zfs(8) failed otherwise.
        DriverError
    """
    try:
        return await programs.run(command)
    except HostUnfit as failure:
        raise HostUnfit(
            f"{failure.message}; install OpenZFS (Debian: zfsutils-linux with its kernel module), or set "
            'filesystem.storage = "overlay"',
            **failure.details,
        ) from failure
    except ProgramFailed as failure:
        for words, remedy in REMEDIES.items():
            if words in failure.stderr:
                raise HostUnfit(f"{failure.message}; {remedy}", **failure.details) from failure
        raise
