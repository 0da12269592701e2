"""What needs a pool, or a kernel with all that jails need, is collected where there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.zpool import POOL, Host, clear

LINUX = sys.platform.startswith("linux")
collect_ignore = []
if not POOL:
    collect_ignore += ["test_real_pool.py", "test_jails_on_zfs.py"]
elif not LINUX or "Seccomp:" not in Path("/proc/self/status").read_text():
    collect_ignore += ["test_jails_on_zfs.py"]


@pytest.fixture
def host(state_dir: Path) -> Iterator[Host]:
    made = Host(state_dir)
    yield made
    if POOL:
        clear(f"{POOL}/sky-c0de")
