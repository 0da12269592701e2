"""One Git command, run so that nothing but the wanted thing happens, and that it ends.

Theory: a repository is written by a stranger and a server may lie, so Git gets an environment of our
making (GitPython would hand on the daemon's), no configuration but ours, exactly one transport, no
prompt, no hook, no filter, no submodule, no background maintenance. Each command runs in a session of
its own and is killed as a whole: at its deadline, when what it writes outgrows its limit, and when
nobody wants its result any more. While it lives it holds a lock on a file that tells its process
group, so that the next life of a daemon that was killed finds and ends it (`end_orphans`).

GitPython starts the process; its own `kill_after_timeout` looks for children by polling `ps` and
cannot be called off, so the waiting is ours.
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING

from skyisland.errors import HostUnfit
from skyisland.host.folder import size_of
from skyisland.host.tasks import finish
from skyisland.sources.url import REDIRECTING

if TYPE_CHECKING:
    from git.cmd import Git

TICK_S = 0.1
"""How often a growing folder is measured."""

OUTPUT_BYTES = 32 << 20
"""What a command may print: some 300,000 files or references."""

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

_ENVIRONMENT = {
    "PATH": _PATH,
    "LC_ALL": "C",
    "HOME": "/dev/null",  # holds no .netrc, .gitconfig or .ssh, and never will
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_PROTOCOL_FROM_USER": "0",
    # A delta of a few bytes can describe an object of gigabytes; Git gives up instead of making it.
    "GIT_ALLOC_LIMIT": "256m",
}

_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("core.autocrlf", "false"),
    ("core.protectHFS", "true"),
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
    ("fetch.unpackLimit", "1"),
    ("fetch.writeCommitGraph", "false"),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
    # Old, harmless slips of other Git implementations, found in well-known repositories.
    *(
        (f"fetch.fsck.{slip}", "ignore")
        for slip in (
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
    ("http.followRedirects", "false"),
    *((f"http.https://{host}/.followRedirects", "initial") for host in REDIRECTING),
)

_SCRIPT = 'umask 022; ulimit -v 4194304; echo $$ >"$1"; shift; exec /usr/bin/env -i "$@"'
"""Tells its process group, then becomes Git in an environment of ours alone, with 4 GiB to address."""


class Trouble(StrEnum):
    """Why a command failed, as far as it matters to us."""

    missing = "missing"
    """The remote answered: there is no such repository, or it is not for us."""
    moved = "moved"
    """The remote sent us elsewhere."""
    no_commit = "no_commit"
    """The repository has no such object."""
    only_whole = "only_whole"
    """The remote gives whole branches only: no single commits, or no shallow history."""
    too_large = "too_large"
    timed_out = "timed_out"
    other = "other"
    """Above all: the remote could not be reached."""


_SIGNS = (
    (Trouble.no_commit, r"not our ref|remote did not send all necessary objects"),
    (Trouble.only_whole, r"unadvertised object|does not support shallow|shallow capabilities"),
    (Trouble.moved, r"returned error: 30[12378]"),
    (
        Trouble.missing,
        r"could not read (Username|Password)|Authentication failed|returned error: (40[134]|410)"
        r"|repository '[^']*' not found|Repository not found|not appear to be a git repository"
        r"|is this a git repository|Permission denied \(publickey",
    ),
    (Trouble.too_large, r"over limit \d+|[Oo]ut of memory"),
)


def trouble_of(said: str) -> Trouble:
    """Read Git's words (in its C locale)."""
    return next((trouble for trouble, sign in _SIGNS if re.search(sign, said)), Trouble.other)


class GitFailed(Exception):
    """A command that did not do what it was to do; `said` is Git's own last words, fit to be shown."""

    def __init__(self, trouble: Trouble, said: str = "") -> None:
        super().__init__(f"{trouble}: {said}")
        self.trouble = trouble
        self.said = said


