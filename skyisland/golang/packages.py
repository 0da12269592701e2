"""Reads from a folder's files which package it has, without running Go.

A `Source` enters, a `Package` leaves, with the ways to its modules (`modules`). To ask the go command takes
longer than to build the answer into the build itself. So the plain cases are read here: a go.mod with a plain
module line, and Go files of one package. In all other cases `Package.name` is empty and Go is asked. Go is
also asked when a build fails, so that Go alone decides what is wrong.

The files are a stranger's: no link is followed out of the repository, only the beginning of each file is
read, and it takes linear time whatever is in it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

import msgspec
from msgspec import Struct

from skyisland.errors import BuildFailed, Complaint
from skyisland.golang.folders import where_packages_lie
from skyisland.golang.modules import (
    GO_MOD_BYTES,
    NO_GO_LINE,
    Way,
    go_mod,
    language_of,
    module_of,
    requiring,
    workspace_of,
)
from skyisland.golang.reasons import submodule
from skyisland.host.tree import Tree
from skyisland.model import Source

HEAD_BYTES = 1 << 16
"""How much of a Go file is searched for its package clause. A judgement: licences before it are shorter."""
MAX_FILES = 500
"""A folder with more Go files is left to Go. To read the beginnings of 500 takes 15 ms."""

COMMENT_BYTES = 4 << 20
"""A folder with more comments before its package clauses is left to Go: 500 licences of 8 KiB."""

_SPACE = re.compile(rb"\s*")
_DIRECTIVE = re.compile(rb"^[ \t]*(module|require|replace)\b([^\n]*)", re.MULTILINE)
"""A line of a go.mod. Nothing in it matches a line's end: a file of empty lines takes linear time."""
_MODULE_PATH = re.compile(rb"(\"?)([\w./~-]+)\1")
_IGNORED = re.compile(rb"^//(?:go:build| ?\+build)[ \t]+ignore[ \t]*$", re.MULTILINE)
_NAMED = re.compile(rb"package[ \t]+([A-Za-z\x80-\xff][\w\x80-\xff]*)")


class Package(Struct, frozen=True):
    """A package, and how to build it."""

    name: str
    """Empty if the files do not show it plainly."""
    import_path: str
    mod: str
    """The value of Go's -mod: `vendor`, `readonly`, or `mod` where Go may complete our own files."""
    go_mod: str | None
    """The text of a go.mod for the repository's root; None if the repository has its own."""
    requires: bool
    """Modules must be downloaded before it compiles."""
    by_go: bool = False
    """The go command named it, not `read_package`."""
    module: str = ""
    """The path of its module; empty if go.mod does not show it plainly."""
    module_folder: str = ""
    """The folder of its module, below the repository."""
    way: Way = Way.module
    ways: tuple[Way, ...] = (Way.module,)
    """The ways that there are, in the order in which they are tried."""
    go_work: str = "off"
    """The go.work of the workspace (GOWORK)."""
    ours: Mapping[str, bytes] = MappingProxyType({})
    """Our go.mod with its go.sum, or go.work with its go.work.sum, in /out; as Go completed them."""

    @property
    def next_way(self) -> Way | None:
        """What to try when this way falls short."""
        later = self.ways[self.ways.index(self.way) + 1 :]
        return later[0] if later else None


def read_package(source: Source, go_version: str) -> Package:
    """Read the package in the source's folder. Blocks.

    Raises:
        BuildFailed: the folder does not exist.
    """
    tree = Tree(source.checkout)
    names = tree.names(source.package)
    if names is None:
        message = f"the repository has no folder {source.package!r} at {source.commit[:12]}"
        remedy = submodule(tree, source.package) or where_packages_lie(tree, source)
        raise BuildFailed(message + remedy, complaint=Complaint.no_go_files)
    path = PurePosixPath(source.package)
    workspaces = False
    for top in (path, *path.parents):
        # As for Go itself, the nearest go.mod upwards is the package's, even one that is a link to nowhere.
        beside = tree.names(str(top)) or ()
        workspaces |= "go.work" in beside
        if "go.mod" in beside:
            vendored = tree.is_file(str(top / "vendor" / "modules.txt"))
            text = tree.read(str(top / "go.mod"), GO_MOD_BYTES)
            modules, requires = _directives(text) if text is not None else ([], True)
            unnamed = Package("", "", "vendor" if vendored else "readonly", None, requires and not vendored)
            break
    else:
        top, root = PurePosixPath(), msgspec.structs.replace(source, package="")
        generated = go_mod(root.import_path, NO_GO_LINE)
        modules = [module_of(root.import_path)]
        unnamed = Package("", "", "readonly", generated, requires=False)
    plain = len(modules) == 1 and "vendor" not in path.parts
    name = _package_name(tree, source.package, names) if plain else ""
    package = msgspec.structs.replace(
        unnamed,
        name=name,
        import_path="/".join((modules[0], *path.relative_to(top).parts)) if name else source.import_path,
        module=modules[0] if len(modules) == 1 else "",
        module_folder="" if str(top) == "." else str(top),
    )
    workspaces = workspaces or any("go.work" in (tree.names(str(above)) or ()) for above in top.parents)
    return msgspec.structs.replace(package, ways=_ways(tree, package, workspaces=workspaces))


def _ways(tree: Tree, package: Package, *, workspaces: bool) -> tuple[Way, ...]:
    """The ways to a package's modules. A workspace comes first where the package wants a module of it, for
    which it is there. `workspaces`: there is some go.work."""
    last = (Way.dependency,) if package.module else ()
    workspace = workspace_of(tree, package.module_folder) if workspaces and package.go_mod is None else None
    if workspace is None:
        return (Way.module, *last)
    return (*((Way.workspace, Way.module) if workspace.requires_own else (Way.module, Way.workspace)), *last)


def in_way(way: Way, package: Package, source: Source, go_version: str) -> Package:
    """A package as `read_package` read it, with its modules by one of its ways. Blocks."""
    language = language_of(go_version)
    if way is Way.workspace:
        workspace = workspace_of(Tree(source.checkout), package.module_folder)
        if workspace is not None and workspace.vendored:
            go_work = posixpath.normpath(f"/src/{workspace.folder}/go.work")
            return msgspec.structs.replace(package, way=way, mod="vendor", requires=False, go_work=go_work)
        if workspace is not None:
            ours = {"go.work": workspace.text(language).encode(), "go.work.sum": workspace.sums}
            return msgspec.structs.replace(
                package, way=way, mod="readonly", requires=True, go_work="/out/go.work", ours=ours
            )
    if way is Way.dependency:
        path = PurePosixPath(source.package).relative_to(package.module_folder)
        import_path = "/".join((package.module, *path.parts))
        text = requiring(package.module, package.module_folder, import_path, language)
        return msgspec.structs.replace(
            package,
            way=way,
            import_path=import_path,
            mod="mod",
            requires=True,
            ours={"go.mod": text.encode()},
        )
    return package


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
    # Go does not compile a package `documentation`.
    plain = len(packages) == 1 and b"documentation" not in packages
    name = packages.pop().decode(errors="replace") if plain else ""
    return name if name.isidentifier() else ""


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
