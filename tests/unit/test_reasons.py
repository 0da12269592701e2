"""Why something of a repository is not there for Go, as its files tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyisland.golang.reasons import all_left_out, is_pointer, left_out, missed_names, submodule, uses_lfs
from skyisland.host.tree import Tree


def write(folder: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(folder)


def test_names_that_a_compiler_missed() -> None:
    output = "./x.go:3:4: undefined: F\ncall:1:1: undefined: F\nx.go:4:4: undefined: strings.G\ny.go:1: "
    output += "undefined: h"
    assert missed_names(output) == ["F", "h"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x_windows.go", "package x\n\nfunc F() {}\n", "is for windows by its name"),
        ("x_plan9_386.go", "package x\n\ntype F int\n", "is for plan9/386 by its name"),
        ("x.go", "//go:build a || b\n\npackage x\n\nvar F = 1\n", "is behind //go:build a || b"),
        ("x.go", "// +build a\n\npackage x\n\nconst F = 1\n", "is behind //go:build a"),
        ("x.go", f"//go:build {'a' * 100}\n\npackage x\n\nfunc F() {{}}\n", "is behind a build constraint"),
        ("x.go", "//go:build \x1b[31m\n\npackage x\n\nfunc F() {}\n", "is behind a build constraint"),
        (
            "x.go",
            '//go:build linux\n\npackage x\n\nimport "C"\n\nfunc F() {}\n',
            "needs cgo, and the island has no C compiler and is behind //go:build linux",
        ),
        ("x_client.go", "package x\n\nfunc F() {}\n", None),
        ("x.go", "package x\n\nfunc (T) F() {}\n\n//go:build a\n", None),
        ("x_test.go", "package x\n\nfunc F() {}\n", None),
        ("_x_windows.go", "package x\n\nfunc F() {}\n", None),
    ],
)
def test_where_a_missing_name_is(tmp_path: Path, name: str, text: str, why: str | None) -> None:
    tree = write(tmp_path, {f"sub/{name}": text, "x_windows.go": "package y\n\nfunc F() {}\n"})
    assert left_out(tree, "sub", ["F", "G"]) == ({"F": f"{name}, which {why}"} if why else {})


def test_all_files_left_out(tmp_path: Path) -> None:
    files = {f"x{n}_windows.go": "package x\n" for n in range(5)}
    told = all_left_out(write(tmp_path, files), "")
    assert told.startswith("x0_windows.go, which is for windows by its name; x1")
    assert told.endswith(" and 2 more")


def test_submodules(tmp_path: Path) -> None:
    text = '[submodule "a"]\n\tpath = third/a\n\turl = https://example.com/a\n'
    text += '[submodule "b"]\n\tpath = b\n\turl = ssh://x\n'
    tree = write(tmp_path, {".gitmodules": text})
    assert "third/a is a submodule (https://example.com/a)" in submodule(tree, "x", "third/a/deep")
    assert ": b is a submodule, which" in submodule(tree, "b")
    assert submodule(tree, "third", "bb") == ""
    assert submodule(write(tmp_path / "none", {"x": ""}), "third/a") == ""


def test_pointers_of_lfs(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n"
    tree = write(tmp_path, {"a.bin": pointer, "b.bin": "b", "sub/.gitattributes": "*.bin filter=lfs\n"})
    assert [is_pointer(tree, name) for name in ("a.bin", "b.bin", "c.bin")] == [True, False, False]
    assert [uses_lfs(tree, name) for name in ("sub", "sub/deep", "")] == [True, True, False]
