"""SIGHUP: what changes at once, what takes a restart, and settings that are none."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from api.tls import Tls
from skyisland.cli.reloading import AT_ONCE, Reloading, differences
from skyisland.errors import SettingsError
from skyisland.settings import Api, CallLimits, Log, Settings
from tests.support.api import CALL, HEADER, World, make_world

OLD, NEW = "old-old-old-old-old-old-old", "new-new-new-new-new-new-new"
PEM = Path(__file__).with_name("tls")
BEFORE = Settings(admin_api_token=OLD, api=Api(callers={"ci": OLD + "-ci"}))
LISTING = "/api/v1/admin/jails"


async def reloaded(world: World, load: Callable[[], Settings], before: Settings = BEFORE) -> list[str]:
    """Read again what `load` gives; returns the secrets of the log."""
    secrets = [OLD]
    reloading = Reloading(load, before, world.island, world.app, secrets)
    task = asyncio.create_task(reloading.run())
    done = world.app.gate.read
    read = asyncio.Event()

    def noted(token: str, settings: Api) -> None:
        done(token, settings)
        read.set()

    world.app.gate.read = noted  # type: ignore[method-assign]
    reloading.ask()
    async with asyncio.timeout(10):
        while not read.is_set() and "everything stays" not in world.logs.lines()[-1].text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return secrets


async def test_tokens_limits_and_level_change_at_once(caplog: pytest.LogCaptureFixture) -> None:
    world = make_world(token=OLD, settings=BEFORE.api)
    await world.island.start()
    after = structs.replace(
        BEFORE,
        admin_api_token=NEW,
        http_port=81,
        api=Api(open=False, callers={"ci": NEW + "-ci"}, max_body=99, calls_per_client=3, idle_timeout=99.0),
        limits=CallLimits(memory=99 << 20),
        jails=structs.replace(BEFORE.jails, exec_timeout=99.0, max_running=3),
        log=Log(level="warning"),
    )
    level = logging.getLogger().level
    logging.getLogger().addHandler(world.logs)
    try:
        secrets = await reloaded(world, lambda: after)
        assert logging.getLogger().level == logging.WARNING
    finally:
        logging.getLogger().removeHandler(world.logs)
        logging.getLogger().setLevel(level)
    assert set(secrets) == {OLD, NEW, NEW + "-ci"}
    assert world.island.policy.exec_timeout_s == 99.0
    assert world.island.pool.limits.memory_bytes == 99 << 20
    assert ("GOMEMLIMIT", str(int((99 << 20) * 0.9))) in world.island.pool.environment
    async with world.client() as client:
        statuses = [(await client.get(LISTING, headers={HEADER: token})).status_code for token in (OLD, NEW)]
        assert statuses == [403, 200]
        calls = [
            (await client.post("/api/v1/function", json=CALL, headers=headers)).status_code
            for headers in ({}, {HEADER: OLD + "-ci"}, {HEADER: NEW + "-ci"})
        ]
        assert calls == [401, 403, 200]
        long = await client.post("/api/v1/function", content="x" * 100, headers={HEADER: NEW + "-ci"})
        assert long.status_code == 413
    done, later = [record.getMessage() for record in caplog.records if "SIGHUP" in record.getMessage()]
    assert done == (
        "SIGHUP: settings read again; in force: admin_api_token, jails.exec_timeout, limits.memory, "
        "api.callers, api.open, api.calls_per_client, api.max_body, log.level"
    )
    assert later == "SIGHUP: a restart is needed for: http_port, jails.max_running, api.idle_timeout"
    await world.island.stop()


async def test_bad_settings_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Settings:
        raise SettingsError("skyisland.toml: nonsense")

    world = make_world(token=OLD)
    await world.island.start()
    logging.getLogger().addHandler(world.logs)
    try:
        await reloaded(world, load)
    finally:
        logging.getLogger().removeHandler(world.logs)
    async with world.client() as client:
        assert (await client.get(LISTING, headers={HEADER: OLD})).status_code == 200
    assert "everything stays as it is: skyisland.toml: nonsense" in caplog.text
    await world.island.stop()


async def test_a_renewed_certificate_is_shown_to_whoever_connects_next(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key")}
    for name, file in files.items():
        file.write_bytes((PEM / f"{name}.pem").read_bytes())
    settings = Api(tls_cert=str(files["cert"]), tls_key=str(files["key"]))
    world = make_world(settings=settings)
    await world.island.start()
    loaded: list[str] = []
    async with world.served(tls=Tls(settings.tls_cert, settings.tls_key), per_client=8) as server:
        trusting = ssl.create_default_context(cafile=files["cert"])
        async with httpx.AsyncClient(verify=trusting) as client:
            url = f"https://127.0.0.1:{server.port}/healthcheck"
            assert (await client.get(url)).status_code == 200
            assert world.app.serving is not None
            context = world.app.serving.__self__.context  # type: ignore[attr-defined]
            context.load_cert_chain = lambda cert, key: loaded.extend((cert, key))
            world.app.reload(structs.replace(settings, connections_per_client=5), "t")
            assert world.app.serving.__self__.per_client == 5  # type: ignore[attr-defined]
            assert (await client.get(url)).status_code == 200
    assert loaded == [settings.tls_cert, settings.tls_key]
    await world.island.stop()


def test_the_keys_are_there() -> None:
    for key in AT_ONCE:
        value: object = Settings()
        for name in key.split("."):
            value = getattr(value, name)
    assert list(differences(Settings(), Settings())) == []
