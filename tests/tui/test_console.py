"""An operator's day, on a real island of fake rooms, in process and attached."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex

import msgspec
import pytest
from msgspec import Raw, structs
from textual.widgets import Input

from skyisland.drivers.fake import FakeJail
from skyisland.errors import BuildFailed, Forbidden, JailNotFound
from skyisland.later.calls import CallState, Record
from skyisland.later.keeping import NotKept
from skyisland.model import FunctionRequest, Verdict
from skyisland.status import AddressState, JailInfo, Usage
from tests.support.fake_island import FakeIsland
from tests.support.operating import HEADER, SLOW, TOKEN, World, operating, type_ahead
from tui.answer import COMPARED, changes
from tui.dialogs import Ask, AskToken, Help
from tui.invoke import CHOICES, TEXTS, Invoke
from tui.watch.inprocess import InProcessPort
from tui.watch.port import Port
from tui.watch.remote import RemotePort
from tui.watch.rows import InvocationRow, JailRow

QUICK = FunctionRequest(url="github.com/mmcloughlin/geohash", call="Encode(100.1, 80.9)")


async def test_sees_what_runs_and_kills_it(port: Port, world: World) -> None:
    call = world.call()
    async with operating(port) as operator:
        await operator.reads("repo.Sleep(60)")
        await operator.press("K")
        await operator.reads("Kill this jail?")
        await operator.press("n")
        assert not call.done()
        assert len(world.driver.alive) == 1
        await operator.press("K", "y")
        assert (await call).outcome.verdict is Verdict.killed
        await operator.is_told("killed sky-test-1")
        await operator.reads("killed")  # the request, in its table


async def test_what_a_jail_uses_needs_no_snapshot(
    port: Port, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeJail, "usage", lambda jail: Usage(memory_bytes=77 << 20))
    async with operating(port) as operator:
        operator.console.station.snapshot_s = math.inf
        await operator.reads("no jail is running")
        world.call()
        await operator.press("2")
        await operator.reads("77.0M")


async def test_focus_of_a_dangerous_question_is_on_no(port: Port, world: World) -> None:
    call = world.call()
    async with operating(port) as operator:
        await operator.reads("repo.Sleep(60)")
        await operator.press("K", "enter")
        assert not isinstance(operator.console.screen, Ask)
        assert not call.done()


async def test_kills_without_asking(port: Port, world: World) -> None:
    call = world.call()
    async with operating(port) as operator:
        await operator.reads("repo.Sleep(60)")
        await operator.press("ctrl+k")
        assert (await call).outcome.verdict is Verdict.killed


async def test_marks_are_killed_together(port: Port, world: World) -> None:
    calls = [world.call() for _ in range(4)]
    async with operating(port) as operator:
        await operator.sees(lambda: len(operator.console.board.jails) == 4)
        await operator.press("2", "space", "space", "space", "K")
        await operator.reads("Kill 3 jails?")
        await operator.press("y")
        await operator.sees(lambda: sum(call.done() for call in calls) == 3)
        await operator.is_told("killed 3")
        await operator.sees(lambda: len(operator.console.board.jails) == 1)


async def test_all_jails_are_killed_after_a_question(port: Port, world: World) -> None:
    calls = [world.call() for _ in range(3)]
    async with operating(port) as operator:
        await operator.sees(lambda: len(operator.console.board.jails) == 3)
        await operator.press("X")
        await operator.reads("Kill all 3 jails?")
        await operator.reads("3 running")
        await operator.press("enter")
        assert not any(call.done() for call in calls)
        await operator.press("X", "y")
        await operator.sees(lambda: all(call.done() for call in calls))
        await operator.is_told("killed 3 jails")
        await operator.sees(lambda: not operator.console.board.jails)
        await operator.press("X")
        await operator.is_told("no jail is alive")


async def test_the_cache_is_purged_after_a_question(port: Port, world: World) -> None:
    await world.island.invoke(QUICK)
    async with operating(port) as operator:
        await operator.press("4")
        await operator.reads("geohash.Encode")
        await operator.press("P")
        await operator.reads("Purge the cache?")
        await operator.press("n")
        assert world.builds.store
        await operator.press("P", "y")
        await operator.is_told("evicted 1 binary")
        await operator.reads("no binary yet")
        assert not world.builds.store
        await operator.press("P")
        await operator.is_told("no binary is cached")


async def test_orders_on_everything_that_fail_say_why() -> None:
    island = FakeIsland()
    async with operating(island) as operator:
        await operator.reads("sky-main-9a01")
        for keys in (("X", "y"), ("4", "P", "y")):
            island.refuse = Forbidden(f"not by you: {keys}")
            await operator.press(*keys)
            await operator.is_told(f"not by you: {keys}")
        assert not any(jail.killing for jail in operator.console.board.jails.values())


async def test_filters_and_widens_again(port: Port, world: World) -> None:
    world.call()
    world.call(FunctionRequest(url="github.com/other/thing", call="Wait(60)"))
    async with operating(port) as operator:
        await operator.sees(lambda: len(operator.console.board.jails) == 2)
        await operator.press("2", "slash", *"fn:sleep", "enter")
        table = operator.console.table
        assert table is not None
        await operator.sees(lambda: [jail.label for jail in table.rows] == ["repo.Sleep(60)"])
        await operator.reads("/fn:sleep")
        await operator.press("escape")
        await operator.sees(lambda: len(table.rows) == 2)


async def test_keys_that_come_at_once_are_taken_one_by_one() -> None:
    """As a link with a long way delivers them, and as nobody's fingers do."""
    island = FakeIsland()
    async with operating(island) as operator:
        await operator.reads("sky-main-9a01")
        keys = ("2", "slash", *"fn:nightly", "enter", "K", "y", "i", "ctrl+u", *"Run(1)")
        await type_ahead(operator.console, *keys)
        await operator.reads("Run(1)")
        dialog = operator.console.screen
        assert isinstance(dialog, Invoke)
        assert (dialog.request().url, dialog.request().call) == ("git.example/etl/nightly", "Run(1)")
        assert island.asked == [("kill", "sky-main-9a01")]


