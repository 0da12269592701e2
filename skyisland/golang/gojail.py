"""Runs the go command in build jails.

A build jail is a jail like any other: a clone of the base, no network, an unprivileged user. Its additional
mounts:

    /usr/local/go  the toolchain                                 read-only
    /src           the checkout                                  read-only
    /gen           the generated main program and its overlay    read-only
    /std           the compiled standard library                 read-only
    /mod           modules                                       read-only, except in the step that fetches
    /cache         the compiled packages of this repository      writable
    /out           the binary, and our go.mod or go.work         writable, new for each build

No step runs code of a repository: there is no cgo, no `go generate`, no test, and the go command reads no
settings but the environment below. Only the step that fetches modules has a network.

Should a repository take over the compiler all the same, it reaches files of its own repository only: each
has a cache of its own (`gocache/main.go` layers it over the shared standard library), and no compiler can
write to the shared modules.

Build jails share one host uid, because their caches outlive them.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from skyisland.errors import SourceUnavailable, Unavailable
from skyisland.golang.caches import Caches
from skyisland.golang.complaints import refusal
from skyisland.golang.modules import Way
from skyisland.golang.packages import Package
from skyisland.host.tasks import aside, finish
from skyisland.host.toolchain import Toolchain
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Call, Mount, NetworkAccess, Purpose, Source, Verdict
from skyisland.settings import Build

GO = "/usr/local/go/bin/go"
ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOAUTH": "off",
    "GOCACHE": "/tmp/gocache",  # noqa: S108 - the jail's own, and unused where GOCACHEPROG is set
    "GODEBUG": "",
    "GOENV": "off",
    "GOEXPERIMENT": "",
    "GOFLAGS": "",
    "GOMODCACHE": "/mod",
    "GOPATH": "/nonexistent",
    "GOPROXY": "off",
    "GOROOT": "/usr/local/go",
    "GOTOOLCHAIN": "local",
    "GOVCS": "*:off",
    "GOWORK": "off",
    "HOME": "/nonexistent",
    "TMPDIR": "/tmp",  # noqa: S108 - the jail's own
}
"""The whole environment of the go command. Without a home it keeps no telemetry."""

LIBRARY_TIMEOUT_S = 1800.0
"""Time for one such command. A judgement: it takes seconds, on an emulated processor twenty times as long."""


class GoJail:
    """Makes a jail for each go command. Before, `toolchain` is set."""

    def __init__(self, settings: Build, jails: Jails, caches: Caches, *, timeout_s: float) -> None:
        """`timeout_s`: for one compilation."""
        self.settings = settings
        self.jails = jails
        self.caches = caches
        self.timeout_s = timeout_s
        self.toolchain = Toolchain(Path(), "")

    @asynccontextmanager
    async def workplace(
        self, files: dict[str, bytes], changing: Mapping[str, bytes] = MappingProxyType({})
    ) -> AsyncIterator[Path]:
        """A folder with the generated files in `gen`, and in `out` those that Go may change. It is always
        removed after the block."""
        making = asyncio.ensure_future(asyncio.to_thread(self.caches.work_folder, files, changing))
        try:
            yield await finish(making)
        finally:
            await aside(shutil.rmtree, making.result(), ignore_errors=True)

    async def go(
        self,
        *arguments: str,
        source: Source | None = None,
        package: Package | None = None,
        work: Path | None = None,
        shared: bool = False,
        online: bool = False,
        gently: bool = False,
        cwd: str = "/",
        invocation: str | None = None,
        call: Call | None = None,
        program: tuple[str, ...] = (GO,),
    ) -> bytes:
        """Run the go command in a build jail; return its standard output.

        `program`: what is run in its place, with the same arguments.

        `source`: the checkout that the jail sees. `package`: of it; it decides on the working directory.
        `work`: the folder with `gen` and `out`. `shared`: it compiles into the shared cache; no repository's
        code may be in that jail. `online`: it has the host's network and may fetch modules; it must compile
        nothing. `gently`: one processor is enough. `invocation` and `call`: shown to operators beside the
        jail.

        Raises:
            BuildFailed: it failed, or passed a limit.
            Unavailable: the operator killed the jail, or the time is up and something was compiled meanwhile:
                it is not tried again from the start.
            SourceUnavailable: the time to fetch modules is up.
        """
        mounts = [
            Mount(self.toolchain.goroot, "/usr/local/go"),
            Mount(self.caches.std, "/std", writable=shared),
        ]
        env = dict(ENVIRONMENT)
        limit, timeout_s = "jails.build_timeout", self.timeout_s
        started_at, cache = time.time(), None
        if work is not None:
            mounts += (Mount(work / "gen", "/gen"), Mount(work / "out", "/out", writable=True))
        if shared:
            env["GOCACHE"] = "/std"
            timeout_s = LIBRARY_TIMEOUT_S
        if gently:
            env["GOMAXPROCS"] = "1"
        if online:
            mounts += self._proxies()
            env |= self._module_environment()
            limit, timeout_s = "build.download_timeout", self.settings.download_timeout
        async with AsyncExitStack() as stack:
            if source is not None:
                cache = await stack.enter_async_context(self.caches.of(source.compiled_in, downloads=online))
                mounts += (
                    Mount(source.checkout, "/src"),
                    Mount(self.caches.modules, "/mod", writable=online),
                    Mount(self.caches.helper, "/helper"),
                    Mount(cache, "/cache", writable=True),
                )
                env["GOCACHEPROG"] = "/helper/gocache /std /cache"
                cwd = posixpath.join("/src", source.package)
            if package is not None:
                env["GOWORK"] = package.go_work
                if package.way is Way.dependency:
                    cwd = "/gen"
            inmate = await stack.enter_async_context(
                self.jails.jail(
                    JailOrder(
                        argv=(*program, *arguments),
                        purpose=Purpose.build,
                        mounts=tuple(mounts),
                        env=tuple(env.items()),
                        cwd=cwd,
                        limits=self.settings.as_limits(),
                        network=NetworkAccess.host if online else NetworkAccess.none,
                        invocation=invocation,
                        call=call.text if call else "",
                        uid=self.caches.uid,
                    )
                )
            )
            outcome = await inmate.converse(b"", timeout_s)
        if outcome.verdict is Verdict.ok:
            return outcome.stdout
        if outcome.verdict is Verdict.timed_out and cache is not None:
            if online:
                message = f"modules did not arrive within {limit} ({timeout_s:g} s); those that did are kept"
                raise SourceUnavailable(message)
            if await asyncio.to_thread(self.caches.written_since, cache, started_at):
                message = f"the build took longer than the {timeout_s:g} s that this island gives one"
                kept = "what it has compiled is kept: call again, and it goes on from there"
                raise Unavailable(f"{message}; {kept}", retry_after_s=1)
        raise refusal(outcome, source, self.settings.as_limits(), timeout_s, limit)

    def _module_environment(self) -> dict[str, str]:
        """The go command's environment in a step that fetches modules."""
        return {
            "GOFLAGS": "-modcacherw",
            "GOPROXY": self.settings.goproxy,
            "GOSUMDB": self.settings.gosumdb,
            "GONOPROXY": self.settings.gonoproxy,
            "GONOSUMDB": self.settings.gonosumdb,
        }

    def _proxies(self) -> list[Mount]:
        """Mounts of the folders that `build.goproxy` names by file URLs."""
        folders = re.findall(r"file://([^,|]+)", self.settings.goproxy)
        return [Mount(Path(folder), folder) for folder in folders]
