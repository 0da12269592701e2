"""A row in full: beside its table, or in place of it.

A detail belongs to the row under its table's cursor at every moment: the table paints it as soon as another
row is there. Where it has the view to itself, it stays with its row, also when that is gone from the table.
"""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType

from skyisland.cause import Cause
from skyisland.model import Phase
from tui.draw.canvas import Line, Pager
from tui.draw.charts import address_map, pool_title, spark, waterfall, wrapped
from tui.draw.glyphs import Glyphs
from tui.draw.table import Row, Table
from tui.watch.rows import AddressRow, ArtifactRow, FunctionRow, InvocationRow, JailRow
from tui.words import age, brief, clock, duration, fit, line, rate, size

R = TypeVar("R", bound=Row)
LOG_LINES = 100
"""So many of the last lines of a jail's log are shown with it."""
LATEST_CALLS = 50
"""So many calls are on the page of a function."""


class Detail(Pager, Generic[R]):
    """A row of a table, in full."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.follow", "go on to its jail, or a jail's log", show=False, id="detail.follow"),
    ]
    nothing = "nothing is selected"

    def __init__(self, table: Table[R], *, id: str, classes: str = "detail") -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self.table = table
        self._row: R | None = None
        table.details.append(self)

    @property
    def row(self) -> R | None:
        """The row that it shows."""
        before = self._row
        if self.table.display:
            self._row = self.table.current
        else:  # alone: the table collects nothing meanwhile
            key = self.table.cursor
            self._row = next((row for row in self.table.source() if row.key == key), before)
        if (self._row and self._row.key) != (before and before.key):
            self.first = 0
        return self._row

    def content(self, width: int) -> list[Line]:
        row = self.row
        return [Line([(f"  {self.nothing}", "dim")])] if row is None else self.lines(row, width)

    def lines(self, row: R, width: int) -> list[Line]:
        """All that is known of the row."""
        raise NotImplementedError

    def titles(self, width: int) -> tuple[str, str]:
        row = self.row
        return (self.name_of(row) if row is not None else ""), ""

    def name_of(self, row: R) -> str:
        """What stands in the frame."""
        return row.key


def facts(pairs: list[tuple[str, str, str]]) -> list[Line]:
    """A line for each name with its value and that one's tone."""
    return [Line([(f" {name:>8} ", "dim"), (value, tone)]) for name, value, tone in pairs]


class RequestDetail(Detail[InvocationRow]):
    """How a call ended and why, who made it, and where its time went."""

    nothing = "no request is selected"

    def lines(self, row: InvocationRow, width: int) -> list[Line]:
        status = self.board.status
        limit_s = status.policy.exec_timeout_s if status is not None else None
        return invocation_in_full(
            row, self.station.now, width, self.glyphs, self.board.usual_s(row), limit_s=limit_s
        )

    def name_of(self, row: InvocationRow) -> str:
        return f"Request  {row.id}"


def invocation_in_full(
    invocation: InvocationRow,
    now: float,
    width: int,
    glyphs: Glyphs,
    usual_s: float | None,
    *,
    limit_s: float | None = None,
) -> list[Line]:
    """An invocation in full: its call, how it ended and why, what served it, its waterfall.

    `limit_s`: how long a call may run, to tell what is left of that.
    """
    glyph, tone = glyphs.state(invocation.state, invocation.word(now))
    room = min(len(invocation.label), max(12, width - len(glyph) - 4))
    label = fit(invocation.label, room, more=glyphs["more"])
    lines = [Line([(f" {label}", "strong"), (f"  {glyph}", tone)])]
    if invocation.cause is not None:
        lines += why(invocation.cause, width, tone)
    lines += wrapped(invocation.url, width, "text", indent=" ")
    resolved = invocation.verdict and Phase.resolve in invocation.spent
    parts = ["cache hit" if invocation.cached else "cache miss"] if resolved else []
    parts += [f"{'warm ' if invocation.warm else ''}jail {invocation.jail}"] if invocation.jail else []
    parts += [f"at {invocation.commit[:8]}"] if invocation.commit else []
    parts += [f"by {invocation.client}"] if invocation.client else []
    parts += [f"called {invocation.caller_id}"] if invocation.caller_id else []
    lines += wrapped("   ".join(parts), width, "dim", indent=" ")
    if invocation.phase == "exec" and not invocation.verdict and limit_s is not None:
        left = limit_s - (now - invocation.since)
        lines.append(Line([(f" {time_left(left, limit_s)}", "warn" if left < limit_s / 10 else "text")]))
    return [*lines, *waterfall(invocation, now, width, glyphs, usual_s)]


def time_left(left_s: float, limit_s: float) -> str:
    """What is left of the time that a call may run."""
    return f"{duration(max(0.0, left_s))} left of {duration(limit_s)}"


