"""Folders that are whole or not there.

What is being made is named `sky-` and sixteen hex digits beside its final place, and takes that place
by one rename; what is to go takes such a name first. So whatever bears one at start was left by an
earlier life. Nothing here follows a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PARTIAL = re.compile(r"sky-[0-9a-f]{16}")


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work on a thread. Who is cancelled meanwhile still waits for its end, then leaves."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({doing})
        doing.exception()
        raise


def open_folder(path: Path) -> None:
    """Make a folder that everyone may read, whatever the umask; fine if it is there."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)


@asynccontextmanager
async def partial(parent: Path) -> AsyncIterator[Path]:
    """A folder to make something in; what was not moved out of it is gone afterwards."""
    path = _unnamed(parent)
    try:
        await aside(open_folder, path)
        yield path
    finally:
        with contextlib.suppress(OSError):
            await aside(delete, path)


def take_place(made: Path, place: Path) -> None:
    """Move what was made in a `partial` folder to its place; what was there goes with that folder."""
    open_folder(place.parent)
    with contextlib.suppress(FileNotFoundError):
        place.rename(made.parent / "replaced")
    made.rename(place)


def remove(path: Path, parent: Path) -> None:
    """Delete a folder with all it holds; at once under its name. Fine if it is not there."""
    doomed = _unnamed(parent)
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
        delete(doomed)


def sweep(parent: Path) -> int:
    """Remove what an earlier life left half-made; how many there were."""
    left = [path for path in parent.iterdir() if _PARTIAL.fullmatch(path.name)]
    for path in left:
        delete(path)
    return len(left)


def delete(folder: Path) -> None:
    """Delete a folder that strangers filled: of any depth, with folders that its owner may not enter.

    Raises:
        OSError
    """
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        _delete_flat(folder)


def _delete_flat(folder: Path) -> None:
    """Move every folder out of the one that holds it before that is deleted, so that no path is long."""
    doomed = [folder]
    while doomed:
        emptied = doomed.pop()
        emptied.chmod(0o700)
        with os.scandir(emptied) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    doomed.append(Path(entry.path).rename(_unnamed(folder.parent)))
                else:
                    os.unlink(entry.path)
        emptied.rmdir()


def _unnamed(parent: Path) -> Path:
    return parent / f"sky-{secrets.token_hex(8)}"
