"""One Git command: it does what it is asked to and nothing else, and it ends.

Theory: a stranger wrote the repository, and its server may lie. So Git gets an environment of our
making (GitPython would pass on the daemon's), our configuration alone, exactly one transport, no
prompt, no hook, no filter, no submodule and no background maintenance. A pack may take it over all the
same: on an island of root's it runs as a user of its own, without a way to more rights. Each command
runs in a session of its own. Its whole process group is killed at the deadline, when its output or its
folder outgrows the limit, and when its caller is cancelled. While it runs it holds a lock on a pid
file. So the next daemon finds and kills the commands that a killed daemon left behind (`end_orphans`).

GitPython, a choice of the owner's that stands, only starts the process: its own `kill_after_timeout`
finds children by polling `ps` and cannot be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import re
import secrets
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct

from skyisland.errors import HostUnfit
from skyisland.host.folder import size_of
from skyisland.host.tasks import finish

if TYPE_CHECKING:
    from git.cmd import Git

MEASURE_S = 0.1
"""Time between two measurements of a growing folder. At 1 Gbit/s it overshoots its limit by 12 MB."""

OUTPUT_LIMIT_BYTES = 32 << 20
"""Longest output of a command: about 300,000 files or references."""

STDERR_BYTES = 4096
"""How much of the end of standard error is kept: Git's reason stands in its last lines."""

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

_ENVIRONMENT = {
    "PATH": _PATH,
    "LC_ALL": "C",
    "HOME": "/dev/null",  # holds no .netrc, .gitconfig or .ssh, and never will
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10",  # BatchMode: it never asks for a password
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # refs/replace would show other content under a commit's name
    "GIT_PROTOCOL_FROM_USER": "0",
    # A delta of a few bytes can describe an object of gigabytes: Git refuses to allocate it. A judgement:
    # half of the default git.max_size.
    "GIT_ALLOC_LIMIT": "256m",
}

# The sizes bound one command's memory: Git streams a file past bigFileThreshold instead of loading it,
# and unmaps packs past packedGitLimit (its default is 32 TiB).
_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("core.autocrlf", "false"),
    ("core.protectHFS", "true"),  # refuse names that mean .git on other file systems
    ("core.protectNTFS", "true"),
    ("core.bigFileThreshold", "16m"),
    ("core.packedGitLimit", "256m"),
    ("core.deltaBaseCacheLimit", "32m"),
    ("pack.threads", "1"),
    ("credential.helper", ""),
    ("protocol.version", "2"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.unpackLimit", "1"),  # every fetch leaves one pack, and no loose objects: `mirror` counts packs
    ("fetch.writeCommitGraph", "false"),
    ("transfer.bundleURI", "false"),  # the server could send us to any URL
    ("transfer.fsckObjects", "true"),
    # Harmless mistakes of old Git implementations. Well-known repositories contain them.
    *(
        (f"fetch.fsck.{mistake}", "ignore")
        for mistake in (
            "badTimezone",
            "missingSpaceBeforeDate",
            "missingNameBeforeEmail",
            "missingSpaceBeforeEmail",
            "zeroPaddedDate",
            "zeroPaddedFilemode",
            "gitmodulesName",
            "gitmodulesParse",
            "gitmodulesUrl",
        )
    ),
    ("http.followRedirects", "false"),  # `mirror` looks where one leads, and asks there
)

_SCRIPT = """umask 022; ulimit -v 4194304; ulimit -c 0; ulimit -f "$1"
[ "$2" = 0 ] || ulimit -u "$2" 2>/dev/null || ulimit -p "$2"
shift 2; echo $$ >&0; exec "$@" </dev/null"""
"""Sets limits, writes its own pid to the pid file, its standard input, and becomes Git (by `confinement` and
env). Git has the pid file open to hold its lock, but not to write: the next daemon kills what it names.

4 GiB of address space: to fetch and check out a repository of 500 MiB, the default git.max_size, takes
between 512 MiB and 1 GiB (measured, Git 2.39). Four times that leaves room for a larger git.max_size."""


PROCESSES = 1024
"""Processes and threads of all commands of the user that Git runs as. 64 commands (git.max_running) have some
ten each."""
_BLOCK_BYTES = 512  # of ulimit -f (POSIX)


class Trouble(StrEnum):
    """Why a command failed: the cases that we treat differently."""

    missing = "missing"
    """The remote answered: there is no such repository, or we may not read it."""
    moved = "moved"
    """The remote redirected us."""
    no_commit = "no_commit"
    """The repository has no such object."""
    only_whole = "only_whole"
    """The remote serves whole branches only: no single commits, or no shallow history."""
    too_large = "too_large"
    no_room = "no_room"
    """What is being fetched takes all the room that there is for repositories."""
    timed_out = "timed_out"
    other = "other"
    """Most often: the remote could not be reached."""


