"""The modules of a repository, as its go.mod and go.work tell, and those that we write around them.

Three ways lead to a package's modules (`Way`). Its own module is tried first: so the repository's own
`replace`, `vendor` and go.sum count, and nothing need be asked of anybody. Where that falls short, its
workspace, if it has one; at last a module of ours that requires the package's module, as every user of a
library builds it: what go.mod lacks for tests, and what go.sum lacks, does not matter then. Go completes our
files in the step that has a network, with what the proxy and the checksum database say.

The files are a stranger's. They are read in linear time, to a bound, and nothing of them gets into ours that
is not a plain word; folders out of the repository are left out.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import PurePosixPath

from skyisland.host.tree import Tree
from skyisland.model import Source

GO_MOD_BYTES = 1 << 20
"""How much of a go.mod or go.work is read. A judgement: Go permits 16 MiB, real ones have some KiB."""
GO_SUM_BYTES = 4 << 20
"""How much of a go.work.sum is read. A judgement: that of Kubernetes has half a megabyte."""
WORKSPACE_BYTES = 4 << 20
"""A workspace whose go.mod files are larger together is left alone: those of Kubernetes take 150 KiB."""
MAX_MODULES = 300
"""A workspace of more modules is left alone. Kubernetes has some forty."""
NO_GO_LINE = "1.16"
"""The language of a module whose go.mod does not tell it, and of one without go.mod
(https://go.dev/ref/mod#go-mod-file-go): one loop variable for all iterations, no type parameters."""

_WORD = re.compile(r"[\w./~+-]+", re.ASCII)
_MODULE = re.compile(r"[\w.-]+(/[\w.~-]*\w)*", re.ASCII)
_MAJOR = re.compile(r"/v([2-9]|[1-9]\d+)$")
_GOPKG_MAJOR = re.compile(r"^gopkg\.in/.*\.v(\d+)$")


class Way(StrEnum):
    """How a package gets its modules."""

    module = "module"
    """Within its own module."""
    workspace = "workspace"
    """Within its own module, beside the other modules of the repository's go.work."""
    dependency = "dependency"
    """Within a module of ours that requires its module."""


def language_of(toolchain: str) -> str:
    """The language of a toolchain: `1.27` of `go1.27.3`."""
    language = re.match(r"go(\d+\.\d+)", toolchain)
    return language[1] if language else "1.24"


def module_of(import_path: str) -> str:
    """The module of a repository without go.mod: the repository, if that is a module path."""
    return import_path if _MODULE.fullmatch(import_path) else "sky.example/repository"


def go_mod(module: str, language: str) -> str:
    """A go.mod for a repository without one."""
    return f"module {module_of(module)}\n\ngo {language}\n"


def requiring(module: str, folder: str, import_path: str, language: str) -> str:
    """The go.mod of a module that requires the one in `folder` of /src, as its users do.

    Its path begins with the package's, so that its main program may import the package even if that is
    internal.
    """
    return (
        f"module {import_path}/skyisland.call\n\ngo {language}\n\n"
        f"require {module} {_some_version(module)}\n\n"
        f"replace {module} => {_in_jail(folder)}\n"
    )


def _in_jail(folder: str) -> str:
    return posixpath.normpath(f"/src/{folder}")


def _some_version(module: str) -> str:
    """A version that a module of this path may have (https://go.dev/ref/mod#major-version-suffixes)."""
    major = _GOPKG_MAJOR.search(module) or _MAJOR.search(module)
    return f"v{major[1] if major else 0}.0.0"


def statements(text: bytes) -> Iterator[list[str]]:
    """The statements of a go.mod or go.work as words, the verb first, blocks taken apart
    (https://go.dev/ref/mod#go-mod-file-grammar)."""
    block = ""
    for line in text.decode(errors="replace").split("\n"):
        words = line.partition("//")[0].split()
        if block and words == [")"]:
            block = ""
        elif len(words) == 2 and words[1] == "(":
            block = words[0]
        elif words:
            words = [word[1:-1] if word[0] in '"`' and word[-1:] == word[0] else word for word in words]
            yield [block, *words] if block else words


class Workspace:
    """The go.work that a module lies under, and what it uses of the repository."""

    def __init__(self, tree: Tree, folder: str, module_folder: str) -> None:
        """`folder`: of the go.work. `module_folder`: of the package's go.mod. Both below the repository.
        Blocks."""
        self.folder = folder
        self.vendored = tree.is_file(posixpath.join(folder, "vendor/modules.txt"))
        self.sums = tree.read(posixpath.join(folder, "go.work.sum"), GO_SUM_BYTES) or b""
        self.uses: dict[str, str] = {}
        """Folders below the repository → paths of their modules."""
        self.requires_own = False
        """The package's module requires another one of them."""
        self._replaces: list[str] = []
        words = list(statements(tree.read(posixpath.join(folder, "go.work"), GO_MOD_BYTES) or b""))
        required: dict[str, list[list[str]]] = {}
        left_bytes = WORKSPACE_BYTES
        for used in [word for verb, *rest in words if verb == "use" for word in rest][: MAX_MODULES + 1]:
            inside = self._inside(used)
            if inside is None or inside in self.uses:
                continue
            text = tree.read(posixpath.join(inside, "go.mod"), left_bytes) or b""
            left_bytes -= len(text)
            lines = list(statements(text))
            names = [line[1] for line in lines if line[0] == "module" and len(line) == 2]
            if len(names) == 1 and _MODULE.fullmatch(names[0]):
                self.uses[inside] = names[0]
                required[inside] = [line[1:3] for line in lines if line[0] == "require" and len(line) > 2]
        own = {path: used for used, path in self.uses.items()}
        self.applies = module_folder in self.uses and len(self.uses) <= MAX_MODULES and left_bytes > 0
        """Go would use it for the package's module."""
        for user, lines in required.items():
            for module, version in lines:
                if module in own and _WORD.fullmatch(version):
                    self.requires_own |= user == module_folder
                    # A version that was never published is wanted all the same, if only its go.mod.
                    self._replaces.append(f"{module} {version} => {_in_jail(own[module])}")
        self._replaces += filter(
            None, (self._replace(line[1:], own) for line in words if line[0] == "replace")
        )

    def _inside(self, folder: str) -> str | None:
        """A folder that go.work names, as one below the repository; None if it is none, or no plain word."""
        if not _WORD.fullmatch(folder) or folder.startswith("/"):
            return None
        inside = posixpath.normpath(posixpath.join(self.folder, folder))
        if inside == ".." or inside.startswith("../"):
            return None
        return "" if inside == "." else inside

    def _replace(self, words: list[str], own: dict[str, str]) -> str:
        """A `replace` of go.work in ours; empty for one that leads out of the repository."""
        at = words.index("=>") if "=>" in words else 0
        left, right = words[:at], words[at + 1 :]
        if not (1 <= len(left) <= 2 and 1 <= len(right) <= 2) or left[0] in own:
            return ""
        if len(right) == 1:  # a folder; else a module and its version
            inside = self._inside(right[0])
            right = [_in_jail(inside)] if inside is not None else [""]
        plain = all(map(_WORD.fullmatch, (*left, *right)))
        return " ".join((*left, "=>", *right)) if plain and right[0][:1] != "." else ""

    def text(self, language: str) -> str:
        """A go.work of ours with the same meaning, wherever it lies in the jail."""
        lines = [f"use {_in_jail(folder)}" for folder in self.uses]
        lines += [f"replace {line}" for line in dict.fromkeys(self._replaces)]
        return "\n\n".join((f"go {language}", "\n".join(lines))) + "\n"


def workspace_of(tree: Tree, module_folder: str) -> Workspace | None:
    """The workspace of the module in a folder of the repository: the nearest go.work upwards, if that uses
    the module. Blocks."""
    folder = module_folder
    while not tree.is_file(posixpath.join(folder, "go.work")):
        if not folder:
            return None
        folder = posixpath.dirname(folder)
    workspace = Workspace(tree, folder, module_folder)
    return workspace if workspace.applies else None


def sums_of(source: Source) -> tuple[str, str]:
    """The SHA-256 of the go.mod of a package's module, and of its go.sum; empty for one that is not there.
    Blocks."""
    tree = Tree(source.checkout)
    path = PurePosixPath(source.package)
    for folder in (path, *path.parents):
        if "go.mod" in (tree.names(str(folder)) or ()):
            break
    hashes = []
    for name, limit_bytes in (("go.mod", GO_MOD_BYTES), ("go.sum", GO_SUM_BYTES)):
        content = tree.read(str(folder / name), limit_bytes)
        hashes.append("" if content is None else hashlib.sha256(content).hexdigest())
    return hashes[0], hashes[1]
