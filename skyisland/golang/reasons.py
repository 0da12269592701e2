"""Why something of a repository is not there for Go: cgo, build constraints, submodules, Git LFS.

What Go leaves out, it leaves out silently: a function in a file for another system is only `undefined`. So
when a build fails, the files are searched for what it missed. They are a stranger's: read in linear time and
to a bound, and what is quoted of them is short and printable.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from skyisland.host.tree import Tree

FILE_BYTES = 1 << 20
"""How much of a Go file is searched. A judgement: a few generated ones are larger."""
TOTAL_BYTES = 16 << 20
"""How much of a package is searched: half a second, on a thread, for a build that has failed."""
MAX_NAMES = 20
"""A compiler gives up after ten errors."""
QUOTED = 80
"""Characters of a constraint, name or URL that are quoted. Longer ones are not what a person wrote."""
LFS_HEAD = b"version https://git-lfs.github.com/spec/v1\n"
"""What a pointer begins with (git-lfs, docs/spec.md)."""

_CGO = re.compile(rb'^(?:import)?[ \t]*"C"[ \t]*(?://.*)?$', re.MULTILINE)
_CONSTRAINT = re.compile(rb"^//go:build[ \t]+([^\n]*)|^// ?\+build[ \t]+([^\n]*)", re.MULTILINE)
_CLAUSE = re.compile(rb"^package[ \t]", re.MULTILINE)
_DECLARED = re.compile(rb"^(?:func|type|var|const)[ \t]+(\w+)", re.MULTILINE)
_UNDEFINED = re.compile(r"undefined: (\w+)$", re.MULTILINE)
_SYSTEM = re.compile(
    r"aix|android|darwin|dragonfly|freebsd|hurd|illumos|ios|js|linux|nacl|netbsd|openbsd|plan9|solaris|wasip1"
    r"|windows|zos|386|amd64|arm|arm64|loong64|mips|mipsle|mips64|mips64le|ppc64|ppc64le|riscv64|s390x|wasm"
)
"""What Go takes the end of a file's name for (internal/syslist of its standard library)."""
_SUBMODULE = re.compile(rb"^[ \t]*(path|url)[ \t]*=[ \t]*([^\n]*)", re.MULTILINE)
_PRINTABLE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")


def _quoted(text: bytes) -> str:
    """Foreign text, if it is short and printable ASCII."""
    shown = text.decode(errors="replace").strip()[: QUOTED + 1]
    return shown if len(shown) <= QUOTED and _PRINTABLE.fullmatch(shown) else ""


def missed_names(output: str) -> list[str]:
    """Names that a compiler did not find."""
    return list(dict.fromkeys(_UNDEFINED.findall(output)))[:MAX_NAMES]


def left_out(tree: Tree, folder: str, names: Iterable[str]) -> dict[str, str]:
    """Where the package in a folder declares names that Go did not find, and why Go left that file out:
    `F` → `x_windows.go, which is for windows`. Blocks."""
    wanted = {name.encode() for name in names}
    found: dict[str, str] = {}
    for file, text in _go_files(tree, folder) if wanted else ():
        here = wanted.intersection(_DECLARED.findall(text))
        if here and (reason := _reason(file, text)):
            found |= dict.fromkeys((name.decode() for name in sorted(here)), reason)
            wanted -= here
    return found


def all_left_out(tree: Tree, folder: str) -> str:
    """The first few files of a package of which Go compiles none, with the reasons. Blocks."""
    reasons = [_reason(file, text) for file, text in _go_files(tree, folder)]
    reasons = [reason for reason in reasons if reason]
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


def _go_files(tree: Tree, folder: str) -> Iterator[tuple[str, bytes]]:
    left_bytes = TOTAL_BYTES
    for file in sorted(tree.names(folder) or ()):
        if not file.endswith(".go") or file.endswith("_test.go") or file.startswith(("_", ".")):
            continue
        text = tree.read(posixpath.join(folder, file), min(FILE_BYTES, left_bytes))
        if text is not None:
            left_bytes -= len(text)
            yield file, text
        if left_bytes <= 0:
            return


def _reason(file: str, text: bytes) -> str:
    """A file that Go left out, and why: `x.go, which needs cgo …`; empty if it does not show why."""
    shown = _quoted(file.encode()) or "a file"
    clause = _CLAUSE.search(text)
    reasons = ["needs cgo, and the island has no C compiler"] if _CGO.search(text) else []
    if constraint := _CONSTRAINT.search(text, 0, clause.start() if clause else len(text)):
        expression = _quoted(constraint[1] or constraint[2])
        reasons.append(f"is behind //go:build {expression}" if expression else "is behind a build constraint")
    # name_GOOS.go, name_GOARCH.go, name_GOOS_GOARCH.go (https://pkg.go.dev/cmd/go#hdr-Build_constraints)
    systems = [part for part in file.removesuffix(".go").split("_")[1:][-2:] if _SYSTEM.fullmatch(part)]
    if not reasons and systems:
        reasons = [f"is for {'/'.join(systems)} by its name"]
    return f"{shown}, which {' and '.join(reasons)}" if reasons else ""


def submodule(tree: Tree, *paths: str) -> str:
    """A clause about the submodule that one of these paths of the repository lies in; empty if none does.
    Blocks."""
    declared: list[str] = []
    urls: dict[str, str] = {}
    for match in _SUBMODULE.finditer(tree.read(".gitmodules", FILE_BYTES) or b""):
        value = _quoted(match[2])
        if match[1] == b"path":
            declared.append(value.rstrip("/"))
        elif declared:
            urls.setdefault(declared[-1], value if value.startswith("https://") else "")
    known = set(declared) - {""}
    for path in paths:
        for above in _upwards(path):
            if above in known:
                where = f" ({urls[above]})" if urls.get(above) else ""
                return (
                    f": {above} is a submodule{where}, which the island does not fetch; call that by its URL"
                )
    return ""


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = posixpath.dirname(path)


def uses_lfs(tree: Tree, folder: str) -> bool:
    """Whether some file of the folder, or above it, may be kept by Git LFS. Blocks."""
    for above in (*_upwards(folder), ""):
        if b"filter=lfs" in (tree.read(posixpath.join(above, ".gitattributes"), FILE_BYTES) or b""):
            return True
    return False


def is_pointer(tree: Tree, file: str) -> bool:
    """Whether Git LFS keeps the content of a file elsewhere. Blocks."""
    return tree.read(file, len(LFS_HEAD)) == LFS_HEAD
