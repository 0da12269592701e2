"""Records, results and keys of calls on streams: `Results` (later/keeping.py) for all islands of a fleet.

A call's record is the last message of its subject, with the result behind it. Whoever writes one names the
message that it follows, so two islands that ran a call leave one result: the first. A reply or result of more
than `INLINE_BYTES` is kept in pieces (`pieces`) before the record that names them is written.

Lists come from an index in memory (`index`), read from the headers of the records when somebody asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct, structs
from nats.js import api

from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.fleet.index import ABOUT, About, Index
from skyisland.fleet.line import Away, Listening, Message
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.pieces import INLINE_BYTES, Pieces
from skyisland.fleet.streams import Conflict, Stored, Stream
from skyisland.fleet.subjects import Subjects
from skyisland.fleet.words import is_word, kept
from skyisland.host.recent import Recent
from skyisland.host.tasks import cancel_all
from skyisland.later.calls import Callback, Claim, Record, read, written
from skyisland.later.keeping import Change, NotKept, Standing, Wanted
from skyisland.status import LineState
from skyisland.wire import Problem

log = logging.getLogger(__name__)

CLAIM_S = 60.0
"""A claim whose caller waits ends so long after its island was heard of. Its clock and that of another island
may differ by less."""
RENEW_S = 15.0
SEEN = 10_000
"""Calls whose last message is known without asking."""
AT_ONCE = 32
"""Records that are read or deleted beside each other."""
PIECES = "Sky-Pieces"
"""The header of a record whose result lies in pieces: their name."""
CHANGE_BYTES = 1024
SHOWN = 1000
"""Characters of an error that is too long for a message."""


class Told(Struct, frozen=True):
    """What an island tells others of a call that it noted something of."""

    node: str
    attempt: str
    final: bool


class _Watch:
    """A bucket of calls, of which some are watched."""

    def __init__(self) -> None:
        self.watchers = 0
        self.beginning = asyncio.Lock()
        self.listening: Listening | None = None


class _Key(Struct, frozen=True, omit_defaults=True):
    """What an Idempotency-Key stands for, as it is kept."""

    body: bytes
    at: float
    call: str = ""
    reply: bytes | None = None
    pieces: str = ""
    """The name of the pieces that the reply is in."""


_key = msgspec.json.Decoder(_Key)


class NatsResults:
    """`Results` on streams. `make` each time that the servers are reached."""

    def __init__(
        self,
        line: NatsLine,
        subjects: Subjects,
        *,
        keep_s: float,
        keep_dead_s: float,
        limit_bytes: int,
        replicas: int,
    ) -> None:
        self._line, self._subjects = line, subjects
        self._keep_s, self._keep_dead_s, self._limit_bytes = keep_s, keep_dead_s, limit_bytes
        longest_s = max(keep_s, keep_dead_s)
        # The servers' bounds are a second line: `expire` keeps closer ones, and knows what is over.
        keep_there_s, most_bytes = longest_s * 1.25, limit_bytes * 5 // 4
        self._records = self._stream("RESULTS", "result", replicas, keep_there_s, most_bytes)
        self._keys = self._stream("IDEM", "idem", replicas, keep_s, limit_bytes // 4)
        out = self._stream("OUT", "out", replicas, keep_there_s, most_bytes, words=2)
        self._pieces = Pieces(out, subjects)
        self._once = self._stream("ONCE", "once", replicas, 0.0, -1)
        self._index = Index(self._records)
        self._seen: Recent[str, int] = Recent(SEEN)
        """The number of a call's last message, for calls that this island wrote of or will."""
        self._mine: dict[str, tuple[Claim, int]] = {}
        """Claims of calls that run here while their callers wait, by their subjects."""
        self._watches: dict[str, _Watch] = {}
        """By the bucket that calls are watched in: a connection may have no more than some subscriptions."""
        self._changed: Callable[[Change], None] = lambda _: None
        self._secret = b""
        self._renewing: asyncio.Task[None] | None = None

    def _stream(
        self, kind: str, word: str, replicas: int, keep_s: float, most_bytes: int, words: int = 1
    ) -> Stream:
        return Stream(
            self._line,
            api.StreamConfig(
                name=self._subjects.bucket(kind),
                subjects=[self._subjects.kept(word, *["*"] * words)],
                storage=api.StorageType.FILE,
                num_replicas=replicas,
                max_msgs_per_subject=1,
                max_age=keep_s,
                max_bytes=most_bytes,
                duplicate_window=min(120.0, keep_s or 120.0),
            ),
        )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._records, self._keys, self._pieces.stream, self._once

    # Life

    def open(self) -> None:
        self._renewing = asyncio.create_task(self._renew())

    async def make(self) -> None:
        """Make the streams, if they are not there, and the secret.

        Raises:
            Away
        """
        for stream in self.streams:
            await stream.make()
        subject = self._subjects.kept("once", "callbacks")
        if not self._secret:
            with contextlib.suppress(Conflict):
                await self._once.publish(subject, secrets.token_bytes(32), last=0)
            stored = await self._once.last(subject)
            self._secret = stored.body if stored is not None else b""

    async def close(self) -> None:
        await cancel_all(self._renewing)

    @property
    def secret(self) -> bytes:
        if not self._secret:
            raise NotKept("the fleet's servers are away, and have the callbacks' secret", retry_after_s=5)
        return self._secret

    # Who watches

    def follow(self, changed: Callable[[Change], None]) -> None:
        self._changed = changed

    @asynccontextmanager
    async def watched(self, call_id: str) -> AsyncIterator[None]:
        if not is_word(call_id):
            yield
            return
        bucket = _bucket(call_id)
        watch = self._watches.setdefault(bucket, _Watch())
        watch.watchers += 1
        try:
            async with watch.beginning:
                if watch.listening is None:
                    watch.listening = await self._line.listen(self._subjects.told(bucket, "*"), self._hear)
            yield
        finally:
            watch.watchers -= 1
            if not watch.watchers:
                del self._watches[bucket]
                if watch.listening is not None:
                    await watch.listening.end()

    def _hear(self, message: Message) -> None:
        try:
            told = unpack(message.data, Told, most_bytes=CHANGE_BYTES)
        except BadFrame:
            return
        if told.node != self._subjects.node:
            call = message.subject.rpartition(".")[2]
            self._changed(Change(call=call, attempt=told.attempt, final=told.final))

    async def _tell(self, record: Record) -> None:
        attempt = record.attempts[-1].id if record.state == "running" and record.attempts else ""
        told = Told(self._subjects.node, attempt, record.state.final)
        with contextlib.suppress(Away):
            await self._line.publish(self._subjects.told(_bucket(record.id), record.id), pack(told))

    # Records

    def _subject(self, call_id: str) -> str:
        return self._subjects.kept("result", call_id)

    async def note(self, record: Record, result: bytes | None = None, *, anew: bool = False) -> bool:
        if not is_word(record.id):
            raise NotKept(f"{record.id[:64]!r} can be no call's id")
        with kept():
            noted = await self._note(record, result, anew=anew)
        if noted:
            await self._tell(record)
        return noted

    async def _note(self, record: Record, result: bytes | None, *, anew: bool) -> bool:
        content, pieces = written(record), ""
        if len(content) > INLINE_BYTES and record.error is not None:  # by a compiler's output
            record = structs.replace(record, error=Problem(record.error.error[:SHOWN], record.error.code))
            content = written(record)
        size = len(content) + len(result or b"")
        if result is not None and size > INLINE_BYTES:
            pieces, result = await self._pieces.put(result), None
        last = self._seen.get(record.id) or 0
        while True:
            try:
                seq = await self._write(record, content, result, pieces, size, last)
                break
            except Conflict:
                before = await self._records.last(self._subject(record.id))
            except BaseException:
                await self._pieces.drop(pieces)
                raise
            last = before.seq if before is not None else 0
            there = record_of(before)
            if there is not None and not anew:
                # Whoever notes what was so before another island went on, or ended it, comes too late.
                late = not record.state.final and len(there.attempts) > len(record.attempts)
                if there.state.final or late:
                    await self._pieces.drop(pieces)
                    return not there.state.final
        if record.state.final:
            self._seen.pop(record.id)
        else:
            self._seen[record.id] = seq
        return True

    async def _write(
        self, record: Record, content: bytes, result: bytes | None, pieces: str, size: int, last: int
    ) -> int:
        about = About(
            record.client,
            record.state,
            record.name,
            record.created_at,
            record.ended_at,
            size if record.state.final else 0,
            pieces,
        )
        headers = {ABOUT: json.dumps(msgspec.to_builtins(about))} | ({PIECES: pieces} if pieces else {})
        body = content if result is None else content + b"\n" + result
        return await self._records.publish(self._subject(record.id), body, last=last, headers=headers)

    async def note_callback(self, call_id: str, callback: Callback) -> None:
        if not is_word(call_id):
            return
        with kept():
            while (before := await self._records.last(self._subject(call_id))) is not None:
                if (record := record_of(before)) is None:
                    return
                record.callback = callback
                content, result = written(record), before.body.partition(b"\n")[2] or None
                pieces = before.headers.get(PIECES, "")
                size = len(content) + len(result or b"")
                with contextlib.suppress(Conflict):
                    await self._write(record, content, result, pieces, size, before.seq)
                    return

    async def get(self, call_id: str) -> Record | None:
        if not is_word(call_id):
            return None
        with kept():
            stored = await self._records.last(self._subject(call_id))
            record = record_of(stored)
            if stored is None or record is None:
                return None
            if not record.state.final and call_id not in self._seen:
                self._seen[call_id] = stored.seq
            if pieces := stored.headers.get(PIECES):
                result = await self._pieces.get(pieces)
                if result is not None:
                    record.result = msgspec.Raw(result)
        return record

    async def find(self, wanted: Wanted) -> list[Record]:
        with kept():
            await self._index.refresh()
            ids = await self._index.find(wanted)
            found: list[Record] = []
            for some in _some(ids):
                stored = await asyncio.gather(*(self._records.last(self._subject(one)) for one in some))
                for call_id, one in zip(some, stored, strict=True):
                    if (record := record_of(one)) is None:  # another island deleted it, or it was too old
                        self._index.forget(call_id)
                    else:
                        record.result = msgspec.UNSET
                        found.append(record)
        return found

    async def standing(self) -> Standing:
        with kept():
            await self._index.refresh()
        return await self._index.standing()

    async def delete(self, ids: list[str]) -> None:
        with kept():
            for some in _some([one for one in ids if is_word(one)]):
                await asyncio.gather(*(self._delete(one) for one in some))

    async def _delete(self, call_id: str) -> None:
        await self._records.purge(self._subject(call_id))
        self._seen.pop(call_id)
        await self._pieces.drop(self._index.forget(call_id))

    async def expire(self, now: float) -> list[str]:
        with kept():
            await self._index.refresh()
            gone = await self._index.old(now - self._keep_s, now - self._keep_dead_s, self._limit_bytes)
        await self.delete(gone)
        return gone

    # Keys

    def _key_subject(self, claim: Claim) -> str:
        digest = hashlib.sha256(f"{claim.client}\0{claim.key}".encode()).hexdigest()
        return self._subjects.kept("idem", digest)

    async def claim(self, claim: Claim, now: float) -> Claim:
        subject, last = self._key_subject(claim), 0
        mine = msgspec.json.encode(_Key(claim.body, now, claim.call))
        with kept():
            while True:
                try:
                    seq = await self._keys.publish(subject, mine, last=last)
                except Conflict:
                    stored = await self._keys.last(subject)
                    if stored is None:
                        last = 0
                        continue
                    held = _held(stored)
                    if held is None:
                        last = stored.seq
                        continue
                    waits = not held.call and held.reply is None and not held.pieces
                    if held.at < now - (CLAIM_S if waits else self._keep_s):
                        last = stored.seq  # whose island ended, or too old
                        continue
                    reply = await self._pieces.get(held.pieces) if held.pieces else held.reply
                    return Claim(
                        client=claim.client,
                        key=claim.key,
                        body=held.body,
                        call=held.call,
                        reply=reply,
                        at=held.at,
                    )
                if not claim.call:
                    self._mine[subject] = claim, seq
                return claim

    async def answered(self, claim: Claim, reply: bytes) -> None:
        subject, pieces = self._key_subject(claim), ""
        _, last = self._mine.pop(subject, (claim, None))
        with kept():
            if len(reply) > INLINE_BYTES // 2:  # of which JSON makes a third more
                pieces = await self._pieces.put(reply)
            kept_reply = None if pieces else reply
            content = msgspec.json.encode(_Key(claim.body, time.time(), "", kept_reply, pieces))
            with contextlib.suppress(Conflict):  # somebody has it who took this island for lost
                await self._keys.publish(subject, content, last=last)

    async def release(self, claim: Claim) -> None:
        subject = self._key_subject(claim)
        self._mine.pop(subject, None)
        with kept():
            await self._keys.purge(subject)

    async def _renew(self) -> None:
        """Say of claims whose calls run here that they do."""
        while True:
            await asyncio.sleep(RENEW_S)
            for subject, (claim, last) in [*self._mine.items()]:
                if self._line.state is not LineState.joined:
                    break
                with contextlib.suppress(Away, Conflict):
                    content = msgspec.json.encode(_Key(claim.body, time.time()))
                    seq = await self._keys.publish(subject, content, last=last)
                    if subject in self._mine:
                        self._mine[subject] = claim, seq


def record_of(stored: Stored | None) -> Record | None:
    """A record as it lies in the stream; None if there is none, or no island wrote it. Linear."""
    if stored is None:
        return None
    content, _, result = stored.body.partition(b"\n")
    try:
        return read(content, result or None)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        log.error("what the fleet keeps on %s is no record that an island wrote", stored.subject)
        return None


def _held(stored: Stored) -> _Key | None:
    """A key as it lies in the stream; None if no island wrote it. Linear, of a message."""
    try:
        return _key.decode(stored.body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        log.error("what the fleet keeps on %s is no key that an island wrote", stored.subject)
        return None


def _bucket(call_id: str) -> str:
    return hashlib.blake2b(call_id.encode(), digest_size=1).hexdigest()


def _some(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
