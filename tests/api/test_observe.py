"""What can be seen of an island, and the event stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from api.stream import Feed
from skyisland import fakes
from skyisland.drivers.fake import Script
from skyisland.errors import DriverError, TooBusy
from skyisland.events import (
    EVENT_BYTES,
    CloneCreated,
    Event,
    Events,
    InvocationFinished,
    InvocationStarted,
    IslandStarted,
    JailCreated,
    PhaseFinished,
    Pulse,
)
from skyisland.model import Phase, Timings
from skyisland.status import Usage
from skyisland.wire import Snapshot
from tests.support.api import ADMIN, CALL, World, make_world

STREAM = "/api/v1/admin/events"


@pytest.mark.parametrize("path", ["/healthcheck", "/api/v1/healthcheck"])
async def test_health(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert (await client.head(path)).status_code == 200
    assert (await client.options(path)).status_code == 200


async def test_capabilities(client: httpx.AsyncClient) -> None:
    capabilities = (await client.get("/api/v1/capabilities")).json()["capabilities"]
    assert {"confinement", "copy_on_write", "network"} <= {one["name"] for one in capabilities}
    assert all(one["enforced"] is False and one["how"] for one in capabilities)


async def test_api_stats(client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    await client.post("/api/v1/function", json=CALL)
    await client.get("/nowhere")
    stats = (await admin.get("/api/v1/admin/api-stats")).json()
    assert stats["total_status_code_count"] == {"200": 1, "404": 1}
    assert (stats["total_count"], stats["count"]) == (2, sum(stats["status_code_count"].values()))
    assert stats["total_response_time_sec"] > 0
    assert stats["average_response_time"].endswith(("s", "ms", "µs"))


async def test_prometheus(client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    await client.post("/api/v1/function", json=CALL)
    response = await admin.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'skyisland_invocations_total{cached="false",verdict="ok"} 1.0' in response.text
    assert 'skyisland_http_responses_total{status="200"} 1.0' in response.text
    assert f'skyisland_function_calls_total{{function="{CALL["url"]}.Encode"}} 1.0' in response.text
    assert 'skyisland_later_ended_total{state="dead"} 0.0' in response.text
    accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
    response = await admin.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {one.name for one in text_string_to_metric_families(response.text)}  # type: ignore[no-untyped-call]
    assert {"skyisland_invocations", "skyisland_phase_seconds", "skyisland_jails"} <= families


async def test_invocations(client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    ids = [(await client.post("/api/v1/function", json=CALL)).json()["id"] for _ in range(3)]
    await client.post("/api/v1/function", json=CALL | {"call": "x"})
    found = (await admin.get("/api/v1/admin/invocations")).json()["invocations"]
    assert [one["invocation"] for one in found[1:]] == ids[::-1]
    assert [one["verdict"] for one in found] == ["bad_call", "ok", "ok", "ok"]
    assert found[1]["timings"]["total_s"] > 0
    one = (await admin.get("/api/v1/admin/invocations?limit=1")).json()["invocations"]
    assert one == found[:1]


@pytest.mark.parametrize("limit", ["", "x", "-1", "1001", "9" * 5000, "1.5", "\u0663"])
async def test_bad_numbers(admin: httpx.AsyncClient, limit: str) -> None:
    response = await admin.get("/api/v1/admin/invocations", params={"limit": limit})
    assert response.status_code == 400
    assert response.json()["details"] == {"field": "limit"}


async def test_snapshot(world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    answer = (await client.post("/api/v1/function", json=CALL)).json()
    response = await admin.get("/api/v1/admin/snapshot")
    body = response.json()
    assert (body["island"], body["driver"], body["draining"]) == ("t", "fake", False)
    assert body["recent"][0]["invocation"] == answer["id"]
    assert body["last_event_id"] == world.app.feed.last_id
    assert set(Snapshot.__struct_fields__) == set(body)


async def test_logs(client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    answers = [(await client.post("/api/v1/function", json=CALL)).json() for _ in range(2)]
    lines = (await admin.get("/api/v1/admin/logs")).json()["logs"]
    assert lines[0]["text"].startswith("island started")
    mine = (await admin.get("/api/v1/admin/logs", params={"jail": answers[1]["jail"]})).json()["logs"]
    assert {line["invocation"] for line in mine} - {None} == {answers[1]["id"]}
    last = (await admin.get("/api/v1/admin/logs?limit=1")).json()["logs"]
    assert last == lines[-1:]
    after = await admin.get("/api/v1/admin/logs", params={"after": lines[-2]["seq"]})
    assert after.json()["logs"] == lines[-1:]


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/admin", "/api//v1/healthcheck"])
async def test_nothing_there(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(httpx.URL(f"http://island{path}"))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_wrong_method(admin: httpx.AsyncClient) -> None:
    response = await admin.post("/api/v1/admin/jails")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == {"DELETE", "GET", "HEAD", "OPTIONS"}


# The stream itself


class Sent(msgspec.Struct):
    """One server-sent event."""

    id: str
    event: str
    data: Any


def sent(text: bytes) -> list[Sent]:
    """The events in a piece of a stream, without comments."""
    found = []
    for block in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "data" in fields:
            found.append(Sent(fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


async def pulse() -> Pulse:
    return Pulse(running=3, queued=0, draining=False, usage={"sky-t-1": Usage(memory_bytes=4096)})


async def events_of(stream: AsyncIterator[bytes], count: int) -> list[Sent]:
    found: list[Sent] = []
    while len(found) < count:
        found += sent(await anext(stream))
    return found


@asynccontextmanager
async def reading(feed: Feed, last_id: str | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream that has begun."""
    async with aclosing(feed.open(last_id)) as stream:
        assert await anext(stream) == b"retry: 1000\n\n"
        yield stream


