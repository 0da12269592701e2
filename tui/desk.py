"""What every part of the console may rely on: the island that is watched, the tones, what can be done."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.style import Style
from textual.widget import Widget

from tui.draw.glyphs import TONES, Look
from tui.keyboard import Keyboard
from tui.watch.board import Board
from tui.watch.station import Station
from tui.words import line


class Palette(Widget):
    """The tones, as the stylesheet and the theme give them; one for all canvases, and never shown.

    Component classes on every canvas would cost most of the start: Textual works out each of them again
    whenever a widget gains or loses the focus.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"tone--{tone}" for tone in TONES}
    DEFAULT_CSS = "Palette { display: none; }"

    def tone(self, name: str) -> Style:
        return self.get_component_rich_style(f"tone--{name}", partial=True)


class Hint(NamedTuple):
    """A key for the line at the bottom."""

    key: str
    word: str
    action: str

    @property
    def width(self) -> int:
        return len(self.key) + len(self.word) + 3


class Desk(Keyboard[int]):
    """The console, to its parts."""

    station: Station
    look: Look
    palette: Palette
    readonly: bool
    """Nothing here changes the island."""
    view = "overview"
    """The view that is shown."""

    @property
    def board(self) -> Board:
        return self.station.board

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell the operator, for some seconds."""
        severity = "error" if bad else "information"
        self.notify(line(text), severity=severity, markup=False, timeout=6 if bad else 4)  # type: ignore[arg-type]

    async def show_view(self, view: str) -> None:
        raise NotImplementedError

    def paint_all(self) -> None:
        """Paint everything that is shown, now."""
        raise NotImplementedError

    def hints(self) -> list[Hint]:
        """The keys that do something now."""
        raise NotImplementedError
