"""What happens on an island, as a stream of facts in the past tense, and the ring that keeps the latest.

A fact is published after it happened and is on record. Of each invocation `InvocationStarted` comes first and
`InvocationFinished` last, exactly once, cancellation included; the end of its jail may follow later.

There are two ways to read the stream:

- `tap(fold)` calls a function for each event, at once and in order. It misses nothing and delays whoever
  publishes, so it must be quick: metrics, log, history.
- `ring` keeps the latest events by number. Its readers (`skyisland.watching`: the console, event streams of
  the API) take pages of it when they have time; one that is too slow gets a `Gap` in place of what it missed,
  and slows nobody.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from sys import maxsize
from typing import Any, Generic, TypeVar

from msgspec import Struct, field, structs

from skyisland.cause import Cause
from skyisland.figures import NAMES
from skyisland.model import FunctionRequest, Phase, Purpose, Timings
from skyisland.status import HostLoad, Usage

log = logging.getLogger(__name__)
T = TypeVar("T")

TEXT = 2048
"""Characters of each text of others in an event; a URL has no more. So whatever a request held, whoever keeps
or writes events has a bound."""


def shortened(text: str, most: int = TEXT) -> str:
    """The first `most` characters, of which the last is an ellipsis if there are more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


REQUEST_BYTES = 4096
"""Of a request that is kept with its invocation; a longer one is not. Most take a tenth of it."""


def _shorten_texts(event: Event) -> None:
    """For `__post_init__` of the kinds that hold texts of callers and repositories."""
    for name in _TEXTS[type(event)]:
        text = getattr(event, name)
        if text is not None and len(text) > TEXT:
            structs.force_setattr(event, name, shortened(text))


class Event(Struct, frozen=True, kw_only=True, tag=True, tag_field="event", omit_defaults=False):
    """The root of all events."""

    at: float = field(default_factory=time.time)
    """Unix time."""
    invocation: str | None = None
    """The id of the invocation that it belongs to; None where it belongs to none."""


class IslandStarted(Event, frozen=True, kw_only=True):
    swept: int
    """How many things that a killed island left on the host were removed."""


class IslandStopped(Event, frozen=True, kw_only=True):
    """Everything that the island made is gone; the last event."""


class InvocationStarted(Event, frozen=True, kw_only=True):
    """A call was asked for: the words of the caller, before anybody has checked them."""

    url: str
    call: str
    version: str | None = None
    ip4: bool = False
    caller_id: str = ""
    """What the caller calls it (`X-Call-Id`); empty if nothing."""
    traceparent: str = ""
    """The trace that it is a part of, and the caller's span in it (`skyisland.trace`); empty if none."""
    client: str = ""
    """Who called: the name of a token, or an address."""
    name: str = ""
    """The name that is called; empty for a plain call."""

    def __post_init__(self) -> None:
        if len(self.url) > TEXT or len(self.call) > TEXT or len(self.version or "") > TEXT:
            _shorten_texts(self)


class InvocationQueued(Event, frozen=True, kw_only=True):
    """All places are taken, or as many as its client may have: the call waits for one."""


class PhaseFinished(Event, frozen=True, kw_only=True):
    """A part of an invocation is over, also if it failed. A phase may come twice: its times add up."""

    phase: Phase
    duration_s: float


class SourceFetched(Event, frozen=True, kw_only=True):
    """A commit that was not on this host is, fetched and checked out."""

    url: str
    """Of the repository, without the package: `github.com/user/repo`."""
    commit: str
    duration_s: float

    def __post_init__(self) -> None:
        _shorten_texts(self)


class BuildStarted(Event, frozen=True, kw_only=True):
    key: str
    """Of the artifact that it will be."""
    url: str
    """Of the repository."""
    function: str
    package: str = ""
    """Folder of the package below the repository."""

    def __post_init__(self) -> None:
        _shorten_texts(self)


class BuildFinished(Event, frozen=True, kw_only=True):
    """For each `BuildStarted` one, cancellation included."""

    key: str
    url: str
    function: str
    ok: bool
    duration_s: float
    size_bytes: int = 0
    """Of the binary; 0 if there is none."""
    package: str = ""
    """Folder of the package below the repository."""
    cause: Cause | None = None
    """Why there is none, with the compiler's lines."""

    def __post_init__(self) -> None:
        _shorten_texts(self)


class ArtifactEvicted(Event, frozen=True, kw_only=True):
    key: str
    url: str
    function: str
    reason: str
    """`unused`, `space` or `operator`."""

    def __post_init__(self) -> None:
        _shorten_texts(self)


class CloneCreated(Event, frozen=True, kw_only=True):
    clone: str
    """Its name, which is that of its jail."""
    duration_s: float


class CloneDestroyed(Event, frozen=True, kw_only=True):
    clone: str
    duration_s: float
    """From the end of the jail's work, with the time to destroy the jail."""


