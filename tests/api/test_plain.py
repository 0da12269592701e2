"""Plain requests go past h11: what is taken means what it means to h11, and answers are the same bytes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import plain as room
from api.plain import Exchange, Request, plain
from skyisland.drivers.fake import Script
from skyisland.events import JailDestroyed
from tests.support.api import CALL, Server, World

BODY = json.dumps(CALL).encode()
POST = b"POST /api/v1/function HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEALTH = b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n"
SLOWLY = b"Connection: keep-alive\r\n"
"""A header that changes nothing, but is not plain."""


def as_h11_reads(data: bytes) -> Request | None:
    """The one request that `data` is; None where it is none, or not one alone."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        request = connection.next_event()
        if not isinstance(request, h11.Request) or connection.they_are_waiting_for_100_continue:
            return None
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage) or connection.trailing_data[0]:
            return None
    except h11.RemoteProtocolError:
        return None
    return Request(request.method.decode(), request.target, list(request.headers), body)


PIECES = st.sampled_from(
    [
        *(b"GET", b"POST", b"HEAD", b"PRI", b"get", b" ", b"  ", b"/", b"/a?b=%20", b"*", b"http://a/b"),
        *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b"\t", b":"),
        *(
            b"Host: a\r\n",
            b"host:\r\n",
            b"Host : a\r\n",
            b"Host: a\r\n b\r\n",
            b"X-A: b, c \t\r\n",
            b"X:\r\n",
        ),
        *(b"Content-Length: 2\r\n", b"Content-Length: 0\r\n", b"content-length: 2, 2\r\n", b"\xff", b"abc"),
        *(b"Content-Length: 02\r\n", b"Content-Length: +2\r\n", b"Expect: 100-continue\r\n", b"ab", HEALTH),
        *(b"Transfer-Encoding: chunked\r\n", b"2\r\nab\r\n0\r\n\r\n", b"TE: trailers\r\n"),
        *(b"Connection: close\r\n", b"Upgrade: h2c\r\n"),
    ]
)
BEGUN = st.lists(PIECES, max_size=8).map(lambda pieces: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces))


@given(st.one_of(st.binary(), st.lists(PIECES).map(b"".join), BEGUN))
def test_what_is_taken_is_what_h11_takes(data: bytes) -> None:
    taken = plain(data)
    assert taken is None or taken == as_h11_reads(data)


