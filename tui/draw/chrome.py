"""The frame around every view: header, meters, tabs, banner, and the keys at the bottom."""

from __future__ import annotations

from textual import events

from tui.draw.canvas import Canvas, Line, spread
from tui.draw.charts import spark
from tui.draw.columns import SLO_S
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Span, Spans
from tui.watch.board import percentile
from tui.watch.connection import ConnectionState
from tui.words import age, clock, duration, fit, line, uptime

VIEWS = (
    ("overview", "Overview", "Over"),
    ("jails", "Jails", "Jails"),
    ("ips", "IPs", "IPs"),
    ("cache", "Cache", "Cache"),
    ("requests", "Requests", "Reqs"),
    ("logs", "Logs", "Logs"),
    ("host", "Host", "Host"),
)
"""Id, name and short name of each view, in the order of their keys."""


class Head(Canvas):
    """Which island this is, whether the data is live, and the island's time of day."""

    def draw(self, width: int, height: int) -> list[Line]:
        desk, station, glyphs, status = self.desk, self.station, self.glyphs, self.board.status
        left: Spans = [(f" {glyphs['island']} SKY ISLAND  ", "title")]
        left.append(connection_span(station.connection, glyphs, station.clock()))
        left.append((f"  {station.port.where}", "dim"))
        if width >= 100:
            left.append((" attached" if station.port.attached else " in process", "dim"))
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


class Meters(Canvas):
    """Rate, median, 99th percentile and failures of the last minutes, each with a sparkline."""

    def draw(self, width: int, height: int) -> list[Line]:
        board, glyphs, now = self.board, self.glyphs, self.station.now
        each = (width - 1) // 4
        room = each - 2
        seconds = board.series(now, room)
        totals = board.totals()
        bad, cold = board.shares()
        p50, p99 = percentile(totals, 0.5), percentile(totals, 0.99)
        slow = bool(p99 and p99 > SLO_S)
        medians = [percentile(sorted(s.totals), 0.5) or 0.0 for s in seconds]
        tails = [percentile(sorted(s.totals), 0.99) or 0.0 for s in seconds]
        faults = [float(s.errors) for s in seconds]
        rates = [float(len(s.totals)) for s in seconds]
        slo = f"  slo {duration(SLO_S).replace('.00', '')}" if each >= 20 else ""
        blocks: list[tuple[Spans, list[float], str]] = [
            ([("req/s ", "dim"), (f"{board.rate(now):.0f}", "strong")], rates, "rate"),
            ([("p50 ", "dim"), (duration(p50), "strong")], medians, "ok"),
            ([("p99 ", "dim"), (duration(p99), "bad" if slow else "strong"), (slo, "dim")], tails, "warn"),
            (
                [
                    ("err ", "dim"),
                    (f"{bad:.1%}", "bad" if bad >= 0.05 else "strong"),
                    (f"  cold {cold:.0%}", "dim"),
                ],
                faults,
                "bad",
            ),
        ]
        lines: list[Spans] = [[(" ", "text")] for _ in range(height)]
        for spans, values, tone in blocks:
            used = sum(len(text) for text, _ in spans)
            lines[0] += [*spans, (" " * (each - used), "text")]
            for n, row in enumerate(spark(values, room, height - 1, glyphs, tone)):
                lines[n + 1] += [*row, (" " * (each - room), "text")]
        return [Line(spans) for spans in lines]


class Tabs(Canvas):
    """The views; and how many jails, waiting calls and free addresses there are."""

    def draw(self, width: int, height: int) -> list[Line]:
        status = self.board.status
        names = [(view, full if width >= 110 else brief) for view, full, brief in VIEWS]
        left: Spans = []
        self._click_ranges: list[tuple[int, str]] = []
        for n, (view, name) in enumerate(names, 1):
            left.append((f" {n} {name} ", "on" if view == self.desk.view else "dim"))
            self._click_ranges.append((sum(len(text) for text, _ in left), view))
        right: Spans = []
        if status is not None:
            free = self.board.count_addresses()
            right = [("jails ", "dim"), (f"{self.board.busy}/{status.policy.max_running}", "strong")]
            if width >= 110:
                right += [("  queue ", "dim"), (str(status.queued), "warn" if status.queued else "strong")]
            if self.board.addresses:
                right += [
                    ("  ip free " if width >= 110 else "  ip ", "dim"),
                    (str(free["available"]), "strong"),
                ]
                right += [(f" {self.glyphs['out']}{free['out']}", "bad")] if free["out"] else []
            right.append((" ", "text"))
        return [Line(spread(left, right, width))]

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
