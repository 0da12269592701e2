"""The files of a mirror: a bare repository that Git works on under another user's id.

A hostile pack may have taken that Git over, and then anything may lie here, links out of the mirror too. So
whoever reads or changes it from outside opens one folder after another and follows no link. What is a
mirror's own name in the folder of mirrors is ours alone to change.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from skyisland.host.tree import Tree
from skyisland.sources.git import GitFailed, Trouble

_FOLDERS = ("info", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags", "refs/sky")
_FILES = {
    "HEAD": "ref: refs/heads/main\n",
    "config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n",
    # Git writes the bytes of the commit, and ignores the conversions in the repository's .gitattributes.
    "info/attributes": "* -text -eol -ident -filter !working-tree-encoding\n",
}
_LEFTOVERS = ((".", "*.lock"), ("refs/sky", "*.lock"), ("objects/pack", "*tmp*"))
"""Lock files and temporary packs of a killed fetch, by folder."""
_NAME_BYTES = 4096
_COMMIT_BYTES = 64


def make_empty(mirror: Path, name: str, uid: int | None) -> None:
    """Make what `git init --bare` makes (gitrepository-layout(5)), without a process, and add our files.
    `uid`: whose it is, and nobody else's to read; None for ours."""
    mirror.mkdir(mode=0o700)
    for folder in _FOLDERS:
        (mirror / folder).mkdir()
    for file, text in {**_FILES, "description": name}.items():
        (mirror / file).write_text(text)
    if uid is not None:
        for path in (*_FOLDERS, *_FILES, "description", "."):
            os.chown(mirror / path, uid, uid)


def owner_of(mirror: Path) -> int | None:
    """Whose the mirror is; None if it is ours, or there is none."""
    try:
        uid = os.lstat(mirror).st_uid
    except OSError:
        return None
    return None if uid == os.geteuid() else uid


def name_of(mirror: Path) -> str | None:
    """The name of the repository; None if it says none."""
    name = Tree(mirror).read("description", _NAME_BYTES)
    return name.decode(errors="replace") if name else None


def rename_head(mirror: Path) -> str:
    """Rename the reference refs/sky/head to refs/sky/COMMIT; return that."""
    commit = (Tree(mirror).read("refs/sky/head", _COMMIT_BYTES) or b"").decode("ascii", "replace").strip()
    with _opened(mirror, "refs/sky") as folder:
        if folder is None or not re.fullmatch("[0-9a-f]{40}", commit):
            raise GitFailed(Trouble.other, "Git left no commit")
        os.rename("head", commit, src_dir_fd=folder, dst_dir_fd=folder)
    return commit


def count_packs(mirror: Path) -> int:
    names = Tree(mirror).names("objects/pack") or []
    return sum(name.endswith(".pack") for name in names)


def remove_leftovers(mirror: Path) -> None:
    """Remove the lock files and temporary packs of a killed fetch."""
    for path, pattern in _LEFTOVERS:
        with _opened(mirror, path) as folder:
            if folder is None:
                continue
            for name in os.listdir(folder):
                if fnmatchcase(name, pattern):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)


@contextmanager
def _opened(mirror: Path, path: str) -> Iterator[int | None]:
    """A descriptor of a folder in the mirror; None if it is not there, or not a folder all the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    walked: list[int] = []
    try:
        walked.append(os.open(mirror, flags))
        for step in path.split("/"):
            walked.append(os.open(step, flags, dir_fd=walked[-1]))
    except OSError:
        found = None
    else:
        found = walked[-1]
    try:
        yield found
    finally:
        for fd in walked:
            os.close(fd)