class JailCreated(Event, frozen=True, kw_only=True):
    """A jail whose process waits for its input."""

    jail: str
    """Its name."""
    jid: int
    """Its number: on FreeBSD the kernel's (jls(8)), elsewhere the one in its name."""
    pid: int | None
    """On the host; None if the driver does not know it."""
    purpose: Purpose
    url: str = ""
    """Of the artifact that it runs; empty for a build."""
    call: str = ""
    """Empty while it is warm."""
    ip4: str | None = None
    duration_s: float = 0.0
    """With the time for its clone and its address."""

    def __post_init__(self) -> None:
        if len(self.url) > TEXT or len(self.call) > TEXT:
            _shorten_texts(self)


class JailClaimed(Event, frozen=True, kw_only=True):
    """An invocation took a warm jail."""

    jail: str
    jid: int


class JailKilled(Event, frozen=True, kw_only=True):
    """By an admin, or because the island stops; a jail that reaches a limit has an outcome instead."""

    jail: str
    jid: int
    reason: str
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        _shorten_texts(self)


class JailDestroyed(Event, frozen=True, kw_only=True):
    """A jail, its address and its clone are gone."""

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
    """By an operator."""

    ip: str
    state: str
    """An `AddressState`."""


class InvocationFinished(Event, frozen=True, kw_only=True):
    """The last event of an invocation, but for the end of its jail."""

    url: str
    call: str
    verdict: str
    """A `Verdict`, the code of an error, or `cancelled` if the caller left."""
    timings: Timings
    jail: str | None = None
    """The name of its jail; None if it got none."""
    commit: str = ""
    """Empty if it was not resolved."""
    cached: bool = False
    """The binary was there already."""
    warm: bool = False
    """A warm jail was claimed."""
    error: str = ""
    """The message of the error that ended it, that the function returned or that it panicked with."""
    cause: Cause | None = None
    """Why it did not end well; None if it did."""
    caller_id: str = ""
    """What the caller calls it (`X-Call-Id`); empty if nothing."""
    traceparent: str = ""
    """The trace that it is a part of, and the caller's span in it (`skyisland.trace`); empty if none."""
    client: str = ""
    """Who called: the name of a token, or an address."""
    name: str = ""
    """The name that was called; empty for a plain call."""
    node: str = ""
    """The island of the fleet that ran it, if that was another one."""
    repository: str = ""
    """Which one the URL means, by its canonical name; empty if that was not found out."""
    package: str = ""
    """Folder of the package below the repository."""
    function: str = ""
    """What was called: of an expression, its first function. Empty if the call was not understood."""
    request: FunctionRequest | None = None
    """All that the caller sent, to make the same call again; None if that is longer than `REQUEST_BYTES`."""

    @property
    def row(self) -> tuple[str, str, str]:
        """What it counts to: repository, package and function, or the name that was called."""
        return (NAMES, "", self.name) if self.name else (self.repository, self.package, self.function)

    def __post_init__(self) -> None:
        if (
            len(self.url) > TEXT
            or len(self.call) > TEXT
            or len(self.error) > TEXT
            or len(self.function) > TEXT
        ):
            _shorten_texts(self)


class Gap(Event, frozen=True, kw_only=True):
    """For one reader, never published: events that the ring had forgotten before this reader took them."""

    missed: int
    """How many; 0 if nobody knows."""


PULSE_S = 2.0
"""Seconds between two pulses: enough for a curve of memory; each costs some system calls per jail."""


class Pulse(Event, frozen=True, kw_only=True):
    """Current load and usage of each jail. Sampled, sent to those who watch, never published nor kept."""

    running: int
    queued: int
    draining: bool
    usage: dict[str, Usage]
    """By the name of the jail."""
    host: HostLoad | None = None
    """How busy the host is; None where nobody reads it."""


_OF_OTHERS = ("url", "call", "version", "package", "function", "error", "reason")
_TEXTS = {
    kind: tuple(name for name in _OF_OTHERS if name in kind.__struct_fields__)
    for kind in Event.__subclasses__()
}
"""The fields of each kind that hold a text of a caller's or a repository's."""

_WITH_CAUSE = (InvocationFinished, BuildFinished)

EVENT_BYTES = 250
"""About what an event keeps in memory beside its texts: over those of a call, 170 bytes were measured."""


def size_of(event: Event) -> int:
    """About how many bytes an event keeps in memory. (`getsizeof` of a text grows once it is encoded.)"""
    count = EVENT_BYTES
    for name in _TEXTS[type(event)]:
        text = getattr(event, name)
        if text:
            count += len(text) if text.isascii() else 4 * len(text)
    if type(event) is InvocationFinished and event.request is not None:
        count += event.request.size_bytes
    if type(event) in _WITH_CAUSE and event.cause is not None:  # type: ignore[attr-defined]
        count += event.cause.size_bytes  # type: ignore[attr-defined]
    return count


