"""Interfaces for jails on Linux: a bridge, a pair of links per jail, and a packet filter around them.

    jail's namespace                    the host
    eth0 ── pair ── sky<tag>-<number> ── bridge sky0 (the gateway) ── filter, NAT ── uplink

Nothing on the host changes before the first lease: `prepare` rehearses everything that a lease would do
in network namespaces of its own, which vanish with it, so what it learns is exact and leaves no trace.
What is made bears the island's name: the ports by prefix, the table `sky_<island>`, the bridge, whose
name the settings choose, by its hardware address. So a sweep finds what a killed island left and
nothing else, and a bridge or subnet that is somebody else's is never touched but refused.

The only sysctls written are the bridge's own and those inside the jail. NAT also needs forwarding on
the uplink, where the answers come in; that is the host's, so `capabilities` tells when it is off.

Where the kernel has no nf_tables, jails with addresses are kept apart from each other alone, and
`capabilities` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from skyisland.errors import DriverError, HostUnfit
from skyisland.model import Address, Capability
from skyisland.settings import IP4

if TYPE_CHECKING:
    from skyisland.drivers.linux.nftables import Filter
    from skyisland.drivers.linux.rtnetlink import Links

log = logging.getLogger(__name__)

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
"""For setns and unshare, which Python itself has from 3.12 on."""
SYSCTL = Path("/proc/sys/net")
BRIDGE_MARK = "06:53:4b"
"""How the hardware address of every island's bridge begins: locally administered, then `SK`."""
UNFIT_REMEDY = "run the island as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"


def tag(island: str) -> str:
    """Four characters that stand for an island where names are short."""
    return hashlib.sha256(island.encode()).hexdigest()[:4]


def port_name(island: str, jail: str) -> str:
    """The host's end of a jail's pair: at most 15 characters, told apart by island and jail number."""
    return f"sky{tag(island)}-{jail.rpartition('-')[2][-7:]}"


def bridge_mac(island: str) -> str:
    """The hardware address that says whose bridge it is, and stays when ports come and go."""
    return ":".join((BRIDGE_MARK, *re.findall("..", hashlib.sha256(island.encode()).hexdigest()[:6])))


def jail_mac(ip: str) -> str:
    """Follows from the address, so that what neighbours remember of its last holder stays true."""
    return "02:53:" + IPv4Address(ip).packed.hex(":")


