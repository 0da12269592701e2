"""Reads from a folder's files which package it has, without running Go.

A `Source` enters, a `Package` leaves. To ask the go command takes longer than to build the answer into
the build itself. So the plain cases are read here: a go.mod with a plain module line, and Go files of
one package. In all other cases `Package.name` is empty and Go is asked. Go is also asked when a build
fails, so that Go alone decides what is wrong.

The files are a stranger's: no link is followed, and only the beginning of each file is read.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from skyisland.errors import BuildFailed, Complaint
from skyisland.model import Source

HEAD_BYTES = 1 << 16
"""How much of a Go file is searched for its package clause. A judgement: licences before it are shorter."""
GO_MOD_BYTES = 1 << 20
"""How much of a go.mod is read. A judgement: Go permits a module 16 MiB, real ones have some KiB."""
MAX_FILES = 500
"""A folder with more Go files is left to Go. To read the beginnings of 500 takes 15 ms."""

_CLAUSE = re.compile(
    rb"(?:\xef\xbb\xbf)?+(?P<before>(?:\s++|//[^\n]*+\n|/\*(?:[^*]|\*(?!/))*+\*/)*+)"
    rb"package[ \t]++(?P<name>[A-Za-z]\w*+)"
)
_IGNORED = re.compile(rb"^//(?:go:build| ?\+build)[ \t]+ignore[ \t]*$", re.MULTILINE)
_MODULE = re.compile(rb'^[ \t]*+module[ \t]++("?)([\w./~-]++)\1[ \t]*+(?://.*)?\r?$', re.MULTILINE)


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
    home = source.checkout / source.package
    if not home.is_dir():
        raise BuildFailed(
            f"the repository has no folder {source.package!r} at {source.commit[:12]}",
            complaint=Complaint.no_go_files,
        )
    path = PurePosixPath(source.package)
    for top in (path, *path.parents):
        # As for Go itself, the nearest go.mod upwards is the package's.
        folder = source.checkout / top
        if (folder / "go.mod").is_file():
            vendored = (folder / "vendor" / "modules.txt").is_file()
            text = _beginning(folder / "go.mod", GO_MOD_BYTES)
            requires = text is None or re.search(rb"^\s*(require|replace)\b", text, re.MULTILINE) is not None
            unnamed = Package("", "", "vendor" if vendored else "readonly", None, requires and not vendored)
            break
    else:
        top, root = PurePosixPath(), msgspec.structs.replace(source, package="")
        generated = go_mod(root.import_path, go_version)
        text, unnamed = generated.encode(), Package("", "", "readonly", generated, requires=False)
    modules = _MODULE.findall(text or b"")
    plain = len(modules) == 1 and "vendor" not in path.parts
    if not plain or not (name := _package_name(home)):
        return msgspec.structs.replace(unnamed, import_path=source.import_path)
    import_path = "/".join((modules[0][1].decode(), *path.relative_to(top).parts))
    return msgspec.structs.replace(unnamed, name=name, import_path=import_path)


def go_mod(module: str, go_version: str) -> str:
    """A go.mod for a repository without one: the module is the repository, the language the toolchain's."""
    if not re.fullmatch(r"[\w.-]+(/[\w.~-]*\w)*", module, re.ASCII):
        module = "sky.example/repository"
    language = re.match(r"go(\d+\.\d+)", go_version)
    return f"module {module}\n\ngo {language[1] if language else '1.24'}\n"


def _package_name(home: Path) -> str:
    """The package that all compilable Go files of the folder name; empty if they differ or one is unclear."""
    names: set[bytes] = set()
    with os.scandir(home) as entries:
        files = [entry for entry in entries if entry.name.endswith(".go")]
    files = [entry for entry in files if not entry.name.startswith(("_", ".")) and not _is_test(entry.name)]
    if len(files) > MAX_FILES:
        return ""
    for entry in files:
        clause = _CLAUSE.match(_beginning(Path(entry.path), HEAD_BYTES) or b"")
        if clause is None:
            return ""
        if not _IGNORED.search(clause["before"]):
            names.add(clause["name"])
    # Go does not compile a package `documentation`, and cannot import a package `main`.
    return names.pop().decode() if len(names) == 1 and not names & {b"documentation", b"main"} else ""


def _is_test(name: str) -> bool:
    return name.endswith("_test.go")


def _beginning(path: Path, size: int) -> bytes | None:
    """The first `size` bytes of a file; None if it is not a plain file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(size) if stat.S_ISREG(os.fstat(fd).st_mode) else None
