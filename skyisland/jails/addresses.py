"""The pools of addresses: which jail holds which, and which the operator has taken out.

A call with `"ip4": true` waits for its turn, because no client has more than its share. Then it leases the
lowest free address for its jail, of the first pool that has one; it is free again when the jail is gone. Two
jails never hold the same address: a lease is on record before anything is awaited, and ends only after its
interface is gone. A state that the operator sets (`set_state`) outlives the island; a lease does not. An
address that is taken out while a jail holds it stays with that jail, and leaves the pool when the lease ends.

A `NetworkDriver` makes the interfaces. `prepare` finds out what the host can do and removes leftovers, but
makes nothing: an island without such calls leaves the host's network as it is. What all jails share, such as
a bridge, is made with the first lease.
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
from skyisland.host.fair import FairQueue
from skyisland.jails.driver import NetworkDriver
from skyisland.model import Address
from skyisland.settings import IP4
from skyisland.settings import Jails as Calls
from skyisland.status import AddressInfo, AddressState, Capability

log = logging.getLogger(__name__)

RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Files with the host's name servers. Under systemd-resolved the first names only its stub on loopback."""


DEFAULT_CALLS = Calls()


class NoInterfaces:
    """The driver where no jail can have an interface: it refuses all that would need one."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy

    async def prepare(self) -> int:
        raise self._unfit()

    async def open(self, dns: tuple[str, ...]) -> None:
        raise self._unfit()

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
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
    """What `State` (record/) gives the pool: the operator's states, over restarts."""

    async def taken_out(self) -> dict[str, float | None]:
        """The addresses that the operator took out of the pool, with when; None where that is not known."""
        ...

    async def set_address_state(self, ip: str, state: AddressState) -> None: ...


class Lease(Struct, frozen=True):
    jail: str
    since: float
    """Seconds since the epoch."""
    client: str
    """Whose share it counts to."""


