"""The launcher of jails: the program, and the socket to a running one.

`launcher/main.go` says what it does and why it is written as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.ownprogram import OwnProgram
from skyisland.host.process import Process, spawn

MESSAGE_BYTES = 1 << 17
"""The longest message; `message` in main.go has this size."""
START_TIMEOUT_S = 10.0
"""It takes milliseconds; a launcher that does not answer for so long is broken."""
FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-E main.begin -s -w")
"""`-E main.begin`: the entry point, instead of the runtime's. `-s -w`: no symbols and no debugging data."""
REMEDY = 'name another toolchain in build.goroot, or set jails.driver = "bubblewrap"'
GONE = "the launcher of jails ended while it made this one; call again, the next has another"


class Launcher(OwnProgram):
    """The launcher's program."""

    package = "skyisland.drivers.linux"
    flags = FLAGS
    remedy = REMEDY


async def start(program: Path, scratch: Path, bpf: bytes) -> LauncherSocket:
    """Start a launcher.

    `scratch`: its argument SCRATCH (main.go); `bpf`: the filter on its jails' system calls.

    Raises:
        HostUnfit: it exited, or one of its first steps failed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        with theirs:
            process = spawn([program, str(theirs.fileno()), str(scratch)], env={}, pass_fds=[theirs.fileno()])
        answer = await asyncio.to_thread(_exchange, ours, bpf)
        if answer == b"+":
            undo.pop_all()
            return LauncherSocket(ours, process)
    await process.wait()
    raise HostUnfit(
        f"the launcher of jails cannot start: {explain(answer) if answer else 'it ended'}; {REMEDY}"
    )


def _exchange(end: socket.socket, message: bytes) -> bytes:
    """Send a message and return the answer; empty if the other side has ended or stays silent. Blocks."""
    end.settimeout(START_TIMEOUT_S)
    try:
        end.send(message)
        return end.recv(MESSAGE_BYTES)
    except (ConnectionError, TimeoutError):
        return b""


class LauncherSocket:
    """The island's end of the socket to a running launcher. When it is closed, the launcher exits."""

    def __init__(self, end: socket.socket, process: Process | None = None) -> None:
        end.setblocking(False)
        self._end = end
        self._process = process
        self.pid = process.pid if process is not None else None
        self._answers: dict[str, asyncio.Future[tuple[bytes, int]]] = {}
        """Jail → the launcher's answer: pid or failure, and a pidfd or -1."""
        self.lost = False
        """Whether the launcher has ended."""
        asyncio.get_running_loop().add_reader(end, self._read)

    async def order(self, name: str, words: Sequence[str], fds: Sequence[int]) -> tuple[int, int]:
        """Order a jail of this name. Returns the pid of its init, and a pidfd that the caller must close.

        `words`: the order's other words (`order.take` in order.go). `fds`: standard input, output, error
        and status pipe.

        Raises:
            DriverError: a step failed in the launcher, or the launcher has ended.
            OSError: the descriptors cannot be sent.
        """
        message = "\0".join((f"n{name}", *words, "")).encode()
        if message.count(0) != len(words) + 1:
            raise DriverError("cannot make the jail: a word of its order has a zero byte", jail=name)
        if len(message) > MESSAGE_BYTES:
            raise DriverError("cannot make the jail: its order is too long", jail=name)
        future = asyncio.get_running_loop().create_future()
        self._answers[name] = future
        try:
            while True:
                try:
                    socket.send_fds(self._end, [message], fds)
                    break
                except BlockingIOError:
                    await self._writable()
            answer, pidfd = await future
        except (BrokenPipeError, ConnectionError) as error:
            raise DriverError(GONE) from error
        finally:
            self._answers.pop(name, None)
        if pidfd < 0:
            raise DriverError(f"cannot make the jail: {explain(answer)}", jail=name)
        return int(answer), pidfd

    def _read(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._end, MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._disconnect()
                return
            name, _, answer = data.partition(b"\0")
            if not fds and answer.isdigit():
                # The jail was made, but we had no free descriptor for its pidfd. Kill it by pid: init was
                # started a moment ago, so no other process can have its number yet.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(answer), signal.SIGKILL)
                answer = b"!%d take its pidfd" % errno.EMFILE
            future = self._answers.get(name.decode())
            if future is not None and not future.done():
                future.set_result((answer, fds[0] if fds else -1))
            elif fds:
                # The order was cancelled meanwhile: kill a jail that nobody knows of.
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fds[0], signal.SIGKILL)
                os.close(fds[0])

    def _disconnect(self) -> None:
        """Fail every order that waits for its answer."""
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._end)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(DriverError(GONE))

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._end, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._end)

    async def close(self) -> None:
        """End the launcher, and with it every jail that it made. May be repeated."""
        if not self.lost:
            self._disconnect()
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            await self._process.wait()
        # Orders in `_writable` wake up and fail to send, before the descriptor's number is free for another.
        await asyncio.sleep(0)
        self._end.close()


def explain(failure: bytes) -> str:
    """A failure of the launcher or an init, `!2 mount /a`, as text: `mount /a: No such file or directory`."""
    number, _, what = failure.lstrip(b"!").partition(b" ")
    reason = os.strerror(int(number)) if number.isdigit() else "it said nothing of use"
    return f"{what.decode(errors='replace')}: {reason}"
