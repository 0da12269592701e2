"""What every jail driver promises, through `Jails`, told once for each driver.

The process in the jail is `actor`, which does what its standard input says. The fake driver plays it.
FreeBSD's runs on stand-ins here; for real on a FreeBSD where TEST_ZPOOL names a pool (`make test-freebsd`).
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from skyisland import events
from skyisland.drivers.fake import FakeClones, FakeJails, Script
from skyisland.drivers.freebsd.base import FreeBSDBase
from skyisland.drivers.freebsd.jails import FreeBSDJails
from skyisland.drivers.freebsd.launching import Launcher
from skyisland.drivers.linux.bubblewrap import BubblewrapJails
from skyisland.drivers.linux.namespaces import NamespaceJails
from skyisland.drivers.linux.overlay import OverlayClones
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.errors import DriverError, JailNotFound
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.golang.runtime import function_environment
from skyisland.host.toolchain import Toolchains
from skyisland.jails.driver import JailDriver
from skyisland.jails.inmate import Inmate, JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Limits, Mount, Outcome, Purpose, Verdict
from skyisland.status import JailState
from tests.support.standins.island import freebsd_jails
from tests.support.standins.world import World

POOL = os.environ.get("TEST_ZPOOL", "") if sys.platform.startswith("freebsd") else ""
ISLAND = f"{os.getpid() & 0xFFFF:04x}"
Perform = Callable[..., Awaitable[Outcome]]
LIMITS = Limits(memory_bytes=64 << 20, pids=32, cpus=1.0, stdout_bytes=4096, stderr_bytes=4096)


WORLD = """\
stdin true
stdout written
stdout true
stderr true
user nobody /tmp
uid true
home /tmp
cache /tmp/.cache
made true
zone 1970-01-01T01:00:00+01:00
roots true
memory 57
processors 1
"""
"""What a function finds around it, under every driver."""


def play(order: bytes) -> Script:
    """The actor, as the fake driver plays it."""
    verb, _, rest = order.decode().partition(" ")
    match verb:
        case "say":
            return Script(stdout=rest.encode())
        case "complain":
            return Script(stdout=b"", stderr=rest.encode())
        case "exit":
            return Script(exit_code=int(rest))
        case "signal":
            return Script(exit_code=-int(rest))
        case "linger":
            return Script(stdout=b"lingering", stays=True)
        case "sleep":
            return Script(duration_s=float("inf"))
        case "flood":
            return Script(stdout=b"flood " * 10_000, duration_s=0.01)
        case "hog":
            return Script(out_of_memory=True)
        case "stray":
            return Script(stdout=b"left a stray")
        case "mark":
            return Script(stdout=b"false <nil>")
        case "world":
            return Script(stdout=WORLD.encode(), stderr=b"stderr written\n")
        case _:
            return Script()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A FreeBSD host for all tests of this module: each finds it as the one before has left it."""
    folder = Path(tempfile.mkdtemp(prefix="sky-", dir="/tmp"))
    folder.chmod(0o755)
    with World(folder / "freebsd") as world:
        yield world
    shutil.rmtree(folder)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("bubblewrap", marks=[pytest.mark.host, pytest.mark.root]),
        pytest.param("namespaces", marks=[pytest.mark.host, pytest.mark.root]),
        pytest.param("freebsd", marks=[pytest.mark.host, pytest.mark.root]),
        *(["freebsd-real"] if POOL else []),
    ]
)
async def jails(
    request: pytest.FixtureRequest, base_dir: Path, told: list[events.Event]
) -> AsyncIterator[Jails]:
    """`freebsd` runs on stand-ins for FreeBSD's programs (tests/freebsd)."""
    stream = Events()
    stream.tap(told.append)
    if request.param == "freebsd":
        world = request.getfixturevalue("world")
        service = freebsd_jails(world, stream)
        await service.prepare()
        yield service
        await service.close()
        assert world.left() == {}
        return
    if request.param == "freebsd-real":
        folder = Path(f"/var/tmp/sky-contract-{ISLAND}")
        base = FreeBSDBase(
            "-".join(platform.release().split("-")[:2]),
            cache=Path("/var/tmp/sky-contract-archives"),
            source=os.environ.get("TEST_BASE", ""),
            update=False,
        )
        toolchains = Toolchains(folder / "go", search_path=os.environ["PATH"])
        launcher = Launcher(folder / "launcher", toolchains)
        service = Jails(
            FreeBSDJails(ISLAND, launcher, jails=folder / "jails"),
            ZfsClones(POOL, ISLAND, jails=folder / "jails", bases=folder / "bases", base=base),
            FakeAddresses(),
            stream,
            island=ISLAND,
            uids=None,
        )
        await service.prepare()
        yield service
        await service.close()
        assert await service.driver.existing() == []
        return
    if request.param == "fake":
        driver, clones = FakeJails(play), FakeClones()
        service = Jails(driver, clones, FakeAddresses(), stream, island="c0de", uids=None)
    else:
        uids = range(1_950_000_000, 1_950_000_016) if os.geteuid() == 0 else None
        real: JailDriver = BubblewrapJails(ISLAND, base_dir)
        if request.param == "namespaces":
            real = NamespaceJails(
                ISLAND, base_dir, request.getfixturevalue("launcher"), probe_uid=1_950_000_016
            )
        service = Jails(real, OverlayClones(base_dir), FakeAddresses(), stream, island=ISLAND, uids=uids)
    await service.prepare()
    yield service
    await service.close()
    assert await service.driver.existing() == []


