"""The way to an island in this very process: its methods, called."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import AsyncIterator

from skyisland.client import body
from skyisland.events import PULSE_S, Event, Gap, included
from skyisland.island import Island
from skyisland.model import AddressState, FunctionRequest, Invocation
from skyisland.record.logs import Line as LogLine
from skyisland.record.logs import LogRing
from tui.watch.port import Answer, Snapshot

BUNCH_S = 0.1
"""How long facts are gathered: the console draws no faster anyway."""
LIMIT = 20_000
"""Facts kept for a console that does not come to take them."""
RECENT = 500
"""Invocations that a first look shows."""


class InProcess:
    """A `Port` on `island`; `ring` holds its log, `url` is where its API listens."""

    attached = False

    def __init__(self, island: Island, ring: LogRing, url: str) -> None:
        self.url = url
        self.where = url.removeprefix("http://")
        self._island = island
        self._ring = ring

    async def snapshot(self) -> Snapshot:
        await self._island.sample_usage()
        recent = await self._island.invocations(RECENT)
        return Snapshot.of(self._island.status(), at=time.time(), recent=recent)

    async def events(self) -> AsyncIterator[list[Event]]:
        bunch: list[Event] = []
        missed = 0

        def fold(event: Event) -> None:
            nonlocal missed
            if len(bunch) < LIMIT:
                bunch.append(event)
            else:
                missed += 1

        untap = self._island.events.tap(fold)
        felt = time.monotonic()
        try:
            while True:
                await asyncio.sleep(BUNCH_S)
                leave = included(bunch)
                taken, bunch = [event for event in bunch if not leave(event)], []
                if missed:
                    taken.append(Gap(missed=missed))
                    missed = 0
                if time.monotonic() - felt >= PULSE_S:
                    felt = time.monotonic()
                    taken.append(await self._island.pulse())
                yield taken
        finally:
            untap()

    async def logs(self, after: int = 0) -> list[LogLine]:
        return self._ring.lines(after=after)

    async def kill(self, jail: str) -> None:
        await self._island.kill(jail)

    async def set_address(self, ip: str, state: AddressState) -> None:
        await self._island.set_address(ip, state)

    async def evict(self, key: str) -> None:
        await self._island.evict(key)

    async def rebuild(self, key: str) -> None:
        await self._island.rebuild(key)

    async def invoke(self, request: FunctionRequest) -> Answer:
        return _answer(await self._island.invoke(request))

    def curl(self, request: FunctionRequest) -> str:
        return curl(self.url, request)

    def authorize(self, token: str) -> None:
        """Whoever sits at the island's own terminal needs none."""

    async def close(self) -> None:
        pass


def _answer(invocation: Invocation) -> Answer:
    outcome = invocation.outcome
    return Answer(
        id=invocation.id,
        verdict=str(outcome.verdict),
        timings=invocation.timings,
        data=outcome.stdout.decode(errors="replace"),
        stderr=outcome.stderr.decode(errors="replace"),
        exit_code=outcome.exit_code,
        jail=invocation.jail,
        commit=invocation.commit,
        cached=invocation.cached,
        stale=invocation.stale,
    )


def curl(base: str, request: FunctionRequest) -> str:
    """The invocation as a command line, quoted for sh."""
    return f"curl -sS {shlex.quote(base)}/api/v1/function -d {shlex.quote(json.dumps(body(request)))}"
