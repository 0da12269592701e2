"""The names of an island, at a console: on a real island of fake rooms, in process and attached."""

from __future__ import annotations

import asyncio
import json
import shlex

import msgspec
import pytest
from msgspec import Raw, structs
from textual.widgets import Input

from skyisland.errors import BadRequest
from skyisland.model import Exchange, NamedCall
from skyisland.named.definition import Ceilings, Definition
from skyisland.named.schedule import Schedule
from tests.support.fake_island import FakeIsland
from tests.support.operating import SLOW, World, operating
from tui import terms
from tui.defining import scheduled
from tui.dialogs import Ask, Toggle
from tui.watch.inprocess import InProcessPort
from tui.watch.port import Port
from tui.words import line

GEOHASH = Definition(url="github.com/mmcloughlin/geohash", function="Encode", env={"PRECISION": "9"})


async def test_a_name_is_seen_paused_moved_and_taken_back(port: Port, world: World) -> None:
    named = world.island.named
    await named.define("encode", GEOHASH, by="deploy")
    async with operating(port) as operator:
        await operator.press("9")
        await operator.reads("github.com/mmcloughlin/geohash.Encode")
        await operator.reads("defined by deploy")
        await operator.reads("PRECISION=9")
        await operator.press("H")
        await operator.reads("Pause encode?")
        await operator.press("enter")
        assert not isinstance(operator.console.screen, Ask)
        assert not named.get("encode").paused
        await operator.press("H", "y")
        await operator.is_told("paused encode")
        assert named.get("encode").paused
        await operator.reads("2   since")
        await operator.press("H")
        await operator.reads("Resume encode?")
        await operator.press("y")
        await operator.is_told("resumed encode")
        assert not named.get("encode").paused
        await operator.press("M")
        await operator.reads("Move encode")
        await operator.press(*"v2", "enter")
        await operator.is_told("moved encode")
        assert named.get("encode").definition.version == "v2"
        await operator.press("d")
        await operator.reads("history")
        await operator.reads("resumed")
        await operator.press("U")
        await operator.reads("To which revision?")
        await operator.press("enter")
        await operator.is_told("rolled back encode")
        now = named.get("encode")
        assert now.why == "rolled back to 3"
        assert now.definition.version is None
        await operator.reads("rolled back to 3")


