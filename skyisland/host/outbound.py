"""Requests to where a stranger's URL or server leads: the guard of whatever the island fetches.

Whoever asks a URL that the operator did not write follows no redirect by a library, for a library looks at no
address. Instead (`page_of` does all of it):

1. `public_addresses` looks the host's name up, and refuses a private address among the answers;
2. the connection goes to these addresses (a second look-up could answer otherwise): `pinned` for httpx,
   http.curloptResolve for Git;
3. for an answer 3xx, `redirected` says where it leads, and the same begins anew, at most MAX_HOPS times.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from urllib.parse import urljoin, urlsplit

import httpx
from msgspec import Struct

from skyisland.host.internet import Network, connected_networks, is_public
from skyisland.host.tasks import aside

MAX_HOPS = 3
"""Redirects followed one after another. A judgement: a new name takes one, https another."""
URL_LIMIT = 2048
"""Characters of a URL that a server sends us to; as many as a caller's may have."""

LOOKUP_S = 10.0
"""How long a name server may take. A judgement: two attempts of 5 s, as the C library has it."""

PORTS = {"https": 443, "http": 80, "ssh": 22}

_URL = re.compile(
    r"https?://(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*(?::[1-9][0-9]{0,4})?(?:/[A-Za-z0-9._~+%=&?-]*)*"
)
"""What we go on with: no user, no fragment, nothing that a shell or curl reads meaning into."""

Lookup = Callable[[str, int], Awaitable[list[str]]]


class Refused(Exception):
    """A stranger's URL leads where it must not. `host` led to `address`, if one of them was the reason.

    The text is for operators: it may tell `address`, which is what the island's own name servers say. Who
    asked is told no more than `told`.
    """

    def __init__(self, reason: str, host: str = "", address: str = "") -> None:
        super().__init__(reason)
        self.host = host
        self.address = address

    @property
    def told(self) -> str:
        """For whoever named the URL."""
        return f"{self.host} leads to no address of the public Internet" if self.address else str(self)


class Origin(Struct, frozen=True):
    """What a URL is served by. Two URLs of one origin are one server's."""

    scheme: str
    host: str
    port: int


async def lookup(host: str, port: int, *, timeout_s: float = LOOKUP_S) -> list[str]:
    """Resolve a host name to addresses with this host's resolver.

    On a thread of its own: the event loop's few threads are everybody's, and a resolver cannot be cancelled.
    Callers bound how many look up at one time.

    Raises:
        OSError: the name cannot be found, or not in time.
    """
    loop = asyncio.get_running_loop()
    lookup: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: Exception | None) -> None:
        if lookup.done():
            return
        if error is None:
            lookup.set_result(addresses)
        else:
            lookup.set_exception(error)

    def resolve() -> None:
        addresses, error = [], None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(address[0]) for *_, address in entries))
        except OSError as failure:
            error = failure
        except UnicodeError:
            error = OSError(errno.EINVAL, "it is no host name")
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=resolve, name="sky-lookup", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await lookup
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"its name server did not answer within {timeout_s:g} s") from None


def origin_of(url: str) -> Origin:
    """The origin of a URL that has a host."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0))


def check_public(host: str, addresses: list[str], connected: Iterable[Network]) -> None:
    """Check what a host's name was found to lead to. `connected`: the networks of this host.

    Raises:
        Refused: one of the addresses is private, this host's, or in a network that it is connected to.
    """
    for address in addresses:
        if not is_public(address, connected):
            raise Refused(f"{host} leads to {address}, which is not on the public Internet", host, address)


async def public_addresses(host: str, port: int, lookup: Lookup = lookup) -> list[str]:
    """The addresses of a host that a stranger named; connect to these and to no others.

    Raises:
        Refused: see `check_public`.
        OSError: the name cannot be found.
    """
    addresses = await lookup(host, port)
    check_public(host, addresses, connected_networks())
    return addresses


def redirected(url: str, location: str) -> str:
    """Where a redirect leads: an absolute URL, of whose host nothing is known yet.

    Raises:
        Refused: it leaves https or HTTP altogether, names a user, or has odd characters.
    """
    try:
        target = urljoin(url, location[: URL_LIMIT + 1])
        port = urlsplit(target).port
    except ValueError:
        raise Refused("it redirects to something that is no URL") from None
    if len(target) > URL_LIMIT or not _URL.fullmatch(target) or (port or 1) > 0xFFFF:
        raise Refused("it redirects to a URL that is not followed")
    if url.startswith("https:") and not target.startswith("https:"):
        raise Refused("it redirects from https to http")
    return target


def check_url(url: str) -> None:
    """Check what a stranger wrote as a URL to send something to; where it leads is not asked yet.

    Raises:
        Refused: it is no URL of https or HTTP, names a user, or has odd characters.
    """
    try:
        port = urlsplit(url).port or 1
    except ValueError:
        port = 0
    path = url.partition("?")[0].lower().replace("%2e", ".")
    if len(url) > URL_LIMIT or not _URL.fullmatch(url) or not 1 <= port <= 0xFFFF or "/." in path:
        raise Refused("it is no URL that we send to; send https://host/path")


def check_literal(url: str) -> None:
    """Check the host of a URL that needs no name server: an address, or this very host.

    Raises:
        Refused: it is not the public Internet's.
    """
    host = urlsplit(url).hostname or ""
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
        raise Refused(f"{host} leads to no address of the public Internet")
    with contextlib.suppress(OSError):
        # As the C library reads it: 2130706433, 0x7f.1 and 127.1 are addresses, too.
        check_public(host, [socket.inet_ntoa(socket.inet_aton(name))], connected_networks())


def pinned(url: str, addresses: list[str], method: str = "GET", body: bytes | None = None) -> httpx.Request:
    """A request that goes to the first of these addresses, whatever the host's name leads to by now. Its
    certificate is the name's."""
    host = urlsplit(url).hostname or ""
    # With the header Host of the name.
    request = httpx.Request(method, url, content=body, extensions={"sni_hostname": host})
    request.url = request.url.copy_with(host=addresses[0])
    return request


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()  # those that the host trusts, as Git does


