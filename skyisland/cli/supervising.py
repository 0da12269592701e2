"""`skyisland supervise`: keeps the socket of an island that is started anew. For systems without systemd.

    the socket is opened ─▶ skyisland serve --no-tui ─▶ it ends ─▶ the next one, on the same socket
                                 ▲     SIGHUP is passed on               SIGUSR1 has it replaced
                                 └──── SIGTERM and SIGINT are passed on, and are the end

Who connects while no island accepts waits in the kernel. So that it is not for long, the next island loads
its program and settings while the old one serves, says so by SIGUSR2, and waits for the end of the old one.
One that cannot ends, and the old one goes on.

An island that ends by itself is started again, too; one that does so at once, later and later.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from skyisland.cli import SUCCEEDS, GlobalOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

AGAIN_S = 1.0
"""How long after an island that failed at once the next one is started; twice that after the second …"""
LATEST_S = 30.0
"""… and so on, but no longer than this."""
LIVED_S = 10.0
"""Who lived so long did not fail at once."""

_EXEC = 'LISTEN_PID=$$ exec "$@"'
"""The process that is to have the sockets is named by its number, which only itself knows before it
begins."""
_FIRST = 3


class Supervisor:
    """Runs one island after another."""

    def __init__(self, command: Sequence[str], sock: socket.socket) -> None:
        self._command = command
        self._sock = sock
        self._island: subprocess.Popen[bytes] | None = None
        self._next: subprocess.Popen[bytes] | None = None
        """The one that waits for the end of `_island`."""
        self._again = False
        """Asked to renew the island while one already waits to."""
        self._ending = False
        self._fails = 0

    def run(self) -> int:
        """Until a signal ends it; the exit code is that of the last island."""
        signal.signal(signal.SIGUSR1, self._renew)
        signal.signal(signal.SIGUSR2, self._hand_over)
        signal.signal(signal.SIGHUP, self._pass_on)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._island = self._started()
        while True:
            started = time.monotonic()
            if self._ends():  # the signal came before there was whom to pass it on to
                self._island.terminate()
            code = self._island.wait()
            heir, self._next = self._next, None
            if heir is not None and heir.poll() is None:
                self._island, self._fails = heir, 0
                if self._again:
                    self._again = False
                    self._renew()
                continue
            if self._ends():
                return max(code, 0)
            click.echo(f"skyisland: the island ended with {code}; it is started again", err=True)
            self._fails = 0 if time.monotonic() - started > LIVED_S else self._fails + 1
            if self._fails:
                time.sleep(min(LATEST_S, AGAIN_S * 2 ** (self._fails - 1)))
            if self._ends():
                return 1
            self._island = self._started()

    def _ends(self) -> bool:
        """Whether a signal has come meanwhile."""
        return self._ending

    def _started(self, **environment: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "skyisland", **environment}
        os.dup2(self._sock.fileno(), _FIRST, inheritable=True)
        return subprocess.Popen(
            ["/bin/sh", "-c", _EXEC, "sh", *self._command], env=environment, pass_fds=(_FIRST,)
        )

    def _renew(self, *_: object) -> None:
        if self._next is not None and self._next.poll() is None:
            self._again = True
        elif not self._ending:
            self._next = self._started(**{SUCCEEDS: "1"})

    def _hand_over(self, *_: object) -> None:
        if self._next is not None:
            self._send(signal.SIGTERM)

    def _pass_on(self, number: int, _: object) -> None:
        self._send(number)

    def _end(self, number: int, _: object) -> None:
        self._ending = True
        self._send(number)
        if self._next is not None and self._next.poll() is None:
            self._next.send_signal(number)

    def _send(self, number: int) -> None:
        if self._island is not None and self._island.poll() is None:
            self._island.send_signal(number)


@click.command()
@click.pass_obj
def supervise(options: GlobalOptions) -> None:
    """Run the island again and again on one socket, without systemd.

    It is `serve --no-tui`. SIGUSR1 starts it anew: calls under way are answered, those who connect meanwhile
    wait, and nobody is refused. SIGHUP has it read its settings again; SIGTERM and SIGINT stop it. For
    systems without systemd, which does the same with skyisland.socket.
    """
    from api.sockets import listening

    command = [os.path.abspath(sys.argv[0]), *options.words, "serve", "--no-tui"]
    with listening(options.settings()) as (sock,):
        code = Supervisor(command, sock).run()
    sys.exit(code)


COMMANDS: tuple[click.Command, ...] = (supervise,)
