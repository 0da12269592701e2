"""Calls at other versions, over the wire: what there is to call, who goes first, and what commands print."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from click.testing import Result

from api.later import is_behind
from skyisland import fakes
from skyisland.cli import EXIT_FUNCTION
from skyisland.drivers.fake import Script
from skyisland.events import InvocationFinished, InvocationStarted
from skyisland.named.definition import Definition
from tests.api.test_commands import Here, run
from tests.support.api import CALL, REQUEST, World, make_world

URL = REQUEST.url


@pytest.fixture
async def here(world: World) -> AsyncIterator[Here]:
    async with world.served() as server:
        yield Here(server)


async def faulty_since(world: World, fault: str) -> None:
    """Have what is called print 3, but 4 at this release and later."""
    releases = (await world.island.versions(URL)).versions
    first = [one.version for one in releases].index(fault)
    bad = {one.commit for one in releases[first:]}
    at: list[str | None] = []
    world.events.tap(lambda event: at.append(event.version), InvocationStarted)
    world.driver.script = lambda data: Script(stdout=b"4" if at[-1] in bad else b"3")


def lines(result: Result) -> list[list[str]]:
    return [line.split() for line in result.output.splitlines()]


async def test_the_releases_of_a_package_and_the_commits_after_a_version(client: httpx.AsyncClient) -> None:
    told = (await client.get("/api/v1/versions", params={"url": URL})).json()
    assert (told["url"], told["package"], told["omitted"]) == (URL, "", 0)
    assert [one["version"] for one in told["versions"]][::9] == ["v1.0.0", "v1.9.0"]
    told = (await client.get("/api/v1/versions", params={"url": URL, "after": "v1.0.0"})).json()
    assert [len(one["version"]) for one in told["versions"]] == [40] * 4
    answer = await client.get("/api/v1/versions")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_the_header_priority_is_read_by_rfc_9218() -> None:
    assert is_behind(b"u=7")
    assert is_behind(b"i, u=7")
    assert not any(map(is_behind, (b"", b"u=6", b"u=77", b"i", b"U=7", b"u=7;x")))


async def test_a_call_behind_others_waits_until_nobody_does_and_leaves_a_place() -> None:
    world = make_world(fakes.policy(max_running=2, running_per_client=2, behind_running=1))
    await world.island.start()
    async with world.client() as client:
        world.driver.script = lambda data: Script(duration_s=float("inf"))
        first = asyncio.ensure_future(client.post("/api/v1/function", json=CALL))
        jail = (await world.next(InvocationStarted)).invocation
        behind = {"Priority": "u=7"}
        last = asyncio.ensure_future(client.post("/api/v1/function", json=CALL, headers=behind))
        assert (await world.next(InvocationStarted)).invocation != jail
        other = asyncio.ensure_future(client.post("/api/v1/function", json=CALL))
        await world.next(InvocationStarted)
        assert len(world.driver.alive) <= 2
        world.driver.script = lambda data: Script()
        while len(world.driver.alive) < 2:  # noqa: ASYNC110 - of the first and the third
            await asyncio.sleep(0)
        assert not last.done()
        for name in [*world.driver.alive]:
            await world.island.kill(name)
        assert (await first).json()["code"] == (await other).json()["code"] == "killed"
        assert (await last).status_code == 200
    await world.island.stop()


async def test_sweep_prints_a_row_for_each_release(here: Here, world: World) -> None:
    await faulty_since(world, "v1.4.0")
    result = await run(here, "sweep", URL, "Add(1, 2)", "--versions", "v1.2..v1.5", "--diff")
    rows = lines(result)
    assert result.exit_code == 0
    assert rows[0] == ["VERSION", "NEW", "COMMIT", "RESULT", "MS", "OUTPUT"]
    assert [(row[0], row[1], row[-1]) for row in rows[1:5]] == [
        ("v1.2.0", "-", "3"),
        ("v1.3.0", "-", "3"),
        ("v1.4.0", "*", "4"),
        ("v1.5.0", "-", "4"),
    ]
    assert result.output.endswith("--- v1.3.0\n+++ v1.4.0\n@@ -1 +1 @@\n-3\n+4\n")
    told = json.loads((await run(here, "sweep", URL, "F()", "--versions", "v1.4.0,main", "--json")).output)
    assert [(one["version"], one["outcome"], one["changed"]) for one in told] == [
        ("v1.4.0", "ok", False),
        ("main", "ok", True),
    ]


async def test_bisect_finds_the_first_bad_release(here: Here, world: World) -> None:
    await faulty_since(world, "v1.6.0")
    ends = ("--good", "v1.0.0", "--bad", "v1.9.0")
    result = await run(here, "bisect", URL, "Add(1, 2)", *ends, "--expect", "3")
    assert "the first bad one is v1.6.0 (commit " in result.output
    assert "5 calls among 10 versions; v1.5.0 is good\n" in result.output
    result = await run(here, "bisect", URL, "Add(1, 2)", *ends)
    assert "v1.9.0 answers as expected" in str(result.exception)
    result = await run(here, "bisect", "./mine", "Add(1, 2)", *ends)
    assert "a folder of this machine has no releases" in result.output


async def test_replay_makes_a_call_again_and_says_how_it_was(here: Here, world: World) -> None:
    world.driver.script = lambda data: Script(stdout=b"3", exit_code=0)
    then = await world.island.invoke(REQUEST)
    told = json.loads((await run(here, "replay", then.id, "--json")).output)
    assert (told["verdict"], told["answer"]["data"], told["same_binary"], told["plain"]) == (
        "ok",
        "3",
        True,
        False,
    )
    assert told["then"]["invocation"] == then.id
    assert told["answer"]["version"] == then.commit
    world.driver.script = lambda data: Script(exit_code=3)
    result = await run(here, "replay", then.id, "--version", "v1.3.0")
    assert result.exit_code == EXIT_FUNCTION
    assert f"then ok at {then.commit[:12]} in " in result.output
    assert "now exited at " in result.output


async def test_a_name_is_replayed_by_name_while_it_stands_for_the_same(here: Here, world: World) -> None:
    definition = Definition(url=URL, function="Encode", version="v1.0.0", env={"PRECISION": "9"})
    await world.island.named.define("encode", definition)
    async with world.client() as client:
        called = (await client.post("/api/v1/names/encode", json={"args": [1, 2]})).json()
    over = world.next(InvocationFinished)
    _, end = await asyncio.gather(run(here, "replay", called["id"]), over)
    assert end.name == "encode"
    await world.island.named.move("encode", "v1.1.0")
    result = await run(here, "replay", called["id"], "--json")
    told = json.loads(result.output)
    assert (told["plain"], told["answer"]["version"]) == (True, called["version"])
    result = await run(here, "sweep", "encode", "--args", "[1, 2]", "--versions", "v1.0.0,v1.1.0")
    assert "without the environment and secrets of encode" in result.output
    assert len(lines(result)) == 4
