"""What a console knows of its island, without a picture: snapshots, facts, pulses and pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

import pytest

from skyisland.events import (
    AddressLeased,
    AddressStateSet,
    ArtifactEvicted,
    BuildFinished,
    Event,
    Gap,
    InvocationFinished,
    InvocationStarted,
    JailCreated,
    JailDestroyed,
    Pulse,
)
from skyisland.model import FunctionRequest, Purpose, Timings
from skyisland.status import Usage
from tests.support.fake_island import NOON, FakeIsland
from tests.support.operating import World
from tui.draw.glyphs import Glyphs
from tui.watch.filter import Filter
from tui.watch.port import Port, Snapshot
from tui.watch.rows import InvocationRow
from tui.watch.station import Station

BUILT = BuildFinished(key="k", url="u", function="f", ok=True, duration_s=0.1)
QUIET = InvocationStarted(invocation="i-1", url="u", call="F()")


def ended(verdict: str) -> InvocationRow:
    timings = Timings(total_s=0.1)
    return InvocationRow.over(
        InvocationFinished(
            invocation="inv-1", url="u", call="F()", verdict=verdict, timings=timings, caller_id="trace-7"
        )
    )


@pytest.mark.parametrize(
    ("verdict", "sign", "tone"), [("ok", "✓", "ok"), ("failed", "!", "warn"), ("exited", "✗", "bad")]
)
def test_an_end_has_a_sign_a_word_and_a_colour(verdict: str, sign: str, tone: str) -> None:
    row = ended(verdict)
    assert Glyphs().state(row.state, row.verdict) == (f"{sign} {verdict}", tone)
    assert Filter("code:failed")(row, 0) is (verdict == "failed")
    assert Filter("req:trace-7")(row, 0)
    assert not Filter("req:trace-8")(row, 0)


class Counting(FakeIsland):
    """Counts the snapshots that were taken of it."""

    taken = 0

    async def snapshot(self) -> Snapshot:
        self.taken += 1
        return await super().snapshot()

    def has_taken(self, number: int) -> bool:
        return self.taken == number


@pytest.fixture
def island() -> Counting:
    return Counting(jails=1)


@pytest.fixture
async def station(island: Counting) -> AsyncIterator[Station]:
    """On the line, with a clock that stands still and no patience between two polls."""
    station = Station(island, lambda: NOON, changed=lambda: None, refused=lambda: None)
    station.poll_s = 0
    following = asyncio.create_task(station.follow())
    await until(lambda: station.good)
    yield station
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def until(truth: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not truth():  # noqa: ASYNC110 - a station tells nobody
            await asyncio.sleep(0)


async def some_polls() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def pulse(at: float, jail: str, cpu_s: float, memory_bytes: int = 1 << 20) -> Pulse:
    usage = {jail: Usage(cpu_s=cpu_s, memory_bytes=memory_bytes), "sky-gone-1": Usage(cpu_s=1.0)}
    return Pulse(at=at, running=5, queued=2, draining=False, usage=usage)


async def test_a_snapshot_is_taken_again_when_it_has_more_to_tell(station: Station, island: Counting) -> None:
    await some_polls()
    assert island.taken == 1
    reasons: list[Event] = [BUILT, Gap(missed=3)]
    for taken, reason in enumerate(reasons, start=2):
        island.tell(QUIET)
        island.tell(reason)
        await until(partial(island.has_taken, taken))
        await some_polls()
        assert island.taken == taken


async def test_a_snapshot_is_taken_again_when_it_is_wanted(station: Station, island: Counting) -> None:
    station.snapshot_soon()
    await until(lambda: island.taken == 2)
    await some_polls()
    assert island.taken == 2


async def test_a_view_that_wants_snapshots_gets_one_at_every_poll(station: Station, island: Counting) -> None:
    station.wants_snapshots = True
    await until(lambda: island.taken > 3)


async def test_a_snapshot_undoes_nothing_that_happened_after_it(station: Station, island: Counting) -> None:
    (ended,) = island.jails
    snapshot = await island.snapshot()
    address, other = (info.ip for info in snapshot.addresses[-2:])
    station.receive(
        [
            JailDestroyed(at=NOON + 1, jail=ended, jid=1, duration_s=0.1),
            JailCreated(at=NOON + 1, jail="sky-main-2", jid=2, pid=1, purpose=Purpose.function, ip4=address),
            AddressLeased(at=NOON + 1, ip=address, jail="sky-main-2"),
            AddressStateSet(at=NOON - 1, ip=other, state="unavailable"),
            ArtifactEvicted(
                at=NOON + 1, key=snapshot.artifacts[0].key, url="u", function="f", reason="space"
            ),
        ]
    )
    station.receive(snapshot)
    assert list(station.board.jails) == ["sky-main-2"]
    assert station.board.addresses[address].state == "leased"
    assert station.board.addresses[other].state == "available"
    assert set(station.board.cache) == {artifact.key for artifact in snapshot.artifacts[1:]}


async def test_a_pulse_tells_what_jails_use(station: Station, island: Counting) -> None:
    (name,) = island.jails
    jail = station.board.jails[name]
    before = jail.info.usage.cpu_s
    assert before is not None
    station.receive([pulse(NOON + 2, name, before + 0.5, 7 << 20)])
    assert jail.cpu_percent == pytest.approx(25)
    assert jail.info.usage.memory_bytes == 7 << 20
    assert station.board.status is not None
    assert (station.board.status.running, station.board.status.queued) == (5, 2)
    assert list(station.board.jails) == [name]


async def test_the_same_look_twice_is_not_taken_for_idleness(station: Station, island: Counting) -> None:
    (name,) = island.jails
    jail = station.board.jails[name]
    before = jail.info.usage.cpu_s
    assert before is not None
    station.receive([pulse(NOON + 2, name, before + 0.5)])
    station.receive([pulse(NOON + 2.3, name, before + 0.5)])
    assert jail.cpu_percent == pytest.approx(25)
    station.receive([pulse(NOON + 4, name, before + 1.5)])
    assert jail.cpu_percent == pytest.approx(50)


async def test_a_pause_keeps_facts_but_neither_pulses_nor_snapshots(
    station: Station, island: Counting
) -> None:
    (name,) = island.jails
    station.pause()
    station.wants_snapshots = True
    island.tell(QUIET, pulse(NOON + 2, name, 90.0))
    await until(lambda: station.held)
    await some_polls()
    assert [type(news) for news in station.held] == [InvocationStarted]
    assert island.taken == 1
    station.resume()
    assert "i-1" in station.board.invocations
    await until(lambda: island.taken > 1)


async def test_a_port_goes_on_where_its_snapshot_was_taken(port: Port, world: World) -> None:
    await port.snapshot()
    end = await world.island.invoke(FunctionRequest(url="https://example.com/a/b", call="F()"))
    kinds: list[str] = []
    async with aclosing(port.events()) as bunches:  # type: ignore[type-var]
        async for bunch in bunches:
            kinds += [type(event).__name__ for event in bunch if event.invocation == end.id]
            if "InvocationFinished" in kinds:
                break
    assert "InvocationStarted" not in kinds, "the end includes it"
    assert "CloneCreated" not in kinds
