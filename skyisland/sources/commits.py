"""Versions become commits: from memory while the remote's word is trusted, else by asking the remote.

One question names the version's references and the default branch, so that one branch has one commit, by
whichever of its names it was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from skyisland.errors import BadRequest, SourceRefused, SourceUnavailable
from skyisland.host.fair import FairFlights, FairQueue
from skyisland.host.recent import Recent
from skyisland.host.tasks import aside
from skyisland.model import KnownCommit
from skyisland.sources.git import GitFailed, Trouble
from skyisland.sources.mirror import Mirrors, folder_of
from skyisland.sources.releases import releases_among
from skyisland.sources.remotes import EVERY_REFERENCE_BYTES, LISTING_BYTES
from skyisland.sources.space import Space
from skyisland.sources.versions import (
    begun_by,
    branches_among,
    commit_among,
    commit_at,
    default_branch,
    exact,
    first,
    is_commit,
    is_request,
    is_short,
    is_wide,
    key_of,
    majors_among,
    near,
    refs_of,
)
from skyisland.wire import PastVersion

RETRY_S = 30.0
"""After a remote could not be reached, calls get its last known commit for this long before we ask it again.
A judgement: half of the default git.timeout, which each new attempt may cost one caller."""

NAMES_KEPT = 10_000
"""Names of repositories that are remembered, of each kind. A judgement: 20 MiB at worst."""

COMMITS_BETWEEN = 1000
"""Commits between two versions that are told. A judgement: ten calls find one among them."""
BRANCHES_NAMED = 10
"""How many branches an error names."""


class KnownCommits(Protocol):
    """The last commit that a remote named, by repository and version ("" is the default branch)."""

    def get(self, url: str, version: str) -> KnownCommit | None:
        """Called once per call of a function, so it must answer from memory."""

    def versions(self, url: str) -> list[str]:
        """The versions of a repository whose commit is remembered."""

    async def put(self, url: str, version: str, known: KnownCommit) -> None: ...


class CommonCommits(Protocol):
    """What remotes said to any island of the fleet (`fleet.commits`). While that cannot be reached nothing is
    known, and no error raised."""

    async def look(self, url: str, version: str) -> KnownCommit | None: ...
    def tell(self, url: str, version: str, known: KnownCommit) -> None:
        """A remote said this to this island."""


class Resolution(Struct, frozen=True):
    """The commit of a version."""

    commit: str
    stale: bool = False
    """The remote could not be reached, and this is what it last said."""


class Commits:
    """Says which commit a version of a repository is. Callers who want the same share one question."""

    def __init__(
        self,
        mirrors: Mirrors,
        space: Space,
        places: FairQueue,
        known: KnownCommits,
        trust_s: float,
        common: CommonCommits | None = None,
    ) -> None:
        """`trust_s`: how long the commit of a branch or tag is used before the remote is asked again.
        `common`: of the fleet that the island is a part of."""
        self._common = common
        self._mirrors = mirrors
        self._space = space
        self._known = known
        self._trust_s = trust_s
        self._named: Recent[tuple[str, str], bool] = Recent(NAMES_KEPT)
        """(repository, commit) that a branch or tag named."""
        self._retry_at: Recent[tuple[str, str], float] = Recent(NAMES_KEPT)
        """(repository, key of a version) → when to ask its unreachable remote again (monotonic)."""
        self.fetch_s: Recent[tuple[str, str], float] = Recent(NAMES_KEPT)
        """(repository, commit) → seconds. Commits fetched while resolving the default branch."""
        self._questions: FairFlights[Resolution] = FairFlights(places)
        self._splits: FairFlights[int] = FairFlights(places)
        self._lists: FairFlights[list[PastVersion]] = FairFlights(places)
        self._splits_known: Recent[tuple[str, ...], int] = Recent(NAMES_KEPT)
        """(repository, versions that begin alike) → place of the one that it has; -1 for none."""

    def is_known(self, name: str, version: str | None) -> bool:
        """Whether the remote has named a commit for this version before."""
        return self._known.get(name, version or "") is not None

    def is_named(self, name: str, version: str | None, commit: str) -> bool:
        """Whether a branch or tag of the repository named the commit, now or lately."""
        if version is None or not (is_commit(version) or is_request(version)):
            return True
        default = self._known.get(name, "")
        return (name, commit) in self._named or (default is not None and default.commit == commit)

    async def of(
        self, name: str, version: str | None, package: str = "", *, refresh: bool, client: str
    ) -> Resolution:
        """The commit of a version for a package: from the version itself, from memory, or from the remote.

        Raises:
            BadRequest: the repository has no such version; the text names those that come close.
            SourceUnavailable, SourceRefused: the remote does not say.
        """
        if version is not None and is_commit(version):
            return Resolution(version)
        key = key_of(version, package)
        last_known = self._known.get(name, key)
        if last_known is not None and not refresh:
            # A negative age means that the clock was set back: the entry is not trusted.
            if 0.0 <= time.time() - last_known.at < self._trust_s:
                return Resolution(last_known.commit)
            if time.monotonic() < (self._retry_at.get((name, key)) or 0.0):
                return Resolution(last_known.commit, stale=True)
        # The default branch of a new repository is fetched at once.
        turns = [self._space.turns(folder_of(name))] if version is None and last_known is None else []
        return await self._questions.join(
            (name, key), client, lambda: self._ask(name, version, package, last_known, refresh), *turns
        )

    async def doubt(self, name: str, version: str | None, package: str) -> None:
        """The remote no longer has the commit that it named: the next call asks it again."""
        key = key_of(version, package)
        if known := self._known.get(name, key):
            await self._known.put(name, key, KnownCommit(known.commit, 0.0))

    async def doubt_all(self, name: str) -> None:
        """The repository changed: the next call asks the remote again, whatever version it names."""
        for version in self._known.versions(name):
            self._retry_at.pop((name, version))
            if known := self._known.get(name, version):
                await self._known.put(name, version, KnownCommit(known.commit, 0.0))

    async def close(self) -> None:
        """Cancel all questions and wait for their end."""
        await self._questions.close()
        await self._splits.close()
        await self._lists.close()

    async def split(self, name: str, versions: Sequence[str], *, refresh: bool, client: str) -> int | None:
        """Which of these versions the repository has, the longest of its branches and tags; None if none.

        They begin alike: `feature`, `feature/x`. One question, and its answer is known to `of`.

        Raises:
            SourceUnavailable, SourceRefused: the remote does not say.
        """
        if not refresh:
            for place, version in enumerate(versions):
                if self._known.get(name, version) is not None:
                    return place
            if (found := self._splits_known.get((name, *versions))) is not None:
                return found if found >= 0 else None
        found = await self._splits.join((name, *versions), client, lambda: self._ask_which(name, versions))
        self._splits_known[name, *versions] = found
        return found if found >= 0 else None

    async def _ask_which(self, name: str, versions: Sequence[str]) -> int:
        """The place of the version that the remote has; -1 if it has none of them."""
        refs = dict.fromkeys(ref for version in versions for ref in exact(version))
        refs["HEAD"] = None
        try:
            listing = await self._mirrors.remotes.references(name, [*refs])
        except GitFailed as failure:
            raise self._mirrors.remotes.explain(name, failure) from None
        for place, version in reversed([*enumerate(versions)]):
            if commit := first(listing, version):
                await self._note_other_names(name, version, listing)
                await self._remember(name, key_of(version, ""), commit)
                return place
        return -1

    async def releases(self, name: str, package: str, *, client: str) -> list[PastVersion]:
        """The releases of a package that the remote has now, oldest first.

        Raises:
            SourceUnavailable, SourceRefused: the remote does not say.
        """

        async def ask() -> list[PastVersion]:
            try:
                listing = await self._list(name, "latest", package)
            except GitFailed as failure:
                raise self._mirrors.remotes.explain(name, failure) from None
            return await aside(releases_among, listing, package)

        return await self._lists.join((name, package), client, ask)

    async def between(self, name: str, before: str, last: str, *, client: str) -> list[PastVersion]:
        """The commits after `before` up to `last`, along the first parents, oldest first.

        Raises:
            BadRequest: `last` does not come after `before`, or after too many others.
            SourceUnavailable, SourceRefused: their history cannot be fetched.
        """

        async def ask() -> list[PastVersion]:
            try:
                commits = await self._mirrors.commits_between(name, before, last, COMMITS_BETWEEN)
            except GitFailed as failure:
                raise self._mirrors.remotes.explain(name, failure) from None
            if commits is None:
                text = f"after: {last[:12]} does not come after {before[:12]} in the history of {name}"
                raise BadRequest(text, field="after")
            if len(commits) > COMMITS_BETWEEN:
                text = (
                    f"after: more than {COMMITS_BETWEEN} commits come after {before[:12]}; name a later one"
                )
                raise BadRequest(text, field="after")
            return [PastVersion(commit, commit) for commit in commits]

        return await self._lists.join((name, before, last), client, ask)

    # Asking the remote

    async def _ask(
        self, name: str, version: str | None, package: str, last_known: KnownCommit | None, refresh: bool
    ) -> Resolution:
        """Ask the fleet what a remote said to it, or else the remote."""
        doubted = last_known is not None and not last_known.at  # others have not heard of that
        if self._common is not None and not refresh and not doubted:
            key = key_of(version, package)
            heard = await self._common.look(name, key)
            if heard is not None and 0.0 <= time.time() - heard.at < self._trust_s:
                if not is_request(key):
                    self._named[name, heard.commit] = True
                await self._known.put(name, key, heard)
                return Resolution(heard.commit)
        return await self._ask_remote(name, version, package, last_known)

    async def _ask_remote(
        self, name: str, version: str | None, package: str, last_known: KnownCommit | None
    ) -> Resolution:
        """Resolve a version at the remote. If that cannot be reached, the known commit serves, as stale."""
        if version is None and last_known is None:
            commit = await self._fetch_default_branch(name)
            if commit is not None:
                return await self._remember(name, "", commit)
        key = key_of(version, package)
        try:
            listing = await self._list(name, version, package)
        except GitFailed as failure:
            if last_known is None or failure.trouble not in (Trouble.other, Trouble.timed_out):
                raise self._mirrors.remotes.explain(name, failure) from None
            self._retry_at[name, key] = time.monotonic() + RETRY_S
            return Resolution(last_known.commit, stale=True)
        self._retry_at.pop((name, key))
        commit = await aside(commit_among, listing, version, package)
        if commit is None and version is not None and is_short(version):
            commit = await self._commit_begun_by(name, version, last_known)
        if commit is None:
            raise await self.no_such(name, version)
        await self._note_other_names(name, version, listing)
        return await self._remember(name, key, commit)

    async def _list(self, name: str, version: str | None, package: str) -> bytes:
        refs = refs_of(version, package)
        limit_bytes = EVERY_REFERENCE_BYTES if is_wide(version) else LISTING_BYTES
        try:
            return await self._mirrors.remotes.references(name, refs, limit_bytes=limit_bytes)
        except GitFailed as failure:
            if failure.trouble is not Trouble.too_large:
                raise
            raise SourceRefused(
                f"the server of {name} lists more than {limit_bytes} bytes of references for this version; "
                "call it by the forty digits of a commit",
                field="version",
            ) from None

    async def _fetch_default_branch(self, name: str) -> str | None:
        """Fetch the default branch of a repository without a mirror, at our turn; return its commit.

        One connection resolves and fetches. None if there is a mirror, or if the remote does not support it.
        """
        started = time.perf_counter()
        mirror = self._mirrors.path(name)
        if await aside(mirror.is_dir):
            return None
        try:
            commit = await self._mirrors.fetch_default_branch(name)
        except GitFailed as failure:
            if failure.trouble in (Trouble.other, Trouble.only_whole, Trouble.no_commit):
                return None
            raise self._mirrors.remotes.explain(name, failure) from None
        self._space.use(mirror)
        await self._space.trim(mirror, turn=mirror.name)
        self.fetch_s[name, commit] = time.perf_counter() - started
        return commit

    async def _commit_begun_by(self, name: str, digits: str, last_known: KnownCommit | None) -> str | None:
        """The one commit that begins with these digits.

        Of a branch or tag, as a list of them says; else of their history, which is fetched without files.

        Raises:
            BadRequest: several begin so.
        """
        if last_known is not None and last_known.commit.startswith(digits.lower()):
            return last_known.commit  # what a hash means does not change
        commits = await aside(begun_by, digits, await self._every_reference(name))
        if not commits:
            try:
                commits = await self._mirrors.commits_begun_by(name, digits.lower())
            except GitFailed as failure:
                raise self._mirrors.remotes.explain(name, failure) from None
        if len(commits) > 1:
            raise BadRequest(
                f"version: {len(commits)} commits of {name} begin with {digits}: "
                + ", ".join(sorted(commits)[:BRANCHES_NAMED]),
                field="version",
            )
        return commits.pop() if commits else None

    async def _every_reference(self, name: str) -> bytes:
        """All branches and tags; nothing if the server does not say, or too many."""
        try:
            return await self._mirrors.remotes.references(
                name, (), "--heads", "--tags", limit_bytes=EVERY_REFERENCE_BYTES
            )
        except GitFailed:
            return b""

    async def no_such(self, name: str, version: str | None) -> BadRequest | SourceUnavailable:
        """Why a repository that answers has no commit for a version, and what it has."""
        listing = await self._every_reference(name)
        if version is None:
            branches = await aside(branches_among, listing)
            if not branches:
                return SourceUnavailable(f"{name} is empty: it has no default branch")
            named = ", ".join(branches[:BRANCHES_NAMED])
            more = f" and {len(branches) - BRANCHES_NAMED} more" if len(branches) > BRANCHES_NAMED else ""
            return BadRequest(
                f"version: the default branch of {name} does not exist (its HEAD points nowhere); name one "
                f"of its branches: {named}{more}",
                field="version",
            )
        if version.startswith("/"):
            majors = await aside(majors_among, listing, version)
            hint = f"; there are releases of {', '.join(majors)}" if majors else ""
            return BadRequest(
                f"url: {name} has no release of {version[1:]}, nor such a folder on its default branch{hint}",
                field="url",
            )
        close = await aside(near, version, listing)
        hint = f"; there is {', '.join(close)}" if close else ""
        if is_short(version):
            hint = ", and no commit that begins so" + hint
        return BadRequest(f"version: {name} has no branch or tag {version!r}{hint}", field="version")

    # Remembering

    async def _note_other_names(self, name: str, version: str | None, listing: bytes) -> None:
        """A branch may be known by several names: what the remote says of one, it says of all."""
        default = default_branch(listing)
        branch = default if version is None else version.removeprefix("refs/heads/")
        commit = None if branch is None else commit_at(listing, f"refs/heads/{branch}")
        if version is None or branch == default:
            commit = commit_at(listing, "HEAD")
        if branch is None or commit is None:
            return
        for other in {branch, f"refs/heads/{branch}"} - {version}:
            if self._known.get(name, other) is not None:
                await self._remember(name, other, commit)
        if branch == default and version is not None:
            await self._remember(name, "", commit)

    async def _remember(self, name: str, key: str, commit: str) -> Resolution:
        if not is_request(key):
            self._named[name, commit] = True
        known = KnownCommit(commit, time.time())
        await self._known.put(name, key, known)
        if self._common is not None:
            self._common.tell(name, key, known)
        return Resolution(commit)
