"""Web pages of strangers, in a browser that reaches the island: they may do nothing."""

from __future__ import annotations

import httpx
import pytest

from skyisland.events import JailCreated
from skyisland.settings import Api
from tests.support.api import ADMIN, CALL, World, make_world

HERE = "http://127.0.0.1:3280"
FUNCTION = "/api/v1/function"
DEEDS = [("POST", FUNCTION), ("POST", "/api/v1/admin/cache/purge"), ("DELETE", "/api/v1/admin/jails")]
NAMED = "https://island.example.org"


async def sent(world: World, base: str, method: str, path: str, **headers: str) -> httpx.Response:
    async with world.client(headers=ADMIN) as client:
        body = CALL if path == FUNCTION else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, f"{base}{path}", json=body, headers=named)


@pytest.mark.parametrize(("method", "path"), DEEDS)
@pytest.mark.parametrize(
    ("base", "headers"),
    [
        (HERE, {"origin": "https://evil.example"}),
        (HERE, {"origin": "null"}),
        (HERE, {"origin": "http://localhost:8000"}),
        (HERE, {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-site"}),
        (HERE, {"origin": ""}),
        # A name of the page's own that leads to the loopback: the browser calls that the same origin.
        ("http://evil.example:3280", {"origin": "http://evil.example:3280", "sec_fetch_site": "same-origin"}),
        ("http://127.0.0.1.evil.example", {"origin": "http://127.0.0.1.evil.example"}),
        (HERE, {"sec_fetch_site": "cross-site"}),
        (HERE, {"sec_fetch_site": "same-site"}),
    ],
)
async def test_a_strangers_page_does_nothing(
    world: World, base: str, headers: dict[str, str], method: str, path: str
) -> None:
    made = []
    world.events.tap(lambda event: made.append(event) if isinstance(event, JailCreated) else None)
    refused = await sent(world, base, method, path, **headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
    assert made == []
    assert (await sent(world, base, method, path)).status_code == 200


@pytest.mark.parametrize(
    ("base", "headers"),
    [
        (HERE, {}),
        (HERE, {"origin": HERE, "sec_fetch_site": "same-origin"}),
        ("http://localhost:3280", {"origin": "http://localhost:3280"}),
        ("https://[::1]:3280", {"origin": "https://[::1]:3280"}),
        ("http://192.0.2.7", {"origin": "http://192.0.2.7"}),
        (HERE, {"sec_fetch_site": "none"}),
        (NAMED, {"origin": NAMED, "sec_fetch_site": "same-origin"}),
        (HERE, {"origin": NAMED}),
    ],
)
async def test_our_own_pages_and_named_ones_may(base: str, headers: dict[str, str]) -> None:
    world = make_world(settings=Api(origins=(NAMED,)))
    await world.island.start()
    assert (await sent(world, base, "POST", FUNCTION, **headers)).status_code == 200
    await world.island.stop()


async def test_to_read_is_free_and_no_page_is_told_that_it_may_see(world: World) -> None:
    for method in ("GET", "OPTIONS"):
        answer = await sent(world, HERE, method, "/healthcheck", origin="https://evil.example")
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = await sent(world, HERE, "OPTIONS", FUNCTION, origin="https://evil.example")
    assert not [name for name in asked.headers if name.startswith("access-control")]
