"""The connection to the island: is the data current, and if not, since when and why?"""

from __future__ import annotations

STALE_S = 5.0
"""After so much silence the data is stale. A live stream has a pulse every 2 s."""
RETRY_S = (1.0, 2.0, 4.0, 8.0, 10.0)
"""Waits between attempts; the last one repeats."""


class ConnectionState:
    """The state of the connection. The station changes it, the header and the banner draw it.

    Times are seconds of the console's own clock.
    """

    def __init__(self) -> None:
        self.state = "connecting"
        """`connecting`, `live`, `down` or `unauthorized`."""
        self.cause = ""
        """Why it is down or unauthorized, in words for an operator."""
        self.heard_at: float | None = None
        """When the island last sent anything."""
        self.retry_at = 0.0
        self.attempts = 0

    def heard(self, now: float) -> None:
        """The island sent something."""
        self.state, self.cause, self.attempts = "live", "", 0
        self.heard_at = now

    def lost(self, cause: str, now: float) -> float:
        """The connection broke; returns the seconds to wait before the next attempt."""
        wait_s = RETRY_S[min(self.attempts, len(RETRY_S) - 1)]
        self.attempts += 1
        self.state, self.cause, self.retry_at = "down", cause, now + wait_s
        return wait_s

    def refused(self, cause: str) -> None:
        """The island wants another token."""
        self.state, self.cause = "unauthorized", cause

    def silent_s(self, now: float) -> float:
        return max(0.0, now - self.heard_at) if self.heard_at is not None else 0.0

    def stale(self, now: float) -> bool:
        return self.state == "live" and self.silent_s(now) > STALE_S

    def good(self, now: float) -> bool:
        """The data is current, and orders will reach the island."""
        return self.state == "live" and not self.stale(now)
