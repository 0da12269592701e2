"""How an island shows what it prepares: the first start on a host takes most of a minute.

On a terminal by bars, which go when all is ready; else by a line of the log every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from skyisland.host.tasks import Progress as Report

log = logging.getLogger(__name__)

FIRST_S, NEXT_S = 2.0, 5.0
"""A start that takes less is not worth a line; the seconds between two lines."""


class Shown(NamedTuple):
    """A place where progress is shown."""

    report: Report
    end: Callable[[], object]
    """Called when all is ready; may be repeated."""


@contextlib.contextmanager
def bars(console: Console, *, transient: bool = False) -> Iterator[Shown]:
    """Draws the progress of each piece of work as a bar on `console`; `transient`: they go in the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=transient) as drawn:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what, total=total or None)
            drawn.update(tasks[what], completed=done, total=total or None)

        yield Shown(report, drawn.stop)


class Lines:
    """Says in a line what is being done, and for how long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._latest = ("the host", 0, 0)

    def report(self, what: str, done: int, total: int) -> None:
        self._latest = what, done, total

    def line(self) -> str:
        what, done, total = self._latest
        of = f" ({done} of {total})" if total > 1 else ""
        return f"preparing: {what}{of}, {self._clock() - self._started:.0f} s so far"


@contextlib.asynccontextmanager
async def shown(
    *, on_terminal: bool, first_s: float = FIRST_S, next_s: float = NEXT_S
) -> AsyncIterator[Shown]:
    """Until it is ended, what is reported is shown: to those at the terminal, or in the log."""
    if on_terminal:
        with bars(Console(stderr=True), transient=True) as drawn:
            yield drawn
        return
    lines = Lines()

    async def tell() -> None:
        await asyncio.sleep(first_s)
        while True:
            log.info("%s", lines.line())
            await asyncio.sleep(next_s)

    telling = asyncio.create_task(tell())
    try:
        yield Shown(lines.report, telling.cancel)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
