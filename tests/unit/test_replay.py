"""What is kept of a request, so that it can be made again."""

from __future__ import annotations

import asyncio
import io
import json

import msgspec
from msgspec import Raw

from skyisland.events import REQUEST_BYTES, Event, Events, InvocationFinished, size_of
from skyisland.model import FunctionRequest
from skyisland.record.jsonlines import JsonLines
from skyisland.story import Story


def kept(request: FunctionRequest) -> InvocationFinished:
    """The end of an invocation of this request."""
    events, ends = Events(), list[Event]()
    events.tap(ends.append, InvocationFinished)
    Story(request, events, "somebody").close()
    (end,) = ends
    assert isinstance(end, InvocationFinished)
    return end


def test_a_request_is_kept_whole_without_the_body_that_it_came_in() -> None:
    body = b'{"url": "u", "call": "F", "args":%b[1, "x"], "stdin": "in", "cold": true}' % (b" " * 100_000)
    request = msgspec.json.decode(body, type=FunctionRequest)
    end = kept(request)
    assert end.request == FunctionRequest(url="u", call="F", args=Raw(b'[1, "x"]'), stdin="in", cold=True)
    assert isinstance(end.request.args, Raw)
    assert memoryview(end.request.args).obj is not body
    assert size_of(end) - size_of(kept(FunctionRequest(url="u", call="F"))) >= len('[1, "x"]in')
    assert msgspec.json.decode(msgspec.json.encode(end), type=InvocationFinished) == end


def test_a_long_request_is_not_kept() -> None:
    long = "x" * REQUEST_BYTES
    for request in (
        FunctionRequest(url="u", call=long),
        FunctionRequest(url="u", stdin=long),
        FunctionRequest(url="u", stdin="ä" * (REQUEST_BYTES // 2)),
        FunctionRequest(url="u", stdin_base64=long.encode()),
        FunctionRequest(url="u", call="F", args=Raw(b'["%b"]' % long.encode())),
        FunctionRequest(url="u", call="F", inputs=Raw(b'[["%b"]]' % long.encode())),
        FunctionRequest(url="u", call="F", types=(long,)),
        FunctionRequest(url="u", version=long),
    ):
        assert kept(request).request is None


async def test_no_log_has_what_a_function_read() -> None:
    stream = io.BytesIO()
    lines = JsonLines(stream)
    lines.fold(kept(FunctionRequest(url="u", call="F", stdin="a secret")))
    await asyncio.to_thread(lines.close)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["call"] == "F"
    assert b"a secret" not in line
    assert b"request" not in line
