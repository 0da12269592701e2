"""Names and roles: who sees, who changes, who calls; how much one client may have; TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from api.tls import Tls
from skyisland import fakes
from skyisland.drivers.fake import Script
from skyisland.errors import SettingsError, SourceUnavailable
from skyisland.events import JailCreated
from skyisland.settings import Api
from tests.support.api import CALL, HEADER, World, make_world

ALICE, GRAFANA, CI = "alice-" * 4, "grafana-" * 4, "ci-" * 8
SETTINGS = Api(admins={"alice": ALICE}, operators={"grafana": GRAFANA}, callers={"ci": CI})
TLS = Path(__file__).with_name("tls")


@pytest.fixture
async def closed() -> AsyncIterator[World]:
    """An island where calls take a token."""
    world = make_world(settings=structs.replace(SETTINGS, open=False))
    await world.island.start()
    yield world
    await world.island.stop()


@pytest.mark.parametrize(
    ("token", "sees", "changes", "calls"),
    [
        (ALICE, 200, 200, 200),
        (GRAFANA, 200, 403, 403),
        (CI, 403, 403, 200),
        ("x" * 24, 403, 403, 403),
        ("", 401, 401, 401),
    ],
    ids=["admin", "operator", "caller", "stranger", "nobody"],
)
@pytest.mark.parametrize("header", [HEADER, "Authorization"])
async def test_roles(closed: World, header: str, token: str, sees: int, changes: int, calls: int) -> None:
    shown = f"Bearer {token}" if header == "Authorization" else token
    async with closed.client(headers={header: shown}) as client:
        seen = [
            await client.get(path) for path in ("/metrics", "/api/v1/admin/jails", "/api/v1/admin/snapshot")
        ]
        assert {response.status_code for response in seen} == {sees}
        assert (await client.delete("/api/v1/admin/jails")).status_code == changes
        assert (await client.post("/api/v1/admin/cache/purge")).status_code == changes
        assert (await client.post("/api/v1/function", json=CALL)).status_code == calls
        assert (await client.get("/healthcheck")).status_code == 200


async def test_what_is_for_admins_is_told_to_admins(closed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = SourceUnavailable("there is no such repository, or it is private", url="x")
    refusal.for_admins = "401: the token has expired"

    async def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(closed.island.sources, "resolve", refuse)
    for token, details in [
        (ALICE, {"url": "x", "reason": "401: the token has expired"}),
        (CI, {"url": "x"}),
    ]:
        async with closed.client(headers={HEADER: token}) as client:
            answers = (
                await client.post("/api/v1/function", json=CALL),
                await client.get("/api/v1/functions?url=github.com/a/b"),
            )
            for answer in answers:
                assert answer.status_code == 502
                assert {**answer.json()["details"], "remembered_s": 0} == {**details, "remembered_s": 0}
                assert ("expired" in answer.text) is (token == ALICE)


@pytest.mark.parametrize("token", ["", CI, GRAFANA, ALICE, "a wrong one"])
async def test_an_open_island_lets_everybody_call(token: str) -> None:
    world = make_world(settings=SETTINGS)
    await world.island.start()
    async with world.client(headers={HEADER: token}) as client:
        assert (await client.post("/api/v1/function", json=CALL)).status_code == 200
    await world.island.stop()


async def test_the_log_tells_who_did_it(closed: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with closed.client(headers={HEADER: ALICE}) as client:
        await client.delete("/api/v1/admin/jails")
    async with closed.client(headers={HEADER: GRAFANA}) as client:
        await client.delete("/api/v1/admin/jails")
    done, tried = [record for record in caplog.records if record.name.startswith("api.")]
    assert (done.name, done.getMessage()) == ("api.audit", "alice@127.0.0.1 killed all 0 jails")
    assert (vars(done)["who"], vars(done)["address"]) == ("alice", "127.0.0.1")
    assert (tried.levelno, tried.getMessage()) == (
        logging.WARNING,
        "grafana@127.0.0.1 tried what takes an admin",
    )


async def test_a_client_has_only_so_many_calls_and_others_theirs() -> None:
    world = make_world(fakes.policy(max_running=10), settings=structs.replace(SETTINGS, calls_per_client=2))
    await world.island.start()
    world.driver.script = lambda data: Script(duration_s=float("inf"))
    async with world.client() as client, world.client(headers={HEADER: CI}) as named:
        running = []
        for _ in range(2):
            running.append(asyncio.create_task(client.post("/api/v1/function", json=CALL)))
            await world.next(JailCreated)
        refused = await client.post("/api/v1/function", json=CALL)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_busy")
        assert "2 calls under way" in refused.json()["error"]
        assert refused.headers["retry-after"] == "1"
        running.append(asyncio.create_task(named.post("/api/v1/function", json=CALL)))
        await world.next(JailCreated)
        await world.island.kill_all()
        assert [(await task).status_code for task in running] == [502, 502, 502]
        world.driver.script = lambda data: Script()
        assert (await client.post("/api/v1/function", json=CALL)).status_code == 200
    await world.island.stop()


async def test_tls_alone() -> None:
    tls = Tls(str(TLS / "cert.pem"), str(TLS / "key.pem"))
    tls.check()
    world = make_world()
    await world.island.start()
    trusting = ssl.create_default_context(cafile=TLS / "cert.pem")
    async with world.served(tls=tls) as server, httpx.AsyncClient(verify=trusting) as client:
        answer = await client.get(f"https://127.0.0.1:{server.port}/healthcheck")
        assert answer.json() == {"status": "ok"}
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{server.port}/healthcheck")
    await world.island.stop()


def test_files_that_are_no_certificate_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"api\.tls_cert"):
        Tls(str(TLS / "cert.pem"), str(TLS / "cert.pem")).check()
    with pytest.raises(SettingsError, match="No such file"):
        Tls(str(tmp_path / "none"), str(TLS / "key.pem")).check()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[api]\nadmins = {a = 'short'}", "api.admins.a"),
        ("[api]\nadmins = {a = 'xxxxxxxxxxxxxxxxx'}\ncallers = {a = 'yyyyyyyyyyyyyyyyyyyyy'}", "api.callers"),
        ("[api]\ntls_cert = '/x/cert.pem'", "api.tls_key"),
        ("[api]\noperators = ['x']", "api.operators"),
    ],
)
def test_bad_settings_are_told_without_tokens(load_settings, text: str, key: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SettingsError, match=key) as error:
        load_settings(text)
    assert not any(token in str(error.value) for token in ("short", "xxxx", "yyyy"))


def test_tokens_are_not_shown() -> None:
    assert ALICE not in repr(SETTINGS)
    assert set(SETTINGS.tokens) == {ALICE, GRAFANA, CI}
