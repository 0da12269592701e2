"""Whole islands of fake rooms in a fleet, on any line."""

from __future__ import annotations

import asyncio
from typing import Any

from skyisland.drivers.fake import FakeClones, FakeJails, Script
from skyisland.events import Events, InvocationFinished
from skyisland.fakes import FakeAddresses, FakeBuilds, FakeHistory, FakeSources
from skyisland.fleet.fleet import Fleet, FleetLine, Origin
from skyisland.fleet.subjects import Subjects
from skyisland.island import Island
from skyisland.jails.register import Jails
from skyisland.model import FunctionRequest, Invocation
from skyisland.status import Policy
from tests.support.fleets import PATIENCE_S

URL = "github.com/mmcloughlin/geohash"
FOREVER = float("inf")


class World:
    """An island of a fleet, with fake rooms."""

    def __init__(
        self, line: FleetLine, subjects: Subjects, policy: Policy, platform: str = "linux-amd64"
    ) -> None:
        self.node = node = subjects.node
        self.fleet = Fleet(subjects, line, Origin(platform=platform))
        self.events = Events()
        self.ended: list[InvocationFinished] = []
        self.events.tap(lambda event: self.ended.append(event), InvocationFinished)
        self.driver = FakeJails()
        self.network = FakeAddresses(count=2)
        self.island = Island(
            name=node,
            version="0",
            policy=policy,
            events=self.events,
            sources=FakeSources(),
            builds=FakeBuilds(),
            jails=Jails(self.driver, FakeClones(), self.network, self.events, island=node, uids=None),
            network=self.network,
            history=FakeHistory(self.events),
            fleet=self.fleet,
        )

    def behave(self, **script: Any) -> None:
        self.driver.script = lambda data: Script(**script)

    def call(self, text: str = "Encode(1, 2)", **more: Any) -> asyncio.Task[Invocation]:
        fields = {name: more.pop(name) for name in ("args", "inputs", "ip4", "cold") if name in more}
        request = FunctionRequest(url=URL, call=text, **fields)
        return asyncio.create_task(self.island.invoke(request, **{"client": "ann"} | more))

    async def start(self) -> None:
        await self.fleet.open()
        await self.island.start()

    async def fill(self) -> list[asyncio.Task[Invocation]]:
        """Take all of its places, for ever."""
        begun: list[bytes] = []

        def stay(data: bytes) -> Script:
            begun.append(data)
            return Script(duration_s=FOREVER)

        self.driver.script = stay
        places = self.island.vacancy().places
        tasks = [self.call(client=f"someone {number}") for number in range(places)]
        async with asyncio.timeout(PATIENCE_S):
            while len(begun) < places:
                await self.events.ring.news()
        self.behave()
        return tasks
