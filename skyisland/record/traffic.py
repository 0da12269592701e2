"""Counts of HTTP responses, in the form of the operation api-stats."""

from __future__ import annotations

import os
import time
from collections import Counter as Tally
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct


class ApiStats(Struct, frozen=True, kw_only=True):
    """The answer of api-stats: the fields of github.com/thoas/stats, which the original used.

    Times and durations are texts as Go writes them (`2025-01-02 15:04:05.999 +0000 UTC`, `1m2.5s`); the
    fields in `_sec` are numbers.
    """

    pid: int
    uptime: str
    uptime_sec: float
    time: str
    unixtime: int
    status_code_count: dict[str, int]
    """Responses of the current second, by status."""
    total_status_code_count: dict[str, int]
    """Responses since the start, by status."""
    count: int
    """Responses of the current second."""
    total_count: int
    total_response_time: str
    total_response_time_sec: float
    average_response_time: str
    average_response_time_sec: float


class Traffic:
    """Counts HTTP responses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.by_status: Tally[int] = Tally()
        self._clock = clock
        self._started = clock()
        self._seconds = 0.0
        self._second = 0
        """The current one, of `clock`."""
        self._in_second: Tally[int] = Tally()

    def record(self, status: int, duration_s: float) -> None:
        """Count one response."""
        self._turn_second()
        self._in_second[status] += 1
        self.by_status[status] += 1
        self._seconds += duration_s

    def _turn_second(self) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._in_second.clear()

    def stats(self) -> ApiStats:
        self._turn_second()
        now = datetime.now(UTC)
        uptime = self._clock() - self._started
        total = self.by_status.total()
        average = self._seconds / total if total else 0.0
        return ApiStats(
            pid=os.getpid(),
            uptime=go_duration(uptime),
            uptime_sec=uptime,
            time=f"{now:%Y-%m-%d %H:%M:%S.%f} +0000 UTC",
            unixtime=int(now.timestamp()),
            status_code_count={str(status): n for status, n in self._in_second.items()},
            total_status_code_count={str(status): n for status, n in self.by_status.items()},
            count=self._in_second.total(),
            total_count=total,
            total_response_time=go_duration(self._seconds),
            total_response_time_sec=self._seconds,
            average_response_time=go_duration(average),
            average_response_time_sec=average,
        )


def go_duration(seconds: float) -> str:
    """A duration as Go's time.Duration prints it: `0s`, `1.5µs`, `250ms`, `1h0m2.5s`."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return f"{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 10**9)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, unit: int) -> str:
    """`value` as a decimal number of `unit`, a power of ten, without zeros at its end."""
    whole, part = divmod(value, unit)
    digits = f"{part:0{len(str(unit)) - 1}d}".rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
