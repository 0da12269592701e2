"""What is kept of builds on a fake `go`, and for how long."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from skyisland.builds.artifacts import Id, key_of
from skyisland.drivers.fake import Script
from skyisland.errors import ArtifactNotFound, BuildFailed
from skyisland.events import ArtifactEvicted
from skyisland.golang.caches import Caches
from skyisland.host.folder import size_of
from skyisland.model import JailSpec
from skyisland.settings import Build, Layout
from tests.support.workshop import Workshop, host, opened, refused, source, verb

# What a hostile build leaves instead of a binary


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing", "large"])
async def test_only_a_regular_file_of_due_size_is_taken(state_dir: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's own")

    def leave(spec: JailSpec) -> Script | None:
        out = host(spec, "/out/function")
        if verb(spec) != "build" or not source(spec) or not out:
            return None
        match kind:
            case "link":
                out.symlink_to(secret)
            case "pipe":
                os.mkfifo(out)
            case "folder":
                out.mkdir()
            case "large":
                with out.open("wb") as file:
                    file.truncate((1 << 20) + 1)
        return Script(stdout=b"")

    async with opened(state_dir, Build(file_size=1 << 20)) as shop:
        shop.go.answers.append(leave)
        await refused(shop, shop.source())
        assert shop.binaries() == set()
        assert shop.builds.artifacts() == []
    assert secret.read_text() == "the host's own"


# Keeping and forgetting


async def test_everything_is_known_after_a_restart(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        built = await shop.build(shop.source(), "Encode(1)")
        used = shop.known(shop.source(), "Encode(2)")
        assert used is not None
    async with opened(state_dir) as shop:
        assert shop.builds.artifacts() == [used]
        assert shop.binaries() == {built.sha256}


async def test_a_damaged_binary_is_forgotten_and_a_stray_file_removed(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        gone = await shop.build(shop.source(), "Gone()")
        torn = await shop.build(shop.source(), "Torn()")
        kept = await shop.build(shop.source(), "Kept()")
    gone.path.unlink()
    torn.path.chmod(0o644)
    torn.path.write_bytes(b"half")
    stray = state_dir / "state" / "artifacts" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("from a build that was killed")
    async with opened(state_dir) as shop:
        assert [artifact.key for artifact in shop.builds.artifacts()] == [kept.key]
        assert shop.binaries() == {kept.sha256}
        assert [artifact.key for artifact in await shop.state.artifacts()] == [kept.key]


async def test_eviction_by_hand(shop: Workshop) -> None:
    built = await shop.build(shop.source(), "F()")
    assert (await shop.builds.evict(built.key)).key == built.key
    assert shop.builds.artifacts() == []
    assert shop.binaries() == set()
    assert [e.reason for e in shop.told if isinstance(e, ArtifactEvicted)] == ["operator"]
    with pytest.raises(ArtifactNotFound):
        await shop.builds.evict(built.key)


async def test_the_file_of_one_in_use_stays_until_its_last_user_is_gone(shop: Workshop) -> None:
    built = await shop.build(shop.source(), "F()")
    with shop.builds.using(built):
        with shop.builds.using(built):
            await shop.builds.evict(built.key)
            assert built.path.exists()
        assert built.path.exists()
    await shop.builds.close()
    assert not built.path.exists()


async def test_built_again_while_its_evicted_file_is_in_use(shop: Workshop) -> None:
    source_ = shop.source()
    built = await shop.build(source_, "F()")
    with shop.builds.using(built):
        await shop.builds.evict(built.key)
        again = await shop.build(source_, "F()")
    await shop.builds.close()
    assert again.sha256 == built.sha256
    assert again.path.exists()


async def test_a_file_that_two_functions_share_stays_for_the_other(shop: Workshop) -> None:
    one = await shop.build(shop.source(commit="1" * 40), "F()")
    two = await shop.build(shop.source(commit="2" * 40), "F()")
    assert one.sha256 == two.sha256
    await shop.builds.evict(one.key)
    assert two.path.exists()
    await shop.builds.evict(two.key)
    assert not two.path.exists()


async def test_purge_leaves_what_is_in_use(shop: Workshop) -> None:
    used = await shop.build(shop.source(), "Used()")
    idle = await shop.build(shop.source(), "Idle()")
    with shop.builds.using(used):
        assert [artifact.key for artifact in await shop.builds.purge()] == [idle.key]
    assert [artifact.key for artifact in shop.builds.artifacts()] == [used.key]


async def test_what_was_not_used_for_long_goes(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        old = await shop.build(shop.source(), "Old()")
        await shop.builds.close()  # which writes down its use, so that the next line is the last word
        shop.state.touch_artifact(structs.replace(old, used_at=time.time() - 101))
    async with opened(state_dir, unused_s=100.0) as shop:
        new = await shop.build(shop.source(), "New()")
        assert [artifact.key for artifact in shop.builds.artifacts()] == [new.key]
        evicted = [event for event in shop.told if isinstance(event, ArtifactEvicted)]
        assert [(event.key, event.reason) for event in evicted] == [(old.key, "unused")]


async def test_beyond_the_limit_the_least_recently_used_goes(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        size = (await shop.build(shop.source(), "A()")).size_bytes
    async with opened(state_dir, Build(cache_limit=3 * size)) as shop:
        source_ = shop.source()
        for name in "BC":
            await shop.build(source_, f"{name}()")
        assert shop.known(source_, "A()") is not None
        await shop.build(source_, "D()")
        assert {artifact.function for artifact in shop.builds.artifacts()} == {"A", "C", "D"}
        with shop.builds.using(next(a for a in shop.builds.artifacts() if a.function == "C")):
            await shop.build(source_, "E()")
            assert {artifact.function for artifact in shop.builds.artifacts()} == {"C", "D", "E"}


async def test_a_limit_too_small_for_one_still_serves_it(state_dir: Path) -> None:
    async with opened(state_dir, Build(cache_limit=1)) as shop:
        built = await shop.build(shop.source(), "F()")
        assert built.path.exists()


async def test_old_caches_and_too_many_modules_go(state_dir: Path) -> None:
    layout = Layout(state_dir / "state", state_dir / "jails")
    caches = Caches(layout, uid=None, limit_bytes=12_000, unused_s=100.0)
    await asyncio.to_thread(caches.prepare, "go1.27.3")
    async with caches.of("example.com/old") as old:
        os.utime(old, (1, 1))
        assert not await caches.trim()
        assert old.exists()  # in use
        os.utime(old, (1, 1))
    async with caches.of("example.com/new") as new:
        (new / "entry").write_bytes(b"x" * 900)
    (caches.modules / "zip").write_bytes(b"x" * 9000)
    assert await caches.trim()
    assert not old.exists()
    assert new.exists()
    assert list(caches.modules.iterdir()) == []
    async with caches.of("example.com/newer") as newer:
        (newer / "entry").write_bytes(b"x" * 900)
        os.utime(new, (time.time() - 10,) * 2)
    assert not await caches.trim()
    assert not new.exists()
    assert newer.exists()


@pytest.mark.root
def test_the_caches_follow_the_uid_of_builds(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state", tmp_path / "jails")

    def prepared(uid: int) -> Caches:
        caches = Caches(layout, uid=uid, limit_bytes=1 << 20, unused_s=100.0)
        caches.prepare("go1.27.3")
        return caches

    caches = prepared(1_900_000_000)
    outside = tmp_path / "outside"
    outside.touch()
    own = caches.home / "own" / "of-a-repository"
    for folder in (caches.std / "ab", own / "cd", caches.modules / "example.com"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
        (folder / "link").symlink_to(outside)
    for path in (own, own / "cd", own / "cd" / "file"):
        os.chown(path, 1_900_000_000, 1_900_000_000)
    prepared(1_900_500_000)
    everything = [path for top in (caches.std, own, caches.modules) for path in (top, *top.rglob("*"))]
    assert {path.lstat().st_uid for path in everything} == {1_900_500_000}
    assert outside.stat().st_uid == 0


async def test_a_build_that_outgrows_its_cache_ends_and_the_others_make_room(state_dir: Path) -> None:
    layout = Layout(state_dir / "state", state_dir / "jails")
    dropped: list[bool] = []

    async def caches(limit_bytes: int) -> Caches:
        made = Caches(
            layout,
            uid=None,
            limit_bytes=limit_bytes,
            unused_s=100.0,
            least_bytes=0,
            measure_s=0.001,
            dropped=lambda: dropped.append(True),
        )
        await asyncio.to_thread(made.prepare, "go1.27.3")
        return made

    async def compile_(folder: Path, entries: int, rest: asyncio.Event | None = None) -> None:
        for number in range(entries):
            await asyncio.to_thread((folder / str(number)).touch)
        await (rest or asyncio.Event()).wait()

    # Where nothing is measured, empty files take any number of blocks.
    done = asyncio.Event()
    done.set()
    async with (await caches(1 << 30)).of("example.com/unlimited") as cache:
        await compile_(cache, 100, done)
    assert await asyncio.to_thread(size_of, cache) > 400_000

    limited = await caches(200_000)
    async with limited.of("example.com/old") as old:
        await compile_(old, 30, done)
    assert old.exists()
    with pytest.raises(BuildFailed, match=r"\[build\] cache_limit permits \(200000 bytes\)"):
        async with limited.of("example.com/new") as new:
            await compile_(new, 100)
    assert not cache.exists()
    assert not new.exists()
    with pytest.raises(BuildFailed, match="modules that it downloads"):
        async with limited.of("example.com/modules", downloads=True):
            await compile_(limited.modules, 200)
    assert dropped
    assert list(limited.modules.iterdir()) == []
    with pytest.raises(TimeoutError):
        async with limited.of("example.com/other"):
            raise TimeoutError


# Keys


PARTS = st.text(max_size=5)
IDS = st.tuples(PARTS, PARTS, PARTS, PARTS, st.none() | PARTS)


@given(IDS, IDS)
def test_different_wishes_have_different_keys(one: Id, two: Id) -> None:
    def key(id_: Id) -> str:
        return key_of(id_, "go1.27.3")

    assert (key(one) == key(two)) == (one == two)
    assert key(one) != key_of(one, "go1.27.4")
    # The same characters, divided otherwise.
    url, package, commit, function, expression = one
    assert key((f"{url}/", package, commit, function, expression)) != key(
        (url, f"/{package}", commit, function, expression)
    )
