"""Figures of what names do by themselves, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skyisland.status import ByItself


def of_names(by_itself: ByItself) -> Iterator[Metric]:
    """Schedules by the names that they call, which admins choose; pushes by what became of them."""
    for field, text in (
        ("next", "When a name is called by itself next."),
        ("last", "The latest time that it was called for."),
    ):
        times = GaugeMetricFamily(f"skyisland_schedule_{field}_timestamp_seconds", text, labels=["name"])
        for one in by_itself.schedules:
            if (at := getattr(one, field)) is not None:
                times.add_metric([one.name], at)
        yield times
    for field, text in (
        ("calls", "Times that a name was called for by itself."),
        ("missed", "Times that passed while the island did not run, or could not keep the call."),
        ("skipped", "Times that passed while the call before was not over, or the name was paused."),
    ):
        counts = CounterMetricFamily(f"skyisland_schedule_{field}", text, labels=["name"])
        for one in by_itself.schedules:
            counts.add_metric([one.name], getattr(one, field))
        yield counts
    waits = GaugeMetricFamily("skyisland_schedule_waits", "1 while a call is due and waits.", labels=["name"])
    for one in by_itself.schedules:
        waits.add_metric([one.name], int(one.waits))
    yield waits
    pushes = CounterMetricFamily("skyisland_pushes", "Pushes, by what became of them.", labels=["state"])
    for state, number in by_itself.pushes.items():
        pushes.add_metric([state], number)
    yield pushes
