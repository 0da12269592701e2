"""An invocation while it happens: who asked, how long each phase took, what came of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from skyisland.events import Events, InvocationStarted, PhaseFinished
from skyisland.model import FunctionRequest, Invocation, Outcome, Phase, Timings


class Story:
    """Begins with `InvocationStarted`; `tell` is its good end."""

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
        self.outcome: Outcome | None = None
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

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Time the block as `phase`, its failure included."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._spent[f"{phase}_s"] = self._spent.get(f"{phase}_s", 0.0) + spent
            self.events.publish(PhaseFinished(invocation=self.id, phase=phase, duration_s=spent))

    def timings(self) -> Timings:
        return Timings(**self._spent, total_s=time.perf_counter() - self._clock)

    def tell(self, outcome: Outcome) -> Invocation:
        """The whole story, with the outcome that ends it."""
        self.outcome = outcome
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
