"""A build room on a fake `go`.

The fake stands where the jail driver stands. It runs nothing and compiles nothing: it answers `go list`
from the package clause of the files, and `go build` by writing a file where the binary belongs.
The real compiler in real jails is in tests/real/test_build_jail.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from skyisland.builds.builds import Builds
from skyisland.drivers.fake import FakeClones, FakeJail, FakeJails, Script
from skyisland.errors import BuildFailed
from skyisland.events import Event, Events
from skyisland.fakes import FakeAddresses
from skyisland.golang.call import parse_call
from skyisland.host.fair import LOCAL
from skyisland.host.toolchain import Toolchains
from skyisland.jails.register import Jails
from skyisland.model import Artifact, JailSpec, Resolved, Source
from skyisland.record.state import State
from skyisland.settings import Build, Layout

COMMIT = "c0ffee" * 6 + "abcd"


class FakeGo(FakeJails):
    """A jail driver in whose jails the only program is a make-believe `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.specs: list[JailSpec] = []
        self.answers: list[Callable[[JailSpec], Script | None]] = []
        """Asked in turn before the usual answer; the first one that is no None counts."""
        self.hold: asyncio.Event | None = None
        """Builds do not end before it is set."""
        self._news = asyncio.Event()

    async def create(self, spec: JailSpec) -> FakeJail:
        self.specs.append(spec)
        said = await asyncio.to_thread(self._say, spec)
        held = self.hold if verb(spec) == "build" and source(spec) else None
        self.script = lambda data: structs.replace(said, duration_s=float("inf")) if held else said
        jail = await super().create(spec)
        if held:

            async def release() -> None:
                await held.wait()
                jail.process.finish()

            self.releasing = asyncio.ensure_future(release())
        self._news.set()
        return jail

    async def builds(self, number: int) -> None:
        """Wait until so many builds have begun."""
        async with asyncio.timeout(10):
            while len(self.ran("build")) < number:
                self._news.clear()
                await self._news.wait()

    def _say(self, spec: JailSpec) -> Script:
        told = next((said for answer in self.answers if (said := answer(spec))), None)
        return told or self._usual(spec)

    def _usual(self, spec: JailSpec) -> Script:
        if verb(spec) == "build":
            folder = host(spec, "/out")
            if folder is not None:
                main = host(spec, "/gen/main.go")
                text = main.read_bytes() if main and main.exists() else b""
                Path(folder, "function").write_bytes(b"\x7fELF " + text)
            return Script(stdout=b"")
        if "std" in spec.argv:
            return Script(stdout=b"fmt\nvendor/x\nnet/http\n")
        home = host(spec, "/src" if spec.cwd == "/gen" else spec.cwd)
        assert home is not None
        files = sorted(home.glob("*.go"))
        name = re.search(r"package (\w+)", files[0].read_text()) if files else None
        error = "" if files else f"no Go files in {spec.cwd}"
        answer = f"example.com/asked\n{name[1] if name else ''}\n{len(files)}\n{error}"
        return Script(stdout=answer.encode())

    def ran(self, word: str) -> list[JailSpec]:
        """The jails of repositories in which `go word` ran."""
        return [spec for spec in self.specs if verb(spec) == word and source(spec)]


def verb(spec: JailSpec) -> str:
    return spec.argv[1]


def source(spec: JailSpec) -> Path | None:
    return host(spec, "/src")


def host(spec: JailSpec, path: str) -> Path | None:
    """Where on the host a path of the jail lies."""
    for mount in spec.mounts:
        if path == mount.target or path.startswith(mount.target + "/"):
            return Path(f"{mount.source}{path[len(mount.target) :]}")
    return None


def complains(stderr: str, *, when: str = "") -> Callable[[JailSpec], Script | None]:
    """A compiler that refuses main programs in which `when` occurs."""

    def answer(spec: JailSpec) -> Script | None:
        main = host(spec, "/gen/main.go")
        if verb(spec) != "build" or not source(spec) or main is None or when not in main.read_text():
            return None
        return Script(stdout=b"", stderr=stderr.encode(), exit_code=1)

    return answer


@dataclass
class Workshop:
    """An island's build room and what lies around it."""

    folder: Path
    go: FakeGo
    jails: Jails
    state: State
    builds: Builds
    told: list[Event]
    layout: Layout
    made: int = field(default=0)

    def source(self, files: dict[str, str] | None = None, package: str = "", **more: Any) -> Source:
        self.made += 1
        checkout = self.folder / f"checkout{self.made}"
        for name, text in (files or {"geo.go": "package geohash\n"}).items():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text(text)
        about = {"url": "example.com/user/geohash", "commit": COMMIT, **more}
        return Source(checkout=checkout, package=package, **about)

    async def build(self, source: Source, call: str, *, refresh: bool = False, **more: str) -> Artifact:
        return await self.builds.build(source, parse_call(call), refresh=refresh, invocation="inv-1", **more)

    def known(self, source: Source, call: str, client: str = LOCAL) -> Artifact | None:
        """As the island asks before it fetches anything."""
        resolved = Resolved(url=source.url, package=source.package, commit=source.commit)
        return self.builds.known(resolved, parse_call(call), client)

    def binaries(self) -> set[str]:
        return {path.name for path in self.layout.artifacts.rglob("*") if path.is_file()}


@asynccontextmanager
async def opened(
    folder: Path,
    settings: Build | None = None,
    *,
    unused_s: float = 3600.0,
    timeout_s: float = 60.0,
    failures_kept_s: float = 0.0,
) -> AsyncIterator[Workshop]:
    layout = Layout(folder / "state", folder / "jails")
    goroot = folder / "goroot"
    (goroot / "bin").mkdir(parents=True, exist_ok=True)
    (goroot / "VERSION").write_text("go1.27.3")
    (goroot / "bin" / "go").touch(mode=0o755)
    told: list[Event] = []
    events = Events()
    events.tap(told.append)
    state = await State.open(layout.db)
    go = FakeGo()
    jails = Jails(go, FakeClones(), FakeAddresses(), events, island="c0de", uids=None)
    await jails.prepare()
    builds = Builds(
        settings or Build(),
        layout,
        jails=jails,
        records=state,
        events=events,
        toolchains=Toolchains(layout.toolchain, goroot=str(goroot)),
        timeout_s=timeout_s,
        unused_s=unused_s,
        uid=None,
        failures_kept_s=failures_kept_s,
    )
    await builds.prepare()
    try:
        yield Workshop(folder, go, jails, state, builds, told, layout)
    finally:
        await builds.close()
        await jails.close()
        await state.close()
        assert list(layout.run.iterdir()) == []
        assert go.alive == {}


async def refused(shop: Workshop, source_: Source, call: str = "F()") -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await shop.build(source_, call)
    return caught.value
