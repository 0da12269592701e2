"""The frame around every view: header, meters, tabs, banner, and the keys at the bottom."""

from __future__ import annotations

from textual import events

from skyisland.status import LineState
from tui.draw.canvas import Canvas, Line, spread
from tui.draw.charts import host_spans, spark
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Span, Spans
from tui.watch.connection import ConnectionState
from tui.watch.figures import WINDOW_S, percentile
from tui.words import age, brief, clock, duration, fit, line, rate, uptime

VIEWS = (
    ("overview", "Overview", "Over"),
    ("jails", "Jails", "Jails"),
    ("ips", "IPs", "IPs"),
    ("cache", "Cache", "Cache"),
    ("requests", "Requests", "Req"),
    ("logs", "Logs", "Log"),
    ("host", "Host", "Host"),
    ("functions", "Functions", "Fns"),
    ("names", "Names", "Names"),
    ("calls", "Calls", "Calls"),
)
"""Id, name and short name of each view, in the order of their keys."""
NODES_SHOWN = 8
"""Nodes of a fleet that stand in the header by their names."""
VIEW_KEYS = "1234567890"
"""The key of each."""


class Head(Canvas):
    """Which island this is, whether the data is live, and the island's time of day."""

    def draw(self, width: int, height: int) -> list[Line]:
        desk, station, glyphs, status = self.desk, self.station, self.glyphs, self.board.status
        left: Spans = [(f" {glyphs['island']} SKY ISLAND  ", "title")]
        left.append(connection_span(station.connection, glyphs, station.clock()))
        left.append((f"  {station.port.where}", "dim"))
        if width >= 100:
            left.append((" attached" if station.port.attached else " in process", "dim"))
        left += self._fleet(width)
        tags: list[Span] = []
        if status is not None and "fake" in (status.driver, status.storage):
            tags.append(("FAKE DRIVER", "warn"))
        if desk.readonly:
            tags.append(("READ-ONLY", "info"))
        if station.paused:
            tags.append(("PAUSED", "warn"))
        if status is not None and status.draining:
            tags.append(("DRAINING", "bad"))
        if self.board.missed and width >= 120:
            tags.append((f"{self.board.missed} events missed", "warn"))
        right: Spans = []
        if status is not None and width >= 90:
            right.append((f"{line(status.island)}  up {uptime(station.now - status.started_at)}  ", "dim"))
        right.append((f"{clock(station.time)}Z ", "strong"))
        for tag in tags:
            left += [("  ", "text"), tag]
        return [Line(spread(left, right, width), "head")]

    def _fleet(self, width: int) -> Spans:
        """The nodes of the island's fleet, each with its state; their number where there is no room."""
        status, glyphs = self.board.status, self.glyphs
        if status is None or status.fleet is None:
            return []
        fleet, away = status.fleet, status.fleet.state is not LineState.joined
        spans: Spans = [(f"  {line(fleet.fleet)} ", "bad" if away else "dim")]
        silent = [one for one in fleet.members if one.silent]
        if away:
            return [*spans, (f"{glyphs['down']} {fleet.state}", "bad")]
        if width < 120 or len(fleet.members) > NODES_SHOWN:
            up = len(fleet.members) - len(silent)
            return [*spans, (f"{up}/{len(fleet.members)} nodes", "warn" if silent else "ok")]
        for one in fleet.members:
            draining = one.vacancy.draining
            sign, tone = ("down", "bad") if one.silent else ("stale", "warn") if draining else ("live", "ok")
            spans.append((f"{glyphs[sign]}{line(one.node)} ", tone))
        return spans


class Meters(Canvas):
    """Rate, median, 99th percentile and failures of the last minute, each with a sparkline."""

    def draw(self, width: int, height: int) -> list[Line]:
        figures, glyphs, now = self.board.figures, self.glyphs, self.station.now
        each = (width - 1) // 4
        room = each - 2
        window = figures.window(now)
        seconds = [(second.ordered(), float(second.errors)) for second in figures.series(now, room)]
        p50, p99 = percentile(window.totals, 0.5), percentile(window.totals, 0.99)
        slo_s = self.board.slo_s
        slow = p99 is not None and p99 > slo_s
        bad = window.errors / window.calls if window.calls else None
        blocks: list[tuple[Spans, list[float], str]] = [
            (
                [
                    (f"last {WINDOW_S}s ", "dim"),
                    (rate(window.calls / WINDOW_S), "strong"),
                    (" req/s", "dim"),
                ],
                [float(len(totals)) for totals, _ in seconds],
                "rate",
            ),
            (
                [("p50 ", "dim"), (duration(p50), "strong")],
                [percentile(totals, 0.5) or 0.0 for totals, _ in seconds],
                "ok",
            ),
            (
                [
                    ("p99 ", "dim"),
                    (duration(p99), "bad" if slow else "strong"),
                    (f"  slo {brief(slo_s)}", "dim"),
                ],
                [percentile(totals, 0.99) or 0.0 for totals, _ in seconds],
                "warn",
            ),
            (
                [
                    ("err ", "dim"),
                    ("-" if bad is None else f"{bad:.1%}", "bad" if bad and bad >= 0.05 else "strong"),
                    ("  cold ", "dim"),
                    (f"{window.cold / window.calls:.0%}" if window.calls else "-", "dim"),
                ],
                [errors for _, errors in seconds],
                "bad",
            ),
        ]
        lines: list[Spans] = [[(" ", "text")] for _ in range(height)]
        for spans, values, tone in blocks:
            shown = fitting(spans, each)
            used = sum(len(text) for text, _ in shown)
            lines[0] += [*shown, (" " * (each - used), "text")]
            for n, row in enumerate(spark(values, room, height - 1, glyphs, tone)):
                lines[n + 1] += [*row, (" " * (each - room), "text")]
        return [Line(spans) for spans in lines]


