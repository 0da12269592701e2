"""A pool: a real one where TEST_ZPOOL names one (`make test-zfs`), else on the stand-ins."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.host.programs import Programs
from tests.support.standins.base import TinyBase
from tests.support.standins.world import World

POOL = os.environ.get("TEST_ZPOOL", "")


class Generation(TinyBase):
    def __init__(self, generation: str, fault: Exception | None = None) -> None:
        self.generation = generation
        self.fault = fault

    async def lay(self, root: Path) -> None:
        await super().lay(root)
        await asyncio.to_thread((root / "etc/generation").write_text, self.generation)
        if self.fault:
            raise self.fault


class Host:
    """A pool, real or not, and ways to look at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = None if POOL else World(folder / "host")
        self.pool = POOL or "tank"
        self.zfs = "zfs" if self.world is None else str(self.world.bin / "zfs")

    def clones(
        self, generation: str = "a", *, ahead: int = 0, fault: Exception | None = None, **more: Any
    ) -> ZfsClones:
        return ZfsClones(
            self.pool,
            "c0de",
            jails=self.folder / "jails",
            bases=self.folder / "bases",
            base=Generation(generation, fault),
            ahead=ahead,
            programs=Programs(self.world.bin if self.world else None),
            **more,
        )

    def names(self) -> list[str]:
        """What lies below the island's dataset."""
        words = ["list", "-Hp", "-o", "name", "-t", "filesystem,snapshot", "-d", "3", f"{self.pool}/sky-c0de"]
        done = subprocess.run([self.zfs, *words], capture_output=True, text=True, check=False)
        return sorted(name.removeprefix(f"{self.pool}/sky-c0de") for name in done.stdout.split())


def clear(root: str) -> None:
    words = ["zfs", "list", "-H", "-o", "name", "-t", "snapshot", "-r", root]
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    for snapshot in listed.stdout.split():
        subprocess.run(["zfs", "release", "sky", snapshot], check=False)
    if listed.returncode == 0:
        subprocess.run(["zfs", "destroy", "-R", root], check=True)
