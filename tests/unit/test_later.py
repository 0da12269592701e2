"""Calls that answer later: run, tried again, cancelled, run again; whatever fails on the way."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.later import Preferences, preferences
from skyisland.errors import (
    BadCall,
    BadRequest,
    CallNotFound,
    CallStands,
    Draining,
    IslandError,
    Paused,
    SourceUnavailable,
    TooBusy,
)
from skyisland.later import callbacks
from skyisland.later.callbacks import signed
from skyisland.later.calls import CallState, Claim, Order, Record
from skyisland.later.keeping import NotKept, Store, Wanted
from skyisland.later.later import Later
from skyisland.later.memory import MemoryStore
from skyisland.later.pauses import pause
from skyisland.model import FunctionRequest, GoError, Invocation, Outcome, Timings, Verdict
from skyisland.settings import Async
from skyisland.status import Backlog

REQUEST = FunctionRequest(url="github.com/u/r", call="F(1)")
QUICK = Async(backoff=0.001, longest_backoff=0.002)


def invocation(verdict: Verdict = Verdict.ok, **outcome: object) -> Invocation:
    return Invocation(
        id="inv-1",
        request=REQUEST,
        outcome=Outcome(verdict=verdict, **outcome),  # type: ignore[arg-type]
        timings=Timings(),
        started_at=1.0,
        jail="sky-t-1",
        commit="c" * 40,
        cached=True,
        stale=False,
    )


class Runner:
    """Runs an order as `plays` says, one entry an attempt, the last one from then on."""

    def __init__(self) -> None:
        self.plays: list[Invocation | BaseException] = [invocation()]
        self.ran: list[str] = []
        self.most = self.now = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.begins: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, order: Order, attempt: str) -> Invocation:
        self.ran.append(order.client)
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.set()
        self.begins.put_nowait(order.id)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        if isinstance(play, BaseException):
            raise play
        return play


@pytest.fixture
def runner() -> Runner:
    return Runner()


@asynccontextmanager
async def living(
    runner: Runner,
    store: Store | NotKept | None = None,
    settings: Async = QUICK,
    busy: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Later]:
    later = Later(store or MemoryStore(), runner, settings, places=8, busy=busy)
    later.start()
    yield later
    await later.close()


async def over(later: Later, call: str) -> Record:
    record = await later.settled(call, 20.0)
    assert record.state.final
    return record


async def test_a_call_is_kept_run_and_its_result_found(runner: Runner) -> None:
    async with living(runner) as later:
        accepted = await later.accept(REQUEST, "ann", caller_id="mine", name="n")
        assert (accepted.state, accepted.call, accepted.caller_id) == ("queued", "F(1)", "mine")
        record = await over(later, accepted.id)
        assert (record.state, record.verdict, len(record.attempts)) == ("done", "ok", 1)
        assert json.loads(bytes(record.result))["id"] == "inv-1"  # type: ignore[arg-type]
        assert [one.id for one in await later.find(Wanted(client="ann", name="n"))] == [record.id]
        with pytest.raises(CallNotFound, match="no longer kept"):
            await later.get(record.id, "bob")
        with pytest.raises(CallStands, match="is done"):
            await later.redrive(record.id)
        assert await later.forget(Wanted()) == [record.id]
        with pytest.raises(CallNotFound):
            await later.get(record.id)


async def test_what_ends_badly_is_tried_again_and_then_dead_until_it_is_run_again(runner: Runner) -> None:
    failed = invocation(Verdict.failed, error=GoError(message="no luck", type="*errors.errorString"))
    runner.plays = [SourceUnavailable("away"), failed, RuntimeError("ours"), invocation()]
    async with living(runner) as later:
        record = await over(later, (await later.accept(REQUEST, "ann")).id)
        assert (record.state, len(runner.ran)) == ("dead", 3)
        assert [one.verdict for one in record.attempts] == ["source_unavailable", "failed", "internal"]
        assert record.attempts[1].message == "the function returned an error: no luck"
        assert record.error is not None
        assert [one.id for one in await later.find(Wanted(state=CallState.dead))] == [record.id]
        backlog = await later.backlog()
        assert (backlog.dead, backlog.ended, backlog.waiting) == (1, {"dead": 1}, 0)
        again = await later.redrive(record.id)
        assert (again.attempts == [], again.error) == (True, None) or again.state.final
        record = await over(later, record.id)
        assert (record.state, len(record.attempts), record.error) == ("done", 1, None)
        backlog = await later.backlog()
        assert (backlog.dead, backlog.ended) == (0, {"dead": 1, "done": 1})


@pytest.mark.parametrize(
    ("play", "runs", "verdict"),
    [
        (BadCall("no such function"), 1, "bad_call"),
        (invocation(Verdict.killed), 1, "killed"),
        (invocation(Verdict.failed, error=GoError(message="m", type="t", retry_after_s=-1.0)), 1, "failed"),
        (invocation(Verdict.failed, error=GoError(message="m", type="t", retry_after_s=0.001)), 3, "failed"),
        (invocation(Verdict.timed_out), 3, "timed_out"),
    ],
)
async def test_what_no_further_attempt_mends_is_dead_at_once(
    runner: Runner, play: Invocation | Exception, runs: int, verdict: str
) -> None:
    runner.plays = [play]
    async with living(runner) as later:
        record = await over(later, (await later.accept(REQUEST, "ann")).id)
        assert (record.state, record.verdict, len(runner.ran)) == ("dead", verdict, runs)


@pytest.mark.parametrize("refusal", [TooBusy, Draining, Paused])
async def test_a_refusal_for_now_is_no_attempt(runner: Runner, refusal: type[IslandError]) -> None:
    runner.plays = [*[refusal("not now", retry_after_s=0.001) for _ in range(5)], invocation()]
    async with living(runner) as later:
        record = await over(later, (await later.accept(REQUEST, "ann")).id)
        assert (record.state, len(record.attempts), len(runner.ran)) == ("done", 1, 6)
        assert record.message == ""


async def test_a_call_that_waits_for_a_paused_name_says_so(runner: Runner) -> None:
    runner.plays = [Paused("n is paused", retry_after_s=60)]
    async with living(runner) as later:
        call = (await later.accept(REQUEST, "ann")).id
        async with later.news(call) as news:
            async with asyncio.timeout(20):
                while not runner.ran or (record := await later.get(call)).state != "queued":
                    await news.get()
        assert (record.attempts, record.message, later.waiting) == ([], "n is paused", 1)
        backlog = await later.backlog()
        assert (backlog.waiting, 0 < backlog.oldest_s < 20) == (1, True)
        assert 50 < (record.due_at or 0.0) - time.time() <= 60


async def test_a_call_that_waits_for_a_paused_name_begins_as_soon_as_that_is_resumed(runner: Runner) -> None:
    paused = Paused("n is paused", retry_after_s=3600)
    runner.plays = [paused, paused, invocation()]
    async with living(runner) as later:
        waits, other = [(await later.accept(REQUEST, "ann", name=name)).id for name in ("n", "m")]
        for call in (waits, other):
            async with later.news(call) as news, asyncio.timeout(20):
                while not (await later.get(call)).message:
                    await news.get()
        later.resumed("n")
        later.resumed("n")
        assert (await over(later, waits)).state == "done"
        assert ((await later.get(other)).message, later.waiting, len(runner.ran)) == ("n is paused", 1, 3)
        await later.cancel(other)
        later.resumed("m")
        assert (later.waiting, len(later._runner._held)) == (0, 0)


async def test_no_message_has_a_secret_of_the_name(runner: Runner) -> None:
    runner.plays = [BadCall("wants k3y-1", parameters=[{"is": "k3y-1"}], position=1)]
    later = Later(
        MemoryStore(), runner, QUICK, places=8, busy=lambda: False, secrets_of={"n": ("k3y-1",)}.__getitem__
    )
    later.start()
    record = await over(later, (await later.accept(REQUEST, "ann", name="n")).id)
    await later.close()
    assert (record.private, record.message) == (True, "wants [secret]")
    assert record.error is not None
    assert record.error.details == {"parameters": [{"is": "[secret]"}], "position": 1}
    assert "k3y" not in repr(record)


async def test_places_are_shared_and_calls_whose_callers_wait_come_first(runner: Runner) -> None:
    busy = True
    runner.gate.clear()
    async with living(runner, settings=Async(max_running=4), busy=lambda: busy) as later:
        ids = [(await later.accept(REQUEST, "ann")).id for _ in range(6)]
        ids += [(await later.accept(REQUEST, "bob")).id for _ in range(2)]
        await asyncio.sleep(0)
        assert (runner.ran, later.running, later.waiting) == ([], 0, 8)
        busy = False
        async with asyncio.timeout(20):
            for _ in range(4):
                await runner.begins.get()
        assert sorted(runner.ran) == ["ann", "ann", "bob", "bob"]
        runner.gate.set()
        for one in ids:
            await over(later, one)
        assert runner.most == 4


async def test_cancelling_ends_what_runs_and_what_waits(runner: Runner) -> None:
    runner.gate.clear()
    async with living(runner, settings=Async(max_running=1)) as later:
        first, second = [(await later.accept(REQUEST, "ann")).id for _ in range(2)]
        await runner.begun.wait()
        assert (await later.cancel(second)).state == "cancelled"
        with pytest.raises(CallNotFound):
            await later.cancel(first, "bob")
        record = await later.cancel(first)
        assert (record.state, record.attempts[0].verdict, runner.now) == ("cancelled", "cancelled", 0)
        assert (await later.cancel(first)).state == "cancelled"
        runner.gate.set()
        await later.redrive(second)
        assert (await over(later, second)).state == "done"


async def test_an_island_that_stops_puts_back_what_it_cut_off(runner: Runner) -> None:
    store = MemoryStore()
    runner.gate.clear()
    runner.plays = [invocation(Verdict.killed), invocation()]
    async with living(runner, store) as later:
        call = (await later.accept(REQUEST, "ann")).id
        await runner.begun.wait()
        later.pause()
        with pytest.raises(Draining):
            await later.accept(REQUEST, "ann")
        assert (await later.settled(call, 20.0)).state == "running"
        runner.gate.set()
        await asyncio.wait(later._runner.running.values(), timeout=20)
        assert (await later.get(call)).attempts == []
    async with living(runner, store) as later:
        assert (await over(later, call)).state == "done"


async def test_a_call_that_was_cut_off_each_time_is_dead(runner: Runner) -> None:
    store = MemoryStore()
    runner.gate.clear()
    for _ in range(3):
        async with living(runner, store) as later:
            runner.begun.clear()
            if not runner.ran:
                call = (await later.accept(REQUEST, "ann")).id
            await runner.begun.wait()
        await store.orders.put_back(call, 0.0)  # what a driver of files does for the next life
    async with living(runner, store) as later:
        record = await over(later, call)
        assert (record.state, record.verdict, len(record.attempts)) == ("dead", "interrupted", 3)
        assert len(runner.ran) == 3


async def test_a_result_waits_for_room_on_the_disk(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    refused: list[str] = []
    note = store.results.note

    async def full(record: Record, result: bytes | None = None, *, anew: bool = False) -> bool:
        if result is not None and len(refused) < 2:
            refused.append(record.id)
            raise NotKept("the disk is full")
        return await note(record, result, anew=anew)

    monkeypatch.setattr(store.results, "note", full)
    monkeypatch.setattr("skyisland.later.running.AGAIN_S", 0.001)
    async with living(runner, store) as later:
        record = await over(later, (await later.accept(REQUEST, "ann")).id)
        assert (record.state, len(record.attempts), len(refused)) == ("done", 1, 2)


async def test_what_cannot_be_kept_is_refused(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    async def full(order: Order, due_at: float = 0.0) -> None:
        raise NotKept("the disk is full")

    async with living(runner, store) as later:
        monkeypatch.setattr(store.orders, "put", full)
        with pytest.raises(NotKept, match="disk is full"):
            await later.accept(REQUEST, "ann")
        assert await later.find(Wanted()) == []
    async with living(runner, NotKept("damaged")) as later:
        with pytest.raises(NotKept, match="damaged"):
            await later.accept(REQUEST, "ann")
        with pytest.raises(CallNotFound):
            await later.get("call-1")
        assert await later.backlog() == Backlog()
        with pytest.raises(NotKept):
            await later.claim(Claim(client="ann", key="k", body=b""))
        assert await later.find(Wanted()) == []


@given(st.integers(1, 1000), st.floats(0.001, 10), st.floats(10, 1000))
def test_pauses_grow_and_have_bounds(failures: int, first_s: float, longest_s: float) -> None:
    whole_s = min(longest_s, first_s * 2 ** min(failures - 1, 30))
    assert whole_s / 2 <= pause(failures, first_s, longest_s) <= whole_s


@pytest.mark.parametrize(
    ("header", "understood"),
    [
        ("", Preferences()),
        ("respond-async", Preferences(True)),
        ("wait=5, respond-async", Preferences(True, 5.0)),
        ('Respond-Async; foo="bar", WAIT = "7"', Preferences(True, 7.0)),
        ("wait=99999", Preferences(False, 60.0)),
        ("wait=1, wait=9", Preferences(False, 1.0)),
        ("wait=-1, wait=x, return=minimal, ,;,=,respond-asyncs", Preferences()),
    ],
)
def test_the_header_prefer(header: str, understood: Preferences) -> None:
    assert preferences(header) == understood


@given(st.text(max_size=300))
def test_the_header_prefer_takes_everything(header: str) -> None:
    preferences(header)


# Callbacks


class Receiver:
    """Answers posts as `plays` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plays: list[int | Exception] = [204]
        self.got: list[tuple[str, bytes, dict[str, str], bool]] = []
        monkeypatch.setattr(callbacks, "post", self.post)
        monkeypatch.setattr(callbacks, "FIRST_PAUSE_S", 0.001)
        monkeypatch.setattr(callbacks, "LONGEST_PAUSE_S", 0.002)

    async def post(
        self, url: str, body: bytes, headers: dict[str, str], lookup: object, *, timeout_s: float
    ) -> tuple[int, float | None]:
        self.got.append((url, body, headers, lookup is not None))
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        if isinstance(play, Exception):
            raise play
        return play, 0.001


