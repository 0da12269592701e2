"""What package a source is: described once per commit, and in another manner where it does not compile so.

A description costs a process of Go, and sometimes the download of modules; a thousand are remembered. Most
are right at the first time. One that is not shows when it is compiled: a module that comes by another way, a
language that is older than the code, a package that `read_package` misread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct, structs

from skyisland.errors import BuildFailed, Complaint
from skyisland.golang.compiler import Compiler
from skyisland.golang.modules import Way
from skyisland.golang.packages import Package
from skyisland.host.failures import Failures
from skyisland.host.fair import FairFlights, FairQueue
from skyisland.model import Call, Source

T = TypeVar("T")

MISREAD_PACKAGE = {Complaint.program, Complaint.no_go_files, Complaint.missing_module, Complaint.package}
"""Complaints that may mean that `read_package` misread the package: Go is asked before they are reported."""
PACKAGES = 1000
"""Descriptions of packages kept in memory, of some hundred bytes each."""


class Job(Struct, frozen=True, kw_only=True):
    """What is to be compiled, and for whom."""

    source: Source
    package: Package = Package("", "", "", None, requires=False)
    """As soon as it is described."""
    call: Call = Call(text="", function="", arguments=())
    """None, where the job is to tell what the package offers."""
    refresh: bool
    """Compile even what is known."""
    invocation: str | None
    client: str

    @property
    def commit(self) -> tuple[str, str, str]:
        """The package at its commit."""
        return (self.source.url, self.source.package, self.source.commit)


class Described:
    """Packages as they were described last. `close` comes last."""

    def __init__(self, compiler: Compiler, places: FairQueue, failures: Failures) -> None:
        """`places`: those to build in, one of which a description takes."""
        self._compiler = compiler
        self._failures = failures
        self._packages: dict[tuple[object, ...], Package] = {}
        self._describing: FairFlights[Package] = FairFlights(places)

    def forget(self) -> None:
        """Describe all anew: the modules that were downloaded are gone."""
        self._packages.clear()

    async def close(self) -> None:
        """Cancel what is being described. May be repeated."""
        await self._describing.close()

    async def work(self, job: Job, work: Callable[[Job], Awaitable[T]]) -> T:
        """What comes of the work for the package as it was described last, or otherwise, where it does not
        compile so.

        Raises:
            BuildFailed: it compiles in no manner.
            SourceUnavailable: modules could not be downloaded.
            TooBusy: too many builds wait, or this one waited too long.
        """
        package = None if job.refresh else self._packages.get(_known_as(job))
        if package is None:
            package = await self._describe(job, ask=False)
        while True:
            try:
                return await work(structs.replace(job, package=package))
            except BuildFailed as error:
                package = await self._otherwise(job, package, error)

    async def _otherwise(self, job: Job, package: Package, error: BuildFailed) -> Package:
        """The package described in another manner, by which it may compile; else the error is raised.

        Where modules are missing, they may come by another way. Where the language is too old, Go took that
        of a module without go.mod. Else Go is asked what `read_package` may have misread.
        """
        if error.complaint is Complaint.missing_module and (way := package.next_way):
            return await self._describe(job, ask=False, way=way)
        if error.complaint is Complaint.language and (later := self._compiler.in_later_language(package)):
            self._packages[_known_as(job)] = later
            return later
        if package.by_go or error.complaint not in MISREAD_PACKAGE:
            raise error
        by_go = await self._describe(job, ask=True, way=package.way)
        if (by_go.name, by_go.import_path) == (package.name, package.import_path):
            raise error
        return by_go

    async def _describe(self, job: Job, *, ask: bool, way: Way | None = None) -> Package:
        """What package the source is, its modules downloaded by `way` or one after it; remembered for its
        commit."""
        where = _known_as(job)

        async def describe() -> Package:
            package = await self._compiler.describe(
                job.source, ask=ask, way=way, program=job.call.is_program, invocation=job.invocation
            )
            self._packages[where] = package
            if len(self._packages) > PACKAGES:
                del self._packages[next(iter(self._packages))]
            return package

        with self._failures.of((where, ask, way), anew=job.refresh):
            return await self._describing.join((where, ask, way), job.client, describe)


def _known_as(job: Job) -> tuple[object, ...]:
    """What a described package is remembered by: a program is another package than one to import."""
    return (*job.commit, job.call.is_program)
