"""What is longer than a message, in pieces: under a random name, each a message of one stream.

Not the servers' object store: the library reads an object through a consumer that takes half a second from
8 MiB on, and a piece that is asked for by its subject takes two milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets

from skyisland.fleet.line import Away
from skyisland.fleet.streams import Stream
from skyisland.fleet.subjects import Subjects

INLINE_BYTES = 512 << 10
"""What is no longer stays whole: half of what servers take by default."""
PIECE_BYTES = 512 << 10
DIGEST_HEX = 32
MOST_PIECES = 4096
"""2 GiB, more than a jail may print."""


class Pieces:
    """Bytes by name. A name tells how many pieces there are, and their hash."""

    def __init__(self, stream: Stream, subjects: Subjects) -> None:
        self.stream = stream
        self._subjects = subjects

    async def put(self, data: bytes) -> str:
        """Keep it; returns its name.

        Raises:
            Full, Away
        """
        count = -(-len(data) // PIECE_BYTES)
        name = f"{secrets.token_hex(8)}-{count}-{await asyncio.to_thread(_digest, data)}"
        try:
            for number in range(count):
                part = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
                await self.stream.publish(self._subjects.kept("out", name, str(number)), part)
        except BaseException:
            await self.drop(name)
            raise
        return name

    async def get(self, name: str) -> bytes | None:
        """What has this name; None if it is gone, or is not what was put.

        Raises:
            Away
        """
        _, _, rest = name.partition("-")
        count, _, digest = rest.partition("-")
        if re.fullmatch(r"[0-9]{1,4}", count) is None or int(count) > MOST_PIECES:
            return None
        parts = []
        for number in range(int(count)):
            stored = await self.stream.last(self._subjects.kept("out", name, str(number)))
            if stored is None:
                return None
            parts.append(stored.body)
        data = b"".join(parts)
        return data if await asyncio.to_thread(_digest, data) == digest else None

    async def drop(self, name: str) -> None:
        """Delete it; what cannot be now goes when it is old. An empty name is nothing."""
        if name:
            with contextlib.suppress(Away):
                await self.stream.purge(self._subjects.kept("out", name, "*"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_HEX]