class GitCommand:
    """A command that runs once, on a thread of its caller's choice.

    `config` and `environment` come on top of our own; `scheme` is the one transport Git may use (none
    without it). `watch` is the folder that must not outgrow `watch_bytes` while the command runs.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        leashes: Path,
        timeout_s: float,
        scheme: str = "",
        config: Sequence[tuple[str, str]] = (),
        environment: Mapping[str, str] | None = None,
        watch: Path | None = None,
        watch_bytes: int = 0,
    ) -> None:
        variables = {**_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": scheme or "none", **(environment or {})}
        options = (option for key, value in (*_CONFIG, *config) for option in ("-c", f"{key}={value}"))
        self._environment = [f"{name}={value}" for name, value in variables.items()]
        self._arguments = [*options, *arguments]
        self._leashes = leashes
        self._timeout_s = timeout_s
        self._watch = watch
        self._watch_bytes = watch_bytes
        self._wake = -1

    async def result(self, threads: Executor) -> bytes:
        """What the command printed. When this ends, cancelled or not, its whole process group is gone.

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
        program = _git()
        with _leash(self._leashes) as leash, leash.open("r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            git = _gitpython()("/").execute(
                ["/bin/sh", "-c", _SCRIPT, "sh", str(leash), *self._environment, program, *self._arguments],
                as_process=True,
                start_new_session=True,
                pass_fds=(held.fileno(),),
            )
            # From here on, only the command holds the lock.
            held.close()
            assert git.proc is not None  # noqa: S101 - it was started this moment
            return self._attend(git.proc, leash)

    def _attend(self, process: subprocess.Popen[bytes], leash: Path) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        try:
            printed, said = self._read(process, deadline)
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill_group(process, leash)
            raise GitFailed(Trouble.timed_out) from None
        except BaseException:
            _kill_group(process, leash)
            raise
        finally:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if process.returncode != 0:
            words = said.decode("utf-8", "replace")
            raise GitFailed(trouble_of(words), words)
        if self._outgrown():
            raise GitFailed(Trouble.too_large)
        return printed

    def _outgrown(self) -> bool:
        return self._watch is not None and size_of(self._watch) > self._watch_bytes

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
        """Both outputs to their end; raises as soon as there is a reason not to wait for it."""
        printed, said = bytearray(), bytearray()
        measured = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(_pipe(process.stdout), selectors.EVENT_READ, printed)
            selector.register(_pipe(process.stderr), selectors.EVENT_READ, said)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select(min(TICK_S, max(0.0, deadline - time.monotonic()))):
                    if key.data is None:
                        raise GitFailed(Trouble.other, "stopped")
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    key.data.extend(chunk)
                del said[:-4096]
                if len(printed) > OUTPUT_BYTES:
                    raise GitFailed(Trouble.too_large)
                now = time.monotonic()
                if now >= deadline:
                    raise GitFailed(Trouble.timed_out)
                if now - measured >= TICK_S:
                    if self._outgrown():
                        raise GitFailed(Trouble.too_large)
                    measured = time.monotonic()
        return bytes(printed), bytes(said)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - GitPython opens both
    return pipe


@functools.cache
def _gitpython() -> type[Git]:
    """GitPython's `Git`. Importing it runs Git, so it waits until Git is wanted, on a thread."""
    try:
        from git.cmd import Git
    except ImportError:
        raise HostUnfit("there is no Git on this host; install the package git") from None
    return Git


def _git() -> str:
    program = shutil.which(_gitpython().GIT_PYTHON_GIT_EXECUTABLE or "git")
    if program is None:
        raise HostUnfit("there is no Git on this host; install the package git")
    return program


# Leashes: which process groups are ours, for the life after this one


@contextlib.contextmanager
def _leash(folder: Path) -> Iterator[Path]:
    leash = folder / f"sky-{secrets.token_hex(8)}.pid"
    leash.touch(mode=0o600, exist_ok=False)
    try:
        yield leash
    finally:
        leash.unlink(missing_ok=True)


def _kill_group(process: subprocess.Popen[bytes], leash: Path) -> None:
    """Kill a command that was not waited for yet, and return when all of its group are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with leash.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def end_orphans(folder: Path) -> int:
    """Kill commands that outlived their daemon, remove their leashes; how many there were. Blocks.

    A process group is killed only while its lock is held, so never one that got its number later.
    """
    ended = 0
    for leash in folder.glob("sky-*.pid"):
        with leash.open("r+b") as lock:
            while not _locks(lock):
                ended += 1 if _kill_told(lock) else 0
        leash.unlink()
    return ended


def _locks(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill_told(lock: IO[bytes]) -> bool:
    """Kill the group that the leash tells, and wait for it; False if it does not tell one yet."""
    lock.seek(0)
    told = lock.read(16).strip()
    if not told.isdigit():
        time.sleep(0.01)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(told), signal.SIGKILL)
    fcntl.flock(lock, fcntl.LOCK_EX)
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True
