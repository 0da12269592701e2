"""The pipes of a process, and the news that come of them.

Outputs are kept up to a cap: a program that writes without end costs the island the cap and no more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

CHUNK = 1 << 16


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
    """Tells one listener, once, that a process has ended or that an output of it is over its limit."""

    def __init__(self) -> None:
        self._told = False
        self._listener: Callable[[], None] | None = None

    def listen(self, listener: Callable[[], None] | None) -> None:
        """From now on this one listens, None for nobody; it is called at once if there were news before."""
        self._listener = listener
        if self._told and listener is not None:
            listener()

    def tell(self) -> None:
        if not self._told:
            self._told = True
            if self._listener is not None:
                self._listener()


class Capture:
    """The first `limit` bytes of a stream. `overflowed` when there was more, which is `news`."""

    def __init__(self, fd: int, limit: int, news: News) -> None:
        self.limit = limit
        self.data = bytearray()
        self.overflowed = False
        self._news = news
        self._fd: int | None = fd
        self._listening = False
        os.set_blocking(fd, False)

    def listen(self) -> None:
        """Read what comes from now on, as it comes; before, it waits in the pipe."""
        if self._fd is not None and not self._listening:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        assert self._fd is not None  # noqa: S101 - the reader is removed with the descriptor
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
        if len(chunk) > room:
            self.overflowed = True
            self._news.tell()
            # Past the cap nothing is read: the pipe fills up and the writer waits for its end.
            self.close()

    def drain(self) -> None:
        """Take what lies in the pipe now, and close it."""
        while self._fd is not None:
            before = len(self.data)
            self._read()
            if len(self.data) == before:
                break
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            if self._listening:
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None


class Pipes:
    """The three pipes of a process that is about to be: `theirs` are its ends, in order."""

    def __init__(self) -> None:
        self._open: list[int] = []
        try:
            for _ in range(3):
                self._open.extend(os.pipe())
        except OSError:
            self.close()
            raise
        stdin_r, self.stdin, self.stdout, out_w, self.stderr, err_w = self._open
        self.theirs = (stdin_r, out_w, err_w)

    def hand_over(self) -> None:
        """The process has its ends now, and ours alone stay open."""
        for fd in self.theirs:
            os.close(fd)

    def close(self) -> None:
        """There will be no process."""
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
        """Write to its standard input what fits, and return the rest; with none left, that is closed.

        A reader that has gone is no error.
        """
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
        """Read its outputs as they come, from now on at the latest."""
        self.stdout.listen()
        self.stderr.listen()

    def collect(self) -> None:
        """The process has ended: take what it left in its pipes, and close them."""
        self.close_stdin()
        self.stdout.drain()
        self.stderr.drain()
