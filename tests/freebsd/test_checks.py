"""`doctor` on FreeBSD: every assumption is tried, and a host that behaves otherwise is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skyisland.drivers.freebsd_checks import FreeBSDChecks
from standins.island import freebsd_driver, zfs_clones
from standins.world import World

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.fixture
def world(state_dir: Path) -> Iterator[World]:
    with World(state_dir / "host") as world:
        yield world


def checks(world: World, *, full: bool) -> FreeBSDChecks:
    return FreeBSDChecks(freebsd_driver(world), zfs_clones(world, ahead=0), full=full)


async def test_every_assumption_holds_on_the_stand_ins(world: World) -> None:
    found = await checks(world, full=True).examine()
    assert [(check.name, check.found) for check in found if not check.ok] == []
    assert len(found) > 19
    assert world.left() == {}


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
    (found,) = await checks(world, full=True).examine()
    assert found.vital
    assert not found.ok
    assert "zfs_dataset" in found.remedy
