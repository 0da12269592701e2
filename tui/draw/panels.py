"""The panels beside the tables: each is a few lines made from the board."""

from __future__ import annotations

import math

from skyisland import events as ev
from skyisland.events import Event
from tui.draw.canvas import Canvas, Line, Pager
from tui.draw.charts import (
    address_map,
    flowed,
    heat_columns,
    heat_map,
    host_spans,
    legend,
    percentiles,
    pool_title,
)
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Span, Spans
from tui.watch.figures import phase_times
from tui.watch.rows import state_of
from tui.words import clock, duration, fit, line, size, uptime


class PhasesPanel(Canvas):
    """How long each phase takes."""

    _span_s = 0.0
    """How far back the figures reach that were drawn last."""

    def draw(self, width: int, height: int) -> list[Line]:
        rows, self._span_s = self.board.figures.sample(self.station.now)
        totals = sorted(row.total_s for row in rows)
        return percentiles(phase_times(rows), totals, width, self.glyphs)

    def titles(self, width: int) -> tuple[str, str]:
        return f"Phases, last {self._span_s:.0f} s", ""


class LatencyPanel(Canvas):
    """How long calls took, over time."""

    _step_s = 1
    """How long a column is that was drawn last."""

    def draw(self, width: int, height: int) -> list[Line]:
        spans, self._step_s = self.board.figures.heat(self.station.now, heat_columns(width))
        if not any(map(any, spans)):
            return [Line([("  no request in this time", "dim")])]
        return heat_map(spans, width, height, self.glyphs, self.board.slo_s)

    def titles(self, width: int) -> tuple[str, str]:
        length_s = heat_columns(width) * self._step_s
        return f"Latency over time, last {length_s} s", f"a column is {self._step_s} s"


