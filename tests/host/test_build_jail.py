"""Builds with the real compiler in real jails: every kind of repository, and hostile ones.

The letters and numbers (B1 to B11) are those of the hostile cases of builds.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import subprocess
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from daemon import copy_of

from skyisland import harness
from skyisland.build import Builds
from skyisland.call import parse_call
from skyisland.drivers.bubblewrap import BubblewrapJails
from skyisland.drivers.fake import FakeAddresses
from skyisland.drivers.overlay import OverlayClones
from skyisland.errors import BuildFailed, IslandError, SourceUnavailable
from skyisland.events import Events
from skyisland.jail import Jail
from skyisland.jails import Jails
from skyisland.model import JailSpec, Limits, Mount, Network, Outcome, Source, Verdict
from skyisland.settings import Build, Layout
from skyisland.state import State
from skyisland.toolchain import Toolchains

pytestmark = [pytest.mark.host, pytest.mark.root]

BUILDER = 1_952_000_000
UIDS = range(BUILDER + 1, BUILDER + 32)


class Recording(BubblewrapJails):
    """The real driver, which remembers what jails it was asked for."""

    def __init__(self, island: str) -> None:
        super().__init__(island)
        self.specs: list[JailSpec] = []
        self.made = asyncio.Event()

    async def create(self, spec: JailSpec) -> Jail:
        self.specs.append(spec)
        jail = await super().create(spec)
        if spec.argv[1:2] == ("build",):
            self.made.set()
        return jail


@dataclass
class Workshop:
    folder: Path
    driver: Recording
    jails: Jails
    builds: Builds
    layout: Layout
    made: int = 0

    def source(self, files: dict[str, str], package: str = "", url: str = "example.com/user/repo") -> Source:
        self.made += 1
        checkout = self.folder / f"checkout{self.made}"
        for name, text in files.items():
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o755)
            if text.startswith("-> "):
                path.symlink_to(text[3:])
            else:
                path.write_text(text)
        checkout.chmod(0o755)
        return Source(url=url, package=package, commit=f"{self.made:040x}", checkout=checkout)

    async def run(self, source: Source, text: str) -> str:
        """What the function prints, built and run."""
        call = parse_call(text)
        artifact = await self.builds.build(source, call, refresh=False, invocation=None)
        if artifact.expression is not None:
            call = harness.as_expression(call)
        outcome = await self.enter((Mount(artifact.path, "/function"),), harness.frame(call, "nonce"))
        assert outcome.verdict is Verdict.ok, outcome
        return outcome.stdout.decode()

    async def enter(self, mounts: tuple[Mount, ...], data: bytes, uid: int | None = None) -> Outcome:
        limits = Limits(memory_bytes=128 << 20, pids=64)
        async with self.jails.jail(
            ("/function",), purpose="function", mounts=mounts, limits=limits, uid=uid
        ) as inmate:
            return await inmate.converse(data, 10)

    async def refused(self, source: Source, text: str = "F()") -> IslandError:
        with pytest.raises(IslandError) as caught:
            await self.builds.build(source, parse_call(text), refresh=False, invocation=None)
        return caught.value

    def own_cache(self, source: Source) -> set[str]:
        """The files that builds of the source's repository left."""
        (mount,) = {
            mount.source
            for spec in self.driver.specs
            if Mount(source.checkout, "/src") in spec.mounts
            for mount in spec.mounts
            if mount.target == "/cache"
        }
        return {path.name for path in mount.rglob("*") if path.is_file()}


class Shared(Layout, frozen=True):
    """A state folder of each test's own, but for Go's caches."""

    gocache: Path  # type: ignore[assignment]


@pytest.fixture(scope="module")
def gocache(prepared: Path, host_dir: Path) -> Path:
    copy_of(prepared / "gocache", host_dir / "gocache-of-builds")
    return host_dir / "gocache-of-builds"


