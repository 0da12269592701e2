"""The island's log, as far as the console keeps it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import structs

from tui.watch.port import LogLine
from tui.words import clean, line

LINES = 5000
"""Lines that are kept."""


class LogRow:
    """A log line, to a filter."""

    def __init__(self, line: LogLine) -> None:
        self.line = line
        self._hay = f"{line.level} {line.jail or ''} {line.text}".lower()

    def field(self, name: str) -> str:
        return {"jail": self.line.jail or "", "state": self.line.level, "code": self.line.level}.get(name, "")

    def haystack(self) -> str:
        return self._hay

    def seconds(self, now: float) -> float:
        return now - self.line.at


class Journal:
    """The last lines of the log, oldest first, cleaned."""

    def __init__(self) -> None:
        self.rows: deque[LogRow] = deque(maxlen=LINES)
        self._served_by: dict[str, str] = {}
        """The jail of an invocation, as the log told."""

    @property
    def last(self) -> int:
        """The number of the last line; 0 before the first."""
        return self.rows[-1].line.seq if self.rows else 0

    def take(self, lines: Iterable[LogLine]) -> None:
        """Keep these lines, but those that are here already."""
        for entry in lines:
            if entry.seq <= self.last:
                continue
            jail = line(entry.jail) if entry.jail else None
            if jail and entry.invocation:
                self._served_by[entry.invocation] = jail
            text = clean(entry.text).rstrip("\n")
            told = structs.replace(entry, level=line(entry.level), text=text, jail=jail)
            self.rows.append(LogRow(told))
        while len(self._served_by) > LINES:
            del self._served_by[next(iter(self._served_by))]

    def tells_of(self, row: LogRow, jail: str) -> bool:
        """The line is about this jail, or about an invocation that this jail served."""
        return (row.line.jail or self._served_by.get(row.line.invocation or "")) == jail

    def of(self, jail: str) -> list[LogLine]:
        """The lines about one jail, oldest first."""
        return [row.line for row in self.rows if self.tells_of(row, jail)]
