"""What all commands keep, whatever they do: output for people and machines, errors, exit codes, input."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from msgspec import structs

from skyisland.cli import SECTIONS, Commands, main
from skyisland.cli.printing import print_table, say
from skyisland.client import Client
from skyisland.drivers.fake import Script
from skyisland.errors import BadCall
from skyisland.model import FunctionRequest
from skyisland.status import AddressState
from tests.support.api import CALL, HEADER, REQUEST, Server, World, make_world

TOKEN = "plain"
SKYISLAND = str(Path(sys.executable).with_name("skyisland"))
LONG = structs.replace(REQUEST, call=f"Encode({', '.join('1234567' for _ in range(40))})")


class Island:
    """The command line of an island that has made a call, and has a jail alive."""

    def __init__(self, server: Server, file: Path) -> None:
        self.words = ("-c", str(file))
        self.server = server

    async def run(self, *words: str, given: str | bytes = "", env: dict[str, str] | None = None) -> Result:
        runner = CliRunner(env=env)
        return await asyncio.to_thread(runner.invoke, main, [*self.words, *words], input=given)

    async def completes(self, *words: str) -> list[str]:
        *before, last = words
        shell = ShellComplete(main, {}, "skyisland", "_SKYISLAND_COMPLETE")
        found = await asyncio.to_thread(shell.get_completions, [*self.words, *before], last)
        return [one.value for one in found]


def file_for(folder: Path, port: int, token: str = f'admin_api_token = "{TOKEN}"') -> Path:
    file = folder / "sky island.toml"
    state = folder / "state"
    state.mkdir(exist_ok=True)
    file.write_text(f'{token}\nadmin_token_header = "{HEADER}"\nhttp_port = {port}\nstate_dir = "{state}"\n')
    file.chmod(0o600)
    return file


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world(token=TOKEN)
    await world.island.start()
    yield world
    await world.island.stop()


@pytest.fixture
async def island(world: World, tmp_path: Path) -> AsyncIterator[Island]:
    await world.island.invoke(LONG)
    async with world.served() as server:
        yield Island(server, file_for(tmp_path, server.port))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)


# Output


async def test_one_line_for_each_row_where_no_terminal_reads_it(island: Island, world: World) -> None:
    for words, rows in (("requests", 1), ("cache", 1), ("cache list", 1), ("ips", 6), ("capabilities", None)):
        done = await island.run(*words.split(), env={"COLUMNS": "20"})
        shown = json.loads((await island.run(*words.split(), "--json")).stdout)
        lines = done.stdout.splitlines()
        assert len(lines) == 1 + (rows or len(shown)), words
        assert lines[0] == lines[0].upper()
        assert not any(line != line.rstrip() or not line for line in lines)
    assert LONG.call in (await island.run("requests")).stdout.splitlines()[1]
    await world.island.network.set_state("10.61.0.3", AddressState.unavailable)
    assert "\n10.61.0.3  out    -     20" in (await island.run("ips")).stdout


async def test_nothing_to_show_is_said_beside_the_output(world: World, tmp_path: Path) -> None:
    async with world.served() as server:
        island = Island(server, file_for(tmp_path, server.port))
        for words, said in (
            ("jails", "no jail is alive"),
            ("requests", "no call is over"),
            ("cache", "nothing is cached"),
        ):
            done = await island.run(words)
            assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{said}\n")
            assert json.loads((await island.run(words, "--json")).stdout) == []


@pytest.mark.parametrize("columns", [40, 80, 120, 500])
async def test_no_id_is_split_on_a_terminal_of_any_width(
    island: Island, terminal: None, columns: int
) -> None:
    (end,) = json.loads((await island.run("requests", "--json")).stdout)
    (artifact,) = json.loads((await island.run("cache", "--json")).stdout)
    env = {"COLUMNS": str(columns), "NO_COLOR": "1"}
    shown = (await island.run("requests", env=env)).stdout
    assert end["invocation"] in shown
    assert end["jail"] in shown
    assert artifact["key"][:12] in (await island.run("cache", env=env)).stdout
    texts = [line for line in shown.splitlines() if line.startswith("    ")]
    assert max(map(len, texts), default=0) <= columns
    assert bool(texts) is (columns < 500)
    told = "".join(texts).replace(" ", "")
    assert told in ("", f"{LONG.url}{LONG.call}".replace(" ", "")), "nothing is cut"


def test_a_table_of_long_texts_alone(terminal: None) -> None:
    @click.command()
    def show() -> None:
        print_table(("A", "B"), [("a" * 20, "b " * 20), ("c", "")], "none", texts=("A", "B"))

    shown = CliRunner(env={"COLUMNS": "24", "NO_COLOR": "1"}).invoke(show).stdout
    assert shown == f"A\n{'a' * 20}\n    {'b ' * 9}b\n    {'b ' * 9}b\nc\n"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_only_where_they_are_wanted(
    terminal: None, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    @click.command()
    def show() -> None:
        say("red", fg="red")
        say("plain")

    shown = CliRunner(env=environment).invoke(show, color=True).stdout
    assert shown == ("\x1b[31mred\x1b[0m\nplain\n" if coloured else "red\nplain\n")


def test_a_character_that_the_terminal_lacks_is_escaped() -> None:
    done = subprocess.run(
        [SKYISLAND, "-c", "/nowhere/…", "config", "show"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "skyisland: /nowhere/\\u2026: cannot be read: No such file or directory\n",
    )


# Errors


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        ("jail nope --json", 1, "jail_not_found"),
        ("rebuild nope --json", 1, "artifact_not_found"),
        ("ip 1.2.3.4 available --json", 1, "address_not_found"),
        ("invoke ./nope --json", 2, "usage"),
        ("kill --json", 2, "usage"),
        ("jails --json --nope", 2, "usage"),
        ("jals --json", 2, "usage"),
        ("--nope jails --json", 2, "usage"),
    ],
)
async def test_errors_in_json(island: Island, words: str, exit_code: int, code: str) -> None:
    done = await island.run(*words.split())
    assert (done.exit_code, done.stdout) == (exit_code, "")
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert told["code"] == code
    assert told["error"]
    assert set(told) <= {"error", "code", "details"}


async def test_errors_in_words(island: Island, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Client, request: FunctionRequest, *, receipt: bool = False) -> None:
        raise BadCall("call: no\x1b[2J", position=3)

    monkeypatch.setattr(Client, "invoke", fail)
    done = await island.run("invoke", *CALL.values())
    assert (done.exit_code, done.stdout, done.stderr) == (
        1,
        "",
        "skyisland: call: no\\x1b[2J\n  position: 3\n",
    )
    told = json.loads((await island.run("invoke", *CALL.values(), "--json")).stderr)
    assert told["details"] == {"position": 3}


@pytest.fixture
def no_web(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve_web(*_: object, **__: object) -> None:
        raise AssertionError("it serves")

    monkeypatch.setattr("tui.web.serve_web", serve_web)


def test_no_island(tmp_path: Path, no_web: None) -> None:
    """Also where there is no token, because none ever ran. What is said repeats the file that was named."""
    for token in (f'admin_api_token = "{TOKEN}"', ""):
        file = file_for(tmp_path, 1, token)
        for words in (
            "jails",
            "status",
            "invoke github.com/a/b F()",
            "kill --all",
            "ip 10.61.0.2 available",
            "logs -f",
            *(() if token else ("console", "web")),  # with a token they wait for the island
        ):
            done = CliRunner().invoke(main, ["-c", str(file), *words.split()])
            assert done.exit_code == 3, words
            assert done.stdout == ""
            (line,) = done.stderr.splitlines()
            assert line.endswith(f"start one by `skyisland -c '{file}' serve`")
        told = CliRunner().invoke(main, ["-c", str(file), "jails", "--json"])
        assert (told.exit_code, json.loads(told.stderr)["code"]) == (3, "unreachable")


async def test_an_island_whose_token_nobody_here_knows(world: World, tmp_path: Path) -> None:
    async with world.served() as server:
        done = await Island(server, file_for(tmp_path, server.port, "")).run("jails")
    assert (done.exit_code, "holds no admin token yet" in done.stderr) == (1, True)


def test_wrong_settings_are_told_once(tmp_path: Path, no_web: None) -> None:
    file = tmp_path / "skyisland.toml"
    file.write_text("http_port = 0\nlisten = 3\n[nope]\n")
    for words in ("config check", "jails", "serve --no-tui", "doctor", "console", "web", ""):
        done = CliRunner().invoke(main, ["-c", str(file), *words.split()])
        assert done.exit_code == 1
        for key in ("http_port", "listen", "nope"):
            assert done.output.count(f"{key}: found") == 1
    told = json.loads(CliRunner().invoke(main, ["-c", str(file), "jails", "--json"]).stderr)
    assert [problem["key"] for problem in told["details"]["problems"]] == ["http_port", "listen", "nope"]


def test_an_error_of_the_file_system_is_no_traceback(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["-c", str(file_for(tmp_path, 1)), "config", "write", f"{tmp_path}/none/file"]
    )
    assert (done.exit_code, done.stderr) == (
        1,
        f"skyisland: {tmp_path}/none/file: No such file or directory\n",
    )


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.Abort, EOFError])
def test_interrupted(raised: type[BaseException]) -> None:
    @click.command()
    def hang() -> None:
        raise raised

    done = CliRunner().invoke(Commands("skyisland", commands=[hang]), ["hang"])
    assert (done.exit_code, done.stderr) == (130, "skyisland: interrupted\n")


@pytest.mark.parametrize("words", ["--help", "config show"])
def test_output_that_nobody_can_take(words: str, tmp_path: Path) -> None:
    """A full disk, and a reader who went away: no traceback, and a code of its own."""
    command = [SKYISLAND, "-c", str(file_for(tmp_path, 1)), *words.split()]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "skyisland: standard output: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# Input


async def test_what_is_piped_in_is_the_input_of_the_function(
    island: Island, world: World, tmp_path: Path
) -> None:
    fed: list[bytes] = []
    world.driver.script = lambda frame: fed.append(frame) or Script(stdout=b"x")  # type: ignore[func-returns-value]
    for words, given, received in (
        ((), b"data\xff", b"data\xff"),
        ((), b"", b""),
        (("--stdin", "-"), b"data", b"data"),
        (("--stdin", str(tmp_path / "file")), b"other", b"of the file"),
    ):
        (tmp_path / "file").write_bytes(b"of the file")
        assert (await island.run("invoke", *CALL.values(), *words, given=given)).exit_code == 0
        assert fed[-1].endswith(received or b"}")
    assert b"other" not in fed[-1]


@pytest.mark.parametrize("kind", ["null", "pipe", "file"])
def test_where_standard_input_may_be_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not of /dev/null, which services have. Of a pipe on which nothing comes we say that we wait."""
    from skyisland.cli import calling

    monkeypatch.setattr(calling, "QUIET_S", 0.0)
    reader, writer = os.pipe()
    (tmp_path / "file").write_bytes(b"data")
    with {
        "null": lambda: open(os.devnull),
        "file": lambda: open(tmp_path / "file"),
        "pipe": lambda: open(reader, closefd=False),
    }[kind]() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        said: Callable[..., None] = lambda *_, **__: os.close(writer)  # noqa: E731 - the pipe's other end leaves
        monkeypatch.setattr(calling, "say", said)
        assert calling.piped() == {"null": b"", "file": b"data", "pipe": b""}[kind]
    os.close(reader)
    if kind != "pipe":
        os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(writer)


