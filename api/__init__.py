"""The REST API of an island.

`create_app(island, …)` makes a Quart application; `api.serve` puts it on a socket. Handlers translate
and no more: what they do, the island does. Errors of every kind leave through `problems`.

    Hypercorn ─▶ count ─┬─▶ POST /api/v1/function (function.py)
                        └─▶ Quart ─┬─▶ open to all (observe.py)
                                   └─▶ the gate (auth.py) ─▶ for admins (observe.py, admin.py)
"""

from __future__ import annotations

import time

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from quart import Blueprint, Quart, Response, request

from api import admin, observe, problems
from api.auth import Gate
from api.function import PATH, FunctionEndpoint
from api.stream import Feed
from skyisland.island import Island
from skyisland.logs import LogRing
from skyisland.metrics import Metrics, Traffic

__all__ = ["Api", "create_app"]

ADMIN_BODY_LIMIT_BYTES = 64 << 10
NO_FOLDER = "/"
"""We serve no files; told a folder, Quart looks for none."""


class Api(Quart):
    """The application, and what `serve` has to know of it."""

    feed: Feed


class _Front:
    """The first to see a request: counts it, and sends it where it belongs."""

    def __init__(self, function: FunctionEndpoint, rest: ASGIFramework, traffic: Traffic) -> None:
        self._function, self._rest, self._traffic = function, rest, traffic

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        started = time.perf_counter()

        async def counted(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                self._traffic.record(message["status"], time.perf_counter() - started)
            await send(message)

        if scope["path"] == PATH:
            await self._function(scope, receive, counted)
        else:
            await self._rest(scope, receive, counted)


def create_app(
    island: Island,
    *,
    token: str,
    token_header: str,
    metrics: Metrics,
    logs: LogRing,
    feed: Feed | None = None,
) -> Api:
    """The API of `island`.

    `token`: what admins show in the header `token_header`; without one, there are no admins.
    `metrics` and `logs` are shown; who taps the island's events for them is the caller's business.
    """
    app = Api(__name__, static_folder=None, root_path=NO_FOLDER, instance_path=NO_FOLDER)
    app.config["MAX_CONTENT_LENGTH"] = ADMIN_BODY_LIMIT_BYTES
    app.config["BODY_TIMEOUT"] = 10
    app.url_map.merge_slashes = False
    app.feed = feed or Feed(island.events)
    gate = Gate(token_header, token)

    async def admit() -> None:
        gate.check(request.headers.get(gate.header, ""), request.remote_addr)

    async def refuse(error: Exception) -> Response:
        return observe.respond(problems.reply(error))

    app.register_error_handler(Exception, refuse)
    observe.open_to_all(app, island)
    admins = Blueprint("admin", __name__, root_path=NO_FOLDER)
    admins.before_request(admit)
    observe.for_admins(admins, island, metrics, logs, app.feed)
    admin.jails(admins, island, metrics)
    admin.addresses(admins, island)
    admin.cache(admins, island)
    app.register_blueprint(admins)
    app.asgi_app = _Front(FunctionEndpoint(island, metrics), app.asgi_app, metrics.traffic)  # type: ignore[method-assign]
    return app
