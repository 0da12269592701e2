"""What an operation is: a method on a path, who may ask for it, what it takes and what it answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar, get_args, get_origin
from urllib.parse import quote, urlencode

from msgspec import Struct

from skyisland.codec import encode, read

T = TypeVar("T")

JSON = "application/json"
LINES = "application/x-ndjson"
"""The answers of many inputs as they come."""
EVENT_STREAM = "text/event-stream"
"""What happens, as it happens: server-sent events."""


class Role(StrEnum):
    """Whose token an operation takes."""

    admin = "admin"
    operator = "operator"
    """Sees what an admin sees, and changes nothing."""
    caller = "caller"
    """Calls functions."""


class Parameter(Struct, frozen=True, kw_only=True):
    """A parameter of the query, which may be left out where it is not `required`."""

    name: str
    meaning: str
    default: str | int | bool | None = None
    """What counts without it; its type is the parameter's: None and str stand for text."""
    most: int | None = None
    """The largest number; the smallest is 0."""
    among: tuple[str, ...] = ()
    """The only texts."""
    required: bool = False
    """It may not be left out."""


class Operation(Struct, Generic[T], frozen=True, kw_only=True):
    """A method on a path; T is what a good answer holds."""

    name: str
    """In Python: of the client's method, and of the route."""
    method: str
    path: str
    """`{jail}` and `{key}` stand for a text without slashes."""
    aliases: tuple[str, ...] = ()
    """Other paths for the same, mostly the original's."""
    summary: str
    role: Role | None = None
    """None where it is open to all. An admin may do all that an operator may."""
    query: tuple[Parameter, ...] = ()
    body: type[Struct] | None = None
    answer: type[T]
    field: str = ""
    """The field of the answer's object that holds it; empty where the answer itself is it."""
    media: str = JSON
    tag: str = ""
    """The field of the answer that is its ETag: with `If-Match`, a change is made to that one only."""

    @property
    def paths(self) -> tuple[str, ...]:
        return self.path, *self.aliases

    @property
    def takes_node(self) -> bool:
        """Whether another node of the fleet can be asked."""
        return any(parameter.name == "node" for parameter in self.query)

    @property
    def rows(self) -> bool:
        """Whether it answers a list of objects, to which those of other nodes can be added."""
        (row, *_) = get_args(self.answer) or (None,)
        return get_origin(self.answer) is list and isinstance(row, type) and issubclass(row, Struct)

    def url(self, **parameters: object) -> str:
        """Path and query with these parameters; None leaves one of the query out."""
        path, query = self.path, {}
        for name, value in parameters.items():
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
            elif value is not None:
                query[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return f"{path}?{urlencode(query)}" if query else path

    def write(self, value: T) -> bytes:
        """The body of a good answer."""
        return encode({self.field: value} if self.field else value)

    def read(self, status: int, content: bytes) -> T:
        """What an answer holds.

        Raises:
            IslandError: the island refused.
            NotAnIsland: somebody else answered.
        """
        return read(status, content, self.answer, self.field)