@asynccontextmanager
async def opened(
    folder: Path, gocache: Path, settings: Build | None = None, *, timeout_s: float = 60.0
) -> AsyncIterator[Workshop]:
    layout = Shared(folder / "state", folder / "jails", gocache)
    layout.state_dir.mkdir(exist_ok=True)
    state = await State.open(layout.db)
    events = Events()
    driver = Recording(state.island)
    jails = Jails(driver, OverlayClones(layout.base), FakeAddresses(), events, island=state.island, uids=UIDS)
    builds = Builds(
        settings or Build(goproxy="off"),
        layout,
        jails=jails,
        records=state,
        events=events,
        toolchains=Toolchains(layout.toolchain),
        timeout_s=timeout_s,
        unused_s=3600.0,
        uid=BUILDER,
    )
    try:
        await jails.prepare()
        await builds.prepare()
        yield Workshop(folder, driver, jails, builds, layout)
    finally:
        await builds.close()
        await jails.close()
        await state.close()
    assert await driver.existing() == []
    assert [path for path in layout.run.iterdir() if path.name.startswith("sky-build")] == []


@pytest.fixture
async def shop(state_dir: Path, gocache: Path) -> AsyncIterator[Workshop]:
    async with opened(state_dir, gocache) as workshop:
        yield workshop


# A module, and a proxy that has it

DEP = {
    "go.mod": "module example.com/dep\n\ngo 1.20\n",
    "dep.go": 'package dep\n\nfunc Word() string { return "dep" }\n',
}


def h1(files: dict[str, str]) -> str:
    """Go's hash of a module's files (https://go.dev/ref/mod#go-sum-files)."""
    lines = "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in sorted(files.items())
    )
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


USER = {
    "go.mod": "module example.com/user/repo\n\ngo 1.21\n\nrequire example.com/dep v1.0.0\n",
    "go.sum": f"example.com/dep v1.0.0 {h1({f'example.com/dep@v1.0.0/{n}': t for n, t in DEP.items()})}\n"
    f"example.com/dep v1.0.0/go.mod {h1({'go.mod': DEP['go.mod']})}\n",
    "user.go": 'package user\n\nimport "example.com/dep"\n\nfunc F() string { return dep.Word() }\n'
    "func G() string { return dep.Word() + dep.Word() }\n",
}


@pytest.fixture
def proxy(state_dir: Path) -> str:
    """The file:// URL of a module proxy with example.com/dep v1.0.0 (https://go.dev/ref/mod#goproxy-protocol)."""
    versions = state_dir / "proxy" / "example.com" / "dep" / "@v"
    versions.mkdir(parents=True)
    (versions / "list").write_text("v1.0.0\n")
    (versions / "v1.0.0.info").write_text('{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}')
    (versions / "v1.0.0.mod").write_text(DEP["go.mod"])
    with zipfile.ZipFile(versions / "v1.0.0.zip", "w") as archive:
        for name, text in DEP.items():
            archive.writestr(f"example.com/dep@v1.0.0/{name}", text)
    return f"file://{state_dir / 'proxy'}"


# Repositories of every kind

PLAIN = {"geo.go": "package geo\n\nfunc F() string { return `plain` }\n"}


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
    assert {spec.network for spec in shop.driver.specs} == {Network.none}


async def test_a_dependency_from_the_proxy(state_dir: Path, gocache: Path, proxy: str) -> None:
    """Fetched once, in a step with a network and no code; compiled without."""
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        source = shop.source(USER)
        assert await shop.run(source, "F()") == "dep"
        assert await shop.run(source, "G()") == "depdep"
        online = [spec for spec in shop.driver.specs if spec.network is not Network.none]
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


# Hostile repositories


async def test_b1_cgo_is_off(shop: Workshop) -> None:
    """Flags of cgo make the C compiler run what they like: there is neither cgo nor a C compiler."""
    files = {
        "x.go": 'package x\n\n/*\n#cgo CFLAGS: -fplugin=/src/evil.so\n*/\nimport "C"\n\nfunc F() {}\n',
        "y.go": "package x\n\nfunc G() int { return 1 }\n",
    }
    source = shop.source(files)
    assert await shop.run(source, "G()") == "1"
    assert "has no exported F" in (await shop.refused(source)).message


