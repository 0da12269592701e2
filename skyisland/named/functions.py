"""All that is done with functions that have a name: define, call, move, roll back, pause, see.

A name moves only to what was built: `define`, `move`, `roll_back` and following a branch all compile first,
and the name stands for what it stood for until that is done. A call by name asks no remote: it runs the
commit of the latest revision. Where that follows a branch, a call looks in the background whether the
branch moved, as often as `FOLLOW_S`, and never waits for it. What was rolled back is pinned, or it would
follow its branch right back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from msgspec import UNSET, Raw, Struct, structs

from skyisland.errors import BadRequest, Forbidden, IslandError, NotFound, Paused, TooBusy
from skyisland.golang.callee import parse_handler, understand
from skyisland.golang.conversation import Heard
from skyisland.host.fair import LOCAL
from skyisland.host.tasks import Background
from skyisland.model import (
    Artifact,
    Call,
    Exchange,
    FunctionRequest,
    Invocation,
    Limits,
    NamedCall,
    Resolved,
    Terms,
)
from skyisland.named.definition import (
    Definition,
    Egress,
    Revision,
    check_size,
    checked,
    checked_name,
    secrets_of,
)
from skyisland.named.names import Names, name_not_found, stale
from skyisland.named.secrets import Secrets
from skyisland.named.webhooks import check_signature

log = logging.getLogger(__name__)

FOLLOW_S = 5.0
"""Between two looks at the branch that a name follows. The remote is asked as rarely as for plain calls."""
ISLAND = "island"
"""Who moves a name that follows its branch."""
HASHED_AT_ONCE_BYTES = 256 << 10
"""A longer body is hashed on a thread: this much takes half a millisecond."""
EVERYBODY = "*"
"""Among a name's callers: whoever reaches it."""
_NO_ARGUMENTS = Raw(b"[]")


class Runner(Protocol):
    """What names need of an island."""

    async def build(
        self, url: str, version: str | None, call: Call, *, refresh: bool, client: str = LOCAL
    ) -> tuple[Resolved, Artifact]:
        """What a version means now, compiled. `refresh`: ask the remote."""
        ...

    async def build_at(self, resolved: Resolved, call: Call) -> Artifact:
        """The binary of a commit that is known."""
        ...

    async def invoke(
        self,
        request: FunctionRequest,
        *,
        client: str = LOCAL,
        id: str = "",  # noqa: A002
        caller_id: str = "",
        traceparent: str = "",
        text_only: bool = False,
        heard: Heard | None = None,
        terms: Terms | None = None,
    ) -> Invocation: ...

    def keep_warm(self, name: str, artifact: Artifact | None, limits: Limits | None, number: int) -> None:
        """Have so many warm jails wait for calls of a name, in place of those that waited for it before."""
        ...

    def aim(self, name: str, target_s: float | None) -> None:
        """Calls of a name are slow beyond this time; None for the settings' own."""
        ...

    @property
    def limits(self) -> Limits:
        """Of a jail, where a name has none of its own."""
        ...


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
    running: int
    """Calls under way."""
    trouble: str = ""
    """Why it does not follow its branch to the latest commit; empty if it does."""


