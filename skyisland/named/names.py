"""What the room of names gives, whatever keeps them, and the driver that keeps them in memory.

A change names the revision that it follows, and is refused if another came first: so two admins, or two
islands, never overwrite each other unseen. `get` and `all` wait for nothing: a call by name asks them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from skyisland.errors import NameNotFound, StaleRevision
from skyisland.named.definition import Revision
from skyisland.named.schedule import Fired

KEPT = 100
"""Revisions of a name that are kept, the latest. A judgement: nobody rolls back further."""


class Names(Protocol):
    """Keeps the revisions of names."""

    def get(self, name: str) -> Revision | None:
        """What the name stands for now."""
        ...

    def all(self) -> list[Revision]:
        """What every name stands for now, by name."""
        ...

    async def put(self, revision: Revision) -> None:
        """Keep one; on disk, where there is one, before this returns.

        Raises:
            StaleRevision: it does not follow the latest; nothing is changed.
            DriverError, Unavailable: it cannot be written; nothing is changed.
        """
        ...

    async def history(self, name: str) -> list[Revision]:
        """The revisions of a name that are kept, latest first; none where there is no such name."""
        ...

    async def delete(self, name: str, latest: int) -> None:
        """Forget a name with all of its revisions, of which `latest` is the last, and its schedule.

        Raises:
            NameNotFound
            StaleRevision: another one is the last.
            DriverError, Unavailable: it cannot be written; nothing is changed.
        """
        ...

    def follow(self, changed: Callable[[str], None]) -> None:
        """Call this with each name that others changed, where islands keep their names together."""
        ...

    async def refresh(self) -> None:
        """Learn what others changed, up to now; nothing, if they cannot be asked."""
        ...

    async def fired(self, name: str) -> Fired | None:
        """How far the schedule of a name has come, as it was last noted by anybody.

        Raises:
            Unavailable: who keeps that cannot be asked.
        """
        ...

    async def note_fired(self, name: str, fired: Fired | None) -> None:
        """Note how far it is, on disk before this returns; None: there is no schedule any more. Nothing is
        noted of a name that stands for nothing.

        Raises:
            DriverError, Unavailable: it cannot be written; nothing is changed.
        """
        ...

    async def close(self) -> None:
        """May be repeated."""
        ...


def check_follows(current: Revision | None, number: int, name: str) -> None:
    """Check that a change follows what there is; 1 follows nothing.

    Raises:
        NameNotFound, StaleRevision
    """
    latest = current.revision if current is not None else 0
    if number == latest + 1:
        return
    if current is None:
        raise name_not_found(name)
    raise stale(name, latest)


def stale(name: str, latest: int) -> StaleRevision:
    """The error of a change that came too late."""
    text = f'{name} is at revision {latest} now; look at what changed, and send If-Match: "{latest}"'
    if latest == 0:
        text = f"nothing has the name {name} now; send If-None-Match: * in place of If-Match"
    return StaleRevision(text, name=name, revision=latest)


def name_not_found(name: str) -> NameNotFound:
    """The error of a name that stands for nothing."""
    return NameNotFound(f"no function has the name {name!r}; GET /api/v1/names lists them", name=name)


def current(names: Names, name: str) -> Revision:
    """What a name stands for now.

    Raises:
        NameNotFound
    """
    if (revision := names.get(name)) is None:
        raise name_not_found(name)
    return revision


class MemoryNames:
    """Keeps names in memory. For tests: with the island they are gone."""

    def __init__(self) -> None:
        self._revisions: dict[str, list[Revision]] = {}
        self._fired: dict[str, Fired] = {}

    def get(self, name: str) -> Revision | None:
        revisions = self._revisions.get(name)
        return revisions[-1] if revisions else None

    def all(self) -> list[Revision]:
        return [self._revisions[name][-1] for name in sorted(self._revisions)]

    async def put(self, revision: Revision) -> None:
        check_follows(self.get(revision.name), revision.revision, revision.name)
        kept = self._revisions.setdefault(revision.name, [])
        kept.append(revision)
        del kept[:-KEPT]

    async def history(self, name: str) -> list[Revision]:
        return self._revisions.get(name, [])[::-1]

    async def delete(self, name: str, latest: int) -> None:
        check_follows(self.get(name), latest + 1, name)
        if latest == 0:
            raise name_not_found(name)
        del self._revisions[name]
        self._fired.pop(name, None)

    async def fired(self, name: str) -> Fired | None:
        return self._fired.get(name)

    async def note_fired(self, name: str, fired: Fired | None) -> None:
        self._fired.pop(name, None)
        if fired is not None and name in self._revisions:
            self._fired[name] = fired

    def follow(self, changed: Callable[[str], None]) -> None:
        pass  # nobody else has it

    async def refresh(self) -> None:
        pass

    async def close(self) -> None:
        pass