@pytest.mark.parametrize(
    "data",
    [
        HEALTH,
        POST,
        b"GET /a?b=c&d=%2F HTTP/1.1\r\nHOST: a:1\r\nUser-Agent:curl/8 \t\r\nAccept: */*\r\nX-Empty:\r\n\r\n",
        b"DELETE /a HTTP/1.1\r\nhost: \r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_what_callers_send_is_plain(data: bytes) -> None:
    taken = plain(data)
    assert taken is not None
    assert taken == as_h11_reads(data)


@pytest.mark.parametrize(
    "data",
    [
        HEALTH[:-1],
        HEALTH + HEALTH,
        HEALTH + b"x",
        POST[:-1],
        HEALTH.replace(b"1.1", b"1.0"),
        HEALTH.replace(b"GET", b"HEAD"),
        HEALTH.replace(b"Host: a", b"X: a"),
        HEALTH.replace(b"Host: a", b"Host: a\r\nHost: a"),
        HEALTH.replace(b"Host: a", b"Host: a\r\n b"),
        HEALTH.replace(b"Host: a", b"Host: a\r\nX : b"),
        HEALTH.replace(b"Host: a", b"Host: a\r\nX: " + b"b" * room.MOST_BYTES),
        *(
            HEALTH.replace(b"Host: a", b"Host: a\r\n" + header)
            for header in (
                *(
                    b"Connection: close",
                    b"Upgrade: h2c",
                    b"Transfer-Encoding: chunked",
                    b"Expect: 100-continue",
                ),
                *(b"Content-Length: 0\r\nContent-Length: 0", b"Content-Length: -0", b"Content-Length: 0,0"),
            )
        ),
    ],
)
def test_all_else_is_not(data: bytes) -> None:
    assert plain(data) is None


# Answers


def endless(begun: asyncio.Event, stdout: bytes = b"") -> Callable[[bytes], Script]:
    """A process that tells when it has begun, and ends when it is told to."""

    def script(_: bytes) -> Script:
        begun.set()
        return Script(stdout=stdout, duration_s=float("inf"))

    return script


def finish(world: World) -> None:
    """End the one process that runs."""
    (jail,) = world.driver.alive.values()
    jail.process.finish()


@pytest.fixture
def handed() -> asyncio.Event:
    """Set when a plain request becomes h11's."""
    return asyncio.Event()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, handed: asyncio.Event) -> list[str]:
    """What became of each plain request: `answer` in one piece, or `hand_over`."""
    became: list[str] = []
    answer, hand_over = Exchange._answer, Exchange.hand_over

    async def answers(self: Exchange, *about: object) -> bool:
        done = await answer(self, *about)  # type: ignore[arg-type] # passed on
        became.extend(["answer"] * done)
        return done

    async def hands_over(self: Exchange) -> None:
        became.append("hand_over")
        await hand_over(self)
        handed.set()

    monkeypatch.setattr(Exchange, "_answer", answers)
    monkeypatch.setattr(Exchange, "hand_over", hands_over)
    return became


async def asked(server: Server, request: bytes) -> bytes:
    """The answer to this, which has a length."""
    reader, writer = await server.connect()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: ([0-9]+)", head)
    assert length is not None
    body = await reader.readexactly(int(length[1]))
    writer.close()
    return head + body


def alike(answer: bytes) -> bytes:
    """Without ids, dates and numbers, which differ from one answer to the next."""
    answer = re.sub(rb"(?i)(date|x-call-id): [^\r]*", rb"\1", answer)
    return re.sub(rb"[0-9][0-9.]*", b"0", re.sub(rb"(inv|sky)-[0-9a-z-]+", b"id", answer))


@pytest.mark.parametrize(
    "request_",
    [
        POST,
        HEALTH,
        POST.replace(b"geohash", b"geohush"),
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/v1/admin/jails HTTP/1.1\r\nHost: a\r\n\r\n",
        b"DELETE /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /api/v1/function HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{]",
    ],
    ids=["call", "health", "unknown", "nowhere", "admin", "method", "no JSON"],
)
async def test_answers_are_the_same_bytes(world: World, taken: list[str], request_: bytes) -> None:
    async with world.served() as server:
        await asked(server, request_)  # what is built is cached from then on
        taken.clear()
        plainly = await asked(server, request_)
        assert taken == ["answer"]
        by_h11 = await asked(server, request_.replace(b"Host: a\r\n", b"Host: a\r\n" + SLOWLY))
    assert taken == ["answer"]
    assert alike(plainly) == alike(by_h11)


async def test_an_answer_in_pieces_is_h11s(world: World, taken: list[str]) -> None:
    """A call that is watched has no length that is told."""
    request = POST.replace(b"Host: a\r\n", b"Host: a\r\nAccept: text/event-stream\r\n")
    async with world.served() as server:
        reader, writer = await server.connect()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert b"transfer-encoding: chunked" in head.lower()
    assert taken == ["hand_over"]


async def test_requests_that_come_before_the_answer_wait_their_turn(
    world: World, taken: list[str], handed: asyncio.Event
) -> None:
    begun = asyncio.Event()
    world.driver.script = endless(begun, b"slow")
    async with world.served() as server:
        reader, writer = await server.connect()
        writer.write(POST)
        await begun.wait()
        writer.write(HEALTH + HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await handed.wait()
        finish(world)
        came = await reader.read(-1)
        writer.close()
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in came.split(b"HTTP/1.1 ")[1:]]
    assert [b'"data":"slow"' in body for body in bodies] == [True, False, False]
    assert taken[0] == "hand_over"


async def test_who_leaves_takes_the_call_along(world: World, taken: list[str], handed: asyncio.Event) -> None:
    begun = asyncio.Event()
    world.driver.script = endless(begun)
    async with world.served() as server:
        _, writer = await server.connect()
        writer.write(POST)
        await begun.wait()
        writer.close()
        await handed.wait()
        await world.next(JailDestroyed)
        assert not world.driver.alive
    assert taken == ["hand_over"]


async def test_an_answer_that_is_the_last_of_its_connection_says_so(world: World, taken: list[str]) -> None:
    begun = asyncio.Event()
    world.driver.script = endless(begun, b"slow")
    async with world.served() as server:
        reader, writer = await server.connect()
        writer.write(POST)
        await begun.wait()
        draining = asyncio.ensure_future(world.island.drain(20))
        await asyncio.sleep(0)  # its first step: from then on no new call is taken
        assert world.island.draining
        finish(world)
        came = await reader.read(-1)
        writer.close()
        await draining
    assert b"connection: close" in came.lower()
    assert b'"data":"slow"' in came
    assert taken == ["hand_over"]


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([(b"content-length", b"1")], 2),
        ([(b"x", b"a\r\nb: c"), (b"content-length", b"2")], 2),
        ([(b"x", b"a\nb"), (b"content-length", b"2")], 2),
        ([(b"x y", b"a"), (b"content-length", b"2")], 2),
        ([(b"connection", b"close"), (b"content-length", b"2")], 2),
        ([(b"content-length", b"2"), (b"content-length", b"2")], 2),
        ([], 0),
    ],
)
def test_a_head_that_is_not_simple_is_h11s_to_judge(headers: list[tuple[bytes, bytes]], length: int) -> None:
    assert room._head(200, headers, length) == b""
    assert room._head(200, [(b"content-length", b"%d" % length)], length)
