"""The launcher of jails: compiled for this host, and spoken to.

The launcher is a program of its own (`launcher/`, where it is told what it does and why it is written as
it is). The island's own toolchain compiles it, once for each version of the toolchain and of the source,
and a `Link` is the island's end of the socket to a running one.

What the compiler works out on the way, the better part of what every function is made of, it keeps in a
cache that nobody but the island can write to. Afterwards that becomes the library cache of the build
jails if they have none yet, so that they need not compile it again. It never goes the other way: of what
a build jail could write to, nothing gets into a program that root executes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.process import Process, run, spawn
from skyisland.host.toolchain import Progress, Toolchain, Toolchains, silent, this_platform

MESSAGE_BYTES = 1 << 17
"""An order has no more."""
COMPILE_TIMEOUT_S = 600.0
START_TIMEOUT_S = 10.0
FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-E main.begin -s -w")
ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOENV": "off",
    "GOFLAGS": "",
    "GOPATH": "/nonexistent",
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
    "HOME": "/nonexistent",
}
"""All that the go command is told beside its own folders."""
REMEDY = 'name another toolchain in build.goroot, or set jails.driver = "bubblewrap"'
GONE = "the launcher of jails ended while it made this one; call again, the next has another"


class Launcher:
    """The program, compiled when it is first needed."""

    def __init__(
        self,
        folder: Path,
        toolchains: Toolchains,
        *,
        library: Path | None = None,
        uid: int = 0,
        progress: Progress = silent,
    ) -> None:
        """`folder`: where it is kept. `library`: Go's build caches of the build jails, by version, and
        `uid` whose they are to be."""
        self.folder = folder
        self.toolchains = toolchains
        self.library = library
        self.uid = uid
        self.progress = progress

    async def program(self) -> Path:
        """The program, ready to be executed.

        Raises:
            SettingsError, HostUnfit: there is no Go that works here; the text says what to do.
        """
        toolchain = await self.toolchains.present()
        if toolchain is not None and (found := await asyncio.to_thread(self.compiled, toolchain)):
            return found
        toolchain = await self.toolchains.find(self.progress)
        self.progress("compiling the launcher of jails", 0, 0)
        return await self._compile(toolchain)

    def compiled(self, toolchain: Toolchain) -> Path | None:
        """The program that this toolchain has made of this source, if it has. Blocks."""
        path = self._path(toolchain, _source())
        with contextlib.suppress(OSError):
            found = path.lstat()
            ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if stat.S_ISREG(found.st_mode) and ours:
                return path
        return None

    def _path(self, toolchain: Toolchain, source: dict[str, bytes]) -> Path:
        made_of = (toolchain.version, this_platform(), FLAGS, sorted(source.items()))
        return self.folder / f"sky-launcher-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}"

    async def _compile(self, toolchain: Toolchain) -> Path:
        work = await asyncio.to_thread(self._workplace)
        try:
            go = toolchain.goroot / "bin" / "go"
            env = {**ENVIRONMENT, "GOROOT": str(toolchain.goroot), "GOCACHE": str(work / "cache")}
            made = await run(
                [go, "build", *FLAGS, "-o", str(work / "made"), "."],
                env={**env, "TMPDIR": str(work)},
                cwd=work / "source",
                timeout_s=COMPILE_TIMEOUT_S,
            )
            if made.returncode != 0:
                said = (made.stderr or made.stdout).decode(errors="replace").strip()
                raise HostUnfit(f"{toolchain.version} cannot compile the launcher of jails: {said}; {REMEDY}")
            return await asyncio.to_thread(self._keep, work, toolchain)
        except DriverError as error:
            raise HostUnfit(f"cannot compile the launcher of jails: {error.message}; {REMEDY}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    def _workplace(self) -> Path:
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"sky-compiling-{os.getpid()}-", dir=self.folder))
        (work / "source").mkdir()
        for name, data in _source().items():
            (work / "source" / name).write_bytes(data)
        return work

    def _keep(self, work: Path, toolchain: Toolchain) -> Path:
        """Put the program in its place, whole, and remove others and what the dead left half-made."""
        final = self._path(toolchain, _source())
        made = work / "made"
        made.chmod(0o755)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.rename(final)
        if self.library is not None:
            self._hand_on(work / "cache", self.library / toolchain.version / "std")
        for other in self.folder.glob("sky-launcher-*"):
            if other != final:
                other.unlink(missing_ok=True)
        for other in self.folder.glob("sky-compiling-*"):
            if not Path("/proc", other.name.split("-")[2]).exists():
                shutil.rmtree(other, ignore_errors=True)
        return final

    def _hand_on(self, cache: Path, library: Path) -> None:
        """Make the cache the library of build jails, unless they have one."""
        if library.exists():
            return
        for parent, _, files in os.walk(cache):
            for path in (parent, *(os.path.join(parent, name) for name in files)):
                os.chown(path, self.uid, self.uid)
        library.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        cache.rename(library)


def _source() -> dict[str, bytes]:
    """The files of the program, by name."""
    folder = resources.files("skyisland.drivers.linux").joinpath("launcher")
    names = (file.name for file in folder.iterdir() if file.name.endswith((".go", ".s", ".mod")))
    return {name: folder.joinpath(name).read_bytes() for name in sorted(names)}


async def start(program: Path, scratch: Path, system_calls: bytes) -> Link:
    """Start the launcher.

    `scratch`: the folder that it is told (main.go); `system_calls`: the filter on those of its jails.

    Raises:
        HostUnfit: it ended, or cannot use the filter.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        with theirs:
            process = spawn([program, str(theirs.fileno()), str(scratch)], env={}, pass_fds=[theirs.fileno()])
        answer = await asyncio.to_thread(_exchange, ours, system_calls)
        if answer == b"+":
            undo.pop_all()
            return Link(ours, process)
    await process.wait()
    raise HostUnfit(
        f"the launcher of jails cannot start: {explain(answer) if answer else 'it ended'}; {REMEDY}"
    )


