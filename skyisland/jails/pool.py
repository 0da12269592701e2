"""The warm pool: single-use jails made ahead of the calls that they will serve.

The main program of every artifact waits for a frame before it calls the function. So a jail can be
made, and its process started, before anybody asks; a call that finds one costs a write and a read. Each
serves one call and is destroyed: warm is not used.

How many, and for which artifacts, is decided from recent use by `plan`, a pure function. An artifact's
rate is a count of its calls that fades with `FADE_S`; it gets enough jails for the calls expected while
new ones are made, and one more, most used first, within the bounds on number and memory. One that
nobody asks for fades out of the plan, and an idle jail is destroyed after `idle_expires_s` at the
latest. A call beyond what is there gets a jail made for it, as if there were no pool.

Making waits while calls run, but never longer than `PATIENCE_S`: calls come first, and are never the
reason that the pool stays empty. Where as many calls run as there are processors, each jail made ahead
would delay one made for a call by as much as it saves, so it waits up to `PATIENCE_BUSY_S`. A call that
takes longer than `SHORT_S` most likely waits itself for something, and is no longer waited for.

What runs ahead. A package's `init` and variable initialisers run when the jail is made, before the
request. They may not use that time to work: a warm jail that uses more than `IDLE_CPU_S` of CPU is
destroyed, and one that ends by itself is replaced; an artifact whose jails do either `STRIKES` times in
a row gets no more of them. Time-outs count from the frame. `cold` in a request goes past the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from skyisland.errors import IslandError
from skyisland.events import ArtifactEvicted, Events
from skyisland.jails.inmate import Inmate
from skyisland.jails.register import Jails
from skyisland.model import FUNCTION, Artifact, Bounds, Limits, Mount, PoolStatus

log = logging.getLogger(__name__)

FADE_S = 30.0
"""Time constant of the rate: a call counts a third after it."""
HORIZON_S = 0.05
"""The pool holds the calls expected in this time, which is ample for making new jails."""
WORTH = 0.05
"""An artifact with fewer expected calls than this in `FADE_S` gets nothing."""
PATIENCE_S = 0.005
"""Making a jail waits for running calls no longer than this."""
PATIENCE_BUSY_S = 0.1
SHORT_S = 0.025
PROCESSORS = os.cpu_count() or 1
REPLAN_S = 0.05
"""So long a plan is good, unless something new comes up: rates change more slowly."""
LOOK_S = 2.0
"""How often idle jails are looked at."""
IDLE_CPU_S = 0.5
STRIKES = 3


class Demand:
    """How often an artifact is called."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.strikes = 0
        self.struck_at = 0.0
        self._count = 0.0
        self._at = 0.0

    def note(self, now: float) -> None:
        self._count = self.count(now) + 1.0
        self._at = now

    def count(self, now: float) -> float:
        """Calls in the last `FADE_S`, older ones faded; divided by `FADE_S` it is a rate."""
        return self._count * math.exp((self._at - now) / FADE_S)


