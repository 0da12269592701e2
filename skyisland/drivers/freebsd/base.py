"""The base system of jails on FreeBSD: the base.txz of a release, verified, unpacked and patched.

    MANIFEST ─▶ base.txz, its SHA-256 checked ─▶ tar ─▶ freebsd-update ─▶ resolv.conf, localtime

The archive comes from a mirror or a local folder. The MANIFEST beside it is not signed, so we prefer the
MANIFEST of the port misc/freebsd-release-manifests if that is installed.

An interrupted attempt is simply repeated: a download continues where it stopped, and everything else goes
into a dataset that is destroyed if it is incomplete.

freebsd-update patches what comes from a mirror. It is not asked about an archive in a local folder: that may
be patched, and the host without a network. A base made of packages (pkgbase) it cannot patch, and not every
host has it: then the base is left as it is, and `progress` says so.

Sources: release/scripts/make-manifest.sh, freebsd-update(8), and what iocage and bastille do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import platform
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from skyisland.drivers.freebsd.clonefs import make_folder, place_file
from skyisland.errors import DriverError, HostUnfit, SettingsError
from skyisland.host.programs import ProgramFailed, Programs
from skyisland.host.tasks import Progress, silent
from skyisland.jails.driver import MOUNT_POINTS

ARCHIVE = "base.txz"
SITE = "https://download.freebsd.org/releases"
TRUSTED = Path("/usr/local/share/freebsd/MANIFESTS")
"""The MANIFEST files of the port misc/freebsd-release-manifests."""
MARK = "etc/skyisland-base"
"""A file in the base with the name of its release."""
MANIFEST_SILENCE_S, ARCHIVE_SILENCE_S = 30.0, 60.0
"""How long a server may send nothing before we give up. Judgements."""
UNPACK_TIMEOUT_S, UPDATE_TIMEOUT_S = 1800, 3600
"""Unpacking takes a minute, an update several; slow disks and lines get much longer. Judgements."""


def extract_argv(archive: Path, root: Path) -> tuple[str, ...]:
    """tar(1) and not Python's tarfile, which loses file flags (schg)."""
    return ("tar", "-xpf", str(archive), "-C", str(root), "--unlink")


def update_argv(root: Path, release: str, verb: str) -> tuple[str, ...]:
    return (
        *("freebsd-update", "-b", str(root), "-d", f"{root}/var/db/freebsd-update"),
        *("-f", f"{root}/etc/freebsd-update.conf", "--not-running-from-cron"),
        *("--currently-running", release, verb),
    )


def architecture(machine: str) -> str:
    """The folder of a machine on FreeBSD's site: MACHINE/MACHINE_ARCH."""
    machine = machine.lower()
    return {"x86_64": "amd64/amd64", "amd64": "amd64/amd64"}.get(machine, "arm64/aarch64")


def manifest_sum(manifest: str, archive: str = ARCHIVE) -> str:
    """The SHA-256 of an archive from a MANIFEST (tab-separated: name, sum, count …).

    Raises:
        HostUnfit: the MANIFEST does not contain the archive.
    """
    for line in manifest.splitlines():
        words = line.split("\t")
        if words[0] == archive and len(words) > 1 and re.fullmatch(r"[0-9a-f]{64}", words[1]):
            return words[1]
    raise HostUnfit(f"the MANIFEST does not name {archive}")