@pytest.fixture
def told() -> list[events.Event]:
    return []


@pytest.fixture
def perform(jails: Jails, actor: Path) -> Perform:
    async def perform(
        order: str,
        *,
        limits: Limits = LIMITS,
        timeout_s: float = 10.0,
        env: tuple[tuple[str, str], ...] = (),
    ) -> Outcome:
        async with jails.jail(
            JailOrder(
                argv=("/function",),
                purpose=Purpose.function,
                mounts=(Mount(actor, "/function"),),
                limits=limits,
                env=env,
            )
        ) as inmate:
            return await inmate.converse(order.encode(), timeout_s)

    return perform


async def test_output_comes_back(perform: Perform) -> None:
    outcome = await perform("say hello")
    assert (outcome.verdict, outcome.exit_code, outcome.stdout) == (Verdict.ok, 0, b"hello")


async def test_error_output_is_kept_apart(perform: Perform) -> None:
    outcome = await perform("complain oh dear")
    assert (outcome.stdout, outcome.stderr) == (b"", b"oh dear")


async def test_the_world_of_a_function(perform: Perform, jails: Jails) -> None:
    outcome = await perform("world", env=function_environment(LIMITS))
    streams, user, rest = outcome.stdout.decode().partition("user ")
    expected_streams, _, expected_rest = WORLD.partition("user ")
    assert user + rest == user + expected_rest
    if jails.driver.name != "freebsd":  # no stand-in is a devfs, which duplicates descriptors
        assert (streams, outcome.stderr) == (expected_streams, b"stderr written\n")


@pytest.mark.parametrize("code", [1, 2, 77, 128])
async def test_an_exit_code_is_told(perform: Perform, code: int) -> None:
    outcome = await perform(f"exit {code}")
    assert (outcome.verdict, outcome.exit_code, outcome.signal) == (Verdict.exited, code, None)


@pytest.mark.parametrize("number", [9, 15, 2])
async def test_a_signal_is_told(perform: Perform, number: int) -> None:
    outcome = await perform(f"signal {number}")
    assert (outcome.verdict, outcome.exit_code, outcome.signal) == (Verdict.signaled, None, number)


async def test_a_deadline_ends_it(perform: Perform) -> None:
    outcome = await perform("sleep", timeout_s=0.2)
    assert outcome.verdict is Verdict.timed_out


async def test_endless_output_is_cut_and_ended(perform: Perform) -> None:
    outcome = await perform("flood")
    assert outcome.verdict is Verdict.output_limit
    assert len(outcome.stdout) == LIMITS.stdout_bytes


async def test_too_much_memory_is_told(perform: Perform) -> None:
    outcome = await perform("hog 256")
    assert outcome.verdict is Verdict.out_of_memory


async def test_a_stray_child_delays_nobody_and_dies_with_the_jail(perform: Perform, jails: Jails) -> None:
    started = time.monotonic()
    outcome = await perform("stray")
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"left a stray")
    assert time.monotonic() - started < 5
    await jails.drain()
    assert await jails.driver.existing() == []


