"""When a name is called by itself: cron's five fields in a time zone, as times.

cronsim says what an expression means, as Debian's cron has it: where summer time skips an hour, what was due
in it is due when the hour is over; where an hour comes twice, what names the hour runs once, and what runs
all the time (`*` in the minutes or hours) goes on doing so. Everything here is arithmetic, but for the first
look at a zone, which reads a file: call it on a thread.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from msgspec import UNSET, Meta, Raw, Struct
from msgspec.json import encode

from skyisland.errors import BadRequest
from skyisland.model import NamedCall

FIELDS = 5
SHOWN = 5
"""How many of the next times are told."""
MOST_COUNTED = 10_000
"""Times that are counted in one go: a week of minutes, 60 ms."""
_STEP = re.compile(r"/([0-9]+)")
_LAST = (59, 23, 31, 12, 7)
"""The highest number of each field."""
_NO_PLACES = {"Factory", "localtime"}
"""What lies among the zones and is none: `Factory` has no time, `localtime` is the host's."""
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")


class Missed(StrEnum):
    """What becomes of times at which the island did not run."""

    skip = "skip"
    once = "once"
    """One call makes up for all of them."""


class Overlap(StrEnum):
    """What becomes of a time at which the call before is not over."""

    skip = "skip"
    queue = "queue"
    """Its call begins once that is; of several such times, the latest has one."""


class Schedule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a name is called by itself, and with what."""

    cron: Annotated[str, Meta(max_length=100)]
    """Minute, hour, day of the month, month, day of the week, as in crontab(5): `0 8 * * MON-FRI`."""
    zone: Annotated[str, Meta(max_length=64)] = "UTC"
    """The time zone by its name in IANA's database: `Europe/Berlin`."""
    missed: Missed = Missed.skip
    """What becomes of times at which the island did not run."""
    overlap: Overlap = Overlap.skip
    """What becomes of a time at which the call before is not over."""
    args: list[Any] | dict[str, Any] | None = None
    """Arguments, as in a call by name."""
    stdin: str | None = None
    """What the function reads."""


class Fired(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the schedule of a name has come. `Names` keeps it, so that each time counts once."""

    cron: str
    zone: str
    until: float
    """All times up to this one are dealt with; seconds since the epoch."""
    last: float | None = None
    """The latest time that it was called for."""
    call: str = ""
    """The id of that call."""
    calls: int = 0
    missed: int = 0
    """Times that passed while the island did not run, or could not keep the call."""
    skipped: int = 0
    """Times that passed while the call before was not over, or the name was paused."""
    trouble: str = ""
    """Why the latest time has no call; empty if it has."""


class Scheduled(Struct, frozen=True, kw_only=True):
    """How the schedule of a name goes, for operators."""

    next: tuple[float, ...]
    """The next times that it is called for, seconds since the epoch; none while it is paused."""
    last: float | None
    """The latest one that it was called for."""
    call: str
    """The id of that call, at GET /api/v1/calls/ID."""
    calls: int
    """Times that it was called for."""
    missed: int
    """Times that passed while the island did not run, or could not keep the call."""
    skipped: int
    """Times that passed while the call before was not over, or the name was paused."""
    trouble: str
    """Why the latest time has no call; empty if it has."""


def client_of(name: str) -> str:
    """As whom a name calls itself: whose share of the island that takes."""
    return f"schedule:{name}"


def asked_by(schedule: Schedule) -> NamedCall:
    """What its calls ask for."""
    args = UNSET if schedule.args is None else Raw(encode(schedule.args))
    return NamedCall(args=args, stdin=schedule.stdin)


def stamp(at: float) -> str:
    """A time of a schedule, as it stands in keys and lines of the log."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ")


def local(at: float, zone: str) -> str:
    """A time of a schedule as the clocks of its zone show it, for people. May read a file."""
    moment = datetime.fromtimestamp(at, _zone(zone) or UTC)
    return moment.strftime("%a %Y-%m-%d %H:%M %Z")


def checked_schedule(schedule: Schedule) -> Schedule:
    """The schedule, if it can be one. May read a file.

    Raises:
        BadRequest: names the field and the remedy.
    """
    if not _ZONE.fullmatch(schedule.zone) or schedule.zone not in _zones():
        text = f"schedule: {schedule.zone!r} is no time zone; send one of IANA's names, such as Europe/Berlin"
        raise BadRequest(text, field="schedule")
    if not schedule.cron.isascii() or len(schedule.cron.split()) != FIELDS:
        text = "schedule: send minute, hour, day, month and day of the week, such as 0 8 * * MON-FRI"
        raise BadRequest(text, field="schedule")
    for part, last in zip(schedule.cron.split(), _LAST, strict=True):
        if any(int(step) > last for step in _STEP.findall(part)):  # cronsim would take its first time alone
            text = f"schedule: {part!r} has a step beyond {last}, the end of its field"
            raise BadRequest(text, field="schedule")
    from cronsim import CronSimError

    try:
        ever = next(times(schedule, 0.0), None)
    except CronSimError as error:
        text = f"schedule: {schedule.cron!r} is no cron expression: {error}"
        raise BadRequest(text, field="schedule") from None
    if ever is None:
        raise BadRequest(f"schedule: {schedule.cron!r} names no time that ever comes", field="schedule")
    return schedule


@cache
def _zones() -> frozenset[str]:
    """IANA's names, as the host has them when they are first asked for; that takes 10 ms."""
    return frozenset(available_timezones() - _NO_PLACES)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder of zones is an OSError
        return None


def times(schedule: Schedule, after: float) -> Iterator[float]:
    """The times that a schedule names after this one, each once, in order; seconds since the epoch."""
    from cronsim import CronSim  # most islands have no schedule

    if (zone := _zone(schedule.zone)) is None:
        raise BadRequest(f"schedule: this system has no time zone {schedule.zone!r}", field="schedule")
    begin = datetime.fromtimestamp(math.floor(after), zone)
    for moment in CronSim(schedule.cron, begin):
        # Where clocks are turned, cronsim may name a time twice, or one that is over.
        if (at := moment.timestamp()) > after:
            after = at
            yield at


def upcoming(schedule: Schedule, after: float) -> tuple[float, ...]:
    """The next of them."""
    return tuple(itertools.islice(times(schedule, after), SHOWN))


def due(schedule: Schedule, after: float, now: float) -> tuple[int, float]:
    """How many times came after the one and up to now, no more than `MOST_COUNTED`, and the latest of them;
    0.0 if there was none."""
    number, latest = 0, 0.0
    for at in times(schedule, after):
        if at > now:
            break
        number, latest = number + 1, at
        if number == MOST_COUNTED:
            return number, _latest(schedule, latest, now)
    return number, latest


def _latest(schedule: Schedule, known: float, now: float) -> float:
    """The latest time up to now; `known`: an earlier one."""
    span_s = 3600.0
    while now - span_s > known:
        latest = 0.0
        for at in itertools.takewhile(lambda at: at <= now, times(schedule, now - span_s)):
            latest = at
        if latest:
            return latest
        span_s *= 24
    for at in itertools.takewhile(lambda at: at <= now, times(schedule, known)):
        known = at
    return known
