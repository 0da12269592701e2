"""What all nodes of a fleet answer to one question (`?node=all`), read."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

from msgspec import Raw, Struct

from skyisland.codec import read
from skyisland.operations.operation import Operation
from skyisland.wire import Problem

T = TypeVar("T")
ALL = "all"
"""In the place of a node's name."""


class Gathered(Struct, Generic[T], frozen=True, kw_only=True):
    """The answers of all nodes."""

    answers: dict[str, T]
    """By node; of lists, those that have a row."""
    silent: list[str]
    """The nodes that did not answer in time."""
    refused: dict[str, Problem]
    """Why a node could not answer."""
    whole: Raw
    """The body, as it came."""


class _Body(Struct):
    silent: list[str]
    refused: dict[str, Problem] = {}
    nodes: dict[str, Raw] = {}


class _Row(Struct, rename={"node": "from"}):
    node: str
    """Whose row it is; `node` of a call that is over is the one that ran it."""


def read_all(operation: Operation[T], status: int, content: bytes) -> Gathered[T]:
    """What a response holds.

    Raises:
        IslandError: the island refused.
        NotAnIsland: somebody else answered.
    """
    body = read(status, content, _Body)
    answers: dict[str, Any] = {}
    if operation.rows:
        (shape,) = get_args(operation.answer)
        for row in map(bytes, read(status, content, list[Raw], operation.field)):
            answers.setdefault(read(status, row, _Row).node, []).append(read(status, row, shape))
    else:
        for node, answer in body.nodes.items():
            answers[node] = read(status, bytes(answer), operation.answer, operation.field)
    return Gathered(answers=answers, silent=body.silent, refused=body.refused, whole=Raw(content))
