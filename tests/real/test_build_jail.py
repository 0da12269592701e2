"""Builds with the real compiler in real jails: every kind of repository."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from skyisland.errors import BuildFailed, SourceUnavailable
from skyisland.model import NetworkAccess
from skyisland.settings import Build
from tests.support.buildroom import PLAIN, USER, Workshop, opened

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.mark.parametrize(
    ("files", "package", "call", "printed"),
    [
        pytest.param(PLAIN, "", "F()", "plain", id="no go.mod"),
        pytest.param({**PLAIN, "go.mod": "module m\n\ngo 1.21\n"}, "", "geo.F()", "plain", id="qualified"),
        pytest.param(
            {"a/b/x.go": "package other\n\nfunc F(n int) int { return n + 1 }\n", "go.mod": "module m\n"},
            "a/b",
            "F(41)",
            "42",
            id="subfolder of another name",
        ),
        pytest.param(
            {"a/internal/x.go": "package internal\n\nfunc F() int { return 7 }\n", "go.mod": "module m\n"},
            "a/internal",
            "F()",
            "7",
            id="internal package",
        ),
        pytest.param(
            {"go.mod": "rubbish", "sub/go.mod": "module m/sub\n", "sub/x.go": PLAIN["geo.go"]},
            "sub",
            "F()",
            "plain",
            id="module in a subfolder",
        ),
        pytest.param(
            {
                "x.go": 'package x\n\nimport "example.com/user/repo/y"\n\nfunc F() int { return y.Y }\n',
                "y/y.go": "package y\n\nconst Y = 3\n",
            },
            "",
            "F()",
            "3",
            id="no go.mod, imports of its own",
        ),
        pytest.param(
            {
                **USER,
                "vendor/modules.txt": "# example.com/dep v1.0.0\n## explicit; go 1.20\nexample.com/dep\n",
                "vendor/example.com/dep/dep.go": 'package dep\n\nfunc Word() string { return "vendored" }\n',
            },
            "",
            "F()",
            "vendored",
            id="vendored dependency",
        ),
        pytest.param(
            {"x.go": "package x\n\nfunc Same[T any](v T) T { return v }\n"}, "", "Same(5)", "5", id="generic"
        ),
        pytest.param({"x.go": "package x\n\ntype Deg float64\n"}, "", "Deg(2.5)", "2.5", id="conversion"),
        pytest.param(
            {"x.go": "package x\n\ntype T struct{}\n\nfunc (T) Run() {}\n"},
            "",
            "T{}.Run()",
            "",
            id="statement",
        ),
    ],
)
async def test_it_builds(
    shop: Workshop, files: dict[str, str], package: str, call: str, printed: str
) -> None:
    assert await shop.run(shop.source(files, package), call) == printed
    assert {spec.network for spec in shop.driver.specs} == {NetworkAccess.none}


async def test_a_dependency_from_the_proxy(state_dir: Path, gocache: Path, proxy: str) -> None:
    """Fetched once, in a step with a network and no code; compiled without."""
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        source = shop.source(USER)
        assert await shop.run(source, "F()") == "dep"
        assert await shop.run(source, "G()") == "depdep"
        online = [spec for spec in shop.driver.specs if spec.network is not NetworkAccess.none]
        assert [spec.argv[1] for spec in online] == ["list"]
    async with opened(state_dir, gocache, Build(goproxy="off")) as shop:
        assert await shop.run(shop.source(USER), "F()") == "dep"


async def test_a_dependency_of_an_old_module(state_dir: Path, gocache: Path, proxy: str) -> None:
    """Before Go 1.17 a go.mod does not tell enough to find even the module's own packages offline."""
    files = {**USER, "go.mod": USER["go.mod"].replace("go 1.21", "go 1.13"), "sub/x.go": USER["user.go"]}
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        assert await shop.run(shop.source(files, "sub"), "F()") == "dep"


async def test_modules_that_do_not_agree(state_dir: Path, gocache: Path, proxy: str) -> None:
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        missing = await shop.refused(shop.source({**USER, "go.sum": ""}))
        assert "go mod tidy" in missing.message
        assert "missing go.sum entry" in missing.details["output"]
        lying = USER["go.sum"].replace("h1:", "h1:AAAA")
        assert "go.sum" in (await shop.refused(shop.source({**USER, "go.sum": lying}))).message
        unrequired = {name: USER[name] for name in ("user.go",)}
        assert "go mod tidy" in (await shop.refused(shop.source(unrequired))).message


async def test_a_proxy_that_does_not_answer(state_dir: Path, gocache: Path) -> None:
    settings = Build(goproxy="http://127.0.0.1:9", gosumdb="off")
    async with opened(state_dir, gocache, settings) as shop:
        assert isinstance(await shop.refused(shop.source(USER)), SourceUnavailable)


@pytest.mark.parametrize(
    ("files", "call", "sentence", "output"),
    [
        pytest.param(
            {"x.go": "package x\n\nfunc F() int { return `a` }\n"},
            "F()",
            "does not compile",
            "x.go:3:23: cannot use",
            id="compile error",
        ),
        pytest.param(
            {"x.go": "package x\n\nfunc F( {\n"}, "F()", "does not compile", "x.go:3:9: syntax", id="syntax"
        ),
        pytest.param(PLAIN, "Foo(1)", "has no exported Foo", "undefined: Foo", id="no such function"),
        pytest.param(PLAIN, "F().X", "does not fit", "F().X undefined", id="no such field"),
        pytest.param({"x.go": "package main\n\nfunc F() {}\n"}, "F()", "package main", "", id="program"),
        pytest.param({"README": "none"}, "F()", "name the folder of a package", "", id="no Go files"),
        pytest.param({"x_test.go": "package x\n"}, "F()", "no Go files", "", id="tests alone"),
        pytest.param({"x_plan9.go": "package x\n"}, "F()", "not for this system", "", id="another system"),
        pytest.param({"go.mod": "module x\ngo 1.99\n", **PLAIN}, "F()", r"wants Go 1.99", "", id="later Go"),
        pytest.param(
            {"go.mod": "module x\nwhat\n", **PLAIN}, "F()", "does not compile", "go.mod:2:", id="go.mod"
        ),
    ],
)
async def test_it_says_what_is_wrong(
    shop: Workshop, files: dict[str, str], call: str, sentence: str, output: str
) -> None:
    if not call.endswith(")"):
        call += "()"
    error = await shop.refused(shop.source(files), call)
    assert isinstance(error, BuildFailed)
    assert sentence in error.message
    assert output in error.details.get("output", "")


async def test_many_callers_of_a_new_repository(shop: Workshop) -> None:
    source = shop.source({"x.go": "package x\n\nfunc F(n int) int { return n * n }\n"})
    printed = await asyncio.gather(*(shop.run(source, f"F({n})") for n in range(20)))
    assert printed == [str(n * n) for n in range(20)]
    assert len([spec for spec in shop.driver.specs if spec.argv[1:2] == ("build",)]) == 1
