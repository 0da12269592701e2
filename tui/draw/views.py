"""The seven views: which tables and panels stand where."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical

from skyisland.model import AddressState
from tui.draw.canvas import Canvas
from tui.draw.columns import ADDRESSES, CACHE, JAILS, REQUESTS, SLO_S
from tui.draw.logs import Logs
from tui.draw.panels import CacheDetail, Host, IslandFacts, JailDetail, Latency, Phases, Pool, Tail, Waterfall
from tui.draw.table import Table
from tui.watch.board import Board
from tui.watch.rows import Cached, Jail, Request, Slot


def jails_table(board: Board, id: str) -> Table[Jail]:  # noqa: A002
    return Table(
        "Jails",
        Jail,
        JAILS,
        lambda: board.jails.values(),
        sort="AGE",
        empty="no jail is running   i invokes a function",
        id=id,
        faulty=lambda jail: jail.state in ("killing", "dying"),
        row_tone=lambda jail: "dim" if jail.state in ("warm", "dying") else "",
    )


def requests_table(board: Board, id: str) -> Table[Request]:  # noqa: A002
    return Table(
        "Requests",
        Request,
        REQUESTS,
        lambda: board.requests.values(),
        sort="TIME",
        empty="no request yet   i invokes a function",
        id=id,
        faulty=lambda request: request.state == "bad" or request.total_s > SLO_S,
        floats=True,
    )


def addresses_table(board: Board, id: str) -> Table[Slot]:  # noqa: A002
    return Table(
        "IPs",
        Slot,
        ADDRESSES,
        lambda: board.slots.values(),
        sort="ADDRESS",
        empty="this island has no address pool",
        id=id,
        faulty=lambda slot: slot.info.state is AddressState.unavailable and slot.info.jail is None,
    )


def cache_table(board: Board, id: str) -> Table[Cached]:  # noqa: A002
    return Table(
        "Build cache",
        Cached,
        CACHE,
        lambda: board.cache.values(),
        sort="HITS",
        empty="no binary yet   i invokes a function",
        id=id,
        faulty=lambda row: row.state == "failed",
    )


class View(Container):
    """One screenful. Its first pane takes the focus when the view is shown."""

    def __init__(self, board: Board, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id, classes="view")
        self.board = board

    @property
    def canvases(self) -> list[Canvas]:
        return [canvas for canvas in self.query(Canvas) if canvas.display]

    @property
    def main(self) -> Any:
        return self.query("Table, Logs, Pager").first()


class Overview(View):
    def compose(self) -> ComposeResult:
        jails = jails_table(self.board, "over-jails")
        requests = requests_table(self.board, "over-requests")
        with Horizontal():
            with Vertical(id="over-left"):
                yield jails
                yield requests
            with Vertical(id="over-right"):
                yield Phases(id="over-phases")
                yield Latency(id="over-latency")
                yield Waterfall(lambda: requests.current, id="over-waterfall")
                yield Pool(id="over-pool", snug=True)
                yield cache_table(self.board, "over-cache")
                yield Tail(id="over-tail")


class JailsView(View):
    def compose(self) -> ComposeResult:
        table = jails_table(self.board, "jails-table")
        with Container(classes="split"):
            yield table
            yield JailDetail(lambda: table.current, id="jails-detail")


class AddressesView(View):
    def compose(self) -> ComposeResult:
        table = addresses_table(self.board, "ips-table")
        with Container(classes="split"):
            yield table
            yield Pool(lambda: table.current.ip if table.current else None, id="ips-map")


class CacheView(View):
    def compose(self) -> ComposeResult:
        table = cache_table(self.board, "cache-table")
        with Container(classes="split"):
            yield table
            yield CacheDetail(lambda: table.current, id="cache-detail")


class RequestsView(View):
    def compose(self) -> ComposeResult:
        table = requests_table(self.board, "requests-table")
        with Vertical():
            yield table
            with Horizontal(id="requests-below"):
                yield Waterfall(lambda: table.current, id="requests-waterfall")
                yield Phases(id="requests-phases")


class LogsView(View):
    def compose(self) -> ComposeResult:
        yield Logs(id="logs-pane")


class HostView(View):
    def compose(self) -> ComposeResult:
        with Container(classes="split"):
            yield Host(id="host-list")
            yield IslandFacts(id="host-facts")
