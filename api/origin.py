"""Which web page a request comes from.

Any web page can have its reader's browser send a plain POST to any address that the browser reaches, the
loopback included. The browser hides the answer from the page, but the call was made. The browser names the
page: in `Origin` (Fetch standard, "origin header") with every POST, and in `Sec-Fetch-Site` where it knows
that header. Clients that are no browsers send neither, and pass.

A page is the island's own when its origin equals the request's Host, and Host is an address or `localhost`.
Any other name may belong to somebody who lets it resolve to this address (DNS rebinding), so it must stand
in the settings' `api.origins`.
"""

from __future__ import annotations

from collections.abc import Iterable

from skyisland.errors import Forbidden
from skyisland.settings.values import names_an_address

READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing, and whose answers a browser shows to no other page."""
OURS = (b"none", b"same-origin")
"""`Sec-Fetch-Site` of an address that a user typed, and of a page's request to its own origin."""


class ForeignOrigin(Forbidden):
    """A foreign web page made its reader's browser send a request that changes something."""

    code = "foreign_origin"


class Origins:
    """Distinguishes the island's own pages from foreign ones."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """`named`: further origins of the island's own pages, such as `https://island.example.org`."""
        self._named = frozenset(origin.encode() for origin in named)

    def check(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a request that a browser sends for a foreign page; `headers` have names in lower case.

        Raises:
            ForeignOrigin
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
        if origin in self._named:
            return True
        own = [origin.partition(b"://")[2]] == hosts
        return own and names_an_address(hosts[0].decode(errors="replace"))
