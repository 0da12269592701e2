"""The pool of addresses: who holds which, and which the operator has taken out.

A call with `"ip4": true` leases the lowest free address for its jail and gives it back when the jail
is gone. Two jails never hold the same one: a lease is decided and on record before anything is awaited,
and an address is free again only after its interface is gone. The operator's word (`set_state`)
outlives the island; a lease does not. An address taken out while a jail holds it stays with that jail
and leaves the pool at release.

Interfaces are the business of a `NetworkDriver`. `prepare` finds out what the host can do and removes
leftovers, but makes nothing: an island that never sees such a call leaves the host's network as it is.
What all jails share comes to be with the first lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from skyisland.errors import AddressInUse, AddressNotFound, DriverError, HostUnfit, NoAddress
from skyisland.events import AddressStateSet, Events
from skyisland.jails.driver import NetworkDriver
from skyisland.model import Address, AddressInfo, AddressState, Capability
from skyisland.settings import IP4

log = logging.getLogger(__name__)

RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where the host's name servers stand; the second where systemd-resolved keeps them off the first."""


class NoInterfaces:
    """The driver where no jail can have an interface: it refuses all that would need one."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy

    async def prepare(self) -> int:
        raise self._unfit()

    async def open(self, dns: tuple[str, ...]) -> None:
        raise self._unfit()

    async def attach(self, address: Address, jail: str, pid: int) -> None:
        raise self._unfit()

    async def detach(self, jail: str) -> None:
        pass

    async def close(self) -> None:
        pass

    def capabilities(self) -> list[Capability]:
        return [Capability(name="network", enforced=False, how=self.reason, remedy=self.remedy)]

    def _unfit(self) -> HostUnfit:
        remedy = f"{self.remedy}, or leave ip4 out" if self.remedy else "leave ip4 out"
        return HostUnfit(f"no jail can have an address here: {self.reason}; {remedy}")


class AddressStates(Protocol):
    """Keeps the operator's word on addresses over restarts."""

    async def address_states(self) -> dict[str, AddressState]:
        """Every address that was ever set, with its last state."""
        ...

    async def set_address_state(self, ip: str, state: AddressState) -> None: ...


class Lease(Struct, frozen=True):
    jail: str
    since: float


