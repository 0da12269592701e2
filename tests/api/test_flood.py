"""Requests that are refused: whatever they hold, they fill neither memory, database nor log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs

from skyisland import events as ev
from skyisland.cause import Cause
from skyisland.codec import decode, encode
from skyisland.errors import BadRequest
from skyisland.events import TEXT, Event, Events, InvocationFinished, Ring, size_of
from skyisland.golang.call import MAX_BYTES
from skyisland.golang.outcome import FRAME_CHARACTERS, FRAMES
from skyisland.model import GoError, Outcome, Purpose, Timings, Verdict
from skyisland.record.jsonlines import JsonLines
from skyisland.record.logs import RING_BYTES, LogRing
from skyisland.record.state import HISTORY_BYTES, State
from skyisland.sources.url import URL_LIMIT
from skyisland.sources.versions import VERSION_LIMIT
from skyisland.wire import FunctionBody
from tests.support.api import CALL, World

MIB = 1 << 20
LIMITS = {"url": URL_LIMIT, "call": MAX_BYTES, "version": VERSION_LIMIT}


class Unguarded(msgspec.Struct, kw_only=True):
    """A body without limits."""

    url: str
    call: str
    version: str | None = None


@pytest.mark.parametrize("field", LIMITS)
async def test_a_text_too_long_is_refused_and_nothing_of_it_kept(
    world: World, client: httpx.AsyncClient, field: str
) -> None:
    published: list[Event] = []
    world.events.tap(published.append)
    body = CALL | {field: "x" * 1_000_000}
    assert len(getattr(msgspec.json.decode(json.dumps(body), type=Unguarded), field)) == 1_000_000
    refused = await client.post("/api/v1/function", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert refused.json()["details"] == {"field": field}
    assert f"field '{field}' has more than {LIMITS[field]} characters; " in refused.json()["error"]
    assert published == []
    assert len(refused.content) < 300


@pytest.mark.parametrize("field", LIMITS)
def test_the_door_permits_what_its_readers_do(field: str) -> None:
    body = CALL | {field: "x" * LIMITS[field]}
    assert getattr(decode(json.dumps(body).encode(), FunctionBody), field) == body[field]
    with pytest.raises(BadRequest):
        decode(json.dumps(CALL | {field: "x" * (LIMITS[field] + 1)}).encode(), FunctionBody)


LONG = "x" * MIB
TEXTS: dict[str, Any] = dict.fromkeys(("url", "call", "version", "function", "error", "reason"), LONG)
OTHERS: dict[str, Any] = {
    "commit": "c",
    "duration_s": 1.0,
    "key": "k",
    "ok": True,
    "jail": "j",
    "jid": 1,
    "pid": 1,
    "purpose": Purpose.function,
    "verdict": "ok",
    "timings": Timings(),
}


@pytest.mark.parametrize("kind", [kind for kind in ev.Event.__subclasses__() if ev._TEXTS[kind]])
def test_an_event_has_the_beginning_of_each_text(kind: type[Event]) -> None:
    names = [one.name for one in structs.fields(kind) if one.required or one.name in TEXTS]
    event = kind(**{name: (TEXTS | OTHERS)[name] for name in names})
    for name in set(TEXTS).intersection(names):
        assert getattr(event, name) == "x" * (TEXT - 1) + "…"
    assert len(encode(event)) < 5 * TEXT
    whole = kind(**{name: (dict.fromkeys(TEXTS, "x" * TEXT) | OTHERS)[name] for name in names})
    assert all(getattr(whole, name) == "x" * TEXT for name in set(TEXTS).intersection(names))


def refused(number: int) -> InvocationFinished:
    """The end of a call as long as may be, of the characters that take most."""
    text = "\N{WASTEBASKET}" * TEXT
    outcome = Outcome(
        verdict=Verdict.exited,
        exit_code=2,
        stdout=b"\xff" * MIB,
        stderr=b"\xff" * MIB,
        error=GoError(message=text, type="panic", trace=("x" * FRAME_CHARACTERS,) * FRAMES),
    )
    return InvocationFinished(
        invocation=f"inv-{number}",
        url=text,
        call=text,
        error=text,
        cause=Cause.of_outcome(outcome, 1.0),
        verdict="exited",
        timings=Timings(),
    )


def test_the_ring_counts_every_field() -> None:
    one = size_of(refused(0))
    assert one > 3 * 4 * TEXT
    endless, ring = Ring(1 << 60), Ring(MIB)
    for number in range(300):
        endless.add(refused(number))
        ring.add(refused(number))
    assert len(endless.page(0).events) == 300, "without a limit all of them are kept"
    kept = list(ring.page(300 - MIB // one).events.values())
    assert (len(kept), sum(map(size_of, kept)) < MIB) == (MIB // one, True)


def test_the_log_ring_is_bounded_in_bytes() -> None:
    ring = LogRing()
    record = logging.makeLogRecord({"msg": "é" * 10_000, "levelno": logging.INFO})
    for _ in range(2000):
        ring.fold(refused(1))
    for _ in range(1500):
        ring.emit(record)
    lines = ring.lines()
    assert len(lines) < 1000
    assert sum(len(line.text.encode()) for line in lines) < 2 * RING_BYTES
    assert len(encode(lines)) < 3 * RING_BYTES


@pytest.mark.parametrize("text", ["x" * MIB, "\x1b" * MIB, "\N{WASTEBASKET}" * MIB])
async def test_a_line_of_the_log_is_bounded(text: str) -> None:
    stream = io.BytesIO()
    lines = JsonLines(stream)
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "who": text, "detail": [text]})
    try:
        raise ValueError(text)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    lines.handle(record)
    lines.fold(InvocationFinished(url=text, call=text, error=text, verdict="ok", timings=Timings()))
    await asyncio.to_thread(lines.close)
    assert max(map(len, stream.getvalue().splitlines())) < 400_000
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()]


async def test_lines_that_wait_are_bounded_in_bytes() -> None:
    class Stuck(io.BytesIO):
        def write(self, _: Any) -> int:
            go_on.wait()
            return 0

    go_on = threading.Event()
    lines = JsonLines(Stuck())
    for _ in range(5000):
        for _ in range(10):
            lines.fold(refused(1))
        lines._hand_over()
    assert 45_000 < lines.dropped < 50_000, "16 MiB of 1.2 GB wait"
    go_on.set()
    await asyncio.to_thread(lines.close)
    await asyncio.to_thread(lines._writer.join)
    assert lines._waiting_bytes == 0


async def test_history_is_bounded_in_bytes_in_memory_and_on_disk(tmp_path: Path) -> None:
    events = Events()
    state = await State.open(tmp_path / "island.db")
    state.follow(events)
    for number in range(400):
        events.publish(refused(number))
    kept = await state.invocations(1000)
    assert (kept[0].invocation, len(kept)) == ("inv-399", HISTORY_BYTES // size_of(refused(0)))
    await state.close()
    state = await State.open(tmp_path / "island.db")
    assert await state.invocations(1000) == kept
    await state.close()
    assert (tmp_path / "island.db").stat().st_size < 24 * MIB, "history and what waited"


async def test_what_waits_for_a_stuck_disk_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    state = await State.open(tmp_path / "island.db")
    state.follow(events)
    async with state._writing:  # as long as the disk does not answer
        for number in range(2000):
            events.publish(refused(number))
        assert state._queue_bytes < 17 * MIB
    await state.close()
    assert "records of history and counters were not written" in caplog.text


async def test_functions_compiled_whole_are_bounded(tmp_path: Path) -> None:
    state = await State.open(tmp_path / "island.db")
    for number in range(100):
        state.note_expression(("example.com/r", "", "c" * 40, f"F{number}" + "x" * 60_000))
        state.note_expression(("example.com/r", "", "c" * 40, f"F{number}" + "x" * 60_000))
    assert 50 < len(state._expressions) < 80
    assert state.is_expression(("example.com/r", "", "c" * 40, "F99" + "x" * 60_000))
    await state.close()
    reopened = await State.open(tmp_path / "island.db")
    assert reopened._expressions.keys() == state._expressions.keys()
    await reopened.close()


async def test_a_page_of_invocations_is_bounded_in_bytes(
    world: World, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def invocations(limit: int) -> list[InvocationFinished]:
        return [refused(number) for number in range(limit)]

    monkeypatch.setattr(world.island, "invocations", invocations)
    whole = len(encode(await invocations(1000)))
    page = await admin.get("/api/v1/admin/invocations?limit=1000")
    assert whole > 20 * MIB
    assert 3 * MIB < len(page.content) < 5 * MIB
    assert page.json()["invocations"][0]["invocation"] == "inv-0"
    few = await admin.get("/api/v1/admin/invocations?limit=3")
    assert len(few.json()["invocations"]) == 3
