"""Calls made by hand, to make again: those that the operator saved, and the latest."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Raw
from textual.binding import Binding, BindingType
from textual.message import Message

from skyisland.model import FunctionRequest
from tui.draw.canvas import Canvas, Line
from tui.memory import Calls
from tui.words import fit, line, size


class Remembered(Canvas, can_focus=True):
    """The list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "go(-1)", "up", show=False),
        Binding("down,j", "go(1)", "down", show=False),
        Binding("home,g", "go(-100000)", "top", show=False),
        Binding("end,G", "go(100000)", "bottom", show=False),
        Binding("enter", "choose", "choose", show=False),
        Binding("delete,D", "forget", "forget", show=False),
    ]

    class Chosen(Message):
        """The operator took this one."""

        def __init__(self, request: FunctionRequest) -> None:
            super().__init__()
            self.request = request

    class Forgotten(Chosen):
        """The operator wants this one no more."""

    def __init__(self) -> None:
        super().__init__(id="remembered")
        self.rows: list[tuple[str, FunctionRequest]] = []
        """Name, empty for one that was not saved, and call."""
        self.cursor = 0

    def offer(self, calls: Calls) -> None:
        """Show these."""
        self.rows = [(one.name, one.request) for one in calls.saved]
        self.rows += [("", request) for request in calls.recent]
        self.cursor = min(self.cursor, max(0, len(self.rows) - 1))
        self.paint()

    def draw(self, width: int, height: int) -> list[Line]:
        if not self.rows:
            return [Line([(" no call was made by hand yet; ctrl+s saves one", "dim")])]
        rows = max(1, height - 2)
        first = max(0, self.cursor - rows + 1)
        names = min(24, max(len(name) for name, _ in self.rows))
        lines = [
            self._row(name, request, names, width, "cursor" if n == self.cursor else "")
            for n, (name, request) in enumerate(self.rows[first : first + rows], start=first)
        ]
        help_line = Line([(" enter takes it, with all that it was sent with   D forgets it", "dim")])
        return [*lines, *[Line([])] * (height - 1 - len(lines)), help_line]

    def _row(self, name: str, request: FunctionRequest, names: int, width: int, base: str) -> Line:
        more = self.glyphs["more"]
        url, shown = line(request.url), line(request.shown)
        text = f"{url}  {shown}  {'  '.join(extras(request))}"
        label = f"{fit(line(name), names, more=more)}  " if names else ""
        return Line(
            [(f" {label}", "key"), (fit(text, max(0, width - len(label) - 2), more=more), "text")], base
        )

    def action_go(self, by: int) -> None:
        self.cursor = max(0, min(self.cursor + by, len(self.rows) - 1))
        self.paint()

    def action_choose(self) -> None:
        if self.rows:
            self.post_message(self.Chosen(self.rows[self.cursor][1]))

    def action_forget(self) -> None:
        if self.rows:
            self.post_message(self.Forgotten(self.rows[self.cursor][1]))


def extras(request: FunctionRequest) -> list[str]:
    """What a call is sent with beside its package and its text."""
    told = [f"at {line(request.version)[:12]}"] if request.version else []
    told += ["own address"] if request.ip4 else []
    told += ["new jail"] if request.cold else []
    told += ["built anew"] if request.cache_bust else []
    if request.stdin is not None or request.stdin_base64 is not None:
        told.append(f"reads {size(len(request.input))}")
    return told


def kept_apart(request: FunctionRequest) -> list[str]:
    """The fields of a request that nobody types, in words."""
    told = [f"inputs of {size(len(bytes(request.inputs)))}"] if isinstance(request.inputs, Raw) else []
    told += (
        [f"input of {size(len(request.stdin_base64))}, no text"] if request.stdin_base64 is not None else []
    )
    return told