def fitting(spans: Spans, width: int) -> Spans:
    """As many of the spans as are shorter together than `width`; of words and their figure, none or both."""
    shown: Spans = []
    for span in spans:
        if sum(len(text) for text, _ in [*shown, span]) >= width:
            return shown
        shown.append(span)
    return shown


class HostStrip(Canvas):
    """How busy the island's host is. Shown where there are lines enough."""

    def draw(self, width: int, height: int) -> list[Line]:
        status = self.board.status
        return [Line([(" host", "dim"), *host_spans(status.host if status else None)])]


class Tabs(Canvas):
    """The views; and how many free addresses, waiting calls and taken places there are."""

    def draw(self, width: int, height: int) -> list[Line]:
        # 75 columns have room for the short names, 60 for three letters of each.
        names = [
            (view, full if width >= 110 else brief if width >= 75 else brief[:3])
            for view, full, brief in VIEWS
        ]
        left: Spans = []
        self._click_ranges: list[tuple[int, str]] = []
        for key, (view, name) in zip(VIEW_KEYS, names, strict=True):
            pad = " " if width >= 110 else ""
            left.append((f"{pad}{key} {name} ", "on" if view == self.desk.view else "dim"))
            self._click_ranges.append((sum(len(text) for text, _ in left), view))
        right = [span for group in self._load(width - sum(len(text) for text, _ in left)) for span in group]
        return [Line(spread(left, right, width))]

    def _load(self, room: int) -> list[Spans]:
        """How loaded the island is: as many of its figures as there is room for, the first go first."""
        board, status, glyphs = self.board, self.board.status, self.glyphs
        if status is None:
            return []
        taken, places = board.places, status.policy.max_running
        groups: list[Spans] = []
        if board.addresses:
            free = board.count_addresses()
            groups.append([("ip free ", "dim"), (f"{free['available']}  ", "strong")])
            groups[0] += [(f"{glyphs['out']}{free['out']}  ", "bad")] if free["out"] else []
        waiting: Spans = [("queue ", "dim"), (f"{status.queued}  ", "warn" if status.queued else "strong")]
        used: Spans = [("places ", "dim"), (f"{taken}/{places}  ", "warn" if taken >= places else "strong")]
        groups += [used, waiting] if status.queued else [waiting, used]
        while groups and sum(len(text) for group in groups for text, _ in group) >= room:
            groups.pop(0)
        return groups

    async def on_click(self, event: events.Click) -> None:
        for end, view in self._click_ranges:
            if event.x < end:
                await self.desk.show_view(view)
                return


class Banner(Canvas):
    """Why the data is old, and what happens next. Hidden while all is well."""

    def draw(self, width: int, height: int) -> list[Line]:
        text = connection_banner(self.station.connection, self.glyphs, self.station.clock())
        return [Line([(fit(f" {text}", width, more=self.glyphs["more"]), "banner")], "banner")]


class Keys(Canvas):
    """The keys that work now, as many as fit; help and quit always."""

    def draw(self, width: int, height: int) -> list[Line]:
        hints = self.desk.hints()
        always_shown = [hint for hint in hints if hint.action in ("help", "quit")]
        reserved = sum(hint.width for hint in always_shown)
        spans: Spans = [(" ", "text")]
        self._click_ranges: list[tuple[int, str]] = []
        used = 1
        for hint in [*(hint for hint in hints if hint not in always_shown), *always_shown]:
            if hint in always_shown:
                reserved -= hint.width
            if used + hint.width + reserved > width + 2:
                continue
            spans += [(hint.key, "key"), (f" {hint.word}  ", "text")]
            used += hint.width
            self._click_ranges.append((used, hint.action))
        return [Line(spans, "head")]

    async def on_click(self, event: events.Click) -> None:
        for end, action in self._click_ranges:
            if event.x < end:
                await self.desk.run_action(action)
                return


def connection_span(connection: ConnectionState, glyphs: Glyphs, now: float) -> Span:
    """The state of the connection as the header shows it; `now` by the console's clock."""
    if connection.stale(now):
        return f"{glyphs['stale']} STALE {age(connection.silent_s(now))}", "warn"
    if connection.state == "live":
        return f"{glyphs['live']} LIVE", "ok"
    if connection.state == "down":
        return f"{glyphs['down']} DOWN {_next_attempt(connection, now)}", "bad"
    if connection.state == "unauthorized":
        return f"{glyphs['down']} NO TOKEN", "bad"
    return f"{glyphs['stale']} CONNECTING", "info"


def connection_banner(connection: ConnectionState, glyphs: Glyphs, now: float) -> str:
    """Why the data is old and what happens next, in a line; empty while all is well."""
    silent = age(connection.silent_s(now))
    old = f"   data is {silent} old" if connection.heard_at is not None else ""
    if connection.state == "down":
        return f"{glyphs['bad']} {connection.cause}{old}   {_next_attempt(connection, now)}   R retries now"
    if connection.state == "unauthorized":
        return f"{glyphs['bad']} {connection.cause}{old}   T asks for a token"
    if connection.stale(now):
        return f"{glyphs['stale']} the island has not spoken for {silent}"
    return ""


def _next_attempt(connection: ConnectionState, now: float) -> str:
    wait_s = connection.retry_at - now
    return f"retry in {age(wait_s)}" if wait_s > 0 else "trying again"
