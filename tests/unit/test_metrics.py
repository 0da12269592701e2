"""Events become the figures that StatsD, Prometheus and api-stats show."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skyisland import events, fakes
from skyisland.figures import OTHER, Figures, FunctionFigures, Report, Window
from skyisland.model import Phase, Purpose, Timings
from skyisland.record.metrics import Metrics, StatsD
from skyisland.record.traffic import ApiStats, Traffic, go_duration
from skyisland.status import AddressInfo, AddressState, Backlog, JailInfo, JailState, PoolStatus, Status

JAIL = JailInfo(
    jid=1,
    name="sky-t-1",
    hostname="sky-t-1",
    path="/",
    os_release="6",
    state=JailState.running,
    pid=7,
    created_at=1.0,
    purpose=Purpose.function,
)
LATELY = Figures(window=Window.five_minutes, window_s=300.0, bin_s=5, p50_s=0.25)
STATUS = Status(
    island="t",
    policy=fakes.policy(),
    pool=PoolStatus(size=4, hits=5),
    version="0",
    started_at=1.0,
    draining=False,
    running=2,
    queued=3,
    driver="fake",
    storage="fake",
    jails=[JAIL],
    addresses=[
        AddressInfo(ip="10.0.0.2", state=AddressState.available),
        AddressInfo(ip="10.0.0.3", state=AddressState.unavailable),
    ],
    artifacts=[],
    capabilities=[],
    places=1,
    report=Report(
        at=1.0,
        every=LATELY,
        functions=[
            FunctionFigures(
                id="fn-3c71a0b2c4d5",
                repository="github.com/u/r",
                package="",
                name="F",
                slo_s=1.0,
                last_at=1.0,
                calls=3,
                reasons={"exited 2": 2},
                ran=3,
                cold=1,
                spent_s=1.5,
                recent=LATELY,
            ),
            FunctionFigures(
                id=OTHER,
                repository="",
                package="",
                name=OTHER,
                slo_s=1.0,
                last_at=1.0,
                calls=9,
                recent=LATELY,
            ),
        ],
    ),
)


class Recorder(StatsD):
    """A StatsD that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("localhost")
        self.told: list[str] = []

    def count(self, name: str) -> None:
        self.told.append(f"{name}|c")

    def time(self, name: str, duration_s: float) -> None:
        self.told.append(f"{name}={duration_s}|ms")


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A StatsD server's socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def created(**fields: Any) -> events.JailCreated:
    return events.JailCreated(
        jail="sky-t-1", jid=1, pid=7, purpose=Purpose.function, duration_s=0.25, **fields
    )


def series(metrics: Metrics) -> dict[str, float]:
    """Every sample of the Prometheus text, by name and labels."""
    found = {}
    for family in text_string_to_metric_families(metrics.prometheus(STATUS).decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (created(), ["jail.created|c", "jail.create_jail_time=0.25|ms"]),
        (
            events.JailDestroyed(jail="j", jid=1, duration_s=0.5),
            ["jail.removed|c", "jail.remove_jail_time=0.5|ms"],
        ),
        (
            events.JailKilled(jail="j", jid=1, reason="r", duration_s=0.1),
            ["jail.killed|c", "jail.kill_jail_time=0.1|ms"],
        ),
        (events.CloneCreated(clone="j", duration_s=0.5), ["jail.dataset_create=0.5|ms"]),
        (events.CloneDestroyed(clone="j", duration_s=0.5), ["jail.dataset_remove=0.5|ms"]),
        (
            events.SourceFetched(url="github.com/u/r", commit="c", duration_s=2.0),
            ["repo.clone=2.0|ms", "repo.github.com/u/r|c"],
        ),
        (events.AddressLeased(ip="10.0.0.2", jail="j"), ["network.10.0.0.2|c"]),
        (events.PhaseFinished(phase=Phase.build, duration_s=1.0), ["handlers.function.build=1.0|ms"]),
        (
            events.InvocationFinished(url="u", call="c", verdict="ok", timings=Timings(total_s=3.0)),
            ["handlers.function.total=3.0|ms", "handlers.function.verdict.ok|c"],
        ),
        (events.IslandStarted(swept=0), []),
    ],
)
def test_statsd_names(event: events.Event, told: list[str]) -> None:
    statsd = Recorder()
    Metrics(statsd).fold(event)
    assert statsd.told == told


