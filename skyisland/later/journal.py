"""One SQLite file, written by many at a time with one fsync for all of them (group commit).

While a transaction is on its way to the disk, others gather, and go into the next one together. `synchronous`
is FULL: what `write` returned from survives a power cut. Nobody reads on the connection that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skyisland.host.tasks import aside
from skyisland.later.keeping import NotKept

Statement = tuple[str, tuple[Any, ...]]

AT_ONCE = 500
"""Writes in one transaction. A judgement: some milliseconds of work, about as long as the fsync."""
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE orders (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, due_at REAL NOT NULL,
    buried INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, content BLOB NOT NULL
);
CREATE TABLE callbacks (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, due_at REAL NOT NULL,
    buried INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, content BLOB NOT NULL
);
CREATE TABLE calls (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, final INTEGER NOT NULL, created_at REAL NOT NULL, ended_at REAL,
    record BLOB NOT NULL, callback BLOB, result BLOB, size INTEGER NOT NULL
);
CREATE INDEX calls_by_client ON calls (client, number);
CREATE INDEX calls_by_state ON calls (state, ended_at);
CREATE TABLE claims (
    client TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, call TEXT NOT NULL, reply BLOB,
    at REAL NOT NULL, PRIMARY KEY (client, key)
) WITHOUT ROWID;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file at `path`, or make it, readable by nobody else. Blocks.

    Raises:
        sqlite3.Error, OSError: it cannot be used, or is damaged.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
            db.execute(f"PRAGMA {pragma}")
        ((verdict,),) = db.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        ((version,),) = db.execute("PRAGMA user_version").fetchall()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"a later version of Sky Island wrote it (format {version})")
        if version < SCHEMA_VERSION:
            db.executescript(f"BEGIN; {SCHEMA}; PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


class Journal:
    """The file, opened. `close` it."""

    def __init__(self, path: Path) -> None:
        """Blocks. Raises what `connect` does."""
        self.path = path
        self._writer = connect(path)
        self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._reader.execute("PRAGMA busy_timeout=5000")
        self._reading = threading.Lock()
        self._waiting: list[tuple[Sequence[Statement], asyncio.Future[list[int]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, *statements: Statement) -> list[int]:
        """Write these in one transaction: on disk when this returns. Tells the rows that each one changed.

        A caller who is cancelled leaves, and they are written all the same.

        Raises:
            sqlite3.Error: none of them is written.
        """
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append((statements, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await asyncio.shield(done)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            told = await asyncio.to_thread(self._commit, [statements for statements, _ in batch])
            for (_, done), result in zip(batch, told, strict=True):
                if done.done():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                    done.exception()  # else asyncio logs it where its caller was cancelled
                else:
                    done.set_result(result)
        self._writing = None

    def _commit(self, writes: list[Sequence[Statement]]) -> list[list[int] | Exception]:
        try:
            return list(self._transaction(writes))
        except Exception as error:  # of whatever kind, it is its writer's: the others go on
            if len(writes) == 1:
                return [error]
        # One of them has no room, or all: each for itself, so that one does not fail the others.
        return [self._commit([write])[0] for write in writes]

    def _transaction(self, writes: list[Sequence[Statement]]) -> list[list[int]]:
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        try:
            told = [[db.execute(sql, values).rowcount for sql, values in write] for write in writes]
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return told

    async def rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """What a query finds.

        Raises:
            sqlite3.Error
        """
        return await aside(self.rows_now, sql, values)

    def rows_now(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The same. Blocks."""
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    async def close(self) -> None:
        """Write what waits, and close the file. May be repeated."""
        if self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """What keeps something from the disk, as the caller is told."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise NotKept(
            f"cannot keep this in {path.name}: {error}; nothing that was accepted is lost; the operator of "
            "the island must make room, or look at that file",
            retry_after_s=10,
        ) from error
