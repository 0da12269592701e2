"""The base system of jails on Linux: what a static Go binary reads, and nothing else.

It is a few files in /etc, certificates and time zones. It holds no program. On an overlay it holds no folder
that a jail may write to: its owner has no place in a jail's user namespace, and overlayfs cannot copy up what
nobody there owns (EOVERFLOW). So each jail makes its own /tmp; a clone by ZFS brings one (`LinuxBase`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from skyisland.jails.driver import MOUNT_POINTS

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


class LinuxBase:
    """A `BaseSystem`: the base with room for files of the jail's own, for storage that makes whole clones."""

    generation = f"{GENERATION}-z1"

    async def lay(self, root: Path) -> None:
        await asyncio.to_thread(self._lay, root)

    def _lay(self, root: Path) -> None:
        lay(root)
        for folder in MOUNT_POINTS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        for folder in ("tmp", "var/tmp"):
            (root / folder).mkdir(parents=True)
            (root / folder).chmod(0o1777)
