"""Sources: a repository's URL and a version go in, the files of a commit come out.

    resolve(url, version)  name ▶ commit    from memory while the commit is trusted, else ls-remote
    checkout(resolved)     commit ▶ files   from memory when they are there, else fetch and lay out

Below `repos` lies a bare mirror per repository, below `checkouts` a folder per commit. A checkout is
whole or not there, and never changed. Its links stay links: nothing here opens, follows or changes the
mode of what lies in it.

URL, version, server and files are a stranger's; `url`, `git` and `mirror` say what is done
about that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from msgspec import Struct

from skyisland.errors import BadRequest, IslandError, SourceUnavailable
from skyisland.events import Events, SourceFetched
from skyisland.host.flight import Flights
from skyisland.host.folder import open_folder, remove, size_of, sweep
from skyisland.host.tasks import InUse, aside
from skyisland.model import KnownCommit, Resolved, Source
from skyisland.settings import Git as GitSettings
from skyisland.sources.git import GitFailed, Trouble
from skyisland.sources.mirror import Lookup, Mirrors, folder_of, lookup
from skyisland.sources.url import Address, check_version, commit_among, is_commit, parse_url, refs_of

RETRY_S = 30.0
"""So long a remote that could not be reached is left alone, where an older commit can serve."""
FRESH_S = 60.0
"""What was asked for less long ago stays, however little room there is."""


class KnownCommits(Protocol):
    """What remotes last said, by repository and version; the version "" is the default branch."""

    def get(self, url: str, version: str) -> KnownCommit | None:
        """Asked in every call, so it must answer from memory."""

    async def put(self, url: str, version: str, known: KnownCommit) -> None: ...


class CommitMemory:
    """Known commits in memory. Who persists them fills `commits` at start and extends `put`."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], KnownCommit] = {}

    def get(self, url: str, version: str) -> KnownCommit | None:
        return self.commits.get((url, version))

    async def put(self, url: str, version: str, known: KnownCommit) -> None:
        self.commits[url, version] = known


class _Answer(Struct, frozen=True):
    commit: str
    stale: bool = False


