"""What needs a pool, or a kernel with all that jails need, is collected where there is one."""

from __future__ import annotations

import os
from pathlib import Path

collect_ignore = []
if not os.environ.get("TEST_ZPOOL"):
    collect_ignore += ["test_pool.py", "test_jails_on_zfs.py"]
elif "Seccomp:" not in Path("/proc/self/status").read_text():
    collect_ignore += ["test_jails_on_zfs.py"]
