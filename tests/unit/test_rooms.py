"""The rooms of the house: each says what is in it, and the commands load no more of it than they need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = sorted(
    init.parent for top in ("skyisland", "api", "tui") for init in (ROOT / top).rglob("__init__.py")
)
LATE = ("api", "tui", "quart", "hypercorn", "textual", "pyroute2", "skyisland.drivers")
"""What `skyisland --help` can do without."""


@pytest.mark.parametrize("room", ROOMS, ids=[str(room.relative_to(ROOT)) for room in ROOMS])
def test_a_room_says_what_is_in_it(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    modules = {path.stem for path in room.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in room.glob("*/__init__.py")}
    missing = {name for name in modules | folders if not re.search(rf"\b{name}\b", said)}
    assert said
    assert missing == set()


def test_the_commands_load_no_server_no_screen_and_no_driver() -> None:
    code = f"import sys, skyisland.cli; print(*[name for name in {LATE!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
