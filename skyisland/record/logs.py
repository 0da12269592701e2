"""The log: a bounded ring of lines for console and API, and a stream of JSON lines for an island without a
console.

Both take the records of `logging`, of every library, and the island's events. In a JSON line, control
characters, line separators and everything beyond ASCII are escaped, so that neither a caller nor a jail can
forge a line or reach a terminal's escape sequences. `secrets` are replaced wherever they turn up;
more may be added later.

    {"time":1763773200.123,"level":"INFO","event":"JailCreated","jail":"sky-a-1f","jid":31,…}
    {"time": 1763773201.5, "level": "WARNING", "logger": "skyisland.pool", "message": "…", "exc_info": null}

Events have levels as records have. What is one step of a call is DEBUG, and its end INFO: one line for each
call. An end that the function did not choose, a build that fails and a refusal for want of room are
WARNING; what only the island or its host can be blamed for is ERROR.

Whoever logs never waits for a reader of the log: a thread writes the lines, and drops and counts those that
its reader is too slow for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import BinaryIO

import msgspec
from msgspec import Struct, structs

from skyisland.events import (
    AddressLeased,
    AddressReleased,
    AddressStateSet,
    ArtifactEvicted,
    BuildFinished,
    Event,
    Events,
    InvocationFinished,
    InvocationStarted,
    IslandStarted,
    IslandStopped,
    JailCreated,
    JailDestroyed,
    JailKilled,
    Latest,
    SourceFetched,
    shortened,
    size_of,
)

REDACTED = "[secret]"
QUIET = ("aiosqlite", "asyncio", "git", "httpcore", "httpx", "hypercorn", "pyroute2", "urllib3")
"""Libraries that log each of their steps: only their warnings are taken."""
LONG_EVENT = 1250
"""From this many bytes on, the ring keeps the line of an event, whose texts are cut, in
place of the event: so one who sends long texts drives few lines out."""
TEXT_SHOWN = 160
"""Characters of each text of a caller's in a line of the ring: a call fits, a program does not."""
LINE_TEXT = 4000
"""Characters of a record's message, and of each text beside it: more than any of our own has."""
TRACEBACK_TEXT = 16_000
"""Characters of a traceback, of which the end is kept."""
LINE_BYTES = 300
"""About what a line of the ring keeps in memory beside its text."""
RING_BYTES = 4 << 20
"""Memory of the ring; 5000 lines of our own take half of it."""
WAITING_BYTES = 16 << 20
"""Lines that wait for their writer; of more, the new ones are lost."""


