"""The driver for one machine: calls that answer later in one SQLite file, larger results in files beside it.

Results are here, the queues in `orders`; all that is kept of calls that are over has bounds in bytes.

A file that is damaged is left as it is, for `sqlite3 calls.db .recover`: no other takes its place by itself,
for that would lose what was accepted.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import msgspec

from skyisland.host.tasks import aside
from skyisland.later.calls import Callback, Claim, Record, read, written
from skyisland.later.journal import Journal, Statement, telling
from skyisland.later.keeping import Change, Standing, Wanted
from skyisland.later.lines import Room
from skyisland.later.orders import SqliteQueue

INLINE_BYTES = 64 << 10
"""A larger result is a file. A judgement: up to here SQLite reads blobs about as fast as files."""

_callbacks = msgspec.json.Decoder(Callback)


class SqliteResults:
    """`Results` in one table, and in a folder."""

    def __init__(
        self, journal: Journal, folder: Path, *, keep_s: float, keep_dead_s: float, limit_bytes: int
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._keep_s, self._keep_dead_s, self._limit_bytes = keep_s, keep_dead_s, limit_bytes
        self._running: dict[tuple[str, str], Claim] = {}
        """Claims of calls whose callers wait: they end with this process."""
        self._size_bytes = 0
        """Of records that are final with their results, and of replies."""
        self._claims_bytes = 0
        self.secret = b""

    def load(self) -> None:
        """Make the secret and the folder, and remove files of no record. Blocks."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        known = set()
        for call_id, size in self._journal.rows_now("SELECT id, size FROM calls WHERE size"):
            self._size_bytes += size
            known.add(call_id)
        ((self._claims_bytes,),) = self._journal.rows_now(_CLAIMS_SIZE)
        self._size_bytes += self._claims_bytes
        for file in self._folder.iterdir():
            if file.name not in known:
                file.unlink()
        rows = self._journal.rows_now("SELECT value FROM secrets WHERE name = 'callbacks'")
        self.secret = rows[0][0] if rows else secrets.token_bytes(32)

    async def prepare(self) -> None:
        """Keep the secret."""
        await self._journal.write(("INSERT OR IGNORE INTO secrets VALUES ('callbacks', ?)", (self.secret,)))

    def follow(self, changed: Callable[[Change], None]) -> None:
        pass  # this process holds the file

    def watched(self, call_id: str) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def note(self, record: Record, result: bytes | None = None, *, anew: bool = False) -> bool:
        content = written(record)
        size = len(content) + len(result or b"") if record.state.final else 0
        with telling(self._journal.path):
            if result is not None and len(result) > INLINE_BYTES:
                await aside(self._write_file, record.id, result)
                result = None
            callback = None if record.callback is None else msgspec.json.encode(record.callback)
            values = (
                record.id,
                record.client,
                record.name,
                record.state,
                record.state.final,
                record.created_at,
                record.ended_at,
                content,
                callback,
                result,
                size,
            )
            sql = _NOTE if anew else f"{_NOTE} WHERE NOT calls.final"
            ((changed,),) = [await self._journal.write((sql, values))]
            if changed:
                self._size_bytes += size
                await self._make_room()
        return bool(changed)

    def _write_file(self, call_id: str, result: bytes) -> None:
        """A whole file under its name, or none, also after a power cut."""
        draft = self._folder / f".{call_id}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(result)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._folder / call_id)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read_file(self, call_id: str) -> bytes | None:
        try:
            return (self._folder / call_id).read_bytes()
        except FileNotFoundError:  # it is the record that is long
            return None

    async def note_callback(self, call_id: str, callback: Callback) -> None:
        with telling(self._journal.path):
            content = msgspec.json.encode(callback)
            await self._journal.write(("UPDATE calls SET callback = ? WHERE id = ?", (content, call_id)))

    async def get(self, call_id: str) -> Record | None:
        with telling(self._journal.path):
            rows = await self._journal.rows(
                "SELECT record, callback, result, size FROM calls WHERE id = ?", (call_id,)
            )
            if not rows:
                return None
            content, callback, result, size = rows[0]
            if result is None and size > INLINE_BYTES:
                result = await aside(self._read_file, call_id)
        return _with_callback(read(content, result), callback)

    async def find(self, wanted: Wanted) -> list[Record]:
        sql, values = "SELECT record, callback FROM calls WHERE created_at >= ?", [wanted.since]
        for column, value in (("client", wanted.client), ("state", wanted.state), ("name", wanted.name)):
            if value:
                sql += f" AND {column} = ?"
                values.append(value)  # type: ignore[arg-type]
        with telling(self._journal.path):
            rows = await self._journal.rows(f"{sql} ORDER BY number DESC LIMIT ?", (*values, wanted.limit))
        return await aside(lambda: [_with_callback(read(content), callback) for content, callback in rows])

    async def standing(self) -> Standing:
        with telling(self._journal.path):
            oldest = await self._journal.rows(_OLDEST)
            ((dead,),) = await self._journal.rows("SELECT count(*) FROM calls WHERE state = 'dead'")
        return Standing(oldest_at=oldest[0][0] if oldest else None, dead=dead)

    async def delete(self, ids: list[str]) -> None:
        with telling(self._journal.path):
            sizes: dict[str, int] = {}
            for call_id in ids:
                sizes |= dict(await self._journal.rows("SELECT id, size FROM calls WHERE id = ?", (call_id,)))
            deletes: list[Statement] = [("DELETE FROM calls WHERE id = ?", (call_id,)) for call_id in sizes]
            await self._journal.write(*deletes)
            self._size_bytes -= sum(sizes.values())
            large = [self._folder / call_id for call_id, size in sizes.items() if size > INLINE_BYTES]
            await aside(_remove, large)

    async def expire(self, now: float) -> list[str]:
        with telling(self._journal.path):
            await self._journal.write(("DELETE FROM claims WHERE at < ?", (now - self._keep_s,)))
            old = await self._journal.rows(
                "SELECT id FROM calls WHERE state IN ('done', 'cancelled') AND ended_at < ?"
                " UNION ALL SELECT id FROM calls WHERE state = 'dead' AND ended_at < ?",
                (now - self._keep_s, now - self._keep_dead_s),
            )
            gone = [call_id for (call_id,) in old]
            await self.delete(gone)
            ((claims_bytes,),) = await self._journal.rows(_CLAIMS_SIZE)
            self._size_bytes += claims_bytes - self._claims_bytes
            self._claims_bytes = claims_bytes
            return gone + await self._make_room()

    async def _make_room(self) -> list[str]:
        """Forget the oldest where all take too much, down to a tenth less; returns the calls among them."""
        gone: list[str] = []
        most = self._limit_bytes if self._size_bytes <= self._limit_bytes else self._limit_bytes * 9 // 10
        while self._size_bytes > most:
            before = self._size_bytes
            oldest = await self._journal.rows(
                "SELECT id, size FROM calls WHERE final ORDER BY ended_at LIMIT 100"
            )
            ids, room = [], self._size_bytes - most
            for call_id, size in oldest:
                if room <= 0:
                    break
                ids.append(call_id)
                room -= size
            await self.delete(ids)
            gone += ids
            if self._size_bytes == before:  # what is left are replies
                await self._journal.write((_FORGET_CLAIMS, ()))
                ((claims_bytes,),) = await self._journal.rows(_CLAIMS_SIZE)
                self._size_bytes += claims_bytes - self._claims_bytes
                self._claims_bytes = claims_bytes
                if self._size_bytes == before:
                    break
        return gone

    async def claim(self, claim: Claim, now: float) -> Claim:
        key = claim.client, claim.key
        if key in self._running:
            return self._running[key]
        self._running[key] = claim
        try:
            with telling(self._journal.path):
                rows = await self._journal.rows(
                    "SELECT body, call, reply, at FROM claims WHERE client = ? AND key = ? AND at >= ?",
                    (*key, now - self._keep_s),
                )
                if rows:
                    body, call, reply, at = rows[0]
                    held = Claim(client=claim.client, key=claim.key, body=body, call=call, reply=reply, at=at)
                elif claim.call:
                    held = claim
                    await self._journal.write((_CLAIM, (*key, claim.body, claim.call, None, now)))
                else:
                    return claim
        except BaseException:
            del self._running[key]
            raise
        del self._running[key]
        return held

    async def answered(self, claim: Claim, reply: bytes) -> None:
        key = claim.client, claim.key
        try:
            with telling(self._journal.path):
                await self._journal.write((_CLAIM, (*key, claim.body, "", reply, time.time())))
                self._claims_bytes += len(reply)
                self._size_bytes += len(reply)
                await self._make_room()
        finally:
            self._running.pop(key, None)

    async def release(self, claim: Claim) -> None:
        key = claim.client, claim.key
        self._running.pop(key, None)
        with telling(self._journal.path):
            await self._journal.write(("DELETE FROM claims WHERE client = ? AND key = ?", key))


