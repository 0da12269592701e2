"""A build room for the tests of builds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.workshop import Workshop, opened


@pytest.fixture
async def shop(state_dir: Path) -> AsyncIterator[Workshop]:
    async with opened(state_dir) as workshop:
        yield workshop
