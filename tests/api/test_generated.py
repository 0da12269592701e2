"""A client that is generated from the description, of every operation, used against a real server."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.description import describe
from skyisland.codec import encode
from skyisland.operations import OPERATIONS
from tests.support.api import HEADER, answers, make_world

TOKEN = "a-token-for-a-generated-client"
GENERATOR = Path(sys.executable).with_name("openapi-python-client")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the generated package, which can be imported; the generator complained of nothing."""
    folder = tmp_path_factory.mktemp("generated")
    described, config = folder / "openapi.json", folder / "config.yml"
    described.write_bytes(encode(describe(HEADER)))
    # It has no word for lines of JSON, as a watched output is answered.
    lines = "content_type_overrides: {application/x-ndjson: application/json}"
    config.write_text(f"post_hooks: []\npackage_name_override: skyisland_generated\n{lines}\n")
    said = subprocess.run(
        [
            *(GENERATOR, "generate", "--meta", "none", "--fail-on-warning"),
            *("--path", described, "--config", config, "--output-path", folder / "skyisland_generated"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    sys.path.insert(0, str(folder))
    return "skyisland_generated"


async def test_it_has_every_operation_and_they_work(package: str) -> None:
    def module(name: str) -> Any:
        return importlib.import_module(f"{package}.api.default.{name}")

    def modules() -> dict[str, Any]:
        paths = [(one.name, place) for one in OPERATIONS for place in range(1, len(one.paths) + 1)]
        names = [f"{name}_{place}" if place > 1 else name for name, place in paths]
        return {name: module(name) for name in names}

    api = await asyncio.to_thread(modules)
    models = await asyncio.to_thread(importlib.import_module, f"{package}.models")
    made = await asyncio.to_thread(importlib.import_module, package)
    world = make_world(token=TOKEN)
    answers(world, b"printed", {"results": ["u4pruydqqvj"]})
    await world.island.start()
    async with world.served() as server:
        client = made.AuthenticatedClient(server.url, token=TOKEN)
        async with client:

            async def ask(name: str, **parameters: Any) -> Any:
                response = await api[name].asyncio_detailed(client=client, **parameters)
                assert response.status_code == 200, response.content
                return response.parsed

            assert (await ask("health")).status == "ok"
            body = models.FunctionBody(url="github.com/mmcloughlin/geohash", call="Encode", args=[57.6, 10.4])
            called = await ask("invoke", body=body)
            assert (called.data, called.results, called.cached) == ("printed", ["u4pruydqqvj"], False)
            out = models.AddressBodyStateType0.UNAVAILABLE
            taken = models.AddressBody(ip="10.61.0.2", state=out)
            assert (await ask("set_address", body=taken)).state == "unavailable"
            back = models.AddressBody(ip="10.61.0.2", state=models.AddressBodyStateType1.VALUE_0)
            assert (await ask("set_address_3", body=back)).state == "available"
            (past,) = (await ask("invocations", limit=1)).invocations
            assert past.verdict == "ok"
            assert (await ask("snapshot")).island == "t"
            assert (await ask("jails")).jails == []
            assert (await ask("purge")).evicted
            wrong = await api["jail"].asyncio_detailed("99", client=client)
            assert (wrong.status_code, json.loads(wrong.content)["code"]) == (404, "jail_not_found")
    await world.island.stop()
