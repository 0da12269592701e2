"""The warm pool: single-use jails made ahead of the calls that they will serve.

The main program of every artifact waits for a frame before it calls the function. So a jail can be made,
and its process started, before anybody asks; a call that finds one costs a write and a read. Each serves
one call and is destroyed: a warm jail is not a used one. `obtain` hands out jails whole: a warm one, or
else one made for the call.

How many, and for which artifacts, is decided from recent use by `plan`, a pure function. An artifact's
rate is a count of its calls that fades with `FADE_S`. Each artifact in use gets a jail, most used first,
then as many more as calls are expected while new ones are made, within the bounds on number and memory.
An artifact that nobody calls fades out of the plan, and an idle jail is destroyed after `idle_expires_s`
at the latest. A call that finds no warm jail gets one made for it, as if there were no pool.

Calls come first. Making a jail waits until no short call runs, but no longer than `Pace.patience_s`, lest
the pool stay empty. Where as many calls run as there are processors, each jail made ahead would delay one
made for a call by as much as it saves, so there it waits up to `Pace.busy_patience_s`. A call that takes
longer than `Pace.short_s` most likely waits itself for something, and is no longer waited for.

What runs ahead. A package's `init` and variable initialisers run when the jail is made, before the
request. They may not use that time to work: a warm jail that uses more than `IDLE_CPU_S` of processor time
is destroyed, and one whose process ends is replaced; an artifact whose jails do either `STRIKES` times in
a row gets no more of them. Time-outs count from the frame. `cold` in a request goes past the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct

from skyisland.errors import IslandError
from skyisland.events import ArtifactEvicted, Events
from skyisland.jails.inmate import Inmate, JailOrder
from skyisland.jails.register import Jails
from skyisland.model import FUNCTION, Artifact, FunctionRequest, Limits, Mount, NetworkAccess, Purpose
from skyisland.status import Bounds, PoolStatus

log = logging.getLogger(__name__)

PROCESSORS = os.cpu_count() or 1
FADE_S = 30.0
"""Time constant of the rate: a call this old counts 1/e. Long enough that a person who tries a function
every few seconds finds it warm, short enough that yesterday's favourite holds no memory."""
WORTH = 0.05
"""An artifact with a smaller count gets no jail: a single call is worth one for 90 seconds (3 `FADE_S`)."""
FORGOTTEN = WORTH / 10
"""An artifact with a smaller count is forgotten: a single call after 160 seconds."""
FIRST_GUESS_BYTES = 4 << 20
"""Memory of an idle jail until one was sampled: a little more than a small Go program takes (1 to 3 MB)."""
LEAST_BYTES = 1 << 20
"""An idle jail is never reckoned with less memory: a sample taken while it starts would be too small."""
IDLE_CPU_S = 0.5
"""More processor time than this is work: to start and to wait takes a Go program some milliseconds."""
STRIKES = 3
"""Failures in a row after which an artifact is at fault; one or two may be the host's."""


class Pace(Struct, frozen=True, kw_only=True):
    """When jails are made ahead, in seconds."""

    horizon_s: float = 0.05
    """The pool holds the calls expected in this time. A jail is made in a few milliseconds, so this covers
    the making of several."""
    patience_s: float = 0.005
    """Making a jail waits for running calls no longer than this: about as long as making takes."""
    busy_patience_s: float = 0.1
    """The same where as many calls run as there are processors."""
    short_s: float = 0.025
    """A call that runs longer is not waited for: a warm one is over in 3 ms."""
    replan_s: float = 0.05
    """A plan is used for this time, unless an artifact is new or has failed: rates change more slowly."""
    check_s: float = 2.0
    """Between two checks of the idle jails: what works ahead is found after this time at the latest."""


class Confines(Struct, frozen=True):
    """What a jail may use, and what Go's runtime in it knows of that."""

    limits: Limits
    environment: tuple[tuple[str, str], ...]


