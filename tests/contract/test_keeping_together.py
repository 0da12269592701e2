"""What several islands do with one store on the fleet's servers: who gets what, what is lost if what dies."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGKILL

import msgspec
import nats.errors
import pytest
from msgspec.json import encode

from skyisland.errors import NameNotFound, TooBusy
from skyisland.fleet import orders as fleet_orders
from skyisland.fleet import streams
from skyisland.fleet.names import NatsNames
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.pieces import INLINE_BYTES
from skyisland.fleet.spool import SpooledStore
from skyisland.fleet.store import NatsStore
from skyisland.fleet.subjects import Subjects
from skyisland.later import running
from skyisland.later.calls import Attempt, CallState, Claim
from skyisland.later.keeping import Change, NotKept, Store, Wanted
from skyisland.later.later import Later
from skyisland.later.lines import Room
from skyisland.later.memory import MemoryStore
from skyisland.model import FunctionRequest
from skyisland.named.definition import Definition
from skyisland.named.firing import Schedules
from skyisland.named.schedule import Schedule
from skyisland.status import LineState
from skyisland.wire import Problem
from tests.contract.test_keeping import order, record
from tests.support.fleets import NatsServer, free_port, joined, newest_binary
from tests.unit.test_later import QUICK, Runner, invocation
from tests.unit.test_named import revision
from tests.unit.test_schedules import Clock, revision_of

ROOM = Room(orders=100, orders_per_client=50, size_bytes=1 << 20, size_bytes_per_client=1 << 19)
REQUEST = FunctionRequest(url="github.com/u/r", call="F(1)")
PATIENCE_S = 20.0


class Node:
    """An island's store, and its line."""

    def __init__(self, store: NatsStore, line: NatsLine, subjects: Subjects) -> None:
        self.store, self.line, self.subjects = store, line, subjects
        self.news = asyncio.Event()
        store.orders.follow(self.news.set)

    async def take(self, store: Store | None = None) -> str:
        """The next order, as soon as there is one."""
        orders = (store or self.store).orders
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.news.clear()
                if (one := await orders.take(10.0)) is not None:
                    return one.id
                await self.news.wait()


Joins = Callable[[str], Awaitable[Node]]


@pytest.fixture
async def joins(nats_server: NatsServer, fleet_name: str) -> AsyncIterator[Joins]:
    """Has an island of this name join the fleet."""
    async with AsyncExitStack() as stack:

        async def join(name: str) -> Node:
            line, subjects = await stack.enter_async_context(joined(nats_server, fleet_name, name))
            store = await NatsStore(line, subjects, ROOM, keep_s=100, keep_dead_s=200).open()
            stack.push_async_callback(store.close)
            return Node(store, line, subjects)

        yield join


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not so():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)


async def test_an_order_is_one_islands_until_that_ends_or_is_lost(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_orders, "LEASE_S", 0.2)
    monkeypatch.setattr(fleet_orders, "EXTEND_S", 0.05)
    monkeypatch.setattr(fleet_orders, "TICK_S", 0.02)
    a, b = await joins("a"), await joins("b")
    asked = asyncio.create_task(b.take())
    await until(lambda: b.store.orders._lanes._hungry is not None)
    await a.store.orders.put(order("one"))
    assert await asked == "one", "who waits is told of what comes from elsewhere"
    assert await a.store.orders.take(10.0) is None
    held = b.store.orders._held["one"]
    await until(lambda: held.extended_at - held.since > 2 * fleet_orders.LEASE_S)
    assert await a.store.orders.take(10.0) is None
    await b.line.close()  # a cut cable, or kill -9: nothing is said any more
    assert await a.take() == "one"
    c = await joins("c")
    await a.store.orders.put(order("two"))
    assert await a.take() == "two"
    await a.store.orders.rest()
    await a.store.orders.put_back("two", 0.0)
    assert await c.take() == "two", "what an island that stops puts back is another's at once"
    await a.store.close()
    assert await c.take() == "one", "and so is what it has taken when it is closed"
    await c.store.orders.done("one")
    await c.store.orders.done("two")
    for id in ("three", "four", "five"):  # noqa: A001
        await c.store.orders.put(order(id))
    monkeypatch.setattr(sys.modules[__name__], "ROOM", msgspec.structs.replace(ROOM, orders_per_client=1))
    d = await joins("d")
    many = (d.store.orders.put(order(f"more{number}")) for number in range(60))
    refused = [one for one in await asyncio.gather(*many, return_exceptions=True) if one is not None]
    assert {type(one) for one in refused} == {TooBusy}
    assert [await d.take() for _ in range(3)] == ["three", "four", "five"], "a lower bound drops nothing"