def say(events: Events, *numbers: int) -> None:
    for number in numbers:
        events.publish(IslandStarted(swept=number))


def swept(found: list[Sent]) -> list[int]:
    return [one.data["swept"] for one in found]


async def test_events_in_order_with_ids() -> None:
    events = Events()
    feed = Feed(events, pulse, pause_s=0)
    say(events, 0)
    async with reading(feed) as stream:
        say(events, 1, 2)
        found = await events_of(stream, 2)
        assert swept(found) == [1, 2]
        assert found[1].id == feed.last_id
        say(events, 3)
        assert swept(await events_of(stream, 1)) == [3]
    assert feed.open_streams == 0


async def test_resume() -> None:
    events = Events()
    feed = Feed(events, pulse, pause_s=0)
    before = feed.last_id
    say(events, 1)
    middle = feed.last_id
    say(events, 2, 3)
    async with reading(feed, middle) as stream:
        assert swept(await events_of(stream, 2)) == [2, 3]
    async with reading(feed, before) as stream:
        assert swept(await events_of(stream, 3)) == [1, 2, 3]


async def test_resume_past_the_ring_tells_a_gap() -> None:
    events = Events(ring_bytes=2 * EVENT_BYTES)
    feed = Feed(events, pulse, pause_s=0)
    before = feed.last_id
    say(events, 1, 2, 3, 4, 5)
    async with reading(feed, before) as stream:
        gap, *rest = await events_of(stream, 3)
        assert (gap.event, gap.data["missed"]) == ("Gap", 3)
        assert swept(rest) == [4, 5]
    async with reading(feed, gap.id) as stream:
        assert swept(await events_of(stream, 2)) == [4, 5]


async def test_a_slow_reader_is_told_a_gap() -> None:
    events = Events(ring_bytes=2 * EVENT_BYTES)
    feed = Feed(events, pulse, pause_s=0)
    async with reading(feed) as stream:
        say(events, 1)
        assert swept(await events_of(stream, 1)) == [1]
        say(events, 2, 3, 4, 5)
        gap, *rest = await events_of(stream, 3)
        assert gap.data["missed"] == 2
        assert swept(rest) == [4, 5]


@pytest.mark.parametrize("last_id", ["x", "0-0", "deadbeef-1", "-", "1", "\u0661-\u0661", "x" * 5000])
async def test_an_id_of_another_life_tells_a_gap(last_id: str) -> None:
    events = Events()
    feed = Feed(events, pulse, pause_s=0)
    say(events, 1)
    async with reading(feed, last_id) as stream:
        (gap,) = await events_of(stream, 1)
        assert gap.event == "Gap"
        say(events, 2)
        assert swept(await events_of(stream, 1)) == [2]


async def test_the_ring_is_bounded_in_bytes() -> None:
    events = Events(ring_bytes=26_000)
    feed = Feed(events, pulse, pause_s=0)
    before = feed.last_id
    for _ in range(10):
        events.publish(InvocationStarted(url="u", call="x" * 30_000))
    async with reading(feed, before) as stream:
        gap, *rest = await events_of(stream, 4)
    assert (gap.data["missed"], len(rest)) == (7, 3), "of which each has 2,048 characters left"


async def test_streams_that_keep_up_share_their_pages() -> None:
    events = Events()
    feed = Feed(events, pulse, pause_s=0)
    async with reading(feed) as first, reading(feed) as second:
        for number in range(3):
            say(events, number)
            page = await anext(first)
            assert await anext(second) is page
            assert swept(sent(page)) == [number]


async def test_a_brief_stream_leaves_out_what_others_include() -> None:
    events = Events()
    feed = Feed(events, pulse, pause_s=0)
    before = feed.last_id
    told: list[Event] = [
        InvocationStarted(invocation="i-1", url="u", call="F()"),
        InvocationStarted(invocation="i-2", url="u", call="F()"),
        CloneCreated(clone="c", duration_s=0.1),
        PhaseFinished(invocation="i-1", phase=Phase.exec, duration_s=0.1),
        PhaseFinished(invocation="i-2", phase=Phase.jail, duration_s=0.1),
        InvocationFinished(invocation="i-1", url="u", call="F()", verdict="ok", timings=Timings()),
    ]
    for event in told:
        events.publish(event)
    async with aclosing(feed.open(before, brief=True)) as brief, reading(feed, before) as whole:
        assert await anext(brief) == b"retry: 1000\n\n"
        short, long = sent(await anext(brief)), sent(await anext(whole))
        assert [one.id for one in long] == [f"{before.split('-')[0]}-{n}" for n in range(1, 7)]
        assert [one for one in long if one in short] == short
        assert [(one.event, one.data["invocation"]) for one in short] == [
            ("InvocationStarted", "i-2"),
            ("PhaseFinished", "i-2"),
            ("InvocationFinished", "i-1"),
        ]


