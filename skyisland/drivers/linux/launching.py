"""The launcher of jails: how it is compiled, and the socket to a running one.

The launcher is a program of its own; `launcher/main.go` says what it does and why it is written as it is.
The island's toolchain compiles it, once for each version of the toolchain and of the source.

That compiles Go's standard library into a build cache, to which only the island can write. If the build
jails have no library cache yet, this one becomes theirs, so that they need not compile the library again.
Never the other way round: nothing that a build jail could write to gets into a program that root executes.
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
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.process import Process, run, spawn
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchain, Toolchains, this_platform

MESSAGE_BYTES = 1 << 17
"""The longest message; `message` in main.go has this size."""
COMPILE_TIMEOUT_S = 600.0
"""It took 18 s on two busy cores, the standard library included; the rest is for a slow machine."""
START_TIMEOUT_S = 10.0
"""It takes milliseconds; a launcher that does not answer for so long is broken."""
FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-E main.begin -s -w")
"""`-E main.begin`: the entry point, instead of the runtime's. `-s -w`: no symbols and no debugging data."""
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
"""The environment of the go command, beside its own folders: no network, no settings of the host's."""
REMEDY = 'name another toolchain in build.goroot, or set jails.driver = "bubblewrap"'
GONE = "the launcher of jails ended while it made this one; call again, the next has another"


def source_files() -> dict[str, bytes]:
    """The source files of the program: name → content."""
    folder = resources.files("skyisland.drivers.linux").joinpath("launcher")
    names = (file.name for file in folder.iterdir() if file.name.endswith((".go", ".s", ".mod")))
    return {name: folder.joinpath(name).read_bytes() for name in sorted(names)}


class Launcher:
    """The launcher's program, compiled when it is first needed."""

    def __init__(
        self,
        folder: Path,
        toolchains: Toolchains,
        *,
        library: Path | None = None,
        uid: int = 0,
        progress: Progress = silent,
        source: Callable[[], dict[str, bytes]] = source_files,
    ) -> None:
        """`folder`: of the program. `library`: Go's build caches of the build jails, in a folder per version
        of the toolchain; `uid`: the owner of a cache that we put there. `source`: the program's source files,
        name → content."""
        self.folder = folder
        self.toolchains = toolchains
        self.library = library
        self.uid = uid
        self.progress = progress
        self.source = source

    async def program(self) -> Path:
        """The path of the program; compiles it, and fetches a toolchain, if necessary.

        Raises:
            SettingsError, HostUnfit: no Go works here; the text says what to do.
        """
        toolchain = await self.toolchains.present()
        if toolchain is not None and (program := await asyncio.to_thread(self.compiled, toolchain)):
            return program
        toolchain = await self.toolchains.find(self.progress)
        self.progress("compiling the launcher of jails", 0, 0)
        return await self._compile(toolchain)

    def compiled(self, toolchain: Toolchain) -> Path | None:
        """The program that this toolchain compiled from this source; None if there is none yet. Blocks.

        A program that another user owns or could write to does not count: root would execute it.
        """
        path = self._path(toolchain, self.source())
        with contextlib.suppress(OSError):
            status = path.lstat()
            ours = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if stat.S_ISREG(status.st_mode) and ours:
                return path
        return None

    def _path(self, toolchain: Toolchain, source: dict[str, bytes]) -> Path:
        """Where the program of this toolchain and source is kept: the name has a hash of both."""
        inputs = (toolchain.version, this_platform(), FLAGS, sorted(source.items()))
        return self.folder / f"sky-launcher-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]}"

    async def _compile(self, toolchain: Toolchain) -> Path:
        work = await asyncio.to_thread(self._make_work_folder)
        try:
            go = toolchain.goroot / "bin" / "go"
            env = {**ENVIRONMENT, "GOROOT": str(toolchain.goroot), "GOCACHE": str(work / "cache")}
            compiled = await run(
                [go, "build", *FLAGS, "-o", str(work / "made"), "."],
                env={**env, "TMPDIR": str(work)},
                cwd=work / "source",
                timeout_s=COMPILE_TIMEOUT_S,
            )
            if compiled.returncode != 0:
                output = (compiled.stderr or compiled.stdout).decode(errors="replace").strip()
                raise HostUnfit(
                    f"{toolchain.version} cannot compile the launcher of jails: {output}; {REMEDY}"
                )
            return await asyncio.to_thread(self._keep, work, toolchain)
        except DriverError as error:
            raise HostUnfit(f"cannot compile the launcher of jails: {error.message}; {REMEDY}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    def _make_work_folder(self) -> Path:
        """A new folder with the source. It has our pid in its name, so that a later run can remove it."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"sky-compiling-{os.getpid()}-", dir=self.folder))
        (work / "source").mkdir()
        for name, data in self.source().items():
            (work / "source" / name).write_bytes(data)
        return work

    def _keep(self, work: Path, toolchain: Toolchain) -> Path:
        """Move the program to its path, and remove other programs and the work folders of dead processes."""
        final = self._path(toolchain, self.source())
        program = work / "made"
        program.chmod(0o755)
        with program.open("rb") as file:
            os.fsync(file.fileno())  # so that no crash leaves an empty file under the final name
        program.rename(final)
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
        """Make our build cache the library cache of the build jails, unless they have one."""
        if library.exists():
            return
        for parent, _, files in os.walk(cache):
            for path in (parent, *(os.path.join(parent, name) for name in files)):
                os.chown(path, self.uid, self.uid)
        library.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        cache.rename(library)


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
