"""Work that many wait for and that is done once."""

from __future__ import annotations

import asyncio

import pytest

from skyisland.errors import IslandError, SourceUnavailable
from skyisland.host.flight import Flights


class Work:
    """A piece of work that tells when it starts and how it ends, and waits to be let go."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.error: IslandError | None = None

    async def __call__(self) -> int:
        self.started += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.started


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_wait_for_one_piece_of_work() -> None:
    flights: Flights[int] = Flights()
    work = Work()
    waiting = [asyncio.create_task(flights.join("key", work)) for _ in range(200)]
    await turns()
    work.go.set()
    assert await asyncio.gather(*waiting) == [1] * 200
    assert await flights.join("key", work) == 2
    assert len(flights) == 0


async def test_its_error_is_everyones() -> None:
    flights: Flights[int] = Flights()
    work = Work()
    work.error = SourceUnavailable("no")
    work.go.set()
    results = await asyncio.gather(*(flights.join(1, work) for _ in range(3)), return_exceptions=True)
    assert results == [work.error] * 3


async def test_who_leaves_does_not_disturb_the_others() -> None:
    flights: Flights[int] = Flights()
    work = Work()
    first, second = (asyncio.create_task(flights.join(1, work)) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    work.go.set()
    assert await second == 1
    assert first.cancelled()


async def test_the_last_to_leave_ends_the_work_before_it_leaves() -> None:
    flights: Flights[int] = Flights()
    work = Work()
    waiting = [asyncio.create_task(flights.join(1, work)) for _ in range(3)]
    await turns()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (work.started, work.cancelled, len(flights)) == (1, 1, 0)


async def test_closing_ends_all() -> None:
    flights: Flights[int] = Flights()
    work = Work()
    waiting = asyncio.create_task(flights.join(1, work))
    await turns()
    await flights.close()
    assert work.cancelled == 1
    with pytest.raises(asyncio.CancelledError):
        await waiting
