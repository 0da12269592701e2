"""The time machine: which versions there are, and what is made of calls at them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw, structs

from skyisland import past
from skyisland.errors import BadRequest, BuildFailed, NotFound, SourceUnavailable, TooBusy
from skyisland.events import InvocationFinished
from skyisland.model import FunctionRequest, NamedCall, Timings, Verdict
from skyisland.sources.releases import order_of, releases_among
from skyisland.wire import Answer, Called, PastVersion, Versions

URL = "github.com/user/repo"
TEN = [PastVersion(f"v1.{n}.0", f"{n:040x}") for n in range(10)]


def listing(*tags: str) -> bytes:
    lines = [f"{number:040x}\trefs/tags/{tag}\n" for number, tag in enumerate(tags, 1)]
    return f"{0:040x}\tHEAD\n{''.join(lines)}".encode()


def names(versions: list[PastVersion]) -> list[str]:
    return [one.version for one in versions]


def test_releases_come_in_their_order_and_nothing_else_does() -> None:
    tags = ("v1.10.0", "v1.9", "v1.2.0-rc.10", "v1.2.0", "v1.2.0-rc.2", "nightly", "v1", "v2.0.0+meta")
    found = releases_among(listing(*tags), "")
    assert names(found) == ["v1.2.0-rc.2", "v1.2.0-rc.10", "v1.2.0", "v1.9", "v1.10.0", "v2.0.0+meta"]
    assert found[-1].commit == f"{8:040x}"


def test_a_tag_is_the_commit_that_it_was_peeled_to() -> None:
    lines = f"{1:040x}\trefs/tags/v1.0.0\n{2:040x}\trefs/tags/v1.0.0^{{}}\n".encode()
    assert releases_among(lines, "") == [PastVersion("v1.0.0", f"{2:040x}")]


def test_a_package_in_a_folder_has_the_tags_of_its_module() -> None:
    lines = listing("v1.0.0", "sub/v1.3.0", "sub/v1.4.0", "other/v9.0.0")
    assert names(releases_among(lines, "sub/deep")) == ["v1.3.0", "v1.4.0"]
    assert names(releases_among(lines, "third")) == ["v1.0.0"]


@pytest.mark.parametrize(
    ("text", "first", "last", "count"),
    [
        ("v1.2..v1.4", "v1.2.0", "v1.4.0", 3),
        ("v1.2.0..1.4.0", "v1.2.0", "v1.4.0", 3),
        ("v1.8..", "v1.8.0", "v1.9.0", 2),
        ("..v1", "v1.0.0", "v1.9.0", 10),
        ("..", "v1.0.0", "v1.9.0", 10),
        ("v1.3.0,v1.1.0", "v1.3.0", "v1.1.0", 2),
        ("main", "main", "main", 1),
    ],
)
def test_a_range_has_both_its_ends(text: str, first: str, last: str, count: int) -> None:
    found = past.chosen(text, TEN)
    assert (found[0].version, found[-1].version, len(found)) == (first, last, count)


@pytest.mark.parametrize("text", ["v2..", "x..y", "v1.2.3.4..", ""])
def test_a_range_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="versions: "):
        past.chosen(text, TEN)
    with pytest.raises(BadRequest, match=f"more than {past.MOST}"):
        past.chosen("..", TEN * 21)


class Island:
    """A client of an island whose function prints what its commit says."""

    def __init__(self, said: dict[str, str | Exception]) -> None:
        self.said = said
        """By commit; others print `3`."""
        self.asked: list[FunctionRequest] = []
        self.busy = 0
        self.known: list[PastVersion] = TEN
        self.then: InvocationFinished | None = None

    def versions(self, url: str, *, after: str | None = None, until: str | None = None) -> Versions:
        found = (
            self.known if after is None else [PastVersion(f"{n:040x}", f"{n:040x}") for n in range(20, 26)]
        )
        return Versions(url=url, package="", versions=found)

    def invoke(self, request: FunctionRequest, *, behind: bool = False) -> Called:
        assert behind
        if self.busy:
            self.busy -= 1
            raise TooBusy("no place", retry_after_s=0.0001)
        self.asked.append(request)
        said = self.said.get(request.version or "", "3")
        if isinstance(said, Exception):
            raise said
        answer = Answer(
            timestamp=0,
            data=said,
            id="inv-2",
            jail=None,
            version=request.version or "",
            cached=True,
            stale=False,
            warm=False,
            exit_code=0,
            stderr="",
            timings_ms={"exec": 2.0, "jail": 1.0, "build": 900.0},
        )
        return Called(verdict=Verdict.ok, message="", answer=answer)

    def invocation(self, invocation: str) -> InvocationFinished:
        assert self.then is not None
        return self.then

    def call(self, name: str, asked: NamedCall, *, behind: bool = False) -> Called:
        assert asked == NamedCall(args=Raw(b"[1,2]"), stdin="x")
        return self.invoke(FunctionRequest(url=name), behind=behind)

    def named(self, name: str) -> Any:
        """It stands for what was called."""
        return self.then

    def artifacts(self) -> list[Any]:
        return []


REQUEST = FunctionRequest(url=URL, call="Add(1, 2)")


def test_a_sweep_marks_what_changed_and_goes_on_where_it_does_not_compile() -> None:
    island = Island({TEN[1].commit: "4", TEN[2].commit: BuildFailed("undefined: Add")})
    island.busy = 2
    steps = list(past.sweep(island, REQUEST, TEN[:4]))  # type: ignore[arg-type]
    assert [(step.outcome, step.output, step.changed) for step in steps] == [
        ("ok", "3", False),
        ("ok", "4", True),
        ("build_failed", "undefined: Add", True),
        ("ok", "3", True),
    ]
    assert steps[0].took_s == 0.003
    assert [request.version for request in island.asked] == [one.commit for one in TEN[:4]]
    assert past.difference(steps[0], steps[1])[2:] == ["@@ -1 +1 @@", "-3", "+4"]
    assert past.difference(steps[0], steps[3]) == []


def test_what_fails_alike_is_no_change_however_it_is_told() -> None:
    def failed(commit: str, line: str, *, age: str = "") -> BuildFailed:
        more = f" (remembered for {age}; cache_bust tries again)" if age else ""
        remembered: dict[str, Any] = {"remembered_s": 5.0} if age else {}
        text = f"{URL} at {commit[:12]} does not compile{more}"
        return BuildFailed(text, output=f"a.go:3:1: {line}", **remembered)

    a, b, c = (one.commit for one in TEN[:3])
    same = [TEN[0], PastVersion("v1.0.1", a), TEN[1], TEN[2]]
    island = Island({a: failed(a, "no x"), b: failed(b, "no x", age="less than 1 s"), c: failed(c, "no y")})
    steps = [past.step(island, REQUEST, same[0])]  # type: ignore[arg-type]
    island.said[a] = failed(a, "no x", age="5 s")
    steps += past.sweep(island, REQUEST, same)  # type: ignore[arg-type]
    assert [step.changed for step in steps] == [False, False, False, False, True]
    assert past.difference(steps[0], steps[1]) == []
    assert not any("remembered" in step.output for step in steps)
    assert past.difference(steps[3], steps[4])[-1] == "+a.go:3:1: no y"


def test_results_of_another_type_are_a_change() -> None:
    one = past.Step(version="v1", commit="a", outcome="ok", output="1", results=[1])
    others = (structs.replace(one, commit="b", results=value) for value in ([1.0], [True], ["1"], [1]))
    assert [other.same == one.same for other in others] == [False, False, False, True]


@pytest.mark.parametrize("fault", range(1, 10))
def test_bisect_finds_a_fault_planted_among_ten_tags(fault: int) -> None:
    island = Island({one.commit: "4" for one in TEN[fault:]})
    versions = past.candidates(island, URL, "v1.0.0", "1.9.0")  # type: ignore[arg-type]
    told: list[bool] = []
    found = past.bisect(island, REQUEST, versions, "3\n", lambda _, good: told.append(good))  # type: ignore[arg-type]
    assert (found.good.version, found.bad.version) == (f"v1.{fault - 1}.0", f"v1.{fault}.0")
    assert len(found.tried) == len(told) <= 6
    assert found.candidates == 10


def test_bisect_among_commits_and_by_ending_well() -> None:
    island = Island({f"{n:040x}": BuildFailed("no") for n in range(23, 30)})
    versions = past.candidates(island, URL, "v1.0.0", "v1.9.0", commits=True)  # type: ignore[arg-type]
    assert (versions[0], len(versions)) == (PastVersion("v1.0.0", ""), 7)
    assert past.candidates(island, URL, "main", "dev") == [PastVersion("main", ""), *versions[1:]]  # type: ignore[arg-type]
    found = past.bisect(island, REQUEST, versions, None)  # type: ignore[arg-type]
    assert (found.good.commit, found.bad.short) == (f"{22:040x}", f"{23:040x}"[:12])


def test_bisect_refuses_ends_that_are_not_what_they_are_called() -> None:
    island = Island({TEN[0].commit: "4"})
    with pytest.raises(BadRequest, match=r"^good: v1.0.0 does not answer as expected: ok, '4'"):
        past.bisect(island, REQUEST, TEN, "3")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"^bad: v1.9.0 answers as expected"):
        past.bisect(island, REQUEST, TEN[1:], "3")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"^bad: v1.0.0 does not come after"):
        past.candidates(island, URL, "v1.9.0", "v1.0.0")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"^bad: no version"):
        past.bisect(island, REQUEST, TEN[:1], "3")  # type: ignore[arg-type]


def test_what_the_island_cannot_do_now_is_no_verdict_on_a_version() -> None:
    island = Island({TEN[4].commit: SourceUnavailable("away"), TEN[9].commit: "4"})
    with pytest.raises(SourceUnavailable):
        past.bisect(island, REQUEST, TEN, "3")  # type: ignore[arg-type]


def test_a_replay_has_the_commit_arguments_and_input_of_then() -> None:
    island = Island({})
    request = FunctionRequest(
        url=URL, call="Add", args=Raw(b"[1,2]"), stdin="x", version="main", cache_bust=True
    )
    island.then = then = InvocationFinished(
        url=URL, call="Add", verdict="ok", timings=Timings(), commit=TEN[3].commit, request=request
    )
    replayed = past.replay(island, "inv-1")  # type: ignore[arg-type]
    assert island.asked == [structs.replace(request, version=TEN[3].commit, cache_bust=False)]
    assert (replayed.then, replayed.plain, replayed.same_binary) == (then, False, False)
    past.replay(island, "inv-1", "v1.9.0")  # type: ignore[arg-type]
    assert island.asked[-1].version == "v1.9.0"
    island.then = structs.replace(then, request=None)
    with pytest.raises(NotFound, match="too long"):
        past.replay(island, "inv-1")  # type: ignore[arg-type]
    island.then = structs.replace(then, commit="", verdict="source_unavailable")
    with pytest.raises(NotFound, match="never had a commit"):
        past.replay(island, "inv-1")  # type: ignore[arg-type]


def test_a_replay_of_a_call_by_name_is_one_and_waits_for_room() -> None:
    island = Island({})
    request = FunctionRequest(url=URL, call="Add", args=Raw(b"[1,2]"), stdin="x")
    island.then = InvocationFinished(
        url=URL, call="Add", verdict="ok", timings=Timings(), commit=TEN[3].commit, name="n", request=request
    )
    island.busy = 2
    assert not past.replay(island, "inv-1").plain  # type: ignore[arg-type]
    assert [one.url for one in island.asked] == ["n"]
    assert past.replay(island, "inv-1", "v1.9.0").plain  # type: ignore[arg-type]
    assert [one.url for one in island.asked] == ["n", URL]


def test_an_order_is_that_of_semver() -> None:
    tags = ["v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-alpha.beta", "v1.0.0-rc.1", "v1.0.0", "v1.0.1"]
    orders = [order_of(tag) for tag in tags]
    assert None not in orders
    assert sorted(orders) == orders  # type: ignore[type-var]
    assert order_of("v1") is order_of("release") is None
