"""Go's caches on the host, as build jails see them.

    gocache/VERSION/std      the compiled standard library; written while no repository is about
    gocache/VERSION/helper   the program that layers a repository's cache over it (`gocache/main.go`)
    gocache/VERSION/own/ID   what was compiled of one repository: it sees no other's
    gomodcache               modules, written only by downloads

Each repository has a cache of its own, so that nothing built of one can end up in another. The caches of
repositories that were not built for long are removed, and beyond the limit those that were not built for
longest; modules are removed all together when they outgrow it, for they are quickly fetched anew.
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
    """The folders that build jails keep from one to the next."""

    def __init__(self, layout: Layout, *, uid: int | None, limit_bytes: int, unused_s: float) -> None:
        """`uid`: the host uid of build jails, when the island is root."""
        self.layout = layout
        self.uid = uid
        self.limit_bytes = limit_bytes
        self.unused_s = unused_s
        self.home = layout.gocache
        self._busy: InUse[Path] = InUse()
        self._moving = asyncio.Lock()

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
        """Make the folders, and remove what an earlier life or another toolchain left. Blocks."""
        self.home = self.layout.gocache / version
        for path in (self.layout.run, self.layout.gocache, self.home, self.helper, self.home / "own"):
            self._folder(path)
        for path in (self.std, self.modules):
            self._folder(path, writable=True)
        _remove(path for path in self.layout.gocache.iterdir() if path != self.home)
        _remove(self.layout.run.glob("sky-build-*"))

    def _folder(self, path: Path, *, writable: bool = False) -> Path:
        """Make a folder that build jails can enter, and write to if it is to be theirs."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
        if writable and self.uid is not None:
            os.chown(path, self.uid, self.uid)
        return path

    def workplace(self, files: dict[str, bytes]) -> Path:
        """A new folder with these files, and an empty `out` that a build jail may write to. Blocks."""
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
        """The cache of a repository, which stays for the length of the block."""
        own = self.home / "own" / hashlib.sha256(url.encode()).hexdigest()[:32]

        def make() -> None:
            self._folder(own, writable=True)
            os.utime(own)

        async with self._moving:
            self._busy.take(own)
        try:
            await asyncio.to_thread(make)
            yield own
        finally:
            self._busy.let_go(own)

    async def trim(self) -> bool:
        """Remove what is too old or too much and not in use; returns whether modules went."""
        old = await asyncio.to_thread(self._too_old)
        too_many = await asyncio.to_thread(size_of, self.modules) > self.limit_bytes
        async with self._moving:
            # While the lock is held no build begins; moving is quick, the deleting comes after.
            doomed = [path for path in old if path not in self._busy]
            modules_go = too_many and not self._busy
            if modules_go:
                doomed.append(self.modules)
            moved = await asyncio.to_thread(self._move, doomed)
            if modules_go:
                await asyncio.to_thread(self._folder, self.modules, writable=True)
        await asyncio.to_thread(_remove, moved)
        return modules_go

    def _too_old(self) -> list[Path]:
        caches = sorted((path.stat().st_mtime, path) for path in (self.home / "own").iterdir())
        sizes = {path: size_of(path) for _, path in caches}
        total = sum(sizes.values())
        doomed = []
        for used_at, path in caches:
            if used_at < time.time() - self.unused_s or total > self.limit_bytes:
                doomed.append(path)
                total -= sizes[path]
        return doomed

    def _move(self, doomed: Iterable[Path]) -> list[Path]:
        moved = []
        for path in doomed:
            away = Path(tempfile.mkdtemp(prefix="sky-build-", dir=self.layout.run))
            path.rename(away / path.name)
            moved.append(away)
        return moved


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
