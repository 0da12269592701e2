"""How commands print: tables for people, JSON for machines (`--json`).

A table in a pipe or file has one line for each row and nothing cut, for grep, awk and cut. On a terminal,
texts are folded within their column and ids never.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from skyisland.codec import encode
from skyisland.record.logs import printable, printable_lines

T = TypeVar("T")

NARROWEST = 16
"""Characters to which a column of texts is folded at most; a narrower terminal folds the lines itself."""
PAIRS = ("name", "value")
"""The columns of a table that is of names and values, and has no header."""

as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


def line_of_json(value: object) -> str:
    """In one line; in JSON's own escapes what a terminal could take for an order."""
    return _escaped(encode(value).decode())


def print_json(value: object) -> None:
    """The fields of the API, indented; in JSON's own escapes what a terminal could take for an order."""
    click.echo(_escaped(msgspec.json.format(encode(value), indent=2).decode()))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def say(text: str, **style: Any) -> None:
    """A line or more, of which nothing reaches the terminal but visible characters."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    click.secho(printable_lines(text), color=False if plain else None, **style)


def print_table(
    columns: Sequence[str], rows: Iterable[Iterable[object]], empty: str, *, texts: Collection[str] = ()
) -> None:
    """A table; of one without rows, `empty` is said on standard error. Control characters are escaped.

    `texts`: the columns of which a terminal that is too narrow folds the cells.
    """
    cells = [[printable(str("" if cell is None else cell)) for cell in row] for row in rows]
    if not cells:
        say(empty, err=True)
    elif sys.stdout.isatty():
        _print_folded(columns, cells, texts)
    else:
        _print_lines([list(columns), *cells] if columns != PAIRS else cells)


def _print_lines(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _print_folded(columns: Sequence[str], rows: list[list[str]], texts: Collection[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=columns != PAIRS)
    least = 0
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        natural = max(len(column), *map(len, cells))
        width = min(natural, NARROWEST) if column in texts else natural
        table.add_column(column, overflow="fold", no_wrap=column not in texts, min_width=width)
        least += width + 2
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    console.width = max(console.width, least)
    console.print(table, highlight=False)


def print_list(
    values: Sequence[T],
    columns: Sequence[str],
    row: Callable[[T], Iterable[object]],
    empty: str,
    *,
    as_json: bool,
    texts: Collection[str] = (),
) -> None:
    """A table with a row for each value, or all of them in JSON."""
    if as_json:
        print_json(values)
    else:
        print_table(columns, map(row, values), empty, texts=texts)


def print_fields(value: object) -> None:
    """A table of names and values; those of inner objects are called `outer.inner`."""
    print_table(PAIRS, _flat(msgspec.to_builtins(value)), "nothing is known", texts=PAIRS[1:])


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def size(count: float | None) -> str:
    """Bytes, in the unit that leaves up to four digits."""
    if count is None:
        return "-"
    for unit in ("B", "K", "M"):
        if count < 1024:
            return f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}G"


def span(seconds: float) -> str:
    """Seconds below two minutes, then `3h05m`, then `4d07h`."""
    if seconds < 120:
        return f"{seconds:.0f}s"
    minutes = int(seconds // 60)
    hours, days = minutes // 60, minutes // 1440
    return f"{days}d{hours % 24:02}h" if days else f"{hours}h{minutes % 60:02}m" if hours else f"{minutes}m"


def moment(at: float) -> str:
    """A time of day, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
