"""A stranger's folder: what is in it is read, what a link shows outside of it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skyisland.host.tree import MAX_LINKS, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("found")
    return Tree(root)


def link(tmp_path: Path, name: str, target: str) -> None:
    (tmp_path / "tree" / name).symlink_to(target)


def test_plain_files_and_folders(tree: Tree) -> None:
    assert tree.read("a/b/file", 3) == b"fou"
    assert tree.read("./a//b/../b/file", 100) == b"found"
    assert tree.names("") == ["a"]
    assert tree.names("a/b") == ["file"]
    assert tree.is_file("a/b/file")
    assert not tree.is_file("a/b")


@pytest.mark.parametrize("name", ["none", "a/b", "a/b/file/x", "a/none/file", "x" * 300, "a/\udcff"])
def test_what_is_no_file_is_not_read(tree: Tree, name: str) -> None:
    assert tree.read(name, 100) is None


@pytest.mark.parametrize(
    ("name", "target", "asked"),
    [
        ("linked", "a/b", "linked/file"),
        ("a/up", "../a/b/file", "a/up"),
        ("one", "two/file", "one"),
    ],
)
def test_links_within_the_tree_are_followed(
    tree: Tree, tmp_path: Path, name: str, target: str, asked: str
) -> None:
    link(tmp_path, name, target)
    if name == "one":
        link(tmp_path, "two", "a/b")
    assert tree.read(asked, 100) == b"found"


@pytest.mark.parametrize("target", ["{outside}", "{outside}/none", "../outside", "a/../../outside", "/"])
def test_a_link_out_of_the_tree_leads_nowhere(tree: Tree, tmp_path: Path, target: str) -> None:
    link(tmp_path, "out", target.format(outside=tmp_path / "outside"))
    follows = (tmp_path / "tree" / "out").exists()
    assert follows is (not target.endswith("none")), "the attack works where links are followed"
    assert tree.read("out", 100) is None
    assert tree.names("out") is None
    assert tree.names("out/etc") is None
    assert not tree.is_file("out")


def test_links_that_never_end(tree: Tree, tmp_path: Path) -> None:
    link(tmp_path, "loop", "loop")
    link(tmp_path, "double", "double/double")
    for number in range(MAX_LINKS + 1):
        link(tmp_path, f"l{number}", f"l{number + 1}")
    link(tmp_path, f"l{MAX_LINKS + 1}", "a/b/file")
    assert tree.read("loop", 100) is None
    assert tree.read("double", 100) is None
    assert tree.read("l0", 100) is None
    assert tree.read("l5", 100) == b"found"


def test_a_pipe_holds_nobody_up(tree: Tree, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tree" / "pipe")
    assert tree.read("pipe", 100) is None


def test_no_descriptor_is_left(tree: Tree, tmp_path: Path) -> None:
    link(tmp_path, "out", "/etc")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a/b/file", "a/none", "out/passwd", "../x"):
        tree.read(name, 10)
        tree.names(name)
    assert len(os.listdir("/proc/self/fd")) == before
