"""What callers ask an island, and what they make of its answers: generators that send nothing themselves.

Each yields what is to be done next, an `Ask` or a `Pause`, gets the answer of an `Ask` sent back, and returns
what came of it. So the same words are said by `Island`, which waits, and by `AsyncIsland`, which awaits.

When it is safe to send something again:

- A refusal that says when to come back (429, 503 with Retry-After) means that nothing ran.
- An answer that got lost may be one of a call that ran. With an Idempotency-Key the island answers what is
  sent again as it did first, so a call is sent again only with one: `submit` always has one, `call` where its
  caller says `once=True`. What changes nothing is sent again anyhow.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, UnsetType

from skyisland import operations as op
from skyisland.codec import NotAnIsland, encode, read_call
from skyisland.errors import IslandError, Unavailable
from skyisland.later.calls import CallState, Record
from skyisland.model import FunctionRequest, GoError, NamedCall, Verdict
from skyisland.named.functions import Named
from skyisland.operations import JSON, LINES, Operation
from skyisland.wire import Answer, Called, InputAnswer

T = TypeVar("T")

LONGEST_PAUSE_S = 30.0
"""Between two tries, whatever the island asks for. A judgement."""
FIRST_PAUSE_S = 0.2
"""Before the second try, if the island does not say; twice as long before each further one."""
WAIT_S = 50
"""How long one request waits for a call that answers later: less than proxies do, and than the island."""
BEHIND = "u=7"
"""RFC 9218's urgency of what may wait until nobody else does."""


class Unreachable(Unavailable):
    """Nobody answers there, or somebody who is not an island."""

    code = "unreachable"


class CallFailed(IslandError):
    """The function did not end well; `code` is the verdict, such as `failed` or `timed_out`."""

    def __init__(self, called: Called) -> None:
        super().__init__(called.message)
        self.code = str(called.verdict)  # type: ignore[misc] # of each its own
        self.called = called
        self.error: GoError | None = called.answer.error
        """The Go error that it returned, or its panic."""
        self.answer: Answer = called.answer


class Function(Struct, frozen=True):
    """A function of a package. One that has a name on the island is called by that alone, a text."""

    url: str
    """Repository, and the package in it: `github.com/user/repo/sub`."""
    name: str = "main"
    """Its bare name; `main` runs a program, whose arguments are texts."""
    version: str | None = None
    """Branch, tag or commit; the default branch without it."""
    types: tuple[str, ...] = ()
    """Type arguments of a generic function."""


Target = Function | str


class Ask(Struct, frozen=True):
    """A request to be sent."""

    method: str
    url: str
    content: bytes | None = None
    headers: dict[str, str] = {}
    patient: bool = False
    """It takes as long as it takes."""


class Pause(Struct, frozen=True):
    """Time to pass before the next request."""

    seconds: float


class Reply(Struct, frozen=True):
    """What came back. `lost` says why nothing did."""

    status: int = 0
    content: bytes = b""
    retry_after: str = ""
    lost: Unreachable | None = None


Talk = Generator[Ask | Pause, Reply, T]


def way_to(url: str, tls: object) -> tuple[str, str]:
    """The URL that requests are written for, and the path of the Unix socket that they go to, if they do.

    `url`: `http://host:port`, or `unix:` and a path.
    """
    if not url.startswith("unix:"):
        return url, ""
    return f"{'https' if tls else 'http'}://localhost", url.removeprefix("unix:")


def talk(ask: Ask, *, retries: int, safe: bool) -> Talk[Reply]:
    """Send a request, and again where that is safe. `safe`: also after its answer got lost.

    Raises:
        Unreachable
    """
    for number in range(retries + 1):
        reply = yield ask
        last = number == retries
        if reply.lost is not None:
            if last or not safe:
                raise reply.lost
        elif last or not reply.retry_after or reply.status not in (409, 429, 503):
            return reply
        yield Pause(pause_s(number, reply.retry_after))
    raise AssertionError("the last try returns or raises")


def pause_s(number: int, retry_after: str) -> float:
    """How long to wait after so many tries: what the island asks for, or else longer each time, and never as
    long as the others who wait."""
    asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    backoff = FIRST_PAUSE_S * 2.0**number
    spread = random.uniform(1.0, 1.3)  # noqa: S311 - no secret
    return min(LONGEST_PAUSE_S, max(asked, backoff) * spread)


def _read(operation: Operation[T], reply: Reply) -> T:
    try:
        return operation.read(reply.status, reply.content)
    except NotAnIsland as error:
        raise Unreachable(f"it {error}") from None


# What is called


def asking(
    target: Target, args: Sequence[Any], named: Mapping[str, Any], stdin: str | bytes | None
) -> tuple[str, FunctionRequest | NamedCall]:
    """The path to ask at, and the body."""
    given: dict[str, Any] = _input(stdin)
    if args and named:
        raise TypeError("arguments go by position or by name, not both")
    if args or named:
        given["args"] = Raw(encode(dict(named) if named else list(args)))
    return _addressed(target, given)


def _addressed(target: Target, given: dict[str, Any]) -> tuple[str, FunctionRequest | NamedCall]:
    if isinstance(target, str):
        return op.CALL.url(name=target), NamedCall(**given)
    if target.name != "main" and "args" not in given and "inputs" not in given:
        given["args"] = Raw(b"[]")
    call = target.name if target.name != "main" or given.keys() & {"args", "inputs"} else ""
    request = FunctionRequest(url=target.url, call=call, version=target.version, types=target.types, **given)
    return op.INVOKE.url(), request