def why(cause: Cause, width: int, tone: str) -> list[Line]:
    """A cause in full: its line, then the evidence."""
    lines = wrapped(line(cause.text), width, tone, indent=" ")
    trace = "\n".join(cause.error.trace) if cause.error else ""
    parts = {"compiler": cause.compiler, "trace": trace, "stderr": cause.stderr, "stdout": cause.stdout}
    for name, text in parts.items():
        if rows := [line(row) for row in text.splitlines() if row.strip()]:
            lines.append(Line([(f" {name}", "dim")]))
            for row in rows:
                lines += wrapped(row, width, "text", indent="   ")
    return lines


class JailDetail(Detail[JailRow]):
    """Process, source, usage, the waterfall of its invocation, its last log lines."""

    nothing = "no jail is selected"

    def lines(self, row: JailRow, width: int) -> list[Line]:
        status, now = self.board.status, self.station.now
        assert status is not None  # noqa: S101 - jails come after the first snapshot
        info, limits, glyphs = row.info, status.policy.limits, self.glyphs
        glyph, tone = glyphs.state(row.state)
        pids = f"{info.usage.pids if info.usage.pids is not None else '-'} of {limits.pids or 'any'}"
        allowed = size(limits.memory_bytes) if limits.memory_bytes else "any"
        memory = f"{size(info.usage.memory_bytes)} of {allowed}"
        cpu = "-" if row.cpu_percent is None else f"{row.cpu_percent:.0f}%"
        lines = facts(
            [
                ("state", glyph, tone),
                ("process", f"{info.pid or '-'}   jail number {info.jid}", "text"),
                ("call", row.label, "strong"),
                ("source", line(info.url) or "-", "text"),
                ("request", line(info.invocation or "-"), "text"),
                ("address", info.ip4 or "none", "text"),
                ("age", age(now - info.created_at), "text"),
                ("may run", self._may_run(row, status.policy.exec_timeout_s), "text"),
                ("memory", memory, "text"),
                (
                    "cpu",
                    f"{cpu} of {f'{limits.cpus * 100:.0f}%' if limits.cpus else 'any'}   processes {pids}",
                    "text",
                ),
                ("root", line(info.path) or "-", "dim"),
            ]
        )
        invocation = self.board.invocations.get(info.invocation or "")
        if invocation is not None:
            lines.append(Line([]))
            lines += waterfall(invocation, now, width, glyphs, self.board.usual_s(invocation))
        words = self.station.journal.of(info.name)[-LOG_LINES:]
        if words:
            lines += [Line([]), Line([(" last log lines", "strong")])]
            lines += [Line([(f" {clock(w.at)} ", "dim"), (line(w.text), "text")]) for w in reversed(words)]
        return lines

    def _may_run(self, row: JailRow, limit_s: float) -> str:
        invocation = self.board.invocations.get(row.info.invocation or "")
        if invocation is None or invocation.phase != "exec":
            return duration(limit_s)
        return time_left(limit_s - (self.station.now - invocation.since), limit_s)

    def name_of(self, row: JailRow) -> str:
        return row.name


class ArtifactDetail(Detail[ArtifactRow]):
    """What a binary serves, and what it was made of."""

    def lines(self, row: ArtifactRow, width: int) -> list[Line]:
        now = self.station.now
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
        lines = facts(pairs)
        if row.cause is not None:
            lines += [Line([]), *why(row.cause, width, "bad")]
        return lines

    def name_of(self, row: ArtifactRow) -> str:
        return row.label


