"""A greedy client and a modest one at each resource that they share, on fakes with the real queues.

What the modest one waits for is counted in turns: places that come free before it has its own. The client
`alone` is all of them where nobody tells them apart: the same crowd without the guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from skyisland import fakes
from skyisland.drivers.fake import Script
from skyisland.errors import BuildFailed, SourceUnavailable, TooBusy
from skyisland.events import BuildStarted, JailCreated
from skyisland.fakes import FakeSources
from skyisland.host.fair import Claim
from skyisland.model import Artifact, Invocation, Resolved
from skyisland.settings import Build
from tests.support.api import CALL, REQUEST, World, make_world
from tests.support.workshop import Workshop, complains, opened, refused


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


class Yard:
    """Clients whose builds end when they are ended, each of another function."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.source = shop.source()
        self.calls: list[asyncio.Task[Artifact]] = []

    async def open(self) -> None:
        """Describe the package: from now on a call waits for nothing but its build."""
        await self.shop.build(self.source, "First()")
        self.shop.go.hold = asyncio.Event()

    async def build(self, client: str, *functions: str) -> None:
        for function in functions:
            building = self.shop.build(self.source, f"{function}()", client=client)
            self.calls.append(asyncio.ensure_future(building))
            await settled()

    @property
    def begun(self) -> list[str]:
        return [event.function for event in self.shop.told if isinstance(event, BuildStarted)]

    async def turns_of(self, function: str) -> int:
        """How many builds must end, the oldest first, before this one begins."""
        turns = 0
        while function not in self.begun:
            ended = sum(call.done() for call in self.calls)
            await self.shop.go.builds(len(self.begun))
            oldest = min(self.shop.jails.living(), key=lambda jail: jail.jid)
            await self.shop.jails.kill(oldest.jid)
            while sum(call.done() for call in self.calls) == ended:
                await asyncio.wait([c for c in self.calls if not c.done()], return_when="FIRST_COMPLETED")
            await settled()
            turns += 1
        return turns

    async def go_home(self) -> None:
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)


MANY = tuple(f"F{number}" for number in range(10))


@pytest.mark.case("R17")
@pytest.mark.parametrize(
    ("settings", "greedy", "turns"),
    [
        (Build(max_running=2), ["greedy"], 0),
        (Build(max_running=1), ["greedy"], 2),
        (Build(max_running=2), ["greedy", "other"], 3),
        (Build(max_running=1), ["modest"], 10),  # nobody tells them apart
    ],
)
async def test_r17_builds_are_made_in_turns(
    state_dir: Path, settings: Build, greedy: list[str], turns: int
) -> None:
    async with opened(state_dir, settings) as shop:
        yard = Yard(shop)
        await yard.open()
        for client in greedy:
            await yard.build(client, *(f"{client.title()}{name}" for name in MANY))
        await yard.build("modest", "Mine")
        assert await yard.turns_of("Mine") == turns
        await yard.go_home()


@pytest.mark.case("R18")
async def test_r18_who_wants_what_a_greedy_client_wants_waits_its_own_turn(state_dir: Path) -> None:
    async with opened(state_dir, Build(max_running=1)) as shop:
        yard = Yard(shop)
        await yard.open()
        await yard.build("greedy", *MANY, "Popular")
        await yard.build("modest", "Popular")
        assert await yard.turns_of("Popular") == 2
        await yard.go_home()
        assert yard.begun.count("Popular") == 1


@pytest.mark.case("R18")
async def test_r18_without_sharing_it_waits_for_all_of_the_greedy_clients_builds(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claim, "share", lambda claim, client: None)
    async with opened(state_dir, Build(max_running=1)) as shop:
        yard = Yard(shop)
        await yard.open()
        await yard.build("greedy", *MANY, "Popular")
        await yard.build("modest", "Popular")
        assert await yard.turns_of("Popular") == 10
        await yard.go_home()


@pytest.mark.case("R17")
async def test_r17_builds_that_wait_are_bounded_in_number_and_time(state_dir: Path) -> None:
    async with opened(state_dir, Build(max_running=1, max_queued=1, queue_timeout=0.05)) as shop:
        yard = Yard(shop)
        await yard.open()
        await yard.build("greedy", "A", "B", "C")
        with pytest.raises(TooBusy, match="queue for a place to build is full") as refused:
            await yard.calls[2]
        assert refused.value.retry_after_s == 5
        with pytest.raises(TooBusy, match=r"a place to build did not become free within 0\.05 s"):
            await yard.calls[1]
        await yard.go_home()


# Failures


@pytest.mark.case("R19")
async def test_r19_what_does_not_compile_is_not_compiled_again_at_once(state_dir: Path) -> None:
    async with opened(state_dir, failures_kept_s=3600) as shop:
        shop.go.answers.append(complains("./geo.go:1:1: undefined: x"))
        source = shop.source()
        first = await refused(shop, source)
        number = len(shop.go.ran("build"))
        again = await refused(shop, source)
        assert len(shop.go.ran("build")) == number
        assert again.message.startswith(first.message)
        assert again.details["remembered_s"] < 60
        assert again.retry_after_s
        with pytest.raises(BuildFailed) as anew:
            await shop.build(source, "F()", refresh=True)
        assert "remembered_s" not in anew.value.details
        assert len(shop.go.ran("build")) > number


@pytest.mark.case("R19")
async def test_r19_without_memory_each_call_costs_a_build(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        shop.go.answers.append(complains("./geo.go:1:1: undefined: x"))
        source = shop.source()
        await refused(shop, source)
        number = len(shop.go.ran("build"))
        await refused(shop, source)
        assert len(shop.go.ran("build")) > number


class Gone(FakeSources):
    """Nothing is there."""

    asked = 0

    async def resolve(self, url: str, version: str | None, *, refresh: bool, client: str = "") -> Resolved:
        self.asked += 1
        raise SourceUnavailable(f"there is no repository {url}")


@pytest.mark.case("R19")
@pytest.mark.parametrize(("kept_s", "asked"), [(0.0, 3), (3600.0, 1)])
async def test_r19_a_missing_repository_is_not_asked_for_again_at_once(kept_s: float, asked: int) -> None:
    world = make_world(fakes.policy(failures_kept_s=kept_s))
    world.island.sources = gone = Gone()
    await world.island.start()
    async with world.client() as client:
        answers = [await client.post("/api/v1/function", json=CALL) for _ in range(3)]
        assert gone.asked == asked
        assert {answer.status_code for answer in answers} == {502}
        assert ("details" in answers[2].json()) == bool(kept_s)
        if kept_s:
            assert answers[2].json()["details"]["remembered_s"] < 60
            assert 0 < int(answers[2].headers["Retry-After"]) <= 3600
        await client.post("/api/v1/function", json={**CALL, "cache_bust": True})
        assert gone.asked == asked + 1
    await world.island.stop()
