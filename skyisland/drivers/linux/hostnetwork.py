"""What an island has of interfaces on the host: bridge, ports, filter, and whose they are.

Everything that we make carries the island's name: a port in its prefix, the nftables table in its name
`sky_<island>`, the bridge, whose name the settings choose, in its hardware address. So a sweep deletes
what a killed island left and nothing else. A bridge or subnet that belongs to another is never changed.
Only where an island is gone with its state folder, and so with its name, the next one takes its bridge away:
an island that has one holds a socket of its bridge's name for as long as it lives.

We write no sysctls but those of the bridge and those inside the jail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from skyisland.errors import HostUnfit
from skyisland.host.internet import CLOSED4
from skyisland.jails.driver import island_tag
from skyisland.model import Address
from skyisland.settings import IP4

if TYPE_CHECKING:
    from skyisland.drivers.linux.nftables import BridgeFilter
    from skyisland.drivers.linux.rtnetlink import Interfaces

log = logging.getLogger(__name__)

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
"""For setns and unshare: Python has them from 3.12 on only."""
SYSCTL = Path("/proc/sys/net")
BRIDGE_MAC_PREFIX = "06:53:4b"
"""The first bytes of every island's bridge address: locally administered, then `SK`."""
RIGHTS_REMEDY = "run the island as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"


def port_name(island: str, jail: str) -> str:
    """The name of the host's end of a jail's veth pair: 15 characters at most, unique per island and jail."""
    return f"sky{island_tag(island)}-{jail.rpartition('-')[2][-7:]}"


def bridge_mac(island: str) -> str:
    """A hardware address that marks the bridge as this island's. A fixed one, because a bridge without one
    changes its address when ports come and go."""
    return ":".join((BRIDGE_MAC_PREFIX, *re.findall("..", hashlib.sha256(island.encode()).hexdigest()[:6])))


def jail_mac(ip: str) -> str:
    """A hardware address derived from the IP address: so an ARP entry of the address's last holder is right
    for the next holder too."""
    return "02:53:" + IPv4Address(ip).packed.hex(":")


