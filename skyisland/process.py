"""The only place that starts programs (Git's are GitPython's).

`spawn` gives a `Process` with three pipes; `run` waits for a short one. Outputs are read as they come
and kept up to a cap: a program that writes without end costs the island the cap and no more. The end
of a process is its own end, not that of its pipes: what it left in them is taken, and a stray child
that holds them open delays nobody.

Spawning happens on the event loop's thread, which lives as long as the island: on Linux the kernel
delivers `PR_SET_PDEATHSIG` when the spawning *thread* ends (prctl(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from skyisland.errors import DriverError

CHUNK = 1 << 16


class Completed(Struct, frozen=True):
    """What a finished program left; `returncode` is negative for a signal, as in subprocess."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    overflowed: bool = False


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
        self.ended = asyncio.Event()
        self._fd: int | None = fd
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

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
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
            self.ended.set()


class Running(Protocol):
    """A process as the island sees it; `Process` is the real one, a fake driver has its own."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> Capture: ...
    @property
    def stderr(self) -> Capture: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def news(self) -> News: ...

    def offer(self, data: bytes) -> memoryview: ...
    async def feed(self, data: bytes | memoryview) -> None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


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

    def collect(self) -> None:
        """The process has ended: take what it left in its pipes, and close them."""
        self.close_stdin()
        self.stdout.drain()
        self.stderr.drain()


class Process(Piped):
    """A program started by `spawn`, in a session of its own."""

    def __init__(
        self, popen: subprocess.Popen[bytes], pipes: Pipes, stdout_bytes: int, stderr_bytes: int
    ) -> None:
        super().__init__(pipes, stdout_bytes, stderr_bytes)
        self._popen = popen
        self._exited = asyncio.Event()
        self.peak_memory_bytes = 0
        """The most that it had in memory at one time, known when it has ended (getrusage(2))."""
        try:
            self._watch()
        except OSError:
            # Nobody would learn of its end.
            self.kill()
            popen.wait()
            self.collect()
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.returncode

    def _watch(self) -> None:
        """Learn of the end: through a pidfd on Linux, a waiting thread where there is none."""
        loop = asyncio.get_running_loop()
        if hasattr(os, "pidfd_open"):
            pidfd = os.pidfd_open(self.pid)

            def ended() -> None:
                loop.remove_reader(pidfd)
                os.close(pidfd)
                self._finish()

            loop.add_reader(pidfd, ended)
        else:

            def wait() -> None:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                with contextlib.suppress(RuntimeError):  # the loop may be gone at shutdown
                    loop.call_soon_threadsafe(self._finish)

            threading.Thread(target=wait, name=f"wait-{self.pid}", daemon=True).start()

    def _finish(self) -> None:
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if pid:
            self._popen.returncode = os.waitstatus_to_exitcode(status)
            self.peak_memory_bytes = used.ru_maxrss * 1024
        self._exited.set()
        self.news.tell()

    async def wait(self) -> int:
        """Its return code, once it has ended and its outputs are collected."""
        await self._exited.wait()
        self.collect()
        assert self._popen.returncode is not None  # noqa: S101 - it has just been reaped
        return self._popen.returncode

    def kill(self) -> None:
        """SIGKILL to its whole process group; nothing happens if it has ended."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None = None,
    uid: int | None = None,
    pass_fds: Sequence[int] = (),
    stdout_bytes: int = 1 << 20,
    stderr_bytes: int = 1 << 20,
) -> Process:
    """Start a program and return at once; to be called on the event loop's thread.

    It gets a session of its own, exactly `env`, and no descriptor beside its pipes and `pass_fds`.
    With `uid` (root only) it runs as that user and group without supplementary groups.

    Raises:
        DriverError: it cannot be started (not found, not executable, no process to be had).
    """
    try:
        pipes = Pipes()
    except OSError as error:
        raise DriverError(f"cannot start {argv[0]}: {error.strerror}", program=str(argv[0])) from error
    stdin, stdout, stderr = pipes.theirs
    try:
        popen = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(env),
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    except OSError as error:
        pipes.close()
        raise DriverError(f"cannot start {argv[0]}: {error.strerror}", program=str(argv[0])) from error
    try:
        return Process(popen, pipes, stdout_bytes, stderr_bytes)
    except OSError as error:
        raise DriverError(f"cannot watch {argv[0]}: {error.strerror}", program=str(argv[0])) from error


async def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    stdin: bytes = b"",
    cwd: str | os.PathLike[str] | None = None,
    stdout_bytes: int = 1 << 20,
    stderr_bytes: int = 1 << 20,
) -> Completed:
    """Run a program to its end, or to `timeout_s` or a full output, when its process group is killed.

    Raises:
        DriverError: it cannot be started.
    """
    process = spawn(argv, env=env, cwd=cwd, stdout_bytes=stdout_bytes, stderr_bytes=stderr_bytes)
    timed_out = await until_ended(process, stdin, timeout_s)
    returncode = await process.wait()
    return Completed(
        returncode,
        bytes(process.stdout.data),
        bytes(process.stderr.data),
        timed_out=timed_out,
        overflowed=process.stdout.overflowed or process.stderr.overflowed,
    )


async def until_ended(process: Running, stdin: bytes, timeout_s: float) -> bool:
    """Feed `stdin` and wait for the end; kill at the deadline, at a full output, or when cancelled.

    Returns whether the deadline passed. Afterwards `process.wait()` returns without delay, and each
    `Capture.overflowed` tells whether that output was too much.
    """
    rest = process.offer(stdin)
    feeding = asyncio.ensure_future(process.feed(rest)) if rest else None
    loop = asyncio.get_running_loop()
    over: asyncio.Future[bool] = loop.create_future()

    def end(timed_out: bool = False) -> None:
        if not over.done():
            over.set_result(timed_out)

    timer = loop.call_later(timeout_s, end, True)
    process.news.listen(end)
    try:
        timed_out = await over
        if process.returncode is None:
            process.kill()
        await process.wait()
        return timed_out
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()
        process.news.listen(None)
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


def open_as_many_as_allowed() -> int:
    """Raise the limit on open files to what this user may have; returns it. A jail takes some ten of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a hard limit without end may be none that can be had
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
