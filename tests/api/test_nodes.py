"""One fleet for operators: another node answers, or all do; a change is made where it is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from msgspec import structs

from api.nodes import _heard
from skyisland import operations as op
from skyisland.cli import GlobalOptions, main
from skyisland.client import Client
from skyisland.drivers.fake import Script
from skyisland.errors import BadRequest, JailNotFound, NodeNotFound
from skyisland.events import JailCreated
from skyisland.fleet.frames import pack
from skyisland.fleet.line import Message, serve
from skyisland.fleet.operators import MOST_BYTES, Operators
from skyisland.fleet.subjects import Subjects
from skyisland.model import Invocation
from skyisland.nodes import Question, Told
from skyisland.settings import Api as ApiSettings
from tests.support.api import ADMIN, HEADER, REQUEST, TOKEN, World, make_world
from tests.support.fleets import Hub
from tests.support.nodes import Known, Room

OPERATOR = {HEADER: "an operator's token"}
NAMES = ("a", "b")


CALLS: set[asyncio.Task[Invocation]] = set()
"""Those that are running."""


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def known() -> dict[str, Known]:
    """What each node knows of the others."""
    return {name: Known(name, *NAMES, silent=("c",)) for name in NAMES}


@pytest.fixture
async def nodes(hub: Hub, known: dict[str, Known]) -> AsyncIterator[dict[str, World]]:
    worlds = {}
    for name in NAMES:
        room = Room(hub, known[name])
        worlds[name] = make_world(
            settings=ApiSettings(operators={"olga": OPERATOR[HEADER]}, admins={"alice": "alice's token"}),
            fleet=room,
        )
        await room.nodes.start()
        await worlds[name].island.start()
    yield worlds
    for world in worlds.values():
        await world.island.stop()


async def running_jail(world: World) -> int:
    """The number of a jail that works until it is killed."""
    world.driver.script = lambda _: Script(duration_s=float("inf"))
    call = asyncio.create_task(world.island.invoke(REQUEST))
    CALLS.add(call)
    call.add_done_callback(CALLS.discard)
    return (await world.next(JailCreated)).jid


async def test_another_node_answers_and_all_do(
    nodes: dict[str, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def takes_its_time() -> None:
        await asyncio.to_thread(time.sleep, 0.01)  # as the host's own figures do

    for world in nodes.values():
        monkeypatch.setattr(world.island, "sample_usage", takes_its_time)
    jid = await running_jail(nodes["b"])
    async with nodes["a"].client(headers=ADMIN) as client:
        assert (await client.get("/api/v1/admin/jails")).json() == {"jails": []}
        assert (await client.get("/api/v1/admin/jails?node=a")).json() == {"jails": []}
        there = (await client.get("/api/v1/admin/jails?node=b")).json()
        assert [jail["jid"] for jail in there["jails"]] == [jid]
        every = (await client.get("/api/v1/admin/jails?node=all")).json()
        assert every["silent"] == ["c"]
        assert [(jail["from"], jail["jid"]) for jail in every["jails"]] == [("b", jid)]
        stats = (await client.get("/api/v1/admin/ips?state=available&node=all")).json()
        assert stats["nodes"].keys() == {"a", "b"}
        assert set(stats["nodes"]["b"]["available"]) == set(stats["nodes"]["a"]["available"])
        one = (await client.get(f"/api/v1/admin/jail/{jid}?node=all")).json()
        assert one["refused"]["a"]["code"] == "jail_not_found"
        assert one["nodes"]["b"]["details"]["jid"] == jid


async def test_a_change_is_made_where_it_is_asked_for_and_noted_there(
    nodes: dict[str, World], caplog: pytest.LogCaptureFixture
) -> None:
    jid = await running_jail(nodes["b"])
    caplog.set_level(logging.INFO, "api.audit")
    async with nodes["a"].client(headers={HEADER: "alice's token"}) as client:
        assert (await client.delete(f"/api/v1/admin/jail/{jid}")).json()["code"] == "jail_not_found"
        killed = await client.delete(f"/api/v1/admin/jail/{jid}?node=b")
        assert killed.json() == {"deleted": jid}
        (record,) = caplog.records
        assert record.__dict__["who"] == "alice"
        assert record.__dict__["address"].endswith(" by way of a")
        body = {"ip": "10.61.0.2", "state": "unavailable"}
        put = await client.put("/api/v1/admin/ips?node=b", json=body)
        assert put.json()["state"] == "unavailable"
    taken = {name: world.island.network.addresses()[0].state for name, world in nodes.items()}
    assert taken == {"a": "available", "b": "unavailable"}


async def test_what_cannot_be_asked_is_refused(nodes: dict[str, World], world: World) -> None:
    async with nodes["a"].client(headers=ADMIN) as client:

        async def code(method: str, path: str) -> tuple[int, str]:
            response = await client.request(method, path)
            return response.status_code, response.json()["code"]

        assert await code("DELETE", "/api/v1/admin/jails?node=all") == (400, "bad_request")
        assert await code("GET", "/api/v1/admin/jails?node=x") == (404, "node_not_found")
        assert await code("GET", "/api/v1/admin/jails?node=c") == (502, "node_silent")
        assert await code("GET", "/api/v1/admin/invocations?node=b&limit=x") == (400, "bad_request")
        assert await code("GET", "/api/v1/admin/jail/7?node=b") == (404, "jail_not_found")
        assert await code("GET", "/api/v1/admin/jails?nod=b") == (400, "bad_request")
    async with world.client(headers=ADMIN) as client:
        alone = await client.get("/api/v1/admin/jails?node=all")
        assert (alone.status_code, alone.json()["code"]) == (404, "node_not_found")


async def test_a_node_may_ask_what_operators_may_and_no_more(nodes: dict[str, World], hub: Hub) -> None:
    rogue = Operators(hub.line("r"), Subjects("f", "r"), Known("r", *NAMES), ask_s=0.2)

    async def asked(method: str, url: str, role: str) -> tuple[int, object]:
        told = await rogue.ask("b", Question(method=method, url=url, who="mallory", role=role))
        return told.status, json.loads(told.body).get("code")

    assert await asked("GET", "/api/v1/admin/jails", "operator") == (200, None)
    assert await asked("DELETE", "/api/v1/admin/jails", "operator") == (403, "forbidden")
    assert await asked("DELETE", "/api/v1/admin/jails", "caller") == (403, "forbidden")
    for method, url in (
        ("PUT", "/api/v1/names/x"),
        ("GET", "/api/v1/secrets"),
        ("POST", "/api/v1/function"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/api/v1/admin/events"),
        ("GET", "/nowhere"),
    ):
        assert await asked(method, url, "admin") == (403, "forbidden"), url
    assert await asked("GET", "/api/v1/admin/jails?node=a", "admin") == (400, "bad_request")


async def test_answers_that_are_no_answers_count_as_silence(hub: Hub, nodes: dict[str, World]) -> None:
    line, ours = hub.line("c"), Subjects("f", "c")
    bomb = zlib.compress(bytes(MOST_BYTES + 1), 9)
    good = Told(node="c", status=200, body=b'{"jails":[]}')
    answers = [
        pack(structs.replace(good, body=bomb, packed=True)),
        pack(structs.replace(good, body=bomb[:100], packed=True)),
        pack(structs.replace(good, body=b"x", packed=True)),
        pack(good)[:20],
        b"\x02" + pack(good)[1:],
        pack(structs.replace(good, node="b")),
    ]

    async def said(data: bytes) -> tuple[int, str]:
        async def answer(_: Message) -> bytes:
            return data

        listening = await serve(line, f"{ours.at('c', 'admin')}.a", answer)
        async with nodes["a"].client(headers=ADMIN) as client:
            response = await client.get("/api/v1/admin/jails?node=c")
        await listening.end()
        return response.status_code, response.json().get("code", "")

    for data in answers:
        assert await said(data) == (502, "node_silent")
    assert await said(pack(good)) == (200, "")


async def test_what_another_node_says_that_is_no_json_is_passed_to_nobody(
    hub: Hub, nodes: dict[str, World]
) -> None:
    line, ours = hub.line("c"), Subjects("f", "c")
    good = Told(node="c", status=200, body=b'{"jails":[]}')
    answers = [
        *(structs.replace(good, body=body) for body in (b"", b"{", b"\xff", b'{"jails":["\xff"]}', b"[]")),
        structs.replace(good, body=b"fine", media="text/plain"),
        structs.replace(good, media="text/html"),
        structs.replace(good, body=b"", status=500),
        structs.replace(good, body=b"<p>gone</p>", status=502, media="text/html"),
        structs.replace(good, body=b'{"error":1}', status=400),
    ]
    of_lists = [structs.replace(good, body=body) for body in (b"{}", b'{"jails":1}', b'{"jails":[1]}')]
    said = good

    async def answer(_: Message) -> bytes:
        return pack(said)

    await serve(line, f"{ours.at('c', 'admin')}.a", answer)
    await serve(line, f"{ours.of('admin')}.a", answer)
    async with nodes["a"].client(headers=ADMIN) as client:
        for said in (*answers, *of_lists):
            every = await client.get("/api/v1/admin/jails?node=all")
            assert every.status_code == httpx.codes.OK
            assert (every.json()["jails"], every.json()["silent"]) == ([], []), said
            assert list(every.json()["refused"]) == ["c"], said
            assert "the node c answered" in every.json()["refused"]["c"]["error"], said
        for said in answers:
            every = await client.get("/api/v1/admin/api-stats?node=all")
            assert (set(every.json()["nodes"]), set(every.json()["refused"])) == ({"a", "b"}, {"c"}), said
            one = await client.get("/api/v1/admin/jails?node=c")
            assert (one.status_code, one.json()["code"]) == (502, "node_silent"), said
        said = structs.replace(good, body=b' { "jails" : [ { "jid" : 7 } ] } ')
        assert (await client.get("/api/v1/admin/jails?node=all")).json() == {
            "silent": [],
            "jails": [{"from": "c", "jid": 7}],
        }


async def test_a_question_that_gets_nothing_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    told = await _heard(nothing, {"method": "GET", "path": "/x"}, b"", "b")
    assert (told.status, json.loads(told.body)["code"]) == (500, "internal")
    assert "GET /x, asked by another node, had no answer (200)" in caplog.text


async def test_an_answer_that_is_too_long_says_so(
    nodes: dict[str, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.nodes.LONGEST_BYTES", 200)
    async with nodes["a"].client(headers=ADMIN) as client:
        told = await client.get("/api/v1/admin/snapshot?node=b")
        assert (told.status_code, told.json()["code"]) == (413, "too_large")
        every = (await client.get("/api/v1/admin/snapshot?node=all")).json()
        assert {node: one["code"] for node, one in every["refused"].items()} == dict.fromkeys(
            NAMES, "too_large"
        )


async def test_an_answer_that_no_message_can_hold_says_so(nodes: dict[str, World], hub: Hub) -> None:
    hub.lines[1].largest_bytes = 200
    async with nodes["a"].client(headers=ADMIN) as client:
        told = await client.get("/api/v1/admin/snapshot?node=b")
        assert (told.status_code, told.json()["code"]) == (413, "too_large")


async def test_client_and_commands_ask_other_nodes(nodes: dict[str, World], known: dict[str, Known]) -> None:
    jid = await running_jail(nodes["b"])
    async with nodes["a"].served() as server:

        class Here(GlobalOptions):
            def at(self, node: str) -> GlobalOptions:
                here = Here()
                here.node = node
                return here

            def client(self, *, admin: bool = True, timeout_s: float = 30.0) -> Client:
                return Client(server.url, token=TOKEN, header=HEADER, node=self.node or "")

        def with_client() -> None:
            with Client(server.url, token=TOKEN, header=HEADER, node="b") as client:
                assert [jail.jid for jail in client.jails()] == [jid]
                with pytest.raises(BadRequest, match="not asked of a node"):
                    client.set_secret("KEY", "value")
                with pytest.raises(BadRequest, match="not asked of a node"):
                    client.output("1")
                with pytest.raises(JailNotFound):
                    client.jail("99")
            with Client(server.url, token=TOKEN, header=HEADER, node="x") as client:
                with pytest.raises(NodeNotFound, match="the fleet has b, c"):
                    client.jails()
                every = client.everywhere(op.JAILS)
            everybody = Client(server.url, token=TOKEN, header=HEADER, node="all")
            with everybody as client, pytest.raises(BadRequest, match="name one node"):
                client.stats()
            assert every.silent == ["c"]
            assert {node: [jail.jid for jail in jails] for node, jails in every.answers.items()} == {
                "b": [jid]
            }

        def run(node: str, *words: str) -> tuple[str, str]:
            command, *rest = words
            result = CliRunner().invoke(main.commands[command], rest, obj=Here().at(node))
            assert result.exception is None, result.exception
            return result.stdout, result.stderr

        def with_commands() -> None:
            out, told = run("all", "jails")
            assert told == "c did not answer\n"
            known["a"].silent.clear()
            for words in (
                ("requests",),
                ("cache",),
                ("logs",),
                ("ips",),
                ("ips", "--json"),
                ("top",),
                ("top", "--json"),
                ("status",),
                ("stats",),
            ):
                shown, told = run("all", *words)
                assert "b" in shown.split() or told == "no node has any\n" or '"b": {' in shown, words
            assert out.splitlines()[0].startswith("NODE  JID")
            assert out.splitlines()[1].split()[:2] == ["b", str(jid)]
            assert json.loads(run("all", "jails", "--json")[0])["silent"] == []
            table = [line.split() for line in run("all", "status")[0].splitlines()]
            assert table[0] == ["NODE", "NAME", "VALUE"]
            assert [words[0] for words in table if words[1:3] == ["jails", "1,"]] == ["b"]
            nodes = json.loads(run("all", "stats", "--json")[0])["nodes"]
            assert nodes.keys() == {"a", "b"}
            shown, _ = run("", "fleet", "status")
            assert "prod, this node is a" in shown
            assert [line.split()[:2] for line in shown.splitlines()[-2:]] == [["a", "here"], ["b", "up"]]
            assert run("", "kill", f"b/{jid}")[0] == f"killed: {jid}\n"

        await asyncio.to_thread(with_client)
        await asyncio.to_thread(with_commands)


@pytest.mark.parametrize("words", ["jail 7", "kill 7", "ip 10.61.0.2 available", "top fn-0", "fleet status"])
def test_all_nodes_are_asked_for_lists_alone(words: str) -> None:
    result = CliRunner().invoke(main, ["--node", "all", *words.split()])
    assert result.exit_code == 2
    wanted = (
        "--node all is for cache list, ips, jails, logs, requests, stats, status, top; here, name one node"
    )
    assert wanted in " ".join(result.stderr.split())


async def test_a_node_that_asks_needs_a_token_like_anybody(nodes: dict[str, World]) -> None:
    async with nodes["a"].client() as client:
        assert (await client.get("/api/v1/admin/jails?node=b")).status_code == httpx.codes.UNAUTHORIZED
        olga = await client.delete("/api/v1/admin/jails?node=b", headers=OPERATOR)
        assert olga.status_code == httpx.codes.FORBIDDEN
        assert (
            await client.get("/api/v1/admin/jails?node=b", headers=OPERATOR)
        ).status_code == httpx.codes.OK