async def test_a_choice_is_true_or_false(admin: httpx.AsyncClient) -> None:
    response = await admin.get(f"{STREAM}?brief=yes")
    assert (response.status_code, response.json()["details"]["field"]) == (400, "brief")


async def test_who_is_behind_catches_up_without_a_pause_and_then_gathers() -> None:
    events = Events()
    feed = Feed(events, pulse, pause_s=3600)
    before = feed.last_id
    say(events, *range(1700))
    async with reading(feed, before) as stream:
        assert swept(await events_of(stream, 1700)) == list(range(1700))
        gathering = asyncio.ensure_future(anext(stream, None))
        say(events, 1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not gathering.done()
        feed.close()
        assert await gathering is None


async def test_a_pulse_without_a_number_for_who_watches() -> None:
    events = Events()
    feed = Feed(events, pulse, pulse_s=0.001, pause_s=0)
    async with reading(feed) as stream:
        for _ in range(2):
            felt = await anext(stream)
            assert felt.startswith(b"event: Pulse\ndata: ")
            data = json.loads(felt.split(b"data: ")[1])
            assert (data["running"], data["usage"]["sky-t-1"]["memory_bytes"]) == (3, 4096)
        say(events, 1)
        found: list[Sent] = []
        while not found:
            found = [one for one in sent(await anext(stream)) if one.event != "Pulse"]
        assert found[0].id == feed.last_id


async def test_nobody_feels_the_pulse_of_an_island_that_nobody_watches() -> None:
    felt = asyncio.Event()

    async def noticed() -> Pulse:
        felt.set()
        return await pulse()

    feed = Feed(Events(), noticed, pulse_s=0)
    async with reading(feed) as stream:
        assert (await anext(stream)).startswith(b"event: Pulse")
    felt.clear()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not felt.is_set()


async def test_a_failing_pulse_is_told_to_the_log_and_felt_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = [OSError("no such group"), OSError("no such group")]

    async def sick() -> Pulse:
        if failures:
            raise failures.pop()
        return await pulse()

    async with reading(Feed(Events(), sick, pulse_s=0)) as stream:
        assert (await anext(stream)).startswith(b"event: Pulse")
    assert caplog.text.count("the island has no pulse") == 2


async def test_streams_are_capped() -> None:
    feed = Feed(Events(), pulse, streams=1)
    late = feed.open()  # which is not one before it is read
    async with reading(feed), aclosing(late):
        with pytest.raises(TooBusy):
            feed.open()
        assert [piece async for piece in late] == []
    async with reading(feed):
        assert feed.open_streams == 1


async def test_too_many_streams_are_told() -> None:
    world = make_world(streams=0)
    async with world.client(headers=ADMIN) as admin:
        response = await admin.get(STREAM)
    assert (response.status_code, response.json()["code"]) == (429, "too_busy")
    assert response.headers["retry-after"] == "5"


async def test_closing_ends_streams() -> None:
    events = Events()
    feed = Feed(events, pulse)
    async with reading(feed) as stream:
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        feed.close()
        assert await waiting is None
    say(events, 1)
    assert [piece async for piece in feed.open()] == [b"retry: 1000\n\n"]


async def test_head_of_the_stream_ends(admin: httpx.AsyncClient) -> None:
    response = await admin.head(STREAM)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")


# Health


async def test_ready_is_who_has_a_place_a_driver_and_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(fakes.policy(max_running=1))
    await world.island.start()
    world.driver.script = lambda data: Script(duration_s=float("inf"))
    async with world.client() as client:

        async def ready() -> tuple[int, str]:
            assert (await client.get("/livez")).json() == {"status": "ok"}
            answer = await client.get("/readyz")
            return answer.status_code, answer.json().get("error", "ok")

        assert await ready() == (200, "ok")
        running = asyncio.create_task(client.post("/api/v1/function", json=CALL))
        await world.next(JailCreated)
        assert await ready() == (503, "all 1 places to run are taken")
        await world.island.kill_all()
        await running
        assert await ready() == (200, "ok")

        async def broken(spec: object) -> None:
            raise DriverError("no cgroup can be made")

        with monkeypatch.context() as patch:
            patch.setattr(world.driver, "create", broken)
            assert (await client.post("/api/v1/function", json=CALL)).status_code == 500
            assert await ready() == (503, "no jail can be made: no cgroup can be made")
            patch.setattr("skyisland.jails.register.BROKEN_S", 0)  # later calls try again
            assert await ready() == (200, "ok")
        assert (await ready())[0] == 503
        world.driver.script = lambda data: Script()
        assert (await client.post("/api/v1/function", json=CALL)).status_code == 200
        assert await ready() == (200, "ok")
        await world.island.drain(0)
        assert await ready() == (503, "the island is stopping and takes no new calls")
    await world.island.stop()
