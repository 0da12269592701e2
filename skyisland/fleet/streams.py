"""A stream on the fleet's servers (JetStream): made, written to, read.

Every message that is published has an id (`Nats-Msg-Id`). The library sends what was published while the line
was away when it is back, although nobody waits for it any more; with the id, that and each repetition here
count once. While a stream has no leader nothing is accepted, for four to seven seconds where a leader was
killed, so a message is tried for `PATIENCE_S` before the servers count as away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from skyisland.fleet.line import Away
from skyisland.fleet.natsline import NatsLine
from skyisland.host.tasks import cancel_all
from skyisland.status import LineState

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_S = 10.0
"""How long a message is tried: longer than a new leader takes (6.3 s at the most, measured)."""
TRY_S = 3.0
"""One attempt."""
AGAIN_S = 0.2
MAKE_AGAIN_S = 1.0
READ_AT_ONCE = 500
"""Headers that are asked for in one request: fewer than a subscription may have pending, or the library drops
them as a slow consumer's."""
GONE = (nats.js.errors.NotFoundError, nats.js.errors.ServerError, nats.js.errors.BadRequestError)
"""What servers say, each version its own, of a message that is to be deleted and is not there."""
NAME_TAKEN = 10058
WRONG_LAST = (10071, 10164)
STORE_FAILED = 10077
NO_ROOM = (10002, 10047)
"""Error codes of the server: JSStreamNameExistErr, JSStreamWrongLastSequence…, JSStreamStoreFailedF,
JSAccountResourcesExceededErr and JSStorageResourcesExceededErr."""
NO_ROOM_REMEDY = "raise max_file_store in nats.conf, or lower async.results_limit and async.queue_limit"
"""Servers promise each stream all of its room when it is made."""


class Conflict(Exception):
    """The subject's last message is another one than was expected."""


class Full(Exception):
    """A bound of the stream is reached; the text has the server's word for it."""


class Stored(Struct, frozen=True):
    """A message as it lies in a stream."""

    seq: int
    subject: str
    body: bytes
    headers: dict[str, str]


