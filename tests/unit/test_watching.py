"""Following an island: pages at one pace for all, and the pulse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from skyisland.events import EVENT_BYTES, PAGE, Event, Events, Gap, IslandStarted, Page, Pulse
from skyisland.watching import Watch


class Island:
    """Events and a pulse; both at the word of a test."""

    def __init__(self, *, pause_s: float = 0, pulse_s: float = 3600, ring_bytes: int = 1 << 20) -> None:
        self.events = Events(ring_bytes=ring_bytes)
        self.pulses = 0
        self.watch = Watch(self.events, self.pulse, pause_s=pause_s, pulse_s=pulse_s)

    async def pulse(self) -> Pulse:
        self.pulses += 1
        return Pulse(running=self.pulses, queued=0, draining=False, usage={})

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.events.publish(IslandStarted(swept=number))

    @asynccontextmanager
    async def followed(self, after: int | None = None) -> AsyncIterator[AsyncIterator[Page | Pulse]]:
        async with aclosing(self.watch.follow(after)) as news:
            yield news


def events_on(page: Page | Pulse) -> list[Event]:
    assert isinstance(page, Page)
    return list(page.events.values())


def swept(page: Page | Pulse) -> list[int]:
    return [event.swept for event in events_on(page) if isinstance(event, IslandStarted)]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_pages_from_now_on_or_from_a_number_on() -> None:
    island = Island()
    island.say(1, 2)
    async with island.followed() as news, island.followed(after=1) as earlier:
        first = asyncio.ensure_future(anext(news))
        assert swept(await anext(earlier)) == [2]
        await turns()
        island.say(3)
        assert swept(await first) == [3]
        assert swept(await anext(earlier)) == [3]


async def test_who_keeps_up_gets_the_same_pages() -> None:
    island = Island()
    async with island.followed(0) as first, island.followed(0) as second:
        for number in range(3):
            island.say(number)
            page = await anext(first)
            assert await anext(second) is page
            assert swept(page) == [number]


async def test_the_first_event_comes_at_once_and_others_gather() -> None:
    island = Island(pause_s=3600)
    async with island.followed(0) as news:
        island.say(1)
        assert swept(await anext(news)) == [1]
        gathering = asyncio.ensure_future(anext(news, None))
        island.say(2, 3)
        await turns()
        assert not gathering.done()
        island.watch.close()
        assert await gathering is None


async def test_who_is_behind_does_not_pause() -> None:
    island = Island(pause_s=3600, ring_bytes=EVENT_BYTES * PAGE * 2)
    island.say(*range(PAGE * 3))
    async with island.followed(0) as news:
        (gap,) = events_on(await anext(news))
        assert isinstance(gap, Gap)
        assert gap.missed == PAGE
        assert swept(await anext(news)) == list(range(PAGE, 2 * PAGE))
        assert swept(await anext(news)) == list(range(2 * PAGE, 3 * PAGE))


async def test_the_pulse_is_taken_once_for_all_and_only_while_somebody_follows() -> None:
    island = Island(pulse_s=0)
    await turns()
    assert island.pulses == 0
    async with island.followed() as first, island.followed() as second:
        felt, too = await asyncio.gather(anext(first), anext(second))
        assert isinstance(felt, Pulse)
        assert felt is too
    await turns()
    taken = island.pulses
    await turns()
    assert island.pulses == taken
    assert island.events.ring.number == 0, "a pulse is no fact"


async def test_a_failing_pulse_goes_to_the_log_and_is_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = [OSError("no such group"), OSError("no such group")]

    async def sick() -> Pulse:
        if failures:
            raise failures.pop()
        return await Island().pulse()

    async with aclosing(Watch(Events(), sick, pause_s=0, pulse_s=0).follow()) as news:
        assert isinstance(await anext(news), Pulse)
    assert caplog.text.count("the island has no pulse") == 2


async def test_closing_ends_all_who_follow() -> None:
    island = Island()
    async with island.followed() as first, island.followed() as second:
        waiting = [asyncio.ensure_future(anext(news, None)) for news in (first, second)]
        await turns()
        island.watch.close()
        assert await asyncio.gather(*waiting) == [None, None]
    async with island.followed(0) as late:
        island.say(1)
        assert [page async for page in late] == []
