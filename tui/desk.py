"""What every part of the console may rely on: the island that is watched, the tones, what can be done."""

from __future__ import annotations

from tui.draw.canvas import Hint
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Palette
from tui.keyboard import Keyboard
from tui.watch.board import Board
from tui.watch.station import Station
from tui.words import line


class Desk(Keyboard[int]):
    """The console, to its parts."""

    station: Station
    glyphs: Glyphs
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
