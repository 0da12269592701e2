"""Runs the go command in build jails.

A `Source`, a `Package` and a `Call` enter; the path of a binary leaves. A build jail is a jail like any
other: a clone of the base, no network, an unprivileged user. Its additional mounts:

    /usr/local/go  the toolchain                                 read-only
    /src           the checkout                                  read-only
    /gen           the generated main program and its overlay    read-only
    /std           the compiled standard library                 read-only
    /mod           modules                                       read-only, except in the step that fetches
    /cache         the compiled packages of this repository      writable
    /out           the binary, and our go.mod or go.work         writable, new for each build

No step runs code of a repository: there is no cgo, no `go generate`, no test, and the go command reads no
settings but the environment below. One step has a network: if go.mod requires modules that are not
vendored, `go list -deps` fetches and verifies the ones that the package needs. (`go mod download` would
fetch what any package or test of the repository needs, and write to go.sum.) Where modules are missing, the
same is tried by the next way to them (`modules.Way`); a plain repository pays nothing for that.

Should a repository take over the compiler all the same, it reaches files of its own repository only: each
has a cache of its own (`gocache/main.go` layers it over the shared standard library), and no compiler can
write to the shared modules.

Build jails share one host uid, because their caches outlive them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import posixpath
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import msgspec

from skyisland.errors import BuildFailed, Complaint, HostUnfit, SourceUnavailable, Unavailable
from skyisland.golang import catalogue, harness
from skyisland.golang.caches import Caches
from skyisland.golang.complaints import add_reasons, explain, lfs_refusal, refusal
from skyisland.golang.modules import GO_SUM_BYTES, Way, go_mod, language_of
from skyisland.golang.packages import Package, in_way, read_package
from skyisland.golang.parameters import parameter_names
from skyisland.golang.reasons import is_pointer, uses_lfs
from skyisland.host.flight import Flights
from skyisland.host.folder import copy_out
from skyisland.host.tasks import Progress, aside, finish, silent
from skyisland.host.toolchain import Toolchain
from skyisland.host.tree import Tree
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

FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
BINARY = "function"
_EXPORT = (
    "-trimpath",
    "-buildvcs=false",
    "-export",
    "-json=Dir,ImportPath,Name,Export,GoFiles,TestGoFiles,XTestGoFiles",
)
"""`go list` compiles the package and tells its files."""
_TARGET = ("-o", f"/out/{BINARY}", f"./{harness.FOLDER}")
_HELPER = resources.files("skyisland.golang").joinpath("gocache", "main.go")
_HELLO = b'package hello\n\nfunc Hello() string { return "hello" }\n'
HELPER_BYTES = 1 << 26
"""Largest binary of gocache. A judgement: it has 3 MB, and a build jail's file is not to be trusted."""
STEP = 20
"""Packages of the standard library per go command. A judgement: the progress bar moves every few seconds."""
LIBRARY_TIMEOUT_S = 1800.0
"""Time for one such command. A judgement: it takes seconds, on an emulated processor twenty times as long."""
_DESCRIBE = "{{if %s}}{{.ImportPath}}\n{{.Name}}\n{{len .GoFiles}}\n{{with .Error}}{{.Err}}{{end}}{{end}}"
"""`go list` prints four lines: import path, name, number of files, error."""
_EMBEDDED = "{{if not .Standard}}{{$dir := .Dir}}{{range .EmbedFiles}}{{$dir}}/{{.}}\n{{end}}{{end}}"
"""`go list` prints the path of each file that is embedded."""
_UNREACHABLE = re.compile(
    r"dial tcp|i/o timeout|TLS handshake|connection re|no such host|\b5\d\d [A-Z]|: EOF"
)


