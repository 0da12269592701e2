"""The base system of FreeBSD: verified, resumed, patched or not; what is wrong is told with its remedy."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import platform
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skyisland.drivers.freebsd.base import FreeBSDBase, architecture, manifest_sum
from skyisland.errors import DriverError, HostUnfit, SettingsError
from skyisland.host.programs import Programs
from tests.support.standins.base import fill
from tests.support.standins.world import World

RELEASE = "14.3-RELEASE"
ARCH = architecture(platform.machine())


@pytest.fixture
def world(state_dir: Path) -> Iterator[World]:
    with World(state_dir / "host") as world:
        yield world


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("release")
    fill(folder / "root")
    with tarfile.open(folder / "base.txz", "w:xz", preset=0) as tar:
        tar.add(folder / "root", ".")
    return (folder / "base.txz").read_bytes()


@pytest.fixture
def folder(state_dir: Path, archive: bytes) -> Path:
    """A folder as `base_sys_pkg_dir` names one."""
    folder = state_dir / "release"
    folder.mkdir()
    (folder / "base.txz").write_bytes(archive)
    (folder / "MANIFEST").write_text(manifest(archive))
    return folder


def manifest(archive: bytes) -> str:
    digest = hashlib.sha256(archive).hexdigest()
    return (
        f'base-dbg.txz\t{"0" * 64}\t1\tdbg\t"Debug"\toff\nbase.txz\t{digest}\t26\tbase\t"Base system"\ton\n'
    )


def base(world: World, source: Path | str, **more: Any) -> FreeBSDBase:
    folder = world.folder
    etc = folder / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "resolv.conf").write_text("nameserver 10.0.0.53\n")
    return FreeBSDBase(
        RELEASE,
        cache=folder / "cache",
        source=str(source),
        manifests=folder / "manifests",
        host_etc=etc,
        programs=Programs(world.bin),
        **more,
    )


def empty(world: World) -> Path:
    root = world.folder / "laid"
    root.mkdir()
    return root


async def test_from_a_folder(world: World, folder: Path) -> None:
    root = empty(world)
    told: list[str] = []
    await base(world, folder, progress=lambda what, done, total: told.append(what)).lay(root)
    assert (root / "bin/sh").is_file()
    assert world.calls("freebsd-update") == [], "it would need a network"
    assert (root / "etc/resolv.conf").read_text() == "nameserver 10.0.0.53\n"
    assert (root / "usr/local/go").is_dir()
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert told == [
        "unpacking base.txz",
        "finishing the base system",
    ]


async def test_a_corrupt_archive(world: World, folder: Path) -> None:
    with (folder / "base.txz").open("r+b") as file:
        file.write(b"broken")
    with pytest.raises(HostUnfit, match="fetch it again"):
        await base(world, folder).lay(empty(world))


async def test_a_disk_that_is_full(world: World, folder: Path) -> None:
    world.fail("^tar", "./bin/sh: Write failed: No space left on device\n")
    with pytest.raises(HostUnfit, match="make room in the pool"):
        await base(world, folder).lay(empty(world))


async def test_a_tar_that_fails(world: World, folder: Path) -> None:
    world.fail("^tar", "tar: Damaged archive\n")
    with pytest.raises(DriverError, match="Damaged"):
        await base(world, folder).lay(empty(world))


@pytest.mark.parametrize(("name", "match"), [("MANIFEST", "no MANIFEST"), ("base.txz", "there is no")])
async def test_a_folder_without(world: World, folder: Path, name: str, match: str) -> None:
    (folder / name).unlink()
    with pytest.raises(HostUnfit, match=match):
        await base(world, folder).lay(empty(world))


async def test_the_port_is_trusted_first(world: World, folder: Path) -> None:
    (world.folder / "manifests").mkdir()
    trusted = world.folder / "manifests" / f"{ARCH.replace('/', '-')}-{RELEASE}"
    trusted.write_text(manifest(b"another"))
    with pytest.raises(HostUnfit, match="not what the MANIFEST"):
        await base(world, folder).lay(empty(world))


@pytest.mark.parametrize("release", ["", "14", "14.3", "14.3-RELEASE-p1", "../x", "15.0-CURRENT"])
def test_no_such_name(tmp_path: Path, release: str) -> None:
    with pytest.raises(SettingsError, match=r"14\.3-RELEASE"):
        FreeBSDBase(release, cache=tmp_path)


@pytest.mark.parametrize("text", ["", "base.txz", "base.txz\txyz\t1", "xbase.txz\t" + "0" * 64])
def test_a_manifest_without_it(text: str) -> None:
    with pytest.raises(HostUnfit):
        manifest_sum(text)


# From a mirror


class Mirror(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files = files
        self.cut_at: int | None = None
        self.ranges: list[str] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Page(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range", "")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.server.cut_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(archive: bytes) -> Iterator[Mirror]:
    place = f"/{ARCH}/{RELEASE}"
    made = Mirror({f"{place}/base.txz": archive, f"{place}/MANIFEST": manifest(archive).encode()})
    yield made
    made.shutdown()
    made.server_close()


async def test_a_download_is_kept(world: World, mirror: Mirror, archive: bytes) -> None:
    made = base(world, mirror.url)
    path = await made.archive()
    assert await asyncio.to_thread(path.read_bytes) == archive
    mirror.files = {name: data for name, data in mirror.files.items() if name.endswith("MANIFEST")}
    assert await made.archive() == path


async def test_a_download_that_was_cut_goes_on(world: World, mirror: Mirror, archive: bytes) -> None:
    mirror.cut_at = len(archive) // 2
    with pytest.raises(HostUnfit, match="what came is kept, try again"):
        await base(world, mirror.url).archive()
    mirror.cut_at = None
    path = await base(world, mirror.url).archive()
    assert await asyncio.to_thread(path.read_bytes) == archive
    assert f"bytes={len(archive) // 2}-" in mirror.ranges


async def test_no_room_for_a_download(world: World, mirror: Mirror) -> None:
    folder = world.folder / "cache" / RELEASE / ARCH.replace("/", "-")
    folder.mkdir(parents=True)
    (folder / "sky-base.txz.part").symlink_to("/dev/full")
    with pytest.raises(HostUnfit, match="No space left on device; make room and try again"):
        await base(world, mirror.url).archive()


async def test_a_download_that_is_something_else(world: World, mirror: Mirror, archive: bytes) -> None:
    mirror.files = {name: b"x" * 100 if name.endswith("txz") else data for name, data in mirror.files.items()}
    with pytest.raises(HostUnfit, match="thrown away"):
        await base(world, mirror.url).archive()
    assert list((world.folder / "cache").rglob("*.part")) == []


async def test_a_mirror_that_has_it_no_more(world: World, mirror: Mirror) -> None:
    mirror.files = {}
    with pytest.raises(HostUnfit, match="ftp-archive"):
        await base(world, mirror.url).archive()


# Patched, when it comes from a mirror


async def test_from_a_mirror_it_is_patched(world: World, mirror: Mirror) -> None:
    root = empty(world)
    told: list[str] = []
    await base(world, mirror.url, progress=lambda what, done, total: told.append(what)).lay(root)
    assert (root / "etc/patched").read_text() == "p5\n"
    assert told[-4:] == [
        "unpacking base.txz",
        "freebsd-update fetch",
        "freebsd-update install",
        "finishing the base system",
    ]


async def test_nothing_to_patch(world: World, mirror: Mirror) -> None:
    with world.change() as state:
        state["patched"] = True
    root = empty(world)
    await base(world, mirror.url).lay(root)
    assert not (root / "etc/patched").exists()


async def test_a_base_of_packages_is_not_patched_and_says_so(world: World, mirror: Mirror) -> None:
    with world.change() as state:
        state["pkgbase"] = True
    told: list[str] = []
    await base(world, mirror.url, progress=lambda what, done, total: told.append(what)).lay(empty(world))
    assert "not patched: the base is made of packages; use pkg upgrade" in told


async def test_a_host_without_freebsd_update_says_so(world: World, mirror: Mirror) -> None:
    (world.bin / "freebsd-update").unlink()
    told: list[str] = []
    root = empty(world)
    await base(world, mirror.url, progress=lambda what, done, total: told.append(what)).lay(root)
    assert "not patched: this host has no freebsd-update" in told
    assert (root / "bin/sh").is_file()


async def test_patches_that_cannot_be_fetched(world: World, mirror: Mirror) -> None:
    world.fail("freebsd-update .* fetch", "Fetching metadata signature failed.\n")
    with pytest.raises(HostUnfit, match=r"signature failed.*try again"):
        await base(world, mirror.url).lay(empty(world))
