"""What installs what tests drive, and what keeps a record of the tests that were run twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

FLAKY = """
import pathlib, pytest

@pytest.mark.parametrize("word", ["one", "with blanks"])
def test_flaky(word):
    mark = pathlib.Path(word)
    seen = mark.exists()
    mark.touch()
    assert seen

def test_good(): pass
"""
BROKEN = "\ndef test_broken(): assert False\n"


def tools(folder: Path, *words: str, uid: int, apt: bool = True) -> subprocess.CompletedProcess[str]:
    """On a host where there is nothing but `sh`, and apt-get, which tells what it is asked for."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    fakes = {"id": f"echo {uid}", "there": "", **({"apt-get": 'echo "apt-get $*"'} if apt else {})}
    for name, does in fakes.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{does}\n")
        (bin_ / name).chmod(0o755)
    return subprocess.run(
        [ROOT / ".ci/tools", *words], env={"PATH": str(bin_)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("uid", [0, 1000])
def test_nothing_is_installed_where_nothing_is_missing(tmp_path: Path, uid: int) -> None:
    done = tools(tmp_path, "there", "there:package", uid=uid)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_root_gets_what_is_missing(tmp_path: Path) -> None:
    done = tools(tmp_path, "there", "tmux", "pgrep:procps", uid=0)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "installing tmux procps",
        "apt-get update -q",
        "apt-get install -y -q --no-install-recommends tmux procps",
    ]


def test_others_are_told_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    done = tools(tmp_path, "tmux", "pgrep:procps", uid=1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "missing: tmux procps; to install: sudo apt-get install tmux procps\n"


def test_another_system_is_told_what_is_missing(tmp_path: Path) -> None:
    done = tools(tmp_path, "tmux", uid=0, apt=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("missing: tmux (")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One that has as much as .ci/run wants of a project."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text("check:\n\ntest:\n\t.venv/bin/pytest -q -ra\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    return tmp_path


def run(project: Path, tests: str) -> tuple[int, str, str]:
    """The exit code, what was printed, and the record."""
    (project / "test_it.py").write_text(tests)
    # Of plugins, pytest's own are enough, and they load sooner.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = [project / ".ci/run"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    record = (project / ".cache/run-twice").read_text()
    assert done.stdout.endswith(record)
    return done.returncode, done.stdout, record


NONE = "No test failed at first and passed alone.\n"


def test_a_good_run_says_that_nothing_was_run_twice(project: Path) -> None:
    code, said, record = run(project, "def test_good(): pass\n")
    assert (code, record) == (0, NONE)
    assert "1 passed" in said


def test_what_failed_once_is_kept_on_record(project: Path) -> None:
    code, said, record = run(project, FLAKY)
    assert code == 0
    assert record.splitlines() == [
        "Failed at first, and passed alone:",
        "  test_it.py::test_flaky[one]",
        "  test_it.py::test_flaky[with blanks]",
    ]
    assert "2 failed, 1 passed" in said
    assert "2 passed" in said


def test_what_fails_twice_is_broken(project: Path) -> None:
    code, said, record = run(project, FLAKY + BROKEN)
    assert code == 1
    assert "FAILED test_it.py::test_broken" in said.partition("3 failed")[2], "the second summary"
    assert "test_flaky[one]" in record
    assert "test_broken" not in record


def test_what_fails_before_any_test_is_not_forgiven(project: Path) -> None:
    (project / "Makefile").write_text("check:\n\ntest:\n\tfalse\n")
    code, _, record = run(project, "def test_good(): pass\n")
    assert (code, record) == (5, NONE)
    (project / "Makefile").write_text("check:\n\tfalse\n")
    done = subprocess.run([project / ".ci/run"], capture_output=True, check=False)
    assert done.returncode == 2