class Netlink:
    """The `NetworkDriver` of Linux."""

    name = "netlink"

    def __init__(self, ip4: IP4, *, island: str, open_networks: Iterable[IPv4Network] = ()) -> None:
        """`open_networks`: private ones that jails may reach, beside those of the settings."""
        self.island = island
        self._ip4 = ip4
        self._open_networks = (*map(IPv4Network, ip4.open_networks), *open_networks)
        # One thread makes and one unmakes, each with its own sockets: the kernel takes its time to delete
        # a link, and nobody's call shall wait for that.
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="netlink-make")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="netlink-remove")
        self._closed = False
        self._making: Host | None = None
        self._removing: Host | None = None
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
        await self._run(self._maker, lambda: self._ready(self._making).build(dns))

    async def attach(self, address: Address, jail: str, pid: int) -> None:
        def work() -> None:
            with _opened(f"/proc/{pid}/ns/net") as namespace:
                self._ready(self._making).attach(address, jail, namespace)

        await self._run(self._maker, work)

    async def detach(self, jail: str) -> None:
        await self._run(self._remover, lambda: self._ready(self._removing).detach(jail))

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

    def _ready(self, host: Host | None) -> Host:
        if host is None:
            raise HostUnfit("the network is not prepared")
        return host

    # In the maker's thread

    def _prepare(self) -> int:
        filtered = self._rehearse()
        if self._making is None:
            self._making, self._removing = (self._host() for _ in range(2))
        self._making.filtered = filtered is None
        swept = self._making.sweep()
        self._making.refuse_conflicts()
        self._capabilities = self._learn(self._making, filtered)
        return swept

    def _rehearse(self) -> str | None:
        """Do everything once where nobody sees it; returns why there can be no filter, if so.

        Raises:
            HostUnfit: what else this host cannot do.
        """
        try:
            return in_namespace(None, self._play)
        except ImportError as error:
            raise _unfit(f"{error.name} is not installed", "pip install pyroute2") from error
        except PermissionError as error:
            raise _unfit(f"no rights for networking: {error.strerror}", UNFIT_REMEDY) from error
        except OSError as error:
            remedy = "use a kernel with network namespaces, bridge and veth (modprobe bridge veth)"
            raise _unfit(f"this kernel cannot give jails interfaces: {error}", remedy) from error

    def _play(self) -> str | None:
        refusal = None
        with contextlib.closing(self._host()) as host:
            try:
                host.build(self._ip4.dns)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES) or host.links.find(self._ip4.bridge) is None:
                    raise
                refusal = f"nf_tables: {error}"
                if self._ip4.nat:
                    remedy = "load nf_tables, nft_ct and nft_masq, or set network.ip4.nat = false"
                    raise _unfit(f"network.ip4.nat needs nftables, which refuses: {error}", remedy) from error
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
        return refusal

    def _host(self) -> Host:
        return Host(self._ip4, self.island, self._open_networks)

    def _learn(self, host: Host, no_filter: str | None) -> list[Capability]:
        ip4 = self._ip4
        network = f"addresses of {ip4.subnet} on the bridge {ip4.bridge}"
        apart = "bridge ports keep jails apart"
        filtered = f"{apart}, the nftables table {host.table} keeps them off the host and private networks"
        isolation = Capability(name="isolation", enforced=True, how=filtered)
        if no_filter is not None:
            how = f"{apart}, but nothing keeps them off the host: {no_filter}"
            remedy = "load nf_tables and nft_ct"
            isolation = Capability(name="isolation", enforced=False, how=how, remedy=remedy)
        return [Capability(name="network", enforced=True, how=network), isolation, self._learn_nat(host)]

    def _learn_nat(self, host: Host) -> Capability:
        if not self._ip4.nat:
            how, remedy = "not configured: jails reach the bridge alone", "set network.ip4.nat = true"
            return Capability(name="nat", enforced=False, how=how, remedy=remedy)
        uplink = host.uplink()
        if uplink is None:
            interface = self._ip4.interface
            how = (
                f"there is no interface {interface}" if interface else "this host has no route to the outside"
            )
            remedy = "set network.ip4.interface to the one that leads outside, and start the island again"
            return Capability(name="nat", enforced=False, how=how, remedy=remedy)
        if not _forwards(uplink):
            remedy = f"sysctl -w net.ipv4.conf.{uplink}.forwarding=1"
            how = f"{uplink} does not forward, so answers from outside are dropped"
            log.warning("network.ip4.nat: %s; %s", how, remedy)
            return Capability(name="nat", enforced=False, how=how, remedy=remedy)
        return Capability(name="nat", enforced=True, how=f"masquerading behind {uplink}")

    def _close(self) -> None:
        if self._making is not None:
            self._making.sweep()
        for host in (self._making, self._removing):
            if host is not None:
                host.close()
        self._making = self._removing = None


