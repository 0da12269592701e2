"""Work that an island does while nobody calls: it stops for each call, and goes on in the next quiet moment.

`serve` compiles the standard library so. Without that, the first builds of each repository compile the parts
that they need into the cache of their repository: 20 s in place of 3 for one that imports net/http.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from skyisland.errors import Unavailable
from skyisland.host.tasks import Progress

log = logging.getLogger(__name__)

QUIET_S = 5.0
"""Without a call for so long, the island has time. A judgement: who tries a function calls more often."""
LOOK_S = 1.0
"""Between two looks whether the calls under way are over."""

Work = Callable[[Progress], Coroutine[Any, Any, None]]
"""What is done; cancelled at any moment, it goes on where it was when it is called again."""


class Ahead:
    """One piece of such work. `start` comes first, `close` last."""

    def __init__(self, work: Work, *, quiet_s: float = QUIET_S) -> None:
        self.stage = ""
        """How far it is, in words; empty before the start and after the end."""
        self._work = work
        self._quiet_s = quiet_s
        self._quiet_at = 0.0
        self._working: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, busy: Callable[[], bool]) -> None:
        """Begin when it is quiet. `busy`: some call is under way."""
        self._quiet_at = time.monotonic() + self._quiet_s
        self._task = asyncio.create_task(self._run(busy))

    def disturb(self) -> None:
        """Stop for now: somebody calls. A call comes by here, so this costs nothing once the work is done."""
        if self._task is not None:
            self._quiet_at = time.monotonic() + self._quiet_s
            if self._working is not None:
                self._working.cancel()

    async def close(self) -> None:
        """Stop for good. May be repeated."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, busy: Callable[[], bool]) -> None:
        started, worked_s = time.monotonic(), 0.0
        try:
            while True:
                await self._quiet(busy)
                began = time.monotonic()
                error = await self._try()
                worked_s += time.monotonic() - began
                if error is None:
                    if self.stage:  # else all was done before
                        since_s = time.monotonic() - started
                        log.info("%s: done in %.0f s, of %.0f", self.stage, worked_s, since_s)
                    return
                if not isinstance(error, (asyncio.CancelledError, Unavailable)):
                    log.warning("%s: failed, and left to the builds that need it: %s", self.stage, error)
                    return
                # Somebody called, or an operator killed its jail.
                self._quiet_at = max(self._quiet_at, time.monotonic() + self._quiet_s)
        finally:
            self.stage, self._task = "", None

    async def _quiet(self, busy: Callable[[], bool]) -> None:
        """Wait until nobody has called for `quiet_s`, and no call is under way."""
        while True:
            left_s = self._quiet_at - time.monotonic()
            if left_s <= 0 and not busy():
                return
            await asyncio.sleep(left_s if left_s > 0 else min(LOOK_S, self._quiet_s))

    async def _try(self) -> BaseException | None:
        """Do the work; why it came to no end, if it did not."""
        working = self._working = asyncio.create_task(self._work(self._report))
        try:
            await asyncio.wait({working})
        finally:
            self._working = None
            working.cancel()
            await asyncio.wait({working})
        return asyncio.CancelledError() if working.cancelled() else working.exception()

    def _report(self, what: str, done: int, total: int) -> None:
        self.stage = f"{what}, {done} of {total}" if total else what
