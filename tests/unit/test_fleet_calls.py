"""Calls that run on another island: whole islands of fake rooms, on a line in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec import UNSET, Raw, structs

from skyisland import fakes
from skyisland.drivers.fake import Script
from skyisland.errors import BadCall, NodeLost, TooBusy
from skyisland.fleet import elsewhere, errands, fleet, guests
from skyisland.fleet.errands import CallFrame, ResultFrame
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.subjects import Subjects
from skyisland.golang.harness import EXIT_REJECTED
from skyisland.model import FunctionRequest, Limits, Outcome, Resolved, Terms, Verdict
from skyisland.rooms import Errand
from skyisland.status import AddressState
from tests.support.fleets import Hub, HubLine
from tests.support.fleetworlds import FOREVER, URL, World


class Fleets:
    """Islands of one fleet, each started and stopped."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.stack = AsyncExitStack()

    async def start(self, *nodes: str, platform: str = "linux-amd64", **policy: Any) -> list[World]:
        worlds = []
        for node in nodes:
            given = {"max_running": 2, "running_per_client": 2, "queue_timeout_s": 0.05} | policy
            world = World(self.hub.line(node), Subjects("f", node), fakes.policy(**given), platform)
            await world.start()
            self.stack.push_async_callback(world.island.stop)
            worlds.append(world)
        await self.know(*worlds)
        return worlds

    async def know(self, *worlds: World) -> None:
        """Wait until each has heard of all."""
        await self.hub.until(
            lambda: all(set(one.fleet.members.nodes()) >= {w.node for w in worlds} for one in worlds)
        )

    def messages(self) -> list[str]:
        """What was sent but pulses."""
        return [one.subject for one in self.hub.seen if ".pulse." not in one.subject]


def line_of(world: World) -> HubLine:
    assert isinstance(world.fleet.line, HubLine)
    return world.fleet.line


@pytest.fixture
async def islands(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleets]:
    for module, name, value in (
        (fleet, "HELLO_S", 0.01),
        (fleet, "SOONEST_S", 0.005),
        (fleet, "PULSE_S", 0.02),
        (errands, "BEAT_S", 0.02),
        (guests, "BEAT_S", 0.02),
        (elsewhere, "LOST_S", 0.2),
        (guests, "LOST_S", 0.2),
        (elsewhere, "LATE_S", 0.01),
    ):
        monkeypatch.setattr(module, name, value)
    made = Fleets()
    async with made.stack:
        yield made