class Host:
    """The island's share in the links and the filter of one namespace: that of the thread that makes it.

    Everything blocks and raises OSError.
    """

    def __init__(self, ip4: IP4, island: str, open_networks: tuple[IPv4Network, ...]) -> None:
        from skyisland.drivers.linux.rtnetlink import NETLINK_NETFILTER, Links
        from skyisland.drivers.linux.rtnetlink import Netlink as Socket

        self.ip4 = ip4
        self.island = island
        self.open_networks = open_networks
        self.table = "sky_" + re.sub(r"\W", "_", island)
        self.filtered = True
        """Whether to put the filter up."""
        self.links: Links = Links()
        self._bridge: int | None = None
        """The index of the bridge that was made; no other link gets it."""
        self._netfilter: Socket | None = None
        with contextlib.suppress(OSError):
            # Without the protocol in the kernel, `build` says so.
            self._netfilter = Socket(NETLINK_NETFILTER)

    def close(self) -> None:
        self.links.close()
        if self._netfilter is not None:
            self._netfilter.close()

    def build(self, dns: tuple[str, ...]) -> None:
        """Make, or mend, bridge and filter. `dns`: the name servers of jails."""
        from skyisland.drivers.linux import nftables

        if self._bridge is None or self._bridge != self.links.index(self.ip4.bridge):
            self._bridge = self._build_bridge()
        if self.filtered:
            if self._netfilter is None:
                raise OSError(errno.EPROTONOSUPPORT, "this kernel has no netfilter")
            if not nftables.exists(self._netfilter, self.table):
                nftables.install(self._netfilter, self._filter(dns))

    def _build_bridge(self) -> int:
        name = self.ip4.bridge
        self.refuse_conflicts()
        gateway = IPv4Interface(f"{self.ip4.gateway_address}/{self.ip4.subnet.prefixlen}")
        found = self.links.find(name)
        index = found.index if found else self.links.add_bridge(name, bridge_mac(self.island), gateway)
        # A bridge with IPv6 would have an address that any jail can guess.
        _write(SYSCTL / "ipv6/conf" / name / "disable_ipv6", "1", optional=True)
        _write(SYSCTL / "ipv4/conf" / name / "forwarding", "1" if self.ip4.nat else "0")
        return index

    def attach(self, address: Address, jail: str, namespace: int) -> None:
        """A pair of links between the bridge and that namespace, whose end is called eth0; returns when
        packets pass."""
        from skyisland.drivers.linux.rtnetlink import LinkNews

        assert self._bridge is not None  # noqa: S101 - a lease comes first, and with it the bridge
        port = port_name(self.island, jail)
        with contextlib.closing(LinkNews()) as news:
            index = self.links.add_port(port, self._bridge, namespace, jail_mac(address.ip), jail)
            try:
                in_namespace(namespace, lambda: _equip(address))
                # The kernel lets packets through a little later, and who called this address in vain still
                # waits for its neighbour: a first packet that is lost costs a second.
                for link in (index, self._bridge):
                    news.until(partial(self.links.running, link))
                self.links.meet(self._bridge, address.ip, jail_mac(address.ip))
            except BaseException:
                self.links.delete(port)
                raise

    def detach(self, jail: str) -> None:
        self.links.delete(port_name(self.island, jail))

    def sweep(self) -> int:
        """Remove everything that bears this island's name; how much that was."""
        from skyisland.drivers.linux import nftables

        prefix, mac = port_name(self.island, "-"), bridge_mac(self.island)
        doomed = [link for link in self.links.all() if link.name.startswith(prefix) or link.mac == mac]
        swept = sum(self.links.delete(link.name) for link in doomed)
        if self._netfilter is not None:
            try:
                swept += nftables.remove(self._netfilter, self.table)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    raise
                # No nf_tables, no table.
        return swept

    def refuse_conflicts(self) -> None:
        """Leave what is somebody else's alone.

        Raises:
            HostUnfit: the bridge's name or the pool's subnet is in use.
        """
        ip4 = self.ip4
        other = self.links.find(ip4.bridge)
        if other is not None and other.mac != bridge_mac(self.island):
            whose = "another island's" if other.mac.startswith(BRIDGE_MARK) else "not the island's"
            raise _unfit(
                f"the interface {ip4.bridge} is {whose}", "set network.ip4.bridge to a name that is free"
            )
        for index, address in self.links.addresses():
            if address.network.overlaps(ip4.subnet) and (other is None or index != other.index):
                text = f"the pool's subnet {ip4.subnet} overlaps with this host's {address}"
                raise _unfit(text, "set network.ip4.cidr to a subnet that is free")

    def uplink(self) -> str | None:
        if self.ip4.interface:
            return self.ip4.interface if self.links.find(self.ip4.interface) else None
        link = self.links.uplink()
        return link.name if link else None

    def _filter(self, dns: tuple[str, ...]) -> Filter:
        from skyisland.drivers.linux.nftables import ALWAYS_CLOSED, Filter

        servers = (ip_address(server) for server in dns)
        neighbours = {address.network for _, address in self.links.addresses() if not address.is_loopback}
        return Filter(
            table=self.table,
            bridge=self.ip4.bridge,
            subnet=self.ip4.subnet,
            gateway=self.ip4.gateway_address,
            dns=tuple(server for server in servers if isinstance(server, IPv4Address)),
            nat=self.ip4.nat,
            uplink=self.ip4.interface,
            closed=(*ALWAYS_CLOSED, *sorted(neighbours)),
            open=self.open_networks,
            egress=tuple(map(IPv4Network, self.ip4.egress)),
        )


def _equip(address: Address) -> None:
    """In the jail's namespace: eth0 with its address and route, and nothing but IPv4."""
    from skyisland.drivers.linux.rtnetlink import Links

    _write(SYSCTL / "ipv6/conf/eth0/disable_ipv6", "1", optional=True)
    with contextlib.closing(Links()) as links:
        links.equip("eth0", IPv4Interface(f"{address.ip}/{address.prefix}"), address.gateway)


def in_namespace(namespace: int | None, work: Callable[[], T]) -> T:
    """Run `work` in a short-lived thread inside a network namespace, or in a new one that ends with it."""

    def inside() -> T:
        entered = LIBC.unshare(CLONE_NEWNET) if namespace is None else LIBC.setns(namespace, CLONE_NEWNET)
        if entered != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"entering a network namespace: {os.strerror(number)}")
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="netlink-inside") as executor:
        return executor.submit(inside).result()


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(sysctl: Path, value: str, *, optional: bool = False) -> None:
    """`optional`: this kernel may lack it, as one without IPv6 does."""
    with contextlib.suppress(*([FileNotFoundError] if optional else [])):
        sysctl.write_text(value)


def _forwards(interface: str) -> bool:
    try:
        return (SYSCTL / "ipv4/conf" / interface / "forwarding").read_text().strip() == "1"
    except FileNotFoundError:
        return False


def _unfit(text: str, remedy: str) -> HostUnfit:
    return HostUnfit(f"{text}; {remedy}", reason=text, remedy=remedy)
