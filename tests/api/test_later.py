"""Calls that answer later, as callers meet them: Prefer, Idempotency-Key, and what became of the calls."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from skyisland.drivers.fake import Script
from skyisland.errors import NotFound, SourceUnavailable
from skyisland.events import InvocationFinished, InvocationStarted, JailCreated
from skyisland.later.calls import Claim
from skyisland.later.keeping import NotKept
from skyisland.settings import Api as ApiSettings
from tests.support.api import ADMIN, CALL, HEADER, World, make_world

PATH = "/api/v1/function"
ASYNC = {"Prefer": "respond-async"}


async def send(client: httpx.AsyncClient, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return await client.post(PATH, json=CALL | fields, headers=headers)


async def over(client: httpx.AsyncClient, where: str) -> dict[str, Any]:
    answer = await client.get(where, headers={"Prefer": "wait=20"})
    assert answer.headers["preference-applied"] == "wait=20"
    record: dict[str, Any] = answer.json()
    assert record["state"] not in ("queued", "running")
    return record


def plays(world: World, **script: Any) -> None:
    world.driver.script = lambda data: Script(**script)


async def test_a_call_that_answers_later(world: World, client: httpx.AsyncClient) -> None:
    plays(world, stdout=b"jcc92ytsf8kn")
    accepted = await send(client, ASYNC | {"X-Call-Id": "mine"})
    assert accepted.status_code == 202
    call = accepted.headers["x-call-id"]
    assert accepted.headers["location"] == f"/api/v1/calls/{call}"
    assert accepted.headers["retry-after"] == "1"
    assert accepted.headers["preference-applied"] == "respond-async"
    assert accepted.json()["id"] == call
    record = await over(client, accepted.headers["location"])
    assert (record["state"], record["verdict"], record["caller_id"]) == ("done", "ok", "mine")
    assert [one["verdict"] for one in record["attempts"]] == ["ok"]
    assert record["result"]["data"] == "jcc92ytsf8kn"
    assert record["result"]["id"] == record["attempts"][0]["id"]
    listed = (await client.get("/api/v1/calls?state=done&since=1")).json()["calls"]
    assert [one["id"] for one in listed] == [call]
    assert "result" not in listed[0]
    assert (await client.get("/api/v1/calls?state=dead")).json() == {"calls": []}
    assert (await client.delete(accepted.headers["location"])).json()["state"] == "done"
    again = await client.post(f"{accepted.headers['location']}/redrive")
    assert (again.status_code, again.json()["code"]) == (409, "call_stands")
    assert (await client.delete("/api/v1/calls")).json() == {"forgotten": [call]}
    gone = await client.get(accepted.headers["location"])
    assert (gone.status_code, gone.json()["code"]) == (404, "call_not_found")


async def test_a_call_that_answers_in_time_answers_as_ever(world: World, client: httpx.AsyncClient) -> None:
    both = {"Prefer": "wait=20, respond-async"}
    good = await send(client, both)
    assert (good.status_code, good.headers["preference-applied"]) == (200, "wait=20, respond-async")
    assert good.json()["data"] == "fake"
    late = asyncio.create_task(send(client, both))
    await world.next(InvocationStarted)
    assert (await late).status_code == 200
    plays(world, duration_s=float("inf"))
    now = await send(client, {"Prefer": "wait=0, respond-async"})
    assert (now.status_code, now.json()["state"]) == (202, "queued")
    cancelled = await client.delete(now.headers["location"])
    assert cancelled.json()["state"] == "cancelled"
    assert world.driver.alive == {}


async def test_a_call_that_can_never_run_is_refused_at_once(client: httpx.AsyncClient) -> None:
    for fields, code in (({"call": "1 +"}, "bad_call"), ({"nothing": 1}, "bad_request")):
        refused = await send(client, ASYNC, **fields)
        assert (refused.status_code, refused.json()["code"]) == (400, code)
    refused = await send(client, ASYNC | {"Accept": "text/plain"})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert (await client.get("/api/v1/calls")).json() == {"calls": []}


async def test_a_call_that_ends_badly_is_dead_and_says_so(world: World, client: httpx.AsyncClient) -> None:
    world.builds.fail = NotFound("no such repository")
    refused = await send(client, {"Prefer": "wait=20, respond-async"})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    (record,) = (await client.get("/api/v1/calls?state=dead")).json()["calls"]
    assert record["error"]["code"] == "not_found"
    again = await client.post(f"/api/v1/calls/{record['id']}/redrive")
    assert again.status_code == 200
    assert (await over(client, f"/api/v1/calls/{record['id']}"))["state"] == "done"


@pytest.mark.parametrize("prefer", [{}, ASYNC], ids=["sync", "async"])
async def test_what_is_sent_again_with_its_key_runs_once(
    world: World, client: httpx.AsyncClient, prefer: dict[str, str]
) -> None:
    headers = prefer | {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    first = await send(client, headers)
    if prefer:
        await over(client, first.headers["location"])
    again = await send(client, headers)
    assert again.status_code == first.status_code == (202 if prefer else 200)
    if prefer:
        assert again.headers["location"] == first.headers["location"]
    else:
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    other = await send(client, headers, call="Decode(1)")
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert len(await world.island.invocations()) == 1
    async with world.client(headers=ADMIN) as admin:
        others = await send(admin, headers)
    assert others.status_code == first.status_code
    assert others.headers["x-call-id"] != first.headers["x-call-id"]
    assert "idempotent-replayed" not in others.headers


async def test_a_key_whose_call_still_runs_or_was_refused(world: World, client: httpx.AsyncClient) -> None:
    plays(world, duration_s=float("inf"))
    key = {"Idempotency-Key": "k"}
    created = asyncio.create_task(world.next(JailCreated))
    first = asyncio.create_task(send(client, key))
    await world.next(InvocationStarted)
    busy = await send(client, key)
    assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (409, "key_in_use", "1")
    await created
    await world.island.kill_all()
    assert (await first).status_code == 502
    replayed = await send(client, key)
    assert (replayed.status_code, replayed.json()) == (502, (await first).json())
    world.builds.fail = NotFound("no such repository")
    mended = {"Idempotency-Key": "m"}
    plays(world)
    assert (await send(client, mended, call="G(1)")).status_code == 404
    assert (await send(client, mended, call="G(1)")).status_code == 200, "nothing had run"


async def test_a_key_whose_island_was_killed_before_it_kept_the_call(
    world: World, client: httpx.AsyncClient
) -> None:
    body = msgspec.json.encode(CALL)
    digest = hashlib.sha256(b"\0" + body).digest()
    for key, age_s, status in (("new", 0.0, 202), ("old", 100.0, 404)):
        claim = Claim(client="127.0.0.1", key=key, body=digest, call=f"call-{key}")
        assert await world.island.later._store.results.claim(claim, time.time() - age_s) is claim
        headers = {"Idempotency-Key": key, "Prefer": "respond-async", "Content-Type": "application/json"}
        answers = [await client.post(PATH, content=body, headers=headers) for _ in range(2)]
        assert [one.status_code for one in answers] == [status] * 2
        if status == 202:
            assert {one.headers["location"] for one in answers} == {f"/api/v1/calls/call-{key}"}
            await over(client, answers[0].headers["location"])


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Idempotency-Key": "a b"}, "Idempotency-Key"),
        ({"Idempotency-Key": "x" * 256}, "Idempotency-Key"),
        ({"X-Callback-Url": "https://example.org/"}, "X-Callback-Url"),
        (ASYNC | {"X-Callback-Url": "http://127.0.0.1/"}, "X-Callback-Url"),
        (ASYNC | {"Accept": "application/x-ndjson"}, "Accept"),
    ],
)
async def test_a_header_that_cannot_be_honoured_is_named(
    client: httpx.AsyncClient, headers: dict[str, str], field: str
) -> None:
    refused = await send(client, headers)
    assert (refused.status_code, refused.json()["details"]["field"]) == (400, field)


async def test_one_call_is_forgotten_by_its_id(world: World, client: httpx.AsyncClient) -> None:
    first, second = [(await send(client, ASYNC)).headers["x-call-id"] for _ in range(2)]
    for call in (first, second):
        await over(client, f"/api/v1/calls/{call}")
    gone = await client.delete(f"/api/v1/calls?call={first}")
    assert gone.json() == {"forgotten": [first]}
    assert (await client.delete(f"/api/v1/calls?call={first}")).json()["code"] == "call_not_found"
    assert [one["id"] for one in (await client.get("/api/v1/calls")).json()["calls"]] == [second]
    both = await client.delete(f"/api/v1/calls?call={second}&state=dead")
    assert (both.status_code, both.json()) == (200, {"forgotten": []})
    plays(world, duration_s=float("inf"))
    runs = (await send(client, ASYNC)).headers["x-call-id"]
    stands = await client.delete(f"/api/v1/calls?call={runs}")
    assert (stands.status_code, stands.json()["code"]) == (409, "call_stands")
    await client.delete(f"/api/v1/calls/{runs}")
    assert (await client.delete(f"/api/v1/calls?call={runs}")).json() == {"forgotten": [runs]}


async def test_a_state_that_is_none_is_named(client: httpx.AsyncClient) -> None:
    refused = await client.get("/api/v1/calls?state=lost")
    assert (refused.status_code, refused.json()["details"]["field"]) == (400, "state")


@pytest.fixture
async def closed() -> AsyncIterator[World]:
    """An island whose callers have tokens."""
    tokens = ApiSettings(
        open=False, callers={"ann": "a" * 20, "bob": "b" * 20}, operators={"olga": "o" * 20}, admins={}
    )
    world = make_world(settings=tokens)
    await world.island.start()
    yield world
    await world.island.stop()


async def test_callers_see_their_own_calls_and_operators_change_none(closed: World) -> None:
    tokens = {name: {HEADER: name[0] * 20} for name in ("ann", "bob", "olga")}
    async with closed.client() as client:
        assert (await send(client, ASYNC)).status_code == 401
        where = (await send(client, ASYNC | tokens["ann"])).headers["location"]
        seen = {
            name: (await client.get(where, headers=token | {"Prefer": "wait=20"})).status_code
            for name, token in tokens.items()
        }
        assert seen == {"ann": 200, "bob": 404, "olga": 200}
        assert (await client.get(where)).status_code == 401
        listed = {
            name: len((await client.get("/api/v1/calls", headers=token)).json()["calls"])
            for name, token in tokens.items()
        }
        assert listed == {"ann": 1, "bob": 0, "olga": 1}
        for name in ("bob", "olga"):
            assert (await client.delete(where, headers=tokens[name])).status_code == 404
            assert (await client.post(f"{where}/redrive", headers=tokens[name])).status_code == 404
            assert (await client.delete("/api/v1/calls", headers=tokens[name])).json() == {"forgotten": []}
            alone = where.replace("calls/", "calls?call=")
            assert (await client.delete(alone, headers=tokens[name])).status_code == 404
        secrets = {
            (await client.get("/api/v1/callback-secret", headers=token)).json()["secret"]
            for token in tokens.values()
        }
        assert len(secrets) == 3
        async with closed.client(headers=ADMIN) as admin:
            assert len((await admin.delete("/api/v1/calls")).json()["forgotten"]) == 1


async def test_an_island_that_cannot_keep_calls_still_runs_the_others() -> None:
    world = make_world(store=NotKept("cannot keep this in calls.db: it is damaged"))
    await world.island.start()
    async with world.client() as client:
        assert (await send(client, {})).status_code == 200
        refused = await send(client, ASYNC)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "damaged" in refused.json()["error"]
        assert (await send(client, {"Idempotency-Key": "k"})).status_code == 503
        assert (await client.get("/api/v1/calls")).json() == {"calls": []}
    await world.island.stop()


async def test_a_function_with_a_name_answers_later_too() -> None:
    tokens = ApiSettings(callers={"shop": "shop's", "other": "other's"})
    world = make_world(settings=tokens)
    await world.island.start()
    path, encode = "/api/v1/names/encode", {"url": CALL["url"], "function": "Encode", "callers": ["shop"]}
    async with world.client() as client:
        await client.put(path, json=encode, headers=ADMIN)
        refused = await client.post(path, headers=ASYNC | {HEADER: "other's"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await client.post("/api/v1/names/none", headers=ASYNC)).status_code == 404
        ours = {HEADER: "shop's"}
        accepted = await client.post(path, json={"args": [1, 2]}, headers=ASYNC | ours)
        assert (accepted.status_code, accepted.json()["name"]) == (202, "encode")
        record = await client.get(accepted.headers["location"], headers=ours | {"Prefer": "wait=20"})
        assert (record.json()["state"], record.json()["call"]) == ("done", "Encode(1,2)")
        named = await client.get("/api/v1/calls?name=encode", headers=ours)
        assert [one["id"] for one in named.json()["calls"]] == [accepted.headers["x-call-id"]]
    await world.island.stop()


# Watched

WATCHED = {"Accept": "text/event-stream"}


def told(response: httpx.Response) -> list[tuple[str, Any]]:
    """The events of a stream: their names and what they hold."""
    assert response.headers["content-type"] == "text/event-stream"
    events = []
    for text in response.text.split("\n\n"):
        if text and not text.startswith(":"):
            name, data = text.split("\n")
            events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


async def test_a_call_that_is_watched_tells_its_phases_and_outputs(
    world: World, client: httpx.AsyncClient
) -> None:
    plays(world, stdout="Grüße".encode(), stderr=b"warned")
    response = await send(client, WATCHED)
    assert response.status_code == 200
    events = told(response)
    assert [what["phase"] for name, what in events if name == "phase"] == [
        *("resolve", "clone", "build", "queue", "jail", "exec")
    ]
    assert "".join(what["text"] for name, what in events if name == "stdout") == "Grüße"
    assert "".join(what["text"] for name, what in events if name == "stderr") == "warned"
    name, answer = events[-1]
    assert (name, answer["data"], answer["id"]) == ("result", "Grüße", response.headers["x-call-id"])


async def test_a_watched_call_that_ends_badly_says_so_last(world: World, client: httpx.AsyncClient) -> None:
    plays(world, stdout=b"half", exit_code=3)
    events = told(await send(client, WATCHED))
    name, problem = events[-1]
    assert (name, problem["code"], problem["details"]["exit_code"]) == ("problem", "exited", 3)
    assert ("stdout", {"text": "half"}) in events
    refused = await send(client, WATCHED, call="1 +")
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")


async def test_a_call_that_answers_later_can_be_watched(world: World, client: httpx.AsyncClient) -> None:
    plays(world, stdout=b"later")
    world.builds.fail = SourceUnavailable("away")
    where = (await send(client, ASYNC)).headers["location"]
    events = told(await client.get(where, headers=WATCHED))
    assert events[0][0] == "call"
    name, record = events[-1]
    assert (name, record["state"], record["result"]["data"]) == ("result", "done", "later")
    assert [one["verdict"] for one in record["attempts"]] == ["source_unavailable", "ok"]
    assert ("stdout", {"text": "later"}) in events
    over = told(await client.get(where, headers=WATCHED))
    assert [name for name, _ in over] == ["stdout", "result"]
    assert (await client.get("/api/v1/calls/call-0", headers=WATCHED)).status_code == 404


async def test_watching_has_bounds_and_ends_with_whoever_watches() -> None:
    world = make_world(settings=ApiSettings(event_streams=1))
    await world.island.start()
    plays(world, duration_s=float("inf"))
    async with world.served() as server:
        body = json.dumps(CALL).encode()
        head = b"POST /api/v1/function HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        reader, writer = await server.connect()
        writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await reader.readuntil(b'"phase":"jail"')
        async with httpx.AsyncClient(base_url=server.url) as other:
            refused = await send(other, WATCHED)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_busy")
            finished = asyncio.create_task(world.next(InvocationFinished))
            await asyncio.sleep(0)
            writer.close()
            assert (await finished).verdict == "cancelled"
            plays(world)
            assert told(await send(other, WATCHED))[-1][0] == "result"
    await world.island.stop()
