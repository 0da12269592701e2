"""A build room with the real compiler in real jails, and a module with a proxy that has it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from skyisland.builds.builds import Builds
from skyisland.drivers.linux.bubblewrap import BubblewrapJail, BubblewrapJails
from skyisland.drivers.linux.overlay import OverlayClones
from skyisland.errors import IslandError
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.golang import harness
from skyisland.golang.call import parse_call
from skyisland.host.toolchain import Toolchains
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import JailSpec, Limits, Mount, Outcome, Purpose, Source, Verdict
from skyisland.record.state import State
from skyisland.settings import Build, Layout
from tests.support import answers as told

BUILDER = 1_952_000_000
UIDS = range(BUILDER + 1, BUILDER + 32)
PLAIN = {"geo.go": "package geo\n\nfunc F() string { return `plain` }\n"}


class Recording(BubblewrapJails):
    """The real driver, which remembers what jails it was asked for."""

    def __init__(self, island: str, run: Path) -> None:
        super().__init__(island, run)
        self.specs: list[JailSpec] = []
        self.made = asyncio.Event()

    async def create(self, spec: JailSpec) -> BubblewrapJail:
        self.specs.append(spec)
        jail = await super().create(spec)
        if spec.argv[1:2] == ("build",):
            self.made.set()
        return jail


@dataclass
class Workshop:
    folder: Path
    driver: Recording
    jails: Jails
    builds: Builds
    layout: Layout
    made: int = 0

    def source(self, files: dict[str, str], package: str = "", url: str = "example.com/user/repo") -> Source:
        self.made += 1
        checkout = self.folder / f"checkout{self.made}"
        for name, text in files.items():
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o755)
            if text.startswith("-> "):
                path.symlink_to(text[3:])
            else:
                path.write_text(text)
        checkout.chmod(0o755)
        return Source(url=url, package=package, commit=f"{self.made:040x}", checkout=checkout)

    async def run(self, source: Source, text: str) -> str:
        """What the function prints, built and run."""
        call = parse_call(text)
        artifact = await self.builds.build(source, call, refresh=False, invocation=None)
        if artifact.expression is not None:
            call = harness.as_expression(call)
        outcome = await self.enter((Mount(artifact.path, "/function"),), harness.frame(call, "nonce"))
        assert outcome.verdict is Verdict.ok, outcome
        kept, _ = told.returned(outcome.stdout, "nonce")
        return kept.decode()

    async def enter(self, mounts: tuple[Mount, ...], data: bytes, uid: int | None = None) -> Outcome:
        limits = Limits(memory_bytes=128 << 20, pids=64)
        async with self.jails.jail(
            JailOrder(argv=("/function",), purpose=Purpose.function, mounts=mounts, limits=limits, uid=uid)
        ) as inmate:
            return await inmate.converse(data, 10)

    async def refused(self, source: Source, text: str = "F()") -> IslandError:
        with pytest.raises(IslandError) as caught:
            await self.builds.build(source, parse_call(text), refresh=False, invocation=None)
        return caught.value

    def own_cache(self, source: Source) -> set[str]:
        """The files that builds of the source's repository left."""
        (mount,) = {
            mount.source
            for spec in self.driver.specs
            if Mount(source.checkout, "/src") in spec.mounts
            for mount in spec.mounts
            if mount.target == "/cache"
        }
        return {path.name for path in mount.rglob("*") if path.is_file()}


class Shared(Layout, frozen=True):
    """A state folder of each test's own, but for Go's caches."""

    gocache: Path


@asynccontextmanager
async def opened(
    folder: Path, gocache: Path, settings: Build | None = None, *, timeout_s: float = 60.0
) -> AsyncIterator[Workshop]:
    layout = Shared(folder / "state", folder / "jails", gocache)
    layout.state_dir.mkdir(exist_ok=True)
    state = await State.open(layout.db)
    events = Events()
    driver = Recording(state.island, layout.run)
    jails = Jails(driver, OverlayClones(layout.base), FakeAddresses(), events, island=state.island, uids=UIDS)
    builds = Builds(
        settings or Build(goproxy="off"),
        layout,
        jails=jails,
        records=state,
        events=events,
        toolchains=Toolchains(layout.toolchain),
        timeout_s=timeout_s,
        unused_s=3600.0,
        uid=BUILDER,
    )
    try:
        await jails.prepare()
        await builds.prepare()
        yield Workshop(folder, driver, jails, builds, layout)
    finally:
        await builds.close()
        await jails.close()
        await state.close()
    assert await driver.existing() == []
    assert [path for path in layout.run.iterdir() if path.name.startswith("sky-build")] == []


DEP = {
    "go.mod": "module example.com/dep\n\ngo 1.20\n",
    "dep.go": 'package dep\n\nfunc Word() string { return "dep" }\n',
}


def h1(files: dict[str, str]) -> str:
    """Go's hash of a module's files (https://go.dev/ref/mod#go-sum-files)."""
    lines = "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in sorted(files.items())
    )
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


USER = {
    "go.mod": "module example.com/user/repo\n\ngo 1.21\n\nrequire example.com/dep v1.0.0\n",
    "go.sum": f"example.com/dep v1.0.0 {h1({f'example.com/dep@v1.0.0/{n}': t for n, t in DEP.items()})}\n"
    f"example.com/dep v1.0.0/go.mod {h1({'go.mod': DEP['go.mod']})}\n",
    "user.go": 'package user\n\nimport "example.com/dep"\n\nfunc F() string { return dep.Word() }\n'
    "func G() string { return dep.Word() + dep.Word() }\n",
}


CHECKS = {
    "go.mod": "module example.com/checks\n\nrequire example.com/dep v1.0.0\n",
    "checks.go": 'package checks\n\nimport "example.com/dep"\n\nfunc Check() string { return dep.Word() }\n',
}
"""A module without a go line, as old ones are."""


def make_proxy(folder: Path) -> str:
    """The file:// URL of a module proxy with example.com/dep and example.com/checks, v1.0.0 of both
    (https://go.dev/ref/mod#goproxy-protocol)."""
    for module, files in (("example.com/dep", DEP), ("example.com/checks", CHECKS)):
        versions = folder / module / "@v"
        versions.mkdir(parents=True)
        (versions / "list").write_text("v1.0.0\n")
        (versions / "v1.0.0.info").write_text('{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}')
        (versions / "v1.0.0.mod").write_text(files["go.mod"])
        with zipfile.ZipFile(versions / "v1.0.0.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(f"{module}@v1.0.0/{name}", text)
    return f"file://{folder}"
