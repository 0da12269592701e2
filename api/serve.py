"""The API on a socket, by Hypercorn with limits.

    who                          is stopped by
    slow with its headers        `idle_s`, for all of them together
    slow with its body           the readers of bodies, 10 s for the whole
    not reading its answer       the kernel (TCP_USER_TIMEOUT), 30 s after it last took something
    many connections             `CONNECTIONS`, or half of the open files that the host permits
    long headers, many streams   the limits of h11 and h2

Hypercorn's `read_timeout` stays off: it would cut the connection of a caller who waits for a build. A
connection that its client has closed is closed here at once, too (`Connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import resource
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.asyncio
import hypercorn.asyncio.run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.events import Event, RawData, Updated
from msgspec import Struct

from api import Api
from skyisland.errors import SettingsError

log = logging.getLogger(__name__)

WAITING = 1024
"""Connections that may wait to be accepted."""
ACCEPTED_AT_ONCE = 16
"""asyncio (before 3.12.8) goes on trying so many times in a row when it has no descriptor left, and again
for each of these a second later: with many, the loop would do nothing else."""
DIRECT_BYTES = 1 << 15
"""So much may wait to be sent before whoever sends more waits, too."""
CONNECTIONS = 4096
"""So many at one time; one more is told to come back and closed."""
STALL_S = 30
"""A client that takes nothing of what is sent to it is cut off after so long."""
CUT_S = 1.0
"""What is cut at shutdown has so long to say so."""
_FREEBSD_TCP_MAXUNACKTIME = 68  # netinet/tcp.h, in seconds; Python has no name for it


class Tls(Struct, frozen=True):
    """Files in PEM, of the server's certificate with its chain, and of its key."""

    certificate: str
    key: str

    def check(self) -> None:
        """Try them; blocks.

        Raises:
            SettingsError: they cannot be read, or do not belong together.
        """
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key)
        except OSError as error:  # SSLError is one
            raise SettingsError(
                f"api.tls_cert, api.tls_key: cannot use {self.certificate} with {self.key}: {error}; name "
                "the PEM files of a certificate and of its key, without a password"
            ) from None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, whose `getsockname` tells the port where 0 was asked for. Blocks on names.

    Raises:
        SettingsError: nobody can listen there; the text says why.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sock = socket.create_server(address[:2], family=family, backlog=WAITING)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        remedy = {
            errno.EADDRINUSE: "is another island running? Stop it, or choose another http_port",
            errno.EACCES: "choose an http_port above 1023",
            errno.EADDRNOTAVAIL: "listen must be an address of this host",
        }.get(number or 0, "correct listen or http_port")
        raise SettingsError(f"cannot listen on {host} port {port}: {error}; {remedy}") from None
    _cut_the_stalled(sock)
    return sock


def _quiet_about_descriptors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """One line where the host has no descriptor left for a client, instead of a traceback for each."""
    if "out of system resource" in context.get("message", ""):
        log.warning("no descriptor is left for a new connection; clients wait")
    else:
        loop.default_exception_handler(context)


def _cut_the_stalled(sock: socket.socket) -> None:
    """Have the kernel give up on clients that do not read; accepted connections inherit it."""
    with contextlib.suppress(OSError):
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))
        elif sys.platform.startswith("freebsd"):
            sock.setsockopt(socket.IPPROTO_TCP, _FREEBSD_TCP_MAXUNACKTIME, math.ceil(STALL_S))


def _config(sock: socket.socket, grace_s: float, idle_s: float, tls: Tls | None) -> Config:
    config = Limited()
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files != resource.RLIM_INFINITY:
        config.most_connections = min(CONNECTIONS, open_files // 2)
    if tls is not None:
        config.certfile, config.keyfile = tls.certificate, tls.key
    config.bind = [f"fd://{sock.detach()}"]
    config.backlog = ACCEPTED_AT_ONCE
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = idle_s
    config.keep_alive_max_requests = 100_000
    config.graceful_timeout = grace_s
    config.h11_max_incomplete_size = 16 << 10
    config.h2_max_concurrent_streams = 32
    config.h2_max_header_list_size = 16 << 10
    config.websocket_max_message_size = 4 << 10
    return config


class Limited(Config):
    """With a limit on the connections of a server, and their number; tells the time once a second."""

    connections = 0
    most_connections = CONNECTIONS
    _told: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if self._told[0] != second:
            self._told = second, super().response_headers(protocol)
        return self._told[1]


_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 67\r\n\r\n"
    b'{"error":"too many connections; try again later","code":"too_busy"}'
)


class Connection(TCPServer):
    """Hypercorn's, with some changes.

    There are no more than the configuration permits. What a client that reads is sent goes out without a
    lock, and an answer's head together with what follows it in the same turn of the event loop.

    One task looks after idleness for as long as the connection lives, where Hypercorn makes two for each
    request and cancels them. And when the client has closed it, it is closed here at once: Hypercorn waits
    out `idle_s`, and a client with a new connection for each of a hundred calls a second would use up all
    descriptors.
    """

    _idle_since: float | None = None
    """Since when it is without a whole request; None while there is one."""
    _head = b""
    """The beginning of an answer that is not sent yet."""

    async def run(self) -> None:
        assert isinstance(self.config, Limited)  # noqa: S101 - `serve` made it
        if self.config.connections >= self.config.most_connections:
            self.writer.write(_FULL)
            self.writer.close()
            return
        self.config.connections += 1
        try:
            self._idle_since = self.loop.time()
            await super().run()
        finally:
            self.config.connections -= 1

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._idle_since = self.loop.time() if event.idle else None
        elif not isinstance(event, RawData) or self._backed_up:
            self._send_head()
            await super().protocol_send(event)
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
        """Whether what is sent has to wait for its turn, for the client or for an end."""
        transport = self.writer.transport
        waiting = transport.get_write_buffer_size() > DIRECT_BYTES
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
        if self._idle_since is not None:  # else the answer under way is the last, and closes it
            await asyncio.shield(self._initiate_server_close())

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


# Hypercorn has no setting for the class of its connections.
hypercorn.asyncio.run.TCPServer = Connection  # type: ignore[attr-defined]


async def serve(
    app: Api,
    sock: socket.socket,
    shutdown_trigger: Callable[[], Awaitable[object]],
    *,
    grace_s: float = 10.0,
    idle_s: float = 15.0,
    tls: Tls | None = None,
) -> None:
    """Serve `app` on `sock` (see `listen`) until `shutdown_trigger` returns; the socket is ours to close.

    With `tls`, by TLS alone. At the end nobody new is let in, event streams end at once, and answers under
    way have `grace_s`. A connection may be without a request, or with the beginnings of one, for `idle_s`.
    """
    stopping = asyncio.Event()

    listening = sock.dup()

    async def trigger() -> None:
        with listening:
            listening.listen(WAITING)  # the server has just made it `ACCEPTED_AT_ONCE`
        await shutdown_trigger()
        app.feed.close()
        stopping.set()

    asyncio.get_running_loop().set_exception_handler(_quiet_about_descriptors)
    config = _config(sock, grace_s + CUT_S, idle_s, tls)
    server = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=trigger))
    ended = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({server, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({server}, timeout=grace_s)
        if not server.done():
            log.warning("%d requests did not end within %g s and are cut", app.front.cut(), grace_s)
            # Hypercorn has a limit to its waiting for answers, but not to that for connections to close.
            await asyncio.wait({server}, timeout=2 * CUT_S)
    finally:
        ended.cancel()
        app.feed.close()
        if not server.done():
            server.cancel()
            await asyncio.wait({server})
    if not server.cancelled():
        server.result()