class PoolPanel(Canvas):
    """The whole address pool, only as high as the addresses need, at most six lines."""

    def draw(self, width: int, height: int) -> list[Line]:
        addresses = self.board.ordered_addresses()
        self._fit_height(len(addresses), width)
        if not addresses:
            return [Line([("  this island has no address pool", "dim")])]
        if height < 2:
            return [Line(legend(addresses, self.glyphs))]
        return address_map(addresses, width, max(2, height), self.glyphs)

    def _fit_height(self, count: int, width: int) -> None:
        per_row = max(1, (width - 1) // 2)
        height = 3 + max(1, min(6, math.ceil(count / per_row)))
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def titles(self, width: int) -> tuple[str, str]:
        return pool_title(self.board.ordered_addresses()), ""


class EventsPanel(Canvas):
    """The last events, newest at the bottom."""

    def draw(self, width: int, height: int) -> list[Line]:
        facts = list(self.board.tail)[-height:]
        if not facts:
            return [Line([("  nothing has happened yet", "dim")])]
        return [Line(fact(event, self.glyphs)) for event in facts]

    def titles(self, width: int) -> tuple[str, str]:
        return "Events", ""


def fact(event: Event, glyphs: Glyphs) -> Spans:
    """An event as a line."""
    at: Span = (f" {clock(event.at)} ", "dim")
    match event:
        case ev.InvocationFinished():
            mark, tone = glyphs.state(state_of(event.verdict), line(event.verdict))
            words = f"{line(event.url).rsplit('/', 1)[-1]}.{line(event.call)}"
            return [at, (f"{mark} ", tone), (words, "text"),
                    (f" {duration(event.timings.total_s)}", "dim")]  # fmt: skip
        case ev.JailCreated():
            return [at, ("jail created ", "info"), (line(event.jail), "text")]
        case ev.JailClaimed():
            return [at, ("warm jail taken ", "info"), (line(event.jail), "text")]
        case ev.JailKilled():
            return [at, ("jail killed ", "bad"), (f"{line(event.jail)}: {line(event.reason)}", "text")]
        case ev.JailDestroyed():
            return [at, ("jail destroyed ", "dim"), (line(event.jail), "dim")]
        case ev.AddressLeased():
            return [
                at,
                ("leased ", "info"),
                (f"{line(event.ip)} {glyphs['into']} {line(event.jail)}", "text"),
            ]
        case ev.AddressReleased():
            return [at, ("released ", "dim"), (line(event.ip), "dim")]
        case ev.AddressStateSet():
            return [at, ("address set ", "warn"), (f"{line(event.ip)} {line(event.state)}", "text")]
        case ev.BuildStarted():
            return [at, ("building ", "build"), (f"{line(event.url)}.{line(event.function)}", "text")]
        case ev.BuildFinished():
            word, tone = ("built ", "ok") if event.ok else ("build failed ", "bad")
            return [at, (word, tone), (f"{line(event.url)}.{line(event.function)}", "text")]
        case ev.SourceFetched():
            return [at, ("fetched ", "clone"), (f"{line(event.url)} {line(event.commit)[:8]}", "text")]
        case ev.ArtifactEvicted():
            return [at, ("evicted ", "warn"), (f"{line(event.url)}.{line(event.function)}", "text")]
        case ev.Gap():
            return [at, (f"{event.missed} events missed", "warn")]
        case _:
            return [at, (type(event).__name__, "dim")]


class HostPanel(Pager):
    """What this host enforces, what it does not, and the remedy."""

    def content(self, width: int) -> list[Line]:
        status, glyphs = self.board.status, self.glyphs
        if status is None:
            return [Line([("  waiting for the island", "dim")])]
        lines: list[Line] = []
        for capability in sorted(status.capabilities, key=lambda c: (c.enforced or not c.wanted, c.name)):
            word: Span = (f" {glyphs['bad']} not enforced  ", "bad")
            if capability.enforced:
                word = (f" {glyphs['ok']} enforced      ", "ok")
            elif not capability.wanted:
                word = (" - not asked for ", "dim")
            name = fit(line(capability.name), 16)
            how = flowed(line(capability.how), width - 34, "text")
            lines.append(Line([word, (f"{name} ", "strong"), *how[0].spans]))
            lines += [Line([(" " * 34, "text"), *more.spans]) for more in how[1:]]
            if capability.remedy:
                arrow = f"{glyphs['into']} {line(capability.remedy)}"
                lines += [
                    Line([(" " * 34, "text"), *more.spans]) for more in flowed(arrow, width - 34, "info")
                ]
        return lines

    def titles(self, width: int) -> tuple[str, str]:
        return "What this host enforces", ""


class IslandPanel(Canvas):
    """The island itself: what it runs on and what it allows."""

    def draw(self, width: int, height: int) -> list[Line]:
        status, now = self.board.status, self.station.now
        if status is None:
            return []
        policy, limits = status.policy, status.policy.limits

        def most(value: object) -> str:
            return "no limit" if value is None else str(value)

        pool = status.pool
        warm = (
            f"{pool.size} of {pool.max_jails}, {pool.hits} hits, {pool.misses} misses"
            if pool.max_jails
            else "off"
        )
        pairs = [
            ("island", line(status.island)),
            ("version", line(status.version)),
            ("up", uptime(now - status.started_at)),
            ("jails by", f"{line(status.driver)}, clones by {line(status.storage)}"),
            ("running", f"{status.running} of {policy.max_running}"),
            (
                "queued",
                f"{status.queued} of {policy.max_queued}, for {duration(policy.queue_timeout_s)} at most",
            ),
            ("warm pool", warm),
            ("run time", f"{duration(policy.exec_timeout_s)} at most"),
            ("processor", most(limits.cpu_time_s and duration(limits.cpu_time_s))),
            ("memory", most(limits.memory_bytes and size(limits.memory_bytes))),
            ("disk", most(limits.disk_bytes and size(limits.disk_bytes))),
            ("processes", most(limits.pids)),
            ("cores", most(limits.cpus)),
            ("output", f"{size(limits.stdout_bytes)}, errors {size(limits.stderr_bytes)}"),
            ("open files", most(limits.open_files)),
            ("host", "".join(text for text, _ in host_spans(status.host)).strip()),
        ]
        return [Line([(f" {name:>10} ", "dim"), (value, "text")]) for name, value in pairs]

    def titles(self, width: int) -> tuple[str, str]:
        return "Island", ""
