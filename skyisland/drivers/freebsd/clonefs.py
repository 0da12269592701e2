"""Files and folders that root puts into a clone from outside, before its jail runs.

Each folder of a path is opened relative to the descriptor of its parent, and no symbolic link is followed.
So no link in the base, or left by a function, can lead root's writes out of the clone. These functions block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skyisland.errors import DriverError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_folder(root: Path, target: str) -> Path:
    """Make the folder at the absolute path `target` inside the clone at `root`, unless it exists.

    Returns its path on the host.

    Raises:
        DriverError: a part of the path exists and is no folder.
    """
    with _inside(root, target):
        return root / target.lstrip("/")


def place_file(root: Path, target: str, content: Path | bytes, mode: int = 0o555) -> None:
    """Write a file to the absolute path `target` inside the clone at `root`; replace an existing one.

    `content`: the bytes, or the path of a file of the host to copy.

    Raises:
        DriverError: a folder has that path, the source cannot be read, or the clone is full.
    """
    folder, _, name = target.rpartition("/")
    with _inside(root, folder) as parent:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(name, flags, mode, dir_fd=parent), "wb") as copy:
                if isinstance(content, bytes):
                    copy.write(content)
                else:
                    with content.open("rb") as original:
                        shutil.copyfileobj(original, copy, 1 << 20)
                os.fchmod(copy.fileno(), mode)
        except OSError as error:
            raise DriverError(f"cannot make {target} in a clone: {error.strerror}") from error


@contextmanager
def _inside(root: Path, target: str) -> Iterator[int]:
    """Make the folder `target` below `root`, and yield its descriptor."""
    parts = [part for part in target.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise DriverError(f"{target!r} is no place for a mount")
    opened: list[int] = []
    try:
        opened.append(os.open(root, _FOLDER))
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=opened[-1])
            opened.append(os.open(part, _FOLDER, dir_fd=opened[-1]))
    except OSError as error:
        for fd in opened:
            os.close(fd)
        raise DriverError(f"cannot make {target} in a clone: {error.strerror}") from error
    try:
        yield opened[-1]
    finally:
        for fd in opened:
            os.close(fd)
