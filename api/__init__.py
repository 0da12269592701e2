"""The REST API of an island.

`create_app(island, …)` makes a Quart application; `api.serve` puts it on sockets (`sockets`), with TLS where
that is wanted (`tls`). `api.protocols` bounds what a connection may cost, and `plain` has plain requests past
h11. Handlers translate between JSON and the island's methods and do nothing else. Errors of every kind
become responses in `problems`, in a form that the caller accepts
(`media`; `lines` for many inputs, `live` for whoever watches). `target` and `bodies` make requests alike,
whatever way they took. Whose share a request counts to stands in `clients`, which operations there are in
`skyisland.operations`, their shapes in `skyisland.wire`.

    Hypercorn ─▶ count ─▶ whose page (origin.py) ─┬─▶ POST /api/v1/function, …/names/NAME (function.py)
                                                  ├─▶ ANY /fn/NAME… (handlers.py), …/push (pushes.py)
                                                  ├─▶ POST /mcp (mcp.py, tools.py)
                                                  └─▶ Quart ─▶ roles, parameters (routes.py, auth.py)
                                                         ─┬─▶ what is seen (observe.py, stream.py)
                                                          ├─▶ calls that answer later (later.py)
                                                          ├─▶ receipts of calls (receipts.py)
                                                          ├─▶ what is done (admin.py, names.py)
                                                          ├─▶ other nodes of the fleet (nodes.py)
                                                          └─▶ /openapi.json, /docs (description.py)

It uses the island, its record, wire and operations; it chooses no driver and makes no island.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from quart import Quart, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from api import admin, description, later, names, observe, problems, receipts, routes
from api.auth import Gate
from api.bodies import HungUp, too_large, unpacked
from api.clients import Clients
from api.function import FunctionEndpoint, called_name, look, send_reply
from api.handlers import PREFIX, HandlerEndpoint
from api.mcp import PATH as MCP
from api.mcp import McpEndpoint
from api.media import wanted
from api.nodes import Everywhere
from api.origin import ForeignOrigin, Origins, shown_to, welcome
from api.problems import Reply
from api.pushes import PushEndpoint, pushed_name
from api.stream import Feed
from api.target import straight
from skyisland.errors import Draining, IslandError
from skyisland.island import Island
from skyisland.operations import INVOKE
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.record.traffic import Traffic
from skyisland.settings import Api as ApiSettings

__all__ = ["Api", "create_app"]

ADMIN_BODY_LIMIT_BYTES = 64 << 10
"""Bodies beside POST /api/v1/function hold an address and its state; this is ample for them."""
NO_FOLDER = "/"
"""Stands for Quart's folders. We serve no files, and without a path Quart would search the disk for one."""


class Api(Quart):
    """The application, with the parts that `serve` ends at shutdown."""

    feed: Feed
    front: Front
    clients: Clients
    gate: Gate
    drains: Callable[[], bool]
    """Whether the island takes no new calls."""
    serving: Callable[[ApiSettings], None] | None = None
    """Takes in new settings of its server."""

    def reload(self, settings: ApiSettings, token: str) -> None:
        """Take in new settings, and the files of TLS again, as far as that goes without a new socket."""
        self.gate.read(token, settings)
        self.clients.trust(settings.trusted_proxies)
        self.front.reload(settings)
        self.config["BODY_TIMEOUT"] = settings.body_timeout
        if self.serving is not None:
            self.serving(settings)