async def test_a_call_that_has_a_place_here_sends_nothing(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    before = len(islands.messages())
    ran = await a.call()
    assert (ran.node, ran.outcome.stdout) == ("", b"fake")
    assert (await a.call(cold=True)).node == ""
    assert len(islands.messages()) == before
    assert not b.ended


async def test_a_call_without_a_place_runs_on_another_island(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    b.behave(stdout=b"from b", stderr=b"said", exit_code=3)
    await a.fill()
    before = len(islands.messages())
    ran = await a.call(id="inv-1", caller_id="mine", traceparent="")
    assert (ran.node, ran.outcome.stdout, ran.outcome.stderr) == ("b", b"from b", b"said")
    assert (ran.outcome.verdict, ran.outcome.exit_code) == (Verdict.exited, 3)
    assert ran.jail is not None
    assert ran.jail.startswith("sky-b-")
    # One message there, and two back: it began, and it is done.
    assert len(islands.messages()) - before == 3
    (there,), here = b.ended, a.ended[-1]
    assert (there.invocation, there.client, there.caller_id, there.node) == ("inv-1", "ann", "mine", "")
    assert (here.invocation, here.jail, here.node) == ("inv-1", ran.jail, "b")
    assert here.timings.exec_s == there.timings.exec_s > 0


async def test_what_no_other_island_may_run_waits_here(islands: Fleets) -> None:
    """A cold call, one that is fetched anew, a handler; and any call where the fleet is full, or away."""
    a, b = await islands.start("a", "b")
    await a.fill()
    for more in ({"cold": True}, {"terms": Terms(examples=True)}):
        with pytest.raises(TooBusy):
            await a.call(**more)
    assert not b.ended
    await b.fill()
    await islands.hub.until(lambda: a.fleet.members.room_at("b") == 0)
    before = len(islands.messages())
    with pytest.raises(TooBusy):
        await a.call()
    assert len(islands.messages()) == before


async def test_an_island_that_is_full_by_now_refuses(
    islands: Fleets,
) -> None:
    a, b = await islands.start("a", "b")
    await a.fill()
    await b.fill()
    member = a.fleet.members.live("b")
    assert member is not None
    full = member.pulse
    line_of(b).cut = True  # no pulse tells of it
    member.pulse = structs.replace(full, vacancy=structs.replace(full.vacancy, free=1))
    line_of(b).cut = False
    with pytest.raises(TooBusy):
        await a.call()
    assert b.island.vacancy().queued == 0


async def test_homes_first_then_any_of_the_platform(islands: Fleets) -> None:
    a, b, c, d = await islands.start("a", "b", "c", "d")
    other = (await islands.start("z", platform="freebsd-amd64"))[0]
    await islands.know(a, b, c, d, other)
    await a.fill()
    homes = a.fleet.members.homes((await b.call()).commit, "linux-amd64")
    assert len(homes) == 2
    nodes = [(await a.call(client=f"c{n}")).node for n in range(8)]
    key = b.island.status().artifacts[0].key
    assert nodes[0] == next(node for node in a.fleet.members.homes(key, "linux-amd64") if node != "a")
    assert not other.ended
    for world in (b, c, d):
        if world.node in a.fleet.members.homes(key, "linux-amd64"):
            await world.fill()
    await islands.hub.until(
        lambda: not any(a.fleet.members.room_at(node) for node in a.fleet.members.homes(key, "linux-amd64"))
    )
    before = len(islands.messages())
    last = await a.call()
    assert last.node not in ("", "a", "z", *a.fleet.members.homes(key, "linux-amd64"))
    assert len(islands.messages()) - before == 3


async def test_a_call_with_an_address_goes_where_one_is_free(islands: Fleets) -> None:
    a, b, _ = await islands.start("a", "b", "c")
    await a.fill()
    for ip in b.network.pool:
        await b.network.set_state(ip, AddressState.unavailable)
    await islands.hub.until(lambda: b.fleet.members.live("b").pulse.vacancy.free_addresses == 0)  # type: ignore[union-attr]
    assert {(await a.call(ip4=True)).node for _ in range(3)} == {"c"}


async def test_a_caller_who_leaves_has_the_jail_killed_over_there(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    await a.fill()
    b.behave(duration_s=FOREVER)
    call = a.call(id="inv-9")
    await islands.hub.until(lambda: b.driver.alive)
    call.cancel()
    await islands.hub.until(lambda: b.ended)
    assert (b.ended[0].invocation, b.ended[0].verdict) == ("inv-9", "cancelled")
    assert a.ended[-1].verdict == "cancelled"


async def test_an_island_that_dies_with_a_call_is_named(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    await a.fill()
    b.behave(duration_s=FOREVER)
    call = a.call()
    await islands.hub.until(lambda: b.driver.alive)
    started = asyncio.get_running_loop().time()
    line_of(b).cut = True
    with pytest.raises(NodeLost, match="the island b began the call") as lost:
        await call
    assert asyncio.get_running_loop().time() - started < 1
    assert (lost.value.details, a.ended[-1].verdict) == ({"node": "b"}, "node_lost")
    # Over there nobody is heard of either.
    b.fleet.members._clock = lambda: asyncio.get_running_loop().time() + 10
    async with asyncio.timeout(5):
        while not b.ended:
            await b.events.ring.news()


async def test_a_call_that_may_run_twice_is_run_again_when_its_island_dies(islands: Fleets) -> None:
    a, b, c = await islands.start("a", "b", "c")
    await a.fill()
    for world in (b, c):
        world.behave(duration_s=FOREVER)
    call = a.call(repeatable=True)
    await islands.hub.until(lambda: b.driver.alive or c.driver.alive)
    dead, well = (b, c) if b.driver.alive else (c, b)
    well.behave(stdout=b"again")
    line_of(dead).cut = True
    ran = await call
    assert (ran.node, ran.outcome.stdout) == (well.node, b"again")


async def test_an_island_that_says_nothing_has_not_begun_and_the_call_waits_here(islands: Fleets) -> None:
    a, b = await islands.start("a", "b", queue_timeout_s=5)
    running = await a.fill()
    line_of(b).cut = True
    call = a.call()
    await islands.hub.until(lambda: "sky.f.hungup" in islands.messages())
    running[0].cancel()
    assert ((await call).node, b.ended) == ("", [])


async def test_errors_of_a_call_that_began_are_its_own_and_others_are_refusals(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    await a.fill()
    b.behave(exit_code=EXIT_REJECTED, stderr=b"")
    b.driver.fail = OSError("no jail")
    with pytest.raises(TooBusy):  # nothing of it began there, so it waited here
        await a.call()

    def refuse(data: bytes) -> Script:
        nonce = json.loads(data[4:])["nonce"]
        complaint = f'{nonce} {{"argument": 1, "reason": "constant 300 overflows byte"}}\n'
        return Script(stdout=b"", stderr=complaint.encode(), exit_code=EXIT_REJECTED)

    b.driver.script = refuse
    with pytest.raises(BadCall, match="overflows") as bad:
        await a.call()
    assert bad.value.details["argument"] == 1


async def test_a_result_that_no_island_writes_is_told_as_such(
    islands: Fleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = await islands.start("a", "b")
    await a.fill()
    monkeypatch.setattr(elsewhere, "RESULT_BYTES", 10)
    with pytest.raises(NodeLost, match="the island b ran the call and answered with more than 10 bytes"):
        await a.call()
    for details in (b"{", b"[]", b"[" * 100_000, b"\xff"):
        with pytest.raises(BadFrame):
            errands.ran_of(pack(ResultFrame(code="bad_call", details=details)), "b")


async def test_an_island_takes_no_call_that_may_use_more_than_its_own(islands: Fleets) -> None:
    (a,) = await islands.start("a", limits=Limits(memory_bytes=2 << 30))
    (b,) = await islands.start("b", limits=Limits(memory_bytes=1 << 30))
    await islands.know(a, b)
    for full, other in ((a, b), (b, a)):
        tasks = await full.fill()
        if full is a:
            with pytest.raises(TooBusy):
                await full.call()
        else:
            assert (await full.call()).node == other.node
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await islands.hub.until(lambda: other.fleet.members.room_at(full.node) == 2)  # noqa: B023


async def test_an_island_that_drains_takes_nothing_and_ends_what_it_has(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    await a.fill()
    b.behave(duration_s=0.1)
    call = a.call()
    await islands.hub.until(lambda: b.driver.alive)
    drained = asyncio.create_task(b.island.drain(5))
    await islands.hub.until(lambda: a.fleet.members.live("b").pulse.vacancy.draining)  # type: ignore[union-attr]
    before = len(islands.messages())
    with pytest.raises(TooBusy):
        await a.call()
    assert not [subject for subject in islands.messages()[before:] if subject.endswith(".call")]
    assert (await call).node == "b"
    await drained


async def test_a_call_that_is_sent_again_is_not_run_again(islands: Fleets) -> None:
    a, b = await islands.start("a", "b")
    await a.fill()
    await a.call()
    assert len(b.ended) == 1
    sent = next(one for one in islands.hub.seen if one.subject == "sky.f.node.b.call")
    heard: list[bytes] = []
    await line_of(a).listen(f"{sent.reply}", lambda message: heard.append(message.data))
    frame = unpack(sent.data, CallFrame)
    late = pack(structs.replace(frame, sent_at=frame.sent_at - 60))
    foreign = f"_INBOX.x.call.{'0' * 24}"
    for data, reply in ((sent.data, sent.reply), (late, sent.reply[:-1] + "x"), (sent.data, foreign)):
        await line_of(a).publish(sent.subject, data, reply=reply)
    await islands.hub.until(lambda: heard)
    assert len(b.ended) == 1
    await line_of(a).publish(sent.subject, b"\x01\xff", reply=sent.reply)
    await line_of(a).publish("sky.f.hungup", b"\xff" * 5000)


def test_a_call_and_its_result_come_through_whole() -> None:
    request = FunctionRequest(
        url=URL, call="F", args=Raw(b'[1,"\xc3\xa9"]'), stdin_base64=b"\0\xff", version="main", ip4=True
    )
    errand = Errand(
        id="i",
        request=request,
        resolved=Resolved(url=URL, package="", commit="c" * 40),
        client="ann",
        caller_id="mine",
        traceparent="00-1-2-01",
        text_only=True,
        limits=Limits(pids=3),
        timeout_s=1.5,
        name="n",
        revision=4,
    )
    frame = unpack(pack(CallFrame.of(errand, "a", 1.0)), CallFrame)
    assert (frame.errand, frame.sender, frame.sent_at) == (errand, "a", 1.0)
    many = structs.replace(errand, request=FunctionRequest(url=URL, call="F", inputs=Raw(b"[[1]]")))
    back = unpack(pack(CallFrame.of(many, "a", 1.0)), CallFrame).errand.request
    assert (back.args, back.inputs) == (UNSET, Raw(b"[[1]]"))
    result = ResultFrame(outcome=Outcome(verdict=Verdict.ok, stdout=bytes(range(256))))
    words = errands.words_of(result, "b")
    assert len(words) == 1
    failed = unpack(pack(ResultFrame.of_error(BadCall("no", position=3))), ResultFrame)
    with pytest.raises(BadCall) as bad:
        failed.ran("b")
    assert (bad.value.message, bad.value.details) == ("no", {"position": 3})
