"""Calls that answer later, kept by the servers for all islands of a fleet: `Store` (later/keeping.py).

    SKY_CALLS, SKY_CALLBACKS     orders that wait, or are run          work queue, never dropped
    SKY_DEAD_…                   orders of calls that are dead         as long as `async.keep_dead`
    SKY_RESULTS, SKY_OUT         records and results                   as long as `async.keep`, and bounded
    SKY_IDEM                     Idempotency-Keys                      as long as `async.keep`
    SKY_ONCE                     the secret of callbacks' signatures

Each has the fleet's name behind it.
"""

from __future__ import annotations

from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.orders import NatsQueue
from skyisland.fleet.results import NatsResults
from skyisland.fleet.streams import Making
from skyisland.fleet.subjects import Subjects
from skyisland.later.lines import Room


class NatsStore:
    """`Store` on streams. Make it with `open`."""

    name = "nats"

    def __init__(self, line: NatsLine, orders: NatsQueue, callbacks: NatsQueue, results: NatsResults) -> None:
        self.orders, self.callbacks, self.results = orders, callbacks, results
        self._making = Making(line, self._make)

    @classmethod
    async def open(
        cls,
        line: NatsLine,
        subjects: Subjects,
        room: Room,
        *,
        keep_s: float = 86_400.0,
        keep_dead_s: float = 604_800.0,
        limit_bytes: int = 1 << 30,
        replicas: int = 1,
    ) -> NatsStore:
        """Use the fleet's streams, which are made as soon as its servers are there; until then nothing is
        kept, and nothing is taken."""
        orders, callbacks = (
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
        results = NatsResults(
            line,
            subjects,
            keep_s=keep_s,
            keep_dead_s=keep_dead_s,
            limit_bytes=limit_bytes,
            replicas=replicas,
        )
        store = cls(line, orders, callbacks, results)
        for queue in (orders, callbacks):
            await queue.open()
        results.open()
        await store._making.start()
        return store

    async def _make(self) -> None:
        await self.results.make()
        await self.orders.make()
        await self.callbacks.make()

    async def close(self) -> None:
        """Give what this island has taken to others."""
        await self._making.close()
        await self.orders.close()
        await self.callbacks.close()
        await self.results.close()
