"""The columns of the tables, and which of them vanish first on a narrow screen."""

from __future__ import annotations

import math

from skyisland.model import Phase
from tui.draw.charts import phase_bar, spark
from tui.draw.table import Column, Ink
from tui.draw.tones import Span, Spans
from tui.watch.names import NameRow
from tui.watch.rows import AddressRow, ArtifactRow, FunctionRow, InvocationRow, JailRow
from tui.words import age, clock, duration, line, rate, size, tail


def millis(seconds: float | None) -> str:
    """Milliseconds without their unit, seconds with it: `3.9`, `206`, `1.39s`."""
    if not seconds:
        return "-"
    if seconds < 0.00995:
        return f"{seconds * 1e3:.1f}"
    return f"{seconds * 1e3:.0f}" if seconds < 0.9995 else duration(seconds)


def total_tone(seconds: float, slo_s: float) -> str:
    """Of a time that has a target: bad beyond it, and a warning from a fifth of it on."""
    return "bad" if seconds > slo_s else "warn" if seconds >= slo_s / 5 else "text"


PATH_CELLS = 3
"""What tells a path from others is at its end: so much of it, with a sign for the rest, must stand before a
package's name."""


def call_in_room(url: str, call: str, label: str, ink: Ink) -> str:
    """A call with as much of its URL as there is room for, cut from the left; its arguments go first."""
    if not (url and call):
        return label
    may_go = max(0, len(url.rpartition("/")[0]) - PATH_CELLS + 1)
    for whole in (f"{url}.{call}", f"{url}.{call.partition('(')[0]}"):
        if len(whole) - may_go <= ink.width:
            break
    return tail(whole, ink.width, ink.glyphs["more"])


def _jail_function(jail: JailRow, ink: Ink) -> Span:
    return call_in_room(jail.info.url, jail.info.call, jail.label, ink), "text"


def _cpu(jail: JailRow, ink: Ink) -> Span:
    if jail.cpu_percent is None:
        return "-", "dim"
    return f"{jail.cpu_percent:.0f}", "warn" if jail.cpu_percent >= 85 else "text"


def _age(jail: JailRow, ink: Ink) -> Span:
    seconds = ink.now - jail.info.created_at
    stuck = seconds > 60 and jail.state not in ("warm", "building")
    return age(seconds), "warn" if stuck else "text"


NODE = Column("NODE", 8, lambda r, ink: (r.node or "-", "text"), lambda r, now: r.node, rank=1, fleet=True)

JAILS: list[Column] = [
    Column("JAIL", 13, lambda j, ink: (tail(j.name, ink.width, ink.glyphs["more"]), "text"),
           lambda j, now: j.info.jid),
    Column("FUNCTION", 18, _jail_function, lambda j, now: j.label, grow=64),
    Column("STATE", 10, lambda j, ink: ink.glyphs.state(j.state), lambda j, now: j.state),
    Column("IP", 11, lambda j, ink: (j.info.ip4 or "-", "text" if j.info.ip4 else "dim"),
           lambda j, now: j.info.ip4 or "", rank=5, grow=4),
    Column("PID", 7, lambda j, ink: (str(j.info.pid or "-"), "dim"), lambda j, now: j.info.pid or 0, ">", 8),
    Column("AGE", 5, _age, lambda j, now: now - j.info.created_at, ">", falling=True),
    Column("CPU%", 5, _cpu, lambda j, now: j.cpu_percent or 0.0, ">", 3, falling=True),
    Column("MEM", 5, lambda j, ink: (size(j.info.usage.memory_bytes), "text"),
           lambda j, now: j.info.usage.memory_bytes or 0, ">", 4, falling=True),
    Column("REQUEST", 8, lambda j, ink: (j.invocation or "-", "dim"), lambda j, now: j.invocation, rank=7),
    Column("CACHE", 5, lambda j, ink: _hit(j.info.cached) if j.invocation else ("-", "dim"),
           lambda j, now: j.info.cached, rank=6),
    NODE,
]  # fmt: skip


def _hit(cached: bool) -> Span:
    return ("hit", "dim") if cached else ("MISS", "warn")


def _spent(phase: Phase) -> Column:
    def cell(invocation: InvocationRow, ink: Ink) -> Span:
        spent = invocation.spent.get(phase)
        return millis(spent), str(phase) if spent and spent >= 0.5 else "text" if spent else "dim"

    ranks = {Phase.resolve: 9, Phase.queue: 8, Phase.jail: 5, Phase.clone: 4, Phase.build: 3, Phase.exec: 1}
    title = str(phase).upper()
    return Column(
        title,
        max(5, len(title)),
        cell,
        lambda r, now: r.spent.get(phase, 0.0),
        ">",
        ranks.get(phase, 0),
        falling=True,
    )


