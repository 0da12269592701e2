"""POST /api/v1/names/NAME/push: the server of a repository tells that something was pushed.

It takes no token: the signature says who it is. As for handlers, it is checked before anything else is done
with the body. What comes of a push is in `skyisland.named.pushes`.
"""

from __future__ import annotations

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from api.bodies import HungUp, read_body
from api.function import ALLOW_POST, NAMES, OPTIONS, FunctionEndpoint, asked_by, send_reply
from api.problems import Reply, reply
from skyisland import operations as op
from skyisland.errors import TooBusy
from skyisland.island import Island

SUFFIX = op.PUSH.path.rpartition("}")[2]


def pushed_name(path: str) -> str:
    """The name in the path of a push; empty for another path."""
    if not (path.startswith(NAMES) and path.endswith(SUFFIX)):
        return ""
    name = path[len(NAMES) : -len(SUFFIX)]
    return "" if "/" in name else name


class PushEndpoint:
    """Takes pushes of all names."""

    def __init__(self, island: Island, function: FunctionEndpoint) -> None:
        self._island, self._function = island, function

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, name: str
    ) -> None:
        if scope["method"] != "POST":
            await send_reply(OPTIONS if scope["method"] == "OPTIONS" else _NOT_ALLOWED, send)
            return
        asked, settings = asked_by(scope), self._function.settings
        try:
            with self._function.admitted(scope, open_to_all=True):
                body = await read_body(
                    receive, limit=settings.max_body, timeout_s=settings.body_timeout, coding=asked.coding
                )
                told = await self._island.named.pushes.take(name, [*scope["headers"]], body)
        except HungUp:
            return
        except Exception as error:
            if isinstance(error, TooBusy):
                await self._function.refusals.turn()
            await send_reply(reply(error, asked.wanted.error), send)
            return
        await send_reply(Reply(200, op.PUSH.write(told)), send)


_NOT_ALLOWED = Reply(405, b'{"error":"this takes pushes by POST","code":"method_not_allowed"}', ALLOW_POST)