class Compiler:
    """Compiles functions. Each go command runs in a build jail of its own."""

    def __init__(self, settings: Build, jails: Jails, caches: Caches, *, timeout_s: float) -> None:
        self.settings = settings
        self.jails = jails
        self.caches = caches
        self.timeout_s = timeout_s
        self.toolchain = Toolchain(Path(), "")
        self._cataloguer: Flights[None] = Flights()
        self._compiled = 0
        """How many packages of the standard library `compile_library` has compiled."""

    # Preparing the toolchain

    async def prepare(
        self, toolchain: Toolchain, progress: Progress = silent, *, whole: bool = False
    ) -> None:
        """Compile the part of the standard library that every build needs, or with `whole` all of it.

        Once per toolchain. If it is interrupted, the next call continues there.

        Raises:
            HostUnfit: this toolchain does not work here; the message has its output.
        """
        self.toolchain = toolchain
        await asyncio.to_thread(self.caches.prepare, toolchain.version)
        self._compiled = 0
        helper = self.caches.helper / "gocache"
        ready_mark = self.caches.home / f"ready-{await asyncio.to_thread(_hash_of_own_sources)}"
        try:
            if not await asyncio.to_thread(lambda: helper.exists() and ready_mark.exists()):
                progress("compiling what every build needs", 0, 0)
                await self._compile_hello()
                helper_sources = {"main.go": await asyncio.to_thread(_HELPER.read_bytes)}
                await self._compile_program(helper_sources, helper)
                await asyncio.to_thread(ready_mark.touch)
            if whole:
                await self.compile_library(progress)
        except (BuildFailed, Unavailable) as error:
            output = error.details.get("output", "")
            raise HostUnfit(
                f"{toolchain.version} of {toolchain.goroot} does not work in a jail: {error.message} {output}"
            ) from error

    async def _compile_hello(self) -> None:
        """Compile a call in both forms, so that the shared cache has what main programs import."""
        name, call = "sky.example/hello", Call(text="Hello()", function="Hello", arguments=())
        package = {"go.mod": go_mod(name, language_of(self.toolchain.version)).encode(), "hello.go": _HELLO}
        for form in (call, harness.as_expression(call)):
            main = harness.render_main(form, name, "hello", statement=False)
            files = {f"{harness.FOLDER}/{file}": data for file, data in main.items()}
            files = {**package, **files, **_with_overlay({})}
            async with self._workplace(files) as work:
                await self._go(
                    *("build", "-overlay=/gen/overlay.json", *FLAGS, *_TARGET),
                    work=work, shared=True, cwd="/gen",
                )  # fmt: skip

    async def _compile_program(self, files: dict[str, bytes], target: Path) -> None:
        """Compile a program of ours that runs in build jails."""
        async with self._workplace(files) as work:
            output = ("-o", f"/out/{BINARY}")
            await self._go("build", *FLAGS, *output, *files, work=work, shared=True, cwd="/gen")
            await asyncio.to_thread(copy_out, work / "out" / BINARY, target, HELPER_BYTES)

    async def _prepare_cataloguer(self) -> Path:
        """The program that tells what packages offer. The first who needs it has it compiled: with the parser
        and the type checker of Go, that takes as long as all that every build needs."""
        program = await asyncio.to_thread(lambda: self.caches.helper / f"catalogue-{catalogue.version()}")

        async def compile_it() -> None:
            await self._compile_program(await asyncio.to_thread(catalogue.sources), program)

        if not await asyncio.to_thread(program.exists):
            await self._cataloguer.join(program, compile_it)
        return program

    async def compile_library(self, progress: Progress = silent, *, gently: bool = False) -> None:
        """Compile all of the standard library, and what tells what packages offer; nothing, if that is done.

        If it is interrupted, the next call continues there. `gently`: on one processor.

        Raises:
            BuildFailed, Unavailable: as `_go`.
        """
        whole_mark = self.caches.home / "whole"
        if not await asyncio.to_thread(whole_mark.exists):
            await self._compile_standard_library(progress, gently=gently)
            await self._prepare_cataloguer()
            await asyncio.to_thread(whole_mark.touch)

    async def _compile_standard_library(self, progress: Progress, *, gently: bool) -> None:
        # Packages without Go files are for tests or other systems; internal ones come with their users.
        output = await self._go("list", "-f", "{{if .GoFiles}}{{.ImportPath}}{{end}}", "std", shared=True)
        names = [name for name in output.decode().split() if not {"internal", "vendor"} & {*name.split("/")}]
        for start in range(self._compiled, len(names), STEP):
            progress("compiling the standard library", start, len(names))
            await self._go("build", "-trimpath", *names[start : start + STEP], shared=True, gently=gently)
            self._compiled = start + STEP
        progress("compiling the standard library", len(names), len(names))

    # The steps of a build

    async def describe(
        self, source: Source, *, ask: bool, way: Way | None = None, invocation: str | None = None
    ) -> Package:
        """Describe the package in the source's folder, with its modules by the first way that there is from
        `way` on.

        Its files decide if they are plain (`read_package`), else the go command; with `ask`, always the go
        command. If the package needs modules, the same step fetches them: it has a network and compiles
        nothing.

        Raises:
            BuildFailed: there is no package to import, or go.mod, go.sum and the proxy do not agree.
            SourceUnavailable: the proxy did not answer.
        """
        package = await asyncio.to_thread(self._read, source, way)
        if package.name == "main":
            raise BuildFailed(explain(Complaint.program, "", source), complaint=Complaint.program)
        while not package.name or package.requires or ask:
            try:
                package = await self._ask(source, package, invocation)
                break
            except BuildFailed as error:
                if error.complaint is not Complaint.missing_module or package.next_way is None:
                    raise
            package = await asyncio.to_thread(self._read, source, package.next_way)
        if await asyncio.to_thread(uses_lfs, Tree(source.checkout), source.package):
            await self._refuse_pointers(source, package, invocation)
        return package

    def _read(self, source: Source, way: Way | None) -> Package:
        package = read_package(source, self.toolchain.version)
        return in_way(way or package.ways[0], package, source, self.toolchain.version)

    def in_later_language(self, package: Package) -> Package | None:
        """The same package in the toolchain's own language, if it has no go.mod that tells another. Its users
        get that of `NO_GO_LINE`, in which it does not compile for any of them."""
        language = language_of(self.toolchain.version)
        later = package.go_mod and go_mod(package.module, language)
        return None if later in (None, package.go_mod) else msgspec.structs.replace(package, go_mod=later)

    async def _ask(self, source: Source, package: Package, invocation: str | None) -> Package:
        """What the go command says of a package; the modules that it needs are fetched."""
        question = ("-deps",) if package.requires else ("-find", "-e")
        is_it, target, files = "not .DepOnly", ".", {}
        if package.way is Way.dependency:
            # Go makes our go.mod complete for what our main program imports, and for that alone.
            is_it, target = f'eq .ImportPath "{package.import_path}"', f"./{harness.FOLDER}"
            files = {
                "main.go": f'package main\n\nimport _ "{package.import_path}"\n\nfunc main() {{}}\n'.encode()
            }
        async with self._workplace(_generated(files, source, package), package.ours) as work:
            try:
                output = await self._go(
                    *("list", *_flags(package), *question, "-f", _DESCRIBE % is_it, target),
                    source=source,
                    package=package,
                    work=work,
                    online=package.requires,
                    invocation=invocation,
                )
            except BuildFailed as error:
                errors = error.details.get("output", "")
                if package.requires and _UNREACHABLE.search(errors):
                    message = f"modules cannot be fetched from {self.settings.goproxy}"
                    raise SourceUnavailable(message, output=errors) from error
                await asyncio.to_thread(add_reasons, error, source)
                raise
            ours = await asyncio.to_thread(_completed, work / "out", package.ours)
        import_path, name, files_, go_error = output.decode(errors="replace").split("\n", 3)
        if name == "main":
            raise BuildFailed(explain(Complaint.program, "", source), complaint=Complaint.program)
        if files_ == "0":
            message = explain(Complaint.no_go_files, go_error, source)
            refused = BuildFailed(message, complaint=Complaint.no_go_files)
            await asyncio.to_thread(add_reasons, refused, source)
            raise refused
        return msgspec.structs.replace(package, name=name, import_path=import_path, by_go=True, ours=ours)

    async def _refuse_pointers(self, source: Source, package: Package, invocation: str | None) -> None:
        """Refuse a package that embeds a file of which there is only a pointer of Git LFS: it would be taken
        for the file."""
        target = package.import_path if package.way is Way.dependency else "."
        async with self._workplace(_generated({}, source, package), package.ours) as work:
            output = await self._go(
                *("list", "-e", *_flags(package), "-deps", "-f", _EMBEDDED, target),
                source=source,
                package=package,
                work=work,
                invocation=invocation,
            )
        if pointer := await asyncio.to_thread(_first_pointer, Tree(source.checkout), output):
            raise BuildFailed(lfs_refusal(source, pointer), complaint=Complaint.package)

    @asynccontextmanager
    async def compile(
        self, source: Source, package: Package, call: Call, *, invocation: str | None = None
    ) -> AsyncIterator[Path]:
        """Compile the call. The binary exists while the block runs; nothing about the file can be trusted.

        An expression that turns out to have no value is compiled as a statement.

        Raises:
            BuildFailed: it does not compile.
            Unavailable: it takes more time than one try has.
            BadCall: the caller named another package.
        """
        parameters = await asyncio.to_thread(parameter_names, source, call.function)
        for statement in (False, True):
            files = harness.render_main(
                call, package.import_path, package.name, statement=statement, parameters=parameters
            )
            async with self._workplace(_generated(files, source, package), package.ours) as work:
                try:
                    await self._go(
                        *("build", *_flags(package), *FLAGS, *_TARGET),
                        source=source,
                        package=package,
                        work=work,
                        invocation=invocation,
                        call=call,
                    )
                except BuildFailed as error:
                    if statement or error.complaint is not Complaint.no_value:
                        await asyncio.to_thread(add_reasons, error, source)
                        raise
                else:
                    yield work / "out" / BINARY
                    return

    async def catalogue(
        self, source: Source, package: Package, *, invocation: str | None = None
    ) -> catalogue.Catalogue:
        """What a package offers; it is compiled for that, and with it what it imports.

        Raises:
            BuildFailed: it does not compile.
        """
        program = await self._prepare_cataloguer()
        most = str(min(catalogue.MOST_BYTES, self.settings.stdout))
        target = package.import_path if package.way is Way.dependency else "."
        async with self._workplace(_generated({}, source, package), package.ours) as work:
            output = await self._go(
                *("list", *_flags(package), *_EXPORT, target),
                source=source,
                package=package,
                work=work,
                invocation=invocation,
                program=(f"/helper/{program.name}", most, GO),
            )
        return await asyncio.to_thread(catalogue.read, output)

    # One jail

    @asynccontextmanager
    async def _workplace(
        self, files: dict[str, bytes], changing: Mapping[str, bytes] = MappingProxyType({})
    ) -> AsyncIterator[Path]:
        """A folder with the generated files in `gen`, and in `out` those that Go may change. It is always
        removed after the block."""
        making = asyncio.ensure_future(asyncio.to_thread(self.caches.work_folder, files, changing))
        try:
            yield await finish(making)
        finally:
            await aside(shutil.rmtree, making.result(), ignore_errors=True)

    async def _go(
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
            limit, timeout_s = "half an hour", LIBRARY_TIMEOUT_S
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
            if package is not None and package.way is Way.workspace:
                env["GOWORK"] = "/src/go.work" if package.mod == "vendor" else "/out/go.work"
            if package is not None and package.way is Way.dependency:
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
                message = (
                    f"the build took longer than {limit} ({timeout_s:g} s); what it has compiled is kept"
                )
                raise Unavailable(f"{message}: call again, and it goes on from there", retry_after_s=1)
        raise refusal(outcome, source, f"{limit} ({timeout_s:g} s)")

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


def _flags(package: Package) -> tuple[str, ...]:
    """Where Go finds modules and generated files."""
    own = ("-modfile=/out/go.mod",) if package.way is Way.dependency else ()
    return (f"-mod={package.mod}", *own, "-overlay=/gen/overlay.json")


def _generated(files: Mapping[str, bytes], source: Source, package: Package) -> dict[str, bytes]:
    """The files of /gen: the main program, a go.mod where the repository has none, one of our own where it is
    a dependency, the harness, the overlay."""
    depends = package.way is Way.dependency
    home = posixpath.join("/gen" if depends else f"/src/{source.package}", harness.FOLDER)
    by_path = {f"{home}/{name}": data for name, data in files.items()}
    if package.go_mod is not None:
        by_path["/src/go.mod"] = package.go_mod.encode()
    # This go.mod shows where our module is. What is in it is read from /out (-modfile).
    return _with_overlay(by_path) | ({"go.mod": b"module skyisland.call\n"} if depends else {})


def _completed(out: Path, ours: Mapping[str, bytes]) -> dict[str, bytes]:
    """Our module's files as Go has left them in /out, each with its file of sums. Blocks."""
    tree, completed = Tree(out), {}
    for name in ours.keys() | ({"go.sum"} if "go.mod" in ours else set()):
        completed[name] = tree.read(name, GO_SUM_BYTES) or b""
    return completed


def _first_pointer(tree: Tree, output: bytes) -> str:
    """The first file of the repository, of those in the output of `_EMBEDDED`, of which Git LFS keeps the
    content; empty if there is none. Blocks."""
    names = (line.removeprefix("/src/") for line in output.decode(errors="replace").splitlines())
    return next((name for name in names if not name.startswith("/") and is_pointer(tree, name)), "")


def _hash_of_own_sources() -> str:
    """A hash of our Go code that `prepare` compiles. Blocks."""
    return hashlib.sha256(harness.version().encode() + _HELPER.read_bytes()).hexdigest()[:16]


def _with_overlay(by_path: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of /gen: these, the harness, and an overlay.json that puts each where Go expects it.

    `by_path`: contents by the path at which Go shall see them.
    """
    names = {path: posixpath.basename(path) for path in by_path}
    generated = {names[path]: data for path, data in by_path.items()}
    for name, data in harness.library().items():
        names[f"/usr/local/go/src/{harness.LIBRARY}/{name}"] = f"library/{name}"
        generated[f"library/{name}"] = data
    overlay = {path: f"/gen/{name}" for path, name in names.items()}
    return {**generated, "overlay.json": json.dumps({"Replace": overlay}).encode()}
