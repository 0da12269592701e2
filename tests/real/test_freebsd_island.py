"""The whole island on the stand-ins for FreeBSD's programs: from a Git repository to an answer over REST,
through the launcher, rctl(8) and ZFS clones as the drivers of FreeBSD use them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from api import create_app
from skyisland import choosing, wiring
from skyisland.cli import examining
from skyisland.drivers.freebsd import launching
from skyisland.events import Events
from skyisland.host import programs
from skyisland.island import Island
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.settings import IP4, Filesystem, Settings
from tests.support.daemon import HOST
from tests.support.freebsd_commands import PARTS, skeleton
from tests.support.standins.base import fill
from tests.support.standins.island import StandIn
from tests.support.standins.world import World

pytestmark = [pytest.mark.host, pytest.mark.root]

RELEASE = "14.3-RELEASE"


@pytest.fixture(scope="session")
def release(host_dir: Path) -> Path:
    """A folder with base.txz and its MANIFEST, as `base_sys_pkg_dir` may name one."""
    folder = Path(tempfile.mkdtemp(prefix="release-", dir=host_dir))
    fill(folder / "root")
    (folder / "root").chmod(0o755)
    with tarfile.open(folder / "base.txz", "w:xz") as archive:
        archive.add(folder / "root", ".")
    shutil.rmtree(folder / "root")
    digest = sha256((folder / "base.txz").read_bytes()).hexdigest()
    (folder / "MANIFEST").write_text(f'base.txz\t{digest}\t26\tbase\t"Base system (MANDATORY)"\ton\n')
    return folder


@pytest.fixture
def world(host_dir: Path) -> Iterator[World]:
    with World(Path(tempfile.mkdtemp(prefix="freebsd-", dir=host_dir)) / "host") as world:
        world.folder.parent.chmod(0o755)
        yield world


@pytest.fixture
def wish(world: World, settings: Settings, release: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An operator's settings on FreeBSD, where this now is."""
    monkeypatch.setattr(choosing, "LINUX", False)
    monkeypatch.setattr(choosing, "FREEBSD", True)
    monkeypatch.setattr(sys, "platform", "freebsd14")
    monkeypatch.setattr(programs, "SEARCH", str(world.bin))
    monkeypatch.setattr(launching, "Launcher", lambda _, *more, **named: StandIn(world.bin, *more, **named))
    return structs.replace(
        settings,
        release=RELEASE,
        base_sys_pkg_dir=str(release),
        filesystem=Filesystem(zfs_dataset="tank", compression=True, quota=99 << 20),
        network=structs.replace(settings.network, ip4=IP4(interface="em0")),
        limits=structs.replace(settings.limits, memory=128 << 20, pids=64, cpus=1.0),
    )


@pytest.fixture
async def freebsd(wish: Settings) -> AsyncIterator[Island]:
    """An island as it is wired on FreeBSD, started."""
    async with wiring.opened(wish, Events(), search_path=os.environ["PATH"]) as island:
        await island.start()
        try:
            yield island
        finally:
            await island.stop()


async def test_calls_over_rest(freebsd: Island, world: World) -> None:
    api = create_app(freebsd, token="t", token_header="X-Sky-Island-Token", metrics=Metrics(), logs=LogRing())
    transport = httpx.ASGITransport(api)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport, base_url="http://island", timeout=200)

    async def call(**wish: object) -> tuple[int, dict[str, Any]]:
        answer = await client.post("/api/v1/function", json=wish)
        return answer.status_code, answer.json()

    status, told = await call(url=f"{HOST}/geohash", call="Encode(100.1, 80.9)")
    assert (status, told.get("data"), told.get("cached")) == (200, "vzcxbzvxfxup", False), told
    status, told = await call(url=f"{HOST}/geohash", call="Encode(-1e1, 0x10)")
    assert (status, told["data"], told["cached"]) == (200, "kq5rh5dcg0bs", True)
    status, told = await call(url=f"{HOST}/textkit", call="Words()", stdin="to be or not")
    assert (status, told["data"]) == (200, "4")
    status, told = await call(url=f"{HOST}/geohash", call="Nowhere()")
    assert (status, told["code"] if "code" in told else told["error"])[0] == 422
    status, told = await call(url=f"{HOST}/geohash", call="Encode(1, 2)", ip4=True)
    assert status == 200, told
    await client.aclose()
    await freebsd.stop()
    assert world.left() == {}
    known = {skeleton(line) for _, _, lines in PARTS for line in lines}
    assert {tuple(words) for words in world.calls() if skeleton(words) not in known} == set()
    argvs = [" ".join(words) for words in world.calls()]
    assert any(" uskybuild=" in argv and " a/usr/local/go/bin/go " in argv for argv in argvs)
    assert any(" uskyfn=" in argv for argv in argvs)
    assert any("ifconfig em0 inet 10.61.0.2/32 alias" in argv for argv in argvs)
    assert any(" 4ip4.addr=10.61.0.2 " in argv for argv in argvs)
    assert any(f"zfs clone -o quota={99 << 20} " in argv for argv in argvs)
    assert any("zfs create" in argv and "compression=on" in argv for argv in argvs)


async def test_the_doctor_tries_everything(
    wish: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await examining.report(wish, full=True, as_json=True)
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert {"git", "go", "network", "a jail runs a program", "nothing is left"} <= found.keys()
    assert found["a jail runs a program"]["ok"]
    assert found["everything is taken back"]["ok"]
    assert world.left() == {}
