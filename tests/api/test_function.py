"""POST /api/v1/function: what goes in, what comes out, and every way it can end."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.problems import STATUS
from skyisland import errors, fakes
from skyisland.codec import decode
from skyisland.drivers.fake import Script
from skyisland.events import Events, InvocationFinished, JailCreated
from skyisland.jails.addresses import Addresses, NoInterfaces
from skyisland.model import Limits, Verdict
from skyisland.settings import IP4
from skyisland.status import AddressState
from skyisland.wire import FunctionBody
from tests.support.api import CALL, World, make_world

PATH = "/api/v1/function"
PHASES = ["queue", "resolve", "clone", "build", "jail", "exec", "total"]


async def call(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post(PATH, json=CALL | fields)


def plays(world: World, **script: Any) -> None:
    """What every function does from now on."""
    world.driver.script = lambda data: Script(**script)


async def test_an_answer(world: World, client: httpx.AsyncClient) -> None:
    plays(world, stdout=b"jcc92ytsf8kn", stderr=b"warned")
    response = await call(client)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert list(answer) == [
        *("timestamp", "data", "results", "error", "failed", "stdout"),
        *("id", "jail", "version", "cached", "stale", "warm", "exit_code", "stderr"),
        "timings_ms",
    ]
    assert answer["data"] == "jcc92ytsf8kn"
    assert abs(answer["timestamp"] - time.time()) < 60
    assert answer["id"].startswith("inv-")
    assert answer["jail"] == "sky-t-1"
    assert len(answer["version"]) == 40
    assert (answer["cached"], answer["stale"], answer["exit_code"]) == (False, False, 0)
    assert answer["stderr"] == "warned"
    assert list(answer["timings_ms"]) == PHASES
    assert (await call(client)).json()["cached"] is True


async def test_server_timing(client: httpx.AsyncClient) -> None:
    response = await call(client)
    header = response.headers["server-timing"]
    parts = dict(part.split(";dur=") for part in header.split(", "))
    assert list(parts) == PHASES
    assert {phase: float(ms) for phase, ms in parts.items()} == response.json()["timings_ms"]


@pytest.mark.parametrize(
    "content_type", [None, "application/x-www-form-urlencoded", "text/plain", "application/json"]
)
async def test_any_content_type(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.post(PATH, content=json.dumps(CALL), headers=headers)
    assert response.status_code == 200


async def test_output_that_is_no_text(world: World, client: httpx.AsyncClient) -> None:
    plays(world, stdout=b"\xff\x00ok", stderr=b"\xfe")
    answer = (await call(client)).json()
    assert answer["data"] == "\ufffd\x00ok"
    assert base64.b64decode(answer["data_base64"]) == b"\xff\x00ok"
    assert answer["stderr"] == "\ufffd"


@pytest.mark.parametrize(
    ("fields", "stdin"),
    [
        ({}, b""),
        ({"stdin": "é\n"}, "é\n".encode()),
        ({"stdin_base64": base64.b64encode(b"\xff\x00").decode()}, b"\xff\x00"),
    ],
)
async def test_stdin(world: World, client: httpx.AsyncClient, fields: dict[str, str], stdin: bytes) -> None:
    fed = []
    world.driver.script = lambda data: fed.append(data) or Script()  # type: ignore[func-returns-value]
    assert (await call(client, **fields)).status_code == 200
    assert fed[0].endswith(b"}" + stdin)


async def test_the_request_reaches_the_island(world: World, client: httpx.AsyncClient) -> None:
    answer = (await call(client, ip4=True, cache_bust=True, version="v1")).json()
    plain = (await call(client, version=None)).json()
    assert answer["version"] != plain["version"]
    (artifact, _) = world.builds.artifacts()
    assert artifact.function == "Encode"


class NoStates:
    """No address was ever taken out."""

    async def taken_out(self) -> dict[str, float | None]:
        return {}

    async def set_address_state(self, ip: str, state: AddressState) -> None:
        raise NotImplementedError


async def test_where_no_jail_can_have_an_address_a_call_that_wants_one_is_refused() -> None:
    driver = NoInterfaces("there is no network driver for this system")
    world = make_world(addresses=Addresses(IP4(), driver, NoStates(), Events()))
    await world.island.start()
    async with world.client() as client:
        refused = await call(client, ip4=True)
        assert world.builds.artifacts() == [], "it is refused before anything is built"
        answered = await call(client)
        told = (await client.get("/api/v1/capabilities")).json()["capabilities"]
    await world.island.stop()
    assert (refused.status_code, refused.json()["code"]) == (503, "host_unfit")
    assert "there is no network driver for this system; leave ip4 out" in refused.json()["error"]
    assert answered.status_code == 200
    (network,) = (capability for capability in told if capability["name"] == "network")
    assert not network["enforced"]
    assert network["how"] == "there is no network driver for this system"


@pytest.mark.parametrize(
    ("script", "verdict", "status", "details"),
    [
        ({"exit_code": 3, "stdout": b"part", "stderr": b"oh"}, "exited", 502, {"exit_code": 3}),
        ({"exit_code": -11}, "signaled", 502, {"signal": 11, "exit_code": None}),
        ({"out_of_memory": True}, "out_of_memory", 502, {}),
        ({"stdout": b"x" * 40}, "output_limit", 502, {"data": "x" * 20}),
        ({"duration_s": float("inf"), "stdout": b"never"}, "timed_out", 504, {"data": ""}),
    ],
)
async def test_misfortunes(
    script: dict[str, Any], verdict: str, status: int, details: dict[str, Any]
) -> None:
    policy = fakes.policy(exec_timeout_s=0.02)
    policy = fakes.policy(
        exec_timeout_s=policy.exec_timeout_s, limits=policy.limits.__class__(stdout_bytes=20, stderr_bytes=20)
    )
    world = make_world(policy)
    await world.island.start()
    plays(world, **script)
    async with world.client() as client:
        response = await call(client)
    await world.island.stop()
    body = response.json()
    assert (response.status_code, body["code"]) == (status, verdict)
    assert list(body) == ["error", "code", "details"]
    assert {"exit_code", "signal", "stderr", "data", "timings_ms", "id", "jail"} <= set(body["details"])
    assert details.items() <= body["details"].items()
    assert "server-timing" in response.headers
    if verdict == "exited":
        assert body["error"].endswith("; details has its stderr")
        assert body["details"]["stderr"] == "oh"
        assert body["details"]["data"] == "part"


async def test_killed_by_the_operator(
    world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    plays(world, duration_s=float("inf"))
    running = asyncio.create_task(call(client))
    await world.next(JailCreated)
    (jail,) = world.driver.alive
    assert (await admin.delete(f"/api/v1/admin/jail/{jail}")).json() == {"deleted": 1}
    response = await running
    assert (response.status_code, response.json()["code"]) == (502, "killed")


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ("", None, "empty"),
        (" \n", None, "empty"),
        ("{}", "url", "missing"),
        ("[]", None, "expected `object`"),
        ("null", None, "expected `object`"),
        ('{"url":1,"call":"F()"}', "url", "expected `str`, got `int`"),
        ('{"url":"a","call":"F()","ip4":"yes"}', "ip4", "expected `bool`"),
        ('{"url":"a","call":"F()","ip4":1}', "ip4", "expected `bool`"),
        ('{"url":"a","call":"F()","colour":"red"}', "colour", "unknown field 'colour'; there are url, call"),
        ('{"url":"a","url":"b","call":"F()"}', "url", "twice"),
        ('{"url":"a","call":"F()","stdin":"a","stdin_base64":"YQ=="}', "stdin", "exclude"),
        ('{"url":"a","call":"F()","stdin_base64":"*"}', "stdin_base64", "base64"),
        ('{"url":"a","call":"F()"} {}', None, "not JSON"),
        ('{"url":"a","call":"F()"', None, "not JSON"),
        ('{"url":"\\ud800","call":"F()"}', None, "not JSON"),
        (b'{"url":"\xff","call":"F()"}', None, "not JSON"),
        ("[" * 100_000, None, "expected `object`"),
        ('{"url":' + "[" * 100_000, "url", "got `array`"),
        ('{"x":' + "[" * 100_000, "x", "unknown field"),
        ('{"url":"a","call":"F()","ip4":' + "9" * 900_000 + "}", "ip4", "range"),
    ],
)
async def test_bad_bodies(
    client: httpx.AsyncClient, body: str | bytes, field: str | None, words: str
) -> None:
    started = time.perf_counter()
    response = await client.post(PATH, content=body)
    assert time.perf_counter() - started < 1
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "bad_request")
    assert words in problem["error"]
    assert problem.get("details", {}).get("field") == field


@given(st.binary(max_size=60) | st.dictionaries(st.text(max_size=9), st.none() | st.text() | st.integers()))
@settings(max_examples=50)
def test_no_body_breaks_the_reader(body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(errors.BadRequest):
        decode(data, FunctionBody)


async def test_a_call_that_is_none_is_told_where(client: httpx.AsyncClient) -> None:
    response = await call(client, call="X()); os.Exit(0);(")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "bad_call")
    assert isinstance(problem["details"]["position"], int)


async def test_too_long(client: httpx.AsyncClient) -> None:
    response = await call(client, stdin="x" * (1 << 20))
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (errors.BadRequest("b", field="url"), 400, None),
        (errors.SourceRefused("s"), 403, None),
        (errors.BuildFailed("b", output="main.go:1"), 422, None),
        (errors.TooBusy("t", retry_after_s=1.2), 429, "2"),
        (errors.TooBusy("t"), 429, "1"),
        (errors.SourceUnavailable("s"), 502, None),
        (errors.NoAddress("n"), 503, "1"),
        (errors.Draining("d", retry_after_s=5), 503, "5"),
        (errors.HostUnfit("h"), 503, None),
        (errors.DriverError("d"), 500, None),
    ],
)
async def test_refusals(
    world: World, client: httpx.AsyncClient, error: errors.IslandError, status: int, again: str | None
) -> None:
    world.builds.fail = error
    response = await call(client)
    problem = response.json()
    assert response.status_code == status
    assert problem["code"] == error.code
    assert problem["error"] == error.message
    assert problem.get("details", {}) == error.details
    assert response.headers.get("retry-after") == again


async def test_a_bug_is_ours_and_tells_nothing(
    world: World, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    world.builds.fail = ZeroDivisionError("secret")
    response = await call(client)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_stopping_island_takes_nothing(world: World, client: httpx.AsyncClient) -> None:
    await world.island.stop()
    response = await call(client)
    assert (response.status_code, response.json()["code"]) == (503, "draining")
    assert response.headers["retry-after"] == "5"
    assert (await client.get("/healthcheck")).status_code == 200


async def test_overload_is_refused_and_health_answers() -> None:
    world = make_world(fakes.policy(max_running=1, max_queued=0))
    await world.island.start()
    plays(world, duration_s=float("inf"))
    async with world.client() as client:
        running = asyncio.create_task(call(client))
        await world.next(JailCreated)
        refused = await call(client)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_busy")
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/api/v1/healthcheck")).status_code == 200
        await world.island.kill_all()
        assert (await running).status_code == 502
        await world.island.stop()


async def test_processor_time_has_an_end_of_its_own() -> None:
    world = make_world(fakes.policy(limits=Limits(cpu_time_s=0.005)))
    await world.island.start()
    plays(world, duration_s=float("inf"))
    async with world.client() as client:
        response = await call(client)
    assert (response.status_code, response.json()["code"]) == (502, "cpu_time")
    await world.island.stop()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_only_post_runs_functions(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, PATH)
    assert response.status_code == 405
    assert response.headers["allow"] == "OPTIONS, POST"


async def test_options(client: httpx.AsyncClient) -> None:
    response = await client.options(PATH)
    assert (response.status_code, response.headers["allow"]) == (200, "OPTIONS, POST")


async def test_history_has_the_call(world: World, client: httpx.AsyncClient) -> None:
    answer = (await call(client)).json()
    (last,) = await world.island.invocations(1)
    assert isinstance(last, InvocationFinished)
    assert last.invocation == answer["id"]


def test_every_error_and_verdict_has_a_status() -> None:
    def tree(root: type[errors.IslandError]) -> set[str]:
        ours = [one for one in root.__subclasses__() if not one.__module__.startswith("skyisland.client")]
        return {root.code}.union(*map(tree, ours))

    assert tree(errors.IslandError) <= set(STATUS)
    assert {str(verdict) for verdict in Verdict} - {"ok", "failed"} <= set(STATUS)
