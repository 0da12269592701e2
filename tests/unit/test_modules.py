"""go.mod and go.work as a repository has them, and as we write them around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyisland.golang.modules import Way, Workspace, requiring, statements, workspace_of
from skyisland.golang.packages import in_way, read_package
from skyisland.host.tree import Tree
from skyisland.model import Source


def write(folder: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(folder)


def test_statements() -> None:
    text = b'go 1.21 // the language\n\nuse (\n\t"./a"\n\t`./b`\n)\nreplace m v1 => ./m\n)\n'
    assert list(statements(text)) == [
        ["go", "1.21"],
        ["use", "./a"],
        ["use", "./b"],
        ["replace", "m", "v1", "=>", "./m"],
        [")"],
    ]


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("example.com/m", "v0.0.0"),
        ("example.com/m/v2", "v2.0.0"),
        ("example.com/m/v1", "v0.0.0"),
        ("gopkg.in/yaml.v3", "v3.0.0"),
        ("example.com/yaml.v3", "v0.0.0"),
    ],
)
def test_a_module_is_required_in_a_version_that_it_may_have(module: str, version: str) -> None:
    text = requiring(module, "sub", f"{module}/internal/x", "1.27")
    assert text.startswith(f"module {module}/internal/x/skyisland.call\n")
    assert f"require {module} {version}\n" in text
    assert f"replace {module} => /src/sub\n" in text


MEMBERS = {
    "a/go.mod": "module m/a\n\nrequire (\n\tm/b v0.0.0\n\tother v1\n)\n",
    "b/go.mod": "module m/b\n",
    "c/go.mod": "module m/c\n\nrequire m/b v1.2.3\n",
}


def test_a_workspace_is_written_anew(tmp_path: Path) -> None:
    work = "use ./a\nuse ./b/ // beside\nuse ./c\nreplace other v1 => ./b\nreplace more => example.com/m v1\n"
    tree = write(tmp_path, {**MEMBERS, "go.work": work, "go.work.sum": "sums"})
    workspace = workspace_of(tree, "a")
    assert workspace is not None
    assert workspace.requires_own
    assert workspace.sums == b"sums"
    assert workspace.text("1.27").splitlines() == [
        "go 1.27",
        "",
        "use /src/a",
        "use /src/b",
        "use /src/c",
        "replace m/b v0.0.0 => /src/b",
        "replace m/b v1.2.3 => /src/b",
        "replace other v1 => /src/b",
        "replace more => example.com/m v1",
    ]


@pytest.mark.parametrize("elsewhere", ["../..", "..", "/", "/etc", "./a/../../x", "$HOME"])
def test_a_workspace_takes_nothing_from_elsewhere(tmp_path: Path, elsewhere: str) -> None:
    inside = tmp_path / "deep" / "repository"
    for folder in (tmp_path, tmp_path / "deep", tmp_path / "deep" / "x"):
        write(folder, {"go.mod": "module secret\n"})
    work = f'use ./a\nuse "{elsewhere}"\nreplace x => {elsewhere}\nreplace x v1 => {elsewhere} v1 v2\n'
    workspace = workspace_of(write(inside, {**MEMBERS, "go.work": work}), "a")
    assert workspace is not None
    assert workspace.text("1.27") == "go 1.27\n\nuse /src/a\n"


@pytest.mark.parametrize("word", ["m\rreplace", "m\x00", "m\u2028x", "m;", "m'", "m(", "größe", "m\\n"])
def test_only_plain_words_get_into_ours(tmp_path: Path, word: str) -> None:
    files = {**MEMBERS, "go.work": f"use ./a\nuse ./b\nuse ./{word}\nreplace {word} => ./b\n"}
    files["a/go.mod"] += f"require m/b {word}\n"
    tree = write(tmp_path / "one", files)
    workspace = workspace_of(tree, "a")
    assert workspace is not None
    assert word not in workspace.text("1.27")
    write(tmp_path / "two", {"go.mod": f"module {word}\n", "x.go": "package x\n"})
    source = Source(url="example.com/user/repo", package="", commit="c" * 40, checkout=tmp_path / "two")
    package = read_package(source, "go1.27.3")
    assert package.ways == (Way.module,)


def test_a_workspace_that_is_none(tmp_path: Path) -> None:
    tree = write(tmp_path, {**MEMBERS, "go.work": "use ./b\n"})
    assert workspace_of(tree, "a") is None, "it does not use the module"
    assert workspace_of(tree, "b") is not None
    many = "".join(f"use ./m{number}\n" for number in range(400))
    members = {f"m{number}/go.mod": f"module m{number}\n" for number in range(400)}
    large = Workspace(write(tmp_path / "large", {**members, "go.work": many}), "", "m1")
    assert not large.applies


@pytest.mark.parametrize(
    ("files", "ways"),
    [
        ({"go.mod": "module m\n"}, (Way.module, Way.dependency)),
        ({}, (Way.module, Way.dependency)),
        ({"go.mod": "module (\n\tm\n)\n"}, (Way.module,)),
        ({"go.mod": "module m\n", "go.work": "use .\n"}, (Way.module, Way.workspace, Way.dependency)),
        (
            {
                "go.mod": "module m\n\nrequire n v1\n",
                "go.work": "use (\n\t.\n\t./n\n)\n",
                "n/go.mod": "module n\n",
            },
            (Way.workspace, Way.module, Way.dependency),
        ),
        ({"go.work": "use .\n"}, (Way.module, Way.dependency)),
    ],
)
def test_the_ways_to_a_packages_modules(tmp_path: Path, files: dict[str, str], ways: tuple[Way, ...]) -> None:
    write(tmp_path, {"x.go": "package x\n", **files})
    source = Source(url="example.com/user/repo", package="", commit="c" * 40, checkout=tmp_path)
    package = read_package(source, "go1.27.3")
    assert package.ways == ways
    each = [in_way(way, package, source, "go1.27.3") for way in ways]
    assert [one.way for one in each] == list(ways)
    assert [one.next_way for one in each] == [*ways[1:], None]
    if Way.dependency in ways:
        assert (each[-1].mod, each[-1].requires, each[-1].name) == ("mod", True, "x")


def test_a_vendored_workspace_needs_no_download(tmp_path: Path) -> None:
    files = {
        **MEMBERS,
        "go.work": "use ./a\nuse ./b\n",
        "vendor/modules.txt": "## workspace\n",
        "a/x.go": "package a\n",
    }
    write(tmp_path, files)
    source = Source(url="example.com/user/repo", package="a", commit="c" * 40, checkout=tmp_path)
    package = in_way(Way.workspace, read_package(source, "go1.27.3"), source, "go1.27.3")
    assert (package.mod, package.requires, dict(package.ours)) == ("vendor", False, {})
    assert package.go_work == "/src/go.work"
