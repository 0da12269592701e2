"""Go's caches on the host. Build jails mount them.

    gocache/VERSION/std      the compiled standard library; written only in jails without a repository
    gocache/VERSION/helper   the program that layers a repository's cache over it (`gocache/main.go`)
    gocache/VERSION/own/ID   the compiled packages of one repository (`Source.compiled_in`)
    gomodcache               modules; written only by downloads

Each repository has a cache of its own, so that nothing compiled from one gets into the binary of
another; so has each commit that no branch or tag names, for it may be a fork's. A cache is removed when
nothing was built in it for `unused_s`, and beyond `limit_bytes` the least recently used go. Modules are
removed all together beyond `limit_bytes`: a download replaces them. What a build adds to either is measured
while it runs: the others make room, and a build that needs more ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from skyisland.errors import BuildFailed
from skyisland.host.folder import size_of
from skyisland.host.tasks import InUse, finish
from skyisland.settings import Layout

log = logging.getLogger(__name__)

LEAST_BYTES = 256 << 20
"""What one build may take of its cache, however small build.cache_limit. A judgement: twice what a function
with a hundred dependencies takes."""

MEASURE_S = 0.5
"""Between two measurements of a growing cache; a compiler wrote 16 MB a second at most."""

TICK_S = 0.02
"""The time in an inode is that of the kernel's last tick (10 ms at most), not of the clock that we read."""


class _Outgrown(Exception):
    """What a build writes outgrew a limit."""


