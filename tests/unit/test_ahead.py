"""Work for quiet moments: when it begins, stops, goes on and ends."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from skyisland.builds.ahead import Ahead
from skyisland.errors import BuildFailed, Unavailable
from skyisland.host.tasks import Progress
from skyisland.model import NetworkAccess
from tests.support.workshop import opened, source

QUIET_S = 0.01


class Labour:
    """Work in three steps, each of which waits to be let go."""

    def __init__(self) -> None:
        self.steps = 0
        self.begun = 0
        self.news = asyncio.Event()
        self.go_on = asyncio.Event()
        self.fail: Exception | None = None

    async def __call__(self, progress: Progress) -> None:
        self.begun += 1
        self.news.set()
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        while self.steps < 3:
            progress("working", self.steps, 3)
            await self.go_on.wait()
            self.steps += 1

    async def again(self) -> None:
        """Wait until it was begun once more."""
        await asyncio.wait_for(self.news.wait(), 10)
        self.news.clear()


async def over(ahead: Ahead) -> None:
    """Wait until it has come to its end."""
    task = ahead._task
    if task is not None:
        await asyncio.wait_for(task, 10)


async def test_it_stops_for_a_call_and_goes_on_when_it_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labour, calls = Labour(), [True]
    ahead = Ahead(labour, quiet_s=QUIET_S)
    ahead.start(lambda: bool(calls))
    await asyncio.sleep(3 * QUIET_S)
    assert labour.begun == 0, "a call is under way"
    calls.clear()
    await labour.again()
    assert ahead.stage == "working, 0 of 3"
    labour.steps = 2
    ahead.disturb()
    await labour.again()
    labour.go_on.set()
    await over(ahead)
    assert (labour.begun, labour.steps, ahead.stage) == (2, 3, "")
    assert "working, 2 of 3: done" in caplog.text
    ahead.disturb()
    await ahead.close()


async def test_what_an_operator_killed_is_tried_again_and_what_failed_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labour = Labour()
    labour.fail = Unavailable("stopped by the operator")
    ahead = Ahead(labour, quiet_s=QUIET_S)
    ahead.start(bool)
    await labour.again()
    labour.fail = BuildFailed("the disk is full")
    await labour.again()
    await over(ahead)
    assert labour.begun == 2
    assert "the disk is full" in caplog.text


async def test_it_ends_with_the_island() -> None:
    labour = Labour()
    ahead = Ahead(labour, quiet_s=QUIET_S)
    ahead.start(bool)
    await labour.again()
    await ahead.close()
    await ahead.close()
    assert ahead.stage == ""
    assert labour.steps == 0


async def test_the_library_is_compiled_by_one_processor_and_only_once(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        shop.go.specs.clear()
        compiler = shop.builds._compiler
        await compiler.library.compile_all(gently=True)
        building = [spec for spec in shop.go.specs if spec.argv[1:3] == ("build", "-trimpath")]
        assert building[0].argv[3:] == ("fmt", "net/http")
        assert dict(building[0].env)["GOMAXPROCS"] == "1"
        assert all(not source(spec) and spec.network is NetworkAccess.none for spec in building)
        shop.go.specs.clear()
        await compiler.library.compile_all(gently=True)
        assert shop.go.specs == []
