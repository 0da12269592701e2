"""Go's caches on the host. Build jails mount them.

    gocache/VERSION/std      the compiled standard library; written only in jails without a repository
    gocache/VERSION/helper   the program that layers a repository's cache over it (`gocache/main.go`)
    gocache/VERSION/own/ID   the compiled packages of one repository
    gomodcache               modules; written only by downloads

Each repository has a cache of its own, so that nothing compiled from one gets into the binary of
another. A cache is removed when its repository was not built for `unused_s`, and beyond `limit_bytes`
the least recently used go. Modules are removed all together beyond `limit_bytes`: a download replaces them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from skyisland.host.folder import size_of
from skyisland.host.tasks import InUse
from skyisland.settings import Layout


class Caches:
    """The folders that outlive a build jail, and the work folder of each."""

    def __init__(self, layout: Layout, *, uid: int | None, limit_bytes: int, unused_s: float) -> None:
        """`uid`: the host uid of build jails, when the island is root."""
        self.layout = layout
        self.uid = uid
        self.limit_bytes = limit_bytes
        self.unused_s = unused_s
        self.home = layout.gocache
        self._in_use: InUse[Path] = InUse()
        self._trimming = asyncio.Lock()

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
        for path in (self.layout.run, self.layout.gocache, self.home, self.helper, self.home / "own"):
            self._folder(path)
        for path in (self.std, self.modules):
            self._folder(path, writable=True)
        _remove(path for path in self.layout.gocache.iterdir() if path != self.home)
        _remove(self.layout.run.glob("sky-build-*"))

    def _folder(self, path: Path, *, writable: bool = False) -> Path:
        """Make a folder that build jails can enter and, if `writable`, write to."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
        if writable and self.uid is not None:
            os.chown(path, self.uid, self.uid)
        return path

    def work_folder(self, files: dict[str, bytes]) -> Path:
        """Make a folder: `gen` with these files, and an empty `out` that a build jail may fill. Blocks."""
        work = Path(tempfile.mkdtemp(prefix="sky-build-", dir=self.layout.run))
        self._folder(work)
        self._folder(work / "gen")
        self._folder(work / "out", writable=True)
        for name, data in files.items():
            path = work / "gen" / name
            self._folder(path.parent)
            path.write_bytes(data)
            path.chmod(0o644)
        return work

    @asynccontextmanager
    async def of(self, url: str) -> AsyncIterator[Path]:
        """The cache of a repository. It is not removed while the block runs."""
        cache = self.home / "own" / hashlib.sha256(url.encode()).hexdigest()[:32]

        def make() -> None:
            self._folder(cache, writable=True)
            os.utime(cache)  # its modification time is the time of its last use, see `_expired`

        async with self._trimming:
            self._in_use.take(cache)
        try:
            await asyncio.to_thread(make)
            yield cache
        finally:
            self._in_use.let_go(cache)

    async def trim(self) -> bool:
        """Remove expired caches that are not in use; return whether the modules were removed."""
        expired = await asyncio.to_thread(self._expired)
        too_large = await asyncio.to_thread(size_of, self.modules) > self.limit_bytes
        async with self._trimming:
            # No build can begin while we hold the lock. So we only move folders here, and delete them later.
            doomed = [path for path in expired if path not in self._in_use]
            drop_modules = too_large and not self._in_use
            if drop_modules:
                doomed.append(self.modules)
            moved = await asyncio.to_thread(self._move_away, doomed)
            if drop_modules:
                await asyncio.to_thread(self._folder, self.modules, writable=True)
        await asyncio.to_thread(_remove, moved)
        return drop_modules

    def _expired(self) -> list[Path]:
        """The caches unused for `unused_s`, and the least recently used that exceed `limit_bytes`."""
        caches = sorted((path.stat().st_mtime, path) for path in (self.home / "own").iterdir())
        sizes = {path: size_of(path) for _, path in caches}
        total = sum(sizes.values())
        expired = []
        for used_at, path in caches:
            if used_at < time.time() - self.unused_s or total > self.limit_bytes:
                expired.append(path)
                total -= sizes[path]
        return expired

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
