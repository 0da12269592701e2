"""Two small pictures in SVG, written by hand: bars of call times, and lines of the soak.

They have a background of their own, so they can be read on a dark page and on a light one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

INK, FAINT, PAPER, OURS, PEER = "#1d2733", "#8a97a6", "#ffffff", "#0b7285", "#b8c4cf"
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
