"""What the console needs of an island, wherever that runs.

`InProcess` and `Remote` are the two ways to it; the console knows neither. What leaves a port is
struct by struct what `skyisland` defines; what fails leaves as an `IslandError` (the island said no),
`LinkLost` (nobody answered) or `Unauthorized` (the token is missing or wrong).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from skyisland.errors import IslandError
from skyisland.events import Event, InvocationFinished
from skyisland.model import AddressState, FunctionRequest, Status, Timings
from skyisland.record.logs import Line as LogLine


class LinkLost(Exception):
    """The island is out of reach; the text says why, in words for an operator."""


class Snapshot(Status, frozen=True, kw_only=True):
    """All that the console shows, at one moment."""

    at: float
    """The island's clock."""
    recent: list[InvocationFinished]
    """Invocations that are over, newest first."""
    last_event_id: str = ""
    """Where the stream of events goes on from here."""

    @classmethod
    def of(cls, status: Status, *, at: float, recent: list[InvocationFinished]) -> Snapshot:
        fields = {name: getattr(status, name) for name in Status.__struct_fields__}
        return cls(**fields, at=at, recent=recent)


class Answer(Struct, frozen=True, kw_only=True):
    """What came of an invocation that the operator made."""

    id: str
    verdict: str
    timings: Timings
    data: str = ""
    stderr: str = ""
    exit_code: int | None = None
    jail: str | None = None
    commit: str = ""
    cached: bool = False
    stale: bool = False


class Port(Protocol):
    """An island, as an operator reaches it."""

    where: str
    """For the header: host and port."""
    attached: bool
    """Another process; quitting the console does not end the island."""

    async def snapshot(self) -> Snapshot: ...

    def events(self) -> AsyncIterator[list[Event]]:
        """Facts in order, in bunches some tenths of a second apart, without those that others of their bunch
        include; a `Pulse` every 2 s. An empty bunch says "still here"."""
        ...

    async def logs(self, after: int = 0) -> list[LogLine]:
        """Lines with a `seq` above `after`, oldest first; a few thousand at most."""
        ...

    async def kill(self, jail: str) -> None: ...

    async def set_address(self, ip: str, state: AddressState) -> None: ...

    async def evict(self, key: str) -> None: ...

    async def rebuild(self, key: str) -> None: ...

    async def invoke(self, request: FunctionRequest) -> Answer: ...

    def curl(self, request: FunctionRequest) -> str:
        """The same invocation as a line for a shell; the token stays a variable in it."""
        ...

    def authorize(self, token: str) -> None:
        """Use this token from now on."""
        ...

    async def close(self) -> None: ...


__all__ = ["Answer", "IslandError", "LinkLost", "LogLine", "Port", "Snapshot"]
