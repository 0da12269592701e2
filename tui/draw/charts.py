"""Figures as lines of text: sparklines, phase bars, waterfall, heat map, percentiles, address map.

Pure functions of the board's values. Widths are in cells. Every phase that took time gets at least one cell.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import chop_cells

from skyisland.model import Phase
from skyisland.status import HostLoad
from tui.draw.canvas import Line
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Span, Spans
from tui.watch.figures import BUCKETS_S, percentile
from tui.watch.rows import ADDRESS_WORDS, AddressRow, InvocationRow
from tui.words import duration, size


def spark(values: Sequence[float], width: int, rows: int, glyphs: Glyphs, tone: str) -> list[Spans]:
    """The last `width` values as columns of at most `rows` lines, all on a scale that begins at zero.

    The scale ends at 1.5 times the 95th percentile: a lone peak is cut, so that it does not flatten the rest.
    """
    values = list(values)[-width:]
    levels = glyphs.levels
    usual = percentile(sorted(value for value in values if value > 0), 0.95) or 1.0
    top = min(max(values, default=0.0), 1.5 * usual) or 1.0
    steps = rows * len(levels)
    heights = [0 if v <= 0 else max(1, min(steps, round(v / top * steps))) for v in values]
    lines: list[Spans] = []
    for row in range(rows - 1, -1, -1):
        floor = row * len(levels)
        text = ""
        for height in heights:
            level = min(len(levels), height - floor)
            text += levels[level - 1] if level > 0 else " "
        lines.append([(" " * (width - len(values)) + text, tone)])
    return lines


def phase_bar(invocation: InvocationRow, now: float, width: int, glyphs: Glyphs) -> Spans:
    """An invocation's phases in `width` cells, each as long as its share of the time."""
    spent = [(phase, invocation.spent[phase]) for phase in Phase if invocation.spent.get(phase)]
    total = max(invocation.seconds(now), sum(seconds for _, seconds in spent))
    if (phase := invocation.under_way) is not None:
        spent.append((phase, max(1e-9, total - sum(seconds for _, seconds in spent))))
    cells = share_cells([seconds for _, seconds in spent], total, width)
    spans: Spans = [
        (glyphs.bars[phase] * count, f"bar-{phase}")
        for (phase, _), count in zip(spent, cells, strict=True)
        if count
    ]
    left = width - sum(cells)
    if left:
        spans.append((" " * left, "text"))
    return spans


def share_cells(parts: Sequence[float], total: float, width: int) -> list[int]:
    """The cells of each of `parts` of `total`, at most `width` in all.

    A part above 0 has one at least. If these alone are more than `width`, the last parts have none.
    """
    if total <= 0 or not parts:
        return [0] * len(parts)
    cells = [max(1, round(part / total * width)) if part > 0 else 0 for part in parts]
    while sum(cells) > width:
        largest = max(range(len(cells)), key=cells.__getitem__)
        if cells[largest] <= 1:
            last_visible = max(n for n, count in enumerate(cells) if count)
            cells[last_visible] = 0
        else:
            cells[largest] -= 1
    return cells


def waterfall(
    invocation: InvocationRow, now: float, width: int, glyphs: Glyphs, usual_s: float | None
) -> list[Line]:
    """A line per phase with time, share, and a bar at its offset; then the total and what no phase covers."""
    total = invocation.seconds(now)
    room = max(8, width - 24)
    lines: list[Line] = []
    offset = 0.0
    for phase in Phase:
        going = phase is invocation.under_way
        spent = max(0.0, total - offset) if going else invocation.spent.get(phase, 0.0)
        share = spent / total if total else 0.0
        start = min(room - 1, int(offset / total * room)) if total else 0
        length = min(room - start, max(1, round(share * room))) if spent else 0
        spans: Spans = [
            (f" {phase!s:>8} ", str(phase) if spent else "dim"),
            (f"{duration(spent) if spent else '-':>7} ", "info" if going else "strong" if spent else "dim"),
            (f"{share:>4.0%}  " if spent else "      ", "dim"),
            (" " * start, "text"),
        ]
        spans.append((glyphs.bars[phase] * length, f"bar-{phase}") if spent else (glyphs["point"], "trough"))
        lines.append(Line(spans))
        offset += spent
    tail: Spans = [("    total ", "strong"), (f"{duration(total):>7} ", "strong")]
    parts = [f"  usual {duration(usual_s)}"] if usual_s is not None else []
    parts.append(f"  other {duration(max(0.0, total - offset))}")
    for part in parts:
        if sum(len(text) for text, _ in tail) + len(part) <= width:
            tail.append((part, "dim"))
    lines.append(Line(tail))
    return lines


