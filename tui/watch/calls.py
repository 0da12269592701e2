"""The rows of the calls that answer later, as the island keeps them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UnsetType

from skyisland.later.calls import CallbackState, CallState, Record
from skyisland.wire import Answer
from tui.words import clean, label, line

LISTED = 300
"""Calls that are asked for at a time, the newest."""
SHOWN_CHARACTERS = 4000
"""How much of each part of a result is shown."""


class Part(NamedTuple):
    """One thing that a call gave: its results, what it printed."""

    name: str
    text: str


class CallRow:
    """A call that answers later."""

    def __init__(self, record: Record) -> None:
        self.id = record.id
        self.short = line(record.id).removeprefix("call-")[:8]
        self.url = line(record.url)
        self.call = line(record.call)
        self.name = line(record.name)
        """Of the named function that is called; empty for a function of a repository."""
        self.client = line(record.client)
        self.caller_id = line(record.caller_id)
        self.label = f"{self.name}  {self.call}" if self.name else label(record.url, record.call)
        self.opened = False
        """The operator wants to see its result, too."""
        self.result: list[Part] | None = None
        """What it gave; None while that was not asked for."""
        self.ordered = ""
        """What an order that is under way does to it: `cancelling`."""
        self.record = record
        self.take(record)

    def take(self, record: Record) -> None:
        """Show what is known now."""
        if record.ended_at != self.record.ended_at:
            self.result = None  # it ran again
        self.record = record
        attempt = record.attempts[-1] if record.attempts else None
        error = record.error.error if record.error is not None else ""
        self.message = line(record.message or error or (attempt.message if attempt is not None else ""))
        """Why its last attempt did not end well; empty if it did."""

    def take_result(self, record: Record) -> None:
        """The same, with its result, for which it was asked."""
        self.take(record)
        if record.state.final:
            kept = record.result
            self.result = [] if isinstance(kept, UnsetType) else parts(bytes(kept))

    @property
    def lacks_result(self) -> bool:
        """Its result is wanted, and there to be asked for."""
        return self.opened and self.state.final and self.result is None

    @property
    def key(self) -> str:
        return self.id

    @property
    def state(self) -> CallState:
        return self.record.state

    @property
    def word(self) -> str:
        """The state for people."""
        return self.ordered or str(self.state)

    @property
    def callback(self) -> str:
        """Where its callback is; empty if it has none."""
        return "" if self.record.callback is None else str(self.record.callback.state)

    @property
    def callback_failed(self) -> bool:
        """Nobody took its callback."""
        return self.callback == CallbackState.dead

    @property
    def may_run_again(self) -> bool:
        """An order can run it again, or send its callback again."""
        return self.state in (CallState.dead, CallState.cancelled) or (
            self.state.final and self.callback_failed
        )

    def field(self, name: str) -> str:
        return {
            "function": f"{self.name} {self.url} {self.call}",
            "state": f"{self.state} {self.ordered}",
            "code": line(self.record.verdict),
            "client": self.client,
            "request": f"{self.id} {self.caller_id} {' '.join(one.id for one in self.record.attempts)}",
        }.get(name, "")

    def haystack(self) -> str:
        own = f"{self.id} {self.word} {self.client} {self.url} {self.label} {self.message}"
        return f"{own} {self.callback} {self.caller_id}".lower()

    def seconds(self, now: float) -> float:
        """Since it was accepted, until it was over."""
        return max(0.0, (self.record.ended_at or now) - self.record.created_at)


def parts(result: bytes) -> list[Part]:
    """What a call gave, in the parts that say something, each no longer than is shown."""
    try:
        answer = msgspec.json.decode(result, type=Answer)
    except msgspec.MsgspecError:
        return [Part("result", _shown(result[:SHOWN_CHARACTERS].decode(errors="replace")))]
    results = None if answer.results is None else bytes(answer.results)
    texts = {
        "results": (results or b"")[:SHOWN_CHARACTERS].decode(errors="replace"),
        "output": answer.data if results is None else answer.stdout,
        "stderr": answer.stderr,
    }
    return [Part(name, _shown(text)) for name, text in texts.items() if text.strip()]


def _shown(text: str) -> str:
    return clean(text[:SHOWN_CHARACTERS])
