"""The store of compiled binaries: read-only files named by the hash of their content.

A binary is stored before it is recorded, and its record is dropped before it is removed. So a record always
has its file, whenever the island is killed. A file without a record is left of a build that did not end;
nothing says what it is for, and the next start removes it.

Everything here blocks: run it on a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from skyisland.host.folder import copy_out


class Store:
    """Binaries below one folder, as `ab/abcd…`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def prepare(self, hashes: Iterable[str]) -> int:
        """Make the folder, and remove all files but those with `hashes`; returns how many were removed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep = {self.path(sha256) for sha256 in hashes}
        removed = 0
        for folder, _, files in os.walk(self.folder, topdown=False):
            for path in (Path(folder, name) for name in files):
                if path not in keep:
                    path.unlink()
                    removed += 1
            if Path(folder) != self.folder:
                with contextlib.suppress(OSError):  # it holds what is kept
                    Path(folder).rmdir()
        return removed

    def has(self, sha256: str, size_bytes: int) -> bool:
        """Whether the binary is there, with this size."""
        try:
            status = self.path(sha256).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes

    def draft(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for a file that may become one of these; what is left of it the next start removes."""
        return tempfile.TemporaryDirectory(prefix="sky-", dir=self.folder)

    def add(self, binary: Path, limit_bytes: int) -> tuple[str, int]:
        """Copy a binary out of a jail's folder; returns its SHA-256 and its size.

        Raises:
            BuildFailed: it is not there, no regular file, or too large.
        """
        with self.draft() as folder:
            fresh = Path(folder, "binary")
            sha256, size = copy_out(binary, fresh, limit_bytes)
            target = self.path(sha256)
            target.parent.mkdir(exist_ok=True)
            fresh.rename(target)
        return sha256, size

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)
