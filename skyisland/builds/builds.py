"""From a checked-out package and a call to a binary, compiled once.

A binary is known by all that went into it: repository, package, commit, function (or the whole expression,
where its arguments are compiled in), toolchain, main program, platform. An unknown one is compiled in a
build jail. There is one build per binary, however many callers wait for it, and `build.max_running` builds
at a time. A caller who stops waiting leaves the others undisturbed; when the last one leaves, the build is
cancelled and its jail taken away.

A call with literal arguments is compiled for the function alone. Generic functions and types are no function
values: a call of one is compiled as an expression, and the records remember that it must be.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from msgspec import structs

from skyisland.builds.ahead import Ahead
from skyisland.builds.artifacts import Artifacts, Id, Records, id_for, key_of
from skyisland.builds.catalogues import Catalogues
from skyisland.builds.described import Described, Job
from skyisland.builds.exchange import Borrower, Exchange, Offer
from skyisland.builds.store import Store
from skyisland.cause import Cause
from skyisland.errors import BadCall, BuildFailed, Complaint, IslandError
from skyisland.events import BuildFinished, BuildStarted, Events
from skyisland.golang import harness
from skyisland.golang.caches import Caches
from skyisland.golang.call import read_call
from skyisland.golang.callee import HANDLER, PROGRAM, parse_handler
from skyisland.golang.catalogue import Catalogue, hint, some_functions
from skyisland.golang.compiler import Compiler
from skyisland.golang.complaints import of_data
from skyisland.golang.generated import FLAGS
from skyisland.golang.modules import sums_of
from skyisland.host.failures import Failures
from skyisland.host.fair import LOCAL, FairFlights, FairQueue
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchains, this_platform
from skyisland.jails.register import Jails
from skyisland.model import Artifact, Call, Resolved, Source
from skyisland.receipts.receipt import Built, Provenance
from skyisland.settings import Build, Layout

log = logging.getLogger(__name__)

T = TypeVar("T")

NO_FUNCTION_VALUE = {Complaint.generic, Complaint.type}
"""Complaints of a function form whose expression form may compile."""
UPKEEP_S = 300.0
"""Between two writes of uses and two checks of sizes. What a crash loses of either harms nobody."""
BUILD_S = 5.0
"""After which time to ask again for a place to build. A judgement: a small build takes a second or three."""
NO_LIMIT_BYTES = 1 << 40
"""The size of a binary where `build.file_size` is 0: more than any disk of ours has."""


class Builds:
    """Gives each call its binary (`rooms.BuildRoom`). `prepare` comes first, `close` last."""

    def __init__(
        self,
        settings: Build,
        layout: Layout,
        *,
        jails: Jails,
        records: Records,
        events: Events,
        toolchains: Toolchains,
        timeout_s: float,
        unused_s: float,
        uid: int | None,
        failures_kept_s: float = 0.0,
        exchange: Exchange | None = None,
    ) -> None:
        """`timeout_s`: for one compilation. `unused_s`: binaries and caches not used for longer are removed.
        `failures_kept_s`: what did not compile is not compiled again for so long.
        `uid`: host uid of all build jails when the island is root; no other jail may have it.
        `exchange`: binaries of the fleet that the island is a part of.
        """
        self.settings = settings
        self.records = records
        self.events = events
        self.toolchains = toolchains
        limit_bytes = settings.cache_limit
        self._artifacts = Artifacts(
            Store(layout.artifacts), records, events, limit_bytes=limit_bytes, unused_s=unused_s
        )
        self._caches = Caches(
            layout,
            uid=uid,
            limit_bytes=limit_bytes,
            unused_s=unused_s,
            dropped=self._forget_packages,
        )
        self._compiler = Compiler(settings, jails, self._caches, timeout_s=timeout_s)
        places = FairQueue(
            "a place to build",
            settings.max_running,
            places_per_client=settings.running_per_client,
            max_waiting=settings.max_queued,
            timeout_s=settings.queue_timeout,
            retry_after_s=BUILD_S,
        )
        self._building: FairFlights[Artifact] = FairFlights(places)
        self._catalogues = Catalogues(layout.catalogues, self._compiler, places)
        self._failures = Failures(failures_kept_s)
        self._described = Described(self._compiler, places, self._failures)
        self._exchange = exchange
        limit_bytes = settings.file_size or NO_LIMIT_BYTES
        self._borrower = Borrower(exchange, self._artifacts, limit_bytes) if exchange is not None else None
        self._upkeep: asyncio.Task[None] | None = None
        self._under_way = 0
        """Builds and catalogues that somebody waits for."""
        self._ahead = Ahead(partial(self._compiler.library.compile_all, gently=True))

    # Life

    async def prepare(self, progress: Progress = silent, *, whole: bool = False) -> None:
        """Find or download Go, compile what every build needs, and read the records. May be repeated.

        `whole`: compile the entire standard library.

        Raises:
            SettingsError, HostUnfit: no Go works here; the text names the remedy.
        """
        toolchain = await self.toolchains.find(progress)
        await self._compiler.library.prepare(toolchain, progress, whole=whole)
        await self._artifacts.load(self._key)
        await self._catalogues.load()
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._keep_up())

    def work_ahead(self, busy: Callable[[], bool]) -> None:
        """Compile the rest of the standard library while it is quiet, if the settings want that. `busy`: some
        call is under way."""
        if self.settings.compile_ahead:
            self._ahead.start(lambda: busy() or self._under_way > 0)

    def disturb(self) -> None:
        """Somebody calls: what `work_ahead` does waits."""
        self._ahead.disturb()

    @property
    def ahead(self) -> str:
        """How far that is, in words; empty when nothing is left to do."""
        return self._ahead.stage

    async def _keep_up(self) -> None:
        """Record uses, and forget what is old or too much."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                self._artifacts.write_uses()
                await self._artifacts.make_room()
                await self._caches.trim()
            except Exception:
                log.exception("the upkeep of the caches failed; it is tried again")

    async def close(self) -> None:
        """Cancel what is being built, and record uses. May be repeated."""
        await self._ahead.close()
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
            self._upkeep = None
        if self._borrower is not None:
            await self._borrower.close()
        await self._building.close()
        await self._catalogues.close()
        await self._described.close()
        await self._artifacts.close()

    def _forget_packages(self) -> None:
        self._described.forget()

    # Looking up

    def known(self, resolved: Resolved, call: Call, client: str = LOCAL) -> Artifact | None:
        """The binary for a call, if there is one; counts as a hit."""
        reading: Call | None = call
        while reading is not None:
            artifact = self._artifacts.get(id_for(resolved, self._remembered_form(resolved, reading)))
            if artifact is not None and reading.qualifier in (None, artifact.package_name):
                return self._artifacts.use(artifact, client, hits=1)
            reading = reading.otherwise
        return None  # a wrong name is refused in `build`

    def using(self, artifact: Artifact) -> AbstractContextManager[None]:
        """Keep the binary's file for the length of the block, whoever forgets the artifact meanwhile."""
        return self._artifacts.using(artifact)

    def artifacts(self) -> list[Artifact]:
        """Every artifact, the last used first."""
        return self._artifacts.all()

    def find(self, key: str) -> Artifact:
        """An artifact by its key.

        Raises:
            ArtifactNotFound
        """
        return self._artifacts.find(key)

    async def evict(self, key: str) -> Artifact:
        """Forget an artifact.

        Raises:
            ArtifactNotFound
        """
        return await self._artifacts.evict(key)

    async def purge(self) -> list[Artifact]:
        """Forget all artifacts that no call uses; returns them."""
        return await self._artifacts.purge()

    def _remembered_form(self, resolved: Resolved | Source, call: Call) -> Call:
        """The call, as an expression if an earlier build showed that its function is generic or a type."""
        if call.takes_data:
            return call
        if call.arguments is not None and self.records.is_expression(_function(resolved, call)):
            return harness.as_expression(call)
        return call

    def _key(self, id_: Id) -> str:
        return key_of(id_, self._compiler.toolchain.version)

    # Building

    async def build(
        self,
        source: Source,
        call: Call,
        *,
        refresh: bool,
        invocation: str | None,
        client: str = LOCAL,
    ) -> Artifact:
        """The binary for a call, compiled unless it is known, or in any case with `refresh`.

        `client`: in whose turn it is compiled; one whom several wait for, in the first of their turns.
        Enter `using` with it before anything else is awaited, or it may be gone.

        Raises:
            BuildFailed: it does not compile; the text says why, and `details["output"]` is what Go said.
            BadCall: the package's name is not the one that the caller put in front.
            SourceUnavailable: modules could not be downloaded.
            HostUnfit, DriverError: no build jail can be made.
            TooBusy: too many builds wait, or this one waited too long.
        """
        job = Job(source=source, call=call, refresh=refresh, invocation=invocation, client=client)
        try:
            return await self._work(job, self._in_either_form)
        except BadCall as error:
            offered = await self._catalogues.known(source) if call.is_program else None
            if names := some_functions(offered):
                raise BadCall(f"{error.message}, such as {names}", **error.details) from None
            raise

    async def _work(self, job: Job, work: Callable[[Job], Awaitable[T]]) -> T:
        """What comes of the work for a package that somebody waits for: nothing is compiled ahead
        meanwhile."""
        self._ahead.disturb()
        self._under_way += 1
        try:
            return await self._described.work(job, work)
        finally:
            self._under_way -= 1

    async def rebuild(self, artifact: Artifact, source: Source) -> Artifact:
        """Compile an artifact anew, from the files of its commit.

        Raises:
            As `build` does.
        """
        call = await _call_of(artifact)
        return await self.build(source, call, refresh=True, invocation=None)

    async def reproduce(self, built: Built, source: Source, *, client: str) -> Artifact:
        """The same of a binary that is not on record, by what a receipt says of it.

        Raises:
            BadCall: that is no call.
            As `build` does.
        """
        call = await _call_of(built)
        if built.expression is not None and call.function != built.function:
            text = f"expression: it calls {call.function[:80]}, and function says {built.function[:80]!r}"
            raise BadCall(text, position=0)
        return await self.build(source, call, refresh=True, invocation=None, client=client)

    async def made(self, artifact: Artifact, source: Source) -> Provenance:
        """What an artifact was made of."""
        go_mod, go_sum = await asyncio.to_thread(sums_of, source)
        return Provenance(
            repository=artifact.url,
            package=artifact.package,
            commit=artifact.commit,
            function=artifact.function,
            expression=artifact.expression,
            package_name=artifact.package_name,
            go_mod_sha256=go_mod,
            go_sum_sha256=go_sum,
            toolchain=artifact.go_version,
            platform="/".join(this_platform()),
            flags=FLAGS,
            recipe=artifact.key,
            binary_sha256=artifact.sha256,
        )

    # What a package offers

    async def known_catalogue(self, resolved: Resolved | Source | Artifact) -> Catalogue | None:
        """What a package offers, if it was asked for at this commit before.

        Who has arguments by name finds the names here: `catalogue.find("NewClient", "Do").parameters`, in the
        order of the function's parameters, with those that the island gives itself.
        """
        return await self._catalogues.known(resolved)

    async def catalogue(self, source: Source, *, client: str = LOCAL) -> Catalogue:
        """The same, made if nobody asked before; that takes about as long as a build.

        Raises:
            As `build` does.
        """
        if found := await self._catalogues.known(source):
            return found
        job = Job(source=source, refresh=False, invocation=None, client=client)

        async def offered(job: Job) -> Catalogue:
            return await self._catalogues.of(source, job.package, client=client)

        with self._failures.of((job.commit, "catalogue")):
            return await self._work(job, offered)

    async def _with_hint(self, error: BuildFailed, job: Job) -> BuildFailed:
        """A compiler's complaint about the call, with what may help: names that come close, the signature."""
        if error.complaint not in (Complaint.undefined, Complaint.mismatch):
            return error
        if not await self._compiler.library.has_cataloguer():
            return error
        try:
            offered = await self._catalogues.make(job.source, job.package, invocation=job.invocation)
        except (IslandError, OSError) as failure:
            log.info("no catalogue of %s for a hint: %s", job.source.import_path, failure)
            return error
        more = await asyncio.to_thread(hint, offered, job.call.function, error.details.get("output", ""))
        return BuildFailed(error.message + more, **error.details | {"complaint": error.complaint})

    async def _in_either_form(self, job: Job) -> Artifact:
        """The binary for the function alone, or for the expression if it is no function value."""
        call = job.call.meant_in(job.package.name)
        job = structs.replace(job, call=self._remembered_form(job.source, call))
        try:
            return await self._once(job)
        except BuildFailed as error:
            if job.call.takes_data:
                raise of_data(job.call, error) from error.__cause__
            if job.call.arguments is None or error.complaint not in NO_FUNCTION_VALUE:
                raise
        self.records.note_expression(_function(job.source, job.call))
        return await self._once(structs.replace(job, call=harness.as_expression(job.call)))

    async def _once(self, job: Job) -> Artifact:
        """The binary of one compilation, which all share who want the same."""
        if not job.call.is_program:
            harness.check_package(job.call, job.package.import_path, job.package.name)
        # The name has been checked. It makes no other binary, so callers with and without it share one.
        job = structs.replace(job, call=structs.replace(job.call, qualifier=None, otherwise=None))
        id_ = id_for(job.source, job.call)
        # What failed with the package described in one way may succeed in another.
        attempt = (id_, job.package.way, job.package.by_go, job.package.go_mod)
        while True:
            with self._failures.of(attempt, anew=job.refresh):
                await self._building.join((attempt, job.refresh), job.client, lambda: self._compile(job))
            # It may have been evicted since the build ended.
            if artifact := self._artifacts.get(id_):
                return self._artifacts.use(artifact, job.client)

    # Binaries of the fleet

    @property
    def go_version(self) -> str:
        """The toolchain's, once that is found."""
        return self._compiler.toolchain.version

    @property
    def shares(self) -> bool:
        """Whether other islands may have a binary."""
        return self._exchange is not None

    async def borrow(self, resolved: Resolved, call: Call, client: str = LOCAL) -> Artifact | None:
        """The binary for a call that another island of the fleet compiled; None if there is none."""
        reading: Call | None = call
        while reading is not None:
            form = self._remembered_form(resolved, reading)
            if (
                artifact := await self._borrow(id_for(resolved, form), client, reading.qualifier)
            ) is not None:
                return artifact
            if form is reading and form.arguments is not None and not form.takes_data:
                id_ = id_for(resolved, harness.as_expression(form))
                if (artifact := await self._borrow(id_, client, reading.qualifier)) is not None:
                    self.records.note_expression(_function(resolved, reading))
                    return artifact
            reading = reading.otherwise
        return None

    async def _borrow(self, id_: Id, client: str, qualifier: str | None = None) -> Artifact | None:
        if self._borrower is None:
            return None
        artifact = await self._borrower.get(id_, self._key(id_), client, qualifier)
        if artifact is not None:
            await self._artifacts.make_room(artifact)
        return artifact

    async def _compile(self, job: Job) -> Artifact:
        """Compile, unless another island of the fleet has or does."""
        if self._exchange is None:
            return await self._compile_here(job)
        id_ = id_for(job.source, job.call)
        key = self._key(id_)
        async with self._exchange.turn(key):
            if not job.refresh and (artifact := await self._borrow(id_, job.client)) is not None:
                return artifact
            artifact = await self._compile_here(job)
            with self._artifacts.using(artifact):
                await self._exchange.offer(key, Offer.of(artifact), artifact.path)
        return artifact

    async def _compile_here(self, job: Job) -> Artifact:
        """Compile, and keep the binary."""
        source, call = job.source, job.call
        id_ = id_for(source, call)
        if not job.refresh and (artifact := self._artifacts.get(id_)):
            return artifact
        key, started, size_bytes = self._key(id_), time.perf_counter(), 0
        cause: Cause | None = Cause.of_absence()
        self.events.publish(
            BuildStarted(
                key=key,
                url=source.url,
                package=source.package,
                function=call.function,
                invocation=job.invocation,
            )
        )

        def record(sha256: str, size_bytes: int) -> Artifact:
            return Artifact(
                key=key,
                sha256=sha256,
                path=self._artifacts.store.path(sha256),
                url=source.url,
                package=source.package,
                package_name=job.package.name,
                commit=source.commit,
                function=call.function,
                expression=id_[-1],
                size_bytes=size_bytes,
                build_s=time.perf_counter() - started,
                built_at=time.time(),
                used_at=time.time(),
                go_version=self._compiler.toolchain.version,
            )

        compiling = self._compiler.compile(source, job.package, call, invocation=job.invocation)
        try:
            async with compiling as binary:
                limit_bytes = self.settings.file_size or NO_LIMIT_BYTES
                artifact = await self._artifacts.keep(binary, limit_bytes, record, job.client)
            size_bytes, cause = artifact.size_bytes, None
        except Exception as error:
            cause = Cause.of_error(error)
            if not isinstance(error, BuildFailed):
                raise
            raise await self._with_hint(error, job) from error.__cause__
        finally:
            self.events.publish(
                BuildFinished(
                    key=key,
                    url=source.url,
                    package=source.package,
                    function=call.function,
                    ok=cause is None,
                    duration_s=time.perf_counter() - started,
                    size_bytes=size_bytes,
                    cause=cause,
                    invocation=job.invocation,
                )
            )
        await self._artifacts.make_room(artifact)
        return artifact


async def _call_of(made: Artifact | Built) -> Call:
    """The call that a binary was compiled for.

    Raises:
        BadCall: there is none.
    """
    if made.expression and made.expression.startswith(HANDLER):
        return parse_handler(made.function)
    if made.function == PROGRAM.function:
        return PROGRAM
    call = await read_call(made.expression or f"{made.function}()")
    call = call.meant_in(made.package_name)
    if isinstance(made, Artifact):
        call = structs.replace(call, function=made.function)
    return structs.replace(call, arguments=() if made.expression is None else None)


def _function(resolved: Resolved | Source, call: Call) -> tuple[str, str, str, str]:
    return (resolved.url, resolved.package, resolved.commit, call.function)
