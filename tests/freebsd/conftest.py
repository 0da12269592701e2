"""What needs a real FreeBSD is not there without one (`make test-freebsd`)."""

from __future__ import annotations

from tests.support import freebsd_host

collect_ignore = []
if not freebsd_host.POOL:
    collect_ignore += ["test_whole_island.py"]
