"""Asks where to go: a view, a row of any view, or a command, by a few letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from tui.desk import Desk
from tui.draw.canvas import Canvas, Line
from tui.watch.search import Hit, find
from tui.words import fit


class Hits(Canvas):
    """What was found, with a cursor."""

    def __init__(self) -> None:
        super().__init__(id="hits")
        self.hits: list[Hit] = []
        self.at = 0

    @property
    def current(self) -> Hit | None:
        return self.hits[self.at] if self.at < len(self.hits) else None

    def show(self, hits: list[Hit]) -> None:
        self.hits, self.at = hits, 0
        self.paint()

    def move(self, by: int) -> None:
        self.at = max(0, min(self.at + by, len(self.hits) - 1))
        self.paint()

    def draw(self, width: int, height: int) -> list[Line]:
        if not self.hits:
            return [Line([("  nothing is called so", "dim")])]
        first = max(0, self.at - height + 1)
        return [
            Line(
                [
                    (f" {hit.kind:<9} ", "dim"),
                    (fit(hit.text, max(1, width - 12), more=self.glyphs["more"]), "text"),
                ],
                "cursor" if n == self.at else "",
            )
            for n, hit in enumerate(self.hits[first : first + height], first)
        ]


class Jump(ModalScreen[Hit | None]):
    """Where to? Enter takes the first that was found, or the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "close"),
        Binding("down,ctrl+n", "move(1)", "down", show=False, priority=True),
        Binding("up,ctrl+p", "move(-1)", "up", show=False, priority=True),
    ]

    def __init__(self, commands: Sequence[tuple[str, str]]) -> None:
        """`commands`: actions that can be taken by name, too: what they do, and the action."""
        super().__init__()
        self.commands = [Hit("", action, "command", word) for word, action in commands]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide", id="jump") as box:
            box.border_title = "Go to"
            box.border_subtitle = "enter goes there   esc closes"
            yield Input(placeholder="jails   fn geohash   inv-3c71   10.61.0.4   any word", compact=True)
            yield Hits()

    def on_mount(self) -> None:
        self._look("")

    def on_input_changed(self, event: Input.Changed) -> None:
        self._look(event.value)

    def _look(self, text: str) -> None:
        desk = cast("Desk", self.app)
        word = text.strip().lower()
        commands = [hit for hit in self.commands if hit.text.lower().startswith(word)]
        found = find(desk.board, text, desk.station.now)
        exact = bool(found) and not found[0].key
        self.query_one(Hits).show([*found, *commands] if exact else [*commands, *found] if word else commands)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._look(event.value) if not self.query_one(Hits).hits else None
        self.dismiss(self.query_one(Hits).current)

    def action_move(self, by: int) -> None:
        self.query_one(Hits).move(by)

    def action_leave(self) -> None:
        self.dismiss(None)
