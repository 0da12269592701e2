"""The load generator: plain sockets in this process, the same for every HTTP server.

It takes about 30 µs of CPU per call, the same for both servers. A tool such as wrk takes less, but cannot
pause between calls and does not report the time of each. Every answer is checked; wrong ones are kept in
`Http.wrong`, and their times count.

Times are in milliseconds, from just before the request is sent until the whole answer has arrived. The loop
is closed: a client sends its next call after the answer to the last. Paced clients do so too: a call that
is due while the last one runs is sent after it.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

now = time.perf_counter


class WrongAnswer(Exception):
    """A peer or the island did not answer as it should."""


class Connection:
    """A keep-alive connection of HTTP/1.1 with at most one call under way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent_at = 0.0
        self._answer = bytearray()
        self._open()

    def _open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self._answer.clear()
        self.sent_at = now()
        self.socket.sendall(request)

    def receive(self) -> bytes | None:
        """Read what has arrived; return the whole answer, or None while a part is missing."""
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise WrongAnswer(f"port {self.port} closed the connection after {bytes(self._answer)!r}")
        self._answer += chunk
        head = self._answer.find(b"\r\n\r\n")
        if head < 0:
            return None
        headers = bytes(self._answer[:head]).lower()
        _, mark, rest = headers.partition(b"\r\ncontent-length:")
        length = int(rest.partition(b"\r\n")[0]) if mark else 0
        if len(self._answer) < head + 4 + length:
            return None
        return bytes(self._answer)

    def call(self, request: bytes) -> bytes:
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        return answer

    def close(self) -> None:
        self.socket.close()


def post(path: str, body: bytes) -> bytes:
    """The bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Http:
    """Calls to one HTTP server. `requests` are sent in turn, each with bytes that its answer must contain."""

    def __init__(self, port: int, requests: Sequence[tuple[bytes, bytes]]) -> None:
        self.port = port
        self.wrong: list[str] = []
        """Answers without the expected bytes."""
        self._turns: Iterator[tuple[bytes, bytes]] = cycle(requests)

    def closed(self, count: int, clients: int = 1) -> tuple[list[float], float]:
        """Make `count` calls, each client in a loop; return the milliseconds of each, the seconds of all."""
        connections = {Connection(self.port): b"" for _ in range(clients)}
        times: list[float] = []
        left = count
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            began = now()
            for connection in connections:
                request, connections[connection] = next(self._turns)
                connection.send(request)
                left -= 1
            while len(times) < count:
                for key, _ in selector.select():
                    connection = key.data
                    answer = connection.receive()
                    if answer is None:
                        continue
                    times.append((now() - connection.sent_at) * 1000)
                    self._check(answer, connections[connection])
                    if left:
                        request, connections[connection] = next(self._turns)
                        connection.send(request)
                        left -= 1
            took = now() - began
        for connection in connections:
            connection.close()
        return times, took

    def _check(self, answer: bytes, expected: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200") or expected not in answer:
            self.wrong.append(answer.decode(errors="replace"))

    def paced(self, count: int, rate: float) -> list[float]:
        """Make `count` calls on one connection, `rate` per second; return the milliseconds of each."""
        connection = Connection(self.port)

        def call() -> float:
            request, expected = next(self._turns)
            answer = connection.call(request)
            spent = (now() - connection.sent_at) * 1000
            self._check(answer, expected)
            return spent

        try:
            return paced(call, count, rate)
        finally:
            connection.close()


def paced(call: Callable[[], float], count: int, rate: float) -> list[float]:
    """Run `call` `count` times, `rate` times per second or as fast as it can; return its results."""
    times = []
    due = now()
    for _ in range(count):
        time.sleep(max(0.0, due - now()))
        due = max(due, now() - 1 / rate) + 1 / rate
        times.append(call())
    return times


def run(argv: list[str], frame: bytes, expected: bytes) -> float:
    """Run a program with `frame` as input; return the milliseconds from posix_spawn(3) to its end."""
    stdin_r, stdin_w = os.pipe2(os.O_CLOEXEC)
    stdout_r, stdout_w = os.pipe2(os.O_CLOEXEC)
    began = now()
    pid = os.posix_spawn(
        argv[0],
        argv,
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, stdin_r, 0), (os.POSIX_SPAWN_DUP2, stdout_w, 1)],
    )
    os.close(stdin_r)
    os.close(stdout_w)
    os.write(stdin_w, frame)
    os.close(stdin_w)
    output = b""
    while chunk := os.read(stdout_r, 4096):
        output += chunk
    _, status = os.waitpid(pid, 0)
    spent = (now() - began) * 1000
    os.close(stdout_r)
    if status or not output.startswith(expected):  # the harness's record follows
        raise WrongAnswer(f"{argv[0]} ended with status {status} and printed {output!r}")
    return spent


def output_of(argv: Sequence[str], **more: Any) -> str:
    """Run a program that must succeed; return its output."""
    return str(subprocess.run(argv, check=True, capture_output=True, text=True, **more).stdout)
