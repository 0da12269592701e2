"""Functions with a name over REST: conditions on changes, calls, and secrets that no answer shows."""

from __future__ import annotations

import asyncio
import gzip
import hmac
from typing import Any

import httpx

from skyisland.settings import Api as ApiSettings
from tests.support.api import ADMIN, HEADER, World, answers, make_world

ENCODE = {"url": "github.com/mmcloughlin/geohash", "function": "Encode", "version": "main"}
SECRET = "s3cret-9f2c"


async def test_a_name_from_its_definition_to_its_end(
    world: World, admin: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    frames = answers(world, b"u4pruyd", {"results": ["u4pruyd"]})
    path = "/api/v1/names/encode"
    assert (await client.post(path, json={"args": [1]})).json()["code"] == "name_not_found"
    made = await admin.put(path, json=ENCODE, headers={"If-None-Match": "*"})
    assert (made.status_code, made.headers["ETag"]) == (200, '"1"')
    assert (await admin.put(path, json=ENCODE, headers={"If-None-Match": "*"})).status_code == 412
    other = await admin.put(path, json=ENCODE, headers={"If-None-Match": '"1"'})
    assert (other.status_code, other.json()["details"]["field"]) == (400, "If-None-Match")
    called = await client.post(path, json={"args": [57.64911, 10.40744]}, headers={"X-Call-Id": "mine"})
    assert (called.status_code, called.json()["results"]) == (200, ["u4pruyd"])
    assert called.json()["version"] == made.json()["commit"]
    assert called.headers["X-Call-Id"] == called.json()["id"]
    text = await client.post(path, headers={"Accept": "text/plain"})
    assert (text.status_code, text.text) == (200, "u4pruyd")
    assert frames[1]["json"] == len("[]")  # no body: no arguments
    moved = await admin.post(f"{path}/move", json={"version": "v2"})
    assert (moved.headers["ETag"], moved.json()["why"]) == ('"2"', "moved")
    stale = await admin.put(path, json=ENCODE, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"], stale.json()["details"]["revision"]) == (
        412,
        "stale_revision",
        2,
    )
    assert (await admin.put(path, json=ENCODE, headers={"If-Match": "old"})).status_code == 400
    back = await admin.post(f"{path}/rollback")  # a body is not needed
    assert (back.json()["why"], back.json()["commit"]) == ("rolled back to 1", made.json()["commit"])
    listed = (await admin.get(f"{path}/revisions")).json()["revisions"]
    assert [(one["revision"], one["by"]) for one in listed] == [(3, "admin"), (2, "admin"), (1, "admin")]
    assert (await admin.post(f"{path}/pause")).json()["paused"] is True
    refused = await client.post(path)
    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (
        503,
        "paused",
        "5",
    )
    assert (await admin.post(f"{path}/resume")).json()["paused"] is False
    assert (await admin.get("/api/v1/names")).json()["names"] == [(await admin.get(path)).json()]
    assert (await admin.delete(path)).json() == {"forgotten": "encode"}
    assert (await admin.get(path)).status_code == 404


async def test_only_the_callers_of_a_name_call_it() -> None:
    world = make_world(settings=ApiSettings(callers={"shop": "shop's", "other": "other's"}, open=False))
    await world.island.start()
    async with world.client() as client:
        path, ours = "/api/v1/names/encode", {HEADER: "shop's"}
        await client.put(path, json=ENCODE | {"callers": ["shop"]}, headers=ADMIN)
        statuses = [
            (await client.post(path, headers=headers)).status_code
            for headers in ({}, {HEADER: "other's"}, {HEADER: "wrong"}, ours)
        ]
    await world.island.stop()
    assert statuses == [401, 403, 403, 200]


async def test_an_earlier_answer_is_for_those_who_may_call_now() -> None:
    world = make_world(settings=ApiSettings(callers={"shop": "shop's", "other": "other's"}, open=False))
    await world.island.start()
    key = {HEADER: "shop's", "Idempotency-Key": "k"}
    later = {HEADER: "shop's", "Idempotency-Key": "l", "Prefer": "respond-async"}
    async with world.client() as client:
        path = "/api/v1/names/encode"

        async def both() -> list[int]:
            return [(await client.post(path, headers=headers)).status_code for headers in (key, later)]

        await client.put(path, json=ENCODE | {"callers": ["shop"]}, headers=ADMIN)
        assert await both() == [200, 202]
        assert await both() == [200, 202]
        await client.post(f"{path}/pause", headers=ADMIN)
        assert await both() == [503, 202]
        await client.post(f"{path}/resume", headers=ADMIN)
        await client.put(path, json=ENCODE | {"callers": ["other"]}, headers=ADMIN)
        assert await both() == [403, 403]
        await client.delete(path, headers=ADMIN)
        assert await both() == [404, 404]
    await world.island.stop()


async def test_no_answer_log_or_event_has_a_secret(
    world: World, admin: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    events: list[Any] = []
    world.events.tap(events.append)
    frames = answers(world, b"", {"results": []})
    replies = [
        await admin.put("/api/v1/secrets/KEY", json={"value": SECRET}),
        await admin.put("/api/v1/secrets/KEY", content=b'{"value": "%b", "value": "x"}' % SECRET.encode()),
        await admin.put("/api/v1/secrets/KEY", json={"value": SECRET, "more": 1}),
        await admin.put("/api/v1/secrets/../KEY", json={"value": SECRET}),
        await admin.put("/api/v1/secrets/KEY", content=b'{"value": "%b' % SECRET.encode()),
        await admin.get("/api/v1/secrets"),
        await admin.put("/api/v1/names/encode", json=ENCODE | {"secrets": {"TOKEN": "KEY"}}),
        await client.post("/api/v1/names/encode"),
        await client.post("/api/v1/names/encode", json={"args": [1], "more": 1}),
        await admin.get("/api/v1/names/encode/revisions"),
        await admin.get("/api/v1/admin/snapshot"),
        await admin.get("/api/v1/admin/invocations"),
        await admin.get("/api/v1/admin/logs"),
        await admin.get("/metrics"),
        await admin.delete("/api/v1/secrets/KEY"),
    ]
    assert [reply.status_code for reply in replies].count(200) == 9
    assert frames[0]["env"] == ["TOKEN", SECRET]  # it was there to be told
    told = [reply.text for reply in replies] + [repr(event) for event in events]
    assert [text for text in told if SECRET in text] == []


async def test_a_function_that_prints_its_secret_tells_its_caller_alone(
    world: World, admin: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    events: list[Any] = []
    world.events.tap(events.append)
    await admin.put("/api/v1/secrets/KEY", json={"value": SECRET})
    await admin.put("/api/v1/names/encode", json=ENCODE | {"secrets": {"TOKEN": "KEY"}})
    error = {"message": f"no such key: {SECRET}", "type": "*errors.errorString"}
    answers(world, SECRET.encode(), {"error": error}, stderr=f"using {SECRET}\n".encode() * 100, exit_code=3)
    answer = await client.post("/api/v1/names/encode")
    assert SECRET in answer.json()["details"]["stderr"]
    told = [
        *[(await admin.get(f"/api/v1/admin/{path}")).text for path in ("invocations", "snapshot", "logs")],
        *map(repr, events),
    ]
    assert [text for text in told if SECRET in text] == []
    (end,) = (await admin.get("/api/v1/admin/invocations")).json()["invocations"]
    assert end["cause"]["text"].endswith("no such key: [secret]")
    assert end["cause"]["stderr"].endswith("using [secret]\n")
    assert end["cause"]["stdout"] == "[secret]"


async def test_a_call_that_answers_later_tells_a_secret_to_its_caller_alone() -> None:
    settings = ApiSettings(callers={"shop": "shop's"}, operators={"eve": "eve's"})
    world = make_world(settings=settings)
    await world.island.start()
    async with world.client() as client:
        await client.put("/api/v1/secrets/KEY", json={"value": SECRET}, headers=ADMIN)
        await client.put("/api/v1/secrets/PART", json={"value": SECRET[:6]}, headers=ADMIN)
        made = ENCODE | {"secrets": {"PART": "PART", "TOKEN": "KEY"}}
        await client.put("/api/v1/names/encode", json=made, headers=ADMIN)
        error = {"message": "x" * 455 + SECRET, "type": "*errors.errorString", "retry_after_s": -1.0}
        for said, results in (({"results": [SECRET]}, [SECRET]), ({"error": error}, None)):
            answers(world, SECRET.encode(), said)
            ours = {HEADER: "shop's", "Prefer": "respond-async"}
            where = (await client.post("/api/v1/names/encode", headers=ours)).headers["location"]
            mine = await client.get(where, headers={HEADER: "shop's", "Prefer": "wait=20"})
            assert mine.json()["result"]["results"] == results
            assert SECRET in repr(mine.json()["result"])
            assert SECRET[:4] not in repr(mine.json() | {"result": None})
            told = [
                (await client.get(path, headers=token | {b"Accept": accept})).text
                for token in ({HEADER.encode(): b"eve's"}, ADMIN)
                for path, accept in (
                    (where, b"*/*"),
                    (where, b"text/event-stream"),
                    ("/api/v1/calls", b"*/*"),
                    (f"/api/v1/admin/jails/{mine.json()['attempts'][0]['id']}/output", b"*/*"),
                )
            ]
            told.append((await client.delete(where, headers=ADMIN)).text)
            assert [text for text in told if SECRET[:4] in text] == []
            assert all(mine.json()["attempts"][0]["id"] in text for text in (*told[:3], *told[4:7]))
    await world.island.stop()


async def test_what_changes_at_the_same_time_changes_once(admin: httpx.AsyncClient) -> None:
    path = "/api/v1/names/encode"
    await admin.put(path, json=ENCODE)
    both = await asyncio.gather(
        *(admin.put(path, json=ENCODE | {"pin": pin}, headers={"If-Match": '"1"'}) for pin in (True, False))
    )
    assert sorted(reply.status_code for reply in both) == [200, 412]


async def test_a_push_is_let_in_by_its_signature_alone() -> None:
    world = make_world(
        settings=ApiSettings(callers={"shop": "the shop's own token"}, open=False, max_body=1000)
    )
    await world.island.start()
    await world.island.named.secrets.set("HOOK", SECRET)
    push = {"scheme": "github", "secret": "HOOK"}
    async with world.client(headers=ADMIN) as admin, world.client() as github:
        assert (await admin.put("/api/v1/names/encode", json=ENCODE | {"push": push})).status_code == 200
        body = b'{"ref": "refs/heads/main", "repository": {"clone_url": "https://github.com/mmcloughlin/geohash.git"}}'
        signature = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "d-1",
            "X-Hub-Signature-256": f"sha256={signature}",
            "Content-Type": "application/json",
        }
        path = "/api/v1/names/encode/push"
        taken = await github.post(path, content=body, headers=headers)
        assert (taken.status_code, taken.json()["push"]["state"]) == (200, "taken")
        assert (await github.post(path, content=body, headers=headers)).json()["push"]["again"] is True
        packed = await github.post(
            path, content=gzip.compress(body), headers=headers | {"Content-Encoding": "gzip"}
        )
        assert packed.json()["push"]["again"] is True
        refused = await github.post(path, content=body + b" ", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await github.post(path, content=b"x" * 2000, headers=headers)).status_code == 413
        assert (await github.post("/api/v1/names/a/b/push", content=body, headers=headers)).status_code == 404
        assert (await github.get(path)).status_code == 405
        await world.island.named._following.close()
        pushed = (await admin.get("/api/v1/names/encode")).json()["pushed"]
        assert (pushed["state"], pushed["delivery"], pushed["why"]) == ("idle", "d-1", "it is there already")
    await world.island.stop()
