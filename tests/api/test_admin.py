"""What admins see and do, and who is no admin."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from api import create_app
from api.auth import Gate
from skyisland.drivers.fake import Script
from skyisland.errors import Forbidden
from skyisland.events import JailCreated
from skyisland.operations import OPERATIONS, Role
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics, StatsD
from tests.support.api import ADMIN, CALL, HEADER, TOKEN, World

ADMIN_PATHS = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/admin/api-stats"),
    ("GET", "/api/v1/admin/jails"),
    ("DELETE", "/api/v1/admin/jails"),
    ("GET", "/api/v1/admin/jail/1"),
    ("DELETE", "/api/v1/admin/jail/1"),
    ("GET", "/api/v1/admin/ips"),
    ("PUT", "/api/v1/admin/ips"),
    ("GET", "/api/v1/admin/network/ips"),
    ("PUT", "/api/v1/admin/network/ips"),
    ("PUT", "/api/v1/admin/network/ip"),
    ("GET", "/api/v1/admin/cache"),
    ("DELETE", "/api/v1/admin/cache/k"),
    ("POST", "/api/v1/admin/cache/purge"),
    ("POST", "/api/v1/admin/cache/k/rebuild"),
    ("GET", "/api/v1/names"),
    ("GET", "/api/v1/names/n"),
    ("PUT", "/api/v1/names/n"),
    ("DELETE", "/api/v1/names/n"),
    ("GET", "/api/v1/names/n/revisions"),
    ("POST", "/api/v1/names/n/move"),
    ("POST", "/api/v1/names/n/rollback"),
    ("POST", "/api/v1/names/n/pause"),
    ("POST", "/api/v1/names/n/resume"),
    ("GET", "/api/v1/secrets"),
    ("PUT", "/api/v1/secrets/S"),
    ("DELETE", "/api/v1/secrets/S"),
    ("GET", "/api/v1/admin/functions"),
    ("GET", "/api/v1/admin/functions/f"),
    ("GET", "/api/v1/admin/jails/1/output"),
    ("GET", "/api/v1/admin/invocations"),
    ("GET", "/api/v1/admin/invocations/i"),
    ("GET", "/api/v1/admin/events"),
    ("HEAD", "/api/v1/admin/events"),
    ("GET", "/api/v1/admin/snapshot"),
    ("GET", "/api/v1/admin/logs"),
]


async def running_jail(
    world: World, client: httpx.AsyncClient, **fields: Any
) -> asyncio.Task[httpx.Response]:
    """A call that runs until it is killed."""
    world.driver.script = lambda data: Script(duration_s=float("inf"))
    task = asyncio.create_task(client.post("/api/v1/function", json=CALL | fields))
    await world.next(JailCreated)
    return task


@pytest.mark.parametrize(("method", "path"), ADMIN_PATHS)
async def test_only_admins(world: World, client: httpx.AsyncClient, method: str, path: str) -> None:
    bare = await client.request(method, path)
    assert bare.status_code == 401
    if method != "HEAD":
        whose = "an operator's or admin's" if method == "GET" else "an admin's"
        where = f"in the header {HEADER} or as Authorization: Bearer"
        assert bare.json()["error"] == f"this needs {whose} token, {where}"
    assert bare.headers["www-authenticate"] == "Bearer"
    empty = await client.request(method, path, headers={HEADER: ""})
    assert empty.status_code == 401
    for wrong in (b"a", b"x" * 100, TOKEN.encode() + b"x", TOKEN.encode()[:-1], b"\xff\xfe"):
        response = await client.request(method, path, headers=[(HEADER.encode(), wrong)])
        assert response.status_code == 403
        if method != "HEAD":
            assert response.json()["code"] == "forbidden"
            assert HEADER in response.json()["error"]


def test_every_path_with_a_role_is_tried_above() -> None:
    guarded = {
        (operation.method, path.format(jail="1", key="k", invocation="i", name="n", secret="S", function="f"))
        for operation in OPERATIONS
        if operation.role in (Role.admin, Role.operator)
        for path in operation.paths
    }
    assert guarded == set(ADMIN_PATHS) - {("HEAD", "/api/v1/admin/events")}


OF_CALLERS = {"invoke", "call", "cancel", "redrive", "forget_calls", "reproduce", "push"}
"""What changes nothing but the caller's own calls; and a push, which its signature admits."""


def test_whatever_changes_something_takes_an_admin() -> None:
    changing = {operation.name for operation in OPERATIONS if operation.method != "GET"} - OF_CALLERS
    assert {operation.name for operation in OPERATIONS if operation.role is Role.admin} == changing


