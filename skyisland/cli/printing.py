"""How commands print: tables for people, JSON for machines (`--json`).

A table has one line for each row and nothing cut, for grep, awk and cut. On a terminal that is too narrow for
that, the long texts of a row stand below it, so that no id is ever split.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from textwrap import wrap
from typing import Any, TypeVar

import click
import msgspec

from skyisland.codec import encode
from skyisland.record.lines import printable, printable_lines

T = TypeVar("T")

MARGIN = "    "
"""Before texts that stand below their row."""
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


def say(text: str, *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """A line or more, of which nothing reaches the terminal but visible characters.

    `err`: on standard error. `style`: of `click.style`; colours need a terminal that wants them.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    text = printable_lines(text)
    if any(style.values()):
        text = click.style(text, **style)
    click.echo(text, err=err, nl=nl, color=False if plain else None)


def print_table(
    columns: Sequence[str], rows: Iterable[Iterable[object]], empty: str, *, texts: Collection[str] = ()
) -> None:
    """A table; of one without rows, `empty` is said on standard error. Control characters are escaped.

    `texts`: the columns whose cells may be long. In others `-` stands for nothing, for who counts words.
    """
    blank = ["" if column in texts or columns == PAIRS else "-" for column in columns]
    cells = [
        [printable(str("" if cell is None else cell)) or none for cell, none in zip(row, blank, strict=True)]
        for row in rows
    ]
    if not cells:
        say(empty, err=True)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    width = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > width:
        _print_below(columns, cells, widths, texts, width)
        return
    if columns != PAIRS:
        say(_line(columns, widths), bold=True)
    for row in cells:
        say(_line(row, widths))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def folded(text: str, width: int, margin: str) -> list[str]:
    """The lines of a text that is too long for one, each after a margin."""
    return wrap(text, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)


def _print_below(
    columns: Sequence[str], rows: list[list[str]], widths: list[int], texts: Collection[str], width: int
) -> None:
    """A table with the `texts` of each row below it; if all are texts, the first is above the others."""
    long = [number for number, column in enumerate(columns) if column in texts]
    head = [number for number in range(len(columns)) if number not in long] or [long.pop(0)]
    if columns != PAIRS:
        say(_line([columns[number] for number in head], [widths[number] for number in head]), bold=True)
    for row in rows:
        say(_line([row[number] for number in head], [widths[number] for number in head]))
        for number in long:
            for line in folded(row[number], width, MARGIN):
                say(line)


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
    print_table(PAIRS, flat(value), "nothing is known", texts=PAIRS[1:])


def flat(value: object, prefix: str = "") -> list[tuple[str, object]]:
    """The rows of that table."""
    rows: list[tuple[str, object]] = []
    for name, field in msgspec.to_builtins(value).items():
        if isinstance(field, dict):
            rows += flat(field, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, field))
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
