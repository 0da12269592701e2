"""What the island remembers, in one SQLite file: read once at start, served from memory, and written

    artifacts, the operator's address states    before the method that records them returns
    history, commits, the highest jail number   in batches, by one task, `GATHER_S` later at most

The file is in WAL mode with `synchronous=NORMAL`: a killed island loses nothing that was committed, a
power cut may lose the last moments, and neither damages the file. A file that is damaged all the same is
renamed, and the island starts without a memory: it removes binaries that have no record, and asks remotes
for their branches again. Its name stays the same, because it is first derived from the path of the file: so
it still finds as its own what it left on the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import msgspec
from msgspec import Struct

from skyisland.errors import DriverError, InvocationNotFound, SettingsError
from skyisland.events import Event, Events, InvocationFinished, JailCreated, Latest, size_of
from skyisland.host.tasks import finish
from skyisland.jails.driver import jail_number
from skyisland.model import Artifact, KnownCommit
from skyisland.status import AddressState

log = logging.getLogger(__name__)

MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE artifacts (key TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE expressions (
        url TEXT, package TEXT, "commit" TEXT, function TEXT,
        PRIMARY KEY (url, package, "commit", function)
    ) WITHOUT ROWID;
    CREATE TABLE addresses (ip TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE commits (
        url TEXT, version TEXT, "commit" TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (url, version)
    ) WITHOUT ROWID;
    CREATE TABLE invocations (number INTEGER PRIMARY KEY AUTOINCREMENT, record BLOB NOT NULL);
    """,
    """
    ALTER TABLE addresses ADD COLUMN since REAL;
    """,
)
"""The script at index n brings a file from version n to n + 1; the version is SQLite's user_version."""

COMMITS = 10_000
"""Most branches and tags whose commit is remembered, some 3 MB; the one learnt longest ago goes first."""
EXPRESSIONS = 10_000
"""Functions kept that must be compiled whole; one that is forgotten is found out again by a failed build."""
EXPRESSIONS_BYTES = 4 << 20
"""Memory of their names, which a repository may make as long as a call."""
HISTORY_BYTES = 4 << 20
"""Memory of the invocations that are remembered: a thousand take less than one."""
RECORD_BYTES = 64 << 10
"""No invocation's record is longer; of earlier versions some were."""
QUEUE_BYTES = 16 << 20
"""Records that wait to be written; what comes beyond that, while the disk is stuck, is not written."""
JID_MARGIN = 10_000
"""Jail numbers that are recorded as used before they are, so that a killed island never uses one twice; that
takes a write for each 5000 jails."""
GATHER_S = 0.25
"""How long records gather for a transaction: one costs more than a call does, whatever is in it."""

RESERVE = "INSERT OR REPLACE INTO meta VALUES ('jid', ?)"
REMEMBER = "INSERT INTO invocations (record) VALUES (?)"
FORGET = "DELETE FROM invocations WHERE number <= (SELECT max(number) FROM invocations) - ?"
FORGET_EXPRESSION = 'DELETE FROM expressions WHERE url = ? AND package = ? AND "commit" = ? AND function = ?'

Function = tuple[str, str, str, str]
"""A function's url, package, commit and name."""

_Write = tuple[str, tuple[Any, ...]]
T = TypeVar("T")


