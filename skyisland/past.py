"""One call at many versions of its repository: a time machine for functions.

    sweep    at each of them, oldest first
    bisect   which is the first that does not answer as expected
    replay   a call that is over, again: the same commit, arguments and input

Everything here asks an island by its API, by calls that leave the way to all others (`Priority: u=7`). A name
lends its function, not its environment, secrets and limits: these are for the commit that an admin gave them
to, so a sweep over other commits runs plain calls.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct, structs

from skyisland.client import Client
from skyisland.codec import encode
from skyisland.errors import BadCall, BadRequest, BuildFailed, IslandError, NotFound, TooBusy
from skyisland.events import InvocationFinished
from skyisland.model import FunctionRequest, NamedCall, Verdict
from skyisland.named.functions import Named
from skyisland.named.runner import request_of
from skyisland.sources.releases import Order, order_of
from skyisland.wire import Called, PastVersion

MOST = 200
"""Versions of one sweep. A judgement: each may be a build of seconds."""
LINES_COMPARED = 500
"""Lines of an output of which differences are told: to compare takes up to the square of them."""
BUSY_TRIES = 20
"""How often a call is sent again that the island has no room for."""
_RANGE = re.compile(r"(\S*?)\.\.(\S*)")
_REMEMBERED = re.compile(r" \(remembered for [^()]{1,40}\)$")
"""What an island adds to a failure of before; it says nothing of the version."""


class Step(Struct, frozen=True, kw_only=True):
    """What a call did at one version."""

    version: str
    commit: str
    outcome: str
    """`ok`, how else the function ended, or the code of the error that kept it from running."""
    output: str = ""
    """What it printed, or why it did not run; where it does not compile, with the compiler's lines."""
    took_s: float = 0.0
    """Of the island's time, without waiting and building."""
    changed: bool = False
    """Its outcome, output or results are not those of the step before."""
    results: Any = None
    """What the function returned; null where the call's answer has none."""

    @property
    def same(self) -> tuple[str, str, bytes]:
        """What is compared. Why a version did not run may name its commit, which tells it from any other."""
        output = self.output
        if self.commit and self.outcome in (BuildFailed.code, BadCall.code):
            output = output.replace(self.commit, "").replace(self.commit[:12], "")
        return self.outcome, output, encode(self.results)  # to Python, 1 is 1.0, and True

    @property
    def short(self) -> str:
        """The version, for people: of a commit its first digits."""
        return self.commit[:12] if self.version == self.commit else self.version


def of_name(named: Named, asked: NamedCall) -> FunctionRequest:
    """The plain call of what a name stands for.

    Raises:
        BadRequest: it is a handler.
    """
    if named.definition.handler:
        raise BadRequest(f"{named.name} is a handler; a sweep takes a function", name=named.name)
    return request_of(named.definition, "", asked)


def chosen(text: str, known: Sequence[PastVersion]) -> list[PastVersion]:
    """The versions that a text means among those `known`: `v1.0..v1.9`, with both ends, either of which may
    be missing; or some by name, with commas: `v1.0.0,v1.2.0`. An end of fewer numbers means all that begin
    so: `..v1` goes to the last v1.x.y.

    Raises:
        BadRequest: it means none of them, or too many.
    """
    if match := _RANGE.fullmatch(text):
        found = _between(match[1], match[2], known)
    else:
        by_name = {one.version: one for one in known}
        names = [name.strip() for name in text.split(",") if name.strip()]
        # What no release is called may be a branch or a commit: the island knows.
        found = [by_name.get(name, PastVersion(name, "")) for name in names]
    if not found:
        there = f"{known[0].version} to {known[-1].version}" if known else "none"
        raise BadRequest(f"versions: no release is in {text!r}; there are {there}", field="versions")
    if len(found) > MOST:
        raise BadRequest(
            f"versions: {len(found)} are more than {MOST}; name a shorter range", field="versions"
        )
    return found


def _between(first: str, last: str, known: Sequence[PastVersion]) -> list[PastVersion]:
    return [one for one in known if _reaches(one.version, first, 1) and _reaches(one.version, last, -1)]