async def test_kill_all_asks_on_a_terminal(island: Island, world: World, terminal: None) -> None:
    sleep = asyncio.create_task(world.island.invoke(structs.replace(REQUEST, call="Sleep(60)")))
    world.driver.script = lambda data: Script(duration_s=60)
    while not any(jail.invocation for jail in world.island.status().jails):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    refused = await island.run("kill", "--all", given="n\n")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Kill all jails (1 alive, 1 with a call)? [y/N]" in refused.stderr
    assert "nothing was killed" in refused.stderr
    assert not sleep.done()
    assert (await island.run("kill", "--all", given="")).exit_code == 130, "the terminal was closed"
    agreed = await island.run("kill", "--all", "--json", given="y\n")
    assert len(json.loads(agreed.stdout)["deleted"]) == 1
    assert (await sleep).outcome is not None
    assert (await island.run("kill", "--all")).stdout == "killed: no jail was alive\n", (
        "nobody is asked for nothing"
    )


async def test_logs_go_on(island: Island, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0

    def sleep(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise KeyboardInterrupt
        asyncio.run_coroutine_threadsafe(world.island.invoke(REQUEST), loop).result()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr("skyisland.cli.watching.time.sleep", sleep)
    for words in (["logs", "-f", "--limit", "2"], ["logs", "--follow", "--limit", "2", "--json"]):
        rounds = 0
        done = await island.run(*words)
        assert done.exit_code == 130
        lines = done.stdout.splitlines()
        assert sum("ok in " in line for line in lines[2:]) == 2
    seqs = [json.loads(line)["seq"] for line in lines]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "each line once, and none left out"


# Completion


async def test_a_shell_completes_what_the_island_has(island: Island, world: World) -> None:
    (artifact,) = world.builds.artifacts()
    (end,) = json.loads((await island.run("requests", "--json")).stdout)
    assert await island.completes("jai") == ["jail", "jails"]
    assert await island.completes("cache", "evict", artifact.key[:1]) == [artifact.key]
    assert await island.completes("rebuild", artifact.key[:2]) == [artifact.key]
    assert await island.completes("ip", "10.61.0.2") == ["10.61.0.2"]
    assert await island.completes("invoke", "git") == [artifact.url]
    assert await island.completes("invoke", CALL["url"], "Enc") == ["Encode"]
    assert await island.completes("functions", CALL["url"], "Enc") == ["Encode"]
    assert await island.completes("request", "") == [end["invocation"]]
    sleep = asyncio.create_task(world.island.invoke(structs.replace(REQUEST, call="Sleep(60)")))
    world.driver.script = lambda data: Script(duration_s=60)
    while not (alive := world.island.status().jails):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    for words in (("jail", ""), ("kill", "sky"), ("logs", "--jail", "")):
        assert await island.completes(*words) == [alive[0].name]
    await world.island.kill_all()
    await sleep


def test_a_shell_completes_nothing_where_no_island_is(tmp_path: Path) -> None:
    shell = ShellComplete(main, {}, "skyisland", "_SKYISLAND_COMPLETE")
    words = ["-c", str(file_for(tmp_path, 1))]
    assert shell.get_completions([*words, "jail"], "") == []
    assert shell.get_completions([*words, "invoke", "./none"], "F") == []
    (folder,) = shell.get_completions([*words, "invoke"], "./")
    assert folder.type == "dir"


def test_every_command_that_asks_the_island_has_json() -> None:
    def commands(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
        below = getattr(command, "commands", {})
        return [(name, command)] + [
            row for child in below for row in commands(below[child], f"{name} {child}")
        ]

    without = {
        *("init", "serve", "supervise", "config", "config check", "config write", "completion"),  # ask none
        *("fleet", "fleet init"),
        *("receipt", "receipt show", "receipt signers"),  # what they print has a form of its own
        *("console", "web"),  # screens
    }
    for name in (name for rows in SECTIONS.values() for name in rows):
        for words, command in commands(main.commands[name], name):
            has = any("--json" in parameter.opts for parameter in command.params)
            assert has is (words not in without), words


def test_every_argument_of_the_islands_completes() -> None:
    def arguments(command: click.Command) -> list[click.Parameter]:
        below = [one for child in getattr(command, "commands", {}).values() for one in arguments(child)]
        return [one for one in command.params if isinstance(one, click.Argument)] + below

    named = {"jail", "address", "key", "url", "call", "name", "request", "function", "secret"}
    for name in (name for rows in SECTIONS.values() for name in rows):
        for argument in arguments(main.commands[name]):
            if argument.name in named:
                assert argument._custom_shell_complete is not None, f"{name} {argument.name}"
