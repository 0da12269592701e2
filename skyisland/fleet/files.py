"""Larger things that all islands share, by their hash: an object store of the servers (JetStream).

They are written as nats-py writes them, so that `nats object` reads them. They are read piece by piece, each
one request and one answer: the library's own reader makes a consumer, which is silent for ever when the
server is restarted, and adds bytes to bytes, which takes the square of their number (nats-py 2.16: 4 s for 32
MiB).
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from nats.js.api import ObjectMeta, ObjectMetaOptions, ObjectStoreConfig
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError
from nats.js.object_store import ObjectStore

from skyisland.fleet.buckets import jetstream, spoken
from skyisland.fleet.line import Away
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.streams import NAME_TAKEN

PIECE_BYTES = 512 << 10
"""2 MiB in pieces of 128 KiB take 25 ms, in these 5 (measured)."""
WHOLE_S = 60.0
"""For all of one. A build takes less, and then it is compiled here."""


class NatsFiles:
    """An object store (`binaries.Files`)."""

    def __init__(self, line: NatsLine, name: str, *, keep_s: float, limit_bytes: int) -> None:
        """`keep_s`: after which a thing is forgotten. `limit_bytes`: of all; beyond it none is taken."""
        self._line, self._name = line, name
        self._config = ObjectStoreConfig(bucket=name, ttl=keep_s, max_bytes=limit_bytes, replicas=1)
        self._store: ObjectStore | None = None
        self._making = asyncio.Lock()

    async def has(self, sha256: str) -> bool:
        with spoken():
            store = await self._opened()
            try:
                await store.get_info(sha256)
            except NotFoundError:
                return False
            return True

    async def put(self, sha256: str, file: Path) -> None:
        with spoken():
            store = await self._opened()
            reader = await asyncio.to_thread(file.open, "rb", buffering=0)
            try:
                async with asyncio.timeout(WHOLE_S):
                    options = ObjectMetaOptions(max_chunk_size=PIECE_BYTES)
                    await store.put(sha256, reader, meta=ObjectMeta(name=sha256, options=options))
            finally:
                await asyncio.to_thread(reader.close)

    async def get(self, sha256: str, into: Path, most_bytes: int) -> bytes:
        digest, size_bytes, next_ = hashlib.sha256(), 0, 1
        with spoken():
            store = await self._opened()
            info = await store.get_info(sha256)
            subject, stream = f"$O.{self._name}.C.{info.nuid}", f"OBJ_{self._name}"
            js = jetstream(self._line)
            writer = await asyncio.to_thread(into.open, "xb")
            try:
                for _ in range(info.chunks or 0):
                    piece = await js.get_msg(stream, seq=next_, subject=subject, next=True, direct=True)
                    data, next_ = piece.data or b"", piece.seq + 1
                    size_bytes += len(data)
                    if size_bytes > most_bytes:
                        raise Away(f"{sha256[:12]} is longer than its island said")
                    digest.update(data)  # half a mebibyte: a fifth of a millisecond
                    await asyncio.to_thread(writer.write, data)
            finally:
                await asyncio.to_thread(writer.close)
        return digest.digest()

    async def _opened(self) -> ObjectStore:
        if self._store is None:
            async with self._making:
                self._store = self._store or await self._made()
        return self._store

    async def _made(self) -> ObjectStore:
        js = jetstream(self._line)
        try:
            return await js.object_store(self._name)
        except BucketNotFoundError:
            pass
        try:
            return await js.create_object_store(self._name, self._config)
        except APIError as error:
            if error.err_code != NAME_TAKEN:
                raise
            return await js.object_store(self._name)
