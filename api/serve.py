"""The API on a socket: Hypercorn, with limits on what a client may cost.

    a client that                    is stopped by
    sends its headers slowly         `idle_s`, for all of them together
    sends its body slowly            the readers of bodies (api.body_timeout)
    does not read its answer         the kernel, `stall_s` after it last took something (`sockets`)
    opens many connections           `connections`, or half of the open files that the host permits
    sends long headers, or opens     the limits of h11 and h2
    many streams

Hypercorn's `read_timeout` stays off: it would cut off a caller who waits for a build.

Hypercorn is pinned to one version in pyproject.toml, because `Connection` overrides methods that are not
meant for it, and `_worker` puts it in place; tests/api/test_hypercorn.py names every private part that is
used here.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from types import FunctionType
from typing import Any

import hypercorn.asyncio.run
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.utils import wrap_app

from api import Api
from api.clients import Clients, share_of
from api.plain import Whole
from api.protocols import Limits, Protocols, short
from api.sockets import BACKLOG
from api.tls import LOOK_S, Tls, renewing
from skyisland.settings import Api as Settings

log = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 16
"""Connections that asyncio accepts in one turn of the loop. When no descriptor is left, it goes on trying as
often (before 3.12.8), and again for each of these a second later: with many it would do nothing else."""
UNSENT_BYTES = 1 << 15
"""With more than this unsent, a write goes Hypercorn's way, which waits for a client that does not read: half
of what asyncio buffers before its `drain` waits."""
CONNECTIONS = 4096
"""Most connections at one time, of some 15 KB each while idle; one more gets a 503 and is closed."""
GRACE_S = 10.0
"""How long requests under way have to be answered at shutdown, if nobody says."""
CUT_S = 1.0
"""How long requests that are cut at shutdown have to answer that they were."""
HANDSHAKE_S = 5.0
"""How long a client may take for TLS; until it has, its connection is not counted."""
LINGER_LOOKS = 20
"""How often a connection that lingers is looked at, at least."""


def _quiet_about_descriptors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log one line when no descriptor is left for a client, instead of a traceback for each."""
    if "out of system resource" in context.get("message", ""):
        log.warning("no descriptor is left for a new connection; clients wait")
    else:
        loop.default_exception_handler(context)


