"""A live table of thousands of rows, of which only the visible ones are formatted.

Rows are the board's own objects. The cursor stays on its row, by key, while rows come, go and change places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from tui.draw.canvas import Canvas, Line
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Span, Spans
from tui.watch.filter import Filter, Filterable
from tui.words import fit


class Row(Filterable, Protocol):
    """What a table shows as a line."""

    @property
    def key(self) -> str:
        """Unique in its table, and the same when the row is made anew."""
        ...


R = TypeVar("R", bound=Row)


class Ink(NamedTuple):
    """What a cell needs beside its row to draw itself."""

    glyphs: Glyphs
    now: float
    width: int


class Column(NamedTuple):
    """One column. `cell` gives text and tone, or the spans of the whole cell."""

    title: str
    width: int
    cell: Callable[[Any, Ink], Span | Spans]
    key: Callable[[Any, float], Any] | None = None
    """The sort key of a row, given the time; None for a column that cannot be sorted by."""
    align: str = "<"
    rank: int = 0
    """On a narrow screen the column with the highest rank vanishes first; one with rank 0 never."""
    grow: int = 0
    """How many cells it may take beyond `width`."""
    rest: bool = False
    """It takes all cells that are left over."""
    falling: bool = False
    """When it is first chosen, the largest comes first."""
    fleet: bool = False
    """It is shown where the island is in a fleet. Such columns come last."""


class Table(Canvas, Generic[R], can_focus=True):
    """Rows in columns, with a cursor, marks, an order and a filter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False, id="table.up"),
        Binding("down,j", "move(1)", "down", show=False, id="table.down"),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False, id="table.pageup"),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False, id="table.pagedown"),
        Binding("home,g", "edge(-1)", "first row", show=False, id="table.first"),
        Binding("end,G", "edge(1)", "last row", show=False, id="table.last"),
        Binding("space", "mark", "mark", show=False, id="table.mark"),
        Binding("asterisk", "mark_all", "mark all shown", show=False, id="table.mark_all"),
        Binding(
            "less_than_sign", "sort(-1)", "sort by the previous column", show=False, id="table.sort_left"
        ),
        Binding("greater_than_sign", "sort(1)", "sort by the next column", show=False, id="table.sort_right"),
        Binding("r", "reverse", "reverse the order", show=False, id="table.reverse"),
        Binding("enter", "open", "open", show=False, id="table.open"),
    ]

    class Opened(Message):
        """Enter on a row, or a second click on it."""

        def __init__(self, table: Table[Any]) -> None:
            self.table = table
            super().__init__()

    def __init__(
        self,
        title: str,
        kind: type[R],
        columns: list[Column],
        source: Callable[[], Iterable[R]],
        *,
        sort: str,
        empty: str,
        id: str,  # noqa: A002 - as Textual names it
        faulty: Callable[[R], bool] = lambda row: False,
        row_tone: Callable[[R], str] = lambda row: "",
        floats: bool = False,
    ) -> None:
        """`kind`: the class of the rows. `source`: gives the rows, in any order. `sort`: the title of the
        column to sort by at first. `empty`: a text for when there is no row, in lines. `faulty`: which rows
        remain when only faults are wanted. `floats`: new rows come at the top, so the cursor stays on the
        first line until the operator moves it; in other tables it stays on its row from the start."""
        super().__init__(id=id)
        self.title = title
        self.kind = kind
        self._columns = columns
        self.source = source
        self.empty = empty
        self.faulty = faulty
        self.row_tone = row_tone
        self.floats = floats
        self.details: list[Canvas] = []
        """What shows the row under the cursor in full; painted as soon as that is another."""
        self._detailed: R | None = None
        """The row for which they were last painted."""
        self._chosen = False
        """The operator moved the cursor to where it is."""
        self.filter = Filter()
        self.faults_only = False
        self.rows: list[R] = []
        """The rows that pass the filter, in order."""
        self.marks: set[str] = set()
        self.cursor: str | None = None
        self._at = 0
        self._top = 0
        self._sort = next(n for n, column in enumerate(columns) if column.title == sort)
        self._falling = columns[self._sort].falling
        self.usual_order = self.order
        """The order at first."""
        self._shown: list[tuple[Column, int]] = []
        self._total = 0

    # Model

    @property
    def current(self) -> R | None:
        """The row under the cursor."""
        return self.rows[self._at] if self._at < len(self.rows) else None

    @property
    def chosen(self) -> list[R]:
        """The marked rows, or else the one under the cursor."""
        marked = [row for row in self.rows if row.key in self.marks]
        if marked:
            return marked
        return [self.current] if self.current is not None else []

    @property
    def floating(self) -> bool:
        """The cursor is on the first line, whichever row comes there."""
        return self.floats and not self._chosen

    @property
    def columns(self) -> list[Column]:
        """Those that there are something to show in."""
        return [column for column in self._columns if not column.fleet or self.board.node]

    @property
    def sorted_by(self) -> str:
        return self._columns[self._sort].title

    @property
    def order(self) -> tuple[str, bool]:
        """The title of the column that it is sorted by, and whether the largest comes first."""
        return self.sorted_by, self._falling

    def order_by(self, title: str, falling: bool) -> None:
        """Sort by the column of this title, if there is one that can be sorted by."""
        for n, column in enumerate(self._columns):
            if column.title == title and column.key is not None:
                self._sort, self._falling = n, falling

    def collect(self) -> None:
        """Take the rows from the source, filter and sort them, and find the cursor's."""
        now = self.station.now
        rows = list(self.source())
        self._total = len(rows)
        if self.faults_only:
            rows = [row for row in rows if self.faulty(row)]
        if self.filter:
            rows = [row for row in rows if self.filter(row, now)]
        order = self._columns[self._sort].key
        if order is not None:
            rows.sort(key=lambda row: order(row, now), reverse=self._falling)
        self.rows = rows
        if self.marks:
            self.marks.intersection_update({row.key for row in rows})
        self._find_cursor()

    def _find_cursor(self) -> None:
        rows = self.rows
        at = self._at
        if not rows or self.floating:
            self._at = 0
            self.cursor = rows[0].key if rows else self.cursor
        elif not (at < len(rows) and rows[at].key == self.cursor):
            now_at = next((n for n, row in enumerate(rows) if row.key == self.cursor), None)
            self._at = min(at, len(rows) - 1) if now_at is None else now_at
            self.cursor = rows[self._at].key

    def _move_to(self, at: int) -> None:
        if self.rows:
            self._at = max(0, min(len(self.rows) - 1, at))
            self._chosen = self._at > 0
            self.cursor = self.rows[self._at].key
        self.paint()

    def select(self, key: str | None) -> None:
        """Put the cursor on the row with this key; where rows come at the top, None is the newest."""
        if key is not None or self.floats:
            self.cursor, self._chosen = key, key is not None
        self.collect()
        self.paint()

    def go_to_fault(self, by: int) -> bool:
        """Put the cursor on the next faulty row (1), or the previous one (-1); False if there is none."""
        self.collect()
        places = range(self._at + 1, len(self.rows)) if by > 0 else range(self._at - 1, -1, -1)
        at = next((n for n in places if self.faulty(self.rows[n])), None)
        if at is not None:
            self._move_to(at)
            self._chosen = True
        return at is not None

    # Drawing

    def paint(self) -> None:
        super().paint()
        if self.current is not self._detailed:
            self._detailed = self.current
            for detail in self.details:
                detail.paint()

    def draw(self, width: int, height: int) -> list[Line]:
        self.collect()
        glyphs, now = self.glyphs, self.station.now
        body = height - 1
        bar = len(self.rows) > body
        inner = width - 2
        self._shown = fit_columns(self.columns, inner)
        lines = [Line(self._header(glyphs), "head")]
        if not self.rows:
            reason = "no row matches   esc clears" if self.filter or self.faults_only else self.empty
            # A command that does not fit would be another one when it is cut.
            fits = [each for each in reason.split("\n") if len(each) < width or not each.startswith("$")]
            told = [Line([("  " + fit(each, width - 2, more=glyphs["more"]), "dim")]) for each in fits]
            return [*lines, Line([]), *told[: max(1, body - 1)]]
        self._scroll(body)
        for n in range(self._top, min(self._top + body, len(self.rows))):
            lines.append(self._row(n, glyphs, now))
        if bar:
            self._scrollbar(lines, body, glyphs, inner)
        return lines

    def _header(self, glyphs: Glyphs) -> Spans:
        spans: Spans = [(" ", "head")]
        sorted_by = self._columns[self._sort]
        for column, width in self._shown:
            title = column.title
            if column is sorted_by:
                title += glyphs["sorted_down" if self._falling else "sorted_up"]
            spans.append((fit(title, width, column.align, more="") + " ", "head"))
        return spans

    def _row(self, n: int, glyphs: Glyphs, now: float) -> Line:
        row = self.rows[n]
        here = n == self._at
        marked = bool(self.marks) and row.key in self.marks
        gutter = glyphs["mark"] if marked else glyphs["cursor"] if here else " "
        spans: Spans = [(gutter, "mark" if marked else "key")]
        tone = "mark" if marked else self.row_tone(row)
        for column, width in self._shown:
            cell = column.cell(row, Ink(glyphs, now, width))
            if isinstance(cell, list):
                spans += cell
                spans.append((" ", "text"))
            else:
                text, own = cell
                if len(text) != width or not text.isascii():
                    text = fit(text, width, column.align, glyphs["more"])
                spans.append((text + " ", (own if own not in ("text", "strong") else tone or own)))
        base = "" if not here else "cursor" if self.has_focus else "shade"
        return Line(spans, base)

    def _scroll(self, body: int) -> None:
        if self._at < self._top:
            self._top = self._at
        elif self._at >= self._top + body:
            self._top = self._at - body + 1
        self._top = max(0, min(self._top, len(self.rows) - body))

    def _scrollbar(self, lines: list[Line], body: int, glyphs: Glyphs, inner: int) -> None:
        total = len(self.rows)
        length = max(1, body * body // total)
        start = (body - length) * self._top // max(1, total - body)
        for y in range(body):
            spans = lines[y + 1].spans
            used = 1 + sum(width + 1 for _, width in self._shown)
            spans.append((" " * (inner + 1 - used), "text"))
            on = start <= y < start + length
            spans.append((glyphs["thumb"] if on else glyphs["track"], "dim" if on else "trough"))

    def titles(self, width: int) -> tuple[str, str]:
        glyphs = self.glyphs
        title = self.title
        if self.filter:
            title += f"  /{self.filter.text}"
        if self.faults_only:
            title += "  faults only"
        matching = len(self.rows)
        count = f"{matching} shown" if matching == self._total else f"{matching} of {self._total} shown"
        if self.marks:
            count = f"{len(self.marks)} marked  {count}"
        if self.floats and self._chosen:
            count += "  held, g follows"
        arrow = glyphs["sorted_down" if self._falling else "sorted_up"]
        lower = f"{count}  sort {self.sorted_by.lower()} {arrow}"
        return title, lower if len(lower) + 6 < width else count

    # Keys and mouse

    def action_move(self, by: int) -> None:
        self._move_to(self._at + by)

    def action_page(self, by: int) -> None:
        self._move_to(self._at + by * max(1, self.size.height - 2))

    def action_edge(self, side: int) -> None:
        self._move_to(0 if side < 0 else len(self.rows) - 1)

    def action_mark(self) -> None:
        if self.current is not None:
            self.marks ^= {self.current.key}
            self._move_to(self._at + 1)

    def action_mark_all(self) -> None:
        keys = {row.key for row in self.rows}
        self.marks = set() if self.marks == keys else keys
        self.paint()

    def action_sort(self, by: int) -> None:
        order = [n for n, column in enumerate(self.columns) if column.key is not None]
        place = order.index(self._sort) if self._sort in order else 0
        self._sort = order[(place + by) % len(order)]
        self._falling = self._columns[self._sort].falling
        self.paint()

    def action_reverse(self) -> None:
        self._falling = not self._falling
        self.paint()

    def action_open(self) -> None:
        if self.current is not None:
            self.post_message(self.Opened(self))

    def on_focus(self) -> None:
        self.paint()

    def on_blur(self) -> None:
        self.paint()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._move_to(self._at + 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._move_to(self._at - 3)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            self._sort_at(offset.x)
        elif self._top + offset.y - 1 < len(self.rows):
            self._move_to(self._top + offset.y - 1)
            if event.chain == 2:
                self.action_open()

    def _sort_at(self, x: int) -> None:
        left = 1
        for column, width in self._shown:
            if left <= x < left + width and column.key is not None:
                n = self.columns.index(column)
                self._falling = not self._falling if n == self._sort else column.falling
                self._sort = n
                self.paint()
                return
            left += width + 1


def fit_columns(columns: list[Column], width: int) -> list[tuple[Column, int]]:
    """The columns that fit into `width` cells, and the width of each.

    Columns of the highest rank are left out first. Spare cells go to columns that may grow, then to `rest`.
    """
    fitting = list(columns)
    while fitting and sum(column.width + 1 for column in fitting) > width:
        worst = max(fitting, key=lambda column: column.rank)
        if worst.rank == 0:
            break
        fitting.remove(worst)
    spare = max(0, width - sum(column.width + 1 for column in fitting))
    widths = []
    for column in fitting:
        extra = min(spare, column.grow)
        spare -= extra
        widths.append(column.width + extra)
    for n, column in enumerate(fitting):
        if column.rest:
            widths[n] += spare
            spare = 0
    return list(zip(fitting, widths, strict=True))
