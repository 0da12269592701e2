"""The panels beside the tables: each is a few lines made from the board."""

from __future__ import annotations

import math
from collections.abc import Callable

from skyisland import events as ev
from skyisland.events import Event
from skyisland.model import Phase
from tui.draw.canvas import Canvas, Line, Pager
from tui.draw.charts import address_map, flowed, histogram, legend, percentiles, waterfall, wrapped
from tui.draw.columns import SLO_S
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Span, Spans
from tui.watch.board import WINDOW
from tui.watch.rows import AddressRow, ArtifactRow, InvocationRow, JailRow, state_of
from tui.words import age, clock, duration, fit, line, size, uptime


class PhasesPanel(Canvas):
    """How long each phase takes."""

    def draw(self, width: int, height: int) -> list[Line]:
        return percentiles(self.board.phase_times(), self.board.totals(), width, self.glyphs)

    def titles(self, width: int) -> tuple[str, str]:
        return "Phases", ""


class LatencyPanel(Canvas):
    """A histogram of the last invocations' total times."""

    def draw(self, width: int, height: int) -> list[Line]:
        counts = self.board.histogram()
        if not any(counts):
            return [Line([("  no request yet", "dim")])]
        return histogram(counts, width, height, self.glyphs, SLO_S)

    def titles(self, width: int) -> tuple[str, str]:
        return f"Latency, last {WINDOW} requests", ""


