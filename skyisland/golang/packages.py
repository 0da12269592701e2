"""What package lies in a folder of a checkout, as far as its files tell without Go.

The go command takes longer to answer that question than to find out by itself while it builds. So what is
plain is read here: a go.mod with a plain module line, and Go files of one package. What is not plain is
left to Go, and so is a build that fails: Go has the last word on what is wrong.

The files are a stranger's: no link is followed, and of each file only its beginning is read.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from skyisland.errors import BuildFailed
from skyisland.golang.harness import Complaint
from skyisland.model import Source

HEAD_BYTES = 1 << 16
MANY_FILES = 500

_CLAUSE = re.compile(
    rb"(?:\xef\xbb\xbf)?+(?P<before>(?:\s++|//[^\n]*+\n|/\*(?:[^*]|\*(?!/))*+\*/)*+)"
    rb"package[ \t]++(?P<name>[A-Za-z]\w*+)"
)
_IGNORED = re.compile(rb"^//(?:go:build| ?\+build)[ \t]+ignore[ \t]*$", re.MULTILINE)
_MODULE = re.compile(rb'^[ \t]*+module[ \t]++("?)([\w./~-]++)\1[ \t]*+(?://.*)?\r?$', re.MULTILINE)


class Package(Struct, frozen=True):
    """A package, and what it takes to build it."""

    name: str
    """Empty while it is not known."""
    import_path: str
    mod: str
    """Go's -mod: `vendor` or `readonly`."""
    go_mod: str | None
    """The go.mod to put at the repository's root, where it has none."""
    requires: bool
    """Modules must be there before it compiles."""
    by_go: bool = False
    """The go command said so."""


def read_package(source: Source, go_version: str) -> Package:
    """What the files tell of the package in the source's folder. Blocks.

    Raises:
        BuildFailed: there is no such folder.
    """
    home = source.checkout / source.package
    if not home.is_dir():
        raise BuildFailed(
            f"the repository has no folder {source.package!r} at {source.commit[:12]}",
            complaint=str(Complaint.no_go_files),
        )
    path = PurePosixPath(source.package)
    for top in (path, *path.parents):
        # The go.mod that rules the package is the next one upwards, as for Go itself.
        folder = source.checkout / top
        if (folder / "go.mod").is_file():
            vendored = (folder / "vendor" / "modules.txt").is_file()
            text = _beginning(folder / "go.mod", 1 << 20)
            requires = text is None or re.search(rb"^\s*(require|replace)\b", text, re.MULTILINE) is not None
            found = Package("", "", "vendor" if vendored else "readonly", None, requires and not vendored)
            break
    else:
        top, root = PurePosixPath(), msgspec.structs.replace(source, package="")
        made = go_mod(root.import_path, go_version)
        text, found = made.encode(), Package("", "", "readonly", made, requires=False)
    modules = _MODULE.findall(text or b"")
    plain = len(modules) == 1 and "vendor" not in path.parts
    if not plain or not (name := _name(home)):
        return msgspec.structs.replace(found, import_path=source.import_path)
    import_path = "/".join((modules[0][1].decode(), *path.relative_to(top).parts))
    return msgspec.structs.replace(found, name=name, import_path=import_path)


def go_mod(module: str, go_version: str) -> str:
    """A go.mod for a repository without: the module is the repository, the language today's."""
    if not re.fullmatch(r"[\w.-]+(/[\w.~-]*\w)*", module, re.ASCII):
        module = "sky.example/repository"
    language = re.match(r"go(\d+\.\d+)", go_version)
    return f"module {module}\n\ngo {language[1] if language else '1.24'}\n"


def _name(home: Path) -> str:
    """The one package that all files are of which Go could compile; empty if they do not all say so."""
    names: set[bytes] = set()
    with os.scandir(home) as entries:
        files = [entry for entry in entries if entry.name.endswith(".go")]
    files = [entry for entry in files if not entry.name.startswith(("_", ".")) and not _tests(entry.name)]
    if len(files) > MANY_FILES:
        return ""
    for entry in files:
        clause = _CLAUSE.match(_beginning(Path(entry.path), HEAD_BYTES) or b"")
        if clause is None:
            return ""
        if not _IGNORED.search(clause["before"]):
            names.add(clause["name"])
    # A package documentation is not compiled, and a main one not imported.
    return names.pop().decode() if len(names) == 1 and not names & {b"documentation", b"main"} else ""


def _tests(name: str) -> bool:
    return name.endswith("_test.go")


def _beginning(path: Path, size: int) -> bytes | None:
    """The first bytes of a file; None for what is no plain file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(size) if stat.S_ISREG(os.fstat(fd).st_mode) else None