async def test_its_last_word_is_its_end_and_it_does_not_outlive_that(jails: Jails, actor: Path) -> None:
    """It says that all is said, and runs on: its caller has the answer, and the jail is taken away."""
    heard = bytearray()

    def last_word(piece: bytes) -> bool:
        heard.extend(piece)
        return heard == b"lingering"

    order = JailOrder(
        argv=("/function",), purpose=Purpose.function, mounts=(Mount(actor, "/function"),), limits=LIMITS
    )
    async with jails.jail(order) as inmate:
        outcome = await inmate.converse(b"linger", 60, last_word)
        assert (outcome.verdict, outcome.exit_code, outcome.stdout) == (Verdict.ok, 0, b"lingering")
        assert inmate.jail is not None
        assert inmate.jail.process.returncode is None
    await jails.drain()
    assert jails.living() == []
    assert await jails.driver.existing() == []


async def test_a_clone_is_never_used_twice(perform: Perform) -> None:
    for _ in range(3):
        assert (await perform("mark")).stdout == b"false <nil>"


async def test_the_operator_kills_by_number_or_name(
    jails: Jails, perform: Perform, told: list[events.Event]
) -> None:
    for attribute in ("jid", "name"):
        call = asyncio.ensure_future(perform("sleep"))
        jail = await _running(jails)
        killed = await jails.kill(getattr(jail.info(), attribute))
        assert killed.name == jail.spec.name
        assert (await call).verdict is Verdict.killed
        await jails.drain()
    assert [type(event).__name__ for event in told].count("JailKilled") == 2


async def test_an_unknown_jail_cannot_be_killed(jails: Jails) -> None:
    for stranger in ("1000", "sky-beef-1", "*", "../1", ""):
        with pytest.raises(JailNotFound):
            await jails.kill(stranger)


async def test_a_caller_who_goes_away_takes_the_jail_along(jails: Jails, perform: Perform) -> None:
    call = asyncio.ensure_future(perform("sleep"))
    await _running(jails)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await jails.drain()
    assert jails.living() == []
    assert await jails.driver.existing() == []


async def test_a_caller_who_goes_away_at_any_step_leaves_nothing(jails: Jails, perform: Perform) -> None:
    """Cancel after one step of the loop, two, three … until the call gets through."""
    # On the stand-ins a jail takes several processes of Python, and one of bwrap many turns: not each step.
    for steps in range(0, 400, {"freebsd": 50, "bubblewrap": 3}.get(jails.driver.name, 1)):
        call = asyncio.ensure_future(perform("say hello"))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        try:
            await call
            break
        except asyncio.CancelledError:
            continue
        finally:
            await jails.drain()
            assert jails.living() == []
    assert await jails.driver.existing() == []


async def test_many_at_once_get_their_own(jails: Jails, perform: Perform) -> None:
    outcomes = await asyncio.gather(*(perform(f"say {n}") for n in range(24)))
    assert [outcome.stdout for outcome in outcomes] == [str(n).encode() for n in range(24)]
    await jails.drain()
    assert jails.living() == []


async def test_the_facts_are_told_in_order(jails: Jails, perform: Perform, told: list[events.Event]) -> None:
    await perform("say hello")
    await jails.drain()
    kinds = [type(event).__name__ for event in told]
    assert kinds == ["CloneCreated", "JailCreated", "CloneDestroyed", "JailDestroyed"]


async def test_the_island_ends_and_nothing_stays(jails: Jails, perform: Perform) -> None:
    calls = [asyncio.ensure_future(perform("sleep")) for _ in range(3)]
    await _running(jails, 3)
    await jails.kill_all("the island stops")
    assert {(await call).verdict for call in calls} == {Verdict.killed}
    await jails.drain()
    assert await jails.driver.existing() == []


async def test_a_program_that_is_not_there_is_our_failure(jails: Jails) -> None:
    if isinstance(jails.driver, FakeJails):
        jails.driver.fail = DriverError("no such program")
    with pytest.raises(DriverError):
        async with jails.jail(
            JailOrder(argv=("/nowhere",), purpose=Purpose.function, limits=LIMITS)
        ) as inmate:
            await inmate.converse(b"", 5)
    await jails.drain()
    assert await jails.driver.existing() == []


async def _running(jails: Jails, count: int = 1) -> Inmate:
    """The first of `count` jails that run, as soon as they do."""
    while len(running := _of_state(jails, JailState.running)) < count:
        await jails.events.ring.news()
    return running[0]


def _of_state(jails: Jails, state: JailState) -> list[Inmate]:
    return [jails.find(jail.jid) for jail in jails.living() if jail.state is state]
