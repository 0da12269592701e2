"""One piece of work per key, however many want its result.

The first to ask starts the work, later ones wait for the same. Whoever stops waiting leaves the others
undisturbed; when the last one leaves, the work is cancelled, and the leaving ends only when it is over:
nobody is told "cancelled" while something still runs on their behalf.
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


class Flights(Generic[T]):
    """Work in progress, by key. A finished piece is forgotten: whoever asks then starts anew."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: Hashable, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """The result of the work under way for `key`, or else of `work()`; its error is everyone's."""
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
                # Nobody boards a flight that is being cancelled.
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
            task.exception()  # An error that nobody is left to hear is no news to asyncio either.

    async def close(self) -> None:
        """Cancel all work under way, and wait for its end."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
