"""What the console needs of an island, wherever that runs.

`InProcessPort` and `RemotePort` are the two ways to it; the console knows neither. A port gives structs of
`skyisland`. It fails with an `IslandError` (the island refused; `Unauthorized` where the token is missing or
wrong) or with `LinkLost` (nobody answered).
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from skyisland.codec import encode
from skyisland.errors import IslandError
from skyisland.events import Event
from skyisland.figures import Window
from skyisland.golang.catalogue import Catalogue
from skyisland.later.calls import CallState, Record
from skyisland.model import FunctionRequest, NamedCall
from skyisland.named.definition import Definition, Revision
from skyisland.named.functions import Named
from skyisland.operations import CALL, INVOKE
from skyisland.record.lines import LogLine
from skyisland.status import AddressState, Written
from skyisland.wire import Called, FunctionPage, Snapshot


class LinkLost(Exception):
    """The island is out of reach; the text says why, in words for an operator."""


class Others(Struct, frozen=True):
    """What the other islands of a fleet say."""

    islands: dict[str, Snapshot]
    """By the names of their nodes."""
    silent: list[str]
    """The nodes that said nothing in time."""


class Port(Protocol):
    """An island, as an operator reaches it."""

    where: str
    """For the header: host and port."""
    attached: bool
    """The island is another process; quitting the console does not end it."""

    async def snapshot(self) -> Snapshot: ...

    async def others(self) -> Others:
        """The same of the other islands of the fleet."""
        ...

    def events(self) -> AsyncIterator[list[Event]]:
        """Facts in order, in bunches some tenths of a second apart, without those that others of their bunch
        include; a `Pulse` every 2 s. An empty bunch says "still here"."""
        ...

    async def logs(self, after: int = 0) -> list[LogLine]:
        """Lines with a `seq` above `after`, oldest first; a few thousand at most."""
        ...

    def output(self, jail: str) -> AsyncIterator[Written]:
        """What a jail writes, as it comes, to its end; by its name, or the id of its call."""
        ...

    async def kill(self, jail: str, node: str = "") -> None:
        """End a jail; `node`: of the fleet, if it is not of this island."""
        ...

    async def kill_all(self) -> int:
        """End every jail; returns how many there were."""
        ...

    async def set_address(self, ip: str, state: AddressState, node: str = "") -> None: ...

    async def evict(self, key: str) -> None: ...

    async def rebuild(self, key: str) -> None: ...

    async def purge(self) -> int:
        """Evict every binary that no call is using; returns how many there were."""
        ...

    async def invoke(self, request: FunctionRequest) -> Called: ...

    async def functions(self, url: str, version: str | None = None) -> Catalogue:
        """What the package at `url` offers."""
        ...

    async def function(self, function: str, window: Window = Window.five_minutes) -> FunctionPage:
        """One function that was called, by its id."""
        ...

    async def names(self) -> list[Named]:
        """The functions that have a name."""
        ...

    async def revisions(self, name: str) -> list[Revision]:
        """What a name stood for, latest first."""
        ...

    async def call(self, name: str, asked: NamedCall) -> Called: ...

    async def define(self, name: str, definition: Definition, revision: int | None = None) -> None:
        """Have a name stand for this, once it is built. `revision`: the one that it must be at, 0 for new."""
        ...

    async def move(self, name: str, version: str | None = None) -> None:
        """Move a name to a version, or to where its own points now, once that is built."""
        ...

    async def roll_back(self, name: str, to: int | None = None) -> None:
        """Have a name stand for what an earlier revision stood for; without `to`, the latest other one."""
        ...

    async def pause(self, name: str) -> None: ...

    async def resume(self, name: str) -> None: ...

    async def forget(self, name: str) -> None:
        """Forget a name and its history."""

    async def calls(self) -> list[Record]:
        """Calls that answer later, the newest, without their results."""
        ...

    async def kept(self, kept: str) -> Record:
        """One of them, with its result if it is over."""
        ...

    async def cancel(self, kept: str) -> None: ...

    async def redrive(self, kept: str) -> None:
        """Run a dead or cancelled one again, or send the callback of one that is done."""
        ...

    async def forget_calls(self, state: CallState | None = None) -> int:
        """Forget those that are over, or are in this state; returns how many there were."""
        ...

    async def forget_call(self, kept: str) -> None:
        """Forget one that is over."""

    def curl(self, request: FunctionRequest | NamedCall, name: str = "") -> str:
        """The same call as a line for a shell, `name` for one of a name; it needs no token where functions
        are open to all."""
        ...

    def authorize(self, token: str) -> None:
        """Use this token from now on."""
        ...

    async def close(self) -> None: ...


def curl_line(base: str, request: FunctionRequest | NamedCall, name: str = "") -> str:
    """The call as a command line, quoted for sh. Other characters than ASCII are escaped: some would show the
    operator another line than the one that the shell runs."""
    # The arguments stand as they were sent: read and written again, a number might be another one. Line ends
    # can only stand between parts of JSON, and need not.
    text = encode(request).decode().translate({9: " ", 10: " ", 13: " "})
    body = "".join(c if " " <= c <= "~" else _escaped(c) for c in text)
    way = shlex.quote(base)
    if base.startswith("unix:"):
        way = f"--unix-socket {shlex.quote(base.removeprefix('unix:'))} http://localhost"
    path = CALL.url(name=name) if name else INVOKE.path
    return f"curl -sS {way}{path} -d {shlex.quote(body)}"


def _escaped(character: str) -> str:
    """As JSON escapes it: one or two units of UTF-16."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


__all__ = ["Called", "IslandError", "LinkLost", "LogLine", "Port", "Snapshot", "curl_line"]
