"""The line to the island: is what the operator sees true now, and if not, since when and why?"""

from __future__ import annotations

from tui.draw.glyphs import Look, Span
from tui.words import age

STALE_S = 5.0
"""Silence after which the data is called stale; the stream says "still here" more often than that."""
RETRY_S = (1.0, 2.0, 4.0, 8.0, 10.0)
"""Waits between attempts; the last one repeats."""


class Link:
    """State of the line, as the follower of the island sets it and the header tells it."""

    def __init__(self) -> None:
        self.state = "connecting"
        """`connecting`, `live`, `down` or `unauthorized`."""
        self.cause = ""
        self.heard_at: float | None = None
        """When the island last said anything, by the console's clock."""
        self.retry_at = 0.0
        self.attempts = 0

    def heard(self, now: float) -> None:
        self.state, self.cause, self.attempts = "live", "", 0
        self.heard_at = now

    def lost(self, cause: str, now: float) -> float:
        """Note the loss; returns how long to wait before the next attempt."""
        wait = RETRY_S[min(self.attempts, len(RETRY_S) - 1)]
        self.attempts += 1
        self.state, self.cause, self.retry_at = "down", cause, now + wait
        return wait

    def refused(self, cause: str) -> None:
        self.state, self.cause = "unauthorized", cause

    def silent_s(self, now: float) -> float:
        return max(0.0, now - self.heard_at) if self.heard_at is not None else 0.0

    def stale(self, now: float) -> bool:
        return self.state == "live" and self.silent_s(now) > STALE_S

    def good(self, now: float) -> bool:
        """The data is of now, and actions will reach the island."""
        return self.state == "live" and not self.stale(now)

    def _next(self, now: float) -> str:
        return f"retry in {age(self.retry_at - now)}" if self.retry_at > now else "trying again"

    def span(self, look: Look, now: float) -> Span:
        if self.stale(now):
            return f"{look['stale']} STALE {age(self.silent_s(now))}", "warn"
        if self.state == "live":
            return f"{look['live']} LIVE", "ok"
        if self.state == "down":
            return f"{look['down']} DOWN {self._next(now)}", "bad"
        if self.state == "unauthorized":
            return f"{look['down']} NO TOKEN", "bad"
        return f"{look['stale']} CONNECTING", "info"

    def banner(self, look: Look, now: float) -> str:
        """One line for the banner, empty when there is nothing to say."""
        old = f"   data is {age(self.silent_s(now))} old" if self.heard_at is not None else ""
        if self.state == "down":
            return f"{look['bad']} {self.cause}{old}   {self._next(now)}   R retries now"
        if self.state == "unauthorized":
            return f"{look['bad']} {self.cause}{old}   T asks for a token"
        if self.stale(now):
            return f"{look['stale']} the island has not spoken for {age(self.silent_s(now))}"
        return ""
