"""Small pictures in SVG, written by hand: bars of times and of shares, lines over time, curves over a figure.

They have a background of their own, so they can be read on a dark page and on a light one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

INK, FAINT, PAPER, OURS, PEER = "#1d2733", "#8a97a6", "#ffffff", "#0b7285", "#b8c4cf"
CURVES = ("#c92a2a", "#0b7285", "#e0af4c", "#2f9e44", "#7048e8")
FONT = 'font-family="ui-monospace, Menlo, Consolas, monospace"'


def bars(title: str, rows: Sequence[tuple[str, float, bool]]) -> str:
    """Horizontal bars. A row is a name, milliseconds, and whether it is the island."""
    widest = max(time for _, time, _ in rows)
    parts = []
    for number, (name, time, ours) in enumerate(rows):
        y = 44 + 26 * number
        width = max(2.0, 350 * time / widest)
        parts += [
            _text(250, y + 13, name, anchor="end"),
            f'<rect x="258" y="{y}" width="{width:.1f}" height="17" rx="2" fill="{OURS if ours else PEER}"/>',
            _text(264 + width, y + 13, f"{time:.1f} ms", fill=INK if ours else FAINT),
        ]
    return _picture(700, 56 + 26 * len(rows), title, parts)


def lines(title: str, samples: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> str:
    """One line over time for each field of the samples: its name on the left, its range on the right."""
    parts = []
    end = samples[-1]["at_s"]
    for number, (field, name) in enumerate(names.items()):
        values = [sample[field] for sample in samples]
        y, top = 44 + 46 * number, max(values) or 1.0
        points = " ".join(
            f"{170 + 420 * sample['at_s'] / end:.1f},{y + 32 - 30 * sample[field] / top:.1f}"
            for sample in samples
        )
        parts += [
            _text(160, y + 22, name, anchor="end"),
            f'<path d="M170 {y + 32}H590" stroke="{PEER}" stroke-width="1"/>',
            f'<polyline points="{points}" fill="none" stroke="{OURS}" stroke-width="1.6"/>',
            _text(600, y + 22, f"{_short(min(values))} to {_short(top)}", fill=FAINT),
        ]
    return _picture(760, 56 + 46 * len(names), title, parts)


def shares(
    title: str, rows: Sequence[tuple[str, Sequence[tuple[float, str]]]], legend: Sequence[tuple[str, str]]
) -> str:
    """Bars of one length, divided. A row is a name, and its parts of the whole with their colours."""
    parts = []
    for number, (name, row) in enumerate(rows):
        x, y = 200.0, 44 + 26 * number
        parts.append(_text(190, y + 13, name, anchor="end"))
        for share, colour in row:
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{520 * share:.1f}" height="17" fill="{colour}"/>')
            x += 520 * share
    y = 64 + 26 * len(rows)
    parts += _legend(legend, y)
    return _picture(740, y + 16, title, parts)


def curves(
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """A curve for each name, of points (x, y); both axes begin and end with the least and the greatest."""
    xs = sorted({x for curve in curves.values() for x, _ in curve})
    ys = sorted({y for curve in curves.values() for _, y in curve})
    across, up = _scale(xs[0], xs[-1], 80, 700, log_x), _scale(ys[0], ys[-1], 270, 50, log_y)
    parts = [f'<path d="M80 50V270H700" stroke="{PEER}" fill="none"/>']
    ticks = [tick for tick in _ticks(ys[0], ys[-1], log_y) if ys[0] <= tick <= ys[-1]]
    parts += [_text(72, up(tick) + 4, f"{tick:,.4g}", anchor="end", fill=FAINT) for tick in ticks]
    parts += [f'<path d="M80 {up(tick):.1f}H700" stroke="{PEER}" stroke-width="0.5"/>' for tick in ticks]
    parts += [_text(across(x), 288, f"{x:,.4g}", anchor="middle", fill=FAINT) for x in xs]
    legend = []
    for (name, curve), colour in zip(curves.items(), CURVES, strict=False):
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        legend.append((name, colour))
    parts += _legend(legend, 310)
    return _picture(740, 330, title, parts)


def _scale(least: float, most: float, start: float, end: float, log: bool) -> Callable[[float], float]:
    def place(value: float) -> float:
        if log:
            return start + (end - start) * math.log(value / least) / math.log(most / least)
        return start + (end - start) * (value - least) / (most - least)

    return place


def _ticks(least: float, most: float, log: bool) -> list[float]:
    if log:
        return [
            10.0**power for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
        ]
    return [least + (most - least) * part / 4 for part in range(5)]


def _legend(names: Sequence[tuple[str, str]], y: float) -> list[str]:
    parts, x = [], 24.0
    for name, colour in names:
        parts += [
            f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{colour}"/>',
            _text(x + 18, y, name),
        ]
        x += 34 + 7.4 * len(name)
    return parts


def call_times(samples: Mapping[str, Any]) -> list[tuple[str, float, bool]]:
    """The rows of `bars`: the p50 of the island and its peers, fastest first."""
    paced, miss = samples["warm"]["paced"], samples.get("miss", {})
    known = {
        "posix_spawn, no isolation": (paced.get("bare"), False),
        "island, warm (REST)": (paced.get("island"), True),
        "fork server (HTTP, no isolation)": (paced.get("forkserver"), False),
        "island, cold (REST)": (miss.get("island"), True),
        "bwrap by hand": (miss.get("bwrap"), False),
        "runc run": (paced.get("runc"), False),
    }
    rows = [(name, times["p50_ms"], ours) for name, (times, ours) in known.items() if times]
    return sorted(rows, key=lambda row: row[1])


def _short(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value:.4g}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = INK) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} font-size="12" fill="{fill}">{escape(text)}</text>'


def _picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {FONT}>'
    paper = f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}"/>'
    label = f'<text x="16" y="26" font-size="13" font-weight="600" fill="{INK}">{escape(title)}</text>'
    return "\n".join([head, f"<title>{escape(title)}</title>", paper, label, *parts, "</svg>"]) + "\n"
