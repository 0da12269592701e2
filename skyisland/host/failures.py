"""Failures that are answered from memory for a while.

What failed a moment ago fails again: a package that does not compile, a repository that is not there. To try
costs a build or a connection, which whoever asks in a loop would take from others.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable

from skyisland.errors import BadCall, BadRequest, BuildFailed, IslandError, SourceRefused, SourceUnavailable

KINDS = (BadRequest, BuildFailed, SourceRefused, SourceUnavailable)
"""What trying again at once does not mend. Other errors are of this host or this moment."""
LASTING = (BadCall, BuildFailed, SourceRefused)
"""What time alone does not mend: the commit and the settings stay as they are."""
MOST = 500
"""So many failures are kept, the oldest make room: 8 MB, if each has the longest output of a compiler."""


class Failures:
    """Remembers what failed, by what was tried.

        with failures.of(key):
            ...

    runs its block unless that failed less than `keep_s` seconds ago, and remembers how it ends.
    """

    def __init__(self, keep_s: float) -> None:
        """`keep_s`: 0 remembers nothing."""
        self.keep_s = keep_s
        self._failed: dict[Hashable, tuple[float, IslandError]] = {}

    def of(self, key: Hashable, *, anew: bool = False) -> _Attempt:
        """A try of `key`, as a context: entering raises what it failed with last.

        `anew`: try in any case. The error says how old it is (`details["remembered_s"]`).
        """
        return _Attempt(self, key, anew)

    def recall(self, key: Hashable) -> None:
        """Raise the error remembered for `key`, if there is one."""
        at, error = self._failed.get(key, (0.0, None))
        if error is None:
            return
        age_s = time.monotonic() - at
        if age_s >= self.keep_s:
            del self._failed[key]
            return
        remembered = copy.copy(error)
        if not isinstance(error, BadCall):  # trying again mends no call
            age = f"{age_s:.0f} s" if age_s >= 1 else "less than 1 s"
            remembered.message = f"{error.message} (remembered for {age}; cache_bust tries again)"
        remembered.details = {**error.details, "remembered_s": round(age_s, 1)}
        if not isinstance(error, LASTING):
            remembered.retry_after_s = self.keep_s - age_s
        raise remembered

    def note(self, key: Hashable, error: IslandError) -> None:
        """Remember an error, unless it is itself remembered."""
        if self.keep_s and isinstance(error, KINDS) and "remembered_s" not in error.details:
            self._failed.pop(key, None)
            self._failed[key] = (time.monotonic(), copy.copy(error))
            if len(self._failed) > MOST:
                del self._failed[next(iter(self._failed))]

    def forget(self, key: Hashable) -> None:
        self._failed.pop(key, None)


class _Attempt:
    """One try. A class, for a warm call makes one, and @contextmanager takes half a microsecond more."""

    __slots__ = ("_anew", "_failures", "_key")

    def __init__(self, failures: Failures, key: Hashable, anew: bool) -> None:
        self._failures, self._key, self._anew = failures, key, anew

    def __enter__(self) -> None:
        if not self._anew and self._failures._failed:
            self._failures.recall(self._key)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IslandError):
            self._failures.note(self._key, error)
        elif kind is None and self._failures._failed:
            self._failures.forget(self._key)
