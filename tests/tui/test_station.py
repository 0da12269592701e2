"""What a console knows of its island, without a picture: snapshots, facts, pulses and pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

import pytest
from msgspec import structs

from skyisland.cause import Cause
from skyisland.events import (
    AddressLeased,
    AddressStateSet,
    ArtifactEvicted,
    BuildFinished,
    Event,
    Gap,
    InvocationFinished,
    InvocationQueued,
    InvocationStarted,
    JailCreated,
    JailDestroyed,
    PhaseFinished,
    Pulse,
)
from skyisland.figures import Slo
from skyisland.model import FunctionRequest, Phase, Purpose, Timings
from skyisland.status import HostLoad, Usage
from tests.support.fake_island import NOON, FakeIsland
from tests.support.operating import World
from tui.draw.charts import host_spans
from tui.draw.columns import REQUESTS, total_tone
from tui.draw.glyphs import Glyphs
from tui.draw.table import Ink
from tui.watch.board import Board
from tui.watch.figures import BUCKETS_S, WINDOW_S, percentile
from tui.watch.filter import Filter
from tui.watch.port import Port, Snapshot
from tui.watch.rows import InvocationRow
from tui.watch.search import find
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


async def test_a_pulse_tells_how_busy_the_host_is(station: Station, island: Counting) -> None:
    busy = HostLoad(cpus=2, cpu=0.95, memory_bytes=1 << 30, memory_used_bytes=1 << 29)
    station.receive([structs.replace(pulse(NOON + 2, "sky-gone-1", 0.0), host=busy)])
    assert station.board.status is not None
    spans = host_spans(station.board.status.host)
    assert ("95%", "warn") in spans
    assert "".join(text for text, _ in spans) == "  cpu 95% of 2  memory 512M of 1.0G"


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


def finished(
    at: float,
    *,
    url: str = "u",
    call: str = "F()",
    total_s: float = 0.1,
    verdict: str = "ok",
    exec_s: float = 0.1,
) -> InvocationFinished:
    timings = Timings(total_s=total_s, exec_s=exec_s)
    return InvocationFinished(
        at=at, invocation=f"inv-{at}-{call}", url="u", call=call, verdict=verdict, timings=timings
    )


def test_figures_are_those_of_the_last_minute_and_none_when_it_was_quiet() -> None:
    board = Board()
    board.fold(finished(NOON - 90, total_s=9.0, verdict="exited"))
    for n in range(3):
        board.fold(finished(NOON - 30 + n, total_s=0.1 * (n + 1)))
    window = board.figures.window(NOON)
    assert (window.calls, window.errors) == (3, 0)
    assert percentile(window.totals, 0.5) == 0.2
    rows, span_s = board.figures.sample(NOON)
    assert (len(rows), span_s) == (3, WINDOW_S)
    assert percentile(board.figures.window(NOON + 120).totals, 0.99) is None
    spans, step_s = board.figures.heat(NOON, 24)
    assert (step_s, sum(map(sum, spans))) == (10, 4)
    assert spans[15] == [0] * len(BUCKETS_S) + [1]


def test_what_is_usual_is_of_the_function_and_of_calls_that_ran() -> None:
    board = Board()
    for n in range(5):
        board.fold(finished(NOON + n, call=f"F({n})", total_s=0.2))
        board.fold(finished(NOON + n, call=f"G({n})", total_s=3.0))
        board.fold(finished(NOON + n, call=f"F(refused{n})", total_s=0.001, exec_s=0.0, verdict="too_busy"))
    asked = InvocationRow("inv-x", "u", "pkg.F(77)", NOON + 9)
    assert board.usual_s(asked) == 0.2


async def test_what_is_slow_is_a_setting_of_each_function(station: Station, island: Counting) -> None:
    policy = island.status().policy
    board = station.board
    slo = Slo(target_s=0.5, functions={"u.F": 0.05})
    board.status = structs.replace(island.status(), policy=structs.replace(policy, slo=slo))
    for call, expected in (("F()", 0.05), ("G()", 0.5)):
        board.fold(finished(NOON, call=call))
        assert board.invocations[f"inv-{NOON}-{call}"].slo_s == expected
    assert total_tone(0.1, 0.05) == "bad"
    assert total_tone(0.1, 0.5) == "warn"


async def test_what_is_called_so_comes_first_and_once(station: Station, island: Counting) -> None:
    name = next(iter(island.jails))
    (jail,) = [hit for hit in find(station.board, name, NOON) if hit.view == "jails"]
    assert (jail.key, jail.kind) == (name, "jail")
    view, *functions = find(station.board, "fn slug", NOON)
    assert (view.view, view.key, view.filter) == ("functions", "", "slug")
    assert [hit.text for hit in functions if hit.kind == "function"] == ["github.com/gosimple/slug.Make"]
    invocation = island.recent[3].invocation or ""
    assert find(station.board, invocation[4:9], NOON)[0].key == invocation


def test_a_call_that_waits_says_since_when() -> None:
    board = Board()
    board.fold(InvocationStarted(at=NOON, invocation="inv-1", url="u", call="F()"))
    board.fold(PhaseFinished(at=NOON + 0.1, invocation="inv-1", phase=Phase.resolve, duration_s=0.1))
    row = board.invocations["inv-1"]
    assert not Filter("st:queued")(row, NOON)
    board.fold(InvocationQueued(at=NOON + 0.1, invocation="inv-1"))
    assert row.word(NOON + 3) == "queued 2.9s"
    assert row.under_way is Phase.queue
    assert Filter("st:queued")(row, NOON)
    board.fold(PhaseFinished(at=NOON + 4, invocation="inv-1", phase=Phase.queue, duration_s=3.9))
    assert (row.word(NOON + 5), row.since) == ("jail", NOON + 4)


def test_functions_of_one_name_are_told_apart_by_their_urls() -> None:
    glyphs = Glyphs()
    function = next(column for column in REQUESTS if column.title == "FUNCTION")
    call = 'Hello("a name that is long")'
    names = set()
    for team in "ab":
        row = InvocationRow("inv-1", f"git.example/team-{team}/greeting", call, NOON)
        text, _ = function.cell(row, Ink(glyphs, NOON, 25))
        names.add(text)
    assert names == {"…le/team-a/greeting.Hello", "…le/team-b/greeting.Hello"}


async def test_a_failed_build_is_told_until_its_binary_is_there(station: Station, island: Counting) -> None:
    snapshot, board = await island.snapshot(), station.board
    cause = Cause(
        kind="build_failed", text="build: ./a.go:3:5: undefined: x", compiler="./a.go:3:5: undefined: x"
    )
    failed = structs.replace(
        BUILT, at=NOON, key="new", url="git.example/r", package="sub", ok=False, cause=cause
    )
    station.receive(structs.replace(snapshot, failed_builds=(failed,)))
    row = board.cache["new"]
    assert (row.state, row.url, row.cause) == ("failed", "git.example/r/sub", cause)
    station.receive([structs.replace(failed, ok=True, cause=None)])
    assert (board.cache["new"].state, board.cache["new"].cause) == ("ready", None)
    known = snapshot.artifacts[0]
    station.receive([structs.replace(failed, key=known.key)])
    station.receive(snapshot)
    row = board.cache[known.key]
    assert (row.state, row.cause) == ("ready", None), "no old error beside a ready binary"