async def location_of(url: str, addresses: list[str] | None, *, timeout_s: float) -> str | None:
    """Where a server redirects a GET of this URL to, as it wrote it; None if it answers or refuses otherwise.

    `addresses`: those that the connection goes to; None for a URL of the operator's. The body is not read.
    """
    request = httpx.Request("GET", url) if addresses is None else pinned(url, addresses)
    request.headers["User-Agent"] = "git/skyisland"  # forges answer Git alone as they answer Git
    context = await aside(_certificates)
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(trust_env=False, timeout=timeout_s, verify=context) as client,
        ):
            answer = await client.send(request, stream=True, follow_redirects=False)
            await answer.aclose()
    except (httpx.HTTPError, TimeoutError):
        return None
    return answer.headers.get("Location") if answer.is_redirect else None


async def post(
    url: str, body: bytes, headers: dict[str, str], lookup: Lookup | None = lookup, *, timeout_s: float
) -> tuple[int, float | None]:
    """Post to a stranger's URL: the status of the answer, and for how many seconds it asks to wait.

    `lookup`: None for a URL that the operator trusts, wherever it leads. A redirect is an answer like any
    other, and no body of one is read.

    Raises:
        Refused: it leads where it must not.
        OSError: there is no answer within `timeout_s`.
    """
    context = await aside(_certificates)
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(trust_env=False, timeout=timeout_s, verify=context) as client,
        ):
            if lookup is None:
                request = httpx.Request("POST", url, content=body)
            else:
                origin = origin_of(url)
                addresses = await public_addresses(origin.host, origin.port, lookup)
                request = pinned(url, addresses, "POST", body)
            request.headers.update({"User-Agent": "skyisland", **headers})
            answer = await client.send(request, stream=True, follow_redirects=False)
            await answer.aclose()
    except httpx.HTTPError as error:
        raise OSError(errno.EIO, f"it does not answer: {error or type(error).__name__}") from None
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"no answer within {timeout_s:g} s") from None
    again = answer.headers.get("Retry-After", "")
    return answer.status_code, float(again) if again.isascii() and again.isdigit() and len(
        again
    ) < 7 else None


async def page_of(url: str, lookup: Lookup = lookup, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The first `limit_bytes` of what a stranger's URL answers, whatever its status; nothing is unpacked.

    Raises:
        Refused: it, or a redirect of it, leads where it must not, or on and on.
        OSError: there is no answer within `timeout_s`.
    """
    context = await aside(_certificates)
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(trust_env=False, timeout=timeout_s, verify=context) as client,
        ):
            for _ in range(MAX_HOPS + 1):
                origin = origin_of(url)
                request = pinned(url, await public_addresses(origin.host, origin.port, lookup))
                request.headers["Accept-Encoding"] = "identity"
                request.headers["User-Agent"] = "skyisland"
                answer = await client.send(request, stream=True, follow_redirects=False)
                try:
                    if not answer.has_redirect_location:
                        return await _beginning(answer, limit_bytes)
                finally:
                    await answer.aclose()
                url = redirected(url, answer.headers["Location"])
    except httpx.HTTPError as error:
        raise OSError(errno.EIO, f"it does not answer: {type(error).__name__}") from None
    raise Refused("it redirects on and on")


async def _beginning(answer: httpx.Response, limit_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])
