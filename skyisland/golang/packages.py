"""Reads from a folder's files which package it has, without running Go.

A `Source` enters, a `Package` leaves. To ask the go command takes longer than to build the answer into
the build itself. So the plain cases are read here: a go.mod with a plain module line, and Go files of
one package. In all other cases `Package.name` is empty and Go is asked. Go is also asked when a build
fails, so that Go alone decides what is wrong.

The files are a stranger's: no link is followed out of the repository, only the beginning of each file is
read, and it takes linear time whatever is in it.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import msgspec
from msgspec import Struct

from skyisland.errors import BuildFailed, Complaint
from skyisland.host.tree import Tree
from skyisland.model import Source

HEAD_BYTES = 1 << 16
"""How much of a Go file is searched for its package clause. A judgement: licences before it are shorter."""
GO_MOD_BYTES = 1 << 20
"""How much of a go.mod is read. A judgement: Go permits a module 16 MiB, real ones have some KiB."""
MAX_FILES = 500
"""A folder with more Go files is left to Go. To read the beginnings of 500 takes 15 ms."""

COMMENT_BYTES = 4 << 20
"""A folder with more comments before its package clauses is left to Go: 500 licences of 8 KiB."""

_SPACE = re.compile(rb"\s*")
_DIRECTIVE = re.compile(rb"^[ \t]*(module|require|replace)\b([^\n]*)", re.MULTILINE)
"""A line of a go.mod. Nothing in it matches a line's end: a file of empty lines takes linear time."""
_MODULE_PATH = re.compile(rb"(\"?)([\w./~-]+)\1")
_IGNORED = re.compile(rb"^//(?:go:build| ?\+build)[ \t]+ignore[ \t]*$", re.MULTILINE)
_NAMED = re.compile(rb"package[ \t]+([A-Za-z]\w*)")


class Package(Struct, frozen=True):
    """A package, and how to build it."""

    name: str
    """Empty if the files do not show it plainly."""
    import_path: str
    mod: str
    """The value of Go's -mod: `vendor` or `readonly`."""
    go_mod: str | None
    """The text of a go.mod for the repository's root; None if the repository has its own."""
    requires: bool
    """Modules must be downloaded before it compiles."""
    by_go: bool = False
    """The go command named it, not `read_package`."""


def read_package(source: Source, go_version: str) -> Package:
    """Read the package in the source's folder. Blocks.

    Raises:
        BuildFailed: the folder does not exist.
    """
    tree = Tree(source.checkout)
    names = tree.names(source.package)
    if names is None:
        raise BuildFailed(
            f"the repository has no folder {source.package!r} at {source.commit[:12]}",
            complaint=Complaint.no_go_files,
        )
    path = PurePosixPath(source.package)
    for top in (path, *path.parents):
        # As for Go itself, the nearest go.mod upwards is the package's, even one that is a link to nowhere.
        if "go.mod" in (tree.names(str(top)) or ()):
            vendored = tree.is_file(str(top / "vendor" / "modules.txt"))
            text = tree.read(str(top / "go.mod"), GO_MOD_BYTES)
            modules, requires = _directives(text) if text is not None else ([], True)
            unnamed = Package("", "", "vendor" if vendored else "readonly", None, requires and not vendored)
            break
    else:
        top, root = PurePosixPath(), msgspec.structs.replace(source, package="")
        generated = go_mod(root.import_path, go_version)
        modules, _ = _directives(generated.encode())
        unnamed = Package("", "", "readonly", generated, requires=False)
    plain = len(modules) == 1 and "vendor" not in path.parts
    if not plain or not (name := _package_name(tree, source.package, names)):
        return msgspec.structs.replace(unnamed, import_path=source.import_path)
    import_path = "/".join((modules[0], *path.relative_to(top).parts))
    return msgspec.structs.replace(unnamed, name=name, import_path=import_path)


def _directives(go_mod: bytes) -> tuple[list[str], bool]:
    """The plain module paths of a go.mod, and whether it names other modules."""
    modules, requires = [], False
    for directive in _DIRECTIVE.finditer(go_mod):
        value = directive[2].partition(b"//")[0].strip()
        if directive[1] != b"module":
            requires = True
        elif path := _MODULE_PATH.fullmatch(value):
            modules.append(path[2].decode())
    return modules, requires


def go_mod(module: str, go_version: str) -> str:
    """A go.mod for a repository without one: the module is the repository, the language the toolchain's."""
    if not re.fullmatch(r"[\w.-]+(/[\w.~-]*\w)*", module, re.ASCII):
        module = "sky.example/repository"
    language = re.match(r"go(\d+\.\d+)", go_version)
    return f"module {module}\n\ngo {language[1] if language else '1.24'}\n"


def _package_name(tree: Tree, folder: str, names: list[str]) -> str:
    """The package that all compilable Go files of the folder name; empty if they differ or one is unclear."""
    files = [name for name in names if name.endswith(".go") and not name.startswith(("_", "."))]
    files = [name for name in files if not name.endswith("_test.go")]
    if len(files) > MAX_FILES:
        return ""
    packages: set[bytes] = set()
    comment_bytes = 0
    for name in files:
        text = tree.read(f"{folder}/{name}", HEAD_BYTES) or b""
        start = _after_comments(text)
        clause = _NAMED.match(text, start)
        comment_bytes += start
        if clause is None or comment_bytes > COMMENT_BYTES:
            return ""
        if not _IGNORED.search(text, 0, start):
            packages.add(clause[1])
    # Go does not compile a package `documentation`, and cannot import a package `main`.
    plain = len(packages) == 1 and not packages & {b"documentation", b"main"}
    return packages.pop().decode() if plain else ""


def _after_comments(text: bytes) -> int:
    """Where a Go file's first word begins: after the byte order mark, white space and comments.

    Not one regular expression: to be linear it needs possessive quantifiers, which Python before 3.11.4
    misreads (gh-106052).
    """
    at = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    while True:
        at = _end_of_space(text, at)
        if text.startswith(b"//", at):
            end, mark = text.find(b"\n", at), 1
        elif text.startswith(b"/*", at):
            end, mark = text.find(b"*/", at + 2), 2
        else:
            return at
        if end < 0:
            return len(text)
        at = end + mark


def _end_of_space(text: bytes, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at
