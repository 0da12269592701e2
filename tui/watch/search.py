"""Finds views and rows by what an operator types: `jails`, `fn geohash`, `inv-3c71`, `10.61.0.4`, any word.

A text that begins with the name of a view is about that view: the name alone leads there, more words narrow
its rows. Any other text is looked for in all rows of all views; what is called so comes before what holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tui.watch.board import Board
from tui.watch.filter import Filter

MAX_HITS = 100


class Hit(NamedTuple):
    """A place to go to."""

    view: str
    key: str
    """Of the row; empty for the view itself."""
    kind: str
    """What it is, in a word: `view`, `request`."""
    text: str
    """What it is called."""
    filter: str = ""
    """The view is narrowed to the rows that match this."""


class Kind(NamedTuple):
    """Rows that can be found."""

    view: str
    word: str
    """One of them, in a word."""
    names: tuple[str, ...]
    """What the view is called; the beginning of a name will do."""
    rows: Callable[[Board], Iterable[Any]] = lambda board: ()
    text: Callable[[Any], str] = lambda row: row.key


KINDS = (
    Kind("overview", "view", ("overview",)),
    Kind("jails", "jail", ("jails",), lambda b: b.jails.values(), lambda j: f"{j.name}  {j.label}"),
    Kind(
        "ips",
        "address",
        ("ips", "addresses"),
        lambda b: b.ordered_addresses(),
        lambda a: f"{a.ip}  {a.word}",
    ),
    Kind(
        "cache",
        "binary",
        ("cache", "binaries"),
        lambda b: b.cache.values(),
        lambda c: f"{c.key[:12]}  {c.label}",
    ),
    Kind(
        "requests",
        "request",
        ("requests", "invocations"),
        lambda b: reversed(b.invocations.values()),
        lambda r: f"{r.id}  {r.label}  {r.verdict or r.phase}",
    ),
    Kind(
        "functions",
        "function",
        ("functions", "fns"),
        lambda b: b.functions.values(),
        lambda f: f"{f.label}",
    ),
    Kind(
        "names",
        "name",
        ("names",),
        lambda b: b.names.values(),
        lambda n: f"{n.name}  {n.function}",
    ),
    Kind(
        "calls",
        "call",
        ("calls", "later"),
        lambda b: b.calls.values(),
        lambda c: f"{c.id}  {c.label}  {c.word}",
    ),
    Kind("logs", "view", ("logs",)),
    Kind("host", "view", ("host",)),
)


def find(board: Board, text: str, now: float, most: int = MAX_HITS) -> list[Hit]:
    """The places that `text` means, the likeliest first."""
    hits: dict[tuple[str, str], Hit] = {}
    for hit in _found(board, text.strip(), now):
        hits.setdefault((hit.view, hit.key), hit)
        if len(hits) >= most:
            break
    return list(hits.values())


def _found(board: Board, text: str, now: float) -> Iterator[Hit]:
    name, _, rest = text.partition(" ")
    for kind in KINDS:
        if name and any(each.startswith(name.lower()) for each in kind.names):
            title = f"{kind.names[0]}  {rest}".rstrip()
            yield Hit(kind.view, "", "view", title, rest.strip())
            if rest.strip():
                yield from _among(board, kind, rest.strip(), now)
    if text and not rest:
        for kind in KINDS:
            yield from _named(board, kind, text)
    for kind in KINDS:
        if text:
            yield from _among(board, kind, text, now)


def _named(board: Board, kind: Kind, name: str) -> Iterator[Hit]:
    """Rows whose key begins so, whole or after the prefix that all share (`inv-`)."""
    for row in kind.rows(board):
        if row.key.startswith(name) or row.key.partition("-")[2].startswith(name):
            yield Hit(kind.view, row.key, kind.word, kind.text(row))


def _among(board: Board, kind: Kind, words: str, now: float) -> Iterator[Hit]:
    """Rows that match as for a filter, but are not named so."""
    matches = Filter(words)
    for row in kind.rows(board):
        if matches(row, now):
            yield Hit(kind.view, row.key, kind.word, kind.text(row))
