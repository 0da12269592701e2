"""One build for the fleet: binaries that one island compiled, for all of its platform (`builds.Exchange`).

    turn    who wants to compile a binary takes its lease; others wait for its end, and find the binary
    find    which binary there is, as those say who compiled it
    fetch   its bytes, checked against its hash
    offer   what this island compiled

A lease is an entry that its holder writes anew every `RENEW_S`. Who waits for it looks whether that happens,
by its own clock, and takes it over when it does not: no clock of another host counts, nor the servers' own
idea of age. An island that cannot reach the servers compiles by itself.

What an island compiled it says under its own name, `KEY.NODE`, where no other may write. The bytes lie
beside, named by their hash, and whoever reads them checks that: who writes others there is found out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from skyisland.builds.exchange import Offer
from skyisland.errors import DriverError
from skyisland.fleet.buckets import Bucket, Entry
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.line import Away, Line, Message
from skyisland.fleet.subjects import Subjects
from skyisland.status import LineState

log = logging.getLogger(__name__)

RENEW_S = 0.5
TAKEN_OVER_S = 2.0
"""A lease that was not written anew for so long is nobody's: three times missed, and time to do it. With the
pause between two looks, another island builds within three seconds."""
LOOK_S = 0.5
"""Between two looks at a lease that another island has. The end of a build is told at once."""
OFFER_BYTES = 8192
"""A record of a binary has 300 bytes."""


class Lease(Struct, frozen=True, kw_only=True):
    """Who compiles a binary."""

    node: str
    life: str


class Files(Protocol):
    """Larger things that all islands share, by their hash."""

    async def has(self, sha256: str) -> bool: ...
    async def put(self, sha256: str, file: Path) -> None: ...
    async def get(self, sha256: str, into: Path, most_bytes: int) -> bytes:
        """Write it to a file that is not there yet; returns its SHA-256 as it came.

        Raises:
            Away: it cannot be had, or is longer.
        """


class Binaries:
    """What the fleet has compiled."""

    def __init__(
        self, subjects: Subjects, line: Line, leases: Bucket, offers: Bucket, files: Files, *, verify: int
    ) -> None:
        """`verify`: so many islands must have compiled a binary to the same bytes, before one takes it."""
        self._subjects, self._line = subjects, line
        self._leases, self._offers, self._files, self._verify = leases, offers, files, verify
        self.reachable: Callable[[], bool] = lambda: line.state is LineState.joined
        """Whether to ask at all: a server that answers nothing costs seconds each time."""
        self._life = secrets.token_hex(8)
        self._waiting: dict[str, asyncio.Event] = {}
        """By the key of a binary: its build has ended."""

    async def open(self) -> None:
        """Hear of builds, as soon as the servers can be reached."""
        await self._line.listen(self._subjects.built("*"), self._hear)

    def _hear(self, message: Message) -> None:
        if (event := self._waiting.get(message.subject.rpartition(".")[2])) is not None:
            event.set()

    # Whose turn it is

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """This island's turn to look for a binary, and to compile it if there is none: no other one does
        meanwhile, as far as the servers can be reached."""
        held: list[int] = []
        if self.reachable():
            try:
                if (revision := await self._acquired(key)) is not None:
                    held.append(revision)
            except Away as away:
                log.info("%s is compiled without a lease: %s", key[:12], away.message)
        renewing = asyncio.create_task(self._renew(key, held)) if held else None
        try:
            yield
        finally:
            if renewing is not None:
                renewing.cancel()
                await asyncio.wait({renewing})
                with suppress(Away):
                    await self._leases.delete(key, held[0])
                    await self._line.publish(self._subjects.built(key), b"")

    async def _acquired(self, key: str) -> int | None:
        """The revision of a lease that is this island's now; None if the binary is there meanwhile."""
        mine = pack(Lease(node=self._subjects.node, life=self._life))
        seen: Entry | None = None
        seen_at = 0.0
        ended = self._waiting.setdefault(key, asyncio.Event())
        try:
            while True:
                ended.clear()
                if (revision := await self._leases.create(key, mine)) is not None:
                    return revision
                entry = await self._leases.get(key)
                if entry is None:
                    continue
                if seen is None or entry.revision != seen.revision:
                    seen, seen_at = entry, time.monotonic()
                elif time.monotonic() - seen_at > TAKEN_OVER_S:
                    log.warning("the build of %s is taken over: %s stopped", key[:12], _holder(entry))
                    if (revision := await self._leases.update(key, mine, entry.revision)) is not None:
                        return revision
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await ended.wait()
                if await self.find(key) is not None:
                    return None
        finally:
            self._waiting.pop(key, None)

    async def _renew(self, key: str, held: list[int]) -> None:
        mine = pack(Lease(node=self._subjects.node, life=self._life))
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                revision = await self._leases.update(key, mine, held[0])
            except Away:
                continue  # it is tried again; another island may take it over meanwhile
            if revision is None:
                log.warning("another island took over the build of %s", key[:12])
                return
            held[0] = revision

    # What there is

    async def find(self, key: str) -> Offer | None:
        """The binary that enough islands agree on; None if there is none, or the servers are away."""
        if not self.reachable():
            return None
        try:
            offers = await self._all(key)
        except Away:
            return None
        if not offers:
            return None
        votes = Counter(offer.sha256 for offer in offers.values())
        best, count = votes.most_common(1)[0]
        if len(votes) > 1:
            log.error("islands compiled %s to different bytes: %s", key[:12], _differing(offers))
        if count < self._verify or list(votes.values()).count(count) > 1:
            return None
        return next(offer for offer in offers.values() if offer.sha256 == best)

    async def _all(self, key: str) -> dict[str, Offer]:
        """What was compiled, by island."""
        offers = {}
        for node, entry in (await self._offers.below(key)).items():
            try:
                offers[node] = unpack(entry.value, Offer, most_bytes=OFFER_BYTES)
            except BadFrame as bad:
                log.warning("the island %s offers %s in %s", node, key[:12], bad.message)
        return offers

    async def fetch(self, offer: Offer, into: Path) -> bool:
        """Have a binary's bytes in a new file; False if they cannot be had, or are not what they should
        be."""
        try:
            sha256 = await self._files.get(offer.sha256, into, offer.size_bytes)
        except Away as away:
            log.info("the binary %s is not fetched: %s", offer.sha256[:12], away.message)
            return False
        if sha256.hex() != offer.sha256:
            log.error("the binary %s in the fleet's store has other bytes: not run", offer.sha256[:12])
            return False
        return True

    async def offer(self, key: str, offer: Offer, file: Path) -> None:
        """Give the others what this island compiled."""
        if not self.reachable():
            return
        try:
            if not await self._files.has(offer.sha256):
                await self._files.put(offer.sha256, file)
            await self._offers.put(f"{key}.{self._subjects.node}", pack(offer))
            others = await self._all(key)
        except (Away, OSError, DriverError) as error:
            log.info("the binary %s is not offered: %s", offer.sha256[:12], error)
            return
        if len({one.sha256 for one in others.values()}) > 1:
            log.error("islands compiled %s to different bytes: %s", key[:12], _differing(others))


def _holder(entry: Entry) -> str:
    try:
        return unpack(entry.value, Lease).node
    except BadFrame:
        return "an island"


def _differing(offers: dict[str, Offer]) -> str:
    return ", ".join(f"{node} {offer.sha256[:12]}" for node, offer in sorted(offers.items()))
