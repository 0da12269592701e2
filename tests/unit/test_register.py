"""The register of jails, when the host refuses: what cannot be taken back is not given to the next jail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from skyisland.drivers.fake import FakeClones, FakeJail, FakeJails
from skyisland.errors import DriverError
from skyisland.events import Event, Events, JailDestroyed
from skyisland.fakes import FakeAddresses
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import JailSpec, Limits, Purpose
from skyisland.status import JailState

UIDS = (70001, 70002)


class Undying(FakeJail):
    async def destroy(self) -> None:
        self.process.kill()
        raise DriverError("it does not die")


class Host(FakeJails):
    """Its next jail is one that cannot be destroyed, if `undying`."""

    undying = False

    async def create(self, spec: JailSpec) -> FakeJail:
        jail = await super().create(spec)
        return Undying(jail.spec, self) if self.undying else jail

    async def remove(self, name: str) -> None:
        if name.endswith("stuck"):
            raise DriverError("it does not die")
        await super().remove(name)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def jails(events: list[Event]) -> AsyncIterator[Jails]:
    told = Events()
    told.tap(events.append)
    made = Jails(Host(), FakeClones(), FakeAddresses(), told, island="1a2b", uids=UIDS)
    await made.prepare()
    yield made
    await made.close()


def order() -> JailOrder:
    return JailOrder(argv=("/function",), purpose=Purpose.function, limits=Limits())


async def test_a_jail_that_does_not_die_keeps_its_uid_and_its_place(
    jails: Jails, events: list[Event]
) -> None:
    host = jails.driver
    assert isinstance(host, Host)
    host.undying = True
    stuck = await jails.make(order())
    jails.discard(stuck)
    await jails.drain()
    assert [jail.state for jail in jails.living()] == [JailState.dying]
    assert not [event for event in events if isinstance(event, JailDestroyed)]
    host.undying = False
    uids = set()
    for _ in range(4):
        inmate = await jails.make(order())
        uids.add(inmate.spec.uid)
        jails.discard(inmate)
        await jails.drain()
    assert uids == {*UIDS} - {stuck.spec.uid}
    assert await jails.sweep() == 0
    stuck.jail = None
    host.alive.clear()
    assert await jails.sweep() == 1
    assert jails.living() == []


async def test_one_leftover_that_stays_holds_up_no_other(jails: Jails) -> None:
    host = jails.driver
    assert isinstance(host, Host)
    host.leftovers = [jails.prefix + name for name in ("stuck", "1", "2")]
    assert await jails.sweep() == 2
    assert await host.existing() == [jails.prefix + "stuck"]
