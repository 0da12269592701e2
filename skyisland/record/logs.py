"""Logs: one JSON line per record and per event for a headless island, a bounded ring for the console.

A line is JSON and nothing else: control characters, line separators and everything beyond ASCII are
escaped, so neither a caller nor a jail can forge a line or reach a terminal's escape sequences, and
`secrets` are blotted out wherever they turn up.

    {"time":1763773200.123,"level":"INFO","event":"JailCreated","jail":"sky-a-1f","jid":31,…}
    {"time":1763773201.5,"level":"WARNING","logger":"skyisland.sources","message":"…"}

Nobody who logs ever waits for a reader of the log: lines are written by a thread, and what it cannot
keep up with is dropped and counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import BinaryIO

import msgspec
from msgspec import Struct
from pythonjsonlogger.json import JsonFormatter

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
    JailCreated,
    JailDestroyed,
    JailKilled,
    SourceFetched,
    text_length,
)

BLOT = "[secret]"
QUIET = ("asyncio", "git", "httpcore", "httpx", "hypercorn", "pyroute2")
"""Libraries whose chatter below a warning nobody reads."""


def printable(text: str) -> str:
    """`text` with every character that is no plain visible one written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def blot(text: str, secrets: Collection[str]) -> str:
    """`text` without any of the secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, BLOT)
    return text


LONG = 1000
"""An event with a longer text is not kept as it is until somebody reads it."""


class Line(Struct, frozen=True, kw_only=True):
    """A line of the log, for people; it holds printable characters only."""

    seq: int
    """Rises by one with each line of an island's life."""
    at: float
    level: str
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    logger: str
    text: str
    jail: str | None = None
    invocation: str | None = None


def _brief(text: str, length: int = 160) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


TEXTS: dict[type[Event], Callable[..., str]] = {
    IslandStarted: lambda e: f"island started, {e.swept} leftovers swept",
    InvocationStarted: lambda e: f"{_brief(e.url)} {_brief(e.call)}",
    SourceFetched: lambda e: f"fetched {_brief(e.url)} at {e.commit[:12]} in {e.duration_s:.3f} s",
    BuildFinished: lambda e: (
        f"{'built' if e.ok else 'could not build'} {e.function} of {_brief(e.url)} in {e.duration_s:.3f} s"
    ),
    ArtifactEvicted: lambda e: f"evicted {e.function} of {_brief(e.url)}: {e.reason}",
    JailCreated: lambda e: f"{e.purpose} jail created in {e.duration_s * 1000:.1f} ms",
    JailKilled: lambda e: f"jail killed: {_brief(e.reason)}",
    JailDestroyed: lambda e: f"jail destroyed in {e.duration_s * 1000:.1f} ms",
    AddressLeased: lambda e: f"leased {e.ip}",
    AddressReleased: lambda e: f"released {e.ip}",
    AddressStateSet: lambda e: f"{e.ip} set {e.state}",
    InvocationFinished: lambda e: (
        f"{e.verdict} in {e.timings.total_s * 1000:.1f} ms{': ' if e.error else ''}{_brief(e.error)}"
    ),
}
"""The text of a line for each kind of event; the other kinds have none."""


