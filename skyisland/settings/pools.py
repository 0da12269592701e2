"""Pools of addresses for jails, and what jails reach by them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import combinations

from skyisland.settings.section import Section
from skyisland.settings.values import (
    Address,
    Count,
    Interface,
    Mask,
    Nameserver,
    NetworkOf4,
    Octet,
    Refused,
    Subnet,
)

DEFAULT_CIDR = "10.61.0.0/24"
MOST_POOLS = 31
"""A judgement: a pulse of a fleet tells all of them, and has 4 KiB."""


class Pool(Section, frozen=True, kw_only=True):
    """A pool of addresses: a subnet, or a range within one."""

    cidr: Subnet = ""
    """The pool as a subnet: all its addresses except the gateway's. Ignored if start_addr is set."""
    start_addr: Address = ""
    """The pool as a range within a subnet: its first address. Needs mask and range."""
    mask: Mask = ""
    """The mask of start_addr's subnet."""
    range: Octet = 0
    """The last octet of the pool's last address: with start_addr = "192.168.0.20", a range of 220 ends the
    pool at 192.168.0.220."""
    gateway: Address = ""
    """The jails' default route, outside the pool. If empty: the first address of the subnet."""

    def __post_init__(self) -> None:
        if self.start_addr:
            self._check_range()
        elif self.mask or self.range:
            key, value = ("mask", self.mask) if self.mask else ("range", self.range)
            raise Refused(key, value, "nothing without start_addr; the pool's subnet is cidr")
        elif not self.cidr:
            raise Refused("cidr", "", "a subnet, or start_addr with mask and range")
        subnet = self.subnet
        if any((subnet.is_loopback, subnet.is_multicast, subnet.is_link_local, subnet.is_reserved)):
            key = "start_addr" if self.start_addr else "cidr"
            raise Refused(key, str(subnet), "a subnet that hosts can have")
        gateway = self.gateway_address
        if not _has(subnet, gateway):
            raise Refused("gateway", self.gateway, f"a host's address in {subnet}")
        if self.start_addr and self.first <= gateway <= self.last:
            raise Refused("gateway", self.gateway, f"an address outside the pool {self.first} to {self.last}")

    def _check_range(self) -> None:
        if not self.mask:
            raise Refused("mask", "", 'the mask of start_addr\'s subnet, such as "255.255.255.0"')
        if IPv4Network(f"0.0.0.0/{self.mask}").prefixlen > 30:
            raise Refused("mask", self.mask, "a mask of 30 bits at most")
        subnet = self.subnet
        if self.cidr not in ("", DEFAULT_CIDR, str(subnet)):
            raise Refused("cidr", self.cidr, "either cidr, or start_addr with mask and range")
        if not _has(subnet, self.first):
            raise Refused("start_addr", self.start_addr, f"a host's address in its subnet {subnet}")
        if self.last < self.first:
            raise Refused(
                "range", self.range, f"a last octet from {self.first.packed[3]}, that of start_addr"
            )
        if not _has(subnet, self.last):
            raise Refused(
                "range", self.range, f"a pool that stays in its subnet {subnet}; this ends at {self.last}"
            )

    @property
    def subnet(self) -> IPv4Network:
        if self.start_addr:
            return IPv4Network(f"{self.start_addr}/{self.mask}", strict=False)
        return IPv4Network(self.cidr)

    @property
    def gateway_address(self) -> IPv4Address:
        return IPv4Address(self.gateway) if self.gateway else self.subnet.network_address + 1

    @property
    def first(self) -> IPv4Address:
        return IPv4Address(self.start_addr) if self.start_addr else self.subnet.network_address + 1

    @property
    def last(self) -> IPv4Address:
        if self.start_addr:
            return IPv4Address(IPv4Address(self.start_addr).packed[:3] + bytes([self.range]))
        return self.subnet.broadcast_address - 1


