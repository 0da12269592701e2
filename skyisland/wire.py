"""What travels as JSON between an island and its clients; API, client, console and commands share each shape.

What `model`, `status` and `events` define travels as it is (`Artifact`, `AddressInfo`, facts); here is what
differs. How it is written and read is in `codec`; which operation takes and answers what, in `operations`.

A new field of a request takes three edits beside its use, its place in docs/rest.md and docs/operating.md,
the dialog's pictures and CHANGELOG: the field in `model.FunctionRequest`, the option of `invoke` in
`cli/operating.py`, and its line in the console's dialog, `tui/invoke.py`. The strict body, its description,
the client and the curl line follow from the first; tests/api/test_parity.py fails until all three are there.
"""

from __future__ import annotations

import signal
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from skyisland.cause import CANCELLED
from skyisland.errors import BadRequest
from skyisland.events import TEXT, BuildFinished, InvocationFinished, shortened
from skyisland.figures import OTHER, FunctionFigures
from skyisland.model import (
    UNANSWERED,
    Artifact,
    FunctionRequest,
    GoError,
    Invocation,
    NamedCall,
    Returned,
    Timings,
    Verdict,
)
from skyisland.status import JailInfo, Status

PAGE_CALLS = 50
"""Calls on the page of a function. A judgement: two screens."""
MESSAGE_CHARACTERS = 500
"""How much of an error's message stands in a sentence for people. A judgement: the answer has all of it."""

# Requests


