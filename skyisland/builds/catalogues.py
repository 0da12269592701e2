"""What packages offer, each made once and kept as a file, whatever became of its binaries.

A catalogue is known by all that went into it: repository, package, commit, toolchain, our program. It is made
in a build jail, in a place to build like any compilation, at one time for all who ask. The files take
`LIMIT_BYTES` at most; the ones that nobody read for longest go first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import structs

from skyisland.golang import catalogue as offers
from skyisland.golang.catalogue import Catalogue
from skyisland.golang.compiler import Compiler
from skyisland.golang.packages import Package
from skyisland.host.fair import FairFlights, FairQueue
from skyisland.host.tasks import aside
from skyisland.model import Artifact, Resolved, Source

LIMIT_BYTES = 64 << 20
"""The room of all catalogues: some thousand packages."""
RECENT, RECENT_BYTES = 50, 4 << 20
"""So many stay in memory as well, of so many bytes as JSON; as values they take some five times as much."""

Known = Resolved | Source | Artifact
"""What names a package at a commit."""


class Catalogues:
    """Makes and keeps them. `load` comes first, `close` last."""

    def __init__(
        self, folder: Path, compiler: Compiler, places: FairQueue, *, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._folder = folder
        self._compiler = compiler
        self._limit_bytes = limit_bytes
        self._program = ""
        self._sizes: dict[str, int] = {}
        """File names → bytes, the one read longest ago first."""
        self._recent: dict[str, Catalogue] = {}
        self._making: FairFlights[Catalogue] = FairFlights(places)

    async def load(self) -> None:
        """Find what an earlier life kept."""
        self._program = await asyncio.to_thread(offers.version)
        self._sizes = await asyncio.to_thread(self._kept)

    def _kept(self) -> dict[str, int]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.glob("sky-*"):
            left.unlink()
        files = [(path.stat(), path.name) for path in self._folder.iterdir()]
        return {name: stat.st_size for stat, name in sorted(files, key=lambda file: file[0].st_mtime)}

    async def close(self) -> None:
        """Cancel what is being made. May be repeated."""
        await self._making.close()

    async def known(self, resolved: Known) -> Catalogue | None:
        """The catalogue of a package at a commit, if it is kept."""
        name = self._name(resolved)
        if name not in self._sizes:
            return None
        self._sizes[name] = self._sizes.pop(name)
        found = self._recent.pop(name, None) or await asyncio.to_thread(_read, self._folder / name)
        if found is None:
            self._sizes.pop(name, None)
        else:
            self._recall(name, found)
        return found

    def _recall(self, name: str, catalogue: Catalogue) -> None:
        """Keep it in memory, too, in place of others."""
        self._recent[name] = catalogue
        while len(self._recent) > 1 and (
            len(self._recent) > RECENT or sum(map(self._sizes.__getitem__, self._recent)) > RECENT_BYTES
        ):
            del self._recent[next(iter(self._recent))]

    async def of(
        self, source: Source, package: Package, *, client: str, invocation: str | None = None
    ) -> Catalogue:
        """The catalogue of a package, made if it is not kept. `client`: in whose turn.

        Raises:
            BuildFailed: the package does not compile.
            TooBusy: too many builds wait, or this one waited too long.
        """
        found = await self.known(source)
        return found or await self._making.join(
            self._name(source), client, lambda: self.make(source, package, invocation=invocation)
        )

    async def make(self, source: Source, package: Package, *, invocation: str | None = None) -> Catalogue:
        """The same for who has a place already."""
        found = await self.known(source)
        if found is not None:
            return found
        made = await self._compiler.catalogue(source, package, invocation=invocation)
        made = structs.replace(
            made, url=source.url, package=source.package, version=source.commit, stale=False
        )
        name = self._name(source)
        self._sizes[name] = await aside(_write, self._folder / name, made)
        self._recall(name, made)
        await aside(_delete, self._surplus())
        return made

    def _surplus(self) -> list[Path]:
        """Forget what there is no room for; returns its files."""
        names, total = list(self._sizes), sum(self._sizes.values())
        surplus: list[Path] = []
        while total > self._limit_bytes and len(surplus) < len(names) - 1:
            name = names[len(surplus)]
            total -= self._sizes.pop(name)
            self._recent.pop(name, None)
            surplus.append(self._folder / name)
        return surplus

    def _name(self, resolved: Known) -> str:
        parts = (resolved.url, resolved.package, resolved.commit, self._compiler.toolchain.version)
        return f"{hashlib.sha256(repr((*parts, self._program)).encode()).hexdigest()}.json"


def _read(path: Path) -> Catalogue | None:
    """What a file holds; None if it is not there, or no longer whole."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeError):
        found = msgspec.json.decode(path.read_bytes(), type=Catalogue)
        os.utime(path)
        return found
    return None


def _delete(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _write(path: Path, catalogue: Catalogue) -> int:
    """Write a file that is whole or not there; returns its bytes."""
    data = msgspec.json.encode(catalogue)
    draft = path.with_name(f"sky-{secrets.token_hex(8)}")
    draft.write_bytes(data)
    draft.rename(path)
    return len(data)
