"""The binaries that the island has: known in memory, recorded in SQLite, stored as files.

To look one up costs what a dictionary costs. A binary is forgotten when no call used it for `unused_s`, and
the least recently used are when all together exceed `limit_bytes`. The file of a binary in use stays until
its last user is gone, whoever forgot it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from msgspec import structs

from skyisland.builds.room import surplus
from skyisland.builds.store import Store
from skyisland.errors import ArtifactNotFound
from skyisland.events import ArtifactEvicted, Events
from skyisland.golang import harness
from skyisland.host.tasks import Background, InUse
from skyisland.host.toolchain import this_platform
from skyisland.model import Artifact, Call, Resolved, Source

log = logging.getLogger(__name__)

Id = tuple[str, str, str, str, str | None]
"""What a binary is for: url, package, commit, function, expression."""

LATELY_S = 600.0
"""Who used a binary more recently still has it for its share. As long as a warm jail waits by default."""
CLIENTS = 16
"""So many users of a binary are remembered. More change nothing but how its room is counted."""
MakeRecord = Callable[[str, int], Artifact]
"""Makes the record of a binary from its SHA-256 and its size in bytes."""


class Records(Protocol):
    """What `State` (record/) gives the builds."""

    async def artifacts(self) -> list[Artifact]: ...
    async def put_artifact(self, artifact: Artifact) -> None: ...
    def touch_artifact(self, artifact: Artifact) -> None: ...
    async def drop_artifacts(self, keys: Iterable[str]) -> None: ...
    def is_expression(self, function: tuple[str, str, str, str]) -> bool: ...
    def note_expression(self, function: tuple[str, str, str, str]) -> None: ...


class Artifacts:
    """All binaries. `load` comes first, `close` last."""

    def __init__(
        self, store: Store, records: Records, events: Events, *, limit_bytes: int, unused_s: float
    ) -> None:
        self.store = store
        self.records = records
        self.events = events
        self.limit_bytes = limit_bytes
        self.unused_s = unused_s
        self._known: dict[Id, Artifact] = {}
        self._touched: set[Id] = set()
        self._users: InUse[str] = InUse()
        self._used_by: dict[Id, dict[str, float]] = {}
        """Who used it lately, and when (monotonic); the last one last."""
        self._orphans: set[str] = set()
        """Hashes of files that no record names. They are deleted as soon as nobody uses them."""
        self._storing = asyncio.Lock()
        self._background = Background()

    async def load(self, key_of: Callable[[Id], str]) -> None:
        """Read the records. May be repeated.

        A record is dropped if its file is not whole, or its key is not what `key_of` makes of it: it is of
        another toolchain. Files without a record are deleted.
        """
        before, self._known = self._known, {}
        stale = []
        for artifact in await self.records.artifacts():
            id_ = id_of(artifact)
            whole = await asyncio.to_thread(self.store.has, artifact.sha256, artifact.size_bytes)
            if whole and artifact.key == key_of(id_):
                recorded = structs.replace(artifact, path=self.store.path(artifact.sha256))
                self._known[id_] = before.get(id_, recorded)
            else:
                stale.append(artifact.key)
        if stale:
            log.warning("%d binaries are damaged or of another toolchain, and forgotten", len(stale))
            await self.records.drop_artifacts(stale)
        async with self._storing:
            await asyncio.to_thread(self.store.prepare, self._needed())

    async def close(self) -> None:
        """Finish deletions, and record uses."""
        await self._background.drain()
        self.write_uses()

    # Looking up

    def get(self, id_: Id) -> Artifact | None:
        return self._known.get(id_)

    def use(self, artifact: Artifact, client: str, *, hits: int = 0) -> Artifact:
        """Count a use by a client; returns the artifact with its new figures."""
        used, id_ = structs.replace(artifact, used_at=time.time(), hits=artifact.hits + hits), id_of(artifact)
        self._known[id_] = used
        self._touched.add(id_)
        self._note_user(id_, client)
        return used

    def _note_user(self, id_: Id, client: str) -> None:
        users = self._used_by.setdefault(id_, {})
        users.pop(client, None)
        users[client] = time.monotonic()
        if len(users) > CLIENTS:
            del users[next(iter(users))]

    @contextmanager
    def using(self, artifact: Artifact) -> Iterator[None]:
        """Keep the binary's file for the length of the block, whoever forgets the artifact meanwhile."""
        self._users.take(artifact.sha256)
        try:
            yield
        finally:
            if self._users.let_go(artifact.sha256) and artifact.sha256 in self._orphans:
                self._background.start(self._remove_orphans())

    def all(self) -> list[Artifact]:
        """Every artifact, the last used first."""
        return sorted(self._known.values(), key=lambda artifact: -artifact.used_at)

    def find(self, key: str) -> Artifact:
        """By its key.

        Raises:
            ArtifactNotFound
        """
        for artifact in self._known.values():
            if artifact.key == key:
                return artifact
        raise ArtifactNotFound(f"no artifact {key!r} in the cache", key=key)

    def write_uses(self) -> None:
        """Record the uses since the last time."""
        touched, self._touched = self._touched, set()
        for id_ in touched:
            if artifact := self._known.get(id_):
                self.records.touch_artifact(artifact)

    # Keeping

    async def keep(self, binary: Path, limit_bytes: int, record: MakeRecord, client: str) -> Artifact:
        """Copy a binary out of a jail's folder, and record it as one that `client` uses.

        Raises:
            BuildFailed: it is not there, no regular file, or larger than `limit_bytes`.
            DriverError: it cannot be recorded.
        """
        async with self._storing:
            sha256, size_bytes = await asyncio.to_thread(self.store.add, binary, limit_bytes)
            artifact = record(sha256, size_bytes)
            self._orphans.add(sha256)
            await self.records.put_artifact(artifact)
            self._orphans.discard(sha256)
            before = self._known.get(id_of(artifact))
            self._known[id_of(artifact)] = artifact
            self._note_user(id_of(artifact), client)
        if before is not None and before.sha256 != sha256:
            self._orphans.add(before.sha256)
            await self._remove_orphans()
        return artifact

    # Forgetting

    async def evict(self, key: str) -> Artifact:
        """Forget one.

        Raises:
            ArtifactNotFound
        """
        doomed = self.find(key)
        await self._forget([doomed], "operator")
        return doomed

    async def purge(self) -> list[Artifact]:
        """Forget all that are not in use; returns them."""
        doomed = self._idle()
        await self._forget(doomed, "operator")
        return doomed

    async def make_room(self, newest: Artifact | None = None) -> None:
        """Forget what was not used for `unused_s`, and what exceeds `limit_bytes`; never `newest`."""
        idle = [a for a in self._idle() if newest is None or id_of(a) != id_of(newest)]
        await self._forget([a for a in idle if a.used_at < time.time() - self.unused_s], "unused")
        idle = [a for a in idle if id_of(a) in self._known]
        # On a thread, for there may be thousands.
        doomed = await asyncio.to_thread(
            surplus, list(self._known.values()), idle, self._lately(), self.limit_bytes
        )
        await self._forget(doomed, "space")

    def _lately(self) -> dict[str, list[str]]:
        """The clients who used each artifact in the last `LATELY_S`, by its key."""
        since = time.monotonic() - LATELY_S
        return {
            artifact.key: [client for client, at in self._used_by.get(id_, {}).items() if at > since]
            for id_, artifact in self._known.items()
        }

    def _idle(self) -> list[Artifact]:
        """Artifacts not in use, the least recently used first."""
        return [artifact for artifact in reversed(self.all()) if artifact.sha256 not in self._users]

    async def _forget(self, doomed: list[Artifact], reason: str) -> None:
        if not doomed:
            return
        for artifact in doomed:
            self._known.pop(id_of(artifact), None)
            self._used_by.pop(id_of(artifact), None)
            self._orphans.add(artifact.sha256)
        await self.records.drop_artifacts([artifact.key for artifact in doomed])
        await self._remove_orphans()
        for a in doomed:
            self.events.publish(ArtifactEvicted(key=a.key, url=a.url, function=a.function, reason=reason))

    def _needed(self) -> set[str]:
        """Hashes of files that a record names or a call uses."""
        return {artifact.sha256 for artifact in self._known.values()} | set(self._users)

    async def _remove_orphans(self) -> None:
        """Delete the orphans that no call uses."""
        async with self._storing:
            for sha256 in self._orphans - self._needed():
                await asyncio.to_thread(self.store.remove, sha256)
                self._orphans.discard(sha256)
            # A file that a record names again is no orphan; one that a call uses goes when the call ends.
            self._orphans &= set(self._users)


def id_of(artifact: Artifact) -> Id:
    return (artifact.url, artifact.package, artifact.commit, artifact.function, artifact.expression)


def key_of(id_: Id, toolchain: str) -> str:
    """A hash of all that goes into a binary: its id, the toolchain, the main programs, the platform."""
    *function, expression = id_
    parts = ["function", *map(str, function)] if expression is None else ["expression", *map(str, id_)]
    digest = hashlib.sha256()
    for part in (*parts, toolchain, harness.version(), *this_platform()):
        # With its length before each part, no two lists of parts make the same bytes.
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return digest.hexdigest()


def id_for(resolved: Resolved | Source, call: Call) -> Id:
    """What the binary for a call is known by; an expression counts where its arguments are compiled in."""
    expression = None if call.arguments is not None and not call.serves else call.text
    return (resolved.url, resolved.package, resolved.commit, call.function, expression)
