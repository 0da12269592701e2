"""Names that follow a branch: when somebody looks whether it moved, and what came of it.

A call of a name has somebody look (`glance`), and never waits for it; a push that the repository's server
tells of (`pushes`) has somebody look at once (`look`). Of a name there is one look at a time, and where a
push came meanwhile, one more after it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from skyisland.errors import IslandError, NameNotFound, StaleRevision
from skyisland.host.tasks import Background
from skyisland.named.definition import Revision
from skyisland.named.names import Names, current

log = logging.getLogger(__name__)

FOLLOW_S = 5.0
"""Between two glances at the branch that a name follows. The remote is asked as rarely as for plain calls."""

MOST_TOLD = 100
"""Pushes that are told what one look found; of more, the latest."""

CatchUp = Callable[[Revision, str], Awaitable[str]]
"""Moves a name to where its branch is, if that is elsewhere and compiles; `why`, for its history. Returns the
commit of the branch."""
Told = Callable[[str, str], Awaitable[None]]
"""Told the commit that a branch is at, and why the name is not there; empty if it is."""


class Following:
    """Has names follow their branches. `close` it."""

    def __init__(self, names: Names, catch_up: CatchUp, clock: Callable[[], float]) -> None:
        self._names, self._catch_up, self._clock = names, catch_up, clock
        self._trouble: dict[str, str] = {}
        self._glanced: dict[str, float] = {}
        """When a branch was last glanced at, by the name that follows it."""
        self._looking: dict[str, list[Told]] = {}
        """Names that are looked at, with whom to tell after the next look."""
        self.background = Background()

    async def close(self) -> None:
        """Wait until no name is being moved."""
        await self.background.drain()

    def trouble(self, name: str) -> str:
        """Why a name does not follow its branch to the latest commit; empty if it does."""
        return self._trouble.get(name, "")

    def forget(self, name: str) -> None:
        """It stands for something else."""
        self._trouble.pop(name, None)
        self._glanced.pop(name, None)

    def glance(self, revision: Revision) -> None:
        """Look in the background whether the branch moved, unless somebody just did."""
        if not revision.follows:
            return
        now = self._clock()
        if now - self._glanced.get(revision.name, 0.0) >= FOLLOW_S:
            self._glanced[revision.name] = now
            if revision.name not in self._looking:
                self._looking[revision.name] = []
                self.background.start(self._look(revision.name, "followed"))

    def look(self, name: str, told: Told) -> None:
        """Look in the background where the branch is that a name follows, and tell."""
        if name in self._looking:
            waiting = self._looking[name]
            waiting.append(told)
            del waiting[:-MOST_TOLD]
            return
        self._looking[name] = [told]
        self.background.start(self._look(name, "pushed"))

    async def _look(self, name: str, why: str) -> None:
        try:
            while True:
                told, self._looking[name] = self._looking[name], []
                commit, trouble = await self._looked(name, why)
                for tell in told:
                    await tell(commit, trouble)
                if not self._looking[name]:
                    return
                why = "pushed"
        finally:
            del self._looking[name]

    async def _looked(self, name: str, why: str) -> tuple[str, str]:
        """Move a name to where its branch is now, if that compiles; tells where, or why not."""
        stays = ""
        try:
            revision = current(self._names, name)
            stays = revision.commit
            commit = await self._catch_up(revision, why)
        except NameNotFound:
            return "", "the name is gone"
        except StaleRevision:
            log.info("%s was moved by somebody else meanwhile", name)
            revision = self._names.get(name) or revision
            return revision.commit, ""
        except IslandError as error:
            if self._trouble.get(name) != error.message:
                log.warning("%s stays at %s: %s", name, stays, error.message)
            self._trouble[name] = error.message
            return "", error.message
        except Exception:
            log.exception("%s cannot follow its branch", name)
            return "", "the island failed; its log says why"
        self._trouble.pop(name, None)
        return commit, ""
