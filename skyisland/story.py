"""One invocation while it happens: who asked, how long each phase took, what came of it.

A `Story` publishes `InvocationStarted` when it is made, `PhaseFinished` after each phase, and one
`InvocationFinished` when it is closed, whatever happened: an outcome, an error, a caller who left.
"""

from __future__ import annotations

import secrets
import time

from skyisland import trace
from skyisland.cause import CANCELLED, Cause, masked
from skyisland.errors import IslandError
from skyisland.events import (
    REQUEST_BYTES,
    Events,
    InvocationFinished,
    InvocationQueued,
    InvocationStarted,
    PhaseFinished,
    shortened,
)
from skyisland.model import (
    Artifact,
    FunctionRequest,
    Invocation,
    Limits,
    Outcome,
    Phase,
    Resolved,
    Timings,
    Verdict,
)
from skyisland.status import CallInfo


def new_id() -> str:
    """An id for an invocation, which no other has."""
    return f"inv-{secrets.token_hex(6)}"


_FIELDS = {phase: f"{phase}_s" for phase in Phase}
"""The field of `Timings` for each phase."""


class _Timed:
    """Times a phase. A class, for @contextmanager takes half a microsecond more, five times a call."""

    __slots__ = ("_phase", "_started", "_story")

    def __init__(self, story: Story, phase: Phase) -> None:
        self._story, self._phase = story, phase

    def __enter__(self) -> None:
        story = self._story
        story.began, story.began_after_s = self._phase, (started := time.perf_counter()) - story._clock
        self._started = started

    def __exit__(self, *failure: object) -> None:
        self._story.spend(self._phase, time.perf_counter() - self._started)


class Story:
    """Ends with `finish` or `fail`, or with neither if the caller leaves; then `close` it."""

    def __init__(
        self,
        request: FunctionRequest,
        events: Events,
        client: str,
        *,
        id: str = "",  # noqa: A002
        caller_id: str = "",
        traceparent: str = "",
        name: str = "",
    ) -> None:
        """`id`: of the invocation, one that nothing else has; `caller_id`: what the caller calls it;
        `traceparent`: the trace that it is a part of, as `trace.read` gives it; `name`: that is called."""
        self.id = id or new_id()
        self.caller_id, self.traceparent = caller_id, traceparent
        self.request = request
        self.client = client
        """Whose share of the island it takes."""
        self.events = events
        self.started_at = time.time()
        self.jail: str | None = None
        """The name of its jail, as soon as it has one."""
        self.resolved: Resolved | None = None
        """What is called, once that is known."""
        self.commit = ""
        self.cached = False
        self.artifact: Artifact | None = None
        self.limits: Limits | None = None
        self.timeout_s = 0.0
        self.stale = False
        self.warm = False
        self.repository = self.package = self.function = ""
        """What is called, as far as it is known: see `InvocationFinished`."""
        self.name = name
        """By which name; empty for a plain call."""
        self.node = ""
        """The island of the fleet that runs it; empty for this one."""
        self.verdict, self.error = CANCELLED, ""
        """What `close` publishes; a caller who leaves changes nothing here."""
        self.cause: Cause | None = None
        self.secrets: tuple[str, ...] = ()
        """What the function is given and nobody is shown."""
        self.began: Phase | None = None
        """The phase that began last."""
        self.began_after_s = 0.0
        self._clock = time.perf_counter()
        self._spent_s: dict[str, float] = {}
        """By the fields of `Timings`."""
        events.publish(
            InvocationStarted(
                invocation=self.id,
                caller_id=caller_id,
                traceparent=traceparent,
                url=request.url,
                call=request.shown,
                version=request.version,
                ip4=request.ip4,
                client=client,
                name=name,
            )
        )

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """What the function is told of its trace."""
        return ((trace.VARIABLE, trace.handed(self.traceparent, self.id)),) if self.traceparent else ()

    def phase(self, phase: Phase) -> _Timed:
        """Time the block as `phase`, also when it fails."""
        return _Timed(self, phase)

    def queued(self) -> None:
        """Tell that it waits for a place."""
        self.events.publish(InvocationQueued(invocation=self.id))

    def spend(self, phase: Phase, spent_s: float) -> None:
        """Add to the time of `phase`."""
        field = _FIELDS[phase]
        self._spent_s[field] = self._spent_s.get(field, 0.0) + spent_s
        self.events.publish(PhaseFinished(invocation=self.id, phase=phase, duration_s=spent_s))

    def info(self) -> CallInfo:
        """The call as it is now."""
        return CallInfo(
            invocation=self.id,
            url=shortened(self.request.url),
            call=shortened(self.request.shown),
            client=self.client,
            name=self.name,
            started_at=self.started_at,
            phase=self.began,
            since=self.started_at + self.began_after_s,
            jail=self.jail,
        )

    def timings(self) -> Timings:
        return Timings(**self._spent_s, total_s=time.perf_counter() - self._clock)

    def finish(self, outcome: Outcome) -> Invocation:
        """The invocation, over now, with its outcome."""
        self.verdict = str(outcome.verdict)
        if outcome.verdict is not Verdict.ok:
            exec_s = self._spent_s.get(_FIELDS[Phase.exec], 0.0)
            self.cause = Cause.of_outcome(outcome, exec_s, self.secrets)
            self.error = self.cause.error.message if self.cause and self.cause.error else ""
        return Invocation(
            id=self.id,
            request=self.request,
            outcome=outcome,
            timings=self.timings(),
            started_at=self.started_at,
            jail=self.jail,
            commit=self.commit,
            cached=self.cached,
            stale=self.stale,
            warm=self.warm,
            node=self.node,
            artifact=self.artifact,
            limits=self.limits,
            timeout_s=self.timeout_s,
        )

    def fail(self, error: Exception) -> None:
        """Note the error that ends it."""
        if isinstance(error, IslandError):
            self.verdict, self.error = error.code, masked(self.secrets, error.message)
        else:
            self.verdict, self.error = IslandError.code, type(error).__name__
        self.cause = Cause.of_error(error, self.secrets)

    def close(self) -> None:
        """Publish its end."""
        if self.verdict == CANCELLED:
            self.cause = Cause.of_absence()
        self.events.publish(
            InvocationFinished(
                invocation=self.id,
                caller_id=self.caller_id,
                traceparent=self.traceparent,
                url=self.request.url,
                call=self.request.shown,
                verdict=self.verdict,
                error=self.error,
                cause=self.cause,
                client=self.client,
                name=self.name,
                node=self.node,
                repository=self.repository,
                package=self.package,
                function=self.function,
                timings=self.timings(),
                jail=self.jail,
                commit=self.commit,
                cached=self.cached,
                warm=self.warm,
                request=self.request.owned() if self.request.size_bytes <= REQUEST_BYTES else None,
            )
        )
