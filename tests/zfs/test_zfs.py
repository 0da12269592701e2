"""ZFS beyond the contract of clones: generations, leftovers, properties, what is busy.

On stand-ins here, on a real pool where TEST_ZPOOL names one (`make test-zfs`).
"""

from __future__ import annotations

import subprocess

import pytest

from skyisland.drivers.fake import FakeJails
from skyisland.drivers.linux.base import LinuxBase
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.errors import DriverError, HostUnfit
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.host.programs import Programs
from skyisland.jails.register import Jails
from tests.support.zpool import POOL, Host

pytestmark = pytest.mark.zfs


async def test_the_island_keeps_to_its_own_datasets(host: Host) -> None:
    clones = host.clones(ahead=2)
    base = await clones.prepare()
    clone = await clones.clone(base, "sky-c0de-1")
    await clones.destroy(clone)
    await clones.close()
    assert host.names() == ["", "/base", "/base/a", "/base/a@ready", "/run"]


async def test_an_older_generation_goes_with_its_last_clone(host: Host) -> None:
    old = host.clones("a")
    clone = await old.clone(await old.prepare(), "sky-c0de-1")
    new = host.clones("b")
    base = await new.prepare()
    assert "/base/a" in host.names()
    assert clone.path is not None
    assert (clone.path / "etc/generation").read_text() == "a"
    assert (base.path / "etc/generation").read_text() == "b"
    await old.destroy(clone)
    assert "/base/a@ready" not in host.names(), "its destruction was deferred"
    await new.prepare()
    assert host.names() == ["", "/base", "/base/b", "/base/b@ready", "/run"]


@pytest.mark.parametrize("fault", [DriverError("cut off"), OSError(28, "No space left on device")])
async def test_a_base_that_was_half_laid_is_laid_anew(host: Host, fault: Exception) -> None:
    with pytest.raises(DriverError):
        await host.clones(fault=fault).prepare()
    assert "/base/a@ready" not in host.names()
    clones = host.clones()
    base = await clones.prepare()
    clone = await clones.clone(base, "sky-c0de-1")
    assert clone.path is not None
    assert (clone.path / "etc/generation").read_text() == "a"
    await clones.destroy(clone)


async def test_what_an_earlier_life_left_is_swept(host: Host) -> None:
    """Its clones made ahead, too: nobody can tell which of them ran something."""
    dead = host.clones(ahead=2)
    base = await dead.prepare()
    for number in range(3):
        await dead.clone(base, f"sky-c0de-{number}")
    await dead.stocked()
    assert len([name for name in host.names() if name.startswith("/run/")]) == 5
    jails = Jails(FakeJails(), host.clones(), FakeAddresses(), Events(), island="c0de", uids=None)
    assert await jails.prepare() == 5
    await jails.close()
    assert host.names() == ["", "/base", "/base/a", "/base/a@ready", "/run"]


async def test_a_base_that_is_held_stays(host: Host) -> None:
    await host.clones().prepare()
    done = subprocess.run(
        [host.zfs, "destroy", f"{host.pool}/sky-c0de/base/a@ready"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "/base/a@ready" in host.names()


async def test_something_in_the_way_of_a_mount(host: Host) -> None:
    clones = host.clones()
    base = await clones.prepare()
    if host.world:
        with host.world.change() as state:
            state["mount_fails"] = "exit 1"
    else:
        subprocess.run(["zfs", "set", "canmount=noauto", f"{POOL}/sky-c0de/run"], check=True)
        subprocess.run(["zfs", "set", "mountpoint=none", f"{POOL}/sky-c0de/run"], check=True)
    with pytest.raises(DriverError, match="not mounted"):
        await clones.clone(base, "sky-c0de-1")
    await clones.close()
    assert not [name for name in host.names() if name.startswith("/run/")]


async def test_no_such_dataset(host: Host) -> None:
    clones = ZfsClones(
        f"{host.pool}/nowhere",
        "c0de",
        jails=host.folder / "jails",
        bases=host.folder / "bases",
        base=LinuxBase(),
        programs=Programs(host.world.bin if host.world else None),
    )
    with pytest.raises(HostUnfit, match=r"filesystem\.zfs_dataset"):
        await clones.prepare()


async def test_a_dataset_of_somebody_else(host: Host) -> None:
    subprocess.run([host.zfs, "create", f"{host.pool}/sky-c0de"], check=True)
    with pytest.raises(HostUnfit, match="not made by this island"):
        await host.clones().prepare()
    assert host.names() == [""]
