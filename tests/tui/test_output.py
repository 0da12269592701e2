"""What a jail writes, while an operator watches."""

from __future__ import annotations

import asyncio
import os

import pytest

from skyisland.drivers.fake import FakeJail
from skyisland.errors import JailNotFound, TooBusy
from skyisland.jails.outputs import WATCHERS
from skyisland.model import FunctionRequest
from skyisland.status import Written
from tests.support.operating import World, operating
from tui.output import OutputPane
from tui.watch.port import Port


async def living(world: World) -> tuple[str, FakeJail]:
    """The jail of a call that runs until somebody kills it."""
    world.call()
    async with asyncio.timeout(20):
        while not world.driver.alive:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)
    ((name, jail),) = world.driver.alive.items()
    return name, jail


def write(jail: FakeJail, stdout: bytes, stderr: bytes = b"") -> None:
    """What a process in the jail would write."""
    os.write(jail.process._out, stdout)
    os.write(jail.process._err, stderr)


async def parts_of(port: Port, of: str) -> list[Written]:
    return [part async for part in port.output(of)]


async def test_a_call_is_watched_while_it_runs_and_afterwards(port: Port, world: World) -> None:
    name, jail = await living(world)
    parts = port.output(name)
    write(jail, b"first ")
    assert await anext(parts) == Written(stdout="first ")
    write(jail, b"", b"then an error \xff")
    assert await anext(parts) == Written(stderr="then an error \ufffd")
    await world.island.kill(name)
    assert [part async for part in parts] == [Written(ended=True, verdict="killed")]
    invocation = await world.calls[0]
    for of in (name, invocation.id):
        (kept,) = await parts_of(port, of)
        assert (kept.stdout, kept.stderr) == ("first ", "then an error \ufffd")
        assert (kept.ended, kept.verdict) == (True, "killed")
    with pytest.raises(JailNotFound):
        await parts_of(port, "inv-nobody")


async def test_secrets_of_a_call_are_shown_to_nobody(world: World) -> None:
    name, jail = await living(world)
    inmate = world.island.jails.find(name)
    (story,) = world.island._calling.running.values()
    story.secrets = inmate.secrets = ("hush",)
    parts = world.island.output(name)
    write(jail, b"the word is hu")
    write(jail, b"sh\n", b"hush")
    watching = asyncio.create_task(anext(parts))
    await world.island.kill(name)
    assert await watching == Written(
        stdout="the word is [secret]\n", stderr="[secret]", ended=True, verdict="killed"
    )
    (kept,) = [part async for part in world.island.output(name)]
    assert "hush" not in kept.stdout + kept.stderr


async def test_so_many_watch_and_no_more(world: World) -> None:
    name, jail = await living(world)
    write(jail, b"x")
    watched = [world.island.output(name) for _ in range(WATCHERS)]
    for parts in watched:
        await anext(parts)
    with pytest.raises(TooBusy):
        world.island.output(name)
    await watched.pop().aclose()
    watched.append(world.island.output(name))
    await anext(watched[-1])
    for parts in watched:
        await parts.aclose()


async def test_the_console_shows_it_as_it_comes(port: Port, world: World) -> None:
    name, jail = await living(world)
    async with operating(port) as operator:
        await operator.reads(name)
        await operator.press("o")
        await operator.reads("waiting for it to write")
        write(jail, b"line one\n\x1b[31mred", b"trouble\n")
        await operator.reads("line one")
        await operator.reads("trouble")
        assert "\x1b" not in operator.screen
        write(jail, b"more\n" * 200 + b"the last line\n")
        await operator.reads("the last line")
        await operator.press("g")
        await operator.reads("line one")
        write(jail, b"beyond\n")
        pane = operator.console.screen.query_one(OutputPane)
        await operator.sees(lambda: "beyond" in pane.parts[-1][0])
        assert "beyond" not in operator.screen, "who scrolled up stays there"
        await operator.press("G")
        await operator.reads("beyond")
        await world.island.kill(name)
        await operator.reads("ended: killed")
        await operator.press("escape", "5", "o")
        await operator.reads("the last line")
    call = FunctionRequest(url="github.com/user/repo", call="Encode(1)")
    quick = await world.island.invoke(call)
    assert (await parts_of(port, quick.id))[0].stdout.encode() == quick.outcome.stdout
