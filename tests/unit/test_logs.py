"""Logs: JSON lines that nobody can forge, a ring that forgets, and no secret in either."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland import events
from skyisland.cause import Cause
from skyisland.model import Phase, Purpose, Timings
from skyisland.record.jsonlines import JsonLines, is_journal
from skyisland.record.lines import printable
from skyisland.record.logs import LogRing, logging_to, set_level

FORGERY = 'x\n{"level":"INFO"}\r\x1b]52;c;aGk=\x07\x85\u2028\u202e\x9b31m\x7f'


def finished(**fields: Any) -> events.InvocationFinished:
    usual: dict[str, Any] = {
        "invocation": "inv-1",
        "url": "u",
        "call": "F()",
        "verdict": "ok",
        "timings": Timings(),
    }
    return events.InvocationFinished(**usual | fields)


def created(jail: str, invocation: str | None = None) -> events.JailCreated:
    return events.JailCreated(jail=jail, jid=1, pid=2, purpose=Purpose.function, invocation=invocation)


async def written(*facts: events.Event | logging.LogRecord, secrets: tuple[str, ...] = ()) -> list[bytes]:
    """The lines that come of events and records."""
    stream = io.BytesIO()
    lines = JsonLines(stream, secrets=secrets)
    for fact in facts:
        if isinstance(fact, logging.LogRecord):
            lines.handle(fact)
        else:
            lines.fold(fact)
    await asyncio.to_thread(lines.close)
    return stream.getvalue().splitlines()


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("skyisland.x", logging.WARNING, __file__, 1, message, args, None)
    vars(made).update(extra)
    return made


async def test_a_line_per_event() -> None:
    lines = [json.loads(line) for line in await written(created("sky-t-1", "inv-1"), finished())]
    assert [line["event"] for line in lines] == ["JailCreated", "InvocationFinished"]
    assert lines[0]["jail"] == "sky-t-1"
    assert lines[0]["invocation"] == "inv-1"
    assert lines[0]["time"] == pytest.approx(lines[1]["time"], abs=10)


OF_A_CALL: tuple[events.Event, ...] = (
    events.InvocationStarted(invocation="inv-1", url="u", call="F()"),
    events.PhaseFinished(invocation="inv-1", phase=Phase.resolve, duration_s=1),
    events.SourceFetched(url="u", commit="c" * 40, duration_s=1),
    events.BuildStarted(key="k", url="u", function="F"),
    events.BuildFinished(key="k", url="u", function="F", ok=True, duration_s=1),
    events.CloneCreated(clone="sky-t-1", duration_s=1),
    created("sky-t-1", "inv-1"),
    events.JailClaimed(jail="sky-t-1", jid=1),
    events.AddressLeased(ip="10.0.0.2", jail="sky-t-1"),
    finished(function="F", jail="sky-t-1"),
    events.JailDestroyed(jail="sky-t-1", jid=1, duration_s=1),
)


@pytest.mark.parametrize(("level", "told", "in_ring"), [("DEBUG", 11, 7), ("INFO", 1, 1), ("WARNING", 0, 0)])
async def test_one_line_for_each_call(level: str, told: int, in_ring: int) -> None:
    stream, ring = io.BytesIO(), LogRing()
    lines = JsonLines(stream)
    for taker in (lines, ring):
        taker.setLevel(level)
        for event in OF_A_CALL:
            taker.fold(event)
    await asyncio.to_thread(lines.close)
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(written) == told
    assert len(ring.lines()) == in_ring
    if told == 1:
        assert (written[0]["function"], written[0]["verdict"], written[0]["level"]) == ("F", "ok", "INFO")
        assert written[0]["timings"]["total_s"] == 0
        assert ring.lines()[0].text == "u F(): ok in 0.0 ms"


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (finished(), "INFO"),
        (finished(verdict="failed"), "INFO"),
        (finished(verdict="bad_call"), "INFO"),
        (finished(verdict="exited"), "WARNING"),
        (finished(verdict="too_busy"), "WARNING"),
        (finished(verdict="driver_error"), "ERROR"),
        (events.BuildFinished(key="k", url="u", function="F", ok=False, duration_s=1), "WARNING"),
        (events.JailKilled(jail="j", jid=1, reason="because"), "WARNING"),
        (events.IslandStarted(swept=0), "INFO"),
        (events.PhaseFinished(invocation="i", phase=Phase.exec, duration_s=1), "DEBUG"),
    ],
)
async def test_levels_mean_something(event: events.Event, level: str) -> None:
    (line,) = await written(event)
    assert json.loads(line)["level"] == level


async def test_journald_is_told_priorities() -> None:
    stream = io.BytesIO()
    lines = JsonLines(stream, priorities=True)
    lines.fold(created("j"))
    lines.fold(finished())
    lines.fold(finished(verdict="internal"))
    lines.handle(record("odd"))
    await asyncio.to_thread(lines.close)
    found = {line[:3]: json.loads(line[3:])["level"] for line in stream.getvalue().splitlines()}
    assert found == {b"<7>": "DEBUG", b"<6>": "INFO", b"<3>": "ERROR", b"<4>": "WARNING"}


def test_what_leads_to_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stream:
        about = os.fstat(stream.fileno())
        assert is_journal(stream, f"{about.st_dev}:{about.st_ino}")
        for other in ("", f"{about.st_dev}:{about.st_ino + 1}", "nonsense"):
            assert not is_journal(stream, other)
    assert not is_journal(io.BytesIO(), "8:1")


async def test_a_line_per_record() -> None:
    (line,) = await written(record("no %s", "luck", jail="sky-t-1"))
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == ("WARNING", "skyisland.x", "no luck")
    assert fields["jail"] == "sky-t-1"


def test_a_record_as_json() -> None:
    made = record("no %s é", "luck", jail="sky-t-1", path=Path("/x"))
    made.created = 1763773201.5
    assert JsonLines(io.BytesIO()).format(made) == (
        '{"time": 1763773201.5, "level": "WARNING", "logger": "skyisland.x", "message": "no luck \\u00e9", '
        '"exc_info": null, "jail": "sky-t-1", "path": "/x"}'
    )


async def test_a_traceback_is_one_line() -> None:
    failed = record("broken")
    try:
        raise ValueError(FORGERY)
    except ValueError as error:
        failed.exc_info = (ValueError, error, error.__traceback__)
    (line,) = await written(failed)
    assert "Traceback" in json.loads(line)["exc_info"]


@given(st.text() | st.just(FORGERY))
async def test_no_text_forges_a_line(text: str) -> None:
    facts = (finished(call=text, error=text), record("%s", text, who=text))
    lines = await written(*facts)
    assert len(lines) == 2
    for line in lines:
        assert all(0x20 <= byte < 0x7F for byte in line)
    fields = {line.get("message", line.get("error")) for line in map(json.loads, lines)}
    assert fields == {text}


async def test_no_secret_in_a_line() -> None:
    secret = 'to"ken-1234'
    facts = (finished(url=f"https://x/?t={secret}"), record("got %s", secret))
    assert not any(b"ken-1234" in line for line in await written(*facts, secrets=(secret, "")))


async def test_a_reader_that_stalls_delays_nobody() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as stream:
        lines = JsonLines(stream, limit=3)
        for number in range(2000):
            lines.handle(record("%d %s", number, "x" * 1000))
        assert lines.dropped > 1000
        drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reader, 1 << 16), b"")])
        drain.start()
        await asyncio.to_thread(lines.close)
    await asyncio.to_thread(drain.join)
    os.close(reader)


async def test_a_lost_line_is_told() -> None:
    stream = io.BytesIO()
    lines = JsonLines(stream)
    lines.dropped = 7
    lines.handle(record("one"))
    await asyncio.to_thread(lines.close)
    assert json.loads(stream.getvalue().splitlines()[-1])["lost"] == 7


def test_the_ring_forgets() -> None:
    ring = LogRing(limit=3)
    for number in range(5):
        ring.handle(record(str(number)))
    assert [line.text for line in ring.lines()] == ["2", "3", "4"]
    assert [line.text for line in ring.lines(limit=1)] == ["4"]
    assert [line.text for line in ring.lines(limit=0)] == []
    assert [line.seq for line in ring.lines(after=4)] == [5]


def test_lines_of_a_jail() -> None:
    ring = LogRing()
    ring.fold(events.InvocationStarted(invocation="inv-1", url="u", call="F()"))
    ring.fold(created("sky-t-1", "inv-1"))
    ring.fold(created("sky-t-2", "inv-2"))
    ring.fold(events.PhaseFinished(invocation="inv-1", phase=Phase.exec, duration_s=1))
    ring.handle(record("odd", jail="sky-t-1"))
    ring.fold(finished(invocation="inv-1", jail="sky-t-1", verdict="exited"))
    found = ring.lines(jail="sky-t-1")
    assert [line.text.split()[0] for line in found] == ["u", "function", "odd", "u"]
    assert [line.level for line in found] == ["DEBUG", "DEBUG", "WARNING", "WARNING"]


def test_every_told_event_has_words() -> None:
    ring = LogRing()
    facts = (
        events.IslandStarted(swept=2),
        events.InvocationStarted(url="u", call="c"),
        events.SourceFetched(url="u", commit="c" * 40, duration_s=1),
        events.BuildFinished(key="k", url="u", function="F", ok=False, duration_s=1),
        events.ArtifactEvicted(key="k", url="u", function="F", reason="space"),
        created("j"),
        events.JailKilled(jail="j", jid=1, reason="because"),
        events.JailDestroyed(jail="j", jid=1, duration_s=1),
        events.AddressLeased(ip="10.0.0.2", jail="j"),
        events.AddressReleased(ip="10.0.0.2", jail="j"),
        events.AddressStateSet(ip="10.0.0.2", state="available"),
        finished(verdict="exited", cause=Cause(kind="exited 2", text="exited 2: panic: oh")),
    )
    for fact in facts:
        ring.fold(fact)
    assert len(ring.lines()) == len(facts)
    assert ring.lines()[-1].text == "u F(): exited 2: panic: oh in 0.0 ms"


def test_the_ring_holds_printable_text_without_secrets() -> None:
    ring = LogRing(secrets=("token-1234",))
    ring.handle(record("%s token-1234", FORGERY))
    ring.fold(finished(verdict="bad_call", cause=Cause(kind="bad_call", text=FORGERY * 100)))
    for line in ring.lines():
        assert line.text.isprintable()
        assert "token-1234" not in line.text
        assert len(line.text) < 2000


@given(st.text())
def test_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("plain é 日本 text") == "plain é 日本 text"


@pytest.mark.filterwarnings("always:careful")
async def test_logging_to_takes_over_and_gives_back() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    ring, facts, stream = LogRing(), events.Events(), io.BytesIO()
    async with logging_to(ring, facts, level="DEBUG") as write_lines:
        assert root.handlers == [ring]
        logging.getLogger("skyisland.test").debug("before anybody reads lines")
        write_lines(stream)
        logging.getLogger("skyisland.test").debug("hello")
        logging.getLogger("hypercorn.error").info("chatter")
        facts.publish(events.IslandStarted(swept=0))
        warnings.warn("careful", stacklevel=1)
        set_level("WARNING")
        facts.publish(events.IslandStarted(swept=1))
        logging.getLogger("skyisland.test").info("no more")
    assert (root.handlers, root.level) == before
    texts = [line.text for line in ring.lines()]
    assert texts[1:3] == ["hello", "island started, 0 leftovers swept"]
    assert "careful" in texts[3]
    assert len(stream.getvalue().splitlines()) == 3
    ring.setLevel("DEBUG")
    facts.publish(events.IslandStarted(swept=0))
    assert len(ring.lines()) == 4