def _config(
    socks: Sequence[socket.socket], grace_s: float, idle_s: float, tls: Tls | None, connections: int
) -> Limited:
    config = Limited()
    config.most_connections = connections
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files != resource.RLIM_INFINITY:
        config.most_connections = min(connections, open_files // 2)
    if tls is not None:
        config.tls, config.certfile, config.keyfile = tls, tls.certificate, tls.key
    config.bind = [f"fd://{sock.detach()}" for sock in socks]
    config.backlog = ACCEPTED_AT_ONCE
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = idle_s
    config.keep_alive_max_requests = sys.maxsize  # an old connection costs no more than a new one
    config.graceful_timeout = grace_s
    config.h11_max_incomplete_size = 16 << 10  # a request's headers; a token is shorter by far
    config.h2_max_concurrent_streams = 32  # of each connection; Hypercorn's 100 are for pages of many files
    config.h2_max_header_list_size = 16 << 10  # as much as by HTTP/1.1
    config.ssl_handshake_timeout = min(idle_s, HANDSHAKE_S)
    config.websocket_max_message_size = 4 << 10  # nothing here speaks WebSocket
    return config


class Limited(Limits):
    """Hypercorn's configuration, with a count of connections and their limits. The headers that every answer
    has are made once a second, when their date changes."""

    connections = 0
    most_connections = CONNECTIONS
    clients: Clients
    tls: Tls | None = None
    context: ssl.SSLContext | None = None
    closing = False
    """Each answer is the last of its connection."""
    drains: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the island takes no new calls: then, too, each answer is the last, so that clients turn to
    another one, or come back when this one has."""
    linger_s = 0.0
    """How long an idle connection stays open when the server ends."""
    per_client = 0
    """The most connections of one client; 0 for no limit. Trusted proxies have none."""
    _dated: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def __init__(self) -> None:
        self.connections_of: Counter[str] = Counter()
        super().__init__()

    def create_ssl_context(self) -> ssl.SSLContext | None:
        self.context = super().create_ssl_context()
        return self.context

    def allow_each(self, connections: int) -> None:
        """Allow each client so many, and a quarter of all at most."""
        self.per_client = min(connections, max(1, self.most_connections // 4))

    def reload(self, settings: Settings) -> None:
        """Take in new settings; who connects from now on sees a renewed certificate."""
        self.allow_each(settings.connections_per_client)
        if self.context is not None and settings.tls_cert:
            self.tls = Tls(settings.tls_cert, settings.tls_key)
            self.show(self.tls)

    def show(self, tls: Tls) -> None:
        """Show this certificate to whoever connects from now on."""
        if self.context is not None:
            tls.load_into(self.context)

    def refuses(self, client: str) -> bytes:
        """The answer to one connection more, if there are too many; else nothing."""
        if self.connections >= self.most_connections:
            return _FULL
        if self.per_client and self.connections_of[client] >= self.per_client:
            return _YOURS
        return b""

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if self._dated[0] != second:
            self._dated = second, super().response_headers(protocol)
        if protocol == "h11" and (self.closing or self.drains()):
            return [*self._dated[1], (b"connection", b"close")]
        return self._dated[1]


def _refusal(status: bytes, text: bytes) -> bytes:
    body = b'{"error":"%b","code":"too_busy"}' % text
    return (
        b"HTTP/1.1 %b\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (status, len(body), body)
    )


_FULL = _refusal(b"503 Service Unavailable", b"too many connections; try again later")
_YOURS = _refusal(
    b"429 Too Many Requests",
    b"too many connections from your address; use those you have (api.connections_per_client)",
)


class Connection(TCPServer):
    """Hypercorn's connection, changed in five ways.

    - There are at most `Limited.most_connections`, and of one client `Limited.per_client`.
    - It speaks `Protocols`. An error is one short line of the log, not a traceback with the client's input;
      input that waits when it ends is dropped.
    - What is sent to a client that reads takes no lock, and the head of an answer leaves in one write with
      what follows it in the same turn of the loop: one packet and one system call for each answer.
    - One task watches for idleness as long as the connection lives; Hypercorn makes and cancels two for each
      request.
    - It is closed as soon as its client has closed it. Hypercorn waits out `idle_s`, and a client that opens
      a connection for each of a hundred calls a second would use up all descriptors.
    """

    _idle_since: float | None = None
    """The loop's time since which no whole request is under way; None while one is."""
    _head = b""
    """The head of an answer, kept back until the next write or the end of this turn of the loop."""

    async def run(self) -> None:
        config = self.config
        assert isinstance(config, Limited)  # noqa: S101 - `serve` made it
        peer = self.writer.get_extra_info("peername")
        address = peer[0] if peer else ""
        client = "" if config.clients.trusts(address) else share_of(address)
        if refusal := config.refuses(client):
            self.writer.write(refusal)
            self.writer.close()
            return
        config.connections += 1
        if client:
            config.connections_of[client] += 1
        try:
            self._idle_since = self.loop.time()
            await _run(self)
        except Exception as error:
            log.warning("a connection from %s failed: %s", address, short(error))
        finally:
            config.connections -= 1
            if client:
                config.connections_of[client] -= 1
                if not config.connections_of[client]:
                    del config.connections_of[client]

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._idle_since = self.loop.time() if event.idle else None
        elif not isinstance(event, RawData) or self._backed_up:
            self._send_head()
            await super().protocol_send(event)
        elif isinstance(event, Whole):
            self.writer.write(self._head + event.data)
            self._head = b""
        elif event.data.startswith(b"HTTP/1.") and not self._head:
            self._head = event.data
            self.loop.call_soon(self._send_head)
        elif event.data:  # the end of an answer is often without bytes
            self.writer.write(self._head + event.data)
            self._head = b""

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.writer.transport.is_closing():
            self.writer.write(head)

    @property
    def _backed_up(self) -> bool:
        """Whether a write must go Hypercorn's way: it waits for the client, for another write, or fails."""
        transport = self.writer.transport
        waiting = transport.get_write_buffer_size() > UNSENT_BYTES
        return waiting or transport.is_closing() or self.send_lock.locked()

    async def _idle_timeout(self) -> None:
        left_s = idle_s = self.config.keep_alive_timeout
        while left_s > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self.context.terminated.wait()
                break
            except TimeoutError:
                since = self._idle_since
                left_s = idle_s if since is None else since + idle_s - self.loop.time()
        await self._linger()
        if self._idle_since is not None:  # else the answer under way is the last, and closes it
            await asyncio.shield(self._initiate_server_close())

    async def _linger(self) -> None:
        """Wait for a request that its client may just have sent, when the server ends.

        For some turns of the loop, too: one that is late has not yet read what is there.
        """
        assert isinstance(self.config, Limited)  # noqa: S101 - `serve` made it
        if not self.config.linger_s or not self.context.terminated.is_set():
            return
        until, looks = self.loop.time() + self.config.linger_s, 0
        while self._idle_since is not None and (looks < LINGER_LOOKS or self.loop.time() < until):
            await asyncio.sleep(self.config.linger_s / LINGER_LOOKS)
            looks += 1

    async def _read_data(self) -> None:
        while not self.reader.at_eof() and not self.writer.transport.is_closing():
            try:
                data = await self.reader.read(MAX_RECV)
            except OSError:  # ConnectionError, TimeoutError and SSLError are such
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())
        await self.idle_task.stop()