class FunctionBody(FunctionRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/function."""

    def __post_init__(self) -> None:
        _check_given(self)
        if self.version == "":
            msgspec.structs.force_setattr(self, "version", None)  # callers send an empty form field


class NamedCallBody(NamedCall, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/names/NAME."""

    def __post_init__(self) -> None:
        _check_given(self)


def _check_given(body: FunctionRequest | NamedCall) -> None:
    """Check what a function is given.

    Raises:
        BadRequest
    """
    if body.stdin is not None and body.stdin_base64 is not None:
        raise BadRequest("stdin and stdin_base64 exclude each other; send one of them", field="stdin")
    if body.args is not UNSET and body.inputs is not UNSET:
        raise BadRequest("args and inputs exclude each other; send one of them", field="args")
    if body.inputs is not UNSET and _first(body.inputs) != b"[":
        message = "inputs: send an array; each element is what args would be"
        raise BadRequest(message, field="inputs")
    if body.args is not UNSET and _first(body.args) not in b"[{":
        message = "args: send an array, or an object by the names of the function's parameters"
        raise BadRequest(message, field="args")


def _first(json: Raw) -> bytes:
    return bytes(memoryview(json)[:1])


class AddressBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /api/v1/admin/ips."""

    ip: Annotated[str, Meta(max_length=64)]
    state: Annotated[str, Meta(max_length=64)] | int
    """`available` or `unavailable`, or the original's 0 or 1."""


# Answers


class InputAnswer(Struct, frozen=True, kw_only=True):
    """What came of one of many inputs; the fields mean what those of `Answer` do."""

    data: str
    results: Annotated[Any, Meta(extra_json_schema={"type": ["array", "null"], "items": {}})] = None
    error: GoError | None = None
    """Also an argument that does not fit (its type is `argument`, and `at` the path), or a `panic`: the next
    input is taken all the same."""
    failed: bool = False
    stdout: str = ""
    data_base64: str | UnsetType = UNSET

    @classmethod
    def of(cls, returned: Returned) -> InputAnswer:
        data, base64 = _texts(returned.printed + returned.text)
        return cls(
            data=data,
            results=None if returned.results is None else Raw(returned.results),
            error=returned.error,
            failed=returned.error is not None,
            stdout=returned.printed.decode(errors="replace"),
            data_base64=base64,
        )


class Answer(Struct, frozen=True, kw_only=True):
    """What came of a call; inside `details` when it did not end well."""

    timestamp: int
    """Seconds since the epoch."""
    data: str
    """What `fmt.Print` prints of the results, after what the function printed itself; bytes that are no UTF-8
    are replaced, and `data_base64` has them all."""
    results: Annotated[Any, Meta(extra_json_schema={"type": ["array", "null"], "items": {}})] = None
    """The results by the rules of encoding/json, without a trailing error. Null if there are none, because
    the function ended the process, or if they take more than a mebibyte."""
    error: GoError | None = None
    """The error that the function returned, or its panic."""
    failed: bool = False
    """The function returned an error."""
    stdout: str = ""
    """What the function printed itself; bytes that are no UTF-8 are replaced."""
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
    """Phases in their order, and the total."""
    data_base64: str | UnsetType = UNSET
    signal: int | UnsetType | None = UNSET
    """The signal that ended it; left out of a good answer."""
    answers: list[InputAnswer] | UnsetType = UNSET
    """Of many inputs, one each, in order; fewer where the call ended before. `data` is then what was printed
    apart from them."""
    node: str | UnsetType = UNSET
    """The island of the fleet that ran it, if that was another one."""

    @classmethod
    def of(cls, invocation: Invocation) -> Answer:
        outcome = invocation.outcome
        data, base64 = _texts(outcome.stdout)
        return cls(
            timestamp=int(invocation.started_at + invocation.timings.total_s),
            data=data,
            results=None if outcome.results is None else Raw(outcome.results),
            error=outcome.error,
            failed=outcome.verdict is Verdict.failed,
            stdout=(outcome.printed or b"").decode(errors="replace"),
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
            signal=UNSET if outcome.verdict in (Verdict.ok, Verdict.failed) else outcome.signal,
            answers=UNSET
            if outcome.answers is None
            else [InputAnswer.of(returned) for returned in outcome.answers],
            node=invocation.node or UNSET,
        )

    @property
    def output(self) -> bytes:
        """`data`, to the byte."""
        return self.data.encode() if isinstance(self.data_base64, UnsetType) else b64decode(self.data_base64)

    @property
    def timings(self) -> Timings:
        """`timings_ms` in seconds; phases that this version does not know are left out."""
        fields = {field.removesuffix("_s"): field for field in Timings.__struct_fields__}
        return Timings(**{fields[name]: ms / 1000 for name, ms in self.timings_ms.items() if name in fields})


def _texts(output: bytes) -> tuple[str, str | UnsetType]:
    """Output as text, and in base64 if that is not all of it."""
    try:
        return output.decode(), UNSET
    except UnicodeDecodeError:
        return output.decode(errors="replace"), b64encode(output).decode()


def milliseconds(timings: Timings) -> dict[str, float]:
    """Each phase, and the total, in milliseconds. `queue` stands first, though it comes after `build`."""
    return {
        "queue": round(timings.queue_s * 1000, 3),
        "resolve": round(timings.resolve_s * 1000, 3),
        "clone": round(timings.clone_s * 1000, 3),
        "build": round(timings.build_s * 1000, 3),
        "jail": round(timings.jail_s * 1000, 3),
        "exec": round(timings.exec_s * 1000, 3),
        "total": round(timings.total_s * 1000, 3),
    }


class Called(Struct, frozen=True, kw_only=True):
    """A call that ran, to its client: the answer, and how the function ended."""

    verdict: Verdict
    message: str
    """Why it did not end well, for people; else empty."""
    answer: Answer

    @classmethod
    def of(cls, invocation: Invocation) -> Called:
        return cls.by(invocation.outcome.verdict, Answer.of(invocation))

    @classmethod
    def by(cls, verdict: Verdict, answer: Answer) -> Called:
        message, error = _explained(verdict, answer), answer.error
        if verdict not in (Verdict.ok, Verdict.failed) and error is not None and error.type == UNANSWERED:
            remedy = "; send fewer at a time" if verdict is Verdict.output_limit else ""
            message += f"; {error.message}{remedy}"
        return cls(verdict=verdict, message=message, answer=answer)


def _explained(verdict: Verdict, answer: Answer) -> str:
    match verdict:
        case Verdict.ok:
            return ""
        case Verdict.failed if answer.error is not None and answer.error.type == "exit":
            return f"the program ended with {answer.error.message}"
        case Verdict.failed:
            return f"the function returned an error: {_of(answer.error)}"
        case Verdict.exited if answer.error is not None and answer.error.type != UNANSWERED:
            how = "panicked" if answer.error.type == "panic" else f"ended with a {answer.error.type}"
            return f"the function {how}: {_of(answer.error)}"
        case Verdict.exited:
            return f"the function exited with code {answer.exit_code}"
        case Verdict.signaled:
            return f"the function was ended by signal {_signal(answer.signal)}"
        case Verdict.out_of_memory:
            return "the function needed more memory than its jail may use"
        case Verdict.output_limit:
            return "the function printed more than it may"
        case Verdict.disk_full:
            return "the function failed when its disk was full"
        case Verdict.cpu_time:
            return "the function used more processor time than it may"
        case Verdict.timed_out:
            return "the function did not end in time"
        case Verdict.killed:
            return "the jail was killed by an admin, or because the island stops"


def _of(error: GoError | None) -> str:
    """An error's message and where it comes from, for people."""
    if error is None:
        return ""
    text = shortened(error.message, MESSAGE_CHARACTERS)
    return f"{text} (from {error.at})" if error.at else text


def _signal(number: int | UnsetType | None) -> str:
    try:
        return f"{number} ({signal.Signals(number or 0).name})"
    except ValueError:
        return str(number)


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
    package: str
    function: str
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
            package=jail.package,
            function=jail.function,
            call=jail.call,
            invocation=jail.invocation,
            cached=jail.cached,
            memory_bytes=jail.usage.memory_bytes,
            cpu_s=jail.usage.cpu_s,
            pids=jail.usage.pids,
        )


