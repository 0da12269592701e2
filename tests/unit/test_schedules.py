"""Names that are called by themselves: what cron means where clocks are turned, and that each time counts
once, whatever stops the island or turns its clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, structs

from skyisland.drivers.fake import Script
from skyisland.errors import BadRequest, DriverError, Forbidden, TooBusy
from skyisland.later.calls import CallState, Claim
from skyisland.later.keeping import Wanted
from skyisland.later.later import Later
from skyisland.later.memory import MemoryStore
from skyisland.model import NamedCall
from skyisland.named import schedule as cron
from skyisland.named.definition import Definition, Revision
from skyisland.named.firing import BACK_S, LATE_S, Schedules
from skyisland.named.names import MemoryNames
from skyisland.named.schedule import Missed, Overlap, Schedule, checked_schedule, due, times, upcoming
from skyisland.settings import Async
from tests.support.api import answers, make_world

BERLIN = "Europe/Berlin"
EIGHT = Schedule(cron="0 8 * * *")
MINUTES = Schedule(cron="* * * * *")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def between(schedule: Schedule, after: float, until: float) -> list[float]:
    return list(itertools.takewhile(lambda one: one <= until, times(schedule, after)))


# What an expression means

Field = tuple[str, frozenset[int]]
"""As it is written, and what it means."""


def field(low: int, high: int, *, often: bool) -> st.SearchStrategy[Field]:
    numbers = st.sets(st.integers(low, high), min_size=1, max_size=3)
    listed = numbers.map(lambda some: (",".join(map(str, sorted(some))), frozenset(some)))
    every = st.just(("*", frozenset(range(low, high + 1))))
    steps = st.integers(2, min(20, high)).map(
        lambda step: (f"*/{step}", frozenset(range(low, high + 1, step)))
    )
    return st.one_of(listed, every, steps) if often else st.one_of(listed, listed, every, steps)


EXPRESSIONS = st.tuples(
    field(0, 59, often=False), field(0, 23, often=True), field(1, 31, often=True), field(1, 12, often=True),
    field(0, 6, often=True),
)  # fmt: skip
ZONES = {  # a zone, and a turn of its clocks
    "UTC": "2026-03-29T01:00Z",
    BERLIN: "2026-03-29T01:00Z",
    "Europe/Dublin": "2026-10-25T01:00Z",
    "America/New_York": "2026-11-01T06:00Z",
    "America/Sao_Paulo": "2017-10-15T03:00Z",  # at midnight
    "Asia/Kolkata": "2026-03-29T01:00Z",
    "Pacific/Apia": "2011-12-30T10:00Z",  # without a day
}


def spelled_out(fields: tuple[Field, ...], zone: str, after: float, until: float) -> list[float]:
    """The same by looking at every minute."""
    minutes, hours, days, months, weekdays = (numbers for _, numbers in fields)
    stars = [text.startswith("*") for text, _ in fields]
    tz = ZoneInfo(zone)

    def named(moment: datetime) -> bool:
        of_month, of_week = moment.day in days, moment.isoweekday() % 7 in weekdays
        day = (of_month and of_week) if stars[2] or stars[4] else (of_month or of_week)
        return moment.minute in minutes and moment.hour in hours and moment.month in months and day

    found = set()
    if stars[0] or stars[1]:  # it runs all the time: whatever the clock shows
        for one in range(int(after) // 60 + 1, int(until) // 60 + 1):
            if named(datetime.fromtimestamp(one * 60, tz)):
                found.add(one * 60.0)
        return sorted(found)
    moment = datetime.fromtimestamp(after, tz).replace(tzinfo=None, second=0) - timedelta(days=2)
    while moment < datetime.fromtimestamp(until, tz).replace(tzinfo=None) + timedelta(days=2):
        if named(moment):
            real = moment.replace(tzinfo=tz)
            while real.astimezone(UTC).astimezone(tz).replace(tzinfo=None) != real.replace(tzinfo=None):
                real += timedelta(minutes=1)  # the clock never shows it
            found.add(real.timestamp())
        moment += timedelta(minutes=1)
    return sorted(one for one in found if after < one <= until)


@given(EXPRESSIONS, st.sampled_from(sorted(ZONES)), st.integers(-1500, 0), st.integers(0, 1500))
@settings(max_examples=40, deadline=None)
def test_between_two_instants_the_times_are_exactly_crons(
    fields: tuple[Field, ...], zone: str, before_min: int, after_min: int
) -> None:
    turn = at(ZONES[zone])
    after, until = turn + before_min * 60, turn + after_min * 60
    schedule = Schedule(cron=" ".join(text for text, _ in fields), zone=zone)
    try:
        checked_schedule(schedule)
    except BadRequest:
        return  # the 31st of February
    expected = spelled_out(fields, zone, after, until)
    assert between(schedule, after, until) == expected
    # Wherever somebody looks in between, the same times are found.
    middle = (after + until) / 2
    assert between(schedule, after, middle) + between(schedule, middle, until) == expected
    assert due(schedule, after, until) == (len(expected), expected[-1] if expected else 0.0)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # Clocks go from 2:00 to 3:00: what was due then is due at 3:00, once.
        ("30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("0,30 2,3 * * *", "2026-03-29T00:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]),
        ("*/30 * * * *", "2026-03-29T01:30+01:00", ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]),
        # They go from 3:00 back to 2:00: what names the hour is due once, what is due always goes on.
        ("30 2 * * *", "2026-10-25T00:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30+01:00", "2026-10-27T02:30+01:00"]),
        ("30 * * * *", "2026-10-25T02:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
        ("0 12 L * *", "2026-02-01T00:00+01:00", ["2026-02-28T12:00+01:00", "2026-03-31T12:00+02:00"]),
    ],
)  # fmt: skip
def test_summer_time(expression: str, after: str, expected: list[str]) -> None:
    schedule = Schedule(cron=expression, zone=BERLIN)
    assert [*upcoming(schedule, at(after))[: len(expected)]] == [*map(at, expected)]


def test_what_was_due_in_years_is_counted_within_bounds() -> None:
    now = at("2026-11-28T08:00:30Z")
    assert due(MINUTES, 0.0, now) == (cron.MOST_COUNTED, at("2026-11-28T08:00Z"))
    yearly = Schedule(cron="* 5 1 1 *")
    number, latest = due(yearly, 0.0, now)
    assert (number, latest) == (57 * 60, at("2026-01-01T05:59Z"))
    many = Schedule(cron="* * 1-7 1 *")
    assert due(many, 0.0, now) == (cron.MOST_COUNTED, at("2026-01-07T23:59Z"))


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        ({"cron": "0 8 * *"}, "0 8 [*] [*] MON-FRI"),
        ({"cron": "0 0 8 * * *"}, "0 8 [*] [*] MON-FRI"),
        ({"cron": "@daily"}, "0 8 [*] [*] MON-FRI"),
        ({"cron": "61 8 * * *"}, "Bad minute"),
        ({"cron": "0 8 30 2 *"}, "Bad day-of-month"),
        ({"cron": "*/99999999999999999999 * * * *"}, "step beyond 59"),
        ({"cron": "0 0-8/2,9/24 * * *"}, "'0-8/2,9/24' has a step beyond 23"),
        ({"cron": "0 0 * * MON-FRI/8"}, "step beyond 7"),
        ({"cron": "0 0 */31 2 1#5"}, "ever comes|no time"),
        ({"cron": "0 8 * * *", "zone": "Europe/berlin!"}, "Europe/Berlin"),
        ({"cron": "0 8 * * *", "zone": "Europe"}, "Europe/Berlin"),
        ({"cron": "0 8 * * *", "zone": "../../etc/passwd"}, "Europe/Berlin"),
        ({"cron": "0 8 * * *", "zone": "/etc/localtime"}, "Europe/Berlin"),
        *(
            ({"cron": "0 8 * * *", "zone": zone}, "IANA's names")
            for zone in ("Factory", "localtime", "posixrules", "posix/UTC", "right/Europe/Berlin")
        ),
    ],
)
def test_what_is_no_schedule_names_the_remedy(fields: dict[str, Any], remedy: str) -> None:
    with pytest.raises(BadRequest, match=remedy) as refused:
        checked_schedule(Schedule(**fields))
    assert refused.value.details["field"] == "schedule"


@given(st.text(alphabet="0123456789*/,-#LWMONSUJ \t", max_size=100), st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_text_breaks_the_reader(expression: str, zone: str) -> None:
    for schedule in (Schedule(cron=expression), Schedule(cron="0 8 * * *", zone=zone)):
        with contextlib.suppress(BadRequest):
            upcoming(checked_schedule(schedule), at("2026-11-28T00:00Z"))


# Each time counts once


class Clock:
    def __init__(self, text: str) -> None:
        self.now = at(text)

    def __call__(self) -> float:
        return self.now

    def to(self, text: str) -> None:
        self.now = at(text)


class FakeCalls:
    """Keeps what is called, once for each key."""

    def __init__(self) -> None:
        self.kept: dict[str, NamedCall] = {}
        self.ended: dict[str, float | None] = {}
        self.refusal: Exception | None = None

    async def accept_once(
        self, key: str, asks: NamedCall, client: str, *, name: str = "", who: str = ""
    ) -> str:
        if self.refusal is not None:
            raise self.refusal
        assert client == who == f"schedule:{name}"
        self.kept.setdefault(key, asks)
        self.ended.setdefault(key, 0.0)
        return key

    async def ended_at(self, id: str) -> float | None:  # noqa: A002
        return self.ended[id]

    @property
    def times(self) -> list[str]:
        return [key.partition("T")[2] for key in self.kept]


def revision_of(definition: Definition, at: float = 0.0) -> Revision:
    fields: dict[str, Any] = {"repository": "github.com/u/r", "package": "", "commit": "c" * 40, "by": "ada"}
    return Revision(name="report", revision=1, definition=definition, at=at, why="defined", **fields)


class Setting:
    """A name with a schedule, as it is from one life of the island to the next."""

    def __init__(self, schedule: Schedule, defined: str = "2026-11-28T07:30Z") -> None:
        self.names, self.calls, self.clock = MemoryNames(), FakeCalls(), Clock(defined)
        definition = Definition(url="github.com/u/r", function="F", schedule=schedule)
        self.revision = revision_of(definition, at=self.clock.now)
        self.start()

    def start(self) -> None:
        """A new life."""
        self.schedules = Schedules(self.names, self.clock)
        self.schedules._calls = self.calls

    async def put(self, **changes: Any) -> None:
        if self.names.get("report") is not None:
            changes = {"at": self.clock.now, "revision": self.revision.revision + 1} | changes
        self.revision = structs.replace(self.revision, **changes)
        await self.names.put(self.revision)
        await self.schedules.changed(self.revision)

    async def look(self, text: str) -> float:
        self.clock.to(text)
        return await self.schedules.look()

    @property
    def counts(self) -> tuple[int, int, int]:
        shown = self.schedules.shown(self.revision)
        assert shown is not None
        return shown.calls, shown.missed, shown.skipped


async def test_a_name_is_called_at_its_times_with_what_its_schedule_has() -> None:
    here = Setting(structs.replace(EIGHT, args=[1, "a"], stdin="in"))
    await here.put()
    shown = here.schedules.shown(here.revision)
    assert shown is not None
    assert shown.next[:2] == (at("2026-11-28T08:00Z"), at("2026-11-29T08:00Z"))
    assert await here.look("2026-11-28T07:59:55Z") == 5.0
    assert await here.look("2026-11-28T07:30:01Z") == 10.0  # somebody may turn the clock
    assert here.calls.kept == {}
    await here.look("2026-11-28T08:00Z")
    await here.look("2026-11-28T08:00:01Z")
    here.start()
    await here.look("2026-11-28T08:00:02Z")
    assert here.calls.kept == {"report@2026-11-28T08:00Z": NamedCall(args=Raw(b'[1,"a"]'), stdin="in")}
    shown = here.schedules.shown(here.revision)
    assert shown is not None
    assert (shown.last, shown.call, shown.next[0]) == (
        at("2026-11-28T08:00Z"), "report@2026-11-28T08:00Z", at("2026-11-29T08:00Z"),
    )  # fmt: skip
    await here.put(definition=structs.replace(here.revision.definition, schedule=None))
    await here.look("2026-11-29T08:00Z")
    assert (await here.names.fired("report"), len(here.calls.kept)) == (None, 1)
    assert here.schedules.shown(here.revision) is None


@pytest.mark.parametrize(
    ("missed", "called", "counts"),
    [(Missed.skip, [], (0, 3, 0)), (Missed.once, ["10:00Z"], (1, 2, 0))],
)
async def test_times_at_which_the_island_did_not_run(
    missed: Missed, called: list[str], counts: tuple[int, int, int]
) -> None:
    here = Setting(Schedule(cron="0 * * * *", missed=missed))
    await here.put()
    await here.look("2026-11-28T07:31Z")
    here.start()
    await here.look("2026-11-28T10:30Z")
    assert (here.calls.times, here.counts) == (called, counts)
    here.start()  # a restart around a time is no miss
    await here.look("2026-11-28T11:00:50Z")
    assert here.calls.times == [*called, "11:00Z"]


@pytest.mark.parametrize(
    ("overlap", "called", "counts"),
    [
        (Overlap.skip, ["07:31Z", "07:36Z"], (2, 0, 4)),
        (Overlap.queue, ["07:31Z", "07:35Z", "07:36Z"], (3, 0, 3)),
    ],
)
async def test_times_at_which_the_call_before_is_not_over(
    overlap: Overlap, called: list[str], counts: tuple[int, int, int]
) -> None:
    here = Setting(structs.replace(MINUTES, overlap=overlap))
    await here.put()
    await here.look("2026-11-28T07:31Z")
    here.calls.ended["report@2026-11-28T07:31Z"] = None
    for minute in range(32, 36):
        again_s = await here.look(f"2026-11-28T07:{minute}Z")
        assert again_s == (1.0 if overlap is Overlap.queue else 10.0)
    here.start()  # what waits is waited for in the next life, too
    await here.look("2026-11-28T07:35:10Z")
    here.calls.ended["report@2026-11-28T07:31Z"] = at("2026-11-28T07:35:30Z")
    await here.look("2026-11-28T07:35:31Z")
    await here.look("2026-11-28T07:36Z")
    assert (here.calls.times, here.counts) == (called, counts)


async def test_a_paused_name_is_not_called_and_not_made_up_for() -> None:
    here = Setting(Schedule(cron="0 * * * *", missed=Missed.once))
    await here.put()
    await here.look("2026-11-28T07:40Z")
    await here.put(paused=True)
    await here.look("2026-11-28T09:10Z")
    assert here.schedules.shown(here.revision).next == ()  # type: ignore[union-attr]
    await here.put(paused=False)
    await here.look("2026-11-28T09:20Z")
    await here.look("2026-11-28T10:00Z")
    assert (here.calls.times, here.counts) == (["10:00Z"], (1, 0, 2))


async def test_a_clock_that_is_turned_repeats_nothing_and_kills_no_schedule(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = Setting(Schedule(cron="0 * * * *"))
    await here.put()
    await here.look("2026-11-28T08:00Z")
    await here.look("2026-11-28T11:30Z")  # forwards: missed
    await here.look("2026-11-28T08:30Z")  # and back
    await here.look("2026-11-28T09:00Z")
    await here.look("2026-11-28T11:00Z")
    assert (here.calls.times, here.counts) == (["08:00Z"], (1, 3, 0))
    await here.look("2026-11-28T12:00Z")
    await here.look("2099-01-01T00:00Z")  # a clock without a battery
    here.calls.ended["report@2099-01-01T00:00Z"] = at("2099-01-01T00:00:01Z")
    await here.look("2026-11-28T12:30Z")
    assert "set back" in caplog.text
    await here.look("2026-11-28T13:00Z")
    assert here.calls.times == ["08:00Z", "12:00Z", "00:00Z", "13:00Z"]


async def test_a_call_that_cannot_be_kept_waits_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    here = Setting(EIGHT)
    await here.put()
    here.calls.refusal = TooBusy("the queue is full")
    assert await here.look("2026-11-28T08:00:01Z") == 1.0
    await here.look("2026-11-28T08:00:02Z")
    assert caplog.text.count("the queue is full") == 1
    assert here.schedules.shown(here.revision).trouble == "the queue is full"  # type: ignore[union-attr]
    here.calls.refusal = None
    await here.look("2026-11-28T08:00:03Z")
    assert here.counts == (1, 0, 0)
    here.calls.refusal = Forbidden("not now")
    await here.look("2026-11-29T08:00Z")
    assert here.counts == (1, 1, 0)
    assert here.schedules.shown(here.revision).trouble == "not now"  # type: ignore[union-attr]


async def test_a_disk_that_takes_no_note_does_not_call_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Setting(EIGHT)
    await here.put()
    await here.look("2026-11-28T07:40Z")
    note = here.names.note_fired

    async def full(*_: object) -> None:
        raise DriverError("no space")

    monkeypatch.setattr(here.names, "note_fired", full)
    await here.look("2026-11-28T08:00Z")
    here.start()
    await here.look("2026-11-28T08:00:10Z")
    monkeypatch.setattr(here.names, "note_fired", note)
    await here.look("2026-11-28T08:00:20Z")
    assert (here.calls.times, here.counts) == (["08:00Z"], (1, 0, 0))


async def test_another_schedule_begins_when_it_is_defined() -> None:
    here = Setting(Schedule(cron="0 * * * *", missed=Missed.once))
    await here.put()
    await here.look("2026-11-28T08:00Z")
    here.clock.to("2026-11-28T12:30Z")
    there = Schedule(cron="0 9 * * *", zone=BERLIN, missed=Missed.once)
    await here.put(definition=structs.replace(here.revision.definition, schedule=there))
    await here.look("2026-11-28T12:31Z")
    assert here.calls.times == ["08:00Z"]
    await here.look("2026-11-29T08:00Z")
    assert here.calls.times == ["08:00Z", "08:00Z"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("on"), st.integers(1, 400)),
            st.tuples(st.just("forwards"), st.integers(60, 30_000)),
            st.tuples(st.just("back"), st.integers(1, 2800)),
            st.tuples(st.just("restart"), st.integers(0, 600)),
        ),
        max_size=30,
    ),
    st.sampled_from([*Missed]),
    st.sampled_from(["*/5 * * * *", "0 * * * *", "30 2 * * *"]),
)
@settings(max_examples=40, deadline=None)
def test_no_time_is_called_for_twice_and_none_on_time_is_left_out(
    steps: list[tuple[str, int]], missed: Missed, expression: str
) -> None:
    """`kept` keeps nothing twice, so what is compared is how often it was asked, and for what."""

    async def live() -> None:
        schedule = Schedule(cron=expression, zone=BERLIN, missed=missed)
        here = Setting(schedule, "2026-10-25T00:00:00+02:00")
        await here.put()
        asked: list[str] = []
        accept = here.calls.accept_once

        async def accepting(key: str, *args: Any, **more: Any) -> str:
            asked.append(key)
            return await accept(key, *args, **more)

        here.calls.accept_once = accepting  # type: ignore[method-assign]
        on_time, seen = set(), here.clock.now
        for step, seconds in steps:
            if step == "on":
                for _ in range(seconds // 10):
                    here.clock.now += 10
                    await here.schedules.look()
                    on_time |= set(between(schedule, max(seen, here.clock.now - 10), here.clock.now))
                    seen = max(seen, here.clock.now)
                continue
            if step == "restart":
                here.start()
            here.clock.now += -seconds if step == "back" else seconds
            await here.schedules.look()
            seen = max(seen, here.clock.now)
        stamps = {f"report@{cron.stamp(one)}" for one in on_time}
        assert len(asked) == len(set(asked))
        assert stamps <= set(asked)
        everything = {f"report@{cron.stamp(one)}" for one in between(schedule, here.revision.at, seen)}
        assert set(asked) <= everything

    asyncio.run(live())


def test_lateness_is_less_than_what_a_clock_may_be_set_back() -> None:
    assert LATE_S < BACK_S


# On an island


async def test_an_island_calls_by_itself_whoever_else_may() -> None:
    world = make_world()
    answers(world, b"", {"results": ["u4pruyd"]})
    play, given = world.driver.script, list[bytes]()

    def playing(data: bytes) -> Script:
        given.append(data)
        assert callable(play)
        return play(data)

    world.driver.script = playing
    named = world.island.named
    clock = Clock("2026-11-28T07:59:58Z")
    named._clock = named.schedules._clock = clock
    await world.island.start()
    try:
        definition = Definition(
            url="github.com/mmcloughlin/geohash",
            function="Encode",
            callers=("shop",),
            schedule=structs.replace(EIGHT, args=[1, 2]),
        )
        at_first = await named.define("report", definition)
        assert at_first.scheduled is not None
        assert at_first.scheduled.next[0] == at("2026-11-28T08:00Z")
        clock.to("2026-11-28T08:00:00Z")
        await named.schedules.look()
        (record,) = await world.island.later.find(Wanted(name="report"))
        record = await world.island.later.settled(record.id, 20.0)
        assert (record.state, record.client) == (CallState.done, "schedule:report")
        assert given[0].endswith(b"[1,2]")
        now = named.get("report")
        assert now.scheduled is not None
        assert (now.scheduled.call, now.scheduled.calls) == (record.id, 1)
        for wrong in (
            structs.replace(definition, handler="H", function=""),
            structs.replace(definition, function="main", schedule=structs.replace(EIGHT, args=[1])),
            structs.replace(definition, schedule=Schedule(cron="never")),
        ):
            with pytest.raises(BadRequest) as refused:
                await named.define("report", wrong)
            assert refused.value.details["field"] in ("schedule", "args")
    finally:
        await world.island.stop()


async def test_a_key_stands_for_one_call_also_where_it_was_cut_off() -> None:
    store = MemoryStore()

    async def run(*_: object) -> Any:
        await asyncio.Event().wait()

    later = Later(store, run, Async(), places=2, busy=lambda: True)
    # An island was killed when it had claimed the key, and nothing was kept yet.
    cut = Claim(client="schedule:report", key="report@8", body=b"", call="call-of-before")
    await store.results.claim(cut, 1.0)
    told = [
        await later.accept_once(key, NamedCall(), "schedule:report", name="report")
        for key in ("report@8",) * 2
    ]
    assert told == ["call-of-before"] * 2
    assert [record.id for record in await later.find(Wanted())] == ["call-of-before"]
    other = await later.accept_once("report@9", NamedCall(), "schedule:report", name="report")
    assert await later.ended_at(other) is None
    await later.cancel(other)
    assert (await later.ended_at(other) or 0.0) > 1.0
    assert await later.ended_at("call-that-is-forgotten") == 0.0
    await later.close()
