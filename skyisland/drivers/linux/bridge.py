"""Interfaces for jails on Linux: a bridge, a veth pair per jail, and a packet filter on the bridge.

    jail's namespace                    the host
    eth0 ── veth ── sky<tag>-<number> ── bridge sky0 (the gateway) ── filter, NAT ── uplink

Nothing on the host changes before the first lease. `prepare` rehearses every step of a lease in network
namespaces of its own, which disappear afterwards: so it learns exactly what this kernel can do, and
leaves no trace. What belongs to another is never changed (`hostnetwork`): `prepare` refuses it.

NAT also needs forwarding on the uplink, where the replies arrive. That is the host's own setting:
`capabilities` reports when it is off.

On a kernel without nf_tables, jails with addresses are isolated from each other but not from the host,
and `capabilities` reports that too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import TypeVar

from skyisland.doctor import TRIAL_ISLAND
from skyisland.drivers.linux.hostnetwork import RIGHTS_REMEDY, HostNetwork, forwards, in_namespace, unfit
from skyisland.errors import DriverError, HostUnfit
from skyisland.model import Address
from skyisland.settings import IP4
from skyisland.status import Capability

log = logging.getLogger(__name__)

T = TypeVar("T")


class BridgeNetwork:
    """The `NetworkDriver` of Linux."""

    name = "netlink"

    def __init__(self, ip4: IP4, *, island: str, open_networks: Iterable[IPv4Network] = ()) -> None:
        """`open_networks`: private networks that jails may reach, beside those of the settings."""
        self.island = island
        self._ip4 = ip4
        self._open_networks = (*map(IPv4Network, ip4.open_networks), *open_networks)
        # Two threads with sockets of their own, because the kernel deletes an interface slowly: no call
        # for an interface shall wait while another one is deleted.
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="netlink-make")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="netlink-remove")
        self._closed = False
        self._counts_connections = True
        self._maker_host: HostNetwork | None = None
        self._remover_host: HostNetwork | None = None
        self._capabilities: list[Capability] = [
            Capability(name="network", enforced=False, how="not looked at yet", remedy="start the island")
        ]

    async def prepare(self) -> int:
        """See `NetworkDriver`."""
        try:
            return await self._run(self._maker, self._prepare)
        except HostUnfit as unfit:
            reason, remedy = unfit.details["reason"], unfit.details["remedy"]
            self._capabilities = [
                Capability(name=name, enforced=False, how=reason, remedy=remedy)
                for name in ("network", "isolation", "nat")
            ]
            raise

    async def open(self, dns: tuple[str, ...]) -> None:
        await self._run(self._maker, lambda: self._prepared(self._maker_host).build(dns))

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        def work() -> None:
            with _opened(f"/proc/{pid}/ns/net") as namespace:
                # Had the process died before we opened it, this could be the namespace of another. A process
                # that is not reaped yet keeps its number.
                if pidfd is not None and not _lives(pidfd):
                    raise DriverError(f"the first process of {jail} has ended", jail=jail)
                self._prepared(self._maker_host).attach(address, jail, namespace)

        await self._run(self._maker, work)

    async def detach(self, jail: str) -> None:
        await self._run(self._remover, lambda: self._prepared(self._remover_host).detach(jail))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._run(self._maker, self._close)
            for executor in (self._maker, self._remover):
                await asyncio.to_thread(executor.shutdown)

    def capabilities(self) -> list[Capability]:
        return list(self._capabilities)

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except OSError as error:
            raise DriverError(f"the host's network refused: {error}") from error

    def _prepared(self, host: HostNetwork | None) -> HostNetwork:
        if host is None:
            raise HostUnfit("the network is not prepared")
        return host

    # In the maker's thread

    def _prepare(self) -> int:
        filter_refusal = self._rehearse()
        if self._maker_host is None:
            self._maker_host, self._remover_host = (self._new_host_network() for _ in range(2))
        self._maker_host.filtered = filter_refusal is None
        swept = self._maker_host.sweep()
        if self.island != TRIAL_ISLAND:  # which changes nothing
            swept += self._maker_host.take_over()
        self._maker_host.refuse_conflicts()
        self._capabilities = self._assess(self._maker_host, filter_refusal)
        return swept

    def _rehearse(self) -> str | None:
        """Take every step of a lease in a new network namespace.

        Returns the reason why this kernel can have no packet filter; None if it can.

        Raises:
            HostUnfit: another step failed.
        """
        try:
            return in_namespace(None, self._rehearse_lease)
        except ImportError as error:
            raise unfit(f"{error.name} is not installed", "pip install pyroute2") from error
        except PermissionError as error:
            raise unfit(f"no rights for networking: {error.strerror}", RIGHTS_REMEDY) from error
        except OSError as error:
            remedy = "use a kernel with network namespaces, bridge and veth (modprobe bridge veth)"
            raise unfit(f"this kernel cannot give jails interfaces: {error}", remedy) from error

    def _rehearse_lease(self) -> str | None:
        filter_refusal = None
        with contextlib.closing(self._new_host_network()) as host:
            try:
                host.build(self._ip4.dns)
                self._counts_connections = host.counts_connections
            except OSError as error:
                denied = error.errno in (errno.EPERM, errno.EACCES)
                if denied or host.interfaces.find(self._ip4.bridge) is None:
                    raise
                filter_refusal = f"nf_tables: {error}"  # the bridge was made: it was the table that failed
                if self._ip4.nat:
                    remedy = "load nf_tables, nft_ct and nft_masq, or set network.ip4.nat = false"
                    raise unfit(f"network.ip4.nat needs nftables, which refuses: {error}", remedy) from error
            trial = Address(
                ip=str(next(self._ip4.pool(), self._ip4.gateway_address)),
                prefix=self._ip4.subnet.prefixlen,
                gateway=str(self._ip4.gateway_address),
            )
            namespace = in_namespace(None, lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY))
            try:
                host.attach(trial, "sky-rehearsal-0", namespace)
                host.detach("sky-rehearsal-0")
            finally:
                os.close(namespace)
        return filter_refusal

    def _new_host_network(self) -> HostNetwork:
        return HostNetwork(self._ip4, self.island, self._open_networks)

    def _assess(self, host: HostNetwork, filter_refusal: str | None) -> list[Capability]:
        ip4 = self._ip4
        subnets = ", ".join(str(gateway.network) for gateway in ip4.gateways)
        network = f"addresses of {subnets} on the bridge {ip4.bridge}"
        apart = "bridge ports keep jails apart"
        filtered = f"{apart}, the nftables table {host.table} keeps them off the host and private networks"
        isolation = Capability(name="isolation", enforced=True, how=filtered)
        if filter_refusal is not None:
            how = f"{apart}, but nothing keeps them off the host: {filter_refusal}"
            remedy = "load nf_tables and nft_ct"
            isolation = Capability(name="isolation", enforced=False, how=how, remedy=remedy)
        return [Capability(name="network", enforced=True, how=network), isolation, self._assess_nat(host)]

    def _assess_nat(self, host: HostNetwork) -> Capability:
        if not self._ip4.nat:
            how, remedy = "jails reach the bridge alone", "set network.ip4.nat = true"
            return Capability(name="nat", enforced=False, how=how, remedy=remedy, wanted=False)
        uplink = host.uplink()
        if uplink is None:
            interface = self._ip4.interface
            how = (
                f"there is no interface {interface}" if interface else "this host has no route to the outside"
            )
            remedy = "set network.ip4.interface to the one that leads outside, and start the island again"
            return Capability(name="nat", enforced=False, how=how, remedy=remedy)
        if (dropping := host.who_drops()) is not None:
            bridge = self._ip4.bridge
            how = f"{dropping} drops what it has no rule for, so jails reach nothing outside"
            remedy = (
                f"let it pass and start the island again: iptables -I FORWARD -i {bridge} -j ACCEPT, and "
                f"iptables -I FORWARD -o {bridge} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT "
                f"(beside Docker: -I DOCKER-USER; with ufw: ufw route allow in on {bridge})"
            )
            log.warning("network.ip4.nat: %s; %s", how, remedy)
            return Capability(name="nat", enforced=False, how=how, remedy=remedy)
        if not forwards(uplink):
            remedy = f"sysctl -w net.ipv4.conf.{uplink}.forwarding=1"
            how = f"{uplink} does not forward, so answers from outside are dropped"
            log.warning("network.ip4.nat: %s; %s", how, remedy)
            return Capability(name="nat", enforced=False, how=how, remedy=remedy)
        from skyisland.drivers.linux.nftables import CONNECTIONS

        counted = (
            f"{CONNECTIONS} connections for each address"
            if self._counts_connections
            else "any number of connections: this kernel has no nft_connlimit"
        )
        return Capability(name="nat", enforced=True, how=f"masquerading behind {uplink}, {counted}")

    def _close(self) -> None:
        if self._maker_host is not None:
            self._maker_host.sweep()
        for host in (self._maker_host, self._remover_host):
            if host is not None:
                host.close()
        self._maker_host = self._remover_host = None


def _lives(pidfd: int) -> bool:
    """Whether the process of this descriptor has not been reaped."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
