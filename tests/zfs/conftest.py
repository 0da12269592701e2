"""Without a pool there is nothing to collect that needs one."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("TEST_ZPOOL") else ["test_pool.py"]
