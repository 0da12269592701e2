"""Calls counted by function and over windows of time."""

from __future__ import annotations

import pytest
from msgspec import structs

from skyisland.cause import Cause
from skyisland.errors import FunctionNotFound
from skyisland.events import BuildFinished, Events, InvocationFinished
from skyisland.figures import BINS, OTHER, Slo, Window, function_id
from skyisland.model import Timings
from skyisland.record.failed import MOST, FailedBuilds
from skyisland.record.functions import FRESH_S, FUNCTIONS, TRIED, Functions
from skyisland.record.tallies import BOUNDS_S, KINDS

NOON = 1_800_000_000.0


class Island:
    """Counts calls that end at the time that `now` says."""

    def __init__(self, slo: Slo | None = None) -> None:
        self.now = NOON
        self.events = Events()
        self.called = Functions(self.events, slo or Slo(target_s=1.0), lambda: self.now)

    def end(self, function: str = "F", verdict: str = "ok", total_s: float = 0.01, **fields: object) -> None:
        self.events.publish(end(function, verdict, total_s, at=self.now, **fields))


def end(
    function: str = "F", verdict: str = "ok", total_s: float = 0.01, **fields: object
) -> InvocationFinished:
    known = {
        "repository": "github.com/user/repo",
        "package": "sub",
        "warm": True,
        "cached": True,
        "cause": None if verdict == "ok" else Cause(kind=verdict, text=f"{verdict}: why"),
    }
    return InvocationFinished(
        url="github.com/user/repo/sub",
        call=f"{function}(1)",
        function=function,
        verdict=verdict,
        timings=Timings(total_s=total_s),
        **(known | fields),  # type: ignore[arg-type]
    )


@pytest.fixture
def island() -> Island:
    return Island()


def test_an_empty_window_has_no_figures(island: Island) -> None:
    every = island.called.report().every
    assert (every.calls, every.rate) == (0, 0.0)
    assert (every.p50_s, every.p99_s, every.error_share, every.cold_share) == (None,) * 4
    island.end(total_s=5.0)
    assert island.called.report().every.p99_s == pytest.approx(5.0, rel=0.1)
    island.now += Window.five_minutes.seconds
    (one,) = island.called.report().functions
    assert (one.recent.calls, one.recent.p99_s, one.recent.counts) == (0, None, [])
    assert one.calls == 1
    assert one.usual_s == pytest.approx(5.0, rel=0.1), "the hour still has it"
    assert island.called.report(Window.hour).every.calls == 1
    island.now += Window.hour.seconds
    assert island.called.report(Window.hour).every.p50_s is None
    assert island.called.report().functions[0].usual_s is None


@pytest.mark.parametrize("total_s", [0.0002, 0.0017, 0.0123, 0.25, 3.3, 59.0, 400.0])
def test_a_percentile_is_within_a_tenth(island: Island, total_s: float) -> None:
    for _ in range(100):
        island.end(total_s=total_s)
    every = island.called.report().every
    assert [every.p50_s, every.p95_s, every.p99_s] == pytest.approx([total_s] * 3, rel=0.1, abs=0.0001)


def test_percentiles_tell_a_slow_tail(island: Island) -> None:
    for number in range(100):
        island.end(total_s=0.01 if number < 90 else 1.5)
    every = island.called.report().every
    assert every.p50_s == pytest.approx(0.01, rel=0.1)
    assert every.p95_s == every.p99_s == 1.5, "never above the longest"
    assert every.slow == 10
    island.end(total_s=1e9)
    assert island.called.report().every.p99_s is not None, "longer than the last bucket"


def test_errors_are_told_by_their_cause(island: Island) -> None:
    for _ in range(12):
        island.end(verdict="exited", cause=Cause(kind="exited 2", text="exited 2: panic: no"))
    for _ in range(4):
        island.end(verdict="timed_out", invocation="inv-last")
    island.end(verdict="cancelled")
    island.end()
    (one,) = island.called.report().functions
    assert one.recent.reasons == {"exited 2": 12, "timed_out": 4}
    assert one.recent.errors == 16
    assert one.recent.error_share == pytest.approx(16 / 18)
    assert (one.last_error, one.last_failed) == ("timed_out: why", "inv-last")
    for number in range(20):
        island.end(verdict="exited", cause=Cause(kind=f"exited {number + 10}", text=""))
    reasons = island.called.report().functions[0].reasons
    assert len(reasons) == KINDS + 1
    assert reasons[OTHER] == 14


def test_refused_calls_are_errors_and_take_no_part_in_times(island: Island) -> None:
    for _ in range(10):
        island.end(total_s=2.0, warm=False)
        island.end(verdict="too_busy", total_s=0.0003)
    (one,) = island.called.report().functions
    assert (one.recent.calls, one.recent.ran, one.recent.errors) == (20, 10, 10)
    assert one.recent.p50_s == one.usual_s == pytest.approx(2.0, rel=0.1)
    assert (one.recent.cold, one.recent.cold_share, one.recent.built) == (10, 1.0, 0)


def test_a_function_may_have_a_target_of_its_own() -> None:
    island = Island(Slo(target_s=1.0, functions={"github.com/user/repo/sub.Fast": 0.05}))
    for function in ("Fast", "F"):
        island.end(function, total_s=0.1)
    slow = {one.name: (one.slo_s, one.recent.slow) for one in island.called.report().functions}
    assert slow == {"Fast": (0.05, 1), "F": (1.0, 0)}
    assert island.called.report().every.slow == 1


