"""What every test shares: a watch on the event loop, a state folder that jails can enter, patience."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import skyisland
from skyisland.drivers.linux.launching import Launcher
from skyisland.host.toolchain import Toolchains
from skyisland.settings import Settings
from tests.support import freebsd_host, gotool
from tests.support.places import CACHE, ROOT

pytest_plugins = ["tests.support.fleets", "tests.support.islands"]


def _package(name: str) -> ModuleType:
    """A stand-in that tells BlockBuster where a package lies, without the cost of importing it."""
    module = ModuleType(name)
    module.__path__ = [str(Path(skyisland.__file__).parents[1] / name) + os.sep]
    return module


# A busy machine is no fault of an example; pytest's own summary tells which tests are slow.
hypothesis_settings.register_profile("sky", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("sky")

LINUX = sys.platform.startswith("linux")
collect_ignore = [] if LINUX else ["attacks/test_kernel.py", "real/test_network.py", "unit/test_seccomp.py"]
"""They import what is a Linux package's alone."""
if "SKYISLAND_FLEETS" not in os.environ:
    collect_ignore.append("fleets")  # `make test-fleet` has the time for them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what makes Linux's jails on another system. `make test-freebsd` tries those of FreeBSD."""
    for item in items:
        anywhere = freebsd_host.POOL and item.get_closest_marker("anywhere")
        if not LINUX and not anywhere and item.get_closest_marker("host"):
            item.add_marker(pytest.mark.skip(reason="makes jails of Linux"))


OURS = [_package(name) for name in ("skyisland", "api", "tui")]


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Makes our own blocking calls on a running event loop fail: one blocked loop freezes API and console.

    Calls made by a test itself, by pytest or by asyncio on their own account may block. Allow a call
    below ours only where a library leaves no choice, with `blockbuster.functions[…].can_block_in(…)`.
    """
    with blockbuster_ctx(OURS) as watch:
        # Memory files, /proc and cgroups are the kernel's own memory: calls on them wait for no device.
        for file, function in (
            ("skyisland/host/pipes.py", "memory_file"),
            ("skyisland/drivers/linux/bubblewrap.py", "_prefer_for_oom"),
        ):
            watch.functions["os.write"].can_block_in(file, {function})
        for calls in watch.functions.values():
            calls.can_block_in(
                "skyisland/drivers/linux/cgroup/hierarchy.py",
                {"read", "write", "make", "remove", "oom_event"},
            )
        # What is free on a mounted file system the kernel knows by heart.
        watch.functions["os.statvfs"].can_block_in("skyisland/drivers/freebsd/jails.py", {"filled_its_disk"})
        # Popen waits for its child's exec, as it does below asyncio's own subprocesses.
        watch.functions["os.read"].can_block_in("subprocess.py", {"_execute_child"})
        yield watch


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state folder which an unprivileged uid may traverse (pytest's own tmp_path is 0700)."""
    folder = Path(tempfile.mkdtemp(prefix="sky-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    _open_up(folder)
    shutil.rmtree(folder)


@pytest.fixture
def load_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings from the text of a file: `load_settings(text, name="skyisland.toml", **environ)`."""

    def load(text: str, name: str = "skyisland.toml", **environ: str) -> Settings:
        file = tmp_path / name
        file.write_text(text)
        return Settings.load(file, {"HOME": "/home/gopher", **environ})

    return load


def _open_up(folder: Path) -> None:
    """Gives an ordinary user the right to delete what lies in read-only folders (Go's module cache)."""
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o700)


@pytest.fixture(scope="session")
def go() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the Go toolchain that comes with the package, on a cache that outlives the run."""
    return gotool.run


@pytest.fixture(scope="session")
def base_dir() -> Iterator[Path]:
    """Where all tests of a run find the base system of overlay jails; the first one lays it."""
    folder = Path(tempfile.mkdtemp(prefix="sky-base-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """The program that makes jails, compiled by the first test that makes one, and kept for later runs."""
    return Launcher(CACHE / "launcher", Toolchains(CACHE / "toolchain"))


@pytest.fixture(scope="session")
def actor(go: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[Path]:
    """A program that does what its standard input says, for jails to run (contract/actor.go)."""
    folder = Path(tempfile.mkdtemp(prefix="sky-actor-", dir="/tmp"))
    folder.chmod(0o755)
    built = go("build", "-o", folder / "actor", "actor.go", cwd=ROOT / "tests" / "contract")
    assert built.returncode == 0, built.stderr
    yield folder / "actor"
    shutil.rmtree(folder)
