"""Where the operator goes: from view to view, into a row's detail, and back where they came from."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from textual import events as ui
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from skyisland.errors import IslandError
from tui.desk import Desk
from tui.draw.calls import CallsView
from tui.draw.details import Detail
from tui.draw.logs import Logs
from tui.draw.table import Table
from tui.draw.views import (
    AddressesView,
    CacheView,
    FunctionsView,
    HostView,
    JailsView,
    LogsView,
    NamesView,
    RequestsView,
    View,
)
from tui.jump import Jump
from tui.watch.calls import CallRow
from tui.watch.filter import Filter
from tui.watch.names import NameRow
from tui.watch.port import LinkLost
from tui.watch.rows import AddressRow, ArtifactRow, FunctionRow, InvocationRow, JailRow
from tui.watch.search import Hit

_VIEWS: dict[str, Callable[..., View]] = {
    "jails": JailsView,
    "ips": AddressesView,
    "cache": CacheView,
    "requests": RequestsView,
    "logs": LogsView,
    "host": HostView,
    "functions": FunctionsView,
    "names": NamesView,
    "calls": CallsView,
}
"""The views that are made when they are first shown; the console starts with the overview."""
_VIEW_OF = {
    JailRow: "jails",
    InvocationRow: "requests",
    AddressRow: "ips",
    ArtifactRow: "cache",
    FunctionRow: "functions",
    NameRow: "names",
    CallRow: "calls",
}
"""The view that shows a row of each kind in full."""
MAX_STEPS = 50
"""Places that are remembered for the way back."""


class Place(NamedTuple):
    """Where the operator looked."""

    view: str
    pane: str | None
    """The id of what had the focus."""
    key: str | None
    """The row under its cursor."""
    described: bool
    """A row's detail had the view to itself."""
    filter: str | None = None
    """The filter of the next place's table, if the step there changed it."""


