"""Work that comes to its end whatever becomes of whoever asked for it.

A thread cannot be cancelled, and half a transaction is worse than none: such work is finished first, and the
cancellation raised afterwards (`finish`, `aside`). Nobody waits for other work (`Background`). `InUse` counts
who holds a thing that must not be deleted under its holders. Long work says how far it is by `Progress`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

CANCEL_AGAIN_S = 0.2
Progress = Callable[[str, int, int], None]
"""Receives what long work is at, how much of it is done, and how much there is (0: unknown)."""


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that nobody reads."""


async def finish(work: Awaitable[T], *, cancelled: Callable[[], object] | None = None) -> T:
    """The result of `work`. A caller who is cancelled waits for its end, and is cancelled then.

    `cancelled` is called at the first cancellation, so that the work can end sooner. What the work raises
    after a cancellation is dropped: the caller hears of the cancellation alone.
    """
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if cancelled is not None and not working.done():
            cancelled()
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # else asyncio logs that nobody asked for it
        raise


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work on a thread, and `finish` it."""
    return await finish(asyncio.to_thread(work, *args, **kwargs))


async def cancel_all(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they are done, whatever they end with. They are cancelled until they are:
    Python 3.11's `wait_for` drops a cancellation that comes in the same turn as what it waits for."""
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # else asyncio logs that nobody asked for it


class Background:
    """Tasks that run beside everything else; asyncio itself keeps no hold on a task, so it might be lost."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until none is left, nor any that one of them started."""
        while self._tasks:
            await asyncio.wait(self._tasks)


class InUse(Generic[K]):
    """The things that somebody holds: one is in it from its first `take` until its last holder lets go."""

    def __init__(self) -> None:
        self._holders: Counter[K] = Counter()

    def __contains__(self, thing: K) -> bool:
        return thing in self._holders

    def __iter__(self) -> Iterator[K]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)

    def take(self, thing: K) -> None:
        self._holders[thing] += 1

    def let_go(self, thing: K) -> bool:
        """Returns whether that was the last holder."""
        self._holders[thing] -= 1
        if self._holders[thing]:
            return False
        del self._holders[thing]
        return True
