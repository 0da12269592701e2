"""Every kind of event is in each table by kind, or is left out of it for a reason that stands here."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec
import pytest

from skyisland import events as ev
from skyisland.model import Phase, Purpose, Timings
from skyisland.record.lines import TEXTS
from skyisland.record.metrics import Metrics
from tui.draw.glyphs import Glyphs
from tui.draw.panels import fact
from tui.watch.board import Board

KINDS = tuple(ev.Event.__subclasses__())
LEFT_OUT: dict[str, dict[type[ev.Event], str]] = {
    "figures": {
        ev.IslandStarted: "no figure: Prometheus sees a restart by its counters",
        ev.IslandStopped: "nobody is left to be told",
        ev.InvocationStarted: "counted when it ends",
        ev.InvocationQueued: "the time of the phase is counted when it ends",
        ev.BuildStarted: "counted when it ends",
        ev.AddressReleased: "a gauge of addresses is read from the status",
        ev.AddressStateSet: "a gauge of addresses is read from the status",
        ev.Gap: "for one reader, never published",
        ev.Pulse: "never published",
    },
    "log lines": {
        ev.IslandStopped: "the log ends with it",
        ev.InvocationQueued: "the end of the call has the time of the phase",
        ev.PhaseFinished: "four for each call: its end has them all",
        ev.BuildStarted: "its end is told, also when it fails",
        ev.CloneCreated: "a clone comes with its jail",
        ev.CloneDestroyed: "a clone goes with its jail",
        ev.JailClaimed: "the end of the call says whether its jail was warm",
        ev.Gap: "for one reader, never published",
        ev.Pulse: "never published",
    },
    "tables of the console": {
        ev.IslandStarted: "a snapshot comes first",
        ev.IslandStopped: "the stream ends",
        ev.SourceFetched: "in the panel of events alone",
        ev.CloneCreated: "a clone comes with its jail",
        ev.CloneDestroyed: "a clone goes with its jail",
    },
    "panel of events": {
        ev.IslandStarted: "its name says all",
        ev.IslandStopped: "its name says all",
        ev.InvocationStarted: "not in the panel: its end is",
        ev.InvocationQueued: "not in the panel: the end of the call is",
        ev.PhaseFinished: "not in the panel: the end of the call is",
        ev.CloneCreated: "not in the panel: its jail is",
        ev.CloneDestroyed: "not in the panel: its jail is",
        ev.Pulse: "not in the panel: no fact",
    },
}
SAMPLES: dict[Any, Any] = {
    Phase: Phase.exec,
    Purpose: Purpose.function,
    Timings: Timings(),
    bool: True,
    float: 1.5,
    int: 7,
    str: "text",
}


def sample(kind: type[ev.Event]) -> ev.Event:
    """An event of this kind."""
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    hints = get_type_hints(kind)
    return kind(**{name: SAMPLES.get(hints[name], {}) for name in required})


def in_words() -> set[type[ev.Event]]:
    """Kinds of which the panel says more than their names."""
    glyphs = Glyphs(ascii=True)
    return {kind for kind in KINDS if all(text != kind.__name__ for text, _ in fact(sample(kind), glyphs))}


TABLES: dict[str, Any] = {
    "figures": lambda: Metrics().folds,
    "log lines": lambda: TEXTS,
    "tables of the console": lambda: Board().folds,
    "panel of events": in_words,
}


@pytest.mark.parametrize("table", TABLES)
def test_every_kind_is_known_or_left_out_on_purpose(table: str) -> None:
    known, left_out = set(TABLES[table]()), set(LEFT_OUT[table])
    assert set(KINDS) - known - left_out == set(), "a new kind: put it into the table, or say here why not"
    assert known & left_out == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_redundant_beside_another_or_never(kind: type[ev.Event]) -> None:
    event = msgspec.structs.replace(sample(kind), invocation="i-1")
    end = msgspec.structs.replace(sample(ev.InvocationFinished), invocation="i-1")
    other = msgspec.structs.replace(sample(ev.InvocationFinished), invocation="i-2")
    steps = {ev.InvocationStarted, ev.InvocationQueued, ev.PhaseFinished, ev.JailClaimed}
    clones = {ev.CloneCreated, ev.CloneDestroyed}
    assert ev.redundant([event, end])(event) == (kind in steps | clones)
    assert ev.redundant([event, other])(event) == (kind in clones)
