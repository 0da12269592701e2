"""Whose web page a request comes from.

A browser sends a plain POST to any address it reaches, the loopback included, for every page that asks it
to; the answer it keeps from the page, but the call was made. Only the browser itself tells whose page it
was: `Origin` (Fetch standard, "origin header") with every POST, and `Sec-Fetch-Site`, where it knows that.
What is no browser sends neither and passes.

A page counts as the island's own when its origin is what the request calls the island, by an address or as
`localhost`. Any other name could be somebody else's who has it lead here (DNS rebinding): it has to be among
the settings' `api.origins`.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from skyisland.errors import Forbidden
from skyisland.settings.values import split_host_port

READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing, and whose answers a browser shows to no other page."""
OURS = (b"none", b"same-origin")
"""`Sec-Fetch-Site` of what a user typed, and of a page's request to where it came from."""


class ForeignOrigin(Forbidden):
    """A web page of somebody else wants a deed done by its reader's browser."""

    code = "foreign_origin"


class Origins:
    """Tells the island's own pages from others."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """`named`: origins that count as ours beside addresses, such as `https://island.example.org`."""
        self._named = frozenset(origin.encode() for origin in named)

    def check(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Look at a request's headers, whose names are in lower case.

        Raises:
            ForeignOrigin: a browser made it for a page that is not ours.
        """
        if method in READING:
            return
        origins, sites, hosts = [], [], []
        for name, value in headers:
            if name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site":
                sites.append(value)
            elif name == b"host":
                hosts.append(value)
        if origins:
            foreign = next((origin for origin in origins if not self._ours(origin, hosts)), None)
        else:
            foreign = next((b"another" for site in sites if site not in OURS), None)
        if foreign is not None:
            page = foreign.decode("ascii", "backslashreplace")[:100]
            raise ForeignOrigin(
                f"a web page of {page!r} may do nothing here; if it is to, put its origin into api.origins"
            )

    def _ours(self, origin: bytes, hosts: list[bytes]) -> bool:
        return origin in self._named or ([origin.partition(b"://")[2]] == hosts and _fixed(hosts[0]))


def _fixed(host: bytes) -> bool:
    """Whether a Host header has a name for the island that nobody can have lead elsewhere."""
    try:
        name, _ = split_host_port(host.decode(), 0)
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
