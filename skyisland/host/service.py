"""What a service manager gives a daemon, and what the daemon tells it: the protocols of systemd, which
others speak as well.

Sockets come open as descriptors from 3 on (sd_listen_fds(3)). The manager keeps them while the daemon is
started anew, and who connects meanwhile waits in the kernel. News go as datagrams to a socket
(sd_notify(3)): ready, stopping, a line of status, and a sign of life as often as the watchdog wants one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

FIRST = 3
"""The number of the first descriptor that is passed on."""
TELL_S = 10.0
"""How often the status is told. A judgement: an operator reads it."""


def passed_on(environ: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that this process was started with; none if they were meant for another."""
    if environ.get("LISTEN_PID") != str(os.getpid()) or not environ.get("LISTEN_FDS", "").isdigit():
        return []
    numbers = range(FIRST, FIRST + int(environ["LISTEN_FDS"]))
    for number in numbers:
        os.set_inheritable(number, False)
    return [socket.socket(fileno=number) for number in numbers]


class Manager:
    """Who started this process, if it wants to hear of it; else nobody, and nothing is told."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_us = environ.get("WATCHDOG_USEC", "") if mine else ""
        watchdog_s = int(watchdog_us) / 1e6 if watchdog_us.isdigit() else 0.0
        self.tell_s = min(TELL_S, watchdog_s / 2) if watchdog_s else TELL_S
        """How often `keep_told` tells something: twice in the time of the watchdog."""

    def tell(self, **news: object) -> None:
        """Tell something: `ready=1`, `status="…"`. A manager that does not listen is no fault of ours."""
        if not self._address:
            return
        lines = (f"{name.upper()}={str(value).replace(chr(10), ' ')}" for name, value in news.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)

    async def keep_told(self, status: Callable[[], str]) -> None:
        """Tell the status, and that the event loop turns, until this is cancelled."""
        while self._address:
            self.tell(watchdog=1, status=status())
            await asyncio.sleep(self.tell_s)
