"""The invoke dialog: a call by hand, its answer and where its time went.

It asks for every field of a `FunctionRequest`: texts stand in `TEXTS`, choices in `CHOICES`, each under the
name of its field.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec
from msgspec import Raw
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from skyisland.errors import IslandError
from skyisland.events import shortened
from skyisland.model import FunctionRequest, Phase
from skyisland.wire import Called
from tui.catalogue import Offered, ready_call
from tui.dialogs import Toggle
from tui.draw.canvas import Canvas, Line, Pager
from tui.draw.charts import wrapped
from tui.draw.details import invocation_in_full
from tui.watch.port import LinkLost
from tui.watch.rows import InvocationRow, seconds_of
from tui.words import clean, line

if TYPE_CHECKING:
    from tui.desk import Desk
    from tui.watch.station import Station


TEXTS = (
    ("url", "repository", "github.com/user/repo/package"),
    ("call", "call", "Encode(100.1, 80.9), or with arguments: Encode"),
    ("args", "arguments", '[100.1, 80.9] or {"latitude": 100.1}'),
    ("types", "types", "of a generic function: int, string"),
    ("version", "version", "branch, tag or commit"),
    ("stdin", "input", "what the function reads; \\n is a new line"),
)
"""Field, label and hint of each input line."""
CHOICES = (
    ("ip4", "own address"),
    ("cache_bust", "fetch and build anew"),
    ("cold", "new jail"),
)
"""Field and words of each option."""


_OUTER_COMMA = re.compile(r"\s*,\s*(?![^\[]*\])")
"""A comma that is not within brackets."""


class AnswerPane(Pager):
    """The answer, or why there is none."""

    def __init__(self) -> None:
        super().__init__(id="reply")
        self.note = ("ctrl+r sends", "dim")
        self.request: InvocationRow | None = None
        self.called: Called | None = None
        self.failure: IslandError | LinkLost | None = None

    def content(self, width: int) -> list[Line]:
        glyphs = self.glyphs
        if self.failure is not None:
            code = f"{self.failure.code}: " if isinstance(self.failure, IslandError) else ""
            lines = wrapped(f"{glyphs['bad']} {code}{clean(str(self.failure))}", width, "bad", indent=" ")
            output = getattr(self.failure, "details", {}).get("output")
            return lines + wrapped(clean(str(output)), width, "text", indent=" ") if output else lines
        if self.called is None or self.request is None:
            return [Line([(f" {self.note[0]}", self.note[1])])]
        now = self.station.now
        lines = invocation_in_full(self.request, now, width, glyphs, self.board.usual_s(self.request))
        answer = self.called.answer
        for title, text, tone in (("output", answer.data, "text"), ("errors", answer.stderr, "bad")):
            if text:
                lines += [
                    Line([]),
                    Line([(f" {title}", "strong")]),
                    *wrapped(clean(text), width, tone, indent=" "),
                ]
        if not answer.data:
            lines += [Line([]), Line([(" it printed nothing", "dim")])]
        return lines


class Invoke(ModalScreen[None]):
    """Asks for a call, runs it, shows the answer; stays open for the next."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "send", "send", priority=True),
        Binding("ctrl+f", "look", "functions", priority=True),
        Binding("ctrl+y", "curl", "copy as curl", priority=True),
        Binding("escape", "leave", "close"),
    ]

    def __init__(self, url: str = "", call: str = "", version: str = "") -> None:
        super().__init__()
        self._start = {"url": url, "call": call, "version": version}
        self._sending = False

    @property
    def desk(self) -> Desk:
        return cast("Desk", self.app)

    @property
    def station(self) -> Station:
        return self.desk.station

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide", id="invoke") as box:
            box.border_title = "Invoke a function"
            box.border_subtitle = "ctrl+r send   ctrl+f functions   ctrl+y copy as curl   esc close"
            for name, label, hint in TEXTS:
                with Horizontal(classes="field"):
                    yield Label(label)
                    # Nothing is selected: the operator goes on with what stands there.
                    yield Input(
                        self._start.get(name, ""),
                        id=f"invoke-{name}",
                        placeholder=hint,
                        compact=True,
                        select_on_focus=False,
                    )
            with Horizontal(classes="field options"):
                yield Label("options")
                for name, words in CHOICES:
                    yield Toggle(words, id=f"invoke-{name}")
            yield Label("", id="invoke-fault")
            yield AnswerPane()
            yield Offered()

    def on_mount(self) -> None:
        empty = [field for field in self.query(Input) if not field.value]
        order = ("invoke-url", "invoke-call")
        first = next((field for field in empty if field.id in order), self.query_one("#invoke-call", Input))
        self.set_focus(first)
        self._show(self.query_one(AnswerPane))

    def request(self) -> FunctionRequest:
        """What the fields say."""

        fields = {name: self.query_one(f"#invoke-{name}", Input).value for name, _, _ in TEXTS}
        choices = {name: self.query_one(f"#invoke-{name}", Toggle).value for name, _ in CHOICES}
        texts: dict[str, Any] = {name: text.strip() for name, text in fields.items() if text.strip()}
        if "args" in texts:
            texts["args"] = Raw(texts["args"].encode())
        if "types" in texts:
            texts["types"] = tuple(_OUTER_COMMA.split(texts["types"]))
        if fields["stdin"]:
            texts["stdin"] = fields["stdin"].replace("\\n", "\n")
        return FunctionRequest(**{"url": "", "call": "", **texts, **choices})

    def fault(self) -> str:
        """Why this cannot be sent; empty when it can. The island checks more."""
        request = self.request()
        if not request.url:
            return "which repository?"
        if not request.call:
            return "which call?"
        # Loading the grammar takes 20 ms, which the console's start should not pay.
        from skyisland.golang.call import parse_call
        from skyisland.golang.callee import parse_callee

        try:
            if request.data is None:
                parse_call(request.call)
            else:
                msgspec.json.decode(request.data.json, type=Raw)
                parse_callee(request.call, request.types)
        except IslandError as wrong:
            return wrong.message
        except msgspec.DecodeError as wrong:
            return f"arguments: not JSON: {wrong}"
        return ""

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "invoke-call" and event.value != self._start["call"]:
            self._show_fault(self.fault() if event.value else "")
            if self.query_one(Offered).display:
                self.query_one(Offered).narrow(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "invoke-url":
            self.action_look()
        else:
            self.action_send()

    def _show_fault(self, fault: str) -> None:
        self.query_one("#invoke-fault", Label).update(Content(line(fault)))

    def action_send(self) -> None:
        """Send it in the background; the keyboard stays free, and closing the dialog hangs up."""
        fault = self.fault()
        self._show_fault(fault)
        if not (fault or self._sending):
            self._sending = True
            self.run_worker(self._send())

    async def _send(self) -> None:
        reply = self.query_one(AnswerPane)
        self._show(reply)
        request = self.request()
        reply.called = reply.failure = None
        reply.note = (f"running{reply.glyphs['more']}   esc hangs up", "info")
        reply.paint()
        try:
            called = await self.station.port.invoke(request)
        except (IslandError, LinkLost) as failure:
            reply.failure = failure
        else:
            reply.called = called
            reply.request = as_request(request, called, self.station.now)
        finally:
            self._sending = False
        reply.first = 0
        if reply.is_running:
            reply.paint()

    def action_look(self) -> None:
        """Ask what the package offers, and show it in place of the answer."""
        request = self.request()
        self._show_fault("" if request.url else "which repository?")
        if request.url and not self._sending:
            self._sending = True
            self.run_worker(self._look(request))

    async def _look(self, request: FunctionRequest) -> None:
        offered, reply = self.query_one(Offered), self.query_one(AnswerPane)
        self._show(reply)
        reply.called = reply.failure = None
        reply.note = (f"asking what it offers{reply.glyphs['more']}   the first time takes a build", "info")
        reply.paint()
        try:
            catalogue = await self.station.port.functions(request.url, request.version)
        except (IslandError, LinkLost) as failure:
            reply.failure = failure
            if reply.is_running:
                reply.paint()
        else:
            if offered.is_running:
                self._show(offered)
                offered.offer(catalogue, request.call)
                self.set_focus(offered)
        finally:
            self._sending = False

    def _show(self, pane: Canvas) -> None:
        """Show one of the two panes below the fields."""
        for one in (self.query_one(Offered), self.query_one(AnswerPane)):
            one.display = one is pane

    def on_offered_chosen(self, event: Offered.Chosen) -> None:
        field = self.query_one("#invoke-call", Input)
        field.value = ready_call(event.entry)
        field.cursor_position = len(field.value)
        self.set_focus(field)

    def action_curl(self) -> None:
        self.desk.copy_to_clipboard(self.station.port.curl(self.request()))
        self.desk.say("copied as curl")

    def action_leave(self) -> None:
        self.dismiss(None)


def as_request(request: FunctionRequest, called: Called, now: float) -> InvocationRow:
    """The answer as a row of the board, for its waterfall."""
    answer, timings = called.answer, called.answer.timings
    row = InvocationRow(answer.id, request.url, request.call, now - timings.total_s)
    row.verdict = line(called.verdict)
    row.error = line(shortened(answer.error.message)) if answer.error is not None else ""
    row.jail = answer.jail and line(answer.jail)
    row.commit = answer.version
    row.cached = answer.cached
    row.warm = answer.warm
    row.spent = {phase: spent for phase in Phase if (spent := seconds_of(timings, phase))}
    row.total_s = timings.total_s
    return row
