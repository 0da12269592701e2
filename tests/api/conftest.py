"""An island with an API, and its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.api import ADMIN, World, make_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A started island with an API."""
    made = make_world()
    await made.island.start()
    yield made
    await made.island.stop()
    assert made.driver.alive == {}


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the function."""
    async with world.client() as client:
        yield client


@pytest.fixture
async def admin(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A caller who shows the token."""
    async with world.client(headers=ADMIN) as client:
        yield client
