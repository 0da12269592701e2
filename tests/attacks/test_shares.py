"""A greedy client and a modest one at each resource that they share, on fakes with the real queues.

What the modest one waits for is counted in turns: places that come free before it has its own. The client
`alone` is all of them where nobody tells them apart: the same crowd without the guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from msgspec import structs

from skyisland import fakes
from skyisland.drivers.fake import Script
from skyisland.errors import TooBusy
from skyisland.events import JailCreated
from skyisland.model import Invocation
from tests.support.api import CALL, REQUEST, World, make_world


class Crowd:
    """Clients whose functions never end by themselves."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ran: list[str] = []
        """The arguments of the calls that got a jail, in this order."""
        world.driver.script = lambda data: Script(duration_s=float("inf"))
        world.events.tap(lambda event: self.ran.append(event.call[3:-2]), JailCreated)
        self.calls: list[asyncio.Task[Any]] = []

    async def call(self, client: str, number: int = 1, *, says: str = "") -> list[asyncio.Task[Invocation]]:
        """So many calls of a client, as far as they get. `says`: what they say, else the client's name."""
        request = structs.replace(REQUEST, call=f'F("{says or client}")')
        calls = [
            asyncio.ensure_future(self.world.island.invoke(request, client=client)) for _ in range(number)
        ]
        self.calls += calls
        await settled()
        return calls

    async def turns_of(self, who: str) -> int:
        """How many running calls must end, the oldest first, before this one has its jail."""
        turns = 0
        while who not in self.ran:
            oldest = min(self.world.island.jails.living(), key=lambda jail: jail.jid)
            await self.world.island.kill(oldest.jid)
            await settled()
            turns += 1
        return turns

    async def go_home(self) -> None:
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)


MakeCrowd = Callable[..., Awaitable[Crowd]]


async def settled() -> None:
    """All that can happen without anybody's doing has happened."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def make_crowd() -> AsyncIterator[MakeCrowd]:
    crowds: list[Crowd] = []

    async def make(**policy: int) -> Crowd:
        crowds.append(Crowd(make_world(fakes.policy(**policy))))
        await crowds[-1].world.island.start()
        return crowds[-1]

    yield make
    for crowd in crowds:
        await crowd.go_home()
        await crowd.world.island.stop()


@pytest.mark.case("R15")
async def test_r15_a_greedy_client_leaves_half_of_the_places(make_crowd: MakeCrowd) -> None:
    crowd = await make_crowd(max_running=4)
    await crowd.call("greedy", 40)
    await crowd.call("modest")
    assert crowd.ran == ["greedy", "greedy", "modest"]
    assert crowd.world.island.status().queued == 38


@pytest.mark.case("R15")
async def test_r15_where_all_are_one_client_the_modest_waits_for_each_call(make_crowd: MakeCrowd) -> None:
    crowd = await make_crowd(max_running=4, running_per_client=4)
    await crowd.call("alone", 40)
    await crowd.call("alone", says="modest")
    assert await crowd.turns_of("modest") == 37


@pytest.mark.case("R15")
@pytest.mark.parametrize("others", [2, 5])
async def test_r15_who_waits_waits_one_turn_of_each_other_client(make_crowd: MakeCrowd, others: int) -> None:
    crowd = await make_crowd(max_running=4)
    for number in range(others):
        await crowd.call(f"greedy {number}", 20)
    await crowd.call("modest")
    assert await crowd.turns_of("modest") <= others + 1


@pytest.mark.case("R15")
async def test_r15_the_api_tells_clients_apart(make_crowd: MakeCrowd) -> None:
    crowd = await make_crowd(max_running=4)
    async with AsyncExitStack() as stack:
        for address, text, number in (("2001:db8::1", "greedy", 9), ("198.51.100.7", "modest", 1)):
            transport = httpx.ASGITransport(app=crowd.world.app, client=(address, 1))  # type: ignore[arg-type]
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://island")
            )
            body = {**CALL, "call": f'F("{text}")'}
            crowd.calls += [
                asyncio.ensure_future(client.post("/api/v1/function", json=body)) for _ in range(number)
            ]
            await settled()
        assert crowd.ran == ["greedy", "greedy", "modest"]
        await crowd.go_home()


@pytest.mark.case("R16")
async def test_r16_a_greedy_client_fills_no_queue(make_crowd: MakeCrowd) -> None:
    crowd = await make_crowd(max_running=2, max_queued=8)
    greedy = await crowd.call("greedy", 9)
    other = await crowd.call("other", 2)
    refused = (await crowd.call("greedy"))[0]
    with pytest.raises(TooBusy, match="queue for a place to run is full"):
        await refused  # nobody else has as many
    modest = (await crowd.call("modest"))[0]
    displaced = [call for call in greedy if call.done()]
    assert len(displaced) == 2
    assert all(isinstance(call.exception(), TooBusy) for call in displaced)
    assert not any(call.done() for call in (*other, modest))
    assert await crowd.turns_of("modest") <= 3


@pytest.mark.case("R16")
async def test_r16_where_all_are_one_client_the_modest_is_refused(make_crowd: MakeCrowd) -> None:
    crowd = await make_crowd(max_running=2, running_per_client=2, max_queued=8)
    await crowd.call("alone", 10)
    with pytest.raises(TooBusy):
        await (await crowd.call("alone"))[0]
