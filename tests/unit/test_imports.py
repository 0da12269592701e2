"""Which packages a call may name beside the called one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skyisland.errors import BadCall
from skyisland.golang import imports
from skyisland.golang.call import parse_call
from skyisland.golang.callee import parse_callee
from skyisland.golang.imports import STANDARD, import_paths
from skyisland.golang.packages import read_package
from skyisland.model import Source
from tests.support.places import ROOT

FILES = (
    "go.mod",
    "root.go",
    "theme/theme.go",
    "sub/sub.go",
    "sub/near/n.go",
    "far/near/n.go",
    "a/twice/t.go",
    "b/twice/t.go",
    "a/strings/s.go",
    "only/only_test.go",
    "internal/inner/i.go",
    "far/internal/hidden/h.go",
    "vendor/x.org/vendored/v.go",
    "testdata/data/d.go",
    "_old/old/o.go",
    "nested/go.mod",
    "nested/module/m.go",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("package p\n" if name.endswith(".go") else "module x.org/kit/v2\n")
    return tmp_path


def paths(checkout: Path, call: str, package: str = "") -> dict[str, str]:
    source = Source(url="example.com/user/repo", package=package, commit="c" * 40, checkout=checkout)
    return import_paths(parse_call(call), source, read_package(source, "go1.27.3"))


@pytest.mark.parametrize(
    ("name", "package", "path"),
    [
        ("theme", "", "x.org/kit/v2/theme"),
        ("theme", "sub", "x.org/kit/v2/theme"),
        ("near", "sub", "x.org/kit/v2/sub/near"),
        ("near", "far", "x.org/kit/v2/far/near"),
        ("inner", "sub", "x.org/kit/v2/internal/inner"),
        ("hidden", "far/near", "x.org/kit/v2/far/internal/hidden"),
        ("kit", "sub", "x.org/kit/v2"),
        ("p", "sub", "x.org/kit/v2/sub"),
        ("strings", "", "strings"),
        ("big", "", "math/big"),
        ("httptest", "", "net/http/httptest"),
    ],
)
def test_by_the_last_part_of_the_path(checkout: Path, name: str, package: str, path: str) -> None:
    assert paths(checkout, f"F({name}.X)", package) == {name: path}


@pytest.mark.parametrize(
    "name", ["only", "hidden", "vendored", "data", "old", "module", "nested", "repo", "nope"]
)
def test_what_is_no_package_of_the_module(checkout: Path, name: str) -> None:
    with pytest.raises(BadCall, match=f"the package is p, not {name}") as refused:
        paths(checkout, f'F("é", {name}.X)')
    assert refused.value.details["position"] == 8


def test_of_a_type_there_is_no_place_in_the_call(checkout: Path) -> None:
    source = Source(url="example.com/user/repo", package="", commit="0" * 40, checkout=checkout)
    call = parse_callee("F", ("int", "nope.T"))
    with pytest.raises(BadCall, match=r"^types: the package is p, not nope") as refused:
        import_paths(call, source, read_package(source, "go1.27"))
    assert refused.value.details == {"path": "types"}


def test_several_are_refused_by_name(checkout: Path) -> None:
    with pytest.raises(BadCall, match="twice may be a/twice, b/twice: name its own folder in the URL"):
        paths(checkout, "F(twice.X)")


def test_the_search_is_bounded(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MAX_FOLDERS", 3)
    with pytest.raises(BadCall, match="the package is p"):
        paths(checkout, "F(twice.X)")


def test_links_lead_nowhere_else(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.go").write_text("package x\n")
    (checkout / "outside").symlink_to(outside)
    (checkout / "loop").symlink_to(".")
    with pytest.raises(BadCall, match="the package is p"):
        paths(checkout, "F(outside.X)")
    with pytest.raises(BadCall, match="the package is p"):
        paths(checkout, "F(nope.X)")


def test_without_a_go_mod_the_module_is_the_repository(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("x.go", "sub/y.go"):
        (tmp_path / name).write_text("package p\n")
    assert paths(tmp_path, "F(sub.X)") == {"sub": "example.com/user/repo/sub"}


def test_no_package_of_the_standard_library_reaches_into_the_compiler() -> None:
    assert not {"unsafe", "syscall", "runtime", "embed", "plugin", "C", "os/exec"} & set(STANDARD.values())
    assert all(name == path.rpartition("/")[2] for name, path in STANDARD.items())


def test_the_page_has_them_all() -> None:
    told = re.search(r"Of the standard library: ([^;]+); and of os", (ROOT / "docs" / "rest.md").read_text())
    assert told
    assert sorted([*re.split(r",\s+", told[1]), "os"]) == sorted(STANDARD.values())
