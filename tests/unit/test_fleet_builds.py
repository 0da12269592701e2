"""One answer of remotes, one build for all: what islands share, on buckets in memory."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from skyisland.builds.exchange import Offer
from skyisland.fleet import binaries as binaries_module
from skyisland.fleet.binaries import Binaries, Lease
from skyisland.fleet.commits import SharedCommits
from skyisland.fleet.frames import pack
from skyisland.fleet.line import Message
from skyisland.fleet.subjects import Subjects
from skyisland.model import KnownCommit
from skyisland.status import LineState
from tests.support.fleets import DictBucket, DictFiles, Hub

KEY = "k" * 64
URL = "github.com/user/repo"


class Memory:
    """What one island remembers of remotes."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], KnownCommit] = {}

    def get(self, url: str, version: str) -> KnownCommit | None:
        return self.commits.get((url, version))

    async def put(self, url: str, version: str, known: KnownCommit) -> None:
        self.commits[url, version] = known


class Store:
    """What a server keeps for a fleet."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.leases, self.offers, self.files, self.commits = (
            DictBucket(),
            DictBucket(),
            DictFiles(),
            DictBucket(),
        )

    async def binaries(self, node: str, verify: int = 1) -> Binaries:
        line = self.hub.line(node)
        made = Binaries(Subjects("f", node), line, self.leases, self.offers, self.files, verify=verify)
        await made.open()
        return made

    async def remotes(self, node: str) -> tuple[SharedCommits, Memory]:
        memory = Memory()
        made = SharedCommits(Subjects("f", node), self.hub.line(node), self.commits, memory)
        await made.open()
        return made, memory


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in (("RENEW_S", 0.01), ("TAKEN_OVER_S", 0.06), ("LOOK_S", 0.01)):
        monkeypatch.setattr(binaries_module, name, value)
    return Store()


def offer_of(data: bytes) -> Offer:
    return Offer(
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        package_name="p",
        build_s=1.0,
        built_at=2.0,
        go_version="go1.25",
    )


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[bytes], tuple[Offer, Path]]:
    def make(data: bytes) -> tuple[Offer, Path]:
        file = tmp_path / hashlib.sha256(data).hexdigest()
        file.write_bytes(data)
        return offer_of(data), file

    return make


Compiled = Callable[[bytes], tuple[Offer, Path]]


async def test_islands_that_want_one_binary_compile_it_once(store: Store, compiled: Compiled) -> None:
    islands = [await store.binaries(node) for node in "abc"]
    builds: list[Binaries] = []

    async def want(island: Binaries) -> Offer:
        async with island.turn(KEY):
            if (found := await island.find(KEY)) is not None:
                return found
            builds.append(island)
            await store.leases.asked_again(40)  # longer than it takes to take a lease over
            offer, file = compiled(b"binary")
            await island.offer(KEY, offer, file)
            return offer

    found = await asyncio.gather(*(want(island) for island in islands for _ in range(2)))
    assert (len(builds), {one.sha256 for one in found}) == (1, {offer_of(b"binary").sha256})
    assert not store.leases.entries


async def test_the_lease_of_an_island_that_stopped_is_taken_over(store: Store) -> None:
    await store.leases.create(KEY, pack(Lease(node="dead", life="x")))
    island = await store.binaries("a")
    started = time.monotonic()
    async with island.turn(KEY):
        assert 0.06 <= time.monotonic() - started < 2
    assert not store.leases.entries


async def test_an_island_that_lost_its_lease_leaves_that_of_its_heir(store: Store) -> None:
    first, second = await store.binaries("a"), await store.binaries("b")
    async with first.turn(KEY):
        entry = store.leases.entries[KEY]
        store.leases.away = True
        await store.leases.asked_again(2)
        store.leases.away = False
        store.leases.entries[KEY] = structs.replace(entry, revision=entry.revision + 1000)
        await store.leases.asked_again(1)
    assert KEY in store.leases.entries
    async with second.turn(KEY):
        pass


@pytest.mark.parametrize("state", [LineState.joined, LineState.away])
async def test_an_island_that_is_alone_compiles_by_itself(
    store: Store, compiled: Compiled, state: LineState
) -> None:
    island = await store.binaries("a")
    store.hub.lines[0].state = state
    store.leases.away = store.offers.away = True
    async with island.turn(KEY):
        assert await island.find(KEY) is None
        await island.offer(KEY, *compiled(b"x"))


async def test_bytes_that_are_not_what_was_said_are_not_run(
    store: Store, compiled: Compiled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await store.binaries("a"), await store.binaries("b")
    offer, file = compiled(b"binary")
    await a.offer(KEY, offer, file)
    found = await b.find(KEY)
    assert found == offer
    assert await b.fetch(found, tmp_path / "good")
    assert (tmp_path / "good").read_bytes() == b"binary"
    store.files.files[offer.sha256] = b"poison"
    with caplog.at_level(logging.ERROR):
        assert not await b.fetch(found, tmp_path / "bad")
    assert "has other bytes" in caplog.text
    del store.files.files[offer.sha256]
    assert not await b.fetch(found, tmp_path / "none")


async def test_two_islands_must_agree_where_the_settings_say_so(store: Store, compiled: Compiled) -> None:
    a, b, c = [await store.binaries(node, verify=2) for node in "abc"]
    offer, file = compiled(b"binary")
    await a.offer(KEY, offer, file)
    assert await c.find(KEY) is None
    await b.offer(KEY, *compiled(b"binary"))
    assert await c.find(KEY) == offer


async def test_islands_that_compiled_different_bytes_are_named(
    store: Store, compiled: Compiled, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = [await store.binaries(node) for node in "abc"]
    await a.offer(KEY, *compiled(b"one"))
    with caplog.at_level(logging.ERROR):
        await b.offer(KEY, *compiled(b"two"))
    assert "to different bytes: a 7692c3ad3540, b 3fc4ccfe7458" in caplog.text
    assert await c.find(KEY) is None
    await store.offers.put(f"{KEY}.c", b"\x01nonsense")
    await store.offers.put(f"{KEY}.d", pack(offer_of(b"two")))
    assert await c.find(KEY) == offer_of(b"two")


async def test_what_a_remote_said_to_one_counts_for_all(store: Store) -> None:
    (a, _), (b, memory) = await store.remotes("a"), await store.remotes("b")
    now = time.time()
    memory.commits[URL, "main"] = KnownCommit("1" * 40, now - 10)
    a.tell(URL, "main", KnownCommit("2" * 40, now))
    await store.hub.until(lambda: memory.commits[URL, "main"].commit == "2" * 40)
    a.tell(URL, "v1", KnownCommit("3" * 40, now + 500))
    await a.close()
    known = await b.look(URL, "v1")
    assert known is not None
    assert (known.commit, known.at <= time.time()) == ("3" * 40, True)
    assert (URL, "v1") not in memory.commits  # nobody asked for it here
    assert await b.look(URL, "v2") is None
    store.commits.away = True
    assert await b.look(URL, "v1") is None
    for data in (b"\x01", b"\x01" * 10_000):
        b._hear(Message("sky.f.commit", data))
    assert memory.commits[URL, "main"].commit == "2" * 40
