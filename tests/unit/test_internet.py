"""Which addresses a stranger's URL may lead to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from skyisland.host.internet import CLOSED4, CLOSED6, GLOBAL6, connected_networks, is_public


@pytest.mark.parametrize(
    "address",
    [
        "140.82.121.4",
        "1.1.1.1",
        "2606:50c0:8000::154",
        "2a00:1450:4001::200e",
        "::ffff:140.82.121.4",
        "64:ff9b::8c52:7904",  # GitHub, for a host that has IPv6 alone
    ],
)
def test_the_public_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.1", "10.1.2.3", "100.100.100.200", "127.0.0.1", "168.63.129.16", "169.254.169.254"),
        *("172.16.9.9", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
        *("::", "::1", "fe80::1%eth0", "fd00::1", "fec0::1", "ff02::1", "5f00::1", "4000::1"),
        *("::7f00:1", "::a00:1", "::ffff:127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2001::1", "2001:db8::1", "2002:7f00:1::", "2002:8c52:7904::", "3fff::1"),
    ],
)
def test_what_is_not(address: str) -> None:
    assert not is_public(address)


def test_whatever_python_calls_private_is_closed_too() -> None:
    """Ours is at least as strict as the standard library, at the edges of each network that either knows."""
    for network in (*CLOSED4, *CLOSED6, GLOBAL6, ip_network("fc00::/7"), ip_network("192.31.196.0/24")):
        for number in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
            bits = network.max_prefixlen
            if 0 <= number < 1 << bits:
                edge = ip_address(number.to_bytes(bits // 8, "big"))
                assert not is_public(str(edge)) or (edge.is_global and not edge.is_multicast), edge


def test_this_host_and_its_neighbours_are_not_a_callers() -> None:
    neighbourhood = (ip_network("140.82.121.0/24"), ip_network("2606:50c0:8000::/64"))
    assert not is_public("140.82.121.4", neighbourhood)
    assert not is_public("2606:50c0:8000::154", neighbourhood)
    assert not is_public("64:ff9b::8c52:7904", neighbourhood)
    assert is_public("140.82.122.4", neighbourhood)


def test_the_networks_of_this_host() -> None:
    networks = connected_networks()
    assert any(ip_address("127.0.0.1") in network for network in networks if network.version == 4)
    assert all(network.prefixlen for network in networks)
