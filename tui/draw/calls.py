"""The view of the calls that answer later: its table, its columns, and a call in full."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical

from skyisland.later.calls import Attempt, CallbackState, CallState, Delivery
from tui.draw.canvas import Line
from tui.draw.charts import wrapped
from tui.draw.columns import call_in_room
from tui.draw.details import Detail, facts
from tui.draw.glyphs import Glyphs
from tui.draw.table import Column, Ink, Table
from tui.draw.tones import Span
from tui.draw.views import View
from tui.watch.board import Board
from tui.watch.calls import CallRow
from tui.words import age, clock, duration, fit, line

GLYPHS = {
    CallState.queued: "open",
    CallState.running: "running",
    CallState.done: "ok",
    CallState.dead: "bad",
    CallState.cancelled: "dying",
}
"""The state whose sign and tone each has."""
CALLBACK_TONES = {
    CallbackState.waiting: "info",
    CallbackState.delivered: "text",
    CallbackState.dead: "bad",
}


def state_of(row: CallRow, glyphs: Glyphs) -> Span:
    """Its state, with sign and tone."""
    return glyphs.state("setting" if row.ordered else GLYPHS[row.state], row.word)


def due(row: CallRow, now: float) -> str:
    """When it is tried again; empty if it does not wait for that."""
    due_at = row.record.due_at
    return "" if due_at is None else f"in {age(due_at - now)}" if due_at > now else "now"


def _callback(row: CallRow, ink: Ink) -> Span:
    callback = row.record.callback
    return ("-", "dim") if callback is None else (str(callback.state), CALLBACK_TONES[callback.state])


def _message(row: CallRow, ink: Ink) -> Span:
    return row.message or "-", "bad" if row.message and row.state is CallState.dead else "dim"


def _function(row: CallRow, ink: Ink) -> Span:
    shown = row.label if row.name else call_in_room(row.url, row.call, row.label, ink)
    return fit(shown, ink.width, more=ink.glyphs["more"]), "text"


CALLS: list[Column] = [
    Column("CALL", 8, lambda c, ink: (c.short, "text"), None),
    Column("STATE", 12, lambda c, ink: state_of(c, ink.glyphs), lambda c, now: c.word),
    Column("TRY", 3, lambda c, ink: (str(len(c.record.attempts) or "-"), "text"),
           lambda c, now: len(c.record.attempts), ">", falling=True),
    Column("ACCEPTED", 9, lambda c, ink: (f"{age(ink.now - c.record.created_at)} ago", "text"),
           lambda c, now: c.record.created_at, ">", falling=True),
    Column("DUE", 8, lambda c, ink: (due(c, ink.now) or "-", "text" if c.record.due_at else "dim"),
           lambda c, now: c.record.due_at or 0.0, ">", 4, falling=True),
    Column("CLIENT", 11, lambda c, ink: (c.client or "-", "text"), lambda c, now: c.client, rank=5),
    Column("FUNCTION", 18, _function, lambda c, now: c.label, grow=10),
    Column("CALLBACK", 9, _callback, lambda c, now: c.callback, rank=3),
    Column("MESSAGE", 12, _message, lambda c, now: c.message, rank=2, rest=True),
]  # fmt: skip


class CallsTable(Table[CallRow]):
    """The calls that answer later, the newest first."""

    def __init__(self, board: Board, id: str) -> None:  # noqa: A002
        super().__init__(
            "Calls that answer later",
            CallRow,
            CALLS,
            lambda: board.calls.values(),
            sort="ACCEPTED",
            empty="no call answers later   $ skyisland invoke --async",
            id=id,
            faulty=lambda row: row.state is CallState.dead or row.callback_failed,
            row_tone=lambda row: "dim" if row.state is CallState.cancelled else "",
        )

    def titles(self, width: int) -> tuple[str, str]:
        title, lower = super().titles(width)
        fault = self.station.calls_fault
        return f"{title}  {fault}" if fault else title, lower


class CallDetail(Detail[CallRow]):
    """A call in full: its attempts and why they failed, its callback's deliveries, its result."""

    nothing = "no call is selected"

    def lines(self, row: CallRow, width: int) -> list[Line]:
        now, record = self.station.now, row.record
        sign, tone = state_of(row, self.glyphs)
        room = min(len(row.label), max(12, width - len(sign) - 4))
        lines = [
            Line([(f" {fit(row.label, room, more=self.glyphs['more'])}", "strong"), (f"  {sign}", tone)])
        ]
        if row.message:
            lines += wrapped(row.message, width, "bad" if row.state is CallState.dead else "warn", indent=" ")
        details = record.error.details if record.error is not None else None
        if isinstance(details, dict):  # the compiler's lines, for one
            for each in str(details.get("output", "")).splitlines():
                lines += wrapped(line(each), width, "text", indent="   ")
        pairs = [("accepted", f"{clock(record.created_at)}, {age(now - record.created_at)} ago", "text")]
        pairs += [("due", due(row, now), "text")] if record.due_at is not None else []
        if record.ended_at is not None:
            pairs.append(("over", f"{clock(record.ended_at)}, after {duration(row.seconds(now))}", "text"))
        called = f"   called {row.caller_id}" if row.caller_id else ""
        pairs += [("client", f"{row.client}{called}", "text"), ("source", row.url or "-", "text")]
        lines += facts(pairs)
        if record.attempts:
            lines.append(Line([(" attempts", "dim")]))
            for attempt in record.attempts:
                lines += wrapped(tried(attempt, now), width, "text", indent="   ")
        return [*lines, *self._callback(row, now, width), *self._result(row, width)]

    def _callback(self, row: CallRow, now: float, width: int) -> list[Line]:
        callback = row.record.callback
        if callback is None:
            return []
        again = callback.due_at
        when = f", again in {age(again - now)}" if again is not None and again > now else ""
        tone = CALLBACK_TONES[callback.state]
        lines = [Line([(" callback ", "dim"), (f"{callback.state}{when}", tone)])]
        lines += wrapped(line(callback.url), width, "text", indent="   ")
        for delivery in callback.deliveries:
            lines += wrapped(sent(delivery), width, "text", indent="   ")
        return lines

    def _result(self, row: CallRow, width: int) -> list[Line]:
        if row.result is None:
            told = "enter asks for it" if not row.opened else "it is being asked for"
            return [Line([(f" result   {told}", "dim")])] if row.state is CallState.done else []
        lines = []
        for part in row.result:
            lines.append(Line([(f" {part.name}", "dim")]))
            for each in part.text.splitlines():
                lines += wrapped(line(each), width, "text", indent="   ")
        return lines

    def name_of(self, row: CallRow) -> str:
        return f"Call  {line(row.id)}"


def tried(attempt: Attempt, now: float) -> str:
    """An attempt in a line: when, how it ended, how long that took, why."""
    how = line(attempt.verdict) if attempt.ended_at is not None else "running"
    took = duration(max(0.0, (attempt.ended_at or now) - attempt.started_at))
    where = f"  on {line(attempt.node)}" if attempt.node else ""
    begin = f"{attempt.number}  {clock(attempt.started_at)}  {line(attempt.id)}{where}  {how}  {took}"
    return f"{begin}  {line(attempt.message)}".rstrip()


def sent(delivery: Delivery) -> str:
    """An attempt to send a callback in a line: when, what was answered, how long that took, why it failed."""
    status = "no answer" if delivery.status is None else str(delivery.status)
    begin = f"{clock(delivery.at)}  {status}  {duration(delivery.took_s)}"
    return f"{begin}  {line(delivery.error)}".rstrip()


class CallsView(View):
    """The calls that answer later, and one of them in full."""

    def compose(self) -> ComposeResult:
        table = CallsTable(self.board, "calls-table")
        with Vertical():
            yield table
            yield CallDetail(table, id="calls-detail", classes="detail below")
