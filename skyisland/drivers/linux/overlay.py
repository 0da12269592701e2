"""Clones without a file system of their own: the jail's private overlay over a shared base.

Each jail mounts an overlay whose lower layer is the base and whose upper layer is a tmpfs that nobody
else sees (bubblewrap's `--overlay-src BASE --tmp-overlay /`). So a clone needs no step on the host and
leaves nothing to clean up: it comes to be with the jail and ends with it. What a jail writes is memory,
and the memory limit of its cgroup bounds it.

The base is small: a static Go binary wants no more than a few files in /etc, certificates and time
zones. It holds no program, and no folder to write to: its owner has no place in a jail's user
namespace, and overlayfs cannot copy up what nobody there owns (EOVERFLOW). Each jail makes its own /tmp.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from skyisland.errors import DriverError
from skyisland.model import Capability, Clone, Snapshot

GENERATION = "g1"
"""Changes whenever `lay` lays something else, so that an old base is not taken for a new one."""

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/resolv.conf": "",
}
FOLDERS = ("dev", "etc/ssl/certs", "proc", "usr/local/go", "usr/share", "run")
LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
}
DEVICES = ("null", "zero", "full", "random", "urandom")
CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
ZONES = Path("/usr/share/zoneinfo")


def lay(root: Path) -> None:
    """Fill the empty folder `root` with the base system; blocks.

    Raises:
        OSError
    """
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    for name in (*(f"dev/{device}" for device in DEVICES), "function"):
        (root / name).touch()
    for bundle in CERTIFICATES:
        if bundle.is_file():
            shutil.copyfile(bundle, root / "etc/ssl/certs/ca-certificates.crt")
            break
    if ZONES.is_dir():
        # "posix" and "right" are two more copies of all zones.
        twice = shutil.ignore_patterns("posix", "right")
        shutil.copytree(ZONES, root / "usr/share/zoneinfo", symlinks=True, ignore=twice)
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o644)


class OverlayClones:
    """A `CloneDriver` whose clones are the overlays of their jails."""

    name = "overlay"

    def __init__(self, base: Path) -> None:
        """`base`: folder of the base generations; jails read it as unprivileged users."""
        self.base = base

    async def prepare(self) -> Snapshot:
        return await asyncio.to_thread(self._prepare)

    def _prepare(self) -> Snapshot:
        path = self.base / GENERATION
        try:
            self.base.mkdir(parents=True, exist_ok=True)
            for left in self.base.glob("sky-*"):
                shutil.rmtree(left)
            if not path.is_dir():
                fresh = Path(tempfile.mkdtemp(prefix="sky-base-", dir=self.base))
                lay(fresh)
                fresh.rename(path)
        except OSError as error:
            raise DriverError(f"cannot lay the base system at {path}: {error}", path=str(path)) from error
        return Snapshot(f"base@{GENERATION}", path)

    async def clone(self, base: Snapshot, name: str) -> Clone:
        return Clone(name, base, None)

    async def destroy(self, clone: Clone) -> None:
        """Nothing to do: the overlay went with its jail's mount namespace."""

    async def existing(self) -> list[Clone]:
        return []

    async def close(self) -> None:
        """Nothing to do either."""

    def capabilities(self) -> list[Capability]:
        return [
            Capability(
                name="copy_on_write",
                enforced=True,
                how="an overlay of its own in each jail, its writes in memory",
            ),
            Capability(
                name="disk",
                enforced=False,
                how="what a jail writes counts as its memory; there is no limit of its own",
                remedy='set filesystem.storage = "zfs" for a quota',
            ),
        ]