class Demand:
    """How often an artifact is called in jails of the same confines, and how often its warm jails failed."""

    def __init__(self, artifact: Artifact, own: Confines | None = None) -> None:
        """`own`: in place of the pool's."""
        self.artifact = artifact
        self.own = own
        self.client = ""
        """Who called it last."""
        self.strikes = 0
        self.struck_at = 0.0
        self._count = 0.0
        self._at = 0.0

    @property
    def key(self) -> str:
        return _key(self.artifact, self.own)

    def note(self, now: float, client: str) -> None:
        self.client = client
        self._count = self.count(now) + 1.0
        self._at = now

    def count(self, now: float) -> float:
        """The calls so far, each faded by its age. Divided by `FADE_S` it is a rate in calls per second."""
        return self._count * math.exp((self._at - now) / FADE_S)


def _key(artifact: Artifact, own: Confines | None) -> str:
    """By what demands and jails are kept: a call may have any jail of the same key."""
    return artifact.key if own is None else f"{artifact.key}/{hash(own):x}"


def plan(
    counts: Mapping[str, float],
    bounds: Bounds,
    jail_bytes: int,
    horizon_s: float = Pace().horizon_s,
    clients: Mapping[str, str] = MappingProxyType({}),
    least: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int]:
    """How many warm jails each artifact should have, most used first.

    `counts`: of `Demand.count`, by artifact. `jail_bytes`: memory of an idle jail. The sum stays within
    `bounds`; each artifact that is worth one gets one before any gets two. `clients`: who calls an artifact;
    the most used of each client come before the second of any. `least`: so many an artifact gets before all
    that.
    """
    room = bounds.max_jails
    if bounds.max_memory_bytes is not None:
        room = min(room, bounds.max_memory_bytes // max(jail_bytes, 1))
    ranked = sorted((key for key in counts if counts[key] >= WORTH), key=lambda key: -counts[key])
    before: Counter[str] = Counter()
    turn = {}
    for key in ranked:
        client = clients.get(key, "")
        turn[key] = before[client]
        before[client] += 1
    ranked.sort(key=turn.__getitem__)
    targets: dict[str, int] = {}
    for key, number in (*least.items(), *((key, 1) for key in ranked if key not in least)):
        if room > 0:
            targets[key] = min(number, room)
            room -= targets[key]
    for key in targets:
        expected = 1 + math.ceil(counts[key] / FADE_S * horizon_s) if counts[key] >= WORTH else 0
        more = max(0, min(room, expected - targets[key]))
        targets[key] += more
        room -= more
    return targets


class WarmPool:
    """Gives each call its jail, and keeps warm ones by artifact.

    A warm jail is taken without I/O, and without waiting, unless it is given an address.
    """

    def __init__(
        self,
        jails: Jails,
        bounds: Bounds,
        limits: Limits,
        events: Events,
        *,
        environment: tuple[tuple[str, str], ...] = (),
        pace: Pace | None = None,
    ) -> None:
        """`limits`, `environment`: of every jail, warm or not."""
        self._jails = jails
        self._bounds = bounds
        self.limits = limits
        self.environment = environment
        self._pace = pace or Pace()
        self._demands: dict[str, Demand] = {}
        self._idle: dict[str, list[Inmate]] = {}
        self._kept: dict[str, tuple[str, int]] = {}
        """How many jails wait whoever calls, with the key of their demand, by who wants that."""
        self._work = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._short: set[object] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._status = {"hits": 0, "misses": 0, "made": 0, "wasted": 0}
        self._plan: dict[str, int] = {}
        self._replan_at = 0.0
        self._make_s = 0.0
        self._jail_bytes = FIRST_GUESS_BYTES
        events.tap(self._evicted, ArtifactEvicted)

    def start(self) -> None:
        """Begin to make jails ahead. Without this the pool stays empty and only counts."""
        if self._bounds.max_jails:
            self._tasks = [asyncio.create_task(self._refill()), asyncio.create_task(self._check_idle())]

    async def close(self) -> None:
        """Make no more, and destroy those that wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for key in list(self._idle):
            self._drop(key, 0)

    # On the path of a call

    async def obtain(
        self,
        request: FunctionRequest,
        artifact: Artifact,
        call: str,
        *,
        invocation: str,
        cached: bool,
        client: str,
        words: tuple[str, ...] | None = None,
        own: Confines | None = None,
    ) -> Inmate:
        """A jail for one call, whose process waits for its frame. The caller must discard it.

        `words`: the command line of a program, which waits for no frame, so no jail is made ahead for it.
        `own`: confines in place of the pool's.

        It is a warm one (`Inmate.warm`), or made now where none waits, where the request wants a `cold` one,
        and where a living jail cannot be given the address that the request wants.

        Raises:
            NoAddress, HostUnfit, DriverError: nothing is left for the caller to discard.
        """
        network = NetworkAccess.lease if request.ip4 else NetworkAccess.none
        if words is None and not request.cold and (not request.ip4 or self._jails.connects_late):
            inmate = self._take(artifact, client, own)
            if inmate is not None:
                try:
                    await self._jails.claim(inmate, invocation, call, network)
                except BaseException:
                    self._jails.discard(inmate)
                    raise
                return inmate
        return await self._jails.make(
            self._order(
                artifact,
                network=network,
                invocation=invocation,
                call=call,
                cached=cached,
                words=words or (),
                own=own,
            )
        )

    def _order(
        self,
        artifact: Artifact,
        *,
        network: NetworkAccess = NetworkAccess.none,
        invocation: str | None = None,
        call: str = "",
        cached: bool = True,
        words: tuple[str, ...] = (),
        own: Confines | None = None,
    ) -> JailOrder:
        """The order of a jail that runs `artifact`; without an invocation, of a warm one."""
        return JailOrder(
            argv=(FUNCTION, *words),
            purpose=Purpose.function,
            limits=own.limits if own is not None else self.limits,
            env=own.environment if own is not None else self.environment,
            mounts=(Mount(artifact.path, FUNCTION),),
            network=network,
            warm=invocation is None,
            artifact=artifact,
            invocation=invocation,
            call=call,
            cached=cached,
        )

    def _demand(self, artifact: Artifact, own: Confines | None) -> Demand:
        key = _key(artifact, own)
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = Demand(artifact, own)
            self._replan_at = 0.0
        return demand

    def _take(self, artifact: Artifact, client: str, own: Confines | None) -> Inmate | None:
        """A warm jail of this artifact, no longer the pool's; None if there is none. Counts the call."""
        demand = self._demand(artifact, own)
        demand.note(time.monotonic(), client)
        self._work.set()
        idle = self._idle.get(demand.key)
        while idle:
            inmate = idle.pop()
            inmate.watch(None)
            if inmate.alive:
                self._status["hits"] += 1
                demand.strikes = 0
                return inmate
            self._jails.discard(inmate)
        self._status["misses"] += 1
        return None

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """While this call runs, making jails ahead waits a little."""
        call = object()
        self._short.add(call)
        self._quiet.clear()
        timer = asyncio.get_running_loop().call_later(self._pace.short_s, self._no_longer_short, call)
        try:
            yield
        finally:
            timer.cancel()
            self._no_longer_short(call)

    def _no_longer_short(self, call: object) -> None:
        self._short.discard(call)
        if not self._short:
            self._quiet.set()

    # Ahead of the calls

    def keep(self, who: str, artifact: Artifact | None, number: int, own: Confines | None = None) -> None:
        """Have so many jails of an artifact wait, whether anybody calls it or not, in place of what `who`
        wanted before. The pool's bounds count all the same."""
        self._kept.pop(who, None)
        if artifact is not None and number:
            self._kept[who] = (self._demand(artifact, own).key, number)
        self._replan_at = 0.0
        self._work.set()

    def _least(self) -> dict[str, int]:
        least: dict[str, int] = {}
        for key, number in self._kept.values():
            least[key] = max(number, least.get(key, 0))
        return least

    async def _refill(self) -> None:
        """Make the jails that the plan lacks, one after another, most used first."""
        while True:
            await self._work.wait()
            self._work.clear()
            while (demand := self._next()) is not None:
                if not self._quiet.is_set():
                    busy = len(self._short) >= PROCESSORS
                    patience_s = self._pace.busy_patience_s if busy else self._pace.patience_s
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience_s):
                            await self._quiet.wait()
                await self._make(demand)

    def _next(self) -> Demand | None:
        """Of which artifact one more jail is needed. A new plan destroys what it has no use for."""
        now = time.monotonic()
        if now >= self._replan_at:
            self._replan_at = now + self._pace.replan_s
            self._plan = self._wanted()
            for key in list(self._idle):
                self._drop(key, self._plan.get(key, 0))
        for key, number in self._plan.items():
            if key in self._demands and len(self._idle.get(key, ())) < number:
                return self._demands[key]
        return None

    def _wanted(self) -> dict[str, int]:
        now = time.monotonic()
        counts = {key: d.count(now) for key, d in self._demands.items() if d.strikes < STRIKES}
        clients = {key: self._demands[key].client for key in counts}
        least = {key: number for key, number in self._least().items() if key in counts}
        return plan(counts, self._bounds, self._jail_bytes, self._pace.horizon_s, clients, least)

    async def _make(self, demand: Demand) -> None:
        started = time.perf_counter()
        try:
            inmate = await self._jails.make(self._order(demand.artifact, own=demand.own))
        except IslandError as error:
            log.warning("cannot make a warm jail for %s: %s", demand.artifact.url, error.message)
            self._strike(demand.key, time.time())
            return
        self._status["made"] += 1
        spent_s = time.perf_counter() - started
        self._make_s = spent_s if not self._make_s else 0.9 * self._make_s + 0.1 * spent_s
        self._idle.setdefault(demand.key, []).append(inmate)
        inmate.watch(lambda: self._ended(inmate, demand.key))

    def _ended(self, inmate: Inmate, key: str) -> None:
        """Replace a warm jail whose process has ended: its `init` exits or panics, or somebody killed it."""
        self._idle[key].remove(inmate)
        self._waste(inmate)
        if not inmate.killed:
            self._strike(key, inmate.created_at)
        self._work.set()

    async def _check_idle(self) -> None:
        """Destroy idle jails that work or that waited too long; forget artifacts that nobody calls."""
        while True:
            await asyncio.sleep(self._pace.check_s)
            now = time.monotonic()
            oldest_created_at = time.time() - self._bounds.idle_expires_s
            for key, inmates in self._idle.items():
                for inmate in list(inmates):
                    inmate.sample_usage()
                    usage = inmate.usage
                    if usage.memory_bytes:
                        average = (7 * self._jail_bytes + usage.memory_bytes) // 8
                        self._jail_bytes = max(LEAST_BYTES, average)
                    busy = (usage.cpu_s or 0.0) > IDLE_CPU_S
                    if busy:
                        self._strike(key, inmate.created_at)
                    if busy or inmate.created_at < oldest_created_at:
                        inmates.remove(inmate)
                        self._waste(inmate)
            kept = self._least()
            faded = [key for key, demand in self._demands.items() if demand.count(now) < FORGOTTEN]
            for key in (key for key in faded if key not in kept):
                self._drop(key, 0)
                del self._demands[key]
            self._replan_at = 0.0
            self._work.set()

    def _strike(self, key: str, made_at: float) -> None:
        """Count a failure of a warm jail.

        One that was made before the last failure is not counted: what ended that jail may have ended all.
        """
        demand = self._demands.get(key)
        if demand and made_at >= demand.struck_at:
            demand.strikes += 1
            demand.struck_at = time.time()
            self._replan_at = 0.0
            if demand.strikes == STRIKES:
                log.warning("%s gets no warm jails any more: they end or work early", demand.artifact.url)

    def _drop(self, key: str, keep: int) -> None:
        """Destroy the idle jails of an artifact beyond `keep`, the oldest first."""
        inmates = self._idle.get(key, [])
        while len(inmates) > keep:
            self._waste(inmates.pop(0))
        if not inmates:
            self._idle.pop(key, None)

    def _waste(self, inmate: Inmate) -> None:
        inmate.watch(None)
        self._status["wasted"] += 1
        self._jails.discard(inmate)

    def _evicted(self, event: ArtifactEvicted) -> None:
        for key in [key for key, one in self._demands.items() if one.artifact.key == event.key]:
            del self._demands[key]
            self._drop(key, 0)

    # What operators see

    def status(self) -> PoolStatus:
        return PoolStatus(
            size=sum(map(len, self._idle.values())),
            wanted=sum(self._wanted().values()),
            max_jails=self._bounds.max_jails,
            make_s=self._make_s,
            memory_bytes=sum(i.usage.memory_bytes or 0 for inmates in self._idle.values() for i in inmates),
            **self._status,
        )
