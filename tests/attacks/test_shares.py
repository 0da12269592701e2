"""A greedy client and a modest one at each resource that they share, on fakes with the real queues.

What the modest one waits for is counted in turns: places that come free before it has its own. The client
`alone` is all of them where nobody tells them apart: the same crowd without the guard.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from skyisland import fakes, wiring
from skyisland.builds.room import surplus
from skyisland.drivers.fake import Script
from skyisland.errors import BuildFailed, SourceUnavailable, TooBusy
from skyisland.events import BuildStarted, Events, JailCreated
from skyisland.fakes import FakeSources
from skyisland.host.fair import Claim
from skyisland.jails.pool import plan
from skyisland.model import Artifact, FunctionRequest, Invocation, Resolved, Verdict
from skyisland.settings import Build, Git, Settings
from skyisland.sources.mirror import Mirrors
from skyisland.sources.sources import Sources
from tests.support.api import CALL, REQUEST, World, make_world
from tests.support.daemon import HOST
from tests.support.upstream import CommitMemory
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


# One repository


class Fetching:
    """Sources whose commits are fetched one at a time, each until it is let through."""

    def __init__(self, state_dir: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
        self.begun: list[str] = []
        self._gate = asyncio.Semaphore(0)
        monkeypatch.setattr(Mirrors, "fetch", self._fetch)
        monkeypatch.setattr(Mirrors, "check_out", self._check_out)
        folders = state_dir / "repos", state_dir / "checkouts"
        self.sources = Sources(Git(**limits), *folders, trust_s=3600, known=CommitMemory())
        self.calls: list[asyncio.Task[Any]] = []

    async def _fetch(self, name: str, commit: str) -> None:
        self.begun.append(commit)
        await self._gate.acquire()

    async def _check_out(self, name: str, commit: str, place: Path) -> None:
        pass

    async def want(self, client: str, *commits: str) -> None:
        for commit in commits:
            wanted = Resolved(url="a.test/a/b", package="", commit=commit, version=commit)
            self.calls.append(asyncio.ensure_future(self.sources.checkout(wanted, client)))
            while len(self.begun) < 1:
                await asyncio.sleep(0)
            await settled()

    async def turns_of(self, commit: str) -> int:
        """How many fetches must end before this one begins."""
        turns = 0
        while commit not in self.begun:
            begun = len(self.begun)
            self._gate.release()
            while len(self.begun) == begun:
                await asyncio.sleep(0)
            turns += 1
        return turns

    async def go_home(self) -> None:
        await self.sources.close()
        await asyncio.gather(*self.calls, return_exceptions=True)


COMMITS = tuple(f"{number:040x}" for number in range(10))


@pytest.mark.case("R24")
@pytest.mark.parametrize(("greedy", "turns"), [("greedy", 2), ("modest", 10)])
async def test_r24_work_on_one_repository_is_done_in_turns(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, greedy: str, turns: int
) -> None:
    fetching = Fetching(state_dir, monkeypatch)
    await fetching.want(greedy, *COMMITS)
    await fetching.want("modest", "f" * 40)
    assert await fetching.turns_of("f" * 40) == turns
    await fetching.go_home()


@pytest.mark.case("R24")
async def test_r24_who_wants_a_commit_that_a_greedy_client_wants_too_waits_its_own_turn(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetching = Fetching(state_dir, monkeypatch)
    await fetching.want("greedy", *COMMITS)
    await fetching.want("modest", COMMITS[-1])
    assert await fetching.turns_of(COMMITS[-1]) == 2
    await fetching.go_home()


@pytest.mark.case("R24")
async def test_r24_who_waits_for_a_repository_is_bounded_in_number_and_time(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetching = Fetching(state_dir, monkeypatch, max_queued=1, queue_timeout=0.05)
    await fetching.want("greedy", *COMMITS[:3])
    with pytest.raises(TooBusy, match="queue for a turn at this repository is full"):
        await fetching.calls[2]
    with pytest.raises(TooBusy, match=r"a turn at this repository did not become free within 0\.05 s"):
        await fetching.calls[1]
    await fetching.go_home()


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
    world = make_world(fakes.policy(failures_kept_s=kept_s), sources=(gone := Gone()))
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


class Pushed(Gone):
    """There is something since the first call."""

    async def resolve(self, url: str, version: str | None, *, refresh: bool, client: str = "") -> Resolved:
        if not self.asked:
            await super().resolve(url, version, refresh=refresh, client=client)
        return await FakeSources.resolve(self, url, version, refresh=refresh, client=client)


@pytest.mark.case("R23")
@pytest.mark.parametrize(("who", "found"), [("greedy", False), ("modest", True)])
async def test_r23_what_one_client_did_not_find_another_may(who: str, found: bool) -> None:
    world = make_world(fakes.policy(failures_kept_s=3600.0), sources=Pushed())
    await world.island.start()
    with pytest.raises(SourceUnavailable):
        await world.island.invoke(REQUEST, client="greedy")
    again = world.island.invoke(REQUEST, client=who)
    if found:
        assert (await again).outcome.verdict is Verdict.ok
    else:
        with pytest.raises(SourceUnavailable) as remembered:
            await again
        assert "remembered_s" in remembered.value.details
    await world.island.stop()


# What is kept


async def churn(shop: Workshop, client: str) -> None:
    """Ten calls of two repositories, in a cache that has room for two binaries."""
    sources = [shop.source(url=f"example.com/greedy/{n}", commit=f"{n}" * 40) for n in range(2)]
    for _ in range(5):
        for source in sources:
            if shop.known(source, "F()", client) is None:
                await shop.build(source, "F()", client=client)


@pytest.mark.case("R20")
@pytest.mark.parametrize(("greedy", "kept"), [("greedy", True), ("modest", False)])
async def test_r20_churn_evicts_nothing_that_another_client_uses(
    state_dir: Path, greedy: str, kept: bool
) -> None:
    """Where nobody tells the two apart, it does."""
    async with opened(state_dir) as shop:
        size = (await shop.build(shop.source(), "F()", client="modest")).size_bytes
    async with opened(state_dir, Build(cache_limit=2 * size + size // 2)) as shop:
        mine = shop.source()
        assert shop.known(mine, "F()", "modest") is not None
        await churn(shop, greedy)
        assert (shop.known(mine, "F()", "modest") is not None) == kept
        assert len(shop.builds.artifacts()) == 2


@pytest.mark.case("R20")
async def test_r20_of_one_client_the_largest_repository_gives_room(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        size = (await shop.build(shop.source(), "F()")).size_bytes
    async with opened(state_dir, Build(cache_limit=3 * size)) as shop:
        mine, large = shop.source(), shop.source(url="example.com/greedy/0")
        assert shop.known(mine, "F()") is not None
        for name in "ABCDEFGH":
            await shop.build(large, f"{name}()")
        assert {artifact.function for artifact in shop.builds.artifacts()} == {"F", "G", "H"}


def test_r20_what_nobody_used_lately_goes_first_and_what_is_shared_last() -> None:
    def artifact(url: str, number: int) -> Artifact:
        key = f"{url}{number}"
        return structs.replace(model, key=key, sha256=key, url=url, used_at=number)

    model = Artifact(
        key="", sha256="", path=Path(), url="", package="", commit="", function="", expression=None,
        size_bytes=10, build_s=0, built_at=0, used_at=0,
    )  # fmt: skip
    old, shared, hoard = artifact("old", 9), artifact("shared", 0), [artifact("hoard", n) for n in range(5)]
    idle = [shared, *hoard, old]
    users = {one.key: ["greedy"] for one in hoard} | {shared.key: ["greedy", "modest"]}
    assert surplus(idle, idle, users, 70) == []
    assert surplus(idle, idle, users, 60) == [old]
    assert surplus(idle, idle, users, 40) == [old, *hoard[:2]]
    assert surplus(idle, idle, users, 0) == [old, *hoard, shared]
    assert surplus([*idle, artifact("used", 1)], idle[:1], users, 0) == [shared]


@pytest.mark.case("R21")
def test_r21_one_clients_functions_do_not_take_all_warm_jails() -> None:
    counts = {f"greedy {n}": 50.0 for n in range(20)} | {"modest": 1.0}
    clients = {key: key.split()[0] for key in counts}
    bounds = fakes.bounds(max_jails=4)
    assert list(plan(counts, bounds, 1 << 20, clients=clients)) == [
        "greedy 0",
        "modest",
        "greedy 1",
        "greedy 2",
    ]
    assert "modest" not in plan(counts, bounds, 1 << 20)  # where nobody tells them apart


@pytest.mark.case("R21")
async def test_r21_a_modest_clients_function_is_warm_beside_a_greedy_ones() -> None:
    world = make_world(fakes.policy(warm=fakes.bounds(max_jails=2)))
    await world.island.start()

    async def call(client: str, function: str) -> bool:
        request = structs.replace(REQUEST, call=f"{function}()")
        return (await world.island.invoke(request, client=client)).warm

    async def warm(wasted: int) -> None:
        """The pool is as it should be, after so many jails made for nothing."""
        async with asyncio.timeout(10):
            status = world.island.pool.status
            while status().size < 2 or status().wasted < wasted:
                await asyncio.sleep(0)

    for number in range(3):
        for _ in range(9):
            await call("greedy", f"Greedy{number}")
    await warm(0)
    wasted = world.island.pool.status().wasted
    assert not await call("modest", "Modest")
    await warm(wasted + 1)
    assert await call("modest", "Modest")
    await world.island.stop()


# In real jails


@pytest.mark.host
@pytest.mark.root
@pytest.mark.case("R15")
@pytest.mark.parametrize(("greedy", "before"), [("greedy", 0), ("modest", 6)])
async def test_r15_in_real_jails_the_modest_waits_for_none_of_the_greedy(
    settings: Settings, greedy: str, before: int
) -> None:
    """Where nobody tells the two apart, it waits for as many as were there before."""
    jails = structs.replace(settings.jails, max_running=2, queue_timeout=60.0)
    settings = structs.replace(settings, jails=jails)
    async with wiring.opened(settings, Events(), search_path=os.environ["PATH"]) as island:
        await island.start()
        trouble = FunctionRequest(url=f"{HOST}/trouble", call="Sleep(1000000000)")
        await island.invoke(structs.replace(trouble, call="Sleep(1)"))
        calls = [asyncio.ensure_future(island.invoke(trouble, client=greedy)) for _ in range(7)]
        while island.status().queued < 6:  # one has its place
            await asyncio.sleep(0.01)
        mine = await island.invoke(structs.replace(trouble, call="Sleep(1)"), client="modest")
        assert mine.outcome.verdict is Verdict.ok
        assert sum(call.done() for call in calls) >= before
        assert before or not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await island.stop()
