"""Where a host says that the repository of an import path lies: `golang.org/x/text`, `go.uber.org/zap`.

An import path enters, and the place of its repository leaves. The page of the path, asked with `?go-get=1`,
has `<meta name="go-import" content="PREFIX git URL">` (https://go.dev/ref/mod#vcs-find). It is a stranger's:
asked at public addresses alone, its beginning is read and nothing unpacked, and what it names passes what a
caller's URL must pass. It decides for the path that was asked and no other, and names a repository, never
another page.

`gopkg.in` needs no page: its paths say all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from msgspec import Struct

from skyisland.errors import BadRequest, SourceRefused
from skyisland.host.outbound import Lookup, Refused, page_of
from skyisland.sources.places import Place
from skyisland.sources.url import RepositoryUrl, checked_segment, parse_url
from skyisland.sources.versions import series

PAGE_BYTES = 256 << 10
"""How much of a page is read. A judgement: the tags stand in its head."""
TAG_CHARACTERS = 2048
"""Longest tag that is read. A judgement: a URL has as many."""
MAX_TAGS = 200
"""How many tags are read. A judgement: pages have a dozen."""
ASK_S = 10.0
"""How long a page may take, with its redirects. A judgement: four connections."""

_MARK = re.compile(r"<(!--|meta\b|/head\b|body\b)", re.IGNORECASE)
_GOPKG = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)\.v(0|[1-9][0-9]{0,8})(?:-unstable)?")


class GoImport(Struct, frozen=True):
    """What a page says of the import paths that begin with `prefix`."""

    prefix: str
    vcs: str
    url: str
    folder: str = ""


def gopkg_place(url: RepositoryUrl) -> Place | None:
    """The place of a path of gopkg.in (https://labix.org/gopkg.in): `pkg.v3` is github.com/go-pkg/pkg, and
    `user/pkg.v3` is github.com/user/pkg, at the highest release v3."""
    for depth, segment in enumerate(url.segments[:2]):
        if (named := _GOPKG.fullmatch(segment)) is not None:
            user = url.segments[0] if depth else f"go-{named[1]}"
            return Place(
                f"github.com/{user}/{named[1]}",
                "/".join(url.segments[depth + 1 :]),
                series("", int(named[2])),
                literal=True,
            )
    return None


async def ask_place(
    url: RepositoryUrl, lookup: Lookup, allowed_schemes: tuple[str, ...], timeout_s: float
) -> Place | None:
    """The place that a host's page names for an import path; None if it names none.

    Raises:
        BadRequest: no Git repository has it.
        SourceRefused: the page, or what it names, lies in a private network, or is of a scheme that is not
            permitted.
        OSError: the host does not answer.
    """
    path = "/".join((url.host, *url.segments))
    try:
        page = await page_of(
            f"{url.scheme}://{path}?go-get=1", lookup, limit_bytes=PAGE_BYTES, timeout_s=min(ASK_S, timeout_s)
        )
    except Refused as refusal:
        if refusal.address:
            raise SourceRefused(f"url: {path}: {refusal}", field="url") from None
        return None
    found = [one for one in go_imports(page) if f"{path}/".startswith(f"{one.prefix}/")]
    chosen = next((one for one in found if one.vcs == "git"), None)
    if chosen is None:
        if found:
            raise BadRequest(f"url: {path} is served by {found[0].vcs[:20]!r}, and not by Git", field="url")
        return None
    return _place(url, path, chosen, allowed_schemes)


def _place(url: RepositoryUrl, path: str, said: GoImport, allowed_schemes: tuple[str, ...]) -> Place:
    try:
        repository = parse_url(said.url, allowed_schemes)
        if repository.scheme not in {"https", url.scheme}:
            raise SourceRefused(f"the scheme {repository.scheme!r} is not permitted there")
        folder = [checked_segment(segment) for segment in said.folder.split("/") if segment]
    except (BadRequest, SourceRefused) as error:
        raise SourceRefused(
            f"url: the page of {path} names a repository that is not called: {error.message}", field="url"
        ) from None
    below = path[len(said.prefix) :].strip("/")
    return Place(repository.name(len(repository.segments)), "/".join([*folder, *below.split("/")]).strip("/"))


# Reading a page


def go_imports(page: bytes) -> list[GoImport]:
    """The tags `go-import` in the head of a page. Takes linear time."""
    found = []
    for number, tag in enumerate(_meta_tags(page[:PAGE_BYTES].decode("utf-8", "replace"))):
        if number >= MAX_TAGS:
            break
        reader = _Meta()
        reader.feed(tag)
        words = reader.attributes.get("content", "").split()
        if reader.attributes.get("name") == "go-import" and len(words) in (3, 4):
            found.append(GoImport(words[0].strip("/"), words[1], words[2], *words[3:]))
    return found


def _meta_tags(text: str) -> Iterator[str]:
    """The text of each `<meta …>` before a page's body. The parser gets these alone, and each is short: of a
    whole page it may take quadratic time."""
    at = 0
    while (mark := _MARK.search(text, at)) is not None:
        kind = mark[1].lower()
        if kind == "!--":
            end = text.find("-->", mark.end())
        elif kind == "meta":
            end = text.find(">", mark.end(), mark.start() + TAG_CHARACTERS)
            if end >= 0:
                yield text[mark.start() : end + 1]
        else:
            return
        if end < 0 and kind == "!--":
            return
        at = max(end, mark.end())


class _Meta(HTMLParser):
    """Reads one tag."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes = {name: value or "" for name, value in attrs}
