"""Figures from events: StatsD datagrams, and the text that Prometheus reads.

StatsD keeps the names of the original, so that its dashboards go on working. Counts are counters
(`c`; the original sent a histogram of ones), times are milliseconds (`ms`).

    name                             kind   sent when
    handlers.function.run            c      a call was asked for through the API
    handlers.jail.running            c      an admin listed the jails
    handlers.jail.details            c      an admin looked at one
    handlers.jail.kill               c      an admin killed one
    handlers.jail.killall            c      an admin killed them all
    jail.created                     c      a jail was made
    jail.create_jail_time            ms     and how long that took
    jail.dataset_create              ms     the copy-on-write clone for it
    jail.removed                     c      a jail was taken away
    jail.remove_jail_time            ms     and how long that took
    jail.dataset_remove              ms     until its clone was gone too
    jail.killed                      c      a jail was killed by an admin, or because the island stopped
    jail.kill_jail_time              ms     and how long that took
    repo.clone                       ms     a repository was fetched
    repo.<repository>                c      which one
    network.<address>                c      an address was leased
  and, new:
    handlers.function.<phase>        ms     a phase of a call: queue, resolve, clone, build, jail, exec
    handlers.function.total          ms     a whole call
    handlers.function.verdict.<how>  c      how a call ended: ok, exited, timed_out … or an error's code

Not sent: the original's times of its installation (`jail.initialize_system`, `jail.base.*`, `jail.go.*`)
and of look-ups in a map (`network.populate_pool`, `network.allocate`, `network.update_ip_state`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import prometheus_client as prometheus
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from statsd import StatsClient

from skyisland import events
from skyisland.figures import FunctionFigures
from skyisland.model import Phase
from skyisland.record.schedules import of_names
from skyisland.record.traffic import Traffic
from skyisland.status import Backlog, ByItself, Status

log = logging.getLogger(__name__)

BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
"""Upper bounds of buckets: a phase of a warm call may take less than a millisecond, a build takes seconds."""
UNSENT_FIGURES = 10_000
"""Most figures that wait for the next datagrams: a quarter of a second of some 800 calls."""
DATAGRAM_BYTES = 1432
"""StatsD's documentation recommends it for Ethernet, so that no datagram is split."""
NAME_LENGTH = 200
"""Characters of a repository in a StatsD name, and of a function's in a label; honest ones are shorter."""


LATER_ENDS = ("done", "dead", "cancelled")
CALLBACK_ENDS = ("delivered", "dead")
"""The states of what is over, each told from the start: a counter that begins at 1 has no rate."""


class StatsD:
    """Sends figures to a StatsD server by UDP. To count never waits and never fails; what is lost is counted.

    `run` resolves the server's name and sends. Figures from before it has an address are lost.
    """

    def __init__(self, host: str, port: int = 8125, *, prefix: str = "", flush_s: float = 0.25) -> None:
        """`flush_s`: how long figures gather for a datagram."""
        self.lost = 0
        """Figures and datagrams that were not sent."""
        self.resolved = asyncio.Event()
        """Set once the server's address is known."""
        self._host, self._port = host, port
        self._prefix = prefix.strip(".") or None
        self._flush_s = flush_s
        self._unsent = 0
        self._pipeline: Any = None

    async def run(self) -> None:
        """Send figures until this is cancelled."""
        client = await self._client()
        self._pipeline = client.pipeline()
        self.resolved.set()
        try:
            while True:
                await asyncio.sleep(self._flush_s)
                self.flush()
        finally:
            self.flush()
            self._pipeline = None
            client.close()

    async def _client(self) -> _Datagrams:
        delay_s = 1.0
        while True:
            try:
                return await asyncio.to_thread(_Datagrams, self)
            except (OSError, UnicodeError) as error:
                log.warning("no StatsD server %s: %s; trying again in %d s", self._host, error, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 60.0)

    def flush(self) -> None:
        """Send what has gathered."""
        if self._pipeline is not None:
            self._unsent = 0
            self._pipeline.send()

    def count(self, name: str) -> None:
        if self._accepts():
            self._pipeline.incr(name)

    def time(self, name: str, duration_s: float) -> None:
        if self._accepts():
            self._pipeline.timing(name, duration_s * 1000)

    def _accepts(self) -> bool:
        if self._pipeline is None or self._unsent >= UNSENT_FIGURES:
            self.lost += 1
            return False
        self._unsent += 1
        return True


