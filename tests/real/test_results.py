"""Results as JSON: the harness's own writer beside encoding/json, in a plain Go program (results/main.go)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from skyisland.golang import harness

Go = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = Path(__file__).parent / "results" / "main.go"
OPEN = """package harness

func Results(values ...interface{}) []byte { return appendResults(nil, values) }
"""
TAKEN = """package main

import "example.com/results/harness"

func init() { results = harness.Results }
"""


def test_results_are_written_as_encoding_json_writes_them(go: Go, tmp_path: Path) -> None:
    """Values of many types and of random ones byte for byte; and what encoding/json cannot hold."""
    (tmp_path / "harness").mkdir()
    for name, data in harness.library().items():
        (tmp_path / "harness" / name).write_bytes(data)
    files = {"harness/open.go": OPEN, "taken.go": TAKEN, "main.go": PROGRAM.read_text()}
    files["go.mod"] = "module example.com/results\n\ngo 1.24\n"
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    built = go("build", "-o", tmp_path / "program", ".", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    count = re.search(r"compared (\d+) of", ran.stdout)
    assert count is not None
    assert int(count[1]) > 2000
