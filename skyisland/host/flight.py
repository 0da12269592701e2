"""One piece of work per key, however many callers want its result.

The first caller starts the work, later ones wait for the same (a flight, which they board). A caller that is
cancelled leaves the others undisturbed. When the last one is cancelled, so is the work, and that caller
returns when the work has ended: nothing runs on for somebody who was told that it was cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class _Flight(Struct, Generic[T]):
    task: asyncio.Task[T]
    aboard: int = 0
    """Callers that wait for it."""


class Flights(Generic[T]):
    """Work in progress, by key. A result is not kept: whoever comes after the end starts the work again."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: Hashable, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """The result of the work in progress for `key`, or of `work()` if there is none. Its error is raised
        to every caller."""
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.create_task(work()))
            self._flights[key] = flight
            flight.task.add_done_callback(partial(self._land, key))
        flight.aboard += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.aboard == 1 and not flight.task.done():
                # It leaves the table first, so that nobody boards a flight that is being cancelled.
                self._land(key, flight.task)
                flight.task.cancel()
                await asyncio.wait({flight.task})
            raise
        finally:
            flight.aboard -= 1

    def _land(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio logs an error that no caller was left for

    async def close(self) -> None:
        """Cancel all work in progress, and wait for its end."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
