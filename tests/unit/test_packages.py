"""What a package is, as its files tell without Go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from skyisland.errors import BuildFailed
from skyisland.golang.packages import Package, read_package
from skyisland.model import Source

LICENCE = "/* Copyright, for\n * ever and a day. **/\n\n//go:build linux\n\n// Package sub does things.\n"


def read(folder: Path, files: Mapping[str, str | bytes], package: str = "sub") -> Package:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = Source(url="example.com/user/repo", package=package, commit="c" * 40, checkout=folder)
    return read_package(source, "go1.27.3")


@pytest.mark.parametrize(
    ("files", "import_path"),
    [
        ({"go.mod": "module m\n", "sub/x.go": "package sub\n"}, "m/sub"),
        ({"go.mod": '// a\nmodule "m.org/v2" // b\r\n', "sub/x.go": "\ufeffpackage sub;"}, "m.org/v2/sub"),
        ({"sub/go.mod": "module deep\n", "go.mod": "module m\n", "sub/x.go": "package sub\n"}, "deep"),
        ({"sub/x.go": LICENCE + 'package sub // import "x"\n'}, "example.com/user/repo/sub"),
        ({"sub/x.go": "package sub", "sub/x_test.go": "package sub_test"}, "example.com/user/repo/sub"),
        (
            {
                "sub/x.go": "package sub",
                "sub/_y.go": "package y",
                "sub/gen.go": "//go:build ignore\n\npackage main",
            },
            "example.com/user/repo/sub",
        ),
    ],
)
def test_what_is_plain(tmp_path: Path, files: dict[str, str], import_path: str) -> None:
    found = read(tmp_path, files)
    assert (found.name, found.import_path, found.by_go) == ("sub", import_path, False)


@pytest.mark.parametrize("name", ["größe", "été", "日本", "_a"])
def test_names_of_all_letters(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, {"sub/x.go": f"package {name}\n"}).name == (name if name != "_a" else "")


@pytest.mark.parametrize(
    "files",
    [
        {"sub/x.go": "package sub", "sub/y.go": "package other"},
        {"sub/x.go": "package documentation"},
        {"sub/x.go": "package /* which? */ sub"},
        {"sub/x.go": "/* never closed"},
        {"sub/x.go": "// package sub"},
        {"sub/x.go": b"package gr\xf6sse"},
        {"sub/x.go": "//" + "x" * (1 << 16) + "\npackage sub"},
        {"sub/x_test.go": "package sub"},
        {"sub/README": "package sub"},
        {"go.mod": "module (\n\tm\n)\n", "sub/x.go": "package sub"},
        {"go.mod": "module `m`\n", "sub/x.go": "package sub"},
        {"go.mod": "module m\nmodule n\n", "sub/x.go": "package sub"},
        {"go.mod": "", "sub/x.go": "package sub"},
    ],
)
def test_what_is_left_to_go(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    assert read(tmp_path, files).name == ""


@pytest.mark.parametrize(
    ("files", "mod", "requires"),
    [
        ({"go.mod": "module m\n"}, "readonly", False),
        ({"go.mod": "module m\nrequire (\n\td v1\n)\n"}, "readonly", True),
        ({"go.mod": "module m\n\treplace d => e v1\n"}, "readonly", True),
        ({"go.mod": "module m\nrequire d v1\n", "vendor/modules.txt": ""}, "vendor", False),
        ({}, "readonly", False),
    ],
)
def test_modules(tmp_path: Path, files: dict[str, str], mod: str, requires: bool) -> None:
    found = read(tmp_path, {"sub/x.go": "package sub\n", **files})
    assert (found.mod, found.requires) == (mod, requires)
    assert (found.go_mod is None) == ("go.mod" in files)


@pytest.mark.parametrize("name", ["sub/x.go", "go.mod"])
def test_no_link_is_followed(tmp_path: Path, name: str) -> None:
    files = {"go.mod": "module m\n", "sub/x.go": "package sub\n"}
    (tmp_path / "elsewhere").write_text(files.pop(name))
    (tmp_path / "sub").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    found = read(tmp_path, files)
    assert found.name == ""
    assert found.requires == (name == "go.mod")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="no folder 'sub'"):
        read(tmp_path, {})


def test_a_linked_folder_within_the_repository_is_a_package(tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to("real/sub")
    found = read(tmp_path, {"go.mod": "module m\n", "real/sub/x.go": "package sub\n"}, "linked")
    assert (found.name, found.import_path) == ("sub", "m/linked")


@pytest.mark.parametrize("name", ["sub", "sub/x.go", "go.mod"])
def test_links_out_of_the_repository_tell_nothing_of_the_host(tmp_path: Path, name: str) -> None:
    """A link to what is there and one to what is not get the same answer, and nothing is read."""
    outside = tmp_path / "host"
    there, gone = outside / "there", outside / "gone"
    if name == "sub":
        there.mkdir(parents=True)
        (there / "x.go").write_text("package secret\n")
    else:
        outside.mkdir()
        there.write_text("module secret\npackage secret\n")
    answers: list[str] = []
    for target in (there, gone, Path("../../host/there")):
        repository = tmp_path / f"repository-{len(answers)}"
        link = repository / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        files = {"go.mod": "module m\n", "sub/x.go": "package sub\n"}
        files = {other: text for other, text in files.items() if not other.startswith(name)}
        try:
            answers.append(str(read(repository, files)))
        except BuildFailed as failure:
            answers.append(failure.message)
    assert len(set(answers)) == 1
    assert "secret" not in answers[0]