_run = FunctionType(TCPServer.run.__code__, {**TCPServer.run.__globals__, "ProtocolWrapper": Protocols})
"""`TCPServer.run`, which finds the class of protocols by its name; see `_worker`."""


def _worker() -> Callable[..., Awaitable[None]]:
    """Hypercorn's `worker_serve`, which makes a `Connection` of each client.

    Hypercorn has no setting for that: the function finds the class by the name `TCPServer` in its module.
    This is the same function with names of its own, so the module stays what it is for everybody else.
    """
    original = hypercorn.asyncio.run.worker_serve
    worker = FunctionType(original.__code__, {**original.__globals__, "TCPServer": Connection})
    worker.__kwdefaults__ = original.__kwdefaults__
    return worker


async def serve(
    app: Api,
    sock: socket.socket | Sequence[socket.socket],
    shutdown_trigger: Callable[[], Awaitable[object]],
    *,
    grace_s: float = GRACE_S,
    idle_s: float = 15.0,
    tls: Tls | None = None,
    connections: int = CONNECTIONS,
    per_client: int = 0,
    http2: bool = False,
    look_s: float = LOOK_S,
    linger_s: float = 0.0,
) -> None:
    """Serve `app` on `sock` (see `listen`), or on some, until `shutdown_trigger` returns, and close them.

    `tls`: speak TLS and nothing else; `look_s`: how often to look for renewed files. `http2`: speak it to
    those who begin with it. `idle_s`: how long a connection may have no whole request. `connections`: as many
    at one time, or half of the open files that the host permits. `per_client`: as many of them for one
    client, or a quarter of all if that is less; 0 for no limit. At the end nobody new is let in, event
    streams end at once, requests under way have `grace_s` to be answered, and a connection that is open has
    `linger_s` to begin another.
    """
    stopping = asyncio.Event()
    socks = [sock] if isinstance(sock, socket.socket) else sock
    listening = [one.dup() for one in socks]

    async def trigger() -> None:
        for one in listening:
            with one:
                one.listen(BACKLOG)  # the server has just made it `ACCEPTED_AT_ONCE`
        await shutdown_trigger()
        config.linger_s = linger_s
        config.closing = True
        app.feed.close()
        stopping.set()

    asyncio.get_running_loop().set_exception_handler(_quiet_about_descriptors)
    config = _config(socks, grace_s + CUT_S, idle_s, tls, connections)
    config.http2 = http2
    config.alpn_protocols = ["h2", "http/1.1"] if http2 else ["http/1.1"]
    config.clients, config.drains = app.clients, app.drains
    config.allow_each(per_client)
    app.serving = config.reload
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    server = asyncio.ensure_future(_worker()(wrapped, config, shutdown_trigger=trigger))
    ended = asyncio.create_task(stopping.wait())
    renewal = (
        asyncio.create_task(renewing(lambda: config.tls or tls, config.show, look_s=look_s)) if tls else None
    )
    try:
        await asyncio.wait({server, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({server}, timeout=grace_s)
        if not server.done():
            log.warning("%d requests did not end within %g s and are cut", app.front.cut(), grace_s)
            # Hypercorn limits how long it waits for answers, but not how long for connections to close.
            await asyncio.wait({server}, timeout=2 * CUT_S)
    finally:
        ended.cancel()
        if renewal is not None:
            renewal.cancel()
        app.feed.close()
        if not server.done():
            server.cancel()
            await asyncio.wait({server})
    if not server.cancelled():
        server.result()
