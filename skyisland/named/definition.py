"""What a name stands for: as an admin defines it, and as it is kept, one revision after another.

A `Definition` enters by `PUT /api/v1/names/NAME`. A `Revision` is a definition at one commit that was built,
with who made it so and why. The latest one counts; the number is its ETag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, structs

from skyisland.errors import BadRequest
from skyisland.model import Limits
from skyisland.named.schedule import Schedule
from skyisland.named.webhooks import PUSHERS, Scheme

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""A name stands in URLs, in labels of metrics and on screens: 64 characters, none that any of them quotes."""
SECRET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
"""A secret's name is that of a file."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
RESERVED = frozenset({"HOME", "USER", "GOMEMLIMIT", "GOMAXPROCS"})
"""What Go's runtime has read before a frame comes (`golang.runtime`): to set it later would mislead."""
ENVIRONMENT_BYTES = 64 << 10
"""Environment and secrets of one name together. A judgement: a key for TLS has 3 KiB, and with all the
escapes of JSON they fit into a frame beside the longest call."""
MOST_WARM = 100
"""Warm jails of one name. `jails.warm` bounds those of all."""

Text = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=32 << 10)]


class Egress(StrEnum):
    """The network of a name's jails."""

    none = "none"
    address = "address"
    """An address of the pool, as `ip4` of a plain call."""


class Ceilings(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Limits of a name's jails, each in place of the island's."""

    memory_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] | None = None
    cpus: Annotated[float, Meta(gt=0, le=1024)] | None = None
    """Cores: 0.5 is half of one."""
    cpu_time_s: Annotated[float, Meta(gt=0, le=86400)] | None = None
    """Processor time of a call."""
    pids: Annotated[int, Meta(ge=1, le=1 << 22)] | None = None
    """Processes and threads; Go needs about ten."""
    stdout_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] | None = None
    """What a call may print, or a handler answer."""

    def given(self) -> dict[str, float]:
        """Those that are set, by their fields."""
        return {name: value for name, value in structs.asdict(self).items() if value is not None}

    def over(self, limits: Limits) -> Limits:
        """These limits in place of others."""
        return structs.replace(limits, **self.given())


class Warm(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Jails that are made ahead of calls."""

    min: Annotated[int, Meta(ge=0, le=MOST_WARM)] = 0
    """So many wait even when nobody calls."""


class Objective(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What operators want of a name; the figures say what share of its calls kept it."""

    latency_ms: Annotated[float, Meta(gt=0)]
    """A call that ended well within this time kept it."""
    target: Annotated[float, Meta(gt=0, le=1)] = 0.99
    """The share of calls that should."""


class Webhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may send a handler requests, or tell of pushes: whoever signs them."""

    scheme: Scheme
    secret: Text
    """The name of the secret that signs."""


class Definition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a name stands for; field by field the body of PUT /api/v1/names/NAME."""

    url: Annotated[str, Meta(max_length=2048)]
    """Repository, and the package in it, as in a plain call."""
    function: Annotated[str, Meta(max_length=200)] = ""
    """The bare name of a function: `Encode`. Without it, or `main`, the package is run as a program."""
    handler: Annotated[str, Meta(max_length=200)] = ""
    """In place of a function: the name of a http.Handler, of a `func(http.ResponseWriter, *http.Request)`, or
    of a function that returns one. It answers ANY /fn/NAME."""
    types: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=16)] = ()
    """Type arguments of a generic function."""
    version: Annotated[str, Meta(max_length=255)] | None = None
    """Branch, tag or commit; the default branch without it."""
    pin: bool = False
    """Stay at the commit that the version means now. Else a branch is followed."""
    verify: bool = False
    """Move only to what passes the package's own Examples (Go's, with `// Output:`)."""
    env: dict[Text, Value] = {}
    """Environment variables of the function."""
    secrets: dict[Text, Text] = {}
    """Environment variables whose values are secrets: by variable, the secret's name."""
    limits: Ceilings | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=86400)] | None = None
    """How long a call may run; the island's limit without it."""
    egress: Egress = Egress.none
    callers: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    """The names of the tokens that may call it; without any, whoever may call functions; `*` for everybody,
    also where functions take a token."""
    webhook: Webhook | None = None
    """Of a handler: the island checks the signature of each request, which then needs no token."""
    concurrency: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """Calls of it at one time; one more is refused with 429. 0 for no limit of its own."""
    warm: Warm = Warm()
    slo: Objective | None = None
    schedule: Schedule | None = None
    """When it is called by itself."""
    push: Webhook | None = None
    """Who tells of pushes to its repository, by POST /api/v1/names/NAME/push: GitHub, Gitea or GitLab."""


