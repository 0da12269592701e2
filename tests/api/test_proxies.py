"""Behind a proxy, and of clients with habits of their own: targets, prefixes, packed bodies, other pages."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import tomllib
import zlib
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpx
import msgspec
import pytest

from api.bodies import read_body
from api.problems import TooLarge
from skyisland.events import InvocationStarted
from skyisland.settings import Api
from tests.support.api import ADMIN, CALL, World, make_world
from tests.support.daemon import free_port
from tests.support.places import ROOT

FUNCTION = "/api/v1/function"
PAGE = "https://board.example.org"
BODY = json.dumps(CALL).encode()
LIMIT = 1 << 20


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://island/healthcheck", 200),
        (b"HTTPS://island:3280/healthcheck?x=1", 200),
        (b"http://island", 404),
        (b"/healthcheck/", 200),
        (b"/healthcheck//", 404),
        (b"/island/healthcheck", 200),
        (b"http://island/island/healthcheck/", 200),
        (b"/islander/healthcheck", 404),
        (b"/island", 404),
        (b"/other/healthcheck", 404),
        (b"*", 404),
    ],
)
async def test_a_target_may_come_in_many_ways(target: bytes, status: int) -> None:
    world = make_world(settings=Api(base_path="/island"))
    await world.island.start()
    async with world.served() as server:
        head = b"GET %b HTTP/1.1\r\nHost: island\r\nConnection: close\r\n\r\n" % target
        assert int((await server.say(head)).split(b" ")[1]) == status
        head = b"POST %b HTTP/1.1\r\nHost: island\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        function = target.replace(b"/healthcheck", FUNCTION.encode())
        assert int((await server.say(head % (function, len(BODY), BODY))).split(b" ")[1]) == status
    await world.island.stop()


async def test_an_absolute_target_names_the_host_and_no_other_page_gets_in(world: World) -> None:
    async with world.served() as server:
        head = (
            b"POST http://evil.example%b HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
        )
        assert b"foreign_origin" in await server.say(head % (FUNCTION.encode(), len(BODY), BODY))


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
async def test_the_page_finds_its_description_wherever_it_is_shown(path: str) -> None:
    world = make_world(settings=Api(base_path="/island"))
    async with world.client() as client:
        page = await client.get(f"/island{path}")
        (link,) = [word for word in page.text.split('"') if word.endswith("openapi.json")]
        described = await client.get(str(page.url.join(link)))
        assert described.url.path == "/island/openapi.json"
        assert described.json()["servers"] == [{"url": "/island"}]
    async with make_world().client() as client:
        assert "servers" not in (await client.get("/openapi.json")).json()


async def test_a_named_page_may_ask_and_see(world: World) -> None:
    world.app.front.reload(Api(origins=(PAGE,)))
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "PUT"}
    names = "authorization,content-type,x-call-id"
    async with world.client() as client:
        welcome = await client.options(
            "/api/v1/admin/ips", headers=asked | {"Access-Control-Request-Headers": names}
        )
        assert (welcome.status_code, welcome.content) == (204, b"")
        assert welcome.headers["access-control-allow-origin"] == PAGE
        assert welcome.headers["access-control-allow-methods"] == "PUT"
        assert welcome.headers["access-control-allow-headers"] == names
        assert welcome.headers["vary"] == "Origin"
        for method, path in (("GET", "/healthcheck"), ("POST", FUNCTION), ("GET", "/nothing")):
            body = CALL if path == FUNCTION else None
            answer = await client.request(method, path, json=body, headers={"Origin": PAGE})
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-expose-headers"] == "*"
        evil = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
        for headers in (evil, {"Access-Control-Request-Method": "PUT"}, {}):
            other = await client.options(FUNCTION, headers=headers)
            assert other.status_code == 200
            assert not [name for name in other.headers if name.startswith("access-control")]
        odd = await client.options(
            FUNCTION, headers=asked | {"Access-Control-Request-Headers": "x: y\t" + "z" * 2000}
        )
        assert "access-control-allow-headers" not in odd.headers


async def test_bodies_may_come_as_gzip_and_begin_with_a_mark(world: World) -> None:
    async with world.client(headers={"Content-Encoding": "gzip"}) as client:
        of_two = gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])
        for packed in (gzip.compress(BODY), gzip.compress(b"\xef\xbb\xbf" + BODY), of_two):
            answer = await client.post(FUNCTION, content=packed)
            assert answer.json()["data"] == "fake"
        taken = json.dumps({"ip": "10.61.0.2", "state": "unavailable"}).encode()
        answer = await client.put("/api/v1/admin/ips", content=gzip.compress(taken), headers=ADMIN)
        assert answer.json()["state"] == "unavailable"
    async with world.client() as client:
        assert (await client.post(FUNCTION, content=b"\xef\xbb\xbf" + BODY)).status_code == 200
        for coding in ("br", "gzip, gzip", "deflate"):
            for method, path in (("POST", FUNCTION), ("PUT", "/api/v1/admin/ips")):
                headers = {"Content-Encoding": coding} | {"Authorization": "Bearer x"}
                refused = await client.request(method, path, content=BODY, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
                assert refused.headers["accept-encoding"] == "gzip"
        plain = await client.post(FUNCTION, content=BODY, headers={"Content-Encoding": "identity"})
        assert plain.status_code == 200


BOMB = gzip.compress(bytes(1 << 26))  # 64 MiB in 64 KiB
EMPTY_BLOCKS = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + b"\x00\x00\x00\xff\xff" * 200_000


@pytest.mark.parametrize(
    ("packed", "code"),
    [
        (BOMB, "too_large"),
        (EMPTY_BLOCKS, "bad_request"),
        (gzip.compress(BODY) * 2, "bad_request"),
        (gzip.compress(BODY) + b"more", "bad_request"),
        (gzip.compress(bytes(LIMIT // 2 + 1)) * 2, "too_large"),
        (gzip.compress(BODY) + gzip.compress(b"") * 200, "bad_request"),
        (gzip.compress(BODY)[:-1], "bad_request"),
        (zlib.compress(BODY), "bad_request"),
        (BODY, "bad_request"),
        (b"x" * (LIMIT + 1), "too_large"),
        (b"", "bad_request"),
    ],
    ids=["bomb", "blocks", "two", "more", "two long", "many", "cut", "zlib", "plain", "long", "empty"],
)
async def test_packed_bodies_are_bounded(world: World, packed: bytes, code: str) -> None:
    started: list[InvocationStarted] = []
    world.events.tap(started.append, InvocationStarted)
    async with world.client(headers={"Content-Encoding": "gzip"}) as client:
        refused = await client.post(FUNCTION, content=packed)
        assert refused.json()["code"] == code
        assert (await client.put("/api/v1/admin/ips", content=packed)).status_code in (400, 401, 413)
    assert started == []


async def test_what_unpacks_to_just_the_limit_is_taken() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": gzip.compress(bytes(LIMIT)), "more_body": False}

    options = {"timeout_s": 5.0, "coding": b"GZIP"}
    assert await read_body(receive, limit=LIMIT, **options) == bytes(LIMIT)  # type: ignore[arg-type]
    with pytest.raises(TooLarge, match="longer than"):
        await read_body(receive, limit=LIMIT - 1, **options)  # type: ignore[arg-type]


async def test_http2_without_a_host_and_a_tunnel_are_answered(world: World) -> None:
    client = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
    )
    client.initiate_connection()
    get = [(":method", "GET"), (":path", "/healthcheck"), (":scheme", "http")]
    connect = [(":method", "CONNECT"), (":authority", "other.example:443")]
    socket = [(":method", "CONNECT"), (":protocol", "websocket"), *get[1:], (":authority", "a")]
    statuses: dict[int, bytes] = {}
    async with world.served(http2=True) as server:
        reader, writer = await server.connect()
        for stream, head in ((1, get), (3, [*get, ("host", "island")]), (5, connect), (7, socket), (9, get)):
            client.send_headers(stream, head, end_stream=stream != 5)
        client.send_data(5, b"a tunnel's", end_stream=True)
        writer.write(client.data_to_send())
        while len(statuses) < 5:
            for event in client.receive_data(await reader.read(65536)):
                assert not isinstance(event, h2.events.ConnectionTerminated)
                if isinstance(event, h2.events.ResponseReceived):
                    statuses[event.stream_id] = dict(event.headers)[b":status"]
        writer.close()
    assert statuses == {1: b"200", 3: b"200", 5: b"501", 7: b"501", 9: b"200"}


OF_NGINX = """
daemon off; pid {folder}/pid; error_log stderr warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; {page}
        location /bare/ {{ proxy_pass http://127.0.0.1:3280/; }} }}
}}
"""


@pytest.mark.skipif(not shutil.which("nginx"), reason="`make tools` installs nginx")
async def test_behind_a_real_nginx_as_the_page_shows_it(tmp_path: Path) -> None:
    page = (ROOT / "docs/operating.md").read_text()
    (location,) = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    (said,) = re.findall(r"```toml\n(\[api\]\nbase_path.*?)```", page, re.DOTALL)
    settings = msgspec.convert(tomllib.loads(said)["api"], Api)
    clients: list[str] = []
    world = make_world(settings=settings)
    address_of = world.app.clients.address_of
    world.app.clients.address_of = lambda scope: clients.append(address_of(scope)) or clients[-1]  # type: ignore[method-assign,func-returns-value]
    await world.island.start()
    async with world.served() as server:
        file = tmp_path / "nginx.conf"
        port = free_port()
        text = OF_NGINX.format(folder=tmp_path, page=location, port=port)
        file.write_text(text.replace("127.0.0.1:3280", f"127.0.0.1:{server.port}"))
        nginx = await asyncio.create_subprocess_exec("nginx", "-c", file, stderr=asyncio.subprocess.PIPE)
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base) as client, asyncio.timeout(20):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            for prefix in ("/island", "/bare"):
                docs = await client.get(f"{prefix}/docs")
                (link,) = [word for word in docs.text.split('"') if word.endswith("openapi.json")]
                described = (await client.get(docs.url.join(link))).json()
                assert described["servers"] == [{"url": "/island"}]
            headers = {"X-Forwarded-For": "192.0.2.9", "Origin": settings.origins[0]}
            answer = await client.post("/island" + FUNCTION, json=CALL, headers=headers)
            assert answer.json()["data"] == "fake"
            assert answer.headers["access-control-allow-origin"] == settings.origins[0]
            assert clients[-1] == "192.0.2.9"
            packed = gzip.compress(BODY)
            answer = await client.post(
                "/island" + FUNCTION, content=packed, headers={"Content-Encoding": "gzip"}
            )
            assert answer.status_code == 200
            async with client.stream("GET", "/island/api/v1/admin/events", headers=ADMIN) as events:
                async for line in events.aiter_lines():
                    if line.startswith("retry:"):
                        break
        nginx.terminate()
        assert await nginx.wait() == 0
        assert nginx.stderr is not None
        assert await nginx.stderr.read() == b""
    await world.island.stop()
