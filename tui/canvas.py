"""A panel drawn line by line.

A canvas is asked for its lines (`draw`), compares them with those on the screen and repaints only what
changed: no layout, no markup, no renderables. Text reaches the terminal as it stands in the spans, so
spans hold cleaned text only. `paint` is called by the console at its own pace; a resize or a new style
draws at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.look import TONES, Look, Span, Spans

if TYPE_CHECKING:
    from tui.board import Board
    from tui.console import Console


class Line(NamedTuple):
    """One line: its spans, and the tone beneath them all."""

    spans: Spans
    base: str = ""


class Canvas(Widget):
    """A panel whose lines come from `draw`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"tone--{tone}" for tone in TONES}
    ALLOW_SELECT = False
    DEFAULT_CSS = "Canvas { height: 1fr; width: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes, markup=False)
        self._lines: list[Line] = []
        self._strips: dict[int, Strip] = {}
        self._tones: dict[tuple[str, str], Style] = {}
        self._titles = ("", "")

    @property
    def console(self) -> Console:
        return self.app  # type: ignore[return-value]

    @property
    def board(self) -> Board:
        return self.console.board

    @property
    def look(self) -> Look:
        return self.console.look

    def draw(self, width: int, height: int) -> list[Line]:
        """The lines for a panel of this size; fewer than `height` leave the rest empty."""
        raise NotImplementedError

    def titles(self, width: int) -> tuple[str, str]:
        """What the upper and the lower border say."""
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
                self.border_title = Content(upper)  # type: ignore[assignment]
            if lower != self._titles[1]:
                self.border_subtitle = Content(lower)  # type: ignore[assignment]
            self._titles = titles

    def redraw(self) -> None:
        """Forget what is on the screen, and draw."""
        self._strips.clear()
        self._lines = []
        self.refresh()
        self.paint()

    def on_resize(self) -> None:
        self.redraw()

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
        return Strip(segments).adjust_cell_length(width, style("text", base))

    def _style(self, tone: str, base: str) -> Style:
        found = self._tones.get((tone, base))
        if found is None:
            found = self.rich_style
            for name in (base, tone):
                if name:
                    found += self.get_component_rich_style(f"tone--{name}", partial=True)
            self._tones[tone, base] = found
        return found


def spread(left: Spans, right: Spans, width: int) -> Spans:
    """`left` and `right` at the two ends of a line; the right one gives way first."""
    room = width - sum(len(text) for text, _ in left)
    needed = sum(len(text) for text, _ in right)
    while right and needed >= room:
        needed -= len(right[0][0])
        right = right[1:]
    return [*left, (" " * (room - needed), "text"), *right]


def joined(spans: list[Span], gap: str = "  ") -> Spans:
    """The spans with `gap` between them."""
    line: Spans = []
    for span in spans:
        if line:
            line.append((gap, "text"))
        line.append(span)
    return line
