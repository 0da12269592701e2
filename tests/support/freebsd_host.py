"""Islands on a real FreeBSD, where TEST_ZPOOL names a pool for them (`make test-freebsd`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from skyisland.drivers.freebsd import network

POOL = os.environ.get("TEST_ZPOOL", "") if sys.platform.startswith("freebsd") else ""
"""The pool that tests may use; empty where there is none, or another system."""
BASE = os.environ.get("TEST_BASE", "")
"""The folder with `base.txz` and `MANIFEST`, or empty for the network."""
OBJECTS = (
    ("jls", "-d", "name"),
    ("mount", "-p"),
    ("zfs", "list", "-Ho", "mountpoint", "-t", "filesystem"),
    ("rctl", "jail:"),
    ("ps", "-axwwo", "command"),
    ("ifconfig", "-a"),
)
"""What lists whatever an island makes outside its state folder."""


def settings() -> dict[str, Any]:
    """What an island must be told here; nothing on Linux."""
    if not POOL:
        return {}
    return {"filesystem": {"zfs_dataset": POOL}, **({"base_sys_pkg_dir": BASE} if BASE else {})}


def host_objects(state: Path, island: str) -> list[str]:
    """What is here of an island; without its bases, which stay for its next life."""
    groups = f"{network.ports(island)}|{network.bridges(island)}"
    signs = re.compile(rf"sky-{island}-|{groups}|{re.escape(str(state))}/jails/.")
    lines = (
        f"{argv[0]}: {line}"
        for argv in OBJECTS
        for line in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    )
    found = [line for line in lines if signs.search(line)]
    # A clone's own mount is told by zfs(8).
    return [line for line in found if not (line.startswith("mount:") and line.split()[3:4] == ["zfs"])]