class Going(Desk):
    """The actions that lead to another view or row, and back."""

    follows: bool
    """It follows its port; pictures and tests feed it themselves."""
    _pane_before: Widget | None = None
    """The pane that had the focus when the filter line took it."""
    _described = False
    """A row's detail has the view to itself, and was asked for."""

    # What is selected

    @property
    def home(self) -> Screen[Any]:
        """The screen below all dialogs."""
        return self.screen_stack[0]

    @property
    def shown_view(self) -> View:
        return self.home.query_one(f"#{self.view}", View)

    @property
    def _pane(self) -> Widget | None:
        return self.home.focused or self._pane_before

    @property
    def table(self) -> Table[Any] | None:
        """The table that has the focus, or whose row is shown in full by what has it."""
        pane = self._pane
        return pane.table if isinstance(pane, Detail) else pane if isinstance(pane, Table) else None

    @property
    def row(self) -> Any:
        """The row that the keys are about: a jail, a request, an address, a binary; None if there is none."""
        pane = self._pane
        return pane.row if isinstance(pane, Detail) else pane.current if isinstance(pane, Table) else None

    @property
    def chosen(self) -> list[Any]:
        """The marked rows, or the one that the keys are about."""
        pane = self._pane
        if isinstance(pane, Table):
            return pane.chosen
        return [self.row] if self.row is not None else []

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
        jails = self.board.every_jail
        return [jails[name] for name in dict.fromkeys(names) if name in jails]

    def refocus(self) -> None:
        """Give the focus back after the terminal was too small, which took it away."""
        fits = not (self.home.has_class("-tiny") or self.home.has_class("-flat"))
        if fits and self.home.focused is None:
            self.home.set_focus(self.shown_view.main)

    def on_descendant_focus(self, event: ui.DescendantFocus) -> None:
        if isinstance(event.widget, (Table, Logs, Detail)):
            self._pane_before = None

    # Views

    async def show_view(self, view: str) -> None:
        """Show a view, as one who chose it; it is made when it is first shown."""
        if view != self.view or self._described:
            self._remember()
        await self._show(view)

    async def _show(self, view: str) -> None:
        if self._exit:
            return
        self._undescribe()
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
        self.station.wants_snapshots = view in ("cache", "host", "functions", "names")
        self.station.wants_names = view == "names"
        self.station.wants_calls = view == "calls"
        self.station.snapshot_soon()
        if self.station.wants_calls and self.follows and self.station.connection.state == "live":
            self.run_worker(self._quietly(self.station.fetch_calls()), group="calls", exclusive=True)
        if self.station.wants_log and self.follows and self.station.connection.state == "live":
            self.run_worker(self._quietly(self.station.fetch_log()), group="logs", exclusive=True)
        if self.station.wants_names and self.follows and self.station.connection.state == "live":
            self.run_worker(self._quietly(self.station.fetch_names()), group="names", exclusive=True)
        self.call_after_refresh(self.paint_all)

    async def _quietly(self, work: Awaitable[None]) -> None:
        with contextlib.suppress(IslandError, LinkLost):
            await work
        self.paint_all()

    async def action_view(self, view: str) -> None:
        await self.show_view(view)

    async def go_to(self, view: str, key: str) -> None:
        """Show the row with this key in the view of its kind."""
        await self.show_view(view)
        self.shown_view.main.select(key)

    async def go_among(self, view: str, text: str) -> None:
        """Show the rows of a view that this filter leaves."""
        await self.show_view(view)
        pane = self.shown_view.main
        if isinstance(pane, (Table, Logs)):
            if self._way and text != pane.filter.text:
                self._way[-1] = self._way[-1]._replace(filter=pane.filter.text)
            pane.filter = Filter(text)
            if isinstance(pane, Table):
                pane.collect()
            pane.paint()

    async def action_logs(self) -> None:
        jails = self.chosen_jails()
        row = self.row
        name = jails[0].name if jails else row.jail if isinstance(row, InvocationRow) else None
        await self.show_view("logs")
        self.shown_view.query_one(Logs).show_jail(name)

    async def action_jump(self) -> None:
        """Ask for a view, a row or a command by its name, and go there."""
        commands = [
            (active.binding.tooltip or active.binding.description, active.binding.action)
            for active in self.home.active_bindings.values()
            if active.node is self and active.enabled and active.binding.description
            if not active.binding.system and not active.binding.action.startswith("view(")
        ]

        async def go(hit: Hit | None) -> None:
            if hit is None:
                return
            if not hit.view:
                await self.run_action(hit.key)
            elif hit.key:
                await self.go_to(hit.view, hit.key)
                self._describe(step=False)
            elif hit.filter:
                await self.go_among(hit.view, hit.filter)
            else:
                await self.show_view(hit.view)

        self.push_screen(Jump(commands), go)

    # A row in full

    async def on_table_opened(self, message: Table.Opened) -> None:
        """Show the row's detail: in the view of its kind, or, there already, with all room for it."""
        key, place = message.table.cursor, _VIEW_OF[type(message.table.current)]
        if self.view != place and key is not None:
            await self.go_to(place, key)
            if not self.shown_view.shows_detail:
                self._describe(step=False)
        else:
            self._describe()

    async def action_describe(self) -> None:
        """Give all room to the detail of the row."""
        row = self.row
        if row is not None and not self._described:
            elsewhere = self.view != _VIEW_OF[type(row)]
            if elsewhere:
                await self.go_to(_VIEW_OF[type(row)], row.key)
            self._describe(step=not elsewhere)

    def _describe(self, *, step: bool = True) -> None:
        """`step`: it is a step of its own, which one can take back."""
        view = self.shown_view
        detail = view.detail
        if detail is None or detail.table.current is None:
            return
        if step:
            self._remember()
        detail.table.select(detail.table.current.key)
        view.zoom(detail)
        self._described = True
        self.home.set_focus(detail)
        if isinstance(detail.row, CallRow):
            self._open(detail.row)
        self.call_after_refresh(self.paint_all)

    def _open(self, row: CallRow) -> None:
        """Ask for the call's result, which no list has, now or when it is over."""
        row.opened = True
        if row.lacks_result and self.follows:
            self.run_worker(self._quietly(self.station.fetch_result(row)), group="calls")

    def _undescribe(self) -> None:
        if self._described:
            self._described = False
            self.shown_view.zoom(None)

    async def action_follow(self) -> None:
        """From a detail, go on to what its row is about.

        To a jail's log; to the jail of a call or an address; to the function of a call that is over, or of a
        binary, or of a name; to the requests of a function; to that of a call that answers later.
        """
        row = self.row
        if isinstance(row, JailRow):
            await self.action_logs()
        elif isinstance(row, FunctionRow):
            await self.go_among("requests", f"fn:{row.title}")
        elif isinstance(row, NameRow):
            await self._go_to_function(row.name)
        elif isinstance(row, CallRow):
            attempt = row.record.attempts[-1].id if row.record.attempts else ""
            if attempt in self.board.invocations:
                await self.go_to("requests", attempt)
                self._describe(step=False)
        elif jails := self.chosen_jails():
            await self.go_to("jails", jails[0].key)
            self._describe(step=False)
        elif isinstance(row, (InvocationRow, ArtifactRow)):
            await self._go_to_function(row.title)

    async def _go_to_function(self, title: str) -> None:
        key = next((one.key for one in self.board.functions.values() if one.title == title), None)
        if key is not None:
            await self.go_to("functions", key)
            self._describe(step=False)

    async def action_fault(self, by: int) -> None:
        """Go to the next row, or the previous one, that failed."""
        table = self.table
        if table is not None and not table.go_to_fault(by):
            self.say("no other failure here")
        self.paint_all()

    # Back

    def brought(self, pane: Table[Any] | Logs) -> bool:
        """The pane's filter came with the last step, and goes with it."""
        return bool(self._way) and self._way[-1].filter is not None and pane is self.shown_view.main

    @property
    def _way(self) -> list[Place]:
        if not hasattr(self, "_places"):
            self._places: list[Place] = []
        return self._places

    def _remember(self) -> None:
        pane, table = self._pane, self.table
        key = None if table is None or table.floating else table.cursor
        place = Place(self.view, pane.id if pane else None, key, self._described)
        self._way.append(place)
        del self._way[:-MAX_STEPS]

    async def back(self) -> bool:
        """Go back where the operator came from; False if this is where they began."""
        if not self._way:
            return False
        place = self._way.pop()
        if place.filter is not None:
            self.shown_view.main.filter = Filter(place.filter)
        await self._show(place.view)
        pane = next((pane for pane in self.shown_view.query("*") if pane.id == place.pane), None)
        table = pane.table if isinstance(pane, Detail) else pane
        if isinstance(table, Table):
            table.select(place.key)
        if place.described and isinstance(pane, Detail):
            self.shown_view.zoom(pane)
            self._described = True
        if pane is not None:
            self.home.set_focus(pane)
        self.call_after_refresh(self.paint_all)
        return True
