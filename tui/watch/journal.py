"""The last lines of the island's log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import structs

from tui.watch.port import LogLine
from tui.words import clean, line

MAX_LINES = 5000
"""Lines that are kept, the newest: some 1 MB."""


class LogRow:
    """A log line, as a filter sees it (`filter.Filterable`)."""

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
    """The last lines of the log, oldest first; their texts are cleaned."""

    def __init__(self) -> None:
        self.rows: deque[LogRow] = deque(maxlen=MAX_LINES)
        self._served_by: dict[str, str] = {}
        """Invocation -> the jail that served it, from lines that name both."""

    @property
    def last(self) -> int:
        """The number of the last line; 0 before the first."""
        return self.rows[-1].line.seq if self.rows else 0

    def take(self, lines: Iterable[LogLine]) -> None:
        """Keep these lines, except those that are here already."""
        for entry in lines:
            if entry.seq <= self.last:
                continue
            jail = line(entry.jail) if entry.jail else None
            if jail and entry.invocation:
                self._served_by[entry.invocation] = jail
            text = clean(entry.text).rstrip("\n")
            cleaned = structs.replace(entry, level=line(entry.level), text=text, jail=jail)
            self.rows.append(LogRow(cleaned))
        while len(self._served_by) > MAX_LINES:
            del self._served_by[next(iter(self._served_by))]

    def concerns(self, row: LogRow, jail: str) -> bool:
        """Whether the line is about this jail, or about an invocation that it served."""
        return (row.line.jail or self._served_by.get(row.line.invocation or "")) == jail

    def of(self, jail: str) -> list[LogLine]:
        """The lines about one jail, oldest first."""
        return [row.line for row in self.rows if self.concerns(row, jail)]