class Version(Struct, frozen=True, kw_only=True):
    """A commit of which a function was called, or has a binary."""

    commit: str
    calls: int
    """Of those on the page."""
    errors: int
    last_at: float | None
    """When the latest of them ended."""


class PastVersion(Struct, frozen=True):
    """A version of a repository that can be called."""

    version: str
    """A tag; of a commit among others, its forty digits."""
    commit: str


class Versions(Struct, frozen=True, kw_only=True):
    """Versions of a package, oldest first."""

    url: str
    """The repository's canonical name: `github.com/user/repo`."""
    package: str
    """Folder of the package below the repository, empty for its root."""
    versions: list[PastVersion]
    omitted: int = 0
    """So many older ones are left out."""


class FunctionPage(Struct, frozen=True, kw_only=True):
    """All about one function that was called."""

    figures: FunctionFigures
    versions: list[Version]
    """The last called first."""
    artifacts: list[Artifact]
    """Its binaries."""
    jails: list[Jail]
    """Those that run it, and warm ones."""
    recent: list[InvocationFinished]
    """Its latest calls that are over, newest first."""

    @classmethod
    def of(
        cls, figures: FunctionFigures, status: Status, ends: Iterable[InvocationFinished], now: float
    ) -> FunctionPage:
        """`ends`: of all functions, newest first."""
        key = figures.repository, figures.package, figures.name
        its = [end for end in ends if end.row == key or (figures.id == OTHER and not all(end.row[::2]))]
        # What a name stands for, its latest call tells.
        made = next(((end.repository, end.package, end.function) for end in its), key)
        artifacts = [one for one in status.artifacts if (one.url, one.package, one.function) == made]
        commits = dict.fromkeys([end.commit for end in its] + [one.commit for one in artifacts])
        return cls(
            figures=figures,
            versions=[_version(commit, its) for commit in commits if commit],
            artifacts=listed(artifacts),
            jails=[Jail.of(one, now) for one in status.jails if (one.url, one.package, one.function) == made],
            recent=its[:PAGE_CALLS],
        )


def _version(commit: str, ends: list[InvocationFinished]) -> Version:
    of_it = [end for end in ends if end.commit == commit]
    return Version(
        commit=commit,
        calls=len(of_it),
        errors=sum(end.cause is not None and end.verdict != CANCELLED for end in of_it),
        last_at=of_it[0].at if of_it else None,
    )


def listed(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Artifacts for a list of them: of an expression, as much as an event has of a call."""
    return [
        structs.replace(one, expression=shortened(one.expression), function=shortened(one.function))
        if one.expression and len(one.expression) > TEXT
        else one
        for one in artifacts
    ]


class Snapshot(Status, frozen=True, kw_only=True):
    """The island's status at one moment, and where the event stream goes on from it."""

    at: float
    """The island's clock."""
    last_event_id: str
    """Send it as `Last-Event-ID` to the event stream for what happened since; empty within the process."""
    recent: list[InvocationFinished]
    """The latest invocations that are over, newest first."""
    failed_builds: tuple[BuildFinished, ...] = ()
    """The builds that failed last, newest first, without those of binaries that were built since."""

    @classmethod
    def of(
        cls,
        status: Status,
        *,
        at: float,
        recent: list[InvocationFinished],
        failed_builds: tuple[BuildFinished, ...] = (),
        last_event_id: str = "",
    ) -> Snapshot:
        fields = {name: getattr(status, name) for name in Status.__struct_fields__}
        fields["artifacts"] = listed(status.artifacts)
        fields |= {"at": at, "recent": recent, "failed_builds": failed_builds, "last_event_id": last_event_id}
        return cls(**fields)


class Problem(Struct, frozen=True):
    """The body of every answer that is not a good one."""

    error: str
    code: str
    details: object = UNSET
