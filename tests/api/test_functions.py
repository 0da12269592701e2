"""GET /api/v1/functions: what a package offers, for who may call it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import msgspec
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from msgspec import structs

from skyisland.cli import main
from skyisland.errors import BuildFailed
from skyisland.fakes import CATALOGUE
from skyisland.golang.catalogue import Catalogue
from skyisland.model import Source
from skyisland.settings import Api
from tests.api.test_parity import Here
from tests.support.api import CALL, HEADER, World, make_world

PATH = "/api/v1/functions"


async def test_what_a_package_offers(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH, params={"url": CALL["url"], "version": ""})
    offered = msgspec.json.decode(answer.content, type=Catalogue)
    assert answer.status_code == 200
    assert offered.url == CALL["url"]
    assert offered.version
    assert offered.functions == CATALOGUE.functions


async def test_a_request_without_url_and_a_package_that_does_not_compile(
    world: World, client: httpx.AsyncClient
) -> None:
    missing = await client.get(PATH)
    assert (missing.status_code, missing.json()["details"]) == (400, {"field": "url"})
    world.builds.fail = BuildFailed("does not compile", output="x.go:1: no")
    failed = await client.get(PATH, params={"url": CALL["url"]})
    assert (failed.status_code, failed.json()["details"]) == (422, {"output": "x.go:1: no"})


async def test_parameters_that_are_unknown_or_doubled(client: httpx.AsyncClient) -> None:
    url = CALL["url"]
    unknown = await client.get(PATH, params={"url": url, "verison": "nope"})
    assert unknown.status_code == 400
    assert unknown.json()["error"] == "unknown parameter 'verison'; there is url, version"
    assert unknown.json()["details"] == {"field": "verison"}
    doubled = await client.get(f"{PATH}?url={url}&version=a&version=b")
    assert (doubled.status_code, doubled.json()["details"]) == (400, {"field": "version"})
    assert "X-Call-Id" not in doubled.headers, "nothing is called"


async def test_only_callers_where_functions_are_not_open() -> None:
    world = make_world(settings=structs.replace(Api(), open=False, callers={"ci": "secret-of-ci"}))
    async with world.client() as client:
        refused = await client.get(PATH, params={"url": CALL["url"]})
        admitted = await client.get(PATH, params={"url": CALL["url"]}, headers={HEADER: "secret-of-ci"})
    assert (refused.status_code, admitted.status_code) == (401, 200)


async def test_it_counts_to_its_client_until_that_hangs_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world(settings=structs.replace(Api(), calls_per_client=1))
    began, over, clients = asyncio.Event(), asyncio.Event(), []

    async def slow(source: Source, *, client: str) -> Catalogue:
        clients.append(client)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()
        raise AssertionError

    monkeypatch.setattr(world.builds, "catalogue", slow)
    async with world.served() as server, httpx.AsyncClient(base_url=server.url) as client:
        asking = asyncio.create_task(client.get(PATH, params={"url": CALL["url"]}))
        async with asyncio.timeout(10):
            await began.wait()
            assert (await client.post("/api/v1/function", json=CALL)).status_code == 429
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            await over.wait()
        assert clients == ["127.0.0.1"]


async def test_a_shell_completes_names(world: World, tmp_path: Path) -> None:
    file = tmp_path / "skyisland.toml"

    def complete(port: int, *words: str) -> list[str]:
        file.write_text(f"http_port = {port}\nstate_dir = '{tmp_path}'\n")
        shell = ShellComplete(main, {}, "skyisland", "_SKYISLAND_COMPLETE")
        return [one.value for one in shell.get_completions(["-c", str(file), *words], "En")]

    async with world.served() as server:
        assert await asyncio.to_thread(complete, server.port, "functions", CALL["url"]) == ["Encode"]
    assert await asyncio.to_thread(complete, server.port, "functions", CALL["url"]) == []


async def test_the_command_lists_and_tells_all_about_one(world: World) -> None:
    async with world.served() as server:

        async def run(*words: str) -> str:
            result = await asyncio.to_thread(
                CliRunner().invoke, main.commands["functions"], words, obj=Here(server)
            )
            return result.output

        assert "Encode(lat, lng float64) string" in await run(CALL["url"])
        told = await run(CALL["url"], "Encode")
        assert f"skyisland invoke {CALL['url']} 'geohash.Encode(100.1, 80.9)'\njcc92ytsf8kn" in told
        assert "did you mean Encode?" in await run(CALL["url"], "Encoed")
        machine = msgspec.json.decode(await run(CALL["url"], "Encode", "--json"), type=Catalogue)
        assert [entry.name for entry in machine.functions] == ["Encode"]
