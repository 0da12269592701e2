"""What a jail writes, as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from skyisland.errors import IslandError
from skyisland.status import Written
from tui.draw.canvas import Line, Pager
from tui.draw.charts import wrapped
from tui.watch.port import LinkLost
from tui.words import clean

if TYPE_CHECKING:
    from tui.desk import Desk

SHOWN = 128 << 10
"""Characters that are kept on the screen, the newest."""


class OutputPane(Pager):
    """Standard output and, in another colour, standard error. It follows the end until one scrolls up."""

    def __init__(self) -> None:
        super().__init__(id="output")
        self.parts: list[tuple[str, str]] = []
        """Texts and their tones, one for each change between the two."""
        self.note = ("waiting for it to write", "dim")
        self._count = 0
        self._follows = True
        self._made: tuple[object, list[Line]] = (None, [])
        self._news = 0

    def add(self, part: Written) -> None:
        """Show more."""
        if part.cut:
            self._append(f"({part.cut} bytes came before, and are not kept)\n", "dim")
        self._append(part.stdout, "text")
        self._append(part.stderr, "bad")
        if self.parts:
            self.note = (self.glyphs["more"], "dim")
        if part.ended:
            self.note = (f"ended{': ' if part.verdict else ''}{clean(part.verdict)}", "info")
        self._news += 1
        self.paint()

    def fail(self, why: str) -> None:
        self.note = (clean(why), "bad")
        self._news += 1
        self.paint()

    def _append(self, text: str, tone: str) -> None:
        text = clean(text)
        if not text:
            return
        if self.parts and self.parts[-1][1] == tone:
            self.parts[-1] = (self.parts[-1][0] + text, tone)
        else:
            self.parts.append((text, tone))
        self._count += len(text)
        while self._count > SHOWN:
            first, its_tone = self.parts[0]
            drop = min(len(first), self._count - SHOWN)
            self._count -= drop
            if drop == len(first):
                del self.parts[0]
            else:
                self.parts[0] = (first[drop:], its_tone)

    def content(self, width: int) -> list[Line]:
        if self._made[0] != (self._news, width):
            lines = [line for text, tone in self.parts for line in wrapped(text, width, tone, indent=" ")]
            self._made = (self._news, width), [*lines, Line([(f" {self.note[0]}", self.note[1])])]
        return list(self._made[1])

    def draw(self, width: int, height: int) -> list[Line]:
        if self._follows:
            self.first = 1_000_000
        return super().draw(width, height)

    def action_go(self, by: int) -> None:
        length = len(self.content(self.size.width - 1))
        self.first = max(0, min(self.first + by, length - self.size.height))
        self._follows = self.first + self.size.height >= length
        self.paint()


class Output(ModalScreen[None]):
    """Watches a jail until it is left."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,o", "leave", "close")]

    def __init__(self, jail: str) -> None:
        """`jail`: its name, or the id of its call."""
        super().__init__()
        self.jail = jail

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide", id="watched") as box:
            box.border_title = Content(f"Output of {self.jail}")
            box.border_subtitle = "g first  G follows the end  esc close"
            yield OutputPane()

    def on_mount(self) -> None:
        self.set_focus(self.query_one(OutputPane))
        self.run_worker(self._watch())

    async def _watch(self) -> None:
        pane = self.query_one(OutputPane)
        try:
            async for part in cast("Desk", self.app).station.port.output(self.jail):
                pane.add(part)
        except (IslandError, LinkLost) as failure:
            pane.fail(str(failure))

    def action_leave(self) -> None:
        self.dismiss(None)
