"""Which calls there are, in memory: read from the headers of their records, each time from where it stood."""

from __future__ import annotations

import asyncio
import json

import msgspec
from msgspec import Struct

from skyisland.fleet.streams import Stream
from skyisland.later.calls import CallState
from skyisland.later.keeping import Standing, Wanted

ABOUT = "Sky-About"
"""The header of a record with what lists are made by, as JSON in ASCII: a header is a line of text."""
MOST = 100_000
"""Calls in the index; the oldest are forgotten, in it alone. A judgement: 30 MB."""


class About(Struct, frozen=True, array_like=True):
    """What lists of calls are made by."""

    client: str
    state: CallState
    name: str
    created_at: float
    ended_at: float | None
    size: int
    """Bytes of a call that is over."""
    pieces: str
    """The name of its result's pieces."""


class Index:
    """Calls by their ids, in the order in which they were accepted."""

    def __init__(self, records: Stream) -> None:
        self._records = records
        self._calls: dict[str, About] = {}
        self._read = 0
        """The number of the last record that is in it."""
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read what came since.

        Raises:
            Away
        """
        async with self._reading:
            if (last := await self._records.last_seq()) < self._read:
                self._calls, self._read = {}, 0  # it is another stream
            if last == self._read:
                return
            async for page in self._records.headers(self._read):
                for message in page:
                    about = (message.headers or {}).get(ABOUT, "")
                    try:
                        self._calls[message.subject.rpartition(".")[2]] = msgspec.convert(
                            json.loads(about), About
                        )
                    except (ValueError, RecursionError):
                        continue  # no island wrote it
                while len(self._calls) > MOST:
                    del self._calls[next(iter(self._calls))]
            self._read = last

    async def find(self, wanted: Wanted) -> list[str]:
        """The ids of those that are wanted, newest first."""
        return await asyncio.to_thread(_find, [*self._calls.items()], wanted)

    async def standing(self) -> Standing:
        """When the oldest was accepted that waits, and how many are dead."""
        return await asyncio.to_thread(_standing, [*self._calls.values()])

    async def old(self, since: float, dead_since: float, most_bytes: int) -> list[str]:
        """The ids of those that are over and were before `since` (dead ones: `dead_since`), and of the oldest
        where all take more than this."""
        calls = [*self._calls.items()]
        return await asyncio.to_thread(_old, calls, since, dead_since, most_bytes)

    def forget(self, call_id: str) -> str:
        """Take a call out; returns the name of its pieces."""
        about = self._calls.pop(call_id, None)
        return about.pieces if about is not None else ""


def _find(calls: list[tuple[str, About]], wanted: Wanted) -> list[str]:
    found: list[tuple[float, str]] = []
    for call_id, one in reversed(calls):
        if (
            wanted.client in ("", one.client)
            and wanted.state in (None, one.state)
            and wanted.name in ("", one.name)
            and one.created_at >= wanted.since
        ):
            found.append((one.created_at, call_id))
            if len(found) == wanted.limit:
                break
    return [call_id for _, call_id in sorted(found, key=lambda one: one[0], reverse=True)]


def _standing(calls: list[About]) -> Standing:
    waiting = [one.created_at for one in calls if one.state is CallState.queued]
    dead = sum(one.state is CallState.dead for one in calls)
    return Standing(oldest_at=min(waiting, default=None), dead=dead)


def _old(calls: list[tuple[str, About]], since: float, dead_since: float, most_bytes: int) -> list[str]:
    over = sorted((one.ended_at or one.created_at, id_, one) for id_, one in calls if one.state.final)
    size = sum(one.size for _, _, one in over)
    most_bytes = most_bytes if size <= most_bytes else most_bytes * 9 // 10
    gone = []
    for ended_at, call_id, one in over:
        if ended_at < (dead_since if one.state is CallState.dead else since) or size > most_bytes:
            gone.append(call_id)
            size -= one.size
    return gone
