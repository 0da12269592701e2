"""Builds with the real compiler in real jails: every kind of repository."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from skyisland.errors import BadCall, BuildFailed, SourceUnavailable
from skyisland.golang.callee import PROGRAM
from skyisland.model import Mount, NetworkAccess, Resolved, Verdict
from skyisland.settings import Build
from tests.support.buildroom import PLAIN, USER, Workshop, opened

pytestmark = [pytest.mark.host, pytest.mark.root]

LOOP = """package old

import "example.com/checks"

func F() (seen []int) {
	var later []func() int
	for i := 0; i < 3; i++ {
		later = append(later, func() int { return i })
	}
	for _, f := range later {
		seen = append(seen, f())
	}
	defer func() {
		if recover() == nil { // as before Go 1.21, where nothing tells the main program another one
			seen = append(seen, -1)
		}
	}()
	panic(nil)
}

func G() string { return checks.Check() }
"""
ALONE = LOOP.replace('import "example.com/checks"', "").replace("return checks.Check()", "return `alone`")


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
            {"x.go": ALONE},
            "",
            "F()",
            "[3 3 3]",
            id="no go.mod, one loop variable",
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


LIKE_YAML = {
    "go.mod": 'module "gopkg.in/yaml.v3"\n\nrequire (\n\t"example.com/checks" v1.0.0\n)\n',
    "internal/deep/deep.go": "package deep\n\nfunc F() int { return 9 }\n",
    "y.go": 'package yaml\n\nimport "gopkg.in/yaml.v3/internal/deep"\n\nfunc F() int { return deep.F() }\n',
    "yaml_test.go": 'package yaml\n\nimport "example.com/checks"\n\nvar _ = checks.Check\n',
}
OFFSHOOT = {
    "go.work": "go 1.21\n\nuse (\n\t./a\n\t./b // beside it\n\t../../elsewhere\n\t/etc\n)\n",
    "a/go.mod": "module example.com/w/a\n\ngo 1.21\n\nrequire example.com/w/b v0.0.0\n",
    "a/a.go": 'package a\n\nimport "example.com/w/b"\n\nfunc F() string { return b.F() }\n',
    "b/go.mod": "module example.com/w/b\n\ngo 1.21\n",
    "b/b.go": "package b\n\nfunc F() string { return `beside` }\n",
}


async def test_what_falls_short_is_built_as_its_users_build_it(
    state_dir: Path, gocache: Path, proxy: str
) -> None:
    """And what does not is built as before: by one go command, or two with a download."""
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        assert await shop.run(shop.source({**USER, "go.sum": ""}), "F()") == "dep"
        yaml = shop.source(LIKE_YAML)
        assert await shop.run(yaml, "F()") == "9"
        deep = structs.replace(yaml, package="internal/deep")
        assert await shop.run(deep, "F()") == "9"
        old = shop.source({"old.go": LOOP}, url="example.com/user/old")
        assert await shop.run(old, "F()") == "[3 3 3]", "one loop variable, as every user of it gets"
        before = len(shop.driver.specs)
        assert await shop.run(old, "G()") == "dep"
        words = [spec.argv[1] for spec in shop.driver.specs[before:] if len(spec.argv) > 1]
        assert words == ["build"], "the way is remembered"
        vendor = {**USER, "vendor/modules.txt": "# example.com/other v1.0.0\n"}
        assert await shop.run(shop.source(vendor), "F()") == "dep"
        nowhere = USER["user.go"].replace('"example.com/dep"', 'dep "example.com/nowhere/dep"')
        missing = await shop.refused(shop.source({"user.go": nowhere}))
        assert "imports example.com/nowhere/dep, which neither" in missing.message
        lying = USER["go.sum"].replace("h1:", "h1:AAAA")
        assert "go.sum" in (await shop.refused(shop.source({**USER, "go.sum": lying}))).message


async def test_a_workspace(shop: Workshop) -> None:
    """Its modules are taken from beside, even in versions that nobody published; none from elsewhere."""
    source = shop.source(OFFSHOOT, "a")
    assert await shop.run(source, "F()") == "beside"
    unrequired = {**OFFSHOOT, "a/go.mod": "module example.com/w/a\n\ngo 1.21\n"}
    assert await shop.run(shop.source(unrequired, "a"), "F()") == "beside"
    assert await shop.run(shop.source(OFFSHOOT, "b"), "F()") == "beside"


async def test_a_workspace_with_modules_of_others(state_dir: Path, gocache: Path, proxy: str) -> None:
    files = {
        **OFFSHOOT,
        "b/go.mod": "module example.com/w/b\n\ngo 1.21\n\nrequire example.com/checks v1.0.0\n",
        "b/b.go": 'package b\n\nimport "example.com/checks"\n\nfunc F() string { return checks.Check() }\n',
    }
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        assert await shop.run(shop.source(files, "a"), "F()") == "dep"


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
        pytest.param(
            {"x_plan9.go": "package x\n"}, "F()", "x_plan9.go, which is for plan9", "", id="another system"
        ),
        pytest.param(
            {"x.go": 'package x\n\nimport "C"\n', "y.go": "//go:build other\n\npackage x\n"},
            "F()",
            "x.go, which needs cgo, and the island has no C compiler; y.go, which is behind //go:build other",
            "",
            id="cgo alone",
        ),
        pytest.param(
            {**PLAIN, "x_windows.go": "package geo\n\nfunc W() {}\n"},
            "W()",
            "has no exported W: W is in x_windows.go, which is for windows by its name",
            "undefined: W",
            id="name for another system",
        ),
        pytest.param(
            {**PLAIN, "x.go": 'package geo\n\nimport (\n\t"C"\n)\n\ntype T int\n\nfunc (T) M() {}\n'},
            "T(1).M()",
            "T is in x.go, which needs cgo",
            "undefined: T",
            id="name that needs cgo",
        ),
        pytest.param(
            {
                "x.go": "package x\n\nfunc F() { f() }\n",
                "y.go": "//go:build sometag && !linux\n\npackage x\n\nfunc f() {}\n",
            },
            "F()",
            "does not compile: f is in y.go, which is behind //go:build sometag && !linux",
            "undefined: f",
            id="name of its own behind a tag",
        ),
        pytest.param(
            {"main.go": 'package main\n\nimport "example.com/nowhere"\n\nfunc F() { nowhere.F() }\n'},
            "F()",
            "package main",
            "",
            id="program without its modules",
        ),
        pytest.param(
            {
                ".gitmodules": '[submodule "x"]\n\tpath = third/x\n\turl = https://example.com/x\n',
                "go.mod": "module m\n\ngo 1.21\n",
                "x.go": 'package m\n\nimport "m/third/x/y"\n\nfunc F() { y.F() }\n',
            },
            "F()",
            ": third/x is a submodule (https://example.com/x), which the island does not fetch",
            "",
            id="submodule",
        ),
        pytest.param(
            {
                ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
                "x.go": 'package x\n\nimport _ "embed"\n\n//go:embed big.bin\nvar s string\n\n'
                "func F() string { return s }\n",
                "big.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            },
            "F()",
            "needs big.bin, which Git LFS keeps elsewhere",
            "",
            id="pointer embedded",
        ),
        pytest.param(
            {
                "x.go": "package x\n\nfunc F() {}\n",
                "y.go": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            },
            "F()",
            "needs y.go, which Git LFS keeps elsewhere",
            "",
            id="pointer for a Go file",
        ),
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


async def test_a_program(shop: Workshop) -> None:
    """It is built as it is; and the same package is refused to whoever wants a function of it."""
    main = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Print(`ran`) }\n'
    files = {"go.mod": "module m\n\ngo 1.21\n", "cmd/x/main.go": main, "x.go": PLAIN["geo.go"]}
    source = shop.source(files, "cmd/x")
    assert (await shop.refused(source)).details["complaint"] == "program"
    artifact = await shop.builds.build(source, PROGRAM, refresh=False, invocation=None)
    outcome = await shop.enter((Mount(artifact.path, "/function"),), b"")
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"ran")
    known = shop.builds.known(Resolved(url=source.url, package="cmd/x", commit=source.commit), PROGRAM)
    assert known is not None
    assert (await shop.builds.rebuild(artifact, source)).sha256 == known.sha256
    with pytest.raises(BadCall, match="is no program; name a function of geo"):
        await shop.builds.build(structs.replace(source, package=""), PROGRAM, refresh=False, invocation=None)


async def test_many_callers_of_a_new_repository(shop: Workshop) -> None:
    source = shop.source({"x.go": "package x\n\nfunc F(n int) int { return n * n }\n"})
    printed = await asyncio.gather(*(shop.run(source, f"F({n})") for n in range(20)))
    assert printed == [str(n * n) for n in range(20)]
    assert len([spec for spec in shop.driver.specs if spec.argv[1:2] == ("build",)]) == 1
