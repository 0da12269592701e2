"""Views: their tables and panels, and where each stands."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.widget import Widget

from skyisland.status import AddressState
from tui.draw.canvas import Canvas
from tui.draw.columns import ADDRESSES, CACHE, FUNCTIONS, JAILS, NAMES, REQUESTS
from tui.draw.details import (
    AddressDetail,
    ArtifactDetail,
    Detail,
    FunctionDetail,
    JailDetail,
    RequestDetail,
)
from tui.draw.logs import Logs
from tui.draw.names import NameDetail
from tui.draw.panels import (
    EventsPanel,
    HostPanel,
    IslandPanel,
    LatencyPanel,
    PhasesPanel,
    PoolPanel,
)
from tui.draw.table import Table
from tui.watch.board import Board
from tui.watch.names import NameRow
from tui.watch.rows import AddressRow, ArtifactRow, FunctionRow, InvocationRow, JailRow


def jails_table(board: Board, id: str) -> Table[JailRow]:  # noqa: A002
    return Table(
        "Jails",
        JailRow,
        JAILS,
        lambda: board.every_jail.values(),
        sort="AGE",
        empty="no jail is running   i invokes a function",
        id=id,
        faulty=lambda jail: jail.state in ("killing", "dying"),
        row_tone=lambda jail: "dim" if jail.state in ("warm", "dying") else "",
    )


def requests_table(board: Board, id: str) -> Table[InvocationRow]:  # noqa: A002
    return Table(
        "Requests",
        InvocationRow,
        REQUESTS,
        lambda: board.invocations.values(),
        sort="TIME",
        empty="no request yet   i invokes a function",
        id=id,
        faulty=lambda invocation: (
            invocation.state in ("bad", "fault") or invocation.total_s > invocation.slo_s
        ),
        floats=True,
    )


def addresses_table(board: Board, id: str) -> Table[AddressRow]:  # noqa: A002
    return Table(
        "IPs",
        AddressRow,
        ADDRESSES,
        lambda: board.every_address,
        sort="ADDRESS",
        empty="this island has no address pool",
        id=id,
        faulty=lambda address: address.info.state is AddressState.unavailable and address.info.jail is None,
    )


def cache_table(board: Board, id: str) -> Table[ArtifactRow]:  # noqa: A002
    return Table(
        "Build cache",
        ArtifactRow,
        CACHE,
        lambda: board.cache.values(),
        sort="HITS",
        empty="no binary yet   i invokes a function",
        id=id,
        faulty=lambda row: row.state == "failed",
    )


def functions_table(board: Board, id: str) -> Table[FunctionRow]:  # noqa: A002
    return Table(
        "Functions, last 5 minutes",
        FunctionRow,
        FUNCTIONS,
        lambda: board.functions.values(),
        sort="CALLS",
        empty="no function was called yet   i invokes one",
        id=id,
        faulty=lambda row: bool(row.figures.recent.errors),
        row_tone=lambda row: "" if row.figures.recent.calls else "dim",
    )


def names_table(board: Board, id: str) -> Table[NameRow]:  # noqa: A002
    return Table(
        "Names",
        NameRow,
        NAMES,
        lambda: board.names.values(),
        sort="NAME",
        empty="no function has a name   a defines one",
        id=id,
        faulty=lambda row: bool(row.trouble),
        row_tone=lambda row: "dim" if row.info.paused else "",
    )


class View(Container):
    """All that is between tabs and keys. Its main pane takes the focus when the view is shown."""

    def __init__(self, board: Board, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id, classes="view")
        self.board = board

    @property
    def canvases(self) -> list[Canvas]:
        return [canvas for canvas in self.query(Canvas) if canvas.display]

    @property
    def main(self) -> Any:
        return self.query("Table, Logs, Pager").first()

    def zoom(self, pane: Widget | None) -> None:
        """Let one pane fill the view; None: show all panes."""
        for node in self.query(".-path"):
            node.remove_class("-path")
        if pane is not None:
            for ancestor in pane.ancestors_with_self:
                if ancestor is self:
                    break
                ancestor.add_class("-path")
        self.set_class(pane is not None, "-zoom")

    @property
    def detail(self) -> Detail[Any] | None:
        """What shows the row of the main pane in full."""
        main = self.main
        return next((detail for detail in self.query(Detail) if detail.table is main), None)

    @property
    def shows_detail(self) -> bool:
        """There is room for the detail beside the main pane."""
        detail = self.detail
        return detail is not None and all(
            node.display for node in detail.ancestors_with_self if isinstance(node, Widget)
        )


class Overview(View):
    def compose(self) -> ComposeResult:
        jails = jails_table(self.board, "over-jails")
        invocations = requests_table(self.board, "over-requests")
        with Horizontal():
            with Vertical(id="over-left"):
                yield jails
                yield invocations
            with Vertical(id="over-right"):
                yield PhasesPanel(id="over-phases")
                yield LatencyPanel(id="over-latency")
                yield RequestDetail(invocations, id="over-request")
                yield PoolPanel(id="over-pool")
                yield cache_table(self.board, "over-cache")
                yield EventsPanel(id="over-tail")


class JailsView(View):
    def compose(self) -> ComposeResult:
        table = jails_table(self.board, "jails-table")
        with Container(classes="split"):
            yield table
            yield JailDetail(table, id="jails-detail")


class AddressesView(View):
    def compose(self) -> ComposeResult:
        table = addresses_table(self.board, "ips-table")
        with Container(classes="split"):
            yield table
            yield AddressDetail(table, id="ips-detail", classes="detail narrow")


class CacheView(View):
    def compose(self) -> ComposeResult:
        table = cache_table(self.board, "cache-table")
        with Container(classes="split"):
            yield table
            yield ArtifactDetail(table, id="cache-detail")


class RequestsView(View):
    def compose(self) -> ComposeResult:
        table = requests_table(self.board, "requests-table")
        with Vertical():
            yield table
            with Horizontal(classes="below"):
                yield RequestDetail(table, id="requests-detail")
                yield PhasesPanel(id="requests-phases")


class FunctionsView(View):
    def compose(self) -> ComposeResult:
        table = functions_table(self.board, "functions-table")
        with Vertical():
            yield table
            yield FunctionDetail(table, id="functions-detail", classes="detail below")


class NamesView(View):
    def compose(self) -> ComposeResult:
        table = names_table(self.board, "names-table")
        with Vertical():
            yield table
            yield NameDetail(table, id="names-detail", classes="detail below")


class LogsView(View):
    def compose(self) -> ComposeResult:
        yield Logs(id="logs-pane")


class HostView(View):
    def compose(self) -> ComposeResult:
        with Container(classes="split"):
            yield HostPanel(id="host-list")
            yield IslandPanel(id="host-facts", classes="detail")
