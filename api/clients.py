"""Whose share a request counts to: that of an address, or of an IPv6 network of 64 bits.

A host has a /64 of IPv6 for itself, often more (RFC 6177), so its addresses are one client. Behind a proxy
all requests come from the proxy; what it says of its clients, in `X-Forwarded-For` or `Forwarded` (RFC 7239),
is believed only if it is among `api.trusted_proxies`: anybody can send these headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypercorn.typing import HTTPScope, WebsocketScope

from skyisland.settings.values import split_host_port

UNIX = "unix"
"""Stands for the address of whoever comes by a Unix socket."""
Request = HTTPScope | WebsocketScope
_FOR = re.compile(rb'(?:^|[;\s])for=("[^"]*"|[^;"\s]*)', re.IGNORECASE)


@lru_cache(maxsize=4096)
def share_of(address: str) -> str:
    """Whose share an address counts to: its own with IPv4, its /64's with IPv6. Another text is itself."""
    client_address = _read(address)
    if isinstance(client_address, IPv6Address):
        return f"{IPv6Address(int(client_address) >> 64 << 64)}/64"
    return str(client_address) if client_address else address


def _read(address: str) -> IPv4Address | IPv6Address | None:
    """An address without its zone, as IPv4 where IPv6 only wraps it (`::ffff:192.0.2.1`); None for others."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


class Clients:
    """Tells clients apart."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        """`proxies`: as in `trust`."""
        self.trust(proxies)

    def trust(self, proxies: Iterable[str]) -> None:
        """From now on, believe the proxies of these networks alone; `UNIX` is that of Unix sockets."""
        named = frozenset(proxies)
        self._by_socket = UNIX in named
        self._proxies = tuple(map(ip_network, named - {UNIX}))

    def client_of(self, scope: Request) -> str:
        """Whose share a request counts to."""
        return share_of(self.address_of(scope))

    def address_of(self, scope: Request) -> str:
        """The client's address, for the log; of the proxy where it does not name its client."""
        address = scope["client"][0] if scope["client"] else UNIX
        if not self.trusts(address):
            return address
        named = {
            self._client(address, hops)
            for header, read in ((b"x-forwarded-for", _x_forwarded_for), (b"forwarded", _forwarded))
            if (hops := [hop for name, value in scope["headers"] if name == header for hop in read(value)])
        }
        # A proxy that sets one of the two passes on what a client wrote into the other: then neither counts.
        return named.pop() if len(named) == 1 else address

    def _client(self, proxy: str, hops: list[str]) -> str:
        """Each proxy appended whom it heard: the last whom no trusted one heard is the client."""
        heard = proxy
        for hop in reversed(hops):
            address = _hop(hop)
            if (
                address is None
            ):  # `unknown`, an obfuscated name, nonsense: the proxy that said so is the client
                return heard
            heard = address
            if not self.trusts(heard):
                break
        return heard

    def trusts(self, address: str) -> bool:
        """Whether it is a proxy's that is believed."""
        if address == UNIX:
            return self._by_socket
        if not self._proxies:
            return False
        proxy = _read(address)
        return proxy is not None and any(proxy in network for network in self._proxies)


def _x_forwarded_for(value: bytes) -> list[str]:
    return value.decode("latin-1").split(",")


def _forwarded(value: bytes) -> list[str]:
    # An element without `for` still is a hop, about which nothing is said.
    matches = (_FOR.search(element) for element in value.split(b","))
    return [match[1].decode("latin-1").strip('"') if match else "" for match in matches]


def _hop(text: str) -> str | None:
    """The address of a hop, with or without a port; None if there is none."""
    text = text.strip()
    if _read(text) is not None:
        return str(_read(text))
    try:
        hop_address = _read(split_host_port(text, 0)[0])
    except ValueError:
        return None
    return str(hop_address) if hop_address else None
