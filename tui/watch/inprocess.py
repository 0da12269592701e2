"""The way to an island in this very process: its methods, called."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from skyisland import operations as op
from skyisland.codec import encode
from skyisland.errors import NodeNotFound
from skyisland.events import Event, Pulse
from skyisland.figures import Window
from skyisland.golang.catalogue import Catalogue
from skyisland.island import Island
from skyisland.later.calls import CallState, Record
from skyisland.later.keeping import Wanted
from skyisland.model import FunctionRequest, NamedCall
from skyisland.named.definition import Definition, Revision
from skyisland.named.functions import Named
from skyisland.nodes import Nodes, Question
from skyisland.operations import JSON, Role
from skyisland.record.lines import LogLine
from skyisland.record.logs import LogRing
from skyisland.status import AddressState, Written
from skyisland.watching import Watch
from skyisland.wire import AddressBody, Called, FunctionPage, Snapshot
from tui.watch.calls import LISTED
from tui.watch.port import Others, curl_line

PAUSE_S = 0.1
"""Between two pages of events: the console draws no faster."""
BY = "console"
"""Who changes a name: the island's own terminal shows no token."""
RECENT = 500
"""Invocations of a snapshot: the console's table holds as many without asking for more."""
FORGOTTEN_AT_ONCE = 10_000
"""Calls that one order forgets at most, as by the API."""


class InProcessPort:
    """A `Port` on `island`; `ring` holds its log, `url` is where its API listens."""

    attached = False

    def __init__(self, island: Island, ring: LogRing, url: str) -> None:
        self.url = url
        self.where = url.removeprefix("http://")
        self._island = island
        self._ring = ring
        self._number: int | None = None
        """Of the latest event that the last snapshot includes."""

    async def snapshot(self) -> Snapshot:
        await self._island.sample_usage()
        recent = await self._island.invocations(RECENT)
        self._number = self._island.events.ring.number
        failed = self._island.failed_builds.latest()
        return Snapshot.of(self._island.status(), at=time.time(), recent=recent, failed_builds=failed)

    async def others(self) -> Others:
        everybody = await self._nodes.ask_all(self._question(op.SNAPSHOT.method, op.SNAPSHOT.url()))
        good = [told for told in everybody.told if told.status < 400]
        islands = {told.node: op.SNAPSHOT.read(told.status, told.body) for told in good}
        return Others(islands, everybody.silent)

    @property
    def _nodes(self) -> Nodes:
        if self._island.fleet is None:
            raise NodeNotFound("this island is in no fleet")
        return self._island.fleet.nodes

    def _question(self, method: str, url: str, body: bytes = b"") -> Question:
        headers = [("content-type", JSON)] if body else []
        return Question(
            method=method, url=url, headers=headers, body=body, who=BY, role=Role.admin, address="-"
        )

    async def events(self) -> AsyncIterator[list[Event]]:
        watch = Watch(self._island.events, self._island.pulse, pause_s=PAUSE_S)
        async with aclosing(watch.follow(self._number, brief=True)) as news:
            async for item in news:
                yield [item] if isinstance(item, Pulse) else list(item.events.values())

    async def logs(self, after: int = 0) -> list[LogLine]:
        return self._ring.lines(after=after)

    async def output(self, jail: str) -> AsyncIterator[Written]:
        async with aclosing(self._island.output(jail)) as parts:
            async for part in parts:
                yield part

    async def kill(self, jail: str, node: str = "") -> None:
        if node:
            told = await self._nodes.ask(node, self._question(op.KILL.method, op.KILL.url(jail=jail)))
            op.KILL.read(told.status, told.body)
        else:
            await self._island.kill(jail)

    async def kill_all(self) -> int:
        return len(await self._island.kill_all())

    async def set_address(self, ip: str, state: AddressState, node: str = "") -> None:
        if node:
            body = encode(AddressBody(ip=ip, state=state))
            order = self._question(op.SET_ADDRESS.method, op.SET_ADDRESS.url(), body)
            told = await self._nodes.ask(node, order)
            op.SET_ADDRESS.read(told.status, told.body)
        else:
            await self._island.set_address(ip, state)

    async def evict(self, key: str) -> None:
        await self._island.evict(key)

    async def rebuild(self, key: str) -> None:
        await self._island.rebuild(key)

    async def purge(self) -> int:
        return len(await self._island.purge())

    async def invoke(self, request: FunctionRequest) -> Called:
        return Called.of(await self._island.invoke(request))

    async def functions(self, url: str, version: str | None = None) -> Catalogue:
        return await self._island.functions(url, version)

    async def function(self, function: str, window: Window = Window.five_minutes) -> FunctionPage:
        await self._island.sample_usage()
        return await self._island.function(function, window)

    async def names(self) -> list[Named]:
        return self._island.named.all()

    async def revisions(self, name: str) -> list[Revision]:
        return await self._island.named.history(name)

    async def call(self, name: str, asked: NamedCall) -> Called:
        return Called.of(await self._island.named.calls.call(name, asked))

    async def define(self, name: str, definition: Definition, revision: int | None = None) -> None:
        await self._island.named.define(name, definition, by=BY, revision=revision)

    async def move(self, name: str, version: str | None = None) -> None:
        await self._island.named.move(name, version, by=BY)

    async def roll_back(self, name: str, to: int | None = None) -> None:
        await self._island.named.roll_back(name, to, by=BY)

    async def pause(self, name: str) -> None:
        await self._island.named.pause(name, paused=True, by=BY)

    async def resume(self, name: str) -> None:
        await self._island.named.pause(name, paused=False, by=BY)

    async def forget(self, name: str) -> None:
        await self._island.named.delete(name)

    async def calls(self) -> list[Record]:
        return await self._island.later.find(Wanted(limit=LISTED))

    async def kept(self, kept: str) -> Record:
        return (await self._island.later.get(kept)).shown_to(BY)

    async def cancel(self, kept: str) -> None:
        await self._island.later.cancel(kept)

    async def redrive(self, kept: str) -> None:
        await self._island.later.redrive(kept)

    async def forget_calls(self, state: CallState | None = None) -> int:
        return len(await self._island.later.forget(Wanted(state=state, limit=FORGOTTEN_AT_ONCE)))

    async def forget_call(self, kept: str) -> None:
        await self._island.later.forget_one(kept)

    def curl(self, request: FunctionRequest | NamedCall, name: str = "") -> str:
        return curl_line(self.url, request, name)

    def authorize(self, token: str) -> None:
        """Nothing to do: the island's own terminal needs no token."""

    async def close(self) -> None:
        pass
