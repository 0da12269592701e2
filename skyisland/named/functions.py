"""What is done with functions that have a name: define, move, roll back, pause, see. Calls are in `calls`.

A name moves only to what was built: `define`, `move`, `roll_back` and following a branch all compile first,
and the name stands for what it stood for until that is done. A call by name asks no remote: it runs the
commit of the latest revision. Where that follows a branch, calls and pushes have somebody look whether the
branch moved (`following`). What was rolled back is pinned, or it would follow its branch right back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec import Struct, structs

from skyisland.errors import BadRequest, IslandError, NotFound
from skyisland.golang.callee import command_line
from skyisland.host.tasks import aside
from skyisland.model import Artifact, Exchange, NamedCall, Resolved, Terms
from skyisland.named.calls import NamedCalls
from skyisland.named.definition import Definition, Revision, checked, checked_name, secrets_of
from skyisland.named.firing import Schedules
from skyisland.named.following import Following
from skyisland.named.names import Names, current, stale
from skyisland.named.pushes import Pushed, Pushes
from skyisland.named.runner import Runner, call_of, request_of, resolved_of
from skyisland.named.schedule import Scheduled, asked_by, checked_schedule
from skyisland.named.secrets import Secrets
from skyisland.named.verified import count_passed
from skyisland.status import ByItself, ScheduleFigures

log = logging.getLogger(__name__)

ISLAND = "island"
"""Who moves a name that follows its branch."""


class Named(Struct, frozen=True, kw_only=True):
    """A name as it is now, for operators."""

    name: str
    revision: int
    definition: Definition
    repository: str
    package: str
    commit: str
    named: bool
    at: float
    by: str
    why: str
    paused: bool
    verified: int
    running: int
    """Calls under way."""
    trouble: str = ""
    """Why it does not follow its branch to the latest commit; empty if it does."""
    scheduled: Scheduled | None = None
    """How its schedule goes; None without one."""
    pushed: Pushed | None = None
    """The latest push that it was told of, since the island runs."""


class NamedFunctions:
    """The functions of an island that have a name. `start` comes first, `close` last."""

    def __init__(
        self, names: Names, secrets: Secrets, runner: Runner, clock: Callable[[], float] = time.time
    ) -> None:
        self._names, self.secrets, self._runner, self._clock = names, secrets, runner, clock
        self._following = Following(names, self._catch_up, clock)
        self.calls = NamedCalls(names, secrets, runner, self._following.glance)
        self.pushes = Pushes(names, secrets, runner, self._following, clock)
        self.schedules = Schedules(names, clock)
        """Start them when calls can be kept."""

    async def start(self) -> None:
        """Have warm jails made for the names that want them.

        A name whose binary is gone is built again, in the background.
        """
        self._names.follow(self._changed)
        for revision in self._names.all():
            self._aim(revision)
            if revision.definition.warm.min:
                self._following.background.start(self._warm_again(revision))

    def _changed(self, name: str) -> None:
        """Another island of the fleet changed a name."""
        self._following.forget(name)
        revision = self._names.get(name)
        if revision is None:
            self._drop(name)
            return
        self._aim(revision)
        if revision.definition.warm.min:
            self._following.background.start(self._warm_again(revision))
        else:
            self._runner.keep_warm(name, None, None, 0)

    async def close(self) -> None:
        """Wait until no name is being moved."""
        await self.schedules.close()
        await self._following.close()
        await self._names.close()

    # What there is

    def all(self) -> list[Named]:
        """Every name."""
        return [self._shown(revision) for revision in self._names.all()]

    def get(self, name: str) -> Named:
        """One name.

        Raises:
            NameNotFound
        """
        return self._shown(current(self._names, name))

    async def history(self, name: str) -> list[Revision]:
        """Its revisions, latest first.

        Raises:
            NameNotFound
        """
        current(self._names, name)
        return await self._names.history(name)

    def _shown(self, revision: Revision) -> Named:
        name = revision.name
        fields = {field: getattr(revision, field) for field in Revision.__struct_fields__}
        return Named(
            **fields,
            running=self.calls.running(name),
            trouble=self._following.trouble(name),
            scheduled=self.schedules.shown(revision),
            pushed=self.pushes.latest(name),
        )

    def by_itself(self) -> ByItself:
        """How schedules and pushes go."""
        schedules = [
            ScheduleFigures(
                name=one.name,
                next=one.scheduled.next[0] if one.scheduled.next else None,
                last=one.scheduled.last,
                calls=one.scheduled.calls,
                missed=one.scheduled.missed,
                skipped=one.scheduled.skipped,
                waits=bool(one.scheduled.trouble),
            )
            for one in self.all()
            if one.scheduled is not None
        ]
        return ByItself(
            schedules=schedules, pushes={str(state): n for state, n in self.pushes.counted.items()}
        )

    # Changes

    async def define(
        self, name: str, definition: Definition, *, by: str = "", revision: int | None = None
    ) -> Named:
        """Have a name stand for this from now on, once it is built.

        `revision`: the one that the admin has seen, 0 for none; without it, whatever there is is replaced.

        Raises:
            BadRequest, NotFound: the definition is wrong, or names a secret that is not there.
            StaleRevision: another revision came first.
            IslandError: it cannot be fetched or built. In each case the name stays as it was.
        """
        checked_name(name)
        checked(definition)
        self.calls.environment(definition)
        await _check_schedule(definition)
        before = self._names.get(name)
        latest = before.revision if before is not None else 0
        if revision is not None and revision != latest:
            raise stale(name, latest)
        call = await call_of(definition)
        resolved, artifact = await self._runner.build(definition.url, definition.version, call, refresh=True)
        verified = await self._check(definition, resolved)
        paused = before is not None and before.paused
        return await self._move(
            name, latest, definition, resolved, artifact, by, "defined", paused=paused, verified=verified
        )

    async def move(
        self, name: str, version: str | None = None, *, follow: bool = False, by: str = ""
    ) -> Named:
        """Move a name to another version, or to where its version points now. It is built first.

        A name that is pinned, or was rolled back, stays so without a version, unless it is to `follow` its
        branch again.

        Raises:
            NameNotFound, StaleRevision
            IslandError: as for `define`.
        """
        revision = current(self._names, name)
        definition = revision.definition
        if version is not None:
            definition = structs.replace(definition, version=version)
        if version is not None or follow:
            definition = structs.replace(definition, pin=False)
        call = await call_of(definition)
        resolved, artifact = await self._runner.build(definition.url, definition.version, call, refresh=True)
        if definition == revision.definition and resolved.commit == revision.commit:
            return self._shown(revision)
        verified = await self._check(definition, resolved)
        return await self._move(
            name,
            revision.revision,
            definition,
            resolved,
            artifact,
            by,
            "moved",
            paused=revision.paused,
            verified=verified,
        )

    async def roll_back(self, name: str, to: int | None = None, *, by: str = "") -> Named:
        """Have a name stand for what an earlier revision stood for, at its commit. Without `to`, for the
        latest one that differs from what runs now.

        Raises:
            NameNotFound, StaleRevision
            NotFound: there is no such revision.
            IslandError: its binary is gone and cannot be built again.
        """
        revision = current(self._names, name)
        earlier = await self._names.history(name)
        wanted = [
            one
            for one in earlier
            if (one.revision == to if to is not None else what_runs(one) != what_runs(revision))
        ]
        if not wanted:
            text = f"revision {to} of {name}" if to is not None else f"other revision of {name}"
            raise NotFound(f"no {text} is kept; GET /api/v1/names/{name}/revisions lists them", name=name)
        target = wanted[0]
        definition = structs.replace(target.definition, pin=True)
        self.calls.environment(definition)
        resolved = resolved_of(target)
        artifact = await self._runner.build_at(resolved, await call_of(definition))
        why = f"rolled back to {target.revision}"
        return await self._move(
            name,
            revision.revision,
            definition,
            resolved,
            artifact,
            by,
            why,
            paused=revision.paused,
            verified=target.verified,
        )

    async def pause(self, name: str, *, paused: bool, by: str = "") -> Named:
        """Refuse calls of a name from now on, or take them again.

        Raises:
            NameNotFound, StaleRevision
        """
        revision = current(self._names, name)
        if revision.paused == paused:
            return self._shown(revision)
        why = "paused" if paused else "resumed"
        shown = await self._put(revision, by=by, why=why, paused=paused)
        if not paused:
            self._runner.resumed(name)
        return shown

    async def delete(self, name: str) -> None:
        """Forget a name and its history.

        Raises:
            NameNotFound
        """
        await self._names.delete(name, current(self._names, name).revision)
        self._following.forget(name)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self.pushes.forget(name)
        self._runner.keep_warm(name, None, None, 0)
        self._runner.aim(name, None)

    async def _move(
        self,
        name: str,
        latest: int,
        definition: Definition,
        resolved: Resolved,
        artifact: Artifact,
        by: str,
        why: str,
        *,
        paused: bool,
        verified: int,
    ) -> Named:
        revision = Revision(
            name=name,
            revision=latest + 1,
            definition=definition,
            repository=resolved.url,
            package=resolved.package,
            commit=resolved.commit,
            named=resolved.named,
            at=self._clock(),
            by=by,
            why=why,
            paused=paused,
            verified=verified,
        )
        await self._names.put(revision)
        await self.schedules.changed(revision)
        self._following.forget(name)
        self._warm(revision, artifact)
        self._aim(revision)
        return self._shown(revision)

    async def _check(self, definition: Definition, resolved: Resolved) -> int:
        """Look in jails whether what was built does what it is for: is a handler one (the compiler takes any
        value), do the Examples pass where that is wanted? Returns how many do.

        Raises:
            BadCall: it is no handler.
            BuildFailed: an Example fails, or there is none.
            IslandError: it cannot be looked.
        """
        request = request_of(definition, resolved.commit, NamedCall())
        if definition.handler:
            await self._runner.invoke(request, terms=Terms(resolved=resolved, exchange=Exchange(request=b"")))
        if not definition.verify:
            return 0
        done = await self._runner.invoke(request, terms=Terms(resolved=resolved, examples=True))
        return count_passed(done.outcome)

    async def _put(self, revision: Revision, **changes: object) -> Named:
        changed = structs.replace(revision, revision=revision.revision + 1, at=self._clock(), **changes)
        await self._names.put(changed)
        await self.schedules.changed(changed)
        return self._shown(changed)

    def _aim(self, revision: Revision) -> None:
        slo = revision.definition.slo
        self._runner.aim(revision.name, slo.latency_ms / 1000 if slo is not None else None)

    def _warm(self, revision: Revision, artifact: Artifact) -> None:
        definition = revision.definition
        self._runner.keep_warm(revision.name, artifact, self.calls.limits(definition), definition.warm.min)

    async def _warm_again(self, revision: Revision) -> None:
        try:
            call = await call_of(revision.definition)
            self._warm(revision, await self._runner.build_at(resolved_of(revision), call))
        except IslandError as error:
            log.warning("no warm jails for %s: %s", revision.name, error.message)

    # Secrets

    async def delete_secret(self, secret: str) -> None:
        """Forget a secret that no name has any more.

        Raises:
            NotFound: there is none of this name.
            BadRequest: a name has it.
        """
        if users := [one.name for one in self._names.all() if secret in secrets_of(one.definition)]:
            text = f"secret: {users[0]} has {secret}; define {users[0]} without it first"
            raise BadRequest(text, field="secret")
        await self.secrets.delete(secret)

    # Following a branch

    async def _catch_up(self, revision: Revision, why: str) -> str:
        """Move a name to where its branch is now, if that compiles; returns the branch's commit.

        Raises:
            IslandError: it stays where it is.
        """
        definition = revision.definition
        call = await call_of(definition)
        resolved, artifact = await self._runner.build(definition.url, definition.version, call, refresh=False)
        if resolved.commit != revision.commit:
            verified = await self._check(definition, resolved)
            await self._move(
                revision.name,
                revision.revision,
                definition,
                resolved,
                artifact,
                ISLAND,
                why,
                paused=revision.paused,
                verified=verified,
            )
            log.info("%s follows its branch to %s", revision.name, resolved.commit)
        return resolved.commit


async def _check_schedule(definition: Definition) -> None:
    """Check when a name is to be called by itself, and with what, as far as that can be told now.

    Raises:
        BadRequest
    """
    if definition.schedule is not None:
        await aside(checked_schedule, definition.schedule)
        request = request_of(definition, "", asked_by(definition.schedule))
        if definition.function in ("", "main"):
            command_line(request)


def what_runs(revision: Revision) -> tuple[object, ...]:
    """What of a revision makes a difference to its calls."""
    return structs.replace(revision.definition, pin=False, version=None), revision.commit