async def test_the_cursor_stays_with_its_row(port: Port, world: World) -> None:
    world.call()
    world.call()
    async with operating(port) as operator:
        await operator.sees(lambda: len(operator.console.board.jails) == 2)
        await operator.press("2", "j")
        table = operator.console.table
        assert table is not None
        kept = table.cursor
        await operator.press("r")
        assert table.cursor == kept
        world.call()
        await operator.sees(lambda: len(table.rows) == 3)
        assert table.cursor == kept


async def test_the_newest_request_is_in_sight_until_one_is_chosen() -> None:
    island = FakeIsland()

    def ends(invocation: str, later_s: float) -> None:
        end = structs.replace(island.recent[0], invocation=invocation, at=island.now + later_s)
        island.news.put_nowait([end])

    async with operating(island) as operator:
        await operator.press("5")
        table = operator.console.table
        assert table is not None
        for n in range(40):
            ends(f"inv-{n}", 10.0 + n)
        await operator.sees(lambda: table.cursor == "inv-39")
        await operator.press("j")
        assert table.cursor == "inv-38"
        ends("inv-40", 60.0)
        await operator.sees(lambda: table.rows[0].key == "inv-40")
        assert table.cursor == "inv-38"
        await operator.press("g")
        ends("inv-41", 70.0)
        await operator.sees(lambda: table.cursor == "inv-41")


