"""A package as people write it: what a browser's address bar, `go get` and `git clone` take. Pure text.

    github.com/user/repo/sub@v1.2.3               ▶ github.com/user/repo/sub, version v1.2.3
    https://github.com/user/repo/tree/main/sub    ▶ github.com/user/repo, then a version and a folder
    https://pkg.go.dev/github.com/user/repo#Name  ▶ github.com/user/repo
    git@github.com:user/repo.git                  ▶ github.com/user/repo

Where a branch's name ends and a folder begins, a text does not always tell (`tree/feature/x/sub`), and `tree`
itself may be a folder. So a `Written` may leave both open: the repository's references settle it.
"""

from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

from msgspec import Struct, structs

from skyisland.errors import BadRequest, IslandError
from skyisland.sources.places import Place, major_of, placed
from skyisland.sources.url import FORGES, URL_LIMIT, RepositoryUrl, checked_segment, parse_url
from skyisland.sources.versions import check_version, is_commit, is_release, is_short, normal

CATALOGUES = frozenset({"pkg.go.dev", "godoc.org", "www.godoc.org"})
"""Hosts whose pages are named by import paths."""
DEPTH = 2
"""How many segments a repository has on a host that we do not know, where a page of one seems to be meant."""
VERSION_FIELDS = ("ref", "at", "h")
"""Fields of a query that name a version: Terraform's, Bitbucket's, cgit's. Others say how a page is shown."""
QUERY_FIELDS = 50
"""How many fields of a query are read. A judgement: trackers add a dozen."""
URL_CACHED = 200
"""Characters of a URL that is remembered as it was read. Strangers choose how many parts it has."""
URLS_CACHED = 4096
"""How many are remembered. A judgement: at 10 KiB each, 40 MiB at worst."""
MAX_VERSION_SEGMENTS = 6
"""How many segments a branch's name may have in the URL of a page. A judgement."""

_SCP = re.compile(r"git@([A-Za-z0-9.-]+):(?!//)(.*)", re.DOTALL)
_URL = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*://)?)([^/]*)/?(.*)", re.DOTALL)
_VERSION_MARK = re.compile(r"v\d+(\.\d+)*|\d+(\.\d+)+|[0-9a-f]{40}", re.ASCII)


class Written(Struct, frozen=True):
    """A request's URL and version, as far as the text alone tells."""

    url: RepositoryUrl
    version: str | None = None
    """As `versions.normal` has it."""
    rest: tuple[str, ...] = ()
    """A version and then a folder below `url`, in this order; where the one ends is open."""
    otherwise: Written | None = None
    """What is meant if `rest` does not begin with a version of the repository."""
    place: Place | None = None
    """Where the package lies, if the text alone tells."""

    def versions(self) -> list[str]:
        """What the version in `rest` may be, the shortest first."""
        names = ["/".join(self.rest[:count]) for count in range(1, len(self.rest) + 1)]
        return [name for name in names[:MAX_VERSION_SEGMENTS] if _is_version(name)]

    def split(self, count: int) -> Written:
        """The same, with the first `count` segments of `rest` as the version."""
        folder = tuple(checked_segment(segment) for segment in self.rest[count:])
        url = structs.replace(self.url, segments=(*self.url.segments, *folder))
        return Written(url, normal("/".join(self.rest[:count])))


def read(url: str, version: str | None, allowed_schemes: tuple[str, ...]) -> Written:
    """Read a request's URL and version.

    Raises:
        BadRequest: it names no package, or two versions.
        SourceRefused: see `url.parse_url`.
    """
    if len(url) > URL_CACHED:
        return _read.__wrapped__(url, version, allowed_schemes)
    return _read(url, version, allowed_schemes)


