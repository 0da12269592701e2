"""The log: a bounded ring of lines for console and API, and a stream of JSON lines (`jsonlines`) for an
island without a console.

Both take the records of `logging`, of every library, and the island's events. Control characters, line
separators and, in a JSON line, everything beyond ASCII are escaped, so that neither a caller nor a jail can
forge a line or reach a terminal's escape sequences. `secrets` are replaced wherever they turn up; more may be
added later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import BinaryIO

from skyisland.events import (
    Event,
    Events,
    Latest,
    shortened,
    size_of,
)
from skyisland.record.jsonlines import JsonLines, is_journal
from skyisland.record.lines import LINE_TEXT, TEXTS, LogLine, level_of, printable, redacted

QUIET = ("aiosqlite", "asyncio", "git", "httpcore", "httpx", "hypercorn", "pyroute2", "urllib3")
"""Libraries that log each of their steps: only their warnings are taken."""
LONG_EVENT = 1250
"""From this many bytes on, the ring keeps the line of an event, whose texts are cut, in
place of the event: so one who sends long texts drives few lines out."""
LINE_BYTES = 300
"""About what a line of the ring keeps in memory beside its text."""
RING_BYTES = 4 << 20
"""Memory of the ring; 5000 lines of our own take half of it."""


def _kept(entry: LogLine | Event) -> int:
    """The bytes that an entry of the ring keeps."""
    return LINE_BYTES + 4 * len(entry.text) if isinstance(entry, LogLine) else size_of(entry)


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
