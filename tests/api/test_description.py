"""The API's description of itself, held against its routes, and against its answers by schemathesis."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import _hypothesis

from api.description import describe
from skyisland.codec import encode
from skyisland.drivers.fake import Script
from skyisland.operations import OPERATIONS
from tests.support.api import HEADER, make_world

TOKEN = "a-token-for-schemathesis"

CALLS = st.sampled_from(("Encode(100.1, 80.9)", 'Reverse("a\\n")', 'geohash.Decode("s")', "New().Sum(1, 2)"))
URLS = st.sampled_from(("github.com/mmcloughlin/geohash", "https://example.org/a/b/c", "example.org/x"))
VERSIONS = st.sampled_from(("main", "v1.2.3", "0123456789" * 4))
schemathesis.openapi.format("go-call", CALLS)
schemathesis.openapi.format("go-function", st.sampled_from(("Encode", "geohash.Decode")))
schemathesis.openapi.format("go-type", st.sampled_from(("int", "string", "[]byte")))
schemathesis.openapi.format("go-package-url", URLS)
schemathesis.openapi.format("cron", st.sampled_from(("0 8 * * MON-FRI", "*/5 * L * *")))
schemathesis.openapi.format("iana-time-zone", st.sampled_from(("UTC", "Europe/Berlin")))
schemathesis.openapi.format("git-version", VERSIONS)


async def test_it_is_served_to_all_with_a_page_that_loads_nothing(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    assert described == json.loads(encode(describe(HEADER)))
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in described["paths"]:
        assert path in page.text
    assert "://" not in page.text
    assert "<script" not in page.text


def answering(frame: bytes) -> Script:
    """A function that prints a word, or has an answer to each of many inputs; a package with an Example."""
    if not frame:
        return Script(stdout=b"--- PASS: ExampleEncode (0.00s)\n")
    if b'"many":true' not in frame:
        return Script(stdout=b"done")
    data_at = 4 + int.from_bytes(frame[:4], "big")
    header, said = json.loads(frame[4:data_at]), b'{"results":[1]}'
    inputs = json.loads(frame[data_at : data_at + header["json"]])
    return Script(stdout=b"%b%08x%08x%b" % (header["nonce"].encode(), 0, len(said), said) * len(inputs))


@pytest.fixture(scope="module")
def schema() -> Iterator[Any]:
    """The description as served by a real server on a thread, and the server's address in it."""
    ready, stop = threading.Event(), None
    port = 0

    async def run() -> None:
        nonlocal stop, port
        world = make_world(token=TOKEN)
        world.driver.script = answering
        await world.island.start()
        async with world.served() as server:
            port, stop = server.port, asyncio.Event()
            loop.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()
        await world.island.stop()

    loop: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(20)
    found = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    # A query is nobody's business where the operation has none.
    found.config.generation.allow_extra_parameters = False
    # A request that follows another revision than the latest (RFC 9110, section 13.1.1).
    for check in (found.config.checks.positive_data_acceptance, found.config.checks.negative_data_rejection):
        check.expected_statuses = [*check.expected_statuses, "412"]
    yield found
    assert stop is not None
    loop[0].call_soon_threadsafe(stop.set)
    thread.join(20)


BOUNDED = [
    (operation, path)
    for operation in OPERATIONS
    if operation.media != "text/event-stream"
    for path in operation.paths
]


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        pytest.param(operation.method, path, mode, id=f"{operation.method} {path} {mode.value}")
        for operation, path in BOUNDED
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or operation.query or operation.body  # else nothing can be wrong
    ],
)
def test_answers_are_as_described(
    schema: Any, monkeypatch: pytest.MonkeyPatch, method: str, path: str, mode: GenerationMode
) -> None:
    """All checks of schemathesis: what is valid is accepted, what is not is refused, nothing is a 500."""

    # To msgspec 2.0 is no integer, and no client of ours writes one so.
    monkeypatch.setattr(_hypothesis, "_carries_json", lambda media: False)

    @settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        case.call_and_validate(headers={HEADER: TOKEN})

    run()