class Addresses:
    """The addresses of `network.ip4` and their leases (`AddressPool`, `rooms.AddressRoom`)."""

    def __init__(
        self,
        ip4: IP4,
        driver: NetworkDriver,
        states: AddressStates,
        events: Events,
        *,
        calls: Calls = DEFAULT_CALLS,
        resolv_confs: Iterable[Path] = RESOLV_CONFS,
    ) -> None:
        """`calls`: as many may wait for an address, and as long, as for a place to run."""
        self.driver = driver
        self._ip4 = ip4
        self._states = states
        self._events = events
        self._pool = tuple(str(address) for address in ip4.pool())
        """In the order in which they are leased."""
        self._queue = FairQueue(
            "an address",
            len(self._pool),
            places_per_client=ip4.leases_per_client,
            max_waiting=calls.max_queued,
            timeout_s=calls.queue_timeout,
        )
        """Its places are the addresses that the operator has left in the pool, and those leased."""
        self._turns: dict[str, str] = {}
        """Invocation whose turn it is, before it leases → client."""
        self._leases: dict[str, Lease] = {}
        self._taken_out: dict[str, float | None] = {}
        """Addresses that the operator set unavailable → when; None where that is not known."""
        self._setting = asyncio.Lock()
        self._unfit: HostUnfit | None = None
        self._resolv_confs = tuple(resolv_confs)
        self.name_servers = ip4.dns

    async def prepare(self) -> int:
        """Read the operator's states, prepare the driver, and learn the name servers.

        Returns how many leftovers were removed. A host that cannot give interfaces is no failure here: calls
        with `ip4` learn of it from `require`.
        """
        out = await self._states.taken_out()
        self._taken_out = {ip: out[ip] for ip in self._pool if ip in out}
        self._resize()
        # Without NAT no server outside answers. With none in its resolv.conf a jail fails at once.
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
        """Refuse what no waiting helps, before anything is built.

        Raises:
            HostUnfit: this host or these rights cannot give a jail an interface.
            NoAddress: the operator has taken all addresses out of the pool.
        """
        if self._unfit is not None:
            raise HostUnfit(self._unfit.message, **self._unfit.details)
        if len(self._taken_out) == len(self._pool):
            self._lowest_free()

    async def await_turn(self, invocation: str, client: str) -> None:
        """Wait until the client may have one more address, for this invocation. `end_turn` must follow.

        Raises:
            TooBusy: too many wait, or none became free in time.
        """
        if not self._queue.take(client):
            await self._queue.wait(client)
        self._turns[invocation] = client

    def end_turn(self, invocation: str) -> None:
        """Let the next one have the address, unless the invocation leased it."""
        if (client := self._turns.pop(invocation, None)) is not None:
            self._queue.leave(client)

    async def lease(self, jail: str, invocation: str) -> Address:
        """The lowest free address, put on record for `jail`. It is the invocation's turn.

        Raises:
            NoAddress, HostUnfit: as for `require`.
            DriverError: the host refused to make what all jails share.
        """
        self.require()
        ip = self._lowest_free()
        self._leases[ip] = Lease(jail, time.time(), self._turns.pop(invocation))
        try:
            await self.driver.open(self.name_servers)
        except BaseException:
            self._end(ip)
            raise
        gateway = self._ip4.gateway_of(ip)
        return Address(
            ip=ip, prefix=gateway.network.prefixlen, gateway=str(gateway.ip), dns=self.name_servers
        )

    def _end(self, ip: str) -> None:
        lease = self._leases.pop(ip)
        self._resize()
        self._queue.leave(lease.client)

    def _resize(self) -> None:
        self._queue.resize(len(self._pool) - len(self._taken_out.keys() - self._leases.keys()))

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        """See `NetworkDriver`.

        Raises:
            DriverError
        """
        await self.driver.attach(address, jail, pid, pidfd)

    async def release(self, address: Address, jail: str) -> None:
        """Take the interface away, then end the lease. May be repeated, also when another jail has it by now.

        Raises:
            DriverError: the interface is still there, so the address stays out of the pool.
        """
        lease = self._leases.get(address.ip)
        if lease is not None and lease.jail == jail:
            await self.driver.detach(jail)
            if self._leases.get(address.ip) is lease:
                self._end(address.ip)

    @property
    def free(self) -> int:
        """How many could be leased at once."""
        return 0 if self._unfit is not None else self._queue.free

    def addresses(self) -> list[AddressInfo]:
        return [self._info(ip) for ip in self._pool]

    async def set_state(self, ip: str, state: AddressState) -> AddressInfo:
        """Take an address out of the pool or give it back. The state is on record before this returns.

        A leased address that was taken out may be given back: then it is free when its jail ends.

        Raises:
            AddressNotFound: the pool has no such address.
            AddressInUse: a jail holds it, and it was not taken out, so there is nothing to give back.
        """
        if ip not in self._pool:
            pool = ", ".join(f"{first} to {last}" for first, last in self._ip4.spans())
            if any(ip == str(gateway.ip) for gateway in self._ip4.gateways):
                raise AddressNotFound(f"{ip} is the gateway, which no jail gets; the pool has {pool}", ip=ip)
            raise AddressNotFound(f"{ip} is not in the pool, which has {pool}", ip=ip)
        async with self._setting:
            lease = self._leases.get(ip)
            if state is AddressState.available and lease is not None and ip not in self._taken_out:
                text = f"{ip} is leased to {lease.jail}; it comes back when that jail ends"
                raise AddressInUse(text, ip=ip, jail=lease.jail)
            await self._states.set_address_state(ip, state)
            if state is AddressState.available:
                self._taken_out.pop(ip, None)
            else:
                self._taken_out[ip] = time.time()
            self._resize()
        self._events.publish(AddressStateSet(ip=ip, state=state.value))
        return self._info(ip)

    def capabilities(self) -> list[Capability]:
        return self.driver.capabilities()

    async def close(self) -> None:
        """Remove all that was made on the host."""
        await self.driver.close()

    def _host_name_servers(self) -> tuple[str, ...]:
        texts = (path.read_text(errors="replace") for path in self._resolv_confs if path.is_file())
        return next((servers for text in texts if (servers := name_servers(text.splitlines()))), ())

    def _lowest_free(self) -> str:
        for ip in self._pool:
            if ip not in self._leases and ip not in self._taken_out:
                return ip
        # Jails live for seconds. What the operator took out comes back by hand.
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
    """The name servers of a resolv.conf(5) that a jail could reach: of IPv4, and not the host's loopback."""
    servers = []
    for words in map(str.split, resolv_conf):
        if len(words) > 1 and words[0] == "nameserver":
            try:
                server = ip_address(words[1])
            except ValueError:
                continue
            if server.version == 4 and not server.is_loopback and not server.is_unspecified:
                servers.append(str(server))
    return tuple(servers)
