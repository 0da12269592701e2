"""From a package and a call to a binary, by go commands in build jails (`gojail`).

A `Source`, a `Package` and a `Call` enter; the path of a binary leaves. One step has a network: if go.mod
requires modules that are not vendored, `go list -deps` fetches and verifies the ones that the package needs.
(`go mod download` would fetch what any package or test of the repository needs, and write to go.sum.) Where
modules are missing, the same is tried by the next way to them (`modules.Way`); a plain repository pays
nothing for that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import msgspec

from skyisland.errors import BadCall, BuildFailed, Complaint, SourceUnavailable
from skyisland.golang import catalogue, harness
from skyisland.golang.caches import Caches
from skyisland.golang.callee import NO_EXAMPLE
from skyisland.golang.complaints import add_reasons, explain, lfs_refusal, shown
from skyisland.golang.forms import Forms, next_form
from skyisland.golang.generated import BINARY, FLAGS, TARGET, completed, flags_of, generated
from skyisland.golang.gojail import GO, GoJail
from skyisland.golang.imports import import_paths, is_standard
from skyisland.golang.library import Library
from skyisland.golang.modules import Way, go_mod, language_of
from skyisland.golang.packages import Package, in_way, read_package
from skyisland.golang.parameters import parameter_names
from skyisland.golang.reasons import is_pointer, uses_lfs
from skyisland.host.toolchain import Toolchain
from skyisland.host.tree import Tree
from skyisland.jails.register import Jails
from skyisland.model import Call, Source
from skyisland.settings import Build

_EXPORT = (
    "-trimpath",
    "-buildvcs=false",
    "-export",
    "-json=Dir,ImportPath,Name,Export,GoFiles,TestGoFiles,XTestGoFiles",
)
"""`go list` compiles the package and tells its files."""
_TESTS = ("test", "-c", "-vet=off")
_PROGRAM = ("-o", f"/out/{BINARY}", ".")
"""The package itself, in place of a main program of ours."""
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
        self.library = Library(self._jail, caches)
        self._forms = Forms()

    @property
    def toolchain(self) -> Toolchain:
        return self._jail.toolchain

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
        try:
            output, ours = await self._list(
                (*question, "-f", _DESCRIBE % is_it, target),
                source,
                package,
                invocation,
                files=files,
                online=package.requires,
            )
        except BuildFailed as error:
            errors = error.details.get("output", "")
            if package.requires and _UNREACHABLE.search(errors):
                message = f"modules cannot be fetched from {self.settings.goproxy}"
                raise SourceUnavailable(message, output=errors) from error
            await asyncio.to_thread(add_reasons, error, source)
            raise
        import_path, name, files_, go_error = output.decode(errors="replace").split("\n", 3)
        if files_ == "0":
            message = explain(Complaint.no_go_files, go_error, source)
            refused = BuildFailed(message, complaint=Complaint.no_go_files)
            await asyncio.to_thread(add_reasons, refused, source)
            raise refused
        return msgspec.structs.replace(package, name=name, import_path=import_path, by_go=True, ours=ours)

    async def _list(
        self,
        question: tuple[str, ...],
        source: Source,
        package: Package,
        invocation: str | None,
        *,
        files: Mapping[str, bytes] = MappingProxyType({}),
        online: bool = False,
        program: tuple[str, ...] = (GO,),
    ) -> tuple[bytes, dict[str, bytes]]:
        """What `go list` answers, and our module's files as Go left them. `files`: a main program of ours."""
        async with self._workplace(generated(files, source, package), package.ours) as work:
            output = await self._go(
                *("list", *flags_of(package), *question),
                source=source,
                package=package,
                work=work,
                online=online,
                invocation=invocation,
                program=program,
            )
            return output, await asyncio.to_thread(completed, work / "out", package.ours)

    async def _refuse_pointers(self, source: Source, package: Package, invocation: str | None) -> None:
        """Refuse a package that embeds a file of which there is only a pointer of Git LFS: it would be taken
        for the file."""
        target = package.import_path if package.way is Way.dependency else "."
        question = ("-e", "-deps", "-f", _EMBEDDED, target)
        output, _ = await self._list(question, source, package, invocation)
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
        whole = call.is_program or call.is_examples
        verb, target = _TESTS if call.is_examples else ("build",), _PROGRAM if whole else TARGET
        imports = await asyncio.to_thread(import_paths, call, source, package)
        others = [path for path in imports.values() if not is_standard(path)]
        if others and package.requires:
            package = await self._with_modules_of(others, source, package, invocation)
        text = "" if whole else harness.compiled_text(call)
        form, refusals = await self._forms.of(source, text), []
        while True:
            files = {}
            if not whole:
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
            async with self._workplace(generated(files, source, package), package.ours) as work:
                try:
                    await self._go(
                        *(*verb, *flags_of(package), *FLAGS, *target),
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
                    binary = work / "out" / BINARY
                    if call.is_examples and not await asyncio.to_thread(binary.exists):
                        raise BuildFailed(NO_EXAMPLE)
                    yield binary
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
        question = ("-deps", "-f", "{{.Name}}", f"./{harness.FOLDER}")
        _, ours = await self._list(
            question, source, package, invocation, files={"main.go": main}, online=True
        )
        return msgspec.structs.replace(package, ours=ours)

    async def catalogue(
        self, source: Source, package: Package, *, invocation: str | None = None
    ) -> catalogue.Catalogue:
        """What a package offers; it is compiled for that, and with it what it imports.

        Raises:
            BuildFailed: it does not compile.
        """
        program = await self.library.cataloguer()
        most = str(min(catalogue.MOST_BYTES, self.settings.stdout))
        target = package.import_path if package.way is Way.dependency else "."
        output, _ = await self._list(
            (*_EXPORT, target),
            source,
            package,
            invocation,
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


def _first_pointer(tree: Tree, output: bytes) -> str:
    """The first file of the repository, of those in the output of `_EMBEDDED`, of which Git LFS keeps the
    content; empty if there is none. Blocks."""
    names = (line.removeprefix("/src/") for line in output.decode(errors="replace").splitlines())
    return next((name for name in names if not name.startswith("/") and is_pointer(tree, name)), "")
