"""Clones without a file system of their own: the jail's private overlay over a shared base.

Each jail mounts an overlay whose lower layer is the base and whose upper layer is a tmpfs that nobody
else sees (bubblewrap's `--overlay-src BASE --tmp-overlay /`). So a clone needs no step on the host and
leaves nothing to clean up: it comes to be with the jail and ends with it. What a jail writes is memory,
and the memory limit of its cgroup bounds it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from skyisland.drivers.linux.base import GENERATION, lay
from skyisland.errors import DriverError
from skyisland.model import Capability, Clone, Snapshot


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
