"""Every private part of Hypercorn that `api.serve` uses, by name: with a version that lacks one, or no longer
uses it itself, a server would run without its limits."""

from __future__ import annotations

import ast
import inspect
import textwrap
import tomllib
from importlib import metadata
from types import CodeType

import hypercorn.asyncio.run
import pytest
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask, WorkerContext
from hypercorn.config import Config
from hypercorn.events import RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.utils import wrap_app

from api import protocols, serve
from tests.support.places import ROOT

OVERRIDDEN = {
    "run": ("self",),
    "protocol_send": ("self", "event"),
    "_idle_timeout": ("self",),
    "_read_data": ("self",),
}
"""Methods that `Connection` has in place of Hypercorn's, and their parameters."""
CALLED = {"_initiate_server_close": ("self",)}
HELD = {"config", "context", "idle_task", "loop", "protocol", "reader", "send_lock", "writer"}
"""What a connection has of its own."""
SET = (
    *("accesslog", "backlog", "bind", "certfile", "errorlog", "graceful_timeout", "h11_max_incomplete_size"),
    *(
        "h2_max_concurrent_streams",
        "h2_max_header_list_size",
        "include_server_header",
        "keep_alive_max_requests",
    ),
    *("alpn_protocols", "ssl_handshake_timeout"),
    *("keep_alive_timeout", "keyfile", "websocket_max_message_size", "wsgi_max_body_size"),
)


def names(code: CodeType) -> set[str]:
    """All names that a function uses, and those within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(names, inner))


def used_parts() -> set[str]:
    """What `Connection` uses or replaces of Hypercorn's class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(serve.Connection)))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
    }
    defined = {name for name in vars(serve.Connection) if not name.startswith("__")}
    return (used - defined) | defined.intersection(dir(TCPServer))


def test_the_version_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = (line for line in project["dependencies"] if line.startswith("hypercorn"))
    assert pin == f"hypercorn=={metadata.version('hypercorn')}"


def test_these_are_all_the_parts_that_are_used() -> None:
    assert used_parts() == {*OVERRIDDEN, *CALLED, *HELD}


@pytest.mark.parametrize(("name", "parameters"), (OVERRIDDEN | CALLED).items())
def test_methods_are_there_and_awaited(name: str, parameters: tuple[str, ...]) -> None:
    method = getattr(TCPServer, name)
    assert inspect.iscoroutinefunction(method)
    assert tuple(inspect.signature(method).parameters) == parameters


def test_hypercorn_calls_what_is_overridden() -> None:
    assert {"_idle_timeout", "_read_data", "protocol_send"} <= names(TCPServer.run.__code__)
    assert "run" in names(TCPServer.__await__.__code__)
    assert "_initiate_server_close" in names(TCPServer._idle_timeout.__code__)
    assert "response_headers" in dir(Config)


def test_what_a_connection_has_is_there() -> None:
    assert names(TCPServer.__init__.__code__) | {"protocol"} >= HELD
    assert "protocol" in names(TCPServer.run.__code__)
    assert inspect.iscoroutinefunction(AsyncioSingleTask.stop)
    assert inspect.iscoroutinefunction(WorkerContext(None).terminated.wait)
    assert Updated(idle=True).idle
    assert RawData(data=b"x").data == b"x"


def test_a_connection_finds_the_class_of_its_protocols_by_name() -> None:
    assert "ProtocolWrapper" in names(TCPServer.run.__code__)
    assert serve._run.__globals__["ProtocolWrapper"] is protocols.Protocols
    assert TCPServer.run.__globals__["ProtocolWrapper"] is ProtocolWrapper
    assert TCPServer.run.__closure__ is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (H11Protocol, "_check_protocol"),
        (H11Protocol, "_send_error_response"),
        (H2Protocol, "_handle_events"),
        (H2Protocol, "_priority_updated"),
        (H2Protocol, "_flush"),
        (H2Protocol, "initiate"),
        (H11Protocol, "handle"),
        (HTTPStream, "app_send"),
        (HTTPStream, "handle"),
        (TaskGroup, "spawn_app"),
        (WorkerContext, "mark_request"),
        (ProtocolWrapper, "handle"),
    ],
)
def test_parts_of_protocols_are_there(kind: type, name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(kind, name))


def test_protocols_are_made_alike_and_call_what_is_overridden() -> None:
    wrapper = names(ProtocolWrapper.__init__.__code__)
    parts = ("app", "config", "context", "task_group", "state", "ssl", "client", "server", "send")
    assert wrapper >= {*parts, "H11Protocol", "H2Protocol", "protocol"}
    for kind in (H11Protocol, H2Protocol):
        assert len(inspect.signature(kind).parameters) == len(parts)
    assert "_check_protocol" in names(H11Protocol._handle_events.__code__)
    assert "_handle_events" in names(H2Protocol.handle.__code__)
    assert "_priority_updated" in names(H2Protocol._handle_events.__code__)
    assert {"closed", "streams"} <= names(H2Protocol.__init__.__code__)


def test_a_stream_has_what_is_handed_over_to_it() -> None:
    """`Exchange.hand_over` makes one of a request that has begun, and sets what its `handle` would set."""
    handled = names(HTTPStream.handle.__code__)
    assert {"start_time", "scope", "app_put", "spawn_app", "root_path"} <= handled
    parts = ("app", "config", "context", "task_group", "ssl", "client", "server", "send", "stream_id")
    assert tuple(inspect.signature(HTTPStream).parameters) == parts
    held = names(H11Protocol.__init__.__code__) | names(H11Protocol._create_stream.__code__)
    assert {"connection", "stream", "keep_alive_requests", "connection_state", "mark_request"} <= held


@pytest.mark.parametrize("name", SET)
def test_settings_are_there(name: str) -> None:
    """A setting of another name would be one that nobody reads."""
    assert hasattr(Config(), name)


def test_the_worker_finds_the_class_of_its_connections_by_name() -> None:
    original = hypercorn.asyncio.run.worker_serve
    assert "TCPServer" in names(original.__code__)
    assert original.__closure__ is None
    assert original.__defaults__ is None
    assert set(original.__kwdefaults__ or ()) == {"sockets", "shutdown_trigger"}
    assert tuple(inspect.signature(wrap_app).parameters)[:3] == ("app", "wsgi_max_body_size", "mode")


def test_hypercorn_itself_stays_as_it_is() -> None:
    worker = serve._worker()
    assert worker.__globals__["TCPServer"] is serve.Connection
    assert vars(hypercorn.asyncio.run)["TCPServer"] is TCPServer
