"""Names on a stream: `Names` (named/names.py) for all islands of a fleet.

A name is a subject, and its revisions are the messages on it. Whoever adds one names the message that it
follows, so of two admins on two islands one comes first. A name that was deleted is a last message without
content.

Each island has all names in memory, for calls wait for nothing, and in a file of its own, so that it knows
them when it starts while the servers are away. It learns of changes from whoever makes them, and looks every
`LOOK_S` whether it missed one: no watch, for that is silent for ever after a restart of the server. Secrets
are names here; their values are where each island has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from nats.js import api

from skyisland.errors import DriverError
from skyisland.fleet.buckets import NatsBucket
from skyisland.fleet.line import Away, Listening, Message
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.streams import Conflict, Full, Making, Stored, Stream
from skyisland.fleet.subjects import Subjects
from skyisland.host.tasks import aside, cancel_all
from skyisland.named.definition import NAME, Revision
from skyisland.named.names import KEPT, check_follows, name_not_found, stale
from skyisland.named.schedule import Fired
from skyisland.settings.files import write_private
from skyisland.status import LineState

log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_S = 5.0
AT_ONCE = 32
"""Names that are read beside each other."""
BEHIND = 64
"""Behind by more messages than this, an island reads every name's last one in place of each message."""

_revision = msgspec.json.Decoder(Revision)
_fired = msgspec.json.Decoder(Fired)


class _Known(Struct):
    """The file of an island: the names of a fleet."""

    fleet: str
    names: list[Revision]


_known = msgspec.json.Decoder(_Known)


