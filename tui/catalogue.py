"""What a package offers, as a list to choose a call from; below it, all about the one under the cursor."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from skyisland.golang.catalogue import Catalogue, Entry
from tui.draw.canvas import Canvas, Line
from tui.draw.charts import wrapped
from tui.words import clean, fit, line

MOST_ABOUT = 12
"""Lines about one function; whoever wants all of its documentation asks `skyisland functions URL NAME`."""


class Offered(Canvas, can_focus=True):
    """The list. What it shows is narrowed to names with the letters of `narrow`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "go(-1)", "up", show=False),
        Binding("down,j", "go(1)", "down", show=False),
        Binding("pageup", "turn(-1)", "page up", show=False),
        Binding("pagedown", "turn(1)", "page down", show=False),
        Binding("home,g", "go(-100000)", "top", show=False),
        Binding("end,G", "go(100000)", "bottom", show=False),
        Binding("enter", "choose", "choose", show=False),
    ]

    class Chosen(Message):
        """The operator took this one."""

        def __init__(self, entry: Entry) -> None:
            super().__init__()
            self.entry = entry

    def __init__(self) -> None:
        super().__init__(id="offered")
        self.catalogue: Catalogue | None = None
        self.entries: list[Entry] = []
        self.cursor = 0
        self.first = 0
        """The first entry that is shown."""

    def offer(self, catalogue: Catalogue, call: str) -> None:
        """Show a catalogue, with the cursor on what `call` begins with."""
        self.catalogue = catalogue
        self.narrow("")
        name = call.partition("(")[0].removeprefix(f"{catalogue.name}.")
        self.cursor = next((n for n, entry in enumerate(self.entries) if entry.name == name), 0)
        self.paint()

    def narrow(self, text: str) -> None:
        """Show only names that hold the name in `text`, a call that is being typed, if there are any."""
        assert self.catalogue is not None  # noqa: S101 - it is shown after `offer`
        every = [entry for entry in self.catalogue.functions if entry.kind != "type"]
        word = text.partition("(")[0].rpartition(".")[2].strip().casefold()
        self.entries = [entry for entry in every if word in entry.name.casefold()] or every
        self.cursor = self.first = 0
        self.paint()

    def draw(self, width: int, height: int) -> list[Line]:
        if not self.entries:
            return [Line([(" it offers nothing that can be called", "dim")])]
        about = self._about(self.entries[self.cursor], width, height // 2)
        rows = max(1, height - len(about))
        self.first = max(min(self.first, self.cursor), self.cursor - rows + 1)
        shown = self.entries[self.first : self.first + rows]
        names = min(max(len(_head(entry)) for entry in shown) + 2, 2 * width // 3)
        lines = [
            self._row(entry, names, width, "cursor" if n == self.cursor else "")
            for n, entry in enumerate(shown, start=self.first)
        ]
        return lines + [Line([])] * (rows - len(lines)) + about

    def _row(self, entry: Entry, names: int, width: int, base: str) -> Line:
        more = self.glyphs["more"]
        about = line(entry.synopsis) if entry.callable else f"cannot be called: {line(entry.why)}"
        return Line(
            [
                (f" {fit(_head(entry), names - 2, more=more)}  ", "text" if entry.callable else "dim"),
                (fit(about, max(0, width - names - 1), more=more), "dim"),
            ],
            base,
        )

    def _about(self, entry: Entry, width: int, most: int) -> list[Line]:
        """A rule, documentation, why it cannot be called, and an example."""
        lines = [Line([(self.glyphs["line"] * width, "trough")])]
        if entry.why:
            lines += wrapped(clean(entry.why), width, "warn", indent=" ")
        ready = next((call for example in entry.examples for call in example.calls), None)
        if ready is not None:
            text = f"{clean(ready.call)}  gives  {clean(ready.output.strip())}"
            lines += wrapped(text, width, "info", indent=" ")
        lines += wrapped(clean(entry.doc) or "it has no documentation", width, "text", indent=" ")
        return lines[: min(most, MOST_ABOUT)]

    def action_go(self, by: int) -> None:
        self.cursor = max(0, min(self.cursor + by, len(self.entries) - 1))
        self.paint()

    def action_turn(self, by: int) -> None:
        self.action_go(by * max(1, self.size.height // 2))

    def action_choose(self) -> None:
        if self.entries:
            self.post_message(self.Chosen(self.entries[self.cursor]))


def _head(entry: Entry) -> str:
    """What the list shows of it."""
    return line(entry.declaration.removeprefix("func "))


def ready_call(entry: Entry) -> str:
    """What to begin with: its first example, or else its parameters' names."""
    return line(next((call.call for example in entry.examples for call in example.calls), entry.call))