async def delivered(later: Later, call: str, state: str) -> Record:
    async with asyncio.timeout(20):
        while True:
            record = await later.get(call)
            assert record.callback is not None
            if record.callback.state == state:
                return record
            await asyncio.sleep(0.01)


async def test_a_callback_is_signed_and_sent_until_it_is_taken(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(monkeypatch)
    receiver.plays = [500, OSError("refused"), 302, 204]
    async with living(runner) as later:
        call = (await later.accept(REQUEST, "ann", callback="https://example.org/hook?a=1")).id
        record = await delivered(later, call, "delivered")
        assert record.callback is not None
        tries = [(one.status, one.error) for one in record.callback.deliveries]
        assert tries == [(500, "it answered 500"), (None, "refused"), (302, "it answered 302"), (204, "")]
        url, body, headers, guarded = receiver.got[-1]
        assert (url, guarded) == ("https://example.org/hook?a=1", True)
        assert msgspec.json.decode(body, type=Record).result == record.result
        assert headers["webhook-id"] == call
        # Standard Webhooks' own way to check it.
        key = base64.b64decode(later.callbacks.secret_of("ann").removeprefix("whsec_"))
        stamp = int(headers["webhook-timestamp"])
        assert abs(stamp - time.time()) < 60
        assert headers == signed(call, stamp, body, key)
        assert later.callbacks.secret_of("ann") != later.callbacks.secret_of("bob")
        assert later.callbacks.ended == {"delivered": 1}


async def test_a_callback_that_nobody_takes_is_dead_until_it_is_sent_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(monkeypatch)
    receiver.plays = [500]
    settings = Async(callback_attempts=3, callbacks=("http://10.0.0.7/hooks/",))
    async with living(runner, settings=settings) as later:
        call = (await later.accept(REQUEST, "ann", callback="http://10.0.0.7/hooks/a")).id
        record = await delivered(later, call, "dead")
        assert record.callback is not None
        assert len(record.callback.deliveries) == len(receiver.got) == 3
        assert not receiver.got[0][3], "the operator trusts where it leads"
        receiver.plays = [410]
        await later.redrive(call)
        record = await delivered(later, call, "dead")
        receiver.plays = [200]
        await later.redrive(call)
        record = await delivered(later, call, "delivered")
        with pytest.raises(CallStands):
            await later.redrive(call)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://10.0.0.7/hook",
        "http://10.0.0.7/hooks/../admin",
        "http://10.0.0.7/hooks/%2E%2e/admin",
        "http://10.0.0.7.example.org/hooks/",
        "https://user@example.org/",
        "https://example.org/#f",
        "https://[::1]/",
        "https://169.254.169.254/latest/",
        "https://10.0.0.7/hooks/",
        "https://127.0.0.1:8443/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://localhost/",
        "https://hook.localhost./",
        "https://example.org:99999/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://example.org/a b",
        "https://example.org/\r\nHost: x",
        "https://" + "a" * 3000,
        "x",
    ],
)
async def test_a_url_that_no_callback_goes_to_is_refused_when_it_is_named(runner: Runner, url: str) -> None:
    async with living(runner, settings=Async(callbacks=("http://10.0.0.7/hooks/",))) as later:
        with pytest.raises(BadRequest, match="X-Callback-Url"):
            await later.accept(REQUEST, "ann", callback=url)
        assert await later.find(Wanted()) == []


