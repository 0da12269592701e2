"""What commands print, of an island on a socket."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from skyisland.cli import EXIT_FUNCTION, GlobalOptions, main
from skyisland.cli.printing import moment
from skyisland.client import Client
from skyisland.drivers.fake import Script
from skyisland.errors import ArtifactNotFound, BadCall, FunctionNotFound
from skyisland.figures import Window
from skyisland.named.definition import Ceilings, Webhook
from skyisland.named.schedule import Missed, Overlap, Schedule
from skyisland.named.webhooks import Scheme
from skyisland.settings import Api
from skyisland.status import AddressState
from tests.support.api import CALL, HEADER, REQUEST, TOKEN, Server, World, answers, make_world


class Here(GlobalOptions):
    """The options in front of a command, which chose the island of the test."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def client(self, *, admin: bool = True, timeout_s: float = 30.0) -> Client:
        return Client(self._server.url, token=TOKEN if admin else "", header=HEADER)


@pytest.fixture
async def here(world: World) -> AsyncIterator[Here]:
    async with world.served() as server:
        yield Here(server)


async def run(here: Here, *words: str, given: bytes = b"") -> Result:
    """What a command line does, of the command that its first word names; as in a wide terminal."""
    runner = CliRunner(env={"COLUMNS": "200"})
    return await asyncio.to_thread(runner.invoke, main.commands[words[0]], words[1:], obj=here, input=given)


async def test_status(here: Here, world: World) -> None:
    await world.island.invoke(REQUEST)
    printed = (await run(here, "status")).output
    for words in ("t, version 0.1", "0 running, 0 queued", "0, 0 of them warm", "6 of 6 free", "1, 2M"):
        assert words in printed
    assert "not enforced" in printed
    assert "meanwhile" not in printed
    world.builds.ahead = "compiling the standard library, 20 of 179"
    printed = (await run(here, "status")).output
    assert re.search(r"meanwhile +compiling the standard library, 20 of 179", printed)
    told = json.loads((await run(here, "status", "--json")).output)
    assert (told["island"], len(told["artifacts"])) == ("t", 1)


async def test_capabilities(here: Here) -> None:
    printed = (await run(here, "capabilities")).output
    assert "copy_on_write" in printed
    assert printed.splitlines()[0].split() == ["CAPABILITY", "ENFORCED", "HOW", "REMEDY"]
    assert "\\n" not in printed
    told = json.loads((await run(here, "capabilities", "--json")).output)
    assert {"name", "enforced", "how", "remedy"} <= set(told[0])


async def test_requests_newest_first(here: Here, world: World) -> None:
    assert "no call is over" in (await run(here, "requests")).output
    await world.island.invoke(REQUEST)
    world.driver.script = lambda data: Script(exit_code=3)
    await world.island.invoke(REQUEST)
    header, first, second = (
        line for line in (await run(here, "requests")).output.splitlines() if "Z" in line or "ENDED" in line
    )
    assert header.split() == ["ENDED", "REQUEST", "RESULT", "TOTAL", "BINARY", "JAIL", "FUNCTION", "WHY"]
    assert "exited" in first
    assert " ok " in second
    (one,) = json.loads((await run(here, "requests", "--limit", "1", "--json")).output)
    assert one["verdict"] == "exited"
    assert (await run(here, "requests", "--limit", "1001")).exit_code == 2


async def test_logs_of_the_island_and_of_a_jail(here: Here, world: World) -> None:
    invocation = await world.island.invoke(REQUEST)
    lines = (await run(here, "logs")).output.splitlines()
    assert lines[0].endswith("island started, 0 leftovers swept")
    mine = (await run(here, "logs", "--jail", invocation.jail or "")).output.splitlines()
    assert any(f" {invocation.jail}: function jail created" in line for line in mine)
    assert set(mine) < set(lines)
    (last,) = json.loads((await run(here, "logs", "--limit", "1", "--json")).output)
    assert lines[-1].endswith(last["text"])


async def test_ips_tell_taken_out_from_free(here: Here, world: World) -> None:
    await world.island.network.set_state("10.61.0.2", AddressState.unavailable)
    rows = [line.split() for line in (await run(here, "ips")).output.splitlines() if line.strip()]
    assert rows[0] == ["ADDRESS", "STATE", "JAIL", "SINCE"]
    (taken,) = (one for one in world.island.status().addresses if one.since)
    assert rows[1] == ["10.61.0.2", "out", "-", *moment(taken.since or 0.0).split()]
    assert rows[2] == ["10.61.0.3", "free", "-", "-"]
    one = (await run(here, "ips", "--state", "unavailable")).output
    assert ("10.61.0.2" in one, "10.61.0.3" in one) == (True, False)
    told = json.loads((await run(here, "ips", "--state", "unavailable", "--json")).output)
    assert told == ["10.61.0.2"]


