"""The dialogs of a name: what it shall stand for, and a call of it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec
from msgspec import UNSET, Raw, structs
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from skyisland.errors import IslandError, StaleRevision
from skyisland.model import FunctionRequest, NamedCall
from skyisland.named.definition import Definition, checked, checked_name
from skyisland.named.schedule import FIELDS, Schedule
from tui import terms
from tui.answer import AnswerPane
from tui.dialogs import Toggle
from tui.watch.names import NameRow
from tui.watch.port import LinkLost
from tui.words import line

if TYPE_CHECKING:
    from tui.desk import Desk

Field = tuple[str, str, str]
"""Its name, its label, a hint."""


class NameDialog(ModalScreen[None]):
    """Lines to type into, and a fault below them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "send", "send", priority=True),
        Binding("escape", "leave", "close"),
    ]
    FIELDS: ClassVar[tuple[Field, ...]] = ()
    CHOICES: ClassVar[tuple[tuple[str, str], ...]] = ()
    _sending = False

    @property
    def desk(self) -> Desk:
        return cast("Desk", self.app)

    def fields(self, values: dict[str, str]) -> ComposeResult:
        """The lines, saying this at first, and the options."""
        for name, label, hint in self.FIELDS:
            with Horizontal(classes="field"):
                yield Label(label)
                value = line(values.get(name, ""))
                yield Input(value, id=f"name-{name}", placeholder=hint, compact=True, select_on_focus=False)
        with Horizontal(classes="field options"):
            yield Label("options")
            for name, words in self.CHOICES:
                yield Toggle(words, id=f"name-{name}")
        yield Label("", id="invoke-fault")

    def typed(self, name: str) -> str:
        return self.query_one(f"#name-{name}", Input).value.strip()

    def chosen(self, name: str) -> bool:
        return self.query_one(f"#name-{name}", Toggle).value

    def say(self, fault: str) -> None:
        if self.is_running:
            self.query_one("#invoke-fault", Label).update(Content(line(fault)))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.action_send()

    def action_send(self) -> None:
        raise NotImplementedError

    def action_leave(self) -> None:
        self.dismiss(None)


class Define(NameDialog):
    """Asks what a name shall stand for, on which terms. What else it has (webhook, warm jails) stays."""

    FIELDS = (
        ("name", "name", "a-z, 0-9, dot, dash, underscore"),
        ("url", "repository", "github.com/user/repo/package"),
        ("function", "function", "Encode; empty or main for a program"),
        ("handler", "or handler", "a http.Handler, which answers /fn/NAME"),
        ("version", "version", "branch, tag or commit; empty: the default branch"),
        ("schedule", "schedule", "0 8 * * MON-FRI Europe/Berlin; empty: only when called"),
        ("env", "environment", 'MODE=test GREETING="hello there"'),
        ("secrets", "secrets", "TOKEN=STRIPE_KEY: the variable, and the secret's name"),
        ("limits", "limits", "memory=64m cpus=0.5 cpu_time=2s pids=30 stdout=1m time=5s"),
        ("callers", "callers", "names of tokens; empty: whoever may call; *: everybody"),
    )
    CHOICES = (("pin", "stay at its commit"), ("verify", "only if its Examples pass"))

    def __init__(self, row: NameRow | None = None) -> None:
        """`row`: the name to define anew; None for a new one."""
        super().__init__()
        self.row = row

    def compose(self) -> ComposeResult:
        given = {} if self.row is None else structs.asdict(self.row.info.definition)
        values = {name: given.get(name) or "" for name, _, _ in self.FIELDS} | terms.shown(self._before)
        if self.row is not None:
            values["name"] = self.row.key
            schedule = self.row.info.definition.schedule
            values["schedule"] = f"{schedule.cron} {schedule.zone}" if schedule is not None else ""
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Define a name" if self.row is None else Content(f"Define {self.row.name}")
            box.border_subtitle = "ctrl+r define  esc close"
            yield from self.fields(values)
            yield Label(Content("The value of a secret is set by: skyisland secrets set NAME"))

    @property
    def _before(self) -> Definition:
        return self.row.info.definition if self.row is not None else Definition(url="")

    def on_mount(self) -> None:
        name = self.query_one("#name-name", Input)
        name.disabled = self.row is not None
        for choice, _ in self.CHOICES:
            self.query_one(f"#name-{choice}", Toggle).set(
                self.row is not None and getattr(self.row.info.definition, choice)
            )
        self.set_focus(name if self.row is None else self.query_one("#name-url", Input))

    def definition(self) -> Definition:
        """What the fields say.

        Raises:
            BadRequest: one of the terms cannot be read.
        """
        base = terms.changed(self._before, {name: self.typed(name) for name in terms.TERMS})
        texts: dict[str, Any] = {name: self.typed(name) for name in ("url", "function", "handler")}
        choices = {name: self.chosen(name) for name, _ in self.CHOICES}
        schedule = scheduled(self.typed("schedule"), base.schedule)
        version = self.typed("version") or None
        return structs.replace(base, **texts, version=version, schedule=schedule, **choices)

    def action_send(self) -> None:
        """Define it in the background: it is built first."""
        if self._sending:
            return
        name = self.row.key if self.row is not None else self.typed("name")
        try:
            checked_name(name)
            definition = checked(self.definition())
        except IslandError as wrong:
            self.say(wrong.message)
            return
        if not definition.url:
            self.say("which repository?")
            return
        self._sending = True
        self.say("building; esc leaves it to that")
        # The console's worker, not the dialog's: a build that was asked for goes on when this is closed.
        self.desk.run_worker(self._define(name, definition), group="act")

    async def _define(self, name: str, definition: Definition) -> None:
        station = self.desk.station
        try:
            await station.port.define(name, definition, self.row.info.revision if self.row else 0)
            await station.fetch_names()
        except (IslandError, LinkLost) as failure:
            self._sending = False
            fault = str(failure)
            if isinstance(failure, StaleRevision):
                fault = f"{name} is another by now: close this, look at it, and define it then"
            self.say(fault)
            if not self.is_running:
                self.desk.say(f"{name}: {fault}", bad=True)
            return
        self.desk.say(f"defined {name}")
        self.desk.paint_all()
        if self.is_running:
            self.dismiss(None)


