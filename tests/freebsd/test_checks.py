"""`doctor` on FreeBSD: every assumption is tried, and a host that behaves otherwise is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skyisland.drivers.freebsd.checks import FreeBSDChecks
from tests.support.standins.island import freebsd_driver, zfs_clones
from tests.support.standins.world import World

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.fixture
def world(state_dir: Path) -> Iterator[World]:
    with World(state_dir / "host") as world:
        yield world


def checks(world: World, *, full: bool) -> FreeBSDChecks:
    return FreeBSDChecks(freebsd_driver(world), zfs_clones(world, ahead=0), full=full)


async def test_every_assumption_holds_on_the_stand_ins(world: World) -> None:
    found = await checks(world, full=True).examine()
    slow = "clones are quick"  # which this machine may not be while it runs so many tests
    assert [(check.name, check.found) for check in found if not check.ok and check.name != slow] == []
    assert len(found) > 19
    assert world.left() == {}
    assert list(world.look()["datasets"]) == ["tank"]


async def test_without_trials_nothing_is_made(world: World) -> None:
    found = await checks(world, full=False).examine()
    assert {"zfs", "jails", "memory", "copy_on_write"} <= {check.name for check in found if check.ok}
    assert list(world.look()["datasets"]) == ["tank"]


async def test_what_an_interrupted_doctor_left_is_taken_back_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FreeBSDChecks, "trials", lambda _: {})
    world.fail("^zfs destroy -f .*/base/tiny$", "cannot destroy: it is broken\n")
    found = {check.name: check for check in await checks(world, full=True).examine()}
    assert not found["everything is taken back"].ok
    await zfs_clones(world, ahead=0).clone(await zfs_clones(world).prepare(), "sky-c0de-7")
    found = {check.name: check for check in await checks(world, full=True).examine()}
    assert found["everything is taken back"].ok
    assert list(world.look()["datasets"]) == ["tank"]


async def test_a_host_that_behaves_otherwise(world: World) -> None:
    world.fail("^zfs program", "unrecognized command 'program'\n", code=2, times=9)
    world.fail("^ifconfig epair", "ifconfig: 'group' not supported\n", times=9)
    with world.change() as state:
        state["devfs"]["6061"] = ["hide"]
        state["jls_version"] = "3"
    found = {check.name: check for check in await checks(world, full=True).examine()}
    assert "one by one" in found["many clones end by one program"].found
    assert found["interfaces can be marked as they are made"].found.startswith("not known: ")
    assert found["interfaces can be marked as they are made"].remedy
    assert "not empty" in found["a devfs ruleset without rules hides nothing"].found
    assert found["jls is understood"].ok
    assert found["nothing is left"].ok


async def test_a_host_without_a_pool(world: World) -> None:
    with world.change() as state:
        del state["datasets"]["tank"]
    found = {check.name: check for check in await checks(world, full=True).examine()}
    assert found["zfs"].vital
    assert not found["zfs"].ok
    assert "zfs_dataset" in found["zfs"].remedy
    assert "a jail runs a program" not in found
