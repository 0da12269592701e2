"""What failed a moment ago, answered from memory."""

from __future__ import annotations

import time

import pytest

from skyisland.errors import (
    BadCall,
    BadRequest,
    BuildFailed,
    Complaint,
    DriverError,
    IslandError,
    SourceUnavailable,
)
from skyisland.host import failures
from skyisland.host.failures import Failures


def fail(memory: Failures, key: str, error: Exception, *, anew: bool = False) -> IslandError:
    """The error of a try that would fail with `error`."""
    with pytest.raises(IslandError) as caught, memory.of(key, anew=anew):
        raise error
    return caught.value


def test_a_failure_is_told_again_with_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    memory = Failures(30)
    first: IslandError = BuildFailed("it does not compile", complaint=Complaint.package, output="x.go:1")
    assert fail(memory, "a", first) is first
    assert first.details == {"output": "x.go:1", "complaint": "package"}
    clock += 12.3
    again = fail(memory, "a", AssertionError("tried"))
    assert isinstance(again, BuildFailed)
    assert again.message == "it does not compile (remembered for 12 s; cache_bust tries again)"
    assert again.details == {"output": "x.go:1", "complaint": "package", "remembered_s": 12.3}
    assert again.complaint is Complaint.package
    assert again.retry_after_s is None, "the commit stays as it is"
    clock += 17.7
    assert fail(memory, "a", first) is first


def test_only_what_time_may_mend_says_when_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    memory = Failures(30)
    for error in (SourceUnavailable("gone"), BadCall("no function", position=0), BadRequest("no branch")):
        fail(memory, type(error).__name__, error)
    clock += 0.3
    told = [fail(memory, key, AssertionError()) for key in ("SourceUnavailable", "BadCall", "BadRequest")]
    assert [one.message for one in told] == [
        "gone (remembered for less than 1 s; cache_bust tries again)",
        "no function",
        "no branch (remembered for less than 1 s; cache_bust tries again)",
    ]
    assert [one.retry_after_s for one in told] == [pytest.approx(29.7), None, pytest.approx(29.7)]


def test_a_remembered_failure_does_not_grow_older_by_being_told() -> None:
    memory = Failures(30)
    told = fail(memory, "a", SourceUnavailable("gone"))
    told = fail(memory, "a", AssertionError("tried"))
    assert fail(memory, "b", told) is told
    with memory.of("b"):
        pass  # what another memory told is not remembered here


def test_a_try_anew_counts() -> None:
    memory = Failures(30)
    fail(memory, "a", SourceUnavailable("gone"))
    assert fail(memory, "a", SourceUnavailable("still"), anew=True).message == "still"
    assert fail(memory, "a", AssertionError("tried")).message.startswith("still (remembered")
    with memory.of("a", anew=True):
        pass
    with memory.of("a"):
        pass


def test_what_is_of_this_host_or_moment_is_not_remembered() -> None:
    memory = Failures(30)
    fail(memory, "a", DriverError("no disk"))
    with memory.of("a"):
        pass
    fail(Failures(0), "a", SourceUnavailable("gone"))


def test_nothing_is_remembered_for_no_time() -> None:
    memory = Failures(0)
    fail(memory, "a", SourceUnavailable("gone"))
    with memory.of("a"):
        pass


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MOST", 2)
    memory = Failures(30)
    for key in ("a", "b", "a", "c"):
        fail(memory, key, SourceUnavailable("gone"), anew=True)
    with memory.of("b"):
        pass
    for key in ("a", "c"):
        assert "remembered_s" in fail(memory, key, AssertionError("tried")).details
