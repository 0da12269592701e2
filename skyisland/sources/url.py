"""From what a caller writes to a repository that may be asked: pure, nothing is touched here.

    github.com/user/repo/sub ─▶ Address ─▶ name `github.com/user/repo` + package `sub`
                                                └▶ Remote `https://github.com/user/repo`

A *name* is the caller's side and canonical: host and path of an https repository, the full URL for any
other scheme, so that what came over http is never taken for what https vouches for. A *remote* is
what Git is told, after the operator's `[git] rewrite`. Only few characters get through, none of which
means anything to a shell, to Git's options, refspecs or remote helpers, or to a URL's user part.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from msgspec import Struct

from skyisland.errors import BadRequest, SourceRefused, SourceUnavailable

FORGES: Mapping[str, int] = {"github.com": 2, "bitbucket.org": 2, "codeberg.org": 2, "git.sr.ht": 2}
"""Hosts where a repository lies at a fixed depth: `user/repo`."""

REDIRECTING = (*FORGES, "gitlab.com")
"""Hosts whose redirects we follow, for they lead a renamed repository to its new name on the same host.
Of any other host a redirect could lead into the island's own network."""

DEEPEST = 10
"""So deep may a repository lie where we have to look for it."""

URL_LIMIT = 2048
VERSION_LIMIT = 255

_PORTS = {"https": 443, "http": 80, "ssh": 22}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*(:[1-9][0-9]{0,4})?")
_SEGMENT = re.compile(r"(?!-)[A-Za-z0-9._~+-]{1,255}")
_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-./]|[./]$|/\.|\.lock(/|$)|^@$")


class Address(Struct, frozen=True):
    """A caller's URL, well-formed: where its repository ends may be unknown yet."""

    scheme: str
    host: str
    """In lower case, with its port if one was given; empty for `file`."""
    segments: tuple[str, ...]
    root: int | None
    """How many segments are the repository's, where the URL or the host tells."""

    def name(self, depth: int) -> str:
        """The repository of the first `depth` segments."""
        path = "/".join((self.host, *self.segments[:depth]))
        return path if self.scheme == "https" else f"{self.scheme}://{path}"

    def package(self, name: str) -> str:
        """What lies below the repository `name`."""
        return self.name(len(self.segments))[len(name) :].strip("/")

    def roots(self) -> Iterator[str]:
        """The names that may be the repository, shortest first: a repository never lies in another."""
        depths = range(1, min(len(self.segments), DEEPEST) + 1) if self.root is None else (self.root,)
        return (self.name(depth) for depth in depths)


class Remote(Struct, frozen=True):
    """What Git is told to talk to."""

    url: str
    scheme: str
    rewritten: bool
    """The operator wrote this prefix down: it may be any scheme and any host, private ones too."""
    host: str = ""
    port: int = 0

    @property
    def public_only(self) -> bool:
        """A caller chose this host, so it must not lie in the island's own network."""
        return not self.rewritten and bool(self.host)


