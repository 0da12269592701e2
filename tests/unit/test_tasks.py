"""Work that comes to its end, and who holds what."""

from __future__ import annotations

import asyncio
import threading

import pytest

from skyisland.host import tasks
from skyisland.host.tasks import Background, InUse, aside, finish


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_result_and_the_error_of_work_are_its_callers() -> None:
    assert await aside(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 7, 0)


async def test_a_caller_who_is_cancelled_waits_for_the_end_of_a_thread() -> None:
    go, begun, over = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(20)
        over.append("over")

    caller = asyncio.ensure_future(aside(work))
    await begun.wait()
    for _ in range(3):  # however often
        caller.cancel()
        await turns()
        assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert over == ["over"]


async def test_work_hears_once_of_the_cancellation() -> None:
    stop = asyncio.Event()
    heard = []

    def cancelled() -> None:
        heard.append("cancelled")
        stop.set()

    async def work() -> None:
        await stop.wait()
        await turns()
        raise OSError("the caller does not hear of this, nor does the log")

    caller = asyncio.ensure_future(finish(work(), cancelled=cancelled))
    await turns()
    caller.cancel()
    await turns(2)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert heard == ["cancelled"]


async def test_work_that_is_cancelled_itself_cancels_its_caller() -> None:
    working = asyncio.ensure_future(asyncio.sleep(3600))
    caller = asyncio.ensure_future(finish(working, cancelled=lambda: pytest.fail("it is over")))
    await turns()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_deadline_passes_over_the_work() -> None:
    over = []

    async def work() -> None:
        await turns(20)
        over.append("over")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await finish(work())
    assert over == ["over"]


async def test_what_runs_in_the_background_is_drained_with_what_it_starts() -> None:
    background, over = Background(), []

    async def work(more: int) -> None:
        await turns()
        if more:
            background.start(work(more - 1))
        over.append(more)

    background.start(work(2))
    await background.drain()
    assert over == [2, 1, 0]
    await background.drain()


def test_a_thing_is_in_use_until_its_last_holder_lets_go() -> None:
    users: InUse[str] = InUse()
    users.take("a")
    users.take("a")
    users.take("b")
    assert ("a" in users, len(users), set(users)) == (True, 2, {"a", "b"})
    assert not users.let_go("a")
    assert "a" in users
    assert users.let_go("a")
    assert set(users) == {"b"}


async def test_a_task_that_misses_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.001)
    missed = 0

    async def deaf() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                missed += 1
                if missed == 2:
                    raise RuntimeError("at its end") from None

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await tasks.cancel_all(task, None)
    assert (task.done(), missed) == (True, 2)
    await tasks.cancel_all(task)
