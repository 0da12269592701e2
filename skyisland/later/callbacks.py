"""Sends the record of a call that is over to the URL that its caller named, signed by Standard Webhooks.

    webhook-id          the call's id: the same each time that it is sent
    webhook-timestamp   seconds since the epoch
    webhook-signature   v1, and HMAC-SHA256 of id.timestamp.body in base64

The secret is one of each client (`whsec_…`), made of one that the island keeps, so none can sign for another.
Where a URL leads is `host.outbound`'s to judge, each time anew: the public Internet by https, or what the
operator's settings trust. An address that is neither is refused at once; what a name leads to is found when
it is sent, and its caller is not told. Redirects are not followed. Every attempt is on the record; 2xx is
taken, 410 never asked again, and all else is tried again after a pause.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import time
from collections import Counter

from msgspec import Raw, structs

from skyisland.codec import encode
from skyisland.errors import BadRequest
from skyisland.host.outbound import Lookup, Refused, check_literal, check_url, lookup, post
from skyisland.host.tasks import cancel_all
from skyisland.later.calls import Callback, CallbackState, Delivery, Order, Record
from skyisland.later.keeping import NotKept, Store
from skyisland.later.pauses import pause
from skyisland.settings import Async

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Callbacks under way at one time. A judgement: one that stalls has its place for `callback_timeout`."""
PER_CLIENT = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3600.0
"""Between two attempts: eight of them take some ten minutes, as long as a receiver takes to be restarted."""
AGAIN_S = 1.0
"""Before the next attempt where the disk takes nothing."""
GONE = 410
"""By it a receiver says that it wants nothing more (Standard Webhooks)."""


class Callbacks:
    """The callbacks of one island's calls."""

    def __init__(self, store: Store, settings: Async, *, lookup: Lookup = lookup) -> None:
        self._store = store
        self._settings = settings
        self._lookup = lookup
        self._work = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._clients: dict[str, int] = {}
        self.ended: Counter[str] = Counter()
        """Callbacks that are sent no more, since this was made, by their state."""
        self._dispatching: asyncio.Task[None] | None = None

    def secret_of(self, client: str) -> str:
        """What this client verifies callbacks with, in the form of Standard Webhooks."""
        return "whsec_" + base64.b64encode(self._key(client)).decode()

    def _key(self, client: str) -> bytes:
        return hmac.digest(self._store.results.secret, b"callbacks of " + client.encode(), "sha256")

    def _trusted(self, url: str) -> bool:
        return url.startswith(self._settings.callbacks) if self._settings.callbacks else False

    def check(self, url: str) -> None:
        """Refuse a URL that no callback is ever sent to.

        Raises:
            BadRequest
        """
        try:
            check_url(url)
            if not self._trusted(url):
                check_literal(url)
        except Refused as refused:
            raise BadRequest(f"X-Callback-Url: {refused.told}", field="X-Callback-Url") from None
        if not url.startswith("https://") and not self._trusted(url):
            raise BadRequest(
                "X-Callback-Url: send an https URL; the operator permits others by async.callbacks",
                field="X-Callback-Url",
            )

    async def send(self, record: Record) -> None:
        """Send the record of a call that is over, until somebody takes it.

        Raises:
            NotKept
        """
        callback = record.callback
        if callback is None:
            return
        if callback.state is not CallbackState.waiting:  # sent again by somebody's wish
            callback.state = CallbackState.waiting
            await self._store.results.note_callback(record.id, callback)
        await self._store.callbacks.put(Order(id=record.id, client=record.client, request=Raw(b"0")))
        self._work.set()

    @property
    def waiting(self) -> int:
        """How many are to be sent, or are being sent."""
        return self._store.callbacks.waiting + len(self._sending)

    def start(self) -> None:
        self._store.callbacks.follow(self._work.set)
        self._dispatching = asyncio.create_task(self._dispatch())

    async def close(self) -> None:
        await cancel_all(self._dispatching, *self._sending.values())

    async def _dispatch(self) -> None:
        while True:
            self._work.clear()
            pause_s = await self._begin()
            # Not wait_for: that takes no cancellation where the event is set in the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._work.wait()

    async def _begin(self) -> float | None:
        queue = self._store.callbacks
        while len(self._sending) < AT_ONCE:
            full = {client for client, sending in self._clients.items() if sending >= PER_CLIENT}
            try:
                order = await queue.take(time.time(), full)
            except NotKept as error:
                log.error("%s", error.message)
                return AGAIN_S
            if order is None:
                due_at = queue.due_at()
                return None if not due_at else max(0.0, due_at - time.time())
            self._clients[order.client] = self._clients.get(order.client, 0) + 1
            task = asyncio.create_task(self._deliver(order))
            self._sending[order.id] = task
            task.add_done_callback(lambda _, order=order: self._over(order))  # type: ignore[misc]
        return None

    def _over(self, order: Order) -> None:
        task = self._sending.pop(order.id)
        self._clients[order.client] -= 1
        if not self._clients[order.client]:
            del self._clients[order.client]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the callback of %s: %r", order.id, error)
        self._work.set()

    async def _deliver(self, order: Order) -> None:
        """One attempt, and what is noted of it."""
        queue, results = self._store.callbacks, self._store.results
        try:
            record = await results.get(order.id)
            callback = None if record is None else record.callback
            if record is None or callback is None or callback.state is not CallbackState.waiting:
                await queue.done(order.id)
                return
            delivery, pause_s = await self._attempt(record, callback)
            callback.deliveries.append(delivery)
            taken = not delivery.error
            hopeless = delivery.status == GONE or len(callback.deliveries) >= self._settings.callback_attempts
            callback.due_at = None if taken or hopeless else time.time() + pause_s
            if taken:
                callback.state = CallbackState.delivered
            elif hopeless:
                callback.state = CallbackState.dead
            await results.note_callback(record.id, callback)
            if callback.due_at is None:
                self.ended[callback.state] += 1
                await queue.done(order.id)
            else:
                await queue.put_back(order.id, callback.due_at)
        except NotKept as error:
            log.error("the callback of %s: %s", order.id, error.message)
            with contextlib.suppress(NotKept):
                await queue.put_back(order.id, time.time() + AGAIN_S)

    async def _attempt(self, record: Record, callback: Callback) -> tuple[Delivery, float]:
        """Send it once; tells also how long to wait before the next time."""
        body = await asyncio.to_thread(encode, structs.replace(record, callback=None))
        at, started = time.time(), time.perf_counter()
        status, error = None, ""
        pause_s = pause(len(callback.deliveries) + 1, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        try:
            status, retry_after_s = await post(
                callback.url,
                body,
                signed(record.id, int(at), body, self._key(record.client)),
                None if self._trusted(callback.url) else self._lookup,
                timeout_s=self._settings.callback_timeout,
            )
            if not 200 <= status < 300:
                error = f"it answered {status}"
            if retry_after_s is not None:
                pause_s = min(max(pause_s, retry_after_s), LONGEST_PAUSE_S)
        except Refused as refused:
            log.warning("the callback of %s: %s", record.id, refused)
            error = refused.told
        except OSError as failure:
            error = str(failure)
        return Delivery(at=at, took_s=time.perf_counter() - started, status=status, error=error), pause_s


def signed(call: str, at: int, body: bytes, key: bytes) -> dict[str, str]:
    """The headers of a callback: what Standard Webhooks asks for (standardwebhooks.com, version 1.0.0)."""
    digest = hmac.digest(key, b"%b.%d.%b" % (call.encode(), at, body), hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "webhook-id": call,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
