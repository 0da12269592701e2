"""Which web page a request comes from.

Any web page can have its reader's browser send a plain POST to any address that the browser reaches, the
loopback included. The browser hides the answer from the page, but the call was made. The browser names the
page: in `Origin` (Fetch standard, "origin header") with every POST, and in `Sec-Fetch-Site` where it knows
that header. Clients that are no browsers send neither, and pass.

A page is the island's own when its origin equals the request's Host, and Host is an address or `localhost`.
Any other name may belong to somebody who lets it resolve to this address (DNS rebinding), so it must stand
in the settings' `api.origins`. Such a page is let see the answers, too (CORS, of the Fetch standard): its
browser asks before, by OPTIONS, whether the request is welcome, and is told so.
"""

from __future__ import annotations

import re
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


Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case."""
KEPT_S = b"7200"
"""How long a browser may remember that a page is welcome; Chromium takes no more."""
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
"""Names of headers."""


class Origins:
    """Distinguishes the island's own pages from foreign ones."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """`named`: further origins of the island's own pages, such as `https://island.example.org`."""
        self._named = frozenset(origin.encode() for origin in named)

    def page_of(self, headers: Headers) -> bytes:
        """The origin of the page that may see the answer; empty if no such page has sent the request."""
        if not self._named:
            return b""
        origins = [value for name, value in headers if name == b"origin"]
        return origins[0] if len(origins) == 1 and origins[0] in self._named else b""

    def check(self, method: str, headers: Headers) -> None:
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


def shown_to(page: bytes) -> list[tuple[bytes, bytes]]:
    """The headers with which a page is let see an answer: all that it holds."""
    return [
        (b"access-control-allow-origin", page),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def welcome(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of an answer to a browser that asks before it sends a request; none if it did not ask."""
    asked = dict(headers)
    method = asked.get(b"access-control-request-method", b"")
    if not method.isalpha():
        return []
    granted = [(b"access-control-allow-methods", method), (b"access-control-max-age", KEPT_S)]
    names = asked.get(b"access-control-request-headers", b"")
    if _NAMES.fullmatch(names):
        granted.append((b"access-control-allow-headers", names))
    return granted
