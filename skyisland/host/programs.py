"""The host's own programs (zfs, jail, ifconfig …), run by their names with a plain environment. A program
that does not end with exit code 0 is an error.

Pure functions elsewhere make the argv, whose first word is a bare name.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.process import Process, run, spawn

SEARCH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
"""Where administrators' programs are on Debian and FreeBSD, whatever the daemon's own PATH is."""
ENVIRONMENT = {"PATH": SEARCH, "LC_ALL": "C", "HOME": "/nonexistent"}
"""LC_ALL: messages are matched with the texts in the programs' sources."""

AT_ONCE = 4
"""At most so many jails, clones and interfaces are made or taken away at a time, each by several programs.
Without a bound 60 cold calls at once kept the daemon's own answers waiting for 6 s, and took 39 s in place of
34 (an emulated FreeBSD 15.0)."""
LAST_WORDS = 500
"""So many characters of what a program printed stand for its reason, where its standard error has none."""


class ProgramFailed(DriverError):
    """A program ended with an exit code other than 0; `stderr` is what it wrote to its standard error,
    `printed` to its standard output."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str, printed: str = "") -> None:
        self.stderr = stderr
        self.printed = printed
        self.returncode = returncode
        command = " ".join(argv[:2])
        reason = stderr or printed[-LAST_WORDS:] or f"ended with {returncode} and said nothing"
        super().__init__(f"{command}: {reason}", program=argv[0], argv=list(argv), exit_code=returncode)


class Programs:
    """Runs programs by name; where each lies is looked up once."""

    def __init__(self, folder: Path | None = None, *, timeout_s: float = 60.0) -> None:
        """`folder`: the only one to look in, in place of `SEARCH`; tests have their stand-ins there."""
        self.folder = folder
        self.timeout_s = timeout_s
        self.places = asyncio.Semaphore(AT_ONCE)
        """Places for work that takes several programs; drivers that share the programs share them. Who holds
        one asks for no other."""
        self._paths: dict[str, str] = {}

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run the program; returns what it writes to its standard output.

        Raises:
            ProgramFailed: it did not end with 0; has its exit code and its own words.
            HostUnfit: there is no such program.
            DriverError: it takes too long, or writes too much.
        """
        words = [await self.find(argv[0]), *argv[1:]]
        limit_s = timeout_s or self.timeout_s
        done = await run(words, env={**ENVIRONMENT, **(env or {})}, timeout_s=limit_s, stdin=stdin)
        stderr = done.stderr.decode(errors="replace").strip()
        if done.timed_out:
            raise DriverError(f"{' '.join(argv[:2])} took more than {limit_s:g} s: {stderr}", argv=list(argv))
        if done.overflowed:
            raise DriverError(f"{' '.join(argv[:2])} writes too much", argv=list(argv))
        if done.returncode != 0:
            raise ProgramFailed(argv, done.returncode, stderr, done.stdout.decode(errors="replace").strip())
        return done.stdout.decode(errors="replace")

    async def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdout_bytes: int, stderr_bytes: int
    ) -> Process:
        """Start the program with pipes and exactly this environment."""
        words = [await self.find(argv[0]), *argv[1:]]
        return spawn(words, env=env, cwd="/", stdout_bytes=stdout_bytes, stderr_bytes=stderr_bytes)

    async def find(self, name: str) -> str:
        """The path of a program.

        Raises:
            HostUnfit: there is none of that name.
        """
        if name not in self._paths:
            folders = str(self.folder) if self.folder else SEARCH
            path = await asyncio.to_thread(shutil.which, name, path=folders)
            if path is None:
                raise HostUnfit(f"there is no {name}(8) in {folders}", program=name)
            self._paths[name] = path
        return self._paths[name]
