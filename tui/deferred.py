"""The operator's orders about calls that answer later: cancel, run again, forget.

No event tells of them: an order is done when the island answers, and the calls are asked for anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from skyisland.errors import IslandError
from skyisland.later.calls import CallState
from tui.dialogs import Ask, Choice
from tui.draw.calls import state_of
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Spans
from tui.orders import Orders
from tui.questions import NO, listed
from tui.watch.calls import CallRow
from tui.watch.port import LinkLost
from tui.words import fit


def cancel(rows: Sequence[CallRow], glyphs: Glyphs) -> Ask:
    """Whether these calls are to be cancelled."""
    title = f"Cancel {len(rows)} calls?" if len(rows) > 1 else "Cancel this call?"
    lines: list[Spans] = [*_named(rows, glyphs), [("They end as cancelled, and are not tried again.", "dim")]]
    word = "Cancel them" if len(rows) > 1 else "Cancel it"
    return Ask(title, lines, (NO, Choice("y", word, "yes", "error")), danger=True)


def redrive(rows: Sequence[CallRow], glyphs: Glyphs) -> Ask:
    """Whether these calls are to be run again."""
    title = f"Run {len(rows)} calls again?" if len(rows) > 1 else "Run this call again?"
    about: list[Spans] = [
        [("Each has all its attempts once more.", "dim")],
        [("Of a call that is done, its callback is sent again.", "dim")],
    ]
    return Ask(title, [*_named(rows, glyphs), *about], (NO, Choice("y", "Run again", "yes", "warning")))


def forget(chosen: int) -> Ask:
    """Which calls are to be forgotten; answered with `chosen`, `all`, `done` or `dead`. `chosen`: how many of
    the chosen ones are over."""
    these = [Choice("t", f"These {chosen}" if chosen > 1 else "This one", "chosen", "warning")]
    lines: list[Spans] = [
        [("They go with their results; by kind also those that are not listed.", "text")],
        [("Whoever asks for one of them is told that there is none.", "dim")],
    ]
    choices = (
        NO,
        *these[: chosen and 1],
        Choice("d", "Done", "done", "warning"),
        Choice("x", "Dead", "dead", "warning"),
        Choice("a", "All over", "all", "error"),
    )
    return Ask("Forget which calls?", lines, choices, danger=True)


def _named(rows: Sequence[CallRow], glyphs: Glyphs) -> list[Spans]:
    names: list[Spans] = []
    for row in rows:
        sign, tone = state_of(row, glyphs)
        label = fit(row.label, 36, more=glyphs["more"])
        names.append([(f"{row.short}  {label}  ", "text"), (fit(sign, 12), tone), (row.client, "dim")])
    return listed(names)


class Deferred(Orders):
    """The actions on calls that answer later."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        focused = self.home.focused if self.screen_stack else None
        match action:
            case "cancel_calls" | "redrive":
                of_calls = focused is not None and self.table is not None and self.table.kind is CallRow
                return not self.readonly and of_calls
            case "forget_calls":
                return not self.readonly and self.view == "calls"
        return super().check_action(action, parameters)

    def _chosen_calls(self, fit_for: Callable[[CallRow], bool]) -> list[CallRow]:
        return [row for row in self.chosen if isinstance(row, CallRow) and fit_for(row)]

    def action_cancel_calls(self) -> None:
        rows = self._chosen_calls(lambda row: not row.state.final)
        if not rows:
            self.say("no call that is under way is selected", bad=True)
        elif self._may_act():
            self._ask(cancel(rows, self.glyphs), rows, "cancelling", "cancelled", self.station.port.cancel)

    def action_redrive(self) -> None:
        rows = self._chosen_calls(lambda row: row.may_run_again)
        if not rows:
            self.say("no dead or cancelled call, and none with a dead callback, is selected", bad=True)
        elif self._may_act():
            self._ask(
                redrive(rows, self.glyphs), rows, "going again", "runs again:", self.station.port.redrive
            )

    def _ask(
        self,
        question: Ask,
        rows: list[CallRow],
        doing: str,
        done: str,
        order: Callable[[str], Awaitable[Any]],
    ) -> None:
        def answered(answer: str | None) -> None:
            if answer == "yes":
                for row in rows:
                    row.ordered = doing
                self._begin()
                self.run_worker(self._carry_out(rows, done, order), group="act")

        self.push_screen(question, answered)

    async def _carry_out(
        self, rows: list[CallRow], done: str, order: Callable[[str], Awaitable[Any]]
    ) -> None:
        async def one(row: CallRow) -> str:
            try:
                await order(row.id)
            except (IslandError, LinkLost) as failure:
                return str(failure)
            finally:
                row.ordered = ""
            return ""

        await self._all(done, [(row.short, one(row)) for row in rows])
        await self._quietly(self.station.fetch_calls())

    def action_forget_calls(self) -> None:
        rows = self._chosen_calls(lambda row: row.state.final)

        def answered(answer: str | None) -> None:
            if answer == "chosen":
                self._begin()
                order = self._carry_out(rows, "forgot", self.station.port.forget_call)
                self.run_worker(order, group="act")
            elif answer not in (None, "no"):
                self._forget_calls(answer)

        if self._may_act():
            self.push_screen(forget(len(rows)), answered)

    def _forget_calls(self, which: str | None) -> None:
        state = None if which in (None, "all") else CallState(which)
        self._begin()

        async def order() -> None:
            await self._everything(self.station.port.forget_calls(state), "forgot", "call", "calls")
            await self._quietly(self.station.fetch_calls())

        self.run_worker(order(), group="act")