def test_a_signature_is_that_of_standard_webhooks() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key)
    # The vector that the libraries of Standard Webhooks are tested with.
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers everything with this: its port, and the requests that it got."""
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], got


async def test_a_callback_goes_nowhere_but_to_the_public_internet(runner: Runner) -> None:
    store, settings = MemoryStore(), Async(callback_attempts=1)
    async with (
        server(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, got),
        living(runner, store, settings) as later,
    ):

        async def private(host: str, port: int) -> list[str]:
            return ["127.0.0.1" if host == "inside.example" else "169.254.169.254"]

        later.callbacks._lookup = private  # what a stranger's name server says when it is asked again
        for host in ("inside.example", "metadata.example"):
            callback = f"https://{host}:{port}/"
            call = (await later.accept(REQUEST, "ann", callback=callback)).id
            record = await delivered(later, call, "dead")
            assert record.callback is not None
            told = record.callback.deliveries[0].error
            assert told == f"{host} leads to no address of the public Internet"
        assert got == []


async def test_a_callback_follows_no_redirect(runner: Runner) -> None:
    async with (
        server(b"HTTP/1.1 204 No Content\r\n\r\n") as (inside, reached),
        server(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:%d/\r\n\r\n" % inside) as (port, got),
    ):
        hook = f"http://127.0.0.1:{port}/hook"
        settings = Async(callbacks=(hook,), callback_attempts=1)
        async with living(runner, settings=settings) as later:
            call = (await later.accept(REQUEST, "ann", callback=hook)).id
            record = await delivered(later, call, "dead")
            assert record.callback is not None
            assert [one.status for one in record.callback.deliveries] == [307]
    assert got[0].startswith(b"POST /hook HTTP/1.1\r\n")
    assert b"webhook-signature: v1," in got[0]
    assert reached == []
