"""Accepts calls that answer later, and tells what became of them.

    accept ─▶ orders ─▶ attempt ─┬─▶ done ──────────────┬─▶ callbacks
               ▲                 ├─▶ dead, cancelled ───┘
               └── after a pause ┘

`running` runs them, `callbacks` sends their records; this is what API and console ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from msgspec import structs

from skyisland.errors import CallNotFound, CallStands, Draining, KeyInUse, KeyReused, TooBusy
from skyisland.host.tasks import cancel_all
from skyisland.later.callbacks import Callbacks
from skyisland.later.calls import (
    Callback,
    CallbackState,
    CallState,
    Claim,
    Record,
    accepted,
    new_call_id,
    ordered,
)
from skyisland.later.keeping import NotKept, Store, Wanted
from skyisland.later.memory import MemoryStore
from skyisland.later.running import Able, Run, Runner, SecretsOf, always
from skyisland.model import FunctionRequest, NamedCall
from skyisland.settings import Async
from skyisland.status import Backlog

log = logging.getLogger(__name__)

EXPIRE_S = 600.0
"""How often what is too old is looked for."""


Check = Callable[[FunctionRequest | NamedCall, str, str], Awaitable[FunctionRequest]]
"""Refuses what can never run, of what is sent, to which name, by whom; gives what it asks for now."""


async def _unchecked(asks: FunctionRequest | NamedCall, name: str, who: str) -> FunctionRequest:
    return asks if isinstance(asks, FunctionRequest) else FunctionRequest(url="")


class Later:
    """One island's calls that answer later. `start` comes first, `close` last."""

    def __init__(
        self,
        store: Store | NotKept,
        run: Run,
        settings: Async,
        *,
        places: int,
        busy: Callable[[], bool],
        check: Check = _unchecked,
        secrets_of: SecretsOf = lambda _: (),
        able: Able = always,
        node: str = "",
    ) -> None:
        """`store`: or why nothing can be kept. The others: see `Runner`."""
        self._unusable = store if isinstance(store, NotKept) else None
        self._store: Store = MemoryStore() if isinstance(store, NotKept) else store
        self._settings = settings
        self._check = check
        self.callbacks = Callbacks(self._store, settings)
        self._runner = Runner(
            self._store,
            self.callbacks,
            run,
            settings,
            places=places,
            busy=busy,
            secrets_of=secrets_of,
            able=able,
            node=node,
        )
        self._expiring: asyncio.Task[None] | None = None

    # Life

    def start(self) -> None:
        """Run what waits, from now on."""
        if self._unusable is not None:
            log.error("calls that answer later are refused: %s", self._unusable.message)
            return
        self._expiring = asyncio.create_task(self._expire())
        self._runner.start()
        self.callbacks.start()

    def resumed(self, name: str) -> None:
        """An admin resumed a name: what waits for that begins now."""
        self._runner.resumed(name)

    def pause(self) -> None:
        """Accept and begin no more: the island stops."""
        self._runner.pause()

    async def close(self) -> None:
        """End everything; what did not come to its end is run again by the next life."""
        await self._runner.close()
        await self.callbacks.close()
        await cancel_all(self._expiring)
        await self._store.close()

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._runner.running)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._store.orders.waiting

    async def backlog(self) -> Backlog:
        """For monitoring."""
        if self._unusable is not None:
            return Backlog()
        standing = await self._store.results.standing()
        oldest_at = standing.oldest_at
        return Backlog(
            waiting=self.waiting,
            running=self.running,
            oldest_s=0.0 if oldest_at is None else max(0.0, time.time() - oldest_at),
            dead=standing.dead,
            ended=dict(self._runner.ended),
            callbacks_waiting=self.callbacks.waiting,
            callbacks_ended=dict(self.callbacks.ended),
        )

    def _usable(self) -> None:
        if self._unusable is not None:
            raise self._unusable
        if self._runner.paused:
            raise Draining("the island is stopping and takes no new calls", retry_after_s=5)

    # Calls

    async def accept(
        self,
        asks: FunctionRequest | NamedCall,
        client: str,
        *,
        name: str = "",
        who: str = "",
        callback: str = "",
        caller_id: str = "",
        traceparent: str = "",
        id: str = "",  # noqa: A002 - as the record's field is named
    ) -> Record:
        """Keep a call, and run it when there is room. It is on disk when this returns.

        `name`: of the named function that it calls, as `who`. `callback`: the URL that gets its record.

        Raises:
            IslandError: it can never run, or the callback's URL is none that we send to.
            TooBusy: the queue is full, or the client's share of it.
            NotKept: it cannot be written.
        """
        self._usable()
        if callback:
            self.callbacks.check(callback)
        request = await self._check(asks, name, who)
        named = asks if isinstance(asks, NamedCall) else None
        about = {"name": name, "who": who, "caller_id": caller_id, "traceparent": traceparent}
        order = ordered(request, client, call_id=id, named=named, **about)
        record = accepted(order, callback)
        # Both at one time, which is one transaction where the driver is a file.
        queued, noted = await asyncio.gather(
            self._store.orders.put(order), self._store.results.note(record), return_exceptions=True
        )
        for failure in (queued, noted):
            if isinstance(failure, BaseException):
                with contextlib.suppress(NotKept):
                    await self._store.orders.done(order.id)
                    await self._store.results.delete([order.id])
                raise failure
        self._runner.wake()
        return record

    async def accept_once(
        self, key: str, asks: NamedCall, client: str, *, name: str = "", who: str = ""
    ) -> str:
        """Keep a call of a name, unless one was kept under this key of the client; returns the call's id.

        The key is claimed first: whoever is cut off before the call is kept, or is one of several islands,
        finds by it which call it is to be, and a queue takes each once.

        Raises:
            As `accept` does; then the key stands for a call that is not kept.
        """
        self._usable()
        claim = Claim(client=client, key=key, body=b"", call=new_call_id())
        held = await self._store.results.claim(claim, time.time())
        if held is claim or await self._store.results.get(held.call) is None:
            await self.accept(asks, client, name=name, who=who, id=held.call)
        return held.call

    async def ended_at(self, id: str) -> float | None:  # noqa: A002 - as the record's field is named
        """When a call was over, seconds since the epoch; None if it is not. 0.0 for one that is forgotten."""
        record = await self._store.results.get(id)
        if record is None:
            return 0.0
        return (record.ended_at or record.created_at) if record.state.final else None

    async def get(self, id: str, client: str = "") -> Record:  # noqa: A002
        """A call, with its result; `client`: whose it must be, empty for anybody's.

        Raises:
            CallNotFound: there is none, or it is another's.
        """
        record = None if self._unusable else await self._store.results.get(id)
        if record is None or client not in ("", record.client):
            raise CallNotFound(f"no call {id[:64]!r}; it never was, or its result is no longer kept")
        return record

    async def settled(self, id: str, wait_s: float, client: str = "") -> Record:  # noqa: A002
        """The call as soon as it is over, or else as it is after `wait_s`, or when the island stops.

        Raises:
            CallNotFound
        """
        record = await self.get(id, client)
        if record.state.final or wait_s <= 0 or self._runner.paused:
            return record
        async with self._store.results.watched(id):
            with self._runner.awaited(id) as ended:
                record = await self.get(id, client)
                if record.state.final or self._runner.paused:
                    return record
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await ended
                return await self.get(id, client)

    @asynccontextmanager
    async def news(self, id: str) -> AsyncIterator[asyncio.Queue[str]]:  # noqa: A002
        """What happens to a call: the id of each attempt that begins, "" when it changes otherwise or the
        island stops."""
        async with self._store.results.watched(id):
            with self._runner.news(id) as news:
                yield news

    @property
    def stopping(self) -> bool:
        """Nothing begins any more."""
        return self._runner.paused

    async def find(self, wanted: Wanted) -> list[Record]:
        """Calls without their results, newest first."""
        return [] if self._unusable else await self._store.results.find(wanted)

    async def cancel(self, id: str, client: str = "") -> Record:  # noqa: A002
        """Run it no more: its jail is killed. One that is over stays as it is.

        Raises:
            CallNotFound
        """
        record = await self.get(id, client)
        if record.state.final:
            return record
        await self._runner.cancel(record)
        return await self.get(id, client)

    async def redrive(self, id: str, client: str = "") -> Record:  # noqa: A002
        """Run a dead or cancelled call again, with all its attempts; of one that is done, send the callback
        again that nobody took.

        Raises:
            CallNotFound
            CallStands: there is nothing to do again.
            TooBusy: the queue is full, or the client's share of it.
        """
        self._usable()
        record = await self.get(id, client)
        callback = record.callback
        if record.state in (CallState.dead, CallState.cancelled):
            await self._revive(record)
        elif callback is not None and callback.state is CallbackState.dead:
            await self.callbacks.send(record)
        else:
            raise CallStands(f"{id} is {record.state}; only what is dead or cancelled is run again")
        return await self.get(id, client)

    async def _revive(self, record: Record) -> None:
        anew = structs.replace(
            record,
            state=CallState.queued,
            attempts=[],
            ended_at=None,
            verdict="",
            message="",
            error=None,
            callback=Callback(url=record.callback.url) if record.callback else None,
        )
        await self._store.results.note(anew, anew=True)
        try:
            if not await self._store.orders.revive(record.id):
                raise CallStands(f"what {record.id} asked for is no longer kept; send it again")
        except (CallStands, NotKept, TooBusy):
            result = None if isinstance(record.result, msgspec.UnsetType) else bytes(record.result)
            await self._store.results.note(record, result, anew=True)
            raise
        self._runner.wake()

    async def forget(self, wanted: Wanted) -> list[str]:
        """Forget calls that are over; returns their ids."""
        gone = [record.id for record in await self.find(wanted) if record.state.final]
        await self._store.results.delete(gone)
        await self._drop(gone)
        return gone

    async def forget_one(self, id: str, client: str = "") -> None:  # noqa: A002
        """Forget a call that is over.

        Raises:
            CallNotFound
            CallStands: it is not over.
        """
        record = await self.get(id, client)
        if not record.state.final:
            raise CallStands(f"{id} is {record.state}; cancel it first")
        await self._store.results.delete([id])
        await self._drop([id])

    async def _drop(self, ids: list[str]) -> None:
        for one in ids:
            await asyncio.gather(self._store.orders.done(one), self._store.callbacks.done(one))

    async def _expire(self) -> None:
        """Forget what is too old, and the oldest results where they take too much room."""
        while True:
            try:
                await self._drop(await self._store.results.expire(time.time()))
            except NotKept as error:
                log.error("old results cannot be removed: %s", error.message)
            await asyncio.sleep(min(EXPIRE_S, self._settings.keep / 4))

    # Keys

    async def claim(self, claim: Claim) -> Claim | None:
        """Use an Idempotency-Key: None if it is this call's now, else what it was first used for.

        Raises:
            KeyReused: that had another body.
            KeyInUse: that still runs, and its caller waits.
        """
        self._usable()
        held = await self._store.results.claim(claim, time.time())
        if held is claim:
            return None
        if held.body != claim.body:
            raise KeyReused("this Idempotency-Key was used with another body; send a new key with it")
        if not held.call and held.reply is None:
            raise KeyInUse("the call with this Idempotency-Key still runs; ask again", retry_after_s=1)
        return held

    async def answered(self, claim: Claim, reply: bytes) -> None:
        """Keep what the caller of a claim is answered."""
        await self._store.results.answered(claim, reply)

    async def release(self, claim: Claim) -> None:
        """Nothing ran: the key is free again."""
        await self._store.results.release(claim)