def test_a_url_cannot_forge_figures() -> None:
    statsd = Recorder()
    Metrics(statsd).fold(events.SourceFetched(url="h/a:1|c\nforged:1|c", commit="c", duration_s=0))
    assert statsd.told[1] == "repo.h/a_1_c_forged_1_c|c"


@asynccontextmanager
async def telling(server: socket.socket, flush_s: float = 1000.0) -> AsyncIterator[StatsD]:
    """A StatsD that runs, told to `server` at the end at the latest."""
    statsd = StatsD(*server.getsockname(), prefix="sky.", flush_s=flush_s)
    running = asyncio.create_task(statsd.run())
    await statsd.resolved.wait()
    yield statsd
    running.cancel()
    await asyncio.wait([running])


async def test_statsd_datagrams(server: socket.socket) -> None:
    async with telling(server, flush_s=0.001) as statsd:
        Metrics(statsd).fold(created())
        data = await asyncio.to_thread(server.recv, 2000)
    assert data.decode().splitlines() == ["sky.jail.created:1|c", "sky.jail.create_jail_time:250.000000|ms"]
    assert statsd.lost == 0


async def test_what_waits_is_sent_at_the_end(server: socket.socket) -> None:
    async with telling(server) as statsd:
        statsd.count("one")
    assert await asyncio.to_thread(server.recv, 100) == b"sky.one:1|c"
    statsd.count("too late")
    assert statsd.lost == 1


async def test_losses_are_counted_and_hurt_nobody(server: socket.socket) -> None:
    async with telling(server) as statsd:
        statsd.count("y" * 70_000)  # no datagram is so long
        statsd.flush()
        assert statsd.lost == 1
        for _ in range(10_005):
            statsd.count("z")
        assert statsd.lost == 1 + 5


async def test_an_unknown_server_is_looked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    host = "n" * 64  # longer than any label, so nobody is asked
    statsd = StatsD(host)
    looked = asyncio.Event()
    watch = logging.Handler()
    watch.emit = lambda record: looked.set()  # type: ignore[method-assign]
    logging.getLogger("skyisland.record.metrics").addHandler(watch)
    try:
        running = asyncio.create_task(statsd.run())
        await looked.wait()
    finally:
        logging.getLogger("skyisland.record.metrics").removeHandler(watch)
    Metrics(statsd).fold(created())
    assert statsd.lost == 2
    assert host in caplog.text
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


def test_the_backlog_of_calls_that_answer_later() -> None:
    backlog = Backlog(waiting=3, running=1, oldest_s=2.5, dead=4, ended={"done": 7}, callbacks_waiting=2)
    told = Metrics().prometheus(STATUS, backlog).decode()
    for line in (
        "skyisland_later_waiting 3.0",
        "skyisland_later_running 1.0",
        "skyisland_later_oldest_seconds 2.5",
        "skyisland_later_dead 4.0",
        'skyisland_later_ended_total{state="done"} 7.0',
        'skyisland_later_ended_total{state="dead"} 0.0',
        "skyisland_callbacks_waiting 2.0",
        'skyisland_callbacks_ended_total{state="dead"} 0.0',
    ):
        assert line in told.splitlines()
    assert "later" not in Metrics().prometheus(STATUS).decode()


