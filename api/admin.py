"""What admins do: jails, addresses, the cache. Whoever changes something is in the log (`audit`)."""

from __future__ import annotations

import time
from ipaddress import AddressValueError, IPv4Address

from quart import Quart

from api.problems import BadState
from api.routes import answers, audit
from skyisland import operations as op
from skyisland.errors import BadRequest
from skyisland.island import Island
from skyisland.model import Artifact
from skyisland.record.metrics import Metrics
from skyisland.status import AddressInfo, AddressState
from skyisland.wire import AddressBody, Jail, listed

STATES: dict[str | int, AddressState] = {
    "available": AddressState.available,
    "unavailable": AddressState.unavailable,
    0: AddressState.available,
    1: AddressState.unavailable,
}


def jails(app: Quart, island: Island, metrics: Metrics) -> None:
    """Jails, named by their number or name."""

    @answers(app, op.JAILS)
    async def running() -> list[Jail]:
        metrics.count("handlers.jail.running")
        await island.sample_usage()
        now = time.time()
        return [Jail.of(jail, now) for jail in island.status().jails]

    @answers(app, op.JAIL)
    async def details(jail: str) -> Jail:
        metrics.count("handlers.jail.details")
        return Jail.of(island.jail(jail), time.time())

    @answers(app, op.KILL)
    async def kill(jail: str) -> int:
        metrics.count("handlers.jail.kill")
        killed = await island.kill(jail)
        audit("killed the jail %s", killed.name, jail=killed.name)
        return killed.jid

    @answers(app, op.KILL_ALL)
    async def kill_all() -> list[int]:
        metrics.count("handlers.jail.killall")
        killed = await island.kill_all()
        audit("killed all %d jails", len(killed))
        return [jail.jid for jail in killed]


def addresses(app: Quart, island: Island) -> None:
    """The pool of addresses."""

    @answers(app, op.ADDRESSES)
    async def pool(state: str | None) -> dict[str, str | list[str] | None]:
        pool = island.status().addresses
        if state is None:
            return {address.ip: address.jail for address in pool}
        if state not in STATES:
            raise BadState("unrecognized IP state", field="state", known=list(AddressState))
        return {state: [address.ip for address in pool if address.state == state]}

    @answers(app, op.SET_ADDRESS)
    async def set_state(body: AddressBody) -> AddressInfo:
        if body.state not in STATES:
            raise BadState("unrecognized IP state", field="state", known=list(AddressState))
        address: AddressInfo = await island.set_address(_ip4(body.ip), STATES[body.state])
        audit("set the address %s %s", address.ip, address.state)
        return address


def _ip4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise BadRequest("invalid IP4 address; send four numbers with dots between", field="ip") from None


def cache(app: Quart, island: Island) -> None:
    """Compiled functions."""

    @answers(app, op.ARTIFACTS)
    async def listing() -> list[Artifact]:
        return listed(island.status().artifacts)

    @answers(app, op.EVICT)
    async def evict(key: str) -> str:
        artifact = await island.evict(key)
        audit("evicted %s of %s", artifact.function, artifact.url)
        return artifact.key

    @answers(app, op.REBUILD)
    async def rebuild(key: str) -> str:
        artifact = await island.rebuild(key)
        audit("had rebuilt %s of %s", artifact.function, artifact.url)
        return artifact.key

    @answers(app, op.PURGE)
    async def purge() -> list[str]:
        purged = await island.purge()
        audit("purged the cache of %d artifacts", len(purged))
        return [artifact.key for artifact in purged]
