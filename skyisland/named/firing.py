"""Calls names by themselves: each time of a schedule once, whatever stops the island or turns its clock.

    clock ─▶ times that came since `Fired.until` ─▶ one call, kept under the key NAME@TIME ─▶ `Fired` noted

A firing is a call that answers later. Its key is claimed before it is kept, and how far the schedule has come
is noted after; so an island that is killed in between finds the call that it was, and of several islands one
makes it. Times that came while nobody looked are told by `Fired` alone: the latest counts as on time for
`LATE_S`, all others are missed. A clock that was set back waits until it has caught up, because its times
were dealt with; but for no longer than `BACK_S`, as a clock that was further off had a wrong time before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, structs

from skyisland.errors import IslandError, TooBusy, Unavailable
from skyisland.host.tasks import aside, cancel_all
from skyisland.model import NamedCall
from skyisland.named.definition import Revision
from skyisland.named.names import Names
from skyisland.named.schedule import (
    Fired,
    Missed,
    Overlap,
    Schedule,
    Scheduled,
    asked_by,
    client_of,
    due,
    stamp,
    upcoming,
)

log = logging.getLogger(__name__)

LATE_S = 60.0
"""A firing that is later is missed. A judgement: a restart takes seconds, and cron knows no finer time."""
BACK_S = 86400.0
"""A clock is not set back further, but for one that was wrong."""
LOOK_S = 10.0
"""How often to look at the clock, which somebody may have set."""
AGAIN_S = 1.0
"""When to look again whether a call is over, or there is room for one."""


class Calls(Protocol):
    """What schedules need of calls that answer later."""

    async def accept_once(
        self, key: str, asks: NamedCall, client: str, *, name: str = "", who: str = ""
    ) -> str:
        """Keep a call, unless one was kept under this key of the client; returns the call's id."""
        ...

    async def ended_at(self, id: str) -> float | None:  # noqa: A002
        """When a call was over; None if it is not."""
        ...


class Plan(Struct, frozen=True):
    """What is known of a schedule between two looks at it."""

    revision: int
    next: tuple[float, ...] = ()
    waits: str = ""
    """Why what is due could not be called yet; empty where nothing is."""
    done: bool = False
    """What was due before `next` is done."""
    fired: Fired | None = None
    """How far the schedule was then; None without one."""

    def until(self, revision: Revision) -> float:
        """The time at which there is something to do for the revision."""
        if not self.done or self.revision != revision.revision:
            return 0.0
        return self.next[0] if self.next else math.inf


def begun(fired: Fired | None, revision: Revision, schedule: Schedule) -> Fired:
    """How far a schedule is; one that is new begins when its name was defined so."""
    if fired is None or (fired.cron, fired.zone) != (schedule.cron, schedule.zone):
        return Fired(cron=schedule.cron, zone=schedule.zone, until=revision.at)
    return fired


def ahead(fired: Fired | None, now: float) -> bool:
    """Whether a schedule is further than any clock is set back."""
    return fired is not None and fired.until > now + BACK_S


