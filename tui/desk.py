"""What all parts of the console share: the station, glyphs and tones, and messages to the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.draw.canvas import Hint, Surroundings
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Palette
from tui.keyboard import Keyboard
from tui.memory import Memory
from tui.watch.board import Board
from tui.watch.station import Station
from tui.words import line


class Desk(Keyboard[int]):
    """The console, as its parts know it. It is the `Surroundings` of every canvas."""

    station: Station
    glyphs: Glyphs
    palette: Palette
    memory: Memory
    command: str
    """What commands to this island begin with: `skyisland`, and which settings."""
    readonly: bool
    """The operator may watch only: no action changes the island."""
    view = "overview"
    """The name of the view that is shown."""

    @property
    def board(self) -> Board:
        return self.station.board

    def say(self, text: str, *, bad: bool = False) -> None:
        """Show the operator a message for some seconds, longer if it is bad."""
        severity = "error" if bad else "information"
        self.notify(line(text), severity=severity, markup=False, timeout=6 if bad else 4)  # type: ignore[arg-type]

    async def show_view(self, view: str) -> None:
        """Show the view of that name."""
        raise NotImplementedError

    def paint_all(self) -> None:
        """Paint everything that is shown, now."""
        raise NotImplementedError

    def hints(self) -> list[Hint]:
        """The keys that work now."""
        raise NotImplementedError


if TYPE_CHECKING:

    def _surrounds(desk: Desk) -> Surroundings:
        """Canvases cast the app to `Surroundings`; mypy holds the desk to that here."""
        return desk