async def test_the_detail_is_always_that_of_the_highlighted_row() -> None:
    """Under load, where another row is the newest at nearly every picture."""
    island = FakeIsland()
    numbers = itertools.count()

    def loads() -> None:
        for _ in range(3):
            n = next(numbers)
            end = structs.replace(
                island.recent[0], invocation=f"inv-{n:08x}0000", at=island.now + n / 100, verdict="ok"
            )
            island.news.put_nowait([end])

    async with operating(island) as operator:
        await operator.press("5")
        seen = set()
        for _ in range(40):
            loads()
            await operator.pilot.pause(0.03)
            highlighted = re.search(r"▌\S+ (\w{8})", operator.screen)
            detailed = re.search(r"Request  inv-(\w{8})", operator.screen)
            assert highlighted is not None
            assert detailed is not None
            assert highlighted[1] == detailed[1]
            seen.add(detailed[1])
        assert len(seen) > 5


async def test_takes_an_address_out_and_gives_it_back(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("3")
        await operator.reads("10.61.0.2")
        await operator.press("s")
        await operator.reads("State of 10.61.0.2")
        await operator.press("u")
        await operator.reads("taken out")
        assert world.addresses.pool["10.61.0.2"].state is AddressState.unavailable
        await operator.press("s", "a")
        await operator.sees(lambda: world.addresses.pool["10.61.0.2"].state is AddressState.available)
        await operator.is_told("gave back 10.61.0.2")


async def test_a_refusal_says_why(port: Port, world: World) -> None:
    call = world.call(FunctionRequest(url=SLOW.url, call=SLOW.call, ip4=True))
    async with operating(port) as operator:
        await operator.press("3")
        await operator.reads("sky-test-1")
        await operator.press("s")
        await operator.reads("stays with its jail")
        await operator.press("a")
        await operator.is_told("10.61.0.2 is leased to sky-test-1")
        assert not call.done()


async def test_evicts_and_rebuilds(port: Port, world: World) -> None:
    await world.island.invoke(QUICK)
    async with operating(port) as operator:
        await operator.press("4")
        await operator.reads("geohash.Encode")
        await operator.press("b")
        await operator.is_told("rebuilt geohash.Encode")
        await operator.press("D", "n")
        assert world.builds.store
        await operator.press("D", "y")
        await operator.reads("no binary yet")
        assert not world.builds.store


async def test_invokes_by_hand(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("i", *"github.com/user/repo", "tab", *"Encode(1, 2)")
        await operator.press("ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
        await operator.reads("exec")
        await operator.press("ctrl+y")
        copied = operator.console.clipboard
        assert copied.startswith("curl ")
        assert "Encode(1, 2)" in copied
        await operator.press("escape")
        assert not isinstance(operator.console.screen, Invoke)
        await operator.reads("repo.Encode(1, 2)")


async def test_the_very_same_request_is_made_again(port: Port, world: World) -> None:
    sent = FunctionRequest(
        url="github.com/user/repo",
        call="Encode",
        args=Raw(b'[100.10,\n 1e400, "\xc3\xa4\xf0\x9f\x8d\xa8\x7f\'"]'),
        types=("int", "map[string]int"),
        version="v1.2",
        stdin="a line\nand \x1b[31m more",
        cold=True,
    )
    commit = (await world.island.invoke(sent)).commit
    async with operating(port) as operator:
        await operator.press("5")
        await operator.reads("repo.Encode")
        await operator.press("C")
        *words, body = shlex.split(operator.console.clipboard)
        assert words[0] == "curl"
        assert body.isascii()
        assert body.isprintable()
        copied = msgspec.json.decode(body, type=FunctionRequest)
        assert (copied.stdin, copied.types, copied.cold, copied.version) == (
            sent.stdin,
            sent.types,
            True,
            commit,
        )
        assert isinstance(copied.args, Raw)
        assert isinstance(sent.args, Raw)
        assert json.loads(bytes(copied.args)) == json.loads(bytes(sent.args))
        assert b"100.10," in bytes(copied.args), "the number is as it was written"
        await operator.press("i")
        assert "\x1b" not in operator.screen
        await operator.press("ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
        await operator.reads("exit 0")
    newest = (await world.island.invocations(1))[0]
    exactly = structs.replace(sent, version=commit)
    assert newest.request is not None
    assert structs.astuple(newest.request) == structs.astuple(exactly)
    assert operator.console.memory.calls.recent == [exactly]


async def test_calls_are_saved_and_taken_up_again(world: World) -> None:
    island = FakeIsland(jails=0, requests=0)
    async with operating(island) as operator:
        await operator.press("i", *"github.com/user/repo", "tab", *"Encode(1, 2)", "ctrl+s")
        await operator.press(*["backspace"] * 40, *"mine", "enter")
        await operator.reads("saved as mine")
        await operator.press("ctrl+d")
        await operator.reads("no answer before")
        await operator.press("ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
        await operator.press("ctrl+r", "ctrl+d")
        await operator.reads("compared with the call before")
        await operator.press("escape", "i", "ctrl+o")
        await operator.reads("github.com/user/repo  Encode(1, 2)")
        await operator.press("enter", "ctrl+r")
        await operator.reads("exit 0")
        await operator.press("ctrl+o", "D")
        await operator.reads("no call was made by hand yet")
    assert [request.call for request in island.requests] == ["Encode(1, 2)"] * 3


def test_outputs_are_compared_line_by_line() -> None:
    old, new = "a\nb\nc\nd\n", "a\nb\nC\nd\nmore\n"
    assert changes(old, new) == [
        ("…", "1 lines are the same"),
        (" ", "b"),
        ("-", "c"),
        ("+", "C"),
        (" ", "d"),
        ("+", "more"),
    ]
    assert changes(old, old) == []
    many = changes("x\ny\n" * 100_000, "y\nx\n" * 100_000)
    assert many[-1] == ("…", "what follows was not compared")
    assert len(many) <= 2 * COMPARED + 2


async def test_chooses_from_what_a_package_offers(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("i", *"github.com/user/repo", "enter")
        await operator.reads("Encode the point")
        call = operator.console.screen.query_one("#invoke-call", Input)
        await operator.press("down", "enter")
        await operator.sees(lambda: call.value == "geohash.Encode(100.1, 80.9)")
        await operator.press("ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
        call.value = ""
        await operator.press("ctrl+f")
        await operator.reads("Encode the point")
        operator.console.screen.set_focus(call)
        await operator.press(*"neigh")
        await operator.sees(lambda: "Neighbors(" in operator.screen and "Decode(" not in operator.screen)
        world.builds.fail = BuildFailed("it does not compile")
        await operator.press("ctrl+f")
        await operator.reads("it does not compile")


async def test_the_dialog_asks_for_every_field_of_a_request() -> None:
    island = FakeIsland(jails=0, requests=0)
    async with operating(island) as operator:
        await operator.press("i", *"github.com/user/repo")
        for text in ("Encode", "[1, 2]", "int, T", "v1.2", " a\\nb "):
            await operator.press("tab", *text)
        await operator.press("tab", "space", "tab", "space", "tab", "space", "ctrl+r")
        await operator.reads("gxnpxr2bq7dt")
    (request,) = island.requests
    assert request == FunctionRequest(
        url="github.com/user/repo",
        call="Encode",
        args=Raw(b"[1, 2]"),
        types=("int", "T"),
        version="v1.2",
        stdin=" a\nb ",
        ip4=True,
        cache_bust=True,
        cold=True,
    )
    # Nobody types what is no text; many inputs come from a file.
    asked = {name for name, *_ in (*TEXTS, *CHOICES)} | {"stdin_base64", "inputs"}
    assert asked == set(FunctionRequest.__struct_fields__)


async def test_a_wrong_call_is_told_before_it_is_sent(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("i", *"github.com/user/repo", "tab", *"encode(")
        await operator.press("ctrl+r")
        await operator.pilot.pause()
        assert not world.driver.alive
        fault = operator.console.screen.query_one("#invoke-fault")
        assert "call" in str(fault.render())


async def test_a_killed_call_of_ones_own_shows_its_verdict(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("i", *"github.com/user/repo", "tab", *"Sleep(60)")
        await operator.press("ctrl+r")
        await operator.sees(lambda: world.driver.alive)
        await world.island.kill(1)
        await operator.reads("killed")


async def test_read_only_changes_nothing(port: Port, world: World) -> None:
    call = world.call(FunctionRequest(url=SLOW.url, call=SLOW.call, ip4=True))
    async with operating(port, readonly=True) as operator:
        await operator.reads("repo.Sleep(60)")
        await operator.reads("READ-ONLY")
        await operator.press("K", "ctrl+k", "X", "i", "3", "s", "4", "b", "D", "P")
        assert not isinstance(operator.console.screen, (Ask, Invoke))
        assert not call.done()
        assert "Kill" not in operator.screen


async def test_logs_of_a_jail_and_of_the_island(port: Port, world: World) -> None:
    world.call()
    async with operating(port) as operator:
        await operator.reads("repo.Sleep(60)")
        await operator.press("l")
        await operator.reads("function jail created")
        await operator.reads("Logs  sky-test-1")
        await operator.press("J")
        await operator.reads("island and all jails")


async def test_a_pause_holds_what_is_shown(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.reads("no jail is running")
        await operator.press("p")
        world.call()
        await operator.reads("PAUSED")
        await operator.sees(lambda: operator.console.station.held)
        assert not operator.console.board.jails
        await operator.press("p")
        await operator.reads("repo.Sleep(60)")


async def test_the_host_view_tells_what_is_not_enforced(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("7")
        await operator.reads("not enforced")
        await operator.reads("this is the fake driver")
        await operator.reads("FAKE DRIVER")


async def test_help_lists_the_pane_first_and_every_key(port: Port, world: World) -> None:
    async with operating(port) as operator:
        await operator.press("question_mark")
        assert isinstance(operator.console.screen, Help)
        shown = operator.screen
        assert shown.index("This pane") < shown.index("Everywhere")
        for words in ("kill without asking", "mark all shown", "rows that do not"):
            assert words in shown


async def test_quitting_asks_only_where_it_ends_the_island(port: Port, world: World) -> None:
    world.call()
    async with operating(port) as operator:
        await operator.reads("repo.Sleep(60)")
        await operator.press("q")
        if port.attached:
            assert operator.console.return_code == 0
        else:
            await operator.reads("1 jail is running")
            await operator.press("escape")
            assert not operator.console.stopping
            await operator.press("q", "y")
            assert operator.console.stopping


HOSTILE = 'Name("fn[/]x \x1b]0;owned\x07 \u202egnp[bold]")'


async def test_hostile_names_neither_crash_nor_reach_the_terminal(port: Port, world: World) -> None:
    world.call(FunctionRequest(url="github.com/u/[/red]", call='Sleep("60 fn[/]x [bold")'))
    async with operating(port) as operator:
        await operator.sees(lambda: operator.console.board.invocations)
        jail = next(iter(world.island.status().jails), None)
        assert jail is not None
        operator.console.board.jails["x"] = JailRow(_renamed(jail))
        for key in ("1", "2", "5", "6"):
            await operator.press(key)
            await operator.pilot.pause()
            assert not any((ord(c) < 32 and c != "\n") or c == "\u202e" for c in operator.screen)
        # A snapshot may have come meanwhile, in which it is not.
        operator.console.board.jails["x"] = JailRow(_renamed(jail))
        await operator.press("2", "K")
        await operator.reads("Kill this jail?")


def _renamed(jail: JailInfo) -> JailInfo:
    return structs.replace(jail, name="x", call=HOSTILE, url="h/\x9b31m[/]")


async def test_a_lost_island_comes_back_by_itself(world: World) -> None:
    async with world.served() as url:
        remote = RemotePort(url, token=TOKEN, header=HEADER)
        at = int(url.rpartition(":")[2])
    async with operating(remote) as operator:
        await operator.reads("DOWN")
        await operator.reads("no connection to")
        await operator.press("K")
        assert not isinstance(operator.console.screen, Ask)
        async with world.served(at):
            await operator.press("R")
            await operator.reads("LIVE")
            world.call()
            await operator.reads("repo.Sleep(60)")
        await operator.reads("DOWN")
        await operator.reads("data is")
        async with world.served(at):
            await operator.reads("LIVE")
    await remote.close()


async def test_a_missing_token_is_asked_for(world: World) -> None:
    async with world.served() as url:
        remote = RemotePort(url, token="wrong", header=HEADER)
        async with operating(remote) as operator:
            await operator.reads("NO TOKEN")
            await operator.sees(lambda: isinstance(operator.console.screen, AskToken))
            await operator.press(*TOKEN)
            assert TOKEN not in operator.screen
            await operator.press("enter")
            await operator.reads("LIVE")
        await remote.close()


async def test_goes_into_a_row_and_back_where_one_came_from(port: Port, world: World) -> None:
    world.call()
    await world.island.invoke(QUICK)
    async with operating(port, size=(80, 24)) as operator:
        console = operator.console
        await operator.reads("user/repo.Sleep")
        await operator.press("5", "enter")  # a small screen shows the detail alone
        await operator.reads("Request  inv-")
        assert "TIME" not in operator.screen
        await operator.press("escape")
        await operator.reads("TIME")
        await operator.press("slash", *"fn:sleep", "enter", "d", "enter")  # the call, then its jail
        await operator.reads("jail number")
        await operator.press("enter")
        await operator.reads("Logs  sky-test-")
        await operator.press("escape")
        await operator.reads("jail number")
        await operator.press("escape")
        await operator.reads("Request  inv-")
        await operator.press("escape")
        await operator.reads("/fn:sleep")
        await operator.press("escape", "escape")
        assert console.view == "overview"


async def test_says_which_function_and_how_it_failed() -> None:
    island = FakeIsland()
    async with operating(island) as operator:
        await operator.press("8")
        await operator.reads("mmcloughlin/geohash.Encode")
        await operator.press("n", "N", "g", "d")
        await operator.reads("exited 2")
        await operator.reads("latest calls")
        await operator.reads("binaries")
        await operator.press("enter")  # its calls
        table = operator.console.table
        assert table is not None
        assert table.kind is InvocationRow
        assert {row.label for row in table.rows} == {"geohash.Encode(100.1, 80.9)"}
        await operator.press("escape")
        await operator.reads("Function  github.com/mmcloughlin/geohash.Encode")
        await operator.press("colon", *"fn slug", "enter")
        assert [row.name for row in operator.console.shown_view.main.rows] == ["Make"]


async def test_functions_that_were_called_are_listed(port: Port, world: World) -> None:
    await world.island.invoke(QUICK)
    async with operating(port) as operator:
        await operator.press("8")
        await operator.reads("github.com/mmcloughlin/geohash.Encode")
        await operator.press("enter")
        await operator.reads("1 call, 0 errors")


async def test_calls_that_answer_later_are_listed_and_opened(port: Port, world: World) -> None:
    record = await world.island.later.accept(QUICK, "alice", caller_id="report-6")
    await world.island.later.settled(record.id, 30)
    async with operating(port) as operator:
        await operator.press("colon", *"calls", "enter")
        await operator.reads("done")
        await operator.reads("enter asks for it")
        await operator.press("slash", *"st:dead", "enter")
        await operator.reads("no row matches")
        await operator.press("slash", *("backspace",) * 4, *"done", "enter", "enter")
        await operator.reads("gxnpxr2bq7dt")
        await operator.reads("called report-6")
        (attempt,) = (await world.island.later.get(record.id)).attempts
        await operator.reads(attempt.id)
        await operator.press("enter")
        await operator.reads(f"Request  {attempt.id}")


async def test_a_call_that_answers_later_is_cancelled_run_again_and_forgotten(world: World) -> None:
    later = world.island.later
    record = await later.accept(SLOW, "alice")
    async with operating(InProcessPort(world.island, world.ring, "http://127.0.0.1:3280")) as operator:
        await operator.press("0")
        await operator.reads(record.id)
        await operator.press("A")
        await operator.is_told("no dead or cancelled call")
        await operator.press("x")
        await operator.reads("Cancel this call?")
        await operator.press("y")
        await operator.is_told("cancelled")
        await operator.reads("◌ cancelled")
        assert (await later.get(record.id)).state is CallState.cancelled
        await operator.press("A", "y")
        await operator.is_told("runs again")
        assert not (await later.get(record.id)).state.final
        await operator.reads("● running")
        await operator.press("x", "y")
        await operator.reads("◌ cancelled")
        await operator.press("F", "x")
        await operator.is_told("forgot 0 calls")
        await operator.press("F", "a")
        await operator.is_told("forgot 1 call")
        await operator.reads("no call answers later")
        record = await later.accept(SLOW, "alice")
        await operator.reads(record.id)
        await operator.press("F", "t")  # it is not over: there is no such choice
        await operator.press("escape", "x", "y")
        await operator.reads("◌ cancelled")
        await operator.press("F")
        await operator.reads("This one")
        await operator.press("t")
        await operator.is_told("forgot")
        await operator.reads("no call answers later")


async def test_an_island_that_keeps_no_calls_is_watched_all_the_same() -> None:
    class Keepless(FakeIsland):
        async def calls(self) -> list[Record]:
            raise NotKept("the disk is full")

    async with operating(Keepless()) as operator:
        await operator.press("0")
        await operator.reads("the disk is full")
        assert operator.console.station.connection.state == "live"


async def test_goes_to_whatever_has_a_name() -> None:
    island = FakeIsland()
    end = next(end for end in island.recent if end.verdict == "exited")
    async with operating(island, size=(80, 24)) as operator:
        console = operator.console
        await operator.reads("sky-main-9a00")
        await operator.press("colon", *"jai", "enter")
        assert console.view == "jails"
        await operator.press("colon", *(end.invocation or "")[:10], "enter")
        await operator.reads(f"Request  {end.invocation}")
        await operator.reads("exited 2: panic: runtime error")
        await operator.reads("goroutine 1 [running]")
        await operator.press("escape")
        assert console.view == "jails"
        await operator.press("colon", *"10.61.0.41", "enter")
        await operator.reads("taken out")
        await operator.press("colon", *"requests slug !ok", "enter")
        table = console.table
        assert table is not None
        assert table.filter.text == "slug !ok"
        await operator.press("escape")  # the filter goes with the step that brought it
        await operator.reads("taken out")
        await operator.press("colon", *"thumb.Res")
        await operator.reads("binary")
        await operator.press("escape", "colon", *"leave", "enter")
    assert console.return_code == 0


async def test_the_kill_of_a_jail_that_has_just_ended_is_no_alarm() -> None:
    island = FakeIsland(jails=1)
    async with operating(island) as operator:
        await operator.reads("sky-main-9a00")
        island.refuse = JailNotFound("this island has no jail sky-main-9a00", jail="sky-main-9a00")
        await operator.press("K", "y")
        await operator.is_told("sky-main-9a00 had ended already")
        assert all(toast.severity == "information" for toast in operator.console._notifications)


async def test_goes_from_failure_to_failure() -> None:
    async with operating(FakeIsland()) as operator:
        await operator.press("5", "n")
        table = operator.console.table
        assert table is not None
        first = table.cursor
        row = operator.console.row
        assert row.verdict != "ok" or row.total_s > 1
        await operator.press("n")
        assert table.cursor != first
        await operator.press("N")
        assert table.cursor == first
        await operator.press("N")
        await operator.is_told("no other failure")
        assert table.cursor == first


@pytest.mark.parametrize("size", [(59, 20), (100, 14)])
async def test_too_small_a_terminal_says_so(world: World, size: tuple[int, int]) -> None:
    async with operating(FakeIsland(), size=size) as operator:
        await operator.reads("enlarge the terminal")
        await operator.pilot.resize_terminal(80, 24)
        await operator.reads("sky-main-9a00")
        await operator.press("K")
        await operator.reads("Kill this jail?")
