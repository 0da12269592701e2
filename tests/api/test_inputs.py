"""Arguments as data, and many inputs: as bodies, as streams, by the client and by the command."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from skyisland.cli import EXIT_FUNCTION, main
from skyisland.client import Client
from skyisland.codec import decode
from skyisland.drivers.fake import FakeJail, Script
from skyisland.errors import BadRequest, BuildFailed
from skyisland.events import InvocationFinished
from skyisland.wire import FunctionBody
from tests.support.api import CALL, World

PATH = "/api/v1/function"
LINES = {"Accept": "application/x-ndjson"}
MANY = {"url": CALL["url"], "call": "Half", "inputs": [[4], [5]]}


def nonce_of(frame: bytes) -> bytes:
    match = re.search(rb'"nonce":"(\w+)"', frame)
    assert match is not None
    return match[1]


def record(nonce: bytes, text: bytes, said: dict[str, Any]) -> bytes:
    body = json.dumps(said).encode()
    return b"%b%b%08x%08x%b" % (text, nonce, len(text), len(body), body)


def answers(frame: bytes) -> bytes:
    """What the harness writes for `MANY`."""
    nonce = nonce_of(frame)
    odd = {"results": [0], "error": {"message": "odd", "type": "*errors.errorString"}}
    return record(nonce, b"2 <nil>", {"results": [2]}) + b"hm " + record(nonce, b"0 odd", odd) + b"bye"


def expected(answer: dict[str, Any]) -> tuple[Any, ...]:
    return (answer["data"], answer["results"], answer["failed"], answer["stdout"])


EXPECTED = [("2 <nil>", [2], False, ""), ("hm 0 odd", [0], True, "hm ")]


@pytest.fixture
def world_of_many(world: World) -> World:
    world.driver.script = lambda frame: Script(stdout=answers(frame))
    return world


async def test_the_jail_gets_the_json_as_it_was_sent(world: World, client: httpx.AsyncClient) -> None:
    frames: list[bytes] = []
    world.driver.script = lambda frame: frames.append(frame) or Script()  # type: ignore[func-returns-value]
    finished = asyncio.ensure_future(world.next(InvocationFinished))
    body = b'{"url":"a.b/c/d","call":"F","args":[1.50, {"a" : "\\u00e9"}],"types":["int"],"stdin":"in"}'
    assert (await client.post(PATH, content=body)).status_code == 200
    assert frames[0].endswith(b'[1.50, {"a" : "\\u00e9"}]in')
    assert b'"args":[],' in frames[0]
    assert (await finished).call == 'F[int](1.50, {"a" : "\\u00e9"})'


async def test_a_list_of_answers(world_of_many: World, client: httpx.AsyncClient) -> None:
    answer = (await client.post(PATH, json=MANY)).json()
    assert [expected(one) for one in answer["answers"]] == EXPECTED
    assert (answer["data"], answer["failed"], answer["results"]) == ("bye", False, None)


async def test_as_many_as_there_are_when_it_ends_early(world: World, client: httpx.AsyncClient) -> None:
    def ends(frame: bytes) -> Script:
        return Script(stdout=record(nonce_of(frame), b"2", {"results": [2]}) + b"half", exit_code=3)

    world.driver.script = ends
    response = await client.post(PATH, json=MANY)
    assert response.status_code == 502
    details = response.json()["details"]
    assert ([one["data"] for one in details["answers"]], details["data"]) == (["2"], "half")


@pytest.mark.parametrize("headers", [{}, LINES])
async def test_an_input_without_answer_is_no_success(
    world: World, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """The function ended the process with code 0, or closed its standard output."""
    world.driver.script = lambda frame: Script(stdout=record(nonce_of(frame), b"2", {"results": [2]}))
    response = await client.post(PATH, json=MANY, headers=headers)
    said = json.loads(response.content.splitlines()[-1])
    assert (response.status_code, said["code"]) == (200 if headers else 502, "exited")
    assert said["error"].startswith("the function exited with code 0; 1 of 2 inputs were answered; details")
    assert said["details"]["error"] == {"message": "1 of 2 inputs were answered", "type": "inputs"}
    assert [one["data"] for one in said["details"].get("answers", ())] == ([] if headers else ["2"])


async def test_lines_as_they_come(world: World) -> None:
    framed = asyncio.get_running_loop().create_future()

    def waits(frame: bytes) -> Script:
        framed.set_result(nonce_of(frame))
        return Script(duration_s=float("inf"))

    world.driver.script = waits
    async with world.served() as server, httpx.AsyncClient(base_url=server.url) as client:
        asking = client.stream("POST", PATH, json={**MANY, "inputs": [[4]]}, headers=LINES)
        opened = asyncio.ensure_future(asking.__aenter__())
        nonce = await framed
        (living,) = world.island.jails.living()
        jail = world.island.jails.find(living.jid).jail
        assert isinstance(jail, FakeJail)
        os.write(jail.process._out, record(nonce, b"2", {"results": [2]}))
        response = await opened
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["x-call-id"].startswith("inv-")
        lines = response.aiter_lines()
        assert json.loads(await anext(lines))["results"] == [2]
        last = json.loads(await anext(lines))
        assert (last["jail"], last["data"], "answers" in last) == (living.name, "", False)
        await asking.__aexit__(None, None, None)


async def test_what_fails_before_the_first_line_has_its_status(
    world: World, client: httpx.AsyncClient
) -> None:
    world.builds.fail = BuildFailed("does not compile")
    response = await client.post(PATH, json=MANY, headers=LINES)
    assert (response.status_code, response.json()["code"]) == (422, "build_failed")


async def test_one_call_is_one_line(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json=CALL, headers=LINES)
    assert response.headers["content-type"] == "application/x-ndjson"
    (line,) = response.content.splitlines()
    assert json.loads(line)["data"] == "fake"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"args": [], "inputs": []}, "args"),
        ({"args": 5}, "args"),
        ({"args": None}, "args"),
        ({"inputs": {}}, "inputs"),
        ({"types": ["int"]}, "types"),
        ({"args": [], "types": "int"}, "types"),
    ],
)
async def test_refused(client: httpx.AsyncClient, fields: dict[str, Any], field: str) -> None:
    response = await client.post(PATH, json={**CALL, "call": "F", **fields})
    assert response.status_code == 400
    assert response.json()["details"]["field"].startswith(field)


async def test_a_program_gets_its_words_and_its_input(world: World, client: httpx.AsyncClient) -> None:
    fed: list[bytes] = []
    run_with: list[tuple[str, ...]] = []

    def script(data: bytes) -> Script:
        fed.append(data)
        run_with.append([*world.driver.alive.values()][-1].spec.argv)
        return Script(stdout=b"out", exit_code=3 if data == b"fail" else 0)

    world.driver.script = script
    body = {"url": CALL["url"], "args": ["-x", "a b"], "stdin": "in"}
    answer = (await client.post(PATH, json=body)).json()
    assert fed == [b"in"]
    assert run_with == [("/function", "-x", "a b")]
    assert [answer[name] for name in ("data", "stdout", "failed", "results")] == ["out", "out", False, None]
    response = await client.post(PATH, json={**body, "stdin": "fail"})
    assert response.status_code == 200
    answer = response.json()
    assert (answer["failed"], answer["exit_code"]) == (True, 3)
    assert answer["error"] == {"message": "exit status 3", "type": "exit"}


async def test_a_program_by_the_command(world: World) -> None:
    result, [fed] = await invoked(world, CALL["url"], "--arg", "5", "--arg=-x", "--stdin", "-", given=b"in")
    assert (result.exit_code, result.stdout, fed) == (0, "fake", b"in")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'"args":["\xff\xfe"]', "UTF-8|utf-8"),
        (b'"inputs":[["\xff"]]', "UTF-8|utf-8"),
        (b'"args":["\\ud800"]', "half of a surrogate pair"),
        (b'"args":[],"types":[%b]' % b",".join([b'"int"'] * 17), "'types' has more than 16 elements"),
    ],
)
def test_what_is_no_text_of_a_call(data: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        decode(b'{"url":"u","call":"F",%b}' % data, FunctionBody)


@pytest.mark.parametrize(
    "body",
    [
        '{"url": "a", "call": "F", "args": [1], "args": [1]}',
        '{"url": "a", "call": "F", "call": "G", "args": [{"call": "F", "call": "G"}]}',
    ],
)
def test_a_field_of_the_request_stands_there_once(body: str) -> None:
    with pytest.raises(BadRequest, match="is there twice"):
        decode(body.encode(), FunctionBody)


def test_what_the_json_holds_is_read_in_the_jail_alone() -> None:
    body = '{"args": [{"a": 1, "a": 2}], "url": "u", "call": "F", "stdin": "[{\\"a\\": 1"}'
    assert decode(body.encode(), FunctionBody).data is not None


async def invoked(world: World, *words: str, given: bytes = b"") -> tuple[Result, list[bytes]]:
    frames: list[bytes] = []

    def script(frame: bytes) -> Script:
        frames.append(frame)
        return Script(stdout=answers(frame) if b'"many"' in frame else b"fake")

    world.driver.script = script
    async with world.served() as server:

        class Here:
            def client(self, *, admin: bool = True) -> Client:
                return Client(server.url)

        command = main.commands["invoke"]
        result = await asyncio.to_thread(CliRunner().invoke, command, words, obj=Here(), input=given)
        return result, frames


@pytest.mark.parametrize(
    ("words", "json_sent"),
    [
        (["--args", '[1, "a"]'], b'[1, "a"]'),
        (["--args", '{"a": 1}'], b'{"a": 1}'),
        (["--arg", "1.5", "--arg", "north", "--arg", '{"a": 1}', "--arg", '"1"'],
         b'[1.5,"north",{"a": 1},"1"]'),
    ],
)  # fmt: skip
async def test_the_command_sends_data(world: World, words: list[str], json_sent: bytes) -> None:
    result, [frame] = await invoked(world, CALL["url"], "F", *words, "--type", "int")
    assert (result.exit_code, result.stdout) == (0, "fake")
    assert frame.endswith(json_sent)


async def test_the_command_prints_a_line_for_each_input(world: World) -> None:
    result, [frame] = await invoked(world, CALL["url"], "F", "--inputs", "-", given=b'[4]\n\n{"n": 5}\n')
    assert frame.endswith(b'[[4],{"n": 5}]')
    assert [expected(json.loads(line)) for line in result.stdout.splitlines()] == EXPECTED
    assert result.exit_code == EXIT_FUNCTION


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        (["--args", "[1"], b"", "--args is not JSON"),
        (["--args", "[]", "--arg", "1"], b"", "exclude each other"),
        (["--inputs", "-"], b"[1]\n[", "--inputs: line 2 is not JSON"),
    ],
)
async def test_the_command_says_what_is_no_json(
    world: World, words: list[str], given: bytes, said: str
) -> None:
    result, frames = await invoked(world, CALL["url"], "F", *words, given=given)
    assert (result.exit_code, frames) == (2, [])
    assert said in result.stderr


@pytest.mark.parametrize("headers", [{}, LINES])
async def test_thousands_of_answers(world: World, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """More than are written on the event loop at once. They fill no pipe, which nobody reads meanwhile."""
    count = 700

    def script(frame: bytes) -> Script:
        return Script(stdout=record(nonce_of(frame), b"", {"results": []}) * count)

    world.driver.script = script
    body = {**MANY, "inputs": [[]] * count}
    response = await client.post(PATH, json=body, headers=headers)
    assert response.status_code == 200
    if headers:
        *lines, last = response.content.splitlines()
        assert (len(lines), "id" in json.loads(last)) == (count, True)
    else:
        assert len(response.json()["answers"]) == count
