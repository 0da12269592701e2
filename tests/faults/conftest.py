"""The islands of the host tests, for faults."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HOST = Path(__file__).parents[1] / "host"

# A conftest has no name of its own to import it by.
_found = importlib.util.spec_from_file_location("host_fixtures", HOST / "conftest.py")
assert _found is not None
assert _found.loader is not None
_fixtures = importlib.util.module_from_spec(_found)
sys.modules["host_fixtures"] = _fixtures
_found.loader.exec_module(_fixtures)

host_dir = _fixtures.host_dir
repositories = _fixtures.repositories
prepared = _fixtures.prepared
rewrite = _fixtures.rewrite
make_daemon = _fixtures.make_daemon
daemon = _fixtures.daemon
settings = _fixtures.settings
