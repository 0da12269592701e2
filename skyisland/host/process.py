"""The only place that starts programs; Git alone is started by GitPython (`sources.git`).

`spawn` starts a `Process` with three pipes, `run` waits for a short one. A process counts as ended when it
has ended itself, not when its pipes close: what is in them then is read, and a stray child that holds them
open delays nobody.

Programs are started on the event loop's thread, which lives as long as the island: on Linux the kernel sends
`PR_SET_PDEATHSIG` when the *thread* ends that started the process (prctl(2)).
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
from enum import Enum
from typing import Protocol

from msgspec import Struct

from skyisland.errors import DriverError
from skyisland.host.pipes import Capture, News, Piped, Pipes

READ_DELAY_S = 0.005
"""How long a process runs before its outputs are read as they come. Most functions end before, with less than
a pipe holds, and are read at their end: that saves a turn of the event loop."""


class Ended(Enum):
    """How a process came to its end, for whoever waited for that."""

    itself = "by itself, or its output was full"
    late = "its time was up"
    word = "it said that it has said all"


class Completed(Struct, frozen=True):
    """The end of a program; `returncode` is the negative number of the signal that ended it, if one did."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    overflowed: bool = False


class Running(Protocol):
    """A process as the platform sees it. `Process` is the real one, drivers have others."""

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
    def listen(self) -> None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


class Process(Piped):
    """A program started by `spawn`, in a session of its own."""

    def __init__(
        self, popen: subprocess.Popen[bytes], pipes: Pipes, stdout_bytes: int, stderr_bytes: int
    ) -> None:
        super().__init__(pipes, stdout_bytes, stderr_bytes)
        self.listen()
        self._popen = popen
        self._exited = asyncio.Event()
        self.peak_memory_bytes = 0
        """The most memory that it had at one time, also before its exec, as a copy of this process; 0 until
        it has ended (getrusage(2))."""
        try:
            self._watch()
        except OSError:
            # No descriptor is left for the pidfd, so its end would go unnoticed.
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
        """Have `_finish` called at its end: by a pidfd on Linux, by a thread that waits elsewhere."""
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
        self.news.announce()

    async def wait(self) -> int:
        """Wait for its end and collect its outputs; returns its return code."""
        await self._exited.wait()
        self.collect()
        assert self._popen.returncode is not None  # noqa: S101 - it has just been reaped
        return self._popen.returncode

    def kill(self) -> None:
        """Send SIGKILL to its process group, unless it has ended."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    program: str | os.PathLike[str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    uid: int | None = None,
    pass_fds: Sequence[int] = (),
    stdout_bytes: int = 1 << 20,
    stderr_bytes: int = 1 << 20,
) -> Process:
    """Start a program; to be called on the event loop's thread.

    It gets a session of its own, the variables in `env` alone, and no descriptors but its pipes and
    `pass_fds`. With `uid` (root only) it runs as that user and group, without supplementary groups. `program`
    is executed where `argv[0]` is only to be its name.

    Raises:
        DriverError: it cannot be started (not found, not executable, no more processes or descriptors).
    """
    try:
        pipes = Pipes()
    except OSError as error:
        raise DriverError(f"cannot start {argv[0]}: {error.strerror}", program=str(argv[0])) from error
    stdin, stdout, stderr = pipes.theirs
    try:
        popen = subprocess.Popen(
            argv,
            executable=program,
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
    uid: int | None = None,
    pass_fds: Sequence[int] = (),
    stdout_bytes: int = 1 << 20,
    stderr_bytes: int = 1 << 20,
) -> Completed:
    """Run a program to its end. After `timeout_s`, or when an output is full, its process group is killed.

    Raises:
        DriverError: it cannot be started.
    """
    process = spawn(
        argv,
        env=env,
        cwd=cwd,
        uid=uid,
        pass_fds=pass_fds,
        stdout_bytes=stdout_bytes,
        stderr_bytes=stderr_bytes,
    )
    how = await until_ended(process, stdin, timeout_s)
    returncode = await process.wait()
    return Completed(
        returncode,
        bytes(process.stdout.data),
        bytes(process.stderr.data),
        timed_out=how is Ended.late,
        overflowed=process.stdout.overflowed or process.stderr.overflowed,
    )


async def until_ended(
    process: Running, stdin: bytes, timeout_s: float, heard: Callable[[bytes], bool] | None = None
) -> Ended:
    """Write `stdin` to a process and wait for its end; kill it after `timeout_s`, when an output is full, or
    when this is cancelled.

    `heard` is called with its standard output, piece by piece as it comes; true is the process's word that it
    has said all, and counts as its end: it may still run, and whoever started it has to take it away.

    Afterwards, but for a word, `process.wait()` returns without delay; and `overflowed` of its outputs says
    whether they were full.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[Ended] = loop.create_future()

    def end(how: Ended = Ended.itself) -> None:
        if not over.done():
            over.set_result(how)

    def hear(piece: bytes) -> None:
        assert heard is not None  # noqa: S101 - set where there is one
        if heard(piece):
            end(Ended.word)

    rest = process.offer(stdin)
    feeding = asyncio.ensure_future(process.feed(rest)) if rest else None
    if heard is None:
        reading = loop.call_later(READ_DELAY_S, process.listen)
    else:
        hear(bytes(process.stdout.data))
        process.stdout.heard = hear
        process.stdout.listen()
        reading = loop.call_later(READ_DELAY_S, process.stderr.listen)
    timers = (loop.call_later(timeout_s, end, Ended.late), reading)
    process.news.listen(end)
    try:
        how = await over
        if how is Ended.word:
            process.stderr.take()  # all that it wrote before is there; what comes later is nobody's
            return how
        if process.returncode is None:
            process.kill()
        await process.wait()
        return how
    except BaseException:
        process.kill()
        raise
    finally:
        for timer in timers:
            timer.cancel()
        process.news.listen(None)
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


def open_as_many_as_allowed() -> int:
    """Raise the limit of open files to what this user may have; returns it. A jail takes about ten."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # "unlimited" may be more than the kernel gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
