"""What can be seen: health and capabilities by everybody, all else by admins."""

from __future__ import annotations

import time

from quart import Blueprint, Quart, Response, request

from api.problems import Reply
from api.stream import Feed
from api.wire import Snapshot, encode
from skyisland.errors import BadRequest
from skyisland.island import Island
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
RECENT = 100


def respond(reply: Reply) -> Response:
    """A reply in Quart's terms."""
    return Response(reply.body, reply.status, dict(reply.headers), content_type="application/json")


def shown(value: object) -> Response:
    """200 with `value` as JSON."""
    return Response(encode(value), 200, content_type="application/json")


def number(name: str, default: int, most: int) -> int:
    """A number of the query.

    Raises:
        BadRequest: it is none, or out of range.
    """
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= most):
        raise BadRequest(f"{name} must be a number from 0 to {most}, not {text[:40]!r}", field=name)
    return int(text)


def flag(name: str) -> bool:
    """A choice of the query, made by `true`.

    Raises:
        BadRequest: it is something else.
    """
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise BadRequest(f"{name} must be true or false, not {text[:40]!r}", field=name)
    return text == "true"


def open_to_all(routes: Quart, island: Island) -> None:
    """GET /healthcheck, /api/v1/healthcheck, /api/v1/capabilities."""

    @routes.get("/healthcheck")
    @routes.get("/api/v1/healthcheck")
    async def health() -> Response:
        return shown({"status": "ok"})

    @routes.get("/api/v1/capabilities")
    async def capabilities() -> Response:
        return shown({"capabilities": island.capabilities()})


def for_admins(routes: Blueprint, island: Island, metrics: Metrics, logs: LogRing, feed: Feed) -> None:
    """GET /metrics and, below /api/v1/admin: api-stats, invocations, snapshot, logs, events."""

    @routes.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.prometheus(island.status()), 200, content_type=PROMETHEUS)

    @routes.get("/api/v1/admin/api-stats")
    async def api_stats() -> Response:
        return shown(metrics.traffic.stats())

    @routes.get("/api/v1/admin/invocations")
    async def invocations() -> Response:
        return shown({"invocations": await island.invocations(number("limit", RECENT, 1000))})

    @routes.get("/api/v1/admin/snapshot")
    async def snapshot() -> Response:
        await island.sample_usage()
        recent = await island.invocations(RECENT)
        status = island.status()
        fields = {name: getattr(status, name) for name in status.__struct_fields__}
        return shown(Snapshot(**fields, at=time.time(), last_event_id=feed.last_id, recent=recent))

    @routes.get("/api/v1/admin/logs")
    async def log_lines() -> Response:
        lines = logs.lines(
            jail=request.args.get("jail"),
            after=number("after", 0, 1 << 62),
            limit=number("limit", 500, 5000),
        )
        return shown({"logs": lines})

    @routes.get("/api/v1/admin/events")
    async def events() -> Response:
        if request.method == "HEAD":
            return Response(b"", content_type="text/event-stream")
        last_id = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
        stream = feed.open(last_id, brief=flag("brief"))
        response = Response(stream, content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.timeout = None  # it has no end of its own
        return response
