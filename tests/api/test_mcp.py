"""POST /mcp: what the official client sees of it, and what a hostile one is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from msgspec import Raw, structs

from api.mcp import VERSIONS
from api.tools import BUILT_IN, SCHEMA_BYTES, _schema
from skyisland.drivers.fake import Script
from skyisland.fakes import CATALOGUE
from skyisland.golang.catalogue import Catalogue, Parameter
from skyisland.model import FunctionRequest
from skyisland.named.definition import Definition
from skyisland.settings import Api
from tests.support.api import CALL, World, answers, make_world

EVE = {"eve": "eve's"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ALICE, BOB = ({"Authorization": f"Bearer {name}'s"} for name in ("alice", "bob"))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    settings = Api(
        mcp=True, open=False, callers={"alice": "alice's", "bob": "bob's"}, operators={"eve": "eve's"}
    )
    made = make_world(settings=settings)
    await made.island.start()
    await made.island.named.define("encode", Definition(url=CALL["url"], function="Encode"))
    await made.island.named.define("secret", Definition(url=CALL["url"], function="Decode", callers=("bob",)))
    await made.island.named.define("call", Definition(url=CALL["url"], function="Neighbors"))
    await made.island.named.define("hook", Definition(url=CALL["url"], handler="Handler"))
    yield made
    await made.island.stop()


async def say(world: World, message: object, **headers: str) -> httpx.Response:
    async with world.client() as client:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await client.post("/mcp", content=content, headers={**ALICE, **headers})


async def asked(world: World, method: str, **params: Any) -> dict[str, Any]:
    answer = await say(world, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    told: dict[str, Any] = answer.json()
    assert (answer.status_code, told["jsonrpc"], told["id"]) == (200, "2.0", 1)
    return told


@asynccontextmanager
async def official(world: World, who: dict[str, str]) -> AsyncIterator[Client]:
    """The official client, on a socket."""
    async with (
        world.served() as server,
        httpx2.AsyncClient(headers=who) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
    ):
        yield client


async def test_the_official_client_lists_looks_and_calls(world: World) -> None:
    answers(world, b"", {"results": ["jcc92ytsf8kn"]})
    async with official(world, ALICE) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert [*tools] == ["look", "call", "fn_call", "encode"]
        assert tools["encode"].input_schema == {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "lng": {"type": "number"}},
            "required": ["lat", "lng"],
            "additionalProperties": False,
        }
        assert "Encode the point (lat, lng)" in (tools["encode"].description or "")
        told = await client.call_tool("encode", {"lat": 100.1, "lng": 80.9})
        assert not told.is_error
        assert told.structured_content is not None
        assert told.structured_content["results"] == ["jcc92ytsf8kn"]
        looked = await client.call_tool("look", {"url": CALL["url"]})
        assert "func Encode(lat, lng float64) string" in looked.content[0].text  # type: ignore[union-attr]
        called = await client.call_tool("call", {"url": CALL["url"], "call": "Encode", "args": [100.1, 80.9]})
        assert called.structured_content == {**told.structured_content, **(called.structured_content or {})}
        world.driver.script = lambda data: Script(exit_code=3, stderr=b"oh dear")
        failed = await client.call_tool("encode", {"lat": 1, "lng": 2})
        assert failed.is_error
        assert "exited with code 3\noh dear" in failed.content[0].text  # type: ignore[union-attr]


async def test_a_token_limits_the_official_client(world: World) -> None:
    async with official(world, BOB) as client:
        assert [tool.name for tool in (await client.list_tools()).tools][2:] == [
            "fn_call",
            "encode",
            "secret",
        ]
    async with official(world, ALICE) as client:
        with pytest.raises(Exception, match="unknown tool: secret"):
            await client.call_tool("secret", {"hash": "x"})
    for token, status in (("", 401), ("eve's", 403), ("x", 403)):
        answer = await say(world, PING, Authorization=f"Bearer {token}")
        assert answer.status_code == status


async def test_a_foreign_page_and_other_methods_are_refused_and_it_is_off_by_default(world: World) -> None:
    assert (await say(world, PING)).json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert (await say(world, PING, Origin="https://evil.example")).status_code == 403
    async with world.client(headers=ALICE) as client:
        for method in ("GET", "DELETE"):
            answer = await client.request(method, "/mcp")
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    off = make_world()
    await off.island.start()
    async with off.client() as client:
        assert (await client.post("/mcp", json=PING)).status_code == 404
    await off.island.stop()


WRONG: list[tuple[object, int, int, object]] = [
    (b"{", 400, -32700, None),
    (b"\xff", 400, -32700, None),
    (b"[" * 5000, 400, -32700, None),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 5000, 400, -32700, None),
    ([], 400, -32600, None),
    ([PING], 400, -32600, None),
    (3, 400, -32600, None),
    ({}, 400, -32600, None),
    ({"jsonrpc": "2.0", "id": 1}, 400, -32600, 1),
    ({"jsonrpc": "2.0", "id": "a", "method": 3}, 400, -32600, "a"),
    ({"jsonrpc": "2.0", "id": None, "method": "ping"}, 400, -32600, None),
    ({"jsonrpc": "2.0", "id": True, "method": "ping"}, 400, -32600, None),
    ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, 400, -32600, 1),
    ({"id": 1, "method": "ping"}, 400, -32600, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]}, 400, -32602, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, 200, -32601, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "nope"}}, 200, -32602, 1),
    (
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look", "arguments": 3}},
        200,
        -32602,
        1,
    ),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": 3}}, 200, -32602, 1),
    (rb'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\ud800\u0041"}}', 400, -32700, None),
    (b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}', 400, -32600, None),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "zzz"}}, 200, -32602, 1),
]
"""What is no message, with the status of its answer, its code and its id."""


async def test_what_is_no_message_is_answered_as_an_error(world: World) -> None:
    for message, status, code, id_ in WRONG:
        answer = await say(world, message)
        told = answer.json()
        assert (answer.status_code, told["error"]["code"], told["id"]) == (status, code, id_), message
    for said in ("result", "error"):  # an answer to what we never asked
        assert (await say(world, {"jsonrpc": "2.0", "id": 1, said: {}})).status_code == 202


async def test_a_list_goes_on_from_the_cursor_that_it_gave(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.tools.PAGE", 1)
    first = (await asked(world, "tools/list"))["result"]
    second = (await asked(world, "tools/list", cursor=first["nextCursor"]))["result"]
    assert [one["name"] for one in first["tools"] + second["tools"]] == ["look", "call", "fn_call", "encode"]
    assert "nextCursor" not in second


async def test_what_a_list_and_a_call_look_at_counts_to_their_client(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    offered = world.island.functions

    async def functions(url: str, version: str | None = None, *, client: str) -> Catalogue:
        shares.append(client)
        return await offered(url, version, client=client)

    monkeypatch.setattr(world.island, "functions", functions)
    await asked(world, "tools/list")
    await asked(world, "tools/call", name="encode", arguments={"lat": 1, "lng": 2})
    assert shares == ["alice"] * 3


async def test_arguments_reach_the_function_to_the_byte(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do by the other ways: nobody makes values of them on the event loop."""
    came: list[bytes] = []

    def noted(request: FunctionRequest, **more: Any) -> Any:
        assert isinstance(request.args, Raw)
        came.append(bytes(request.args))
        return invoke(request, **more)

    invoke = world.island.invoke
    monkeypatch.setattr(world.island, "invoke", noted)
    said = b"[1234567890123456789012345678901, 1.10]"
    message = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"call","arguments":'
    message += b'{"url":"%b","call":"F","args":%b}}}' % (CALL["url"].encode(), said)
    assert not (await say(world, message)).json()["result"]["isError"]
    assert came == [said]


