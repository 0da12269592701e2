"""`python -m bench`: measure side by side, print the table, keep the results."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from bench import figures, report
from bench.machine import machine
from bench.rows import Row
from bench.stand import Stand

SIDE_BY_SIDE = {
    "warm": figures.warm_call,
    "throughput": figures.throughput,
    "miss": figures.pool_miss,
    "arguments": figures.arguments,
}


def main() -> int:
    options = _options()
    console = Console()
    known = machine()
    console.print(report.headline(known), highlight=False)
    effort = figures.FULL if options.full else figures.QUICK
    rows: list[Row] = []
    kept: dict[str, Any] = {}
    with _folder(options.keep) as folder:
        stand = Stand(folder)
        if wanted := [name for name in SIDE_BY_SIDE if name in options.only]:
            with stand.island(), figures.field(stand) as field:
                for name in wanted:
                    console.print(f"measuring {name}, load average {os.getloadavg()[0]:.1f} …", style="dim")
                    found, samples = SIDE_BY_SIDE[name](field, effort)
                    rows += found
                    kept[name] = samples
    known["load_average_after"] = list(os.getloadavg())
    result = {
        "machine": known,
        "mode": "full" if options.full else "quick",
        "rows": msgspec.to_builtins(rows),
    }
    result["samples"] = kept
    console.print(report.table(rows))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="many samples and the long figures; about an hour"
    )
    parser.add_argument("--quick", action="store_true", help="few samples (the default)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*SIDE_BY_SIDE], default=[*SIDE_BY_SIDE])
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="work there and leave the compiled library for the next run",
    )
    parser.add_argument("--output", type=Path, default=report.LATEST, help="where the results go")
    return parser.parse_args()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where everything happens; open to the unprivileged users that jails are."""
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
