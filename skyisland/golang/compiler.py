"""From a package and a call to a binary, by go commands in build jails (`gojail`).

A `Source`, a `Package` and a `Call` enter; the path of a binary leaves. One step has a network: if go.mod
requires modules that are not vendored, `go list -deps` fetches and verifies the ones that the package needs.
(`go mod download` would fetch what any package or test of the repository needs, and write to go.sum.) Where
modules are missing, the same is tried by the next way to them (`modules.Way`); a plain repository pays
nothing for that.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import posixpath
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import msgspec

from skyisland.errors import BadCall, BuildFailed, Complaint, HostUnfit, SourceUnavailable, Unavailable
from skyisland.golang import catalogue, harness
from skyisland.golang.caches import Caches
from skyisland.golang.complaints import add_reasons, explain, lfs_refusal, shown
from skyisland.golang.forms import Forms, next_form
from skyisland.golang.gojail import GO, GoJail
from skyisland.golang.imports import import_paths, is_standard
from skyisland.golang.modules import GO_SUM_BYTES, Way, go_mod, language_of
from skyisland.golang.packages import Package, in_way, read_package
from skyisland.golang.parameters import parameter_names
from skyisland.golang.reasons import is_pointer, uses_lfs
from skyisland.host.flight import Flights
from skyisland.host.folder import copy_out
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchain
from skyisland.host.tree import Tree
from skyisland.jails.register import Jails
from skyisland.model import Call, Source
from skyisland.settings import Build

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
_PROGRAM = ("-o", f"/out/{BINARY}", ".")
"""The package itself, in place of a main program of ours."""
_HELPER = resources.files("skyisland.golang").joinpath("gocache", "main.go")
_HELLO = b'package hello\n\nfunc Hello() string { return "hello" }\n'
HELPER_BYTES = 1 << 26
"""Largest binary of gocache. A judgement: it has 3 MB, and a build jail's file is not to be trusted."""
STEP = 20
"""Packages of the standard library per go command. A judgement: the progress bar moves every few seconds."""
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
        self.caches = caches
        self._jail = GoJail(settings, jails, caches, timeout_s=timeout_s)
        self._go, self._workplace = self._jail.go, self._jail.workplace
        self._cataloguer: Flights[None] = Flights()
        self._compiled = 0
        """How many packages of the standard library `compile_library` has compiled."""
        self._forms = Forms()

    @property
    def toolchain(self) -> Toolchain:
        return self._jail.toolchain

    # Preparing the toolchain

    async def prepare(
        self, toolchain: Toolchain, progress: Progress = silent, *, whole: bool = False
    ) -> None:
        """Compile the part of the standard library that every build needs, or with `whole` all of it.

        Once per toolchain. If it is interrupted, the next call continues there.

        Raises:
            HostUnfit: this toolchain does not work here; the message has its output.
        """
        self._jail.toolchain = toolchain
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
            main = harness.render_main(form, name, "hello")
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

    @property
    def _cataloguer_path(self) -> Path:
        return self.caches.helper / f"catalogue-{catalogue.version()}"

    async def has_cataloguer(self) -> bool:
        """Whether a catalogue takes no longer than a build: its program is compiled, or all that it needs."""
        whole_mark = self.caches.home / "whole"
        return await asyncio.to_thread(lambda: self._cataloguer_path.exists() or whole_mark.exists())

    async def _prepare_cataloguer(self) -> Path:
        """The program that tells what packages offer. The first who needs it has it compiled: with the parser
        and the type checker of Go, that takes as long as all that every build needs."""
        program = await asyncio.to_thread(lambda: self._cataloguer_path)

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
        self,
        source: Source,
        *,
        ask: bool,
        way: Way | None = None,
        program: bool = False,
        invocation: str | None = None,
    ) -> Package:
        """Describe the package in the source's folder, with its modules by the first way that there is from
        `way` on.

        Its files decide if they are plain (`read_package`), else the go command; with `ask`, always the go
        command. If the package needs modules, the same step fetches them: it has a network and compiles
        nothing. `program`: it shall be one that can be run, not one to import.

        Raises:
            BadCall: it is no program.
            BuildFailed: there is no package to import, or go.mod, go.sum and the proxy do not agree.
            SourceUnavailable: the proxy did not answer.
        """
        package = await asyncio.to_thread(self._read, source, way, program)
        _check_kind(package, source, program)
        while not package.name or package.requires or ask:
            try:
                package = await self._ask(source, package, invocation)
                break
            except BuildFailed as error:
                if error.complaint is not Complaint.missing_module or package.next_way is None:
                    raise
            package = await asyncio.to_thread(self._read, source, package.next_way, program)
        _check_kind(package, source, program)
        if await asyncio.to_thread(uses_lfs, Tree(source.checkout), source.package):
            await self._refuse_pointers(source, package, invocation)
        return package

    def _read(self, source: Source, way: Way | None, program: bool) -> Package:
        package = read_package(source, self.toolchain.version)
        if program:  # nothing can depend on it
            ways = tuple(one for one in package.ways if one is not Way.dependency)
            package = msgspec.structs.replace(package, ways=ways)
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

        What Go says of one form of it decides on the next (`golang.forms`). The package is compiled by then,
        so that each costs little.

        Raises:
            BuildFailed: it does not compile.
            Unavailable: it takes more time than one try has.
            BadCall: the caller named another package, or one that is not there.
        """
        parameters = await asyncio.to_thread(parameter_names, source, call.function)
        target = _PROGRAM if call.is_program else _TARGET
        imports = await asyncio.to_thread(import_paths, call, source, package)
        others = [path for path in imports.values() if not is_standard(path)]
        if others and package.requires:
            package = await self._with_modules_of(others, source, package, invocation)
        text = "" if call.is_program else harness.compiled_text(call)
        form, refusals = await self._forms.of(source, text), []
        while True:
            files = {}
            if not call.is_program:
                files = harness.render_main(
                    call,
                    package.import_path,
                    package.name,
                    form=form,
                    imports=imports,
                    parameters=parameters,
                )
                # Whatever Go changed since its module's go line is as for a caller who imports it today.
                language = language_of(self.toolchain.version)
                files["debug.go"] = f"//go:debug default=go{language}\n\npackage main\n".encode()
            async with self._workplace(_generated(files, source, package), package.ours) as work:
                try:
                    await self._go(
                        *("build", *_flags(package), *FLAGS, *target),
                        source=source,
                        package=package,
                        work=work,
                        invocation=invocation,
                        call=call,
                    )
                except BuildFailed as error:
                    refusals.append(error)
                else:
                    await self._forms.learn(source, text, form)
                    yield work / "out" / BINARY
                    return
            try:
                form = await next_form(form, text, refusals)
            except BuildFailed as error:
                await asyncio.to_thread(add_reasons, error, source)
                raise

    async def _with_modules_of(
        self, others: list[str], source: Source, package: Package, invocation: str | None
    ) -> Package:
        """The package with the modules fetched that other packages of its module need."""
        imports = "".join(f'import _ "{path}"\n' for path in (package.import_path, *others))
        main = f"package main\n\n{imports}\nfunc main() {{}}\n".encode()
        async with self._workplace(_generated({"main.go": main}, source, package), package.ours) as work:
            await self._go(
                *("list", *_flags(package), "-deps", "-f", "{{.Name}}", f"./{harness.FOLDER}"),
                source=source,
                package=package,
                work=work,
                online=True,
                invocation=invocation,
            )
            ours = await asyncio.to_thread(_completed, work / "out", package.ours)
        return msgspec.structs.replace(package, ours=ours)

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


def _check_kind(package: Package, source: Source, program: bool) -> None:
    """Refuse a program where a package to import is wanted, and the other way round; an unknown one passes.

    Raises:
        BadCall, BuildFailed
    """
    is_program = package.name == "main"
    if not package.name or is_program is program:
        return
    if is_program:
        raise BuildFailed(explain(Complaint.program, "", source), complaint=Complaint.program)
    message = f"call: names no function, and {shown(source)} is no program; name a function of {package.name}"
    raise BadCall(message, position=0)


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
