"""What every build needs, compiled once per toolchain: the standard library, and our programs for the jail.

A go command of its own compiles each part in a build jail (`gojail`), into the cache that all builds read.
What was interrupted continues where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from importlib import resources
from pathlib import Path

from skyisland.errors import BuildFailed, HostUnfit, Unavailable
from skyisland.golang import catalogue, harness
from skyisland.golang.caches import Caches
from skyisland.golang.generated import BINARY, FLAGS, TARGET, with_overlay
from skyisland.golang.gojail import GoJail
from skyisland.golang.modules import go_mod, language_of
from skyisland.host.flight import Flights
from skyisland.host.folder import copy_out
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchain
from skyisland.model import Call

_HELPER = resources.files("skyisland.golang").joinpath("gocache", "main.go")
_HELLO = b'package hello\n\nfunc Hello() string { return "hello" }\n'
HELPER_BYTES = 1 << 26
"""Largest binary of gocache. A judgement: it has 3 MB, and a build jail's file is not to be trusted."""
STEP = 20
"""Packages of the standard library per go command. A judgement: the progress bar moves every few seconds."""


class Library:
    """The standard library as builds find it. `prepare` comes first."""

    def __init__(self, jail: GoJail, caches: Caches) -> None:
        self.caches = caches
        self._jail, self._go = jail, jail.go
        self._cataloguer: Flights[None] = Flights()
        self._compiled = 0
        """How many packages of the standard library `compile_all` has compiled."""

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
                await self.compile_all(progress)
        except (BuildFailed, Unavailable) as error:
            output = error.details.get("output", "")
            raise HostUnfit(
                f"{toolchain.version} of {toolchain.goroot} does not work in a jail: {error.message} {output}"
            ) from error

    async def _compile_hello(self) -> None:
        """Compile a call in both forms, so that the shared cache has what main programs import."""
        name, call = "sky.example/hello", Call(text="Hello()", function="Hello", arguments=())
        package = {
            "go.mod": go_mod(name, language_of(self._jail.toolchain.version)).encode(),
            "hello.go": _HELLO,
        }
        for form in (call, harness.as_expression(call)):
            main = harness.render_main(form, name, "hello")
            files = {f"{harness.FOLDER}/{file}": data for file, data in main.items()}
            files = {**package, **files, **with_overlay({})}
            async with self._jail.workplace(files) as work:
                await self._go(
                    *("build", "-overlay=/gen/overlay.json", *FLAGS, *TARGET),
                    work=work, shared=True, cwd="/gen",
                )  # fmt: skip

    async def _compile_program(self, files: dict[str, bytes], target: Path) -> None:
        """Compile a program of ours that runs in build jails."""
        async with self._jail.workplace(files) as work:
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

    async def cataloguer(self) -> Path:
        """The program that tells what packages offer. The first who needs it has it compiled: with the parser
        and the type checker of Go, that takes as long as all that every build needs."""
        program = await asyncio.to_thread(lambda: self._cataloguer_path)

        async def compile_it() -> None:
            await self._compile_program(await asyncio.to_thread(catalogue.sources), program)

        if not await asyncio.to_thread(program.exists):
            await self._cataloguer.join(program, compile_it)
        return program

    async def compile_all(self, progress: Progress = silent, *, gently: bool = False) -> None:
        """Compile all of the standard library, and what tells what packages offer; nothing, if that is done.

        If it is interrupted, the next call continues there. `gently`: on one processor.

        Raises:
            BuildFailed, Unavailable: as `GoJail.go`.
        """
        whole_mark = self.caches.home / "whole"
        if not await asyncio.to_thread(whole_mark.exists):
            await self._compile_standard_library(progress, gently=gently)
            await self.cataloguer()
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


def _hash_of_own_sources() -> str:
    """A hash of our Go code that `prepare` compiles. Blocks."""
    return hashlib.sha256(harness.version().encode() + _HELPER.read_bytes()).hexdigest()[:16]
