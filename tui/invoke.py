"""The invoke dialog: a call by hand, its answer and where its time went.

It asks for every field of a `FunctionRequest`: texts stand in `TEXTS`, choices in `CHOICES`, each under the
name of its field.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec
from msgspec import UNSET, Raw
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from skyisland.errors import IslandError
from skyisland.model import FunctionRequest
from tui.answer import AnswerPane
from tui.calls import Remembered, kept_apart
from tui.catalogue import Offered, ready_call
from tui.dialogs import AskText, Toggle
from tui.draw.canvas import Canvas
from tui.watch.port import LinkLost
from tui.words import label, line

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


KEYS = (
    ("ctrl+r", "send"),
    ("ctrl+f", "functions"),
    ("ctrl+o", "calls"),
    ("ctrl+s", "save"),
    ("ctrl+d", "diff"),
    ("ctrl+y", "curl"),
    ("esc", "close"),
)
"""Keys of the dialog, and what they do."""
_OUTER_COMMA = re.compile(r"\s*,\s*(?![^\[]*\])")
"""A comma that is not within brackets."""


_READ: dict[str, Callable[[str], Any]] = {
    "args": lambda text: Raw(text.encode()),
    "types": lambda text: tuple(_OUTER_COMMA.split(text)),
}
"""How the text of a field becomes its value."""


def written(request: FunctionRequest) -> dict[str, str]:
    """Its fields as the operator would type them."""
    return {
        "url": request.url,
        "call": request.call,
        "args": bytes(request.args).decode(errors="replace") if isinstance(request.args, Raw) else "",
        "types": ", ".join(request.types),
        "version": request.version or "",
        "stdin": (request.stdin or "").replace("\n", "\\n"),
    }


class Invoke(ModalScreen[None]):
    """Asks for a call, runs it, shows the answer; stays open for the next."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "send", "send", priority=True),
        Binding("ctrl+f", "look", "functions", priority=True),
        Binding("ctrl+o", "remembered", "calls made before", priority=True),
        Binding("ctrl+s", "save", "save the call", priority=True),
        Binding("ctrl+d", "compare", "compare with the answer before", priority=True),
        Binding("ctrl+y", "curl", "copy as curl", priority=True),
        Binding("escape", "leave", "close"),
    ]

    def __init__(self, request: FunctionRequest) -> None:
        """`request`: what the fields say at first; its URL may be empty."""
        super().__init__()
        self._given = request
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
            for name, label, hint in TEXTS:
                with Horizontal(classes="field"):
                    yield Label(label)
                    # Nothing is selected: the operator goes on with what stands there.
                    yield Input(
                        id=f"invoke-{name}",
                        placeholder=hint,
                        compact=True,
                        select_on_focus=False,
                    )
            with Horizontal(classes="field options"):
                yield Label("options")
                for name, words in CHOICES:
                    yield Toggle(words, id=f"invoke-{name}")
                yield Toggle("", id="invoke-kept")
            yield Label("", id="invoke-fault")
            yield AnswerPane()
            yield Offered()
            yield Remembered()

    def on_mount(self) -> None:
        self.fill(self._given)
        empty = [field for field in self.query(Input) if not field.value]
        order = ("invoke-url", "invoke-call")
        first = next((field for field in empty if field.id in order), self.query_one("#invoke-call", Input))
        self.set_focus(first)
        self._show(self.query_one(AnswerPane))

    def on_resize(self) -> None:
        """Name the keys in the border, in short where there is less room."""
        box = self.query_one("#invoke")
        full = "  ".join(f"{key} {word}" for key, word in KEYS)
        room = min(100, self.size.width * 96 // 100) - 6
        brief = " ".join(f"{key.replace('ctrl+', '^')} {word}" for key, word in KEYS)
        box.border_subtitle = full if len(full) <= room else brief

    def fill(self, request: FunctionRequest) -> None:
        """Have the fields say this request."""
        self._given = request
        for name, text in written(request).items():
            self.query_one(f"#invoke-{name}", Input).value = line(text)
        for name, _ in CHOICES:
            self.query_one(f"#invoke-{name}", Toggle).set(getattr(request, name))
        kept, words = self.query_one("#invoke-kept", Toggle), kept_apart(request)
        kept.display = bool(words)
        kept.set(bool(words), f"with its {', '.join(words)}")

    def request(self) -> FunctionRequest:
        """What the fields say. A field that nobody changed is as it was given, to the letter: on the screen,
        what could harm a terminal is left out."""
        given = self._given
        texts: dict[str, Any] = {}
        for name, was in written(given).items():
            value = self.query_one(f"#invoke-{name}", Input).value
            if value == line(was):
                texts[name] = getattr(given, name)
            elif name == "stdin":
                texts[name] = value.replace("\\n", "\n") or None
            elif value.strip():
                texts[name] = _READ.get(name, str)(value.strip())
        if self.query_one("#invoke-kept", Toggle).value:
            texts |= {"inputs": given.inputs, "stdin_base64": given.stdin_base64}
        choices = {name: self.query_one(f"#invoke-{name}", Toggle).value for name, _ in CHOICES}
        return FunctionRequest(**{"url": "", **texts, **choices})

    def fault(self) -> str:
        """Why this cannot be sent; empty when it can. The island checks more."""
        request = self.request()
        if not request.url:
            return "which repository?"
        if not request.call:
            return "which call?"
        if request.inputs is not UNSET and request.args is not UNSET:
            return "arguments, or the inputs that are kept: not both"
        if request.stdin is not None and request.stdin_base64 is not None:
            return "one input, typed or kept: not both"
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
        if event.input.id == "invoke-call" and event.value != line(self._given.call):
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
        reply.say(f"running{reply.glyphs['more']}   esc hangs up")
        self.run_worker(asyncio.to_thread(self.desk.memory.note_call, request))
        try:
            called = await self.station.port.invoke(request)
        except (IslandError, LinkLost) as failure:
            reply.failure = failure
        else:
            reply.take(request, called)
        finally:
            self._sending = False
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
        reply.say(f"asking what it offers{reply.glyphs['more']}   the first time takes a build")
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
        """Show one of the panes below the fields."""
        for one in (self.query_one(Offered), self.query_one(AnswerPane), self.query_one(Remembered)):
            one.display = one is pane

    def on_offered_chosen(self, event: Offered.Chosen) -> None:
        field = self.query_one("#invoke-call", Input)
        field.value = ready_call(event.entry)
        field.cursor_position = len(field.value)
        self.set_focus(field)

    def action_remembered(self) -> None:
        """Show the calls that were made by hand, or the answer again."""
        remembered = self.query_one(Remembered)
        if remembered.display:
            self._show(self.query_one(AnswerPane))
            return
        self._show(remembered)
        remembered.offer(self.desk.memory.calls)
        self.set_focus(remembered)

    def on_remembered_chosen(self, event: Remembered.Chosen) -> None:
        self.fill(event.request)
        self._show(self.query_one(AnswerPane))
        self.set_focus(self.query_one("#invoke-call", Input))

    async def on_remembered_forgotten(self, event: Remembered.Forgotten) -> None:
        await asyncio.to_thread(self.desk.memory.forget_call, event.request)
        self.query_one(Remembered).offer(self.desk.memory.calls)

    def action_save(self) -> None:
        """Ask for a name, and keep the call by it."""
        request = self.request()
        if not request.url:
            self._show_fault("which repository?")
            return

        async def keep(name: str) -> None:
            done = await asyncio.to_thread(self.desk.memory.save_call, name, request)
            self._show_fault(f"saved as {name}; ctrl+o lists it" if done else "it is too long to keep")

        def given(name: str | None) -> None:
            if name:
                self.run_worker(keep(name))

        self.app.push_screen(
            AskText("Save this call", "by which name?", label(request.url, request.call)), given
        )

    def action_compare(self) -> None:
        """Show how the answer differs from the one before, or the answer again."""
        reply = self.query_one(AnswerPane)
        if reply.before is None or reply.called is None:
            self._show_fault("there is no answer before to compare with")
            return
        self._show(reply)
        reply.comparing, reply.first = not reply.comparing, 0
        reply.paint()

    def action_curl(self) -> None:
        self.desk.copy_to_clipboard(self.station.port.curl(self.request()))
        self.desk.say("copied as curl")

    def action_leave(self) -> None:
        self.dismiss(None)