@pytest.mark.parametrize("words", [("rebuild",), ("cache", "rebuild")])
async def test_rebuild_by_the_beginning_of_a_key(here: Here, world: World, words: tuple[str, ...]) -> None:
    for call in ("Encode(1, 2)", "Decode(`x`)"):
        await world.island.invoke(structs.replace(REQUEST, call=call))
    artifact, _ = world.builds.artifacts()
    assert (await run(here, *words, artifact.key[:8])).output == f"rebuilt {artifact.key}\n"
    refused = await run(here, *words, "no-such-key")
    assert isinstance(refused.exception, ArtifactNotFound)
    many = await run(here, *words, "")
    assert (many.exit_code, "2 keys begin with" in many.output) == (1, True)


@pytest.mark.parametrize("data", [b"text\n", b"\xff\x00"])
async def test_invoke_passes_input_of_every_kind_on(here: Here, world: World, data: bytes) -> None:
    fed = []
    world.driver.script = lambda frame: fed.append(frame) or Script(stdout=b"\xffout", exit_code=1)  # type: ignore[func-returns-value]
    done = await run(here, "invoke", *CALL.values(), "--stdin", "-", given=data)
    assert fed[0].endswith(data)
    assert done.stdout_bytes == b"\xffout"
    assert (done.exit_code, "exited with code 1" in done.stderr) == (EXIT_FUNCTION, True)


HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202eé\t1\r\n2"
SHOWN = "\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\x7f\\u202eé\t1\\r\n2"


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)


def hostile(world: World) -> None:
    world.driver.script = lambda data: Script(stdout=HOSTILE.encode(), stderr=HOSTILE.encode(), exit_code=1)


async def test_output_gives_a_terminal_no_orders(here: Here, world: World, on_a_terminal: None) -> None:
    hostile(world)
    done = await run(here, "invoke", *CALL.values())
    assert done.stdout == SHOWN
    assert not any(c in done.stderr for c in "\x07\x9b\x7f\u202e")
    assert "\x1b]" not in done.stderr
    raw = await run(here, "invoke", *CALL.values(), "--raw")
    assert raw.stdout_bytes == HOSTILE.encode()
    assert "\x1b]0;title\x07" in raw.stderr, "without the guard the terminal would obey"


