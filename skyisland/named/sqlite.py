"""Names in an SQLite file of their own: the driver of one machine.

The file is read once at start and served from memory. What is written is on disk before `put` returns
(`synchronous=FULL`): a name is an admin's word, and no remote could tell it again. It holds no secret, only
the names of secrets. Apart from `island.db`, because that may be thrown away: all in it can be found again.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aiosqlite
import msgspec

from skyisland.errors import DriverError, SettingsError
from skyisland.host.tasks import finish
from skyisland.named.definition import Revision
from skyisland.named.names import KEPT, check_follows, name_not_found
from skyisland.named.schedule import Fired

SCHEMA = """
CREATE TABLE IF NOT EXISTS revisions (
    name TEXT, revision INTEGER, record BLOB NOT NULL, PRIMARY KEY (name, revision)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fired (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID
"""
VERSION = 1
"""SQLite's user_version of a file that this Sky Island writes."""

_revision = msgspec.json.Decoder(Revision)
_fired = msgspec.json.Decoder(Fired)


class SqliteNames:
    """Keeps names in a file. Make it with `open`."""

    def __init__(self, path: Path, db: aiosqlite.Connection) -> None:
        self._path, self._db = path, db
        self._latest: dict[str, Revision] = {}
        self._fired: dict[str, Fired] = {}
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> SqliteNames:
        """Read the file at `path`, or make it.

        Raises:
            SettingsError: a later version of Sky Island wrote it.
            DriverError: it cannot be used, or is damaged; the text says what to do.
        """
        try:
            await asyncio.to_thread(_make_private, path)
            db = await aiosqlite.connect(path, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            raise DriverError(f"cannot use {path}: {error}", path=str(path)) from error
        names = cls(path, db)
        try:
            await names._load()
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            await db.close()
            remedy = "bring it back from a backup, or move it away and define the names anew"
            raise DriverError(f"{path}, which keeps the names, cannot be read ({error}); {remedy}") from error
        except BaseException:
            await db.close()
            raise
        return names

    async def _load(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
            await self._db.execute(f"PRAGMA {pragma}")
        ((verdict,),) = await self._db.execute_fetchall("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        ((version,),) = await self._db.execute_fetchall("PRAGMA user_version")
        if version > VERSION:
            text = f"{self._path} has version {version}, this Sky Island knows {VERSION}: update Sky Island"
            raise SettingsError(text)
        await self._db.executescript(f"BEGIN; {SCHEMA}; PRAGMA user_version={VERSION}; COMMIT;")
        rows = await self._db.execute_fetchall(
            "SELECT record FROM revisions AS one WHERE revision ="
            " (SELECT max(revision) FROM revisions WHERE name = one.name) ORDER BY name"
        )
        for (record,) in rows:
            revision = _revision.decode(record)
            self._latest[revision.name] = revision
        rows = await self._db.execute_fetchall("SELECT name, record FROM fired")
        self._fired = {name: _fired.decode(record) for name, record in rows}

    def get(self, name: str) -> Revision | None:
        return self._latest.get(name)

    def all(self) -> list[Revision]:
        return [self._latest[name] for name in sorted(self._latest)]

    async def put(self, revision: Revision) -> None:
        async with self._writing:
            check_follows(self._latest.get(revision.name), revision.revision, revision.name)
            await self._commit(
                ("INSERT INTO revisions VALUES (?, ?, ?)", _row(revision)),
                (
                    "DELETE FROM revisions WHERE name = ? AND revision <= ?",
                    (revision.name, revision.revision - KEPT),
                ),
            )
            self._latest[revision.name] = revision

    async def history(self, name: str) -> list[Revision]:
        rows = await self._db.execute_fetchall(
            "SELECT record FROM revisions WHERE name = ? ORDER BY revision DESC", (name,)
        )
        return [_revision.decode(record) for (record,) in rows]

    async def delete(self, name: str, latest: int) -> None:
        async with self._writing:
            check_follows(self._latest.get(name), latest + 1, name)
            if latest == 0:
                raise name_not_found(name)
            await self._commit(
                ("DELETE FROM revisions WHERE name = ?", (name,)),
                ("DELETE FROM fired WHERE name = ?", (name,)),
            )
            del self._latest[name]
            self._fired.pop(name, None)

    async def fired(self, name: str) -> Fired | None:
        return self._fired.get(name)

    async def note_fired(self, name: str, fired: Fired | None) -> None:
        async with self._writing:
            if fired is None or name not in self._latest:
                await self._commit(("DELETE FROM fired WHERE name = ?", (name,)))
                self._fired.pop(name, None)
                return
            record = msgspec.json.encode(fired)
            await self._commit(("INSERT OR REPLACE INTO fired VALUES (?, ?)", (name, record)))
            self._fired[name] = fired

    def follow(self, changed: Callable[[str], None]) -> None:
        pass  # this process holds the file

    async def refresh(self) -> None:
        pass

    async def _commit(self, *writes: tuple[str, tuple[object, ...]]) -> None:
        """Write all or nothing; whoever is cancelled waits for the end."""
        try:
            await finish(self._transaction(writes))
        except sqlite3.Error as error:
            raise DriverError(f"cannot record a name in {self._path}: {error}") from error

    async def _transaction(self, writes: tuple[tuple[str, tuple[object, ...]], ...]) -> None:
        await self._db.execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters in writes:
                await self._db.execute(sql, parameters)
            await self._db.execute("COMMIT")
        except BaseException:
            await self._db.execute("ROLLBACK")
            raise

    async def close(self) -> None:
        await self._db.close()


def _row(revision: Revision) -> tuple[str, int, bytes]:
    return revision.name, revision.revision, msgspec.json.encode(revision)


def _make_private(path: Path) -> None:
    """Make an empty file of mode 0600, if there is none, before SQLite does; its WAL gets the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
