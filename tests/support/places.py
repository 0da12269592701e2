"""Where things lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The project, from which its modules run: `python -m tests.support.subject`."""
CACHE = ROOT / ".cache"
"""What outlives a run of the tests."""
