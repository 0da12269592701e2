"""The results of a run: a table for the terminal, blocks in the pages, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table

from bench import pictures
from bench.rows import Row

ROOT = Path(__file__).parent.parent
LATEST = ROOT / "bench" / "results" / "latest.json"
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
CHOSEN = ("1a", "1d", "2a", "4", "6e")
"""The figures that the README shows."""
MARK = "<!-- bench -->"
HEAD = ("| # | what | island | peer | ratio | target | |", "| --- | --- | ---: | ---: | ---: | ---: | --- |")
SOAK = {
    "rss_bytes": "RSS",
    "fds": "descriptors",
    "processes": "processes",
    "mounts": "mounts",
    "cgroups": "cgroups",
    "files": "temporary files",
    "p50_ms": "p50 ms",
}


def headline(machine: Mapping[str, Any]) -> str:
    """The machine and its load average, on one line."""
    load = " ".join(f"{value:.1f}" for value in machine["load_average"])
    return f"{host(machine)}; load average {load}"


def host(machine: Mapping[str, Any]) -> str:
    """The description of a machine. Only results with the same one are comparable."""
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    where = f"{machine['cpu']}, {machine['cores']} cores, {memory}, {machine['system']}"
    versions = f"Linux {machine['kernel']}, Python {machine['python']}, {machine['go']}"
    return f"{where}, {versions}"


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
    for name in ("#", "what", "island", "peer", "ratio (rounds)", "target", "verdict"):
        shown.add_column(name, justify="right" if name in ("island", "ratio (rounds)") else "left")
    for row in rows:
        what = escape(row.what) + (f"\n[dim]{escape(row.note)}[/]" if row.note else "")
        style = {None: "default", True: "green", False: "red"}[row.hit]
        peer = f"{row.peer} {row.peer_name}".strip()
        shown.add_row(
            row.figure, what, row.ours, peer, ratio_of(row), row.target, f"[{style}]{verdict(row)}[/]"
        )
    return shown


def markdown(result: Mapping[str, Any]) -> str:
    """The block of the page."""
    machine, rows = result["machine"], msgspec.convert(result["rows"], list[Row])
    lines = [
        f"Measured {machine['at'][:10]} by `python -m bench --{result['mode']}` on {headline(machine)}.",
        f"Every ratio is of one run (the table: of {result['runs']}), within its rounds, all in turns: "
        "the median, least and greatest.",
        tally(rows),
        *([stolen(result["stolen"])] if result["stolen"] else []),
        "",
    ]
    return "\n".join([*lines, *HEAD, *map(_line, rows)])


def chosen(result: Mapping[str, Any]) -> str:
    """The block of the README."""
    rows = msgspec.convert(result["rows"], list[Row])
    return "\n".join([*HEAD, *(_line(row) for row in rows if row.figure in CHOSEN)])


def _line(row: Row) -> str:
    what = row.what + (f" ({row.note})" if row.note else "")
    peer = f"{row.peer} {row.peer_name}".strip()
    cells = (row.figure, what, row.ours, peer, ratio_of(row), row.target, verdict(row))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def tally(rows: Sequence[Row]) -> str:
    missed = [row.figure for row in rows if row.hit is False]
    targets = sum(row.hit is not None for row in rows)
    return f"Of {targets} targets {targets - len(missed)} are hit; missed: {', '.join(missed) or 'none'}."


def stolen(shares: Mapping[str, float]) -> str:
    """CPU steal by figure: the larger it is, the more of a time is chance."""
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"CPU steal during each figure, of the time that this machine wanted: {listed}."


def draw(result: Mapping[str, Any]) -> list[Path]:
    """Draw the pictures that the run has samples for; return the files."""
    samples, drawn = result["samples"], {}
    if "warm" in samples:
        title = "One call of the same Go binary, p50"
        drawn["bench.svg"] = pictures.bars(title, pictures.call_times(samples))
    if "soak" in samples:
        title = f"{samples['soak']['calls']} calls at {samples['soak']['rate']:g}/s"
        drawn["soak.svg"] = pictures.lines(title, samples["soak"]["samples"], SOAK)
    (ROOT / "docs").mkdir(exist_ok=True)
    for name, picture in drawn.items():
        (ROOT / "docs" / name).write_text(picture)
    return [ROOT / "docs" / name for name in drawn]


def into_pages(result: Mapping[str, Any]) -> None:
    """Write the blocks between the two marks of each page."""
    for page, block in ((PAGE, markdown(result)), (README, chosen(result))):
        before, _, after = page.read_text().split(MARK)
        page.write_text(f"{before}{MARK}\n{block}\n{MARK}{after}")