class Stream:
    """One stream."""

    def __init__(self, line: NatsLine, config: api.StreamConfig) -> None:
        self._line = line
        self._config = config
        self.name = config.name or ""
        self.refused = ""
        """Why the servers do not have it; empty as far as is known."""
        self._context: JetStreamContext | None = None

    @property
    def js(self) -> JetStreamContext:
        """The library's way to streams.

        Raises:
            Away
        """
        client = self._line.client
        if self._context is None:
            self._context = client.jetstream(timeout=TRY_S)
        return self._context

    async def make(self) -> None:
        """Make the stream, or give the one that there is the bounds of this island's settings.

        Raises:
            Away: or the servers refuse; the text says why.
        """
        try:
            await self.js.add_stream(self._config)
        except nats.js.errors.APIError as error:
            if error.err_code != NAME_TAKEN:
                self.refused = f"the stream {self.name}: {_told(error)}"
                raise Away(self.refused) from error
            await self._asked(self._change)
        except nats.errors.Error as error:
            raise Away(f"the stream {self.name}: {_told(error)}") from error
        self.refused = ""

    async def _change(self) -> None:
        """Give the stream that there is this island's bounds, but none by which something in it would go."""
        there = await self.js.stream_info(self.name)
        config = self._config
        if there.state.messages:
            most = max(config.max_msgs_per_subject, there.config.max_msgs_per_subject)
            config = config.evolve(max_msgs_per_subject=most)
        await self.js.update_stream(config)

    async def consume(self, config: api.ConsumerConfig) -> None:
        """Make a consumer, if it is not there.

        Raises:
            Away
        """
        await self._asked(lambda: self.js.add_consumer(self.name, config))

    async def pending(self) -> dict[str, int]:
        """How many messages each consumer has not handed out yet.

        Raises:
            Away
        """
        infos = await self._asked(lambda: self.js.consumers_info(self.name))
        return {info.name: info.num_pending for info in infos}

    async def publish(
        self, subject: str, body: bytes, *, last: int | None = None, headers: dict[str, str] | None = None
    ) -> int:
        """Keep a message, on the servers' disks when this returns; returns its number. `last`: the number of
        the one before it on its subject, 0 for none.

        Raises:
            Conflict, Full, Away
        """
        all_headers = {api.Header.MSG_ID.value: secrets.token_hex(8)} | (headers or {})
        if last is not None:
            all_headers[api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value] = str(last)
        return (await self._publish(subject, body, all_headers))[0]

    async def publish_once(self, subject: str, body: bytes, id: str) -> int:  # noqa: A002
        """The same, unless anybody published one with this id in the last two minutes, and it is there; then
        the number of that one.

        Raises:
            Full, Away
        """
        seq, duplicate = await self._publish(subject, body, {api.Header.MSG_ID.value: id})
        if duplicate and await self.at(seq) is None:
            return await self.publish(subject, body)  # it was taken back
        return seq

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str]) -> tuple[int, bool]:
        """Returns its number, and whether there is one with this id."""

        async def once() -> tuple[int, bool]:
            try:
                # A copy, for the library writes into it.
                acked = await self.js.publish(subject, body, timeout=TRY_S, headers=dict(headers))
            except nats.js.errors.APIError as error:
                if error.err_code in WRONG_LAST:
                    raise Conflict from None
                if error.err_code == STORE_FAILED:
                    raise Full(error.description or "") from None
                raise
            return int(acked.seq), bool(acked.duplicate)

        return await self._insist(once)

    async def last(self, subject: str) -> Stored | None:
        """The last message of a subject.

        Raises:
            Away
        """
        return await self._read(lambda: self.js.get_msg(self.name, subject=subject))

    async def at(self, seq: int) -> Stored | None:
        """The message of this number.

        Raises:
            Away
        """
        return await self._read(lambda: self.js.get_msg(self.name, seq=seq))

    async def after(self, seq: int, subject: str) -> Stored | None:
        """The first message of a subject, which may be a pattern, after this number.

        Raises:
            Away
        """
        return await self._read(lambda: self.js.get_msg(self.name, seq=seq + 1, subject=subject, next=True))

    async def _read(self, get: Callable[[], Awaitable[Any]]) -> Stored | None:
        async def once() -> Stored | None:
            try:
                raw = await get()
            except nats.js.errors.NotFoundError:
                return None
            return Stored(raw.seq, raw.subject, raw.data or b"", dict(raw.headers or {}))

        return await self._insist(once)

    async def delete(self, seq: int) -> None:
        """Take one message away. May be repeated.

        Raises:
            Away
        """

        async def once() -> None:
            with contextlib.suppress(*GONE):
                await self.js.delete_msg(self.name, seq)

        await self._insist(once)

    async def purge(self, subject: str) -> None:
        """Take away all of a subject. May be repeated.

        Raises:
            Away
        """
        await self._insist(lambda: self.js.purge_stream(self.name, subject=subject))

    async def last_seq(self) -> int:
        """The number of the last message of all.

        Raises:
            Away
        """
        info: api.StreamInfo = await self._insist(lambda: self.js.stream_info(self.name))
        return int(info.state.last_seq)

    async def subjects(self, pattern: str) -> list[str]:
        """The subjects with a message that are of a pattern.

        Raises:
            Away
        """
        info: api.StreamInfo = await self._insist(lambda: self.js.stream_info(self.name, pattern))
        return list(info.state.subjects or {})

    async def headers(self, after: int) -> AsyncIterator[list[Msg]]:
        """The headers of all messages after a number, some at a time, oldest first.

        Through a consumer that lives as long as this, and not the library's ordered one: that, and a watch,
        are silent for ever after a restart of the server.

        Raises:
            Away
        """
        config = api.ConsumerConfig(
            name=f"look-{secrets.token_hex(6)}",
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=api.AckPolicy.NONE,
            headers_only=True,
            inactive_threshold=10.0,
            mem_storage=True,
            num_replicas=1,
        )
        await self._asked(lambda: self.js.add_consumer(self.name, config))
        came: asyncio.Queue[Msg] = asyncio.Queue()
        client = self._line.client
        inbox = client.new_inbox()

        async def heard(message: Msg) -> None:
            came.put_nowait(message)

        subscription = await client.subscribe(inbox, cb=heard, pending_msgs_limit=2 * READ_AT_ONCE)
        try:
            page = [None]
            while page:
                page = []
                await pull(self._line, self.name, config.name or "", inbox, READ_AT_ONCE)
                while len(page) < READ_AT_ONCE:
                    async with asyncio.timeout(TRY_S):
                        message = await came.get()
                    if status_of(message):
                        break
                    page.append(message)
                if page:
                    yield page
        except TimeoutError:
            raise Away(f"the stream {self.name} does not answer") from None
        except nats.errors.Error as error:
            raise Away(_told(error)) from error
        finally:
            try:
                await subscription.unsubscribe()
                await self.js.delete_consumer(self.name, config.name or "")
            except (nats.errors.Error, Away):
                pass  # it goes when it is not used any more

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask once.

        Raises:
            Away
        """
        try:
            return await ask()
        except nats.errors.Error as error:
            raise Away(f"the stream {self.name}: {_told(error)}") from error

    async def _insist(self, once: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer, for as long as a new leader may take.

        Raises:
            Away
        """
        began = time.monotonic()
        while True:
            try:
                return await once()
            except Away as away:
                problem = away
                if self._line.state is LineState.away and time.time() - self._line.since > PATIENCE_S:
                    raise  # it was waited for already
                if self._line.state in (LineState.refused, LineState.closed):
                    raise
            except nats.errors.MaxPayloadError:
                raise Full("a message is longer than the servers take (max_payload)") from None
            except (nats.errors.Error, TimeoutError) as error:
                problem = Away(self.refused or f"the stream {self.name}: {_told(error)}")
                if self.refused:
                    raise problem from error
            if time.monotonic() - began > PATIENCE_S:
                raise problem
            await asyncio.sleep(AGAIN_S)


