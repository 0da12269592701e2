"""Builds on a fake `go`: what is asked of it, what is made of its answers, who waits for whom.

The fake stands where the jail driver stands. It runs nothing and compiles nothing: it answers `go list`
from the package clause of the files, and `go build` by writing a file where the binary belongs.
The real compiler in real jails is in tests/host/test_build_jail.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from skyisland.build import Builds
from skyisland.call import parse_call
from skyisland.drivers.fake import FakeAddresses, FakeClones, FakeJail, FakeJails, Script
from skyisland.errors import (
    ArtifactNotFound,
    BadCall,
    BuildFailed,
    HostUnfit,
    SourceUnavailable,
    Unavailable,
)
from skyisland.events import ArtifactEvicted, BuildFinished, BuildStarted, Event, Events
from skyisland.jails import Jails
from skyisland.model import Artifact, JailSpec, Network, Source
from skyisland.settings import Build, Layout
from skyisland.state import State
from skyisland.toolchain import Toolchains

COMMIT = "c0ffee" * 6 + "abcd"


class FakeGo(FakeJails):
    """A jail driver in whose jails the only program is a make-believe `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.specs: list[JailSpec] = []
        self.answers: list[Callable[[JailSpec], Script | None]] = []
        """Asked in turn before the usual answer; the first one that is no None counts."""
        self.hold: asyncio.Event | None = None
        """Builds do not end before it is set."""
        self._news = asyncio.Event()

    async def create(self, spec: JailSpec) -> FakeJail:
        self.specs.append(spec)
        said = await asyncio.to_thread(self._say, spec)
        held = self.hold if verb(spec) == "build" and source(spec) else None
        self.script = lambda data: structs.replace(said, duration_s=float("inf")) if held else said
        jail = await super().create(spec)
        if held:

            async def release() -> None:
                await held.wait()
                jail.process._finish()

            self.releasing = asyncio.ensure_future(release())
        self._news.set()
        return jail

    async def builds(self, number: int) -> None:
        """Wait until so many builds have begun."""
        async with asyncio.timeout(10):
            while len(self.ran("build")) < number:
                self._news.clear()
                await self._news.wait()

    def _say(self, spec: JailSpec) -> Script:
        told = next((said for answer in self.answers if (said := answer(spec))), None)
        return told or self._usual(spec)

    def _usual(self, spec: JailSpec) -> Script:
        if verb(spec) == "build":
            folder = host(spec, "/out")
            if folder is not None:
                main = host(spec, "/gen/main.go")
                text = main.read_bytes() if main and main.exists() else b""
                Path(folder, "function").write_bytes(b"\x7fELF " + text)
            return Script(stdout=b"")
        if "std" in spec.argv:
            return Script(stdout=b"fmt\nvendor/x\nnet/http\n")
        home = host(spec, spec.cwd)
        assert home is not None
        files = sorted(home.glob("*.go"))
        name = re.search(r"package (\w+)", files[0].read_text()) if files else None
        error = "" if files else f"no Go files in {spec.cwd}"
        answer = f"example.com/asked\n{name[1] if name else ''}\n{len(files)}\n{error}"
        return Script(stdout=answer.encode())

    def ran(self, word: str) -> list[JailSpec]:
        """The jails of repositories in which `go word` ran."""
        return [spec for spec in self.specs if verb(spec) == word and source(spec)]


def verb(spec: JailSpec) -> str:
    return spec.argv[1]


def source(spec: JailSpec) -> Path | None:
    return host(spec, "/src")


def host(spec: JailSpec, path: str) -> Path | None:
    """Where on the host a path of the jail lies."""
    for mount in spec.mounts:
        if path == mount.target or path.startswith(mount.target + "/"):
            return Path(f"{mount.source}{path[len(mount.target) :]}")
    return None


def complains(stderr: str, *, when: str = "") -> Callable[[JailSpec], Script | None]:
    """A compiler that refuses main programs in which `when` occurs."""

    def answer(spec: JailSpec) -> Script | None:
        main = host(spec, "/gen/main.go")
        if verb(spec) != "build" or not source(spec) or main is None or when not in main.read_text():
            return None
        return Script(stdout=b"", stderr=stderr.encode(), exit_code=1)

    return answer


@dataclass
class Workshop:
    """An island's build room and what lies around it."""

    folder: Path
    go: FakeGo
    jails: Jails
    state: State
    builds: Builds
    told: list[Event]
    layout: Layout
    made: int = field(default=0)

    def source(self, files: dict[str, str] | None = None, package: str = "", **more: str) -> Source:
        self.made += 1
        checkout = self.folder / f"checkout{self.made}"
        for name, text in (files or {"geo.go": "package geohash\n"}).items():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text(text)
        about = {"url": "example.com/user/geohash", "commit": COMMIT, **more}
        return Source(checkout=checkout, package=package, **about)

    async def build(self, source: Source, call: str, *, refresh: bool = False) -> Artifact:
        return await self.builds.build(source, parse_call(call), refresh=refresh, invocation="inv-1")

    def binaries(self) -> set[str]:
        return {path.name for path in self.layout.artifacts.rglob("*") if path.is_file()}


Open = Callable[..., "asynccontextmanager[Workshop]"]


@asynccontextmanager
async def opened(
    folder: Path, settings: Build | None = None, *, unused_s: float = 3600.0, timeout_s: float = 60.0
) -> AsyncIterator[Workshop]:
    layout = Layout(folder / "state", folder / "jails")
    goroot = folder / "goroot"
    (goroot / "bin").mkdir(parents=True, exist_ok=True)
    (goroot / "VERSION").write_text("go1.27.3")
    (goroot / "bin" / "go").touch(mode=0o755)
    told: list[Event] = []
    events = Events()
    events.tap(told.append)
    state = await State.open(layout.db)
    go = FakeGo()
    jails = Jails(go, FakeClones(), FakeAddresses(), events, island="c0de", uids=None)
    await jails.prepare()
    builds = Builds(
        settings or Build(),
        layout,
        jails=jails,
        records=state,
        events=events,
        toolchains=Toolchains(layout.toolchain, goroot=str(goroot)),
        timeout_s=timeout_s,
        unused_s=unused_s,
        uid=None,
    )
    await builds.prepare()
    try:
        yield Workshop(folder, go, jails, state, builds, told, layout)
    finally:
        await builds.close()
        await jails.close()
        await state.close()
        assert list(layout.run.iterdir()) == []
        assert go.alive == {}


@pytest.fixture
async def shop(state_dir: Path) -> AsyncIterator[Workshop]:
    async with opened(state_dir) as workshop:
        yield workshop


# Making ready


async def test_the_cache_is_filled_once(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        first = [spec.argv for spec in shop.go.specs]
        assert [argv[1] for argv in first] == ["build"] * 3
        assert all(host(spec, "/std") and not source(spec) for spec in shop.go.specs)
    async with opened(state_dir) as shop:
        assert shop.go.specs == []


async def test_the_whole_library_on_demand_with_progress(shop: Workshop) -> None:
    seen: list[tuple[str, int, int]] = []
    shop.go.specs.clear()
    await shop.builds.prepare(lambda *step: seen.append(step), whole=True)
    assert [spec.argv[1:] for spec in shop.go.specs] == [
        ("list", "-f", "{{if .GoFiles}}{{.ImportPath}}{{end}}", "std"),
        ("build", "-trimpath", "fmt", "net/http"),
    ]
    assert seen[-1] == ("compiling the standard library", 2, 2)
    await shop.builds.prepare(whole=True)
    assert len(shop.go.specs) == 2


async def test_a_toolchain_that_does_not_work_is_told(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        (shop.layout.gocache / "go1.27.3" / "helper" / "gocache").unlink()
        shop.go.answers.append(lambda spec: Script(stdout=b"", stderr=b"exec format error", exit_code=1))
        with pytest.raises(HostUnfit, match=r"go1\.27\.3 of .* does not work in a jail: .*exec format error"):
            await shop.builds.prepare()


async def test_what_another_toolchain_compiled_is_removed(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        await shop.build(shop.source(), "Encode(1)")
        (shop.layout.gocache / "go1.20").mkdir()
    (state_dir / "goroot" / "VERSION").write_text("go1.99")
    async with opened(state_dir) as shop:
        (state_dir / "goroot" / "VERSION").write_text("go1.28")
        await shop.builds.prepare()
        assert [path.name for path in shop.layout.gocache.iterdir()] == ["go1.28"]
        assert shop.builds.artifacts() == []
        assert shop.binaries() == set()


# One build


async def test_a_function_is_built_for_all_its_arguments(shop: Workshop) -> None:
    source_ = shop.source()
    call = parse_call("Encode(1, 2)")
    assert shop.builds.known(source_, call) is None
    built = await shop.build(source_, "Encode(1, 2)")
    assert built.path.stat().st_mode & 0o777 == 0o555
    assert built.path == shop.layout.artifacts / built.sha256[:2] / built.sha256
    assert (built.function, built.expression, built.package_name) == ("Encode", None, "geohash")
    assert built.size_bytes == built.path.stat().st_size
    again = shop.builds.known(source_, parse_call("Encode(3, 4)"))
    assert again is not None
    assert (again.key, again.hits) == (built.key, 1)
    assert shop.builds.known(source_, parse_call("Decode(1)")) is None
    assert shop.builds.known(source_, parse_call("Encode(New())")) is None


async def test_the_jail_of_a_build(shop: Workshop) -> None:
    await shop.build(shop.source({"sub/x.go": "package sub\n"}, package="sub"), "F()")
    (spec,) = shop.go.ran("build")
    assert spec.network is Network.none
    assert {mount.target for mount in spec.mounts if mount.writable} == {"/out", "/cache"}
    assert spec.cwd == "/src/sub"
    env = dict(spec.env)
    assert env["CGO_ENABLED"] == "0"
    assert env["GOTOOLCHAIN"] == "local"
    assert env["GOPROXY"] == env["GOENV"] == env["GOWORK"] == "off"
    assert env["GODEBUG"] == env["GOFLAGS"] == ""
    assert not {"PATH", "USER", "LANG"} & set(env)
    assert {"-trimpath", "-buildvcs=false", "-ldflags=-s -w"} <= set(spec.argv)


async def test_go_is_asked_what_the_package_is_only_where_that_is_not_plain(shop: Workshop) -> None:
    await shop.build(shop.source({"x.go": "package x\n"}), "F()")
    assert shop.go.ran("list") == []
    files = {"x.go": "package x\n", "y.go": "//go:build plan9\n\npackage main\n"}
    source_ = shop.source(files, commit="e" * 40)
    assert (await shop.build(source_, "F()")).package_name == "x"
    (spec,) = shop.go.ran("list")
    assert spec.network is Network.none


@pytest.mark.parametrize(("said", "asked"), [("x.go:1:1: bad", 1), ("skyisland.call:1:1: undefined: F", 0)])
async def test_go_is_asked_when_a_build_fails_for_want_of_a_package(
    shop: Workshop, said: str, asked: int
) -> None:
    shop.go.answers.append(complains(f"./_skyisland/{said}"))
    source_ = shop.source({"x.go": "package x\n"})
    await refused(shop, source_)
    assert len(shop.go.ran("list")) == asked
    await refused(shop, source_)
    assert len(shop.go.ran("list")) == asked


async def test_each_repository_has_a_cache_of_its_own(shop: Workshop) -> None:
    for url in ("example.com/a", "example.com/b", "example.com/a"):
        await shop.build(shop.source(url=url, commit=os.urandom(20).hex()), "F()")
    first, other, again = [host(spec, "/cache") for spec in shop.go.ran("build")]
    assert first == again != other


async def test_a_repository_without_go_mod_gets_one(shop: Workshop) -> None:
    seen: list[object] = []

    def look(spec: JailSpec) -> None:
        if source(spec):
            overlay, go_mod = host(spec, "/gen/overlay.json"), host(spec, "/gen/go.mod")
            assert overlay
            assert go_mod
            seen.append((json.loads(overlay.read_text())["Replace"]["/src/go.mod"], go_mod.read_text()))

    shop.go.answers.append(look)
    await shop.build(shop.source({"sub/x.go": "package sub\n"}, package="sub"), "F()")
    assert seen == [("/gen/go.mod", "module example.com/user/geohash\n\ngo 1.27\n")]


async def test_a_url_that_is_no_module_path_does_not_matter(shop: Workshop) -> None:
    await shop.build(shop.source(url="file:///srv/my repo.git"), "F()")


@pytest.mark.parametrize(
    ("files", "mod", "downloads"),
    [
        ({"go.mod": "module m\n"}, "readonly", 0),
        ({"go.mod": "module m\nrequire example.com/dep v1.0.0\n"}, "readonly", 1),
        ({"go.mod": "module m\nrequire (\n\texample.com/dep v1.0.0\n)\n"}, "readonly", 1),
        ({"go.mod": "module m\nrequire d v1\n", "vendor/modules.txt": "# d v1\n"}, "vendor", 0),
        ({"sub/go.mod": "module m/sub\n", "go.mod": "module m\nrequire d v1\n"}, "readonly", 0),
    ],
)
async def test_modules_are_downloaded_only_when_needed(
    shop: Workshop, files: dict[str, str], mod: str, downloads: int
) -> None:
    source_ = shop.source({"sub/x.go": "package sub\n", **files}, package="sub")
    await shop.build(source_, "F()")
    await shop.build(source_, "G()")
    fetched = [spec for spec in shop.go.ran("list") if "-deps" in spec.argv]
    assert len(fetched) == downloads
    for spec in fetched:
        assert spec.network is Network.host
        assert {mount.target for mount in spec.mounts if mount.writable} == {"/mod", "/cache", "/out"}
        assert dict(spec.env)["GOPROXY"] == "https://proxy.golang.org"
    for spec in shop.go.ran("build"):
        assert f"-mod={mod}" in spec.argv
        assert spec.network is Network.none


async def test_a_local_mirror_of_modules_is_shown_to_the_download(state_dir: Path) -> None:
    settings = Build(goproxy="file:///srv/modules,https://proxy.example,file:///srv/more")
    async with opened(state_dir, settings) as shop:
        await shop.build(shop.source({"x.go": "package x\n", "go.mod": "module m\nrequire d v1\n"}), "F()")
        (spec,) = [spec for spec in shop.go.ran("list") if "-deps" in spec.argv]
        shown = {mount.target for mount in spec.mounts if not mount.writable}
        assert {"/srv/modules", "/srv/more"} <= shown


# Forms

GENERIC = "./_skyisland/skyisland.call:1:1: cannot use generic function Map without instantiation"
A_TYPE = "./_skyisland/skyisland.call:1:1: Celsius (type) is not an expression"
NO_VALUE = "./_skyisland/skyisland.call:1:1: Run() (no value) used as value"


@pytest.mark.parametrize("complaint", [GENERIC, A_TYPE])
async def test_what_is_no_function_is_compiled_with_its_arguments(shop: Workshop, complaint: str) -> None:
    shop.go.answers.append(complains(complaint, when="harness.Answer("))
    source_ = shop.source()
    built = await shop.build(source_, "Map(1)")
    assert built.expression == "Map(1)"
    assert len(shop.go.ran("build")) == 2
    assert shop.builds.known(source_, parse_call("Map(1)")) is not None
    assert shop.builds.known(source_, parse_call("Map(2)")) is None
    await shop.build(source_, "Map(2)")
    assert len(shop.go.ran("build")) == 3


async def test_what_is_no_function_is_remembered_over_a_restart(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        shop.go.answers.append(complains(GENERIC, when="harness.Answer("))
        await shop.build(shop.source(), "Map(1)")
    async with opened(state_dir) as shop:
        shop.go.answers.append(complains(GENERIC, when="harness.Answer("))
        source_ = shop.source()
        assert shop.builds.known(source_, parse_call("Map(1)")) is not None
        await shop.build(source_, "Map(2)")
        assert len(shop.go.ran("build")) == 1


async def test_two_calls_of_a_generic_function_get_a_binary_each(shop: Workshop) -> None:
    """They wait for the same attempt, and go separate ways after it."""
    shop.go.answers.append(complains(GENERIC, when="harness.Answer("))
    source_ = shop.source()
    one, two = await asyncio.gather(shop.build(source_, "Map(1)"), shop.build(source_, "Map(2)"))
    assert (one.expression, two.expression) == ("Map(1)", "Map(2)")


async def test_an_expression_without_a_value_becomes_a_statement(shop: Workshop) -> None:
    shop.go.answers.append(complains(NO_VALUE, when="fmt.Print"))
    built = await shop.build(shop.source(), "New().Run()")
    assert b"fmt.Print" not in built.path.read_bytes()


# One build for many


async def test_two_hundred_callers_one_build(shop: Workshop) -> None:
    source_ = shop.source()
    shop.go.hold = asyncio.Event()
    callers = [asyncio.ensure_future(shop.build(source_, f"Encode({n})")) for n in range(200)]
    await shop.go.builds(1)
    shop.go.hold.set()
    built = await asyncio.gather(*callers)
    assert len({artifact.sha256 for artifact in built}) == 1
    assert len(shop.go.ran("build")) == 1
    assert [type(e) for e in shop.told if isinstance(e, (BuildStarted, BuildFinished))] == [
        BuildStarted,
        BuildFinished,
    ]


async def test_one_who_leaves_does_not_disturb_the_others(shop: Workshop) -> None:
    source_ = shop.source()
    shop.go.hold = asyncio.Event()
    first = asyncio.ensure_future(shop.build(source_, "Encode(1)"))
    await shop.go.builds(1)
    second = asyncio.ensure_future(shop.build(source_, "Encode(1)"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    shop.go.hold.set()
    await second
    assert len(shop.go.ran("build")) == 1


async def test_when_all_have_left_the_build_is_stopped(shop: Workshop) -> None:
    source_ = shop.source()
    shop.go.hold = asyncio.Event()
    callers = [asyncio.ensure_future(shop.build(source_, "Encode(1)")) for _ in range(3)]
    await shop.go.builds(1)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    await shop.jails.drain()
    assert shop.go.alive == {}
    assert list(shop.layout.run.iterdir()) == []
    assert shop.builds.artifacts() == []
    finished = [event for event in shop.told if isinstance(event, BuildFinished)]
    assert [event.ok for event in finished] == [False]
    shop.go.hold = None
    await shop.build(source_, "Encode(1)")


async def test_no_more_builds_at_a_time_than_allowed(state_dir: Path) -> None:
    async with opened(state_dir, Build(max_running=2)) as shop:
        shop.go.hold = asyncio.Event()
        source_ = shop.source()
        callers = [asyncio.ensure_future(shop.build(source_, f"F{n}()")) for n in range(5)]
        await shop.go.builds(2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(shop.go.ran("build")) == 2
        shop.go.hold.set()
        await asyncio.gather(*callers)
        assert len(shop.go.ran("build")) == 5


async def test_refresh_builds_again(shop: Workshop) -> None:
    source_ = shop.source()
    before = await shop.build(source_, "F()")
    assert await shop.build(source_, "F()") == structs.replace(
        before, used_at=shop.builds.artifacts()[0].used_at
    )
    assert len(shop.go.ran("build")) == 1
    after = await shop.build(source_, "F()", refresh=True)
    assert len(shop.go.ran("build")) == 2
    assert after.built_at > before.built_at
    assert shop.builds.artifacts() == [after]


async def test_another_result_takes_the_place_of_the_old_one(shop: Workshop) -> None:
    source_ = shop.source()
    before = await shop.build(source_, "F()")

    def other(spec: JailSpec) -> Script | None:
        if verb(spec) != "build":
            return None
        out = host(spec, "/out/function")
        assert out
        out.write_bytes(b"another one")
        return Script(stdout=b"")

    shop.go.answers.append(other)
    with shop.builds.using(before):
        after = await shop.build(source_, "F()", refresh=True)
        assert shop.binaries() == {before.sha256, after.sha256}
    await shop.builds.close()
    assert shop.binaries() == {after.sha256}


# Refusals


async def refused(shop: Workshop, source_: Source, call: str = "F()") -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await shop.build(source_, call)
    return caught.value


async def test_a_compile_error_has_paths_of_the_repository(shop: Workshop) -> None:
    said = "# m/sub\n./x.go:3:4: bad\n../y.go:1:2: worse\n\x1b[31m/gen/main.go:1:1: ours\x07\n"
    shop.go.answers.append(complains(said))
    error = await refused(shop, shop.source({"sub/x.go": "package sub\n"}, package="sub"))
    assert error.details["output"].startswith("# m/sub\nsub/x.go:3:4: bad\ny.go:1:2: worse\n")
    assert not set("\x1b\x07") & set(error.details["output"])
    assert error.message == f"example.com/user/geohash/sub at {COMMIT[:12]} does not compile"


async def test_the_compilers_words_are_capped(shop: Workshop) -> None:
    """And read in no time: words that would take a careless search minutes."""
    hostile = ("./_skyisland/skyisland.call:1:1: " * 40 + "/" * 9000 + "\n") * 50
    shop.go.answers.append(complains(hostile))
    started = time.perf_counter()
    assert len((await refused(shop, shop.source())).details["output"]) < 17_000
    assert time.perf_counter() - started < 2


async def test_an_undefined_function_is_named(shop: Workshop) -> None:
    shop.go.answers.append(complains("./_skyisland/skyisland.call:1:1: undefined: Foo"))
    error = await refused(shop, shop.source(), "Foo(1)")
    assert error.message.endswith("has no exported Foo")
    assert error.details["position"] == 0
    assert error.details["complaint"] == "undefined"
    assert error.details["output"] == "call:1:1: undefined: Foo"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("x.go:3:8: no required module provides package d; to add it:\n\tgo get d", "`go mod tidy`"),
        ("verifying d@v1: checksum mismatch\nSECURITY ERROR", "is not what go.sum"),
        ("go: go.mod requires go >= 1.99 (running go 1.27.3; GOTOOLCHAIN=local)", r"wants Go 1\.99"),
        ("write /out/function: file too large", r"build\.file_size"),
        ("./_skyisland/skyisland.call:1:8: not enough arguments in call to F", "does not fit .*: not enough"),
    ],
)
async def test_remedies(shop: Workshop, said: str, why: str) -> None:
    shop.go.answers.append(complains(said))
    assert re.search(why, (await refused(shop, shop.source())).message)


async def test_a_program_is_no_package(shop: Workshop) -> None:
    error = await refused(shop, shop.source({"main.go": "package main\n"}))
    assert "package main" in error.message
    assert shop.go.ran("build") == []


async def test_no_go_files(shop: Workshop) -> None:
    error = await refused(shop, shop.source({"README": "no Go"}))
    assert "no Go files" in error.message
    assert "name the folder of a package" in error.message


async def test_a_folder_that_is_not_there(shop: Workshop) -> None:
    error = await refused(shop, shop.source(package="no/such"))
    assert "no folder 'no/such'" in error.message


async def test_a_wrong_package_name_is_the_callers_own_mistake(shop: Workshop) -> None:
    source_ = shop.source()
    right = asyncio.ensure_future(shop.build(source_, "geohash.Encode(1)"))
    wrong = asyncio.ensure_future(shop.build(source_, "geo.Encode(1)"))
    with pytest.raises(BadCall, match="the package is geohash, not geo"):
        await wrong
    await right
    assert shop.builds.known(source_, parse_call("geohash.Encode(2)")) is not None
    assert shop.builds.known(source_, parse_call("geo.Encode(2)")) is None
    with pytest.raises(BadCall):
        await shop.build(source_, "geo.Encode(1)")


async def test_too_long_a_build_names_the_setting(state_dir: Path) -> None:
    async with opened(state_dir, timeout_s=0.05) as shop:
        shop.go.hold = asyncio.Event()
        error = await refused(shop, shop.source())
        assert error.message == "the build took longer than jails.build_timeout (0.05 s)"


async def test_a_compiler_out_of_memory_names_the_setting(shop: Workshop) -> None:
    shop.go.answers.append(
        lambda spec: Script(out_of_memory=True) if verb(spec) == "build" else None,
    )
    assert "build.memory" in (await refused(shop, shop.source())).message


async def test_a_build_that_the_operator_killed(shop: Workshop) -> None:
    shop.go.hold = asyncio.Event()
    building = asyncio.ensure_future(shop.build(shop.source(), "F()"))
    await shop.go.builds(1)
    await shop.jails.kill_all()
    with pytest.raises(Unavailable, match="stopped by the operator"):
        await building


async def test_a_proxy_that_does_not_answer_is_no_fault_of_the_repository(shop: Workshop) -> None:
    said = b"x.go:3:8: Get https://proxy.golang.org/d/@v/v1.zip: dial tcp: lookup proxy: no such host"
    shop.go.answers.append(
        lambda spec: Script(stdout=b"", stderr=said, exit_code=1) if "-deps" in spec.argv else None
    )
    source_ = shop.source({"x.go": "package x\n", "go.mod": "module m\nrequire d v1\n"})
    with pytest.raises(SourceUnavailable, match="no modules can be had from https://proxy"):
        await shop.build(source_, "F()")


# What a hostile build leaves instead of a binary


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing", "large"])
async def test_only_a_regular_file_of_due_size_is_taken(state_dir: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's own")

    def leave(spec: JailSpec) -> Script | None:
        out = host(spec, "/out/function")
        if verb(spec) != "build" or not source(spec) or not out:
            return None
        match kind:
            case "link":
                out.symlink_to(secret)
            case "pipe":
                os.mkfifo(out)
            case "folder":
                out.mkdir()
            case "large":
                with out.open("wb") as file:
                    file.truncate((1 << 20) + 1)
        return Script(stdout=b"")

    async with opened(state_dir, Build(file_size=1 << 20)) as shop:
        shop.go.answers.append(leave)
        await refused(shop, shop.source())
        assert shop.binaries() == set()
        assert shop.builds.artifacts() == []
    assert secret.read_text() == "the host's own"


# Keeping and forgetting


async def test_everything_is_known_after_a_restart(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        built = await shop.build(shop.source(), "Encode(1)")
        used = shop.builds.known(shop.source(), parse_call("Encode(2)"))
        assert used is not None
    async with opened(state_dir) as shop:
        assert shop.builds.artifacts() == [used]
        assert shop.binaries() == {built.sha256}


async def test_a_damaged_binary_is_forgotten_and_a_stray_file_removed(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        gone = await shop.build(shop.source(), "Gone()")
        torn = await shop.build(shop.source(), "Torn()")
        kept = await shop.build(shop.source(), "Kept()")
    gone.path.unlink()
    torn.path.chmod(0o644)
    torn.path.write_bytes(b"half")
    stray = state_dir / "state" / "artifacts" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("from a build that was killed")
    async with opened(state_dir) as shop:
        assert [artifact.key for artifact in shop.builds.artifacts()] == [kept.key]
        assert shop.binaries() == {kept.sha256}
        assert [artifact.key for artifact in await shop.state.artifacts()] == [kept.key]


async def test_eviction_by_hand(shop: Workshop) -> None:
    built = await shop.build(shop.source(), "F()")
    assert (await shop.builds.evict(built.key)).key == built.key
    assert shop.builds.artifacts() == []
    assert shop.binaries() == set()
    assert [e.reason for e in shop.told if isinstance(e, ArtifactEvicted)] == ["operator"]
    with pytest.raises(ArtifactNotFound):
        await shop.builds.evict(built.key)


async def test_the_file_of_one_in_use_stays_until_its_last_user_is_gone(shop: Workshop) -> None:
    built = await shop.build(shop.source(), "F()")
    with shop.builds.using(built):
        with shop.builds.using(built):
            await shop.builds.evict(built.key)
            assert built.path.exists()
        assert built.path.exists()
    await shop.builds.close()
    assert not built.path.exists()


async def test_built_again_while_its_evicted_file_is_in_use(shop: Workshop) -> None:
    source_ = shop.source()
    built = await shop.build(source_, "F()")
    with shop.builds.using(built):
        await shop.builds.evict(built.key)
        again = await shop.build(source_, "F()")
    await shop.builds.close()
    assert again.sha256 == built.sha256
    assert again.path.exists()


async def test_a_file_that_two_functions_share_stays_for_the_other(shop: Workshop) -> None:
    one = await shop.build(shop.source(commit="1" * 40), "F()")
    two = await shop.build(shop.source(commit="2" * 40), "F()")
    assert one.sha256 == two.sha256
    await shop.builds.evict(one.key)
    assert two.path.exists()
    await shop.builds.evict(two.key)
    assert not two.path.exists()


async def test_purge_leaves_what_is_in_use(shop: Workshop) -> None:
    used = await shop.build(shop.source(), "Used()")
    idle = await shop.build(shop.source(), "Idle()")
    with shop.builds.using(used):
        assert [artifact.key for artifact in await shop.builds.purge()] == [idle.key]
    assert [artifact.key for artifact in shop.builds.artifacts()] == [used.key]


async def test_what_was_not_used_for_long_goes(state_dir: Path) -> None:
    async with opened(state_dir, unused_s=100.0) as shop:
        old = await shop.build(shop.source(), "Old()")
        shop.builds._artifacts._known = {
            wanted: structs.replace(artifact, used_at=time.time() - 101)
            for wanted, artifact in shop.builds._artifacts._known.items()
        }
        new = await shop.build(shop.source(), "New()")
        assert [artifact.key for artifact in shop.builds.artifacts()] == [new.key]
        evicted = [event for event in shop.told if isinstance(event, ArtifactEvicted)]
        assert [(event.key, event.reason) for event in evicted] == [(old.key, "unused")]


async def test_beyond_the_limit_the_least_recently_used_goes(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        size = (await shop.build(shop.source(), "A()")).size_bytes
    async with opened(state_dir, Build(cache_limit=3 * size)) as shop:
        source_ = shop.source()
        for name in "BC":
            await shop.build(source_, f"{name}()")
        assert shop.builds.known(source_, parse_call("A()")) is not None
        await shop.build(source_, "D()")
        assert {artifact.function for artifact in shop.builds.artifacts()} == {"A", "C", "D"}
        with shop.builds.using(next(a for a in shop.builds.artifacts() if a.function == "C")):
            await shop.build(source_, "E()")
            assert {artifact.function for artifact in shop.builds.artifacts()} == {"C", "D", "E"}


async def test_a_limit_too_small_for_one_still_serves_it(state_dir: Path) -> None:
    async with opened(state_dir, Build(cache_limit=1)) as shop:
        built = await shop.build(shop.source(), "F()")
        assert built.path.exists()


async def test_old_caches_and_too_many_modules_go(state_dir: Path) -> None:
    async with opened(state_dir, Build(cache_limit=1000), unused_s=100.0) as shop:
        caches = shop.builds._caches
        async with caches.of("example.com/old") as old:
            os.utime(old, (1, 1))
            assert not await caches.trim()
            assert old.exists()  # in use
            os.utime(old, (1, 1))
        async with caches.of("example.com/new") as new:
            (new / "entry").write_bytes(b"x" * 900)
        (caches.modules / "zip").write_bytes(b"x" * 1001)
        assert await caches.trim()
        assert not old.exists()
        assert new.exists()
        assert list(caches.modules.iterdir()) == []
        async with caches.of("example.com/newer") as newer:
            (newer / "entry").write_bytes(b"x" * 900)
            os.utime(new, (time.time() - 10,) * 2)
        assert not await caches.trim()
        assert not new.exists()
        assert newer.exists()


# Keys


PARTS = st.text(max_size=5)


@given(
    st.tuples(PARTS, PARTS, PARTS, PARTS, st.none() | PARTS),
    st.tuples(PARTS, PARTS, PARTS, PARTS, st.none() | PARTS),
)
def test_different_wishes_have_different_keys(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    builds = object.__new__(Builds)
    builds._compiler = type("Compiler", (), {"toolchain": type("T", (), {"version": "go1.27.3"})})  # type: ignore[assignment]
    assert (builds._key(one) == builds._key(two)) == (one == two)  # type: ignore[arg-type]
    # The same characters, divided otherwise.
    url, package, *rest = one
    moved = (f"{url}/", package, *rest), (url, f"/{package}", *rest)
    assert len({builds._key(wish) for wish in moved}) == 2  # type: ignore[arg-type]