@lru_cache(maxsize=URLS_CACHED)
def _read(url: str, version: str | None, allowed_schemes: tuple[str, ...]) -> Written:
    if version is not None:
        check_version(version)
    if len(url) > URL_LIMIT:
        raise BadRequest(f"url: has {len(url)} characters, at most {URL_LIMIT} are allowed", field="url")
    _refuse_folders_of_this_machine(url)
    text, named = _without_query(_plain_host(url))
    written = _page(text, allowed_schemes) or _import_path(text, allowed_schemes)
    for other in (named, version):
        if other is not None:
            written = _with_version(written, other)
    return with_place(written)


def with_place(written: Written) -> Written:
    """The same, with its place if the text alone tells it."""
    if written.rest or written.url.depth is None:
        return written
    place = placed(written.url, next(written.url.candidates()))
    return structs.replace(written, place=None if major_of(place) else place)


def _refuse_folders_of_this_machine(url: str) -> None:
    if url.startswith(("./", "../", "/", "~")) or url in (".", ".."):
        raise BadRequest(
            f"url: {url[:80]!r} is a folder of your own machine, which the island does not read. Push it to "
            "a Git server, and call it by its URL there. On the island's own machine, `skyisland invoke` "
            "takes a folder, and the island may name it in its "
            'settings: with [git] rewrite = {"https://my.example/" = "file:///home/me/"}, my.example/mine is '
            "the repository /home/me/mine, as it was last committed",
            field="url",
        )


def _plain_host(url: str) -> str:
    """The URL without what stands before its host: `git@…:`, `www.`, a catalogue of packages."""
    if scp := _SCP.fullmatch(url):
        return f"{scp[1]}/{scp[2].lstrip('/')}"
    scheme, host, path = _parts(url)
    name = host.lower()
    if name.removeprefix("www.") in FORGES:
        return f"{scheme}{name.removeprefix('www.')}/{path}"
    if name in CATALOGUES and path:
        if "." not in path.partition("/")[0].partition("@")[0]:
            raise BadRequest(
                f"url: {path[:80]!r} is no repository's, but of Go's standard library or of {name} itself; "
                "call it from a package of your own",
                field="url",
            )
        return path
    return url


def _without_query(url: str) -> tuple[str, str | None]:
    """The URL up to `?` and `#`, and the version that its query names."""
    text, _, fragment = url.partition("#")
    text, _, query = text.partition("?")
    if _VERSION_MARK.fullmatch(fragment):
        raise BadRequest(
            f"url: #{fragment} is a place on a page; write a version as @{fragment}, or into `version`",
            field="url",
        )
    try:
        fields = dict(parse_qsl(query, max_num_fields=QUERY_FIELDS))
    except ValueError:
        message = "url: its query has too many fields; leave out what follows `?`"
        raise BadRequest(message, field="url") from None
    version = next((fields[field] for field in VERSION_FIELDS if field in fields), None)
    if version is not None:
        check_version(version, "url")
    return text, version


def _import_path(text: str, allowed_schemes: tuple[str, ...]) -> Written:
    """An import path or a repository's URL, with `@version` in it or not."""
    scheme, host, path = _parts(text)
    path, at, tail = path.partition("@")
    if not at or "@" in host:
        return Written(parse_url(text, allowed_schemes))
    segments = tuple(_decoded(segment) for segment in tail.rstrip("/").split("/"))
    return _settled(Written(parse_url(f"{scheme}{host}/{path}", allowed_schemes), rest=segments))


# Pages of repositories


