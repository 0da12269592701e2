"""How commands print: tables for people, JSON for machines (`--json`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from skyisland.codec import encode
from skyisland.record.logs import printable, printable_lines

T = TypeVar("T")

as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


def print_json(value: object) -> None:
    """The fields of the API, indented; in JSON's own escapes what a terminal could take for an order."""
    text = msgspec.json.format(encode(value), indent=2).decode()
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def say(text: str, **style: Any) -> None:
    """A line or more, of which nothing reaches the terminal but visible characters."""
    click.secho(printable_lines(text), **style)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> None:
    """A table; `empty` stands for one without rows. Control characters of jails and callers are escaped."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(str("" if cell is None else cell))) for cell in row))
    Console().print(table if table.row_count else empty)


def print_list(
    values: Sequence[T],
    columns: Iterable[str],
    row: Callable[[T], Iterable[object]],
    empty: str,
    *,
    as_json: bool,
) -> None:
    """A table with a row for each value, or all of them in JSON."""
    if as_json:
        print_json(values)
    else:
        print_table(columns, map(row, values), empty)


def print_fields(value: object) -> None:
    """A table of names and values; those of inner objects are called `outer.inner`."""
    print_table(("", ""), _flat(msgspec.to_builtins(value)), "")


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
