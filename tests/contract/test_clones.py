"""What every clone driver promises, told once for each driver.

`zfs` runs on stand-ins here, and on a real pool where TEST_ZPOOL names one (`make test-zfs`); then it is
the only driver, for the others have nothing to learn from it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skyisland.drivers.fake import FakeClones
from skyisland.drivers.linux.base import LinuxBase
from skyisland.drivers.linux.overlay import OverlayClones
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.jails.driver import CloneDriver
from skyisland.model import Clone, Snapshot
from tests.support.standins.island import zfs_clones
from tests.support.standins.world import World

POOL = os.environ.get("TEST_ZPOOL", "")

pytestmark = pytest.mark.zfs


@pytest.fixture(params=["zfs-real"] if POOL else ["fake", "overlay", "zfs"])
async def clones(request: pytest.FixtureRequest, state_dir: Path) -> AsyncIterator[CloneDriver]:
    world = None
    if request.param == "fake":
        driver: CloneDriver = FakeClones()
    elif request.param == "overlay":
        driver = OverlayClones(state_dir / "base")
    elif request.param == "zfs":
        world = World(state_dir / "freebsd")
        driver = zfs_clones(world)
    else:
        driver = ZfsClones(
            POOL, "c0de", jails=state_dir / "jails", bases=state_dir / "bases", base=LinuxBase(), ahead=2
        )
    try:
        yield driver
        await driver.close()
        assert await driver.existing() == []
        assert world is None or world.left() == {}
    finally:
        if request.param == "zfs-real":
            clear(f"{POOL}/sky-c0de")


def clear(root: str) -> None:
    """Everything below a dataset of a throw-away pool, held or not."""
    listed = subprocess.run(
        ["zfs", "list", "-H", "-o", "name", "-t", "snapshot", "-r", root], capture_output=True
    )
    for snapshot in listed.stdout.decode().split():
        subprocess.run(["zfs", "release", "sky", snapshot], check=True)
    if listed.returncode == 0:
        subprocess.run(["zfs", "destroy", "-R", root], check=True)


@pytest.fixture
async def base(clones: CloneDriver) -> Snapshot:
    return await clones.prepare()


async def test_preparing_may_be_repeated(clones: CloneDriver, base: Snapshot) -> None:
    assert await clones.prepare() == base


async def test_a_clone_has_what_the_base_has(clones: CloneDriver, base: Snapshot) -> None:
    clone = await clones.clone(base, "sky-c0de-1")
    assert (clone.name, clone.origin) == ("sky-c0de-1", base)
    if clone.path is not None:
        assert sorted(os.listdir(clone.path)) == sorted(os.listdir(base.path))
        assert (clone.path / "etc/hosts").read_text() == (base.path / "etc/hosts").read_text()
        assert clone.path.stat().st_mode & 0o777 == 0o755
    await clones.destroy(clone)


async def test_what_one_clone_gets_no_other_sees(clones: CloneDriver, base: Snapshot) -> None:
    one, other = [await clones.clone(base, f"sky-c0de-{n}") for n in (1, 2)]
    if one.path is not None and other.path is not None:
        (one.path / "etc/hosts").write_text("mine")
        (one.path / "tmp/mark").write_text("mine")
        assert (other.path / "etc/hosts").read_text() != "mine"
        assert not (other.path / "tmp/mark").exists()
        assert not (base.path / "tmp/mark").exists()
    for clone in (one, other):
        await clones.destroy(clone)


async def test_a_clone_that_was_used_never_comes_back(clones: CloneDriver, base: Snapshot) -> None:
    paths = set()
    for number in range(6):
        clone = await clones.clone(base, f"sky-c0de-{number}")
        if clone.path is not None:
            assert not (clone.path / "tmp/mark").exists()
            assert clone.path not in paths
            (clone.path / "tmp/mark").write_text("used")
            paths.add(clone.path)
        await clones.destroy(clone)
        if clone.path is not None:
            assert not clone.path.exists()


async def test_destroying_may_be_repeated(clones: CloneDriver, base: Snapshot) -> None:
    clone = await clones.clone(base, "sky-c0de-1")
    for _ in range(3):
        await clones.destroy(clone)


async def test_a_clone_that_was_never_made_can_be_destroyed(clones: CloneDriver, base: Snapshot) -> None:
    await clones.destroy(Clone("sky-c0de-9", base, None))


async def test_the_existing_are_those_that_were_handed_out(clones: CloneDriver, base: Snapshot) -> None:
    if isinstance(clones, OverlayClones):
        pytest.fail("an overlay exists with its jail alone") if await clones.existing() else None
        return
    made = [await clones.clone(base, f"sky-c0de-{n}") for n in range(3)]
    assert sorted(clone.name for clone in await clones.existing()) == [f"sky-c0de-{n}" for n in range(3)]
    for clone in made:
        await clones.destroy(clone)
    assert await clones.existing() == []


async def test_many_at_once(clones: CloneDriver, base: Snapshot) -> None:
    made = await asyncio.gather(*(clones.clone(base, f"sky-c0de-{n:x}") for n in range(12)))
    assert len({clone.name for clone in made}) == 12
    paths = [clone.path for clone in made if clone.path is not None]
    assert len(set(paths)) == len(paths)
    await asyncio.gather(*(clones.destroy(clone) for clone in made))
    assert not any(path.exists() for path in paths)


async def test_closing_may_be_repeated_and_is_not_the_end(clones: CloneDriver, base: Snapshot) -> None:
    await clones.close()
    await clones.close()
    again = await clones.prepare()
    await clones.destroy(await clones.clone(again, "sky-c0de-1"))


async def test_it_tells_what_it_enforces(clones: CloneDriver) -> None:
    assert "copy_on_write" in {capability.name for capability in clones.capabilities()}
