"""Destroys ZFS clones, in batches, and retries those that are busy.

Destroying a dataset waits for a transaction group. So the clones that arrive meanwhile form the next batch,
which one channel program (zfs-program(8)) destroys in one transaction group. A dataset that stays busy is
retried in the background: a dying jail may pin its root for a minute (sockets in TIME_WAIT).
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

PROGRAM_MIN_DATASETS = 3
"""From this many datasets on, a batch uses a channel program: it takes two processes (umount, zfs program),
and one by one each dataset takes one."""
BUSY_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Pauses between attempts on a busy dataset, while the caller waits: most are free within a second. A
judgement."""
RETRY_PAUSE_S = 2.0
"""Pause between rounds of such attempts in the background: a tenth of the timeout, but at most this."""


class Destroyer:
    """Destroys the datasets of clones."""

    def __init__(self, pool: str, jails: Path, busy_timeout_s: float, programs: Programs) -> None:
        """`jails`: the folder where clones are mounted, by the last part of their datasets' names.
        `busy_timeout_s`: for how long a busy dataset is retried in the background."""
        self.with_program = True
        """Whether channel programs work on this host."""
        self.retrying: dict[str, asyncio.Task[None]] = {}
        """Busy dataset → the task that retries it in the background."""
        self._pool = pool
        self._jails = jails
        self._busy_timeout_s = busy_timeout_s
        self._programs = programs
        self._waiting: dict[str, asyncio.Future[None]] = {}
        """The next batch: dataset → done when it is destroyed."""
        self._destroying: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> None:
        self._closed = False

    async def destroy(self, dataset: str) -> None:
        """Destroy a dataset, in the next batch.

        Raises:
            DriverError: it is busy; it is retried in the background, and at the next start.
        """
        if dataset not in self._waiting:
            self._waiting[dataset] = asyncio.get_running_loop().create_future()
        destroyed = self._waiting[dataset]
        if self._destroying is None or self._destroying.done():
            self._destroying = asyncio.ensure_future(self._destroy_batches())
        # A cancelled caller must not cancel the future: others may wait for it too.
        await asyncio.shield(destroyed)

    async def _destroy_batches(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            left = list(batch)
            if len(left) >= PROGRAM_MIN_DATASETS and self.with_program:
                left = await self._destroy_by_program(left)
            for dataset, destroyed in batch.items():
                failure: Exception | None = None
                if dataset in left:
                    try:
                        await self._destroy_one(dataset)
                    except (DriverError, OSError) as error:
                        failure = error
                if not destroyed.done():
                    destroyed.set_exception(failure) if failure else destroyed.set_result(None)

    async def _destroy_by_program(self, datasets: list[str]) -> list[str]:
        """Destroy datasets by one channel program. Returns those that still exist."""
        paths = [str(self._jails / dataset.rpartition("/")[2]) for dataset in datasets]
        # A channel program does not unmount. umount(8) fails if one is not mounted, and unmounts the others.
        with contextlib.suppress(DriverError):
            await self._programs.run(commands.umount_argv(paths))
        try:
            output = await self._programs.run(
                commands.program_argv(self._pool, datasets), stdin=commands.DESTROY_PROGRAM
            )
            results = msgspec.json.decode(output, type=dict[str, dict[str, int]]).get("return", {})
        except (DriverError, msgspec.MsgspecError) as failure:
            if isinstance(failure, ProgramFailed) and "unrecognized command" in failure.stderr:
                self.with_program = False
            log.info("destroying one by one, for a channel program failed: %s", failure)
            return datasets
        left = [dataset for dataset in datasets if results.get(dataset) != 0]
        await asyncio.to_thread(self._remove_folders, [d for d in datasets if d not in left])
        return left

    def _remove_folders(self, datasets: list[str]) -> None:
        """Remove the mount points; `zfs destroy` does so by itself, a channel program does not."""
        for dataset in datasets:
            with contextlib.suppress(OSError):
                (self._jails / dataset.rpartition("/")[2]).rmdir()

    async def _destroy_one(self, dataset: str) -> None:
        try:
            await self._attempt(dataset)
        except ProgramFailed as failure:
            if commands.is_busy(failure):
                self.retry_in_background(dataset)
                raise DriverError(
                    f"{failure.message}; it is tried again in the background", dataset=dataset
                ) from failure
            raise

    async def _attempt(self, dataset: str) -> None:
        """Destroy a dataset; retry for a second if it is busy."""
        for pause_s in (*BUSY_PAUSES_S, None):
            try:
                await commands.zfs(self._programs, commands.destroy_argv(dataset))
                return
            except ProgramFailed as failure:
                if commands.is_missing(failure):
                    return
                if not commands.is_busy(failure) or pause_s is None:
                    raise
                await asyncio.sleep(pause_s)

    def retry_in_background(self, dataset: str) -> None:
        """Destroy a dataset in a task of its own, which retries until `busy_timeout_s` has passed."""
        if dataset not in self.retrying:
            self.retrying[dataset] = task = asyncio.ensure_future(self._retry(dataset))
            task.add_done_callback(lambda _: self.retrying.pop(dataset, None))

    async def _retry(self, dataset: str) -> None:
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                await self._attempt(dataset)
                return
            except (DriverError, OSError) as failure:
                if time.monotonic() > deadline or self._closed:
                    log.error("%s stays until the next start: %s", dataset, failure)
                    return
            await asyncio.sleep(min(RETRY_PAUSE_S, self._busy_timeout_s / 10))

    async def close(self) -> None:
        """Wait for one last attempt on each dataset that is retried. `open` undoes this."""
        self._closed = True
        await asyncio.gather(*self.retrying.values())