class _Datagrams(StatsClient):  # type: ignore[misc]  # statsd has no types
    """statsd's client, on a socket that does not block. Making one does: it resolves the server's name."""

    def __init__(self, owner: StatsD) -> None:
        self._owner = owner
        try:
            self._resolve(ipv6=False)
        except OSError:
            self._resolve(ipv6=True)
        self._sock.setblocking(False)

    def _resolve(self, *, ipv6: bool) -> None:
        owner = self._owner
        super().__init__(owner._host, owner._port, prefix=owner._prefix, maxudpsize=DATAGRAM_BYTES, ipv6=ipv6)

    def _send(self, data: str) -> None:
        try:
            self._sock.sendto(data.encode("ascii", "replace"), self._addr)
        except OSError:
            self._owner.lost += 1


class _Times:
    """A histogram of durations. Each call adds five, and `prometheus.Histogram` takes a lock for each bucket
    up to the right one."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(BUCKETS_S, duration_s)] += 1
        self._sum_s += duration_s

    def add_to(self, family: HistogramMetricFamily, phase: str) -> None:
        """Add the counts to `family`, cumulated, under the label `phase`."""
        bounds = [*map(floatToGoString, BUCKETS_S), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(self._counts), strict=True))
        family.add_metric([phase], buckets, self._sum_s)


class Metrics:
    """All figures of an island, from its events (`follow`)."""

    def __init__(self, statsd: StatsD | None = None) -> None:
        self.statsd = statsd
        self.traffic = Traffic()
        self._registry = registry = prometheus.CollectorRegistry()
        self._status: Status | None = None
        self._by_itself: ByItself | None = None
        self._backlog: Backlog | None = None
        self.phases = {str(phase): _Times() for phase in (*Phase, "total")}
        self._invocations = prometheus.Counter(
            "skyisland_invocations_total",
            "Calls that are over, by how they ended and whether the binary was there already.",
            ["verdict", "cached"],
            registry=registry,
        )
        self._ended: dict[tuple[str, bool], prometheus.Counter] = {}
        self._counts = {
            name: prometheus.Counter(f"skyisland_{name}_total", text, registry=registry)
            for name, text in (
                ("jails_created", "Jails made."),
                ("jails_removed", "Jails taken away."),
                ("jails_killed", "Jails killed by an admin, or because the island stopped."),
                ("jails_claimed", "Warm jails that a call took."),
                ("sources_fetched", "Fetches of a repository."),
                ("builds_succeeded", "Functions compiled."),
                ("builds_failed", "Functions that do not compile."),
                ("artifacts_evicted", "Binaries deleted from the cache."),
                ("addresses_leased", "Leases on an address."),
            )
        }
        registry.register(_Current(self))
        self.folds: dict[type[events.Event], Callable[[Any], None]] = {
            events.PhaseFinished: self._phase,
            events.SourceFetched: self._fetched,
            events.BuildFinished: self._built,
            events.ArtifactEvicted: lambda event: self._counts["artifacts_evicted"].inc(),
            events.CloneCreated: lambda event: self._time("jail.dataset_create", event.duration_s),
            events.CloneDestroyed: lambda event: self._time("jail.dataset_remove", event.duration_s),
            events.JailCreated: self._created,
            events.JailClaimed: lambda event: self._counts["jails_claimed"].inc(),
            events.JailKilled: self._killed,
            events.JailDestroyed: self._removed,
            events.AddressLeased: self._leased,
            events.InvocationFinished: self._finished,
        }
        """What is done with each kind of event; the other kinds count for nothing."""

    def follow(self, stream: events.Events) -> None:
        """Count the events of `stream` from now on; it calls the fold of an event's kind and no other."""
        for kind, fold in self.folds.items():
            stream.tap(fold, kind)

    def fold(self, event: events.Event) -> None:
        """Count one event."""
        if fold := self.folds.get(type(event)):
            fold(event)

    def count(self, name: str) -> None:
        """Send StatsD a count of something that is no event, such as a handler's run."""
        if self.statsd is not None:
            self.statsd.count(name)

    def prometheus(
        self,
        status: Status,
        backlog: Backlog | None = None,
        *,
        by_itself: ByItself | None = None,
        open_metrics: bool = False,
    ) -> bytes:
        """All figures in the text format of Prometheus, 0.0.4, or in that of OpenMetrics, 1.0.0. Gauges are
        read from `status`, those of calls that answer later from `backlog`, those of schedules and pushes
        from `by_itself`."""
        self._status, self._backlog, self._by_itself = status, backlog, by_itself
        try:
            if open_metrics:
                text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
                return text
            return prometheus.generate_latest(self._registry)
        finally:
            self._status = self._backlog = self._by_itself = None

    def _time(self, name: str, duration_s: float) -> None:
        if self.statsd is not None:
            self.statsd.time(name, duration_s)

    def _phase(self, event: events.PhaseFinished) -> None:
        self.phases[event.phase].add(event.duration_s)
        self._time(f"handlers.function.{event.phase}", event.duration_s)

    def _finished(self, event: events.InvocationFinished) -> None:
        key = event.verdict, event.cached
        if key not in self._ended:
            self._ended[key] = self._invocations.labels(event.verdict, str(event.cached).lower())
        self._ended[key].inc()
        self.phases["total"].add(event.timings.total_s)
        self._time("handlers.function.total", event.timings.total_s)
        self.count(f"handlers.function.verdict.{event.verdict}")

    def _fetched(self, event: events.SourceFetched) -> None:
        self._counts["sources_fetched"].inc()
        self._time("repo.clone", event.duration_s)
        self.count(f"repo.{_statsd_name(event.url)}")

    def _built(self, event: events.BuildFinished) -> None:
        self._counts["builds_succeeded" if event.ok else "builds_failed"].inc()

    def _created(self, event: events.JailCreated) -> None:
        self._counts["jails_created"].inc()
        self.count("jail.created")
        self._time("jail.create_jail_time", event.duration_s)

    def _killed(self, event: events.JailKilled) -> None:
        self._counts["jails_killed"].inc()
        self.count("jail.killed")
        self._time("jail.kill_jail_time", event.duration_s)

    def _removed(self, event: events.JailDestroyed) -> None:
        self._counts["jails_removed"].inc()
        self.count("jail.removed")
        self._time("jail.remove_jail_time", event.duration_s)

    def _leased(self, event: events.AddressLeased) -> None:
        self._counts["addresses_leased"].inc()
        self.count(f"network.{event.ip}")