def _called(invocation: InvocationRow, ink: Ink) -> Span:
    if invocation.name:
        return invocation.label, "text"
    return call_in_room(invocation.url, invocation.call, invocation.label, ink), "text"


def _result(invocation: InvocationRow, ink: Ink) -> Span:
    return ink.glyphs.state(invocation.state, invocation.word(ink.now))


def _total(invocation: InvocationRow, ink: Ink) -> Span:
    seconds = invocation.seconds(ink.now)
    return duration(seconds), total_tone(seconds, invocation.slo_s) if invocation.verdict else "info"


def _phases(invocation: InvocationRow, ink: Ink) -> Spans:
    return phase_bar(invocation, ink.now, ink.width, ink.glyphs)


REQUESTS: list[Column] = [
    Column("TIME", 8, lambda r, ink: (clock(r.at), "text"), lambda r, now: r.at, falling=True),
    Column("REQUEST", 8, lambda r, ink: (r.short, "dim"), None, rank=7),
    Column("FUNCTION", 18, _called, lambda r, now: r.label, grow=20),
    Column("RESULT", 13, _result, lambda r, now: r.verdict, grow=7),
    _spent(Phase.resolve),
    _spent(Phase.clone),
    _spent(Phase.build),
    _spent(Phase.queue),
    _spent(Phase.jail),
    _spent(Phase.exec),
    Column("TOTAL", 6, _total, lambda r, now: r.seconds(now), ">", falling=True),
    Column("PHASES", 9, _phases, None, rank=2, rest=True),
]  # fmt: skip


def _address_state(address: AddressRow, ink: Ink) -> Span:
    return ink.glyphs.state(address.state, address.word)


def _address_holder(address: AddressRow, ink: Ink) -> Span:
    return (address.info.jail, "text") if address.info.jail else ("-", "dim")


ADDRESSES: list[Column] = [
    Column("ADDRESS", 15, lambda s, ink: (s.ip, "text"), lambda s, now: s.order),
    Column("STATE", 13, _address_state, lambda s, now: s.state),
    Column("JAIL", 12, _address_holder, lambda s, now: s.info.jail or "", grow=6),
    Column("FUNCTION", 12, lambda s, ink: (s.function or "-", "text" if s.function else "dim"),
           lambda s, now: s.function, rank=2, grow=48),
    Column("SINCE", 6, lambda s, ink: (age(ink.now - s.info.since) if s.info.since else "-", "text"),
           lambda s, now: s.info.since or 0.0, ">", falling=True),
    NODE,
]  # fmt: skip


def _artifact_state(row: ArtifactRow, ink: Ink) -> Span:
    return ink.glyphs.state(row.shown_state)


def _build_time(row: ArtifactRow, ink: Ink) -> Span:
    if row.state == "building":
        return duration(max(0.0, ink.now - row.at)), "build"
    return duration(row.artifact.build_s) if row.artifact else "-", "text"


CACHE: list[Column] = [
    Column("FUNCTION", 14, lambda c, ink: (call_in_room(c.url, c.function, c.label, ink), "text"),
           lambda c, now: c.label, grow=60),
    Column("COMMIT", 8, lambda c, ink: (c.artifact.commit[:8] if c.artifact else "-", "dim"), None, rank=7),
    Column("KEY", 8, lambda c, ink: (c.key[:8], "dim"), None, rank=9),
    Column("STATE", 10, _artifact_state, lambda c, now: c.shown_state, rank=1),
    Column("HITS", 6, lambda c, ink: (str(c.artifact.hits) if c.artifact else "-", "text"),
           lambda c, now: c.artifact.hits if c.artifact else 0, ">", falling=True),
    Column("SIZE", 5, lambda c, ink: (size(c.artifact.size_bytes) if c.artifact else "-", "text"),
           lambda c, now: c.artifact.size_bytes if c.artifact else 0, ">", 5, falling=True),
    Column("BUILD", 6, _build_time, lambda c, now: c.seconds(now), ">", 4, falling=True),
    Column("USED", 5, lambda c, ink: (age(ink.now - c.artifact.used_at) if c.artifact else "-", "dim"),
           lambda c, now: c.artifact.used_at if c.artifact else c.at, ">", 3, falling=True),
]  # fmt: skip