def _input(stdin: str | bytes | None) -> dict[str, Any]:
    if stdin is None:
        return {}
    return {"stdin": stdin} if isinstance(stdin, str) else {"stdin_base64": stdin}


def value_of(results: Any, as_type: type[T] | Any, called: Called | InputAnswer) -> Any:
    """What a function gave back: nothing, its one result, or a list of several, as the type that is wanted.

    Raises:
        TypeError: the results do not fit that type, or there are none to take.
    """
    if results is None:
        told = called.answer.data if isinstance(called, Called) else called.data
        raise TypeError(f"there are no results as JSON, because they are too long; as text: {told[:200]!r}")
    value = results[0] if len(results) == 1 else results or None
    if as_type is Any:
        return value
    try:
        return msgspec.convert(value, as_type, strict=True)
    except msgspec.ValidationError as error:
        raise TypeError(f"the results are not what as_type says: {error}") from None


def checked(called: Called) -> Called:
    """Raises:
    CallFailed: the function did not end well."""
    if called.verdict is not Verdict.ok:
        raise CallFailed(called)
    return called


# Talks


def call(
    target: Target,
    args: Sequence[Any],
    named: Mapping[str, Any],
    stdin: str | bytes | None,
    *,
    once: bool,
    behind: bool,
    retries: int,
) -> Talk[Called]:
    url, body = asking(target, args, named, stdin)
    headers = {"Content-Type": JSON}
    if once:
        headers["Idempotency-Key"] = new_key()
    if behind:
        headers["Priority"] = BEHIND
    ask = Ask("POST", url, encode(body), headers, patient=True)
    reply = yield from talk(ask, retries=retries, safe=once)
    try:
        return read_call(reply.status, reply.content)
    except NotAnIsland as error:
        raise Unreachable(f"it {error}") from None


def new_key() -> str:
    """An Idempotency-Key that nobody used before."""
    return f"sky-{secrets.token_hex(16)}"


def submit(
    target: Target,
    args: Sequence[Any],
    named: Mapping[str, Any],
    stdin: str | bytes | None,
    *,
    key: str,
    callback: str,
    retries: int,
) -> Talk[str]:
    url, body = asking(target, args, named, stdin)
    headers = {"Content-Type": JSON, "Prefer": "respond-async", "Idempotency-Key": key or new_key()}
    if callback:
        headers["X-Callback-Url"] = callback
    ask = Ask("POST", url, encode(body), headers, patient=True)
    reply = yield from talk(ask, retries=retries, safe=True)
    return _read(op.KEPT, reply).id


def result(call_id: str, *, wait_s: float | None, retries: int) -> Talk[Record]:
    """The record of a call that answers later as soon as it is over, or after `wait_s`."""
    begun = time.monotonic()
    while True:
        left = WAIT_S if wait_s is None else min(WAIT_S, begun + wait_s - time.monotonic())
        headers = {"Prefer": f"wait={int(left)}"} if left >= 1 else {}
        ask = Ask("GET", op.KEPT.url(kept=call_id), headers=headers, patient=bool(headers))
        record = _read(op.KEPT, (yield from talk(ask, retries=retries, safe=True)))
        if record.state.final or (wait_s is not None and time.monotonic() - begun >= wait_s):
            return record
        yield Pause(FIRST_PAUSE_S)  # an island that stops answers at once


def outcome(record: Record) -> Called:
    """What came of a call that answers later.

    Raises:
        TimeoutError: it is not over.
        CallFailed: it did not end well.
        IslandError: it did not run.
    """
    if not record.state.final:
        raise TimeoutError(f"{record.id} is {record.state}")
    if record.state is CallState.cancelled:
        raise Cancelled(f"{record.id} was cancelled")
    if isinstance(record.result, UnsetType):
        problem = record.error
        refused = IslandError(record.message if problem is None else problem.error)
        refused.code = record.verdict  # type: ignore[misc] # the API's own
        raise refused
    return checked(Called.by(Verdict(record.verdict), msgspec.json.decode(record.result, type=Answer)))


class Cancelled(IslandError):
    """Somebody cancelled the call."""

    code = "cancelled"


def names(retries: int) -> Talk[list[Named]]:
    return _read(op.NAMES, (yield from talk(Ask("GET", op.NAMES.url()), retries=retries, safe=True)))


# Many inputs


def many(target: Target, inputs: Iterable[Any]) -> Ask:
    """The request for many inputs, each the arguments of one call: a list, or an object by their names."""
    rows = [row if isinstance(row, (list, tuple, dict)) else [row] for row in inputs]
    url, body = _addressed(target, {"inputs": Raw(encode(rows))})
    return Ask("POST", url, encode(body), {"Content-Type": JSON, "Accept": LINES}, patient=True)


def of_input(answer: InputAnswer, as_type: Any) -> Any:
    """What one of many inputs came to.

    Raises:
        InputFailed: the function returned an error for it, or panicked.
    """
    if answer.failed:
        raise InputFailed(answer)
    return value_of(answer.results, as_type, answer)


class InputFailed(IslandError):
    """The function failed for one of many inputs, with the code `failed`; the others have their answers."""

    def __init__(self, answer: InputAnswer) -> None:
        error = answer.error or GoError(message="it failed", type="")
        super().__init__(f"the function returned an error: {error.message}")
        self.code = str(Verdict.failed)  # type: ignore[misc] # as of `CallFailed`
        self.answer, self.error = answer, error