async def test_b2_no_other_toolchain_is_fetched(shop: Workshop) -> None:
    files = {**PLAIN, "go.mod": "module m\n\ngo 1.21\n\ntoolchain go1.99.1\n"}
    assert await shop.run(shop.source(files), "F()") == "plain"


REPLACED = "module m\n\ngo 1.21\n\nrequire example.com/dep v1.0.0\n\nreplace example.com/dep => {place}\n"


async def test_b3_replace_leads_nowhere(
    shop: Workshop, go: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A go.mod can name any folder of the host. Without a jail that works; in the jail it is not there."""
    outside = shop.source(DEP).checkout
    for place in (str(outside), f"../{outside.name}"):
        files = {"go.mod": REPLACED.format(place=place), "user.go": USER["user.go"]}
        source = shop.source(files)
        unconfined = await asyncio.to_thread(go, "build", ".", cwd=source.checkout)
        assert unconfined.returncode == 0, unconfined.stderr
        assert isinstance(await shop.refused(source), BuildFailed)


async def test_b4_settings_of_the_repository_are_not_read(
    shop: Workshop, go: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    files = {
        **PLAIN,
        "go.mod": "module m\n\ngo 1.21\n",
        "go.work": "go 1.21\n\nuse ./nowhere\n",
        "go.env": "GOFLAGS=-toolexec=/src/evil\n",
        ".config/go/env": "GOFLAGS=-toolexec=/src/evil\n",
    }
    source = shop.source(files)
    unconfined = await asyncio.to_thread(go, "build", ".", cwd=source.checkout)
    assert unconfined.returncode != 0
    assert await shop.run(source, "F()") == "plain"


@pytest.mark.parametrize(
    "go_mod", ["module m\n\ngo 1.21\n", "module m\n\ngo 1.24\n\ngodebug embedfollowsymlinks=1\n"]
)
async def test_b5_links_are_not_embedded(shop: Workshop, go_mod: str) -> None:
    text = (
        'package x\n\nimport _ "embed"\n\n//go:embed secret\nvar s string\n\nfunc F() string { return s }\n'
    )
    for target in ("/etc/passwd", "/std", "other.txt"):
        files = {"x.go": text, "go.mod": go_mod, "other.txt": "o", "secret": f"-> {target}"}
        error = await shop.refused(shop.source(files))
        assert "cannot embed irregular file" in error.details["output"]


async def test_b6_b9_no_code_of_the_repository_runs(shop: Workshop) -> None:
    """Neither generators nor init functions nor assembly run before the function's own jail."""
    files = {
        "go.mod": "module m\n\ngo 1.21\n",
        "x.go": "package x\n\n"
        'import ("fmt"; "os")\n\n'
        "//go:generate touch /cache/generated /src/generated\n\n"
        'func init() { fmt.Print(os.WriteFile("/cache/ran", nil, 0o644) == nil, " ") }\n\n'
        "func F() int { return Answer() }\n\nfunc Answer() int\n",
        "x_amd64.s": "TEXT ·Answer(SB), 4, $0-8\n\tMOVQ $42, ret+0(FP)\n\tRET\n",
        "x_arm64.s": "TEXT ·Answer(SB), 4, $0-8\n\tMOVD $42, R0\n\tMOVD R0, ret+0(FP)\n\tRET\n",
    }
    source = shop.source(files)
    assert await shop.run(source, "F()") == "false 42"
    assert not {"generated", "ran"} & shop.own_cache(source)
    assert not (source.checkout / "generated").exists()


ATTACK = """package attack

import (
	"os"
	"path/filepath"
)

// Write tells in which of the folders a file could be made or changed.
func Write(folders ...string) (open []string) {
	for _, folder := range folders {
		done := os.WriteFile(folder+"/planted", nil, 0o644) == nil
		os.Remove(folder + "/planted")
		filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				os.Chmod(path, 0o666)
				if file, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
					file.Close()
					done = true
				}
				return filepath.SkipAll
			}
			return nil
		})
		if done {
			open = append(open, folder)
		}
	}
	return open
}
"""


async def test_b7_a_build_can_poison_no_other(state_dir: Path, gocache: Path, proxy: str) -> None:
    """Suppose that a compiler runs code: in the very jail of a build, as its user, only the repository's own
    cache and output can be written."""
    async with opened(state_dir, gocache, Build(goproxy=proxy, gosumdb="off")) as shop:
        attack = await shop.builds.build(
            shop.source({"x.go": ATTACK}), parse_call('Write("")'), refresh=False, invocation=None
        )
        source = shop.source(USER, url="example.com/evil/repo")
        await shop.run(source, "F()")
        (spec,) = [
            spec
            for spec in shop.driver.specs
            if spec.argv[1:2] == ("build",) and Mount(source.checkout, "/src") in spec.mounts
        ]
        folders = [mount.target for mount in spec.mounts]
        assert {"/std", "/mod", "/src", "/gen", "/usr/local/go", "/helper", "/cache", "/out"} <= set(folders)
        (shop.folder / "out").mkdir()
        os.chown(shop.folder / "out", BUILDER, BUILDER)
        (shop.folder / "gen").mkdir()
        moved = {"/out": shop.folder / "out", "/gen": shop.folder / "gen"}  # the build's own are gone
        mounts = [Mount(moved.get(m.target, m.source), m.target, m.writable) for m in spec.mounts]
        call = parse_call(f"Write({', '.join(f'{folder!r}' for folder in folders)})".replace("'", '"'))
        outcome = await shop.enter(
            (*mounts, Mount(attack.path, "/function")), harness.frame(call, "nonce"), uid=spec.uid
        )
        assert outcome.verdict is Verdict.ok, outcome
        assert set(outcome.stdout.decode().strip("[]").split()) == {"/out", "/cache"}


async def test_b7_repositories_share_nothing_that_they_compiled(shop: Workshop) -> None:
    """What is compiled of the same package in two repositories lies in the caches of both."""
    files = {**PLAIN, "go.mod": "module m\n\ngo 1.21\n"}
    one = shop.source(files, url="example.com/one/repo")
    two = shop.source(files, url="example.com/two/repo")
    for source in (one, two):
        await shop.run(source, "F()")
    assert shop.own_cache(one) & shop.own_cache(two)


async def test_b8_a_compiler_bomb_meets_a_limit(state_dir: Path, gocache: Path) -> None:
    """A gigabyte of data, in one line."""
    async with opened(state_dir, gocache, Build(goproxy="off", memory=256 << 20)) as shop:
        bomb = "package x\n\nvar X = [1 << 27]int{1<<27 - 1: 1}\n\nfunc F() int { return X[5] }\n"
        assert "build.memory" in (await shop.refused(shop.source({"x.go": bomb}))).message
        assert await shop.run(shop.source(PLAIN), "F()") == "plain"


async def test_b8_a_build_that_takes_too_long(state_dir: Path, gocache: Path) -> None:
    async with opened(state_dir, gocache, timeout_s=0.3) as shop:
        lines = "\n".join(f"func f{n}(a []int) int {{ return len(a) * {n} }}" for n in range(40_000))
        error = await shop.refused(shop.source({"x.go": f"package x\n\nfunc F() {{}}\n\n{lines}\n"}))
        assert "jails.build_timeout (0.3 s)" in error.message


async def test_b11_a_build_that_is_cancelled_half_way(shop: Workshop) -> None:
    source = shop.source(PLAIN)
    shop.driver.made.clear()
    building = asyncio.ensure_future(shop.run(source, "F()"))
    await shop.driver.made.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    await shop.jails.drain()
    assert await shop.driver.existing() == []
    assert shop.builds.artifacts() == []
    assert await shop.run(source, "F()") == "plain"


async def test_other_jails_never_have_the_builders_uid(shop: Workshop) -> None:
    await shop.run(shop.source(PLAIN), "F()")
    uids = {spec.argv[0]: spec.uid for spec in shop.driver.specs}
    assert uids["/usr/local/go/bin/go"] == BUILDER
    assert uids["/function"] in UIDS
    artifact = shop.builds.artifacts()[0]
    assert artifact.path.stat().st_uid == 0
    assert artifact.path.stat().st_mode & 0o777 == 0o555
