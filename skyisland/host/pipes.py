"""The pipes of a process, and files in memory that it inherits.

Of an output the first bytes are kept, up to a limit: a program that writes without end costs the island no
more than that.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

LINUX = sys.platform.startswith("linux")
CHUNK = 1 << 16
"""Bytes read at a time: what a pipe holds (pipe(7))."""


def memory_file(data: bytes) -> int:
    """A descriptor from which a program that inherits it can read `data` once (Linux: memfd_create(2))."""
    fd = os.memfd_create("sky", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def readable(fd: int) -> None:
    """Wait until there is something to read; a pidfd is readable when its process has ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


class News:
    """Calls one listener, once, when a process has ended or has written more than it may."""

    def __init__(self) -> None:
        self._announced = False
        self._listener: Callable[[], None] | None = None

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call this one from now on, in place of the one before; at once if it was announced. None:
        nobody."""
        self._listener = listener
        if self._announced and listener is not None:
            listener()

    def announce(self) -> None:
        if not self._announced:
            self._announced = True
            if self._listener is not None:
                self._listener()


class Capture:
    """The first `limit` bytes of a stream. When there are more, it has `overflowed`, and announces it."""

    def __init__(self, fd: int, limit: int, news: News) -> None:
        self.limit = limit
        self.data = bytearray()
        self.overflowed = False
        self.heard: Callable[[bytes], None] | None = None
        """Called with each piece as it comes, if set."""
        self._news = news
        self._fd: int | None = fd
        self._listening = False
        os.set_blocking(fd, False)

    def listen(self) -> None:
        """Read from now on, as output comes. Before, it waits in the pipe, which holds 64 KiB."""
        if self._fd is not None and not self._listening:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        assert self._fd is not None  # noqa: S101 - `close` removes the reader with the descriptor
        try:
            chunk = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            return
        room = self.limit - len(self.data)
        self.data += chunk[:room]
        if self.heard is not None:
            self.heard(chunk[:room])
        if len(chunk) > room:
            self.overflowed = True
            self._news.announce()
            # Nothing more is read: the pipe fills up, and the program waits there until it is killed.
            self.close()

    def take(self) -> None:
        """Read what is in the pipe now."""
        while self._fd is not None:
            before = len(self.data)
            self._read()
            if len(self.data) == before:
                break

    def drain(self) -> None:
        """Read what is in the pipe now, and close it."""
        self.take()
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            if self._listening:
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None


class Pipes:
    """The three pipes of a process that is to be started; `theirs` are its ends, in order."""

    def __init__(self) -> None:
        self._open: list[int] = []
        try:
            for _ in range(3):
                self._open.extend(os.pipe())
            for fd in self._open[::2] if LINUX else ():
                # The process may be another user, who opens its own by /dev/stdin; nobody else finds a pipe.
                # FreeBSD's /dev/fd duplicates descriptors, and its pipes have no mode (fchmod(2): EINVAL).
                os.fchmod(fd, 0o666)
        except OSError:
            self.close()
            raise
        stdin_r, self.stdin, self.stdout, out_w, self.stderr, err_w = self._open
        self.theirs = (stdin_r, out_w, err_w)

    def hand_over(self) -> None:
        """Close the ends of the process, which has them now."""
        for fd in self.theirs:
            os.close(fd)

    def close(self) -> None:
        """Close all six ends: there will be no process."""
        for fd in self._open:
            os.close(fd)


class Piped:
    """Our side of a process's pipes: what goes in, and what came out."""

    def __init__(self, pipes: Pipes, stdout_bytes: int, stderr_bytes: int) -> None:
        pipes.hand_over()
        self._stdin: int | None = pipes.stdin
        os.set_blocking(pipes.stdin, False)
        self.news = News()
        self.stdout = Capture(pipes.stdout, stdout_bytes, self.news)
        self.stderr = Capture(pipes.stderr, stderr_bytes, self.news)

    def offer(self, data: bytes | memoryview) -> memoryview:
        """Write what fits to its standard input, without waiting; returns the rest. When nothing is left, or
        the process has closed its end, standard input is closed."""
        view = memoryview(data)
        try:
            while view and self._stdin is not None:
                view = view[os.write(self._stdin, view) :]
        except BlockingIOError:
            return view
        except BrokenPipeError:
            pass
        self.close_stdin()
        return memoryview(b"")

    async def feed(self, data: bytes | memoryview) -> None:
        """Write all of `data` to its standard input and close it."""
        try:
            while view := self.offer(data):
                data = view
                if self._stdin is not None:
                    await self._writable(self._stdin)
        finally:
            self.close_stdin()

    async def _writable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(fd)

    def close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def listen(self) -> None:
        """Read its outputs as they come from now on; may be repeated."""
        self.stdout.listen()
        self.stderr.listen()

    def collect(self) -> None:
        """Read what the process, which has ended, left in its pipes, and close them."""
        self.close_stdin()
        self.stdout.drain()
        self.stderr.drain()
