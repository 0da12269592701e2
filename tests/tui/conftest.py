"""A real island of fake rooms, and the two ways to it: its methods, and its API on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.operating import HEADER, TOKEN, World
from tui.watch.inprocess import InProcessPort
from tui.watch.port import Port
from tui.watch.remote import RemotePort


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.island.start()
    yield made
    for call in made.calls:
        call.cancel()
    await asyncio.gather(*made.calls, return_exceptions=True)
    await made.island.stop()


@pytest.fixture(params=["in process", "remote"])
async def port(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Port]:
    """Both ways to the world's island, one test each."""
    if request.param == "in process":
        yield InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")
        return
    async with world.served() as url:
        remote = RemotePort(url, token=TOKEN, header=HEADER)
        yield remote
        await remote.close()
