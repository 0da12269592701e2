"""Which folders of a repository hold packages, for whoever named one that does not.

The names of files alone are read, a bounded number of them.
"""

from __future__ import annotations

import difflib
from collections import deque

from skyisland.host.tree import Tree
from skyisland.model import Source

MAX_FOLDERS = 2000
"""How many folders are looked into: 0.2 s on a thread, for a call that is refused."""
LONGEST = 200
"""Characters of a folder's path that an error may name."""
MAX_NAMED = 5
"""How many folders an error names."""

_ASIDE = {"internal", "cmd", "examples", "example", "_examples", "test", "tests", "tools"}
"""Folders that a caller hardly means."""


def package_folders(tree: Tree) -> list[str]:
    """The folders with Go files, those near the root first, and last what few mean. Blocks."""
    found, waiting, looked = [], deque([""]), 0
    while waiting and looked < MAX_FOLDERS:
        folder = waiting.popleft()
        looked += 1
        names = sorted(tree.names(folder) or ())
        if any(name.endswith(".go") and not name.endswith("_test.go") for name in names):
            found.append(folder)
        for name in names:
            # As for Go, these hold no packages. A name with a dot is a file's, as a rule.
            if not (name.startswith(("_", ".")) or name in ("testdata", "vendor") or "." in name):
                waiting.append(f"{folder}/{name}" if folder else name)
    return sorted(found, key=lambda folder: bool(_ASIDE.intersection(folder.split("/"))))


def where_packages_lie(tree: Tree, source: Source) -> str:
    """What to call instead of a package that is not there: the end of a sentence, empty if there is nothing.
    Blocks."""
    folders = [
        folder
        for folder in package_folders(tree)
        if folder != source.package and folder.isprintable() and len(folder) < LONGEST
    ]
    if not folders:
        return ""
    close = _close(source.package, folders) if source.package else []
    named = (close or folders)[:MAX_NAMED]
    urls = [f"{source.url}/{folder}".rstrip("/") for folder in named]
    more = len(folders) - len(named)
    rest = "" if close or not more else f" and {more} more"
    return f"; there is {', '.join(urls)}{rest}"


def _close(wrong: str, folders: list[str]) -> list[str]:
    """The folders that a wrong name comes close to: by its whole, by its end, by its last element."""
    ends = [folder for folder in folders if folder and f"/{wrong}".endswith(f"/{folder}")]
    by_last = {folder.rpartition("/")[2]: folder for folder in reversed(folders)}
    whole = difflib.get_close_matches(wrong[:LONGEST], folders, 3, 0.7)
    last = difflib.get_close_matches(wrong.rpartition("/")[2][:100], list(by_last), 3, 0.7)
    return list(dict.fromkeys([*ends[:1], *whole, *(by_last[name] for name in last)]))
