"""What packagers and contributors rely on: versions, groups, workflows, the form of records and changelog."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from skyisland import __version__
from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RECORDS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return loaded


def test_version_is_that_of_the_installed_package() -> None:
    told = subprocess.run(
        [Path(sys.executable).with_name("skyisland"), "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[-1] == __version__ == version("skyisland")
    assert re.match(r"\d+\.\d+\.\d+", __version__)


def test_examples_are_published_by_a_script(tmp_path: Path) -> None:
    """It prints the settings of an island that finds them, and touches no folder that has something."""
    words = [sys.executable, str(ROOT / "examples" / "publish.py"), str(tmp_path / "new" / "folder")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    settings = done.stdout[done.stdout.index("[git]") : done.stdout.index("The repositories")]
    ((prefix, folder),) = tomllib.loads(settings)["git"]["rewrite"].items()
    urls = re.findall(r"^  (\S+)$", done.stdout, re.MULTILINE)
    assert len(urls) > 3
    repository = f"https://{urls[0]}".replace(prefix, folder)
    assert subprocess.run(["git", "ls-remote", repository], capture_output=True, check=True).stdout
    assert subprocess.run(words, capture_output=True, check=False).returncode == 1
    assert subprocess.run(words[:2], capture_output=True, check=False).returncode == 2


def test_settings_of_the_fleet_that_is_shown_are_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = import_module("examples.fleet")
    fleet = example.Fleet(tmp_path)
    fleet.write_settings()
    for node in example.NODES:
        file = fleet.settings(node)
        assert file.stat().st_mode & 0o777 == 0o600
        assert tomllib.loads(file.read_text())["admin_api_token"] == example.TOKEN


def test_groups_are_the_extras() -> None:
    """Old pips know extras only, so those are the one list."""
    extras = set(PROJECT["project"]["optional-dependencies"]) - {"console"}
    assert PROJECT["dependency-groups"] == {name: [f"skyisland[{name}]"] for name in extras}


def test_what_the_console_needs_comes_with_the_package() -> None:
    extra = PROJECT["project"]["optional-dependencies"]["console"]
    assert extra == [line for line in PROJECT["project"]["dependencies"] if line.startswith("textual")]


def test_workflow_runs_on_each_python_that_is_claimed() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    job = workflow("check.yml")["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == claimed
    assert any(".ci/run" in step.get("run", "") for step in job["steps"])
    assert re.fullmatch(rf">={re.escape(claimed[0])}(\.\d+)?", PROJECT["project"]["requires-python"])


def test_workflows_make_targets_that_are_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(workflow("nightly.yml")["jobs"]["root"]["strategy"]["matrix"]["suite"]) <= targets
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["entry"].removeprefix("make ") for hook in hooks} <= targets


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflow_may_read_only(file: Path) -> None:
    assert workflow(file.name)["permissions"] == {"contents": "read"}


def test_architecture_has_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tree = text.split("## The rooms")[1].split("```")[1]
    folders: dict[int, str] = {}
    told: set[str] = set()
    for line in tree.strip().splitlines():
        depth = len(line) - len(line.lstrip())
        name, _, more = line.strip().partition(" ")
        above = "".join(folders[level] for level in sorted(folders) if level < depth)
        if name.endswith("/"):
            folders = {level: folder for level, folder in folders.items() if level < depth} | {depth: name}
            told |= {f"{above}{name}{module}" for module in re.findall(r"\w+\.py", more)}
        else:
            told.add(above + name)
    there = {
        str(path.relative_to(ROOT))
        for package in ("skyisland", "api", "tui")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert told == there


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_record_has_its_parts(record: Path) -> None:
    text = record.read_text()
    headings = ["## Context", "## Decision", "## Tried and weighed", "## Consequence"]
    assert re.findall(r"^## .+$", text, re.MULTILINE) == headings
    number, title = re.findall(r"^# (\d+): (.+)$", text, re.MULTILINE)[0]
    assert record.name.startswith(number)
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert f"| [{number}]({record.name}) | {title} |" in index
    assert len(text.splitlines()) <= 30


def test_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## .+$", text, re.MULTILINE)[0] == "## Unreleased"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
