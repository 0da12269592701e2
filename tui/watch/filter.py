"""The filter line: words that must all match.

    encode !warm fn:geohash st:running ip:10.8. code:timed_out >400ms <2s

A plain word matches anything that a row shows, `name:` what is in one field. `!` in front of a word inverts
it. `>` and `<` compare the row's time (a jail's age, an invocation's total).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

_TIME = re.compile(r"([<>])(\d+(?:\.\d+)?)(us|ms|s|m|h)?$")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FIELDS = {
    "fn": "function",
    "st": "state",
    "ip": "ip",
    "code": "code",
    "jail": "jail",
    "req": "request",
    "by": "client",
    "node": "node",
}


class Filterable(Protocol):
    """A row, as a filter sees it."""

    def field(self, name: str) -> str:
        """One of the values of `_FIELDS`; empty where the row has no such field."""
        ...

    def haystack(self) -> str:
        """Everything that the row shows, in lower case."""
        ...

    def seconds(self, now: float) -> float:
        """The time that `>` and `<` compare, in seconds."""
        ...


Test = Callable[[Filterable, float], bool]


def _field_test(name: str, needle: str) -> Test:
    return lambda row, now: needle in row.field(name).lower()


def _word_test(needle: str) -> Test:
    return lambda row, now: needle in row.haystack()


def _time_test(above: bool, limit: float) -> Test:
    return lambda row, now: (row.seconds(now) > limit) == above


def _not(test: Test) -> Test:
    return lambda row, now: not test(row, now)


class Filter:
    """A parsed filter line. An empty one matches every row."""

    def __init__(self, text: str = "") -> None:
        self.text = " ".join(text.split())
        self._tests: list[Test] = []
        for raw in self.text.lower().split():
            negated = raw.startswith("!")
            word = raw[1:] if negated else raw
            if not word:
                continue
            name, colon, needle = word.partition(":")
            if match := _TIME.match(word):
                limit = float(match[2]) * _SECONDS[match[3] or "s"]
                test = _time_test(match[1] == ">", limit)
            elif colon and name in _FIELDS:
                test = _field_test(_FIELDS[name], needle)
            else:
                test = _word_test(word)
            self._tests.append(_not(test) if negated else test)

    def __bool__(self) -> bool:
        return bool(self._tests)

    def __call__(self, row: Filterable, now: float) -> bool:
        return all(test(row, now) for test in self._tests)
