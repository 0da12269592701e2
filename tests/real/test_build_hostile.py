"""Builds of hostile repositories with the real compiler in real jails.

The letters and numbers (B1 to B13) are those of the hostile cases of builds.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from skyisland.errors import BuildFailed
from skyisland.golang import harness
from skyisland.golang.call import parse_call
from skyisland.model import Mount, Verdict
from skyisland.settings import Build
from tests.support import answers as told
from tests.support.buildroom import BUILDER, DEP, PLAIN, UIDS, USER, Workshop, opened

pytestmark = [pytest.mark.host, pytest.mark.root]


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


async def test_b13_a_workspace_leads_nowhere(
    shop: Workshop, go: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A go.work can name any folder of the host. In the jail it is not there, and ours does not name it."""
    outside = shop.source(DEP).checkout
    for place in (str(outside), f"../../{outside.name}"):
        files = {
            "go.work": f"go 1.21\n\nuse (\n\t./user\n\t{place}\n)\n",
            "user/go.mod": USER["go.mod"].replace("require example.com/dep v1.0.0\n", ""),
            "user/user.go": USER["user.go"],
        }
        source = shop.source(files, "user")
        if place.startswith(".."):
            files["go.work"] = files["go.work"].replace("../../", "../")
            (source.checkout / "go.work").write_text(files["go.work"])
        environment = {"GOWORK": str(source.checkout / "go.work")}
        unconfined = await asyncio.to_thread(go, "build", ".", cwd=source.checkout / "user", **environment)
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
        kept, _ = told.returned(outcome.stdout, "nonce")
        assert set(kept.decode().strip("[]").split()) == {"/out", "/cache"}


async def test_b7_repositories_share_nothing_that_they_compiled(shop: Workshop) -> None:
    """What is compiled of the same package in two repositories lies in the caches of both."""
    files = {**PLAIN, "go.mod": "module m\n\ngo 1.21\n"}
    one = shop.source(files, url="example.com/one/repo")
    two = shop.source(files, url="example.com/two/repo")
    for source in (one, two):
        await shop.run(source, "F()")
    assert shop.own_cache(one) & shop.own_cache(two)


async def test_a_commit_of_a_fork_is_compiled_in_a_cache_of_its_own(shop: Workshop) -> None:
    files = {**PLAIN, "go.mod": "module m\n\ngo 1.21\n"}
    own = shop.source(files, url="example.com/one/repo")
    forks = structs.replace(own, commit="f" * 40, named=False)

    def caches() -> set[Path]:
        mounts = (mount for spec in shop.driver.specs for mount in spec.mounts)
        return {mount.source for mount in mounts if mount.target == "/cache"}

    await shop.run(own, "F()")
    await shop.run(structs.replace(own, commit="e" * 40), "F()")
    assert len(caches()) == 1, "commits that the repository names share its cache"
    await shop.run(forks, "F()")
    assert len(caches()) == 2


async def test_b8_a_compiler_bomb_meets_a_limit(state_dir: Path, gocache: Path) -> None:
    """A gigabyte of data, in one line."""
    async with opened(state_dir, gocache, Build(goproxy="off", memory=256 << 20)) as shop:
        bomb = "package x\n\nvar X = [1 << 27]int{1<<27 - 1: 1}\n\nfunc F() int { return X[5] }\n"
        assert "build.memory" in (await shop.refused(shop.source({"x.go": bomb}))).message
        assert await shop.run(shop.source(PLAIN), "F()") == "plain"


async def test_b8_a_build_that_takes_too_long(state_dir: Path, gocache: Path) -> None:
    """It is worth another try as long as it gets any further, and no longer."""
    async with opened(state_dir, gocache, timeout_s=0.3) as shop:
        lines = "\n".join(f"func f{n}(a []int) int {{ return len(a) * {n} }}" for n in range(40_000))
        source = shop.source({"x.go": f"package x\n\nfunc F() {{}}\n\n{lines}\n"})
        for _ in range(6):
            error = await shop.refused(source)
            assert "the build took longer than the 0.3 s that this island gives one" in error.message
            if isinstance(error, BuildFailed):
                break
        assert isinstance(error, BuildFailed)


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
