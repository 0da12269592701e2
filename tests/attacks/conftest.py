"""Attempts, made twice: where nothing confines them, which has to work, and in a jail."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from skyisland.drivers.linux.bubblewrap import BubblewrapJails
from skyisland.drivers.linux.namespaces import NamespaceJails
from skyisland.drivers.linux.overlay import OverlayClones
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.jails.driver import JailDriver
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Limits, Mount, Outcome, Purpose, Verdict
from skyisland.settings import CallLimits
from tests.support.hostility import ISLAND, MIB, UIDS, Inside, Outside, Start, left_on_the_host, processes_of


@pytest.fixture(scope="session")
def attacker(go: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[Path]:
    """The program that makes the attempts (attacker/attacker.go)."""
    folder = Path(tempfile.mkdtemp(prefix="sky-attacker-", dir="/tmp"))
    folder.chmod(0o755)
    built = go("build", "-o", folder / "attacker", ".", cwd=Path(__file__).with_name("attacker"))
    assert built.returncode == 0, built.stderr
    yield folder / "attacker"
    shutil.rmtree(folder)


@pytest.fixture
def limits() -> Limits:
    """Those of an island without settings, smaller where that saves time."""
    return replace(CallLimits().as_limits(), memory_bytes=64 * MIB, pids=48)


@pytest.fixture
def start(attacker: Path) -> Iterator[Start]:
    """Starts an attempt that nothing confines, in a process group that ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *words: object, uid: int | None = None, before: tuple[str, ...] = (), **options: Any
    ) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*before, str(attacker), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            start_new_session=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def outside(start: Start) -> Outside:
    """What an attempt comes to where nothing confines it."""

    def run(*words: object, timeout_s: float = 20, **options: object) -> str:
        out, _ = start(*words, **options).communicate(timeout=timeout_s)
        return out.decode().strip()

    return run


@pytest.fixture(params=["namespaces", "bubblewrap"])
async def jails(request: pytest.FixtureRequest, base_dir: Path, state_dir: Path) -> AsyncIterator[Jails]:
    """Jails as the daemon makes them. After each case nothing is left, and the next call is normal."""
    if request.param == "namespaces":
        launcher = request.getfixturevalue("launcher")
        driver: JailDriver = NamespaceJails(ISLAND, state_dir / "run", launcher, probe_uid=UIDS[0])
    else:
        driver = BubblewrapJails(ISLAND, state_dir / "run", probe_uid=UIDS[0])
    service = Jails(driver, OverlayClones(base_dir), FakeAddresses(), Events(), island=ISLAND, uids=UIDS)
    await service.prepare()
    yield service
    await service.drain()
    assert service.living() == []
    assert await service.driver.existing() == []
    await service.close()
    assert processes_of(UIDS) == []
    assert left_on_the_host() == []


@pytest.fixture
async def inside(jails: Jails, attacker: Path, limits: Limits) -> AsyncIterator[Inside]:
    """What the same attempt comes to in a jail; afterwards an innocent call works as ever."""

    async def run(
        *words: object,
        timeout_s: float = 20,
        limits: Limits = limits,
        mounts: tuple[Mount, ...] = (),
        **options: Any,
    ) -> Outcome:
        async with jails.jail(
            JailOrder(
                argv=("/function", *map(str, words)),
                purpose=Purpose.function,
                mounts=(Mount(attacker, "/function"), *mounts),
                limits=limits,
                **options,
            )
        ) as inmate:
            return await inmate.converse(b"", timeout_s)

    yield run
    innocent = await run("cwd")
    assert (innocent.verdict, innocent.stdout) == (Verdict.ok, b"/")


@pytest.fixture
def said(inside: Inside) -> Callable[..., Awaitable[str]]:
    """The words of an attempt in a jail that ends by itself."""

    async def run(*words: object, **options: object) -> str:
        outcome = await inside(*words, **options)
        assert outcome.verdict is Verdict.ok, outcome
        return outcome.stdout.decode().strip()

    return run