class FreeBSDBase:
    """A `BaseSystem` with the content of a release."""

    def __init__(
        self,
        release: str,
        *,
        cache: Path,
        source: str = "",
        manifests: Path = TRUSTED,
        update: bool = True,
        host_etc: Path = Path("/etc"),
        programs: Programs | None = None,
        progress: Progress = silent,
    ) -> None:
        """`release`: such as 14.3-RELEASE. `cache`: the folder of downloaded archives. `source`: the URL of a
        mirror, or a folder with MANIFEST and archive. `manifests`: the folder of the port's MANIFEST files.
        `update`: run freebsd-update. `host_etc`: the folder whose resolv.conf and localtime jails get."""
        if not re.fullmatch(r"\d+\.\d+-(RELEASE|RC\d+|BETA\d+)", release):
            raise SettingsError(f'release: found {release!r}; allowed: a name such as "14.3-RELEASE"')
        self.release = release
        self.cache = cache
        self.progress = progress
        self._manifests = manifests
        self._source = source or SITE
        self._update = update
        self._host_etc = host_etc
        self._programs = programs or Programs()

    @property
    def _is_local(self) -> bool:
        """The archive comes from a folder of this host."""
        return not urlsplit(self._source).scheme

    @property
    def generation(self) -> str:
        return f"{self.release}-1"

    async def lay(self, root: Path) -> None:
        """Write the base into the empty folder `root`.

        Raises:
            HostUnfit: there is no archive, its sum is not that of the MANIFEST, or the pool is full.
            DriverError: the archive cannot be unpacked.
        """
        archive = await self.archive()
        self.progress(f"unpacking {archive.name}", 0, 0)
        try:
            await self._programs.run(extract_argv(archive, root), timeout_s=UNPACK_TIMEOUT_S)
        except ProgramFailed as failure:
            if "No space left" in failure.stderr:
                raise HostUnfit(f"{failure.message}; make room in the pool: zfs list -o space") from failure
            raise
        if self._update and not self._is_local:
            await self._patch(root)
        self.progress("finishing the base system", 0, 0)
        await asyncio.to_thread(self._finish, root)

    # The archive

    async def archive(self) -> Path:
        """The path of the verified archive; downloads it if necessary."""
        arch = architecture(platform.machine())
        folder = self.cache / self.release / arch.replace("/", "-")
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        sha256 = manifest_sum(await self._manifest(arch))
        if self._is_local:
            return await self._local(sha256)
        final = folder / ARCHIVE
        if not await asyncio.to_thread(_has_sum, final, sha256):
            await self._download(f"{self._source}/{arch}/{self.release}/{ARCHIVE}", final, sha256)
        return final

    async def _manifest(self, arch: str) -> str:
        trusted = self._manifests / f"{arch.replace('/', '-')}-{self.release}"
        for path in (trusted, *([Path(self._source) / "MANIFEST"] if self._is_local else [])):
            with contextlib.suppress(FileNotFoundError):
                return await asyncio.to_thread(path.read_text)
        if self._is_local:
            raise HostUnfit(f"base_sys_pkg_dir: {self._source} has no MANIFEST; put it beside {ARCHIVE}")
        url = f"{self._source}/{arch}/{self.release}/MANIFEST"
        try:
            async with httpx.AsyncClient(follow_redirects=True, timeout=MANIFEST_SILENCE_S) as client:
                answer = await client.get(url)
                answer.raise_for_status()
        except httpx.HTTPError as error:
            raise HostUnfit(
                f"cannot fetch {url}: {error or type(error).__name__}. Is {self.release} still there (older "
                "ones: ftp-archive.freebsd.org)? Set release, or base_sys_pkg_dir to a mirror or a folder"
            ) from error
        return answer.text

    async def _local(self, sha256: str) -> Path:
        path = Path(self._source) / ARCHIVE
        if not await asyncio.to_thread(path.is_file):
            raise HostUnfit(f"base_sys_pkg_dir: there is no {path}")
        if not await asyncio.to_thread(_has_sum, path, sha256):
            raise HostUnfit(f"{path} is not what the MANIFEST of {self.release} says; fetch it again")
        return path

    async def _download(self, url: str, final: Path, sha256: str) -> None:
        part = final.with_name(f"sky-{ARCHIVE}.part")
        size = await asyncio.to_thread(lambda: part.stat().st_size if part.exists() else 0)
        try:
            async with httpx.AsyncClient(follow_redirects=True, timeout=ARCHIVE_SILENCE_S) as client:
                await self._receive(client, url, part, size)
        except httpx.HTTPError as error:
            raise HostUnfit(
                f"{url}: {error or type(error).__name__}; what came is kept, try again"
            ) from error
        except OSError as error:
            raise HostUnfit(f"cannot store {part}: {error.strerror}; make room and try again") from error
        if not await asyncio.to_thread(_has_sum, part, sha256):
            await asyncio.to_thread(part.unlink)
            raise HostUnfit(f"{url} is not what its MANIFEST says; it was thrown away, try again")
        await asyncio.to_thread(part.rename, final)

    async def _receive(self, client: httpx.AsyncClient, url: str, part: Path, received: int) -> None:
        """Download to `part`, which has the first `received` bytes already."""
        headers = {"Range": f"bytes={received}-"} if received else {}
        async with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # `part` is complete
            answer.raise_for_status()
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                received = 0  # this server knows no ranges: it sends everything
            total = received + int(answer.headers.get("Content-Length", 0))
            with await asyncio.to_thread(part.open, "ab" if received else "wb") as out:
                # Each chunk is written at once, so that a broken connection loses none.
                async for chunk in answer.aiter_bytes():
                    await asyncio.to_thread(out.write, chunk)
                    received += len(chunk)
                    self.progress(f"downloading {ARCHIVE} of {self.release}", received, total)
        if total and received < total:
            raise httpx.ReadError(f"the connection ended after {received} of {total} bytes")

    # After unpacking

    async def _patch(self, root: Path) -> None:
        """Apply the release's security patches, where that can be done."""
        try:
            await self._programs.find("freebsd-update")
        except HostUnfit:
            self.progress("not patched: this host has no freebsd-update", 0, 0)
            return
        work = root / "var/db/freebsd-update"
        await asyncio.to_thread(work.mkdir, parents=True, exist_ok=True)
        for verb in ("fetch", "install"):
            self.progress(f"freebsd-update {verb}", 0, 0)
            try:
                await self._programs.run(
                    update_argv(root, self.release, verb), timeout_s=UPDATE_TIMEOUT_S, env={"PAGER": "cat"}
                )
            except ProgramFailed as failure:
                if "packaged base" in failure.printed:  # it refuses on its standard output (seen on 15.0)
                    self.progress("not patched: the base is made of packages; use pkg upgrade", 0, 0)
                    return
                if verb == "install" and failure.returncode == 2:
                    return  # there was nothing to install
                raise HostUnfit(
                    f"{failure.message}; try again, or set base_sys_pkg_dir to a patched base"
                ) from failure

    def _finish(self, root: Path) -> None:
        for name, mode in (("resolv.conf", 0o644), ("localtime", 0o444)):
            original = self._host_etc / name
            if original.is_file():
                place_file(root, f"/etc/{name}", original, mode)
        for folder in ("tmp", *MOUNT_POINTS):
            make_folder(root, f"/{folder}")
        (root / "tmp").chmod(0o1777)
        root.chmod(0o755)
        place_file(root, f"/{MARK}", f"{self.release}\n".encode(), 0o444)


def _has_sum(path: Path, sha256: str) -> bool:
    """Whether a file exists and has this SHA-256. Blocks."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DriverError(f"cannot read {path}: {error.strerror}") from error