def heat_map(
    spans: Sequence[Sequence[int]], width: int, height: int, glyphs: Glyphs, slo_s: float
) -> list[Line]:
    """Latency over time: a line per bucket, a cell per span of time, darker the more calls; the newest last.

    At the end of a line are its number of calls, and the share of everything up to its bound. Where there are
    fewer lines than buckets, the neighbours that hold least are merged. None is left out.
    """
    rows = [list(cells) for cells in zip(*spans, strict=True)]
    bounds = [*BUCKETS_S, float("inf")]
    while len(rows) > max(2, height):
        # The bound at the objective goes last.
        n = min(range(len(rows) - 1), key=lambda n: (bounds[n] == slo_s, sum(rows[n]) + sum(rows[n + 1])))
        rows[n : n + 2] = [[one + other for one, other in zip(rows[n], rows[n + 1], strict=True)]]
        bounds.pop(n)
    total = sum(map(sum, rows)) or 1
    top = max(map(max, rows)) or 1
    room = heat_columns(width)
    lines = []
    below = 0
    for n, (cells, bound) in enumerate(zip(rows, bounds, strict=True)):
        count = sum(cells)
        below += count
        floor = bounds[n - 1] if n else 0.0
        name = f"<{_bound(bound)}" if bound != float("inf") else f">{_bound(floor)}"
        tone = "bad" if floor >= slo_s else "warn" if floor >= 0.2 else "ok"
        drawn = "".join(glyphs.heat(cell / top) for cell in cells)
        lines.append(
            Line(
                [
                    (f"{name:>7} ", "dim"),
                    (f"{drawn:>{room}}", tone),
                    (f"{count:>6}", "text" if count else "dim"),
                    (f"{below / total:>6.0%}", "dim"),
                ]
            )
        )
    return lines


def heat_columns(width: int) -> int:
    """How many cells of time a heat map of this width has."""
    return max(4, width - 21)


def _bound(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.0f}s"


def percentiles(
    times: dict[Phase, list[float]], totals: list[float], width: int, glyphs: Glyphs
) -> list[Line]:
    """p50, p95 and p99 of each phase and of the total, with a bar as long as the p95."""
    lines = [Line([(f"{'':>9}{'p50':>7}{'p95':>8}{'p99':>8}", "dim")])]
    room = max(4, width - 35)
    every = [percentile(times[phase], 0.95) or 0.0 for phase in Phase]
    all_p95 = percentile(totals, 0.95) or 0.0
    top = max([*every, all_p95]) or 1.0
    for phase, p95 in zip(Phase, every, strict=True):
        values = times[phase]
        length = max(1, round(p95 / top * room)) if values else 0
        lines.append(
            Line(
                [
                    (f"{phase!s:>8} ", str(phase) if values else "dim"),
                    (_three(values), "text" if values else "dim"),
                    (glyphs.bars[phase] * length, f"bar-{phase}"),
                ]
            )
        )
    length = max(1, round(all_p95 / top * room)) if totals else 0
    lines.append(
        Line([("   total ", "strong"), (_three(totals), "strong"), (glyphs["line"] * length, "strong")])
    )
    return lines


