"""Checks a caller's URL, and decides what Git may talk to. Pure: no disk, no network.

    github.com/user/repo/sub ─▶ RepositoryUrl ─▶ name `github.com/user/repo` + package `sub`
                                                      └▶ Remote `https://github.com/user/repo`

A *name* is canonical and the caller's: host and path of an https repository, the full URL for any other
scheme, so that http never passes for https, which proves who served. A *remote* is the URL that Git
gets, after the operator's `[git] rewrite`. Only a few characters pass, and none of them means anything
to a shell, to Git's options, refspecs or remote helpers, or in a URL's user part.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from skyisland.errors import BadRequest, SourceRefused
from skyisland.host.internet import Network, is_public
from skyisland.host.outbound import PORTS, Refused, check_public, origin_of, redirected

FORGES: Mapping[str, int] = {"github.com": 2, "bitbucket.org": 2, "codeberg.org": 2, "git.sr.ht": 2}
"""Hosts whose repositories lie at a fixed depth: `user/repo`."""

MAX_DEPTH = 10
"""How many path segments a repository's name may have where we probe for it. A judgement: each costs a
connection to the remote."""

LISTING = "/info/refs?service=git-upload-pack"
"""What Git asks a repository's URL first, see gitprotocol-http(5). It alone may be redirected."""

CASELESS = frozenset({"github.com", "gitlab.com", "bitbucket.org", "codeberg.org"})
"""Hosts that know a repository by its name in any case."""

URL_LIMIT = 2048
"""Characters. A judgement: twice the longest path of a file (1024 bytes)."""
MAX_SEGMENTS = 120
"""Parts of a URL's path: as many as a file's path may have (`mirror`), and some for the repository."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*(:[1-9][0-9]{0,4})?")
_SEGMENT = re.compile(r"(?!-)[A-Za-z0-9._~+-]{1,255}")


class RepositoryUrl(Struct, frozen=True):
    """A caller's well-formed URL of a package. Where the repository ends may be unknown."""

    scheme: str
    host: str
    """In lower case, with its port if one was given; empty for `file`."""
    segments: tuple[str, ...]
    depth: int | None
    """How many segments belong to the repository; None if neither the URL nor the host determines it."""
    literal: bool = False
    """What follows the repository is a folder, and no import path in which `v2` would be a major version."""

    def name(self, depth: int) -> str:
        """The name of the repository that the first `depth` segments make."""
        path = "/".join((self.host, *self.segments[:depth]))
        return path if self.scheme == "https" else f"{self.scheme}://{path}"

    def package(self, name: str) -> str:
        """The folder of the package below the repository `name`."""
        return self.name(len(self.segments))[len(name) :].strip("/")

    def candidates(self) -> Iterator[str]:
        """The names that may be the repository, shortest first: a repository never lies in another."""
        depths = range(1, min(len(self.segments), MAX_DEPTH) + 1) if self.depth is None else (self.depth,)
        return (self.name(depth) for depth in depths)


class Remote(Struct, frozen=True):
    """The URL that Git gets."""

    url: str
    scheme: str
    rewritten: bool
    """The operator chose it by `[git] rewrite`: any scheme and any host are permitted, private ones too."""
    host: str = ""
    port: int = 0

    @property
    def public_only(self) -> bool:
        """A caller chose this host, so it must not lie in the island's own network."""
        return not self.rewritten and bool(self.host)


def parse_url(url: str, allowed_schemes: tuple[str, ...]) -> RepositoryUrl:
    """Parse a caller's URL.

    Raises:
        BadRequest: it is not the URL of a repository; the text says what is wrong with it.
        SourceRefused: its scheme is not in `[git] allowed_schemes`, or it has a user or a remote helper.
    """
    if not url:
        raise BadRequest("url: is empty; write it as github.com/user/repo", field="url")
    if len(url) > URL_LIMIT:
        raise BadRequest(f"url: has {len(url)} characters, at most {URL_LIMIT} are allowed", field="url")
    if re.match(r"[A-Za-z0-9+.-]*::", url):
        raise SourceRefused("url: Git's remote helpers (`ext::` and its like) are never run", field="url")
    if "@" in url:
        raise SourceRefused(
            "url: must not have a user before its host: credentials are never taken from callers (the "
            "operator may rewrite to ssh:// in [git] rewrite and give the island a key). Write "
            "github.com/user/repo, and a version as github.com/user/repo@v1",
            field="url",
        )
    scheme, rest = "https", url
    if full := _SCHEME.fullmatch(url):
        scheme, rest = full[1].lower(), full[2]
    host, slash, path = rest.partition("/")
    host = host.lower()
    _check_host(scheme, host, explicit=full is not None)
    if scheme not in allowed_schemes:
        raise SourceRefused(
            f"url: the scheme {scheme!r} is not permitted; [git] allowed_schemes lists "
            + (", ".join(allowed_schemes) or "none"),
            field="url",
        )
    return _repository_url(scheme, host, path.rstrip("/") if slash else "")


