"""Functions with a name, and their secrets: what operators see of them, and what admins do.

Calls of names are in `function`. Whoever changes something is in the log (`audit`); a secret's value is in no
answer, and in no line of the log.
"""

from __future__ import annotations

from quart import Quart, g, request

from api.routes import answers, audit
from skyisland import operations as op
from skyisland.errors import BadRequest
from skyisland.island import Island
from skyisland.named.definition import (
    Definition,
    DefinitionBody,
    MoveBody,
    Revision,
    RollbackBody,
    SecretBody,
)
from skyisland.named.functions import Named

NEW = 0
"""The revision of a name that stands for nothing."""


def names(app: Quart, island: Island) -> None:
    """Names and their revisions."""
    named = island.named

    @answers(app, op.NAMES)
    async def listing() -> list[Named]:
        return named.all()

    @answers(app, op.NAME)
    async def one(name: str) -> Named:
        return named.get(name)

    @answers(app, op.REVISIONS)
    async def revisions(name: str) -> list[Revision]:
        return await named.history(name)

    @answers(app, op.DEFINE)
    async def define(name: str, body: DefinitionBody) -> Named:
        fields = {field: getattr(body, field) for field in Definition.__struct_fields__}
        now = await named.define(name, Definition(**fields), by=g.who.name, revision=_expected())
        audit("defined %s as %s of %s", name, body.handler or body.function or "main", body.url)
        return now

    @answers(app, op.FORGET)
    async def forget(name: str) -> str:
        await named.delete(name)
        audit("deleted the name %s", name)
        return name

    @answers(app, op.MOVE)
    async def move(name: str, body: MoveBody) -> Named:
        now = await named.move(name, body.version, follow=body.follow, by=g.who.name)
        audit("moved %s to %s", name, now.commit)
        return now

    @answers(app, op.ROLL_BACK)
    async def roll_back(name: str, body: RollbackBody) -> Named:
        now = await named.roll_back(name, body.revision, by=g.who.name)
        audit("%s: %s, commit %s", name, now.why, now.commit)
        return now

    @answers(app, op.PAUSE)
    async def pause(name: str) -> Named:
        now = await named.pause(name, paused=True, by=g.who.name)
        audit("paused %s", name)
        return now

    @answers(app, op.RESUME)
    async def resume(name: str) -> Named:
        now = await named.pause(name, paused=False, by=g.who.name)
        audit("resumed %s", name)
        return now


def secrets(app: Quart, island: Island) -> None:
    """Secrets, by their names."""

    @answers(app, op.SECRETS)
    async def listing() -> list[str]:
        return island.named.secrets.names()

    @answers(app, op.SET_SECRET)
    async def keep(secret: str, body: SecretBody) -> str:
        await island.named.secrets.set(secret, body.value)
        audit("set the secret %s", secret)
        return secret

    @answers(app, op.FORGET_SECRET)
    async def forget(secret: str) -> str:
        await island.named.delete_secret(secret)
        audit("deleted the secret %s", secret)
        return secret


def _expected() -> int | None:
    """The revision that a change is made for: of `If-Match`, or none of `If-None-Match: *`; None for any.

    Raises:
        BadRequest: the header is no ETag of ours, or not what it can be.
    """
    if (none := request.headers.get("If-None-Match", "").strip()) == "*":
        return NEW
    if none:
        raise BadRequest(
            f"If-None-Match: send *, for a name that is new, not {none[:40]!r}", field="If-None-Match"
        )
    text = request.headers.get("If-Match", "").strip()
    if text in ("", "*"):
        return None
    number = text.removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise BadRequest(
            f'If-Match: send the ETag of the name, such as "3", not {text[:40]!r}', field="If-Match"
        )
    return int(number)