_PATTERNS = (
    (Trouble.no_commit, r"not our ref|remote did not send all necessary objects"),
    (Trouble.only_whole, r"unadvertised object|does not support shallow|shallow capabilities"),
    (Trouble.moved, r"returned error: 30[12378]"),
    (
        Trouble.missing,
        r"could not read (Username|Password)|Authentication failed|returned error: (40[013-6]|410|422)"
        r"|repository '[^']*' not found|Repository not found|not appear to be a git repository"
        r"|is this a git repository|Permission denied \(",
    ),
    (Trouble.too_large, r"over limit \d+|[Oo]ut of memory"),
)


def trouble_of(stderr: str) -> Trouble:
    """Classify what Git printed on standard error (in its C locale)."""
    return next((trouble for trouble, pattern in _PATTERNS if re.search(pattern, stderr)), Trouble.other)


class GitFailed(Exception):
    """A command failed. `stderr` is the end of what Git printed there; `why` is for the operator alone: what
    was wrong with a credential, and what to do."""

    def __init__(self, trouble: Trouble, stderr: str = "", why: str = "") -> None:
        super().__init__(f"{trouble}: {stderr}")
        self.trouble = trouble
        self.stderr = stderr
        self.why = why


class GitCommand:
    """A command that runs once, on a thread of its caller's choice.

    `config` and `environment` are added to our own. `scheme` is the one transport that Git may use;
    without it, none. `watch` is a folder that must not outgrow `watch_bytes` while the command runs, nor
    the room that there is: `room` is told its size now and then. `pid_files` is the folder for the command's
    pid file. `uid`: as whom it runs, if the island is root; None for the island's user, without capabilities.
    `file_bytes`: the largest file that it may write; 0 for no limit.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        pid_files: Path,
        timeout_s: float,
        scheme: str = "",
        config: Sequence[tuple[str, str]] = (),
        environment: Mapping[str, str] | None = None,
        watch: Path | None = None,
        watch_bytes: int = 0,
        room: Callable[[int], bool] | None = None,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        uid: int | None = None,
        file_bytes: int = 0,
    ) -> None:
        variables = {**_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": scheme or "none", **(environment or {})}
        options = (option for key, value in (*_CONFIG, *config) for option in ("-c", f"{key}={value}"))
        self._environment = [f"{name}={value}" for name, value in variables.items()]
        self._arguments = [*options, *arguments]
        self._pid_files = pid_files
        self._timeout_s = timeout_s
        self._watch = watch
        self._watch_bytes = watch_bytes
        self._room = room
        self._output_limit_bytes = output_limit_bytes
        self._uid = uid
        self._file_blocks = str(-(-file_bytes // _BLOCK_BYTES)) if file_bytes else "unlimited"
        self._wake = -1  # the pipe by which a cancelled `result` wakes `_read`

    async def result(self, threads: Executor) -> bytes:
        """Run the command and return its standard output.

        When this ends, cancelled or not, no process of the command's group is left.

        Raises:
            GitFailed: it failed, took too long or grew too large.
            HostUnfit: there is no Git on this host.
        """
        self._wake, waker = os.pipe()
        os.set_blocking(waker, False)
        work = asyncio.get_running_loop().run_in_executor(threads, self._run)
        try:
            return await finish(work, cancelled=lambda: os.write(waker, b"x"))
        finally:
            os.close(waker)
            os.close(self._wake)

    def _run(self) -> bytes:
        program = _git_program()
        confined = confinement(self._uid)
        processes = str(PROCESSES) if self._uid is not None else "0"
        script = ["/bin/sh", "-c", _SCRIPT, "sh", self._file_blocks, processes, *confined.words]
        with (
            _new_pid_file(self._pid_files) as pid_file,
            pid_file.open("rb") as lock,
            pid_file.open("wb") as pid,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            git = _gitpython()("/").execute(
                [*script, "/usr/bin/env", "-i", *self._environment, program, *self._arguments],
                istream=pid,
                as_process=True,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                **confined.options,
            )
            # The command inherited the lock: from here on it alone holds it, for as long as its group lives.
            lock.close()
            assert git.proc is not None  # noqa: S101 - it was started this moment
            return self._wait(git.proc, pid_file)

    def _wait(self, process: subprocess.Popen[bytes], pid_file: Path) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        try:
            stdout, stderr = self._read(process, deadline)
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill_group(process, pid_file)
            raise GitFailed(Trouble.timed_out) from None
        except BaseException:
            _kill_group(process, pid_file)
            raise
        finally:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self._measure()
        if process.returncode != 0:
            text = stderr.decode("utf-8", "replace")
            raise GitFailed(trouble_of(text), text)
        return stdout

    def _measure(self) -> None:
        """Raise if the folder outgrew a limit."""
        if self._watch is None:
            return
        size_bytes = size_of(self._watch)
        if size_bytes > self._watch_bytes:
            raise GitFailed(Trouble.too_large)
        if self._room is not None and not self._room(size_bytes):
            raise GitFailed(Trouble.no_room)

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
        """Read standard output and standard error to their ends; raise as soon as a limit is passed."""
        stdout, stderr = bytearray(), bytearray()
        measured_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(_pipe(process.stdout), selectors.EVENT_READ, stdout)
            selector.register(_pipe(process.stderr), selectors.EVENT_READ, stderr)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select(min(MEASURE_S, max(0.0, deadline - time.monotonic()))):
                    if key.data is None:
                        raise GitFailed(Trouble.other, "stopped")
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    key.data.extend(chunk)
                del stderr[:-STDERR_BYTES]
                if len(stdout) > self._output_limit_bytes:
                    raise GitFailed(Trouble.too_large)
                now = time.monotonic()
                if now >= deadline:
                    raise GitFailed(Trouble.timed_out)
                if now - measured_at >= MEASURE_S:
                    self._measure()
                    measured_at = time.monotonic()
        return bytes(stdout), bytes(stderr)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - GitPython opens both
    return pipe


@functools.cache
def _gitpython() -> type[Git]:
    """GitPython's `Git`, imported at the first command, on its thread: that takes a while."""
    # Its import runs `git version` in the daemon's environment, unless what it takes for Git cannot be
    # executed.
    os.environ.setdefault("GIT_PYTHON_GIT_EXECUTABLE", os.devnull)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from git.cmd import Git

    return Git


