"""The actions that choose what is shown: views, panes, filters, the pace. None changes the island."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from textual import events as ui
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from skyisland.errors import IslandError
from skyisland.model import FunctionRequest
from tui import questions
from tui.desk import Desk
from tui.dialogs import AskToken, FilterBar
from tui.draw.canvas import Pager
from tui.draw.logs import Logs
from tui.draw.table import Table
from tui.draw.views import AddressesView, CacheView, HostView, JailsView, LogsView, RequestsView, View
from tui.watch.filter import Filter
from tui.watch.port import LinkLost
from tui.watch.rows import AddressRow, ArtifactRow, InvocationRow, JailRow
from tui.watch.station import POLL_S
from tui.words import duration, line

if TYPE_CHECKING:
    from textual.timer import Timer

REFRESH_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""The paces that + and - choose from, in seconds between two pictures."""
_VIEWS: dict[str, Callable[..., View]] = {
    "jails": JailsView,
    "ips": AddressesView,
    "cache": CacheView,
    "requests": RequestsView,
    "logs": LogsView,
    "host": HostView,
}
"""The views that are made when they are first shown; the console starts with the overview."""
_VIEW_OF = {JailRow: "jails", InvocationRow: "requests", AddressRow: "ips", ArtifactRow: "cache"}
"""The view that shows a row of each kind in full."""


class Looking(Desk):
    """The actions that choose what is shown."""

    follows: bool
    """It follows its port; pictures and tests feed it themselves."""
    refresh_s: float
    _pane_before: Widget | None = None
    """The pane that had the focus when the filter line took it."""
    _timer: Timer

    def _tick(self) -> None:
        raise NotImplementedError

    # What is selected

    @property
    def home(self) -> Screen[Any]:
        """The screen below all dialogs."""
        return self.screen_stack[0]

    @property
    def shown_view(self) -> View:
        return self.home.query_one(f"#{self.view}", View)

    @property
    def table(self) -> Table[Any] | None:
        """The table that has the focus."""
        focused = self.home.focused or self._pane_before
        return focused if isinstance(focused, Table) else None

    @property
    def row(self) -> JailRow | InvocationRow | AddressRow | ArtifactRow | None:
        return self.table.current if self.table is not None else None

    @property
    def chosen(self) -> list[Any]:
        """The marked rows, or the one under the cursor."""
        return self.table.chosen if self.table is not None else []

    def chosen_jails(self) -> list[JailRow]:
        """The living jails of the chosen rows; an address stands for its holder, a call for its jail."""
        names = []
        for row in self.chosen:
            if isinstance(row, JailRow):
                names.append(row.info.name)
            elif isinstance(row, AddressRow):
                names.append(row.info.jail or "")
            elif isinstance(row, InvocationRow) and not row.verdict:
                names.append(row.jail or "")
        return [self.board.jails[name] for name in dict.fromkeys(names) if name in self.board.jails]

    def refocus(self) -> None:
        """Give the focus back after the terminal was too small, which took it away."""
        fits = not (self.home.has_class("-tiny") or self.home.has_class("-flat"))
        if fits and self.home.focused is None:
            self.home.set_focus(self.shown_view.main)

    # Views

    async def show_view(self, view: str) -> None:
        """Show a view; it is made when it is first shown."""
        if self._exit:
            return
        switcher = self.home.query_one(ContentSwitcher)
        if not switcher.query(f"#{view}"):
            pane = _VIEWS[view](self.board, id=view)
            pane.display = False
            await switcher.mount(pane)
        self.view = view
        switcher.current = view
        main = self.shown_view.main
        self.home.set_focus(main)
        if isinstance(main, Table):
            main.collect()  # the next key may be for its rows already
        self.station.wants_log = view in ("logs", "jails")
        self.station.wants_snapshots = view in ("cache", "host")
        self.station.snapshot_soon()
        if self.station.wants_log and self.follows and self.station.connection.state == "live":
            self.run_worker(self._quietly(self.station.fetch_log()), group="logs", exclusive=True)
        self.call_after_refresh(self.paint_all)

    async def _quietly(self, work: Awaitable[None]) -> None:
        with contextlib.suppress(IslandError, LinkLost):
            await work
        self.paint_all()

    async def _go_to(self, view: str, key: Any) -> None:
        await self.show_view(view)
        self.shown_view.main.select(key)

    def on_table_moved(self, message: Table.Moved) -> None:
        for canvas in self.shown_view.canvases:
            if not isinstance(canvas, Table):
                canvas.paint()

    async def on_table_opened(self, message: Table.Opened) -> None:
        row = message.table.current
        place = _VIEW_OF[type(row)]
        if self.view != place:
            await self._go_to(place, message.table.cursor)
        elif isinstance(row, JailRow):
            await self.action_logs()
        elif isinstance(row, AddressRow) and row.info.jail in self.board.jails:
            await self._go_to("jails", row.info.jail)
        elif isinstance(row, InvocationRow) and row.jail in self.board.jails:
            await self._go_to("jails", row.jail)

    def on_descendant_focus(self, event: ui.DescendantFocus) -> None:
        if isinstance(event.widget, (Table, Logs)):
            self._pane_before = None

    async def action_view(self, view: str) -> None:
        await self.show_view(view)

    async def action_logs(self) -> None:
        jails = self.chosen_jails()
        row = self.row
        name = jails[0].name if jails else row.jail if isinstance(row, InvocationRow) else None
        await self.show_view("logs")
        self.shown_view.query_one(Logs).show_jail(name)

    def action_zoom(self) -> None:
        """Let the focused pane fill the view, or show all panes again."""
        view, pane = self.shown_view, self.home.focused
        zoomed = not view.has_class("-zoom")
        for node in view.query(".-path"):
            node.remove_class("-path")
        if zoomed and pane is not None:
            for ancestor in pane.ancestors_with_self:
                if ancestor is view:
                    break
                ancestor.add_class("-path")
        view.set_class(zoomed, "-zoom")
        self.call_after_refresh(self.paint_all)

    async def action_widen(self) -> None:
        """Undo the first of these that there is: marks, a filter, one jail's log, zoom, another view than the
        overview."""
        pane, view = self.home.focused, self.shown_view
        if isinstance(pane, Table) and pane.marks:
            pane.marks.clear()
        elif isinstance(pane, (Table, Logs)) and (pane.filter or pane.faults_only):
            pane.filter, pane.faults_only = Filter(), False
        elif isinstance(pane, Logs) and pane.jail is not None:
            pane.jail = None
        elif view.has_class("-zoom"):
            self.action_zoom()
        elif self.view != "overview":
            await self.show_view("overview")
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
        if isinstance(self.row, InvocationRow):
            request = FunctionRequest(url=self.row.url, call=self.row.call)
            self.copy_to_clipboard(self.station.port.curl(request))
            self.say("copied as curl")

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
            case "curl":
                return focused is not None and self.table is not None and self.table.kind is InvocationRow
            case "retry":
                return self.station.connection.state != "live"
            case "token":
                return self.station.connection.state == "unauthorized"
        return True
