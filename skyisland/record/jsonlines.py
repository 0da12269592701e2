"""The log as JSON lines, one for each record and event.

    {"time":1763773200.123,"level":"INFO","event":"JailCreated","jail":"sky-a-1f","jid":31,…}
    {"time": 1763773201.5, "level": "WARNING", "logger": "skyisland.pool", "message": "…", "exc_info": null}

Whoever logs never waits for a reader of the log: a thread writes the lines, and drops and counts those that
its reader is too slow for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import threading
from collections.abc import Collection
from typing import BinaryIO

import msgspec
from msgspec import structs

from skyisland.events import (
    Event,
    InvocationFinished,
    shortened,
    size_of,
)
from skyisland.record.lines import LINE_TEXT, REDACTED, level_of, redacted

TRACEBACK_TEXT = 16_000
"""Characters of a traceback, of which the end is kept."""
WAITING_BYTES = 16 << 20
"""Lines that wait for their writer; of more, the new ones are lost."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}  # sd-daemon(3)


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