async def test_no_token_no_admin(world: World) -> None:
    app = create_app(world.island, token="", token_header=HEADER, metrics=Metrics(), logs=LogRing())
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://island") as client:
        for token in ("", "x", "None"):
            response = await client.get("/api/v1/admin/jails", headers={HEADER: token})
            assert response.status_code in (401, 403)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    with pytest.raises(Forbidden):
        Gate(HEADER, "right").admit("wrong", None, change=False)
    assert compared == [(b"wrong", b"right")]


async def test_jails(world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/api/v1/admin/jails")).json() == {"jails": []}
    task = await running_jail(world, client, ip4=True)
    (jail,) = (await admin.get("/api/v1/admin/jails")).json()["jails"]
    assert list(jail)[:8] == ["host", "ip4", "ip6", "jid", "name", "OSRelease", "path", "hostname"]
    assert (jail["jid"], jail["name"], jail["hostname"]) == (1, "sky-t-1", "sky-t-1")
    assert (jail["ip4"], jail["ip6"]) == ("10.61.0.2", "disable")
    assert (jail["state"], jail["purpose"]) == ("running", "function")
    assert (jail["url"], jail["call"]) == (CALL["url"], CALL["call"])
    assert jail["memory_bytes"] == 12 << 20
    assert jail["age_s"] >= 0
    for name in ("1", "sky-t-1"):
        details = (await admin.get(f"/api/v1/admin/jail/{name}")).json()["details"]
        assert details["name"] == "sky-t-1"
    assert (await admin.delete("/api/v1/admin/jail/1")).json() == {"deleted": 1}
    assert (await task).json()["code"] == "killed"


async def test_kill_all(world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    assert (await admin.delete("/api/v1/admin/jails")).json() == {"deleted": []}
    tasks = [await running_jail(world, client), await running_jail(world, client)]
    response = await admin.delete("/api/v1/admin/jails")
    assert (response.status_code, response.json()) == (200, {"deleted": [1, 2]})
    assert [response.status_code for response in await asyncio.gather(*tasks)] == [502, 502]


@pytest.mark.parametrize(
    "jail",
    ["*", "0", "-1", "99", "..", "%2e%2e%2f1", "..%2f", "%2f", "sky-t-", "sky-t-2", "1%00", "1%0a", "\u0661"],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_no_other_jails(
    world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient, method: str, jail: str
) -> None:
    task = await running_jail(world, client)
    response = await admin.request(method, httpx.URL(f"http://island/api/v1/admin/jail/{jail}"))
    assert response.status_code == 404
    assert response.json()["code"] in ("jail_not_found", "not_found")
    assert len(world.driver.alive) == 1
    await world.island.kill_all()
    await task


@pytest.mark.parametrize("path", ["/api/v1/admin/ips", "/api/v1/admin/network/ips"])
async def test_addresses(
    world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient, path: str
) -> None:
    task = await running_jail(world, client, ip4=True)
    await admin.put("/api/v1/admin/ips", json={"ip": "10.61.0.3", "state": "unavailable"})
    pool = (await admin.get(path)).json()
    assert list(pool.values()) == ["sky-t-1", None, None, None, None, None]
    available = (await admin.get(path, params={"state": "available"})).json()
    assert available == {"available": ["10.61.0.4", "10.61.0.5", "10.61.0.6", "10.61.0.7"]}
    unavailable = (await admin.get(path, params={"state": "unavailable"})).json()
    assert unavailable == {"unavailable": ["10.61.0.2", "10.61.0.3"]}
    for state in ("", "leased", "0"):
        response = await admin.get(path, params={"state": state})
        assert response.status_code == 422
        assert response.json()["error"] == "unrecognized IP state"
    await world.island.kill_all()
    await task


@pytest.mark.parametrize("path", ["/api/v1/admin/ips", "/api/v1/admin/network/ip"])
@pytest.mark.parametrize(
    ("state", "set_to"),
    [("available", "available"), ("unavailable", "unavailable"), (0, "available"), (1, "unavailable")],
)
async def test_set_address(admin: httpx.AsyncClient, path: str, state: str | int, set_to: str) -> None:
    response = await admin.put(
        path, content=b'{"ip":"10.61.0.2","state":%s}' % repr(state).replace("'", '"').encode()
    )
    assert response.status_code == 200
    assert response.json()["state"] == set_to
    listed = await admin.get("/api/v1/admin/ips", params={"state": set_to})
    assert "10.61.0.2" in listed.json()[set_to]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"ip": "10.61.0.2", "state": "leased"}, 422, "bad_state"),
        ({"ip": "10.61.0.2", "state": 2}, 422, "bad_state"),
        ({"ip": "10.61.0.2", "state": True}, 400, "bad_request"),
        ({"ip": "10.61.0.2", "state": None}, 400, "bad_request"),
        ({"ip": "10.61.0.2"}, 400, "bad_request"),
        ({"ip": "10.61.0.2", "state": 0, "force": 1}, 400, "bad_request"),
        ({"ip": "10.61.0.256", "state": 0}, 400, "bad_request"),
        ({"ip": "::1", "state": 0}, 400, "bad_request"),
        ({"ip": "", "state": 0}, 400, "bad_request"),
        ({"ip": "10.62.0.1", "state": 0}, 404, "address_not_found"),
    ],
)
async def test_bad_addresses(admin: httpx.AsyncClient, body: Any, status: int, code: str) -> None:
    response = await admin.put("/api/v1/admin/ips", json=body)
    assert (response.status_code, response.json()["code"]) == (status, code)


