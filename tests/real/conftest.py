"""Repositories with their servers, and a build room."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from skyisland.host import outbound
from tests.support.buildroom import Workshop, make_proxy
from tests.support.buildroom import opened as opened_builds
from tests.support.daemon import copy_of
from tests.support.upstream import FORGE, Repository, Server, backend

collect_ignore = []
if not os.environ.get("TEST_ZPOOL"):
    collect_ignore += ["test_zfs_island.py"]

# Repositories to fetch, and their servers


@pytest.fixture
def repository(state_dir: Path) -> Repository:
    repository = Repository(state_dir / "srv/user/repo")
    repository.commit(a_go="package a\n")
    return repository


@pytest.fixture
def mirrored(state_dir: Path) -> dict[str, str]:
    return {"https://github.com/": f"file://{state_dir}/srv/"}


@pytest.fixture
def served(state_dir: Path, repository: Repository) -> Iterator[Server]:
    with Server(backend(state_dir / "srv")) as server:
        yield server


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of this host that counts as one of the Internet; the others do not. See `forge_lookup`."""
    monkeypatch.setattr(outbound, "is_public", lambda asked, _: asked == FORGE)
    return FORGE


# Builds


@pytest.fixture(scope="session")
def gocache(prepared: Path, host_dir: Path) -> Path:
    copy_of(prepared / "gocache", host_dir / "gocache-of-builds")
    return host_dir / "gocache-of-builds"


@pytest.fixture
async def shop(state_dir: Path, gocache: Path) -> AsyncIterator[Workshop]:
    async with opened_builds(state_dir, gocache) as workshop:
        yield workshop


@pytest.fixture
def proxy(state_dir: Path) -> str:
    return make_proxy(state_dir / "proxy")
