"""A call's way through the island, told on fakes of every room that touches the host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from skyisland import fakes
from skyisland.cause import Cause
from skyisland.drivers.fake import FakeClones, FakeJail, FakeJails, Script
from skyisland.errors import (
    BadCall,
    BuildFailed,
    Draining,
    DriverError,
    HostUnfit,
    InvocationNotFound,
    IslandError,
    NoAddress,
    SettingsError,
    TooBusy,
)
from skyisland.events import (
    Event,
    Events,
    InvocationFinished,
    InvocationStarted,
    IslandStarted,
    PhaseFinished,
)
from skyisland.fakes import FakeAddresses, FakeBuilds, FakeHistory, FakeSources
from skyisland.golang.harness import EXIT_REJECTED
from skyisland.island import Island
from skyisland.jails.register import SAMPLES_PER_TURN, Jails
from skyisland.model import FunctionRequest, Invocation, Limits, Verdict
from skyisland.status import AddressState, Policy, Usage

URL = "github.com/mmcloughlin/geohash"


class World:
    """An island on fakes, and all that it told."""

    def __init__(self, policy: Policy) -> None:
        self.events = Events()
        self.told: list[Event] = []
        self.events.tap(self.told.append)
        self.driver = FakeJails()
        self.builds = FakeBuilds()
        self.sources = FakeSources()
        self.network = FakeAddresses(count=2)
        self.jails = Jails(
            self.driver, FakeClones(), self.network, self.events, island="c0de", uids=range(2000, 2100)
        )
        self.island = Island(
            name="c0de",
            version="0",
            policy=policy,
            events=self.events,
            sources=self.sources,
            builds=self.builds,
            jails=self.jails,
            network=self.network,
            history=FakeHistory(self.events),
        )

    def behave(self, **script: Any) -> None:
        self.driver.script = lambda data: Script(**script)

    async def call(self, text: str = "Encode(1, 2)", **fields: Any) -> Invocation:
        return await self.island.invoke(FunctionRequest(url=URL, call=text, **fields))

    def verdicts(self) -> list[str]:
        """Of the invocations that have finished."""
        return [event.verdict for event in self.told if isinstance(event, InvocationFinished)]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.told]

    async def until(self, kind: str, count: int = 1) -> None:
        while self.kinds().count(kind) < count:
            await self.events.ring.news()


Make = Callable[..., Awaitable[World]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    worlds: list[World] = []

    async def make(**policy: Any) -> World:
        world = World(fakes.policy(**policy))
        worlds.append(world)
        await world.island.start()
        return world

    yield make
    for world in worlds:
        await world.island.stop()
        assert world.jails.living() == []
        assert world.driver.alive == {}


async def test_a_call_is_answered_from_a_jail_of_its_own(make: Make) -> None:
    world = await make()
    world.behave(stdout=b"jcc92ytsf8kn")
    invocation = await world.call("Encode(100.1, 80.9)")
    assert invocation.outcome.verdict is Verdict.ok
    assert invocation.outcome.stdout == b"jcc92ytsf8kn"
    assert invocation.jail == "sky-c0de-1"
    assert not invocation.cached
    again = await world.call("Encode(48.8, 2.3)")
    assert again.jail == "sky-c0de-2"
    assert again.cached, "other arguments need no build"
    assert world.sources.checkouts == 1


async def test_the_frame_carries_the_arguments_and_then_the_input(make: Make) -> None:
    world = await make()
    seen: list[bytes] = []

    def script(data: bytes) -> Script:
        seen.append(data)
        return Script()

    world.driver.script = script
    await world.call('Encode(0x1F, "é")', stdin_base64=b"\x00rest")
    length = int.from_bytes(seen[0][:4], "big")
    assert json.loads(seen[0][4 : 4 + length])["args"] == ["0x1F", '"é"']
    assert seen[0][4 + length :] == b"\x00rest"


async def test_the_story_is_told_from_start_to_finish(make: Make) -> None:
    world = await make()
    await world.call()
    await world.until("JailDestroyed")
    kinds = world.kinds()
    assert kinds[0] == "IslandStarted"
    assert kinds[1] == "InvocationStarted"
    phases = [event.phase for event in world.told if isinstance(event, PhaseFinished)]
    assert phases == ["resolve", "clone", "build", "queue", "jail", "exec"]
    assert kinds.index("JailCreated") < kinds.index("InvocationFinished") < kinds.index("JailDestroyed")
    started = next(event for event in world.told if isinstance(event, InvocationStarted))
    finished = next(event for event in world.told if isinstance(event, InvocationFinished))
    assert started.invocation == finished.invocation
    assert finished.verdict == "ok"
    assert finished.timings.total_s >= finished.timings.exec_s


@pytest.mark.parametrize(
    ("script", "verdict", "code", "signal"),
    [
        ({"exit_code": 2, "stderr": b"panic: no"}, "exited", 2, None),
        ({"exit_code": -9}, "signaled", None, 9),
        ({"out_of_memory": True}, "out_of_memory", None, None),
        ({"duration_s": float("inf")}, "timed_out", None, None),
        ({"stdout": b"x" * 50_000, "duration_s": 0.001}, "output_limit", None, None),
    ],
)
async def test_a_guests_misfortune_is_an_outcome(
    make: Make, script: dict[str, Any], verdict: str, code: int | None, signal: int | None
) -> None:
    world = await make(exec_timeout_s=0.05, limits=Limits(stdout_bytes=1000))
    world.behave(**script)
    outcome = (await world.call()).outcome
    assert (outcome.verdict, outcome.exit_code, outcome.signal) == (verdict, code, signal)
    assert world.verdicts() == [verdict]
    (end,) = await world.island.invocations()
    assert end.cause is not None
    assert (end.cause.exit_code, end.cause.signal) == (code, signal)
    assert await world.island.invocation(end.invocation or "") == end


async def test_arguments_that_do_not_fit_are_the_callers_error(make: Make) -> None:
    world = await make()

    def refuse(data: bytes) -> Script:
        nonce = json.loads(data[4:])["nonce"]
        complaint = f'{nonce} {{"argument": 1, "reason": "constant 300 overflows byte"}}\n'
        return Script(stdout=b"", stderr=complaint.encode(), exit_code=EXIT_REJECTED)

    world.driver.script = refuse
    with pytest.raises(BadCall, match="overflows"):
        await world.call("Encode(1, 300)")


@pytest.mark.parametrize(
    ("request_fields", "failure", "code"),
    [
        ({"call": "os.Exit(1); os.Exit(2)"}, BadCall, "bad_call"),
        ({"call": "encode(1)"}, BadCall, "bad_call"),
    ],
)
async def test_a_bad_call_costs_nothing(
    make: Make, request_fields: dict[str, Any], failure: type[IslandError], code: str
) -> None:
    world = await make()
    with pytest.raises(failure):
        await world.island.invoke(FunctionRequest(url=URL, **request_fields))
    assert "JailCreated" not in world.kinds()
    assert world.verdicts() == [code]


async def test_a_failed_build_reaches_its_caller(make: Make) -> None:
    world = await make()
    world.builds.fail = BuildFailed("does not compile", output="x.go:1: no")
    with pytest.raises(BuildFailed):
        await world.call()
    assert world.verdicts() == ["build_failed"]
    assert (await world.call()).outcome.verdict is Verdict.ok
    good, failed = await world.island.invocations()
    assert good.cause is None
    assert failed.cause == Cause(kind="build_failed", text="build: x.go:1: no", compiler="x.go:1: no")


async def test_an_end_says_what_was_called_by_whom_and_why_nobody_waits(make: Make) -> None:
    world = await make(max_running=1)
    world.behave(duration_s=float("inf"))
    request = FunctionRequest(url=f"https://{URL}/sub", call="Open(1).Do(2)")
    calls = [asyncio.ensure_future(world.island.invoke(request, client=client)) for client in "ab"]
    await world.until("JailCreated")
    await world.until("InvocationQueued")
    calls[1].cancel()
    await world.until("InvocationFinished")
    await world.island.kill_all()
    await calls[0]
    killed, left = await world.island.invocations()
    assert (killed.client, killed.repository, killed.package, killed.function) == ("a", URL, "sub", "Open")
    assert (left.client, left.cause) == ("b", Cause.of_absence())
    assert killed.cause == Cause(kind="killed", text="killed: by the operator")
    with pytest.raises(InvocationNotFound):
        await world.island.invocation("inv-000000000000")


async def test_a_driver_that_fails_leaves_nothing(make: Make) -> None:
    world = await make()
    world.driver.fail = DriverError("no more jails")
    with pytest.raises(DriverError):
        await world.call(ip4=True)
    await world.jails.drain()
    assert {a.state for a in world.network.addresses()} == {AddressState.available}
    assert (await world.call(ip4=True)).outcome.verdict is Verdict.ok


async def test_an_address_is_leased_for_the_length_of_a_call(make: Make) -> None:
    world = await make()
    world.behave(duration_s=float("inf"))
    call = asyncio.ensure_future(world.call(ip4=True))
    await world.until("JailCreated")
    (jail,) = world.island.status().jails
    assert jail.ip4 == "10.61.0.2"
    await world.island.kill(jail.jid)
    assert (await call).outcome.verdict is Verdict.killed
    await world.until("AddressReleased")
    assert {a.state for a in world.network.addresses()} == {AddressState.available}


async def test_many_jails_are_looked_at_a_few_at_a_time_and_not_twice(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make(max_running=100)
    world.behave(duration_s=float("inf"))
    calls = [asyncio.ensure_future(world.call()) for _ in range(100)]
    await world.until("JailCreated", count=100)
    turns: list[int] = []
    looked: list[str] = []

    def usage(jail: FakeJail) -> Usage:
        looked.append(jail.spec.name)
        turns.append(turn)
        return Usage(memory_bytes=1 << 20)

    monkeypatch.setattr(FakeJail, "usage", usage)
    assert all(jail.usage == Usage() for jail in world.island.status().jails), "nobody has looked yet"
    looks, turn = asyncio.gather(world.island.sample_usage(), world.island.sample_usage()), 0
    while not looks.done():
        await asyncio.sleep(0)
        turn += 1
    assert sorted(looked) == sorted(jail.name for jail in world.jails.living())
    assert max(turns.count(turn) for turn in turns) <= 2 * SAMPLES_PER_TURN, (
        "that is, a few for each who looks"
    )
    assert all(jail.usage.memory_bytes == 1 << 20 for jail in world.island.status().jails)
    await world.island.kill_all()
    await asyncio.gather(*calls)


async def test_no_address_is_said_before_anything_is_built(make: Make) -> None:
    world = await make()
    for address in world.network.addresses():
        await world.island.set_address(address.ip, AddressState.unavailable)
    with pytest.raises(NoAddress):
        await world.call(ip4=True)
    assert world.sources.checkouts == 0


async def test_calls_beyond_the_places_wait_and_beyond_the_queue_are_refused(make: Make) -> None:
    world = await make(max_running=1, max_queued=1)
    await world.call()
    world.behave(duration_s=float("inf"))
    first = asyncio.ensure_future(world.call())
    await world.until("JailCreated", 2)
    second = asyncio.ensure_future(world.call())
    # The queue tells nobody of a new arrival, and one turn of the loop is all it takes.
    while world.island.status().queued == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(TooBusy) as refused:
        await world.call()
    assert refused.value.retry_after_s
    await world.island.kill_all()
    await world.until("JailCreated", 3)
    await world.island.kill_all()
    assert {(await first).outcome.verdict, (await second).outcome.verdict} == {Verdict.killed}


async def test_waiting_for_a_place_has_an_end(make: Make) -> None:
    world = await make(max_running=1, queue_timeout_s=0.02)
    world.behave(duration_s=float("inf"))
    first = asyncio.ensure_future(world.call())
    await world.until("JailCreated")
    with pytest.raises(TooBusy):
        await world.call()
    await world.island.kill_all()
    await first


async def test_a_caller_who_hangs_up_ends_the_story(make: Make) -> None:
    world = await make()
    world.behave(duration_s=float("inf"))
    call = asyncio.ensure_future(world.call())
    await world.until("JailCreated")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await world.until("JailDestroyed")
    assert world.verdicts() == ["cancelled"]


async def test_draining_lets_running_calls_finish_and_refuses_new_ones(make: Make) -> None:
    world = await make()
    world.behave(duration_s=0.05, stdout=b"done")
    call = asyncio.ensure_future(world.call())
    await world.until("JailCreated")
    draining = asyncio.ensure_future(world.island.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await world.call()
    await draining
    assert (await call).outcome.stdout == b"done"


async def test_what_does_not_finish_in_time_is_ended(make: Make) -> None:
    world = await make()
    world.behave(duration_s=float("inf"))
    call = asyncio.ensure_future(world.call())
    await world.until("JailCreated")
    await world.island.drain(0.01)
    assert (await call).outcome.verdict is Verdict.killed


async def test_leftovers_of_an_earlier_life_are_swept_and_strangers_left_alone(make: Make) -> None:
    world = World(fakes.policy())
    world.driver.leftovers = ["sky-c0de-7", "sky-beef-1"]
    await world.island.start()
    assert world.driver.leftovers == ["sky-beef-1"]
    assert [event.swept for event in world.told if isinstance(event, IslandStarted)] == [1]
    await world.island.stop()


@pytest.mark.parametrize(
    ("require", "refusal", "says"),
    [(("memory",), HostUnfit, "memory"), (("magic",), SettingsError, "there are")],
)
async def test_an_island_that_cannot_enforce_what_it_must_does_not_start(
    require: tuple[str, ...], refusal: type[IslandError], says: str
) -> None:
    world = World(fakes.policy(require=require))
    with pytest.raises(refusal, match=says):
        await world.island.start()
    await world.island.stop()


async def test_two_hundred_at_once_all_get_their_answer(make: Make) -> None:
    world = await make(max_running=8, max_queued=1000)
    answers = await asyncio.gather(*(world.call() for _ in range(200)))
    assert {answer.outcome.verdict for answer in answers} == {Verdict.ok}
    assert len({answer.jail for answer in answers}) == 200


async def test_housekeeping_leaves_what_was_built(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make(keep_s=0.001)
    world.behave(stdout=b"x")
    await world.call()
    kept = asyncio.Event()
    purge = world.sources.purge

    async def watched(idle_s: float) -> int:
        kept.set()
        return await purge(idle_s)

    monkeypatch.setattr(world.sources, "purge", watched)
    await kept.wait()
    assert (await world.call()).cached
