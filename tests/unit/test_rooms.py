"""The rooms of the house: each says what is in it, and the commands load no more of it than they need."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from skyisland.cli import SECTIONS, main

ROOT = Path(__file__).parents[2]
ROOMS = sorted(
    init.parent for top in ("skyisland", "api", "tui") for init in (ROOT / top).rglob("__init__.py")
)
LIGHT = {"skyisland", "skyisland.cli", "skyisland.cli.ending", "skyisland.errors"}
"""All that `skyisland --help` loads of ours. It has 0.1 s, of which Python and Click take half."""
LATE = (
    *("api", "tui", "quart", "hypercorn", "textual", "pyroute2", "httpx", "ssl", "asyncio", "sqlite3"),
    *("msgspec", "rich", "logging", "subprocess", "tempfile", "tomllib"),
)
"""What it can do without; a command line that completes a command's name, too."""


@pytest.mark.parametrize("room", ROOMS, ids=[str(room.relative_to(ROOT)) for room in ROOMS])
def test_a_room_says_what_is_in_it(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    modules = {path.stem for path in room.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in room.glob("*/__init__.py")}
    missing = {name for name in modules | folders if not re.search(rf"\b{name}\b", said)}
    assert said
    assert missing == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["complete"]])
def test_help_and_version_load_next_to_nothing(words: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\nloaded', *sys.modules))\n"
        "from skyisland.cli import main; main(prog_name='skyisland')"
    )
    environment = {"_SKYISLAND_COMPLETE": "bash_complete", "COMP_WORDS": "skyisland ja", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(environment if words == ["complete"] else {})},
    )
    said, _, loaded = done.stdout.rpartition("\nloaded ")
    assert {name for name in loaded.split() if name.startswith("skyisland")} == LIGHT
    allowed = {"logging", "tempfile"} if words == ["--version"] else set()  # importlib.metadata wants them
    assert {name for name in loaded.split() if name in LATE} <= allowed
    assert "jail" in said or words == ["--version"]


def test_a_command_explains_itself_without_what_it_works_with() -> None:
    """`skyisland jails --help`: the client is imported by who asks the island, tables need no library."""
    code = (
        "import sys, skyisland.cli.calling, skyisland.cli.operating, skyisland.cli.watching\n"
        "print(*({'httpx', 'quart', 'textual', 'rich', 'sqlite3', 'prometheus_client'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_list_of_commands_is_true_and_fits_a_terminal() -> None:
    rows = {name: line for section in SECTIONS.values() for name, (_, line) in section.items()}
    helps = {name: (main.commands[name].help or "").splitlines()[0] for name in rows}
    assert rows == helps
    ctx = click.Context(main, terminal_width=80, max_content_width=80)
    listed = main.get_help(ctx).splitlines()
    assert not [line for line in listed if len(line) > 80]
    for name, line in rows.items():
        assert any(re.fullmatch(rf"  {name} +{re.escape(line)}", shown) for shown in listed), name
    for group in (main.commands["config"], main.commands["cache"]):
        assert "..." not in group.get_help(click.Context(group, terminal_width=80)).partition("Commands:")[2]
