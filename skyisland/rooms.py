"""What the island asks of its rooms: of where code comes from, of builds, of addresses, of history.

The real rooms and the fakes (fakes.py) both are such; the jails are one class, whose drivers differ.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from skyisland.events import InvocationFinished
from skyisland.golang.catalogue import Catalogue
from skyisland.host.tasks import Progress, silent
from skyisland.jails.register import AddressPool
from skyisland.model import (
    Artifact,
    Call,
    FunctionRequest,
    Invocation,
    Limits,
    Outcome,
    Resolved,
    Source,
    Timings,
)
from skyisland.nodes import Nodes
from skyisland.receipts.receipt import Built, Provenance
from skyisland.status import AddressInfo, AddressState, Capability, FleetStatus, Vacancy
from skyisland.wire import Versions


class SourceRoom(Protocol):
    """What `Sources` (sources/) gives the island."""

    async def resolve(
        self, url: str, version: str | None, *, refresh: bool, client: str = ""
    ) -> Resolved: ...
    async def doubt(self, name: str) -> None: ...
    def recorded(self, url: str, package: str, commit: str) -> Resolved: ...
    def permitted(self, resolved: Resolved, client: str) -> Resolved: ...
    async def versions(
        self, url: str, *, after: str | None = None, until: str | None = None, client: str = ""
    ) -> Versions: ...
    async def checkout(self, resolved: Resolved, client: str = "") -> Source: ...
    def using(self, source: Source) -> AbstractContextManager[object]: ...
    async def sweep(self) -> int: ...
    async def purge(self, idle_s: float) -> int: ...
    async def close(self) -> None: ...


class BuildRoom(Protocol):
    """What `Builds` (builds/) gives the island."""

    async def prepare(self, progress: Progress = silent, *, whole: bool = False) -> None: ...
    def work_ahead(self, busy: Callable[[], bool]) -> None: ...
    def disturb(self) -> None: ...
    @property
    def ahead(self) -> str: ...
    def known(self, resolved: Resolved, call: Call, client: str) -> Artifact | None: ...
    @property
    def go_version(self) -> str: ...
    @property
    def shares(self) -> bool: ...
    async def borrow(self, resolved: Resolved, call: Call, client: str) -> Artifact | None: ...
    async def build(
        self, source: Source, call: Call, *, refresh: bool, invocation: str | None, client: str
    ) -> Artifact: ...
    def using(self, artifact: Artifact) -> AbstractContextManager[object]: ...
    async def known_catalogue(self, resolved: Resolved | Artifact) -> Catalogue | None: ...
    async def catalogue(self, source: Source, *, client: str) -> Catalogue: ...
    async def rebuild(self, artifact: Artifact, source: Source) -> Artifact: ...
    async def reproduce(self, built: Built, source: Source, *, client: str) -> Artifact: ...
    async def made(self, artifact: Artifact, source: Source) -> Provenance: ...
    def artifacts(self) -> list[Artifact]: ...
    def find(self, key: str) -> Artifact: ...
    async def evict(self, key: str) -> Artifact: ...
    async def purge(self) -> list[Artifact]: ...
    async def close(self) -> None: ...


class AddressRoom(AddressPool, Protocol):
    """What `Addresses` (jails/) gives the island, beside leases for the jails."""

    async def prepare(self) -> int: ...
    def require(self) -> None: ...
    async def await_turn(self, invocation: str, client: str) -> None: ...
    def end_turn(self, invocation: str) -> None: ...
    @property
    def free(self) -> int: ...
    def addresses(self) -> list[AddressInfo]: ...
    async def set_state(self, ip: str, state: AddressState) -> AddressInfo: ...
    def capabilities(self) -> list[Capability]: ...
    async def close(self) -> None: ...


class Errand(Struct, frozen=True, kw_only=True):
    """A call that another island of the fleet may run. No secret is in it."""

    id: str
    """The invocation's; the same wherever it runs."""
    request: FunctionRequest
    resolved: Resolved
    client: str
    caller_id: str
    traceparent: str
    text_only: bool
    limits: Limits
    """Of its jail."""
    timeout_s: float
    name: str = ""
    """By which it was called, if by one; whoever runs it has that name's secrets."""
    revision: int = 0
    key: str = ""
    """Of its binary: says which islands are its homes."""
    repeatable: bool = False
    """It may be run again when it is not known whether it ran."""


class Ran(Struct, frozen=True, kw_only=True):
    """What came of an errand."""

    outcome: Outcome
    timings: Timings
    jail: str | None
    warm: bool
    node: str
    """The island that ran it."""


class Elsewhere(Protocol):
    """Runs calls for which this island has no room."""

    async def run(self, errand: Errand) -> Ran | None:
        """What came of it; None if no other island has room either, and nothing of it ran.

        Raises:
            NodeLost: an island began it and was not heard of again.
            IslandError: it could not be carried out there.
        """


class Visit(Protocol):
    """Whoever waits for a call that came from another island."""

    async def begins(self) -> None:
        """Called before the call's process is told anything: from now on it may have effects."""


class Home(Protocol):
    """What the fleet asks of its island."""

    @property
    def go_version(self) -> str:
        """What it compiles with: islands share binaries of one version."""

    def vacancy(self) -> Vacancy:
        """How much room it has; asked each second."""

    def has_room(self, client: str, *, ip4: bool = False) -> bool:
        """Whether one more call of a client would have a place at once, and an address."""

    async def receive(self, errand: Errand, visit: Visit) -> Invocation:
        """Run a call of another island.

        Raises:
            IslandError: it was refused, or could not be carried out.
        """


class FleetRoom(Protocol):
    """What `Fleet` (fleet/) gives the island, where the settings name one."""

    @property
    def elsewhere(self) -> Elsewhere: ...

    @property
    def nodes(self) -> Nodes:
        """The others, for operators."""
        ...

    async def join(self, home: Home) -> None: ...
    async def drain(self) -> None: ...
    async def leave(self) -> None: ...
    def status(self) -> FleetStatus: ...


class HistoryRoom(Protocol):
    """What `State` (record/) gives the island: the invocations that are over."""

    async def invocations(self, limit: int) -> list[InvocationFinished]: ...
    async def invocation(self, id: str) -> InvocationFinished: ...  # noqa: A002
    async def close(self) -> None: ...