def printable(text: str) -> str:
    """`text` with an escape in place of each character that is not visible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    """`text` with its lines and tabs, and an escape for each other character that is not visible: a terminal
    takes no orders from it."""
    return re.sub(r"[^\n\t]+", lambda line: printable(line[0]), text)


def redacted(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, REDACTED)
    return text


class LogLine(Struct, frozen=True, kw_only=True):
    """A line of the log, for people: printable characters only."""

    seq: int
    """Rises by one with each line, from 1 when the island starts."""
    at: float
    """Unix time."""
    level: str
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    logger: str
    text: str
    jail: str | None = None
    invocation: str | None = None


def _cut(text: str) -> str:
    return shortened(text, TEXT_SHOWN)


def _called(event: InvocationStarted | InvocationFinished) -> str:
    caller = f" (the caller: {event.caller_id})" if event.caller_id else ""
    return f"{_cut(event.url)} {_cut(event.call)}{caller}"


def _kept(entry: LogLine | Event) -> int:
    """The bytes that an entry of the ring keeps."""
    return LINE_BYTES + 4 * len(entry.text) if isinstance(entry, LogLine) else size_of(entry)


TEXTS: dict[type[Event], Callable[..., str]] = {
    IslandStarted: lambda e: f"island started, {e.swept} leftovers swept",
    InvocationStarted: lambda e: _called(e),
    SourceFetched: lambda e: f"fetched {_cut(e.url)} at {e.commit[:12]} in {e.duration_s:.3f} s",
    BuildFinished: lambda e: (
        f"built {e.function} of {_cut(e.url)} in {e.duration_s:.3f} s"
        if e.ok
        else f"could not build {e.function} of {_cut(e.url)}: {_cut(e.cause.text if e.cause else 'unknown')}"
    ),
    ArtifactEvicted: lambda e: f"evicted {e.function} of {_cut(e.url)}: {e.reason}",
    JailCreated: lambda e: f"{e.purpose} jail created in {e.duration_s * 1000:.1f} ms",
    JailKilled: lambda e: f"jail killed: {_cut(e.reason)}",
    JailDestroyed: lambda e: f"jail destroyed in {e.duration_s * 1000:.1f} ms",
    AddressLeased: lambda e: f"leased {e.ip}",
    AddressReleased: lambda e: f"released {e.ip}",
    AddressStateSet: lambda e: f"{e.ip} set {e.state}",
    InvocationFinished: lambda e: (
        f"{_called(e)}: {_cut(e.cause.text) if e.cause else e.verdict} in {e.timings.total_s * 1000:.1f} ms"
    ),
}
"""The text of a line for each kind of event; the other kinds have none."""

_LEVELS: dict[type[Event], int] = {
    IslandStarted: logging.INFO,
    IslandStopped: logging.INFO,
    ArtifactEvicted: logging.INFO,
    AddressStateSet: logging.INFO,
    JailKilled: logging.WARNING,
}
"""The other kinds are steps of a call: DEBUG; but for those that `level_of` looks into."""
_AS_CALLED = frozenset({"ok", "failed", "cancelled", "bad_request", "bad_call", "source_refused", "draining"})
"""Ends of calls that nobody but their callers need know of."""
_OF_THE_HOST = frozenset({"internal", "driver_error", "host_unfit", "bad_settings"})
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}  # sd-daemon(3)


def level_of(event: Event) -> int:
    """Of `logging`."""
    kind = type(event)
    if kind is InvocationFinished:
        verdict = event.verdict  # type: ignore[attr-defined] # `kind` says so
        if verdict in _AS_CALLED:
            return logging.INFO
        return logging.ERROR if verdict in _OF_THE_HOST else logging.WARNING
    if kind is BuildFinished:
        return logging.DEBUG if event.ok else logging.WARNING  # type: ignore[attr-defined] # as above
    return _LEVELS.get(kind, logging.DEBUG)


def _priority(level: int) -> bytes:
    """What journald takes for the priority of the line that follows."""
    return b"<%d>" % _PRIORITIES.get(level, 6 if level < logging.ERROR else 3)


def is_journal(stream: BinaryIO, journal_stream: str) -> bool:
    """Whether what is written to `stream` goes to systemd's journal.

    `journal_stream`: of the environment, the device and inode that lead there (systemd.exec(5)).
    """
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{about.st_dev}:{about.st_ino}"


class LogRing(logging.Handler):
    """The latest lines: takes records as a handler, and events as a tap (`fold`).

    It keeps events as they are and makes lines of them when somebody reads it. Most are forgotten before.
    """

    def __init__(self, limit: int = 5000, *, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._entries: Latest[LogLine | Event] = Latest(_kept, RING_BYTES, limit)
        self._secrets = secrets
        self._seq = 0
        """Of the latest entry; those before it follow without a gap."""
        self._lock = threading.Lock()

    def fold(self, event: Event) -> None:
        """Take in an event, if its kind has a text and its level is high enough."""
        if type(event) not in TEXTS or level_of(event) < self.level:
            return
        if size_of(event) >= LONG_EVENT:
            self._append(lambda seq: self._line_of(seq, event))
            return
        with self._lock:
            self._seq += 1
            self._entries.add(event)

    def _line_of(self, seq: int, event: Event) -> LogLine:
        return self._line(
            seq,
            event.at,
            level_of(event),
            "events",
            TEXTS[type(event)](event),
            getattr(event, "jail", None),
            event.invocation,
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {record.exc_info[1]!r}"
            jail, invocation = getattr(record, "jail", None), getattr(record, "invocation", None)
            about = record.created, record.levelno, record.name, text, jail, invocation
            self._append(lambda seq: self._line(seq, *about))
        except Exception:
            self.handleError(record)

    def _append(self, line: Callable[[int], LogLine]) -> None:
        with self._lock:
            self._seq += 1
            self._entries.add(line(self._seq))

    def _line(
        self,
        seq: int,
        at: float,
        level: int,
        logger: str,
        text: str,
        jail: str | None,
        invocation: str | None,
    ) -> LogLine:
        return LogLine(
            seq=seq,
            at=at,
            level=logging.getLevelName(min(level, logging.ERROR)),
            logger=logger,
            # Redacted first, lest half a secret is left; cut again, for an escape is ten times its character.
            text=shortened(printable(shortened(redacted(text, self._secrets), LINE_TEXT)), LINE_TEXT),
            jail=jail,
            invocation=invocation,
        )

    def lines(self, *, jail: str | None = None, after: int = 0, limit: int | None = None) -> list[LogLine]:
        """The lines with a `seq` above `after`, oldest first, the latest `limit` of them.

        `jail`: only the lines of the jail with this name, and of the invocations that it served.
        """
        with self._lock:
            entries = list(enumerate(self._entries, self._seq - len(self._entries) + 1))
        if jail is not None:
            of_jail = [entry for _, entry in entries if getattr(entry, "jail", None) == jail]
            served = {entry.invocation for entry in of_jail if entry.invocation}
            entries = [
                (seq, entry)
                for seq, entry in entries
                if getattr(entry, "jail", None) == jail or entry.invocation in served
            ]
        entries = [(seq, entry) for seq, entry in entries if seq > after]
        if limit is not None:
            entries = entries[max(0, len(entries) - limit) :]
        return [entry if isinstance(entry, LogLine) else self._line_of(seq, entry) for seq, entry in entries]


def _bytes_of(item: list[Event] | bytes) -> int:
    """About the memory of what waits for the writer."""
    return len(item) if isinstance(item, bytes) else sum(map(size_of, item))


_PLAIN = logging.Formatter()
_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""Attributes that a record has without anybody's `extra`; two are added by formatters."""


