"""The doctor on this host, which runs all the other tests and so must be well."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    assert found["programs"].found == f"programs in {state_dir} may run"
    assert found["overlay"].found == f"uid {JAIL_UID} may mount an overlay over {state_dir}"
    name = f"sky-doctor-{os.getpid()}"
    assert await asyncio.to_thread(Kernel().find, "/sys/fs/cgroup", name) == []


def inside(script: str, code: str, *arguments: str) -> dict[str, Any]:
    """What Python prints, as JSON, in a mount namespace of its own that a shell has prepared."""
    words = ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh"]
    done = subprocess.run([*words, sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_state_folder_that_is_mounted_noexec_is_told(state_dir: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from msgspec.structs import asdict; "
        "from skyisland.doctor import executable; print(json.dumps(asdict(executable(Path(sys.argv[1])))))"
    )
    check = inside(f"mount -t tmpfs -o noexec sky {state_dir}", code, str(state_dir / "not/yet"))
    assert check == {
        "name": "programs",
        "ok": False,
        "found": f"the file system of {state_dir} is mounted noexec, so nothing compiled there can run",
        "remedy": f"mount -o remount,exec {state_dir}, or set state_dir to another file system",
        "vital": True,
    }


def test_a_host_without_setpriv_is_told() -> None:
    code = (
        "import json; from msgspec import structs; from skyisland.cli.examining import _git_user; "
        "print(json.dumps(structs.asdict(_git_user(1900000001))))"
    )
    check = inside("for each in $(which -a setpriv); do mount --bind /dev/null $each; done", code)
    assert (check["ok"], check["remedy"]) == (False, "install util-linux")
    assert check["found"].startswith(
        "setpriv is missing (package util-linux): uid 1900000001 may gain rights"
    )
    assert check["found"].endswith("keeps all of root's")


def test_root_without_the_right_to_mount_takes_bubblewrap() -> None:
    code = (
        "import json; from skyisland import choosing; from skyisland.settings import Settings; "
        "toolchains = choosing.toolchains_for(Settings(), ''); "
        "chosen = choosing.examiners(Settings(), None, toolchains, full=False)[0]; "
        "print(json.dumps([choosing.chosen_driver(Settings()), chosen._launcher is None, chosen._lacking]))"
    )
    words = ["setpriv", "--bounding-set=-sys_admin", "--", sys.executable, "-c", code]
    assert json.loads(subprocess.check_output(words)) == ["bubblewrap", True, True]
