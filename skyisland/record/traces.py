"""Calls as spans, sent to a collector of OpenTelemetry (OTLP over HTTP).

A span for the call, below the caller's where `traceparent` named one, and below it a span for each phase. The
call's span has the number of the invocation, which the function was told (`skyisland.trace`). Callers decide
which of their traces are recorded; a call that came without one begins a trace of its own.

OpenTelemetry is an extra (`skyisland[otlp]`), and imported by `Traces` alone. A thread makes the spans, for
each costs some 30 µs; what it is too slow for is lost, and counted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import defaultdict
from typing import Any

from skyisland import trace
from skyisland.errors import SettingsError
from skyisland.events import Events, InvocationFinished, PhaseFinished

log = logging.getLogger(__name__)

WAITING = 10_000
"""Calls that wait for their spans; of more, the new ones are lost."""
PATIENCE_S = 3.0
"""How long to try to send a batch: an island that stops waits as long for a collector that is gone."""
NANOSECONDS = 1_000_000_000
TEXT = 500
"""Characters of an attribute."""

Ended = tuple[InvocationFinished, list[PhaseFinished]]


class Traces:
    """Follows the events of an island; to be closed at its end."""

    def __init__(self, endpoint: str, *, version: str, instance: str, patience_s: float = PATIENCE_S) -> None:
        """`endpoint`: the collector's URL for traces. `instance`: which island it is. Blocks: it imports.

        `patience_s`: how long to try to send a batch.

        Raises:
            SettingsError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            remedy = "install it by `pip install 'skyisland[otlp]'`, or take the key out"
            raise SettingsError(f"traces.otlp: OpenTelemetry is missing ({error}); {remedy}") from None
        self.lost = 0
        """Calls whose spans were not made."""
        self._phases: defaultdict[str | None, list[PhaseFinished]] = defaultdict(list)
        self._ended: queue.Queue[Ended | None] = queue.Queue(WAITING)
        about = {"service.name": "skyisland", "service.version": version, "service.instance.id": instance}
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=patience_s)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Any = self._provider.get_tracer("skyisland", version)
        self._random_span = self._provider.id_generator.generate_span_id
        self._maker = threading.Thread(target=self._make_all, name="spans", daemon=True)
        self._maker.start()

    def follow(self, stream: Events) -> None:
        """Send the calls of `stream` from now on."""
        stream.tap(self._phase, PhaseFinished)
        stream.tap(self._finished, InvocationFinished)

    def close(self) -> None:
        """Send what waits, and end. Blocks for as long as the collector takes, some seconds at most."""
        self._ended.put(None)
        self._maker.join()
        self._provider.shutdown()
        if self.lost:
            log.warning("the spans of %d calls were lost", self.lost)

    def _phase(self, event: PhaseFinished) -> None:
        self._phases[event.invocation].append(event)

    def _finished(self, event: InvocationFinished) -> None:
        phases = self._phases.pop(event.invocation, [])
        try:
            self._ended.put_nowait((event, phases))
        except queue.Full:
            self.lost += 1

    # On the thread that makes spans

    def _make_all(self) -> None:
        while (ended := self._ended.get()) is not None:
            try:
                self._make(*ended)
            except Exception:
                log.exception("a call has no spans")

    def _make(self, call: InvocationFinished, phases: list[PhaseFinished]) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        ids: Any = self._provider.id_generator
        own = int(trace.span_of(call.invocation or ""), 16)
        ids.generate_span_id = lambda: own
        started_at = call.at - call.timings.total_s
        span = self._tracer.start_span(
            call.function[:TEXT] or "call",
            context=_parent(call.traceparent),
            kind=SpanKind.SERVER,
            start_time=int(started_at * NANOSECONDS),
            attributes=_attributes(call),
        )
        ids.generate_span_id = self._random_span
        within = set_span_in_context(span)
        for phase in phases:
            begun = int((phase.at - phase.duration_s) * NANOSECONDS)
            part = self._tracer.start_span(str(phase.phase), context=within, start_time=begun)
            part.end(int(phase.at * NANOSECONDS))
        if call.verdict != "ok":
            why = call.cause.text if call.cause else call.verdict
            span.set_status(Status(StatusCode.ERROR, why[:TEXT]))
        span.end(int(call.at * NANOSECONDS))


def _parent(traceparent: str) -> Any:
    """The caller's span; an empty context if there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if not traceparent:
        return Context()
    _, of_trace, span, flags = traceparent.split("-")
    caller = SpanContext(
        int(of_trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _attributes(call: InvocationFinished) -> dict[str, str | bool]:
    """By the semantic conventions of OpenTelemetry where they have a name."""
    attributes: dict[str, str | bool] = {
        "faas.invocation_id": call.invocation or "",
        "faas.coldstart": not call.warm,
        "code.function.name": call.function[:TEXT],
        "vcs.repository.name": call.repository[:TEXT],
        "vcs.ref.head.revision": call.commit,
        "skyisland.package": call.package[:TEXT],
        "skyisland.verdict": call.verdict,
        "skyisland.cached": call.cached,
        "skyisland.jail": call.jail or "",
        "skyisland.caller_id": call.caller_id,
    }
    return {name: value for name, value in attributes.items() if value != ""}
