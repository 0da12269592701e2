"""What keeps calls that answer later. tests/contract/test_keeping.py has the suite of both protocols.

A driver of one machine is a file; of several, servers that all reach. Nothing here needs more of it than a
work queue and a store of keys. No transaction spans the two: whoever uses them first notes in `Results` what
is so, and then takes the order out of the `Queue`.

Other processes may use the same store. An order that one of them took is handed out again when that process
ends, or is not heard of for a while; so two may run one call, and the first final record counts. What they do
is told to whoever `follow`s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from skyisland.errors import Unavailable
from skyisland.later.calls import Callback, CallState, Claim, Order, Record


class NotKept(Unavailable):
    """The disk is full, the file damaged, or the servers are away: what was asked is not kept. What was
    accepted before is."""


class Change(Struct, frozen=True, kw_only=True):
    """Another process has noted something of a call."""

    call: str
    attempt: str = ""
    """The id of the attempt that has begun; empty for anything else."""
    final: bool = False


class Wanted(Struct, frozen=True, kw_only=True):
    """Which records are asked for; empty for all."""

    client: str = ""
    state: CallState | None = None
    name: str = ""
    since: float = 0.0
    """Accepted at this time or later."""
    limit: int = 100


class Standing(Struct, frozen=True, kw_only=True):
    """How calls stand that are kept."""

    oldest_at: float | None
    """When the oldest of those that wait was accepted; None if none waits."""
    dead: int


class Queue(Protocol):
    """Orders that wait. One that was `put` is handed out until it is `done` or `buried`."""

    @property
    def waiting(self) -> int:
        """How many wait, as far as this process knows."""

    async def put(self, order: Order, due_at: float = 0.0) -> None:
        """Accept an order: it is on disk when this returns. One whose id is there already changes nothing.

        Raises:
            TooBusy: the queue is full, or the client's share of it.
            NotKept
        """

    async def take(self, now: float, full: Collection[str] = ()) -> Order | None:
        """An order whose time has come, of the client whose turn it is; None if there is none. It is nobody
        else's until it is put back, or this process ends. `full`: clients who get none."""

    def follow(self, wake: Callable[[], None]) -> None:
        """Call this when there is an order that came from elsewhere, and `take` may find it."""

    async def rest(self) -> None:
        """This process takes no more: what waits here, or is put back from now on, is for others at once."""

    def due_at(self) -> float | None:
        """When the next one is due; None if none waits, or another process may have it."""

    async def put_back(self, call_id: str, due_at: float) -> None:
        """Hand it out again, at this time or later."""

    def hurry(self, call_id: str) -> None:
        """If it waits for a later time, hand it out now. What cannot do that lets it wait."""

    async def done(self, call_id: str) -> None:
        """It is over; forget it. May be repeated."""

    async def bury(self, call_id: str) -> None:
        """Hand it out no more, but keep it. May be repeated."""

    async def revive(self, call_id: str) -> bool:
        """Hand out a buried one again; False if there is none."""


class Results(Protocol):
    """What became of calls, and what Idempotency-Keys stand for."""

    @property
    def secret(self) -> bytes:
        """Random bytes that nobody else knows, made once: callbacks' signatures are made of them.

        Raises:
            NotKept: it cannot be read now.
        """

    def follow(self, changed: Callable[[Change], None]) -> None:
        """Call this with what other processes note of calls that are watched here."""

    def watched(self, call_id: str) -> AbstractAsyncContextManager[None]:
        """Watch a call as long as this is open: no change is missed from its beginning on."""

    async def note(self, record: Record, result: bytes | None = None, *, anew: bool = False) -> bool:
        """Keep a record, on disk when this returns. Once it is final it stays: then nothing is changed, and
        this is False. `anew`: it is run again.

        Raises:
            NotKept
        """

    async def note_callback(self, call_id: str, callback: Callback) -> None:
        """Keep what became of a record's callback, whatever its state."""

    async def get(self, call_id: str) -> Record | None:
        """A record with its result."""

    async def find(self, wanted: Wanted) -> list[Record]:
        """Records without results, newest first."""

    async def standing(self) -> Standing:
        """For monitoring, which asks every few seconds: a query of constant time, or nearly so."""

    async def delete(self, ids: list[str]) -> None:
        """Forget these."""

    async def expire(self, now: float) -> list[str]:
        """Forget what is too old, and the oldest where results take too much; returns their ids."""

    async def claim(self, claim: Claim, now: float) -> Claim:
        """The claim that holds: this one, or the one that came first. One without a call is held by this
        process until it is `answered`, or the process ends."""

    async def answered(self, claim: Claim, reply: bytes) -> None:
        """Keep what the caller was answered.

        Raises:
            NotKept
        """

    async def release(self, claim: Claim) -> None:
        """Nothing ran: the key stands for nothing again."""


class Store(Protocol):
    """A driver."""

    @property
    def name(self) -> str:
        """The driver's, in words of the settings."""

    @property
    def orders(self) -> Queue:
        """Calls to be run."""

    @property
    def callbacks(self) -> Queue:
        """Calls whose callback is to be sent; of an order, the id alone counts."""

    @property
    def results(self) -> Results: ...

    async def close(self) -> None: ...
