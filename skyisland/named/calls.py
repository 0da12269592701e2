"""Calls of functions with a name, and requests to handlers: who may, how many at a time, on what terms.

A call asks no remote and nothing of the disk: what a name stands for, and its secrets, are in memory.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import structs

from skyisland.errors import BadRequest, Forbidden, NotFound, Paused, TooBusy
from skyisland.golang.conversation import Heard
from skyisland.host.fair import LOCAL
from skyisland.model import Exchange, FunctionRequest, Invocation, Limits, NamedCall, Terms
from skyisland.named.definition import Definition, Revision, check_size, secrets_of
from skyisland.named.names import Names, current, stale
from skyisland.named.runner import Runner, request_of, resolved_of
from skyisland.named.schedule import client_of
from skyisland.named.secrets import Secrets
from skyisland.named.webhooks import check_signature

HASHED_AT_ONCE_BYTES = 256 << 10
"""A longer body is hashed on a thread: this much takes half a millisecond."""
PAUSED_AGAIN_S = 5.0
"""When to ask again for a paused name. So late a call that waits for it begins once it is resumed."""
EVERYBODY = "*"
"""Among a name's callers: whoever reaches it."""


class NamedCalls:
    """Runs them, and counts those under way."""

    def __init__(
        self, names: Names, secrets: Secrets, runner: Runner, admitted: Callable[[Revision], None]
    ) -> None:
        """`admitted`: called with what each call runs."""
        self._names, self._secrets, self._runner, self._follow = names, secrets, runner, admitted
        self._running: Counter[str] = Counter()

    def running(self, name: str) -> int:
        """Calls of a name that are under way."""
        return self._running[name]

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
        repeatable: bool = False,
        behind: bool = False,
    ) -> Invocation:
        """Run the function that has this name. `who`: the name of the token that the caller showed; the rest
        is as for a plain call.

        Raises:
            NameNotFound, Paused
            Forbidden: another's token may call it.
            TooBusy: as many of its calls run as may.
            IslandError: as for a plain call.
        """
        revision = current(self._names, name)
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
                repeatable=repeatable,
                behind=behind,
            )

    def asked_for(self, name: str, asked: NamedCall, *, who: str) -> FunctionRequest:
        """What a call of the name would run now.

        Raises:
            NameNotFound
            Forbidden: another's token may call it.
        """
        revision = current(self._names, name)
        _check_function(revision)
        _check_caller(revision, who)
        return request_of(revision.definition, revision.commit, asked)

    def check(self, name: str, *, who: str, later: bool) -> None:
        """Refuse whom an earlier answer of the name is not for any more. `later`: its call may wait.

        Raises:
            NameNotFound, Paused
            Forbidden: another's token may call it.
        """
        revision = current(self._names, name)
        _check_caller(revision, who)
        if revision.paused and not later:
            raise _paused(name)

    def handler(self, name: str) -> Definition:
        """What a name stands for that answers requests.

        Raises:
            NameNotFound
            BadRequest: it is a function.
        """
        definition = current(self._names, name).definition
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
        ((_, secret),) = self._secrets.values({"": webhook.secret})
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
        revision = current(self._names, name)
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
            raise _paused(name)
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
            revision=revision.revision,
            resolved=resolved_of(revision),
            environment=self.environment(definition),
            secrets=self._given(definition),
            limits=self.limits(definition),
            timeout_s=definition.timeout_s,
        )

    def terms_at(self, name: str, number: int) -> Terms:
        """The terms of a call that another island of the fleet admitted.

        Raises:
            NotFound: there is no such name here, or one of its secrets is not.
            StaleRevision: it stands for something else here.
        """
        revision = current(self._names, name)
        if revision.revision != number:
            raise stale(name, revision.revision)
        return self._terms(revision)

    async def able(self, name: str) -> bool:
        """Whether this island has the secrets of a name; if not, another one of its fleet may. Of a name that
        nobody has any more, too: that is the call's to find."""
        if self._names.get(name) is None:
            await self._names.refresh()
        revision = self._names.get(name)
        return revision is None or self._secrets.has(secrets_of(revision.definition))

    def secrets_of(self, name: str) -> tuple[str, ...]:
        """What a call of the name would be given now and nobody is shown; none where it cannot run."""
        try:
            return self._given(current(self._names, name).definition)
        except NotFound:
            return ()

    def _given(self, definition: Definition) -> tuple[str, ...]:
        """Values of secrets, the longest first: one may be a part of another."""
        values = (value for _, value in self._secrets.values(definition.secrets))
        return tuple(sorted(values, key=len, reverse=True))

    def environment(self, definition: Definition) -> tuple[tuple[str, str], ...]:
        """Variables with their values, secrets among them.

        Raises:
            NotFound: a secret is not there.
            BadRequest: they are too long together.
        """
        for signed in (definition.webhook, definition.push):
            if signed is not None:
                self._secrets.values({"": signed.secret})
        environment = (*definition.env.items(), *self._secrets.values(definition.secrets))
        check_size(environment)
        return environment

    def limits(self, definition: Definition) -> Limits | None:
        """Of its jails, in place of the island's; None for those."""
        return definition.limits.over(self._runner.limits) if definition.limits is not None else None


def _paused(name: str) -> Paused:
    text = f"{name} is paused by an admin; try again later"
    return Paused(text, retry_after_s=PAUSED_AGAIN_S, name=name)


def _check_function(revision: Revision) -> None:
    if revision.definition.handler:
        name = revision.name
        raise BadRequest(f"{name} is a handler; send requests to /fn/{name}", name=name)


def _check_caller(revision: Revision, who: str) -> None:
    callers = revision.definition.callers
    if revision.definition.webhook is not None:
        return  # the signature says who it is
    if callers and who not in (*callers, client_of(revision.name)) and EVERYBODY not in callers:
        text = f"{revision.name} is not for {who or 'callers without a token'}"
        raise Forbidden(text, name=revision.name)