async def test_versions_are_negotiated(world: World) -> None:
    told = (await asked(world, "initialize", protocolVersion="2025-06-18"))["result"]
    assert (told["protocolVersion"], told["capabilities"]) == (
        "2025-06-18",
        {"tools": {"listChanged": False}},
    )
    assert (await asked(world, "initialize", protocolVersion="1999"))["result"][
        "protocolVersion"
    ] == VERSIONS[0]
    for other in ("1999", "2025-03-26"):  # the one has batches
        refused = await say(world, PING, **{"MCP-Protocol-Version": other})
        assert (refused.status_code, refused.json()["error"]["data"]["supported"]) == (400, [*VERSIONS])
    assert (await say(world, {"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202


async def test_arguments_that_do_not_fit_are_told_to_the_model(world: World) -> None:
    for name, given, why in (
        ("call", {"url": CALL["url"]}, "missing required field `call`"),
        ("call", {"url": CALL["url"], "call": "F", "ip4": True}, "unknown field `ip4`"),
        ("look", {"url": CALL["url"], "name": "Encod"}, "there is Encode"),
        ("call", {"url": CALL["url"], "call": "F", "args": 3}, "args: send an array"),
        ("call", {"url": CALL["url"], "call": "Encode", "args": None}, ""),
        ("encode", {"args": [1, 2], "stdin": 3}, ""),
    ):
        told = (await asked(world, "tools/call", name=name, arguments=given))["result"]
        assert told["isError"] is bool(why)
        assert why in told["content"][0]["text"]


def test_schemas_are_bounded_and_need_no_recursion() -> None:
    entry = structs.replace(
        next(one for one in CATALOGUE.functions if one.name == "Encode"),
        parameters=[
            Parameter("ctx", "context.Context", None, given=True),
            Parameter("first", "T0", {"$ref": "#/schemas/T0"}),
            Parameter("odd", "X", {"$ref": "#/schemas/none"}),
            Parameter("rest", "string", {"type": "string"}, variadic=True),
        ],
    )
    chain = {f"T{n}": {"properties": {"next": {"$ref": f"#/schemas/T{n + 1}"}}} for n in range(2_000)}
    schema = _schema(entry, {**chain, "T2000": {"$ref": "#/schemas/T0"}})
    assert schema["required"] == ["first", "odd"]
    assert schema["properties"]["first"] == {"$ref": "#/$defs/T0"}
    assert schema["properties"]["odd"] == {}
    assert schema["properties"]["rest"] == {"type": "array", "items": {"type": "string"}}
    assert len(schema["$defs"]) == 2_001
    assert len(json.dumps(schema)) > SCHEMA_BYTES  # which is then not shown
    assert {"look", "call"} == BUILT_IN.keys()
