"""A base system small enough to copy for each jail, with what the driver counts on."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import certifi

from skyisland.drivers.linux.base import ZONES


def fill(root: Path) -> None:
    """Folders, two configuration files, sh with its libraries, the place of limits(1), a time zone, and the
    certificates, where the actor looks for them: it is a program of Linux."""
    for folder in (
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "tmp",
        "usr/bin",
        "usr/local",
        "etc/ssl/certs",
        "usr/share/zoneinfo/Etc",
        "usr/share/zoneinfo/Europe",
        "var",
    ):
        (root / folder).mkdir(parents=True)
    for name in ("tmp", "var"):
        (root / name).chmod(0o1777)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/freebsd-update.conf").write_text("Components world\n")
    (root / "usr/share/zoneinfo/Etc/UTC").write_text("UTC")
    shutil.copy(ZONES / "Europe/Berlin", root / "usr/share/zoneinfo/Europe/Berlin")
    shutil.copy(certifi.where(), root / "etc/ssl/certs/ca-certificates.crt")
    limits = root / "usr/bin/limits"
    limits.write_text("the stand-in of jexec does this\n")
    limits.chmod(0o755)
    shutil.copy("/bin/sh", root / "bin/sh")
    listed = subprocess.run(["ldd", root / "bin/sh"], capture_output=True, text=True, check=True)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


class TinyBase:
    generation = "tiny"

    async def lay(self, root: Path) -> None:
        root.chmod(0o755)
        await asyncio.to_thread(fill, root)
