"""Small things that all islands share, by key: buckets of the servers' store (JetStream KV).

A bucket is made when it is first used. Nothing here watches: a watch is silent for ever after a server's
restart (nats.py, issue 644). Who waits for a change looks again, or is told on a subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import nats.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
)
from nats.js.kv import KeyValue

from skyisland.fleet.line import Away
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.streams import NAME_TAKEN, WRONG_LAST

ANSWER_S = 2.0
"""For one answer of the store. With three replicas, a leader that is killed takes four to six seconds to have
a successor (measured): who cannot wait for that goes on alone, who can tries again."""


class Entry(Struct, frozen=True):
    """A value, and which one it is."""

    value: bytes
    revision: int


class Bucket(Protocol):
    """Keys are letters, digits and `-_=./`; a value is a message. Each method raises `Away` where the servers
    cannot be reached, or do not answer in time: then it is not known whether it was done."""

    async def get(self, key: str) -> Entry | None: ...
    async def below(self, prefix: str) -> dict[str, Entry]:
        """Those few whose keys are the prefix, a dot, and one more word; by that word."""

    async def create(self, key: str, value: bytes) -> int | None:
        """The revision; None if the key is there already."""

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """The new revision; None if it is not at this one."""

    async def put(self, key: str, value: bytes) -> None: ...
    async def delete(self, key: str, revision: int | None = None) -> bool:
        """`revision`: only if it is at this one; False if it is not."""


class NatsBucket:
    """A bucket (`Bucket`) on the servers."""

    def __init__(
        self,
        line: NatsLine,
        name: str,
        *,
        replicas: int,
        keep_s: float | None = None,
        largest_bytes: int | None = None,
    ) -> None:
        """`keep_s`: after which a value is forgotten that nobody wrote again."""
        self._line = line
        self._config = KeyValueConfig(
            bucket=name,
            replicas=replicas,
            ttl=keep_s,
            max_value_size=largest_bytes,
            history=1,
            direct=True,
        )
        self._store: KeyValue | None = None
        self._making = asyncio.Lock()

    async def get(self, key: str) -> Entry | None:
        async with self._opened() as store:
            try:
                entry = await store.get(key)
            except KeyNotFoundError:
                return None
            return Entry(entry.value or b"", entry.revision)

    async def below(self, prefix: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        subject = f"$KV.{self._config.bucket}.{prefix}.*"
        async with self._opened():
            js, next_ = jetstream(self._line), 1
            while True:
                try:
                    message = await js.get_msg(
                        f"KV_{self._config.bucket}", seq=next_, subject=subject, next=True, direct=True
                    )
                except NotFoundError:
                    return found
                next_ = message.seq + 1
                if not (message.headers or {}).get("KV-Operation"):
                    word = message.subject.rpartition(".")[2]
                    found[word] = Entry(message.data or b"", message.seq)

    async def create(self, key: str, value: bytes) -> int | None:
        async with self._opened() as store:
            try:
                return int(await store.create(key, value))
            except KeyWrongLastSequenceError:
                return None

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        async with self._opened() as store:
            try:
                return int(await store.update(key, value, last=revision))
            except KeyWrongLastSequenceError:
                return None

    async def put(self, key: str, value: bytes) -> None:
        async with self._opened() as store:
            await store.put(key, value)

    async def delete(self, key: str, revision: int | None = None) -> bool:
        async with self._opened() as store:
            try:
                await store.delete(key, last=revision)
            except APIError as error:
                if revision is None or error.err_code not in WRONG_LAST:
                    raise
                return False
            return True

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[KeyValue]:
        with spoken():
            if self._store is None:
                async with self._making:
                    self._store = self._store or await self._made()
            yield self._store

    async def _made(self) -> KeyValue:
        js = jetstream(self._line)
        try:
            return await js.key_value(self._config.bucket)
        except BucketNotFoundError:
            pass
        try:
            return await js.create_key_value(self._config)
        except APIError as error:
            if error.err_code != NAME_TAKEN:
                raise
            # Another island made it a moment ago, with settings of its own.
            return await js.key_value(self._config.bucket)


def jetstream(line: NatsLine, timeout_s: float = ANSWER_S) -> JetStreamContext:
    """What streams and stores are reached by.

    Raises:
        Away
    """
    return line.client.jetstream(timeout=timeout_s)


@contextmanager
def spoken() -> Iterator[None]:
    """Turns the library's errors in its block into `Away`."""
    try:
        yield
    except (nats.errors.Error, TimeoutError) as error:
        raise Away(str(error) or type(error).__name__) from error