async def test_an_address_in_use(world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    task = await running_jail(world, client, ip4=True)
    response = await admin.put("/api/v1/admin/ips", json={"ip": "10.61.0.2", "state": "available"})
    assert (response.status_code, response.json()["code"]) == (409, "address_in_use")
    await world.island.kill_all()
    await task


async def test_admin_bodies_are_bounded(admin: httpx.AsyncClient) -> None:
    for path in ("/api/v1/admin/ips", "/api/v1/names/encode"):
        response = await admin.put(path, content=b"x" * (65 << 10))
        assert (response.status_code, response.json()) == (
            413,
            {
                "error": "the body is longer than 65536 bytes; send less",
                "code": "too_large",
                "details": {"limit_bytes": 65536},
            },
        )


async def test_cache(client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    await client.post("/api/v1/function", json=CALL)
    await client.post("/api/v1/function", json=CALL | {"call": "Decode()"})
    listed = (await admin.get("/api/v1/admin/cache")).json()["artifacts"]
    assert [artifact["function"] for artifact in listed] == ["Encode", "Decode"]
    assert listed[0]["url"] == CALL["url"]
    key = listed[0]["key"]
    assert (await admin.post(f"/api/v1/admin/cache/{key}/rebuild")).json().keys() == {"rebuilt"}
    assert (await admin.post("/api/v1/admin/cache/k/rebuild")).json()["code"] == "artifact_not_found"
    assert (await admin.delete(f"/api/v1/admin/cache/{key}")).json() == {"evicted": key}
    gone = await admin.delete(f"/api/v1/admin/cache/{key}")
    assert (gone.status_code, gone.json()["code"]) == (404, "artifact_not_found")
    evicted = (await admin.post("/api/v1/admin/cache/purge")).json()["evicted"]
    assert listed[1]["key"] in evicted
    assert (await admin.get("/api/v1/admin/cache")).json() == {"artifacts": []}


async def test_what_admins_do_is_logged(
    world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    task = await running_jail(world, client)
    await admin.delete("/api/v1/admin/jail/1")
    await admin.delete("/api/v1/admin/jails")
    await admin.put("/api/v1/admin/ips", json={"ip": "10.61.0.2", "state": "unavailable"})
    await admin.post("/api/v1/admin/cache/purge")
    await client.get("/api/v1/admin/jails", headers={HEADER: "wrong-one"})
    await task
    said = [record.getMessage() for record in caplog.records if record.name.startswith("api.")]
    assert [" ".join(text.split()[1:3]) for text in said] == [
        *("killed the", "killed all", "set the", "purged the", "wrong admin"),
    ]
    assert not any("wrong-one" in text for text in said)


async def test_statsd_counts_handlers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(StatsD, "count", lambda self, name: told.append(name))
    monkeypatch.setattr(world.metrics, "statsd", StatsD("localhost"))
    async with world.client(headers=ADMIN) as admin:
        await admin.post("/api/v1/function", content=b"bad")
        await admin.get("/api/v1/admin/jails")
        await admin.get("/api/v1/admin/jail/1")
        await admin.delete("/api/v1/admin/jail/1")
        await admin.delete("/api/v1/admin/jails")
    assert told == [
        "handlers.function.run",
        *(f"handlers.jail.{name}" for name in ("running", "details", "kill", "killall")),
    ]