class DefinitionBody(Definition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /api/v1/names/NAME."""


class SecretBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /api/v1/secrets/SECRET."""

    value: Annotated[str, Meta(max_length=32 << 10)]

    def __repr__(self) -> str:
        return "<a secret>"


class MoveBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/names/NAME/move."""

    version: Annotated[str, Meta(max_length=255)] | None = None
    """Branch, tag or commit; without it, where the version of the definition points now."""
    follow: bool = False
    """A name that is pinned, or was rolled back, follows its branch again."""


class RollbackBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/names/NAME/rollback."""

    revision: Annotated[int, Meta(ge=1)] | None = None
    """The one to go back to; without it, the latest that differs from what runs."""


def checked_name(name: str) -> str:
    """The name, if it can be one.

    Raises:
        BadRequest
    """
    if not NAME.fullmatch(name):
        raise BadRequest(
            "name: up to 64 characters of a-z, 0-9, dot, dash and underscore; letters or digits at its ends",
            field="name",
        )
    return name


def checked(definition: Definition) -> Definition:
    """The definition, if it contradicts neither itself nor the way in which functions run.

    Raises:
        BadRequest: names the field and the remedy.
    """
    for field, variables in (("env", definition.env), ("secrets", definition.secrets)):
        for variable in variables:
            if not VARIABLE.fullmatch(variable):
                text = (
                    f"{field}: {variable!r} is no name of an environment variable; take letters, digits and _"
                )
                raise BadRequest(text, field=field)
            if variable in RESERVED:
                text = f"{field}: {variable} is the island's own; set limits instead, or name it otherwise"
                raise BadRequest(text, field=field)
    if twice := sorted(definition.env.keys() & definition.secrets.keys()):
        raise BadRequest(f"env and secrets both set {twice[0]}; set it once", field="env")
    for variable, value in definition.env.items():
        if "\0" in value:
            raise BadRequest(f"env: the value of {variable} holds NUL, which no variable can", field="env")
    for secret in secrets_of(definition):
        if not SECRET.fullmatch(secret):
            raise BadRequest(f"secrets: {secret!r} can be no secret's name", field="secrets")
    check_size(definition.env.items())
    if definition.webhook is not None and not definition.handler:
        raise BadRequest("webhook: only a handler has one; name the handler", field="webhook")
    if definition.push is not None and definition.push.scheme not in PUSHERS:
        raise BadRequest(f"push: {', '.join(PUSHERS)} tell of pushes", field="push")
    if definition.schedule is not None and definition.handler:
        text = "schedule: a handler answers requests; name a function, or a program, to be called by itself"
        raise BadRequest(text, field="schedule")
    if definition.handler:
        for field in ("function", "types"):
            if getattr(definition, field):
                raise BadRequest(f"{field}: a name stands for a function or a handler; name one", field=field)
    elif definition.function in ("", "main"):
        for field in ("env", "secrets", "types"):
            if getattr(definition, field):
                raise BadRequest(f"{field}: a program takes none; name a function or a handler", field=field)
    return definition


def secrets_of(definition: Definition) -> set[str]:
    """The names of the secrets that it has."""
    signs = {one.secret for one in (definition.webhook, definition.push) if one is not None}
    return signs | {*definition.secrets.values()}


def check_size(environment: Iterable[tuple[str, str]]) -> None:
    """Check that variables and their values fit into a frame.

    Raises:
        BadRequest
    """
    if sum(len(name) + len(value.encode()) for name, value in environment) > ENVIRONMENT_BYTES:
        text = f"env: with the secrets longer than {ENVIRONMENT_BYTES} bytes; send large data as stdin"
        raise BadRequest(text, field="env")


class Revision(Struct, frozen=True, kw_only=True):
    """What a name stood for from one moment on."""

    name: str
    revision: int
    """Counts from 1, one for each change of the name."""
    definition: Definition
    repository: str
    """The repository's canonical name: `github.com/user/repo`."""
    package: str
    """Folder of the package below the repository, empty for its root."""
    commit: str
    """What runs: it was built before the name moved here."""
    named: bool = True
    """A branch or a tag of the repository named the commit; see `model.Resolved.named`."""
    at: float
    """Seconds since the epoch."""
    by: str
    """The name of the admin's token; `island` where the name followed its branch."""
    why: str
    """`defined`, `moved`, `followed`, `pushed`, `rolled back to 3`, `paused` or `resumed`."""
    paused: bool = False
    """Calls are refused."""
    verified: int = 0
    """So many of the package's Examples passed before the name moved here."""

    @property
    def follows(self) -> bool:
        """Whether it moves when its branch does."""
        return not self.definition.pin