@lru_cache(maxsize=4096)
def parse_url(url: str, allowed_schemes: tuple[str, ...]) -> Address:
    """Understand a caller's URL.

    Raises:
        BadRequest: it is no repository's URL; the text names what is wrong with it.
        SourceRefused: it is one that `[git] allowed_schemes` does not permit, or asks for what we never do.
    """
    if not url:
        raise BadRequest("url: is empty; write it as github.com/user/repo", field="url")
    if len(url) > URL_LIMIT:
        raise BadRequest(f"url: has {len(url)} characters, at most {URL_LIMIT} are allowed", field="url")
    if re.match(r"[A-Za-z0-9+.-]*::", url):
        raise SourceRefused("url: Git's remote helpers (`ext::` and its like) are never run", field="url")
    if "@" in url:
        raise SourceRefused(
            "url: `@` has no place in it. A version goes into `version`; credentials are never taken from "
            "callers (the operator may rewrite to ssh:// in [git] rewrite and give the island a key)",
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
    return _address(scheme, host, path.rstrip("/") if slash else "")


def _check_host(scheme: str, host: str, *, explicit: bool) -> None:
    if scheme == "file":
        if host:
            raise BadRequest("url: a file URL has three slashes: file:///srv/repo", field="url")
        return
    if not _HOST.fullmatch(host) or not (explicit or "." in host):
        raise BadRequest(
            f"url: {host!r} is not a host name; write the URL as github.com/user/repo", field="url"
        )


def _address(scheme: str, host: str, path: str) -> Address:
    root = FORGES.get(host)
    before, mark, after = path.partition("//")
    if mark:
        root = len(before.split("/"))
        path = f"{before}/{after}"
    segments = path.split("/") if path else []
    for depth, segment in enumerate(segments, 1):
        if segment.endswith(".git") and root in (None, depth):
            root = depth
            segments[depth - 1] = segment = segment.removesuffix(".git")
        if not _SEGMENT.fullmatch(segment) or ".." in segment or segment.lower() in (".", ".git"):
            raise BadRequest(
                f"url: {segment!r} cannot be a part of its path; letters, digits and . _ ~ + - make one, "
                "without `..` and without a leading `-`",
                field="url",
            )
    if len(segments) < (root or 1):
        raise BadRequest(
            f"url: names no repository; write the URL as {host or 'github.com'}/user/repo", field="url"
        )
    return Address(scheme, host, tuple(segments), root)


def remote_of(name: str, rewrites: Iterable[tuple[str, str]], suffix: str = "") -> Remote:
    """What to tell Git for a repository's name; the first prefix in `rewrites` that fits wins.

    A prefix ends where a part of the path ends: `https://github.com` does not match `github.com.evil.org`.

    Raises:
        SourceRefused: its host is an address of a private network, and no rewrite names it.
    """
    url = name if "://" in name else f"https://{name}"
    for prefix, replacement in rewrites:
        stem = prefix.rstrip("/")
        if url.startswith(stem + "/"):
            target = replacement.rstrip("/") + url[len(stem) :] + suffix
            return Remote(target, target.partition("://")[0], rewritten=True)
    scheme, _, rest = url.partition("://")
    host, _, port = rest.partition("/")[0].partition(":")
    if host == "localhost" or host.endswith(".localhost") or (_is_literal(host) and not is_public(host)):
        raise _private(name, host)
    return Remote(url + suffix, scheme, rewritten=False, host=host, port=int(port or _PORTS.get(scheme, 0)))


def pin(remote: Remote, addresses: list[str]) -> str:
    """`http.curloptResolve` for addresses that were looked at: the name cannot come to mean another.

    Raises:
        SourceRefused: one of them lies in a private network.
    """
    for address in addresses:
        if not is_public(address):
            raise _private(remote.host, address)
    return f"{remote.host}:{remote.port}:{','.join(addresses)}"


def _private(name: str, address: str) -> SourceRefused:
    return SourceRefused(
        f"url: {name} leads to {address}, which is not on the public Internet. Where it is meant to be "
        "used, the operator says so in [git] rewrite (a prefix may be rewritten to itself)",
        field="url",
    )


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, looking through the ways to embed IPv4 in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_version(version: str) -> None:
    """A version is a branch, a tag or a commit, by the rules of git-check-ref-format(1).

    Raises:
        BadRequest: it can be none of them.
    """
    if not version:
        raise BadRequest("version: is empty; leave it out for the default branch", field="version")
    if (
        len(version.encode("utf-8", "surrogatepass")) > VERSION_LIMIT
        or not version.isprintable()
        or _NOT_IN_REF.search(version)
    ):
        raise BadRequest(
            f"version: {version[:80]!r} is no name of a branch or tag, and no commit", field="version"
        )


def is_commit(version: str) -> bool:
    """Whether a version is a full commit, which never comes to mean another."""
    return _COMMIT.fullmatch(version) is not None


def refs_of(version: str | None) -> tuple[str, ...]:
    """The references that a version may mean, first come first; without one, the default branch."""
    if version is None:
        return ("HEAD",)
    return (f"refs/heads/{version}", f"refs/tags/{version}^{{}}", f"refs/tags/{version}")


def commit_among(listing: bytes, version: str | None) -> str | None:
    """The commit of a version in what `git ls-remote` printed.

    Raises:
        SourceUnavailable: the repository names its objects by SHA-256.
    """
    lines = (line.split("\t", 1) for line in listing.decode("utf-8", "replace").splitlines() if "\t" in line)
    found = {ref: commit for commit, ref in lines}
    commit = next((found[ref] for ref in refs_of(version) if ref in found), None)
    if commit is not None and not is_commit(commit):
        raise SourceUnavailable("the repository uses SHA-256 object names, which are not supported yet")
    return commit
