"""The whole island on the stand-ins for FreeBSD's programs: from a Git repository to an answer over REST,
through jail(8), jexec(8), nullfs, rctl(8) and ZFS clones as the drivers of FreeBSD use them.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from daemon import HOST
from msgspec import structs

from api import create_app
from skyisland.build import Builds
from skyisland.drivers.freebsd import FreeBSDJails
from skyisland.drivers.freebsd_base import FreeBSDBase
from skyisland.drivers.freebsd_network import FreeBSDNetwork
from skyisland.drivers.programs import Programs
from skyisland.drivers.zfs import ZfsClones
from skyisland.events import Events
from skyisland.island import Island, Policy
from skyisland.jails import Jails
from skyisland.logs import LogRing
from skyisland.metrics import Metrics
from skyisland.model import Limits
from skyisland.network import Addresses
from skyisland.settings import IP4, Settings
from skyisland.source import Sources
from skyisland.state import State
from skyisland.toolchain import Toolchains
from standins.base import fill
from standins.world import World

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
async def freebsd(world: World, settings: Settings, release: Path) -> AsyncIterator[Island]:
    """An island as it is wired on FreeBSD, started."""
    layout, programs, events = settings.layout, Programs(world.bin), Events()
    uid = settings.jails.uid_start
    ip4 = structs.replace(IP4(), interface="em0")
    state = await State.open(layout.db)
    network = FreeBSDNetwork(ip4, island=state.island, programs=programs)
    addresses = Addresses(ip4, network, state, events)
    base = FreeBSDBase(RELEASE, cache=layout.base, source=str(release), programs=programs)
    places = {"jails": layout.jails, "bases": layout.base / "zfs"}
    jails = Jails(
        FreeBSDJails(
            state.island,
            jails=layout.jails,
            network=network,
            build_uid=uid,
            programs=programs,
            peak_bytes=world.peak_bytes,
        ),
        ZfsClones("tank", state.island, **places, base=base, ahead=2, patience_s=2, programs=programs),
        addresses,
        events,
        island=state.island,
        uids=range(uid + 1, uid + 64),
    )
    toolchains = Toolchains(layout.toolchain, search_path=os.environ["PATH"])
    builds = Builds(
        settings.build,
        layout,
        jails=jails,
        records=state,
        events=events,
        toolchains=toolchains,
        timeout_s=120,
        unused_s=3600,
        uid=uid,
    )
    sources = Sources(settings.git, layout.repos, layout.checkouts, trust_s=60, known=state, events=events)
    policy = Policy(exec_timeout_s=20, limits=Limits(memory_bytes=128 << 20, pids=64, cpus=1.0))
    island = Island(
        name=state.island,
        version="test",
        policy=policy,
        events=events,
        sources=sources,
        builds=builds,
        jails=jails,
        network=addresses,
        history=state,
    )
    state.follow(events)
    await island.start()
    try:
        yield island
    finally:
        await island.stop()
        await state.close()


async def test_calls_over_rest(freebsd: Island, world: World) -> None:
    api = create_app(freebsd, token="t", token_header="X-Sky-Island-Token", metrics=Metrics(), logs=LogRing())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://island", timeout=200)

    async def call(**wish: object) -> tuple[int, dict]:
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
    argvs = [" ".join(words) for words in world.calls()]
    assert any("jexec -u skybuild" in argv and "/usr/local/go/bin/go" in argv for argv in argvs)
    assert any("jexec -u skyfn" in argv for argv in argvs)
    assert any("ifconfig em0 inet 10.61.0.2/32 alias" in argv for argv in argvs)
    assert any("ip4.addr=10.61.0.2 " in argv for argv in argvs)
