"""What is kept of a call that answers later.

    Order ─▶ Attempt … ─▶ Record ─▶ Delivery …

An order says what to run, a record what became of it; a record travels to callers and operators as it is.
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from skyisland.events import shortened
from skyisland.model import FunctionRequest, NamedCall
from skyisland.wire import Problem

SHOWN_CHARACTERS = 500
"""How much of a call a record has."""


def new_call_id() -> str:
    """An id that nobody guesses: who knows it may read the result, if its client is an address."""
    return f"call-{secrets.token_hex(12)}"


class CallState(StrEnum):
    """Where a call is that answers later."""

    queued = "queued"
    """It waits for its first attempt, or for the next one."""
    running = "running"
    done = "done"
    """It ended well, and has its result."""
    dead = "dead"
    """It did not end well, and is not tried again by itself."""
    cancelled = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (CallState.queued, CallState.running)


class Order(Struct, frozen=True, kw_only=True):
    """A call to be run. `Queue` keeps it."""

    id: str
    client: str
    """Whose share it counts to."""
    request: Raw
    """A `FunctionRequest` as JSON, or a `NamedCall`."""
    name: str = ""
    """Of the named function that is called; empty for a function of a repository."""
    who: str = ""
    """The name of the token that the caller showed."""
    url: str = ""
    call: str = ""
    """What is called, for people, shortened."""
    caller_id: str = ""
    """What the caller calls it."""
    traceparent: str = ""
    """The trace that it is a part of."""

    @property
    def size(self) -> int:
        """Bytes that its request takes."""
        return len(bytes(self.request))


class Attempt(Struct, kw_only=True, omit_defaults=True):
    """One run of a call."""

    number: int
    id: str
    """The invocation's."""
    started_at: float
    ended_at: float | None = None
    """Of one that was cut off, because the island was killed: when that was found."""
    verdict: str = ""
    """How the function ended, or the code of the error that kept it from running."""
    message: str = ""
    """The same for people; empty where it ended well."""
    node: str = ""
    """The island of the fleet that ran it; empty outside of one."""


class Delivery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt to send a callback."""

    at: float
    took_s: float
    status: int | None = None
    """What the receiver answered; None if it did not."""
    error: str = ""
    """Why it did not count as taken."""


class CallbackState(StrEnum):
    """Where a callback is."""

    waiting = "waiting"
    """For the end of the call, or for the next attempt to send it."""
    delivered = "delivered"
    dead = "dead"
    """Nobody took it, and it is not sent again by itself."""


class Callback(Struct, kw_only=True, omit_defaults=True):
    """Where a call's record is sent when it is over."""

    url: str
    state: CallbackState = CallbackState.waiting
    deliveries: list[Delivery] = field(default_factory=list)
    due_at: float | None = None


class Record(Struct, kw_only=True, omit_defaults=True):
    """What became of a call. `Results` keeps it, and answers have it as it is."""

    id: str
    state: CallState
    client: str
    """Whose call it is: a token's name, or an address."""
    name: str = ""
    """The named function's."""
    url: str
    call: str
    """The call for people, shortened."""
    caller_id: str = ""
    created_at: float
    due_at: float | None = None
    """When it is tried again, if it waits for that."""
    ended_at: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    verdict: str = ""
    """How the last attempt ended."""
    message: str = ""
    error: Problem | None = None
    """Why the last attempt did not run to its end."""
    callback: Callback | None = None
    durable: str = ""
    """`node`: one island of the fleet keeps it, for the fleet's servers were away. Else empty."""
    private: bool = False
    """Its function was given secrets: the result is for its client alone."""
    result: Raw | UnsetType = UNSET
    """What a call that waits would have had as its answer; left out of lists."""

    def shown_to(self, client: str) -> Record:
        """The record as this client may see it."""
        if not self.private or client == self.client:
            return self
        return msgspec.structs.replace(self, result=UNSET)


class Claim(Struct, frozen=True, kw_only=True):
    """An Idempotency-Key of one client, and what it was first used for."""

    client: str
    key: str
    body: bytes
    """The hash of the request's body."""
    call: str = ""
    """The call that answers later; empty for one whose caller waits."""
    reply: bytes | None = None
    """What that caller was answered; None while the call runs."""
    at: float = 0.0
    """When it was first used."""


_encoder = msgspec.json.Encoder(enc_hook=str)
_decoder = msgspec.json.Decoder(Record)


def written(record: Record) -> bytes:
    """The record without its result, as it is kept."""
    if record.result is not UNSET:
        record = msgspec.structs.replace(record, result=UNSET)
    return _encoder.encode(record)


def read(content: bytes, result: bytes | None = None) -> Record:
    """A record as it was kept, with its result."""
    record = _decoder.decode(content)
    if result is not None:
        record.result = Raw(result)
    return record


def ordered(
    request: FunctionRequest, client: str, *, call_id: str, named: NamedCall | None, **fields: str
) -> Order:
    """An order for a call; `named`: what was sent to the name that stands for `request` now."""
    return Order(
        id=call_id or new_call_id(),
        client=client,
        request=Raw(_encoder.encode(request if named is None else named)),
        url=shortened(request.url, SHOWN_CHARACTERS),
        call=shortened(request.shown, SHOWN_CHARACTERS),
        **fields,
    )


def accepted(order: Order, callback: str = "") -> Record:
    """The record of a call that was just accepted; `callback`: its URL, or empty."""
    return Record(
        id=order.id,
        state=CallState.queued,
        client=order.client,
        name=order.name,
        url=order.url,
        call=order.call,
        caller_id=order.caller_id,
        created_at=time.time(),
        callback=Callback(url=callback) if callback else None,
    )
