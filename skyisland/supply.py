"""From what a request names to a binary: resolved, fetched and built, each only where it is not known yet."""

from __future__ import annotations

from msgspec import structs

from skyisland.errors import Draining, DriverError, NotFound
from skyisland.golang.catalogue import Catalogue
from skyisland.host.failures import Failures
from skyisland.host.fair import LOCAL
from skyisland.model import Artifact, Call, FunctionRequest, Phase, Resolved, Terms
from skyisland.receipts.receipt import Built, Provenance
from skyisland.rooms import BuildRoom, SourceRoom
from skyisland.story import Story
from skyisland.wire import Versions


class Supply:
    """Binaries for calls, and for names before anybody calls them; what packages offer."""

    def __init__(self, sources: SourceRoom, builds: BuildRoom, failures_kept_s: float) -> None:
        """`failures_kept_s`: what could not be resolved or fetched is not tried again for so long."""
        self._sources = sources
        self._builds = builds
        self._failures = Failures(failures_kept_s)
        self.closed = False
        """The island stops: calls that run get their binaries, nobody else does."""

    async def for_call(self, request: FunctionRequest, call: Call, story: Story, terms: Terms) -> Artifact:
        """The binary for the call: a known one, or else one built from the repository at its commit."""
        anew = request.cache_bust
        # A push mends what failed here: each client asks the remote for itself.
        resolve_key = (Phase.resolve, request.url, request.version, story.client)
        with story.phase(Phase.resolve), self._failures.of(resolve_key, anew=anew):
            resolved = terms.resolved or await self._sources.resolve(
                request.url, request.version, refresh=anew, client=story.client
            )
        story.resolved, story.commit, story.stale = resolved, resolved.commit, resolved.stale
        story.repository, story.package = resolved.url, resolved.package
        artifact = None if anew else self._builds.known(resolved, call, story.client)
        if artifact is None and self._builds.shares and not anew:
            with story.phase(Phase.build):
                artifact = await self._builds.borrow(resolved, call, story.client)
        if artifact is not None:
            story.cached = True
            return artifact
        checkout_key = (Phase.clone, resolved.url, resolved.commit, story.client)
        with story.phase(Phase.clone), self._failures.of(checkout_key, anew=anew):
            source = await self._sources.checkout(resolved, story.client)
        with self._sources.using(source), story.phase(Phase.build):
            return await self._builds.build(
                source, call, refresh=anew, invocation=story.id, client=story.client
            )

    async def functions(self, url: str, version: str | None = None, *, client: str = LOCAL) -> Catalogue:
        """What the package at `url` offers, from memory or made as a build is. `client`: whose share of the
        places to build it counts to.

        Raises:
            IslandError: the request was refused, or the package does not compile.
        """
        if self.closed:
            raise Draining("the island is stopping and takes no new requests", retry_after_s=5)
        try:
            with self._failures.of((Phase.resolve, url, version, client)):
                resolved = await self._sources.resolve(url, version, refresh=False, client=client)
            offered = await self._builds.known_catalogue(resolved)
            if offered is None:
                with self._failures.of((Phase.clone, resolved.url, resolved.commit, client)):
                    source = await self._sources.checkout(resolved, client)
                with self._sources.using(source):
                    offered = await self._builds.catalogue(source, client=client)
        except OSError as error:
            raise DriverError(f"the host failed us: {error.strerror}; see its log") from error
        return structs.replace(offered, stale=resolved.stale)

    async def versions(
        self, url: str, *, after: str | None = None, until: str | None = None, client: str = LOCAL
    ) -> Versions:
        """The releases of the package at `url`, oldest first; or the commits after the version `after`. Of
        both, up to `until`. The remote is asked each time.

        Raises:
            BadRequest: there is no such version, or `until` does not come after `after`.
            IslandError: the repository is refused, or out of reach.
        """
        if self.closed:
            raise Draining("the island is stopping and takes no new requests", retry_after_s=5)
        try:
            return await self._sources.versions(url, after=after, until=until, client=client)
        except OSError as error:
            raise DriverError(f"the host failed us: {error.strerror}; see its log") from error

    async def build(
        self, url: str, version: str | None, call: Call, *, refresh: bool, client: str = LOCAL
    ) -> tuple[Resolved, Artifact]:
        """What a version means now, and its binary; nothing is run. `refresh`: ask the remote.

        Raises:
            IslandError: it was refused, or could not be fetched or built.
        """
        resolved = await self._sources.resolve(url, version, refresh=refresh, client=client)
        return resolved, await self.build_at(resolved, call, client=client)

    async def build_at(self, resolved: Resolved, call: Call, *, client: str = LOCAL) -> Artifact:
        """The binary of a commit, built if there is none.

        Raises:
            As `build` does.
        """
        if self.closed:
            raise Draining("the island is stopping and builds nothing new", retry_after_s=5)
        if (known := self._builds.known(resolved, call, client)) is not None:
            return known
        source = await self._sources.checkout(resolved, client)
        with self._sources.using(source):
            return await self._builds.build(source, call, refresh=False, invocation=None, client=client)

    async def made(self, artifact: Artifact) -> Provenance:
        """What a binary was made of, from its record and the files of its commit.

        Raises:
            IslandError: its repository cannot be had any more.
        """
        resolved = self._sources.recorded(artifact.url, artifact.package, artifact.commit)
        source = await self._sources.checkout(resolved, LOCAL)
        with self._sources.using(source):
            return await self._builds.made(artifact, source)

    async def reproduce(self, built: Built, *, client: str = LOCAL) -> Provenance:
        """Fetch and compile anew what a receipt tells of, without running it.

        Raises:
            NotFound, BadRequest: there is no such package, or no such call of it.
            IslandError: as for `rebuild`.
        """
        if self.closed:
            raise Draining("the island is stopping and builds nothing new", retry_after_s=5)
        url = f"{built.repository}/{built.package}" if built.package else built.repository
        resolved = await self._sources.resolve(url, built.commit, refresh=False, client=client)
        if (resolved.url, resolved.package) != (built.repository, built.package):
            raise NotFound(f"{url} is no package of {built.repository} on this island; look at its URL")
        source = await self._sources.checkout(resolved, client)
        with self._sources.using(source):
            artifact = await self._builds.reproduce(built, source, client=client)
            return await self._builds.made(artifact, source)

    async def rebuild(self, key: str) -> Artifact:
        """Fetch and compile an artifact anew, without running it.

        Raises:
            ArtifactNotFound
            SourceRefused, SourceUnavailable, BuildFailed: the artifact stays as it was.
        """
        artifact = self._builds.find(key)
        resolved = self._sources.recorded(artifact.url, artifact.package, artifact.commit)
        source = await self._sources.checkout(resolved, LOCAL)
        with self._sources.using(source):
            return await self._builds.rebuild(artifact, source)
