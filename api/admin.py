"""What admins see and do: jails, addresses, the cache. Whoever does something is in the log (`audit`)."""

from __future__ import annotations

import logging
import time
from ipaddress import AddressValueError, IPv4Address

from quart import Blueprint, Response, g, request

from api.observe import shown
from api.problems import BadState
from api.wire import AddressBody, Jail, decode
from skyisland.errors import BadRequest
from skyisland.island import Island
from skyisland.model import AddressInfo, AddressState
from skyisland.record.metrics import Metrics

log = logging.getLogger("api.audit")


def audit(deed: str, *about: object, **fields: str) -> None:
    """One line of the log: who did what, from where."""
    client = {"who": g.who.name, "address": request.remote_addr}
    log.info(f"%s@%s {deed}", *client.values(), *about, extra=client | fields)


STATES: dict[str | int, AddressState] = {
    "available": AddressState.available,
    "unavailable": AddressState.unavailable,
    0: AddressState.available,
    1: AddressState.unavailable,
}


def jails(routes: Blueprint, island: Island, metrics: Metrics) -> None:
    """/api/v1/admin/jails and /jail/{id}, where id is a jail's number or its name."""

    @routes.get("/api/v1/admin/jails")
    async def running() -> Response:
        metrics.count("handlers.jail.running")
        await island.sample_usage()
        now = time.time()
        return shown({"jails": [Jail.of(jail, now) for jail in island.status().jails]})

    @routes.get("/api/v1/admin/jail/<jail>")
    async def details(jail: str) -> Response:
        metrics.count("handlers.jail.details")
        return shown({"details": Jail.of(island.jail(jail), time.time())})

    @routes.delete("/api/v1/admin/jail/<jail>")
    async def kill(jail: str) -> Response:
        metrics.count("handlers.jail.kill")
        killed = await island.kill(jail)
        audit("killed the jail %s", killed.name, jail=killed.name)
        return shown({"deleted": killed.jid})

    @routes.delete("/api/v1/admin/jails")
    async def kill_all() -> Response:
        metrics.count("handlers.jail.killall")
        killed = await island.kill_all()
        audit("killed all %d jails", len(killed))
        return shown({"deleted": [jail.jid for jail in killed]})


def addresses(routes: Blueprint, island: Island) -> None:
    """/api/v1/admin/ips; the original had it at /network/ips and, to write, /network/ip."""

    @routes.get("/api/v1/admin/ips")
    @routes.get("/api/v1/admin/network/ips")
    async def pool() -> Response:
        state = request.args.get("state")
        pool = island.status().addresses
        if state is None:
            return shown({address.ip: address.jail for address in pool})
        if state not in STATES:
            raise BadState("unrecognized IP state", field="state", known=list(AddressState))
        return shown({state: [address.ip for address in pool if address.state == state]})

    @routes.put("/api/v1/admin/ips")
    @routes.put("/api/v1/admin/network/ips")
    @routes.put("/api/v1/admin/network/ip")
    async def set_state() -> Response:
        body = decode(await request.get_data(cache=True, as_text=False, parse_form_data=False), AddressBody)
        if body.state not in STATES:
            raise BadState("unrecognized IP state", field="state", known=list(AddressState))
        address: AddressInfo = await island.set_address(_ip4(body.ip), STATES[body.state])
        audit("set the address %s %s", address.ip, address.state)
        return shown(address)


def _ip4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise BadRequest("invalid IP4 address; send four numbers with dots between", field="ip") from None


def cache(routes: Blueprint, island: Island) -> None:
    """/api/v1/admin/cache: compiled functions."""

    @routes.get("/api/v1/admin/cache")
    async def listing() -> Response:
        return shown({"artifacts": island.status().artifacts})

    @routes.delete("/api/v1/admin/cache/<key>")
    async def evict(key: str) -> Response:
        artifact = await island.evict(key)
        audit("evicted %s of %s", artifact.function, artifact.url)
        return shown({"evicted": artifact.key})

    @routes.post("/api/v1/admin/cache/<key>/rebuild")
    async def rebuild(key: str) -> Response:
        artifact = await island.rebuild(key)
        audit("had rebuilt %s of %s", artifact.function, artifact.url)
        return shown({"rebuilt": artifact.key})

    @routes.post("/api/v1/admin/cache/purge")
    async def purge() -> Response:
        purged = await island.purge()
        audit("purged the cache of %d artifacts", len(purged))
        return shown({"evicted": [artifact.key for artifact in purged]})