async def test_what_an_island_has_no_place_for_is_passed_on(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_orders, "PASS_ON_S", 0.02)
    monkeypatch.setattr(fleet_orders, "TICK_S", 0.01)
    a, b = await joins("a"), await joins("b")
    assert await a.store.orders.take(10.0) is None  # asks for more from now on
    await a.store.orders.put(order("one"))
    await until(lambda: "one" in a.store.orders._held)
    assert await b.take() == "one"


async def test_two_runs_leave_one_result_and_every_island_finds_it(joins: Joins) -> None:
    a, b = await joins("a"), await joins("b")
    mine, others = a.store.results, b.store.results
    told: list[Change] = []
    others.follow(told.append)
    await mine.note(record("r"))
    async with others.watched("r"):
        await others.get("r")  # an answer by which the server knows of the watch, too
        for number, results in enumerate((mine, others)):
            runs = record("r", CallState.running)
            runs.attempts.append(Attempt(number=1, id=f"inv-{number}", started_at=1.0))
            assert await results.note(runs)
        large = b'"%b"' % (b"x" * (INLINE_BYTES + 1000))
        ended = record("r", CallState.done, ended_at=5.0)
        done = await asyncio.gather(mine.note(ended, large), others.note(ended, b"[2]"))
        assert sorted(done) == [False, True]
        await until(lambda: Change(call="r", attempt="inv-0") in told)
    kept = [await results.get("r") for results in (mine, others)]
    assert kept[0] == kept[1]
    assert kept[0] is not None
    assert kept[0].result == msgspec.Raw(large if done[0] else b"[2]")
    assert await mine.note(record("s", CallState.done, ended_at=5.0), large)
    kept = [await results.get("s") for results in (mine, others)]
    assert [one.result for one in kept if one is not None] == [msgspec.Raw(large)] * 2
    await others.delete(["s"])
    assert await mine.get("s") is None
    assert [one.id for one in await mine.find(Wanted())] == ["r"]
    long = record("s", CallState.dead, ended_at=5.0, error=Problem("m" * (2 * INLINE_BYTES), "build_failed"))
    assert await mine.note(long)
    kept_of = await others.get("s")
    assert kept_of is not None
    assert kept_of.error == Problem("m" * 1000, "build_failed")
    await others.delete(["s"])
    # What a third one says of it that was lost for a while comes too late.
    late = record("r", CallState.queued)
    assert not await others.note(late)
    for wild in ("*", ">", "r.x", "", "r ", "x" * 65):
        assert await mine.get(wild) is None
        await mine.delete([wild])
        await a.store.orders.done(wild)
    assert await mine.get("r") is not None


async def test_keys_and_callbacks_are_the_fleets(joins: Joins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_orders, "PASS_ON_S", 0.02)
    monkeypatch.setattr(fleet_orders, "TICK_S", 0.01)
    a, b = await joins("a"), await joins("b")
    mine, others = a.store.results, b.store.results
    assert mine.secret == others.secret
    assert len(mine.secret) == 32
    first, second = (Claim(client="ann", key="k", body=body) for body in (b"1", b"2"))
    assert await mine.claim(first, 100.0) is first
    assert (await others.claim(second, 110.0)).body == b"1"
    assert await others.claim(second, 200.0) is second, "the first one's island has said nothing for long"
    await mine.answered(first, b"too late")
    long = b"x" * (INLINE_BYTES + 1)
    await others.answered(second, long)
    held = await mine.claim(first, 201.0)
    assert (held.body, held.reply) == (b"2", long)
    for queue in (a.store.callbacks, b.store.callbacks, b.store.callbacks):
        await queue.put(order("r"))
    taken = [await queue.take(10.0) for queue in (b.store.callbacks, b.store.callbacks, a.store.callbacks)]
    assert [one.id for one in taken if one is not None] == ["r"]
    await b.store.callbacks.done("r")
    # A firing of a schedule, which every island accepts.
    await asyncio.gather(*(node.store.orders.put(order("once")) for node in (a, b)))
    assert await b.take() == "once"
    assert [await node.store.orders.take(10.0) for node in (a, b)] == [None, None]
    for queue in (a.store.callbacks, b.store.orders):
        await b.store.orders.done("once")
        await queue.put(order("once"))  # again, when it is over
        async with asyncio.timeout(PATIENCE_S):
            while (one := await queue.take(10.0)) is None:  # noqa: ASYNC110 - what servers do has no event
                await asyncio.sleep(0.01)
        assert one.id == "once"