class NatsNames:
    """`Names` on a stream. Make it with `open`."""

    def __init__(self, line: NatsLine, subjects: Subjects, path: Path, replicas: int) -> None:
        self._line, self._subjects, self._path = line, subjects, path
        self._stream = Stream(
            line,
            api.StreamConfig(
                name=subjects.bucket("NAMES"),
                subjects=[subjects.kept("name", "*")],
                storage=api.StorageType.FILE,
                num_replicas=replicas,
                max_msgs_per_subject=KEPT,
                duplicate_window=120.0,
            ),
        )
        self._schedules = NatsBucket(line, subjects.bucket("FIRED"), replicas=replicas)
        """How far each name's schedule is."""
        self._latest: dict[str, Revision] = {}
        self._numbers: dict[str, int] = {}
        """The number of each name's last message, of deleted ones too."""
        self._read = 0
        """The number of the last message that is known."""
        self._made = False
        self._changed: Callable[[str], None] = lambda _: None
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._making = Making(line, self._make)
        self._listening: Listening | None = None

    # Life

    @classmethod
    async def open(cls, line: NatsLine, subjects: Subjects, path: Path, *, replicas: int = 1) -> NatsNames:
        """Know the names of this island's last life, which are in the file at `path`, and follow those of the
        fleet from now on."""
        names = cls(line, subjects, path, replicas)
        try:
            content = await aside(path.read_bytes)
            known = _known.decode(content)
            if known.fleet == subjects.fleet:
                names._latest = {one.name: one for one in known.names}
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read (%s); names are the fleet's alone", path, error)
        await names._begin()
        return names

    async def _begin(self) -> None:
        self._listening = await self._line.listen(self._subjects.renamed, self._hear)
        self._looking = asyncio.create_task(self._look())
        await self._making.start()

    async def _make(self) -> None:
        await self._stream.make()
        if self._latest and await self._stream.last_seq() == 0:
            log.warning("the fleet's servers have lost all names; they get those that this island knows")
            for revision in self.all():
                with contextlib.suppress(Conflict):  # another island was sooner
                    content = msgspec.json.encode(revision)
                    await self._stream.publish(self._subject(revision.name), content, last=0)
        self._made = True
        await self._catch_up()

    async def close(self) -> None:
        await self._making.close()
        await cancel_all(self._looking)
        if self._listening is not None:
            await self._listening.end()

    # What others changed

    def follow(self, changed: Callable[[str], None]) -> None:
        self._changed = changed

    def _hear(self, message: Message) -> None:
        self._news.set()

    async def refresh(self) -> None:
        with contextlib.suppress(Away):
            await self._catch_up()

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            self._news.clear()
            if self._made and self._line.state is LineState.joined:
                await self.refresh()

    async def _catch_up(self) -> None:
        """Read what is new in the stream.

        Raises:
            Away
        """
        async with self._reading:
            last = await self._stream.last_seq()
            if last == self._read and self._read:
                return
            if last < self._read or last - self._read > BEHIND or not self._read:
                messages = await self._all()
                known = {message.subject for message in messages}
                gone = [name for name in self._latest if self._subject(name) not in known]
            else:
                messages, gone = [], []
                at: Stored | None = await self._stream.after(self._read, self._subjects.kept("name", "*"))
                while at is not None and at.seq <= last:
                    messages.append(at)
                    at = await self._stream.after(at.seq, self._subjects.kept("name", "*"))
            changed = [name for message in messages if (name := self._take(message))]
            for name in gone:
                del self._latest[name]
            self._read = last
            if changed or gone:
                await self._remember()
        for name in dict.fromkeys([*changed, *gone]):
            self._changed(name)

    async def _all(self) -> list[Stored]:
        subjects = await self._stream.subjects(self._subjects.kept("name", "*"))
        found: list[Stored | None] = []
        for start in range(0, len(subjects), AT_ONCE):
            some = subjects[start : start + AT_ONCE]
            found += await asyncio.gather(*(self._stream.last(subject) for subject in some))
        return [one for one in found if one is not None]

    def _take(self, message: Stored) -> str:
        """Know what a message says; returns the name, if it says anything new."""
        name = message.subject.rpartition(".")[2].replace("/", ".")
        if not NAME.fullmatch(name) or message.seq <= self._numbers.get(name, 0):
            return ""
        self._numbers[name] = message.seq  # also of what is none: a change follows it
        revision = _read(_revision, message.body, name) if message.body else None
        if message.body and (revision is None or revision.name != name):
            return ""
        if revision == self._latest.get(name):
            return ""
        if revision is None:
            del self._latest[name]
        else:
            self._latest[name] = revision
        return name

    async def _remember(self) -> None:
        content = msgspec.json.encode(_Known(self._subjects.fleet, self.all())).decode()
        try:
            await aside(write_private, self._path, content, replace=True)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)

    # The room

    def get(self, name: str) -> Revision | None:
        return self._latest.get(name)

    def all(self) -> list[Revision]:
        return [self._latest[name] for name in sorted(self._latest)]

    async def put(self, revision: Revision) -> None:
        name = revision.name
        check_follows(self._latest.get(name), revision.revision, name)
        await self._add(name, msgspec.json.encode(revision))

    async def history(self, name: str) -> list[Revision]:
        if name not in self._latest:
            return []
        found: list[Revision] = []
        at = await self._stream.after(0, self._subject(name))
        while at is not None:
            # One that was deleted and defined again has the revisions of its present life alone.
            if not at.body:
                found = []
            elif (revision := _read(_revision, at.body, name)) is not None:
                found.append(revision)
            at = await self._stream.after(at.seq, self._subject(name))
        return found[::-1]

    async def delete(self, name: str, latest: int) -> None:
        check_follows(self._latest.get(name), latest + 1, name)
        if latest == 0:
            raise name_not_found(name)
        await self._add(name, b"")
        with contextlib.suppress(Away):
            await self._schedules.delete(_key(name))

    async def fired(self, name: str) -> Fired | None:
        entry = await self._schedules.get(_key(name))
        return _read(_fired, entry.value, name) if entry is not None else None

    async def note_fired(self, name: str, fired: Fired | None) -> None:
        if fired is None or name not in self._latest:
            await self._schedules.delete(_key(name))
        else:
            await self._schedules.put(_key(name), msgspec.json.encode(fired))

    async def _add(self, name: str, content: bytes) -> None:
        """Have a message follow the last one that this island knows of a name.

        Raises:
            StaleRevision: another island's came first.
            DriverError, Away
        """
        try:
            seq = await self._stream.publish(self._subject(name), content, last=self._numbers.get(name, 0))
        except Conflict:
            await self._catch_up()
            latest = self._latest.get(name)
            raise stale(name, latest.revision if latest is not None else 0) from None
        except Full as full:
            raise DriverError(f"the fleet's servers cannot keep a name: {full}") from None
        async with self._reading:
            self._take(Stored(seq, self._subject(name), content, {}))
            await self._remember()
        with contextlib.suppress(Away):
            await self._line.publish(self._subjects.renamed, b"")

    def _subject(self, name: str) -> str:
        return self._subjects.kept("name", _key(name))


def _read(decoder: msgspec.json.Decoder[T], data: bytes, name: str) -> T | None:
    """What the servers keep of a name; None if no island wrote it. Linear, of a message."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        log.error("what the fleet has of the name %s is none that an island wrote", name)
        return None


def _key(name: str) -> str:
    """The name as one word of a subject, or of a bucket."""
    return name.replace(".", "/")
