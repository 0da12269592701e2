"""Clones without a file system on the host: each jail mounts a private overlay over a shared base.

The overlay's lower layer is the base. Its upper layer is a tmpfs in the jail's mount namespace. The jail
driver mounts both, so a clone costs nothing on the host, exists as long as its jail and leaves nothing
behind. What a jail writes is charged to the memory of its cgroup.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from skyisland.drivers.linux.base import GENERATION, lay
from skyisland.errors import DriverError
from skyisland.model import Clone, Snapshot
from skyisland.status import Capability


class OverlayClones:
    """A `CloneDriver` that makes nothing: its clones are the overlays that jails mount."""

    name = "overlay"

    def __init__(self, base: Path) -> None:
        """`base`: the folder of the base's generations. Unprivileged uids must be able to read it."""
        self.base = base

    async def prepare(self) -> Snapshot:
        return await asyncio.to_thread(self._prepare)

    def _prepare(self) -> Snapshot:
        path = self.base / GENERATION
        try:
            self.base.mkdir(parents=True, exist_ok=True)
            for incomplete in self.base.glob("sky-*"):
                shutil.rmtree(incomplete)
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
        """Does nothing: the kernel unmounted the overlay with its jail's mount namespace."""

    async def existing(self) -> list[Clone]:
        return []

    async def close(self) -> None:
        """Does nothing: the base stays for the next start."""

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
