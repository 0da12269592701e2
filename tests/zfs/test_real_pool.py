"""What only a real pool can tell; collected where TEST_ZPOOL names one (`make test-zfs`)."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from skyisland.errors import DriverError
from tests.support.zpool import Host

pytestmark = pytest.mark.zfs


async def test_a_quota_ends_a_clone_that_writes_too_much(host: Host) -> None:
    clones = host.clones(quota_bytes=8 << 20)
    clone = await clones.clone(await clones.prepare(), "sky-c0de-1")
    assert clone.path is not None
    with pytest.raises(OSError, match="quota"):
        await asyncio.to_thread(write_much, clone.path / "tmp/much")
    await clones.destroy(clone)


def write_much(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())


async def test_properties(host: Host) -> None:
    clones = host.clones(compression=True)
    clone = await clones.clone(await clones.prepare(), "sky-c0de-1")
    assert clone.path is not None
    words = ["zfs", "get", "-Hpo", "property,value", "sync,atime,setuid,devices,exec,compression,quota"]
    said = subprocess.run(
        [*words, f"{clones.run_dataset}/{clone.path.name}"], capture_output=True, text=True, check=True
    )
    assert dict(line.split("\t") for line in said.stdout.splitlines()) == {
        "sync": "disabled",
        "atime": "off",
        "setuid": "off",
        "devices": "off",
        "exec": "on",
        "compression": "on",
        "quota": str(256 << 20),
    }
    options = Path("/proc/mounts").read_text()
    line = next(line for line in options.splitlines() if str(clone.path) in line)
    assert {"nosuid", "nodev", "noatime"} <= set(line.split()[3].split(","))
    await clones.destroy(clone)


async def test_a_clone_that_somebody_sits_in_goes_when_they_leave(host: Host) -> None:
    clones = host.clones(busy_timeout_s=60)
    clone = await clones.clone(await clones.prepare(), "sky-c0de-1")
    assert clone.path is not None
    sitting = subprocess.Popen(["sleep", "1000"], cwd=clone.path)  # noqa: ASYNC220 - it is quick
    try:
        with pytest.raises(DriverError, match=r"busy.*tried again in the background"):
            await clones.destroy(clone)
        assert await clones.existing() != []
    finally:
        sitting.kill()
        sitting.wait()
    await asyncio.gather(*clones.destroyer.retrying.values())
    assert await clones.existing() == []
    assert not clone.path.exists()


async def test_many_ends_at_once_are_one_channel_program(host: Host) -> None:
    clones = host.clones()
    base = await clones.prepare()
    made = [await clones.clone(base, f"sky-c0de-{n}") for n in range(8)]
    busy = made[3]
    assert busy.path is not None
    with (busy.path / "tmp/open").open("w"):
        ends = await asyncio.gather(*(clones.destroy(clone) for clone in made), return_exceptions=True)
    assert sum(isinstance(end, BaseException) for end in ends) <= 1
    await asyncio.gather(*clones.destroyer.retrying.values())
    assert await clones.existing() == []
    assert list((host.folder / "jails").iterdir()) == []