class NamedFunctions:
    """The functions of an island that have a name. `start` comes first, `close` last."""

    def __init__(
        self, names: Names, secrets: Secrets, runner: Runner, clock: Callable[[], float] = time.time
    ) -> None:
        self._names, self.secrets, self._runner, self._clock = names, secrets, runner, clock
        self._running: Counter[str] = Counter()
        self._trouble: dict[str, str] = {}
        self._looked: dict[str, float] = {}
        """When a branch was last looked at, by the name that follows it."""
        self._following = Background()

    async def start(self) -> None:
        """Have warm jails made for the names that want them.

        A name whose binary is gone is built again, in the background.
        """
        for revision in self._names.all():
            self._aim(revision)
            if revision.definition.warm.min:
                self._following.start(self._warm_again(revision))

    async def close(self) -> None:
        """Wait until no name is being moved."""
        await self._following.drain()
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
        return self._shown(self._revision(name))

    async def history(self, name: str) -> list[Revision]:
        """Its revisions, latest first.

        Raises:
            NameNotFound
        """
        self._revision(name)
        return await self._names.history(name)

    def _revision(self, name: str) -> Revision:
        if (revision := self._names.get(name)) is None:
            raise name_not_found(name)
        return revision

    def _shown(self, revision: Revision) -> Named:
        name = revision.name
        fields = {field: getattr(revision, field) for field in Revision.__struct_fields__}
        return Named(**fields, running=self._running[name], trouble=self._trouble.get(name, ""))

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
        self._environment(definition)
        current = self._names.get(name)
        latest = current.revision if current is not None else 0
        if revision is not None and revision != latest:
            raise stale(name, latest)
        call = await _call_of(definition)
        resolved, artifact = await self._runner.build(definition.url, definition.version, call, refresh=True)
        await self._check(definition, resolved)
        paused = current is not None and current.paused
        return await self._move(name, latest, definition, resolved, artifact, by, "defined", paused=paused)

    async def move(self, name: str, version: str | None = None, *, by: str = "") -> Named:
        """Move a name to another version, or to where its version points now. It is built first.

        Raises:
            NameNotFound, StaleRevision
            IslandError: as for `define`.
        """
        revision = self._revision(name)
        definition = revision.definition
        if version is not None:
            definition = structs.replace(definition, version=version, pin=False)
        call = await _call_of(definition)
        resolved, artifact = await self._runner.build(definition.url, definition.version, call, refresh=True)
        if definition == revision.definition and resolved.commit == revision.commit:
            return self._shown(revision)
        await self._check(definition, resolved)
        return await self._move(
            name, revision.revision, definition, resolved, artifact, by, "moved", paused=revision.paused
        )

    async def roll_back(self, name: str, to: int | None = None, *, by: str = "") -> Named:
        """Have a name stand for what an earlier revision stood for, at its commit. Without `to`, for the
        latest one that differs from what runs now.

        Raises:
            NameNotFound, StaleRevision
            NotFound: there is no such revision.
            IslandError: its binary is gone and cannot be built again.
        """
        revision = self._revision(name)
        earlier = await self._names.history(name)
        wanted = [
            one
            for one in earlier
            if (one.revision == to if to is not None else _what(one) != _what(revision))
        ]
        if not wanted:
            text = f"revision {to} of {name}" if to is not None else f"other revision of {name}"
            raise NotFound(f"no {text} is kept; GET /api/v1/names/{name}/revisions lists them", name=name)
        target = wanted[0]
        definition = structs.replace(target.definition, pin=True)
        self._environment(definition)
        resolved = _resolved(target)
        artifact = await self._runner.build_at(resolved, await _call_of(definition))
        why = f"rolled back to {target.revision}"
        return await self._move(
            name, revision.revision, definition, resolved, artifact, by, why, paused=revision.paused
        )

    async def pause(self, name: str, *, paused: bool, by: str = "") -> Named:
        """Refuse calls of a name from now on, or take them again.

        Raises:
            NameNotFound, StaleRevision
        """
        revision = self._revision(name)
        if revision.paused == paused:
            return self._shown(revision)
        why = "paused" if paused else "resumed"
        return await self._put(revision, by=by, why=why, paused=paused)

    async def delete(self, name: str) -> None:
        """Forget a name and its history.

        Raises:
            NameNotFound
        """
        await self._names.delete(name, self._revision(name).revision)
        self._forget(name)
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
        )
        await self._names.put(revision)
        self._forget(name)
        self._warm(revision, artifact)
        self._aim(revision)
        return self._shown(revision)

    async def _check(self, definition: Definition, resolved: Resolved) -> None:
        """Look in a jail whether there is a handler, where one is wanted: the compiler takes any value.

        Raises:
            BadCall: there is another kind of thing.
            IslandError: it cannot be looked.
        """
        if definition.handler:
            request = request_of(definition, resolved.commit, NamedCall())
            terms = Terms(resolved=resolved, exchange=Exchange(request=b""))
            await self._runner.invoke(request, terms=terms)

    async def _put(self, revision: Revision, **changes: object) -> Named:
        changed = structs.replace(revision, revision=revision.revision + 1, at=self._clock(), **changes)
        await self._names.put(changed)
        return self._shown(changed)

    def _forget(self, name: str) -> None:
        self._trouble.pop(name, None)
        self._looked.pop(name, None)

    def _aim(self, revision: Revision) -> None:
        slo = revision.definition.slo
        self._runner.aim(revision.name, slo.latency_ms / 1000 if slo is not None else None)

    def _warm(self, revision: Revision, artifact: Artifact) -> None:
        definition = revision.definition
        self._runner.keep_warm(revision.name, artifact, self._limits(definition), definition.warm.min)

    async def _warm_again(self, revision: Revision) -> None:
        try:
            call = await _call_of(revision.definition)
            self._warm(revision, await self._runner.build_at(_resolved(revision), call))
        except IslandError as error:
            log.warning("no warm jails for %s: %s", revision.name, error.message)

    def _limits(self, definition: Definition) -> Limits | None:
        return definition.limits.over(self._runner.limits) if definition.limits is not None else None

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

    # Calls

    async def call(
        self,
        name: str,
        asked: NamedCall,
        *,
        who: str = "",
        client: str = LOCAL,
        id: str = "",  # noqa: A002
        caller_id: str = "",
        traceparent: str = "",
        text_only: bool = False,
        heard: Heard | None = None,
    ) -> Invocation:
        """Run the function that has this name. `who`: the name of the token that the caller showed; the rest
        is as for a plain call.

        Raises:
            NameNotFound, Paused
            Forbidden: another's token may call it.
            TooBusy: as many of its calls run as may.
            IslandError: as for a plain call.
        """
        revision = self._revision(name)
        _check_function(revision)
        with self._admitted(revision, who):
            return await self._runner.invoke(
                request_of(revision.definition, revision.commit, asked),
                client=client,
                id=id,
                caller_id=caller_id,
                traceparent=traceparent,
                text_only=text_only,
                heard=heard,
                terms=self._terms(revision),
            )

    def asked_for(self, name: str, asked: NamedCall, *, who: str) -> FunctionRequest:
        """What a call of the name would run now.

        Raises:
            NameNotFound
            Forbidden: another's token may call it.
        """
        revision = self._revision(name)
        _check_function(revision)
        _check_caller(revision, who)
        return request_of(revision.definition, revision.commit, asked)

    def handler(self, name: str) -> Definition:
        """What a name stands for that answers requests.

        Raises:
            NameNotFound
            BadRequest: it is a function.
        """
        definition = self._revision(name).definition
        if not definition.handler:
            raise BadRequest(f"{name} is a function; POST /api/v1/names/{name} calls it", name=name)
        return definition

    async def check_signature(self, name: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Check who sent a handler this, where it has a webhook. `headers` have names in lower case.

        Raises:
            Forbidden: nobody who knows the secret.
        """
        webhook = self.handler(name).webhook
        if webhook is None:
            return
        ((_, secret),) = self.secrets.values({"": webhook.secret})
        if len(body) <= HASHED_AT_ONCE_BYTES:
            check_signature(webhook.scheme, secret, headers, body)
        else:
            await asyncio.to_thread(check_signature, webhook.scheme, secret, headers, body)

    async def answer(
        self,
        name: str,
        exchange: Exchange,
        *,
        who: str = "",
        client: str = LOCAL,
        id: str = "",  # noqa: A002
        caller_id: str = "",
        traceparent: str = "",
    ) -> Invocation:
        """Have the handler that has this name answer a request.

        Raises:
            As `call` does.
        """
        self.handler(name)
        revision = self._revision(name)
        with self._admitted(revision, who):
            return await self._runner.invoke(
                request_of(revision.definition, revision.commit, NamedCall()),
                client=client,
                id=id,
                caller_id=caller_id,
                traceparent=traceparent,
                terms=structs.replace(self._terms(revision), exchange=exchange),
            )

    @contextmanager
    def _admitted(self, revision: Revision, who: str) -> Iterator[None]:
        """Count one more call for the length of the block."""
        name, definition = revision.name, revision.definition
        _check_caller(revision, who)
        if revision.paused:
            raise Paused(f"{name} is paused by an admin; try again later", name=name)
        if definition.concurrency and self._running[name] >= definition.concurrency:
            raise TooBusy(f"{name} has {definition.concurrency} calls under way", retry_after_s=1, name=name)
        self._follow(revision)
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]

    def _terms(self, revision: Revision) -> Terms:
        definition = revision.definition
        return Terms(
            name=revision.name,
            resolved=_resolved(revision),
            environment=self._environment(definition),
            secrets=tuple(value for _, value in self.secrets.values(definition.secrets)),
            limits=self._limits(definition),
            timeout_s=definition.timeout_s,
        )

    def _environment(self, definition: Definition) -> tuple[tuple[str, str], ...]:
        """Variables with their values, secrets among them.

        Raises:
            NotFound: a secret is not there.
            BadRequest: they are too long together.
        """
        if definition.webhook is not None:
            self.secrets.values({"": definition.webhook.secret})
        environment = (*definition.env.items(), *self.secrets.values(definition.secrets))
        check_size(environment)
        return environment

    # Following a branch

    def _follow(self, revision: Revision) -> None:
        """Look in the background whether the branch moved, unless somebody just did."""
        if not revision.follows:
            return
        now = self._clock()
        if now - self._looked.get(revision.name, 0.0) >= FOLLOW_S:
            self._looked[revision.name] = now
            self._following.start(self._catch_up(revision))

    async def _catch_up(self, revision: Revision) -> None:
        """Move a name to where its branch is now, if that compiles."""
        name, definition = revision.name, revision.definition
        try:
            call = await _call_of(definition)
            resolved, artifact = await self._runner.build(
                definition.url, definition.version, call, refresh=False
            )
            if resolved.commit != revision.commit:
                await self._check(definition, resolved)
                await self._move(
                    name,
                    revision.revision,
                    definition,
                    resolved,
                    artifact,
                    ISLAND,
                    "followed",
                    paused=revision.paused,
                )
                log.info("%s follows its branch to %s", name, resolved.commit)
        except IslandError as error:
            if self._trouble.get(name) != error.message:
                log.warning("%s stays at %s: %s", name, revision.commit, error.message)
            self._trouble[name] = error.message
        except Exception:
            log.exception("%s cannot follow its branch", name)
        else:
            self._trouble.pop(name, None)


def request_of(definition: Definition, commit: str, asked: NamedCall) -> FunctionRequest:
    """The plain call that a call by name stands for."""
    args = asked.args
    if definition.handler:
        return FunctionRequest(
            url=definition.url,
            call=definition.handler,
            ip4=definition.egress is Egress.address,
            version=commit,
        )
    if args is UNSET and asked.inputs is UNSET and definition.function not in ("", "main"):
        args = _NO_ARGUMENTS
    return FunctionRequest(
        url=definition.url,
        call=definition.function,
        args=args,
        inputs=asked.inputs,
        types=definition.types,
        ip4=definition.egress is Egress.address,
        version=commit,
        stdin=asked.stdin,
        stdin_base64=asked.stdin_base64,
        cold=asked.cold,
    )


def _check_function(revision: Revision) -> None:
    if revision.definition.handler:
        name = revision.name
        raise BadRequest(f"{name} is a handler; send requests to /fn/{name}", name=name)


def _check_caller(revision: Revision, who: str) -> None:
    callers = revision.definition.callers
    if revision.definition.webhook is not None:
        return  # the signature says who it is
    if callers and who not in callers and EVERYBODY not in callers:
        text = f"{revision.name} is not for {who or 'callers without a token'}"
        raise Forbidden(text, name=revision.name)


async def _call_of(definition: Definition) -> Call:
    if definition.handler:
        return parse_handler(definition.handler)
    return await understand(request_of(definition, "", NamedCall()))


def _resolved(revision: Revision) -> Resolved:
    """What runs, without asking anybody."""
    return Resolved(
        url=revision.repository,
        package=revision.package,
        commit=revision.commit,
        version=revision.definition.version,
        named=revision.named,
    )


def _what(revision: Revision) -> tuple[object, ...]:
    """What of a revision makes a difference to its calls."""
    return structs.replace(revision.definition, pin=False, version=None), revision.commit
