"""Places that many clients share, so that nobody takes them all.

A client who finds a place free, and has fewer than `places_per_client`, takes it at once. Otherwise it stands
in a line of its own, and the lines are served round robin, one place per turn. So others may rely on this:

- One client leaves `places - places_per_client` places to others, however much it asks for. Work cannot be
  taken back once it runs, so no client gets more than that while others happen to be away.
- Who waits, waits for at most one turn of each other client in line, however long their lines are.
- A full queue refuses whoever has the longest line: a newcomer displaces the last in it.

A free place costs two look-ups in a dictionary; tasks, timers and futures are made for those who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextlib import AsyncExitStack
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from skyisland.errors import TooBusy
from skyisland.host.flight import Flights

T = TypeVar("T")

LOCAL = "this process"
"""The client that stands for whoever asks without one: a console in this process, an operator."""


class FairQueue:
    """`places` for all clients, `places_per_client` of them for one, and a line of each client who waits.

    Use `take`, else `wait`, and `leave` with the client that they tell; or a `claim` as a context.
    """

    def __init__(
        self,
        place_name: str,
        places: int,
        *,
        max_waiting: int,
        timeout_s: float,
        places_per_client: int = 0,
        retry_after_s: float = 1.0,
    ) -> None:
        """`place_name`: a place, in words for those who are refused one.

        `places_per_client`: 0 for half of the places, but one. `max_waiting`: how many may wait in all lines
        together. Who waits longer than `timeout_s` is refused.
        `retry_after_s`: after which time they may come back whom either refuses.
        """
        self.place_name = place_name
        self._per_client = places_per_client
        self.max_waiting = max_waiting
        self.timeout_s = timeout_s
        self.retry_after_s = retry_after_s
        self.places = self._free = 0
        self._held: dict[str, int] = {}
        self._lines: dict[str, dict[Claim, None]] = {}
        """Who waits, oldest first, by client; the client whose turn is next comes first."""
        self._waiting = 0
        self._behind: list[asyncio.Future[None]] = []
        """Who stands back for all others."""
        self.resize(places)

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return max(0, self._free)

    @property
    def taken(self) -> int:
        """How many places are in use."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """How many wait, in all lines."""
        return self._waiting

    def has_room(self, client: str) -> bool:
        """Whether `take` would give a place."""
        return self._free > 0 and self._held.get(client, 0) < self.places_per_client

    def take(self, client: str) -> bool:
        """A place at once, or False: all are taken, or the client has as many as one may have."""
        held = self._held.get(client, 0)
        if self._free <= 0 or held >= self.places_per_client:
            return False
        self._free -= 1
        self._held[client] = held + 1
        return True

    def leave(self, client: str) -> None:
        """Give back a place that `client` has; it goes to the next in turn."""
        self._free += 1
        held = self._held[client] - 1
        if held:
            self._held[client] = held
        else:
            del self._held[client]
        if self._lines:
            self._serve()
        if self._behind:
            self._look_again()

    def resize(self, places: int) -> None:
        """Have so many places from now on. Who has one keeps it, also beyond their number."""
        self._free += places - self.places
        self.places = places
        self.places_per_client = min(self._per_client, places) if self._per_client else max(1, places // 2)
        self._serve()

    async def wait(self, client: str) -> None:
        """Stand in the client's line until a place is its own.

        Raises:
            TooBusy: the queue is full, or the place did not come in time; the text says which.
        """
        await Claim(self, client).stand()

    async def stand_back(self, left: int) -> None:
        """Wait until nobody stands in line, and more than `left` places are free. Takes none: who wants one
        takes it before anything else is awaited."""
        while self._waiting or self._free <= left:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._behind.append(turn)
            await turn

    def _look_again(self) -> None:
        behind, self._behind = self._behind, []
        for turn in behind:
            if not turn.done():  # cancelled
                turn.set_result(None)

    def claim(self, client: str) -> Claim:
        """A place for the length of an `async with`, for work that several clients may come to want."""
        return Claim(self, client)

    # Of claims

    def _line_up(self, claim: Claim, client: str) -> bool:
        """Put the claim in the client's line, and serve it if it may be; False if the queue is full."""
        if self._waiting >= self.max_waiting and not self._displace(client):
            return False
        self._lines.setdefault(client, {})[claim] = None
        self._waiting += 1
        claim.lines.append(client)
        self._serve()
        return True

    def _displace(self, client: str) -> bool:
        """Refuse the last of the longest line, if that is longer than the client's own will be."""
        longest = max(self._lines, key=lambda one: len(self._lines[one]), default=client)
        line = self._lines.get(longest, {})
        if len(line) <= len(self._lines.get(client, ())) + 1:
            return False
        last = next(reversed(line))
        self._withdraw(last, longest)
        if not last.lines and not last.granted.done():
            last.granted.set_exception(self.refusal_full())
        return True

    def _withdraw(self, claim: Claim, client: str) -> None:
        line = self._lines[client]
        del line[claim]
        if not line:
            del self._lines[client]
        claim.lines.remove(client)
        self._waiting -= 1
        if self._behind and not self._waiting:
            self._look_again()

    def _serve(self) -> None:
        """Hand free places to those whose turn it is; passed over are clients who have as many as one may."""
        while self._free > 0:
            client = next(
                (one for one in self._lines if self._held.get(one, 0) < self.places_per_client), None
            )
            if client is None:
                return
            claim = next(iter(self._lines[client]))
            claim.retire()
            if claim.granted.done():  # cancelled this very moment
                continue
            self.take(client)
            if client in self._lines:  # its next turn comes after everybody else's
                self._lines[client] = self._lines.pop(client)
            claim.granted.set_result(client)

    def refusal_full(self) -> TooBusy:
        """The refusal of one more who waits."""
        return TooBusy(
            f"the queue for {self.place_name} is full; try again later",
            retry_after_s=self.retry_after_s,
        )

    def refusal_late(self) -> TooBusy:
        """The refusal of who waited too long."""
        return TooBusy(
            f"{self.place_name} did not become free within {self.timeout_s:g} s; try again later",
            retry_after_s=self.retry_after_s,
        )