async def test_messages_that_no_island_wrote_harm_nobody(
    joins: Joins, caplog: pytest.LogCaptureFixture
) -> None:
    a = await joins("a")
    js = a.line.client.jetstream()
    await a.store.orders.put(order("good"))
    subject = a.store.orders._subject(order("x"))
    good = encode({"order": order("x")})
    for bad in (b"", b"\xff" * 1000, b'{"order":' * 5000, good.replace(b'"x"', b'"x.>"')):
        await js.publish(subject, bad)
    await js.publish(a.store.orders._subject(order("x", "bob")), good)  # on another client's account
    taken = {await a.take()}
    assert await a.store.orders.take(10.0) is None
    await until(lambda: len([one for one in caplog.messages if "none that an island wrote" in one]) == 5)
    assert taken == {"good"}
    # A copy of one that runs is not run beside it, and is gone with it.
    await js.publish(subject, encode({"order": order("good")}))
    assert await a.store.orders.take(10.0) is None
    await a.store.orders.done("good")
    b = await joins("b")
    assert await b.store.orders.take(10.0) is None
    await a.line.publish(a.subjects.told("00", "r"), b"\xff" * 3000)
    await a.store.results.note(record("r", CallState.done, ended_at=1.0), b"[1]")
    await js.publish(a.subjects.kept("result", "bad"), b"[" * 100_000)
    assert await a.store.results.get("bad") is None
    assert await a.store.results.note(record("bad")), "what is no record stands in nobody's way"
    await a.store.results.delete(["bad"])
    claim = Claim(client="ann", key="k", body=b"1")
    await js.publish(a.store.results._key_subject(claim), b"[" * 100_000)
    assert await a.store.results.claim(claim, 1.0) is claim, "nor what is no key"
    assert [one.id for one in await a.store.results.find(Wanted())] == ["r"]


async def test_a_publish_that_is_repeated_counts_once(joins: Joins, monkeypatch: pytest.MonkeyPatch) -> None:
    a = await joins("a")
    stream = a.store.orders._stream
    publish, tries = stream.js.publish, []

    async def deaf(*args: object, **more: object) -> object:
        tries.append(await publish(*args, **more))
        if len(tries) < 3:
            raise nats.errors.TimeoutError
        return tries[-1]

    monkeypatch.setattr(stream.js, "publish", deaf)
    monkeypatch.setattr(streams, "AGAIN_S", 0.0)
    await a.store.orders.put(order("one"))
    assert [one.duplicate for one in tries] == [None, True, True]
    assert await a.take() == "one"
    assert await a.store.orders.take(10.0) is None


