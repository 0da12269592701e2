"""A line of the log: what an event or a record is in words for people, how grave it is, and what is left out.

Events have levels as records have. What is one step of a call is DEBUG, and its end INFO: one line for each
call. An end that the function did not choose, a build that fails and a refusal for want of room are
WARNING; what only the island or its host can be blamed for is ERROR.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection

from msgspec import Struct

from skyisland.events import (
    AddressLeased,
    AddressReleased,
    AddressStateSet,
    ArtifactEvicted,
    BuildFinished,
    Event,
    InvocationFinished,
    InvocationStarted,
    IslandStarted,
    IslandStopped,
    JailCreated,
    JailDestroyed,
    JailKilled,
    SourceFetched,
    shortened,
)

REDACTED = "[secret]"
TEXT_SHOWN = 160
"""Characters of each text of a caller's in a line of the ring: a call fits, a program does not."""
LINE_TEXT = 4000
"""Characters of a record's message, and of each text beside it: more than any of our own has."""


def printable(text: str) -> str:
    """`text` with an escape in place of each character that is not visible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    """`text` with its lines and tabs, and an escape for each other character that is not visible: a terminal
    takes no orders from it."""
    return re.sub(r"[^\n\t]+", lambda line: printable(line[0]), text)


def redacted(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, REDACTED)
    return text


class LogLine(Struct, frozen=True, kw_only=True):
    """A line of the log, for people: printable characters only."""

    seq: int
    """Rises by one with each line, from 1 when the island starts."""
    at: float
    """Unix time."""
    level: str
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    logger: str
    text: str
    jail: str | None = None
    invocation: str | None = None


def _cut(text: str) -> str:
    return shortened(text, TEXT_SHOWN)


def _called(event: InvocationStarted | InvocationFinished) -> str:
    caller = f" (the caller: {event.caller_id})" if event.caller_id else ""
    return f"{_cut(event.url)} {_cut(event.call)}{caller}"


TEXTS: dict[type[Event], Callable[..., str]] = {
    IslandStarted: lambda e: f"island started, {e.swept} leftovers swept",
    InvocationStarted: lambda e: _called(e),
    SourceFetched: lambda e: f"fetched {_cut(e.url)} at {e.commit[:12]} in {e.duration_s:.3f} s",
    BuildFinished: lambda e: (
        f"built {e.function} of {_cut(e.url)} in {e.duration_s:.3f} s"
        if e.ok
        else f"could not build {e.function} of {_cut(e.url)}: {_cut(e.cause.text if e.cause else 'unknown')}"
    ),
    ArtifactEvicted: lambda e: f"evicted {e.function} of {_cut(e.url)}: {e.reason}",
    JailCreated: lambda e: f"{e.purpose} jail created in {e.duration_s * 1000:.1f} ms",
    JailKilled: lambda e: f"jail killed: {_cut(e.reason)}",
    JailDestroyed: lambda e: f"jail destroyed in {e.duration_s * 1000:.1f} ms",
    AddressLeased: lambda e: f"leased {e.ip}",
    AddressReleased: lambda e: f"released {e.ip}",
    AddressStateSet: lambda e: f"{e.ip} set {e.state}",
    InvocationFinished: lambda e: (
        f"{_called(e)}: {_cut(e.cause.text) if e.cause else e.verdict} in {e.timings.total_s * 1000:.1f} ms"
    ),
}
"""The text of a line for each kind of event; the other kinds have none."""

_LEVELS: dict[type[Event], int] = {
    IslandStarted: logging.INFO,
    IslandStopped: logging.INFO,
    ArtifactEvicted: logging.INFO,
    AddressStateSet: logging.INFO,
    JailKilled: logging.WARNING,
}
"""The other kinds are steps of a call: DEBUG; but for those that `level_of` looks into."""
_AS_CALLED = frozenset({"ok", "failed", "cancelled", "bad_request", "bad_call", "source_refused", "draining"})
"""Ends of calls that nobody but their callers need know of."""
_OF_THE_HOST = frozenset({"internal", "driver_error", "host_unfit", "bad_settings"})


def level_of(event: Event) -> int:
    """Of `logging`."""
    kind = type(event)
    if kind is InvocationFinished:
        verdict = event.verdict  # type: ignore[attr-defined] # `kind` says so
        if verdict in _AS_CALLED:
            return logging.INFO
        return logging.ERROR if verdict in _OF_THE_HOST else logging.WARNING
    if kind is BuildFinished:
        return logging.DEBUG if event.ok else logging.WARNING  # type: ignore[attr-defined] # as above
    return _LEVELS.get(kind, logging.DEBUG)