class Front:
    """Sees every request first: counts it, refuses what is dangerous wherever it goes, and passes it on."""

    def __init__(
        self,
        function: FunctionEndpoint,
        handlers: HandlerEndpoint,
        pushes: PushEndpoint,
        mcp: McpEndpoint,
        rest: ASGIFramework,
        traffic: Traffic,
        settings: ApiSettings,
    ) -> None:
        self._function, self._handlers, self._pushes, self._mcp = function, handlers, pushes, mcp
        self._rest, self._traffic = rest, traffic
        self._settings, self._origins = settings, Origins(settings.origins)
        self._under_way: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "websocket":  # by CONNECT of HTTP/2 alone; nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1000, "reason": None})  # which is a 403
            return
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        started = time.perf_counter()
        answered = False
        if scope["path"] != INVOKE.path:
            scope = straight(scope, self._settings.base_path)
        page = self._origins.page_of(scope["headers"])

        async def counted(message: ASGISendEvent) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                if page:
                    message["headers"] = [*message["headers"], *shown_to(page)]
                self._traffic.record(message["status"], time.perf_counter() - started)
            await send(message)

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self._under_way.add(task)
        try:
            names = {name for name, _ in scope["headers"]}
            if (refusal := self._refusal(scope, names)) is not None:
                await send_reply(refusal, counted)
                return
            if page and scope["method"] == "OPTIONS" and (granted := welcome(scope["headers"])):
                await counted({"type": "http.response.start", "status": 204, "headers": granted})
                await counted({"type": "http.response.body", "body": b"", "more_body": False})
                return
            if scope["path"] == INVOKE.path:
                await self._function(scope, receive, counted)
                return
            if scope["method"] == "POST" and (name := called_name(scope["path"])):
                await self._function(scope, receive, counted, name)
                return
            if name := pushed_name(scope["path"]):
                await self._pushes(scope, receive, counted, name)
                return
            if scope["path"].startswith(PREFIX):
                await self._handlers(scope, receive, counted)
                return
            if scope["path"] == MCP and self._settings.mcp:
                await self._mcp(scope, receive, counted)
                return
            if b"content-encoding" in names:
                try:
                    limit, timeout_s = ADMIN_BODY_LIMIT_BYTES, self._settings.body_timeout
                    scope, receive = await unpacked(scope, receive, limit=limit, timeout_s=timeout_s)
                except HungUp:
                    return
                except IslandError as error:
                    await send_reply(problems.reply(error), counted)
                    return
            await self._rest(scope, receive, counted)
        except asyncio.CancelledError:  # by `cut`, or because the island stops
            if not answered:
                await send_reply(problems.reply(Draining("the island stops")), counted)
            raise
        finally:
            self._under_way.discard(task)

    def _refusal(self, scope: HTTPScope, names: set[bytes]) -> Reply | None:
        """The answer to a request that is ambiguous or comes from a foreign web page; None for others.

        `names`: those of its headers.
        """
        # Two readers of the request could disagree on where it ends (request smuggling).
        if b"transfer-encoding" in names and b"content-length" in names:
            return _AMBIGUOUS
        try:
            self._origins.check(scope["method"], scope["headers"])
        except ForeignOrigin as refusal:
            return problems.reply(refusal)
        return None

    def reload(self, settings: ApiSettings) -> None:
        """Take in new limits and origins."""
        self._settings, self._origins = settings, Origins(settings.origins)
        self._function.settings = settings

    @property
    def base_path(self) -> str:
        """Where a proxy shows the API; empty if at its root."""
        return self._settings.base_path

    def cut(self) -> int:
        """Cancel the requests under way; returns how many there are."""
        for task in self._under_way:
            task.cancel()
        return len(self._under_way)


_AMBIGUOUS = Reply(
    400,
    b'{"error":"send either Content-Length or Transfer-Encoding","code":"bad_request"}',
    (("Connection", "close"),),
)


def create_app(
    island: Island,
    *,
    token: str,
    token_header: str,
    metrics: Metrics,
    logs: LogRing,
    feed: Feed | None = None,
    settings: ApiSettings | None = None,
) -> Api:
    """The API of `island`.

    `token`: of the admin without a name, shown in the header `token_header`; empty for none.
    `settings`: the other tokens, and the limits of bodies, calls and streams.
    `metrics` and `logs` are shown only: the caller taps the island's events for them.
    """
    settings = settings or ApiSettings()
    app = Api(__name__, static_folder=None, root_path=NO_FOLDER, instance_path=NO_FOLDER)
    app.config["MAX_CONTENT_LENGTH"] = ADMIN_BODY_LIMIT_BYTES
    app.config["BODY_TIMEOUT"] = settings.body_timeout
    app.url_map.merge_slashes = False
    app.clients = clients = Clients(settings.trusted_proxies)
    app.drains = lambda: island.draining
    app.feed = feed or Feed(island.events, island.pulse, streams=settings.event_streams)
    app.gate = gate = Gate(token_header, token, settings)

    async def refuse(error: Exception) -> Response:
        if isinstance(error, RequestEntityTooLarge):  # Quart's has no limit in its words
            error = too_large(ADMIN_BODY_LIMIT_BYTES)
        form = wanted(request.headers.get("Accept", "")).error
        admin = gate.is_admins(request.scope["headers"])
        return routes.respond(problems.reply(error, form, admin=admin))

    app.register_error_handler(Exception, refuse)
    Everywhere(app, island.fleet.nodes if island.fleet is not None else None)
    routes.guard(app, gate, clients)
    observe.open_to_all(app, island)
    observe.for_operators(app, island, metrics, logs, app.feed)
    admin.jails(app, island, metrics)
    admin.addresses(app, island)
    admin.cache(app, island)
    names.names(app, island)
    names.secrets(app, island)
    description.serve(app, token_header, lambda: app.front.base_path)
    function = FunctionEndpoint(island, metrics, gate, settings, clients)
    look(app, island, function)
    receipts.receipts(app, island, function, gate)
    later.calls(app, island, gate, clients, function.admitted, lambda: function.settings.event_streams)
    handlers = HandlerEndpoint(island, function, gate, clients)
    pushes = PushEndpoint(island, function)
    mcp = McpEndpoint(island, function, gate)
    app.front = Front(function, handlers, pushes, mcp, app.asgi_app, metrics.traffic, settings)
    app.asgi_app = app.front  # type: ignore[method-assign] # Quart's way to put something in front
    return app