def _check_host(scheme: str, host: str, *, explicit: bool) -> None:
    if scheme == "file":
        if host:
            raise BadRequest("url: a file URL has three slashes: file:///srv/repo", field="url")
        return
    if not _HOST.fullmatch(host) or not (explicit or "." in host):
        raise BadRequest(
            f"url: {host!r} is not a host name; write the URL as github.com/user/repo", field="url"
        )


def _repository_url(scheme: str, host: str, path: str) -> RepositoryUrl:
    """Check each segment of the path. A `//` or a segment that ends in `.git` marks the repository's end."""
    depth = FORGES.get(host)
    before, mark, after = path.partition("//")
    if mark:
        depth = len(before.split("/"))
        path = f"{before}/{after}"
    segments = path.split("/") if path else []
    if len(segments) > MAX_SEGMENTS:
        raise BadRequest(f"url: its path has more than {MAX_SEGMENTS} parts", field="url")
    literal = bool(mark)
    for number, segment in enumerate(segments, 1):
        if segment.endswith(".git") and depth in (None, number):
            depth = number
            literal = True
            segments[number - 1] = segment = segment.removesuffix(".git")
        checked_segment(segment)
    if len(segments) < (depth or 1):
        raise BadRequest(
            f"url: names no repository; write the URL as {host or 'github.com'}/user/repo", field="url"
        )
    return RepositoryUrl(scheme, host, tuple(segments), depth, literal=literal)


def checked_segment(segment: str) -> str:
    """A segment of a path, if it can be one.

    Raises:
        BadRequest
    """
    if not _SEGMENT.fullmatch(segment) or ".." in segment or segment.lower() in (".", ".git"):
        raise BadRequest(
            f"url: {segment[:80]!r} cannot be a part of its path; use letters, digits and . _ ~ + -, "
            "without `..` and without a leading `-`",
            field="url",
        )
    return segment


def remote_of(name: str, rewrites: Iterable[tuple[str, str]], suffix: str = "") -> Remote:
    """The remote of a repository's name. The first matching prefix in `rewrites` decides.

    A prefix matches whole segments: `https://github.com` does not match `github.com.evil.org`.

    Raises:
        SourceRefused: the host is an address of a private network, and no rewrite names it.
    """
    url = name if "://" in name else f"https://{name}"
    cased = _cased(url)
    for prefix, replacement in rewrites:
        stem = prefix.rstrip("/")
        if cased.startswith(_cased(stem) + "/"):
            target = replacement.rstrip("/") + url[len(stem) :] + suffix
            return Remote(target, target.partition("://")[0], rewritten=True)
    scheme, _, rest = url.partition("://")
    host, _, port = rest.partition("/")[0].partition(":")
    if host == "localhost" or host.endswith(".localhost") or (_is_literal(host) and not is_public(host)):
        raise _private(name, host)
    return Remote(url + suffix, scheme, rewritten=False, host=host, port=int(port or PORTS.get(scheme, 0)))


def covers(prefix: str, url: str) -> bool:
    """Whether a remote's URL begins with a prefix, in whole segments. A repository's `.git` is no part of
    its name."""
    stem, begun = _cased(prefix.rstrip("/").removesuffix(".git")), _cased(url)
    return begun.startswith(stem) and begun[len(stem) :].removeprefix(".git")[:1] in ("", "/")


def _cased(url: str) -> str:
    """The URL in lower case, where its host knows a repository by its name in any case."""
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()
    return url.lower() if host in CASELESS else url


def moved(remote: Remote, location: str) -> Remote:
    """The remote that a server redirects us to, which answered the listing of `remote` with this Location.

    What the operator chose stays so on its own host and port. Whatever else is a stranger's choice again.

    Raises:
        Refused: the redirect is not one that Git itself would follow, or not one that we do (`redirected`).
    """
    listing_url = remote.url.rstrip("/") + LISTING
    target = redirected(listing_url, location)
    if not target.endswith(LISTING):
        raise Refused("it redirects to something that is no repository")
    url, origin = target.removesuffix(LISTING), origin_of(target)
    if remote.rewritten and origin == origin_of(listing_url):
        return Remote(url, remote.scheme, rewritten=True)
    return Remote(url, origin.scheme, rewritten=False, host=origin.host, port=origin.port)


def pin(remote: Remote, addresses: list[str], connected: Iterable[Network]) -> str:
    """The value of Git's `http.curloptResolve` that fixes a host name to addresses.

    Without it Git would resolve the name again, and a hostile name server could answer a private address.

    Raises:
        SourceRefused: one of the addresses is private, or in a network of this host (`connected`).
    """
    try:
        check_public(remote.host, addresses, connected)
    except Refused as refusal:
        raise _private(remote.host, refusal.address) from None
    return f"{remote.host}:{remote.port}:{','.join(addresses)}"


def _private(name: str, address: str) -> SourceRefused:
    return SourceRefused(
        f"url: {name} leads to {address}, which is not on the public Internet. To permit it, the operator "
        "adds its prefix to [git] rewrite (a prefix may be rewritten to itself)",
        field="url",
    )


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
