"""The builds that failed last, each until the same binary is built after all."""

from __future__ import annotations

from skyisland.events import BuildFinished, Events

MOST = 20
"""A judgement: who looks for more of them finds the calls that wanted them, in history."""


class FailedBuilds:
    """Follows the events, and remembers the latest failed build of each binary."""

    def __init__(self, events: Events) -> None:
        self._failed: dict[str, BuildFinished] = {}
        events.tap(self.note, BuildFinished)

    def note(self, end: BuildFinished) -> None:
        """Take in the end of a build."""
        self._failed.pop(end.key, None)
        if not end.ok:
            self._failed[end.key] = end
            if len(self._failed) > MOST:
                del self._failed[next(iter(self._failed))]

    def latest(self) -> tuple[BuildFinished, ...]:
        """Newest first."""
        return tuple(reversed(self._failed.values()))
