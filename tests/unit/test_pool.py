"""The warm pool: how many jails it wants, and what becomes of each."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland import fakes
from skyisland.drivers.fake import FakeClones, FakeJails, Script
from skyisland.errors import DriverError, NoAddress
from skyisland.events import ArtifactEvicted, Event, Events, JailDestroyed
from skyisland.fakes import FakeAddresses, FakeBuilds, FakeHistory, FakeSources
from skyisland.island import Island
from skyisland.jails.pool import FADE_S, IDLE_CPU_S, STRIKES, WORTH, Demand, Pace, plan
from skyisland.jails.register import Jails
from skyisland.model import Address, FunctionRequest, Invocation, Verdict
from skyisland.status import AddressState, Bounds, JailState, Usage

MIB = 1 << 20

# The plan


@given(
    st.dictionaries(st.text(max_size=3), st.floats(0, 10_000), max_size=30),
    st.integers(0, 40),
    st.one_of(st.none(), st.integers(0, 100 * MIB)),
    st.integers(0, 10 * MIB),
)
def test_a_plan_stays_within_its_bounds(
    counts: dict[str, float], max_jails: int, max_memory: int | None, jail_bytes: int
) -> None:
    wanted = plan(counts, fakes.bounds(max_jails=max_jails, max_memory_bytes=max_memory), jail_bytes)
    assert sum(wanted.values()) <= max_jails
    if max_memory is not None:
        assert sum(wanted.values()) * max(jail_bytes, 1) <= max_memory
    assert all(number >= 1 for number in wanted.values())
    assert all(counts[key] >= WORTH for key in wanted)


def test_the_most_used_come_first() -> None:
    wanted = plan({"rare": 1, "never": 0, "often": 50, "some": 5}, fakes.bounds(max_jails=2), MIB)
    assert list(wanted) == ["often", "some"]


def test_each_gets_one_before_any_gets_two() -> None:
    per_second = {"busy": 200 * FADE_S, "idle": 1.0}
    assert plan(per_second, fakes.bounds(max_jails=8), MIB) == {"busy": 7, "idle": 1}
    assert plan(per_second, fakes.bounds(max_jails=100), MIB) == {"busy": 11, "idle": 2}


def test_memory_bounds_it() -> None:
    assert plan({"a": 9999.0}, fakes.bounds(max_jails=50, max_memory_bytes=10 * MIB), 4 * MIB) == {"a": 2}


# Its life, on fakes


class World:
    """An island with a pool on fakes, and all that it told."""

    def __init__(self, bounds: Bounds, pace: Pace) -> None:
        self.events = Events()
        self.told: list[Event] = []
        self.events.tap(self.told.append)
        self.driver = FakeJails()
        self.network = FakeAddresses(count=2)
        jails = Jails(self.driver, FakeClones(), self.network, self.events, island="c0de", uids=None)
        self.builds = FakeBuilds()
        self.island = Island(
            name="c0de",
            version="0",
            policy=fakes.policy(warm=bounds),
            events=self.events,
            sources=FakeSources(),
            builds=self.builds,
            jails=jails,
            network=self.network,
            history=FakeHistory(self.events),
            pace=pace,
        )

    async def call(self, text: str = "F(1)", **fields: Any) -> Invocation:
        return await self.island.invoke(FunctionRequest(url="example.com/a/b", call=text, **fields))

    def warm(self) -> list[str]:
        return [jail.name for jail in self.island.status().jails if jail.state is JailState.warm]

    async def at_work(self) -> None:
        """Wait for a call that is in its jail."""
        while all(jail.state is not JailState.running for jail in self.island.status().jails):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def gone(self, name: str) -> None:
        """Wait for the end of a jail."""
        while not any(isinstance(event, JailDestroyed) and event.jail == name for event in self.told):
            await self.events.ring.news()

    async def settle(self, number: int) -> list[str]:
        """The names of the warm jails, as soon as there are `number`."""
        while self.island.pool.status().size != number or len(self.warm()) != number:
            # A jail is told of a moment before it joins the pool.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.events.ring.news(), 0.05)
        return self.warm()


Make = Callable[..., Awaitable[World]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    worlds: list[World] = []

    async def make(pace: Pace | None = None, **bounds: object) -> World:
        world = World(fakes.bounds(**{"max_jails": 1, **bounds}), pace or Pace())
        worlds.append(world)
        await world.island.start()
        return world

    yield make
    for world in worlds:
        await world.island.stop()
        assert world.driver.alive == {}


async def test_a_call_finds_the_jail_that_was_made_ahead(make: Make) -> None:
    world = await make()
    first = await world.call()
    assert not first.warm
    (waiting,) = await world.settle(1)
    second = await world.call()
    assert (second.warm, second.jail) == (True, waiting)
    assert second.outcome.verdict is Verdict.ok


async def test_a_warm_jail_serves_one_call_and_no_more(make: Make) -> None:
    world = await make()
    served = []
    for _ in range(5):
        served.append((await world.call()).jail)
        await world.settle(1)
    assert len(set(served)) == 5


async def test_other_arguments_find_the_same_warm_jails_other_functions_do_not(make: Make) -> None:
    world = await make()
    await world.call("F(1)")
    await world.settle(1)
    assert (await world.call("F(2)")).warm
    await world.settle(1)
    assert not (await world.call("G(2)")).warm


async def test_a_burst_gets_jails_on_demand(make: Make) -> None:
    world = await make()
    await world.call()
    await world.settle(1)
    answers = await asyncio.gather(*(world.call() for _ in range(20)))
    assert {answer.outcome.verdict for answer in answers} == {Verdict.ok}
    assert sum(answer.warm for answer in answers) < 20
    assert len({answer.jail for answer in answers}) == 20


async def test_a_cold_call_goes_past_the_pool(make: Make) -> None:
    world = await make()
    await world.call()
    (waiting,) = await world.settle(1)
    answer = await world.call(cold=True)
    assert not answer.warm
    assert world.warm() == [waiting]


async def test_an_address_comes_with_the_claim(make: Make) -> None:
    world = await make()
    await world.call()
    await world.settle(1)
    assert {a.state for a in world.network.addresses()} == {AddressState.available}, "idle ones have none"
    answer = await world.call(ip4=True)
    assert answer.warm
    assert "AddressLeased" in [type(event).__name__ for event in world.told]
    await world.island.jails.drain()
    assert {a.state for a in world.network.addresses()} == {AddressState.available}


async def test_without_a_free_address_the_jail_that_was_taken_is_destroyed(make: Make) -> None:
    world = await make()
    await world.call()
    (waiting,) = await world.settle(1)

    async def lease(jail: str, invocation: str) -> Address:
        raise NoAddress(f"somebody else was quicker than {jail}")

    world.network.lease = lease  # type: ignore[method-assign]
    with pytest.raises(NoAddress, match=waiting):
        await world.call(ip4=True)
    await world.gone(waiting)


async def test_where_no_living_jail_can_have_an_address_one_is_made_with_it(make: Make) -> None:
    world = await make()
    world.driver.connects_late = False
    await world.call()
    (waiting,) = await world.settle(1)
    answer = await world.call(ip4=True)
    assert not answer.warm
    assert world.warm() == [waiting]


async def test_one_that_ends_early_is_replaced_but_not_forever(make: Make) -> None:
    world = await make()
    await world.call()
    for _ in range(STRIKES):
        (name,) = await world.settle(1)
        world.driver.alive[name].process.kill()
        await world.gone(name)
    await world.settle(0)
    assert (await world.call()).outcome.verdict is Verdict.ok


async def test_what_ends_them_all_at_once_is_not_held_against_them(make: Make) -> None:
    world = await make(Pace(horizon_s=1000.0), max_jails=2 * STRIKES)
    await world.call()
    for name in await world.settle(2 * STRIKES):
        world.driver.alive[name].process.kill()
    await world.settle(0)
    await world.settle(2 * STRIKES)


async def test_one_that_works_while_it_waits_is_destroyed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make(Pace(check_s=0.01))
    await world.call()
    (name,) = await world.settle(1)
    jail = world.driver.alive[name]
    monkeypatch.setattr(jail, "usage", lambda: Usage(cpu_s=IDLE_CPU_S * 2))
    await world.gone(name)
    assert world.island.pool.status().wasted == 1


async def test_what_nobody_calls_expires(make: Make) -> None:
    world = await make(Pace(check_s=0.01), idle_expires_s=-1.0)
    await world.call()
    await world.gone("sky-c0de-2")


async def test_an_evicted_artifact_takes_its_warm_jails_along(make: Make) -> None:
    world = await make()
    await world.call()
    await world.settle(1)
    (artifact,) = world.builds.artifacts()
    world.events.publish(ArtifactEvicted(key=artifact.key, url="", function="F", reason="operator"))
    assert world.island.pool.status().size == 0


async def test_a_killed_warm_jail_is_replaced(make: Make) -> None:
    world = await make()
    await world.call()
    (name,) = await world.settle(1)
    await world.island.kill(name)
    await world.gone(name)
    assert (await world.settle(1)) != [name]


LONG = 'F("long")'


async def settled(make: Make, **pace: float) -> World:
    """With one warm jail, and a function that takes LONG; no jail is made ahead while a short call runs."""
    world = await make(Pace(patience_s=3600.0, busy_patience_s=3600.0, **pace))
    world.driver.script = lambda data: Script(duration_s=math.inf if b"long" in data else 0.0)
    await world.call()
    await world.settle(1)
    return world


async def test_making_waits_for_calls(make: Make) -> None:
    world = await settled(make, short_s=3600.0)
    working = asyncio.ensure_future(world.call(LONG))
    await world.at_work()
    for _ in range(200):  # turns of the loop: one is made in a few
        await asyncio.sleep(0)
    assert world.warm() == []
    await world.island.kill_all()
    await working
    await world.settle(1)


async def test_making_does_not_wait_for_calls_that_wait_themselves(make: Make) -> None:
    world = await settled(make, short_s=0.0)
    waiting = asyncio.ensure_future(world.call(LONG))
    await world.at_work()
    await world.settle(1)
    assert not waiting.done()
    await world.island.kill_all()
    await waiting


async def test_without_room_there_is_no_pool(make: Make) -> None:
    world = await make(max_jails=0)
    await world.call()
    await world.island.jails.drain()
    assert world.island.status().jails == []
    assert world.island.pool.status().misses == 1


async def test_a_failure_to_make_one_ahead_harms_no_call(make: Make) -> None:
    world = await make()
    world.driver.script = lambda data: Script(stdout=b"fine")
    await world.call()
    await world.settle(1)
    answer = await world.call()
    world.driver.fail = DriverError("no more processes")
    assert answer.outcome.stdout == b"fine"
    await world.settle(1)


def test_a_rate_fades() -> None:
    demand = Demand(None)  # type: ignore[arg-type]
    demand.note(0.0, "me")
    demand.note(0.0, "me")
    assert demand.count(0.0) == 2.0
    assert math.isclose(demand.count(FADE_S), 2.0 / math.e)
