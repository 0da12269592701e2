"""Traces: whose a call is, what its function is told, and spans at a collector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from skyisland import trace
from skyisland.cause import Cause
from skyisland.errors import SettingsError
from skyisland.events import Events, InvocationFinished, PhaseFinished
from skyisland.model import Phase, Timings
from skyisland.record.traces import Traces
from tests.support.api import CALL, answers, make_world

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{CALLER}-01"


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (HEADER, HEADER),
        (f"00-{TRACE}-{CALLER}-00", f"00-{TRACE}-{CALLER}-00"),
        (f"cc-{TRACE}-{CALLER}-01-what-the-future-knows", HEADER),
        (f"00-{TRACE}-{CALLER}-01-x", ""),
        (f"ff-{TRACE}-{CALLER}-01", ""),
        (f"00-{'0' * 32}-{CALLER}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (HEADER.upper(), ""),
        (f" {HEADER}", ""),
        (HEADER[:-1], ""),
        ("", ""),
        ("-" * 10_000, ""),
    ],
)
def test_a_header_is_read_as_the_standard_says(header: str, read: str) -> None:
    assert trace.read(header) == read


async def test_events_and_function_are_told() -> None:
    world = make_world()
    await world.island.start()
    frames = answers(world, b"", {"results": []})
    ends: list[InvocationFinished] = []
    world.events.tap(ends.append, InvocationFinished)
    async with world.client() as client:
        for headers in ({"traceparent": HEADER}, {"traceparent": "nonsense"}, {}):
            await client.post("/api/v1/function", json=CALL, headers=headers)
    own = (ends[0].invocation or "").removeprefix("inv-")
    assert frames[0]["env"] == ["TRACEPARENT", f"00-{TRACE}-0000{own}-01"]
    assert [frame.get("env") for frame in frames[1:]] == [None, None]
    assert [end.traceparent for end in ends] == [HEADER, "", ""]
    ended = asyncio.create_task(world.next(InvocationFinished))
    async with world.client() as client:
        headers = {"traceparent": HEADER, "Prefer": "respond-async"}
        later = await client.post("/api/v1/function", json=CALL, headers=headers)
        assert later.status_code == 202
    assert (await ended).traceparent == HEADER, "of a call that answers later, too"
    assert len({artifact.key for artifact in world.island.builds.artifacts()}) == 1, "no trace makes a binary"
    await world.island.stop()


class Collector(HTTPServer):
    """Takes spans as a collector of OpenTelemetry does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: list[Span] = []
        self.about: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest()
        sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in sent.resource_spans:
            self.server.about |= {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


async def test_a_call_is_a_span_and_so_are_its_phases(collector: Collector) -> None:
    stream = Events()
    traces = await asyncio.to_thread(Traces, collector.url, version="1", instance="t")
    traces.follow(stream)
    for invocation, traceparent in (
        ("inv-0123456789ab", HEADER),
        ("inv-00000000000b", ""),
        ("inv-00000000000c", HEADER[:-1] + "0"),
    ):
        stream.publish(PhaseFinished(at=101.0, invocation=invocation, phase=Phase.resolve, duration_s=0.5))
        stream.publish(PhaseFinished(at=102.0, invocation=invocation, phase=Phase.exec, duration_s=1.0))
        end = InvocationFinished(
            at=102.0,
            invocation=invocation,
            url="u",
            call="F()",
            function="F",
            verdict="exited" if traceparent else "ok",
            cause=Cause(kind="exited 2", text="exited 2: panic: oh") if traceparent else None,
            timings=Timings(resolve_s=0.5, exec_s=1.0, total_s=1.75),
            traceparent=traceparent,
        )
        stream.publish(end)
    await asyncio.to_thread(traces.close)
    assert collector.about["service.name"] == "skyisland"
    assert len(collector.spans) == 6, "whoever began the third trace does not want it recorded"
    first = {span.name: span for span in collector.spans[:3]}
    call, resolve = first["F"], first["resolve"]
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, CALLER)
    assert call.span_id.hex() == trace.span_of("inv-0123456789ab") == "00000123456789ab"
    assert (call.start_time_unix_nano, call.end_time_unix_nano) == (100_250_000_000, 102_000_000_000)
    assert (call.status.code, call.status.message) == (2, "exited 2: panic: oh")
    assert (resolve.trace_id, resolve.parent_span_id) == (call.trace_id, call.span_id)
    assert resolve.end_time_unix_nano - resolve.start_time_unix_nano == 500_000_000
    attributes = {one.key: one.value.string_value for one in call.attributes}
    assert attributes["faas.invocation_id"] == "inv-0123456789ab"
    own = next(span for span in collector.spans[3:] if span.name == "F")
    assert (own.parent_span_id, own.trace_id == call.trace_id) == (b"", False)
    assert len({span.span_id for span in collector.spans}) == 6
    assert traces.lost == 0


async def test_a_collector_that_is_gone_holds_nobody_up() -> None:
    world = make_world()
    await world.island.start()
    traces = await asyncio.to_thread(
        Traces, "http://127.0.0.1:9/v1/traces", version="1", instance="t", patience_s=0.1
    )
    traces.follow(world.events)
    async with world.client() as client, asyncio.timeout(10):
        assert (await client.post("/api/v1/function", json=CALL)).status_code == 200
        await asyncio.to_thread(traces.close)
    await world.island.stop()


def test_nothing_is_imported_without_it_and_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import sys, skyisland.cli.serving, skyisland.record.traces, api.serve\n"
    code += "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'skyisland\[otlp\]'"):
        Traces("http://127.0.0.1:4318/v1/traces", version="1", instance="t")
