"""Folders that are whole or not there.

A folder is made under a temporary name (`sky-` and sixteen hex digits) beside its final place, and takes that
place by one rename; before a folder is deleted, it gets such a name. So a temporary name that is there at
start was left by an island that was killed. Nothing here follows a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from skyisland.errors import BuildFailed
from skyisland.host.tasks import aside

COPY_BYTES = 1 << 20
"""Read and written at a time: few system calls, little memory."""
LAID_OUT_BYTES = 4096
"""A block of most file systems. What is smaller, an empty file or a folder, takes as much: an inode, a name,
its part of the tables."""
_TEMPORARY = re.compile(r"sky-[0-9a-f]{16}")


def open_folder(path: Path) -> None:
    """Make a folder that everyone may read, whatever the umask; one that exists is made readable."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)


@asynccontextmanager
async def partial(parent: Path) -> AsyncIterator[Path]:
    """A temporary folder below `parent`, deleted after the block with whatever was not moved out of it."""
    path = _temporary(parent)
    try:
        await aside(open_folder, path)
        yield path
    finally:
        with contextlib.suppress(OSError):
            await aside(delete, path)


def take_place(draft: Path, place: Path) -> None:
    """Move `draft`, which lies in a `partial` folder, to its place. What was at that place is moved into the
    `partial` folder, and deleted with it."""
    if not place.parent.is_dir():
        open_folder(place.parent)
    with contextlib.suppress(FileNotFoundError):
        place.rename(draft.parent / "replaced")
    draft.rename(place)


def remove(path: Path, parent: Path) -> None:
    """Delete a folder with all it holds, if it is there; its name is free at once. `parent`: of the same file
    system, for the temporary name."""
    doomed = _temporary(parent)
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
        delete(doomed)


def sweep(parent: Path) -> int:
    """Delete temporary folders that a killed island left; returns how many there were."""
    left = [path for path in parent.iterdir() if _TEMPORARY.fullmatch(path.name)]
    for path in left:
        delete(path)
    return len(left)


def delete(folder: Path) -> None:
    """Delete a folder that strangers filled: nested to any depth, with folders that its owner may not enter.

    Raises:
        OSError: the host refuses.
    """
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        _delete_flat(folder)


def _delete_flat(folder: Path) -> None:
    """Delete it without recursion and without a path longer than the kernel takes: each folder in it is first
    moved up beside it."""
    doomed = [folder]
    while doomed:
        emptied = doomed.pop()
        emptied.chmod(0o700)
        with os.scandir(emptied) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    doomed.append(Path(entry.path).rename(_temporary(folder.parent)))
                else:
                    os.unlink(entry.path)
        emptied.rmdir()


def laid_out(size_bytes: int) -> int:
    """What a file or folder of this size takes on disk: whole blocks, and one at least."""
    return max(1, -(-size_bytes // LAID_OUT_BYTES)) * LAID_OUT_BYTES


def size_of(folder: Path) -> int:
    """Bytes of disk that a folder takes with all below it (`laid_out`); 0 if there is none. Blocks.

    Strangers may be at work in it: what vanishes meanwhile or cannot be entered counts as empty, and folders
    may be nested deeper than Python's stack.
    """
    total, unseen = 0, [os.fspath(folder)]
    while unseen:
        try:
            with os.scandir(unseen.pop()) as entries:
                total += LAID_OUT_BYTES
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        unseen.append(entry.path)
                    else:
                        total += laid_out(_bytes_of(entry))
        except OSError:
            continue
    return total


def _bytes_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def copy_out(binary: Path, target: Path, limit_bytes: int) -> tuple[str, int]:
    """Copy a file that a jail wrote into one of ours, mode 0555; returns its SHA-256 and size.

    The jail may have made anything of the name: a link is not followed, a pipe not waited for.

    Raises:
        BuildFailed: it is not there, no regular file, or larger than `limit_bytes`.
    """
    try:
        source = os.open(binary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BuildFailed(f"the build left no binary: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(source).st_mode):
        os.close(source)
        raise BuildFailed("the build left something that is no file")
    with open(source, "rb") as reader:
        digest, size = hashlib.sha256(), 0
        fresh = target.with_name(f"sky-{target.name}")
        with fresh.open("wb") as writer:
            while chunk := reader.read(COPY_BYTES):
                size += len(chunk)
                if size > limit_bytes:
                    raise BuildFailed(f"the binary is larger than {limit_bytes} bytes (build.file_size)")
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
    fresh.chmod(0o555)
    fresh.rename(target)
    return digest.hexdigest(), size


def _temporary(parent: Path) -> Path:
    return parent / f"sky-{secrets.token_hex(8)}"
