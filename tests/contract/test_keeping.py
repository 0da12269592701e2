"""One suite for every driver that keeps calls that answer later; then what only a file can do. What only
servers can do is in test_keeping_together.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from skyisland.errors import TooBusy
from skyisland.fleet.store import NatsStore
from skyisland.later.calls import Callback, CallbackState, CallState, Claim, Order, Record
from skyisland.later.journal import Journal, Statement
from skyisland.later.keeping import NotKept, Standing, Store, Wanted
from skyisland.later.lines import Room
from skyisland.later.memory import MemoryStore
from skyisland.later.sqlite import INLINE_BYTES, SqliteStore
from skyisland.wire import Problem
from tests.support.fleets import NatsServer, joined

ROOM = Room(orders=6, orders_per_client=4, size_bytes=1000, size_bytes_per_client=600)
Open = Callable[[], Awaitable[SqliteStore]]


@pytest.fixture
def reopen(tmp_path: Path) -> Open:
    async def reopen() -> SqliteStore:
        return await SqliteStore.open(
            tmp_path / "calls.db",
            tmp_path / "results",
            ROOM,
            keep_s=100,
            keep_dead_s=200,
            limit_bytes=1 << 20,
        )

    return reopen


@pytest.fixture(params=["memory", "sqlite", "nats"])
async def store(request: pytest.FixtureRequest, reopen: Open) -> AsyncIterator[Store]:
    if request.param == "nats":
        server: NatsServer = request.getfixturevalue("nats_server")
        async with joined(server, request.getfixturevalue("fleet_name")) as (line, subjects):
            room = msgspec.structs.replace(ROOM, size_bytes=100_000)
            shared = NatsStore(line, subjects, room, keep_s=100, keep_dead_s=200, limit_bytes=1 << 20)
            await shared.open()
            yield shared
            await shared.close()
        return
    if request.param == "memory":
        opened: Store = MemoryStore(ROOM, keep_s=100, keep_dead_s=200, limit_bytes=1 << 20)
    else:
        opened = await reopen()
    yield opened
    await opened.close()


def order(id: str, client: str = "ann", size: int = 10) -> Order:  # noqa: A002
    return Order(id=id, client=client, request=msgspec.Raw(b'"%b"' % (b"x" * (size - 2))))


def record(id: str, state: CallState = CallState.queued, **fields: object) -> Record:  # noqa: A002
    given = {"client": "ann", "url": "github.com/u/r", "call": "F()", "created_at": 1000.0} | fields
    return Record(id=id, state=state, **given)  # type: ignore[arg-type]


async def taken(store: Store, now: float = 10.0, full: tuple[str, ...] = ()) -> str:
    one = await store.orders.take(now, full)
    return "" if one is None else one.id


async def test_what_waits_for_later_can_be_hurried_and_nothing_else(store: Store) -> None:
    queue, now = store.orders, time.time()
    for id in ("taken", "late", "ready"):  # noqa: A001
        await queue.put(order(id), due_at=now + 1000 if id == "late" else 0.0)
    assert await taken(store, now) == "taken"
    for id in ("taken", "late", "late", "ready", "none"):  # noqa: A001
        queue.hurry(id)
    if not isinstance(store, NatsStore):  # whose servers hand it out at its time
        assert [await taken(store, now + 60) for _ in range(3)] == ["ready", "late", ""]


async def test_how_the_calls_stand(store: Store) -> None:
    results = store.results
    assert await results.standing() == Standing(oldest_at=None, dead=0)
    for number, state in enumerate(("done", "queued", "dead", "queued", "running", "dead", "cancelled")):
        ended = {"ended_at": 2000.0} if CallState(state).final else {}
        await results.note(record(f"c{number}", CallState(state), created_at=1000.0 + number, **ended))
    assert await results.standing() == Standing(oldest_at=1001.0, dead=2)
    await results.note(record("c1", CallState.running, created_at=1001.0))
    assert await results.standing() == Standing(oldest_at=1003.0, dead=2)


async def test_clients_take_turns_and_each_comes_in_its_order(store: Store) -> None:
    for id in ("a1", "a2", "a3"):  # noqa: A001
        await store.orders.put(order(id))
    await store.orders.put(order("b1", "bob"))
    assert store.orders.waiting == 4
    first = [await taken(store) for _ in range(2)]
    assert sorted(first) == ["a1", "b1"]
    assert [await taken(store) for _ in range(3)] == ["a2", "a3", ""]
    assert (store.orders.waiting, store.orders.due_at()) == (0, None)


async def test_an_order_comes_when_it_is_due_and_until_it_is_done(store: Store) -> None:
    await store.orders.put(order("late"), due_at=20.0)
    assert await taken(store, now=19.0) == ""
    assert store.orders.due_at() == 20.0
    assert await taken(store, now=20.0) == "late"
    assert await taken(store, now=99.0) == ""
    await store.orders.put_back("late", 30.0)
    assert await taken(store, now=29.0) == ""
    assert await taken(store, now=30.0) == "late"
    await store.orders.done("late")
    await store.orders.done("late")
    await store.orders.put_back("late", 0.0)
    assert (await taken(store, now=99.0), store.orders.due_at()) == ("", None)


async def test_who_is_full_gets_none_and_the_content_comes_back(store: Store) -> None:
    await store.orders.put(order("a1"))
    await store.orders.put(order("b1", "bob", size=40))
    assert await taken(store, full=("ann", "bob")) == ""
    assert await store.orders.take(10.0, ("ann",)) == order("b1", "bob", size=40)


async def test_a_queue_and_each_share_of_it_have_bounds(store: Store) -> None:
    for number in range(4):
        await store.orders.put(order(f"a{number}"))
    with pytest.raises(TooBusy, match="4 of your calls wait"):
        await store.orders.put(order("a9"))
    await store.orders.put(order("a0"))  # it is there already
    await store.orders.put(order("b", "bob", size=590))
    if store.name != "nats":  # which counts its own bytes, too, and a client's orders alone
        with pytest.raises(TooBusy, match="take their share"):
            await store.orders.put(order("b2", "bob", size=20))
        with pytest.raises(TooBusy, match="take all the room"):
            await store.orders.put(order("c", "cy", size=500))
    await store.orders.put(order("c", "cy"))
    with pytest.raises(TooBusy, match="6 calls wait already"):
        await store.orders.put(order("d", "dan"))
    await store.orders.done("a1")
    await store.orders.put(order("d", "dan"))


async def test_a_buried_order_is_handed_out_when_it_is_revived(store: Store) -> None:
    await store.orders.put(order("a"))
    await store.orders.put(order("b"), due_at=500.0)
    assert await taken(store) == "a"
    await store.orders.bury("a")
    await store.orders.bury("b")
    assert (await taken(store, now=999.0), store.orders.due_at()) == ("", None)
    assert await store.orders.revive("b")
    assert not await store.orders.revive("b")
    assert await taken(store) == "b"
    await store.orders.done("a")
    assert not await store.orders.revive("a")


async def test_a_final_record_stays_as_it_is(store: Store) -> None:
    results = store.results
    assert await results.note(record("a"))
    assert await results.note(record("a", CallState.running))
    assert await results.note(record("a", CallState.done, verdict="ok", ended_at=5.0), b"[1]")
    assert not await results.note(record("a", CallState.dead), b"[2]")
    kept = await results.get("a")
    assert kept is not None
    assert (kept.state, kept.verdict, kept.result) == ("done", "ok", msgspec.Raw(b"[1]"))
    assert await results.note(record("a"), anew=True)
    kept = await results.get("a")
    assert kept == record("a")
    assert await results.get("other") is None


async def test_a_callback_is_noted_on_a_final_record(store: Store) -> None:
    waiting = Callback(url="https://example.org/")
    await store.results.note(record("a", CallState.done, callback=waiting), b"[]")
    await store.results.note_callback("a", Callback(url="https://example.org/", state=CallbackState.dead))
    kept = await store.results.get("a")
    assert kept is not None
    assert kept.callback is not None
    assert (kept.state, kept.callback.state, kept.result) == ("done", "dead", msgspec.Raw(b"[]"))


async def test_records_are_found_newest_first_without_results(store: Store) -> None:
    await store.results.note(record("a", created_at=1.0))
    await store.results.note(record("b", CallState.dead, created_at=2.0, client="bob", name="n"), b"[]")
    await store.results.note(record("c", CallState.done, created_at=3.0), b"[]")

    async def ids(**wanted: object) -> list[str]:
        return [one.id for one in await store.results.find(Wanted(**wanted))]  # type: ignore[arg-type]

    assert await ids() == ["c", "b", "a"]
    assert await ids(limit=1) == ["c"]
    assert await ids(client="ann") == ["c", "a"]
    assert await ids(state=CallState.dead) == await ids(name="n") == ["b"]
    assert await ids(since=2.0, client="ann") == ["c"]
    assert (await store.results.find(Wanted(limit=1)))[0].result is msgspec.UNSET


async def test_what_is_old_goes_and_the_oldest_when_results_take_too_much(store: Store) -> None:
    results = store.results
    await results.note(record("waits", created_at=1.0))
    await results.note(record("old", CallState.done, ended_at=1.0), b"[]")
    await results.note(record("dead", CallState.dead, ended_at=1.0), b"[]")
    await results.note(record("young", CallState.done, ended_at=90.0), b"[]")
    assert await results.expire(now=150.0) == ["old"]
    assert await results.expire(now=180.0) == []
    assert sorted(await results.expire(now=250.0)) == ["dead", "young"]
    for number in range(12):
        await results.note(record(f"l{number}", CallState.done, ended_at=300.0 + number), b"x" * (100 << 10))
    await results.expire(now=320.0)
    left = {one.id for one in await results.find(Wanted())} - {"waits"}
    assert 5 < len(left) <= 10
    assert left == {f"l{number}" for number in range(12 - len(left), 12)}, "the oldest go first"
    kept = await results.get("l11")
    assert kept is not None
    assert kept.result == msgspec.Raw(b"x" * (100 << 10))
    await results.delete(["l11", "l11", "none"])
    assert await results.get("l11") is None
    assert await results.get("waits") is not None


async def test_a_key_stands_for_what_it_was_first_used_for(store: Store) -> None:
    results = store.results
    first = Claim(client="ann", key="k", body=b"1")
    assert await results.claim(first, 0.0) is first
    again = await results.claim(Claim(client="ann", key="k", body=b"2"), 1.0)
    assert (again.body, again.reply) == (b"1", None)
    other = Claim(client="bob", key="k", body=b"2", call="call-1")
    assert await results.claim(other, 1.0) is other
    assert (await results.claim(Claim(client="bob", key="k", body=b"2"), 2.0)).call == "call-1"
    await results.answered(first, b"reply")
    assert (await results.claim(Claim(client="ann", key="k", body=b"1"), 2.0)).reply == b"reply"
    await results.release(other)
    mine = Claim(client="bob", key="k", body=b"3")
    assert await results.claim(mine, 3.0) is mine
    await results.release(mine)
    assert await results.claim(other, 3.0) is other


async def test_a_process_that_is_killed_finds_all_it_accepted(reopen: Open) -> None:
    store = await reopen()
    for id in ("a", "b", "c", "d"):  # noqa: A001
        await asyncio.gather(store.orders.put(order(id)), store.results.note(record(id)))
    assert [await taken(store) for _ in range(3)] == ["a", "b", "c"]
    await store.results.note(record("b", CallState.done, ended_at=1.0), b"x" * (INLINE_BYTES + 1))
    await store.orders.done("b")
    await store.orders.bury("d")
    await store.results.claim(Claim(client="ann", key="k", body=b"1"), 0.0)
    secret = store.results.secret
    (Path(store._journal.path).parent / "results" / ".half").write_bytes(b"half")
    # Nothing is closed.
    again = await reopen()
    assert again.results.secret == secret
    assert [await taken(again) for _ in range(3)] == ["a", "c", ""]
    assert await again.orders.revive("d")
    kept = await again.results.get("b")
    assert kept is not None
    assert kept.result == msgspec.Raw(b"x" * (INLINE_BYTES + 1))
    assert [file.name for file in (Path(store._journal.path).parent / "results").iterdir()] == ["b"]
    mine = Claim(client="ann", key="k", body=b"2")
    assert await again.results.claim(mine, 0.0) is mine, "the call of the other life never ended"
    await store.close()
    await again.close()


async def test_whatever_is_kept_of_calls_that_are_over_has_bounds(reopen: Open) -> None:
    store = await reopen()
    for number in range(20):  # of each 100 KiB: records with long errors, and replies
        long = Problem("m" * (100 << 10), "internal")
        await store.results.note(record(f"d{number}", CallState.dead, ended_at=float(number), error=long))
    assert await store.results.get("d0") is None
    kept = await store.results.get("d19")
    assert kept is not None
    assert (kept.error, kept.result) == (long, msgspec.UNSET)
    for number in range(30):
        await store.results.answered(Claim(client="ann", key=f"k{number}", body=b""), b"x" * (100 << 10))
    ((size,),) = await store._journal.rows("SELECT sum(length(reply)) FROM claims")
    assert size <= 1 << 20
    for number in range(30):  # more than the queue's room in all
        await store.orders.put(order(f"o{number}", size=100))
        await store.orders.bury(f"o{number}")
    assert not await store.orders.revive("o0")
    assert await store.orders.revive("o29")
    await store.close()


async def test_many_who_come_at_one_time_share_transactions(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await reopen()
    commits: list[int] = []
    commit = store._journal._commit

    def counted(batch: list[Sequence[Statement]]) -> list[list[int] | Exception]:
        commits.append(len(batch))
        return commit(batch)

    monkeypatch.setattr(store._journal, "_commit", counted)
    await asyncio.gather(*(store.results.note(record(f"r{number}")) for number in range(100)))
    assert sum(commits) == 100
    assert len(commits) <= 3
    assert len(await store.results.find(Wanted(limit=1000))) == 100
    await store.close()


async def test_what_cannot_be_written_fails_alone_and_the_next_ones_are_written(tmp_path: Path) -> None:
    journal = await asyncio.to_thread(Journal, tmp_path / "j.db")
    set_secret = "INSERT INTO secrets VALUES (?, ?)"
    failed, written = await asyncio.gather(
        journal.write((set_secret, ("a", 1 << 80))),
        journal.write((set_secret, ("b", b"1"))),
        return_exceptions=True,
    )
    assert (type(failed), written) == (OverflowError, [1])
    assert await journal.write((set_secret, ("c", b"1"))) == [1]
    await journal.close()


async def test_a_full_disk_refuses_what_comes_and_keeps_what_was_accepted(reopen: Open) -> None:
    store = await reopen()
    await store.orders.put(order("a"))
    await store.results.note(record("a"))
    ((pages,),) = await store._journal.rows("PRAGMA page_count")
    # SQLite's own word for a full disk.
    await asyncio.to_thread(store._journal._writer.execute, f"PRAGMA max_page_count = {pages + 1}")
    large = record("big", message="x" * 20_000)
    small = record("small")
    refused, fitted = await asyncio.gather(
        store.results.note(large), store.results.note(small), return_exceptions=True
    )
    assert isinstance(refused, NotKept)
    assert "full" in refused.message
    assert fitted is True, "one that has room does not fail with the other"
    with pytest.raises(NotKept):
        await store.orders.put(Order(id="b", client="ann", request=msgspec.Raw(b"1"), caller_id="x" * 20_000))
    assert store.orders.waiting == 1
    await asyncio.to_thread(store._journal._writer.execute, "PRAGMA max_page_count = 100000")
    await store.results.note(large)
    assert await taken(store) == "a"
    await store.close()


async def test_a_damaged_file_is_left_as_it_is_and_said_to_be_damaged(reopen: Open, tmp_path: Path) -> None:
    store = await reopen()
    await asyncio.gather(
        *(store.results.note(record(f"r{number}", message="m" * 900)) for number in range(50))
    )
    await store.close()
    path = tmp_path / "calls.db"
    content = bytearray(path.read_bytes())
    content[8192:40960] = b"\xff" * (40960 - 8192)
    path.write_bytes(content)
    with pytest.raises(NotKept, match=r"calls\.db"):
        await reopen()
    assert path.read_bytes() == content
