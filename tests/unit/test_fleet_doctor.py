"""What `doctor` says of a fleet, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from skyisland.doctor import Check
from skyisland.fleet.checks import FleetChecks
from skyisland.fleet.frames import pack
from skyisland.fleet.line import Message
from skyisland.fleet.members import Pulse
from skyisland.later.memory import ROOMY
from skyisland.settings import Fleet, Settings
from skyisland.status import Vacancy
from tests.support.fleets import NatsServer, free_port, joined

GOOD = Pulse(
    node="b",
    life="0" * 16,
    started_at=0.0,
    sent_at=0.0,
    vacancy=Vacancy(places=4, free=4),
    platform="linux-amd64",
    segment="lan",
    pools=(("10.62.0.1", "10.62.0.254"),),
)


@asynccontextmanager
async def another(
    server: NatsServer, fleet: str, pulse: Pulse = GOOD, ahead_s: float = 0.0
) -> AsyncIterator[None]:
    """A node that says this when it is greeted."""
    async with joined(server, fleet, "b") as (line, subjects):

        async def answer() -> None:
            await line.publish(subjects.pulse, pack(structs.replace(pulse, sent_at=time.time() + ahead_s)))

        def greeted(_: Message) -> None:
            tasks.append(asyncio.ensure_future(answer()))

        tasks: list[object] = []
        await line.listen(subjects.hello, greeted)
        await line.client.flush()
        yield


async def checks(section: Fleet) -> dict[str, Check]:
    found = await FleetChecks(Settings(fleet=section), ROOMY, listens_s=0.15).examine()
    return {check.name: check for check in found}


async def test_a_fleet_that_is_well(nats_server: NatsServer, fleet_name: str) -> None:
    section = nats_server.settings(fleet_name, "a", segment="lan")
    async with another(nats_server, fleet_name):
        found = await checks(section)
    assert list(found) == ["fleet server", "fleet messages", "fleet store", "fleet clocks", "fleet addresses"]
    assert [name for name, check in found.items() if not check.ok] == []
    assert "those of 1 other nodes agree" in found["fleet clocks"].found
    assert not any(check.vital for check in found.values())


async def test_what_keeps_an_island_out_is_told(nats_server: NatsServer, fleet_name: str) -> None:
    section = nats_server.settings(fleet_name, "a", segment="lan", replicas=3)
    mine = structs.replace(GOOD, pools=(("10.60.0.1", "10.60.0.9"), ("10.61.0.200", "10.61.1.9")))
    third = joined(nats_server, fleet_name, "c")
    async with another(nats_server, fleet_name, mine, ahead_s=-3.0), third as (line, names):
        await line.client.jetstream().add_stream(name=names.bucket("T"), subjects=[names.of("t")])
        found = await checks(section)
        await line.client.jetstream().delete_stream(names.bucket("T"))
    told = {name: check.found for name, check in found.items() if not check.ok}
    assert told["fleet clocks"] == "other than this one: b by -3.0 s"
    assert told["fleet addresses"] == "b has 10.61.0.200 to 10.61.0.254 in the segment lan, too"
    assert told["fleet store"] == f"fewer than 3 copies of {names.bucket('T')}"
    assert all(found[name].remedy for name in told)


async def test_a_server_that_is_not_there_or_takes_little(own_server: NatsServer, fleet_name: str) -> None:
    gone = Fleet(name=fleet_name, node="a", servers=(f"nats://127.0.0.1:{free_port()}",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skyisland.fleet.checks.PATIENCE_S", 0.2)
        (check,) = (await checks(gone)).values()
    assert check.found.startswith("its servers cannot be used: ")
    assert check.remedy == "start nats-server, and open its port to this host"
    own_server.stop()
    own_server.file.write_text(own_server.file.read_text().replace("max_payload: 4MB", "max_payload: 1MB"))
    own_server.file.write_text(own_server.file.read_text().replace("100GB", "1GB"))
    own_server.start()
    section = own_server.settings(fleet_name, "a")
    found = await checks(section)
    assert found["fleet messages"].remedy == "max_payload: 4MB in nats.conf"
    assert found["fleet store"].ok, "no island was here yet"
    async with joined(own_server, fleet_name) as (line, names):
        await line.client.jetstream().add_stream(name=names.bucket("NAMES"), subjects=[names.of("n")])
    store = (await checks(section))["fleet store"]
    why = f"the stream {names.bucket('RESULTS')}: insufficient storage"
    assert store.found.startswith(f"calls that answer later cannot be kept: {why}")
    assert store.remedy.startswith("raise max_file_store in nats.conf")
    own_server.stop()
    own_server.file.write_text(own_server.file.read_text().replace("1GB", "100GB"))
    own_server.start()
    store = (await checks(section))["fleet store"]
    assert (store.ok, store.found) == (True, "9 streams, 1 copy each")
