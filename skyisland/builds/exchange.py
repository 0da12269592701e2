"""Binaries that other islands of the fleet compiled: what is asked of it (`fleet.binaries`), and having
them."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from skyisland.builds.artifacts import Artifacts, Id
from skyisland.host.flight import Flights
from skyisland.host.tasks import aside
from skyisland.model import Artifact

log = logging.getLogger(__name__)


class Offer(Struct, frozen=True, kw_only=True):
    """A binary, as the island says that compiled it. What it is for, its key says."""

    sha256: str
    size_bytes: int
    package_name: str
    build_s: float
    built_at: float
    go_version: str

    @classmethod
    def of(cls, artifact: Artifact) -> Offer:
        return cls(
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
            package_name=artifact.package_name,
            build_s=artifact.build_s,
            built_at=artifact.built_at,
            go_version=artifact.go_version,
        )


class Exchange(Protocol):
    """Binaries of a fleet, by the keys of artifacts. While the fleet cannot be reached there are none, and
    nothing here raises an error."""

    def turn(self, key: str) -> AbstractAsyncContextManager[None]:
        """This island's turn to look for a binary, and to compile it if there is none."""

    async def find(self, key: str) -> Offer | None:
        """What another island offers."""

    async def fetch(self, offer: Offer, into: Path) -> bool:
        """Have its bytes in a new file; False if they cannot be had, or have another hash."""

    async def offer(self, key: str, offer: Offer, file: Path) -> None:
        """Give the others what this island compiled."""


class Borrower:
    """Has binaries of the fleet among its own."""

    def __init__(self, exchange: Exchange, artifacts: Artifacts, limit_bytes: int) -> None:
        """`limit_bytes`: a larger binary is not taken."""
        self._exchange, self._artifacts, self._limit_bytes = exchange, artifacts, limit_bytes
        self._flights: Flights[Artifact | None] = Flights()

    async def close(self) -> None:
        """Cancel what is being fetched."""
        await self._flights.close()

    async def get(self, id_: Id, key: str, client: str, qualifier: str | None) -> Artifact | None:
        """A binary that another island offers, on record here as used by `client`; None if there is none, or
        its package has another name than `qualifier`."""
        offer = await self._exchange.find(key)
        if offer is None or qualifier not in (None, offer.package_name):
            return None
        if offer.size_bytes > self._limit_bytes:
            return None
        return await self._flights.join(key, lambda: self._fetch(id_, key, offer, client))

    async def _fetch(self, id_: Id, key: str, offer: Offer, client: str) -> Artifact | None:
        url, package, commit, function, expression = id_

        def record(sha256: str, size_bytes: int) -> Artifact:
            return Artifact(
                key=key,
                sha256=sha256,
                path=self._artifacts.store.path(sha256),
                url=url,
                package=package,
                package_name=offer.package_name,
                commit=commit,
                function=function,
                expression=expression,
                size_bytes=size_bytes,
                build_s=offer.build_s,
                built_at=offer.built_at,
                used_at=time.time(),
                go_version=offer.go_version,
            )

        draft = await aside(self._artifacts.store.draft)
        try:
            file = Path(draft.name, "binary")
            if not await self._exchange.fetch(offer, file):
                return None
            artifact = await self._artifacts.keep(file, self._limit_bytes, record, client)
        finally:
            await aside(draft.cleanup)
        log.info("%s of %s was compiled by another island", function, url)
        return artifact
