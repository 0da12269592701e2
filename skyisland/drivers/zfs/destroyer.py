"""The ends of ZFS clones: many at a time, patiently, off everybody's path.

Destroying a dataset waits for a transaction group. So those that come while one is being destroyed are
taken together, by one channel program where there is one (zfs-program(8)). A dataset that is busy for
longer is nobody's business any more but the reaper's here: a dying jail may hold its root for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import msgspec

from skyisland.drivers.zfs import commands
from skyisland.errors import DriverError
from skyisland.host.programs import ProgramFailed, Programs

log = logging.getLogger(__name__)

PROGRAM_FROM = 3
"""So many clones at once are worth a channel program: it needs two processes where each clone needs one."""
PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Between attempts on a busy dataset; then every second or two."""


class Destroyer:
    """Destroys the datasets of clones."""

    def __init__(self, pool: str, jails: Path, patience_s: float, programs: Programs) -> None:
        """`jails`: where clones are mounted, each by its last name. `patience_s`: for how long a busy
        dataset is tried again."""
        self.with_program = True
        """Whether channel programs work here."""
        self.lingering: dict[str, asyncio.Task[None]] = {}
        """Datasets that were busy for too long, with who goes on trying."""
        self._pool = pool
        self._jails = jails
        self._patience_s = patience_s
        self._programs = programs
        self._doomed: dict[str, asyncio.Future[None]] = {}
        self._destroying: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> None:
        self._closed = False

    async def destroy(self, dataset: str) -> None:
        """In the next batch.

        Raises:
            DriverError: it stays busy; it is tried again in the background, and at the next start.
        """
        if dataset not in self._doomed:
            self._doomed[dataset] = asyncio.get_running_loop().create_future()
        ending = self._doomed[dataset]
        if self._destroying is None or self._destroying.done():
            self._destroying = asyncio.ensure_future(self._work_off())
        await asyncio.shield(ending)

    async def _work_off(self) -> None:
        while self._doomed:
            batch, self._doomed = self._doomed, {}
            left = list(batch)
            if len(left) >= PROGRAM_FROM and self.with_program:
                left = await self._destroy_at_once(left)
            for dataset, ending in batch.items():
                failure: Exception | None = None
                if dataset in left:
                    try:
                        await self._destroy_one(dataset)
                    except (DriverError, OSError) as error:
                        failure = error
                if not ending.done():
                    ending.set_exception(failure) if failure else ending.set_result(None)

    async def _destroy_at_once(self, datasets: list[str]) -> list[str]:
        """By one channel program; returns those that are still there."""
        paths = [str(self._jails / dataset.rpartition("/")[2]) for dataset in datasets]
        with contextlib.suppress(DriverError):  # one that is not mounted makes it fail, rightly
            await self._programs.run(commands.umount_argv(paths))
        try:
            said = await self._programs.run(
                commands.program_argv(self._pool, datasets), stdin=commands.PROGRAM
            )
            results = msgspec.json.decode(said, type=dict[str, dict[str, int]]).get("return", {})
        except (DriverError, msgspec.MsgspecError) as failure:
            if isinstance(failure, ProgramFailed) and "unrecognized command" in failure.said:
                self.with_program = False
            log.info("destroying one by one, for a channel program failed: %s", failure)
            return datasets
        left = [dataset for dataset in datasets if results.get(dataset) != 0]
        await asyncio.to_thread(self._remove_folders, [d for d in datasets if d not in left])
        return left

    def _remove_folders(self, datasets: list[str]) -> None:
        for dataset in datasets:
            with contextlib.suppress(OSError):
                (self._jails / dataset.rpartition("/")[2]).rmdir()

    async def _destroy_one(self, dataset: str) -> None:
        try:
            await self._attempt(dataset)
        except ProgramFailed as failure:
            if commands.busy(failure):
                self.linger(dataset)
                raise DriverError(
                    f"{failure.message}; it is tried again in the background", dataset=dataset
                ) from failure
            raise

    async def _attempt(self, dataset: str) -> None:
        """Destroy it, patiently but not for long."""
        for pause_s in (*PAUSES_S, None):
            try:
                await commands.zfs(self._programs, commands.destroy_argv(dataset))
                return
            except ProgramFailed as failure:
                if commands.gone(failure):
                    return
                if not commands.busy(failure) or pause_s is None:
                    raise
                await asyncio.sleep(pause_s)

    def linger(self, dataset: str) -> None:
        """Go on trying: a dying jail may hold its root for a minute (TIME_WAIT)."""
        if dataset not in self.lingering:
            self.lingering[dataset] = task = asyncio.ensure_future(self._reap(dataset))
            task.add_done_callback(lambda _: self.lingering.pop(dataset, None))

    async def _reap(self, dataset: str) -> None:
        last_s = time.monotonic() + self._patience_s
        while True:
            try:
                await self._attempt(dataset)
                return
            except (DriverError, OSError) as failure:
                if time.monotonic() > last_s or self._closed:
                    log.error("%s stays until the next start: %s", dataset, failure)
                    return
            await asyncio.sleep(min(2.0, self._patience_s / 10))

    async def close(self) -> None:
        """Give those that linger one more chance, and wait for it; `open` is the way back."""
        self._closed = True
        await asyncio.gather(*self.lingering.values())
