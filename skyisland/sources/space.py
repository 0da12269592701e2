"""The room that mirrors and checkouts take on disk: who uses which, and which go when it runs short.

Everything is counted as a file system lays it out, by blocks and folders (`host.folder.laid_out`). Room is
reserved before files are written, and what is being fetched counts as it grows. So mirrors and checkouts
together stay within `limit_bytes`, and what is being fetched within as much again. What is in use is
never removed; whoever finds no room beside it is refused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from skyisland.errors import SourceRefused, TooBusy
from skyisland.host.fair import LOCAL, FairQueue
from skyisland.host.folder import remove, size_of
from skyisland.host.tasks import InUse, aside
from skyisland.settings import Git as GitSettings

RETRY_AFTER_S = 5.0
"""When to come back if others take all the room. A judgement: a build takes about as long."""


class Space:
    """What of mirrors and checkouts is on disk, and whose turn it is to work on a repository's folders."""

    def __init__(self, checkouts: Path, git: GitSettings) -> None:
        self._checkouts = checkouts
        self._git = git
        self._limit_bytes = git.cache_limit
        self._used_at: dict[Path, float] = {}
        """Mirror or checkout on disk → last use (monotonic)."""
        self._sizes: dict[Path, int] = {}
        self._growing: dict[Path, int] = {}
        """What is being made → bytes that it takes, or is about to. Threads of Git write it."""
        self._in_use: InUse[Path] = InUse()
        self._turns: WeakValueDictionary[str, FairQueue] = WeakValueDictionary()

    def __contains__(self, path: Path) -> bool:
        return path in self._used_at

    def turns(self, folder: str) -> FairQueue:
        """The queue for a repository's folders: it has one place, so one task at a time works on them."""
        queue = self._turns.get(folder)
        if queue is None:
            queue = self._turns[folder] = FairQueue(
                "a turn at this repository",
                1,
                max_waiting=self._git.max_queued,
                timeout_s=self._git.queue_timeout,
                retry_after_s=RETRY_AFTER_S,
            )
        return queue

    def use(self, *paths: Path) -> None:
        """Count them as on disk, and as used now."""
        self._used_at |= dict.fromkeys(paths, time.monotonic())

    @contextmanager
    def using(self, *paths: Path) -> Iterator[None]:
        """Keep them while the block runs."""
        for path in paths:
            self._in_use.take(path)
        try:
            yield
        finally:
            for path in paths:
                self._in_use.let_go(path)
                if path in self._used_at:
                    self.use(path)

    # While something is made

    def grow(self, path: Path, size_bytes: int) -> bool:
        """Note how large something became that is being fetched; False if there is no room for it."""
        self._growing[path] = size_bytes
        return sum([*self._growing.values()]) <= self._limit_bytes

    def grown(self, path: Path) -> None:
        """It grows no more; it lies at its place, or nowhere."""
        self._growing.pop(path, None)

    @asynccontextmanager
    async def reserved(self, path: Path, size_bytes: int, name: str) -> AsyncIterator[None]:
        """Room for what is made in the block, in a repository's folder while it is the caller's turn.

        Raises:
            SourceRefused: there will never be as much.
            TooBusy: what is in use takes it.
        """
        if size_bytes > self._limit_bytes:
            raise SourceRefused(
                f"{name} takes {size_bytes} bytes of disk, more than [git] cache_limit permits for all "
                f"repositories ({self._limit_bytes})"
            )
        self._growing[path] = size_bytes
        try:
            await self.trim(turn=path.parent.name)
            if self._total() > self._limit_bytes:
                raise TooBusy(
                    "repositories in use take all the room that [git] cache_limit permits; try again later",
                    retry_after_s=RETRY_AFTER_S,
                )
            yield
        finally:
            self.grown(path)

    # Removing

    def _total(self) -> int:
        return sum(self._sizes.values()) + sum([*self._growing.values()])

    async def trim(self, *changed: Path, turn: str = "") -> None:
        """Remove the least recently used until the others fit. `changed` are measured anew; `turn` is the
        folder where it is the caller's turn."""
        unmeasured = ({*self._used_at} - {*self._sizes}).union(changed)
        sizes = await aside(lambda: {path: size_of(path) for path in unmeasured})
        for path, size_bytes in sizes.items():
            if size_bytes:
                self._sizes[path] = size_bytes
                self._used_at.setdefault(path, time.monotonic())
            else:
                self._forget(path)
        for path in sorted(self._used_at, key=self._used_at.__getitem__):
            if self._total() <= self._limit_bytes:
                break
            await self._remove_unused(path, 0.0, turn)

    async def purge(self, idle_s: float, kept: Collection[Path]) -> int:
        """Remove what is unused for `idle_s` seconds and not `kept`; return how many."""
        unkept = [path for path in self._used_at if path not in kept]
        return sum([await self._remove_unused(path, idle_s) for path in unkept])

    async def _remove_unused(self, path: Path, idle_s: float, turn: str = "") -> bool:
        """Remove a mirror or checkout, unless somebody uses it, or did in the last `idle_s` seconds."""
        folder = path.parent.name if path.is_relative_to(self._checkouts) else path.name
        turns = self.turns(folder)
        if folder != turn and not turns.take(LOCAL):
            return False  # somebody works in it, and may wait for the room of another
        try:
            used_at = self._used_at.get(path)
            if path in self._in_use or used_at is None or time.monotonic() - used_at < idle_s:
                return False
            self._forget(path)
            await aside(self._remove, path)
            return True
        finally:
            if folder != turn:
                turns.leave(LOCAL)

    def _forget(self, path: Path) -> None:
        self._used_at.pop(path, None)
        self._sizes.pop(path, None)

    def _remove(self, path: Path) -> None:
        if path.is_relative_to(self._checkouts):
            remove(path, self._checkouts)
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # fails, and should, while another commit lies in it
        else:
            remove(path, path.parent)