class AddressPanel(Canvas):
    """The whole address pool, and the address that is selected in the table."""

    def __init__(
        self,
        chosen: Callable[[], str | None] = lambda: None,
        *,
        id: str,  # noqa: A002
        snug: bool = False,
    ) -> None:
        """`chosen`: the selected address. `snug`: only as high as the addresses need, at most six lines."""
        super().__init__(id=id)
        self.chosen = chosen
        self.snug = snug

    def _fit_height(self, count: int, width: int) -> None:
        per_row = max(1, (width - 1) // 2)
        rows = math.ceil(count / per_row)
        height = 3 + max(1, min(6, rows))
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def addresses(self) -> list[AddressRow]:
        return sorted(self.board.addresses.values(), key=lambda address: address.order)

    def draw(self, width: int, height: int) -> list[Line]:
        addresses = self.addresses()
        if self.snug:
            self._fit_height(len(addresses), width)
        if not addresses:
            return [Line([("  this island has no address pool", "dim")])]
        if height < 2:
            return [Line(legend(addresses, self.glyphs, width))]
        chosen = self.board.addresses.get(self.chosen() or "")
        below = [] if chosen is None else self._details(chosen)
        return address_map(addresses, width, max(2, height - len(below)), self.glyphs, self.chosen()) + below

    def _details(self, address: AddressRow) -> list[Line]:
        glyph, tone = self.glyphs.state(address.state, str(address.info.state))
        since = f"for {age(self.station.now - address.info.since)}" if address.info.since else "-"
        holder = address.info.jail or ("taken out by an operator" if address.state == "out" else "-")
        pairs = [("address", address.ip, "strong"), ("state", glyph, tone), ("since", since, "text")]
        pairs += [("jail", line(holder), "text"), ("function", address.function or "-", "text")]
        rows = [Line([(f" {name:>8} ", "dim"), (value, own)]) for name, value, own in pairs]
        return [Line([]), *rows]

    def titles(self, width: int) -> tuple[str, str]:
        addresses = self.addresses()
        span = f" {addresses[0].ip} to .{addresses[-1].order[-1]}" if addresses else ""
        return f"IP pool{span}", ""


class WaterfallPanel(Canvas):
    """The selected invocation, with its phases as a waterfall."""

    def __init__(self, invocation: Callable[[], InvocationRow | None], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.invocation = invocation

    def draw(self, width: int, height: int) -> list[Line]:
        invocation = self.invocation()
        if invocation is None:
            return [Line([("  no request is selected", "dim")])]
        return invocation_in_full(
            invocation, self.station.now, width, self.glyphs, self.board.usual_s(invocation)
        )

    def titles(self, width: int) -> tuple[str, str]:
        invocation = self.invocation()
        return (f"Waterfall  {invocation.id}" if invocation else "Waterfall"), ""


def invocation_in_full(
    invocation: InvocationRow, now: float, width: int, glyphs: Glyphs, usual_s: float | None
) -> list[Line]:
    """An invocation in full: its call, how it ended, what served it, its waterfall."""
    glyph, tone = glyphs.state(invocation.state, invocation.verdict or invocation.phase)
    resolved = invocation.verdict and Phase.resolve in invocation.spent
    facts = ["cache hit" if invocation.cached else "cache miss"] if resolved else []
    facts += [f"{'warm ' if invocation.warm else ''}jail {invocation.jail}"] if invocation.jail else []
    facts += [f"at {invocation.commit[:8]}"] if invocation.commit else []
    room = min(len(invocation.label), max(12, width - len(glyph) - 4))
    label = fit(invocation.label, room, more=glyphs["more"])
    lines = [
        Line([(f" {label}", "strong"), (f"  {glyph}", tone)]),
        Line([(" " + "   ".join(facts), "dim")]),
        *waterfall(invocation, now, width, glyphs, usual_s),
    ]
    if invocation.error:
        lines += wrapped(invocation.error, width, glyphs.state(invocation.state)[1], indent=" ")
    return lines


class JailPanel(Canvas):
    """The selected jail in full: process, source, usage, its invocation's waterfall, its last log lines."""

    def __init__(self, jail: Callable[[], JailRow | None], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.jail = jail

    def draw(self, width: int, height: int) -> list[Line]:
        jail, status, now = self.jail(), self.board.status, self.station.now
        if jail is None or status is None:
            return [Line([("  no jail is selected", "dim")])]
        info, limits, glyphs = jail.info, status.policy.limits, self.glyphs
        glyph, tone = glyphs.state(jail.state)
        pids = f"{info.usage.pids if info.usage.pids is not None else '-'} of {limits.pids or 'any'}"
        allowed = size(limits.memory_bytes) if limits.memory_bytes else "any"
        memory = f"{size(info.usage.memory_bytes)} of {allowed}"
        cpu = "-" if jail.cpu_percent is None else f"{jail.cpu_percent:.0f}%"
        pairs: list[tuple[str, str, str]] = [
            ("state", glyph, tone),
            ("process", f"{info.pid or '-'}   jail number {info.jid}", "text"),
            ("call", jail.label, "strong"),
            ("source", line(info.url) or "-", "text"),
            ("request", line(info.invocation or "-"), "text"),
            ("address", info.ip4 or "none", "text"),
            (
                "age",
                f"{age(now - info.created_at)}   may run {duration(status.policy.exec_timeout_s)}",
                "text",
            ),
            ("memory", memory, "text"),
            (
                "cpu",
                f"{cpu} of {f'{limits.cpus * 100:.0f}%' if limits.cpus else 'any'}   processes {pids}",
                "text",
            ),
            ("root", line(info.path) or "-", "dim"),
        ]
        lines = [Line([(f" {name:>8} ", "dim"), (value, own)]) for name, value, own in pairs]
        invocation = self.board.invocations.get(info.invocation or "")
        if invocation is not None:
            lines.append(Line([]))
            lines += waterfall(invocation, now, width, glyphs, self.board.usual_s(invocation))
        words = self.station.journal.of(info.name)[-max(0, height - len(lines) - 2) :]
        if words and height - len(lines) > 2:
            lines += [Line([]), Line([(" last log lines", "strong")])]
            lines += [Line([(f" {clock(w.at)} ", "dim"), (line(w.text), "text")]) for w in words]
        return lines[:height]

    def titles(self, width: int) -> tuple[str, str]:
        jail = self.jail()
        return (jail.name if jail else "Jail"), ""


class ArtifactPanel(Canvas):
    """The selected artifact in full."""

    def __init__(self, row: Callable[[], ArtifactRow | None], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.row = row

    def draw(self, width: int, height: int) -> list[Line]:
        row, now = self.row(), self.station.now
        if row is None:
            return [Line([("  nothing is selected", "dim")])]
        glyph, tone = self.glyphs.state(row.shown_state)
        pairs: list[tuple[str, str, str]] = [
            ("state", glyph, tone),
            ("function", row.function, "strong"),
            ("source", row.url, "text"),
        ]
        artifact = row.artifact
        if artifact is not None:
            kind = "one call, compiled as it stands" if artifact.expression else "any literal arguments"
            pairs += [
                ("serves", kind, "text"),
                ("commit", line(artifact.commit), "text"),
                ("built", f"{age(now - artifact.built_at)} ago in {duration(artifact.build_s)}", "text"),
                ("used", f"{age(now - artifact.used_at)} ago, {artifact.hits} hits", "text"),
                ("size", f"{size(artifact.size_bytes)}   {line(artifact.go_version)}", "text"),
                ("binary", line(artifact.sha256), "dim"),
            ]
        pairs.append(("key", row.key, "dim"))
        lines = [Line([(f" {name:>8} ", "dim"), (value, own)]) for name, value, own in pairs]
        failed = self.board.last_failure(row)
        if failed is not None:
            lines += [Line([]), *wrapped(failed, width, "bad", indent=" ")]
        return lines

    def titles(self, width: int) -> tuple[str, str]:
        row = self.row()
        return (row.label if row else "Binary"), ""


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
        for capability in sorted(status.capabilities, key=lambda c: (c.enforced, c.name)):
            word: Span = (f" {glyphs['bad']} not enforced  ", "bad")
            if capability.enforced:
                word = (f" {glyphs['ok']} enforced      ", "ok")
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
        ]
        return [Line([(f" {name:>10} ", "dim"), (value, "text")]) for name, value in pairs]

    def titles(self, width: int) -> tuple[str, str]:
        return "Island", ""
