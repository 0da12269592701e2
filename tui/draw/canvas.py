"""A panel that is drawn line by line.

`paint` asks a canvas for its lines (`draw`), compares them with those on the screen and repaints those that
differ. There is no layout, no markup and no renderable, because hundreds of lines may change twice a second.
Spans reach the terminal as they are, so they hold cleaned text only. The console calls `paint` at its own
pace; a resize or a new style paints at once.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.draw.glyphs import Glyphs
from tui.draw.tones import Palette, Spans
from tui.watch.board import Board
from tui.watch.station import Station


class Line(NamedTuple):
    """One line: its spans, and the tone of the ground beneath them."""

    spans: Spans
    base: str = ""


class Hint(NamedTuple):
    """A key and what it does, for the bottom line."""

    key: str
    word: str
    action: str

    @property
    def width(self) -> int:
        return len(self.key) + len(self.word) + 3


class Surroundings(Protocol):
    """The app around a canvas, as far as canvases use it. `tui.desk.Desk` is the one there is."""

    station: Station
    glyphs: Glyphs
    palette: Palette
    readonly: bool
    view: str

    async def show_view(self, view: str) -> None: ...
    async def run_action(self, action: str) -> Any: ...
    def hints(self) -> list[Hint]: ...


class Canvas(Widget):
    """A panel whose lines come from `draw`."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Canvas { height: 1fr; width: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes, markup=False)
        self._lines: list[Line] = []
        self._strips: dict[int, Strip] = {}
        self._tones: dict[tuple[str, str], Style] = {}
        self._titles = ("", "")

    @property
    def desk(self) -> Surroundings:
        return cast("Surroundings", self.app)

    @property
    def station(self) -> Station:
        return self.desk.station

    @property
    def board(self) -> Board:
        return self.station.board

    @property
    def glyphs(self) -> Glyphs:
        return self.desk.glyphs

    def draw(self, width: int, height: int) -> list[Line]:
        """The lines for a panel of this size; fewer than `height` leave the rest empty."""
        raise NotImplementedError

    def titles(self, width: int) -> tuple[str, str]:
        """The texts in the upper and the lower border."""
        return self._titles

    def paint(self) -> None:
        """Draw, and repaint the lines that differ."""
        if not self.is_running or not self.size:
            return
        width, height = self.size
        lines = self.draw(width, height)
        before, self._lines = self._lines, lines
        first = last = None
        for y in range(max(len(lines), len(before))):
            old = before[y] if y < len(before) else None
            new = lines[y] if y < len(lines) else None
            if old != new:
                self._strips.pop(y, None)
                if first is None:
                    first = y
                elif last is not None and y > last + 1:
                    self.refresh(Region(0, first, width, last + 1 - first))
                    first = y
                last = y
        if first is not None and last is not None:
            self.refresh(Region(0, first, width, last + 1 - first))
        self._show_titles(width)

    def _show_titles(self, width: int) -> None:
        if not self.styles.border:
            return
        titles = self.titles(width)
        if titles != self._titles:
            upper, lower = titles
            if upper != self._titles[0]:
                self.border_title = Content(upper)
            if lower != self._titles[1]:
                self.border_subtitle = Content(lower)
            self._titles = titles

    def redraw(self) -> None:
        """Forget what is on the screen, and draw."""
        self._strips.clear()
        self._lines = []
        self.refresh()
        self.paint()

    def on_resize(self) -> None:
        self.redraw()

    def blur(self) -> Self:
        """Textual blurs a pane that it hides. By then the focus may be elsewhere, and shall stay there."""
        if self.screen.focused is self:
            super().blur()
        return self

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._tones.clear()
        self._strips.clear()

    def render_line(self, y: int) -> Strip:
        strip = self._strips.get(y)
        if strip is None:
            strip = self._strips[y] = self._strip(y)
        return strip

    def _strip(self, y: int) -> Strip:
        width = self.size.width
        spans, base = self._lines[y] if y < len(self._lines) else Line([])
        style = self._style
        segments = [Segment(text, style(tone, base)) for text, tone in spans if text]
        strip = Strip(segments)
        if strip.cell_length > width > 1:
            more = Segment(self.glyphs["more"], segments[-1].style)
            strip = Strip([*strip.crop(0, width - 1), more])
        return strip.adjust_cell_length(width, style("text", base))

    def _style(self, tone: str, base: str) -> Style:
        style = self._tones.get((tone, base))
        if style is None:
            style = self.rich_style
            # Dim letters on the ground of the cursor would be illegible.
            for name in (base, "text" if (base, tone) == ("cursor", "dim") else tone):
                if name:
                    style += self.desk.palette.tone(name)
            self._tones[tone, base] = style
        return style


class Pager(Canvas, can_focus=True):
    """A canvas that scrolls through `content`, which may have more lines than fit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "go(-1)", "up", show=False, id="pager.up"),
        Binding("down,j", "go(1)", "down", show=False, id="pager.down"),
        Binding("pageup,ctrl+u", "turn(-1)", "page up", show=False, id="pager.pageup"),
        Binding("pagedown,ctrl+d", "turn(1)", "page down", show=False, id="pager.pagedown"),
        Binding("home,g", "end(-1)", "top", show=False, id="pager.top"),
        Binding("end,G", "end(1)", "bottom", show=False, id="pager.bottom"),
    ]

    first = 0
    """The first line that is shown."""

    def content(self, width: int) -> list[Line]:
        """All the lines, for a panel of this width."""
        raise NotImplementedError

    def draw(self, width: int, height: int) -> list[Line]:
        lines = self.content(width - 1)
        self.first = max(0, min(self.first, len(lines) - height))
        visible = lines[self.first : self.first + height]
        if len(lines) > height:
            length = max(1, height * height // len(lines))
            start = (height - length) * self.first // max(1, len(lines) - height)
            for y, (spans, base) in enumerate(visible):
                used = sum(cell_len(text) for text, _ in spans)
                on = start <= y < start + length
                bar = (self.glyphs["thumb"] if on else self.glyphs["track"], "dim" if on else "trough")
                visible[y] = Line([*spans, (" " * (width - 1 - used), "text"), bar], base)
        return visible

    def action_go(self, by: int) -> None:
        self.first = max(0, self.first + by)
        self.paint()

    def action_turn(self, by: int) -> None:
        self.action_go(by * max(1, self.size.height - 1))

    def action_end(self, side: int) -> None:
        self.action_go(-self.first if side < 0 else 1_000_000)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_go(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_go(-3)


def spread(left: Spans, right: Spans, width: int) -> Spans:
    """`left` and `right` at the two ends of a line. Where they do not fit, spans of `right` are left out."""
    room = width - sum(len(text) for text, _ in left)
    needed = sum(len(text) for text, _ in right)
    while right and needed >= room:
        needed -= len(right[0][0])
        right = right[1:]
    return [*left, (" " * (room - needed), "text"), *right]
