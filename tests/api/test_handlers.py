"""ANY /fn/NAME over REST: what a handler is sent, what becomes of its answer, and who may ask it."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.handlers import AT_ONCE, HEADER_BYTES, Answering
from skyisland.drivers.fake import Script
from skyisland.later.calls import Claim
from skyisland.later.keeping import NotKept
from skyisland.settings import Api as ApiSettings
from tests.support.api import ADMIN, HEADER, TOKEN, World, make_world

HOOK = {"url": "github.com/mmcloughlin/geohash", "handler": "Hook"}
ANSWER = (
    b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-A: 1\r\nx-a: 2\r\nConnection: x-b\r\nX-B: 3\r\n\r\nok"
)


class Site:
    """An island with a handler, of which a script plays the jail."""

    def __init__(self, world: World, client: httpx.AsyncClient) -> None:
        self.world, self.client = world, client
        self.requests: list[bytes] = []
        self.answer = ANSWER

    def play(self, data: bytes) -> Script:
        request = data[4 + int.from_bytes(data[:4], "big") :]
        if not request:
            return Script()  # asked whether it is a handler
        self.requests.append(request)
        return Script(stdout=self.answer)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.client.request(method, path, **more)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    world = make_world(
        settings=ApiSettings(callers={"shop": "shop's"}, open=False, trusted_proxies=("10.0.0.0/8",))
    )
    await world.island.start()
    async with world.client(headers={HEADER.encode(): b"shop's"}) as client:
        site = Site(world, client)
        world.driver.script = site.play
        made = await client.put("/api/v1/names/hook", json=HOOK, headers=ADMIN)
        assert made.status_code == 200, made.text
        yield site
    await world.island.stop()


async def test_what_a_handler_is_sent(site: Site) -> None:
    headers = {
        "Authorization": "Bearer of-the-handler",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Upgrade": "h2c",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Prefix": "/forged",
        "X-Real-IP": "6.6.6.6",
        "Host": "shop.example",
    }
    answer = await site.ask("POST", "/fn/hook/a%2Fb//c?x=%20&y", headers=headers, content=b"\0body")
    assert (answer.status_code, answer.content) == (201, b"ok")
    assert answer.headers.get_list("x-a") == ["1", "2"]
    assert "x-b" not in answer.headers
    assert answer.headers["x-call-id"].startswith("inv-")
    head, _, body = site.requests[0].partition(b"\r\n\r\n")
    line, *sent = head.split(b"\r\n")
    assert (line, body) == (b"POST /a%2Fb//c?x=%20&y HTTP/1.1", b"\0body")
    fields = {name.lower(): value for name, _, value in (field.partition(b": ") for field in sent)}
    assert fields[b"authorization"] == b"Bearer of-the-handler"
    assert fields[b"x-forwarded-for"] == b"127.0.0.1"
    assert fields[b"x-forwarded-prefix"] == b"/fn/hook"
    assert fields[b"x-forwarded-host"] == fields[b"host"] == b"shop.example"
    gone = {b"connection", b"x-hop", b"upgrade", b"x-real-ip", HEADER.lower().encode()}
    assert not gone & fields.keys()
    assert b"shop's" not in head
    await site.ask("GET", "/fn/hook", headers={"Authorization": f"Bearer {TOKEN}".encode(), HEADER: ""})
    assert TOKEN.encode() not in site.requests[1]
    assert site.requests[1].startswith(b"GET / HTTP/1.1\r\n")


async def test_a_proxy_that_is_believed_says_for_whom_it_asks(site: Site) -> None:
    sent = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "forged.example, shop.example",
        HEADER: "shop's",
    }
    site.world.app.clients.trust(("10.0.0.0/8", "unix"))
    believed = (b"203.0.113.7", b"https", b"shop.example")
    told = {("10.0.0.1", 1): believed, None: believed, ("192.0.2.1", 1): (b"192.0.2.1", b"http", b"island")}
    for proxy, (address, scheme, host) in told.items():
        transport = httpx.ASGITransport(app=site.world.app, client=proxy)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://island") as client:
            assert (await client.get("/fn/hook", headers=sent)).status_code == 201
        request = site.requests[-1].lower()
        assert b"x-forwarded-for: %b\r\n" % address in request
        assert b"x-forwarded-proto: %b\r\n" % scheme in request
        assert b"x-forwarded-host: %b\r\n" % host in request
        assert b"\r\nhost: island\r\n" in request


@pytest.mark.parametrize("path", ["/island/fn/hook/x", "/fn/hook/x"])
async def test_a_handler_knows_where_a_proxy_shows_it(site: Site, path: str) -> None:
    site.world.app.reload(ApiSettings(callers={"shop": "shop's"}, open=False, base_path="/island"), TOKEN)
    assert (await site.ask("GET", path)).status_code == 201
    assert site.requests[0].startswith(b"GET /x HTTP/1.1\r\n")
    assert b"X-Forwarded-Prefix: /island/fn/hook\r\n" in site.requests[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2 * HEADER_BYTES,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
    ids=["nothing", "no HTTP", "NUL", "two lengths", "a head without end", "another protocol"],
)
async def test_what_is_no_answer_is_a_502(site: Site, answer: bytes) -> None:
    site.answer = answer
    told = await site.ask("GET", "/fn/hook")
    assert (told.status_code, told.json()["code"]) == (502, "exited")


async def test_what_is_sent_again_with_its_key_runs_once(site: Site) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await site.ask("POST", "/fn/hook/a?b", headers=key, content=b"body")
    again = await site.ask("POST", "/fn/hook/a?b", headers=key, content=b"body")
    assert again.headers.pop("idempotent-replayed") == "true"
    assert (again.status_code, again.content, again.headers) == (201, b"ok", first.headers)
    assert again.headers.get_list("x-a") == ["1", "2"]
    for method, path, body in (
        ("PUT", "/fn/hook/a?b", b"body"),
        ("POST", "/fn/hook/a?c", b"body"),
        ("POST", "/fn/hook/a?b", b""),
    ):
        other = await site.ask(method, path, headers=key, content=body)
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert len(site.requests) == 1
    site.answer = b"no HTTP at all\r\n\r\n"  # it ran, so its misfortune is the answer
    broken = {"Idempotency-Key": "k-2"}
    told = [await site.ask("POST", "/fn/hook", headers=broken) for _ in range(2)]
    assert [(one.status_code, one.json()["code"]) for one in told] == [(502, "exited")] * 2
    assert len(site.requests) == 2
    site.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nha"
    cut = {"Idempotency-Key": "k-3"}
    with pytest.raises(AssertionError):  # of httpx: it is not whole
        await site.ask("POST", "/fn/hook", headers=cut)
    site.answer = ANSWER
    assert (await site.ask("POST", "/fn/hook", headers=cut)).content == b"ok", "what broke off is no answer"
    assert len(site.requests) == 4
    await site.ask("POST", "/api/v1/names/hook/pause", headers=ADMIN)
    assert (await site.ask("POST", "/fn/hook/a?b", headers=key, content=b"body")).status_code == 503


@pytest.mark.parametrize("method", ["POST", "HEAD"])
async def test_who_has_the_whole_answer_gets_it_again_at_once(site: Site, method: str) -> None:
    results, order = site.world.island.later._store.results, []
    answered = results.answered

    async def keep(claim: Claim, reply: bytes) -> None:
        await answered(claim, reply)
        order.append("kept")

    results.answered = keep  # type: ignore[method-assign]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            order.append(message["type"])
            await send(message)

        await site.world.app(scope, receive, sent)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://island") as client:
        told = await client.request(
            method, "/fn/hook", headers={HEADER: "shop's", "Idempotency-Key": "k"}, content=b"body"
        )
    assert told.status_code == 201
    # To who asks by HEAD, the head is the whole.
    assert order == ["kept", "http.response.start", "http.response.body"]


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(claim: Claim, reply: bytes) -> None:
        raise NotKept("the disk is full")

    site.world.island.later._store.results.answered = fail  # type: ignore[method-assign]
    told = await site.ask("POST", "/fn/hook", headers={"Idempotency-Key": "k"})
    assert (told.status_code, told.content) == (201, b"ok")
    assert "the disk is full" in caplog.text


async def test_the_id_is_the_islands_and_the_status_the_handlers(site: Site) -> None:
    site.answer = b"HTTP/1.1 999 Own\r\nX-Call-Id: inv-forged\r\nContent-Length: 2\r\n\r\nok"
    told = await site.ask("GET", "/fn/hook")
    assert (told.status_code, told.content) == (999, b"ok")
    [call] = told.headers.get_list("x-call-id")
    assert call != "inv-forged"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Idempotency-Key": "a b"}, "Idempotency-Key"),
        ({"Prefer": "respond-async"}, "Prefer"),
        ({"X-Callback-Url": "https://example.org/"}, "X-Callback-Url"),
    ],
)
async def test_a_handler_answers_at_once_and_says_so(site: Site, headers: dict[str, str], field: str) -> None:
    refused = await site.ask("POST", "/fn/hook", headers=headers)
    assert (refused.status_code, refused.json()["details"]["field"]) == (400, field)
    assert (await site.ask("POST", "/fn/hook", headers={"Prefer": "wait=5"})).status_code == 201
    assert len(site.requests) == 1


async def test_an_answer_of_many_chunks_leaves_others_their_turns() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    answer = Answering(send, "inv-1")
    answer.asked(b"GET", b"/", [(b"Host", b"a")], b"")
    await answer.take(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5000)
    await answer.take(b"0\r\n\r\n")
    beside.cancel()
    assert turns >= 5000 // AT_ONCE
    assert [message.get("body") for message in sent] == [None, b"a" * 5000, b""]


async def test_who_may_ask(site: Site) -> None:
    async with site.world.client() as stranger:
        assert (await stranger.get("/fn/hook")).status_code == 401
        assert (await stranger.get("/fn/none")).status_code == 404
        await site.client.put("/api/v1/names/hook", json=HOOK | {"callers": ["*"]}, headers=ADMIN)
        assert (await stranger.get("/fn/hook")).status_code == 201
        assert (await stranger.get("/fn/hook", headers={HEADER: "wrong"})).status_code == 201
        await site.client.post("/api/v1/names/hook/pause", headers=ADMIN)
        assert (await stranger.get("/fn/hook")).json()["code"] == "paused"


async def test_a_function_is_no_handler_nor_the_other_way_round(site: Site) -> None:
    function = {"url": HOOK["url"], "function": "Encode"}
    await site.client.put("/api/v1/names/encode", json=function, headers=ADMIN)
    assert "POST /api/v1/names/encode" in (await site.ask("GET", "/fn/encode")).json()["error"]
    assert "/fn/hook" in (await site.ask("POST", "/api/v1/names/hook")).json()["error"]
    both = await site.client.put("/api/v1/names/x", json=HOOK | {"function": "F"}, headers=ADMIN)
    assert both.json()["details"]["field"] == "function"


async def test_a_webhook_is_let_in_by_its_signature_alone(site: Site) -> None:
    await site.client.put("/api/v1/secrets/HOOK", json={"value": "key"}, headers=ADMIN)
    wrong = HOOK | {"webhook": {"scheme": "github", "secret": "NONE"}}
    assert (await site.client.put("/api/v1/names/hook", json=wrong, headers=ADMIN)).status_code == 404
    made = await site.client.put(
        "/api/v1/names/hook",
        json=HOOK | {"webhook": {"scheme": "github", "secret": "HOOK"}, "callers": ["shop"]},
        headers=ADMIN,
    )
    assert made.status_code == 200, made.text
    body = b'{"zen": "Keep it logically awesome."}' + b" " * (300 << 10)
    signature = "sha256=" + hmac.new(b"key", body, "sha256").hexdigest()
    async with site.world.client() as github:
        for headers, content in (
            ({}, body),
            ({"X-Hub-Signature-256": "sha256=00"}, body),
            ({"X-Hub-Signature-256": signature}, body + b" "),
            ({HEADER: "shop's"}, body),
        ):
            refused = await github.post("/fn/hook", headers=headers, content=content)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert signature not in refused.text
        assert site.requests == []  # no jail was spent
        passed = await github.post("/fn/hook", headers={"X-Hub-Signature-256": signature}, content=body)
    assert (passed.status_code, len(site.requests)) == (201, 1)
    in_use = await site.client.delete("/api/v1/secrets/HOOK", headers=ADMIN)
    assert in_use.json()["details"]["field"] == "secret"