class HostNetwork:
    """The island's bridge, ports and filter in one network namespace: that of the thread that makes this.

    Every method blocks and raises OSError.
    """

    def __init__(self, ip4: IP4, island: str, open_networks: tuple[IPv4Network, ...]) -> None:
        from skyisland.drivers.linux.rtnetlink import NETLINK_NETFILTER, Interfaces, NetlinkSocket

        self.ip4 = ip4
        self.island = island
        self.open_networks = open_networks
        self.table = "sky_" + re.sub(r"\W", "_", island)
        self.filtered = True
        """Whether `build` installs the filter."""
        self.counts_connections = True
        """Whether the filter limits how many connections an address has."""
        self.interfaces: Interfaces = Interfaces()
        self._bridge: int | None = None
        """The index of the bridge that we made. The kernel gives an index to no second interface, so a
        bridge with another index was made by somebody else."""
        self._alive: socket.socket | None = None
        """Tells other islands that the bridge is in use."""
        self._netfilter: NetlinkSocket | None = None
        with contextlib.suppress(OSError):
            # A kernel without this protocol: `build` reports it.
            self._netfilter = NetlinkSocket(NETLINK_NETFILTER)

    def close(self) -> None:
        self.interfaces.close()
        if self._alive is not None:
            self._alive.close()
        if self._netfilter is not None:
            self._netfilter.close()

    def build(self, dns: tuple[str, ...]) -> None:
        """Make the bridge and the filter, or what is missing of them. `dns`: the name servers of jails."""
        from skyisland.drivers.linux import nftables

        if self._bridge is None or self._bridge != self.interfaces.index(self.ip4.bridge):
            self._bridge = self._build_bridge()
        if self.filtered:
            if self._netfilter is None:
                raise OSError(errno.EPROTONOSUPPORT, "this kernel has no netfilter")
            if not nftables.exists(self._netfilter, self.table):
                filter_ = self._filter(dns)
                try:
                    nftables.install(self._netfilter, filter_)
                except FileNotFoundError:
                    # This kernel lacks one of the expressions. We can do without the count.
                    nftables.install(self._netfilter, structs.replace(filter_, connections=None))
                    self.counts_connections = False

    def _build_bridge(self) -> int:
        name = self.ip4.bridge
        self.refuse_conflicts()
        if self._alive is None:
            self._alive = _hold(bridge_mac(self.island))
        gateways, mac = self.ip4.gateways, bridge_mac(self.island)
        bridge = self.interfaces.find(name)
        index = bridge.index if bridge else self.interfaces.add_bridge(name, mac, *gateways)
        # With IPv6 the bridge would have a link-local address, which jails can derive from its hardware
        # address.
        _write(SYSCTL / "ipv6/conf" / name / "disable_ipv6", "1", optional=True)
        _write(SYSCTL / "ipv4/conf" / name / "forwarding", "1" if self.ip4.nat else "0")
        return index

    def attach(self, address: Address, jail: str, namespace: int) -> None:
        """Connect a network namespace to the bridge by a veth pair, whose end in there is eth0.

        Returns when packets pass.
        """
        from skyisland.drivers.linux.rtnetlink import LinkMonitor

        assert self._bridge is not None  # noqa: S101 - a lease comes first, and with it the bridge
        port = port_name(self.island, jail)
        with contextlib.closing(LinkMonitor()) as monitor:
            index = self.interfaces.add_port(port, self._bridge, namespace, jail_mac(address.ip), jail)
            try:
                in_namespace(namespace, lambda: _equip(address))
                # A first packet that is lost costs a second, the time until the sender tries again. So we
                # wait until the port passes packets, which is a little after it is up; and we replace an
                # ARP entry that failed, because somebody tried this address before.
                for interface in (index, self._bridge):
                    monitor.wait_until(partial(self.interfaces.running, interface))
                self.interfaces.set_neighbour(self._bridge, address.ip, jail_mac(address.ip))
            except BaseException:
                self.interfaces.delete(port)
                raise

    def detach(self, jail: str) -> None:
        self.interfaces.delete(port_name(self.island, jail))

    def sweep(self) -> int:
        """Delete the ports, the bridge and the table that carry this island's name; return their number."""
        from skyisland.drivers.linux import nftables

        prefix, mac = port_name(self.island, "-"), bridge_mac(self.island)
        ours = [each for each in self.interfaces.all() if each.name.startswith(prefix) or each.mac == mac]
        swept = sum(self.interfaces.delete(interface.name) for interface in ours)
        if self._netfilter is not None:
            try:
                swept += nftables.remove(self._netfilter, self.table)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    raise
                # This kernel has no nf_tables, and so no table of ours.
        return swept

    def take_over(self) -> int:
        """Delete what islands that are gone left in our way: their bridge, its filter; return how much."""
        from skyisland.drivers.linux import nftables

        at = {
            index
            for index, address in self.interfaces.addresses()
            if any(address.network.overlaps(gateway.network) for gateway in self.ip4.gateways)
        }
        taken = 0
        for each in self.interfaces.all():
            in_the_way = each.name == self.ip4.bridge or each.index in at
            if (
                not in_the_way
                or not each.mac.startswith(BRIDGE_MAC_PREFIX)
                or each.mac == bridge_mac(self.island)
            ):
                continue
            held = _hold(each.mac)
            if held is None:
                continue  # its island lives
            with held:
                log.warning("the bridge %s is that of an island that is gone, and is taken away", each.name)
                taken += self.interfaces.delete(each.name)
                tables = [] if self._netfilter is None else nftables.tables(self._netfilter)
                for table in tables:
                    island = table.removeprefix("sky_")
                    if island != table and bridge_mac(island) == each.mac:
                        assert self._netfilter is not None  # noqa: S101 - it listed the tables
                        taken += nftables.remove(self._netfilter, table)
        return taken

    def who_drops(self) -> str | None:
        """Another's chain that lets nothing pass between the bridge and outside, in words."""
        from skyisland.drivers.linux import nftables, xtables

        chain = None
        with contextlib.suppress(OSError):  # this kernel has no nf_tables, and so no chain
            if self._netfilter is not None:
                chain = nftables.who_drops(self._netfilter, self.ip4.bridge)
        with contextlib.suppress(OSError):  # nor the tables of iptables-legacy
            chain = chain or xtables.who_drops(self.ip4.bridge)
        return chain

    def refuse_conflicts(self) -> None:
        """Refuse a bridge's name or a subnet that another already uses on this host.

        Raises:
            HostUnfit
        """
        ip4 = self.ip4
        namesake = self.interfaces.find(ip4.bridge)
        if namesake is not None and namesake.mac != bridge_mac(self.island):
            whose = "another island's" if namesake.mac.startswith(BRIDGE_MAC_PREFIX) else "not the island's"
            raise unfit(
                f"the interface {ip4.bridge} is {whose}", "set network.ip4.bridge to a name that is free"
            )
        for index, address in self.interfaces.addresses():
            for subnet in (gateway.network for gateway in ip4.gateways):
                if address.network.overlaps(subnet) and (namesake is None or index != namesake.index):
                    text = f"the pool's subnet {subnet} overlaps with this host's {address}"
                    raise unfit(text, "set network.ip4.cidr to a subnet that is free")

    def uplink(self) -> str | None:
        """The name of the interface that leads outside; None if there is none."""
        if self.ip4.interface:
            return self.ip4.interface if self.interfaces.find(self.ip4.interface) else None
        interface = self.interfaces.uplink()
        return interface.name if interface else None

    def _filter(self, dns: tuple[str, ...]) -> BridgeFilter:
        from skyisland.drivers.linux.nftables import BridgeFilter

        servers = (ip_address(server) for server in dns)
        neighbours = {
            address.network for _, address in self.interfaces.addresses() if not address.is_loopback
        }
        return BridgeFilter(
            table=self.table,
            bridge=self.ip4.bridge,
            gateways=self.ip4.gateways,
            dns=tuple(server for server in servers if isinstance(server, IPv4Address)),
            nat=self.ip4.nat,
            uplink=self.ip4.interface,
            closed=(*CLOSED4, *sorted(neighbours)),
            open=self.open_networks,
            egress=tuple(map(IPv4Network, self.ip4.egress)),
        )


