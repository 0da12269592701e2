"""Real islands, on repositories made of the examples: fixtures that every folder of tests has.

Compiling what every build needs takes a minute. It is done once for all tests, and kept in .cache for the
next run, under a name that changes with everything it depends on.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from examples import publish
from skyisland import golang
from skyisland.drivers.linux.base import GENERATION
from skyisland.drivers.linux.launching import Launcher
from skyisland.events import Events
from skyisland.golang.generated import FLAGS
from skyisland.golang.gojail import ENVIRONMENT
from skyisland.golang.library import STEP
from skyisland.island import Island
from skyisland.settings import Settings
from skyisland.wiring import opened
from tests.support import freebsd_host, gotool
from tests.support.daemon import SKYISLAND, Daemon, copy_of
from tests.support.places import CACHE

UNUSED_S = 7 * 24 * 3600.0
"""A prepared state that no run used for so long is removed."""
PROGRAM = """package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	input, _ := io.ReadAll(os.Stdin)
	fmt.Printf("%q %q\\n", os.Args[1:], input)
	if len(os.Args) > 3 {
		os.Exit(3)
	}
}
"""
EXTRA = {
    "broken": {
        "go.mod": "module broken\n\ngo 1.24\n",
        "broken.go": "package broken\n\nfunc F() int { return x }\n",
    },
    "program": {"go.mod": "module program\n\ngo 1.24\n", "main.go": PROGRAM},
    "empty": {"README": "No Go here.\n"},
}
"""Repositories that are no examples to follow: what does not compile, is a program, holds no Go."""


@pytest.fixture(scope="session")
def host_dir() -> Iterator[Path]:
    """A folder that unprivileged users may pass, for the whole run."""
    folder = Path(tempfile.mkdtemp(prefix="sky-host-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(scope="session")
def repositories(host_dir: Path) -> Path:
    """Real repositories of the examples and of `EXTRA`, by name."""
    folder = host_dir / "repositories"
    folder.mkdir()
    publish.publish(folder)
    for name, files in EXTRA.items():
        make_repository(folder / name, files)
    return folder


def make_repository(place: Path, files: dict[str, str]) -> str:
    """A repository with one commit; returns that."""
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return publish.commit(place, "First version")


@pytest.fixture(scope="session")
def prepared(host_dir: Path, launcher: Launcher) -> Path:
    """The folder of a state that is ready to build in, to be copied."""
    state = host_dir / "prepared"
    # Tests run side by side: one of them prepares, the others wait and copy.
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "preparing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(host_dir, state)
    if freebsd_host.POOL:
        return state
    # Of today's source, whatever the state was prepared with. (Asynchronous fixtures have a loop here.)
    with ThreadPoolExecutor() as pool:
        program = pool.submit(asyncio.run, launcher.program()).result()
    (state / "launcher").mkdir(exist_ok=True)
    shutil.copy2(program, state / "launcher")
    return state


def prepare(host_dir: Path, state: Path) -> None:
    """Make a state folder that is ready to build in; what it takes to do so goes to `host_dir`."""
    kept = CACHE / f"island-{_fingerprint()}"
    if kept.is_dir():
        os.utime(kept)
        copy_of(kept, state, share=False)
        return
    settings = host_dir / "prepare.toml"
    settings.write_text(tomli_w.dumps({"state_dir": str(state), **freebsd_host.settings()}))
    made = subprocess.run([SKYISLAND, "-c", settings, "init"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for name in ("admin-token", "island.db", "island.db-wal", "island.db-shm", "lock"):
        (state / name).unlink(missing_ok=True)
    for old in kept.parent.glob("island-*"):
        if old.stat().st_mtime < time.time() - UNUSED_S:
            shutil.rmtree(old)
    fresh = Path(tempfile.mkdtemp(dir=kept.parent))
    copy_of(state, fresh / "state", share=False)
    (fresh / "state").rename(kept)
    fresh.rmdir()


def _fingerprint() -> str:
    """Of everything that the prepared state is made of."""
    told = (FLAGS, STEP, sorted(ENVIRONMENT.items()), GENERATION)
    digest = hashlib.sha256(repr(told).encode() + (gotool.goroot() / "VERSION").read_bytes())
    source = Path(golang.__file__).parent
    for path in sorted(source.glob("*/*.go")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def rewrite(repositories: Path) -> dict[str, str]:
    """The `[git] rewrite` that finds the repositories."""
    return publish.rewrite(repositories)


Serve = Callable[..., Daemon]


@pytest.fixture(scope="session")
def make_daemon(host_dir: Path, prepared: Path, rewrite: dict[str, str]) -> Serve:
    """Makes daemons that are not started yet, each with a state folder of its own; `with` starts one.

    `git`: settings, whose rewrites are added; `share`: see `copy_of`; all else is as for `Daemon`.
    """

    def make(
        *, uid: int | None = None, share: bool = True, git: dict[str, Any] | None = None, **more: Any
    ) -> Daemon:
        folder = Path(tempfile.mkdtemp(prefix="island-", dir=host_dir))
        folder.chmod(0o755)
        copy_of(prepared, folder / "state", share=share and uid is None)
        if uid is not None:
            for parent, _, files in os.walk(folder):
                os.chown(parent, uid, uid)
                for name in files:
                    os.chown(Path(parent, name), uid, uid, follow_symlinks=False)
        git = {"rewrite": {}, **(git or {})}
        return Daemon(folder, {**rewrite, **git.pop("rewrite")}, uid=uid, git=git, **more)

    return make


@pytest.fixture
def daemon(make_daemon: Serve) -> Iterator[Serve]:
    """`make_daemon`, for one test: whatever runs at its end is stopped, and must leave nothing."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Daemon:
            made = make_daemon(**settings)
            stack.push(made.__exit__)
            return made

        yield make


@pytest.fixture(scope="module")
def serving(make_daemon: Serve) -> Iterator[Daemon]:
    """One daemon that runs for all tests of a module."""
    with make_daemon(jails={"exec_timeout": "3s"}, limits={"memory": "128m"}) as running:
        yield running


@pytest.fixture
def settings(host_dir: Path, prepared: Path, rewrite: dict[str, str]) -> Settings:
    """Settings of an island with a state folder of its own, ready to build in."""
    folder = Path(tempfile.mkdtemp(prefix="island-", dir=host_dir))
    folder.chmod(0o755)
    copy_of(prepared, folder / "state")
    file = folder / "skyisland.toml"
    wish = {"state_dir": str(folder / "state"), "git": {"rewrite": rewrite}, **freebsd_host.settings()}
    file.write_text(tomli_w.dumps(wish))
    return Settings.load(file, {})


@pytest.fixture
async def island(settings: Settings) -> AsyncIterator[Island]:
    """An island in this process, started, on real drivers."""
    async with opened(settings, Events(), search_path=os.environ["PATH"]) as made:
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