def _page(text: str, allowed_schemes: tuple[str, ...]) -> Written | None:
    """What a page in a browser shows: a folder, a file, a commit, a release, a request to merge."""
    scheme, host, path = _parts(text)
    host = host.lower()
    if scheme.lower() not in ("", "https://", "http://") or "//" in path or ".git/" in path:
        return None  # it says itself where the repository ends
    segments = path.rstrip("/").split("/")
    mark = next((mark for mark in ("-", "+") if mark in segments[1:]), None)
    depth = segments.index(mark, 1) if mark else FORGES.get(host, DEPTH)
    after = segments[depth + 1 :] if mark else segments[depth:]
    shown = _shown(["tree", *after] if mark == "+" else after, "gitlab.com" if mark else host)
    if shown is None and mark is None:
        return None
    url = parse_url(f"{scheme}{host}/{'/'.join(segments[:depth])}", allowed_schemes)
    url = structs.replace(url, depth=depth, literal=True)
    if shown is None:
        return Written(url)
    rest, count = shown
    written = Written(url, rest=rest)
    if count:
        check_version("/".join(rest[:count]), "url")
        return written.split(count)
    if mark is None:  # `tree`, or whatever it is, may be a folder
        with contextlib.suppress(IslandError):
            written = structs.replace(written, otherwise=_import_path(text, allowed_schemes))
    return _settled(written)


def _shown(segments: list[str], host: str) -> tuple[tuple[str, ...], int] | None:
    """What a page shows, by the segments after the repository: a version and a folder, and how many segments
    the version has (0 if that is open). None if it is no such page."""
    kind, *more = (_decoded(segment) for segment in segments) if segments else ("",)
    match kind, more:
        case "tree", [_, _, *_] if "item" in more[1:]:  # SourceHut's
            end = more.index("item", 1)
            return (*more[:end], *_folder(more[end + 1 :])), end
        case (("blob" | "raw" | "blame" | "edit"), [_, _, *_]):
            return tuple(more[:-1]), 0
        case (("tree" | "blob" | "raw" | "commits"), [_, *_]):
            return _folder(more), 0
        case "commit", [commit] if is_commit(commit) or is_short(commit):
            return (commit,), 1
        case "releases", ["tag", _, *_]:
            return tuple(more[1:]), len(more) - 1
        case (("tags" | "releases" | "refs"), [_, *_]) if host in ("gitlab.com", "git.sr.ht"):
            return tuple(more), len(more)
        case (("pull" | "pulls" | "merge_requests"), [number, *_]) if number.isascii() and number.isdigit():
            kind = "merge-requests" if kind == "merge_requests" else "pull"
            return (f"{kind}/{number}/head",), 1
        case "src", [("branch" | "tag" | "commit"), _, *_] if host != "bitbucket.org":  # Gitea's
            return _folder(more[1:]), 0
        case "src", [_, *_] if host == "bitbucket.org":
            return _folder(more), 0
    return None


def _folder(segments: list[str]) -> tuple[str, ...]:
    """A version and a folder; of a file of Go, its folder."""
    is_file = len(segments) > 1 and segments[-1].endswith((".go", "go.mod", ".md"))
    return tuple(segments[:-1] if is_file else segments)


# Versions


def _settled(written: Written) -> Written:
    """With the version, where the text alone tells which it is."""
    first = written.rest[0]
    check_version(first, "url")
    certain = is_commit(first) or is_release(first) or first in ("latest", "HEAD")
    only = len(written.rest) == 1 and written.otherwise is None
    return written.split(1) if certain or only else written


def _with_version(written: Written, version: str) -> Written:
    """With the version that is named beside the URL's own text.

    Raises:
        BadRequest: the URL names another.
    """
    wanted = normal(version)
    for count in range(1, len(written.rest) + 1):
        if normal("/".join(written.rest[:count])) == wanted:
            return written.split(count)
    if written.rest and written.otherwise is not None:
        return _with_version(written.otherwise, version)
    named = "/".join(written.rest) or written.version
    if named is not None and named != wanted:
        raise BadRequest(
            f"version: the URL names {named!r}, and `version` {version!r}; leave one of them out",
            field="version",
        )
    return structs.replace(written, version=wanted)


def _is_version(text: str) -> bool:
    try:
        check_version(text)
    except BadRequest:
        return False
    return True


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme with `://` or nothing, host, path."""
    match = _URL.match(url)
    assert match is not None  # noqa: S101 - it matches everything
    return match[1], match[2], match[3]


def _decoded(segment: str) -> str:
    return unquote(segment, errors="replace") if "%" in segment else segment