def _statsd_name(text: str) -> str:
    """`text` without the characters that mean something in a StatsD datagram."""
    return re.sub(r"[^A-Za-z0-9_./~-]", "_", text)[:NAME_LENGTH]


class _Current(Collector):
    """Figures that are collected when Prometheus asks: counts of our own, and gauges of the island."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        times = HistogramMetricFamily(
            "skyisland_phase_seconds",
            "Time of a phase of a call, and of the whole (total).",
            labels=["phase"],
        )
        for phase, spent in self._metrics.phases.items():
            spent.add_to(times, phase)
        yield times
        traffic = self._metrics.traffic
        responses = CounterMetricFamily("skyisland_http_responses", "HTTP responses.", labels=["status"])
        for code, number in traffic.by_status.items():
            responses.add_metric([str(code)], number)
        yield responses
        if (statsd := self._metrics.statsd) is not None:
            yield CounterMetricFamily(
                "skyisland_statsd_lost", "Figures StatsD was not told.", value=statsd.lost
            )
        if (status := self._metrics._status) is not None:
            yield from self._now(status)
        if (backlog := self._metrics._backlog) is not None:
            yield from _later(backlog)
        if (by_itself := self._metrics._by_itself) is not None:
            yield from of_names(by_itself)

    def _now(self, status: Status) -> Iterator[Metric]:
        pool = status.pool
        for name, text, value in (
            ("calls_running", "Calls under way.", status.running),
            ("calls_queued", "Calls that wait for a place.", status.queued),
            ("places_used", "Places to run that calls have.", status.places),
            ("places", "Places to run that there are.", status.policy.max_running),
            ("draining", "1 while the island stops.", int(status.draining)),
            ("warm_jails", "Jails made ahead.", pool.size),
            ("artifacts", "Binaries in the cache.", len(status.artifacts)),
            ("artifacts_bytes", "Their size.", sum(artifact.size_bytes for artifact in status.artifacts)),
        ):
            yield GaugeMetricFamily(f"skyisland_{name}", text, value=value)
        for name, text, value in (
            ("warm_hits", "Calls that found a warm jail.", pool.hits),
            ("warm_misses", "Calls that did not.", pool.misses),
            ("warm_wasted", "Warm jails that no call took.", pool.wasted),
        ):
            yield CounterMetricFamily(f"skyisland_{name}", text, value=value)
        for name, text, states in (
            ("jails", "Living jails.", Tally(str(jail.state) for jail in status.jails)),
            ("addresses", "Addresses of the pool.", Tally(one.word for one in status.addresses)),
        ):
            family = GaugeMetricFamily(f"skyisland_{name}", text, labels=["state"])
            for state, number in states.items():
                family.add_metric([state], number)
            yield family
        if status.report is not None:
            yield from _by_function(status.report.functions)


def _later(backlog: Backlog) -> Iterator[Metric]:
    """Figures of calls that answer later."""
    for name, text, value in (
        ("later_waiting", "Calls that answer later and wait for an attempt.", backlog.waiting),
        ("later_running", "Those of them that run.", backlog.running),
        ("later_oldest_seconds", "Since when the oldest waits; 0 if none does.", backlog.oldest_s),
        ("later_dead", "Dead ones that are kept.", backlog.dead),
        ("callbacks_waiting", "Callbacks to be sent, or sent again.", backlog.callbacks_waiting),
    ):
        yield GaugeMetricFamily(f"skyisland_{name}", text, value=value)
    for name, text, states, ended in (
        ("later_ended", "Calls that answer later and are over.", LATER_ENDS, backlog.ended),
        ("callbacks_ended", "Callbacks that are sent no more.", CALLBACK_ENDS, backlog.callbacks_ended),
    ):
        family = CounterMetricFamily(f"skyisland_{name}", text, labels=["state"])
        for state in states:
            family.add_metric([state], ended.get(state, 0))
        yield family


def _by_function(functions: Iterable[FunctionFigures]) -> Iterator[Metric]:
    """Figures of each function that has a row in a report, and of the `other` together: strangers choose the
    names, and there are no more series than rows."""
    calls = CounterMetricFamily("skyisland_function_calls", "Calls of a function.", labels=["function"])
    cold = CounterMetricFamily(
        "skyisland_function_cold", "Those for which no warm jail waited.", labels=["function"]
    )
    kept = CounterMetricFamily(
        "skyisland_function_kept",
        "Those that ran, ended well, and were within their target (SLO).",
        labels=["function"],
    )
    errors = CounterMetricFamily(
        "skyisland_function_errors",
        "Those that did not end well, by the cause: exited 2, timed_out …",
        labels=["function", "cause"],
    )
    seconds = SummaryMetricFamily(
        "skyisland_function_seconds",
        "Time of those that ran; the quantiles are of the last five minutes.",
        labels=["function"],
    )
    for one in functions:
        label = one.title if len(one.title) <= NAME_LENGTH else one.id
        calls.add_metric([label], one.calls)
        cold.add_metric([label], one.cold)
        kept.add_metric([label], one.kept)
        for cause, count in one.reasons.items():
            errors.add_metric([label, cause], count)
        of_times = {"0.5": one.recent.p50_s, "0.95": one.recent.p95_s, "0.99": one.recent.p99_s}
        for quantile, value_s in of_times.items():
            if value_s is not None:
                labels = {"function": label, "quantile": quantile}
                seconds.add_sample("skyisland_function_seconds", labels, value_s)
        seconds.add_metric([label], one.ran, one.spent_s)
    yield from (calls, cold, kept, errors, seconds)