def test_what_share_of_the_calls_kept_their_target(island: Island) -> None:
    assert island.called.report().every.kept_share is None
    for total_s, verdict in ((0.1, "ok"), (0.2, "ok"), (9.0, "ok"), (0.1, "exited"), (0.0, "too_busy")):
        island.end(total_s=total_s, verdict=verdict)
    island.end(verdict="cancelled")
    (one,) = island.called.report().functions
    assert (one.kept, one.recent.kept, one.recent.kept_share) == (2, 2, 0.5), "of the four that ran"
    island.now += 3600
    assert island.called.report().every.kept_share is None


def test_counts_over_time_and_heat(island: Island) -> None:
    island.end(total_s=0.001)
    island.now += 10
    island.end(total_s=0.001)
    island.end(total_s=0.5, verdict="exited")
    island.now += 5
    figures = island.called.function("github.com/user/repo/sub.F").recent
    assert figures.bin_s == 5
    assert figures.counts == [*[0] * (BINS - 4), 1, 0, 2, 0]
    assert figures.failures == [*[0] * (BINS - 2), 1, 0]
    heat = figures.heat
    assert heat is not None
    assert [sum(column) for column in heat.counts] == figures.counts
    column = heat.counts[-2]
    assert len(column) == len(heat.bounds_s) + 1
    hit = [heat.bounds_s[place] for place, count in enumerate(column) if count]
    assert all(bound / 2 <= spent <= bound for spent, bound in zip((0.001, 0.5), hit, strict=True))
    assert heat.bounds_s[-1] == BOUNDS_S[-1]
    assert island.called.report().functions[0].recent.heat is None


def test_a_rate_is_over_the_window_or_the_islands_life(island: Island) -> None:
    island.now += 10
    for _ in range(20):
        island.end()
    assert island.called.report().every.rate == pytest.approx(2.0)
    island.now += 200
    assert island.called.report().every.rate == pytest.approx(20 / 210)


def test_what_ran_in_an_earlier_life_counts_in_windows_alone() -> None:
    island = Island()
    island.called.recall([end(at=NOON - 4000), end(verdict="exited", at=NOON - 60, invocation="inv-1")])
    (one,) = island.called.report().functions
    assert (one.recent.calls, one.calls, one.last_failed) == (1, 0, "inv-1")
    assert island.called.report().every.rate == pytest.approx(1 / 295, rel=0.1)
    island.end()
    assert island.called.report().functions[0].calls == 1


def test_one_function_is_found_by_id_or_title(island: Island) -> None:
    island.end("Open")
    key = function_id("github.com/user/repo", "sub", "Open")
    assert island.called.function(key).title == "github.com/user/repo/sub.Open"
    assert island.called.report().functions[0].id == key
    with pytest.raises(FunctionNotFound, match="no function 'fn-0'"):
        island.called.function("fn-0")


def test_rows_are_bounded_and_a_flood_of_names_drives_nobody_out(island: Island) -> None:
    island.end("Good")
    for number in range(1000):
        island.end(f"Typo{number}", verdict="build_failed")
    assert len(island.called.report().functions) == TRIED + 1
    for number in range(1000):
        island.end(f"Runs{number}")
    island.now += FRESH_S
    rows = island.called.report().functions
    assert len(rows) <= FUNCTIONS + TRIED + 1
    assert "Good" in {one.name for one in rows}
    (other,) = (one for one in rows if one.id == OTHER)
    assert rows[-1] is other
    assert other.calls == 1000 - (FUNCTIONS - 1)
    assert sum(one.calls for one in rows) + 1000 - TRIED == island.called.report().every.calls
    island.now += Window.hour.seconds + 1
    island.end("New")
    assert "New" in {one.name for one in island.called.report().functions}, "an idle row is given up"


def test_calls_that_nobody_understood_are_counted_together(island: Island) -> None:
    island.end(verdict="bad_call", repository="", function="")
    (other,) = island.called.report().functions
    assert (other.id, other.errors, other.title) == (OTHER, 1, OTHER)
    assert island.called.function(OTHER).errors == 1


def test_a_clock_that_steps_back_does_no_harm(island: Island) -> None:
    island.end()
    island.now -= 100
    island.end()
    every = island.called.report().every
    assert every.calls == sum(every.counts) == 2


def test_a_report_is_made_anew_for_a_new_call_or_after_a_second(island: Island) -> None:
    island.end()
    first = island.called.report()
    assert island.called.report() is first
    island.end()
    second = island.called.report()
    assert second.every.calls == 2
    island.now += FRESH_S
    assert island.called.report() is not second


def test_the_builds_that_failed_last_are_remembered_until_they_succeed() -> None:
    events = Events()
    failed = FailedBuilds(events)
    end = BuildFinished(key="a", url="u", function="F", ok=False, duration_s=1.0)
    for number in range(MOST + 5):
        events.publish(structs.replace(end, key=str(number)))
    events.publish(structs.replace(end, key="10"))
    latest = [one.key for one in failed.latest()]
    assert latest[:2] == ["10", str(MOST + 4)]
    assert len(latest) == MOST
    events.publish(structs.replace(end, key="10", ok=True))
    assert "10" not in [one.key for one in failed.latest()]
