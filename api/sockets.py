"""The sockets that the API listens on: an address and a port, a Unix socket, or what the service manager
passed on."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from skyisland.errors import SettingsError
from skyisland.settings import Settings

BACKLOG = 1024
"""Connections that wait in the kernel to be accepted. Linux takes no more than net.core.somaxconn, 4096;
FreeBSD half as many again as kern.ipc.soacceptqueue, 128, and it resets the others."""
STALL_S = 30
"""How long a client may take nothing of what is sent to it."""
_FREEBSD_TCP_MAXUNACKTIME = 68  # netinet/tcp.h, in seconds; Python has no name for it


@contextmanager
def listening(settings: Settings, passed_on: Sequence[socket.socket] = ()) -> Iterator[list[socket.socket]]:
    """The listening sockets for the length of the block: those that were passed on, or else what the
    settings ask for. Blocks.

    Raises:
        SettingsError: there can be no such socket; the text says why, and what to do.
    """
    if passed_on:
        socks = [prepared(sock) for sock in passed_on]
    elif settings.unix_socket:
        socks = [listen_unix(settings.unix_socket, int(settings.socket_mode, 8), settings.socket_group)]
    else:
        socks = [listen(settings.listen, settings.http_port)]
    try:
        yield socks
    finally:
        for sock in socks:
            sock.close()
        if settings.unix_socket and not passed_on:
            with contextlib.suppress(OSError):
                os.unlink(settings.unix_socket)


def listen(host: str, port: int, *, stall_s: float = STALL_S) -> socket.socket:
    """A listening socket; port 0 takes a free one, which `getsockname` tells. Blocks: it resolves `host`.

    `stall_s`: how long a client may take nothing of what is sent to it.

    Raises:
        SettingsError: the address cannot be listened on; the text says why, and what to do.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sock = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        remedy = {
            errno.EADDRINUSE: "is another island running? Stop it, or choose another http_port",
            errno.EACCES: "choose an http_port above 1023",
            errno.EADDRNOTAVAIL: "listen must be an address of this host",
        }.get(number or 0, "correct listen or http_port")
        raise SettingsError(f"cannot listen on {host} port {port}: {error}; {remedy}") from None
    _cut_the_stalled(sock, stall_s)
    return sock


def listen_unix(path: str, mode: int, group: str = "") -> socket.socket:
    """A listening Unix socket of this mode and group, in the place of one that nobody listens on. Blocks.

    It gets its name when it has its mode: before that, nobody else could have connected.

    Raises:
        SettingsError: it cannot be made, or somebody listens there.
    """
    draft = f"{path}.{secrets.token_hex(4)}"
    sock = socket.socket(socket.AF_UNIX)
    try:
        if os.path.lexists(path):
            _refuse_what_is_in_use(path)
        sock.bind(draft)
        try:
            if group:
                shutil.chown(draft, group=group)
            os.chmod(draft, mode)
            sock.listen(BACKLOG)
            os.rename(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except (OSError, LookupError) as error:
        sock.close()
        why = error.strerror or error if isinstance(error, OSError) else f"there is no group {group!r}"
        remedy = f"make the folder {Path(path).parent} first, or choose another place for listen"
        raise SettingsError(f"cannot listen on unix:{path}: {why}; {remedy}") from None
    except SettingsError:
        sock.close()
        raise
    return sock


def _refuse_what_is_in_use(path: str) -> None:
    """Refuse to take the place of anything but a socket that an earlier life left."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise SettingsError(f"cannot listen on unix:{path}: there is something else; choose another place")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise SettingsError(f"cannot listen on unix:{path}: is another island running? Stop it first")


def prepared(sock: socket.socket) -> socket.socket:
    """A socket that another opened, made as ours are.

    Raises:
        SettingsError: it does not listen.
    """
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SettingsError(f"the descriptor {sock.fileno()} that was passed on listens for no connections")
    _cut_the_stalled(sock, STALL_S)
    return sock


def named(sock: socket.socket) -> str:
    """Where a socket listens: `127.0.0.1:3280`, `[::1]:3280`, `unix:/run/skyisland.sock`."""
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cut_the_stalled(sock: socket.socket, stall_s: float) -> None:
    """Make the kernel give up on clients that do not read; accepted connections inherit it (tcp(7))."""
    with contextlib.suppress(OSError):
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_s * 1000))
        elif sys.platform.startswith("freebsd"):
            sock.setsockopt(socket.IPPROTO_TCP, _FREEBSD_TCP_MAXUNACKTIME, math.ceil(stall_s))
