"""Where a repository ends and its packages begin.

A caller's URL enters; the repository's name, and a package's folder in it, leave. Known forges have their
repositories at one depth, and a caller may mark the end. For every other host, what is known is asked first,
then its page for import paths (`vanity`), then Git itself, for one part of the path after the other. The
operator's own repositories (`[git] rewrite`) are asked by Git alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from skyisland.host.fair import FairFlights, FairQueue
from skyisland.host.outbound import Lookup
from skyisland.host.recent import Recent
from skyisland.settings import Git as GitSettings
from skyisland.sources.commits import NAMES_KEPT
from skyisland.sources.git import GitFailed, Trouble
from skyisland.sources.places import Place, placed
from skyisland.sources.remotes import Remotes
from skyisland.sources.url import RepositoryUrl, remote_of
from skyisland.sources.vanity import ask_place, gopkg_place
from skyisland.sources.versions import refs_of


class Names:
    """Finds repositories. Callers who want the same share the work."""

    def __init__(
        self, git: GitSettings, remotes: Remotes, places: FairQueue, lookup: Lookup, trust_s: float
    ) -> None:
        """`trust_s`: how long a page's word is used before the host is asked again."""
        self._git = git
        self._remotes = remotes
        self._lookup = lookup
        self._trust_s = trust_s
        self._repositories: Recent[str, bool] = Recent(NAMES_KEPT)
        """Names that are known to be repositories."""
        self._said: Recent[str, tuple[Place, float]] = Recent(NAMES_KEPT)
        """URL without version → the place that its host's page named, and when (monotonic)."""
        self._searches: FairFlights[Place] = FairFlights(places)

    def note(self, *names: str) -> None:
        """These are repositories."""
        for name in names:
            self._repositories[name] = True

    async def place_of(
        self, url: RepositoryUrl, is_known: Callable[[str], bool], *, refresh: bool, client: str
    ) -> Place:
        """The repository of a URL, and the package in it.

        `is_known`: whether a commit of a name is known, which therefore is a repository's. `refresh` asks a
        page again.

        Raises:
            BadRequest, SourceRefused, SourceUnavailable: there is none.
        """
        names = list(url.candidates())
        if url.depth is not None:
            return placed(url, names[0])
        if url.host == "gopkg.in" and not self._is_rewritten(url) and (place := gopkg_place(url)):
            return place
        whole = url.name(len(url.segments))
        said = self._said.get(whole)
        if said is not None and not refresh and time.monotonic() - said[1] < self._trust_s:
            return said[0]
        if said is None:
            for name in reversed(names):
                if name in self._repositories or is_known(name):
                    return placed(url, name)
        return await self._searches.join(url, client, lambda: self._search(url, whole))

    async def close(self) -> None:
        """Cancel all searches and wait for their end."""
        await self._searches.close()

    def _is_rewritten(self, url: RepositoryUrl) -> bool:
        return remote_of(url.name(len(url.segments)), self._git.rewrites).rewritten

    async def _search(self, url: RepositoryUrl, whole: str) -> Place:
        if url.scheme in ("https", "http") and not self._is_rewritten(url):
            said = self._said.get(whole)
            try:
                place = await ask_place(url, self._lookup, self._git.allowed_schemes, self._git.timeout)
            except OSError:
                place = said[0] if said is not None else None
            if place is not None:
                self._said[whole] = (place, time.monotonic())
                return place
        return placed(url, await self._probe(url))

    async def _probe(self, url: RepositoryUrl) -> str:
        """Ask the remote for each candidate in turn; return the first name that is a repository."""
        failure = GitFailed(Trouble.missing)
        empty: str | None = None
        for name in url.candidates():
            try:
                listing = await self._remotes.references(name, refs_of(None))
            except GitFailed as failed:
                failure = failed
                if failure.trouble not in (Trouble.missing, Trouble.moved):
                    break
                continue
            if listing:
                self.note(name)
                return name
            # A page of a group that answers whatever is asked looks like an empty repository.
            empty = empty or name
        if empty is not None:
            return empty
        raise self._remotes.explain(url.name(len(url.segments)), failure)
