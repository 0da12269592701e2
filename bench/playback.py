"""Records the API's answers to a console, and plays them to other consoles.

A console that plays a recording reads, folds and draws as an attached one does: it is as busy, but costs
the island nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
from msgspec import Struct

SNAPSHOT_S = 2.0
"""Time between two recorded snapshots. A console asks less often, and gets the latest."""


class Recording(Struct, frozen=True):
    """What one console received: pieces of the event stream, and snapshots, each with its time in seconds."""

    pieces: list[tuple[float, bytes]]
    snapshots: list[tuple[float, bytes]]


async def record(url: str, headers: dict[str, str], seconds: float) -> Recording:
    """Record the event stream and the snapshots of the island at `url`."""
    recording = Recording([], [])
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        first = (await client.get("/api/v1/admin/snapshot")).content
        recording.snapshots.append((0.0, first))
        last_id = msgspec.json.decode(first)["last_event_id"]
        began = time.perf_counter()

        async def listen() -> None:
            after = {"Last-Event-ID": last_id}
            path = "/api/v1/admin/events?brief=true"
            async with client.stream("GET", path, headers=after, timeout=None) as response:
                async for piece in response.aiter_raw():
                    recording.pieces.append((time.perf_counter() - began, piece))

        listening = asyncio.create_task(listen())
        while time.perf_counter() - began < seconds:
            await asyncio.sleep(SNAPSHOT_S)
            snapshot = (await client.get("/api/v1/admin/snapshot")).content
            recording.snapshots.append((time.perf_counter() - began, snapshot))
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return recording


class Player(httpx.AsyncBaseTransport):
    """An HTTP transport that answers from a recording, at the recorded times; at its end it stays silent."""

    def __init__(self, path: Path) -> None:
        self._recording = msgspec.msgpack.decode(path.read_bytes(), type=Recording)
        self._began = time.perf_counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, stream=_Stream(self._recording.pieces, self._began))
        now = time.perf_counter() - self._began
        *_, latest = (snapshot for at, snapshot in self._recording.snapshots if at <= now)
        return httpx.Response(200, content=latest)


class _Stream(httpx.AsyncByteStream):
    def __init__(self, pieces: list[tuple[float, bytes]], began: float) -> None:
        self._pieces, self._began = pieces, began

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at, piece in self._pieces:
            await asyncio.sleep(max(0.0, self._began + at - time.perf_counter()))
            yield piece
        await asyncio.Event().wait()
