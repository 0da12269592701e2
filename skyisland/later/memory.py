"""A driver that keeps nothing: for unit tests, and islands that confine nothing. What it accepted is gone
with the process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext

from msgspec import structs

from skyisland.later.calls import Callback, CallState, Claim, Order, Record, read, written
from skyisland.later.keeping import Change, Standing, Wanted
from skyisland.later.lines import Lines, Room

ROOMY = Room(orders=10_000, orders_per_client=5_000, size_bytes=1 << 28, size_bytes_per_client=1 << 27)


class MemoryQueue:
    """`Queue` in memory."""

    def __init__(self, room: Room, *, bounded: bool = True) -> None:
        self._lines = Lines(room)
        self._bounded = bounded
        self._orders: dict[str, Order] = {}

    @property
    def waiting(self) -> int:
        return self._lines.waiting

    async def put(self, order: Order, due_at: float = 0.0) -> None:
        if order.id not in self._orders:
            self._lines.reserve(order.id, order.client, order.size, bounded=self._bounded)
            self._orders[order.id] = order
            self._lines.wait(order.id, due_at)

    async def take(self, now: float, full: Collection[str] = ()) -> Order | None:
        taken = self._lines.take(now, full)
        return None if taken is None else self._orders[taken]

    def follow(self, wake: Callable[[], None]) -> None:
        pass  # nobody else has it

    async def rest(self) -> None:
        pass

    def due_at(self) -> float | None:
        return self._lines.due_at()

    async def put_back(self, call_id: str, due_at: float) -> None:
        if call_id in self._lines:
            self._lines.wait(call_id, due_at)

    def hurry(self, call_id: str) -> None:
        self._lines.hurry(call_id, time.time())

    async def done(self, call_id: str) -> None:
        self._lines.leave(call_id)
        self._orders.pop(call_id, None)

    async def bury(self, call_id: str) -> None:
        self._lines.leave(call_id)

    async def revive(self, call_id: str) -> bool:
        order = self._orders.get(call_id)
        if order is None or call_id in self._lines:
            return False
        self._lines.reserve(call_id, order.client, order.size, bounded=self._bounded)
        self._lines.wait(call_id, 0.0)
        return True


class MemoryResults:
    """`Results` in memory."""

    def __init__(self, keep_s: float, keep_dead_s: float, limit_bytes: int) -> None:
        self.secret = secrets.token_bytes(32)
        self._keep_s, self._keep_dead_s, self._limit_bytes = keep_s, keep_dead_s, limit_bytes
        self._records: dict[str, bytes] = {}
        self._results: dict[str, bytes] = {}
        self._claims: dict[tuple[str, str], tuple[Claim, float]] = {}

    def follow(self, changed: Callable[[Change], None]) -> None:
        pass

    def watched(self, call_id: str) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def note(self, record: Record, result: bytes | None = None, *, anew: bool = False) -> bool:
        if not anew and record.id in self._records and read(self._records[record.id]).state.final:
            return False
        self._records[record.id] = written(record)
        self._results.pop(record.id, None)
        if result is not None:
            self._results[record.id] = result
        return True

    async def note_callback(self, call_id: str, callback: Callback) -> None:
        if call_id in self._records:
            record = read(self._records[call_id])
            record.callback = callback
            self._records[call_id] = written(record)

    async def get(self, call_id: str) -> Record | None:
        content = self._records.get(call_id)
        return None if content is None else read(content, self._results.get(call_id))

    async def find(self, wanted: Wanted) -> list[Record]:
        found = [
            record
            for record in map(read, reversed(self._records.values()))
            if wanted.client in ("", record.client)
            and wanted.state in (None, record.state)
            and wanted.name in ("", record.name)
            and record.created_at >= wanted.since
        ]
        return found[: wanted.limit]

    async def standing(self) -> Standing:
        records = [*map(read, self._records.values())]
        waiting = [one.created_at for one in records if one.state is CallState.queued]
        dead = sum(one.state is CallState.dead for one in records)
        return Standing(oldest_at=min(waiting, default=None), dead=dead)

    async def delete(self, ids: list[str]) -> None:
        for call_id in ids:
            self._records.pop(call_id, None)
            self._results.pop(call_id, None)

    async def expire(self, now: float) -> list[str]:
        for key, (_, at) in list(self._claims.items()):
            if at < now - self._keep_s:
                del self._claims[key]
        gone, size = [], sum(map(len, self._results.values()))
        for call_id, content in list(self._records.items()):
            record = read(content)
            if not record.state.final:
                continue
            keep_s = self._keep_dead_s if record.state == "dead" else self._keep_s
            result = len(self._results.get(call_id, b""))
            if (record.ended_at or record.created_at) < now - keep_s or (result and size > self._limit_bytes):
                gone.append(call_id)
                size -= result
        await self.delete(gone)
        return gone

    async def claim(self, claim: Claim, now: float) -> Claim:
        held, at = self._claims.setdefault((claim.client, claim.key), (claim, now))
        return held if held is claim else structs.replace(held, at=at)

    async def answered(self, claim: Claim, reply: bytes) -> None:
        self._claims[claim.client, claim.key] = (
            Claim(client=claim.client, key=claim.key, body=claim.body, reply=reply),
            time.time(),
        )

    async def release(self, claim: Claim) -> None:
        self._claims.pop((claim.client, claim.key), None)


class MemoryStore:
    """`Store` in memory."""

    name = "memory"

    def __init__(
        self,
        room: Room = ROOMY,
        *,
        keep_s: float = 86_400.0,
        keep_dead_s: float = 604_800.0,
        limit_bytes: int = 1 << 30,
    ) -> None:
        self.orders = MemoryQueue(room)
        self.callbacks = MemoryQueue(room, bounded=False)
        self.results = MemoryResults(keep_s, keep_dead_s, limit_bytes)

    async def close(self) -> None:
        pass
