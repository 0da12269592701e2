"""The log pane: the last lines of the island and its jails."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from tui.draw.canvas import Canvas, Line
from tui.draw.charts import wrapped
from tui.draw.tones import Spans
from tui.watch.filter import Filter
from tui.watch.journal import LogRow
from tui.watch.port import LogLine
from tui.words import clock, fit, tail

_LEVELS = {
    "DEBUG": ("DEBUG", "dim"),
    "INFO": ("INFO", "dim"),
    "WARNING": ("WARN", "warn"),
    "ERROR": ("ERROR", "bad"),
}


class Logs(Canvas, can_focus=True):
    """The lines of the journal, the newest at the bottom. Scrolling up stops following the log."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,f", "follow", "Follow", key_display="s", id="logs.follow"),
        Binding("t", "time", "Time", id="logs.time"),
        Binding("w", "wrap", "Wrap", id="logs.wrap"),
        Binding("m", "mark", "Mark", id="logs.mark"),
        Binding("J", "all_jails", "All jails", id="logs.all"),
        Binding("up,k", "go(-1)", "up", show=False, id="logs.up"),
        Binding("down,j", "go(1)", "down", show=False, id="logs.down"),
        Binding("pageup,ctrl+u", "turn(-1)", "page up", show=False, id="logs.pageup"),
        Binding("pagedown,ctrl+d", "turn(1)", "page down", show=False, id="logs.pagedown"),
        Binding("home,g", "first", "first line", show=False, id="logs.first"),
        Binding("end,G", "last", "last line, and follow", show=False, id="logs.last"),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.filter = Filter()
        self.faults_only = False
        self.jail: str | None = None
        """Show the lines about this jail alone."""
        self.follow = True
        self.show_time = True
        self.wrap = False
        self._bottom = 0
        """How many of the matching lines are above the bottom edge; set by scrolling, while not following."""
        self._marks: set[int] = set()
        self._filtered_for: tuple[object, ...] = ()
        """The journal's last line and the filters for which `_rows` was made."""
        self._rows: list[LogRow] = []

    @property
    def shown(self) -> list[LogRow]:
        """The lines that match, oldest first."""
        journal = self.station.journal
        filters = (journal.last, len(journal.rows), self.filter, self.jail, self.faults_only)
        if filters != self._filtered_for:
            self._filtered_for = filters
            now = self.station.now
            self._rows = [
                row
                for row in journal.rows
                if (self.jail is None or journal.concerns(row, self.jail))
                and (not self.faults_only or row.line.level in ("WARNING", "ERROR"))
                and (not self.filter or self.filter(row, now))
            ]
        return self._rows

    def draw(self, width: int, height: int) -> list[Line]:
        rows = self.shown
        if not rows:
            if self.filter or self.jail or self.faults_only:
                return [Line([("  no line matches   esc clears", "dim")])]
            return [Line([("  nothing was logged yet", "dim")])]
        if self.follow:
            self._bottom = len(rows)
        self._bottom = max(min(height, len(rows)), min(self._bottom, len(rows)))
        lines: list[Line] = []
        at = self._bottom
        while at > 0 and len(lines) < height:
            at -= 1
            lines[:0] = self._line(rows[at].line, width)
        return lines[-height:]

    def _line(self, line: LogLine, width: int) -> list[Line]:
        word, tone = _LEVELS.get(line.level, (line.level[:5], "text"))
        head: Spans = [(f"{clock(line.at)} ", "dim")] if self.show_time else []
        head.append((f"{word:<5} ", tone))
        who = tail(line.jail or "island", 14, self.glyphs["more"])
        head.append((f"{who:<14} ", "info" if line.jail else "dim"))
        used = sum(len(text) for text, _ in head)
        base = "shade" if line.seq in self._marks else ""
        room = max(8, width - used)
        text_tone = "bad" if line.level == "ERROR" else "text"
        if not self.wrap:
            return [
                Line(
                    [*head, (fit(line.text.replace("\n", " "), room, more=self.glyphs["more"]), text_tone)],
                    base,
                )
            ]
        pieces = wrapped(line.text, room, text_tone) or [Line([])]
        first = Line([*head, *pieces[0].spans], base)
        return [first, *(Line([(" " * used, "text"), *piece.spans], base) for piece in pieces[1:])]

    def titles(self, width: int) -> tuple[str, str]:
        title = f"Logs  {self.jail or 'island and all jails'}"
        if self.filter:
            title += f"  /{self.filter.text}"
        if self.faults_only:
            title += "  faults only"
        state = "following" if self.follow else "held   G follows"
        return title, f"{len(self.shown)} lines  {state}"

    def show_jail(self, jail: str | None) -> None:
        self.jail = jail
        self.follow = True
        self.paint()

    def action_follow(self) -> None:
        self.follow = not self.follow
        self.paint()

    def action_time(self) -> None:
        self.show_time = not self.show_time
        self.paint()

    def action_wrap(self) -> None:
        self.wrap = not self.wrap
        self.paint()

    def action_mark(self) -> None:
        """Mark the last line that is shown, to find it again; unmark it if it is marked."""
        if self.shown:
            self._marks ^= {self.shown[self._bottom - 1].line.seq}
            self.paint()

    def action_all_jails(self) -> None:
        self.show_jail(None)

    def action_go(self, by: int) -> None:
        self.follow = False
        self._bottom += by
        if self._bottom >= len(self.shown):
            self.follow = True
        self.paint()

    def action_turn(self, by: int) -> None:
        self.action_go(by * max(1, self.size.height - 1))

    def action_first(self) -> None:
        self.action_go(-len(self.shown))

    def action_last(self) -> None:
        self.follow = True
        self.paint()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_go(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_go(-3)