class FunctionDetail(Detail[FunctionRow]):
    """The page of a function: its figures, failures by reason, versions, binaries, jails, latest calls."""

    nothing = "no function is selected"

    def lines(self, row: FunctionRow, width: int) -> list[Line]:
        figures, recent, now, glyphs = row.figures, row.figures.recent, self.station.now, self.glyphs
        times = "  ".join(
            f"{name} {duration(value)}"
            for name, value in (("p50", recent.p50_s), ("p95", recent.p95_s), ("p99", recent.p99_s))
        )
        lines = facts(
            [
                ("source", row.url or "-", "text"),
                ("last 5m", f"{counted(recent.calls, recent.errors)}, {rate(recent.rate)} a second", "text"),
                ("times", f"{times}  usual {duration(figures.usual_s)}", "text"),
            ]
        )
        reasons = recent.reasons or figures.reasons
        if reasons:
            told = "   ".join(f"{number} {glyphs['times']} {line(kind)}" for kind, number in reasons.items())
            lines += self._part(
                "failures" if recent.reasons else "failures since the start", [told], width, "bad"
            )
        if row.last_error and figures.last_error_at is not None:
            when = f"{age(now - figures.last_error_at)} ago  {figures.last_failed or ''}"
            lines += self._part(f"last error, {when}", [row.last_error], width, "bad")
        slow = f"{recent.slow} took longer than {brief(figures.slo_s)}"
        if recent.kept_share is not None:
            slow += f", {recent.kept_share:.1%} ended well in time"
        lines += facts(
            [
                ("slow", slow, "warn" if recent.slow else "dim"),
                ("cold", f"{recent.cold} found no warm jail, {recent.built} had to be built", "dim"),
                ("in all", f"{counted(figures.calls, figures.errors)} since the island's start", "dim"),
            ]
        )
        counts, failures = row.trend(min(60, max(10, width - 2)))
        if any(counts):
            (drawn,) = spark(counts, len(counts), 1, glyphs, "rate")
            signs = "".join(text for text, _ in drawn)
            tones = ["bad" if failed else "rate" for failed in failures]
            lines += [Line([(" history", "dim")]), Line([(" ", "text"), *zip(signs, tones, strict=True)])]
        return [*lines, *self._made(row, width), *self._calls(row, width)]

    def _made(self, row: FunctionRow, width: int) -> list[Line]:
        """Its binaries and its jails."""
        now, board, glyphs = self.station.now, self.board, self.glyphs
        binaries = [one for one in board.cache.values() if one.artifact and one.title == row.title]
        told = [
            f"{one.key[:12]}  of {one.artifact.commit[:8]}  {size(one.artifact.size_bytes)}"
            f"  built {age(now - one.artifact.built_at)} ago  {one.artifact.hits} hits"
            for one in binaries
            if one.artifact is not None
        ]
        lines = self._part("binaries", told, width)
        jails = [jail for jail in board.jails.values() if jail.title == row.title]
        told = [
            f"{jail.name}  {glyphs.state(jail.state)[0]}  {age(now - jail.info.created_at)}" for jail in jails
        ]
        return lines + self._part("jails", told, width)

    def _calls(self, row: FunctionRow, width: int) -> list[Line]:
        """The versions that were called, and the latest calls."""
        now, glyphs = self.station.now, self.glyphs
        calls = [call for call in self.board.invocations.values() if call.title == row.title]
        calls.sort(key=lambda call: -call.at)
        versions: dict[str, list[InvocationRow]] = {}
        for call in calls:
            if call.commit:
                versions.setdefault(call.commit, []).append(call)
        told = [
            f"{commit[:12]}  {counted(len(its), sum(call.cause is not None for call in its))}"
            f"  last {age(now - its[0].at)} ago"
            for commit, its in versions.items()
        ]
        lines = self._part("versions, of the latest calls", told, width)
        if calls:
            lines.append(Line([(" latest calls", "dim")]))
        for call in calls[:LATEST_CALLS]:
            glyph, tone = glyphs.state(call.state, call.word(now))
            why = f"  {line(call.cause.text)}" if call.cause else ""
            spans = [(f"   {clock(call.at)} {call.short} ", "dim"), (f"{glyph} ", tone)]
            lines.append(Line([*spans, (f" {duration(call.seconds(now))}  {call.call}{why}", "text")]))
        return lines

    def _part(self, name: str, rows: list[str], width: int, tone: str = "text") -> list[Line]:
        if not rows:
            return []
        return [
            Line([(f" {name}", "dim")]),
            *(each for row in rows for each in wrapped(row, width, tone, "   ")),
        ]

    def name_of(self, row: FunctionRow) -> str:
        return f"Function  {row.label}"


def counted(calls: int, errors: int) -> str:
    """`12 calls, 3 errors (25%)`."""
    failed = f"{errors} error{'' if errors == 1 else 's'}" + (
        f" ({errors / calls:.0%})" if calls and errors else ""
    )
    return f"{calls} call{'' if calls == 1 else 's'}, {failed}"


class AddressDetail(Detail[AddressRow]):
    """Who holds an address, and where it lies in the pool."""

    nothing = "this island has no address pool"

    def lines(self, row: AddressRow, width: int) -> list[Line]:
        glyph, tone = self.glyphs.state(row.state, row.word)
        since = f"for {age(self.station.now - row.info.since)}" if row.info.since else "-"
        addresses = self.board.ordered_addresses()
        return [
            *address_map(addresses, width, len(addresses) + 1, self.glyphs, row.key),
            Line([]),
            *facts(
                [
                    ("address", row.ip, "strong"),
                    ("state", glyph, tone),
                    ("since", since, "text"),
                    ("jail", line(row.info.jail or "-"), "text"),
                    ("function", row.function or "-", "text"),
                ]
            ),
        ]

    def titles(self, width: int) -> tuple[str, str]:
        return pool_title(self.board.ordered_addresses()), ""