class Schedules:
    """The schedules of an island's names. `start` comes first, `close` last."""

    def __init__(self, names: Names, clock: Callable[[], float] = time.time) -> None:
        self._names, self._clock = names, clock
        self._calls: Calls | None = None
        self._plans: dict[str, Plan] = {}
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self, calls: Calls) -> None:
        """Call what is due, from now on."""
        self._calls = calls
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Call nothing more. May be repeated."""
        await cancel_all(self._looking)

    async def changed(self, revision: Revision) -> None:
        """A name stands for this now."""
        if (schedule := revision.definition.schedule) is not None:
            fired = begun(self._plans.get(revision.name, Plan(0)).fired, revision, schedule)
            following = await aside(upcoming, schedule, max(fired.until, self._clock()))
            self._plans[revision.name] = Plan(revision.revision, following, fired=fired)
        self._changed.set()

    def shown(self, revision: Revision) -> Scheduled | None:
        """How the schedule of a name goes; None without one."""
        schedule = revision.definition.schedule
        if schedule is None:
            return None
        plan = self._plans.get(revision.name, Plan(0))
        fired = begun(plan.fired, revision, schedule)
        current = plan.revision == revision.revision and not revision.paused
        return Scheduled(
            next=plan.next if current else (),
            last=fired.last,
            call=fired.call,
            calls=fired.calls,
            missed=fired.missed,
            skipped=fired.skipped,
            trouble=plan.waits or fired.trouble,
        )

    async def _look(self) -> None:
        while True:
            self._changed.clear()
            try:
                pause_s = await self.look()
            except Exception:
                log.exception("the schedules cannot be looked at")
                pause_s = LOOK_S
            # Not wait_for: that takes no cancellation where the event is set in the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def look(self) -> float:
        """Call what is due; returns after how many seconds to look again, at the latest."""
        now, revisions = self._clock(), self._names.all()
        self._plans = {one.name: self._plans[one.name] for one in revisions if one.name in self._plans}
        await asyncio.gather(*(self._deal(one, now) for one in revisions))
        if any(plan.waits for plan in self._plans.values()):
            return AGAIN_S
        soonest = min((plan.next[0] for plan in self._plans.values() if plan.next), default=now + LOOK_S)
        return min(LOOK_S, max(0.0, soonest - self._clock()))

    async def _deal(self, revision: Revision, now: float) -> None:
        """Do what one name's schedule wants now."""
        name, schedule = revision.name, revision.definition.schedule
        plan = self._plans.get(name, Plan(0))
        if schedule is None and plan.fired is None:
            return
        if plan.until(revision) > now and not ahead(plan.fired, now):
            return
        waits, fired, following = "", plan.fired, plan.next
        try:
            before = await self._names.fired(name)
            if schedule is None:
                fired, following = None, ()
            else:
                fired = begun(before, revision, schedule)
                if ahead(fired, now):
                    log.warning("%s: the clock was set back; its schedule goes on from what it shows", name)
                    fired = structs.replace(fired, until=now)
                told = await self._fire(revision, schedule, fired, now)
                fired, waits = (fired, told) if isinstance(told, str) else (told, "")
                following = await aside(upcoming, schedule, max(fired.until, now))
            if fired != before:
                await self._names.note_fired(name, fired)
        except IslandError as error:  # where it cannot be noted, the key knows what was called
            waits = error.message
        except Exception:
            log.exception("the schedule of %s", name)
            waits = "the island failed; its log says why"
        if waits and waits != plan.waits:
            log.warning("%s: its schedule waits: %s", name, waits)
        self._plans[name] = Plan(revision.revision, following, waits, done=not waits, fired=fired)

    async def _fire(self, revision: Revision, schedule: Schedule, fired: Fired, now: float) -> Fired | str:
        """Call a name if it is due; returns how far its schedule is then, or why that has to wait."""
        assert self._calls is not None  # noqa: S101 - `start` came first
        name = revision.name
        number, latest = await aside(due, schedule, fired.until, now)
        if not number:
            return fired
        passed = structs.replace(fired, until=latest)
        if revision.paused:
            return structs.replace(passed, skipped=fired.skipped + number)
        since, overlapped = latest, False
        if fired.call:
            ended_at = await self._calls.ended_at(fired.call)
            # One that ended later than now ended while the clock was wrong.
            overlapped = ended_at is None or latest <= ended_at <= now
            if overlapped and schedule.overlap is Overlap.skip:
                log.info("%s: its schedule skips %s: the call before is not over", name, stamp(latest))
                return structs.replace(passed, skipped=fired.skipped + number)
            if ended_at is None:
                return "the call before is not over"
            if overlapped:
                since = ended_at
        if now - since > LATE_S and schedule.missed is Missed.skip:
            log.warning("%s: its schedule missed %d times, the latest was %s", name, number, stamp(latest))
            return structs.replace(passed, missed=fired.missed + number)
        client = client_of(name)
        try:
            call = await self._calls.accept_once(
                f"{name}@{stamp(latest)}", asked_by(schedule), client, name=name, who=client
            )
        except (TooBusy, Unavailable) as refusal:
            return refusal.message
        except IslandError as refusal:
            log.error("%s: its schedule cannot call it: %s", name, refusal.message)
            return structs.replace(passed, missed=fired.missed + number, trouble=refusal.message)
        log.info("%s: its schedule calls it for %s as %s", name, stamp(latest), call)
        others = {"skipped": fired.skipped, "missed": fired.missed}
        others["skipped" if overlapped else "missed"] += number - 1
        return structs.replace(passed, last=latest, call=call, calls=fired.calls + 1, trouble="", **others)
