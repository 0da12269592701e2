"""A stranger's folder, read without ever leaving it.

A repository may hold links, and the island may be root: a link to `/etc/shadow`, opened by its path, would be
read. A `Tree` opens one name after another below the folder's descriptor and never lets the kernel follow a
link (O_NOFOLLOW). It follows links itself, and only while they stay in the tree. What a link out of the tree
points to is never opened, stat'ed or told apart from what does not exist.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_LINKS = 40
"""Links followed on the way to one name, as many as Linux follows (path_resolution(7))."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Tree:
    """The files below a folder. Names are relative to it, with `/`; every method blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        """The first `limit_bytes` of a plain file; None for anything else, and for what is not there."""
        with self._opened(name) as fd:
            if fd is None or not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            with os.fdopen(os.dup(fd), "rb") as file:
                return file.read(limit_bytes)

    def is_file(self, name: str) -> bool:
        with self._opened(name) as fd:
            return fd is not None and stat.S_ISREG(os.fstat(fd).st_mode)

    def names(self, folder: str) -> list[str] | None:
        """What a folder holds, in no order; None if there is no such folder in the tree."""
        with self._opened(folder) as fd:
            if fd is None or not stat.S_ISDIR(os.fstat(fd).st_mode):
                return None
            return os.listdir(fd)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int | None]:
        """A descriptor of what `name` leads to; None if it leads to nothing in the tree."""
        walked: list[int] = [os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            yield walked[-1] if _walk(walked, name) else None
        finally:
            for fd in walked:
                os.close(fd)


def _walk(walked: list[int], name: str) -> bool:
    """Open `name` step by step, each onto the end of `walked`; whether it led to something in the tree."""
    links = 0
    to_walk = name.split("/")[::-1]
    while to_walk:
        step = to_walk.pop()
        if step in ("", "."):
            continue
        if step == "..":
            if len(walked) == 1:
                return False
            os.close(walked.pop())
            continue
        try:
            target = _link_target(step, walked[-1])
            if target is None:
                walked.append(os.open(step, _FLAGS, dir_fd=walked[-1]))
                continue
        except OSError:
            # Not there, not a folder on the way, a name too long, a socket: nothing that can be read.
            return False
        links += 1
        if target.startswith("/") or links > MAX_LINKS:
            return False
        to_walk += target.split("/")[::-1]
    return True


def _link_target(name: str, folder: int) -> str | None:
    """Where a symbolic link points; None for what is no link."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
