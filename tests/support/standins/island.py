"""The drivers of FreeBSD, on the stand-ins."""

from __future__ import annotations

from pathlib import Path

from skyisland.drivers.freebsd.jails import FreeBSDJails
from skyisland.drivers.freebsd.launching import Launcher
from skyisland.drivers.freebsd.network import FreeBSDNetwork
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.host.programs import Programs
from skyisland.host.toolchain import Toolchains
from skyisland.jails.register import AddressPool, Jails
from tests.support.standins.base import TinyBase
from tests.support.standins.world import World

BUILD_UID = 1_950_000_100


class StandIn(Launcher):
    """The stand-in of the launcher, which nobody has to compile."""

    async def program(self) -> Path:
        return self.folder / "launcher"


ISLAND = "c0de"


def zfs_clones(
    world: World, *, ahead: int = 2, busy_timeout_s: float = 2.0, programs: Programs | None = None
) -> ZfsClones:
    return ZfsClones(
        "tank",
        ISLAND,
        jails=world.folder / "jails",
        bases=world.folder / "bases",
        base=TinyBase(),
        ahead=ahead,
        busy_timeout_s=busy_timeout_s,
        programs=programs or Programs(world.bin),
    )


def freebsd_driver(
    world: World, network: FreeBSDNetwork | None = None, programs: Programs | None = None
) -> FreeBSDJails:
    return FreeBSDJails(
        ISLAND,
        StandIn(world.bin, Toolchains(world.folder)),
        jails=world.folder / "jails",
        network=network,
        build_uid=BUILD_UID,
        programs=programs or Programs(world.bin),
        peak_bytes=world.peak_bytes,
    )


def freebsd_jails(
    world: World,
    events: Events,
    *,
    ahead: int = 2,
    network: FreeBSDNetwork | None = None,
    addresses: AddressPool | None = None,
    programs: Programs | None = None,
) -> Jails:
    programs = programs or Programs(world.bin)
    return Jails(
        freebsd_driver(world, network, programs),
        zfs_clones(world, ahead=ahead, programs=programs),
        addresses or FakeAddresses(),
        events,
        island=ISLAND,
        uids=range(BUILD_UID + 1, BUILD_UID + 40),
    )