async def test_a_name_is_defined_called_defined_anew_and_forgotten(world: World) -> None:
    named = world.island.named
    port = InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")
    async with operating(port, size=(140, 40)) as operator:
        await operator.press("9")
        await operator.reads("no function has a name")
        await operator.press("a")
        await operator.reads("Define a name")
        await operator.press(*"No!", "ctrl+r")
        await operator.reads("name: up to 64 characters")
        for field, text in (("name", "encode"), ("url", GEOHASH.url), ("function", "Encode")):
            operator.console.screen.query_one(f"#name-{field}", Input).value = text
        await operator.press("ctrl+r")
        await operator.is_told("defined encode")
        assert named.get("encode").definition == Definition(url=GEOHASH.url, function="Encode")
        await operator.press("i")
        await operator.reads("Call encode")
        await operator.press(*"[1,", "ctrl+r")
        await operator.reads("arguments: not JSON")
        await operator.press(*"2]", "ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
        await operator.press("escape", "E")
        await operator.reads("Define encode")
        await named.define("encode", GEOHASH)
        await operator.press("ctrl+r")
        await operator.reads("encode is another by now")
        await operator.press("escape")
        await operator.sees(lambda: operator.console.board.names["encode"].info.revision == 2)
        await operator.press("E", *["tab"] * 3, *"v2", *["tab"] * 4, *"disk=1g", "ctrl+r")
        await operator.reads("limits: there are memory, cpus")
        operator.console.screen.query_one("#name-limits", Input).value = "memory=64m time=2500ms"
        operator.console.screen.query_one("#name-callers", Input).value = "shop ci"
        await operator.press("ctrl+r")
        await operator.sees(lambda: named.get("encode").revision == 3)
        assert named.get("encode").definition == structs.replace(
            GEOHASH,
            version="v2",
            limits=Ceilings(memory_bytes=64 << 20),
            timeout_s=2.5,
            callers=("shop", "ci"),
        )
        await operator.sees(lambda: operator.console.screen is operator.console.home)
        await operator.press("F")
        await operator.reads("Forget encode?")
        await operator.press("y")
        await operator.reads("no function has a name")
        assert not named.all()


async def test_what_a_name_cannot_do_is_told() -> None:
    island = FakeIsland()
    async with operating(island) as operator:
        await operator.press("9")
        await operator.reads("trouble")
        await operator.press("down", "i")
        await operator.is_told("hook is a handler: it answers requests to /fn/hook")
        await operator.press("U")
        await operator.is_told("hook has stood for nothing else")
        await operator.press("up", "U")
        await operator.reads("To which revision?")
        await operator.press("0", "enter")
        await operator.is_told("encode has no revision 0")
        assert island.asked == []


async def test_who_may_only_watch_changes_no_name() -> None:
    island = FakeIsland()
    async with operating(island, readonly=True) as operator:
        await operator.press("9")
        await operator.reads("trouble")
        await operator.press("H", "M", "U", "F", "a", "E", "i")
        assert operator.console.screen is operator.console.home
        assert "Move" not in operator.screen


async def test_a_call_by_name_is_made_again_by_its_name(port: Port, world: World) -> None:
    named = world.island.named
    await named.define("encode", GEOHASH)
    asked = NamedCall(args=Raw(b"[100.10,\n 80.9]"), stdin="a line\nand more", cold=True)
    await named.calls.call("encode", asked)
    async with operating(port) as operator:
        await operator.press("5")
        await operator.reads("encode: geohash.Encode")
        await operator.press("C")
        await operator.is_told("a call of encode")
        *_, where, _, body = shlex.split(operator.console.clipboard)
        assert where.endswith("/api/v1/names/encode")
        copied = msgspec.json.decode(body, type=NamedCall)
        assert (copied.stdin, copied.cold) == (asked.stdin, True)
        assert isinstance(copied.args, Raw)
        assert json.loads(bytes(copied.args)) == [100.1, 80.9]
        await operator.press("i")
        await operator.reads("Call encode")
        fields = operator.console.screen
        assert fields.query_one("#name-args", Input).value == "[100.10,  80.9]"
        assert fields.query_one("#name-stdin", Input).value == "a line\\nand more"
        assert fields.query_one("#name-cold", Toggle).value
        await operator.press("ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
        await operator.press("escape")
        await named.delete("encode")
        await operator.press("i")
        await operator.is_told("encode is no name any more")


async def test_what_the_lines_of_a_call_would_change_is_left_out_of_them(world: World) -> None:
    named = world.island.named
    await named.define("encode", GEOHASH)
    await named.calls.call("encode", NamedCall(stdin="\x1b[31m"))
    port = InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")
    async with operating(port, size=(140, 40)) as operator:
        await operator.press("5")
        await operator.reads("encode: geohash.Encode")
        await operator.press("i")
        await operator.reads("its input does not fit into these lines")
        assert operator.console.screen.query_one("#name-stdin", Input).value == ""


async def test_a_request_to_a_handler_is_not_made_again(world: World) -> None:
    named = world.island.named
    await named.define("hook", Definition(url=GEOHASH.url, handler="Hook"))
    await named.calls.answer("hook", Exchange(request=b"GET /fn/hook HTTP/1.1\r\n\r\n"))
    port = InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")
    async with operating(port, size=(160, 40)) as operator:
        await operator.press("5")
        await operator.reads("hook: geohash.Hook")
        await operator.press("C")
        await operator.is_told("a request to a handler is not kept")
        assert not operator.console.clipboard
        await operator.press("i")
        await operator.is_told("hook is a handler: it answers requests to /fn/hook")


async def test_a_call_by_name_shows_its_name_while_it_runs(port: Port, world: World) -> None:
    named = world.island.named
    await named.define("sleep", Definition(url=SLOW.url, function="Sleep"))
    running = asyncio.create_task(named.calls.call("sleep", NamedCall(args=Raw(b'["60"]'))))
    async with operating(port) as operator:
        await operator.press("5")
        await operator.reads("sleep: repo.Sleep")  # of the snapshot
        await operator.press("2")
        await operator.reads("● running")
        await operator.press("i")
        await operator.reads("Call sleep")
        await operator.press("escape", "5")
        again = asyncio.create_task(named.calls.call("sleep", NamedCall(args=Raw(b'["60"]'))))
        await operator.sees(  # of the event
            lambda: [row.name for row in operator.console.board.invocations.values()] == ["sleep", "sleep"]
        )
    await world.island.kill_all()
    await asyncio.gather(running, again)


async def test_a_schedule_is_typed_and_shown_with_what_comes_next(world: World) -> None:
    named = world.island.named
    await named.define("encode", GEOHASH)
    port = InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")
    async with operating(port, size=(140, 40)) as operator:
        await operator.press("9")
        await operator.reads("geohash.Encode")
        await operator.press("E")
        await operator.reads("Define encode")
        operator.console.screen.query_one("#name-schedule", Input).value = "0 8 29 2 * Europe/Berlin"
        await operator.press("ctrl+r")
        await operator.sees(lambda: named.get("encode").definition.schedule is not None)
        assert named.get("encode").definition.schedule == Schedule(cron="0 8 29 2 *", zone="Europe/Berlin")
        await operator.reads("0 8 29 2 * Europe/Berlin")
        await operator.reads("next in ")


def test_a_line_that_says_a_schedule_leaves_the_rest_of_it() -> None:
    base = Schedule(cron="* * * * *", zone="Asia/Kolkata", args=[1])
    assert scheduled("0 8 * * *", base) == structs.replace(base, cron="0 8 * * *", zone="UTC")
    assert scheduled(" ", base) is None


def test_terms_are_typed_as_they_are_shown() -> None:
    full = Definition(
        url="github.com/user/repo",
        env={"A": "", "B": 'it\'s "x" = 1', "C": "-"},
        secrets={"TOKEN": "STRIPE_KEY"},
        limits=Ceilings(memory_bytes=(64 << 20) + 1, cpus=0.5, cpu_time_s=1.5, pids=30, stdout_bytes=1 << 20),
        timeout_s=90,
        callers=("shop", "*"),
    )
    shown = terms.shown(full)
    assert shown["limits"] == "memory=67108865 cpus=0.5 cpu_time=1s500ms pids=30 stdout=1m time=1m30s"
    assert terms.changed(Definition(url=full.url), shown) == full
    assert terms.changed(full, dict.fromkeys(terms.TERMS, "")) == Definition(url=full.url)
    control = structs.replace(full, env={"A": "two\nlines"})
    assert (
        terms.changed(control, {term: line(text) for term, text in terms.shown(control).items()}) == control
    )


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("env", "A"),
        ("env", "A='x"),
        ("limits", "memory=much"),
        ("limits", "memory=1"),
        ("limits", "pids=0"),
        ("limits", "cpus=nan"),
        ("limits", "time=0s"),
        ("limits", "disk=1g"),
    ],
)
def test_a_term_that_cannot_be_is_named(term: str, text: str) -> None:
    with pytest.raises(BadRequest, match=f"^{term}: "):
        terms.changed(Definition(url="x"), dict.fromkeys(terms.TERMS, "") | {term: text})
