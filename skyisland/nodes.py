"""What an operator asks of other nodes of a fleet, and what they say: shapes, and the protocol of who asks.

A question is a request of the REST API, admitted by the node that the operator spoke to. `fleet.operators`
carries it, `api/nodes.py` puts and answers it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct


class Question(Struct, frozen=True, kw_only=True):
    """A request of an operator."""

    method: str
    url: str
    """Path and query, without `node`."""
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    who: str
    role: str
    address: str = ""
    """Whence the operator spoke to his node."""


class Told(Struct, frozen=True, kw_only=True):
    """The response of a node."""

    node: str
    status: int
    body: bytes
    media: str = "application/json"
    headers: list[tuple[str, str]] = []
    packed: bool = False
    """`body` is a zlib stream; only on its way."""


class Everybody(Struct, frozen=True, kw_only=True):
    """What all other nodes said."""

    told: list[Told]
    silent: list[str]
    """The nodes that did not answer in time."""


Answer = Callable[[Question, str], Awaitable[Told]]
"""Answers a question that an operator put to another node, which is named."""


class Nodes(Protocol):
    """The other nodes of a fleet, as an operator's node asks them."""

    node: str
    """This one's name."""

    async def ask(self, node: str, question: Question) -> Told:
        """Raises: NodeNotFound, NodeSilent."""
        ...

    async def ask_all(self, question: Question) -> Everybody: ...

    def answer_by(self, answer: Answer) -> None:
        """Answer questions of other nodes so."""
        ...
