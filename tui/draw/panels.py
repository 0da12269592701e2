"""The panels beside the tables: each a few lines made of what the board knows."""

from __future__ import annotations

from collections.abc import Callable

from skyisland import events as ev
from skyisland.events import Event
from skyisland.model import Phase
from tui.draw.canvas import Canvas, Line, Pager
from tui.draw.charts import address_map, flowed, histogram, legend, percentiles, waterfall, wrapped
from tui.draw.columns import SLO_S
from tui.draw.glyphs import Look, Span, Spans
from tui.watch.board import WINDOW
from tui.watch.rows import Cached, Jail, Request, Slot
from tui.words import age, clock, duration, fit, line, size, uptime


class Phases(Canvas):
    """Where the time goes."""

    def draw(self, width: int, height: int) -> list[Line]:
        return percentiles(self.board.phase_times(), self.board.totals(), width, self.look)

    def titles(self, width: int) -> tuple[str, str]:
        return "Phases", ""


class Latency(Canvas):
    """How long the last requests took."""

    def draw(self, width: int, height: int) -> list[Line]:
        counts = self.board.histogram()
        if not any(counts):
            return [Line([("  no request yet", "dim")])]
        return histogram(counts, width, height, self.look, SLO_S)

    def titles(self, width: int) -> tuple[str, str]:
        return f"Latency, last {WINDOW} requests", ""