async def test_while_the_servers_are_away_or_full_that_is_said_and_nothing_is_lost(
    own_server: NatsServer, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0.1)
    room = msgspec.structs.replace(ROOM, size_bytes=2000)
    async with joined(own_server, fleet_name) as (line, subjects):
        store = await NatsStore(line, subjects, room).open()
        a = Node(store, line, subjects)
        await store.orders.put(order("one"))
        await store.orders.put(order("two"))
        assert await a.take() == "one"
        await store.results.note(record("r"))
        with pytest.raises(TooBusy, match="take all the room"):
            await store.orders.put(order("large", "bob", size=3000))
        own_server.stop(SIGKILL)
        await until(lambda: line.state is LineState.away)
        with pytest.raises(NotKept, match="cannot be used") as refused:
            await store.orders.put(order("three"))
        assert refused.value.retry_after_s
        with pytest.raises(NotKept):
            await store.results.note(record("r", CallState.done))
        assert await store.orders.take(10.0) is None
        spooled = await SpooledStore.open(store, MemoryStore(), lambda: line.state is not LineState.joined)
        await asyncio.gather(spooled.orders.put(order("mine")), spooled.results.note(mine := record("mine")))
        assert mine.durable == "node"
        assert [one.id for one in await spooled.results.find(Wanted())] == ["mine"]
        own_server.start()
        await until(lambda: line.state is LineState.joined and store.orders._lanes._made)
        await spooled.orders.put(order("four"))
        taken = [await a.take(spooled) for _ in range(3)]
        assert taken == ["mine", "two", "four"], "three was refused, and one is still held"
        await store.orders.done("one")
        kept = [await spooled.results.get(one) for one in ("mine", "r")]
        assert [one.id for one in kept if one is not None] == ["mine", "r"]
        assert await store.results.get("mine") is None
        await spooled.close()


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (
            'jetstream {{ store_dir: "{folder}/js", max_file_store: 1MB }}',
            "RESULTS_t: insufficient storage .*; raise max_file_store",
        ),
        ("", "is JetStream enabled"),
    ],
)
async def test_servers_that_have_no_room_or_keep_nothing_are_told_at_once(
    tmp_path: Path, part: str, why: str
) -> None:
    port = free_port()
    config = f"host: 127.0.0.1\nport: {port}\n{part.format(folder=tmp_path)}\n"
    server = NatsServer(newest_binary(), tmp_path, port=port, config=config)
    server.start()
    try:
        async with joined(server, "t") as (line, subjects):
            store = await NatsStore(line, subjects, ROOM).open()
            names = await NatsNames.open(line, subjects, tmp_path / "names.json")
            with pytest.raises(NotKept, match=why):
                await store.results.note(record("r"))
            with pytest.raises(NotKept, match=why):
                await store.orders.put(order("one"))
            assert await store.orders.take(10.0) is None
            await names.close()
            await store.close()
    finally:
        server.stop(SIGKILL)


