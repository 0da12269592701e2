"""Kill the island at any step, and start it again: nothing is left behind.

The steps are found by running; see lives.py, which does the killing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.places import ROOT

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.mark.parametrize(
    ("way", "phase", "first", "stride"),
    [("alias", "work", 1, 1), ("vnet", "work", 12, 3), ("alias", "start", 9, 4)],
)
def test_nothing_is_left(state_dir: Path, actor: Path, way: str, phase: str, first: int, stride: int) -> None:
    words = [str(state_dir), str(actor), way, phase, str(first), str(stride)]
    command = [sys.executable, "-m", "tests.freebsd.lives", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    lives = told["lives"]
    struck = [life for life in lives if life["code"] == -9]
    assert len(struck) >= 4, "the island was hardly struck at all"
    assert {life["code"] for life in lives} == {0, -9}, done.stderr
    left = [(before["step"], life["found"]) for before, life in pairwise(lives) if life["found"]]
    assert left == []
    assert told["left"] == {}
