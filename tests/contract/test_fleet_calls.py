"""Calls between whole islands over a real server; the rooms of the islands are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from signal import Signals

import pytest

from skyisland import fakes
from skyisland.errors import NodeLost
from skyisland.fleet import elsewhere, errands, guests, members
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.subjects import Subjects
from tests.support.fleets import NatsServer
from tests.support.fleetworlds import FOREVER, World


@asynccontextmanager
async def islands(server: NatsServer, fleet: str, *nodes: str) -> AsyncIterator[list[World]]:
    async with AsyncExitStack() as stack:
        worlds = []
        for node in nodes:
            subjects = Subjects(fleet, node)
            line = NatsLine(server.settings(fleet, node), subjects.inbox)
            stack.push_async_callback(line.close)
            await line.start(5)
            worlds.append(World(line, subjects, fakes.policy(max_running=2, running_per_client=2)))
            await worlds[-1].start()
            stack.push_async_callback(worlds[-1].island.stop)
        pulsed = asyncio.Event()
        await worlds[0].fleet.line.listen(worlds[0].fleet.subjects.pulses, lambda _: pulsed.set())
        async with asyncio.timeout(10):
            while any(world.fleet.members.nodes() != sorted(nodes) for world in worlds):
                pulsed.clear()
                await pulsed.wait()
        yield worlds


async def test_a_warm_call_sends_nothing_and_a_forwarded_one_three_messages(
    nats_server: NatsServer, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by the server, which a spy listens to for all but pulses."""
    subjects = Subjects(fleet_name, "spy")
    spy = NatsLine(nats_server.settings(fleet_name, "spy"), subjects.inbox)
    await spy.start(5)
    seen: list[str] = []

    def note(subject: str) -> None:
        if ".pulse." not in subject and not subject.endswith(".hello"):
            seen.append(subject)

    async with islands(nats_server, fleet_name, "a", "b") as (a, b):
        for pattern in (f"sky.{fleet_name}.>", "_INBOX.a.>", "_INBOX.b.>", "$JS.>", "$KV.>"):
            await spy.listen(pattern, lambda message: note(message.subject))
        await spy.client.flush()
        b.behave(stdout=bytes(60_000))
        for _ in range(20):
            assert (await a.call()).node == ""
        await spy.client.flush()
        assert seen == []
        await a.fill()
        ran = await a.call()
        assert (ran.node, ran.outcome.stdout) == ("b", bytes(60_000))
        await spy.client.flush()
        assert (len(seen), seen[0]) == (3, f"sky.{fleet_name}.node.b.call")
        monkeypatch.setattr(errands, "WORD_BYTES", 10_000)  # what a message has of a long answer
        assert (await a.call()).outcome.stdout == bytes(60_000)
        await spy.client.flush()
        assert len(seen) >= 3 + 2 + 6
    await spy.close()


async def test_when_the_servers_are_gone_a_call_is_lost_and_the_island_goes_on(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (elsewhere, "LOST_S", 0.9),
        (guests, "LOST_S", 0.9),
        (members, "SILENT_S", 1.5),
    ):
        monkeypatch.setattr(module, name, value)
    async with islands(own_server, "f", "a", "b") as (a, b):
        filling = await a.fill()
        b.behave(duration_s=FOREVER)
        began = asyncio.Event()
        await a.fleet.line.listen("_INBOX.a.call.*", lambda _: began.set())
        call = a.call()
        async with asyncio.timeout(10):
            await began.wait()
        own_server.tell(Signals.SIGSTOP)
        started = asyncio.get_running_loop().time()
        with pytest.raises(NodeLost, match="the island b began"):
            await call
        assert asyncio.get_running_loop().time() - started < 1.5
        filling[0].cancel()
        async with asyncio.timeout(10):
            while not b.ended:  # nobody waits for it there either
                await b.events.ring.news()
        assert (b.ended[0].verdict, (await a.call()).node) == ("cancelled", "")
        own_server.stop(Signals.SIGKILL)
