"""What every test shares: a watch on the event loop, and a state folder that jails can enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

import skyisland


def _package(name: str) -> ModuleType:
    """A stand-in that tells BlockBuster where a package lies, without the cost of importing it."""
    module = ModuleType(name)
    module.__path__ = [str(Path(skyisland.__file__).parents[1] / name) + os.sep]
    return module


OURS = [_package(name) for name in ("skyisland", "api", "tui")]


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Makes our own blocking calls on a running event loop fail: one blocked loop freezes API and console.

    Calls made by a test itself, by pytest or by asyncio on their own account may block. Allow a call
    below ours only where a library leaves no choice, with `blockbuster.functions[…].can_block_in(…)`.
    """
    with blockbuster_ctx(OURS) as watch:
        yield watch


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state folder which an unprivileged uid may traverse (pytest's own tmp_path is 0700)."""
    folder = Path(tempfile.mkdtemp(prefix="sky-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    _open_up(folder)
    shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    """Gives an ordinary user the right to delete what lies in read-only folders (Go's module cache)."""
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o700)
