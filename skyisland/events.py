"""One stream of facts, in the past tense.

A fact is published after what it tells has happened and is on record. Per invocation,
`InvocationStarted` comes first and one `InvocationFinished` last, cancellation included; the end of
its jail is a story of its own and may follow.

Two doors. `tap(fold)` calls a function at once, in order, for every event: exact, so it must be
quick and must not raise (metrics, history); who names kinds hears of no others. `subscribe()` is an
async iterator over a bounded queue that drops the oldest and says how many in a `Gap` (console, API
stream): a slow watcher never slows an invocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field

from skyisland.model import Phase, Purpose, Timings, Usage

log = logging.getLogger(__name__)


class Event(Struct, frozen=True, kw_only=True, tag=True, tag_field="event", omit_defaults=False):
    """The root of all facts."""

    at: float = field(default_factory=time.time)
    invocation: str | None = None


class IslandStarted(Event, frozen=True, kw_only=True):
    swept: int
    """Leftovers of an earlier life that were removed."""


class IslandStopped(Event, frozen=True, kw_only=True):
    pass


class InvocationStarted(Event, frozen=True, kw_only=True):
    url: str
    call: str
    version: str | None = None
    ip4: bool = False


class PhaseFinished(Event, frozen=True, kw_only=True):
    phase: Phase
    duration_s: float


class SourceFetched(Event, frozen=True, kw_only=True):
    url: str
    commit: str
    duration_s: float


class BuildStarted(Event, frozen=True, kw_only=True):
    key: str
    url: str
    function: str


class BuildFinished(Event, frozen=True, kw_only=True):
    key: str
    url: str
    function: str
    ok: bool
    duration_s: float
    size_bytes: int = 0


class ArtifactEvicted(Event, frozen=True, kw_only=True):
    key: str
    url: str
    function: str
    reason: str
    """`unused`, `space` or `operator`."""


class CloneCreated(Event, frozen=True, kw_only=True):
    clone: str
    duration_s: float


class CloneDestroyed(Event, frozen=True, kw_only=True):
    clone: str
    duration_s: float


class JailCreated(Event, frozen=True, kw_only=True):
    jail: str
    jid: int
    pid: int | None
    purpose: Purpose
    url: str = ""
    call: str = ""
    ip4: str | None = None
    duration_s: float = 0.0


class JailClaimed(Event, frozen=True, kw_only=True):
    """A warm jail was taken by an invocation."""

    jail: str
    jid: int


class JailKilled(Event, frozen=True, kw_only=True):
    jail: str
    jid: int
    reason: str
    duration_s: float = 0.0


class JailDestroyed(Event, frozen=True, kw_only=True):
    jail: str
    jid: int
    duration_s: float


class AddressLeased(Event, frozen=True, kw_only=True):
    ip: str
    jail: str


class AddressReleased(Event, frozen=True, kw_only=True):
    ip: str
    jail: str


class AddressStateSet(Event, frozen=True, kw_only=True):
    ip: str
    state: str


class InvocationFinished(Event, frozen=True, kw_only=True):
    url: str
    call: str
    verdict: str
    """A `Verdict`, the code of an error, or `cancelled`."""
    timings: Timings
    jail: str | None = None
    commit: str = ""
    cached: bool = False
    warm: bool = False
    error: str = ""


class Gap(Event, frozen=True, kw_only=True):
    """This watcher was too slow and lost `missed` events."""

    missed: int


PULSE_S = 2.0
"""How often those who watch the island get a `Pulse`."""


class Pulse(Event, frozen=True, kw_only=True):
    """How the island is now, in figures that no fact tells. Made for those who watch, and never published."""

    running: int
    queued: int
    draining: bool
    usage: dict[str, Usage]
    """What jails use, by their names."""


WORDY = frozenset(
    kind for kind in Event.__subclasses__() if {"call", "url"}.intersection(kind.__struct_fields__)
)
"""Events with a text of a caller's, of any length."""

_STEPS = (InvocationStarted, PhaseFinished, JailClaimed)
_PARTS = (CloneCreated, CloneDestroyed)


def included(events: Iterable[Event]) -> Callable[[Event], bool]:
    """For who reads many events at once: tells of each whether others among them say as much. The steps of an
    invocation are in its end, if that is there; a clone comes and goes with its jail."""
    over = {event.invocation for event in events if isinstance(event, InvocationFinished)}
    return lambda event: isinstance(event, _PARTS) or (isinstance(event, _STEPS) and event.invocation in over)


Fold = Callable[[Any], None]
"""What is done with each event."""


class Events:
    """The stream. Publishing never waits, and a watcher's failure stays the watcher's."""

    def __init__(self) -> None:
        self._taps: list[tuple[Fold, tuple[type[Event], ...]]] = []
        self._listening: dict[type[Event], tuple[Fold, ...]] = {}
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        kind = type(event)
        if kind not in self._listening:
            self._listening[kind] = tuple(fold for fold, kinds in self._taps if not kinds or kind in kinds)
        for fold in self._listening[kind]:
            try:
                fold(event)
            except Exception:
                log.exception("a tap failed on %s", type(event).__name__)
        for subscription in self._subscriptions:
            subscription.offer(event)

    def tap(self, fold: Fold, *kinds: type[Event]) -> Callable[[], None]:
        """Call `fold` for every event of these kinds (of all, without any) from now on; returns the function
        that ends it."""
        tapped = (fold, kinds)

        def untap() -> None:
            self._taps.remove(tapped)
            self._listening.clear()

        self._taps.append(tapped)
        self._listening.clear()
        return untap

    @contextmanager
    def subscribe(self, limit: int = 1000) -> Iterator[Subscription]:
        """Follow the stream through a queue of at most `limit` events."""
        subscription = Subscription(limit)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription, once it has delivered what it holds."""
        for subscription in self._subscriptions:
            subscription.close()


class Subscription:
    """A watcher's place in the stream: `async for event in subscription`."""

    def __init__(self, limit: int) -> None:
        self._queue: deque[Event] = deque()
        self._limit = limit
        self._missed = 0
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, event: Event) -> None:
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            if self._missed:
                missed, self._missed = self._missed, 0
                yield Gap(missed=missed)
            elif self._queue:
                yield self._queue.popleft()
            elif self._closed:
                return
            else:
                self._wake.clear()
                await self._wake.wait()
