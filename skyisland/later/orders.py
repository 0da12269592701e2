"""The queues of the driver for one machine, a table each.

Which orders there are, and whose, is in memory too (`lines`), read at start; so who is next costs no query.
An order that is taken is this process's, which holds the state folder's lock: when that is killed, the next
one finds every order waiting again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

import msgspec

from skyisland.later.calls import Order
from skyisland.later.journal import Journal, telling
from skyisland.later.keeping import NotKept
from skyisland.later.lines import Lines, Room

_decoder = msgspec.json.Decoder(Order)
_PUT = "(id, client, due_at, size, content) VALUES (?, ?, ?, ?, ?)"


class SqliteQueue:
    """`Queue` in one table."""

    def __init__(self, journal: Journal, table: str, room: Room, *, bounded: bool = True) -> None:
        self._journal = journal
        self._table = table
        self._bounded = bounded
        self._lines = Lines(room)
        self._most_buried_bytes = room.size_bytes
        self._buried_bytes = 0

    def load(self) -> None:
        """Read which orders there are. Blocks."""
        table = self._table
        sql = f"SELECT id, client, size, due_at FROM {table} WHERE NOT buried ORDER BY number"  # noqa: S608
        for call_id, client, size, due_at in self._journal.rows_now(sql):
            self._lines.reserve(call_id, client, size, bounded=False)
            self._lines.wait(call_id, due_at)
        sql = f"SELECT coalesce(sum(size), 0) FROM {table} WHERE buried"  # noqa: S608
        ((self._buried_bytes,),) = self._journal.rows_now(sql)

    @property
    def waiting(self) -> int:
        return self._lines.waiting

    async def put(self, order: Order, due_at: float = 0.0) -> None:
        if order.id in self._lines:
            return
        self._lines.reserve(order.id, order.client, order.size, bounded=self._bounded)
        values = (order.id, order.client, due_at, order.size, msgspec.json.encode(order))
        sql = f"INSERT OR REPLACE INTO {self._table} {_PUT}"
        try:
            with telling(self._journal.path):
                await self._journal.write((sql, values))
        except asyncio.CancelledError:
            self._lines.wait(order.id, due_at)  # it is written all the same
            raise
        except NotKept:
            self._lines.leave(order.id)
            raise
        self._lines.wait(order.id, due_at)

    async def take(self, now: float, full: Collection[str] = ()) -> Order | None:
        taken = self._lines.take(now, full)
        if taken is None:
            return None
        try:
            sql = f"SELECT content FROM {self._table} WHERE id = ?"  # noqa: S608
            with telling(self._journal.path):
                rows = await self._journal.rows(sql, (taken,))
        except BaseException:
            self._lines.wait(taken, now + 1)
            raise
        return _decoder.decode(rows[0][0])

    def follow(self, wake: Callable[[], None]) -> None:
        pass  # this process holds the file

    async def rest(self) -> None:
        pass

    def due_at(self) -> float | None:
        return self._lines.due_at()

    async def put_back(self, call_id: str, due_at: float) -> None:
        if call_id not in self._lines:
            return
        try:
            with telling(self._journal.path):
                await self._change("SET due_at = ? WHERE id = ?", due_at, call_id)
        finally:
            if call_id in self._lines:
                self._lines.wait(call_id, due_at)

    def hurry(self, call_id: str) -> None:
        self._lines.hurry(call_id, time.time())

    async def done(self, call_id: str) -> None:
        with telling(self._journal.path):
            await self._journal.write((f"DELETE FROM {self._table} WHERE id = ?", (call_id,)))  # noqa: S608
        self._lines.leave(call_id)

    async def bury(self, call_id: str) -> None:
        with telling(self._journal.path):
            await self._change("SET buried = 1 WHERE id = ?", call_id)
            if call_id in self._lines:
                self._buried_bytes += self._lines.size_of(call_id)
            self._lines.leave(call_id)
            if self._buried_bytes > self._most_buried_bytes:
                await self._forget_buried()

    async def _forget_buried(self) -> None:
        """Forget the oldest of those that nobody revived, down to half of their room."""
        table = self._table
        sql = f"SELECT id, size FROM {table} WHERE buried ORDER BY number"  # noqa: S608
        gone = []
        for call_id, size in await self._journal.rows(sql):
            if self._buried_bytes <= self._most_buried_bytes // 2:
                break
            self._buried_bytes -= size
            gone.append((f"DELETE FROM {table} WHERE id = ?", (call_id,)))  # noqa: S608
        await self._journal.write(*gone)

    async def revive(self, call_id: str) -> bool:
        if call_id in self._lines:
            return False
        sql = f"SELECT client, size FROM {self._table} WHERE id = ?"  # noqa: S608
        with telling(self._journal.path):
            rows = await self._journal.rows(sql, (call_id,))
            if not rows:
                return False
            self._lines.reserve(call_id, *rows[0], bounded=self._bounded)
            try:
                await self._change("SET buried = 0, due_at = 0 WHERE id = ?", call_id)
            except BaseException:
                self._lines.leave(call_id)
                raise
        self._buried_bytes -= rows[0][1]
        self._lines.wait(call_id, 0.0)
        return True

    async def _change(self, change: str, *values: object) -> None:
        await self._journal.write((f"UPDATE {self._table} {change}", values))