def plan(counts: Mapping[str, float], bounds: Bounds, jail_bytes: int) -> dict[str, int]:
    """How many warm jails each artifact should have.

    `counts`: calls per artifact as `Demand.count` tells; `jail_bytes`: what an idle jail uses. The sum
    stays within `bounds`; each artifact that is worth one gets one, most used first, before any gets two.
    """
    room = bounds.max_jails
    if bounds.max_memory_bytes is not None:
        room = min(room, bounds.max_memory_bytes // max(jail_bytes, 1))
    ranked = sorted((key for key in counts if counts[key] >= WORTH), key=lambda key: -counts[key])
    wanted = dict.fromkeys(ranked[:room], 1)
    room -= len(wanted)
    for key in wanted:
        more = min(room, math.ceil(counts[key] / FADE_S * HORIZON_S))
        wanted[key] += more
        room -= more
    return wanted


class WarmPool:
    """Warm jails by artifact. `take` and `call` are on the path of a call: no I/O."""

    def __init__(self, jails: Jails, bounds: Bounds, limits: Limits, events: Events) -> None:
        self._jails = jails
        self._bounds = bounds
        self._limits = limits
        self._demands: dict[str, Demand] = {}
        self._idle: dict[str, list[Inmate]] = {}
        self._work = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._short: set[object] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._status = {"hits": 0, "misses": 0, "made": 0, "wasted": 0}
        self._plan: dict[str, int] = {}
        self._replan_at = 0.0
        self._make_s = 0.0
        self._jail_bytes = 4 << 20
        events.tap(self._fold, ArtifactEvicted)

    def start(self) -> None:
        """Begin to make jails ahead; without this the pool stays empty and only counts."""
        if self._bounds.max_jails:
            self._tasks = [asyncio.create_task(self._refill()), asyncio.create_task(self._look_after())]

    async def close(self) -> None:
        """Make no more, and give up those that wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for key in list(self._idle):
            self._drop(key, 0)

    # On the path of a call

    def take(self, artifact: Artifact) -> Inmate | None:
        """A warm jail for this artifact, which is the caller's from now on; None if there is none."""
        demand = self._demands.get(artifact.key)
        if demand is None:
            demand = self._demands[artifact.key] = Demand(artifact)
            self._replan_at = 0.0
        demand.note(time.monotonic())
        self._work.set()
        waiting = self._idle.get(artifact.key)
        while waiting:
            inmate = waiting.pop()
            _watch(inmate, None)
            if inmate.jail is not None and inmate.jail.process.returncode is None and not inmate.killed:
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
        long = asyncio.get_running_loop().call_later(SHORT_S, self._over, call)
        try:
            yield
        finally:
            long.cancel()
            self._over(call)

    def _over(self, call: object) -> None:
        self._short.discard(call)
        if not self._short:
            self._quiet.set()

    # Ahead of the calls

    async def _refill(self) -> None:
        """Make what the plan misses, one after another, most used first; give up what it has no use for."""
        while True:
            await self._work.wait()
            self._work.clear()
            while (artifact := self._next()) is not None:
                if not self._quiet.is_set():
                    patience_s = PATIENCE_S if len(self._short) < PROCESSORS else PATIENCE_BUSY_S
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience_s):
                            await self._quiet.wait()
                await self._make(artifact)

    def _next(self) -> Artifact | None:
        """The artifact that a jail is to be made for, by a plan that is not older than `REPLAN_S`."""
        now = time.monotonic()
        if now >= self._replan_at:
            self._replan_at = now + REPLAN_S
            self._plan = self._wanted()
            for key in list(self._idle):
                self._drop(key, self._plan.get(key, 0))
        for key, number in self._plan.items():
            if key in self._demands and len(self._idle.get(key, ())) < number:
                return self._demands[key].artifact
        return None

    def _wanted(self) -> dict[str, int]:
        now = time.monotonic()
        counts = {key: d.count(now) for key, d in self._demands.items() if d.strikes < STRIKES}
        return plan(counts, self._bounds, self._jail_bytes)

    async def _make(self, artifact: Artifact) -> None:
        started = time.perf_counter()
        try:
            inmate = await self._jails.make(
                (FUNCTION,),
                purpose="function",
                mounts=(Mount(artifact.path, FUNCTION),),
                limits=self._limits,
                artifact=artifact,
                cached=True,
                warm=True,
            )
        except IslandError as error:
            log.warning("cannot make a warm jail for %s: %s", artifact.url, error.message)
            self._strike(artifact.key, time.time())
            return
        self._status["made"] += 1
        spent = time.perf_counter() - started
        self._make_s = spent if not self._make_s else 0.9 * self._make_s + 0.1 * spent
        self._idle.setdefault(artifact.key, []).append(inmate)
        _watch(inmate, lambda: self._ended(inmate, artifact.key))

    def _ended(self, inmate: Inmate, key: str) -> None:
        """A warm process that ends by itself (its `init` exits or panics) is replaced."""
        self._idle[key].remove(inmate)
        self._give_up(inmate)
        if not inmate.killed:
            self._strike(key, inmate.created_at)
        self._work.set()

    async def _look_after(self) -> None:
        """Destroy idle jails that work or that waited too long; forget artifacts that nobody calls."""
        while True:
            await asyncio.sleep(LOOK_S)
            now, old = time.monotonic(), time.time() - self._bounds.idle_expires_s
            for key, inmates in self._idle.items():
                for inmate in list(inmates):
                    inmate.look()
                    usage = inmate.usage
                    if usage.memory_bytes:
                        self._jail_bytes = max(1 << 20, (7 * self._jail_bytes + usage.memory_bytes) // 8)
                    busy = (usage.cpu_s or 0.0) > IDLE_CPU_S
                    if busy:
                        self._strike(key, inmate.created_at)
                    if busy or inmate.created_at < old:
                        inmates.remove(inmate)
                        self._give_up(inmate)
            for key in [key for key, demand in self._demands.items() if demand.count(now) < WORTH / 10]:
                self._drop(key, 0)
                del self._demands[key]
            self._replan_at = 0.0
            self._work.set()

    def _strike(self, key: str, made_at: float) -> None:
        """A jail failed. One that was made before the last one failed tells nothing new: something may have
        ended them all."""
        demand = self._demands.get(key)
        if demand and made_at >= demand.struck_at:
            demand.strikes += 1
            demand.struck_at = time.time()
            self._replan_at = 0.0
            if demand.strikes == STRIKES:
                log.warning("%s gets no warm jails any more: they end or work early", demand.artifact.url)

    def _drop(self, key: str, keep: int) -> None:
        """Give up the idle jails of an artifact beyond `keep`."""
        inmates = self._idle.get(key, [])
        while len(inmates) > keep:
            self._give_up(inmates.pop(0))
        if not inmates:
            self._idle.pop(key, None)

    def _give_up(self, inmate: Inmate) -> None:
        _watch(inmate, None)
        self._status["wasted"] += 1
        self._jails.discard(inmate)

    def _fold(self, event: ArtifactEvicted) -> None:
        self._demands.pop(event.key, None)
        self._drop(event.key, 0)

    # What operators see

    def status(self) -> PoolStatus:
        return PoolStatus(
            size=sum(map(len, self._idle.values())),
            wanted=sum(self._wanted().values()),
            max_jails=self._bounds.max_jails,
            make_s=self._make_s,
            memory_bytes=_memory(inmate for inmates in self._idle.values() for inmate in inmates),
            **self._status,
        )


def _watch(inmate: Inmate, listener: Callable[[], None] | None) -> None:
    if inmate.jail is not None:
        inmate.jail.process.news.listen(listener)


def _memory(inmates: Iterable[Inmate]) -> int:
    return sum(inmate.usage.memory_bytes or 0 for inmate in inmates)
