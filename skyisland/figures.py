"""Figures of calls over a window of time: the shapes in which they are told.

    Figures           of all calls that ended in the window
    FunctionFigures   of one function: those, what was counted since the start, its last error
    Report            the whole island, each function, and the rest

Who counts is `record.functions`. A figure is null where the window has no call to tell of it: so nobody sees
the latency of an hour ago. Times are those of whole calls that ran in a jail; refusals are counted as errors,
and take no part in times. Percentiles come from buckets a fifth apart, so they are within a tenth, and never
above the longest time.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from msgspec import Struct


class Window(StrEnum):
    """A window of time that ends now."""

    five_minutes = "5m"
    hour = "1h"

    @property
    def seconds(self) -> int:
        return 300 if self is Window.five_minutes else 3600

    @property
    def bin_s(self) -> int:
        """Seconds of each of its sixty bins."""
        return self.seconds // BINS


OTHER = "other"
"""Stands for all that have no row, and for kinds of errors that are not told apart."""
BINS = 60
"""A window is counted in so many parts: the cells of a sparkline, the columns of a heat map."""


class Slo(Struct, frozen=True, kw_only=True):
    """How long a call may take before it counts as slow."""

    target_s: float
    functions: dict[str, float] = {}
    """Seconds of those functions that have a target of their own, by `FunctionFigures.title`."""

    def of(self, title: str) -> float:
        return self.functions.get(title, self.target_s)


class Heat(Struct, frozen=True, kw_only=True):
    """Latency over time."""

    bounds_s: list[float]
    """Upper bounds of the buckets, rising, each twice the one before; one more bucket takes the rest."""
    counts: list[list[int]]
    """For each bin of the window, oldest first, how many calls fell into each bucket; empty for none."""


class Figures(Struct, frozen=True, kw_only=True):
    """Of the calls that ended in a window of time."""

    window: Window
    window_s: float
    """Its length; less if the island is younger."""
    bin_s: int
    """Length of each part that `counts` and `failures` tell of."""
    calls: int = 0
    rate: float = 0.0
    """Calls a second."""
    errors: int = 0
    """Calls that did not end well, refusals too; without those whose callers left."""
    reasons: dict[str, int] = {}
    """How many of them for each `Cause.kind`, most frequent first; a ninth kind, and more, is `other`."""
    ran: int = 0
    """Calls that ran in a jail, however they ended."""
    cold: int = 0
    """Those of them for which no warm jail waited."""
    built: int = 0
    """Those of them whose binary had to be built."""
    slow: int = 0
    """Those of them that took longer than their target (`Slo`)."""
    kept: int = 0
    """Those of them that ended well and within their target."""
    kept_share: float | None = None
    """Of those that ran."""
    error_share: float | None = None
    cold_share: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    counts: list[int] = []
    """Calls in each part of the window, oldest first."""
    failures: list[int] = []
    """Errors in each."""
    heat: Heat | None = None
    """Not of each function in a list."""


class FunctionFigures(Struct, frozen=True, kw_only=True):
    """Of one function of one package."""

    id: str
    """Names it in paths: `fn-3c71a0b2c4d5`, always the same; `other` stands for all that have no row."""
    repository: str
    """`names` for a function with a name of its own, which is `name` then."""
    package: str
    name: str
    """Of an expression or a chain of calls, its first function."""
    slo_s: float
    """Its target."""
    last_at: float
    """When the latest of its calls ended."""
    usual_s: float | None = None
    """The median time of its calls in the last hour."""
    calls: int = 0
    """Since the island started, as the fields to come."""
    errors: int = 0
    reasons: dict[str, int] = {}
    ran: int = 0
    cold: int = 0
    kept: int = 0
    spent_s: float = 0.0
    """The times of those that ran, together."""
    last_error: str = ""
    """`Cause.text` of its latest error."""
    last_error_at: float | None = None
    last_failed: str | None = None
    """The id of that invocation."""
    recent: Figures

    @property
    def title(self) -> str:
        """As people name it: `github.com/user/repo/sub.Name`; of what has no row, `other`."""
        return title(self.repository, self.package, self.name)


class Report(Struct, frozen=True, kw_only=True):
    """All figures of one window."""

    at: float
    every: Figures
    """The whole island."""
    functions: list[FunctionFigures]
    """Those with most calls in the window first; `other` last."""


NAMES = "names"
"""In place of the repository of a function with a name of its own: its calls have a row of that name."""


def title(repository: str, package: str, name: str) -> str:
    if repository == NAMES:
        return name
    return ".".join(filter(None, ("/".join(filter(None, (repository, package))), name)))


def function_id(repository: str, package: str, name: str) -> str:
    """The same for the same function on every island."""
    digest = hashlib.sha256("\0".join((repository, package, name)).encode())
    return f"fn-{digest.hexdigest()[:12]}"
