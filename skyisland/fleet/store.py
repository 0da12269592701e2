"""Calls that answer later, kept by the servers for all islands of a fleet: `Store` (later/keeping.py).

    SKY_CALLS, SKY_CALLBACKS     orders that wait, or are run          work queue, never dropped
    SKY_DEAD_…                   orders of calls that are dead         as long as `async.keep_dead`
    SKY_RESULTS, SKY_OUT         records and results                   as long as `async.keep`, and bounded
    SKY_IDEM                     Idempotency-Keys                      as long as `async.keep`
    SKY_ONCE                     the secret of callbacks' signatures

Each has the fleet's name behind it.
"""

from __future__ import annotations

from skyisland.fleet.line import Away
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.orders import NatsQueue
from skyisland.fleet.results import NatsResults
from skyisland.fleet.streams import Making, Stream
from skyisland.fleet.subjects import Subjects
from skyisland.later.lines import Room


class NatsStore:
    """`Store` on streams. `open` comes first, `close` last."""

    name = "nats"

    def __init__(
        self,
        line: NatsLine,
        subjects: Subjects,
        room: Room,
        *,
        keep_s: float = 86_400.0,
        keep_dead_s: float = 604_800.0,
        limit_bytes: int = 1 << 30,
        replicas: int = 1,
    ) -> None:
        self.orders, self.callbacks = (
            NatsQueue(
                line,
                subjects,
                what,
                room,
                keep_dead_s=keep_dead_s,
                replicas=replicas,
                bounded=what == "calls",
            )
            for what in ("calls", "callbacks")
        )
        self.results = NatsResults(
            line,
            subjects,
            keep_s=keep_s,
            keep_dead_s=keep_dead_s,
            limit_bytes=limit_bytes,
            replicas=replicas,
        )
        self._making = Making(line, self._make)

    async def open(self) -> NatsStore:
        """Use the fleet's streams, which are made as soon as its servers are there; until then nothing is
        kept, and nothing is taken."""
        for queue in (self.orders, self.callbacks):
            await queue.open()
        self.results.open()
        await self._making.start()
        return self

    @property
    def streams(self) -> tuple[Stream, ...]:
        return *self.results.streams, *self.orders.streams, *self.callbacks.streams

    async def _make(self) -> None:
        try:
            await self.results.make()
            await self.orders.make()
            await self.callbacks.make()
        except Away:
            # Those after the one that the servers refuse are not there for its reason.
            why = next((stream.refused for stream in self.streams if stream.refused), "")
            for stream in self.streams:
                stream.refused = stream.refused or why
            raise

    async def close(self) -> None:
        """Give what this island has taken to others."""
        await self._making.close()
        await self.orders.close()
        await self.callbacks.close()
        await self.results.close()