async def test_a_call_is_awaited_cancelled_and_run_on_whichever_island(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PASS_ON_S", 0.02)
    runners: list[Runner] = []
    laters: list[Later] = []
    stores: list[NatsStore] = []

    async def able(_: object) -> bool:
        return False

    for name in "ab":
        node, runner = await joins(name), Runner()
        more = {"able": able} if name == "a" else {}
        later = Later(node.store, runner, QUICK, places=8, busy=lambda: False, node=name, **more)  # type: ignore[arg-type]
        later.start()
        runners.append(runner)
        laters.append(later)
        stores.append(node.store)
    a, b = laters
    ended = await a.settled((await a.accept(REQUEST, "ann")).id, PATIENCE_S)
    assert (ended.state, [one.node for one in ended.attempts]) == ("done", ["b"]), "a lacks what it needs"
    runners[1].gate.clear()
    runners[1].begun.clear()
    call = (await a.accept(REQUEST, "ann")).id
    await runners[1].begun.wait()
    await until(lambda: call in b._runner.running)
    waits = asyncio.create_task(b.settled(call, PATIENCE_S))
    assert (await a.cancel(call)).state == "cancelled"
    assert (await waits).state == "cancelled"
    await until(lambda: not b._runner.running)
    runners[1].gate.set()
    runners[1].plays = [invocation()]
    assert [one.id for one in await a.find(Wanted(state=CallState.cancelled))] == [call]
    await until(lambda: call not in stores[1].orders._held)
    assert (await a.redrive(call)).state == "queued"
    assert (await a.settled(call, PATIENCE_S)).state == "done"
    # An order that is sent again by whoever recorded it.
    ran = len(runners[1].ran)
    stream = stores[0].orders._stream
    await stream.js.publish(subject := stores[0].orders._subject(order(call)), encode({"order": order(call)}))
    async with asyncio.timeout(PATIENCE_S):
        while await stream.last(subject) is not None:  # noqa: ASYNC110 - what servers do has no event
            await asyncio.sleep(0.01)
    assert len(runners[1].ran) == ran
    # One that an island ran of which nothing is heard any more.
    lost = record("lost", CallState.running)
    lost.attempts.append(Attempt(number=1, id="inv-9", started_at=1.0, node="z"))
    await stores[0].results.note(lost)
    async with a.news("lost") as news:
        await stores[0].orders.put(order("lost"))
        ended = await a.settled("lost", PATIENCE_S)
        assert news.qsize() > 0
    told = [(one.verdict, one.message, one.node) for one in ended.attempts]
    assert told == [("interrupted", "nothing is heard of z, which ran it", "z"), ("ok", "", "b")]
    for later in laters:
        await later.close()


async def test_a_time_of_a_schedule_has_one_call_however_many_look(joins: Joins, tmp_path: Path) -> None:
    clock, there = Clock("2026-11-28T08:00Z"), []
    for name in "abc":
        node, runner = await joins(name), Runner()
        later = Later(node.store, runner, QUICK, places=8, busy=lambda: False)
        names = await NatsNames.open(node.line, node.subjects, tmp_path / f"{name}.json")
        schedules = Schedules(names, clock)
        schedules._calls = later
        there.append((names, schedules, later))
    definition = Definition(url="github.com/u/r", function="F", schedule=Schedule(cron="* * * * *"))
    await there[0][0].put(revision_of(definition, at=clock.now))
    for names, schedules, _ in there:
        await names.refresh()
        await schedules.look()
    for minute in (1, 2):
        clock.to(f"2026-11-28T08:0{minute}Z")
        await asyncio.gather(*(schedules.look() for _, schedules, _ in there))
        found = await there[1][2].find(Wanted(name="report"))
        assert len(found) == minute
        assert {one.client for one in found} == {"schedule:report"}
        for one in found:
            await there[2][2].cancel(one.id)
    counted = [await names.fired("report") for names, _, _ in there]
    assert [(noted.calls, noted.missed) for noted in counted if noted is not None] == [(2, 0)] * 3
    for names, _, later in there:
        await names.close()
        await later.close()


async def test_names_are_one_on_all_islands(own_server: NatsServer, fleet_name: str, tmp_path: Path) -> None:
    async with joined(own_server, fleet_name, "a") as one, joined(own_server, fleet_name, "b") as other:
        a = await NatsNames.open(*one, tmp_path / "a.json")
        b = await NatsNames.open(*other, tmp_path / "b.json")
        told: list[str] = []
        b.follow(told.append)
        await a.put(revision(1, "en.code"))
        await until(lambda: told == ["en.code"])
        assert b.get("en.code") == revision(1, "en.code")
        await b.put(revision(2, "en.code"))
        await a.refresh()
        assert a.get("en.code") == revision(2, "en.code")
        done = await asyncio.gather(
            *(names.put(revision(3, "en.code")) for names in (a, b)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in done) == ["NoneType", "StaleRevision"]
        await a.delete("en.code", 3) if done[0] is None else await b.delete("en.code", 3)
        await a.refresh()
        await b.refresh()
        assert (a.get("en.code"), b.get("en.code")) == (None, None)
        with pytest.raises(NameNotFound):
            await b.put(revision(4, "en.code"))
        await b.put(revision(1, "en.code", by="bob"))
        assert [one.by for one in await b.history("en.code")] == ["bob"]
        js = one[0].client.jetstream()
        await js.publish(one[1].kept("name", "bad"), b"\xff")
        await js.publish(one[1].kept("name", "other"), msgspec.json.encode(revision(1)))
        await js.publish(one[1].kept("name", "en/code"), b"[" * 100_000)
        await b._schedules.put("en/code", b"\xff")
        await b.refresh()
        assert [one.name for one in b.all()] == ["en.code"]
        assert [one.by for one in await b.history("en.code")] == ["bob"]
        assert await b.fired("en.code") is None
        await b.put(revision(2, "en.code", by="bob"))
        assert [one.revision for one in await b.history("en.code")] == [2, 1]
        await b.close()
    own_server.stop()
    line = NatsLine(own_server.settings(fleet_name, "b"), "_INBOX.b")
    await line.start(0.0)
    alone = await NatsNames.open(line, Subjects(fleet_name, "b"), tmp_path / "b.json")
    assert [one.name for one in alone.all()] == ["en.code"], "known although the servers are away"
    shutil.rmtree(own_server.folder / "js")  # the disk is lost
    own_server.start()
    async with joined(own_server, fleet_name, "c") as third:
        c = await NatsNames.open(*third, tmp_path / "c.json")
        told.clear()
        c.follow(told.append)
        await until(lambda: alone._made)
        await c.refresh()
        assert [(one.by, one.revision) for one in c.all()] == [("bob", 2)], "they get back what it knows"
        await c.close()
    other_fleet = await NatsNames.open(line, Subjects("another", "b"), tmp_path / "b.json")
    assert other_fleet.all() == []
    await other_fleet.close()
    await alone.close()
    await line.close()
    await a.close()
