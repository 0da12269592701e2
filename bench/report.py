"""What a run says, for the terminal and the README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.rows import Row

LATEST = Path(__file__).parent / "results" / "latest.json"


def headline(machine: Mapping[str, Any]) -> str:
    """The machine in a line."""
    load = " ".join(f"{value:.1f}" for value in machine["load_average"])
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    where = f"{machine['cpu']}, {machine['cores']} cores, {memory}, {machine['system']}"
    versions = f"Linux {machine['kernel']}, Python {machine['python']}, {machine['go']}"
    return f"{where}, {versions}; load average {load}"


def ratio_of(row: Row) -> str:
    if row.ratio is None:
        return ""
    spread = f" ({row.low:.2f} to {row.high:.2f})" if row.low is not None else ""
    return f"{row.ratio:.2f}{spread}"


def verdict(row: Row) -> str:
    if row.target and row.hit is None:
        return "not measured"
    return {None: "", True: "hit", False: "miss"}[row.hit]


def table(rows: Iterable[Row]) -> Table:
    """For the terminal."""
    shown = Table(title="Sky Island beside its peers")
    for name in ("#", "what", "island", "peer", "ratio (rounds)", "target", "verdict", "note"):
        shown.add_column(name, justify="right" if name in ("island", "ratio (rounds)") else "left")
    for row in rows:
        peer = f"{row.peer} {row.peer_name}".strip()
        style = {None: "", True: "green", False: "red"}[row.hit]
        shown.add_row(
            row.figure,
            row.what,
            row.ours,
            peer,
            ratio_of(row),
            row.target,
            f"[{style}]{verdict(row)}[/]" if style else verdict(row),
            row.note,
        )
    return shown
