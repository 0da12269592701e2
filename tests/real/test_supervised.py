"""An island that is started anew on a socket that another keeps, and one on a Unix socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
from collections import Counter
from pathlib import Path

from tests.support.daemon import Daemon

RESTARTS = int(os.environ.get("SKYISLAND_TEST_RESTARTS", "1"))
RATE = 50.0
"""Calls a second, from connections that are kept and from new ones in turns."""
BODY = json.dumps({"url": "github.com/a/b", "call": "F(1)"}).encode()


class Caller:
    """Calls an island at its Unix socket, again and again, each call from a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: Counter[str] = Counter()
        self._answered = threading.Condition()
        self._over = threading.Event()
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._call_on)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for sock in self._kept:
            sock.close()

    def _call_on(self) -> None:
        calls: list[threading.Thread] = []
        while not self._over.wait(1 / RATE):
            calls.append(threading.Thread(target=self._call, args=(len(calls) % 2 == 0,)))
            calls[-1].start()
        for call in calls:
            call.join()

    def wait_for(self, more: int) -> None:
        """Wait for so many answers from now on."""
        with self._answered:
            enough = self.answers.total() + more
            assert self._answered.wait_for(lambda: self.answers.total() >= enough, 60)

    def _call(self, keep: bool) -> None:
        try:
            answer = self._answer(keep)
        except OSError as error:
            answer = repr(error)
        with self._answered:
            self.answers[answer] += 1
            self._answered.notify()

    def _answer(self, keep: bool) -> str:
        """The status of one call. A connection that was closed before it was used again is no refusal."""
        close = b"" if keep else b"Connection: close\r\n"
        head = b"POST /api/v1/function HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n"
        while True:
            reused = keep and bool(self._kept)
            sock = self._kept.pop() if reused else socket.socket(socket.AF_UNIX)
            try:
                if not reused:
                    sock.settimeout(60)
                    sock.connect(str(self.path))
                sock.sendall(head % (close, len(BODY)) + BODY)
                answer = sock.recv(1 << 16)
            except ConnectionError:
                answer = b""
                if not reused:
                    raise
            if answer or not reused:
                break
            sock.close()
        if keep and b"connection: close" not in answer.lower():
            self._kept.append(sock)
        else:
            sock.close()
        return answer[:12].decode() or "closed"


def test_nobody_is_refused_while_an_island_is_started_anew(host_dir: Path) -> None:
    path, notify = host_dir / "api.sock", str(host_dir / "notify")
    island = Daemon(
        host_dir,
        {},
        arguments=("supervise",),
        environment={"NOTIFY_SOCKET": notify},
        listen=f"unix:{path}",
        socket_mode="0600",
        jails={"driver": "fake"},
        filesystem={"storage": "fake"},
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(notify)
        told.settimeout(60)
        with island:
            assert told.recv(100) == b"READY=1"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with Caller(path) as caller:
                for count in range(1, RESTARTS + 1):
                    caller.wait_for(20)
                    island.signal(signal.SIGUSR1)
                    island.wait_for(event="IslandStarted", times=count + 1)
                caller.wait_for(20)
            assert set(caller.answers) == {"HTTP/1.1 200"}, caller.answers
            # A command goes the same way.
            assert json.loads(island.command("status", "--json").stdout)["driver"] == "fake"
            assert island.stop() == 0
        assert not path.exists()
