"""The stream of facts: taps, and the ring with its pages."""

from __future__ import annotations

import asyncio

import pytest

from skyisland.events import (
    EVENT_BYTES,
    PAGE,
    CloneCreated,
    Event,
    Events,
    Gap,
    InvocationFinished,
    InvocationStarted,
    IslandStarted,
    IslandStopped,
    Ring,
)
from skyisland.model import Timings


def fact(number: int) -> IslandStarted:
    return IslandStarted(swept=number)


def ring_of(count: int, limit: int = 10_000) -> Ring:
    """A ring with room for `limit` small events, after `count` of them."""
    ring = Ring(limit * EVENT_BYTES)
    for number in range(1, count + 1):
        ring.add(fact(number))
    return ring


def swept(events: dict[int, Event]) -> dict[int, int]:
    return {number: event.swept for number, event in events.items() if isinstance(event, IslandStarted)}


def test_a_tap_sees_its_kinds_in_order_until_it_is_ended() -> None:
    events = Events()
    everything: list[Event] = []
    starts: list[Event] = []
    untap = events.tap(everything.append)
    events.tap(starts.append, IslandStarted)
    facts = [fact(1), IslandStopped(), fact(2)]
    for event in facts:
        events.publish(event)
    untap()
    events.publish(fact(3))
    assert everything == facts
    assert [event.swept for event in starts if isinstance(event, IslandStarted)] == [1, 2, 3]


def test_a_tap_that_fails_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    seen: list[Event] = []

    def fail(event: Event) -> None:
        raise OSError("broken")

    events.tap(fail)
    events.tap(seen.append)
    events.publish(fact(1))
    assert len(seen) == events.ring.number == 1
    assert "a tap failed on IslandStarted" in caplog.text


def test_pages_follow_one_another() -> None:
    ring = ring_of(2 * PAGE + 5)
    number, found, sizes = 0, dict[int, int](), list[int]()
    while number < ring.number:
        page = ring.page(number)
        assert page.after == number
        number = page.last
        sizes.append(len(page.events))
        found |= swept(page.events)
    assert found == {number: number for number in range(1, 2 * PAGE + 6)}
    assert sizes == [PAGE, PAGE, 5]
    assert ring.page(ring.number).events == {}


def test_readers_at_one_place_share_a_page() -> None:
    ring = ring_of(3)
    page = ring.page(1)
    assert ring.page(1) is page
    ring.page(1, brief=True)
    assert ring.page(1) is page
    ring.add(fact(4))
    assert swept(ring.page(1).events) == {2: 2, 3: 3, 4: 4}
    assert swept(page.events) == {2: 2, 3: 3}, "whoever has it keeps it"


def test_who_comes_too_late_gets_a_gap_and_goes_on_after_it() -> None:
    ring = ring_of(5, limit=2)
    page = ring.page(1)
    (gap,) = page.events.values()
    assert isinstance(gap, Gap)
    assert (gap.missed, page.last) == (2, 3)
    assert swept(ring.page(page.last).events) == {4: 4, 5: 5}


def test_long_texts_count_against_the_limit() -> None:
    events = Events(ring_bytes=10_000)
    for _ in range(3):
        events.publish(InvocationStarted(url="u" * 2000, call="c" * 2000))
    assert [type(event) for event in events.ring.page(1).events.values()] == [InvocationStarted] * 2
    (gap,) = events.ring.page(0).events.values()
    assert isinstance(gap, Gap)


def test_one_event_larger_than_the_ring_leaves_it_empty() -> None:
    ring = ring_of(1, limit=2)
    ring.add(InvocationStarted(url="u", call="c" * 1000))
    page = ring.page(0)
    assert (page.last, [type(event) for event in page.events.values()]) == (2, [Gap])


def test_a_brief_page_keeps_its_numbers() -> None:
    ring = Ring(1 << 20)
    for event in (
        InvocationStarted(invocation="i-1", url="u", call="F()"),
        CloneCreated(clone="c", duration_s=0.1),
        InvocationStarted(invocation="i-2", url="u", call="F()"),
        InvocationFinished(invocation="i-1", url="u", call="F()", verdict="ok", timings=Timings()),
    ):
        ring.add(event)
    assert list(ring.page(0, brief=True).events) == [3, 4]
    assert list(ring.page(0).events) == [1, 2, 3, 4]
    assert list(ring.page(1, brief=True).events) == [3, 4]


async def test_news_comes_to_all_who_wait() -> None:
    ring = ring_of(1)
    waiting = [asyncio.ensure_future(ring.news()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting), "what was there before is no news"
    ring.add(fact(2))
    await asyncio.gather(*waiting)
    woken = asyncio.ensure_future(ring.news())
    await asyncio.sleep(0)
    ring.wake()
    await woken
