"""The island: its life from start to stop, and what operators see and steer.

`Island` is the one interface of everything outside: REST, console and commands see the same methods,
and none of them reaches past it. `calling` runs a call, `supply` gives it its binary.

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

from skyisland.calling import Calling, confined
from skyisland.errors import (
    Draining,
    HostUnfit,
    IslandError,
    JailNotFound,
    SettingsError,
    Unavailable,
)
from skyisland.events import Events, InvocationFinished, IslandStarted, IslandStopped, Pulse
from skyisland.figures import Report, Window
from skyisland.golang.callee import understand
from skyisland.host.load import HostMeter
from skyisland.host.tasks import Progress, silent
from skyisland.jails.outputs import Outputs
from skyisland.jails.pool import Pace, WarmPool
from skyisland.jails.register import Jails
from skyisland.later.calls import Order
from skyisland.later.keeping import NotKept, Store
from skyisland.later.later import Later
from skyisland.later.memory import MemoryStore
from skyisland.later.running import always
from skyisland.model import (
    Artifact,
    FunctionRequest,
    Invocation,
    Limits,
    NamedCall,
    Terms,
)
from skyisland.named.functions import NamedFunctions
from skyisland.named.names import MemoryNames, Names
from skyisland.named.secrets import Secrets
from skyisland.receipts.receipts import Confinement, Receipts
from skyisland.receipts.signing import Signer
from skyisland.record.failed import FailedBuilds
from skyisland.record.functions import Functions
from skyisland.rooms import AddressRoom, BuildRoom, Errand, FleetRoom, HistoryRoom, SourceRoom, Visit
from skyisland.settings import Async
from skyisland.status import (
    AddressInfo,
    AddressState,
    Capability,
    HostLoad,
    JailInfo,
    Policy,
    Status,
    Vacancy,
    Written,
)
from skyisland.supply import Supply
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
        signer: Signer | None = None,
        fleet: FleetRoom | None = None,
    ) -> None:
        """`version`: of the program. `names`, `secrets`: kept in memory without them. `pace`: of the warm
        pool, for tests that cannot wait. `store`: of calls that answer later, or why there is none; without
        it they are forgotten with the process. `meter`: of the host; without one its load is not told.
        `signer`: of receipts; without one there are none. `fleet`: what it is a part of, if it is."""
        self.name = name
        self.version = version
        self.events = events
        self.sources = sources
        self.builds = builds
        self.jails = jails
        self.network = network
        self.history = history
        self._meter = meter
        self.fleet = fleet
        self._load: HostLoad | None = None
        self.called = Functions(events, policy.slo)
        """What was called of late, counted."""
        self.failed_builds = FailedBuilds(events)
        self.outputs = Outputs()
        self._callers_outputs = Outputs()
        confines = confined(policy.limits)
        self.pool = WarmPool(
            jails, policy.warm, confines.limits, events, environment=confines.environment, pace=pace
        )
        self._supply = Supply(sources, builds, policy.failures_kept_s)
        self._calling = Calling(
            policy,
            events,
            self._supply,
            builds,
            network,
            jails,
            self.pool,
            self.outputs,
            fleet.elsewhere if fleet is not None else None,
        )
        self.invoke = self._calling.invoke
        """Run one call in a jail of its own."""
        self.has_room = self._calling.has_room
        """Whether one more call would run at once."""
        self.functions = self._supply.functions
        """What a package offers."""
        self.versions = self._supply.versions
        """At which versions it can be called."""
        self.build, self.build_at = self._supply.build, self._supply.build_at
        """For names, before anybody calls them."""
        self.doubt = sources.doubt
        """What its remote said of a repository."""
        self.rebuild = self._supply.rebuild
        """Compile an artifact anew."""
        self.receipts = Receipts(signer, self._supply.made, self._confinement)
        """Of calls whose callers want one."""
        self.reproduce = self._supply.reproduce
        """Build again what a receipt tells of."""
        self.named = NamedFunctions(names or MemoryNames(), secrets or Secrets(), self)
        self.started_at = time.time()
        self._purging: asyncio.Task[None] | None = None
        self.later = Later(
            store or MemoryStore(),
            self._run_order,
            later or Async(),
            places=policy.max_running,
            busy=lambda: self._calling.places.waiting > 0,
            check=self._check_order,
            secrets_of=self.named.calls.secrets_of,
            able=always if fleet is None else self._able,
            node="" if fleet is None else fleet.status().node,
        )

    @property
    def policy(self) -> Policy:
        """What the settings permit."""
        return self._calling.policy

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
        self.builds.work_ahead(lambda: self._calling.closed or bool(self._calling.running))
        self.later.start()
        if self.fleet is not None:
            await self.fleet.join(self)
        self.named.schedules.start(self.later)
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
        self._calling.policy = structs.replace(self.policy, limits=limits, exec_timeout_s=exec_timeout_s)
        confines = confined(limits)
        self.pool.limits, self.pool.environment = confines.limits, confines.environment

    async def drain(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within `grace_s`, then kill them."""
        self._calling.closed = self._supply.closed = True
        if self.fleet is not None:
            await self.fleet.drain()
        self.later.pause()
        self.builds.disturb()
        await self.pool.close()
        if self._calling.running:
            await asyncio.wait(self._calling.running, timeout=grace_s)
        await self.jails.kill_all("the island stops")
        if self._calling.running:
            _, left = await asyncio.wait(self._calling.running, timeout=CANCEL_AFTER_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def stop(self) -> None:
        """Kill what runs, and take away all that the island made on this host."""
        await self.drain(0)
        if self.fleet is not None:
            await self.fleet.leave()
        await self.named.schedules.close()
        await self.later.close()
        await self.named.close()
        await self.receipts.close()
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

    async def receive(self, errand: Errand, visit: Visit) -> Invocation:
        """Run a call of another island of the fleet (`rooms.Home`). This one's settings rule it, too.

        Raises:
            HostUnfit: it may use more than a call of this island may.
            IslandError: as for any call, or this island has no secret of the name.
        """
        policy = self.policy
        if errand.name:
            terms = self.named.calls.terms_at(errand.name, errand.revision)
        elif not errand.limits.within(policy.limits) or errand.timeout_s > policy.exec_timeout_s:
            raise HostUnfit("a call of this island may not use so much")
        else:
            terms = Terms()
        return await self.invoke(
            errand.request,
            client=errand.client,
            id=errand.id,
            caller_id=errand.caller_id,
            traceparent=errand.traceparent,
            text_only=errand.text_only,
            terms=structs.replace(
                terms,
                resolved=self.sources.permitted(errand.resolved, errand.client),
                limits=None if errand.limits == policy.limits else errand.limits,
                timeout_s=errand.timeout_s,
            ),
            visit=visit,
        )

    async def _able(self, order: Order) -> bool:
        """Whether a call is for this island: the secrets of its name never leave an island that has them."""
        return not order.name or await self.named.calls.able(order.name)

    def _confinement(self) -> Confinement:
        enforced = tuple(sorted(one.name for one in self.capabilities() if one.enforced))
        return Confinement(self.name, self.version, self.jails.driver.name, enforced)

    # What names need (`named.functions.Runner`)

    @property
    def limits(self) -> Limits:
        """Of a jail that has none of its own."""
        return self.policy.limits

    def keep_warm(self, name: str, artifact: Artifact | None, limits: Limits | None, number: int) -> None:
        """Have so many warm jails wait for calls of a name, in place of those that waited for it before."""
        self.pool.keep(name, artifact, number, confined(limits) if limits is not None else None)

    def aim(self, name: str, target_s: float | None) -> None:
        """Calls of a name are slow beyond this time; None for the settings' own."""
        self.called.aim(name, target_s)

    def resumed(self, name: str) -> None:
        """Calls of a name are taken again, also those that wait for it."""
        self.later.resumed(name)

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
            running=len(self._calling.running),
            queued=self._calling.places.waiting,
            draining=self.draining,
            usage=self.jails.usage(),
            host=self._load,
        )

    def status(self) -> Status:
        """Everything at once, from memory: what jails use is as of the last `sample_usage`."""
        return Status(
            island=self.name,
            version=self.version,
            started_at=self.started_at,
            draining=self.draining,
            running=len(self._calling.running),
            queued=self._calling.places.waiting,
            driver=self.jails.driver.name,
            storage=self.jails.clones.name,
            policy=self.policy,
            pool=self.pool.status(),
            jails=self.jails.living(),
            addresses=self.network.addresses(),
            artifacts=self.builds.artifacts(),
            capabilities=self.capabilities(),
            ahead=self.builds.ahead,
            places=self._calling.places.taken,
            calls=[story.info() for story in islice(self._calling.running.values(), CALLS_SHOWN)],
            host=self._load,
            report=self.called.report(),
            fleet=self.fleet.status() if self.fleet is not None else None,
        )

    @property
    def go_version(self) -> str:
        """What it compiles with."""
        return self.builds.go_version

    def vacancy(self) -> Vacancy:
        """How much room there is, for the rest of its fleet."""
        places, load = self._calling.places, self._load
        return Vacancy(
            places=places.places,
            free=places.free,
            queued=places.waiting,
            free_addresses=self.network.free,
            warm=self.pool.status().size,
            draining=self.draining,
            load=load.load if load is not None else None,
            cpus=load.cpus if load is not None else 0,
        )

    @property
    def draining(self) -> bool:
        """Whether it takes no new calls, for it stops."""
        return self._calling.closed

    def check_ready(self) -> None:
        """Whether one more call would find all that it needs at once.

        Raises:
            Draining, Unavailable: the island stops, all places to run are taken, or no jail can be made.
        """
        if self.draining:
            raise Draining("the island is stopping and takes no new calls", retry_after_s=5)
        if broken := self.jails.broken:
            raise Unavailable(f"no jail can be made: {broken}")
        if not self._calling.places.free:
            raise Unavailable(f"all {self._calling.places.places} places to run are taken", retry_after_s=1)

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
