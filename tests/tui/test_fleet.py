"""One console for a fleet: rows of all its islands, and orders to any of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from skyisland.model import Verdict
from skyisland.status import AddressState
from tests.support.fleets import Hub
from tests.support.nodes import Known, Room
from tests.support.operating import HEADER, TOKEN, World, operating
from tui.watch.inprocess import InProcessPort
from tui.watch.port import Port
from tui.watch.remote import RemotePort


@pytest.fixture
async def fleet() -> AsyncIterator[dict[str, World]]:
    """Two islands, `a` and `b`; both know `c`, which is silent."""
    hub, worlds = Hub(), dict[str, World]()
    for node in ("a", "b"):
        room = Room(hub, Known(node, "a", "b", silent=("c",)))
        worlds[node] = World(node, room)
        worlds[node].app()  # which answers the others
        await room.nodes.start()
        await worlds[node].island.start()
    yield worlds
    for world in worlds.values():
        for call in world.calls:
            call.cancel()
        await asyncio.gather(*world.calls, return_exceptions=True)
        await world.island.stop()


@pytest.fixture
async def port(request: pytest.FixtureRequest, fleet: dict[str, World]) -> AsyncIterator[Port]:
    world = fleet["a"]
    if request.param == "in process":
        yield InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")
        return
    async with world.served() as url:
        remote = RemotePort(url, token=TOKEN, header=HEADER)
        yield remote
        await remote.close()


@pytest.mark.parametrize("port", ["remote"], indirect=True)
async def test_sees_and_kills_jails_of_another_island(port: Port, fleet: dict[str, World]) -> None:
    here, there = fleet["a"].call(), fleet["b"].call()
    async with operating(port) as operator:
        operator.console.station.poll_s = 0.2
        await operator.reads("prod")
        await operator.press("2")
        await operator.reads("sky-b-1")
        await operator.reads("NODE")
        await operator.press("slash", *"node:b", "enter")
        table = operator.console.table
        await operator.sees(lambda: table is not None and [row.node for row in table.rows] == ["b"])
        await operator.press("K")
        await operator.reads("Kill this jail?")
        await operator.press("y")
        assert (await there).outcome.verdict is Verdict.killed
        await operator.is_told("killed sky-b-1")
        await operator.sees(lambda: not operator.console.board.others.jails)
        assert not here.done()
        assert operator.console.board.others.silent == ["c"]


@pytest.mark.parametrize("port", ["in process"], indirect=True)
async def test_takes_out_an_address_of_another_island(port: Port, fleet: dict[str, World]) -> None:
    async with operating(port) as operator:
        operator.console.station.poll_s = 0.2
        await operator.press("3")
        await operator.sees(lambda: operator.console.board.others.addresses)
        await operator.press("slash", *"node:b", "enter", "s")
        await operator.reads("State of 10.61.0.2")
        await operator.press("u")
        pools = {node: world.addresses.pool["10.61.0.2"] for node, world in fleet.items()}
        await operator.sees(lambda: fleet["b"].addresses.pool["10.61.0.2"].state is AddressState.unavailable)
        await operator.is_told("took out 10.61.0.2")
        assert pools["a"].state is AddressState.available