class Addresses:
    """The addresses of `network.ip4`, lowest first."""

    def __init__(
        self,
        ip4: IP4,
        driver: NetworkDriver,
        states: AddressStates,
        events: Events,
        *,
        resolv_confs: Iterable[Path] = RESOLV_CONFS,
    ) -> None:
        self.driver = driver
        self._ip4 = ip4
        self._states = states
        self._events = events
        self._pool = tuple(str(address) for address in ip4.pool())
        self._leases: dict[str, Lease] = {}
        self._taken_out: dict[str, float | None] = {}
        """Addresses that the operator set unavailable, and when; None if that was in an earlier life."""
        self._setting = asyncio.Lock()
        self._unfit: HostUnfit | None = None
        self._resolv_confs = tuple(resolv_confs)
        self.name_servers = ip4.dns

    async def prepare(self) -> int:
        """Recall the operator's states, look at the host, sweep; returns how many leftovers went.

        A host that cannot give interfaces is no failure here: calls with `ip4` learn it from `require`.
        """
        states = await self._states.address_states()
        out = {ip for ip, state in states.items() if state is AddressState.unavailable}
        self._taken_out = {ip: None for ip in self._pool if ip in out}
        # Without NAT no server outside answers; a jail with none is told so at once instead of waiting.
        if self._ip4.nat and not self._ip4.dns:
            self.name_servers = await asyncio.to_thread(self._host_name_servers)
        self._unfit = None
        try:
            return await self.driver.prepare()
        except (HostUnfit, DriverError) as failure:
            log.info("calls with ip4 will be refused: %s", failure.message)
            self._unfit = HostUnfit(failure.message, **failure.details)
            return 0

    def require(self) -> None:
        """Refuse now what `lease` would refuse later, when nothing has been built yet.

        Raises:
            HostUnfit: this host or these rights cannot give a jail an interface.
            NoAddress: no address is free.
        """
        if self._unfit is not None:
            raise HostUnfit(self._unfit.message, **self._unfit.details)
        self._lowest_free()

    async def lease(self, jail: str) -> Address:
        """The lowest free address, put on record for `jail`.

        Raises:
            NoAddress, HostUnfit: as for `require`.
            DriverError: the host refused what all jails share.
        """
        self.require()
        ip = self._lowest_free()
        self._leases[ip] = Lease(jail, time.time())
        try:
            await self.driver.open(self.name_servers)
        except BaseException:
            del self._leases[ip]
            raise
        return Address(
            ip=ip,
            prefix=self._ip4.subnet.prefixlen,
            gateway=str(self._ip4.gateway_address),
            dns=self.name_servers,
        )

    async def attach(self, address: Address, jail: str, pid: int) -> None:
        """Give the network namespace of process `pid` an interface with this address.

        Raises:
            DriverError
        """
        await self.driver.attach(address, jail, pid)

    async def release(self, address: Address, jail: str) -> None:
        """Take the interface away, then the address back. May be repeated, also when it is another's by now.

        Raises:
            DriverError: the interface is still there, so the address stays out of the pool.
        """
        lease = self._leases.get(address.ip)
        if lease is not None and lease.jail == jail:
            await self.driver.detach(jail)
            if self._leases.get(address.ip) is lease:
                del self._leases[address.ip]

    def addresses(self) -> list[AddressInfo]:
        return [self._info(ip) for ip in self._pool]

    async def set_state(self, ip: str, state: AddressState) -> AddressInfo:
        """Take an address out of the pool or give it back; the word is on record before this returns.

        Raises:
            AddressNotFound: the pool has no such address.
            AddressInUse: a jail holds it, so it cannot be made available.
        """
        if ip not in self._pool:
            pool = f"{self._pool[0]} to {self._pool[-1]}" if self._pool else "no address"
            raise AddressNotFound(f"{ip} is not in the pool, which has {pool}", ip=ip)
        async with self._setting:
            lease = self._leases.get(ip)
            if state is AddressState.available and lease is not None:
                text = f"{ip} is leased to {lease.jail}; it comes back when that jail ends"
                raise AddressInUse(text, ip=ip, jail=lease.jail)
            await self._states.set_address_state(ip, state)
            if state is AddressState.available:
                self._taken_out.pop(ip, None)
            else:
                self._taken_out[ip] = time.time()
        self._events.publish(AddressStateSet(ip=ip, state=state.value))
        return self._info(ip)

    def capabilities(self) -> list[Capability]:
        return self.driver.capabilities()

    async def close(self) -> None:
        """Take back everything that was made on the host."""
        await self.driver.close()

    def _host_name_servers(self) -> tuple[str, ...]:
        texts = (path.read_text(errors="replace") for path in self._resolv_confs if path.is_file())
        return next((found for text in texts if (found := name_servers(text.splitlines()))), ())

    def _lowest_free(self) -> str:
        for ip in self._pool:
            if ip not in self._leases and ip not in self._taken_out:
                return ip
        # Jails live for seconds; the operator's mind changes more slowly.
        raise NoAddress(
            f"none of the pool's {len(self._pool)} addresses is free ({len(self._leases)} leased, "
            f"{len(self._taken_out)} taken out by the operator); try again later",
            retry_after_s=1 if self._leases else 60,
        )

    def _info(self, ip: str) -> AddressInfo:
        if (lease := self._leases.get(ip)) is not None:
            return AddressInfo(ip=ip, state=AddressState.unavailable, jail=lease.jail, since=lease.since)
        if ip in self._taken_out:
            return AddressInfo(ip=ip, state=AddressState.unavailable, since=self._taken_out[ip])
        return AddressInfo(ip=ip, state=AddressState.available)


def name_servers(resolv_conf: Iterable[str]) -> tuple[str, ...]:
    """The name servers of a resolv.conf(5) that a jail could reach too: not the host's own loopback, and
    no IPv6, of which a jail has none."""
    words = (line.split() for line in resolv_conf)
    found = []
    for word in words:
        if len(word) > 1 and word[0] == "nameserver":
            try:
                server = ip_address(word[1])
            except ValueError:
                continue
            if server.version == 4 and not server.is_loopback and not server.is_unspecified:
                found.append(str(server))
    return tuple(found)