def _reaches(version: str, end: str, side: int) -> bool:
    """Whether a version is not before the beginning of a range (1), or not after its end (-1)."""
    if not end:
        return True
    its, wanted = order_of(version), _end(end)
    if its is None:
        return False
    count, numbers, whole = wanted
    if whole is not None:
        return its >= whole if side > 0 else its <= whole
    return its[0][:count] >= numbers if side > 0 else its[0][:count] <= numbers


def _end(text: str) -> tuple[int, tuple[int, ...], Order | None]:
    """An end of a range: how many numbers it has, these, and all of it where it is a whole release."""
    match = re.fullmatch(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?", text)
    numbers = tuple(int(one) for one in match.groups() if one is not None) if match else ()
    whole = order_of(text) if len(numbers) in (0, 3) else None
    if match is None and whole is None:
        raise BadRequest(f"versions: {text[:80]!r} is no release; write v1.0..v1.9", field="versions")
    return len(numbers), numbers, whole


def step(client: Client, request: FunctionRequest, at: PastVersion) -> Step:
    """Call at one version. That it does not compile there, or that there is no such function, is a result.

    Raises:
        IslandError: the island, or the repository's server, cannot do it now.
    """
    request = structs.replace(request, version=at.commit or at.version)
    try:
        called = _called(lambda: client.invoke(request, behind=True))
    except (BuildFailed, BadCall) as error:
        return Step(version=at.version, commit=at.commit, outcome=error.code, output=_why(error))
    answer = called.answer
    took_ms = answer.timings_ms.get("jail", 0.0) + answer.timings_ms.get("exec", 0.0)
    output = answer.output.decode(errors="replace")
    return Step(
        version=at.version,
        commit=answer.version,
        outcome=called.verdict,
        output=output if called.verdict is Verdict.ok else output + called.message,
        took_s=took_ms / 1000,
        results=answer.results,
    )


def _why(error: IslandError) -> str:
    """Why a version did not run, whenever that was found."""
    lines = error.details.get("output")
    message = _REMEMBERED.sub("", error.message) if "remembered_s" in error.details else error.message
    return f"{message}\n{lines}" if isinstance(lines, str) and lines else message


def _called(call: Callable[[], Called], pause: Callable[[float], None] = time.sleep) -> Called:
    for _ in range(BUSY_TRIES):
        try:
            return call()
        except TooBusy as error:
            pause(min(error.retry_after_s or 1.0, 10.0))
    return call()


def sweep(client: Client, request: FunctionRequest, versions: Sequence[PastVersion]) -> Iterator[Step]:
    """Call at each version, one after another."""
    before: Step | None = None
    for version in versions:
        now = step(client, request, version)
        if before is not None and now.same != before.same:
            now = structs.replace(now, changed=True)
        yield now
        before = now


def difference(before: Step, now: Step) -> list[str]:
    """How the output of two steps differs, as lines of a unified diff; empty if it does not."""
    one, other = (step.output.splitlines()[:LINES_COMPARED] for step in (before, now))
    return list(difflib.unified_diff(one, other, before.short, now.short, lineterm="", n=1))


# Bisecting


class Found(Struct, frozen=True, kw_only=True):
    """Where a fault came in."""

    good: Step
    """The last version that answers as expected."""
    bad: Step
    """The first one that does not."""
    tried: list[Step]
    """All that were called, in their order of calling."""
    candidates: int
    """Versions among which it was found."""


def answers(step: Step, expected: str | None) -> bool:
    """Whether a step answers as expected: with that output, but for the end of its last line; without one,
    by ending well."""
    well = step.outcome == Verdict.ok
    return well if expected is None else well and step.output.rstrip("\n") == expected.rstrip("\n")


def candidates(client: Client, url: str, good: str, bad: str, *, commits: bool = False) -> list[PastVersion]:
    """From a good version to a bad one, both with it: the releases between two releases, or else the commits.

    Raises:
        BadRequest: `bad` does not come after `good`.
        IslandError: there is no such version.
    """
    if not commits:
        known = client.versions(url).versions
        places = {order_of(one.version): place for place, one in enumerate(known)}
        first, last = (places.get(order_of(one)) if order_of(one) else None for one in (good, bad))
        if first is not None and last is not None:
            if last <= first:
                raise BadRequest(f"bad: {bad} does not come after {good}", field="bad")
            return known[first : last + 1]
    return [PastVersion(good, ""), *client.versions(url, after=good, until=bad).versions]


def bisect(
    client: Client,
    request: FunctionRequest,
    versions: Sequence[PastVersion],
    expected: str | None,
    tell: Callable[[Step, bool], None] = lambda step, good: None,
) -> Found:
    """The first of `versions` that does not answer as expected; `tell` is told each call.

    Raises:
        BadRequest: the first of them is no good one, or the last no bad one.
    """
    tried: list[Step] = []

    def good(place: int) -> tuple[Step, bool]:
        now = step(client, request, versions[place])
        tried.append(now)
        is_good = answers(now, expected)
        tell(now, is_good)
        return now, is_good

    low, high = 0, len(versions) - 1
    if high < 1:
        raise BadRequest("bad: no version comes after the good one", field="bad")
    last_good, as_expected = good(low)
    if not as_expected:
        raise BadRequest(
            f"good: {last_good.short} does not answer as expected: {_told(last_good)}", field="good"
        )
    first_bad, as_expected = good(high)
    if as_expected:
        raise BadRequest(f"bad: {first_bad.short} answers as expected", field="bad")
    while high - low > 1:
        middle = (low + high) // 2
        now, as_expected = good(middle)
        if as_expected:
            low, last_good = middle, now
        else:
            high, first_bad = middle, now
    return Found(good=last_good, bad=first_bad, tried=tried, candidates=len(versions))


def _told(step: Step) -> str:
    return f"{step.outcome}, {step.output[:200]!r}"


# Replaying


class Replayed(Struct, frozen=True, kw_only=True):
    """A call that was made again."""

    then: InvocationFinished
    now: Called
    plain: bool
    """The call was one by name, and this is none: it ran without the name's environment."""
    same_binary: bool
    """The binary of then ran."""


def replay(client: Client, invocation: str, version: str | None = None) -> Replayed:
    """Make a call again: at its commit, or at `version`. `invocation`: its id, also that of one that answered
    later.

    A call by name is made by name where the name still stands for that commit, and as a plain call elsewhere.

    Raises:
        NotFound: it is forgotten, or was too long to be remembered.
        IslandError: it cannot be made.
    """
    if invocation.startswith("call-"):
        attempts = client.kept(invocation).attempts
        if not attempts:
            raise NotFound(f"{invocation} has not run yet")
        invocation = attempts[-1].id
    then = client.invocation(invocation)
    if then.request is None:
        raise NotFound(f"{invocation} is remembered without its arguments, which are too long; call it anew")
    if version is None and not then.commit:
        raise NotFound(f"{invocation} never had a commit ({then.verdict}); replay it with a version")
    request = structs.replace(then.request, version=version or then.commit, cache_bust=False)
    by_name = bool(then.name) and version is None and _stands_for(client, then)

    def call() -> Called:
        if by_name:
            return client.call(then.name, NamedCall.of(request), behind=True)
        return client.invoke(request, behind=True)

    now = _called(call)
    return Replayed(
        then=then,
        now=now,
        plain=bool(then.name) and not by_name,
        same_binary=now.answer.version == then.commit and _had_binary(client, then),
    )


def _stands_for(client: Client, then: InvocationFinished) -> bool:
    try:
        name = client.named(then.name)
    except NotFound:
        return False
    return (name.repository, name.package, name.commit) == (then.repository, then.package, then.commit)


def _had_binary(client: Client, then: InvocationFinished) -> bool:
    """Whether all binaries of what was called that there are now were there then."""
    made = [
        artifact.built_at <= then.at
        for artifact in client.artifacts()
        if (artifact.url, artifact.package, artifact.commit, artifact.function)
        == (then.repository, then.package, then.commit, then.function)
    ]
    return bool(made) and all(made)
