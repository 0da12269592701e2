"""The doctor on this host, which runs all the other tests and so must be well."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from skyisland.doctor import examine
from skyisland.drivers.linux.cgroup.hierarchy import Kernel
from skyisland.drivers.linux.checks import LinuxChecks
from skyisland.drivers.linux.launching import Launcher
from skyisland.host.toolchain import Toolchains

pytestmark = [pytest.mark.host, pytest.mark.root]

JAIL_UID = 1_900_000_000


async def test_nothing_vital_is_missing(state_dir: Path) -> None:
    toolchains = Toolchains(state_dir)
    launcher = Launcher(state_dir / "launcher", toolchains)
    linux = LinuxChecks(state_dir, uid=JAIL_UID, launcher=launcher)
    checks = await examine(state_dir=state_dir, uid=JAIL_UID, toolchains=toolchains, examiners=[linux])
    found = {check.name: check for check in checks}
    assert [check for check in checks if not check.ok] == []
    assert {"git", "go", "launcher", "bubblewrap", "user_namespaces", "overlay", "seccomp"} <= found.keys()
    assert {"memory", "pids", "cpu", "path to the state folder", "path to bwrap", "disk"} <= found.keys()
    assert found["overlay"].found == f"uid {JAIL_UID} may mount an overlay over {state_dir}"
    name = f"sky-doctor-{os.getpid()}"
    assert await asyncio.to_thread(Kernel().find, "/sys/fs/cgroup", name) == []
