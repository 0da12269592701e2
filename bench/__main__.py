"""`python -m bench`: measures the island beside its peers, prints the table and stores the results."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from bench import figures, report
from bench.console import cost
from bench.counts import counts
from bench.figures import Field, Measured
from bench.firstcall import first_call
from bench.fleet import fleet
from bench.growth import growth
from bench.later import SETTINGS, later
from bench.machine import Processors, machine
from bench.names import names
from bench.soak import soak
from bench.stand import Stand

console = Console()
if not console.is_terminal:
    console = Console(width=130)


def side_by_side(full: bool) -> dict[str, Callable[[Field], Measured]]:
    """The figures that need one island and all its peers."""
    effort = figures.FULL if full else figures.QUICK
    return {
        "warm": lambda field: figures.warm_call(field, effort),
        "throughput": lambda field: figures.throughput(field, effort),
        "miss": lambda field: figures.pool_miss(field, effort),
        "first": lambda field: first_call(field, 11 if full else 5),
        "arguments": lambda field: figures.arguments(field, effort),
        "inputs": lambda field: figures.inputs(field, effort),
        "names": lambda field: names(field, effort),
    }


def alone(full: bool) -> dict[str, Callable[[Stand], Measured]]:
    """The figures that need an island of their own."""

    def counted(stand: Stand) -> Measured:
        with stand.island():
            return counts(stand, 200 if full else 50)

    def soaked(stand: Stand) -> Measured:
        with stand.island():
            return soak(stand, 100_000, 150) if full else soak(stand, 5_000, 50)

    def kept(stand: Stand) -> Measured:
        for suffix in ("", "-wal", "-shm"):  # what an earlier run left would be run first
            Path(f"{stand.state}/calls.db{suffix}").unlink(missing_ok=True)
        with stand.island(**SETTINGS):
            return later(stand, 10.0 if full else 3.0, 500 if full else 100)

    functions, jails = ([1, 10, 100, 1000], [10, 100, 500]) if full else ([1, 10, 30], [10, 100])
    return {
        "growth": lambda stand: growth(stand, functions, jails, 100 if full else 50, 5 if full else 3),
        "counts": counted,
        "soak": soaked,
        "later": kept,
        "fleet": lambda stand: fleet(stand, 500 if full else 100, 10.0 if full else 3.0),
    }


def main() -> int:
    options = _options()
    if options.page:
        return _to_page(options.output)
    names, full = options.only, options.full
    host = machine()
    console.print(report.headline(host), highlight=False)
    result = _begin(options, host)

    def measure(name: str, figure: Callable[[], Measured]) -> None:
        console.print(f"measuring {name}, load average {os.getloadavg()[0]:.1f} …", style="dim")
        processors = Processors()
        rows, samples = figure()
        result["stolen"][name] = round(processors.stolen(), 3)
        measured = {row.figure for row in rows}
        result["rows"] = [row for row in result["rows"] if row["figure"] not in measured]
        result["rows"] += msgspec.to_builtins(rows)
        result["samples"][name] = samples
        console.print(report.table(rows))
        _store(options.output, result)

    with _folder(options.keep) as folder:
        stand = Stand(folder)
        beside = {name: figure for name, figure in side_by_side(full).items() if name in names}
        if beside:
            with stand.island(), figures.field(stand) as field:
                for name, figure in beside.items():
                    measure(name, partial(figure, field))
        for name, single in alone(full).items():
            if name in names:
                measure(name, partial(single, stand))
    if "console" in names:
        measure("console", lambda: cost(12 if full else 4, 6.0))
    host["load_average_after"] = list(os.getloadavg())
    result["rows"].sort(key=lambda row: row["figure"])
    _store(options.output, result)
    return 0


def _begin(options: argparse.Namespace, host: dict[str, Any]) -> dict[str, Any]:
    """New results. With `--only`, they keep the earlier ones of the same mode and machine beside the new."""
    mode = "full" if options.full else "quick"
    if options.only != options.names and options.output.exists():
        earlier: dict[str, Any] = json.loads(options.output.read_text())
        if earlier["mode"] == mode and report.host(earlier["machine"]) == report.host(host):
            return {**earlier, "machine": host, "runs": earlier["runs"] + 1}
    return {"machine": host, "mode": mode, "runs": 1, "stolen": {}, "rows": [], "samples": {}}


def _store(output: Path, result: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _to_page(results: Path) -> int:
    """Write the stored results into the pages, and their pictures beside them."""
    if not results.exists():
        raise SystemExit(f"there are no results at {results}; run `python -m bench` first")
    result = json.loads(results.read_text())
    for path in report.draw(result):
        console.print(f"drawn: {path}", highlight=False)
    report.into_pages(result)
    return 0


def _options() -> argparse.Namespace:
    names = [*side_by_side(False), *alone(False), "console"]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="few samples; ten minutes (the default)")
    effort.add_argument(
        "--full", action="store_true", help="many samples, a hundred thousand calls; more than half an hour"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=names, default=names, help=", ".join(names)
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in it, and reuse its state")
    parser.add_argument("--output", type=Path, default=report.LATEST, help="the file for the results")
    parser.add_argument("--page", action="store_true", help="do not measure: write the results to the pages")
    parser.set_defaults(names=names)
    return parser.parse_args()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The work folder; readable for the unprivileged users that jails run as."""
    folder = keep or Path(tempfile.mkdtemp(prefix="sky-bench-", dir="/var/tmp"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    try:
        yield folder.resolve()
    finally:
        if keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