class LogRing(logging.Handler):
    """The latest lines, for the console and the API: records as a handler, events as a tap (`fold`).

    An event becomes a line when somebody reads it: most are gone by then.
    """

    def __init__(self, limit: int = 5000, *, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._lines: deque[Line | Event] = deque(maxlen=limit)
        self._secrets = tuple(secrets)
        self._seq = 0
        """Of the latest."""
        self._lock = threading.Lock()

    def fold(self, event: Event) -> None:
        """Take an event in, if people care for it."""
        if type(event) not in TEXTS:
            return
        if text_length(event) >= LONG:
            self._append(lambda seq: self._told(seq, event))
            return
        with self._lock:
            self._seq += 1
            self._lines.append(event)

    def _told(self, seq: int, event: Event) -> Line:
        bad = isinstance(event, InvocationFinished) and event.verdict != "ok"
        return self._line(
            seq,
            event.at,
            logging.WARNING if bad else logging.INFO,
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

    def _append(self, line: Callable[[int], Line]) -> None:
        with self._lock:
            self._seq += 1
            self._lines.append(line(self._seq))

    def _line(
        self,
        seq: int,
        at: float,
        level: int,
        logger: str,
        text: str,
        jail: str | None,
        invocation: str | None,
    ) -> Line:
        return Line(
            seq=seq,
            at=at,
            level=logging.getLevelName(min(level, logging.ERROR)),
            logger=logger,
            text=printable(blot(text, self._secrets)),
            jail=jail,
            invocation=invocation,
        )

    def lines(self, *, jail: str | None = None, after: int = 0, limit: int | None = None) -> list[Line]:
        """The lines with a `seq` above `after`, oldest first, the latest `limit` of them.

        `jail`: only those of the jail with this name, and of the invocations it served.
        """
        with self._lock:
            found = list(enumerate(self._lines, self._seq - len(self._lines) + 1))
        if jail is not None:
            of_jail = [entry for _, entry in found if getattr(entry, "jail", None) == jail]
            served = {entry.invocation for entry in of_jail if entry.invocation}
            found = [
                (seq, entry)
                for seq, entry in found
                if getattr(entry, "jail", None) == jail or entry.invocation in served
            ]
        found = [(seq, entry) for seq, entry in found if seq > after]
        if limit is not None:
            found = found[max(0, len(found) - limit) :]
        return [entry if isinstance(entry, Line) else self._told(seq, entry) for seq, entry in found]


class JsonLines(logging.Handler):
    """Writes records (as a handler) and events (as a tap, `fold`) to `stream`, a JSON line each."""

    FLUSH_S = 0.05
    """How long events may wait for company: a busy island wakes its writer seldom."""

    def __init__(self, stream: BinaryIO, *, secrets: Collection[str] = (), limit: int = 20_000) -> None:
        super().__init__()
        self.dropped = 0
        """Lines that the reader of the log was too slow for."""
        self._stream = stream
        self._secrets = tuple(secret for secret in secrets if secret)
        self._queue: queue.Queue[list[Event] | bytes | None] = queue.Queue(limit)
        self._batch: list[Event] = []
        self._encoder = msgspec.json.Encoder()
        self.setFormatter(
            JsonFormatter(
                "%(created)f %(levelname)s %(name)s %(message)s %(exc_info)s",
                rename_fields={"created": "time", "levelname": "level", "name": "logger"},
            )
        )
        self._writer = threading.Thread(target=self._write_all, name="log writer", daemon=True)
        self._writer.start()

    # On the side of those who log

    def fold(self, event: Event) -> None:
        """Take an event in; call it on the event loop's thread."""
        if not self._batch:
            asyncio.get_running_loop().call_later(self.FLUSH_S, self._hand_over)
        self._batch.append(event)

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._put(batch, len(batch))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("ascii", "backslashreplace")
        except Exception:
            self.handleError(record)
        else:
            self._put(line, 1)

    def _put(self, item: list[Event] | bytes, lines: int) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += lines

    def close(self) -> None:
        """Write what is waiting and end; blocks, on a reader that has stalled for two seconds."""
        if self._writer.is_alive():
            self._hand_over()
            try:
                self._queue.put(None, timeout=1)
            except queue.Full:
                pass
            else:
                self._writer.join(1)
        super().close()

    # On the writer's side

    def _write_all(self) -> None:
        told = 0
        while (item := self._queue.get()) is not None:
            lines = [item] if isinstance(item, bytes) else [self._line(event) for event in item]
            if self.dropped != told:
                told = self.dropped
                lines.append(b'{"level":"WARNING","message":"log lines lost","lost":%d}' % told)
            text = b"\n".join(lines) + b"\n"
            for secret in self._secrets:
                text = text.replace(json.dumps(secret)[1:-1].encode(), BLOT.encode())
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self.dropped += len(lines)

    def _line(self, event: Event) -> bytes:
        fields = msgspec.to_builtins(event)
        line = {"time": fields.pop("at"), "level": "INFO", **fields}
        data = self._encoder.encode({key: value for key, value in line.items() if value is not None})
        if not data.isascii():
            data = json.dumps(json.loads(data), separators=(",", ":")).encode()
        return data.replace(b"\x7f", b"\\u007f")


@asynccontextmanager
async def logging_to(
    ring: LogRing, events: Events, *, level: int | str = logging.INFO, secrets: Collection[str] = ()
) -> AsyncIterator[Callable[[BinaryIO], None]]:
    """Send all records and events to `ring` for the length of the block.

    Yields a function: called with a stream, it sends them as JSON lines there too, from then on. There are
    no other handlers in the process meanwhile, so nothing of any library reaches a terminal that a console
    draws on.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level
    writers: list[JsonLines] = []
    taps = [events.tap(ring.fold, *TEXTS)]

    def write_lines(stream: BinaryIO) -> None:
        writer = JsonLines(stream, secrets=secrets)
        writers.append(writer)
        taps.append(events.tap(writer.fold))
        root.addHandler(writer)

    root.handlers[:] = [ring]
    root.setLevel(level)
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