class Making:
    """Makes something each time that the servers are reached: at once, and again until it succeeds. Nobody
    waits for more than the first attempt. `start` comes first, `close` last."""

    def __init__(self, line: NatsLine, make: Callable[[], Awaitable[None]]) -> None:
        self._line, self._make = line, make
        self._again: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._line.whenever_joined(self._joined)

    async def close(self) -> None:
        await cancel_all(self._again)

    async def _joined(self) -> None:
        await cancel_all(self._again)
        try:
            await self._make()
        except Away as away:
            log.warning("%s; it is tried again", away.message)
            self._again = asyncio.create_task(self._insist(away.message))

    async def _insist(self, told: str) -> None:
        while self._line.state is LineState.joined:
            await asyncio.sleep(MAKE_AGAIN_S)
            try:
                await self._make()
            except Away as away:
                if away.message != told:
                    log.warning("%s; it is tried again", away.message)
                    told = away.message
            else:
                log.info("the fleet's servers keep what they are given")
                return


async def pull(
    line: NatsLine, stream: str, consumer: str, inbox: str, batch: int, expires_s: float | None = None
) -> None:
    """Ask a consumer for messages; those that there are now, or that come within `expires_s`. They come to
    `inbox`, and so does a message with a status (`status_of`) when no more do.

    The library's `fetch` is not used: it asks twice, and what answers its first question late takes a message
    of the next one.

    Raises:
        Away
    """
    asks: dict[str, object] = {"batch": batch}
    if expires_s is None:
        asks["no_wait"] = True
    else:
        asks["expires"] = int(expires_s * 1e9)
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
    await line.publish(subject, json.dumps(asks).encode(), reply=inbox)


def status_of(message: Msg) -> str:
    """Of a message that says that no more come: `404` for none, `408` for the end of the time; else empty."""
    return "" if message.data else (message.headers or {}).get(api.Header.STATUS.value, "")


def _told(error: Exception) -> str:
    if isinstance(error, nats.js.errors.NoStreamResponseError):
        return "the servers have it not, or no leader for it; `skyisland doctor` says why"
    if isinstance(error, nats.js.errors.APIError):
        told = error.description or "no answer; is JetStream enabled on all servers?"
        return f"{told}; {NO_ROOM_REMEDY}" if error.err_code in NO_ROOM else told
    return str(error).removeprefix("nats: ") or type(error).__name__
