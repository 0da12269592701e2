"""The REST API of an island.

`create_app(island, …)` makes a Quart application; `api.serve` puts it on a socket. Handlers translate
and no more: what they do, the island does. Errors of every kind leave through `problems`.

    Hypercorn ─▶ count ─▶ whose page (origin.py) ─┬─▶ POST /api/v1/function (function.py)
                                                  └─▶ Quart ─┬─▶ open to all (observe.py)
                                                             └─▶ the gate (auth.py) ─▶ for admins
                                                                 (observe.py, admin.py)
"""

from __future__ import annotations

import asyncio
import time

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from quart import Blueprint, Quart, Response, g, request

from api import admin, description, observe, problems
from api.auth import Gate
from api.function import PATH, FunctionEndpoint, send_reply
from api.origin import ForeignOrigin, Origins
from api.problems import Reply
from api.stream import Feed
from skyisland.errors import Draining
from skyisland.island import Island
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.record.traffic import Traffic
from skyisland.settings import Api as ApiSettings

__all__ = ["Api", "create_app"]

ADMIN_BODY_LIMIT_BYTES = 64 << 10
NO_FOLDER = "/"
"""We serve no files; told a folder, Quart looks for none."""


class Api(Quart):
    """The application, and what `serve` has to know of it."""

    feed: Feed
    front: Front


class Front:
    """The first to see a request: counts it, and sends it where it belongs."""

    def __init__(
        self, function: FunctionEndpoint, rest: ASGIFramework, traffic: Traffic, origins: Origins
    ) -> None:
        self._function, self._rest, self._traffic, self._origins = function, rest, traffic, origins
        self._under_way: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        started = time.perf_counter()
        answered = False

        async def counted(message: ASGISendEvent) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._traffic.record(message["status"], time.perf_counter() - started)
            await send(message)

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self._under_way.add(task)
        try:
            if (refusal := self._refusal(scope)) is not None:
                await send_reply(refusal, counted)
            elif scope["path"] == PATH:
                await self._function(scope, receive, counted)
            else:
                await self._rest(scope, receive, counted)
        except asyncio.CancelledError:  # by `cut`, or by an island that stops
            if not answered:
                await send_reply(problems.reply(Draining("the island stops")), counted)
            raise
        finally:
            self._under_way.discard(task)

    def _refusal(self, scope: HTTPScope) -> Reply | None:
        """For what nobody may send, wherever it is to go."""
        if _ambiguous(scope):
            return _AMBIGUOUS
        try:
            self._origins.check(scope["method"], scope["headers"])
        except ForeignOrigin as refusal:
            return problems.reply(refusal)
        return None

    def cut(self) -> int:
        """End the requests under way; returns how many those are."""
        for task in self._under_way:
            task.cancel()
        return len(self._under_way)


def _ambiguous(scope: HTTPScope) -> bool:
    """Whether two readers of the request could disagree on where it ends (request smuggling)."""
    names = [name for name, _ in scope["headers"]]
    return b"transfer-encoding" in names and b"content-length" in names


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

    `token`: what admins show in the header `token_header`; without one, there are no admins.
    `settings`: who else may pass, and how much of what.
    `metrics` and `logs` are shown; who taps the island's events for them is the caller's business.
    """
    settings = settings or ApiSettings()
    app = Api(__name__, static_folder=None, root_path=NO_FOLDER, instance_path=NO_FOLDER)
    app.config["MAX_CONTENT_LENGTH"] = ADMIN_BODY_LIMIT_BYTES
    app.config["BODY_TIMEOUT"] = settings.body_timeout
    app.url_map.merge_slashes = False
    app.feed = feed or Feed(island.events, island.pulse, streams=settings.event_streams)
    gate = Gate(token_header, token, settings)

    async def admit() -> None:
        change = request.method not in ("GET", "HEAD")
        g.who = gate.admit(request.headers.get(gate.header, ""), request.remote_addr, change=change)

    async def refuse(error: Exception) -> Response:
        return observe.respond(problems.reply(error))

    app.register_error_handler(Exception, refuse)
    observe.open_to_all(app, island)
    description.tell(app, token_header)
    admins = Blueprint("admin", __name__, root_path=NO_FOLDER)
    admins.before_request(admit)
    observe.for_admins(admins, island, metrics, logs, app.feed)
    admin.jails(admins, island, metrics)
    admin.addresses(admins, island)
    admin.cache(admins, island)
    app.register_blueprint(admins)
    function = FunctionEndpoint(island, metrics, gate, settings)
    app.front = Front(function, app.asgi_app, metrics.traffic, Origins(settings.origins))
    app.asgi_app = app.front  # type: ignore[method-assign] # Quart's way to put something in front
    return app
