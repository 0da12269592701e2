"""What zfs(8) is told, and what it says: pure functions, and `zfs`, which runs it.

Nothing here is recursive and nothing is promoted: `-R` on a snapshot destroys every running clone, and
promoting one turns the dependency round. `argv` refuses both. What zfs says was read from OpenZFS 2.1 to
2.4 (cmd/zfs, lib/libzfs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.programs import ProgramFailed, Programs

READY = "ready"
"""The snapshot of a generation that is laid to the end."""
HOLD = "sky"
"""The tag that keeps it."""
MARK = "skyisland:island"
"""The user property that says whose a dataset is."""
PROGRAM = b"""\
args = ...
results = {}
for _, dataset in ipairs(args["argv"]) do
  results[dataset] = zfs.sync.destroy(dataset)
end
return results
"""
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
"""What is wrong with the host, by zfs(8)'s words, and what to do about it."""


def argv(verb: str, *words: str) -> tuple[str, ...]:
    """A zfs(8) command line; nothing recursive, nothing that turns dependencies round."""
    flags = "".join(word for word in words if re.fullmatch(r"-[a-zA-Z]+", word))
    if verb not in VERBS or set(flags) & set("rR"):
        raise AssertionError(f"zfs {verb} {' '.join(words)} is not for us")
    return ("zfs", verb, *words)


def create_argv(dataset: str, **properties: str) -> tuple[str, ...]:
    options = [f"{name}={value}" for name, value in properties.items()]
    return argv("create", *(word for option in options for word in ("-o", option)), dataset)


def clone_argv(snapshot: str, dataset: str, quota_bytes: int | None) -> tuple[str, ...]:
    """`quota`, for `refquota` would count what the clone shares with the base (dsl_dataset_check_quota)."""
    quota = ("-o", f"quota={quota_bytes}") if quota_bytes else ()
    return argv("clone", *quota, snapshot, dataset)


def list_argv(dataset: str, *, depth: int, types: str = "filesystem") -> tuple[str, ...]:
    return argv("list", "-Hp", "-o", f"name,origin,mounted,{MARK}", "-t", types, "-d", str(depth), dataset)


def mounted_argv(dataset: str) -> tuple[str, ...]:
    return argv("get", "-Hpo", "value", "mounted", dataset)


def destroy_argv(dataset: str) -> tuple[str, ...]:
    return argv("destroy", "-f", dataset)


def retire_argv(snapshot: str) -> tuple[str, ...]:
    """Deferred: it goes with the last clone that stands on it."""
    return argv("destroy", "-d", snapshot)


def program_argv(pool: str, datasets: Iterable[str]) -> tuple[str, ...]:
    return argv("program", "-j", pool, "-", *datasets)


def umount_argv(paths: Iterable[str]) -> tuple[str, ...]:
    return ("umount", "-f", *paths)


class Dataset(Struct, frozen=True):
    """A line of `list_argv`."""

    name: str
    origin: str
    mounted: bool
    mark: str


def parse_list(text: str) -> list[Dataset]:
    """What `zfs list -Hp` prints: tab-separated, `-` for none.

    Raises:
        DriverError: it is something else.
    """
    rows = [line.split("\t") for line in text.split("\n") if line]
    try:
        return [Dataset(name, origin, mounted == "yes", mark) for name, origin, mounted, mark in rows]
    except ValueError as error:
        raise DriverError(f"zfs says what nobody understands: {text[:200]!r}") from error


def gone(failure: ProgramFailed) -> bool:
    """Whether the dataset is not there (any more)."""
    return "does not exist" in failure.said or "could not find any" in failure.said


def busy(failure: ProgramFailed) -> bool:
    return "busy" in failure.said


async def zfs(programs: Programs, words: tuple[str, ...]) -> str:
    """Run zfs(8), with what is wrong with the host told apart from what is wrong with a dataset.

    Raises:
        HostUnfit, ProgramFailed, DriverError
    """
    try:
        return await programs.run(words)
    except HostUnfit as failure:
        raise HostUnfit(
            f"{failure.message}; install OpenZFS (Debian: zfsutils-linux with its kernel module), or set "
            'filesystem.storage = "overlay"',
            **failure.details,
        ) from failure
    except ProgramFailed as failure:
        for said, remedy in REMEDIES.items():
            if said in failure.said:
                raise HostUnfit(f"{failure.message}; {remedy}", **failure.details) from failure
        raise
