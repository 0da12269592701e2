"""Builds on a fake `go`: what is asked of it, what is made of its answers, who waits for whom."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from skyisland.drivers.fake import Script
from skyisland.errors import (
    BadCall,
    BuildFailed,
    Complaint,
    HostUnfit,
    IslandError,
    SourceUnavailable,
    Unavailable,
)
from skyisland.events import BuildFinished, BuildStarted
from skyisland.golang.callee import PROGRAM, parse_callee
from skyisland.model import JailSpec, NetworkAccess
from skyisland.settings import Build
from tests.support.workshop import COMMIT, Workshop, complains, host, opened, refused, source, verb

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
    *library, cataloguer = [spec.argv[1:] for spec in shop.go.specs]
    assert library == [
        ("list", "-f", "{{if .GoFiles}}{{.ImportPath}}{{end}}", "std"),
        ("build", "-trimpath", "fmt", "net/http"),
    ]
    assert "schemas.go" in cataloguer
    assert seen[-1] == ("compiling the standard library", 2, 2)
    await shop.builds.prepare(whole=True)
    assert len(shop.go.specs) == 3


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
    assert shop.known(source_, "Encode(1, 2)") is None
    built = await shop.build(source_, "Encode(1, 2)")
    assert built.path.stat().st_mode & 0o777 == 0o555
    assert built.path == shop.layout.artifacts / built.sha256[:2] / built.sha256
    assert (built.function, built.expression, built.package_name) == ("Encode", None, "geohash")
    assert built.size_bytes == built.path.stat().st_size
    again = shop.known(source_, "Encode(3, 4)")
    assert again is not None
    assert (again.key, again.hits) == (built.key, 1)
    assert shop.known(source_, "Decode(1)") is None
    assert shop.known(source_, "Encode(New())") is None


async def test_the_jail_of_a_build(shop: Workshop) -> None:
    await shop.build(shop.source({"sub/x.go": "package sub\n"}, package="sub"), "F()")
    (spec,) = shop.go.ran("build")
    assert spec.network is NetworkAccess.none
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
    assert spec.network is NetworkAccess.none


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
    assert seen == [("/gen/go.mod", "module example.com/user/geohash\n\ngo 1.16\n")]


@pytest.mark.parametrize("failures_kept_s", [0.0, 60.0])
async def test_a_module_that_falls_short_is_built_as_a_dependency(
    state_dir: Path, failures_kept_s: float
) -> None:
    """By a module of ours, in a jail that differs in nothing else; no remembered failure is in the way."""
    async with opened(state_dir, failures_kept_s=failures_kept_s) as shop:

        def refuse_in_place(spec: JailSpec) -> Script | None:
            if verb(spec) == "build" and source(spec) and spec.cwd != "/gen":
                return Script(
                    stdout=b"", stderr=b"x.go:3:8: no required module provides package d", exit_code=1
                )
            return None

        shop.go.answers.append(refuse_in_place)
        repository = shop.source({"x.go": "package x\n", "go.mod": "module m/v2\n"})
        assert (await shop.build(repository, "F()")).package_name == "x"
        await shop.build(repository, "G()")
        assert [(verb(spec), spec.network) for spec in shop.go.specs if source(spec)] == [
            ("build", NetworkAccess.none),
            ("list", NetworkAccess.host),
            ("build", NetworkAccess.none),
            ("build", NetworkAccess.none),
        ]
        build = shop.go.ran("build")[-1]
        assert build.cwd == "/gen"
        assert {"-mod=mod", "-modfile=/out/go.mod"} <= set(build.argv)
        assert dict(build.env)["GOPROXY"] == "off"


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
        assert spec.network is NetworkAccess.host
        assert {mount.target for mount in spec.mounts if mount.writable} == {"/mod", "/cache", "/out"}
        assert dict(spec.env)["GOPROXY"] == "https://proxy.golang.org"
    for spec in shop.go.ran("build"):
        assert f"-mod={mod}" in spec.argv
        assert spec.network is NetworkAccess.none


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
    assert shop.known(source_, "Map(1)") is not None
    assert shop.known(source_, "Map(2)") is None
    await shop.build(source_, "Map(2)")
    assert len(shop.go.ran("build")) == 3


async def test_what_is_no_function_is_remembered_over_a_restart(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        shop.go.answers.append(complains(GENERIC, when="harness.Answer("))
        await shop.build(shop.source(), "Map(1)")
    async with opened(state_dir) as shop:
        shop.go.answers.append(complains(GENERIC, when="harness.Answer("))
        source_ = shop.source()
        assert shop.known(source_, "Map(1)") is not None
        await shop.build(source_, "Map(2)")
        assert len(shop.go.ran("build")) == 1


@pytest.mark.parametrize(
    ("types", "place", "said", "refused", "details"),
    [
        (("int",), "1:1", "cannot index Map (value of type func(s string) string)",
         "types: Map has no type parameters; leave types out", {"path": "types"}),
        (("int", "int", "int"), "1:14", "got 3 type arguments but Map has 2 type parameters",
         "types do not fit", {"position": None, "complaint": "mismatch"}),
    ],
)  # fmt: skip
async def test_what_go_says_of_types(
    shop: Workshop, types: tuple[str, ...], place: str, said: str, refused: str, details: dict[str, Any]
) -> None:
    """The caller sent no text in which there is a place."""
    shop.go.answers.append(complains(f"./_skyisland/skyisland.call:{place}: {said}"))
    call = parse_callee("Map", types)
    with pytest.raises(IslandError) as error:
        await shop.builds.build(shop.source(), call, refresh=False, invocation="inv-1")
    assert error.value.message.startswith(refused)
    assert details.items() <= error.value.details.items()


async def test_two_calls_of_a_generic_function_get_a_binary_each(shop: Workshop) -> None:
    """They wait for the same attempt, and go separate ways after it."""
    shop.go.answers.append(complains(GENERIC, when="harness.Answer("))
    source_ = shop.source()
    one, two = await asyncio.gather(shop.build(source_, "Map(1)"), shop.build(source_, "Map(2)"))
    assert (one.expression, two.expression) == ("Map(1)", "Map(2)")


async def test_an_expression_without_a_value_becomes_a_statement(shop: Workshop) -> None:
    shop.go.answers.append(complains(NO_VALUE, when="harness.Show"))
    built = await shop.build(shop.source(), "New().Run()")
    assert b"harness.Show" not in built.path.read_bytes()


async def test_a_part_that_gives_an_error_becomes_a_link_in_all_calls_of_the_shape(shop: Workshop) -> None:
    several = (
        '/skyisland.call:1:1: multiple-value New("x") (value of type (*T, error)) in single-value context'
    )
    shop.go.answers.append(complains(several, when="Show(/*line"))
    source_ = shop.source()
    built = await shop.build(source_, 'New("x").Run()')
    assert b'harness.Must(last, "New")' in built.path.read_bytes()
    assert (built.expression, len(shop.go.ran("build"))) == ('New("x").Run()', 2)
    await shop.build(source_, 'New("other").Run()')
    assert len(shop.go.ran("build")) == 3


async def test_main_programs_are_not_tried_for_ever(shop: Workshop) -> None:
    def always(spec: JailSpec) -> Script | None:
        main = host(spec, "/gen/main.go")
        if verb(spec) != "build" or not source(spec) or main is None:
            return None
        tried = main.read_text().count("func must")
        position = len("+".join(f"A{n}()" for n in range(tried))) + (tried > 0) + 1
        said = f"/skyisland.call:1:{position}: multiple-value A{tried}() (value of type (T, error))"
        return Script(stdout=b"", stderr=f"{said} in single-value context".encode(), exit_code=1)

    shop.go.answers.append(always)
    error = await refused(shop, shop.source(), "+".join(f"A{n}()" for n in range(30)))
    assert error.details["complaint"] == "mismatch"
    assert len(shop.go.ran("build")) == 10


# Names of packages


async def test_a_name_in_front_may_be_another_packages(shop: Workshop) -> None:
    files = {"go.mod": "module x.org/geo\n", "geo.go": "package geo\n", "sub/sub.go": "package sub\n"}
    source_ = shop.source(files)
    built = await shop.build(source_, "strings.ToUpper(Name())")
    assert (built.expression, built.function) == ("strings.ToUpper(Name())", "Name")
    assert b'\tstrings "strings"\n' in built.path.read_bytes()
    known = shop.known(source_, "strings . ToUpper(Name( ))")
    assert (known and known.key) == built.key
    assert shop.known(source_, "ToUpper(Name())") is None

    apart = await shop.build(source_, "sub.F(1)")
    assert (apart.expression, apart.function) == (None, "sub.F")
    program = apart.path.read_bytes()
    assert b'\tsub "x.org/geo/sub"\n' in program
    assert b'\t. "' not in program
    known = shop.known(source_, "sub.F(2)")
    assert (known and known.key) == apart.key
    assert shop.known(source_, "F(2)") is None

    for artifact in (built, apart):
        again = await shop.builds.rebuild(artifact, source_)
        assert (again.key, again.path.read_bytes()) == (artifact.key, artifact.path.read_bytes())


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
        callers = [asyncio.ensure_future(shop.build(source_, f"F{n}()", client=f"{n}")) for n in range(5)]
        await shop.go.builds(2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(shop.go.ran("build")) == 2
        shop.go.hold.set()
        await asyncio.gather(*callers)
        assert len(shop.go.ran("build")) == 5


@pytest.mark.parametrize("expression", [None, 'Greet("you").Loud()'])
async def test_a_binary_is_built_again_from_its_record(shop: Workshop, expression: str | None) -> None:
    source_ = shop.source()
    before = await shop.build(source_, expression or "F(1, 2)")
    after = await shop.builds.rebuild(before, source_)
    assert len(shop.go.ran("build")) == 2
    assert (after.key, after.function, after.expression) == (before.key, before.function, expression)
    assert after.built_at > before.built_at
    assert shop.builds.artifacts() == [after]


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
    assert error.complaint is Complaint.undefined
    assert error.details["complaint"] == "undefined"
    assert error.details["output"] == "call:1:1: undefined: Foo"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "x.go:3:8: no required module provides package d; to add it:\n\tgo get d",
            "imports d, which neither its go.mod nor",
        ),
        ("verifying d@v1: checksum mismatch\nSECURITY ERROR", "does not match go.sum"),
        ("go: go.mod requires go >= 1.99 (running go 1.27.3; GOTOOLCHAIN=local)", r"wants Go 1\.99"),
        ("write /out/function: file too large", r"build\.file_size"),
        ("./_skyisland/skyisland.call:1:8: not enough arguments in call to F", "does not fit .*: not enough"),
    ],
)
async def test_remedies(shop: Workshop, said: str, why: str) -> None:
    shop.go.answers.append(complains(said))
    assert re.search(why, (await refused(shop, shop.source())).message)


async def test_a_program_is_built_as_it_is_and_again(shop: Workshop) -> None:
    source_ = shop.source({"main.go": "package main\n"})
    built = await shop.builds.build(source_, PROGRAM, refresh=False, invocation=None)
    again = await shop.builds.rebuild(built, source_)
    assert (again.key, again.function) == (built.key, "main")
    assert len(shop.go.ran("build")) == 2


async def test_a_program_is_no_package(shop: Workshop) -> None:
    error = await refused(shop, shop.source({"main.go": "package main\n"}))
    assert "package main" in error.message
    assert shop.go.ran("build") == []


async def test_a_module_that_needs_cgo_is_named(shop: Workshop) -> None:
    said = "x.go:3:8: build constraints exclude all Go files in /mod/example.com/sqlite@v1.2.3/lib"
    shop.go.answers.append(complains(said))
    error = await refused(shop, shop.source({"x.go": "package x\n"}))
    assert "needs example.com/sqlite@v1.2.3/lib, which has no Go files for this system" in error.message
    assert "x.go" not in error.message, "its own files are all right"


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
    assert shop.known(source_, "geohash.Encode(2)") is not None
    assert shop.known(source_, "geo.Encode(2)") is None
    with pytest.raises(BadCall):
        await shop.build(source_, "geo.Encode(1)")


async def test_too_long_a_build_names_the_setting(state_dir: Path) -> None:
    async with opened(state_dir, timeout_s=0.05) as shop:
        shop.go.hold = asyncio.Event()
        error = await refused(shop, shop.source())
        assert error.message == (
            "the build took longer than the 0.05 s that this island gives one; a smaller package or another "
            "version may do, or its operator can raise jails.build_timeout"
        )


async def test_a_build_out_of_time_goes_on_with_the_next_call(state_dir: Path) -> None:
    async with opened(state_dir, timeout_s=0.05, failures_kept_s=60.0) as shop:
        shop.go.hold = asyncio.Event()
        compiled: list[str] = ["dep", "more"]

        def compile_some(spec: JailSpec) -> None:
            if source(spec) and verb(spec) == "build" and compiled:
                Path(f"{host(spec, '/cache')}", compiled.pop()).touch()

        shop.go.answers.append(compile_some)
        repository = shop.source()
        for _ in range(2):
            with pytest.raises(Unavailable, match="what it has compiled is kept: call again") as caught:
                await shop.build(repository, "F()")
            assert caught.value.retry_after_s == 1
        assert "took longer than" in (await refused(shop, repository)).message, "it got no further"
        assert "remembered_s" in (await refused(shop, repository)).details


async def test_modules_that_come_too_late_are_no_fault_of_the_repository(state_dir: Path) -> None:
    async with opened(state_dir, Build(download_timeout=0.05)) as shop:
        shop.go.answers.append(lambda spec: Script(duration_s=float("inf")) if "-deps" in spec.argv else None)
        with pytest.raises(SourceUnavailable, match=r"within build\.download_timeout .* are kept"):
            await shop.build(
                shop.source({"x.go": "package x\n", "go.mod": "module m\nrequire d v1\n"}), "F()"
            )


@pytest.mark.parametrize(
    ("script", "met"),
    [
        (Script(out_of_memory=True, exit_code=1), "needed more than the 2048 MiB of memory"),
        (Script(disk_full=True, exit_code=1), "needed more than the room for files"),
    ],
)
async def test_a_build_that_met_a_limit_is_remembered(state_dir: Path, script: Script, met: str) -> None:
    async with opened(state_dir, failures_kept_s=60.0) as shop:
        shop.go.answers.append(
            lambda spec: (
                script if source(spec) and (verb(spec) == "build" or "-export" in spec.argv) else None
            )
        )
        repository = shop.source()
        error = await refused(shop, repository)
        assert error.message.startswith(f"the build {met} that this island gives one; ")
        assert "a smaller package or another version may do" in error.message
        assert "its operator can raise build." in error.message
        assert "remembered_s" in (await refused(shop, repository)).details
        for remembered in (False, True):
            with pytest.raises(BuildFailed) as caught:
                await shop.builds.catalogue(repository)
            assert met in caught.value.message
            assert ("remembered_s" in caught.value.details) is remembered


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
    with pytest.raises(SourceUnavailable, match="modules cannot be fetched from https://proxy"):
        await shop.build(source_, "F()")
