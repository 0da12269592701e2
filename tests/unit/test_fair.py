"""Places shared by clients: what a greedy one leaves to a modest one, in turns."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import TooBusy
from skyisland.host.fair import FairQueue

FOREVER_S = 3600.0


def queue(places: int, *, each: int = 0, length: int = 1000, timeout_s: float = FOREVER_S) -> FairQueue:
    return FairQueue("a place", places, places_per_client=each, max_waiting=length, timeout_s=timeout_s)


class Room:
    """Clients who wait at a queue; `served` has the order in which they got a place."""

    def __init__(self, places: FairQueue) -> None:
        self.places = places
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *clients: str) -> list[asyncio.Task[None]]:
        """Each takes a place or waits for one, in this order, and keeps it."""
        before = len(self.tasks)
        for client in clients:
            self.tasks.append(asyncio.create_task(self._come(client)))
            await turn()
        return self.tasks[before:]

    async def _come(self, client: str) -> None:
        if not self.places.take(client):
            await self.places.wait(client)
        self.served.append(client)

    async def leave(self, *clients: str) -> list[str]:
        """These give back a place each; returns who got one thereby."""
        before = len(self.served)
        for client in clients:
            self.places.leave(client)
        await turn()
        return self.served[before:]

    async def go_home(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_free_place_is_taken_without_a_loop() -> None:
    places = queue(2)
    assert places.take("a")
    assert places.take("b")
    assert not places.take("c")
    places.leave("a")
    assert places.take("c")


@pytest.mark.parametrize(
    ("places", "each", "most"), [(1, 0, 1), (2, 0, 1), (64, 0, 32), (4, 3, 3), (4, 9, 4)]
)
def test_one_client_leaves_half_to_others_unless_told_otherwise(places: int, each: int, most: int) -> None:
    room = queue(places, each=each)
    assert sum(room.take("greedy") for _ in range(2 * places)) == most
    assert sum(room.take("modest") for _ in range(places)) == min(most, places - most)


async def test_who_waits_waits_one_turn_of_each_other_client() -> None:
    room = Room(queue(1))
    await room.come("greedy", *["greedy"] * 50, *["other"] * 50, "modest")
    assert await room.leave("greedy") == ["greedy"]
    assert await room.leave("greedy") == ["other"]
    assert await room.leave("other") == ["modest"]
    assert await room.leave("modest") == ["greedy"]
    await room.go_home()


async def test_lines_are_first_come_first_served() -> None:
    places = queue(1)
    assert places.take("a")
    order: list[int] = []

    async def come(number: int) -> None:
        await places.wait("a")
        order.append(number)
        places.leave("a")

    tasks = [asyncio.create_task(come(number)) for number in range(5)]
    await turn()
    places.leave("a")
    await asyncio.gather(*tasks)
    assert order == list(range(5))


async def test_whoever_has_its_fill_is_passed_over() -> None:
    room = Room(queue(4, each=2))
    await room.come(*["greedy"] * 5, "a", "b", "modest")
    assert room.served == ["greedy", "greedy", "a", "b"]
    assert await room.leave("a") == ["modest"]
    assert await room.leave("b") == []  # free, and for others
    assert await room.leave("greedy") == ["greedy"]
    await room.go_home()
    assert room.places.waiting == 0


async def test_a_full_queue_refuses_the_longest_line() -> None:
    room = Room(queue(1, length=3))
    greedy = (await room.come("greedy", *["greedy"] * 4))[1:]
    with pytest.raises(TooBusy, match=r"^the queue for a place is full; try again later$") as refused:
        await greedy[-1]
    assert refused.value.retry_after_s == 1
    await room.come("modest")
    with pytest.raises(TooBusy):
        await greedy[-2]
    other, another = await room.come("other", "another")
    with pytest.raises(TooBusy):
        await another  # all lines have one
    assert [task.done() for task in (*greedy, other)] == [False, True, True, True, False]
    assert await room.leave("greedy") == ["greedy"]
    await room.go_home()


async def test_no_queue_at_all() -> None:
    places = queue(1, length=0)
    assert places.take("a")
    with pytest.raises(TooBusy):
        await places.wait("b")


async def test_waiting_has_an_end() -> None:
    places = queue(1, timeout_s=0.01)
    assert places.take("a")
    with pytest.raises(TooBusy, match=r"^a place did not become free within 0\.01 s; try again later$"):
        await places.wait("b")
    assert places.waiting == 0
    places.leave("a")
    assert places.take("b")


async def test_who_is_cancelled_with_its_place_in_hand_gives_it_back() -> None:
    room = Room(queue(1))
    _, waiter = await room.come("a", "b")
    room.places.leave("a")
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert room.places.take("c")


@pytest.mark.parametrize("length", [1, 1000])
async def test_who_is_cancelled_as_its_turn_comes_is_passed_over(length: int) -> None:
    room = Room(queue(1, length=length))
    _, waiter = await room.come("a", "b")
    waiter.cancel()
    assert room.places.waiting == 1
    assert await room.leave("a") == []
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert room.places.waiting == 0
    assert room.places.take("c")


async def test_who_is_cancelled_as_it_is_displaced_is_no_matter() -> None:
    room = Room(queue(1, length=2))
    *_, last = await room.come("a", "a", "a")
    newcomer = asyncio.create_task(room.places.wait("b"))
    last.cancel()
    await turn()
    assert last.cancelled()
    room.places.leave("a")
    room.places.leave("a")
    await newcomer
    await room.go_home()


async def test_shared_work_takes_the_first_turn_of_any_who_want_it() -> None:
    room = Room(queue(1))
    await room.come("greedy", *["greedy"] * 9)
    claim = room.places.claim("greedy")

    async def work() -> None:
        async with claim:
            room.served.append("shared")

    shared = asyncio.create_task(work())
    await turn()
    claim.share("modest")
    claim.share("modest")
    claim.share("greedy")
    assert room.places.waiting == 11
    assert await room.leave("greedy") == ["greedy"]
    assert room.places.waiting == 10
    assert await room.leave("greedy") == ["shared", "greedy"]
    await shared
    claim.share("late")
    assert room.places.waiting == 7
    await room.go_home()


async def test_shared_work_is_not_refused_while_somebody_may_wait_for_it() -> None:
    room = Room(queue(1, length=3))
    await room.come("greedy", "greedy")
    claim = room.places.claim("greedy")
    shared = asyncio.create_task(claim.stand())
    await turn()
    claim.share("modest")
    await room.come("other")  # displaces the greedy's last, which is the shared one
    assert claim.lines == ["modest"]
    await room.leave("greedy")
    await room.leave("greedy")
    assert await shared == "modest"
    await room.go_home()


async def test_shared_before_it_stands() -> None:
    places = queue(2, each=1)
    assert places.take("greedy")
    claim = places.claim("greedy")
    claim.share("modest")
    async with claim:
        assert places.waiting == 0
        assert not places.take("modest")
    assert places.take("modest")


@given(
    places=st.integers(1, 4),
    each=st.integers(0, 4),
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["come", "leave", "cancel"])), max_size=60
    ),
)
def test_whatever_happens_places_are_neither_lost_nor_made(
    places: int, each: int, steps: list[tuple[str, str]]
) -> None:
    async def play() -> None:
        room = Room(queue(places, each=each, length=5))
        holders: Counter[str] = Counter()
        for client, deed in steps:
            if deed == "come":
                await room.come(client)
            elif deed == "leave" and holders[client]:
                await room.leave(client)
                holders[client] -= 1
            elif deed == "cancel":
                for task in room.tasks:
                    if not task.done():
                        task.cancel()
                        break
                await turn()
            holders.update(room.served)
            room.served.clear()
            assert holders.total() <= places
            assert all(number <= room.places.places_per_client for number in holders.values())
            if room.places.waiting and holders.total() < places:
                standing = {one for one, line in room.places._lines.items() if line}
                assert all(holders[one] == room.places.places_per_client for one in standing)
        await room.go_home()
        for client, number in holders.items():
            for _ in range(number):
                room.places.leave(client)
        assert room.places.waiting == 0
        assert sum(room.places.take(f"{n}") for n in range(places + 1)) == places

    asyncio.run(play())


async def test_who_stands_back_goes_when_nobody_waits_and_some_places_are_free() -> None:
    places = queue(4, each=4)
    room = Room(places)
    await room.come("a", "a", "b", "b", "c")
    behind = asyncio.create_task(places.stand_back(1))
    await turn()
    await room.leave("a")  # c has it
    await room.leave("a")
    assert not behind.done(), "one place is free, and it is left to others"
    await room.leave("b")
    await behind
    gone = asyncio.create_task(places.stand_back(4))
    await turn()
    gone.cancel()
    await room.leave("b", "c")
    await places.stand_back(3)
    assert gone.cancelled()


async def test_who_stands_back_goes_when_the_last_who_waits_gives_up() -> None:
    places = queue(4, each=2)
    room = Room(places)
    *_, third = await room.come("a", "a", "a")
    behind = asyncio.create_task(places.stand_back(1))
    await turn()
    assert not behind.done(), "a waits, although two places are free"
    third.cancel()
    await turn()
    assert behind.done()
