"""The operator's orders on names: pause, move, roll back, define, forget, call.

The island answers when an order is done. What has to be built first takes as long as that does; the row says
so meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from skyisland.errors import IslandError
from skyisland.figures import NAMES
from skyisland.model import NamedCall
from skyisland.named.definition import Revision
from tui import questions
from tui.defining import CallName, Define
from tui.dialogs import AskText
from tui.orders import Orders
from tui.watch.names import NameRow, other_revision
from tui.watch.port import LinkLost
from tui.watch.rows import FunctionRow, InvocationRow, JailRow


class Naming(Orders):
    """The actions that change names."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        focused = self.home.focused if self.screen_stack else None
        kind = self.table.kind if focused is not None and self.table is not None else None
        match action:
            case "pause_name" | "move_name" | "roll_back" | "forget_name" | "redefine":
                return not self.readonly and kind is NameRow
            case "define":
                return not self.readonly and self.view == "names"
        return super().check_action(action, parameters)

    def _chosen_names(self) -> list[NameRow]:
        return [row for row in self.chosen if isinstance(row, NameRow)]

    @property
    def _selected_name(self) -> NameRow | None:
        """The name that an order on one is about, if there is one and the island is in reach."""
        row = self.row
        if not isinstance(row, NameRow):
            self.say("no name is selected", bad=True)
        elif self._may_act():
            return row
        return None

    async def _change(self, row: NameRow, doing: str, order: Awaitable[None]) -> str:
        """Carry out an order on a name; returns the fault, in words."""
        name = row.key
        row.changing = doing
        try:
            await order
        except (IslandError, LinkLost) as failure:
            return str(failure)
        finally:
            if name in self.board.names:
                self.board.names[name].changing = ""
            await self._quietly(self.station.fetch_names())
        return ""

    # Taking calls

    def action_pause_name(self) -> None:
        """Have the chosen names refuse calls; if all do so already, take them again."""
        rows = self._chosen_names()
        if not rows:
            self.say("no name is selected", bad=True)
        elif self._may_act():
            active = [row for row in rows if not row.info.paused]
            ask = (
                questions.pause_names(active, self.glyphs)
                if active
                else questions.resume_names(rows, self.glyphs)
            )
            self.push_screen(
                ask,
                lambda answer: self._pause_names(active or rows, bool(active)) if answer == "yes" else None,
            )

    def _pause_names(self, rows: Sequence[NameRow], pause: bool) -> None:
        self._begin()
        port = self.station.port
        doing, order = ("pausing", port.pause) if pause else ("resuming", port.resume)
        work = [(row.name, self._change(row, doing, order(row.key))) for row in rows]
        self.run_worker(self._all("paused" if pause else "resumed", work), group="act")

    # What they stand for

    def action_move_name(self) -> None:
        row = self._selected_name
        if row is None:
            return

        def given(version: str | None) -> None:
            if version is not None:
                self._begin()
                order = self._change(row, "moving", self.station.port.move(row.key, version or None))
                self.run_worker(self._all("moved", [(row.name, order)]), group="act")

        pinned = "\nIt is pinned: name a branch, and it follows that." if row.info.definition.pin else ""
        about = (
            f"It is built first, and stays at {row.info.commit[:12]} until then.{pinned}\nTo which version?"
        )
        hint = f"branch, tag or commit; empty: where {row.info.definition.version or 'the branch'} is now"
        self.push_screen(AskText(f"Move {row.name}", about, hint=hint, optional=True), given)

    def action_roll_back(self) -> None:
        row = self._selected_name
        if row is not None:
            self.run_worker(self._ask_for_revision(row), group="act")

    async def _ask_for_revision(self, row: NameRow) -> None:
        try:
            history = await self.station.port.revisions(row.key)
        except (IslandError, LinkLost) as failure:
            self.say(str(failure), bad=True)
            return
        other = other_revision(history)
        if other is None:
            self.say(f"{row.name} has stood for nothing else", bad=True)
            return

        def given(text: str | None) -> None:
            if text is not None:
                self._roll_back(row, history, text)

        self.push_screen(questions.revision(row, history, other, self.station.now), given)

    def _roll_back(self, row: NameRow, history: list[Revision], text: str) -> None:
        to = next((one.revision for one in history if str(one.revision) == text), None)
        if to is None:
            self.say(f"{row.name} has no revision {text}", bad=True)
            return
        self._begin()
        order = self._change(row, "moving", self.station.port.roll_back(row.key, to))
        self.run_worker(self._all("rolled back", [(row.name, order)]), group="act")

    def action_define(self) -> None:
        if self._may_act():
            self.push_screen(Define())

    def action_redefine(self) -> None:
        row = self._selected_name
        if row is not None:
            self.push_screen(Define(self.board.names.get(row.key, row)))  # the latest that is known

    def action_forget_name(self) -> None:
        rows = self._chosen_names()
        if not rows:
            self.say("no name is selected", bad=True)
        elif self._may_act():
            self.push_screen(
                questions.forget_names(rows, self.glyphs),
                lambda answer: self._forget(rows) if answer == "yes" else None,
            )

    def _forget(self, rows: Sequence[NameRow]) -> None:
        self._begin()
        work = [(row.name, self._change(row, "leaving", self.station.port.forget(row.key))) for row in rows]
        self.run_worker(self._all("forgot", work), group="act")

    # Calls

    def action_invoke(self) -> None:
        row = self.row
        if isinstance(row, NameRow):
            self._call(row)
        elif isinstance(row, JailRow) and (its_call := self._by_name_in(row)) is not None:
            self.run_worker(self._call_again(its_call), group="act")
        elif (isinstance(row, InvocationRow) and row.name) or (
            isinstance(row, FunctionRow) and row.figures.repository == NAMES
        ):
            self.run_worker(self._call_again(row), group="act")
        else:
            super().action_invoke()

    def _by_name_in(self, jail: JailRow) -> InvocationRow | None:
        """The call that this jail works for, if it is one of a name."""
        its_call = self.board.invocations.get(jail.info.invocation or "")
        return its_call if its_call is not None and its_call.name else None

    def _call(self, row: NameRow, asked: NamedCall | None = None) -> None:
        if row.info.definition.handler:
            self.say(f"{row.name} is a handler: it answers requests to /fn/{row.name}", bad=True)
        else:
            self.push_screen(CallName(row, asked))

    async def _call_again(self, over: InvocationRow | FunctionRow) -> None:
        """Ask for a call of the name that was called: as a plain one it had neither environment nor
        secrets."""
        await self._quietly(self.station.fetch_names())
        row = self.board.names.get(over.name)
        if row is None:
            self.say(f"{over.name} is no name any more", bad=True)
        else:
            self._call(row, over.again_by_name() if isinstance(over, InvocationRow) else None)