class Pool(Canvas):
    """All addresses at a glance; a click chooses one in the table."""

    def __init__(
        self,
        chosen: Callable[[], str | None] = lambda: None,
        *,
        id: str,  # noqa: A002
        snug: bool = False,
    ) -> None:
        """`snug`: be as high as the addresses need, six lines of them at most."""
        super().__init__(id=id)
        self.chosen = chosen
        self.snug = snug

    def _fit_height(self, count: int, width: int) -> None:
        per_row = max(1, (width - 1) // 2)
        rows = -(-count // per_row)
        wanted = 3 + max(1, min(6, rows))
        if self.styles.height is None or self.styles.height.value != wanted:
            self.styles.height = wanted

    def slots(self) -> list[Slot]:
        return sorted(self.board.slots.values(), key=lambda slot: slot.order)

    def draw(self, width: int, height: int) -> list[Line]:
        slots = self.slots()
        if self.snug:
            self._fit_height(len(slots), width)
        if not slots:
            return [Line([("  this island has no address pool", "dim")])]
        if height < 2:
            return [Line(legend(slots, self.look, width))]
        chosen = self.board.slots.get(self.chosen() or "")
        below = [] if chosen is None else self._told(chosen, width)
        return address_map(slots, width, max(2, height - len(below)), self.look, self.chosen()) + below

    def _told(self, slot: Slot, width: int) -> list[Line]:
        glyph, tone = self.look.state(slot.state, str(slot.info.state))
        since = f"for {age(self.station.now - slot.info.since)}" if slot.info.since else "-"
        holder = slot.info.jail or ("taken out by an operator" if slot.state == "out" else "-")
        pairs = [("address", slot.ip, "strong"), ("state", glyph, tone), ("since", since, "text")]
        pairs += [("jail", line(holder), "text"), ("function", slot.function or "-", "text")]
        rows = [Line([(f" {name:>8} ", "dim"), (value, own)]) for name, value, own in pairs]
        return [Line([]), *rows]

    def titles(self, width: int) -> tuple[str, str]:
        slots = self.slots()
        span = f" {slots[0].ip} to .{slots[-1].order[-1]}" if slots else ""
        return f"IP pool{span}", ""


class Waterfall(Canvas):
    """The phases of one request, each at its offset."""

    def __init__(self, request: Callable[[], Request | None], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.request = request

    def draw(self, width: int, height: int) -> list[Line]:
        request = self.request()
        if request is None:
            return [Line([("  no request is selected", "dim")])]
        return story(request, self.station.now, width, self.look, self.board.usual_s(request))

    def titles(self, width: int) -> tuple[str, str]:
        request = self.request()
        return (f"Waterfall  {request.id}" if request else "Waterfall"), ""


def story(request: Request, now: float, width: int, look: Look, usual_s: float | None) -> list[Line]:
    """A request in full: what it was, how it ended, its waterfall."""
    glyph, tone = look.state(request.state, request.verdict or request.phase)
    looked = request.verdict and Phase.resolve in request.spent
    facts = ["cache hit" if request.cached else "cache miss"] if looked else []
    facts += [f"{'warm ' if request.warm else ''}jail {request.jail}"] if request.jail else []
    facts += [f"at {request.commit[:8]}"] if request.commit else []
    label = fit(request.label, min(len(request.label), max(12, width - len(glyph) - 4)), more=look["more"])
    lines = [
        Line([(f" {label}", "strong"), (f"  {glyph}", tone)]),
        Line([(" " + "   ".join(facts), "dim")]),
        *waterfall(request, now, width, look, usual_s),
    ]
    if request.error:
        lines += wrapped(request.error, width, "bad", indent=" ")
    return lines


class JailDetail(Canvas):
    """One jail in full: where it lives, what it may use, how far its request is, its last words."""

    def __init__(self, jail: Callable[[], Jail | None], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.jail = jail

    def draw(self, width: int, height: int) -> list[Line]:
        jail, status, now = self.jail(), self.board.status, self.station.now
        if jail is None or status is None:
            return [Line([("  no jail is selected", "dim")])]
        info, limits, look = jail.info, status.policy.limits, self.look
        glyph, tone = look.state(jail.state)
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
        request = self.board.requests.get(info.invocation or "")
        if request is not None:
            lines.append(Line([]))
            lines += waterfall(request, now, width, look, self.board.usual_s(request))
        words = self.station.journal.of(info.name)[-max(0, height - len(lines) - 2) :]
        if words and height - len(lines) > 2:
            lines += [Line([]), Line([(" last log lines", "strong")])]
            lines += [Line([(f" {clock(w.at)} ", "dim"), (line(w.text), "text")]) for w in words]
        return lines[:height]

    def titles(self, width: int) -> tuple[str, str]:
        jail = self.jail()
        return (jail.name if jail else "Jail"), ""


class CacheDetail(Canvas):
    """One binary in full."""

    def __init__(self, row: Callable[[], Cached | None], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.row = row

    def draw(self, width: int, height: int) -> list[Line]:
        row, now = self.row(), self.station.now
        if row is None:
            return [Line([("  nothing is selected", "dim")])]
        glyph, tone = self.look.state(row.shown_state)
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


class Tail(Canvas):
    """The last facts, newest at the bottom."""

    def draw(self, width: int, height: int) -> list[Line]:
        facts = list(self.board.tail)[-height:]
        if not facts:
            return [Line([("  nothing has happened yet", "dim")])]
        return [Line(fact(event, self.look)) for event in facts]

    def titles(self, width: int) -> tuple[str, str]:
        return "Events", ""


def fact(event: Event, look: Look) -> Spans:
    """An event in words."""
    at: Span = (f" {clock(event.at)} ", "dim")
    match event:
        case ev.InvocationFinished():
            tone = "ok" if event.verdict == "ok" else "bad"
            mark = look["ok" if event.verdict == "ok" else "bad"]
            words = f"{line(event.url).rsplit('/', 1)[-1]}.{line(event.call)}"
            return [at, (f"{mark} {line(event.verdict)} ", tone), (words, "text"),
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
            return [at, ("leased ", "info"), (f"{line(event.ip)} {look['into']} {line(event.jail)}", "text")]
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


class Host(Pager):
    """What this host enforces, what it cannot, and what to do about it."""

    def content(self, width: int) -> list[Line]:
        status, look = self.board.status, self.look
        if status is None:
            return [Line([("  waiting for the island", "dim")])]
        lines: list[Line] = []
        for capability in sorted(status.capabilities, key=lambda c: (c.enforced, c.name)):
            word: Span = (f" {look['bad']} not enforced  ", "bad")
            if capability.enforced:
                word = (f" {look['ok']} enforced      ", "ok")
            name = fit(line(capability.name), 16)
            how = flowed(line(capability.how), width - 34, "text")
            lines.append(Line([word, (f"{name} ", "strong"), *how[0].spans]))
            lines += [Line([(" " * 34, "text"), *more.spans]) for more in how[1:]]
            if capability.remedy:
                arrow = f"{look['into']} {line(capability.remedy)}"
                lines += [
                    Line([(" " * 34, "text"), *more.spans]) for more in flowed(arrow, width - 34, "info")
                ]
        return lines

    def titles(self, width: int) -> tuple[str, str]:
        return "What this host enforces", ""


class IslandFacts(Canvas):
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
