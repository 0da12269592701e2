"""Whole jails of Linux on clones of a real pool; collected where the kernel has all they need (QEMU)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skyisland.drivers.linux.base import LinuxBase
from skyisland.drivers.linux.bubblewrap import BubblewrapJails
from skyisland.drivers.linux.namespaces import NamespaceJails
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.jails.driver import JailDriver
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Limits, Mount, Outcome, Purpose, Verdict
from tests.support.zpool import clear

pytestmark = pytest.mark.zfs

LIMITS = Limits(memory_bytes=64 << 20, pids=32, cpus=1.0)
FIRST_UID = 1_950_000_000


@pytest.fixture(params=["bubblewrap", "namespaces"])
async def jails(request: pytest.FixtureRequest, state_dir: Path) -> AsyncIterator[Jails]:
    if request.param == "bubblewrap":
        driver: JailDriver = BubblewrapJails("c0de", state_dir / "run", probe_uid=FIRST_UID)
    else:
        launcher = request.getfixturevalue("launcher")
        folders = {"run": state_dir / "run", "clones": state_dir / "jails"}
        driver = NamespaceJails("c0de", launcher=launcher, probe_uid=FIRST_UID, **folders)
    clones = ZfsClones(
        "tank", "c0de", jails=state_dir / "jails", bases=state_dir / "bases", base=LinuxBase(), ahead=1
    )
    made = Jails(
        driver,
        clones,
        FakeAddresses(),
        Events(),
        island="c0de",
        uids=range(FIRST_UID + 1, FIRST_UID + 9),
    )
    await made.prepare()
    yield made
    await made.close()
    assert await driver.existing() == []
    assert await clones.existing() == []
    clear("tank/sky-c0de")


async def perform(jails: Jails, actor: Path, order: str, mounts: tuple[Mount, ...] = ()) -> Outcome:
    async with jails.jail(
        JailOrder(
            argv=("/function",),
            purpose=Purpose.function,
            mounts=(Mount(actor, "/function"), *mounts),
            limits=LIMITS,
        )
    ) as inmate:
        assert inmate.spec.clone.path is not None
        return await inmate.converse(order.encode(), 60)


async def test_a_call(jails: Jails, actor: Path) -> None:
    outcome = await perform(jails, actor, "say hello")
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"hello")


async def test_a_jail_writes_to_its_clone_and_no_other_sees_it(jails: Jails, actor: Path) -> None:
    for _ in range(3):
        assert (await perform(jails, actor, "mark")).stdout == b"false <nil>"


async def test_mounts(jails: Jails, actor: Path, state_dir: Path) -> None:
    (state_dir / "shared").mkdir()
    (state_dir / "shared/file").write_text("seen")
    outcome = await perform(jails, actor, "read /src/file", (Mount(state_dir / "shared", "/src"),))
    assert outcome.stdout == b"seen<nil>"


async def test_too_much_memory(jails: Jails, actor: Path) -> None:
    enforced = {found.name for found in jails.driver.capabilities() if found.enforced}
    outcome = await perform(jails, actor, "hog 256")
    assert outcome.verdict is (Verdict.out_of_memory if "memory" in enforced else Verdict.ok)


async def test_strays_hold_no_clone(jails: Jails, actor: Path) -> None:
    assert (await perform(jails, actor, "stray")).verdict is Verdict.ok
    await jails.drain()
    assert await jails.clones.existing() == []
