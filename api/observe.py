"""What can be seen: health and capabilities by everybody, all else by admins and operators."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from quart import Quart, Response, request

from api.routes import answers, responds
from api.stream import Feed
from skyisland import operations as op
from skyisland.codec import encode
from skyisland.errors import BadRequest
from skyisland.events import InvocationFinished
from skyisland.figures import Report, Window
from skyisland.island import Island
from skyisland.later.keeping import NotKept
from skyisland.record.lines import LogLine
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.record.traffic import ApiStats
from skyisland.status import Capability
from skyisland.wire import FunctionPage, Snapshot

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
RECENT = 100
"""Invocations in a snapshot: enough for the first page of a console; `invocations` has up to 1000."""

PAGE_BYTES = 4 << 20
"""A page has fewer invocations than were asked for rather than more bytes; a thousand of honest callers take
a tenth of it."""


def _page(ends: Iterable[InvocationFinished]) -> Iterator[InvocationFinished]:
    """The first of them, as many as fit."""
    room = PAGE_BYTES
    for end in ends:
        room -= len(encode(end))
        if room < 0:
            return
        yield end


def _window(text: str) -> Window:
    try:
        return Window(text)
    except ValueError:
        known = list(Window)
        raise BadRequest(f"window: send {' or '.join(known)}", field="window", known=known) from None


def open_to_all(app: Quart, island: Island) -> None:
    """Health and capabilities."""

    @answers(app, op.HEALTH)
    async def health() -> str:
        return "ok"

    @answers(app, op.LIVE)
    async def live() -> str:
        return "ok"

    @answers(app, op.READY)
    async def ready() -> str:
        island.check_ready()
        return "ok"

    @answers(app, op.CAPABILITIES)
    async def capabilities() -> list[Capability]:
        return island.capabilities()


def for_operators(app: Quart, island: Island, metrics: Metrics, logs: LogRing, feed: Feed) -> None:
    """Figures, history, log and events."""

    @responds(app, op.METRICS)
    async def prometheus() -> Response:
        opened = "application/openmetrics-text" in request.headers.get("Accept", "").lower()
        try:
            backlog = await island.later.backlog()
        except NotKept:  # the file is damaged: all else is told
            backlog = None
        by_itself = island.named.by_itself()
        text = metrics.prometheus(island.status(), backlog, by_itself=by_itself, open_metrics=opened)
        return Response(text, 200, content_type=OPEN_METRICS if opened else PROMETHEUS)

    @answers(app, op.STATS)
    async def api_stats() -> ApiStats:
        return metrics.traffic.stats()

    @answers(app, op.INVOCATIONS)
    async def invocations(limit: int) -> list[InvocationFinished]:
        return list(_page(await island.invocations(limit)))

    @answers(app, op.INVOCATION)
    async def invocation(invocation: str) -> InvocationFinished:
        return await island.invocation(invocation)

    @answers(app, op.REPORT)
    async def report(window: str) -> Report:
        return island.report(_window(window))

    @answers(app, op.FUNCTION)
    async def function(function: str, window: str) -> FunctionPage:
        await island.sample_usage()
        return await island.function(function, _window(window))

    @answers(app, op.SNAPSHOT)
    async def snapshot() -> Snapshot:
        await island.sample_usage()
        recent = list(_page(await island.invocations(RECENT)))
        return Snapshot.of(
            island.status(),
            at=time.time(),
            recent=recent,
            failed_builds=island.failed_builds.latest(),
            last_event_id=feed.last_id,
        )

    @answers(app, op.LOGS)
    async def log_lines(jail: str | None, after: int, limit: int) -> list[LogLine]:
        return logs.lines(jail=jail, after=after, limit=limit)

    @responds(app, op.OUTPUT)
    async def output(jail: str) -> Response:
        pieces = island.output(jail)

        async def lines() -> AsyncGenerator[bytes, None]:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield encode(piece) + b"\n"

        response = Response(lines(), content_type=op.LINES)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.timeout = None  # a jail may live for long
        return response

    @responds(app, op.EVENTS)
    async def events(last_event_id: str | None, brief: bool) -> Response:
        if request.method == "HEAD":
            return Response(b"", content_type="text/event-stream")
        stream = feed.open(request.headers.get("Last-Event-ID") or last_event_id, brief=brief)
        response = Response(stream, content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        response.timeout = None  # the stream has no end of its own
        return response
