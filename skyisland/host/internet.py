"""Which addresses are the public Internet's: what a stranger's URL may lead to.

Python's `ipaddress.is_global` is not asked: it changes with Python's version (3.11 calls `fec0::/10` and
`3fff::/20` global), and it knows nothing of clouds. The lists are what IANA's registries of special-purpose
addresses (RFC 6890) call not globally reachable, and a few that no registry has; each line has its source.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface

import ifaddr

CLOSED4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # "this network", RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # shared by a carrier's customers, RFC 6598; some clouds' metadata services
        "127.0.0.0/8",  # loopback, RFC 1122
        "168.63.129.16/32",  # Azure's platform channel, reachable from each of its machines
        "169.254.0.0/16",  # link-local, RFC 3927: the clouds' metadata services
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # protocol assignments, RFC 6890; 192.0.0.192 is Oracle's metadata service
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.88.99.0/24",  # relays of 6to4, deprecated by RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved and broadcast, RFC 1112
    )
)
"""IPv4 networks that are not the Internet."""

GLOBAL6 = IPv6Network("2000::/3")
"""The one part of IPv6 that is assigned for global use (RFC 4291). Outside of it lie loopback, `fc00::/7`,
`fe80::/10`, the old `fec0::/10`, multicast, `5f00::/16`, and three old forms of IPv4 addresses."""

CLOSED6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, RFC 2928: Teredo, benchmarks, ORCHID; nothing there serves Git
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, deprecated by RFC 7526: carries any IPv4 address, private ones too
        "3fff::/20",  # documentation, RFC 9637
    )
)
"""Parts of GLOBAL6 that are not the Internet."""

NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix by which hosts without IPv4 reach it (RFC 6052): the IPv4 address in it decides. Not
`64:ff9b:1::/48`, which each network defines for itself (RFC 8215)."""

Network = IPv4Network | IPv6Network


def is_public(address: str, connected: Iterable[Network] = ()) -> bool:
    """Whether an IP address is the public Internet's, and none of this host's or of `connected` networks.

    For an IPv6 address by which one reaches an IPv4 one (mapped, NAT64), the latter decides.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in NAT64:
            ip = IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, IPv4Address):
        closed = any(ip in network for network in CLOSED4)
    else:
        closed = ip not in GLOBAL6 or any(ip in network for network in CLOSED6)
    return not closed and not any(ip in network for network in connected if network.version == ip.version)


def connected_networks() -> frozenset[Network]:
    """The networks of this host's interfaces now: its own addresses, and neighbours that no router stands
    before. A few system calls.

    A host's public address is its own too: what listens there, behind its packet filter, was never meant for
    the callers of an island.
    """
    networks: set[Network] = set()
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            text = address.ip if isinstance(address.ip, str) else address.ip[0]
            # A prefix of 0 would be everybody: a tunnel that says so is no neighbourhood.
            if address.network_prefix:
                networks.add(ip_interface(f"{text}/{address.network_prefix}").network)
    return frozenset(networks)