def _hold(mac: str) -> socket.socket | None:
    """A socket whose name, in this network namespace, nobody else can have while we hold it, and which is
    gone with its process however that ends (unix(7), abstract sockets); None if another holds it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(f"\0skyisland-bridge-{mac}")
    except OSError:
        sock.close()
        return None
    return sock


def _equip(address: Address) -> None:
    """Set up eth0 in the jail's network namespace, where we are: its address, its route, no IPv6."""
    from skyisland.drivers.linux.rtnetlink import Interfaces

    _write(SYSCTL / "ipv6/conf/eth0/disable_ipv6", "1", optional=True)
    with contextlib.closing(Interfaces()) as interfaces:
        interfaces.equip("eth0", IPv4Interface(f"{address.ip}/{address.prefix}"), address.gateway)


def in_namespace(namespace: int | None, work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own inside a network namespace; without one, in a new one.

    A thread of its own, because it stays in that namespace until it ends.
    """

    def inside() -> T:
        entered = LIBC.unshare(CLONE_NEWNET) if namespace is None else LIBC.setns(namespace, CLONE_NEWNET)
        if entered != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"entering a network namespace: {os.strerror(number)}")
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="netlink-inside") as executor:
        return executor.submit(inside).result()


def _write(sysctl: Path, value: str, *, optional: bool = False) -> None:
    """`optional`: a missing sysctl is no error; a kernel without IPv6 lacks those of IPv6."""
    with contextlib.suppress(*([FileNotFoundError] if optional else [])):
        sysctl.write_text(value)


def forwards(interface: str) -> bool:
    try:
        return (SYSCTL / "ipv4/conf" / interface / "forwarding").read_text().strip() == "1"
    except FileNotFoundError:
        return False


def unfit(text: str, remedy: str) -> HostUnfit:
    return HostUnfit(f"{text}; {remedy}", reason=text, remedy=remedy)