class Caches:
    """The folders that outlive a build jail, and the work folder of each."""

    def __init__(
        self,
        layout: Layout,
        *,
        uid: int | None,
        limit_bytes: int,
        unused_s: float,
        least_bytes: int = LEAST_BYTES,
        measure_s: float = MEASURE_S,
        dropped: Callable[[], object] = bool,
    ) -> None:
        """`uid`: the host uid of build jails, when the island is root. `least_bytes`: what one build may
        take, however small the limit. `measure_s`: between two measurements of that. `dropped`: called when
        the modules were removed."""
        self.layout = layout
        self.uid = uid
        self.limit_bytes = limit_bytes
        self.unused_s = unused_s
        self.home = layout.gocache
        self._in_use: InUse[Path] = InUse()
        self._trimming = asyncio.Lock()
        self._most_bytes = max(limit_bytes, least_bytes)
        self._measure_s = measure_s
        self._dropped = dropped
        self._sizes: dict[Path, int] = {}
        """Caches of repositories → bytes, as they were measured last."""

    @property
    def std(self) -> Path:
        return self.home / "std"

    @property
    def helper(self) -> Path:
        return self.home / "helper"

    @property
    def modules(self) -> Path:
        return self.layout.gomodcache

    def prepare(self, version: str) -> None:
        """Make the folders; remove those of an earlier daemon and of other toolchains. Blocks."""
        self.home = self.layout.gocache / version
        for path in (self.layout.gocache, self.home, self.helper, self.home / "own"):
            self._folder(path)
        self.layout.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        for path in (self.std, self.modules, *(self.home / "own").iterdir()):
            self._hand_over(path)
        self._folder(self.std, writable=True)
        self._folder(self.modules, writable=True, mode=0o700)
        _remove(path for path in self.layout.gocache.iterdir() if path != self.home)
        _remove(self.layout.run.glob("sky-build-*"))

    def _folder(self, path: Path, *, writable: bool = False, mode: int = 0o755) -> Path:
        """Make a folder that build jails can enter and, if `writable`, write to. It is theirs then, and
        of mode 0700 nobody else's."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        if writable and self.uid is not None:
            os.chown(path, self.uid, self.uid)
        return path

    def _hand_over(self, folder: Path) -> None:
        """Give a folder with all that is in it to the build jails, if it was another uid's: that of
        jails.uid_start before somebody changed it. The folder comes last, so that a crash half-way is made
        good at the next start."""
        if self.uid is None or not folder.is_dir() or folder.stat().st_uid == self.uid:
            return
        log.info("%s belonged to another uid; it is given to %d", folder, self.uid)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), self.uid, self.uid, follow_symlinks=False)
        os.chown(folder, self.uid, self.uid)

    def work_folder(self, files: Mapping[str, bytes], changing: Mapping[str, bytes]) -> Path:
        """Make a folder: `gen` with these files, and `out` that a build jail may fill, with those that it may
        change. Blocks."""
        work = Path(tempfile.mkdtemp(prefix="sky-build-", dir=self.layout.run))
        self._folder(work)
        self._folder(work / "gen")
        self._folder(work / "out", writable=True)
        for name, data in files.items():
            path = work / "gen" / name
            self._folder(path.parent)
            path.write_bytes(data)
            path.chmod(0o644)
        for name, data in changing.items():
            path = work / "out" / name
            path.write_bytes(data)
            if self.uid is not None:
                os.chown(path, self.uid, self.uid)
        return work

    @asynccontextmanager
    async def of(self, whose: str, *, downloads: bool = False) -> AsyncIterator[Path]:
        """The cache of a repository. It is not removed while the block runs, and must not outgrow the limit.
        `downloads`: neither must the modules, by as much again.

        Raises:
            BuildFailed: it did, or they did; the block was cancelled.
        """
        cache = self.home / "own" / hashlib.sha256(whose.encode()).hexdigest()[:32]

        def make() -> None:
            self._folder(cache, writable=True, mode=0o700)
            os.utime(cache)  # its modification time is the time of its last use, see `_expired`

        async with self._trimming:
            self._in_use.take(cache)
        try:
            await asyncio.to_thread(make)
            async with self._watched(cache, downloads):
                yield cache
        except _Outgrown as outgrown:
            self._in_use.let_go(cache)
            await finish(self.trim())
            raise BuildFailed(
                f"{outgrown} more than [build] cache_limit permits ({self._most_bytes} bytes)"
            ) from None
        except BaseException:
            self._in_use.let_go(cache)
            raise
        else:
            self._in_use.let_go(cache)

    @asynccontextmanager
    async def _watched(self, cache: Path, downloads: bool) -> AsyncIterator[None]:
        """Cancel the block when what it writes outgrows a limit, and raise `_Outgrown`."""
        try:
            async with asyncio.timeout(None) as leash:
                watching = asyncio.create_task(self._watch(cache, downloads, leash))
                try:
                    yield
                finally:
                    watching.cancel()
                    await asyncio.wait([watching])
                    if not watching.cancelled():
                        watching.exception()  # else asyncio logs that nobody asked for it
        except TimeoutError:
            if leash.expired():
                raise _Outgrown(watching.result()) from None
            raise

    async def _watch(self, cache: Path, downloads: bool, leash: asyncio.Timeout) -> str:
        """Measure what a build writes; pull its leash when that is too much, and return what was."""
        while True:
            await asyncio.sleep(self._measure_s)
            self._sizes[cache] = await asyncio.to_thread(size_of, cache)
            reason = ""
            if self._sizes[cache] > self._most_bytes:
                reason = "the packages that it compiles take"
            elif downloads and await asyncio.to_thread(size_of, self.modules) > 2 * self._most_bytes:
                reason = "the modules that it downloads take"
            if reason:
                leash.reschedule(asyncio.get_running_loop().time())
                return reason
            if sum(self._sizes.values()) > self.limit_bytes and self._sizes.keys() - set(self._in_use):
                await finish(self.trim())

    def written_since(self, folder: Path, at: float) -> bool:
        """Whether a build has left something in a cache since then (seconds since the epoch). Blocks."""
        for parent, _, files in os.walk(folder):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(os.path.join(parent, name), follow_symlinks=False).st_mtime >= at - TICK_S:
                        return True
        return False

    async def trim(self) -> bool:
        """Remove expired caches that are not in use; return whether the modules were removed."""
        expired, self._sizes = await asyncio.to_thread(self._expired, frozenset(self._in_use))
        too_large = await asyncio.to_thread(size_of, self.modules) > self.limit_bytes
        async with self._trimming:
            # No build can begin while we hold the lock. So we only move folders here, and delete them later.
            doomed = [path for path in expired if path not in self._in_use]
            drop_modules = too_large and not self._in_use
            if drop_modules:
                doomed.append(self.modules)
            moved = await asyncio.to_thread(self._move_away, doomed)
            if drop_modules:
                await asyncio.to_thread(self._folder, self.modules, writable=True, mode=0o700)
        await asyncio.to_thread(_remove, moved)
        if drop_modules:
            self._dropped()
        return drop_modules

    def _expired(self, in_use: frozenset[Path]) -> tuple[list[Path], dict[Path, int]]:
        """The caches unused for `unused_s`, and the least recently used that exceed `limit_bytes`. How large
        the others are."""
        caches = sorted((path.stat().st_mtime, path) for path in (self.home / "own").iterdir())
        sizes = {path: size_of(path) for _, path in caches}
        total = sum(sizes.values())
        expired = []
        for used_at, path in caches:
            if path in in_use:
                continue
            if used_at < time.time() - self.unused_s or total > self.limit_bytes:
                expired.append(path)
                total -= sizes.pop(path)
        return expired, sizes

    def _move_away(self, doomed: Iterable[Path]) -> list[Path]:
        moved = []
        for path in doomed:
            parent = Path(tempfile.mkdtemp(prefix="sky-build-", dir=self.layout.run))
            path.rename(parent / path.name)
            moved.append(parent)
        return moved


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
