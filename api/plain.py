"""The plain request, and its answer in one piece: what nearly every call is.

h11 makes objects of each part of a message and moves two machines of states: a quarter of the processor time
that a warm call takes of the island. A plain request is recognised in one step, and an answer that is there
at once leaves in one write. It is plain when it came whole and alone, with a path, one Host, and a body whose
length is told; what is taken here is what h11 takes, with the same meaning (tests/api/test_plain.py tries any
bytes).

Whatever is not plain is h11's from its first byte on. So is a request that only turns out not to be: its
answer comes in pieces, or is the connection's last, or another request comes before it. h11 and Hypercorn's
stream are then told what has happened (`Exchange.hand_over`), and go on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast
from urllib.parse import unquote

import h11
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ASGISendEvent, HTTPResponseStartEvent, HTTPScope
from msgspec import Struct

MOST_BYTES = 16 << 10
"""A longer request is h11's: what is plain is kept until it is answered, for h11 may have to read it yet."""
_HEAD = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE) (/[!-~]*+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t -~]*+\r\n)++)\r\n"
)
"""RFC 9112, sections 3 and 5, without what is rare. No part can be read in two ways, so time is linear."""
_LENGTH = re.compile(rb"[0-9]{1,9}")
_SENT = re.compile(
    rb"HTTP/1\.1 [2-5][0-9]{2} \r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: [!-~](?:[\t -~]*+)\r\n)++\r\n"
)
"""A head that may be sent as it is: no header has a line break, or no value."""
_MEANING = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"connection", b"trailer", b"te"))
"""Headers that change what a message is: not plain."""
_BARE = (204, 304)
"""Without a body, whatever its headers say (RFC 9110, section 6.4.1)."""


class Whole(RawData):
    """An answer in one piece: it waits for nothing that may follow."""


class Request(Struct, frozen=True):
    """A plain request."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


def plain(data: bytes) -> Request | None:
    """The one request that `data` is, if it is plain."""
    if len(data) > MOST_BYTES or (head := _HEAD.match(data)) is None:
        return None
    headers, hosts, length = [], 0, b""
    for line in head[3][:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length or not _LENGTH.fullmatch(value):
                return None
            length = value
        elif name in _MEANING:
            return None
        headers.append((name, value))
    if hosts != 1 or len(data) - head.end() != int(length or b"0"):
        return None
    return Request(head[1].decode(), head[2], headers, data[head.end() :])


class PlainFirst(H11Protocol):
    """Hypercorn's HTTP/1.1, which gets what is not plain."""

    exchange: Exchange | None = None
    """The plain request that is under way."""

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self.exchange is not None:
                await self.exchange.hand_over()
            elif self._idle and (request := plain(event.data)):
                await self.send(Updated(idle=False))
                self.exchange = Exchange(self, event.data)
                await self.exchange.begin(request)
                return
        elif self.exchange is not None:
            await self.exchange.hand_over()
        await super().handle(event)

    @property
    def _idle(self) -> bool:
        """Whether the next byte is the first of a request."""
        connection = self.connection
        return (
            self.stream is None
            and isinstance(connection, h11.Connection)
            and connection.our_state is h11.IDLE
            and connection.their_state is h11.IDLE
            and not connection.trailing_data[0]
        )


class Exchange:
    """A plain request that is under way on a connection."""

    def __init__(self, protocol: PlainFirst, raw: bytes) -> None:
        """`raw`: the request as it came."""
        self._protocol = protocol
        self._raw = raw
        self._began_at = time.time()
        self._scope: HTTPScope
        self._put: Callable[[Any], Awaitable[None]]
        self._start: HTTPResponseStartEvent | None = None
        """How the answer begins, until its body is there."""
        self._stream: HTTPStream | None = None
        """Whose the exchange is since it was handed over."""
        self._answered = False

    async def begin(self, request: Request) -> None:
        """Have the application answer it."""
        protocol = self._protocol
        path, _, query = request.target.partition(b"?")
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": request.method,
            "scheme": "https" if protocol.ssl else "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": protocol.config.root_path,
            "headers": request.headers,
            "client": protocol.client,
            "server": protocol.server,
            "state": protocol.connection_state.copy(),  # type: ignore[typeddict-item] # as Hypercorn does
            "extensions": {},
        }
        self._put = await protocol.task_group.spawn_app(
            protocol.app, protocol.config, self._scope, self._send
        )
        await self._put({"type": "http.request", "body": request.body, "more_body": False})
        protocol.keep_alive_requests += 1
        await protocol.context.mark_request()

    async def hand_over(self) -> None:
        """Make it h11's and Hypercorn's, which go on as if they had had it from its first byte on."""
        protocol = self._protocol
        connection = cast(h11.Connection, protocol.connection)
        connection.receive_data(self._raw)
        while type(connection.next_event()) is not h11.EndOfMessage:
            pass
        self._stream = protocol.stream = HTTPStream(
            protocol.app,
            protocol.config,
            protocol.context,
            protocol.task_group,
            protocol.ssl,
            protocol.client,
            protocol.server,
            protocol.stream_send,
            STREAM_ID,
        )
        self._stream.start_time, self._stream.scope = self._began_at, self._scope
        self._stream.app_put = self._put
        protocol.exchange = None

    async def _send(self, message: ASGISendEvent | None) -> None:
        """What the application answers; None at its end."""
        if self._answered or (self._stream is None and await self._take(message)):
            return
        if self._stream is None:
            await self.hand_over()
        assert self._stream is not None  # noqa: S101 - handed over
        if self._start is not None:
            start, self._start = self._start, None
            await self._stream.app_send(start)
        await self._stream.app_send(message)

    async def _take(self, message: ASGISendEvent | None) -> bool:
        """Take a message, if the answer is one of one piece as far as can be seen."""
        if message is None:
            return False
        if message["type"] == "http.response.start" and self._start is None:
            if not any(name.lower() == b"content-length" for name, _ in message["headers"]):
                return False
            self._start = message
            return True
        if message["type"] == "http.response.body" and self._start is not None:
            return await self._answer(self._start, message.get("body", b""))
        return False

    async def _answer(self, start: HTTPResponseStartEvent, body: bytes) -> bool:
        """Answer in one write, if that is how it can be said: `body` has all that the length promises.

        Quart ends each answer with an empty piece, which says nothing more.
        """
        protocol = self._protocol
        if start["status"] in _BARE or protocol.context.terminated.is_set():
            return False
        head = _head(
            start["status"], (*start["headers"], *protocol.config.response_headers("h11")), len(body)
        )
        if not head:
            return False
        self._answered, protocol.exchange = True, None
        await protocol.send(Whole(head + body))
        await self._put({"type": "http.disconnect"})
        await protocol.send(Updated(idle=True))
        return True


def _head(status: int, headers: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    """The head of an answer with a body of this length, as h11 writes it; empty where h11 is to judge."""
    lines, lengths = [b"HTTP/1.1 %d \r\n" % status], 0
    for name, value in headers:
        lowered = name.lower()
        if lowered in _MEANING:
            return b""
        if lowered == b"content-length":
            if value != b"%d" % length:
                return b""
            lengths += 1
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    head = b"".join(lines)
    breaks = head.count(b"\r\n")  # more of them than lines are in a value
    return head if lengths == 1 and breaks == len(lines) and _SENT.fullmatch(head) else b""
