"""Where a package lies: a repository, and a folder in it. Pure, but for the folder of a commit that is read.

An import path may have a major version in it, `github.com/user/repo/v3/sub`. Then a commit's files decide
which folder it means (`package_folder`).
"""

from __future__ import annotations

import re

from msgspec import Struct

from skyisland.host.tree import Tree
from skyisland.sources.url import RepositoryUrl
from skyisland.sources.versions import series

GO_MOD_BYTES = 1 << 16
"""How much of a go.mod is searched for its module line. A judgement: it is the first."""

_MAJOR = re.compile(r"(?:(.+?)/)?v([2-9]|[1-9][0-9]{1,8})(?:/(.*))?")
_MODULE = re.compile(rb"^[ \t]*module[ \t]+\"?([^\s\"]+)", re.MULTILINE)


class Place(Struct, frozen=True):
    """A repository, and a package in it."""

    name: str
    package: str
    version: str | None = None
    """What is meant where the request names no version."""
    literal: bool = False
    """See `RepositoryUrl.literal`."""


def placed(url: RepositoryUrl, name: str) -> Place:
    """The place of a URL in the repository `name`."""
    return Place(name, url.package(name), literal=url.literal)


class Major(Struct, frozen=True):
    """A package's path with a major version in it, taken apart: `sub/v2/x`."""

    before: str
    number: int
    after: str

    @property
    def series(self) -> str:
        """The releases that it asks for."""
        return series(self.before, self.number)

    @property
    def stripped(self) -> str:
        """The folder, if the version is none of its parts."""
        return "/".join(filter(None, (self.before, self.after)))

    @property
    def whole(self) -> str:
        """The folder, if the version is one of its parts."""
        return "/".join(filter(None, (self.before, f"v{self.number}", self.after)))


def major_of(place: Place) -> Major | None:
    """The major version in a place's package, unless its path is that of a folder."""
    if not place.package or place.literal or (match := _MAJOR.fullmatch(place.package)) is None:
        return None
    return Major(match[1] or "", int(match[2]), match[3] or "")


def package_folder(tree: Tree, major: Major) -> str | None:
    """The folder of a package with a major version in its import path; None if these files have none. Blocks.

    As for Go, either the module there is of that major version, as its go.mod says, and has no folder of that
    name; or the folder has one.
    """
    go_mod = tree.read(f"{major.before}/go.mod", GO_MOD_BYTES) or b""
    module = _MODULE.search(go_mod)
    is_that = module is not None and module[1].endswith((b"/v%d" % major.number, b".v%d" % major.number))
    if is_that and tree.names(major.stripped) is not None:
        return major.stripped
    return major.whole if tree.names(major.whole) is not None else None
