"""How commands print what all nodes of a fleet answer (`--node all`): the same tables, with the node's name.

Who did not answer is named on standard error: never fewer rows without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from skyisland import operations as op
from skyisland.cli import GlobalOptions
from skyisland.cli.printing import print_json, print_table, say
from skyisland.operations import Operation
from skyisland.operations.gathered import ALL, Gathered
from skyisland.status import AddressInfo, AddressState

T = TypeVar("T")


def nodes_rows(
    options: GlobalOptions,
    operation: Operation[list[T]],
    columns: tuple[str, ...],
    row: Callable[[T], tuple[object, ...]],
    *,
    as_json: bool,
    texts: tuple[str, ...] = (),
    **parameters: object,
) -> bool:
    """Print the lists of all nodes; False where one node is meant."""
    return nodes_answers(
        options, operation, columns, lambda rows: map(row, rows), as_json=as_json, texts=texts, **parameters
    )


def nodes_answers(
    options: GlobalOptions,
    operation: Operation[T],
    columns: tuple[str, ...],
    rows: Callable[[T], Iterable[tuple[object, ...]]],
    *,
    as_json: bool,
    texts: tuple[str, ...] = (),
    **parameters: object,
) -> bool:
    """Print what all nodes answer, as rows; False where one node is meant."""
    if options.node != ALL:
        return False
    with options.at("").client() as client:
        found = client.everywhere(operation, **parameters)
    every = [(node, *row) for node, answer in found.answers.items() for row in rows(answer)]
    _print(found, columns, every, as_json=as_json, texts=texts)
    return True


def nodes_addresses(
    options: GlobalOptions,
    columns: tuple[str, ...],
    rows: Callable[[list[AddressInfo]], Iterable[tuple[object, ...]]],
    state: AddressState | None,
    *,
    as_json: bool,
) -> bool:
    """Print the addresses of all nodes; False where one node is meant."""
    if options.node != ALL:
        return False
    with options.at("").client() as client:
        if as_json:
            _print(client.everywhere(op.ADDRESSES, state=state), columns, (), as_json=True)
            return True
        found = client.everywhere(op.SNAPSHOT)
    every = [(node, *row) for node, island in found.answers.items() for row in rows(island.addresses)]
    _print(found, columns, every, as_json=False)
    return True


def _print(
    found: Gathered[Any],
    columns: tuple[str, ...],
    rows: Iterable[tuple[object, ...]],
    *,
    as_json: bool,
    texts: tuple[str, ...] = (),
) -> None:
    if as_json:
        print_json(found.whole)
    else:
        print_table(("NODE", *columns), rows, "no node has any", texts=texts)
    for node in found.silent:
        say(f"{node} did not answer", err=True)
    for node, problem in found.refused.items():
        say(f"{node}: {problem.error}", err=True)