class State:
    """The island's memory. Make it with `State.open`; `close` writes what is still queued."""

    def __init__(self, path: Path, db: aiosqlite.Connection, history: int) -> None:
        self.path = path
        self.island = ""
        """This island's tag in the names of host objects: four hex digits that never change."""
        self.first_number = 1
        """The lowest number that no jail's name has had."""
        self._taken_out: dict[str, float | None] = {}
        self._db = db
        self._expressions: dict[Function, None] = {}
        self._expressions_bytes = 0
        self._commits: dict[tuple[str, str], KnownCommit] = {}
        self._remembered = history
        self._history: Latest[InvocationFinished] = Latest(size_of, HISTORY_BYTES, history)
        self._highest = 0
        self._reserved = 0
        self._queue: list[_Write] = []
        self._queue_bytes = 0
        self._dropped = 0
        """Records that the queue had no room for, since the last batch."""
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()
        self._closing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._untap: Callable[[], None] = lambda: None

    @classmethod
    async def open(cls, path: Path, *, history: int = 1000) -> State:
        """Read the file at `path`, or make it; `history`: how many invocations are remembered.

        Raises:
            SettingsError: a later version of Sky Island wrote it.
            DriverError: it can be neither read nor made; the text says why.
        """
        try:
            try:
                return await cls._open(path, history)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise  # locked, full or forbidden: a new file would not help
                aside = await asyncio.to_thread(_set_aside, path)
                log.error("the database %s is damaged (%s); kept as %s, starting anew", path, error, aside)
                return await cls._open(path, history)
        except (sqlite3.Error, OSError) as error:
            raise DriverError(f"cannot use the database {path}: {error}", path=str(path)) from error

    @classmethod
    async def _open(cls, path: Path, history: int) -> State:
        await asyncio.to_thread(_make_private, path)
        db = await aiosqlite.connect(path, isolation_level=None)
        try:
            state = cls(path, db, history)
            await state._migrate()
            await state._load()
        except BaseException:
            await db.close()
            raise
        state._writer = asyncio.create_task(state._write_behind())
        return state

    async def _migrate(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
            await self._db.execute(f"PRAGMA {pragma}")
        ((verdict,),) = await self._db.execute_fetchall("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        ((version,),) = await self._db.execute_fetchall("PRAGMA user_version")
        if version > len(MIGRATIONS):
            raise SettingsError(
                f"the database {self.path} has version {version}, this Sky Island knows {len(MIGRATIONS)}: "
                "update Sky Island, or name another state_dir"
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            await self._db.executescript(f"BEGIN; {script}; PRAGMA user_version={number}; COMMIT;")

    async def _load(self) -> None:
        meta: dict[str, str] = dict(await self._all("SELECT name, value FROM meta"))
        self.island = meta["island"] if "island" in meta else await asyncio.to_thread(_tag_of, self.path)
        self.first_number = int(meta.get("jid", "0")) + 1
        self._highest = self.first_number - 1
        for function in await self._all('SELECT url, package, "commit", function FROM expressions'):
            self._add_expression(function)
        out = "SELECT ip, since FROM addresses WHERE state = ?"
        self._taken_out = dict(await self._all(out, (str(AddressState.unavailable),)))
        rows = await self._all('SELECT url, version, "commit", at FROM commits ORDER BY at')
        self._commits = {(url, version): KnownCommit(commit, at) for url, version, commit, at in rows}
        newest = await self._all(
            "SELECT record FROM invocations WHERE length(record) <= ? ORDER BY number DESC LIMIT ?",
            (RECORD_BYTES, self._remembered),
        )
        for event in reversed(list(_decoded(newest, InvocationFinished))):
            self._history.add(event)
        self._reserved = self._highest + JID_MARGIN
        await self._commit(
            [
                ("INSERT OR REPLACE INTO meta VALUES ('island', ?)", (self.island,)),
                (RESERVE, (str(self._reserved),)),
            ]
        )

    async def _all(self, sql: str, parameters: tuple[Any, ...] = ()) -> Iterable[Any]:
        return await self._db.execute_fetchall(sql, parameters)

    async def close(self) -> None:
        """Write what is queued and close the file. May be repeated."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._untap()
        self._later(RESERVE, str(self._highest))
        if self._writer is not None:
            await self._writer
        await self._db.close()

    # Writing

    def _later(self, sql: str, *parameters: Any) -> None:
        if self._queue_bytes > QUEUE_BYTES and sql != RESERVE:
            self._dropped += 1
            return
        self._queue.append((sql, parameters))
        self._queue_bytes += 200 + sum(len(one) for one in parameters if isinstance(one, (str, bytes)))
        self._work.set()

    async def _write_behind(self) -> None:
        """Write what is queued, `GATHER_S` after the first record came, or at once when closing."""
        while not (self._closing.is_set() and not self._queue):
            await self._work.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), GATHER_S)
            self._work.clear()
            batch, self._queue, self._queue_bytes = self._queue, [], 0
            if self._dropped:
                log.error("%d records of history and counters were not written: too many wait", self._dropped)
                self._dropped = 0
            if any(sql is REMEMBER for sql, _ in batch):
                batch.append((FORGET, (len(self._history),)))
            try:
                await self._commit(batch)
            except sqlite3.Error:
                # No answer depends on these, and a full disk must not stop the island.
                log.exception("%d records of history and counters could not be written", len(batch))

    async def _commit(self, batch: list[_Write]) -> None:
        async with self._writing:
            await self._db.execute("BEGIN IMMEDIATE")
            try:
                for sql, writes in itertools.groupby(batch, key=lambda write: write[0]):
                    await self._db.executemany(sql, [parameters for _, parameters in writes])
                await self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    await self._db.execute("ROLLBACK")
                raise

    async def _now(self, what: str, batch: list[_Write]) -> None:
        """Write before returning; a caller who is cancelled waits for the transaction to end.

        `what`: for the error message.
        """
        try:
            await finish(self._commit(batch))
        except sqlite3.Error as error:
            raise DriverError(f"cannot record {what} in {self.path}: {error}") from error

    # History

    def follow(self, events: Events) -> None:
        """Remember the invocations that finish from now on, and the jail numbers that are used."""
        self._untap = events.tap(self._fold, InvocationFinished, JailCreated)

    def _fold(self, event: Event) -> None:
        if isinstance(event, InvocationFinished):
            self._history.add(event)
            self._later(REMEMBER, _encode(event))
        elif isinstance(event, JailCreated) and (number := jail_number(event.jail)) > self._highest:
            self._highest = number
            if self._highest > self._reserved - JID_MARGIN // 2:
                self._reserved = self._highest + JID_MARGIN
                self._later(RESERVE, str(self._reserved))

    async def invocations(self, limit: int) -> list[InvocationFinished]:
        """The latest finished ones, newest first."""
        return list(itertools.islice(reversed(self._history), limit))

    async def invocation(self, id: str) -> InvocationFinished:  # noqa: A002
        """One of them.

        Raises:
            InvocationNotFound
        """
        for end in reversed(self._history):
            if end.invocation == id:
                return end
        what = f"{id!r} is not among the {len(self._history)} latest calls that are over"
        raise InvocationNotFound(f"{what}; `requests` lists them", invocation=id)

    # Artifacts (`builds.artifacts.Records`)

    async def artifacts(self) -> list[Artifact]:
        """All on record. Whoever asks keeps them in memory from then on; no copy of them is kept here."""
        return list(_decoded(await self._all("SELECT record FROM artifacts"), Artifact))

    async def put_artifact(self, artifact: Artifact) -> None:
        """Record one; it replaces that with the same key.

        Raises:
            DriverError: the file cannot be written.
        """
        record = _encode(artifact)
        await self._now(
            "an artifact", [("INSERT OR REPLACE INTO artifacts VALUES (?, ?)", (artifact.key, record))]
        )

    def touch_artifact(self, artifact: Artifact) -> None:
        """Record `used_at` and `hits`, later; an artifact that was dropped stays dropped."""
        self._later("UPDATE artifacts SET record = ? WHERE key = ?", _encode(artifact), artifact.key)

    async def drop_artifacts(self, keys: Iterable[str]) -> None:
        """Remove the records with these keys.

        Raises:
            DriverError: the file cannot be written.
        """
        await self._now("evictions", [("DELETE FROM artifacts WHERE key = ?", (key,)) for key in keys])

    def is_expression(self, function: Function) -> bool:
        """Whether `note_expression` was called for this function."""
        return function in self._expressions

    def note_expression(self, function: Function) -> None:
        """Record that each call of this function needs a build of its own: it cannot take its arguments from
        standard input, because it is generic, or no function at all."""
        self._later("INSERT OR IGNORE INTO expressions VALUES (?, ?, ?, ?)", *function)
        self._add_expression(function)

    def _add_expression(self, function: Function) -> None:
        if function in self._expressions:
            return
        self._expressions[function] = None
        self._expressions_bytes += _text_bytes(function)
        while len(self._expressions) > EXPRESSIONS or self._expressions_bytes > EXPRESSIONS_BYTES:
            oldest = next(iter(self._expressions))
            del self._expressions[oldest]
            self._expressions_bytes -= _text_bytes(oldest)
            self._later(
                'DELETE FROM expressions WHERE url = ? AND package = ? AND "commit" = ? AND function = ?',
                *oldest,
            )

    # Addresses (`jails.addresses.AddressStates`)

    async def taken_out(self) -> dict[str, float | None]:
        """The addresses that the operator took out, with when; None of what an earlier version recorded."""
        return dict(self._taken_out)

    async def set_address_state(self, ip: str, state: AddressState) -> None:
        """Record a state that the operator set, with the time.

        Raises:
            DriverError: the file cannot be written.
        """
        now = time.time()
        row = (ip, str(state), now)
        await self._now("an address", [("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", row)])
        self._taken_out.pop(ip, None)
        if state is AddressState.unavailable:
            self._taken_out[ip] = now

    # Commits (`sources.commits.KnownCommits`)

    def get(self, url: str, version: str) -> KnownCommit | None:
        """The commit that the remote last named for `version`, if it is remembered."""
        return self._commits.get((url, version))

    def versions(self, url: str) -> list[str]:
        """The versions of a repository that are remembered. Looks at all that are: some 10,000."""
        return [version for repository, version in self._commits if repository == url]

    async def put(self, url: str, version: str, known: KnownCommit) -> None:
        """Remember a commit. It is written later: if it is lost, the remote can be asked again."""
        self._commits.pop((url, version), None)
        self._commits[url, version] = known
        self._later(
            "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)", url, version, known.commit, known.at
        )
        if len(self._commits) > COMMITS:
            oldest = next(iter(self._commits))
            del self._commits[oldest]
            self._later("DELETE FROM commits WHERE url = ? AND version = ?", *oldest)


def _text_bytes(texts: Iterable[str]) -> int:
    return sum(map(len, texts))


def _make_private(path: Path) -> None:
    """Make an empty file of mode 0600, if there is none, before SQLite does; its WAL gets the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _set_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


def _encode(record: Struct) -> bytes:
    return msgspec.json.encode(record, enc_hook=str)


def _decoded(rows: Iterable[tuple[bytes]], kind: type[T]) -> Iterator[T]:
    """The records of `kind` in `rows`, without those that an earlier version wrote in another form."""
    for (record,) in rows:
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(record, type=kind, dec_hook=lambda path, text: path(text))


def _tag_of(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:4]
