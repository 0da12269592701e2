"""Two stores as one: the fleet's, and this island's own for calls that come while the servers are away.

What is in the island's own store is run here and found here alone: what it accepted before it joined a fleet,
and, with `fleet.spool`, what comes while the servers are away. Where a call is was decided when it was
accepted, by whether they were away at that moment, and does not change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager

from skyisland.host.recent import Recent
from skyisland.later.calls import Callback, CallState, Claim, Order, Record
from skyisland.later.keeping import Change, NotKept, Queue, Results, Standing, Store, Wanted

NODE = "node"
"""What `Record.durable` says of a call that one island has."""
ALL = 1 << 20
KEYS = 100_000
"""Keys that came while the servers were away, which are remembered. A judgement: 20 MB."""


class _Here:
    """Which calls and keys are this island's own."""

    def __init__(self, away: Callable[[], bool]) -> None:
        self.away = away
        """Whether what comes now is kept here."""
        self.calls: set[str] = set()
        self.keys: Recent[tuple[str, str], bool] = Recent(KEYS)
        """By client and key."""

    def accept(self, call_id: str) -> bool:
        """Decide where a call is that may be new."""
        if call_id not in self.calls and self.away():
            self.calls.add(call_id)
        return call_id in self.calls


class _Queue:
    def __init__(self, fleet: Queue, own: Queue, here: _Here, *, accepts: bool) -> None:
        self._fleet, self._own, self._here, self._accepts = fleet, own, here, accepts

    def _of(self, call_id: str) -> Queue:
        return self._own if call_id in self._here.calls else self._fleet

    @property
    def waiting(self) -> int:
        return self._own.waiting + self._fleet.waiting

    async def put(self, order: Order, due_at: float = 0.0) -> None:
        if self._accepts:
            self._here.accept(order.id)
        await self._of(order.id).put(order, due_at)

    async def take(self, now: float, full: Collection[str] = ()) -> Order | None:
        return await self._own.take(now, full) or await self._fleet.take(now, full)

    def follow(self, wake: Callable[[], None]) -> None:
        self._own.follow(wake)
        self._fleet.follow(wake)

    async def rest(self) -> None:
        await self._own.rest()
        await self._fleet.rest()

    def due_at(self) -> float | None:
        due = [at for at in (self._own.due_at(), self._fleet.due_at()) if at is not None]
        return min(due, default=None)

    async def put_back(self, call_id: str, due_at: float) -> None:
        await self._of(call_id).put_back(call_id, due_at)

    def hurry(self, call_id: str) -> None:
        self._of(call_id).hurry(call_id)

    async def done(self, call_id: str) -> None:
        await self._of(call_id).done(call_id)

    async def bury(self, call_id: str) -> None:
        await self._of(call_id).bury(call_id)

    async def revive(self, call_id: str) -> bool:
        return await self._of(call_id).revive(call_id)


class _Results:
    def __init__(self, fleet: Results, own: Results, here: _Here) -> None:
        self._fleet, self._own, self._here = fleet, own, here

    def _of(self, call_id: str) -> Results:
        return self._own if call_id in self._here.calls else self._fleet

    def _of_key(self, claim: Claim) -> Results:
        return self._own if (claim.client, claim.key) in self._here.keys else self._fleet

    @property
    def secret(self) -> bytes:
        return self._fleet.secret  # callbacks are signed as the fleet's, whoever sends them

    def follow(self, changed: Callable[[Change], None]) -> None:
        self._fleet.follow(changed)

    def watched(self, call_id: str) -> AbstractAsyncContextManager[None]:
        return self._of(call_id).watched(call_id)

    async def note(self, record: Record, result: bytes | None = None, *, anew: bool = False) -> bool:
        new = record.state is CallState.queued and not record.attempts and not anew
        if new and self._here.accept(record.id):
            record.durable = NODE
        return await self._of(record.id).note(record, result, anew=anew)

    async def note_callback(self, call_id: str, callback: Callback) -> None:
        await self._of(call_id).note_callback(call_id, callback)

    async def get(self, call_id: str) -> Record | None:
        return await self._of(call_id).get(call_id)

    async def find(self, wanted: Wanted) -> list[Record]:
        own = await self._own.find(wanted)
        try:
            own += await self._fleet.find(wanted)
        except NotKept:
            if not own:
                raise
        return sorted(own, key=lambda record: record.created_at, reverse=True)[: wanted.limit]

    async def standing(self) -> Standing:
        own = await self._own.standing()
        try:
            fleet = await self._fleet.standing()
        except NotKept:
            return own
        oldest = [at for at in (own.oldest_at, fleet.oldest_at) if at is not None]
        return Standing(oldest_at=min(oldest, default=None), dead=own.dead + fleet.dead)

    async def delete(self, ids: list[str]) -> None:
        own = [one for one in ids if one in self._here.calls]
        await self._own.delete(own)
        self._here.calls.difference_update(own)
        if others := [one for one in ids if one not in self._here.calls]:
            await self._fleet.delete(others)

    async def expire(self, now: float) -> list[str]:
        gone = await self._own.expire(now)
        self._here.calls.difference_update(gone)
        try:
            return gone + await self._fleet.expire(now)
        except NotKept:
            return gone  # the next time

    async def claim(self, claim: Claim, now: float) -> Claim:
        if self._here.away():
            self._here.keys[claim.client, claim.key] = True
        return await self._of_key(claim).claim(claim, now)

    async def answered(self, claim: Claim, reply: bytes) -> None:
        await self._of_key(claim).answered(claim, reply)

    async def release(self, claim: Claim) -> None:
        await self._of_key(claim).release(claim)


class SpooledStore:
    """`Store`, of the fleet's and this island's own. Make it with `open`."""

    name = "nats"

    def __init__(self, fleet: Store, own: Store, here: _Here) -> None:
        self._fleet, self._own = fleet, own
        self.orders = _Queue(fleet.orders, own.orders, here, accepts=True)
        self.callbacks = _Queue(fleet.callbacks, own.callbacks, here, accepts=False)
        self.results = _Results(fleet.results, own.results, here)

    @classmethod
    async def open(cls, fleet: Store, own: Store, away: Callable[[], bool]) -> SpooledStore:
        """`away`: whether what is accepted now is kept by the island itself."""
        here = _Here(away)
        here.calls.update(record.id for record in await own.results.find(Wanted(limit=ALL)))
        return cls(fleet, own, here)

    async def close(self) -> None:
        await asyncio.gather(self._fleet.close(), self._own.close())
