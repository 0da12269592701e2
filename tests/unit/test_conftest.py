"""The shared fixtures do what the other tests rely on."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError

import skyisland
from tests.support.places import ROOT


def _ours(source: str) -> Callable[[], Any]:
    """A function `f` that looks as if it stood in a module of the platform."""
    scope: dict[str, Any] = {}
    exec(compile(source, str(Path(skyisland.__file__).with_name("made_up.py")), "exec"), scope)  # noqa: S102
    found: Callable[[], Any] = scope["f"]
    return found


async def test_a_blocking_call_of_ours_fails_on_the_loop() -> None:
    nap = _ours("import time\ndef f(): time.sleep(0)")
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        nap()


async def test_a_blocking_call_of_ours_is_fine_in_a_thread() -> None:
    nap = _ours("import time\ndef f(): time.sleep(0)")
    await asyncio.to_thread(nap)


async def test_a_test_itself_may_block() -> None:
    time.sleep(0)  # noqa: ASYNC251


async def test_starting_a_program_is_allowed() -> None:
    run = _ours(
        "import asyncio, sys\n"
        "async def f():\n"
        "    child = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(1)', stdout=-1)\n"
        "    return (await child.communicate())[0]\n"
    )
    assert await run() == b"1\n"


def test_the_state_folder_is_open_to_others(state_dir: Path) -> None:
    assert state_dir.stat().st_mode & 0o777 == 0o755
    assert state_dir.is_relative_to("/tmp")
    locked = state_dir / "read" / "only"
    locked.mkdir(parents=True)
    (locked / "file").touch()
    os.symlink(sys.prefix, state_dir / "link")
    locked.chmod(0o000)


def test_jails_of_linux_are_skipped_elsewhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    conftest = next(
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(ROOT / "tests" / "conftest.py")
    )
    item = pytest.Function.from_parent(request.node.parent, name="made_up", callobj=lambda: None)
    item.add_marker("host")
    conftest.pytest_collection_modifyitems([item])
    assert item.get_closest_marker("skip") is None
    monkeypatch.setattr(conftest, "LINUX", False)
    conftest.pytest_collection_modifyitems([item])
    assert item.get_closest_marker("skip") is not None
