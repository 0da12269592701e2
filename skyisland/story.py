"""An invocation while it happens: who asked, how long each phase took, what came of it."""

from __future__ import annotations

import secrets
import time

from skyisland.events import Events, InvocationFinished, InvocationStarted, PhaseFinished
from skyisland.model import FunctionRequest, Invocation, Outcome, Phase, Timings

_FIELDS = {phase: f"{phase}_s" for phase in Phase}
"""Of `Timings`."""


class _Timed:
    """A block that is a phase. No generator, for there are four in each call."""

    __slots__ = ("_phase", "_started", "_story")

    def __init__(self, story: Story, phase: Phase) -> None:
        self._story, self._phase = story, phase

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        self._story.spend(self._phase, time.perf_counter() - self._started)


class Story:
    """Begins with `InvocationStarted`; `tell` is its good end, `fail` a bad one, and `end` closes it."""

    def __init__(self, request: FunctionRequest, events: Events) -> None:
        self.id = f"inv-{secrets.token_hex(6)}"
        self.request = request
        self.events = events
        self.started_at = time.time()
        self.jail: str | None = None
        self.commit = ""
        self.cached = False
        self.stale = False
        self.warm = False
        self.verdict, self.error = "cancelled", ""
        self._clock = time.perf_counter()
        self._spent: dict[str, float] = {}
        events.publish(
            InvocationStarted(
                invocation=self.id,
                url=request.url,
                call=request.call,
                version=request.version,
                ip4=request.ip4,
            )
        )

    def phase(self, phase: Phase) -> _Timed:
        """Time the block as `phase`, its failure included."""
        return _Timed(self, phase)

    def spend(self, phase: Phase, spent_s: float) -> None:
        """So much more time went into `phase`."""
        name = _FIELDS[phase]
        self._spent[name] = self._spent.get(name, 0.0) + spent_s
        self.events.publish(PhaseFinished(invocation=self.id, phase=phase, duration_s=spent_s))

    def timings(self) -> Timings:
        return Timings(**self._spent, total_s=time.perf_counter() - self._clock)

    def tell(self, outcome: Outcome) -> Invocation:
        """The whole story, with the outcome that ends it."""
        self.verdict = str(outcome.verdict)
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
        )

    def fail(self, code: str, why: str) -> None:
        """It ends with an error."""
        self.verdict, self.error = code, why

    def end(self) -> None:
        """Publish the one end, whatever it is; the caller's leaving is one too."""
        self.events.publish(
            InvocationFinished(
                invocation=self.id,
                url=self.request.url,
                call=self.request.call,
                verdict=self.verdict,
                error=self.error,
                timings=self.timings(),
                jail=self.jail,
                commit=self.commit,
                cached=self.cached,
                warm=self.warm,
            )
        )
