"""One answer for the fleet: what a remote said of a version to one island counts for all.

The first island that asks a remote tells the others, and keeps what it heard in a bucket for those that come
later (`sources.commits.CommonCommits`). All of them forget it at the same moment. An island that is alone
asks remotes by itself, as one does that is in no fleet.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from skyisland.fleet.buckets import Bucket
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.line import Away, Line, Message
from skyisland.fleet.subjects import Subjects
from skyisland.host.tasks import Background
from skyisland.model import KnownCommit
from skyisland.status import LineState

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""For the bucket to answer. A remote takes about as long."""
FRAME_BYTES = 8192
"""A URL has 2048 characters at most, a version 255."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class CommitFrame(Struct, frozen=True, kw_only=True):
    """What a remote said of a version."""

    url: str
    version: str
    commit: str
    at: float
    node: str


class Known(Protocol):
    """What this island remembers of remotes (`sources.commits.KnownCommits`)."""

    def get(self, url: str, version: str) -> KnownCommit | None: ...
    async def put(self, url: str, version: str, known: KnownCommit) -> None: ...


class SharedCommits:
    """What the fleet knows of remotes."""

    def __init__(self, subjects: Subjects, line: Line, bucket: Bucket, known: Known) -> None:
        """`known`: what this island remembers itself."""
        self._subjects, self._line, self._bucket, self._known = subjects, line, bucket, known
        self.reachable: Callable[[], bool] = lambda: line.state is LineState.joined
        """Whether to ask at all."""
        self._background = Background()

    async def open(self) -> None:
        """Hear what remotes say to others, as soon as the servers can be reached."""
        await self._line.listen(self._subjects.commit, self._hear)

    async def close(self) -> None:
        """Finish what is being told."""
        await self._background.drain()

    async def look(self, url: str, version: str) -> KnownCommit | None:
        """What a remote said last to any island; None if that is not known, or the fleet cannot be
        reached."""
        if not self.reachable():
            return None
        try:
            async with asyncio.timeout(LOOK_S):
                entry = await self._bucket.get(_key(url, version))
            frame = unpack(entry.value, CommitFrame, most_bytes=FRAME_BYTES) if entry is not None else None
        except (Away, BadFrame, TimeoutError) as error:
            log.info("the fleet does not say what %s is at: %s", url, error)
            return None
        if frame is None or (frame.url, frame.version) != (url, version):
            return None
        return _known(frame)

    def tell(self, url: str, version: str, known: KnownCommit) -> None:
        """A remote said this to this island: tell the others."""
        if self.reachable():
            node = self._subjects.node
            frame = CommitFrame(url=url, version=version, commit=known.commit, at=known.at, node=node)
            self._background.start(self._tell(frame))

    async def _tell(self, frame: CommitFrame) -> None:
        key = _key(frame.url, frame.version)
        try:
            await self._line.publish(self._subjects.commit, pack(frame))
            await self._bucket.put(key, pack(frame))
        except Away as away:
            log.info("the fleet was not told what %s is at: %s", frame.url, away.message)

    def _hear(self, message: Message) -> None:
        try:
            frame = unpack(message.data, CommitFrame, most_bytes=FRAME_BYTES)
        except BadFrame as bad:
            log.warning("an island told of a commit in %s", bad.message)
            return
        heard = _known(frame)
        if frame.node == self._subjects.node or heard is None:
            return
        last = self._known.get(frame.url, frame.version)
        if last is not None and last.at < heard.at and last.commit != heard.commit:
            self._background.start(self._known.put(frame.url, frame.version, heard))


def _known(frame: CommitFrame) -> KnownCommit | None:
    """What the frame says, if it says a commit. No clock of another island makes it younger than now."""
    if not _COMMIT.fullmatch(frame.commit):
        return None
    return KnownCommit(frame.commit, min(frame.at, time.time()))


def _key(url: str, version: str) -> str:
    return hashlib.blake2b(f"{url} {version}".encode(), digest_size=20).hexdigest()