def test_prometheus() -> None:
    metrics = Metrics()
    for event in (
        created(),
        events.JailKilled(jail="j", jid=1, reason="r"),
        events.JailDestroyed(jail="j", jid=1, duration_s=0.5),
        events.BuildFinished(key="k", url="u", function="F", ok=True, duration_s=1),
        events.BuildFinished(key="k", url="u", function="F", ok=False, duration_s=1),
        events.PhaseFinished(phase=Phase.exec, duration_s=0.003),
        events.InvocationFinished(
            url="u", call="c", verdict="timed_out", timings=Timings(total_s=0.7), cached=True
        ),
    ):
        metrics.fold(event)
    metrics.traffic.record(200, 0.1)
    metrics.traffic.record(504, 0.1)
    found = series(metrics)
    expected = {
        "skyisland_jails_created_total{}": 1,
        "skyisland_jails_killed_total{}": 1,
        "skyisland_jails_removed_total{}": 1,
        "skyisland_builds_succeeded_total{}": 1,
        "skyisland_builds_failed_total{}": 1,
        "skyisland_phase_seconds_bucket{le=0.002,phase=exec}": 0,
        "skyisland_phase_seconds_bucket{le=0.005,phase=exec}": 1,
        "skyisland_phase_seconds_count{phase=total}": 1,
        "skyisland_invocations_total{cached=true,verdict=timed_out}": 1,
        "skyisland_http_responses_total{status=200}": 1,
        "skyisland_http_responses_total{status=504}": 1,
        "skyisland_calls_running{}": 2,
        "skyisland_calls_queued{}": 3,
        "skyisland_jails{state=running}": 1,
        "skyisland_addresses{state=free}": 1,
        "skyisland_addresses{state=out}": 1,
        "skyisland_places_used{}": 1,
        "skyisland_function_calls_total{function=github.com/u/r.F}": 3,
        "skyisland_function_calls_total{function=other}": 9,
        "skyisland_function_errors_total{cause=exited 2,function=github.com/u/r.F}": 2,
        "skyisland_function_cold_total{function=github.com/u/r.F}": 1,
        "skyisland_function_seconds{function=github.com/u/r.F,quantile=0.5}": 0.25,
        "skyisland_function_seconds{function=github.com/u/r.F,quantile=0.99}": None,
        "skyisland_function_seconds_count{function=github.com/u/r.F}": 3,
        "skyisland_function_seconds_sum{function=github.com/u/r.F}": 1.5,
        "skyisland_artifacts{}": 0,
        "skyisland_warm_jails{}": 4,
        "skyisland_warm_hits_total{}": 5,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_api_stats() -> None:
    now = 100.0
    traffic = Traffic(lambda: now)
    now = 100.5
    traffic.record(200, 0.5)
    traffic.record(404, 1.5)
    now = 162.5
    traffic.record(200, 1.0)
    stats = traffic.stats()
    assert ApiStats.__struct_fields__ == (
        *("pid", "uptime", "uptime_sec", "time", "unixtime"),
        *("status_code_count", "total_status_code_count", "count", "total_count"),
        *("total_response_time", "total_response_time_sec"),
        *("average_response_time", "average_response_time_sec"),
    )
    assert (stats.uptime, stats.uptime_sec) == ("1m2.5s", 62.5)
    assert (stats.status_code_count, stats.count) == ({"200": 1}, 1)
    assert (stats.total_status_code_count, stats.total_count) == ({"200": 2, "404": 1}, 3)
    assert (stats.total_response_time, stats.total_response_time_sec) == ("3s", 3.0)
    assert (stats.average_response_time, stats.average_response_time_sec) == ("1s", 1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-9, "1ns"),
        (1.5e-6, "1.5µs"),
        (0.25, "250ms"),
        (0.0123, "12.3ms"),
        (1, "1s"),
        (59.9, "59.9s"),
        (60, "1m0s"),
        (3600 + 2.5, "1h0m2.5s"),
        (100 * 3600, "100h0m0s"),
    ],
)
def test_go_durations(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
