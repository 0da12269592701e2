"""The packages that a call may name beside the called one: of the standard library, and of its repository.

A call has the powers of the repository's own code, in the same jail, whatever it imports. The list leaves out
what is of use to programs only: a call shall say what it wants of the package. Of `os` there are the three
standard streams.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from skyisland.errors import BadCall
from skyisland.golang.names import Named
from skyisland.golang.packages import Package
from skyisland.golang.tokens import Refused, clip, tokens_of, words
from skyisland.host.tree import Tree
from skyisland.model import Call, Source

STANDARD = {
    path.rpartition("/")[2]: path
    for path in sorted(
        words(
            """
            bufio bytes cmp compress/gzip container/heap container/list container/ring context crypto/hmac
            crypto/md5 crypto/sha1 crypto/sha256 crypto/sha512 encoding/base32 encoding/base64 encoding/binary
            encoding/csv encoding/hex encoding/json encoding/xml errors fmt go/ast go/token hash/crc32
            hash/crc64 hash/fnv html image image/color io io/fs iter log log/slog maps math math/big math/bits
            math/cmplx mime net net/http net/http/httptest net/mail net/netip net/url os path path/filepath
            reflect regexp slices sort strconv strings sync testing/fstest text/tabwriter time unicode
            unicode/utf16 unicode/utf8
            """
        )
    )
}
"""Import paths by the name that stands in front of a dot. Where two packages have one name, as math/rand and
crypto/rand, neither is here."""
_STANDARD_PATHS = frozenset(STANDARD.values())
_OF_OS = words("Stdin Stdout Stderr")
_NEVER = words("cgo embed exec plugin runtime syscall unsafe")
MAX_FOLDERS = 20_000
"""Folders of a repository that are searched for a package, with the files in them. A judgement: the largest
repositories in use have a few thousand; a second is enough."""
_LISTED = 5
"""Candidates in a message."""


def is_standard(path: str) -> bool:
    """Whether this is the import path of a package that any call may name."""
    return path in _STANDARD_PATHS


def check_standard(named: Named) -> None:
    """Refuse what no call may name, before anything is fetched.

    Raises:
        Refused: with the remedy.
    """
    if named.qualifier == "os" and named.name not in _OF_OS:
        reason = "of os, a call may name Stdin, Stdout and Stderr; leave the rest to the package"
        raise Refused(named.start, reason)
    if named.qualifier in _NEVER:
        raise Refused(named.start, f"{named.qualifier} is foreign to calls; leave this to the package")


def import_paths(call: Call, source: Source, package: Package) -> dict[str, str]:
    """The import paths of the packages that a call names, by name. Blocks: it may search the checkout.

    Raises:
        BadCall: no package has that name, or several have it.
    """
    paths: dict[str, str] = {}
    for name in call.imports:
        if name == package.name:
            paths[name] = package.import_path
        else:
            paths[name] = STANDARD.get(name) or _in_repository(name, call, source, package)
    return paths


def _in_repository(name: str, call: Call, source: Source, package: Package) -> str:
    """The import path of the package of the repository whose folder has this name."""
    top, home = PurePosixPath(package.module_folder), PurePosixPath(source.package)
    below = len(home.relative_to(top).parts)
    module = package.module or "/".join(package.import_path.split("/")[: -below or None])
    folders = _folders(Tree(source.checkout), top, name, top_is=re.sub(r"/v[0-9]+$", "", module))
    found = [folder for folder in folders if _is_open(folder, home)]
    near = [folder for folder in found if folder.parent == home]
    if len(found) != 1 and len(near) != 1:
        if found:
            several = ", ".join(map(str, found[:_LISTED])) + (", …" if found[_LISTED:] else "")
            reason = f"{clip(name)} may be {several}: name its own folder in the URL"
        else:
            reason = (
                f"the package is {package.name}, not {clip(name)}; leave the name out or correct it. "
                "(Another name may be that of a folder of the same module, or of a package of the standard "
                "library that calls may use, such as strings and time.)"
            )
        position = _position(name, call)
        if call.takes_data and "[" in call.text[:position]:
            raise BadCall(f"types: {reason}", path="types")
        raise BadCall(f"call: {reason}", position=position)
    folder = (near or found)[0]
    return "/".join((module, *folder.relative_to(top).parts))


def _folders(tree: Tree, top: PurePosixPath, name: str, top_is: str) -> Iterator[PurePosixPath]:
    """The folders of a module that have this name and Go files. `top_is`: the module's path."""
    to_search, seen = [top], 0
    while to_search:
        folder = to_search.pop()
        entries = sorted(tree.names(str(folder)) or ())
        seen += 1 + len(entries)
        if folder != top and "go.mod" in entries:
            continue
        called = PurePosixPath(top_is).name if folder == top else folder.name
        if called == name and any(
            entry.endswith(".go") and not entry.endswith("_test.go") for entry in entries
        ):
            yield folder
        if seen > MAX_FOLDERS:
            return
        to_search += (folder / entry for entry in reversed(entries) if _may_be_folder(entry))


def _is_open(folder: PurePosixPath, home: PurePosixPath) -> bool:
    """Whether code below `home` may import a package (https://go.dev/s/go14internal)."""
    parts = folder.parts
    if "internal" not in parts:
        return True
    last = len(parts) - 1 - parts[::-1].index("internal")
    return home.parts[:last] == parts[:last]


def _may_be_folder(name: str) -> bool:
    """Whether this may be a folder that Go looks into; names with a dot are files."""
    return "." not in name and name[0] != "_" and name not in ("vendor", "testdata")


def _position(name: str, call: Call) -> int:
    """Where a package is named, in bytes from the beginning of the call's canonical text."""
    tokens = tokens_of(call.text)
    for token, dot in itertools.pairwise(tokens):
        if token.text == name and dot.text == ".":
            return len(call.text[: token.start].encode())
    return 0