class JsonLines(logging.Handler):
    """Writes JSON lines to `stream`: of records as a handler, of events as a tap (`fold`)."""

    FLUSH_S = 0.05
    """How long events gather for the writer. To wake its thread for each event of a busy island would cost
    more than the lines do."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        secrets: Collection[str] = (),
        limit: int = 20_000,
        priorities: bool = False,
    ) -> None:
        """`limit`: batches of events and records that wait for the writer. `priorities`: begin each line with
        one, as journald reads it."""
        super().__init__()
        self.dropped = 0
        """Lines that the reader of the log was too slow for."""
        self._stream = stream
        self._secrets = secrets
        self._priorities = priorities
        self._queue: queue.Queue[list[Event] | bytes | None] = queue.Queue(limit)
        self._waiting_bytes = 0
        self._counting = threading.Lock()
        self._batch: list[Event] = []
        self._encoder = msgspec.json.Encoder()
        self._writer = threading.Thread(target=self._write_all, name="log writer", daemon=True)
        self._writer.start()

    # On the threads of those who log

    def fold(self, event: Event) -> None:
        """Take in an event, if its level is high enough; to be called on the event loop's thread."""
        if level_of(event) < self.level:
            return
        if not self._batch:
            asyncio.get_running_loop().call_later(self.FLUSH_S, self._hand_over)
        self._batch.append(event)

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._put(batch, len(batch))

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, with what its `extra` added. Not left to the writer: a message's arguments may
        change meanwhile."""
        traceback = None
        if record.exc_info:
            traceback = redacted(_PLAIN.formatException(record.exc_info), self._secrets)
            if len(traceback) > TRACEBACK_TEXT:
                traceback = f"…{traceback[1 - TRACEBACK_TEXT :]}"
        fields = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": self._bounded(record.getMessage()),
            "exc_info": traceback,
        }
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                plain = value is None or isinstance(value, (int, float))
                fields[name] = value if plain else self._bounded(str(value))
        return json.dumps(fields)

    def _bounded(self, text: str) -> str:
        return shortened(redacted(text, self._secrets), LINE_TEXT)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._before(record.levelno) + self.format(record).encode()
        except Exception:
            self.handleError(record)
        else:
            self._put(line, 1)

    def _before(self, level: int) -> bytes:
        return _priority(level) if self._priorities else b""

    def _put(self, item: list[Event] | bytes, lines: int) -> None:
        with self._counting:
            full = self._waiting_bytes >= WAITING_BYTES
            if not full:
                self._waiting_bytes += _bytes_of(item)
        try:
            if full:
                raise queue.Full
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += lines
            if not full:
                self._done(item)

    def _done(self, item: list[Event] | bytes) -> None:
        with self._counting:
            self._waiting_bytes -= _bytes_of(item)

    def close(self) -> None:
        """Write what waits, and end. Blocks for two seconds at most, should the reader have stalled."""
        if self._writer.is_alive():
            self._hand_over()
            try:
                self._queue.put(None, timeout=1)
            except queue.Full:
                pass
            else:
                self._writer.join(1)
        super().close()

    # On the writer's thread

    def _write_all(self) -> None:
        reported = 0
        while (item := self._queue.get()) is not None:
            lines = [item] if isinstance(item, bytes) else [self._line(event) for event in item]
            if self.dropped != reported:
                reported = self.dropped
                lost = b'{"level":"WARNING","message":"log lines lost","lost":%d}' % reported
                lines.append(self._before(logging.WARNING) + lost)
            text = b"\n".join(lines) + b"\n"
            for secret in filter(None, tuple(self._secrets)):
                text = text.replace(json.dumps(secret)[1:-1].encode(), REDACTED.encode())
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self.dropped += len(lines)
            self._done(item)

    def _line(self, event: Event) -> bytes:
        if type(event) is InvocationFinished:
            event = structs.replace(event, request=None)  # it may hold what no log should
        fields = msgspec.to_builtins(event)
        level = level_of(event)
        line = {"time": fields.pop("at"), "level": logging.getLevelName(level), **fields}
        data = self._encoder.encode({key: value for key, value in line.items() if value is not None})
        if not data.isascii():
            data = json.dumps(json.loads(data), separators=(",", ":")).encode()
        data = data.replace(b"\x7f", b"\\u007f")  # the one character of ASCII that msgspec does not escape
        return self._before(level) + data


def set_level(level: int | str) -> None:
    """From now on, take in records and events of this level and above."""
    root = logging.getLogger()
    root.setLevel(level)
    for handler in root.handlers:
        if isinstance(handler, LogRing | JsonLines):
            handler.setLevel(level)


@asynccontextmanager
async def logging_to(
    ring: LogRing,
    events: Events,
    *,
    level: int | str = logging.INFO,
    secrets: Collection[str] = (),
    journal_stream: str = "",
) -> AsyncIterator[Callable[[BinaryIO], None]]:
    """Send all records and events of this level to `ring` for the length of the block.

    Yields a function: called with a stream, it sends them as JSON lines there too, from then on; with their
    priorities where it leads to `journal_stream` (see `is_journal`). There are
    no other handlers in the process meanwhile, so nothing of any library reaches a terminal that a console
    draws on.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level
    writers: list[JsonLines] = []
    taps = [events.tap(ring.fold, *TEXTS)]

    def write_lines(stream: BinaryIO) -> None:
        writer = JsonLines(stream, secrets=secrets, priorities=is_journal(stream, journal_stream))
        writer.setLevel(root.level)
        writers.append(writer)
        taps.append(events.tap(writer.fold))
        root.addHandler(writer)

    root.handlers[:] = [ring]
    set_level(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    try:
        yield write_lines
    finally:
        logging.captureWarnings(False)
        for untap in taps:
            untap()
        root.handlers[:], root.level = before
        for writer in writers:
            await asyncio.to_thread(writer.close)