class Confinement(Struct, frozen=True):
    """How Git is kept from more rights than it needs, on an island of root's."""

    words: tuple[str, ...] = ()
    """A program with its options, that executes Git."""
    options: dict[str, Any] = {}
    """Options of `subprocess.Popen`, where there is no such program."""
    lacks: str = ""
    """What is missing, in words."""


@functools.cache
def confinement(uid: int | None) -> Confinement:
    """What takes root's capabilities from Git, and every way to gain one, before it reads a pack. Nothing for
    ordinary users, who have none. Blocks.

    `uid`: who it becomes, too.
    """
    if os.geteuid() != 0:
        return Confinement()
    user = () if uid is None else (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    lacks = "setpriv is missing (package util-linux)"
    if setpriv := shutil.which("setpriv", path=_PATH):
        words = (setpriv, *user, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
        tried = subprocess.run([*words, "/bin/true"], capture_output=True, check=False)
        if tried.returncode == 0:
            return Confinement(words=words)
        lacks = f"setpriv fails: {tried.stderr.decode(errors='replace').strip()}"
    # A user of its own has no capability either, but may execute what is set-uid.
    options = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    return Confinement(options=options, lacks=lacks)


def _git_program() -> str:
    # What GitPython takes for Git is none while another thread imports it.
    program = shutil.which("git")
    if program is None:
        raise HostUnfit("there is no Git on this host; install the package git")
    return program


# Pid files: they record our process groups for the daemon after this one


@contextlib.contextmanager
def _new_pid_file(folder: Path) -> Iterator[Path]:
    pid_file = folder / f"sky-{secrets.token_hex(8)}.pid"
    pid_file.touch(mode=0o600, exist_ok=False)
    try:
        yield pid_file
    finally:
        pid_file.unlink(missing_ok=True)


def _kill_group(process: subprocess.Popen[bytes], pid_file: Path) -> None:
    """Kill a command that nobody waited for yet; return when its whole group is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Each process of the group holds the lock until it is gone.
    with pid_file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def end_orphans(folder: Path) -> int:
    """Kill the commands that outlived their daemon and remove their pid files; return their number. Blocks.

    A group is killed only while it holds its lock: the number may belong to somebody else afterwards.
    """
    killed = 0
    for pid_file in folder.glob("sky-*.pid"):
        with pid_file.open("r+b") as lock:
            while not _try_lock(lock):
                killed += 1 if _kill_recorded(lock) else 0
        pid_file.unlink()
    return killed


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill_recorded(lock: IO[bytes]) -> bool:
    """Kill the group that the pid file records and wait for its end; False while it records none."""
    lock.seek(0)
    pid = lock.read(16).strip()
    if not pid.isdigit():
        time.sleep(0.01)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(pid), signal.SIGKILL)
    fcntl.flock(lock, fcntl.LOCK_EX)
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True
