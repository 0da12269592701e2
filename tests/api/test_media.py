"""What a caller accepts, and what an answer says of itself: its form, its headers, its id."""

from __future__ import annotations

import httpx
import pytest

from api.media import BYTES, JSON, PROBLEM, TEXT, wanted
from skyisland.drivers.fake import Script
from skyisland.events import InvocationFinished, InvocationStarted
from tests.api.test_function import PATH
from tests.support.api import CALL, World, answers

ERROR = {"message": "no é\nno", "type": "*errors.errorString"}


@pytest.mark.parametrize(
    ("accept", "answer", "error"),
    [
        ("", JSON, JSON),
        ("*/*", JSON, JSON),
        ("application/json", JSON, JSON),
        ("application/*;q=0.1", JSON, JSON),
        ("application/json; charset=utf-8, */*", JSON, JSON),
        ("TEXT/Plain", TEXT, PROBLEM),
        ("text/*", TEXT, PROBLEM),
        ("text/plain, */*;q=0.5", TEXT, JSON),
        ("text/plain;q=0.5, application/json;q=0.6", JSON, JSON),
        ("text/plain; q=0.5 , application/octet-stream", BYTES, PROBLEM),
        ("application/json, application/problem+json", JSON, PROBLEM),
        ("application/problem+json", JSON, PROBLEM),
        ("application/problem+json;q=0, */*", JSON, JSON),
        ("*/*, application/json;q=0", TEXT, PROBLEM),
        ("text/html", None, JSON),
        ("*/*;q=0", None, JSON),
        (",;,q=,/*", None, JSON),
        ("a," * 8000, None, JSON),
    ],
)
def test_the_form_that_the_caller_prefers(accept: str, answer: str | None, error: str) -> None:
    assert (wanted(accept).answer, wanted(accept).error) == (answer, error)


async def call(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post(
        PATH, json=CALL, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


async def test_results(world: World, client: httpx.AsyncClient) -> None:
    frames = answers(world, b"{3} <nil>", {"results": [{"N": 3, "big": 2**63}]})
    answer = (await call(client)).json()
    assert answer["data"] == "{3} <nil>"
    assert answer["results"] == [{"N": 3, "big": 2**63}]
    assert (answer["error"], answer["failed"], answer["stdout"]) == (None, False, "")
    assert "want" not in frames[0]


async def test_a_function_that_fails(world: World, client: httpx.AsyncClient) -> None:
    answers(world, b"0 no", {"results": [0], "error": ERROR})
    response = await call(client)
    answer = response.json()
    assert (response.status_code, answer["failed"], answer["exit_code"]) == (200, True, 0)
    assert (answer["results"], answer["error"], "signal" in answer) == ([0], ERROR, False)
    assert b'verdict="failed"' in world.metrics.prometheus(world.island.status())
    assert any("failed: no é" in line.text for line in world.logs.lines())


@pytest.mark.parametrize(
    ("accept", "printed", "media"),
    [
        (TEXT, b"\xc3\xa9\x000 no", f"{TEXT}; charset=utf-8"),
        (TEXT, b"\xff\x000 no", TEXT),
        (BYTES, b"\xff\x000 no", BYTES),
    ],
)
async def test_the_bare_output(
    world: World, client: httpx.AsyncClient, accept: str, printed: bytes, media: str
) -> None:
    frames = answers(world, printed, {"error": ERROR}, stderr=b"oh\nno %")
    response = await call(client, Accept=accept)
    assert frames[0]["want"] == "text", "no results are made"
    assert (response.status_code, response.content) == (200, printed)
    headers = response.headers
    assert (headers["content-type"], headers["x-content-type-options"]) == (media, "nosniff")
    told = {name: headers[f"x-sky-island-{name}"] for name in ("failed", "error", "error-type", "stderr")}
    assert told == {
        "failed": "true",
        "error": "no %C3%A9%0Ano",
        "error-type": "*errors.errorString",
        "stderr": "oh%0Ano %25",
    }
    assert headers["x-sky-island-exit-code"] == "0"
    assert headers["x-sky-island-jail"].startswith("sky-")
    assert len(headers["x-sky-island-version"]) == 40
    assert {"x-sky-island-cached", "x-sky-island-stale", "x-sky-island-warm", "server-timing"} <= set(headers)


async def test_errors_by_rfc_9457(world: World, client: httpx.AsyncClient) -> None:
    world.driver.script = lambda data: Script(stdout=b"part", exit_code=3)
    response = await call(client, Accept="text/plain")
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (502, PROBLEM)
    assert {name: problem[name] for name in ("type", "title", "status", "code")} == {
        "type": "about:blank",
        "title": "Bad Gateway",
        "status": 502,
        "code": "exited",
    }
    assert problem["detail"].startswith("the function exited with code 3")
    assert problem["details"]["data"] == "part"
    elsewhere = await client.get("/nowhere", headers={"Accept": PROBLEM})
    assert (elsewhere.headers["content-type"], elsewhere.json()["title"]) == (PROBLEM, "Not Found")


@pytest.mark.parametrize("accept", [TEXT, BYTES])
async def test_bare_output_has_no_room_for_many_answers(client: httpx.AsyncClient, accept: str) -> None:
    body = {**CALL, "call": "F", "inputs": [[1]]}
    response = await client.post(PATH, json=body, headers={"Accept": accept})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (406, "not_acceptable")
    assert "application/x-ndjson or application/json" in problem["detail"]


async def test_a_form_that_no_answer_has(client: httpx.AsyncClient) -> None:
    response = await call(client, Accept="text/html")
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    assert response.headers["x-call-id"].startswith("inv-")


@pytest.mark.parametrize("own", ["", "trace-1:a/b_C.d@e+f=~", "x" * 128])
async def test_every_answer_has_an_id_and_the_callers_is_kept(
    world: World, client: httpx.AsyncClient, own: str
) -> None:
    told: list[InvocationStarted | InvocationFinished] = []
    world.events.tap(told.append, InvocationStarted, InvocationFinished)
    response = await call(client, **{"X-Call-Id": own} if own else {})
    assert response.headers["x-call-id"] == response.json()["id"]
    assert any(f"(the caller: {own})" in line.text for line in world.logs.lines()) is bool(own)
    assert [(event.invocation, event.caller_id) for event in told] == [(response.json()["id"], own)] * 2


@pytest.mark.parametrize("own", ["a b", "<script>", "é", "x" * 129, "a\tb", '"'])
async def test_what_is_no_sane_id_is_not_kept(world: World, client: httpx.AsyncClient, own: str) -> None:
    told: list[InvocationFinished] = []
    world.events.tap(told.append, InvocationFinished)
    response = await client.post(PATH, json=CALL, headers={b"X-Call-Id": own.encode()})
    assert response.status_code == 200
    assert told[0].caller_id == ""


async def test_refused_calls_have_an_id_too(client: httpx.AsyncClient) -> None:
    ids = {(await client.post(PATH, content=b"{}")).headers["x-call-id"] for _ in range(2)}
    assert len(ids) == 2
