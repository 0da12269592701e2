"""Runs orders: attempts, pauses between them, and what is noted of how a call ended.

An attempt is on record before it begins, and its end before the order is out of the queue; so after a kill it
is run once more, and no more often than there are attempts. What a call gave back is noted as soon as the
disk takes it. Calls whose callers wait come first: while one of them has no place, none of these begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from skyisland.cause import masked, without
from skyisland.codec import encode
from skyisland.errors import (
    BadRequest,
    BuildFailed,
    Draining,
    Forbidden,
    HostUnfit,
    IslandError,
    NotFound,
    Paused,
    TooBusy,
)
from skyisland.events import shortened
from skyisland.host.recent import Recent
from skyisland.host.tasks import Background, cancel_all, finish
from skyisland.later.callbacks import Callbacks
from skyisland.later.calls import Attempt, CallbackState, CallState, Order, Record, accepted
from skyisland.later.keeping import Change, NotKept, Store
from skyisland.later.pauses import pause
from skyisland.model import Invocation, Verdict
from skyisland.settings import Async
from skyisland.wire import Called, Problem

log = logging.getLogger(__name__)
T = TypeVar("T")

SecretsOf = Callable[[str], tuple[str, ...]]
"""What a call of this name is given and nobody is shown but its caller."""
Run = Callable[[Order, str], Awaitable[Invocation]]
"""Runs an order once, as the invocation of this id."""
Able = Callable[[Order], Awaitable[bool]]
"""Whether this island has what the order needs; if not, another one of its fleet may."""

YIELD_S = 0.05
"""How long to stand back while calls whose callers wait have no place. A judgement: most end sooner."""
AGAIN_S = 1.0
"""Between two attempts to note what became of a call, while the disk is full."""
PASS_ON_S = 0.5
"""How long an order is left to others that this island lacks something for."""
SHOWN_CHARACTERS = 500
"""How much of a message a record has."""
HELD = 10_000
"""Calls that begin at once when their name is resumed; the others wait for their time, some seconds."""
RESUMED = ""
HOPELESS = (BadRequest, Forbidden, NotFound, BuildFailed, HostUnfit)
"""Errors that come again however often it is tried."""


async def always(order: Order) -> bool:
    """Of an island that is alone: what it lacks, no other has."""
    return True


class Runner:
    """Runs what is in the queue of orders. `start` comes first, `close` last."""

    def __init__(
        self,
        store: Store,
        callbacks: Callbacks,
        run: Run,
        settings: Async,
        *,
        places: int,
        busy: Callable[[], bool],
        secrets_of: SecretsOf,
        able: Able,
        node: str,
    ) -> None:
        """`places`: of the island, for calls of every kind. `busy`: whether calls whose callers wait have no
        place. `node`: the island's name in its fleet, which attempts get; empty outside of one."""
        self._store = store
        self._callbacks = callbacks
        self._run = run
        self._secrets_of = secrets_of
        self._able = able
        self._node = node
        self._settings = settings
        self._places = settings.max_running or max(1, places // 2)
        self._per_client = settings.running_per_client or max(1, self._places // 2)
        self._busy = busy
        self.running: dict[str, asyncio.Task[None]] = {}
        """The attempts under way, by their calls' ids."""
        self.ended: Counter[str] = Counter()
        """Calls that are over, since this was made, by their state."""
        self._clients: Counter[str] = Counter()
        self._cancelled: set[str] = set()
        self._ended: dict[str, set[asyncio.Future[None]]] = {}
        """Who waits for the end of a call, by its id."""
        self._news: dict[str, list[asyncio.Queue[str]]] = {}
        """Who watches a call, by its id."""
        self._held: Recent[str, str] = Recent(HELD)
        """Calls that wait because their name is paused, and that name."""
        self._work = asyncio.Event()
        self.paused = False
        self._dispatching: asyncio.Task[None] | None = None
        self._stopping = Background()

    def start(self) -> None:
        self._store.orders.follow(self.wake)
        self._store.results.follow(self.changed)
        self._dispatching = asyncio.create_task(self._dispatch())

    def wake(self) -> None:
        """There is an order more."""
        self._work.set()

    def resumed(self, name: str) -> None:
        """Calls of this name are taken again: begin those that wait for it."""
        for call in [call for call, held in self._held.items() if held == name]:
            self._held[call] = RESUMED
            self._store.orders.hurry(call)
        self._work.set()

    def pause(self) -> None:
        """Begin no more. What runs is put back when its jail is killed; who waits for its end goes on."""
        self.paused = True
        self._work.set()
        for call in {*self._ended, *self._news}:
            self._tell(call)

    async def close(self) -> None:
        """End everything; what did not come to its end is run again by the next life."""
        self.pause()
        await cancel_all(self._dispatching, *self.running.values())
        await self._stopping.drain()

    # Who waits

    @contextlib.contextmanager
    def awaited(self, call: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the call is over, or the island stops."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.setdefault(call, set()).add(ended)
        try:
            yield ended
        finally:
            waiting = self._ended[call]
            waiting.discard(ended)
            if not waiting:
                del self._ended[call]

    @contextlib.contextmanager
    def news(self, call: str) -> Iterator[asyncio.Queue[str]]:
        """Gets the id of each attempt that begins, and "" when the call's state changes otherwise."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._news.setdefault(call, []).append(queue)
        try:
            yield queue
        finally:
            self._news[call].remove(queue)
            if not self._news[call]:
                del self._news[call]

    def _spread(self, call: str, attempt: str = "") -> None:
        for queue in self._news.get(call, ()):
            queue.put_nowait(attempt)

    def _tell(self, call: str) -> None:
        self._spread(call)
        for one in self._ended.get(call, ()):
            if not one.done():
                one.set_result(None)

    def changed(self, change: Change) -> None:
        """Another island of the fleet noted something of a call that is watched here."""
        self._spread(change.call, change.attempt)
        if change.final:
            self._tell(change.call)
            if change.call in self.running:
                self._stopping.start(self._stop_if_over(change.call))

    async def _stop_if_over(self, call: str) -> None:
        with contextlib.suppress(NotKept):
            record = await self._store.results.get(call)
            if record is not None and record.state.final:
                await self._stop(call)

    async def _stop(self, call: str) -> bool:
        """Kill the jail of an attempt; False if there is none here."""
        task = self.running.get(call)
        if task is None:
            return False
        self._cancelled.add(call)
        await cancel_all(task)
        self._cancelled.discard(call)
        return True

    async def cancel(self, record: Record) -> None:
        """Run it no more: its jail is killed, wherever it is. One that is over stays as it is."""
        self._held.pop(record.id)
        if await self._stop(record.id):
            record = await self._store.results.get(record.id) or record
        elif record.attempts and not record.attempts[-1].verdict:  # another island runs it
            self._close_attempt(record, "cancelled", "")
        await self.end(record, CallState.cancelled)  # whose attempt had not begun, or does not end by itself

    # Attempts

    async def _dispatch(self) -> None:
        """Begin attempts while there is room for them."""
        while not self.paused:
            self._work.clear()
            pause_s = await self._begin()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), pause_s)
        await self._store.orders.rest()

    async def _begin(self) -> float | None:
        """Begin what can begin now; returns after which time to look again, None for when there is news."""
        orders = self._store.orders
        while len(self.running) < self._places and not self.paused:
            if orders.waiting and self._busy():
                return YIELD_S
            full = {client for client, running in self._clients.items() if running >= self._per_client}
            try:
                order = await orders.take(time.time(), full)
            except NotKept as error:
                log.error("%s", error.message)
                return AGAIN_S
            if order is None:
                due_at = orders.due_at()
                return None if not due_at else max(0.0, due_at - time.time())
            self._clients[order.client] += 1
            task = asyncio.create_task(self._carry_out(order))
            self.running[order.id] = task
            task.add_done_callback(lambda _, order=order: self._over(order))  # type: ignore[misc]
        return None

    def _over(self, order: Order) -> None:
        del self.running[order.id]
        self._clients[order.client] -= 1
        if not self._clients[order.client]:
            del self._clients[order.client]
        self._work.set()

    async def _carry_out(self, order: Order) -> None:
        """One attempt, from the order to what is noted of it."""
        resumed = self._held.pop(order.id) == RESUMED
        async with self._store.results.watched(order.id):  # another island may cancel it
            await self._attempt(order, resumed)

    async def _attempt(self, order: Order, resumed: bool) -> None:
        record = await self.insist(lambda: self._store.results.get(order.id))
        if record is None:
            record = accepted(order)
        if record.state.final:  # the process was killed when it had noted this
            await self.end(record, record.state)
            return
        if (
            record.due_at is not None and record.due_at > time.time() and not resumed
        ):  # who was to wait for that is gone
            await self.insist(lambda: self._store.orders.put_back(record.id, record.due_at or 0.0))
            return
        if not await self._able(order):
            await self.insist(lambda: self._store.orders.put_back(record.id, time.time() + PASS_ON_S))
            return
        if record.attempts and not record.attempts[-1].verdict:
            # After a pause, too: what it runs may be what killed the island.
            lost = record.attempts[-1].node
            why = (
                f"nothing is heard of {lost}, which ran it" if lost else "the island was killed while it ran"
            )
            await self._failed(record, "interrupted", why)
            return
        attempt = Attempt(
            number=len(record.attempts) + 1,
            id=f"inv-{secrets.token_hex(6)}",
            started_at=time.time(),
            node=self._node,
        )
        record.attempts.append(attempt)
        record.state, record.due_at = CallState.running, None
        if not await self.insist(lambda: self._store.results.note(record)):
            await self.end(record, CallState.cancelled)  # it was cancelled a moment ago
            return
        self._spread(order.id, attempt.id)
        hidden = self._secrets_of(order.name) if order.name else ()
        record.private |= bool(hidden)
        try:
            invocation = await self._run(order, attempt.id)
        except asyncio.CancelledError:
            if order.id not in self._cancelled:
                raise
            attempt.ended_at, attempt.verdict = time.time(), "cancelled"
            record.verdict = "cancelled"
            await finish(self.end(record, CallState.cancelled))
        except (TooBusy, Draining, Paused) as refusal:
            record.attempts.pop()  # nothing ran
            record.message = shortened(refusal.message, SHOWN_CHARACTERS)
            paused = isinstance(refusal, Paused)
            if paused:
                self._held[order.id] = order.name
            await self._put_back(record, refusal.retry_after_s or AGAIN_S)
            if paused and self._held.get(order.id) == RESUMED:  # meanwhile
                self._store.orders.hurry(order.id)
                self._work.set()
        except IslandError as refusal:
            message = masked(hidden, refusal.message)
            record.error = Problem(message, refusal.code, _masked(hidden, refusal.details) or msgspec.UNSET)
            await self._failed(record, refusal.code, message, again=not isinstance(refusal, HOPELESS))
        except Exception as failure:
            log.exception("an attempt at %s failed", order.id)
            record.error = Problem("the island failed; its log says why", IslandError.code)
            await self._failed(record, IslandError.code, type(failure).__name__)
        else:
            await self._told(record, invocation, hidden)

    async def _told(self, record: Record, invocation: Invocation, hidden: tuple[str, ...]) -> None:
        """Note how the function ended, or try again. `hidden`: secrets; the result alone may have them."""
        outcome = invocation.outcome
        if outcome.verdict is Verdict.killed and self.paused:
            record.attempts.pop()
            await self._put_back(record, 0.0)
            return
        called = await asyncio.to_thread(Called.of, invocation)
        result = await asyncio.to_thread(encode, called.answer)
        if outcome.verdict is Verdict.ok:
            self._close_attempt(record, str(outcome.verdict), "")
            record.error = None
            await self.end(record, CallState.done, result)
            return
        message = called.message
        if hidden:
            bare = structs.replace(invocation, outcome=without(hidden, outcome))
            message = (await asyncio.to_thread(Called.of, bare)).message
        wish_s = outcome.error.retry_after_s if outcome.error is not None else None
        again = outcome.verdict is not Verdict.killed and (wish_s is None or wish_s >= 0)
        record.error = None
        await self._failed(record, str(outcome.verdict), message, again=again, result=result, wish_s=wish_s)

    def _close_attempt(self, record: Record, verdict: str, message: str) -> None:
        attempt = record.attempts[-1]
        attempt.ended_at, attempt.verdict = time.time(), verdict
        attempt.message = shortened(message, SHOWN_CHARACTERS)
        record.verdict, record.message = verdict, attempt.message

    async def _failed(
        self,
        record: Record,
        verdict: str,
        message: str,
        *,
        again: bool = True,
        result: bytes | None = None,
        wish_s: float | None = None,
    ) -> None:
        """Try it again after a pause; or it is dead. `wish_s`: how long the function asks to wait."""
        self._close_attempt(record, verdict, message)
        if not again or len(record.attempts) >= self._settings.attempts:
            await self.end(record, CallState.dead, result)
            return
        if wish_s is not None:
            pause_s = min(wish_s, self._settings.keep)
        else:
            pause_s = pause(len(record.attempts), self._settings.backoff, self._settings.longest_backoff)
        await self._put_back(record, pause_s)

    async def _put_back(self, record: Record, pause_s: float) -> None:
        record.state, record.due_at = CallState.queued, time.time() + pause_s
        await self.insist(lambda: self._store.results.note(record))
        await self.insist(lambda: self._store.orders.put_back(record.id, record.due_at or 0.0))
        self._spread(record.id)
        self._work.set()

    async def end(self, record: Record, state: CallState, result: bytes | None = None) -> None:
        """Note that it is over, once; then have its callback sent, and take its order out of the queue."""
        if not record.state.final:
            record.state, record.due_at, record.ended_at = state, None, time.time()
            if await self.insist(lambda: self._store.results.note(record, result)):
                self.ended[state] += 1
            else:
                kept = await self.insist(lambda: self._store.results.get(record.id))
                record = kept or record
        callback = record.callback
        if callback is not None and callback.state is CallbackState.waiting:
            await self.insist(lambda: self._callbacks.send(record))
        orders = self._store.orders
        if record.state is CallState.done:
            await self.insist(lambda: orders.done(record.id))
        else:
            await self.insist(lambda: orders.bury(record.id))
        self._tell(record.id)

    async def insist(self, note: Callable[[], Awaitable[T]]) -> T:
        """Do it until the disk takes it. When the island stops before, the next life runs the call again."""
        told = False
        while True:
            try:
                return await note()
            except NotKept as error:
                if not told:
                    log.error("%s; it is tried until there is room", error.message)
                    told = True
                await asyncio.sleep(AGAIN_S)


def _masked(hidden: tuple[str, ...], told: Any) -> Any:
    """Details of an error with a mark in place of each secret."""
    match told:
        case str():
            return masked(hidden, told)
        case dict():
            return {name: _masked(hidden, part) for name, part in told.items()}
        case list() | tuple():
            return [_masked(hidden, part) for part in told]
    return told