def scheduled(text: str, base: Schedule | None) -> Schedule | None:
    """The schedule of a line: cron's five fields and a time zone; what else `base` says stays."""
    words = text.split()
    if not words:
        return None
    cron, zone = " ".join(words[:FIELDS]), " ".join(words[FIELDS:]) or "UTC"
    return structs.replace(base or Schedule(cron=""), cron=cron, zone=zone)


class CallName(NameDialog):
    """Calls a name, and shows the answer; stays open for the next call."""

    FIELDS = (
        ("args", "arguments", '[100.1, 80.9] or {"latitude": 100.1}'),
        ("stdin", "input", "what the function reads; \\n is a new line"),
    )
    CHOICES = (("cold", "new jail"),)

    def __init__(self, row: NameRow, asked: NamedCall | None = None) -> None:
        """`asked`: a call that was made before, to start from."""
        super().__init__()
        self.row = row
        self._given = asked or NamedCall()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide", id="invoke") as box:
            box.border_title = Content(f"Call {self.row.name}")
            box.border_subtitle = "ctrl+r send  esc close"
            yield Label(Content(f"{self.row.function} at {self.row.info.commit[:12]}"))
            yield from self.fields(self._texts())
            yield AnswerPane()

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#name-args", Input))
        self.query_one("#name-cold", Toggle).set(self._given.cold)
        if self._left_out():
            self.say("its input does not fit into these lines; C on its row copies all of it")

    def _texts(self) -> dict[str, str]:
        """The arguments and input of the call before, but for what these lines would change."""
        given = self._given
        args = (
            bytes(given.args).decode().translate(str.maketrans("\t\n\r", "   "))
            if isinstance(given.args, Raw)
            else ""
        )
        stdin = given.stdin or ""
        texts = {"args": args, "stdin": "" if "\\n" in stdin else stdin.replace("\n", "\\n")}
        return {name: text for name, text in texts.items() if line(text) == text}

    def _left_out(self) -> bool:
        given, texts = self._given, self._texts()
        return (
            given.inputs is not UNSET
            or given.stdin_base64 is not None
            or (isinstance(given.args, Raw) and not texts.get("args"))
            or bool(given.stdin and not texts.get("stdin"))
        )

    def action_send(self) -> None:
        """Send it in the background; closing the dialog hangs up."""
        args, stdin = self.typed("args"), self.query_one("#name-stdin", Input).value
        try:
            if args:
                msgspec.json.decode(args, type=Raw)
        except msgspec.DecodeError as wrong:
            self.say(f"arguments: not JSON: {wrong}")
            return
        self.say("")
        if not self._sending:
            self._sending = True
            asked = NamedCall(
                args=Raw(args.encode()) if args else UNSET,
                stdin=stdin.replace("\\n", "\n") or None,
                cold=self.chosen("cold"),
            )
            self.run_worker(self._send(asked))

    async def _send(self, asked: NamedCall) -> None:
        reply, definition = self.query_one(AnswerPane), self.row.info.definition
        reply.say(f"running{reply.glyphs['more']}   esc hangs up")
        try:
            called = await self.desk.station.port.call(self.row.key, asked)
        except (IslandError, LinkLost) as failure:
            reply.failure = failure
        else:
            shown = FunctionRequest(url=definition.url, call=definition.function, args=asked.args)
            reply.take(shown, called)
        finally:
            self._sending = False
        if reply.is_running:
            reply.paint()
