"""What `make check` would say of Go that is not in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import gotool
from tests.support.places import ROOT

pytestmark = pytest.mark.host


def test_what_is_not_formatted_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.go", tmp_path / "bad.go"
    good.write_text("package p\n\nvar X = 1\n")
    bad.write_text("package p\nvar   Y=1\n")
    assert gotool.gofmt([good, bad]) == [str(bad)]


def test_what_vet_finds_is_told_for_each_system(tmp_path: Path) -> None:
    folder = tmp_path / "tests/attacks/attacker"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module p\n\ngo 1.24\n")
    (folder / "p.go").write_text('package p\n\nimport "fmt"\n\nfunc F() { fmt.Printf("%d", "x") }\n')
    here, arm = (gotool.vet(*package) for package in gotool.packages(tmp_path))
    assert here.startswith(f"{folder}:\n")
    assert arm.startswith(f"{folder} arm64:\n")
    assert "of wrong type string" in here


def test_every_folder_of_go_is_looked_at() -> None:
    looked = {str(folder.relative_to(ROOT)) for folder, _, _ in gotool.packages()}
    assert {"skyisland/golang/harness", "skyisland/golang/gocache", "bench/forkserver"} <= looked
    assert {"skyisland/drivers/linux/launcher", "examples/textkit/slug", "tests/arm64/guest"} <= looked
