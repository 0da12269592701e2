"""The client of the commands against a real server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from operator import methodcaller
from typing import Any, TypeVar

import httpx
import pytest
from msgspec import structs

from skyisland import errors
from skyisland.client import Client, Unreachable
from skyisland.codec import decode, encode, refusal
from skyisland.drivers.fake import Script
from skyisland.events import JailCreated
from skyisland.model import FunctionRequest, Verdict
from skyisland.status import AddressState
from skyisland.wire import Called, FunctionBody, Problem
from tests.support.api import CALL, HEADER, REQUEST, TOKEN, Server, World

T = TypeVar("T")


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    async with world.served() as server:
        yield server


async def ask(server: Server, question: Callable[[Client], T], token: str = TOKEN) -> T:
    """Ask a client in a thread, as a command would in a process."""

    def asked() -> T:
        with Client(server.url, token=token, header=HEADER) as client:
            return question(client)

    return await asyncio.to_thread(asked)


async def test_a_call(world: World, server: Server) -> None:
    world.driver.script = lambda data: Script(stdout=b"\xffhi")
    called = await ask(server, lambda client: client.invoke(REQUEST))
    assert (called.verdict, called.message, called.answer.output) == (Verdict.ok, "", b"\xffhi")
    assert called.answer.exit_code == 0
    assert 0 < called.answer.timings.total_s < 60


async def test_a_call_that_fails_in_its_jail(world: World, server: Server) -> None:
    world.driver.script = lambda data: Script(exit_code=3, stdout=b"out", stderr=b"err")
    called = await ask(server, lambda client: client.invoke(REQUEST))
    assert isinstance(called, Called)
    assert (called.verdict, called.answer.output, called.answer.exit_code) == (Verdict.exited, b"out", 3)
    assert called.message == "the function exited with code 3", "`details` are the API's word"


async def test_what_the_island_refuses_is_raised_as_it_was(world: World, server: Server) -> None:
    world.builds.fail = errors.BuildFailed("does not compile", output="x.go:1")
    with pytest.raises(errors.BuildFailed, match="does not compile") as failed:
        await ask(server, lambda client: client.invoke(REQUEST))
    assert failed.value.details == {"output": "x.go:1"}
    with pytest.raises(errors.NotFound):
        await ask(server, lambda client: client.jail("../jails"))
    with pytest.raises(errors.JailNotFound):
        await ask(server, lambda client: client.kill("*"))
    with pytest.raises(errors.Unauthorized):
        await ask(server, lambda client: client.jails(), token="")
    with pytest.raises(errors.Forbidden):
        await ask(server, lambda client: client.jails(), token="wrong")


async def test_operators(world: World, server: Server) -> None:
    await ask(server, lambda client: client.invoke(structs.replace(REQUEST, call="Decode(`x`)")))
    await ask(server, lambda client: client.invoke(REQUEST))
    world.driver.script = lambda data: Script(duration_s=float("inf"))
    for question in ("kill", "kill_all"):
        running = asyncio.create_task(ask(server, lambda client: client.invoke(REQUEST)))
        await world.next(JailCreated)
        (jail,) = await ask(server, lambda client: client.jails())
        again = await ask(server, methodcaller("jail", jail.name))
        assert structs.replace(again, age_s=0) == structs.replace(jail, age_s=0)
        if question == "kill":
            assert await ask(server, methodcaller("kill", jail.name)) == jail.jid
        else:
            assert await ask(server, lambda client: client.kill_all()) == [jail.jid]
        assert (await running).verdict is Verdict.killed
    state = AddressState.unavailable
    assert (await ask(server, lambda client: client.set_address("10.61.0.2", state))).state is state
    assert await ask(server, lambda client: client.addresses_in(state)) == ["10.61.0.2"]
    assert len(await ask(server, lambda client: client.addresses())) == 6
    artifact, other = await ask(server, lambda client: client.artifacts())
    assert await ask(server, lambda client: client.rebuild(artifact.key)) == artifact.key
    assert await ask(server, lambda client: client.evict(artifact.key)) == artifact.key
    assert await ask(server, lambda client: client.purge()) == [other.key]
    assert [one.verdict for one in await ask(server, lambda client: client.invocations(2))] == ["killed"] * 2
    assert (await ask(server, lambda client: client.stats())).total_count > 10
    snapshot = await ask(server, lambda client: client.snapshot())
    assert (snapshot.island, snapshot.recent[0].verdict) == ("t", "killed")
    assert (await ask(server, lambda client: client.logs(limit=1)))[0].text
    assert await ask(server, lambda client: client.logs(jail="nobody")) == []
    assert await ask(server, lambda client: client.capabilities())


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://island", token="t", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(404, text="nginx"),
        httpx.Response(403, json={"error": "Forbidden"}),
        httpx.Response(502, json={"detail": "proxy"}),
    ],
)
def test_who_is_no_island_is_told(answer: httpx.Response) -> None:
    with client_of(lambda request: answer) as client, pytest.raises(Unreachable, match="not as an island"):
        client.jails()


def fail(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("refused"), "skyisland serve"),
        (httpx.ReadTimeout(""), "in time"),
        (httpx.RemoteProtocolError("cut"), "cut"),
    ],
)
def test_nobody_there_is_told(error: Exception, words: str) -> None:
    with client_of(fail(error)) as client, pytest.raises(Unreachable, match=words):
        client.jails()


def test_the_token_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with Client("http://127.0.0.1:9", token="secret-token") as client:
            assert "secret-token" not in repr(client)
            with pytest.raises(Unreachable):
                client.jails()
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (REQUEST, CALL),
        (
            structs.replace(REQUEST, ip4=True, cache_bust=True, version="v1", stdin="in", cold=True),
            CALL | {"ip4": True, "cache_bust": True, "version": "v1", "stdin": "in", "cold": True},
        ),
        (structs.replace(REQUEST, stdin_base64=b"\xff"), CALL | {"stdin_base64": "/w=="}),
    ],
)
def test_a_request_goes_out_with_what_is_not_the_default(
    request_: FunctionRequest, fields: dict[str, Any]
) -> None:
    assert json.loads(encode(request_)) == fields
    read = decode(encode(request_), FunctionBody)
    assert structs.asdict(read) == structs.asdict(request_)


def test_a_verdict_without_its_answer_is_told() -> None:
    answer = httpx.Response(502, json={"error": "e", "code": "exited", "details": {"data": 1}})
    with client_of(lambda request: answer) as client, pytest.raises(Unreachable, match="of this version"):
        client.invoke(REQUEST)


def test_fields_of_a_newer_island_are_left_out() -> None:
    answer = httpx.Response(200, json={"logs": [], "more": {"than": "we know"}})
    with client_of(lambda request: answer) as client:
        assert client.logs() == []


def test_errors_by_code() -> None:
    for kind in (errors.TooBusy, errors.NoAddress, errors.Unavailable, errors.BadCall, errors.NotFound):
        assert type(refusal(400, Problem("e", kind.code))) is kind
    assert type(refusal(418, Problem("e", "new"))) is errors.IslandError
    assert type(refusal(403, Problem("e", "new"))) is errors.Forbidden
    told = refusal(400, Problem("e", "bad_request", {"field": "url", "message": "m"}))
    assert (told.message, told.details) == ("e", {"field": "url", "message": "m"})
