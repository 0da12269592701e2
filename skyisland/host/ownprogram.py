"""A program of our own that root executes: the island's toolchain compiles it, once for each version of the
toolchain and of the source.

That compiles Go's standard library into a build cache, to which only the island can write. If the build
jails have no library cache yet, this one becomes theirs, so that they need not compile the library again.
Never the other way round: nothing that a build jail could write to gets into a program that root executes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import ClassVar

from skyisland.errors import DriverError, HostUnfit
from skyisland.host.process import run
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchain, Toolchains, this_platform

COMPILE_TIMEOUT_S = 1800.0
"""It took 18 s on two busy cores, what it needs of the standard library included; on an emulated machine Go's
runtime alone took more than five minutes."""
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


class OwnProgram:
    """A program whose source lies in the folder `launcher` of a package, compiled when it is first needed."""

    package: ClassVar[str]
    """The package that has the source."""
    flags: ClassVar[tuple[str, ...]]
    """Of `go build`."""
    remedy: ClassVar[str]
    """What an operator can do where it cannot be compiled."""

    def __init__(
        self,
        folder: Path,
        toolchains: Toolchains,
        *,
        library: Path | None = None,
        uid: int = 0,
        progress: Progress = silent,
        source: Callable[[], dict[str, bytes]] | None = None,
    ) -> None:
        """`folder`: of the program. `library`: Go's build caches of the build jails, in a folder per version
        of the toolchain; `uid`: the owner of a cache that we put there. `source`: other source files, name →
        content."""
        self.folder = folder
        self.toolchains = toolchains
        self.library = library
        self.uid = uid
        self.progress = progress
        self.source = source or self._source

    def _source(self) -> dict[str, bytes]:
        folder = resources.files(self.package).joinpath("launcher")
        names = (file.name for file in folder.iterdir() if file.name.endswith((".go", ".s", ".mod")))
        return {name: folder.joinpath(name).read_bytes() for name in sorted(names)}

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
        inputs = (toolchain.version, this_platform(), self.flags, sorted(source.items()))
        return self.folder / f"sky-launcher-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]}"

    async def _compile(self, toolchain: Toolchain) -> Path:
        work = await asyncio.to_thread(self._make_work_folder)
        try:
            go = toolchain.goroot / "bin" / "go"
            env = {**ENVIRONMENT, "GOROOT": str(toolchain.goroot), "GOCACHE": str(work / "cache")}
            compiled = await run(
                [go, "build", *self.flags, "-o", str(work / "made"), "."],
                env={**env, "TMPDIR": str(work)},
                cwd=work / "source",
                timeout_s=COMPILE_TIMEOUT_S,
            )
            if compiled.returncode != 0:
                output = (compiled.stderr or compiled.stdout).decode(errors="replace").strip()
                raise HostUnfit(
                    f"{toolchain.version} cannot compile the launcher of jails: {output}; {self.remedy}"
                )
            return await asyncio.to_thread(self._keep, work, toolchain)
        except DriverError as error:
            raise HostUnfit(
                f"cannot compile the launcher of jails: {error.message}; {self.remedy}"
            ) from error
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
            if not _lives(int(other.name.split("-")[2])):
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


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