def _three(ordered: list[float]) -> str:
    p50, p95, p99 = (duration(percentile(ordered, share)) for share in (0.5, 0.95, 0.99))
    return f"{p50:>7}{p95:>8}{p99:>8}   "


def address_map(
    addresses: Sequence[AddressRow], width: int, height: int, glyphs: Glyphs, chosen: str | None = None
) -> list[Line]:
    """A glyph per address, in rows, and below them what the glyphs mean."""
    rows = max(1, height - 1)
    gap = " " if len(addresses) * 2 <= (width - 1) * rows else ""
    per_row = max(1, (width - 1) // (1 + len(gap)))
    lines: list[Line] = []
    for start in range(0, min(len(addresses), per_row * rows), per_row):
        spans: Spans = [(" ", "text")]
        for address in addresses[start : start + per_row]:
            glyph, tone = glyphs.state(address.state)[0][0], glyphs.state(address.state)[1]
            spans.append((glyph, "on" if address.ip == chosen else tone))
            spans.append((gap, "text"))
        lines.append(Line(spans))
    if len(addresses) > per_row * rows:
        lines[-1] = Line([(f" {glyphs['more']} and {len(addresses) - per_row * (rows - 1)} more", "dim")])
    return [*lines, Line(legend(addresses, glyphs))]


def host_spans(host: HostLoad | None) -> Spans:
    """Processors, memory, and the disk of the state folder, as far as the host counts them."""
    if host is None:
        return [("  -", "dim")]
    spans: Spans = []
    if host.cpu is not None:
        spans += [("  cpu ", "dim"), (f"{host.cpu:.0%}", "warn" if host.cpu >= 0.9 else "strong")]
        spans.append((f" of {host.cpus}", "dim"))
    if host.load is not None:
        spans += [("  load ", "dim"), (f"{host.load:.1f}", "strong")]
    if host.memory_bytes and host.memory_used_bytes is not None:
        full = host.memory_used_bytes >= 0.9 * host.memory_bytes
        spans += [("  memory ", "dim"), (size(host.memory_used_bytes), "warn" if full else "strong")]
        spans.append((f" of {size(host.memory_bytes)}", "dim"))
    if host.disk_bytes and host.disk_free_bytes is not None:
        full = host.disk_free_bytes <= 0.1 * host.disk_bytes
        spans += [
            ("  disk of the state folder ", "dim"),
            (size(host.disk_free_bytes), "warn" if full else "strong"),
        ]
        spans.append((f" free of {size(host.disk_bytes)}", "dim"))
    return spans


def pool_title(addresses: Sequence[AddressRow]) -> str:
    """The pool's name: its first and its last address."""
    return f"IP pool {addresses[0].ip} to .{addresses[-1].order[-1]}" if addresses else "IP pool"


def legend(addresses: Sequence[AddressRow], glyphs: Glyphs) -> Spans:
    """The glyph of each state, with how many addresses are in it."""
    counts: dict[str, int] = {}
    for address in addresses:
        counts[address.state] = counts.get(address.state, 0) + 1
    parts: list[Span] = []
    for state, word in ADDRESS_WORDS.items():
        if state == "setting" and not counts.get(state):
            continue
        glyph, tone = glyphs.state(state)[0][0], glyphs.state(state)[1]
        parts += [(f" {glyph}", tone), (f" {counts.get(state, 0)} {word} ", "dim")]
    return parts


def flowed(text: str, width: int, tone: str) -> list[Line]:
    """Prose, broken between words at `width`."""
    return [Line([(piece, tone)]) for piece in textwrap.wrap(text, max(8, width)) or [""]]


def wrapped(text: str, width: int, tone: str, indent: str = "") -> list[Line]:
    """Lines of text, such as a program's output, broken at `width` within words."""
    pieces = [
        piece
        for raw in text.splitlines()
        for piece in (chop_cells(raw.expandtabs(4), max(1, width - len(indent))) or [""])
    ]
    return [Line([(indent + piece, tone)]) for piece in pieces]
