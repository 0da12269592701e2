"""Host uids that are lent to one jail at a time, on this host and not only in this island.

Two islands may have the same range, by the same settings. So whoever takes a uid locks the byte of that
number in a file that all islands of the host share. The kernel drops the locks of a process that is killed.
Where islands do not see each other's file (in containers of their own), they need ranges of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from skyisland.errors import DriverError

LOCKS = Path("/run/skyisland-uids" if Path("/run").is_dir() else "/var/run/skyisland-uids")
"""The file: its folder is root's, and empty after a boot."""
_FLOCK = "hhqqi4x"
"""struct flock of 64-bit Linux: type, whence, start, length, pid (asm-generic/fcntl.h)."""


class Uids:
    """The uids of one island."""

    def __init__(self, uids: Iterable[int], locks: Path | None = None) -> None:
        """`locks`: the file of all islands; None to share with nobody. It is opened when it is first needed.

        The uid below the lowest stands for the range: whoever uses it has a lock there that can be shared.
        """
        self._range = frozenset(uids)
        self._locks = locks
        self._fd = -1
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for uid in sorted(self._range):
            self._free.put_nowait(uid)

    def __contains__(self, uid: int | None) -> bool:
        return uid in self._range

    def enter(self) -> bool:
        """Tell others that the range is used, until `close`; whether nobody else does. Does not wait."""
        alone = self.alone()
        self._lock(min(self._range) - 1, fcntl.F_RDLCK)
        return alone

    def alone(self) -> bool:
        """Whether no other island uses a uid of the range; True where the system does not tell."""
        if self._locks is None or not hasattr(fcntl, "F_OFD_GETLK"):
            return True
        first = min(self._range) - 1
        request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, first, max(self._range) - first + 1, 0)
        holder = fcntl.fcntl(self._opened(self._locks), fcntl.F_OFD_GETLK, request)
        return int(struct.unpack(_FLOCK, holder)[0]) == fcntl.F_UNLCK

    async def take(self) -> int:
        """A uid that nobody else has; waits for one of ours. Two system calls at most, which do not wait.

        Raises:
            DriverError: all that we have left are another island's at the moment.
        """
        for _ in range(max(1, self._free.qsize())):
            uid = await self._free.get()
            if self._lock(uid, fcntl.F_WRLCK):
                return uid
            self._free.put_nowait(uid)
        raise DriverError(
            "all uids of jails.uid_start and jails.uid_count are used by another island of this host; "
            "give each island a range of its own"
        )

    def give_back(self, uid: int) -> None:
        self._lock(uid, fcntl.F_UNLCK)
        self._free.put_nowait(uid)

    def _lock(self, uid: int, kind: int) -> bool:
        """Whether the lock could be changed. Without a file there is none."""
        if self._locks is None:
            return True
        fd = self._opened(self._locks)
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):  # of the descriptor, not of the process
                lock = struct.pack(_FLOCK, kind, os.SEEK_SET, uid, 1, 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
            else:
                at_once = {fcntl.F_RDLCK: fcntl.LOCK_SH, fcntl.F_WRLCK: fcntl.LOCK_EX}
                # LOCK_UN never waits, and `lockf` knows it by itself alone.
                how = at_once[kind] | fcntl.LOCK_NB if kind in at_once else fcntl.LOCK_UN
                fcntl.lockf(fd, how, 1, uid)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _opened(self, locks: Path) -> int:
        if self._fd < 0:
            try:
                self._fd = os.open(locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise DriverError(f"cannot open {locks}, where uids are locked: {error.strerror}") from error
        return self._fd

    def close(self) -> None:
        """Give all back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
