"""Sources: a repository's URL and a version enter, the files of a commit leave.

    resolve(url, version)  name ▶ commit    from memory while the commit is trusted, else ls-remote
    checkout(resolved)     commit ▶ files   from disk if they are there, else fetch and check out

The folder `repos` has a bare mirror per repository, the folder `checkouts` a folder per commit. A
checkout is whole or absent, and never changes. Its links stay links: nothing here opens or follows a
file in it, or changes its mode.

URL, version, server and files are a stranger's: `url` checks the text, `git` confines the command,
`mirror` checks the tree. What may fail: the caller's words (`BadRequest`), the settings
(`SourceRefused`), the remote (`SourceUnavailable`), Git and the disk (`DriverError`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from skyisland.errors import BadRequest, IslandError, SourceUnavailable
from skyisland.events import Events, SourceFetched
from skyisland.host.fair import LOCAL, FairFlights, FairQueue
from skyisland.host.folder import sweep
from skyisland.host.outbound import Lookup, lookup
from skyisland.host.recent import Recent
from skyisland.host.tasks import aside
from skyisland.host.tree import Tree
from skyisland.model import Resolved, Source
from skyisland.settings import Git as GitSettings
from skyisland.sources.commits import NAMES_KEPT, Commits, CommonCommits, KnownCommits
from skyisland.sources.credentials import Credentials
from skyisland.sources.git import GitFailed, Trouble
from skyisland.sources.mirror import Mirrors, folder_of
from skyisland.sources.naming import Names
from skyisland.sources.places import Major, Place, major_of, package_folder
from skyisland.sources.space import Space
from skyisland.sources.url import parse_url
from skyisland.sources.versions import is_commit, is_short
from skyisland.sources.written import URL_CACHED, Written, read, with_place
from skyisland.wire import Versions

VERSIONS_TOLD = 1000
"""Releases that are told, the latest of them. A judgement: nobody calls more in a row."""
SETTLED_KEPT = 2000
"""How many names are remembered that took a look at the references. A judgement: 20 MiB at worst."""


class Sources:
    """Resolves versions and keeps mirrors and checkouts. Call `sweep` first and `close` last.

    Callers who want the same share the work: one question to the remote per version, one fetch per commit.
    Fetches of one repository follow one another. A cancelled caller leaves no process and no partial
    folder.
    """

    def __init__(
        self,
        git: GitSettings,
        repos: Path,
        checkouts: Path,
        *,
        trust_s: float,
        known: KnownCommits,
        events: Events | None = None,
        lookup: Lookup = lookup,
        uid: int | None = None,
        credentials_dir: str = "",
        common: CommonCommits | None = None,
    ) -> None:
        """`trust_s`: how long the commit of a branch or tag is used before the remote is asked again.
        `uid`: as whom Git works on what strangers wrote, if the island is root; no jail may have it.
        `credentials_dir`: where systemd put the credentials of this service. `common`: of the fleet.
        """
        self._git = git
        self._checkouts = checkouts
        self._events = events
        self._space = Space(checkouts, git)
        self._credentials = Credentials(git.credentials, git.rewrites, credentials_dir)
        self._mirrors = Mirrors(git, repos, lookup, self._space, uid, self._credentials)
        self._settled: Recent[tuple[str, str | None], Written] = Recent(SETTLED_KEPT)
        """(URL, version) of a request → what they mean, where that took a look at the references."""
        self._folders: Recent[tuple[str, str, str], tuple[str | None]] = Recent(NAMES_KEPT)
        """(repository, commit, package with a major version) → its folder, see `places.package_folder`."""
        places = FairQueue(
            "a place to fetch from Git servers",
            git.max_running,
            places_per_client=git.running_per_client,
            max_waiting=git.max_queued,
            timeout_s=git.queue_timeout,
        )
        self._names = Names(git, self._mirrors.remotes, places, lookup, trust_s)
        self._commits = Commits(self._mirrors, self._space, places, known, trust_s, common)
        self._new_checkouts: FairFlights[None] = FairFlights(places)

    # Which commit

    async def resolve(
        self, url: str, version: str | None, *, refresh: bool = False, client: str = LOCAL
    ) -> Resolved:
        """Turn a caller's URL and version into a repository, a package in it and a commit.

        No I/O for a full commit, or for one that the remote named less than `trust_s` seconds ago.
        `refresh` asks the remote always. `client`: whose share of the places to fetch the work counts to.

        Raises:
            BadRequest: URL or version is malformed, or the repository has no such version.
            SourceRefused: the settings do not permit this repository.
            SourceUnavailable: there is no such repository, or it cannot be reached and no commit is known.
            TooBusy: no place to fetch became free in time.
        """
        written = read(url, version, self._git.allowed_schemes)
        if written.rest:
            known = None if refresh else self._settled.get((url, version))
            written = known or await self._settle(written, refresh, client)
            if known is None and len(url) <= URL_CACHED:
                self._settled[url, version] = written
        return await self._resolve_written(written, refresh, client)

    async def _resolve_written(self, written: Written, refresh: bool, client: str) -> Resolved:
        if (place := written.place) is not None:
            return await self._resolved(place.name, place.package, written.version, refresh, client)
        place = await self._place(written, refresh, client)
        wanted = written.version
        if place.version is not None and wanted in (None, "latest"):
            wanted = place.version
        if (major := major_of(place)) is not None:
            return await self._resolve_major(place, major, wanted, refresh, client)
        resolved = await self._resolved(place.name, place.package, wanted, refresh, client)
        if wanted is None or not is_commit(wanted):
            self._names.note(place.name)  # it named a commit: nobody asks for one by its hash
        return resolved

    async def _place(self, written: Written, refresh: bool, client: str) -> Place:
        def is_known(name: str) -> bool:
            return self._commits.is_known(name, written.version)

        # What is asked for, before any server is; then what a page made of it.
        self._credentials.admit(written.url.name(len(written.url.segments)), client)
        place = await self._names.place_of(written.url, is_known, refresh=refresh, client=client)
        self._credentials.admit(place.name, client)
        return place

    async def _settle(self, written: Written, refresh: bool, client: str) -> Written:
        """With the version, which ends where the references that the repository has say so."""
        while written.rest:
            written = await self._settle_once(written, refresh, client)
        return with_place(written)

    async def _settle_once(self, written: Written, refresh: bool, client: str) -> Written:
        try:
            place = await self._place(written, refresh, client)
            found = await self._commits.split(place.name, written.versions(), refresh=refresh, client=client)
        except (BadRequest, SourceUnavailable):
            if written.otherwise is None:
                raise
            return written.otherwise
        if found is not None:
            return written.split(found + 1)
        if written.otherwise is None or is_short(written.rest[0]):
            return written.split(1)
        if written.otherwise.rest or await self._has_folder(written.otherwise, client):
            return written.otherwise
        raise await self._commits.no_such(place.name, written.rest[0])

    async def _has_folder(self, written: Written, client: str) -> bool:
        """Whether there is what a path begins with that no version was found in: the folder `tree`."""
        resolved = await self._resolve_written(written, False, client)
        source = await self.checkout(resolved, client)
        with self.using(source):
            first = resolved.package.partition("/")[0]
            return await aside(Tree(source.checkout).names, first) is not None

    async def _resolve_major(
        self, place: Place, major: Major, version: str | None, refresh: bool, client: str
    ) -> Resolved:
        """Resolve an import path with a major version in it: at the version asked for, or else at the default
        branch if that has it, or else at the highest release of that major version."""
        versions = {None: (None, major.series), "latest": (major.series,)}.get(version, (version,))
        for wanted in versions:
            resolved = await self._resolved(place.name, place.package, wanted, refresh, client)
            folder = await self._folder(resolved, major, client)
            if folder is not None:
                break
        return structs.replace(resolved, package=major.stripped if folder is None else folder)

    async def _folder(self, resolved: Resolved, major: Major, client: str) -> str | None:
        key = (resolved.url, resolved.commit, resolved.package)
        if (known := self._folders.get(key)) is None:
            source = await self.checkout(resolved, client)
            with self.using(source):
                known = (await aside(package_folder, Tree(source.checkout), major),)
            self._folders[key] = known
        return known[0]

    async def _resolved(
        self, name: str, package: str, version: str | None, refresh: bool, client: str
    ) -> Resolved:
        self._credentials.admit(name, client)
        resolution = await self._commits.of(name, version, package, refresh=refresh, client=client)
        return Resolved(
            url=name,
            package=package,
            commit=resolution.commit,
            version=version,
            stale=resolution.stale,
            named=self._commits.is_named(name, version, resolution.commit),
        )

    async def doubt(self, name: str) -> None:
        """Ask the remote again before what it said of any branch or tag of this repository is used. If it is
        out of reach then, what it said serves, as stale."""
        await self._commits.doubt_all(name)

    def recorded(self, url: str, package: str, commit: str) -> Resolved:
        """Build the result of an earlier `resolve` from its recorded names. No I/O.

        Raises:
            SourceRefused: the settings do not permit this repository any more.
        """
        parse_url(url, self._git.allowed_schemes)
        named = self._commits.is_named(url, commit, commit)
        return Resolved(url=url, package=package, commit=commit, version=commit, named=named)

    def permitted(self, resolved: Resolved, client: str) -> Resolved:
        """What another island resolved, if the settings of this one let the client call it, too. No I/O.

        Raises:
            SourceRefused: they do not.
        """
        parse_url(resolved.url, self._git.allowed_schemes)
        self._credentials.admit(resolved.url, client)
        return resolved

    # Which versions there are

    async def versions(
        self, url: str, *, after: str | None = None, until: str | None = None, client: str = LOCAL
    ) -> Versions:
        """The releases of the package at `url`, as the remote has them now; or, with `after`, the commits
        after that version. Of both, up to `until`.

        Raises:
            BadRequest: there is no such version, or `until` does not come after `after`.
            As `resolve` does.
        """
        last = await self.resolve(url, until, client=client)
        if after is None:
            found = await self._commits.releases(last.url, last.package, client=client)
            ends = [place for place, one in enumerate(found, 1) if one.commit == last.commit]
            found = found[: ends[-1]] if until is not None and ends else found
        else:
            before = await self.resolve(url, after, client=client)
            found = await self._commits.between(last.url, before.commit, last.commit, client=client)
        omitted = max(0, len(found) - VERSIONS_TOLD)
        return Versions(url=last.url, package=last.package, versions=found[omitted:], omitted=omitted)

    # The files of a commit

    async def checkout(self, resolved: Resolved, client: str = LOCAL) -> Source:
        """The files of a commit, fetched first if they are not on disk. Enter `using` with them at once.

        Raises:
            BadRequest: the version is a commit that the repository does not have.
            SourceRefused: the repository is too large, or one of its paths too deep or too long.
            SourceUnavailable: the remote cannot be reached, or no longer has the commit that it named.
            DriverError: Git or the disk failed us.
            TooBusy: no place to fetch became free in time, or there is no room beside what is in use.
        """
        place = self._checkouts / folder_of(resolved.url) / resolved.commit
        # Held from before it is made until the caller comes to `using`: nothing is awaited after this block.
        with self._space.using(place):
            if place not in self._space:
                turns = self._space.turns(folder_of(resolved.url))
                await self._new_checkouts.join(
                    place, client, lambda: self._make_checkout(resolved, place), turns
                )
            self._space.use(place)
        return Source(
            url=resolved.url,
            package=resolved.package,
            commit=resolved.commit,
            checkout=place,
            stale=resolved.stale,
            named=resolved.named,
        )

    async def _make_checkout(self, resolved: Resolved, place: Path) -> None:
        started = time.perf_counter()
        name, commit = resolved.url, resolved.commit
        mirror = self._mirrors.path(name)
        try:
            with self._space.using(mirror):
                if await aside(place.is_dir):
                    return
                self._space.use(mirror)
                # Resolving the default branch may have fetched it; the mirror may be gone again.
                fetch_s = self._commits.fetch_s.pop((name, commit))
                if fetch_s is None or not await aside(mirror.is_dir):
                    await self._mirrors.fetch(name, commit)
                await self._mirrors.check_out(name, commit, place)
                self._space.use(place)
        except GitFailed as failure:
            if failure.trouble is Trouble.no_commit:
                raise await self._commit_missing(resolved) from None
            raise self._mirrors.remotes.explain(name, failure) from None
        finally:
            # What a refused repository left is counted, and room made for it, like any other.
            await self._space.trim(mirror, place, turn=mirror.name)
        self._names.note(name)
        if self._events is not None:
            duration_s = time.perf_counter() - started + (fetch_s or 0.0)
            self._events.publish(SourceFetched(url=name, commit=commit, duration_s=duration_s))

    async def _commit_missing(self, resolved: Resolved) -> IslandError:
        name, commit, version = resolved.url, resolved.commit, resolved.version
        if version is not None and is_commit(version):
            return BadRequest(f"version: {name} has no commit {commit}", field="version")
        # The branch was rewritten while we trusted its commit. Age 0 makes the next call ask the remote.
        await self._commits.doubt(name, version, resolved.package)
        return SourceUnavailable(f"{name} no longer has the commit {commit}; try again")

    # Removing

    @contextmanager
    def using(self, source: Source) -> Iterator[Source]:
        """Protect a checkout from being removed while the block runs."""
        with self._space.using(source.checkout):
            yield source

    async def sweep(self) -> int:
        """Make the folders, kill and remove what an earlier life left; return how much that was.

        Raises:
            SettingsError: the file of a credential cannot be read, or can be by others.
        """
        await aside(self._credentials.check)
        swept, mirrors = await aside(self._mirrors.prepare)
        left, places = await aside(self._prepare_checkouts)
        self._names.note(*mirrors.values())
        self._space.use(*mirrors, *places)
        await self._space.trim()
        return swept + left

    def _prepare_checkouts(self) -> tuple[int, list[Path]]:
        self._checkouts.mkdir(mode=0o700, parents=True, exist_ok=True)
        return sweep(self._checkouts), list(self._checkouts.glob("*/*"))

    async def purge(self, idle_s: float, keep: Collection[tuple[str, str]] = ()) -> int:
        """Remove the mirrors and checkouts unused for `idle_s` seconds; return their number.

        Never removes one inside `using`, or a (URL, commit) of `keep`. Between `checkout` and `using` only
        `idle_s` protects a checkout, so it must be longer than that takes.
        """
        kept = {self._checkouts / folder_of(url) / commit for url, commit in keep}
        return await self._space.purge(idle_s, kept)

    async def close(self) -> None:
        """Cancel all work under way and wait for its end."""
        for work in (self._names, self._commits, self._new_checkouts):
            await work.close()
        self._mirrors.close()
