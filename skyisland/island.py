"""The island: runs calls through its rooms, and lets operators see and steer.

`Island` is the one interface of everything outside: REST, console and commands see the same methods,
and none of them reaches past it. A call is one line read from left to right:
request ▶ call ▶ artifact ▶ jail ▶ outcome ▶ invocation.

What it asks of its rooms is in rooms.py, so each room can be real or a fake (fakes.py). `wiring` makes the
real ones from settings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from itertools import islice

import msgspec
from msgspec import structs

from skyisland.errors import (
    BadCall,
    Draining,
    DriverError,
    HostUnfit,
    IslandError,
    JailNotFound,
    SettingsError,
    Unavailable,
)
from skyisland.events import Events, InvocationFinished, IslandStarted, IslandStopped, Pulse
from skyisland.figures import Report, Window
from skyisland.golang import harness
from skyisland.golang.callee import EXAMPLES, parse_handler, understand
from skyisland.golang.catalogue import Catalogue
from skyisland.golang.conversation import Conversation, Heard
from skyisland.golang.runtime import function_environment
from skyisland.host.failures import Failures
from skyisland.host.fair import LOCAL, FairQueue
from skyisland.host.load import HostMeter
from skyisland.host.tasks import Progress, silent
from skyisland.jails.outputs import Outputs
from skyisland.jails.pool import Confines, Pace, WarmPool
from skyisland.jails.register import Jails
from skyisland.later.calls import Order
from skyisland.later.keeping import NotKept, Store
from skyisland.later.later import Later
from skyisland.later.memory import MemoryStore
from skyisland.model import (
    Artifact,
    Call,
    FunctionRequest,
    Invocation,
    Limits,
    NamedCall,
    Outcome,
    Phase,
    Resolved,
    Terms,
)
from skyisland.named.functions import NamedFunctions
from skyisland.named.names import MemoryNames, Names
from skyisland.named.secrets import Secrets
from skyisland.record.failed import FailedBuilds
from skyisland.record.functions import Functions
from skyisland.rooms import AddressRoom, BuildRoom, HistoryRoom, SourceRoom
from skyisland.settings import Async
from skyisland.status import (
    AddressInfo,
    AddressState,
    Capability,
    HostLoad,
    JailInfo,
    Policy,
    Status,
    Written,
)
from skyisland.story import Story
from skyisland.wire import FunctionPage

log = logging.getLogger(__name__)

CANCEL_AFTER_S = 5.0
"""When the island stops, calls whose jails were killed have this time to end by themselves; then they are
cancelled. A judgement: a killed jail is gone in milliseconds, so only calls that fetch are left by then."""
PURGE_S = 3600.0
"""Checkouts are purged this often, or four times in `Policy.keep_s` where that is less: a checkout stays a
quarter longer than it should at the most."""
CALLS_SHOWN = 1000
"""Calls under way in a status: more than a screen has, and 0.3 MB."""
RECALLED = 1000
"""Invocations of an earlier life that count in the windows of this one: as many as are remembered."""

PLAIN = Terms()


def _confines(limits: Limits) -> Confines:
    """A call's jail with these limits: what the function may print, and the harness's record behind it."""
    with_record = structs.replace(limits, stdout_bytes=limits.stdout_bytes + harness.RECORD_BYTES)
    return Confines(with_record, function_environment(limits))


async def _once(piece: Written) -> AsyncGenerator[Written, None]:
    yield piece


class Island:
    """Runs calls, and lets operators see and steer. `start` comes first, `stop` last."""

    def __init__(
        self,
        *,
        name: str,
        version: str,
        policy: Policy,
        events: Events,
        sources: SourceRoom,
        builds: BuildRoom,
        jails: Jails,
        network: AddressRoom,
        history: HistoryRoom,
        names: Names | None = None,
        secrets: Secrets | None = None,
        pace: Pace | None = None,
        store: Store | NotKept | None = None,
        later: Async | None = None,
        meter: HostMeter | None = None,
    ) -> None:
        """`version`: of the program. `names`, `secrets`: kept in memory without them. `pace`: of the warm
        pool, for tests that cannot wait. `store`: of calls that answer later, or why there is none; without
        it they are forgotten with the process. `meter`: of the host; without one its load is not told."""
        self.name = name
        self.version = version
        self.policy = policy
        self.events = events
        self.sources = sources
        self.builds = builds
        self.jails = jails
        self.network = network
        self.history = history
        self._meter = meter
        self._load: HostLoad | None = None
        self.called = Functions(events, policy.slo)
        """What was called of late, counted."""
        self.failed_builds = FailedBuilds(events)
        self.outputs = Outputs()
        self._callers_outputs = Outputs()
        confines = _confines(policy.limits)
        self.pool = WarmPool(
            jails, policy.warm, confines.limits, events, environment=confines.environment, pace=pace
        )
        self.named = NamedFunctions(names or MemoryNames(), secrets or Secrets(), self)
        self.started_at = time.time()
        self._draining = False
        self._purging: asyncio.Task[None] | None = None
        self._running: dict[asyncio.Task[object], Story] = {}
        self._places = FairQueue(
            "a place to run",
            policy.max_running,
            places_per_client=policy.running_per_client,
            max_waiting=policy.max_queued,
            timeout_s=policy.queue_timeout_s,
        )
        self._failures = Failures(policy.failures_kept_s)
        self.later = Later(
            store or MemoryStore(),
            self._run_order,
            later or Async(),
            places=policy.max_running,
            busy=lambda: self._places.waiting > 0,
            check=self._check_order,
        )

    # Life

    async def start(self, progress: Progress = silent, *, whole: bool = False) -> None:
        """Make everything ready, and sweep what an earlier life left behind.

        `whole`: compile all of the standard library, not only what every build needs.

        Raises:
            HostUnfit, DriverError: this host cannot run jails, or not enforce what the settings require; the
                text names the remedy.
            SettingsError: the settings name no toolchain that works, or require an unknown capability.
        """
        progress("base system", 0, 1)
        swept = await self.jails.prepare()
        progress("base system", 1, 1)
        swept += await self.network.prepare()
        swept += await self.sources.sweep()
        await self.builds.prepare(progress, whole=whole)
        self._require()
        self.called.recall(reversed(await self.history.invocations(RECALLED)))
        self._purging = asyncio.create_task(self._purge_sources())
        self.pool.start()
        await self.named.start()
        self.builds.work_ahead(lambda: self._draining or bool(self._running))
        self.later.start()
        self.events.publish(IslandStarted(swept=swept))

    def _require(self) -> None:
        """Refuse to start where this host cannot enforce what the settings require."""
        capabilities = {capability.name: capability for capability in self.capabilities()}
        for name in self.policy.require:
            if name not in capabilities:
                names = ", ".join(sorted(capabilities))
                raise SettingsError(f"limits.require: no capability is called {name!r}; there are {names}")
            capability = capabilities[name]
            if not capability.enforced:
                why = f"{capability.how}. {capability.remedy}".rstrip()
                raise HostUnfit(f"limits.require: this host cannot enforce {name!r}: {why}")

    async def _purge_sources(self) -> None:
        """Remove checkouts that no build needed for long. Builds remove binaries and caches themselves."""
        while True:
            await asyncio.sleep(min(PURGE_S, self.policy.keep_s / 4))
            try:
                await self.sources.purge(self.policy.keep_s)
            except (IslandError, OSError):
                log.exception("old checkouts cannot be removed; it is tried again later")

    def limit(self, limits: Limits, exec_timeout_s: float) -> None:
        """What a jail may use, and how long a call may take: of those that are made from now on."""
        self.policy = structs.replace(self.policy, limits=limits, exec_timeout_s=exec_timeout_s)
        confines = _confines(limits)
        self.pool.limits, self.pool.environment = confines.limits, confines.environment

    async def drain(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within `grace_s`, then kill them."""
        self._draining = True
        self.later.pause()
        self.builds.disturb()
        await self.pool.close()
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        await self.jails.kill_all("the island stops")
        if self._running:
            _, left = await asyncio.wait(self._running, timeout=CANCEL_AFTER_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def stop(self) -> None:
        """Kill what runs, and take away all that the island made on this host."""
        await self.drain(0)
        await self.later.close()
        await self.named.close()
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.gather(self._purging, return_exceptions=True)
        await self.sources.close()
        await self.builds.close()
        await self.jails.close()
        await self.network.close()
        self.events.publish(IslandStopped())
        await self.history.close()

    # Calls

    async def invoke(
        self,
        request: FunctionRequest,
        *,
        client: str = LOCAL,
        id: str = "",  # noqa: A002 - as the answer's field is named
        caller_id: str = "",
        traceparent: str = "",
        text_only: bool = False,
        heard: Heard | None = None,
        terms: Terms | None = None,
    ) -> Invocation:
        """Run one call in a jail of its own. `client`: whose share of the island it counts to.

        `id`: the invocation's, one that nothing else has; `caller_id`: what the caller calls it;
        `traceparent`: the trace that it is a part of. `text_only`: nobody wants the results as JSON.
        `heard`: called with the answers of many inputs as they come; they are not in the outcome then.
        `terms`: of a call by name.

        Raises:
            IslandError: the request was refused or could not be carried out. What happens inside the jail is
                the invocation's `Outcome`, not an error.
        """
        if self._draining:
            raise Draining("the island is stopping and takes no new calls", retry_after_s=5)
        story = Story(request, self.events, client, id=id, caller_id=caller_id, traceparent=traceparent)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self._running[task] = story
        if terms is not None:
            story.name, story.secrets = terms.name, terms.secrets
        self.builds.disturb()
        try:
            return story.finish(await self._carry_out(request, story, text_only, heard, terms or PLAIN))
        except Exception as error:
            story.fail(error)
            raise
        finally:
            self._running.pop(task, None)
            story.close()

    async def _run_order(self, order: Order, id: str) -> Invocation:  # noqa: A002
        """One attempt at a call that answers later."""
        if order.name:
            named = msgspec.json.decode(order.request, type=NamedCall)
            return await self.named.calls.call(
                order.name,
                named,
                who=order.who,
                client=order.client,
                id=id,
                caller_id=order.caller_id,
                traceparent=order.traceparent,
            )
        request = msgspec.json.decode(order.request, type=FunctionRequest)
        return await self.invoke(
            request,
            client=order.client,
            id=id,
            caller_id=order.caller_id,
            traceparent=order.traceparent,
        )

    async def _check_order(self, asks: FunctionRequest | NamedCall, name: str, who: str) -> FunctionRequest:
        """Refuse what can never run, before it is kept."""
        request = self.named.calls.asked_for(name, asks, who=who) if isinstance(asks, NamedCall) else asks
        await understand(request)
        return request

    async def _carry_out(
        self,
        request: FunctionRequest,
        story: Story,
        text_only: bool,
        heard: Heard | None,
        terms: Terms,
    ) -> Outcome:
        if terms.examples:
            call = EXAMPLES
        elif terms.exchange is not None:
            call = parse_handler(request.call)
        else:
            call = await understand(request)
        story.function = call.function
        talk = Conversation(
            request,
            call,
            text_only=text_only,
            timeout_s=terms.timeout_s or self.policy.exec_timeout_s,
            most_bytes=(terms.limits or self.policy.limits).stdout_bytes,
            heard=heard,
            environment=(*story.environment, *terms.environment),
            exchange=terms.exchange,
        )
        if request.ip4:
            self.network.require()
        try:
            artifact = await self._artifact(request, call, story, terms)
        except OSError as error:  # the disk is full, no descriptor is left …
            raise DriverError(f"the host failed us: {error.strerror}; see its log") from error
        story.function = artifact.function
        with self.builds.using(artifact):
            try:
                with story.phase(Phase.queue):
                    if request.ip4:
                        await self.network.await_turn(story.id, story.client)
                    if not self._places.take(story.client):
                        story.queued()
                        await self._places.wait(story.client)
                try:
                    return await self._run(request, talk, artifact, story, terms)
                finally:
                    self._places.leave(story.client)
            finally:
                if request.ip4:
                    self.network.end_turn(story.id)

    async def _artifact(self, request: FunctionRequest, call: Call, story: Story, terms: Terms) -> Artifact:
        """The binary for the call: a known one, or else one built from the repository at its commit."""
        anew = request.cache_bust
        # A push mends what failed here: each client asks the remote for itself.
        resolve_key = (Phase.resolve, request.url, request.version, story.client)
        with story.phase(Phase.resolve), self._failures.of(resolve_key, anew=anew):
            resolved = terms.resolved or await self.sources.resolve(
                request.url, request.version, refresh=anew, client=story.client
            )
        story.commit, story.stale = resolved.commit, resolved.stale
        story.repository, story.package = resolved.url, resolved.package
        artifact = None if anew else self.builds.known(resolved, call, story.client)
        if artifact is not None:
            story.cached = True
            return artifact
        checkout_key = (Phase.clone, resolved.url, resolved.commit, story.client)
        with story.phase(Phase.clone), self._failures.of(checkout_key, anew=anew):
            source = await self.sources.checkout(resolved, story.client)
        with self.sources.using(source), story.phase(Phase.build):
            return await self.builds.build(
                source, call, refresh=anew, invocation=story.id, client=story.client
            )

    async def _run(
        self, request: FunctionRequest, talk: Conversation, artifact: Artifact, story: Story, terms: Terms
    ) -> Outcome:
        """Say to a jail's process what is to be said, and wait for its end."""
        with self.pool.call():
            with story.phase(Phase.jail):
                inmate = await self.pool.obtain(
                    request,
                    artifact,
                    talk.shown,
                    invocation=story.id,
                    cached=story.cached,
                    client=story.client,
                    words=talk.words,
                    own=_confines(terms.limits) if terms.limits is not None else None,
                )
            try:
                story.jail, story.warm = inmate.spec.name, inmate.warm
                inmate.mark, inmate.secrets = talk.mark, story.secrets
                with story.phase(Phase.exec):
                    outcome = await inmate.converse(talk.input, talk.timeout_s, talk.heard)
            finally:
                self.jails.discard(inmate)
        try:
            outcome = talk.told(outcome)
            self.outputs.keep(inmate.spec.name, story.id, outcome, story.secrets)
            return outcome
        except BadCall as refusal:
            raise await self._with_declaration(refusal, artifact) from None

    async def _with_declaration(self, refusal: BadCall, artifact: Artifact) -> BadCall:
        """A refusal of arguments, with what the function takes, if that is known."""
        offered = await self.builds.known_catalogue(artifact)
        entry = offered.find(artifact.function) if offered else None
        if entry is None or entry.kind != "function":
            return refusal
        return BadCall(f"{refusal.message}; it is declared as {entry.declaration}", **refusal.details)

    async def functions(self, url: str, version: str | None = None, *, client: str = LOCAL) -> Catalogue:
        """What the package at `url` offers, from memory or made as a build is. `client`: whose share of the
        places to build it counts to.

        Raises:
            IslandError: the request was refused, or the package does not compile.
        """
        if self._draining:
            raise Draining("the island is stopping and takes no new requests", retry_after_s=5)
        try:
            with self._failures.of((Phase.resolve, url, version, client)):
                resolved = await self.sources.resolve(url, version, refresh=False, client=client)
            offered = await self.builds.known_catalogue(resolved)
            if offered is None:
                with self._failures.of((Phase.clone, resolved.url, resolved.commit, client)):
                    source = await self.sources.checkout(resolved, client)
                with self.sources.using(source):
                    offered = await self.builds.catalogue(source, client=client)
        except OSError as error:
            raise DriverError(f"the host failed us: {error.strerror}; see its log") from error
        return structs.replace(offered, stale=resolved.stale)

    # What names need (`named.functions.Runner`)

    @property
    def limits(self) -> Limits:
        """Of a jail that has none of its own."""
        return self.policy.limits

    async def build(
        self, url: str, version: str | None, call: Call, *, refresh: bool, client: str = LOCAL
    ) -> tuple[Resolved, Artifact]:
        """What a version means now, and its binary; nothing is run. `refresh`: ask the remote.

        Raises:
            IslandError: it was refused, or could not be fetched or built.
        """
        resolved = await self.sources.resolve(url, version, refresh=refresh, client=client)
        return resolved, await self.build_at(resolved, call, client=client)

    async def build_at(self, resolved: Resolved, call: Call, *, client: str = LOCAL) -> Artifact:
        """The binary of a commit, built if there is none.

        Raises:
            As `build` does.
        """
        if self._draining:
            raise Draining("the island is stopping and builds nothing new", retry_after_s=5)
        if (known := self.builds.known(resolved, call, client)) is not None:
            return known
        source = await self.sources.checkout(resolved, client)
        with self.sources.using(source):
            return await self.builds.build(source, call, refresh=False, invocation=None, client=client)

    def keep_warm(self, name: str, artifact: Artifact | None, limits: Limits | None, number: int) -> None:
        """Have so many warm jails wait for calls of a name, in place of those that waited for it before."""
        self.pool.keep(name, artifact, number, _confines(limits) if limits is not None else None)

    def aim(self, name: str, target_s: float | None) -> None:
        """Calls of a name are slow beyond this time; None for the settings' own."""
        self.called.aim(name, target_s)

    # What operators see and do

    async def sample_usage(self) -> None:
        """Ask the host what the jails use and how busy it is, for the next `status`."""
        await self.jails.sample_usage()
        if self._meter is not None:
            self._load = await asyncio.to_thread(self._meter.read)

    async def pulse(self) -> Pulse:
        """A small part of `status`, with fresh samples of what the jails use, for watchers."""
        await self.sample_usage()
        return Pulse(
            running=len(self._running),
            queued=self._places.waiting,
            draining=self._draining,
            usage=self.jails.usage(),
            host=self._load,
        )

    def status(self) -> Status:
        """Everything at once, from memory: what jails use is as of the last `sample_usage`."""
        return Status(
            island=self.name,
            version=self.version,
            started_at=self.started_at,
            draining=self._draining,
            running=len(self._running),
            queued=self._places.waiting,
            driver=self.jails.driver.name,
            storage=self.jails.clones.name,
            policy=self.policy,
            pool=self.pool.status(),
            jails=self.jails.living(),
            addresses=self.network.addresses(),
            artifacts=self.builds.artifacts(),
            capabilities=self.capabilities(),
            ahead=self.builds.ahead,
            places=self._places.taken,
            calls=[story.info() for story in islice(self._running.values(), CALLS_SHOWN)],
            host=self._load,
            report=self.called.report(),
        )

    def check_ready(self) -> None:
        """Whether one more call would find all that it needs at once.

        Raises:
            Draining, Unavailable: the island stops, all places to run are taken, or no jail can be made.
        """
        if self._draining:
            raise Draining("the island is stopping and takes no new calls", retry_after_s=5)
        if broken := self.jails.broken:
            raise Unavailable(f"no jail can be made: {broken}")
        if not self._places.free:
            raise Unavailable(f"all {self._places.places} places to run are taken", retry_after_s=1)

    def capabilities(self) -> list[Capability]:
        """What this host enforces, and what it cannot. What one driver enforces, no other need be able to."""
        every = [*self.jails.capabilities(), *self.network.capabilities()]
        enforced = {capability.name for capability in every if capability.enforced}
        return [capability for capability in every if capability.enforced or capability.name not in enforced]

    def jail(self, jail: str | int) -> JailInfo:
        """A living jail, by its number or name.

        Raises:
            JailNotFound
        """
        inmate = self.jails.find(jail)
        inmate.sample_usage()
        return inmate.info()

    def output(self, of: str) -> AsyncGenerator[Written, None]:
        """What a jail wrote and writes, by its number or name, or by the id of its invocation. Of a call that
        is over, the end of it, for as long as that is kept.

        Raises:
            JailNotFound: it is neither alive nor kept.
            TooBusy: too many watch.
        """
        inmate = self.jails.working_for(of)
        if inmate is None and (tail := self.outputs.tail(of)) is not None:
            return _once(tail.piece())
        return self.outputs.follow(inmate or self.jails.find(of))

    def live_output(self, invocation: str) -> AsyncGenerator[Written, None]:
        """What the jail of a call wrote and writes, for its caller, who takes no place of operators'.

        Raises:
            JailNotFound: it has no jail yet, or no more.
            TooBusy: too many watch.
        """
        inmate = self.jails.working_for(invocation)
        if inmate is None:
            raise JailNotFound(f"no jail works for {invocation}")
        return self._callers_outputs.follow(inmate)

    async def kill(self, jail: str | int) -> JailInfo:
        """Kill a jail, named by its number or name; its caller gets an outcome that says so.

        Raises:
            JailNotFound
        """
        return await self.jails.kill(jail)

    async def kill_all(self) -> list[JailInfo]:
        """Kill every living jail; returns them."""
        return await self.jails.kill_all()

    async def set_address(self, ip: str, state: AddressState) -> AddressInfo:
        """Take an address out of the pool, or give it back. The state survives a restart.

        Raises:
            AddressNotFound: the pool has no such address.
            AddressInUse: a jail holds it.
        """
        return await self.network.set_state(ip, state)

    async def evict(self, key: str) -> Artifact:
        """Forget one artifact and its binary.

        Raises:
            ArtifactNotFound
        """
        return await self.builds.evict(key)

    async def rebuild(self, key: str) -> Artifact:
        """Fetch and compile an artifact anew, without running it.

        Raises:
            ArtifactNotFound
            SourceRefused, SourceUnavailable, BuildFailed: the artifact stays as it was.
        """
        artifact = self.builds.find(key)
        resolved = self.sources.recorded(artifact.url, artifact.package, artifact.commit)
        source = await self.sources.checkout(resolved, LOCAL)
        with self.sources.using(source):
            return await self.builds.rebuild(artifact, source)

    async def purge(self) -> list[Artifact]:
        """Forget every artifact that no call is using; returns them."""
        return await self.builds.purge()

    async def invocations(self, limit: int = 100) -> list[InvocationFinished]:
        """The latest invocations that are over, newest first."""
        return await self.history.invocations(limit)

    async def invocation(self, id: str) -> InvocationFinished:  # noqa: A002
        """One that is over.

        Raises:
            InvocationNotFound: there was none, it is not over, or it is forgotten.
        """
        return await self.history.invocation(id)

    def report(self, window: Window) -> Report:
        """Figures of a window of time: of all calls, and of each function."""
        return self.called.report(window)

    async def function(self, function: str, window: Window = Window.five_minutes) -> FunctionPage:
        """All about one function that was called, by its id or as `repository/package.Name`.

        Raises:
            FunctionNotFound
        """
        figures = self.called.function(function, window)
        status = self.status()
        return FunctionPage.of(figures, status, await self.history.invocations(RECALLED), time.time())