class Sources:
    """The source room. `sweep` comes first, `close` last.

    There is one question to a remote per version at a time, and one fetch per commit, however many wait;
    fetches of one repository follow one another. Whoever is cancelled leaves no process and nothing
    half-made.
    """

    def __init__(
        self,
        git: GitSettings,
        layout_repos: Path,
        layout_checkouts: Path,
        *,
        trust_s: float,
        known: KnownCommits,
        events: Events | None = None,
        lookup: Lookup = lookup,
    ) -> None:
        self._git = git
        self._checkouts = layout_checkouts
        self._trust_s = trust_s
        self._known = known
        self._events = events
        self._mirrors = Mirrors(git, layout_repos, lookup)
        self._roots: set[str] = set()
        self._unreachable: dict[tuple[str, str | None], float] = {}
        self._used: dict[Path, float] = {}
        self._held: InUse[Path] = InUse()
        self._discovered: dict[tuple[str, str], float] = {}
        """Commits that are in a mirror because somebody asked for the default branch, of which repository,
        and the seconds that this took; told when they are laid out."""
        self._sizes: dict[Path, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._probes: Flights[str] = Flights()
        self._questions: Flights[_Answer] = Flights()
        self._makings: Flights[None] = Flights()

    # Which commit

    async def resolve(self, url: str, version: str | None, *, refresh: bool = False) -> Resolved:
        """From a caller's words to a commit. A full commit, and one that the remote named less than
        `trust_s` seconds ago, costs no I/O; with `refresh` the remote is asked whatever is known.

        Raises:
            BadRequest: URL or version is malformed, or the repository has no such version.
            SourceRefused: the settings do not permit it.
            SourceUnavailable: there is no such repository, or it cannot be reached and nothing is known.
        """
        if version is not None:
            check_version(version)
        address = parse_url(url, self._git.allowed_schemes)
        name = self._root(address, version)
        if name is None:
            name = await self._probes.join(address, lambda: self._probe(address))
        answer = await self._answer(name, version, refresh)
        return Resolved(
            url=name,
            package=address.package(name),
            commit=answer.commit,
            version=version,
            stale=answer.stale,
        )

    async def _answer(self, name: str, version: str | None, refresh: bool) -> _Answer:
        if version is not None and is_commit(version):
            return _Answer(version.lower())
        known = self._known.get(name, version or "")
        if known is not None and not refresh:
            if 0.0 <= time.time() - known.at < self._trust_s:
                return _Answer(known.commit)
            if time.monotonic() < self._unreachable.get((name, version), 0.0):
                return _Answer(known.commit, stale=True)
        return await self._questions.join((name, version), lambda: self._ask(name, version, known))

    async def _ask(self, name: str, version: str | None, known: KnownCommit | None) -> _Answer:
        if version is None and known is None:
            commit = await self._discover(name)
            if commit is not None:
                return await self._learn(name, version, commit)
        try:
            listing = await self._mirrors.ask(name, refs_of(version))
        except GitFailed as failure:
            if known is None or failure.trouble not in (Trouble.other, Trouble.timed_out):
                raise self._mirrors.explain(name, failure) from None
            self._unreachable[name, version] = time.monotonic() + RETRY_S
            return _Answer(known.commit, stale=True)
        self._unreachable.pop((name, version), None)
        commit = commit_among(listing, version)
        if commit is None and version is None:
            raise SourceUnavailable(f"{name} is empty: it has no default branch")
        if commit is None:
            raise BadRequest(
                f"version: {name} has no branch or tag {version!r} (of a commit, give all forty digits)",
                field="version",
            )
        return await self._learn(name, version, commit)

    async def _discover(self, name: str) -> str | None:
        """The default branch's commit of a repository that was never fetched, fetched in the same breath.

        None where that is not possible.
        """
        started = time.perf_counter()
        mirror = self._mirrors.path(name)
        async with self._lock(folder_of(name)):
            if await aside(mirror.is_dir):
                return None
            try:
                commit = await self._mirrors.discover(name)
            except GitFailed as failure:
                if failure.trouble in (Trouble.other, Trouble.only_whole, Trouble.no_commit):
                    return None
                raise self._mirrors.explain(name, failure) from None
            self._used[mirror] = time.monotonic()
        self._discovered[name, commit] = time.perf_counter() - started
        return commit

    async def _learn(self, name: str, version: str | None, commit: str) -> _Answer:
        self._roots.add(name)
        await self._known.put(name, version or "", KnownCommit(commit, time.time()))
        return _Answer(commit)

    # Where a repository ends and its packages begin

    def _root(self, address: Address, version: str | None) -> str | None:
        """The repository of an address, if its host, the caller or the past tells."""
        names = list(address.roots())
        if address.root is not None:
            return names[0]
        for name in reversed(names):
            if name in self._roots or self._known.get(name, version or "") is not None:
                return name
        return None

    async def _probe(self, address: Address) -> str:
        """The first of an address's possible repositories that the remote has."""
        failure = GitFailed(Trouble.missing)
        for name in address.roots():
            try:
                await self._mirrors.ask(name, refs_of(None))
            except GitFailed as failed:
                failure = failed
                if failure.trouble not in (Trouble.missing, Trouble.moved):
                    break
            else:
                self._roots.add(name)
                return name
        raise self._mirrors.explain(address.name(len(address.segments)), failure)

    # The files of a commit

    async def checkout(self, resolved: Resolved) -> Source:
        """The files of a commit, fetched if they are not there. Work on them inside `using`.

        Raises:
            BadRequest: the version is a commit that the repository does not have.
            SourceRefused: it is larger or deeper than we take.
            SourceUnavailable: the remote cannot be reached, or does not give what it promised.
            DriverError: Git or the disk failed us.
        """
        place = self._checkouts / folder_of(resolved.url) / resolved.commit
        if place not in self._used:
            await self._makings.join(place, lambda: self._make(resolved, place))
        self._used[place] = time.monotonic()
        return Source(
            url=resolved.url,
            package=resolved.package,
            commit=resolved.commit,
            checkout=place,
            stale=resolved.stale,
        )

    async def _make(self, resolved: Resolved, place: Path) -> None:
        started = time.perf_counter()
        name, commit = resolved.url, resolved.commit
        async with self._lock(folder_of(name)):
            if await aside(place.is_dir):
                return
            self._used[self._mirrors.path(name)] = time.monotonic()
            discovery_s = self._discovered.pop((name, commit), None)
            try:
                if discovery_s is None:
                    await self._mirrors.fetch(name, commit)
                await self._mirrors.lay_out(name, commit, place)
            except GitFailed as failure:
                if failure.trouble is Trouble.no_commit:
                    raise await self._without(resolved) from None
                raise self._mirrors.explain(name, failure) from None
        self._roots.add(name)
        await self._trim(place, self._mirrors.path(name))
        if self._events is not None:
            spent = time.perf_counter() - started + (discovery_s or 0.0)
            self._events.publish(SourceFetched(url=name, commit=commit, duration_s=spent))

    async def _without(self, resolved: Resolved) -> IslandError:
        name, commit, version = resolved.url, resolved.commit, resolved.version
        if version is not None and is_commit(version):
            return BadRequest(f"version: {name} has no commit {commit}", field="version")
        # A branch was rewritten while its commit was trusted; whoever comes next shall ask the remote.
        await self._known.put(name, version or "", KnownCommit(commit, 0.0))
        return SourceUnavailable(f"{name} no longer has the commit {commit}; try again")

    def _lock(self, folder: str) -> asyncio.Lock:
        """One task at a time works on a repository's folders."""
        return self._locks.setdefault(folder, asyncio.Lock())

    # Keeping house

    @contextmanager
    def using(self, source: Source) -> Iterator[Source]:
        """Keep a checkout from being purged while the block runs."""
        self._held.take(source.checkout)
        try:
            yield source
        finally:
            self._used[source.checkout] = time.monotonic()
            self._held.let_go(source.checkout)

    async def sweep(self) -> int:
        """Make the folders, end and remove what an earlier life left; how much that was."""
        swept, mirrors = await aside(self._mirrors.prepare)
        left, places = await aside(self._survey)
        self._roots.update(mirrors.values())
        self._used |= dict.fromkeys((*mirrors, *places), time.monotonic())
        return swept + left

    def _survey(self) -> tuple[int, list[Path]]:
        open_folder(self._checkouts)
        return sweep(self._checkouts), list(self._checkouts.glob("*/*"))

    async def purge(self, idle_s: float, keep: Collection[tuple[str, str]] = ()) -> int:
        """Remove mirrors and checkouts that nobody asked for in `idle_s` seconds; how many went.

        Never one that `using` holds, or that is a (URL, commit) of `keep`. Between `checkout` and `using`
        only `idle_s` protects it: let it be longer than that takes.
        """
        kept = {self._checkouts / folder_of(url) / commit for url, commit in keep}
        return sum([await self._drop(path, idle_s) for path in list(self._used) if path not in kept])

    async def _trim(self, *changed: Path) -> None:
        """Remove what nobody asked for longest while all together is more than `cache_limit`."""
        unknown = {*self._used} - {*self._sizes}
        self._sizes |= await aside(lambda: {path: size_of(path) for path in unknown.union(changed)})
        for path in sorted(self._used, key=self._used.__getitem__):
            if sum(self._sizes.values()) <= self._git.cache_limit:
                break
            await self._drop(path, FRESH_S)

    async def _drop(self, path: Path, idle_s: float) -> bool:
        """Remove a mirror or checkout, unless it is in use or was less than `idle_s` ago."""
        folder = path.parent.name if path.is_relative_to(self._checkouts) else path.name
        async with self._lock(folder):
            now = time.monotonic()
            if path in self._held or now - self._used.get(path, now) < idle_s:
                return False
            self._used.pop(path, None)
            self._sizes.pop(path, None)
            await aside(self._remove, path)
            return True

    def _remove(self, path: Path) -> None:
        if path.is_relative_to(self._checkouts):
            remove(path, self._checkouts)
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # It stays while it holds another commit.
        else:
            remove(path, path.parent)

    async def close(self) -> None:
        """End all that is under way."""
        for flights in (self._probes, self._questions, self._makings):
            await flights.close()
        self._mirrors.close()
