"""The shapes of what travels: JSON bodies in, strictly read; JSON bodies out.

Bodies are read whatever their Content-Type says, because the original's clients send none or a wrong
one. What is out of place is refused with the field's name and the remedy, before it costs anything:
types are checked while the text is read, so neither nesting nor a number's length matters.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from skyisland.errors import BadRequest
from skyisland.events import InvocationFinished
from skyisland.model import FunctionRequest, Invocation, JailInfo, Status, Timings, Verdict

T = TypeVar("T")

_encoder = msgspec.json.Encoder(enc_hook=str)
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}
_SAID_AT = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"missing required field `(.*)`")


class Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""


class FunctionBody(Body, frozen=True, kw_only=True):
    """POST /api/v1/function."""

    url: str
    call: str
    ip4: bool = False
    cache_bust: bool = False
    version: str | None = None
    stdin: str | None = None
    """What the function reads from standard input, as text."""
    stdin_base64: bytes | None = None
    """The same for what is not text."""
    cold: bool = False

    def request(self) -> FunctionRequest:
        if self.stdin is not None and self.stdin_base64 is not None:
            raise BadRequest("stdin and stdin_base64 exclude each other; send one of them", field="stdin")
        return FunctionRequest(
            url=self.url,
            call=self.call,
            ip4=self.ip4,
            cache_bust=self.cache_bust,
            version=self.version or None,
            stdin=self.stdin.encode() if self.stdin is not None else self.stdin_base64 or b"",
            cold=self.cold,
        )


class AddressBody(Body, frozen=True, kw_only=True):
    """PUT /api/v1/admin/ips."""

    ip: str
    state: str | int
    """`available` or `unavailable`, or the original's 0 or 1."""


class Answer(Struct, frozen=True, kw_only=True):
    """What came of a call; inside `details` when it did not end well."""

    timestamp: int
    """Seconds since the epoch."""
    data: str
    """What the function printed; bytes that are no UTF-8 are replaced, and `data_base64` has them all."""
    id: str
    jail: str | None
    version: str
    """The commit."""
    cached: bool
    stale: bool
    warm: bool
    exit_code: int | None
    stderr: str
    timings_ms: dict[str, float]
    data_base64: str | UnsetType = UNSET
    signal: int | UnsetType | None = UNSET
    """Which signal ended it; only where it did not end well."""

    @classmethod
    def of(cls, invocation: Invocation) -> Answer:
        outcome = invocation.outcome
        base64: str | UnsetType = UNSET
        try:
            data = outcome.stdout.decode()
        except UnicodeDecodeError:
            data = outcome.stdout.decode(errors="replace")
            base64 = b64encode(outcome.stdout).decode()
        return cls(
            timestamp=int(invocation.started_at + invocation.timings.total_s),
            data=data,
            id=invocation.id,
            jail=invocation.jail,
            version=invocation.commit,
            cached=invocation.cached,
            stale=invocation.stale,
            warm=invocation.warm,
            exit_code=outcome.exit_code,
            stderr=outcome.stderr.decode(errors="replace"),
            timings_ms=milliseconds(invocation.timings),
            data_base64=base64,
            signal=UNSET if outcome.verdict is Verdict.ok else outcome.signal,
        )


def milliseconds(timings: Timings) -> dict[str, float]:
    """Phases in their order, and the total, in milliseconds."""
    return {
        "queue": round(timings.queue_s * 1000, 3),
        "resolve": round(timings.resolve_s * 1000, 3),
        "clone": round(timings.clone_s * 1000, 3),
        "build": round(timings.build_s * 1000, 3),
        "jail": round(timings.jail_s * 1000, 3),
        "exec": round(timings.exec_s * 1000, 3),
        "total": round(timings.total_s * 1000, 3),
    }


class Jail(Struct, frozen=True, kw_only=True):
    """A jail: first what jls(8) told clients of the original, then what is ours."""

    host: str = "new"
    ip4: str
    """Its address, or `disable`."""
    ip6: str = "disable"
    jid: int
    name: str
    os_release: str = msgspec.field(name="OSRelease")
    path: str
    hostname: str
    state: str
    purpose: str
    pid: int | None
    created_at: float
    age_s: float
    url: str
    call: str
    invocation: str | None
    cached: bool
    memory_bytes: int | None
    cpu_s: float | None
    pids: int | None

    @classmethod
    def of(cls, jail: JailInfo, now: float) -> Jail:
        return cls(
            ip4=jail.ip4 or "disable",
            jid=jail.jid,
            name=jail.name,
            os_release=jail.os_release,
            path=jail.path,
            hostname=jail.hostname,
            state=jail.state,
            purpose=jail.purpose,
            pid=jail.pid,
            created_at=jail.created_at,
            age_s=round(max(0.0, now - jail.created_at), 3),
            url=jail.url,
            call=jail.call,
            invocation=jail.invocation,
            cached=jail.cached,
            memory_bytes=jail.usage.memory_bytes,
            cpu_s=jail.usage.cpu_s,
            pids=jail.usage.pids,
        )


class Snapshot(Status, frozen=True, kw_only=True):
    """GET /api/v1/admin/snapshot: the island's status, and where to go on from it."""

    at: float
    """The island's clock."""
    last_event_id: str
    """What followed this moment comes with `Last-Event-ID: …` from the event stream."""
    recent: list[InvocationFinished]
    """The latest invocations that are over, newest first."""


def encode(value: object) -> bytes:
    """JSON; paths as text."""
    return _encoder.encode(value)


def decode(body: bytes, shape: type[T]) -> T:
    """Read a request's body.

    Raises:
        BadRequest: names what is wrong, in `details["field"]` too where it is a field.
    """
    if shape not in _decoders:
        _decoders[shape] = msgspec.json.Decoder(shape)
    if not body.strip():
        raise BadRequest(f"the body is empty; send a JSON object with {_fields(shape)}")
    try:
        value: T = _decoders[shape].decode(body)
        json.loads(body, object_pairs_hook=_once)
    except msgspec.ValidationError as error:
        raise _explained(str(error), shape) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"the body is not JSON: {error}; send a JSON object in UTF-8") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that has a field twice: parsers disagree on which of them counts."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"field {name!r} is there twice; send it once", field=name)


def _fields(shape: type) -> str:
    return ", ".join(field.encode_name for field in msgspec.structs.fields(shape))


def _explained(said: str, shape: type) -> BadRequest:
    """msgspec's complaint in the words of a caller."""
    if match := _UNKNOWN.search(said):
        name = match[1][:64]
        return BadRequest(f"unknown field {name!r}; there are {_fields(shape)}", field=name)
    if match := _MISSING.search(said):
        return BadRequest(f"field {match[1]!r} is missing; it is required", field=match[1])
    match = _SAID_AT.fullmatch(said)
    what, field = (match[1], match[2]) if match else (said, None)
    what = what[:1].lower() + what[1:]
    if field is None:
        return BadRequest(f"the body: {what}; send a JSON object with {_fields(shape)}")
    return BadRequest(f"field {field!r}: {what}; correct or omit it", field=field)
