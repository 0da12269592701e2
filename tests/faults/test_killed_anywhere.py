"""The daemon killed at every awaited step of a call, and started again: nothing lost, nothing left.

One chain of lives on one state folder: each tells what it finds, begins a call, and is killed at a step
of it. How many steps there are is counted by a life that is not killed. `SKYISLAND_FAULT_POINTS`: how
many of them are tried (0 for all), spread evenly; a run of the tests has time for a few.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from skyisland.settings import Settings
from tests.support.daemon import HOST, PATIENCE_S, host_objects, processes, tag
from tests.support.places import ROOT

pytestmark = [pytest.mark.host, pytest.mark.anywhere, pytest.mark.root, pytest.mark.case("D1")]

POINTS = int(os.environ.get("SKYISLAND_FAULT_POINTS", "5"))
SIGKILLED = -9

Live = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def live(settings: Settings, rewrite: dict[str, str]) -> Live:
    """One life (victim.py): its exit code, and what it told."""
    file = settings.state_dir.parent / "skyisland.toml"

    def live(at: int, call: str, *, fresh: bool) -> tuple[int, list[dict[str, Any]]]:
        words = [str(at), f"{HOST}/textkit", call, "fresh" if fresh else "known"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.victim", file, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE_S,
            check=False,
        )
        assert done.returncode in (0, SIGKILLED), done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return live


@pytest.mark.parametrize("fresh", [True, False], ids=["fetched and built", "cached"])
def test_killed_at_any_step(live: Live, settings: Settings, fresh: bool) -> None:
    code, (_, told) = live(0, 'Number("0")', fresh=fresh)
    assert (code, told["said"]) == (0, "0 <nil>")
    # That one filled the caches; this one is the measure.
    code, (_, told) = live(0, 'Number("0")', fresh=fresh)
    steps = told["steps"]
    assert steps > 5
    points = range(1, steps + 1, max(1, steps // POINTS) if POINTS else 1)
    killed = 0
    for number, at in enumerate(points, start=1):
        code, told_lines = live(at, f'Number("{number}")', fresh=fresh)
        assert told_lines[0]["left"] == [], f"after a kill at step {at} of {steps}"
        killed += code == SIGKILLED
    print(f"killed at {killed} of {len(points)} points of {steps} steps")
    assert killed > len(points) // 2, "calls take about as many steps as the one that was measured"
    code, (found, told) = live(0, 'Number("77")', fresh=False)
    assert (code, found["left"], told["said"]) == (0, [], "77 <nil>")
    island = tag(settings.state_dir)
    assert processes(settings.state_dir, island) == []
    assert host_objects(settings.state_dir, island) == []
    with closing(sqlite3.connect(settings.state_dir / "island.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