class IP4(Pool, frozen=True, kw_only=True):
    """The addresses that calls with "ip4": true lease, lowest first."""

    cidr: Subnet = DEFAULT_CIDR
    pools: tuple[Pool, ...] = ()
    """Further pools, each a table with the five keys above: [{cidr = "10.62.0.0/24"}, {start_addr =
    "10.61.7.20", mask = "255.255.255.0", range = 90}]. Addresses of the first pool are leased first. Pools
    of one subnet have one gateway."""
    interface: Interface = ""
    """The host's interface to the outside. On FreeBSD it carries the jails' addresses, on Linux NAT leaves
    through it. If empty: the interface of the default route."""
    bridge: Interface = "sky0"
    """The bridge that joins the jails' interfaces (Linux, and FreeBSD with vnet)."""
    vnet: bool = False
    """Give each jail a network stack of its own (FreeBSD). If false, a jail with an address shares the host's
    stack, and its address is an alias on the interface."""
    nat: bool = False
    """Let jails with an address reach the outside through the host. Turns on forwarding and adds one nftables
    table. If false, they reach the bridge only."""
    egress: tuple[NetworkOf4, ...] = ()
    """The only networks that jails reach by NAT, beside their name servers. If empty: all public networks. A
    private network must be listed here or in open_networks."""
    open_networks: tuple[NetworkOf4, ...] = ()
    """Private networks that jails reach by NAT, in addition to the public ones."""
    dns: tuple[Nameserver, ...] = ()
    """Name servers of jails with an address. If empty: the host's."""
    leases_per_client: Count = 0
    """Addresses that one client may have leased at one time; its other calls wait, as many and as long as for
    a place to run (jails.max_queued, jails.queue_timeout). 0 for half of all."""

    def __post_init__(self) -> None:
        if not self.bridge:
            raise Refused("bridge", "", "the name of an interface")
        for key in ("egress", "open_networks"):
            if getattr(self, key) and not self.nat:
                raise Refused(key, list(getattr(self, key)), "nothing without nat")
        super().__post_init__()
        if len(self.pools) > MOST_POOLS:
            raise Refused("pools", len(self.pools), f"{MOST_POOLS} further pools at most")
        for one, other in combinations(self.ranges, 2):
            if one.first <= other.last and other.first <= one.last:
                raise Refused(
                    "pools",
                    f"{other.first} to {other.last}",
                    f"addresses without those of {one.subnet} from {one.first} to {one.last}",
                )
            same = one.subnet == other.subnet and one.gateway_address == other.gateway_address
            if one.subnet.overlaps(other.subnet) and not same:
                raise Refused(
                    "pools",
                    str(other.subnet),
                    f"the subnet {one.subnet} with its gateway {one.gateway_address}, or one apart from it",
                )

    @property
    def ranges(self) -> tuple[Pool, ...]:
        """All pools, in the order in which they are leased from."""
        return self, *self.pools

    @property
    def gateways(self) -> tuple[IPv4Interface, ...]:
        """The gateway of each subnet, with its prefix."""
        return tuple(
            dict.fromkeys(
                IPv4Interface(f"{one.gateway_address}/{one.subnet.prefixlen}") for one in self.ranges
            )
        )

    def gateway_of(self, ip: str) -> IPv4Interface:
        """The gateway of an address of a pool, with its prefix."""
        return next(gateway for gateway in self.gateways if IPv4Address(ip) in gateway.network)

    def pool(self) -> Iterator[IPv4Address]:
        """The addresses that may be leased, those of the first pool first, each pool's lowest first."""
        for first, last in self.spans():
            for number in range(int(first), int(last) + 1):
                yield IPv4Address(number)

    def spans(self) -> Iterator[tuple[IPv4Address, IPv4Address]]:
        """The same as first and last of what lies side by side: a gateway within a pool parts it in two."""
        for one in self.ranges:
            first = one.first
            for gateway in sorted(gateway.ip for gateway in self.gateways):
                if first <= gateway <= one.last:
                    if first < gateway:
                        yield first, gateway - 1
                    first = gateway + 1
            if first <= one.last:
                yield first, one.last


def _has(subnet: IPv4Network, address: IPv4Address) -> bool:
    """Whether a host of the subnet can have the address."""
    return subnet.network_address < address < subnet.broadcast_address