_STEPS = (InvocationStarted, InvocationQueued, PhaseFinished, JailClaimed)
_PARTS = (CloneCreated, CloneDestroyed)


def redundant(events: Iterable[Event]) -> Callable[[Event], bool]:
    """Predicate for a batch: true for events that another event of the same batch makes redundant.

    `InvocationFinished` repeats the steps of its invocation. A clone comes and goes with its jail, so its
    events are redundant in any batch.
    """
    over = {event.invocation for event in events if isinstance(event, InvocationFinished)}
    return lambda event: isinstance(event, _PARTS) or (isinstance(event, _STEPS) and event.invocation in over)


Fold = Callable[[Any], None]
"""A function that takes in one event."""


class Events:
    """The stream. Publishing never waits, and an error of a tap goes to the log."""

    def __init__(self, *, ring_bytes: int = 4 << 20) -> None:
        """`ring_bytes`: about how much memory the events in the ring may take."""
        self.ring = Ring(ring_bytes)
        self._taps: list[tuple[Fold, tuple[type[Event], ...]]] = []
        self._taps_of: dict[type[Event], tuple[Fold, ...]] = {}

    def publish(self, event: Event) -> None:
        kind = type(event)
        if kind not in self._taps_of:
            self._taps_of[kind] = tuple(fold for fold, kinds in self._taps if not kinds or kind in kinds)
        for fold in self._taps_of[kind]:
            try:
                fold(event)
            except Exception:
                log.exception("a tap failed on %s", kind.__name__)
        self.ring.add(event)

    def tap(self, fold: Fold, *kinds: type[Event]) -> Callable[[], None]:
        """Call `fold` for every event of these kinds, or of all if none is named, from now on.

        Returns the function that ends it.
        """
        tapped = (fold, kinds)

        def untap() -> None:
            self._taps.remove(tapped)
            self._taps_of.clear()

        self._taps.append(tapped)
        self._taps_of.clear()
        return untap


PAGE = 1000
"""Most events on a page, so that no reader keeps the event loop for more than a few milliseconds."""


class Page(Struct, frozen=True):
    """The events with numbers above `after`, up to `last`."""

    after: int
    last: int
    events: dict[int, Event]
    """By number, rising."""


class Latest(Generic[T]):
    """The latest of some things, in their order: as many as fit into some bytes, and no more than `most`."""

    def __init__(self, size: Callable[[T], int], limit_bytes: int, most: int | None = None) -> None:
        """`size`: the bytes of one, asked once."""
        self._things: deque[T] = deque()
        self._sizes: deque[int] = deque()
        self._size, self._limit_bytes = size, limit_bytes
        self._most = maxsize if most is None else most
        self._bytes = 0

    def add(self, thing: T) -> None:
        things, sizes, size = self._things, self._sizes, self._size(thing)
        things.append(thing)
        sizes.append(size)
        count = self._bytes + size
        while count > self._limit_bytes or len(things) > self._most:
            things.popleft()
            count -= sizes.popleft()
        self._bytes = count

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)

    def __reversed__(self) -> Iterator[T]:
        return reversed(self._things)


class Ring:
    """The latest events, numbered from 1. A reader keeps a number and no queue, so it costs nothing, however
    slow it is; readers at the same place get the same `Page` object, and can share what they make of it."""

    def __init__(self, limit_bytes: int) -> None:
        self.number = 0
        """Of the latest event."""
        self._events = Latest(size_of, limit_bytes)
        self._pages = {brief: Page(0, 0, {}) for brief in (False, True)}
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        self.number += 1
        self._events.add(event)
        self._news.set()

    def page(self, after: int, *, brief: bool = False) -> Page:
        """The events that follow number `after`; a `Gap` alone if the first of them are forgotten.

        `brief`: leave out what others of the page make redundant. A third is left of a busy island's.
        """
        forgotten = self.number - len(self._events)
        if after < forgotten:
            return Page(after, forgotten, {forgotten: Gap(missed=forgotten - after)})
        last = min(self.number, after + PAGE)
        if (self._pages[brief].after, self._pages[brief].last) != (after, last):
            self._pages[brief] = Page(after, last, self._numbered(after, last, brief))
        return self._pages[brief]

    def _numbered(self, after: int, last: int, brief: bool) -> dict[int, Event]:
        # From the end, where most readers are: a deque finds its middle by walking there.
        newest_first = itertools.islice(reversed(self._events), self.number - last, self.number - after)
        events = list(newest_first)[::-1]
        numbered = enumerate(events, after + 1)
        if not brief:
            return dict(numbered)
        leave_out = redundant(events)
        return {number: event for number, event in numbered if not leave_out(event)}

    async def news(self) -> None:
        """Wait for the next event, or for `wake`. What came before this call is no news: look first."""
        self._news.clear()
        await self._news.wait()

    def wake(self) -> None:
        """Let all who wait for news look again."""
        self._news.set()
