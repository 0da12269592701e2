"""The island killed while it calls a name by itself: each time of the schedule has one call, none has two.

`SKYISLAND_MINUTES`: how many lives; a run of the tests has time for a few of the steps.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from skyisland.later.calls import read
from skyisland.named.schedule import stamp
from tests.faults.clockwork import BEGIN
from tests.support.places import ROOT

MINUTES = int(os.environ.get("SKYISLAND_MINUTES", "3"))
SIGKILLED = -9


def life(file: Path, at: int, minute: int) -> int:
    """How many steps the call of this minute took; 0 if the island was killed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.clockwork", str(file), str(at), str(minute)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, SIGKILLED), done.stderr
    return next((json.loads(line)["steps"] for line in done.stdout.splitlines()), 0)


@pytest.mark.case("D1")
def test_an_island_killed_around_a_time_calls_once(state_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "skyisland.toml"
    file.write_text(f'state_dir = "{state_dir}"\n[jails]\ndriver = "fake"\n')
    steps = life(file, 0, 1)
    assert steps > 5
    at = {minute: 1 + (minute - 1) * steps // (MINUTES + 1) for minute in range(2, MINUTES)}
    ended = [life(file, step, minute) for minute, step in at.items()]
    assert not all(ended)
    assert life(file, 0, MINUTES)
    with closing(sqlite3.connect(state_dir / "calls.db")) as db:
        rows = db.execute("SELECT state, record FROM calls").fetchall()
        keys = [key for (key,) in db.execute("SELECT key FROM claims ORDER BY key")]
    expected = [f"report@{stamp(BEGIN + minute * 60)}" for minute in range(1, MINUTES + 1)]
    assert keys == sorted(expected)
    assert [state for state, _ in rows] == ["done"] * MINUTES
    assert {read(record).client for _, record in rows} == {"schedule:report"}