_NOTE = """
INSERT INTO calls
    (id, client, name, state, final, created_at, ended_at, record, callback, result, size)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, final = excluded.final, ended_at = excluded.ended_at, record = excluded.record,
    callback = excluded.callback, result = excluded.result, size = excluded.size"""
_OLDEST = """
SELECT created_at FROM calls WHERE state = 'queued' AND ended_at IS NULL ORDER BY number LIMIT 1"""
# Of the index by state and end, in which rows of one end stand by number: one row is read.
_CLAIMS_SIZE = "SELECT coalesce(sum(length(reply)), 0) FROM claims"
_FORGET_CLAIMS = """
DELETE FROM claims WHERE (client, key) IN
    (SELECT client, key FROM claims WHERE reply IS NOT NULL ORDER BY at LIMIT 100)"""
_CLAIM = "INSERT OR REPLACE INTO claims (client, key, body, call, reply, at) VALUES (?, ?, ?, ?, ?, ?)"


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _with_callback(record: Record, callback: bytes | None) -> Record:
    if callback is not None:
        record.callback = _callbacks.decode(callback)
    return record


class SqliteStore:
    """`Store` on one machine. Make it with `open`."""

    name = "sqlite"

    def __init__(self, journal: Journal, orders: SqliteQueue, callbacks: SqliteQueue, results: SqliteResults):
        self._journal = journal
        self.orders, self.callbacks, self.results = orders, callbacks, results

    @classmethod
    async def open(
        cls,
        path: Path,
        folder: Path,
        room: Room,
        *,
        keep_s: float = 86_400.0,
        keep_dead_s: float = 604_800.0,
        limit_bytes: int = 1 << 30,
    ) -> SqliteStore:
        """Read the file at `path`, or make it; `folder`: for larger results.

        Raises:
            NotKept: it can be neither read nor made, or is damaged; it is left as it is.
        """

        def load() -> SqliteStore:
            journal = Journal(path)
            orders = SqliteQueue(journal, "orders", room)
            callbacks = SqliteQueue(journal, "callbacks", room, bounded=False)
            results = SqliteResults(
                journal, folder, keep_s=keep_s, keep_dead_s=keep_dead_s, limit_bytes=limit_bytes
            )
            for part in (orders, callbacks, results):
                part.load()
            return cls(journal, orders, callbacks, results)

        with telling(path):
            store = await aside(load)
            await store.results.prepare()
        return store

    async def close(self) -> None:
        await self._journal.close()
