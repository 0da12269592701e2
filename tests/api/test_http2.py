"""HTTP/2: off, and where it is on, within a budget; and connections, of which each client has its share."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import time

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from api import protocols
from api.protocols import NOISE, Noise, TooNoisy, short
from skyisland.settings import Api
from tests.support.api import CALL, Server, World, make_world
from tests.support.http2 import (
    BLOCK,
    FLOODS,
    GOAWAY,
    GREETING,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    reset,
)

UPGRADE = (
    b"GET /healthcheck HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
ENHANCE_YOUR_CALM = 11


async def flood(server: Server, text: bytes) -> tuple[bytes, bool]:
    """Send all of it; returns what came back, and whether the server closed."""
    reader, writer = await server.connect()
    writer.write(GREETING + text)
    came, closed = b"", False
    try:
        async with asyncio.timeout(10):
            while part := await reader.read(65536):
                came += part
            closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    writer.close()
    return came, closed


def goaways(came: bytes) -> list[int]:
    """The error codes of GOAWAY frames."""
    codes = []
    while len(came) >= 9:
        length, kind = int.from_bytes(came[:3], "big"), came[3]
        if kind == GOAWAY:
            codes.append(struct.unpack(">I", came[13:17])[0])
        came = came[9 + length :]
    return codes


@pytest.mark.parametrize("start", [PREFACE, UPGRADE])
async def test_http2_is_off(world: World, start: bytes) -> None:
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        writer.write(GREETING)
        assert (await reader.readexactly(9))[3] == SETTINGS, "where it is on, it is spoken"
        writer.close()
    async with world.served() as server:
        answer = await server.say(start)
    wanted = b"505" if start is PREFACE else b"200"
    assert answer.startswith(b"HTTP/1.1 " + wanted)
    assert b"101" not in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["healthcheck", "api/v1/admin/status", "fn/nobody", "nowhere"])
async def test_who_wants_a_websocket_is_answered_by_http(
    world: World, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    plain = f"GET /{path} HTTP/1.1\r\nHost: a\r\n".encode()
    wish = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with world.served() as server:
        wanted = (await server.say(plain + b"Connection: close\r\n\r\n")).split(b"\r\n")[0]
        answers = await server.say(plain + wish + plain + b"Connection: close\r\n\r\n")
    assert answers.count(wanted) == 2, "and the connection lives on"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_connect_by_http2_is_refused(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    websocket = [(":protocol", "websocket"), (":scheme", "http"), (":path", "/healthcheck")]
    more = [(":authority", "island"), ("sec-websocket-version", "13")]
    statuses: list[bytes] = []
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        client.send_headers(1, [(":method", "CONNECT"), *websocket, *more])
        writer.write(client.data_to_send())
        while not statuses:
            for event in client.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses += [value for name, value in event.headers or () if name == b":status"]
        writer.close()
    assert statuses == [b"501"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_http2_works_where_it_is_on(world: World) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "GET"), (":path", "/healthcheck"), (":scheme", "http"), (":authority", "island")]
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        answers = 0
        for number in range(300):
            client.send_headers(2 * number + 1, head, end_stream=True)
            writer.write(client.data_to_send())
            ended = False
            while not ended:
                for event in client.receive_data(await reader.read(65536)):
                    ended |= isinstance(event, h2.events.StreamEnded)
                    answers += isinstance(event, h2.events.ResponseReceived)
                writer.write(client.data_to_send())
        writer.close()
    assert answers == 300, "as many requests as one likes"


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_cut_off_and_others_are_answered(
    world: World, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with world.served(http2=True) as server, httpx.AsyncClient(base_url=server.url) as other:
        assert (await other.get("/healthcheck")).status_code == 200
        flooding = asyncio.create_task(flood(server, FLOODS[name]))
        slowest = 0.0
        while not flooding.done():
            started = time.perf_counter()
            assert (await other.get("/healthcheck")).status_code == 200
            slowest = max(slowest, time.perf_counter() - started)
        _, closed = flooding.result()
        assert (await other.post("/api/v1/function", json=CALL)).status_code == 200
    assert closed
    assert slowest < 2
    if name != "continuations":  # h2's own limit
        assert "too many resets" in caplog.text
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= 1
    assert all(len(line) < 200 for line in lines)
    assert world.island.status().running == 0


async def test_without_the_budget_resets_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols.Limits, "noise", 10**9)
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        writer.write(GREETING + b"".join(map(reset, range(500))) + frame(PING, b"all heard"[:8]))
        came = b""
        while b"all hear" not in came:
            came += await reader.read(65536)
        writer.close()
    assert ENHANCE_YOUR_CALM not in goaways(came)


def test_noise_is_counted_whatever_the_pieces() -> None:
    text = PREFACE + frame(HEADERS, BLOCK, stream=1) + frame(0, b"x" * 4000, stream=1) * 20
    for size in (1, 7, 4096, len(text)):
        hear(Noise(10), text, size)
    Noise(10).hear(PREFACE + reset(0))
    loud = PREFACE + b"".join(map(reset, range(NOISE // 10 + 20)))
    for size in (1, 7, 100_000):
        with pytest.raises(TooNoisy):
            hear(Noise(), loud, size)


def hear(noise: Noise, text: bytes, size: int) -> None:
    for start in range(0, len(text), size):
        noise.hear(text[start : start + size])


async def test_a_request_its_body_and_its_end_may_come_at_once(world: World) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "POST"), (":path", "/api/v1/function"), (":scheme", "http"), (":authority", "island")]
    for stream in (1, 3):
        client.send_headers(stream, head)
        client.send_data(stream, json.dumps(CALL).encode(), end_stream=True)
    statuses: list[bytes] = []
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        writer.write(client.data_to_send())
        while len(statuses) < 2:
            for event in client.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses += [value for name, value in event.headers or () if name == b":status"]
        writer.close()
    assert statuses == [b"200", b"200"]


async def test_the_rest_of_a_body_that_nobody_wants_harms_nobody(world: World) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "PUT"), (":path", "/nowhere"), (":scheme", "http"), (":authority", "island")]
    second = [(":path", "/healthcheck") if name == ":path" else (name, value) for name, value in head]
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        client.send_headers(1, head)
        writer.write(client.data_to_send())
        statuses: list[bytes] = []
        while len(statuses) < 2:
            for event in client.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses += [value for name, value in event.headers or () if name == b":status"]
                    if len(statuses) == 1:
                        client.send_data(1, b"x" * 2000)
                        client.send_headers(3, second, end_stream=True)
            writer.write(client.data_to_send())
        writer.close()
    assert statuses == [b"404", b"405"]


def test_an_error_is_told_shortly() -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [KeyError("x" * 100_000)])])
    assert short(group) == f"KeyError: '{'x' * 79}"


async def test_a_client_that_fails_us_is_one_short_line(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: protocols.Http1, event: object) -> None:
        raise KeyError("\x1b" * 100_000)

    monkeypatch.setattr(protocols.Http1, "_check_protocol", fail)
    async with world.served() as server:
        await server.say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("a connection from 127.0.0.1 failed: KeyError: ")
    assert len(line) < 200


# Connections


@pytest.mark.parametrize("proxies", [(), ("127.0.0.0/8",)])
async def test_a_client_has_only_so_many_connections_and_others_theirs(proxies: tuple[str, ...]) -> None:
    world = make_world(settings=Api(trusted_proxies=proxies))
    async with world.served(connections=64, per_client=8) as server:
        taken = [await server.connect() for _ in range(20)]
        answers = []
        for reader, writer in taken:
            writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
            answers.append(int((await reader.readline()).split()[1]))
        others = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=others, base_url=server.url) as other:
            assert (await other.get("/healthcheck")).status_code == 200
        assert answers == ([200] * 20 if proxies else [200] * 8 + [429] * 12)
        for reader, writer in taken:
            writer.close()
            await reader.read()
        async with httpx.AsyncClient(base_url=server.url) as again, asyncio.timeout(10):
            while (await again.get("/healthcheck")).status_code != 200:
                pass


async def test_without_the_limit_one_client_takes_all(world: World) -> None:
    async with world.served(connections=16) as server:
        taken = [await server.connect() for _ in range(16)]
        for reader, writer in taken:
            writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readline()
        others = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=others, base_url=server.url) as other:
            assert (await other.get("/healthcheck")).status_code == 503
        for _, writer in taken:
            writer.close()