def _exchange(end: socket.socket, message: bytes) -> bytes:
    """Send and hear the answer, which is empty if the other side ended; blocks."""
    end.settimeout(START_TIMEOUT_S)
    try:
        end.send(message)
        return end.recv(MESSAGE_BYTES)
    except (ConnectionError, TimeoutError):
        return b""


class Link:
    """The island's end of the socket to a running launcher, which ends with it."""

    def __init__(self, end: socket.socket, process: Process | None = None) -> None:
        end.setblocking(False)
        self._end = end
        self._process = process
        self._waiting: dict[str, asyncio.Future[tuple[bytes, int]]] = {}
        self.lost = False
        asyncio.get_running_loop().add_reader(end, self._read)

    async def order(self, name: str, words: Sequence[str], fds: Sequence[int]) -> tuple[int, int]:
        """Have a jail of this name made; returns its init's pid, and a pidfd that is the caller's.

        `words`: the order (`order.take` in order.go); `fds`: standard input, output, error, status pipe.

        Raises:
            DriverError: the launcher refused, or is gone.
            OSError: no descriptors can be sent.
        """
        message = "\0".join((f"n{name}", *words, "")).encode()
        if message.count(0) != len(words) + 1:
            raise DriverError("cannot make the jail: a word of its order has a zero byte", jail=name)
        if len(message) > MESSAGE_BYTES:
            raise DriverError("cannot make the jail: its order is too long", jail=name)
        future = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
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
            self._waiting.pop(name, None)
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
                self._lose()
                return
            name, _, answer = data.partition(b"\0")
            if not fds and answer.isdigit():
                # We had no descriptor left for its pidfd. It was made a moment ago: its number is its own.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(answer), signal.SIGKILL)
                answer = b"!%d take its pidfd" % errno.EMFILE
            future = self._waiting.get(name.decode())
            if future is not None and not future.done():
                future.set_result((answer, fds[0] if fds else -1))
            elif fds:
                # Nobody waits any more: the jail must not live on unknown.
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fds[0], signal.SIGKILL)
                os.close(fds[0])

    def _lose(self) -> None:
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._end)
        for future in self._waiting.values():
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
        """End the launcher, and every jail with it. May be repeated."""
        if not self.lost:
            self._lose()
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            await self._process.wait()
        await asyncio.sleep(0)  # whoever waits to send an order wakes up, and finds that it cannot
        self._end.close()


def explain(failure: bytes) -> str:
    """What the launcher or an init could not do: `!2 mount /a`, in words."""
    number, _, what = failure.lstrip(b"!").partition(b" ")
    reason = os.strerror(int(number)) if number.isdigit() else "it said nothing of use"
    return f"{what.decode(errors='replace')}: {reason}"
