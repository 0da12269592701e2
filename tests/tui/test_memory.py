"""What the console remembers from one time to the next, and what it finds out about its terminal."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from skyisland.model import FunctionRequest
from tests.support.fake_island import FakeIsland
from tests.support.operating import text_of, type_ahead
from tui.console import Console, first_steps
from tui.memory import CALL_BYTES, FILE_BYTES, RECENT, Look, Memory
from tui.terminal import plain
from tui.watch.inprocess import InProcessPort


def call(number: int, **fields: object) -> FunctionRequest:
    return msgspec.convert({"url": "u", "call": f"F({number})", **fields}, FunctionRequest)


async def test_a_console_looks_as_it_did_last_time(tmp_path: Path) -> None:
    memory = await asyncio.to_thread(Memory, tmp_path)
    console = Console(FakeIsland(), follow=False, memory=memory, refresh_s=2.0)
    async with console.run_test() as pilot:
        await type_ahead(console, "2", "greater_than_sign", "r", "slash", *"fn:geo", "enter")
        order = console.table.order if console.table else None
        console.theme = "solarized-light"
        await pilot.pause()
        console.exit()
    await asyncio.to_thread(memory.note_look, console.last_look)
    memory = await asyncio.to_thread(Memory, tmp_path)
    again = Console(FakeIsland(), follow=False, memory=memory)
    async with again.run_test():
        assert (again.theme, again.refresh_s) == ("solarized-light", 2.0)
        await type_ahead(again, "2")
        assert again.table is not None
        assert (again.table.order, again.table.filter.text) == (order, "fn:geo")
        assert again.table.order != again.table.usual_order
    chosen = Console(FakeIsland(), follow=False, memory=memory, refresh_s=1.0, theme="nord")
    assert (chosen.theme, chosen.refresh_s) == ("nord", 1.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"theme": 7}', '{"theme": "gone", "refresh_s": 0.0001}'])
def test_what_cannot_be_remembered_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "look.json").write_text(text)
    console = Console(FakeIsland(), follow=False, memory=Memory(tmp_path))
    assert (console.theme, console.refresh_s) == ("sky", 0.5)


def test_calls_are_kept_newest_first_and_bounded(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    args = Raw(b"[1, {}]")
    for number in range(RECENT + 5):
        memory.note_call(call(number, args=args, version="v1", cold=True, stdin="in"))
    memory.note_call(call(7, args=args, version="v1", cold=True, stdin="in"))
    memory.note_call(call(0, stdin="x" * CALL_BYTES))
    assert memory.save_call("mine", call(1))
    assert not memory.save_call("long", call(1, stdin="x" * CALL_BYTES))
    again = Memory(tmp_path).calls
    assert [one.call for one in again.recent[:2]] == ["F(7)", "F(24)"]
    assert len(again.recent) == RECENT
    assert (again.recent[0].args, again.recent[0].stdin, again.recent[0].cold) == (args, "in", True)
    assert [(one.name, one.request.call) for one in again.saved] == [("mine", "F(1)")]
    assert (tmp_path / "calls.json").stat().st_mode & 0o077 == 0
    memory.forget_call(call(1))
    assert Memory(tmp_path).calls.saved == []


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "calls.json").write_bytes(b" " * FILE_BYTES + b'{"recent": []}')
    assert Memory(tmp_path).calls.recent == []


def test_memory_lies_with_its_owner(tmp_path: Path) -> None:
    Memory.of_user({"XDG_STATE_HOME": str(tmp_path / "xdg"), "HOME": "/nowhere"}).note_look(
        Look(theme="nord")
    )
    assert (tmp_path / "xdg/skyisland-console/look.json").exists()
    assert Memory.of_user({"HOME": str(tmp_path), "XDG_STATE_HOME": "relative"}).look == Look()
    for environ in ({}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "/nonexistent"} if os.geteuid() else {}):
        Memory.of_user(environ).note_look(Look(theme="nord"))
    assert not list(Path.cwd().glob("**/skyisland-console"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's home")
def test_root_remembers_nothing_in_another_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    Memory.of_user({"HOME": str(home)}).note_look(Look(theme="nord"))
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "wants"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}, False),
        ({"TERM": "screen", "LANG": "de_DE.utf8"}, False),
        ({"TERM": "xterm", "LC_ALL": "C.UTF-8", "LANG": "C"}, False),
        ({"TERM": "xterm", "LC_CTYPE": "en_GB.UTF-8", "LANG": "C"}, False),
        ({"TERM": "linux", "LANG": "en_US.UTF-8"}, True),
        ({"TERM": "dumb", "LANG": "en_US.UTF-8"}, True),
        ({"TERM": "vt100", "LANG": "en_US.UTF-8"}, True),
        ({"TERM": "xterm", "LANG": "C"}, True),
        ({"TERM": "xterm", "LC_CTYPE": "C.UTF-8", "LANG": "C"}, True),
        ({"TERM": "xterm", "LANG": "en_US.ISO-8859-1"}, True),
        ({"TERM": "xterm", "LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, True),
        ({"TERM": "xterm"}, True),
    ],
)
def test_ascii_where_terminal_or_locale_has_nothing_else(environ: dict[str, str], wants: bool) -> None:
    assert plain(environ) is wants


async def test_an_empty_island_says_how_to_make_a_first_call() -> None:
    console = Console(FakeIsland(jails=0, requests=0), follow=False, command="skyisland -c 'my file'")
    async with console.run_test(size=(140, 40)) as pilot:
        await type_ahead(console, "5")
        await pilot.pause()
        assert "$ skyisland -c 'my file' invoke github.com/mmcloughlin/geohash 'Enc" in text_of(console)
    port = InProcessPort(None, None, "http://127.0.0.1:3280")  # type: ignore[arg-type]
    *_, curl, own = first_steps(port, "skyisland", readonly=False).splitlines()
    assert curl.startswith("$ curl -sS http://127.0.0.1:3280/api/v1/function -d '{")
    assert own.startswith("$ skyisland invoke ./FOLDER")
    assert "i   calls" not in first_steps(port, "skyisland", readonly=True)
