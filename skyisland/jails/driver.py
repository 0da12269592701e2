"""Where jails get their root from: a base system, its snapshots, copy-on-write clones.

A driver is naive: no locks, no events, no policy. It names what it makes by the name it is given, and
`destroy` may be repeated.
"""

from __future__ import annotations

from typing import Protocol

from skyisland.model import Capability, Clone, Snapshot

MOUNT_POINTS = ("dev", "proc", "usr/local/go", "src", "gen", "std", "mod", "cache", "out", "helper")
"""Folders that jails have something mounted at; where nobody else can make them, the base has them."""


class CloneDriver(Protocol):
    """Makes and destroys clones of the base system."""

    name: str

    async def prepare(self) -> Snapshot:
        """Bring the base system into being, or find it; may be repeated.

        Raises:
            DriverError, HostUnfit: with the host program's own words and the remedy.
        """
        ...

    async def clone(self, base: Snapshot, name: str) -> Clone:
        """A fresh clone of `base` for the jail `name`."""
        ...

    async def destroy(self, clone: Clone) -> None:
        """Remove it and all that was written to it; a clone that is gone already is no error."""
        ...

    async def existing(self) -> list[Clone]:
        """Every clone that exists on the host, for the reaper."""
        ...

    async def close(self) -> None:
        """Take back what was made ahead of any jail; may be repeated."""
        ...

    def capabilities(self) -> list[Capability]:
        """What this storage enforces here."""
        ...