def _share(share: float | None, bad: float) -> Span:
    if share is None:
        return "-", "dim"
    return (
        f"{share:.0%}" if share >= 0.0995 or not share else f"{share:.1%}",
        "bad" if share >= bad else "text",
    )


def _function_time(field: str) -> Column:
    def seconds(row: FunctionRow) -> float | None:
        value: float | None = getattr(row.figures.recent, f"{field}_s")
        return value

    def cell(row: FunctionRow, ink: Ink) -> Span:
        value = seconds(row)
        return duration(value), total_tone(value, row.figures.slo_s) if value is not None else "dim"

    ranks = {"p95": 6}
    return Column(
        field.upper(), 6, cell, lambda f, now: seconds(f) or 0.0, ">", ranks.get(field, 1), falling=True
    )


def _trend(row: FunctionRow, ink: Ink) -> Spans:
    """Calls over the window, the parts with failures in the colour of these."""
    counts, failures = row.trend(ink.width)
    (line,) = spark(counts, ink.width, 1, ink.glyphs, "rate")
    text = "".join(text for text, _ in line)
    return [(sign, "bad" if failed else "rate") for sign, failed in zip(text, failures, strict=True)]


def _last_error(row: FunctionRow, ink: Ink) -> Span:
    at = row.figures.last_error_at
    if at is None:
        return "-", "dim"
    recent = bool(row.figures.recent.errors)
    return f"{age(ink.now - at)} ago  {row.last_error}", "bad" if recent else "dim"


FUNCTIONS: list[Column] = [
    Column("FUNCTION", 20, lambda f, ink: (tail(f.label, ink.width, ink.glyphs["more"]), "text"),
           lambda f, now: f.label, grow=16),
    Column("CALLS", 6, lambda f, ink: (str(f.figures.recent.calls or "-"), "text"),
           lambda f, now: (f.figures.recent.calls, f.figures.last_at), ">", falling=True),
    Column("RATE/s", 6, lambda f, ink: (rate(f.figures.recent.rate), "text"),
           lambda f, now: f.figures.recent.rate, ">", 5, falling=True),
    Column("ERR", 5, lambda f, ink: _share(f.figures.recent.error_share, 0.05),
           lambda f, now: f.figures.recent.errors, ">", falling=True),
    _function_time("p50"),
    _function_time("p95"),
    _function_time("p99"),
    Column("COLD", 5, lambda f, ink: _share(f.figures.recent.cold_share, 2.0),
           lambda f, now: f.figures.recent.cold_share or 0.0, ">", 4, falling=True),
    Column("TREND", 15, _trend, None, rank=3),
    Column("LAST ERROR", 18, _last_error, lambda f, now: f.figures.last_error_at or 0.0, rank=2, rest=True,
           falling=True),
]  # fmt: skip


def _name_state(row: NameRow, ink: Ink) -> Span:
    return ink.glyphs.state("changing" if row.changing else row.state, row.state)


NAMES: list[Column] = [
    Column("NAME", 14, lambda n, ink: (n.name, "text"), lambda n, now: n.name, grow=8),
    Column("STATE", 10, _name_state, lambda n, now: n.state),
    Column("FUNCTION", 15, lambda n, ink: (tail(n.function, ink.width, ink.glyphs["more"]), "text"),
           lambda n, now: n.function, grow=40),
    Column("VERSION", 15, lambda n, ink: (n.version, "text"), lambda n, now: n.version, rank=4, grow=8),
    Column("COMMIT", 8, lambda n, ink: (n.info.commit[:8], "dim"), None, rank=3),
    Column("REV", 4, lambda n, ink: (str(n.info.revision), "text"), lambda n, now: n.info.revision, ">",
           falling=True),
    Column("SINCE", 5, lambda n, ink: (age(ink.now - n.info.at), "text"), lambda n, now: n.info.at, ">",
           2, falling=True),
    Column("BY", 8, lambda n, ink: (line(n.info.by) or "-", "dim"), lambda n, now: n.info.by, rank=5, grow=8),
    Column("NEXT", 5, lambda n, ink: (age(n.next - ink.now) if n.next else "-", "text" if n.next else "dim"),
           lambda n, now: n.next or math.inf, ">", 1),
    Column("CALLS", 5, lambda n, ink: (str(n.info.running or "-"), "info" if n.info.running else "dim"),
           lambda n, now: n.info.running, ">", 1, falling=True),
]  # fmt: skip
