"""HTTP/1.1 and, where the settings ask for it, HTTP/2: Hypercorn's, with limits on a connection's cost.

Hypercorn takes HTTP/2 from whoever begins with it, and bounds the streams that are open, not those that are
reset: to open and reset 37,000 of them took one client five seconds and the daemon minutes. So HTTP/2 is off
unless `api.http2` asks for it, and then each connection has a budget (`Noise`) of frames that ask for work
and take it back, or for none. A connection that uses it up is told so by GOAWAY and closed. Priorities are
ignored (RFC 9113, section 5.3: deprecated), and so is the upgrade from HTTP/1.1 (section 3.1).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable

import h2.errors
import h2.events
import h2.exceptions
import h11
import hpack
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2ProtocolAssumedError

from api.plain import PlainFirst

log = logging.getLogger(__name__)

SLICE_BYTES = 4096
"""So much input is handled before the budget is looked at again: some 300 of the shortest frames."""
NOISE = 1000
"""A connection's budget: a hundred requests taken back at once …"""
NOISE_PER_S = 100
"""… and ten a second from then on. Who reads 1 MB/s sends some 60 window updates a second."""
RESET_COST = 10
"""A reset has undone a request. Other frames cost one: little each, but nothing else bounds their number."""
LONG_DATA = 1024
"""A DATA frame of so many bytes or more is free: `max_body` bounds them."""
_PREFACE_BYTES = 24  # RFC 9113, section 3.4
_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = 0, 1, 3, 9


class Limits(Config):
    """Hypercorn's configuration, and what it has no name for."""

    http2 = False
    noise = NOISE


class TooNoisy(Exception):
    """A connection has used its budget up."""


class NotSpoken(Exception):
    """The client begins with HTTP/2, which is off."""


class Noise:
    """What a connection may still send of frames that cost the island and mean nothing to the client.

    It reads the heads of frames alone, before anything is made of them.
    """

    def __init__(self, budget: int = NOISE) -> None:
        self._budget = self._left = float(budget)
        self._at = time.monotonic()
        self._skip = _PREFACE_BYTES
        self._head = b""
        """The beginning of a frame's head that came in two pieces."""

    def hear(self, data: bytes) -> None:
        """Take off what the frames that begin in `data`, the next piece of input, cost.

        Raises:
            TooNoisy
        """
        data, cost = self._head + data, 0
        place, end = self._skip, len(data) - 8
        while place < end:
            length, kind = int.from_bytes(data[place : place + 3], "big"), data[place + 3]
            if kind == _RST_STREAM:
                cost += RESET_COST
            elif kind not in (_HEADERS, _CONTINUATION) and not (kind == _DATA and length >= LONG_DATA):
                cost += 1
            place += 9 + length
        self._head = data[place:]
        self._skip = max(0, place - len(data))
        now = time.monotonic()
        self._left = min(self._budget, self._left + (now - self._at) * NOISE_PER_S) - cost
        self._at = now
        if self._left < 0:
            raise TooNoisy


class Http1(PlainFirst):
    """HTTP/1.1, which no request turns into HTTP/2 where that is off, and no `Upgrade` ever does."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            assert isinstance(self.config, Limits)  # noqa: S101 - `serve` made it
            if not self.config.http2:
                raise NotSpoken
            await super()._check_protocol(event)  # raises H2ProtocolAssumedError

    async def _create_stream(self, request: h11.Request) -> None:
        """Who wants another protocol is answered by this one (RFC 9110, section 7.8). Hypercorn would speak
        WebSocket, which the application does not."""
        if any(name == b"upgrade" for name, _ in request.headers):
            request = h11.Request(
                method=request.method,
                target=request.target,
                headers=[(name, value) for name, value in request.headers if name != b"upgrade"],
                http_version=request.http_version,
            )
        await super()._create_stream(request)


class _Heads(hpack.Decoder):
    """Adds an empty Host to the headers of a request that names none. h2 would end the whole connection for
    it; here it is answered, as one by HTTP/1.0 is."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:
        headers = list(super().decode(data, raw))
        names = {header[0] for header in headers}
        if b":method" in names and not names & {b":authority", b"host"}:
            headers.append(hpack.HeaderTuple(b"host", b""))
        return headers


class Http2(H2Protocol):
    """HTTP/2 within a budget."""

    noise: Noise

    def __init__(self, *about: object) -> None:
        super().__init__(*about)  # type: ignore[arg-type] # passed on as Hypercorn gave them
        self.connection.decoder.__class__ = _Heads

    async def handle(self, event: Event) -> None:
        if self.closed:
            return  # what is read after the end is dropped
        if not isinstance(event, RawData):
            await super().handle(event)
            return
        for start in range(0, len(event.data), SLICE_BYTES):
            if not self.closed:
                piece = event.data[start : start + SLICE_BYTES]
                self.noise.hear(piece)
                await super().handle(RawData(piece))

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        """Hypercorn fails on the rest of a body whose request is answered already.

        Which is known of each event only when those before it are handled: a request, its body and its end
        may come at once.
        """
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.RequestReceived) and (b":method", b"CONNECT") in event.headers:
                self._refuse_tunnel(event.stream_id)
            else:
                await super()._handle_events([event])
        await self._flush()

    def _refuse_tunnel(self, stream: int) -> None:
        """Answer CONNECT. It has no path (RFC 9113, section 8.5), at which Hypercorn fails, and one that has
        is a WebSocket to it."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            head = [(b":status", b"501"), (b"content-length", b"0"), *self.config.response_headers("h2")]
            self.connection.send_headers(stream, head, end_stream=True)

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        """Nothing: all streams are equal."""

    async def go_away(self) -> None:
        """Tell the client that it is too loud, and close."""
        self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        await self._flush()
        await super().handle(Closed())
        await self.send(Closed())


class Protocols(ProtocolWrapper):
    """Chooses the protocol of a connection, and ends one that misbehaves with one short line in the log."""

    def __init__(self, *about: object, **more: object) -> None:
        super().__init__(*about, **more)  # type: ignore[arg-type] # passed on as Hypercorn gave them
        self._become(Http2 if isinstance(self.protocol, H2Protocol) else Http1)

    def _become(self, protocol: type[Http1 | Http2]) -> None:
        self.protocol = protocol(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.state,
            self.ssl,
            self.client,
            self.server,
            self.send,
        )
        if isinstance(self.protocol, Http2):
            self.protocol.noise = Noise(getattr(self.config, "noise", NOISE))

    async def handle(self, event: Event) -> None:
        try:
            try:
                await self.protocol.handle(event)
            except H2ProtocolAssumedError as error:
                self._become(Http2)
                await self.protocol.initiate()
                await self.protocol.handle(RawData(data=error.data))
        except NotSpoken:
            assert isinstance(self.protocol, Http1)  # noqa: S101 - it raised
            await self.protocol._send_error_response(505)
            await self.send(Closed())
        except TooNoisy:
            assert isinstance(self.protocol, Http2)  # noqa: S101 - it raised
            log.warning("HTTP/2 from %s: too many resets and empty frames; closed", self._peer)
            await self.protocol.go_away()

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else "somebody"


def short(error: BaseException) -> str:
    """An error in a few words: its text may be what a client sent, of any length."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error)[:80]}"