class Claim:
    """One wait for one place, in the line of each client who wants the work. The first turn serves it."""

    def __init__(self, queue: FairQueue, client: str) -> None:
        self._queue = queue
        self._clients = [client]
        self._holder: str | None = None
        self.lines: list[str] = []
        """The clients in whose lines it stands."""
        self.granted: asyncio.Future[str]

    def share(self, client: str) -> None:
        """Let it stand in this client's line too, unless it has its place or the queue is full."""
        if client not in self._clients:
            self._clients.append(client)
            if self.lines:
                self._queue._line_up(self, client)

    async def stand(self) -> str:
        """Wait for a place; returns whose it is, for `leave`.

        Raises:
            TooBusy: see `FairQueue.wait`.
        """
        queue = self._queue
        self.granted = asyncio.get_running_loop().create_future()
        for client in self._clients:
            if not self.granted.done():
                queue._line_up(self, client)
        if not (self.lines or self.granted.done()):
            raise queue.refusal_full()
        try:
            async with asyncio.timeout(queue.timeout_s):
                return await self.granted
        except BaseException as error:
            self.retire()
            if self.granted.done() and not self.granted.cancelled() and self.granted.exception() is None:
                queue.leave(self.granted.result())
            if isinstance(error, TimeoutError):
                raise queue.refusal_late() from None
            raise

    def retire(self) -> None:
        """Leave all lines."""
        while self.lines:
            self._queue._withdraw(self, self.lines[-1])

    async def __aenter__(self) -> None:
        self._holder = next(filter(self._queue.take, self._clients), None)
        if self._holder is None:
            self._holder = await self.stand()

    async def __aexit__(self, *_: object) -> None:
        assert self._holder is not None  # noqa: S101 - entered before
        self._queue.leave(self._holder)


class _Claims(list[Claim]):
    """Those of one flight. (Of a plain list there are no weak references.)"""


class FairFlights(Generic[T]):
    """`Flights` whose work takes a place, at the first turn of any client that is aboard."""

    def __init__(self, places: FairQueue) -> None:
        self._places = places
        self._flights: Flights[T] = Flights()
        self._claims: WeakValueDictionary[Hashable, _Claims] = WeakValueDictionary()

    async def join(
        self,
        key: Hashable,
        client: str,
        work: Callable[[], Coroutine[None, None, T]],
        *then: FairQueue,
    ) -> T:
        """Result of the work under way for `key`, or else of `work()` in a place. Its error is everyone's.

        `then`: queues that the work stands in afterwards, one after another, for a place in each.

        Raises:
            TooBusy: see `FairQueue.wait`.
        """
        for claim in self._claims.get(key, ()):
            claim.share(client)

        def start() -> Coroutine[None, None, T]:
            claims = self._claims[key] = _Claims(queue.claim(client) for queue in (self._places, *then))
            return self._in_its_places(claims, work)

        return await self._flights.join(key, start)

    async def _in_its_places(self, claims: _Claims, work: Callable[[], Coroutine[None, None, T]]) -> T:
        async with AsyncExitStack() as stack:
            for claim in claims:
                await stack.enter_async_context(claim)
            return await work()

    async def close(self) -> None:
        """Cancel all work under way, and wait for its end."""
        await self._flights.close()
