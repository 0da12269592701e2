"""What programs import: calls of functions over the wire, their values and errors, and what is sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
from msgspec import structs

from skyisland.client import AsyncIsland, CallFailed, Function, Island, Unreachable
from skyisland.client.asking import Ask as Asked
from skyisland.client.asking import InputFailed, Pause, Reply, pause_s, result, talk
from skyisland.codec import encode
from skyisland.drivers.fake import Script
from skyisland.errors import BadRequest, NameNotFound, TooBusy
from skyisland.events import InvocationStarted
from skyisland.later.calls import CallState, Record
from skyisland.named.definition import Definition
from tests.support.api import CALL, HEADER, TOKEN, Server, World, answers

T = TypeVar("T")
ENCODE = Function(CALL["url"], "Encode", version="v1.0.0")


@dataclass
class Point:
    lat: float
    lng: float


class Flaky(httpx.HTTPTransport):
    """Loses some answers, after their requests came through, or refuses before they do."""

    def __init__(self, *troubles: str) -> None:
        super().__init__()
        self.troubles = [*troubles]
        self.sent: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == "busy":
            problem = {"error": "no place", "code": "too_busy"}
            return httpx.Response(429, json=problem, headers={"Retry-After": "0"})
        response = super().handle_request(request)
        if trouble == "lost":
            response.read()
            raise httpx.ReadError("the line broke")
        return response


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    async with world.served() as server:
        yield server


async def on_thread(server: Server, ask: Callable[[Island], T], **options: Any) -> T:
    """What a program gets that waits."""

    def run() -> T:
        with Island(server.url, token=TOKEN, header=HEADER, **options) as island:
            return ask(island)

    return await asyncio.to_thread(run)


async def test_a_call_gives_its_results_as_values(server: Server, world: World) -> None:
    answers(world, b"", {"results": ["jcc92ytsf8kn"]})
    way = Flaky()
    assert await on_thread(server, lambda it: it.call(ENCODE, 100.1, 80.9), transport=way) == "jcc92ytsf8kn"
    sent = json.loads(way.sent[0].content)
    assert sent == {**CALL, "call": "Encode", "version": "v1.0.0", "args": [100.1, 80.9]}
    assert await on_thread(server, lambda it: it.call(ENCODE, lat=1.0, lng=2, as_type=str))
    with pytest.raises(TypeError, match="Expected `int`"):
        await on_thread(server, lambda it: it.call(ENCODE, 1, 2, as_type=int))
    with pytest.raises(TypeError, match="not both"):
        await on_thread(server, lambda it: it.call(ENCODE, 1, lng=2))
    answers(world, b"", {"results": [{"lat": 1.5, "lng": 2}]})
    assert await on_thread(server, lambda it: it.call(ENCODE, as_type=Point)) == Point(1.5, 2)
    answers(world, b"", {"results": [1, "a"]})
    assert await on_thread(server, lambda it: it.call(ENCODE, as_type=tuple[int, str])) == (1, "a")
    answers(world, b"", {"results": []})
    assert await on_thread(server, lambda it: it.call(ENCODE)) is None


async def test_the_async_twin_says_the_same(server: Server, world: World) -> None:
    answers(world, b"", {"results": [7]})
    await world.island.named.define("seven", Definition(url=CALL["url"], function="Seven"))
    async with AsyncIsland(server.url, token=TOKEN, header=HEADER) as island:
        assert await asyncio.gather(*(island.call("seven", as_type=int) for _ in range(3))) == [7, 7, 7]
        assert [one.name for one in await island.names()] == ["seven"]
        call_id = await island.submit("seven")
        assert await island.result(call_id, as_type=int) == 7
        assert (await island.record(call_id)).name == "seven"
        assert (await island.called("seven", behind=True)).answer.results == [7]
        with pytest.raises(NameNotFound):
            await island.call("eight")
        assert "seven" not in repr(island)


async def test_errors_have_the_codes_of_the_api(server: Server, world: World) -> None:
    answers(world, b"", {"results": [], "error": {"message": "no such place", "type": "*errors.errorString"}})
    with pytest.raises(CallFailed, match="no such place") as failed:
        await on_thread(server, lambda it: it.call(ENCODE))
    assert failed.value.error is not None
    assert (failed.value.code, failed.value.error.type) == ("failed", "*errors.errorString")
    world.driver.script = lambda data: Script(exit_code=3, stderr=b"oh")
    with pytest.raises(CallFailed) as failed:
        await on_thread(server, lambda it: it.call(ENCODE))
    assert (failed.value.code, failed.value.answer.stderr) == ("exited", "oh")
    with pytest.raises(BadRequest):
        await on_thread(server, lambda it: it.call(Function("x" * 3000, "F")))
    with pytest.raises(Unreachable, match="no answer from http://127"):
        await on_thread(Server(port=1, stop=server.stop, task=server.task), lambda it: it.names(), retries=0)


async def test_what_was_refused_is_sent_again_and_what_got_lost_only_with_a_key(
    server: Server, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyisland.client.asking.FIRST_PAUSE_S", 0.001)
    answers(world, b"", {"results": [7]})
    begun: list[object] = []
    world.events.tap(begun.append, InvocationStarted)
    way = Flaky("busy", "busy")
    assert await on_thread(server, lambda it: it.call(ENCODE), transport=way) == 7
    assert len(way.sent) == 3
    assert len(begun) == 1
    way = Flaky("lost")
    with pytest.raises(Unreachable, match="the line broke"):
        await on_thread(server, lambda it: it.call(ENCODE), transport=way)
    assert (len(way.sent), len(begun)) == (1, 2)
    way = Flaky("lost", "lost")
    assert await on_thread(server, lambda it: it.call(ENCODE, once=True), transport=way) == 7
    assert len({request.headers["Idempotency-Key"] for request in way.sent}) == 1
    assert (len(way.sent), len(begun)) == (3, 3)
    way = Flaky("lost")
    assert await on_thread(server, lambda it: it.result(it.submit(ENCODE)), transport=way) == 7
    assert len(begun) == 4
    with pytest.raises(TooBusy):
        await on_thread(server, lambda it: it.call(ENCODE), transport=Flaky("busy"), retries=0)


async def test_a_submitted_call_is_waited_for_as_long_as_one_likes(server: Server, world: World) -> None:
    world.driver.script = lambda data: Script(duration_s=float("inf"))
    call_id = await on_thread(server, lambda it: it.submit(ENCODE, 1, 2, key="mine"))
    assert call_id == await on_thread(server, lambda it: it.submit(ENCODE, 1, 2, key="mine"))
    with pytest.raises(TimeoutError, match=call_id):
        await on_thread(server, lambda it: it.result(call_id, wait_s=0))
    waiting = asyncio.ensure_future(on_thread(server, lambda it: it.result(call_id)))
    await world.island.later.cancel(call_id)
    with pytest.raises(Exception, match="was cancelled"):
        await waiting


def test_an_island_that_answers_too_early_is_asked_again() -> None:
    runs = Record(id="call-1", state=CallState.running, client="ann", url="u", call="F", created_at=0.0)
    over = structs.replace(runs, state=CallState.done)
    waiting = result("call-1", wait_s=50, retries=0)
    assert next(waiting).headers == {"Prefer": "wait=49"}  # type: ignore[union-attr] # an `Ask`
    assert isinstance(waiting.send(Reply(200, encode(runs))), Pause)
    assert isinstance(next(waiting), Asked)
    with pytest.raises(StopIteration) as end:
        waiting.send(Reply(200, encode(over)))
    assert end.value.value == over


async def test_map_gives_the_values_of_many_inputs_in_their_order(server: Server, world: World) -> None:
    def play(data: bytes) -> Script:
        frame = json.loads(data[4 : 4 + int.from_bytes(data[:4], "big")])
        mark, said = frame["nonce"].encode(), b""
        for record in (
            {"results": [1]},
            {"results": [], "error": {"message": "no", "type": "e"}},
            {"results": [3]},
        ):
            told = json.dumps(record).encode()
            said += b"%b%08x%08x%b" % (mark, 0, len(told), told)
        return Script(stdout=said)

    world.driver.script = play

    def values(island: Island) -> list[Any]:
        return list(island.map(ENCODE, [[1, 2], {"lat": 1, "lng": 2}, "one"], failures=True))

    one, failed, three = await on_thread(server, values)
    assert (one, three) == (1, 3)
    assert isinstance(failed, InputFailed)
    async with AsyncIsland(server.url, token=TOKEN, header=HEADER) as island:
        values_of = aiter(island.map(ENCODE, [1, 2, 3], as_type=int))
        assert await anext(values_of) == 1
        with pytest.raises(InputFailed, match="returned an error: no"):
            await anext(values_of)


def test_pauses_follow_the_island_and_grow() -> None:
    assert 7.0 <= pause_s(0, "7") <= 9.2
    assert pause_s(0, "nonsense") < pause_s(4, "") <= pause_s(99, "") <= 30.0
    steps = talk(Asked("GET", "/"), retries=1, safe=True)
    assert next(steps) == Asked("GET", "/")
    assert isinstance(steps.send(Reply(503, b"", "1")), Pause)
    assert next(steps) == Asked("GET", "/")
    with pytest.raises(StopIteration) as end:
        steps.send(Reply(503, b"", "1"))
    assert end.value.value.status == 503