async def test_the_message_has_a_line_of_its_own(
    here: Here, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a file that has both streams; what a file of its own has is every byte and no more."""
    monkeypatch.setattr(GlobalOptions, "client", lambda self, admin=True: here.client(admin=admin))
    out, err = tmp_path / "out", tmp_path / "err"

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def invoke(stderr: Path) -> None:
        with out.open("a") as sys.stdout, stderr.open("a") as sys.stderr, pytest.raises(SystemExit):
            main(["invoke", *CALL.values()])

    for stdout, stderr in ((b"0 no", b""), (b"0 no\n", b""), (b"0", b"no"), (b"0", b"no\n")):
        answers(world, stdout, {"results": [0], "error": {"message": "no", "type": "E"}}, stderr=stderr)
        for place in (out, err):
            out.write_bytes(b"")
            err.write_bytes(b"")
            with monkeypatch.context() as streams:
                streams.setattr(sys, "stdout", sys.stdout)
                streams.setattr(sys, "stderr", sys.stderr)
                await asyncio.to_thread(invoke, place)
            written = place.read_bytes()
            assert written.splitlines()[-1] == b"skyisland: the function returned an error: no"
            assert b"\n\n" not in written
            if place is err:
                assert out.read_bytes() == stdout


async def test_output_to_a_file_is_every_byte_and_error_texts_are_clean(here: Here, world: World) -> None:
    hostile(world)
    done = await run(here, "invoke", *CALL.values())
    assert done.stdout_bytes == HOSTILE.encode()
    assert HOSTILE.encode() in done.stderr_bytes


async def test_an_error_gives_a_terminal_no_orders(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Client, request: object, *, receipt: bool = False) -> None:
        raise BadCall(f"call: {HOSTILE}", output=HOSTILE)

    monkeypatch.setattr(Client, "invoke", fail)
    runner = CliRunner()
    monkeypatch.setattr(GlobalOptions, "client", lambda self, admin=True: here.client(admin=admin))
    done = await asyncio.to_thread(runner.invoke, main, ["invoke", *CALL.values()])
    assert done.exit_code == 1
    indented = SHOWN.replace("\n", "\n    ")
    assert done.stderr == f"skyisland: call: {SHOWN}\n  output: {indented}\n"


async def test_json_gives_a_terminal_no_orders(here: Here, world: World) -> None:
    hostile(world)
    told = (await run(here, "invoke", *CALL.values(), "--json")).stdout
    assert json.loads(told)["data"] == HOSTILE
    assert all(c.isprintable() or c == "\n" for c in told)


async def test_a_function_that_returns_an_error_ends_invoke_with_4(here: Here, world: World) -> None:
    error = {"message": "no such place", "type": "*geohash.Error"}
    answers(world, b"0 no such place", {"results": [0], "error": error})
    done = await run(here, "invoke", *CALL.values())
    assert (done.exit_code, done.stdout) == (EXIT_FUNCTION, "0 no such place")
    assert done.stderr == "skyisland: the function returned an error: no such place\n"
    told = await run(here, "invoke", *CALL.values(), "--json")
    said = json.loads(told.output)
    assert (told.exit_code, said["verdict"], said["failed"]) == (EXIT_FUNCTION, "failed", True)
    assert (said["results"], said["error"]) == ([0], error)
    assert "failed: no such place" in (await run(here, "requests")).output


async def test_invoke_for_machines(here: Here) -> None:
    told = json.loads((await run(here, "invoke", *CALL.values(), "--json")).output)
    assert (told["verdict"], told["exit_code"]) == ("ok", 0)
    assert list(told)[:4] == ["verdict", "timestamp", "data", "results"]


@pytest.mark.parametrize("known", [True, False])
async def test_invoke_shows_the_token_where_it_may_read_it(tmp_path: Path, known: bool) -> None:
    """An island that is closed to callers without a token answers the commands of its own operator."""
    world = make_world(settings=Api(open=False), token="plain")
    await world.island.start()
    async with world.served() as server:
        file = tmp_path / "skyisland.toml"
        token = f'admin_api_token = "plain"\nadmin_token_header = "{HEADER}"\n' if known else ""
        file.write_text(f'state_dir = "{tmp_path}/state"\nhttp_port = {server.port}\n{token}')
        file.chmod(0o600)
        done = await asyncio.to_thread(
            CliRunner().invoke, main.commands["invoke"], [*CALL.values()], obj=GlobalOptions(file)
        )
    await world.island.stop()
    assert (done.exit_code == 0) is known, done.output


@pytest.mark.parametrize("window", ["5m", "1h"])
async def test_top_of_a_window_as_the_docs_spell_it(here: Here, world: World, window: str) -> None:
    await world.island.invoke(REQUEST)
    every = await run(here, "top", "--window", window, "--json")
    assert (every.exit_code, json.loads(every.output)["every"]["window"]) == (0, window)
    (one,) = world.island.report(Window(window)).functions
    for function in (one.id, one.title):
        page = json.loads((await run(here, "top", function, "--window", window, "--json")).output)
        assert page["figures"]["recent"]["window"] == window


async def test_top_of_a_function_that_nobody_called(here: Here) -> None:
    for words in ("fn-0", "nope"):
        refused = await run(here, "top", words)
        assert isinstance(refused.exception, FunctionNotFound), words


@pytest.mark.parametrize("json_wanted", [False, True])
@pytest.mark.parametrize(
    ("given", "option"),
    [
        (("--timeout", "99999999"), "--timeout"),
        (("--timeout", "0"), "--timeout"),
        (("--timeout", "nan"), "--timeout"),
        (("--concurrency", "-3"), "--concurrency"),
        (("--cpus", "nan"), "--cpus"),
        (("--cpus", "inf"), "--cpus"),
        (("--memory", "1"), "--memory"),
        (("--warm", "-1"), "--warm"),
        (("--revision", "-1"), "--revision"),
        (("--env", "A" * 65 + "=1"), "--env"),
        (("--secret", "A=" + "s" * 65), "--secret"),
        (("--webhook", "github=" + "s" * 65), "--webhook"),
        (("--caller", "c" * 65), "--caller"),
        (("--version", "v" * 256), "--version"),
    ],
)
def test_what_no_name_can_have_is_told_by_its_option(
    given: tuple[str, str], option: str, json_wanted: bool
) -> None:
    words = ["names", "define", "encode", REQUEST.url, "Encode", *given]
    refused = CliRunner().invoke(main, [*words, "--json"] if json_wanted else words)
    assert refused.exit_code == 2
    if json_wanted:
        told = json.loads(refused.stderr)
        assert (told["code"], option in told["error"]) == ("usage", True)
    else:
        assert f"Invalid value for '{option}'" in refused.stderr


def test_a_console_refreshes_after_a_number_of_seconds() -> None:
    refused = CliRunner().invoke(main, ["console", "--refresh", "nan"])
    assert (refused.exit_code, "Invalid value for '--refresh'" in refused.stderr) == (2, True)


@pytest.mark.parametrize("name", ["x/y", "..", ".", "X"])
@pytest.mark.parametrize("words", [("define", REQUEST.url), ("show",), ("delete",)])
def test_what_can_be_no_name_is_refused_before_the_island_is_asked(name: str, words: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(main, ["names", words[0], name, *words[1:], "--json"])
    told = json.loads(refused.stderr)
    assert (refused.exit_code, told["code"]) == (1, "bad_request")
    assert told["error"].startswith("name: up to 64 characters")


async def test_a_name_has_the_limits_that_were_given(here: Here, world: World) -> None:
    given = ("--cpus", "0.5", "--timeout", "3", "--warm", "1", "--env", "A=1")
    done = await run(here, "names", "define", "encode", REQUEST.url, "Encode", *given)
    assert done.exit_code == 0, done.output
    definition = world.island.named.get("encode").definition
    assert (definition.limits, definition.timeout_s) == (Ceilings(cpus=0.5), 3)
    assert (definition.warm.min, definition.env) == (1, {"A": "1"})


async def test_a_name_is_defined_with_a_schedule_and_pushes(here: Here, world: World) -> None:
    await world.island.named.secrets.set("HOOK", "hushed")
    word = ("names", "define", "report", REQUEST.url, "Encode")
    given = ("--schedule", "0 8 29 2 *", "--zone", "Asia/Kolkata", "--missed", "once", "--overlap", "queue")
    done = await run(here, *word, *given, "--schedule-args", "[1, 2]", "--push", "gitea=HOOK")
    assert done.exit_code == 0, done.output
    definition = world.island.named.get("report").definition
    assert definition.schedule == Schedule(
        cron="0 8 29 2 *", zone="Asia/Kolkata", missed=Missed.once, overlap=Overlap.queue, args=[1, 2]
    )
    assert definition.push == Webhook(scheme=Scheme.gitea, secret="HOOK")
    shown = (await run(here, "names", "show", "report")).output
    for told in ("0 8 29 2 * Asia/Kolkata", "02-29 08:00 IST", "gitea (HOOK)"):
        assert told in shown
    comes = (await run(here, "names", "next")).output.splitlines()
    assert comes[0].split() == ["NAME", "NEXT", "IN", "SCHEDULE"]
    assert (len(comes), "02-29 08:00 IST" in comes[1]) == (2, True)
    several = json.loads((await run(here, "names", "next", "report", "--json")).output)
    assert [one["name"] for one in several] == ["report"] * 5
    for wrong in (
        ("--zone", "UTC"),
        ("--schedule", "* * * * *", "--schedule-args", "["),
        ("--push", "stripe=K"),
    ):
        assert (await run(here, *word, *wrong)).exit_code == 2
    await run(here, "names", "pause", "report")
    assert "is paused" in (await run(here, "names", "next", "report")).stderr


async def test_a_name_is_called_later_and_one_call_is_forgotten(here: Here, world: World) -> None:
    await run(here, "names", "define", "encode", REQUEST.url, "Encode", "--pin")
    accepted = await run(here, "names", "call", "encode", "1", "2", "--async", "--key", "k")
    call = accepted.output.strip()
    same = await run(here, "names", "call", "encode", "1", "2", "--async", "--key", "k", "--json")
    assert json.loads(same.output)["id"] == call
    shown = json.loads((await run(here, "calls", "show", call, "--wait", "20", "--json")).output)
    assert (shown["name"], shown["state"], shown["call"]) == ("encode", "done", "Encode(1,2)")
    assert f"encode: {REQUEST.url} Encode(" in (await run(here, "requests")).output
    assert (await run(here, "names", "call", "encode", "--key", "k")).exit_code == 2
    assert (await run(here, "calls", "forget", call, "--state", "done")).exit_code == 2
    assert (await run(here, "calls", "forget", call)).output == f"forgotten: {call}\n"
    assert "no call is kept" in (await run(here, "calls")).output
    moved = await run(here, "names", "move", "encode", "--follow")
    assert "revision 2" in moved.output
    assert "pinned" not in moved.output
    assert "pinned there" in (await run(here, "names", "rollback", "encode", "1")).output


async def test_output_of_a_call_that_answers_later_is_that_of_its_latest_attempt(
    here: Here, world: World
) -> None:
    world.driver.script = lambda data: Script(stdout=b"jcc92ytsf8kn")
    accepted = await run(here, "invoke", *CALL.values(), "--async")
    call = accepted.output.strip()
    shown = await run(here, "calls", "show", call, "--wait", "20", "--json")
    latest = json.loads(shown.output)["attempts"][-1]["id"]
    one, same = await run(here, "output", latest), await run(here, "output", call)
    assert "jcc92ytsf8kn" in one.output
    assert (same.exit_code, same.output) == (0, one.output)
