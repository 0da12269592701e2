"""The actions that choose how things are shown: zoom, filters, the pace, copies. None changes the island."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui import questions
from tui.dialogs import AskToken, FilterBar
from tui.draw.canvas import Pager
from tui.draw.logs import Logs
from tui.draw.table import Table
from tui.going import Going
from tui.watch.filter import Filter
from tui.watch.rows import InvocationRow
from tui.watch.station import POLL_S
from tui.words import duration, line

if TYPE_CHECKING:
    from textual.timer import Timer

REFRESH_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""The paces that + and - choose from, in seconds between two pictures."""


class Looking(Going):
    """The actions that choose how things are shown."""

    refresh_s: float
    _timer: Timer

    def _tick(self) -> None:
        raise NotImplementedError

    def action_zoom(self) -> None:
        """Let the focused pane fill the view, or show all panes again."""
        view = self.shown_view
        view.zoom(None if view.has_class("-zoom") else self.home.focused)
        self._described = False
        self.call_after_refresh(self.paint_all)

    async def action_widen(self) -> None:
        """Undo the first of these that there is: marks, a filter of the operator's, one jail's log, zoom, the
        way here."""
        pane, view = self.home.focused, self.shown_view
        if isinstance(pane, Table) and pane.marks:
            pane.marks.clear()
        elif isinstance(pane, (Table, Logs)) and (pane.filter or pane.faults_only) and not self.brought(pane):
            pane.filter, pane.faults_only = Filter(), False
        elif view.has_class("-zoom") and not self._described:
            self.action_zoom()
        elif not await self.back():
            if isinstance(pane, Logs) and pane.jail is not None:
                pane.jail = None
            elif self.view != "overview":
                await self._show("overview")
        self.paint_all()

    # Filter, pause, pace

    def action_filter(self) -> None:
        pane = self.home.focused
        if isinstance(pane, (Table, Logs)):
            self._pane_before = pane
            self.home.query_one("#keys").display = False
            self.home.query_one(FilterBar).open(pane.filter.text)

    def filtered(self, text: str) -> None:
        """The text of the filter line is now `text`."""
        pane = self._pane_before
        if isinstance(pane, (Table, Logs)):
            pane.filter = Filter(text)
            pane.paint()

    def filter_done(self) -> None:
        """The filter line was left."""
        pane, self._pane_before = self._pane_before, None
        self.home.query_one("#keys").display = True
        if pane is not None:
            self.home.set_focus(pane)
        self.call_after_refresh(self.paint_all)

    def action_faults(self) -> None:
        pane = self.home.focused
        if isinstance(pane, (Table, Logs)):
            pane.faults_only = not pane.faults_only
            self.paint_all()

    def action_pause(self) -> None:
        """Freeze what is shown, or catch up with what happened meanwhile."""
        if self.station.paused:
            self.station.resume()
        else:
            self.station.pause()
        self.paint_all()

    def action_pace(self, by: int) -> None:
        paces = sorted({*REFRESH_S, self.refresh_s})
        at = max(0, min(len(paces) - 1, paces.index(self.refresh_s) + by))
        self.keep_pace(paces[at])
        self.say(f"refreshed every {duration(self.refresh_s)}")

    def keep_pace(self, refresh_s: float) -> None:
        self.refresh_s = refresh_s
        self.station.poll_s = max(POLL_S, refresh_s)
        if self.follows:
            if hasattr(self, "_timer"):
                self._timer.stop()
            self._timer = self.set_interval(refresh_s / 2, self._tick)

    # To the clipboard, and to a file

    def action_copy(self) -> None:
        row = self.row
        if row is not None:
            self.copy_to_clipboard(line(row.key))
            self.say(f"copied {row.key}")

    def action_curl(self) -> None:
        row = self.row
        if isinstance(row, InvocationRow):
            if row.handled:
                text = f"a request to a handler is not kept: nothing was copied; send it to /fn/{row.name}"
                self.say(text, bad=True)
                return
            request = row.again_by_name() if row.name else row.again()
            if request is None:
                why = "was too long to be kept" if row.verdict else "is known when it has ended"
                self.say(f"the request {why}: nothing was copied", bad=True)
                return
            self.copy_to_clipboard(self.station.port.curl(request, row.name))
            what = (
                f"a call of {row.name}, as it stands then"
                if row.name
                else "the same request, of the same commit"
            )
            self.say(f"copied as curl: {what}")

    def action_picture(self) -> None:
        self.deliver_screenshot()

    # The connection

    def action_retry(self) -> None:
        self.station.retry()

    def action_token(self) -> None:
        if any(isinstance(screen, AskToken) for screen in self.screen_stack):
            return

        def given(token: str | None) -> None:
            if token:
                self.station.authorize(token)

        self.push_screen(AskToken(self.station.connection.cause), given)

    def action_help(self) -> None:
        self.push_screen(questions.keys(self.home, self.home.focused))

    # Which actions apply

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        focused = self.home.focused if self.screen_stack else None
        match action:
            case "filter" | "faults":
                return isinstance(focused, (Table, Logs))
            case "zoom":
                return isinstance(focused, (Table, Logs, Pager))
            case "logs":
                return self.view != "logs"
            case "describe" | "fault":
                return self.table is not None
            case "curl":
                return focused is not None and self.table is not None and self.table.kind is InvocationRow
            case "retry":
                return self.station.connection.state != "live"
            case "token":
                return self.station.connection.state == "unauthorized"
        return True
