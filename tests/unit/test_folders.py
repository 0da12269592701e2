"""Which folders hold packages, for whoever named one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyisland.errors import BuildFailed, Complaint
from skyisland.golang import folders
from skyisland.golang.complaints import add_reasons
from skyisland.golang.folders import package_folders, where_packages_lie
from skyisland.golang.packages import read_package
from skyisland.host.tree import Tree
from skyisland.model import Source

FILES = (
    "README.md",
    "x_test.go",
    "client/c.go",
    "client/deep/d.go",
    "cmd/tool/main.go",
    "client/testdata/t.go",
    "vendor/v/v.go",
    "_old/o.go",
    ".git2/g.go",
    "encoding/e.go",
    "docs/text.md",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "out").symlink_to("/usr")
    (tmp_path / "again").symlink_to(".")
    return tmp_path


def source(repository: Path, package: str) -> Source:
    return Source(url="github.com/u/r", package=package, commit="c" * 40, checkout=repository)


def test_folders_near_the_root_come_first_and_programs_last(repository: Path) -> None:
    (repository / "again").unlink()
    assert package_folders(Tree(repository)) == ["client", "encoding", "client/deep", "cmd/tool"]


@pytest.mark.parametrize(
    ("package", "named"),
    [
        ("", "client, github.com/u/r/encoding, github.com/u/r/client/deep, github.com/u/r/cmd/tool"),
        ("clinet", "client"),
        ("encodings", "encoding"),
        ("tree/main/client/deep", "client/deep"),
        ("pkg/encoding", "encoding"),
    ],
)
def test_what_is_named_instead(repository: Path, package: str, named: str) -> None:
    (repository / "again").unlink()
    assert (
        where_packages_lie(Tree(repository), source(repository, package))
        == f"; there is github.com/u/r/{named}"
    )


def test_a_folder_that_is_not_there_and_one_without_go_say_so(repository: Path) -> None:
    with pytest.raises(BuildFailed, match=r"no folder 'clinet' at c{12}; there is github\.com/u/r/client$"):
        read_package(source(repository, "clinet"), "go1.27.3")
    error = BuildFailed("no Go files", complaint=Complaint.no_go_files)
    add_reasons(error, source(repository, "docs"))
    assert error.message.startswith("no Go files; there is github.com/u/r/client, ")


def test_links_and_many_folders_are_bounded(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FOLDERS", 50)
    assert len(package_folders(Tree(repository))) < 50
    monkeypatch.setattr(folders, "MAX_NAMED", 2)
    assert where_packages_lie(Tree(repository), source(repository, "")).endswith(" more")


def test_a_repository_without_packages_is_left_alone(tmp_path: Path) -> None:
    assert where_packages_lie(Tree(tmp_path), source(tmp_path, "")) == ""
