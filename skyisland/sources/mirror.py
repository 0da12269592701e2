"""Mirrors: a bare, shallow clone of each repository, and checkouts of its commits.

A repository's name and a commit enter; a fetched commit or a folder of files leaves. What Git could not
do leaves as `GitFailed`. A mirror is a cache: fetches add to it, and when one fails, a new mirror
replaces it, since losing one costs only a fetch. One task at a time may work on a mirror (`Space`
gives turns).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from skyisland.errors import SourceRefused
from skyisland.host import folder as folders
from skyisland.host.folder import LAID_OUT_BYTES, laid_out, open_folder, sweep, take_place
from skyisland.host.outbound import Lookup
from skyisland.host.tasks import aside
from skyisland.settings import Git as GitSettings
from skyisland.sources import bare
from skyisland.sources.credentials import Credentials
from skyisland.sources.git import OUTPUT_LIMIT_BYTES, GitCommand, GitFailed, Trouble, end_orphans
from skyisland.sources.remotes import Remotes
from skyisland.sources.space import Space
from skyisland.sources.url import CASELESS

MAX_PACKS = 50
"""A mirror with more packs is fetched anew. Git's own gc.autoPackLimit repacks there; a shallow fetch is
cheaper."""

MAX_DEPTH = 100
"""Folders above a file. A judgement: Python's rmtree recurses per folder, and stops at 1000."""
MAX_PATH_BYTES = 1024
"""Longest path of a file: FreeBSD's PATH_MAX."""

ENTRY_BYTES = 256
"""Of a listing, for each file that git.max_files permits: 54 bytes and the path, which is rarely longer."""

COMMIT_LINE_BYTES = 41
"""A commit and the end of its line, in a list."""
MAX_BEGUN = 20
"""How many objects that begin alike are looked at. Seven digits tell 268 million apart."""

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
_EVERY_REF = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def folder_of(name: str) -> str:
    """The folder name of a repository: a hash that makes it unique, then a part that people can read. Names
    that mean one repository have one, so that nobody multiplies its mirror."""
    if name.partition("/")[0] in CASELESS:
        name = name.lower()
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name)
    return f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{readable[:80]}"


class Mirrors:
    """Runs Git for `Sources`. Its failures leave as `GitFailed`."""

    def __init__(
        self,
        git: GitSettings,
        repos: Path,
        lookup: Lookup,
        space: Space,
        uid: int | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`uid`: see `Remotes.uid_for`."""
        self._git = git
        self._uid = uid
        self._space = space
        self._repos = repos
        self._threads = ThreadPoolExecutor(git.max_running, "sky-git")
        self.remotes = Remotes(git, lookup, space, repos, self._threads, uid, credentials)

    def prepare(self) -> tuple[int, dict[Path, str]]:
        """Remove what an earlier life left; return how much, and each mirror's repository name. Blocks."""
        self._repos.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._uid is not None:
            # Its Git may pass to the mirrors that are its own.
            os.chown(self._repos, -1, self._uid)
            self._repos.chmod(0o710)
        swept = end_orphans(self._repos) + sweep(self._repos)
        mirrors = {}
        for mirror in self._repos.iterdir():
            name = bare.name_of(mirror)
            if (
                name is None
                or folder_of(name) != mirror.name
                or bare.owner_of(mirror) not in (None, self._uid)
            ):
                folders.remove(mirror, self._repos)
                continue
            bare.remove_leftovers(mirror)
            mirrors[mirror] = name
        return swept, mirrors

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def path(self, name: str) -> Path:
        return self._repos / folder_of(name)

    # Fetching

    async def fetch(self, name: str, commit: str) -> None:
        """Fetch a commit into the repository's mirror, if it is not there.

        Tries the cheapest way first: into the old mirror, into a new one, then all branches and tags.
        """
        mirror = self.path(name)
        exists = await aside(mirror.is_dir)
        if exists and await self._has_commit(mirror, commit):
            return
        if exists and await aside(bare.count_packs, mirror) < MAX_PACKS:
            try:
                await self._fetch_into(mirror, name, commit)
            except GitFailed as failure:
                # A new mirror helps where the old one is full or damaged.
                if failure.trouble not in (Trouble.other, Trouble.only_whole, Trouble.too_large):
                    raise
            else:
                return
            finally:
                await aside(bare.remove_leftovers, mirror)
        try:
            await self._fetch_anew(name, commit)
        except GitFailed as failure:
            if failure.trouble is not Trouble.only_whole:
                raise
            await self._fetch_anew(name, commit, whole=True)

    async def fetch_default_branch(self, name: str) -> str:
        """Fetch the default branch of a repository that has no mirror yet; return its commit.

        One connection. To ask for the commit first and then fetch it takes two.
        """
        async with folders.partial(self._repos) as draft:
            mirror = draft / "mirror"
            await aside(bare.make_empty, mirror, name, self.remotes.uid_for(name))
            await self.remotes.run(name, [*_FETCH, "--depth=1"], ["+HEAD:refs/sky/head"], mirror)
            commit = await aside(bare.rename_head, mirror)
            await aside(take_place, mirror, self.path(name))
            return commit

    async def _fetch_anew(self, name: str, commit: str, *, whole: bool = False) -> None:
        """Fetch into a new mirror; it replaces the old one once it has the commit."""
        async with folders.partial(self._repos) as draft:
            mirror = draft / "mirror"
            await aside(bare.make_empty, mirror, name, self.remotes.uid_for(name))
            await self._fetch_into(mirror, name, commit, whole=whole)
            await aside(take_place, mirror, self.path(name))

    async def _fetch_into(self, mirror: Path, name: str, commit: str, *, whole: bool = False) -> None:
        if whole:
            await self.remotes.run(name, _FETCH, _EVERY_REF, mirror)
        else:
            await self.remotes.run(name, [*_FETCH, "--depth=1"], [f"{commit}:refs/sky/{commit}"], mirror)
        if not await self._has_commit(mirror, commit):
            raise GitFailed(Trouble.no_commit)

    async def commits_begun_by(self, name: str, digits: str) -> set[str]:
        """The commits of a repository's branches and tags that begin with these digits.

        Their history is fetched without files, and not kept. A server that cannot leave them out sends all.
        """
        async with folders.partial(self._repos) as draft:
            mirror = draft / "mirror"
            await aside(bare.make_empty, mirror, name, self.remotes.uid_for(name))
            await self.remotes.run(name, [*_FETCH, "--filter=tree:0"], _EVERY_REF, mirror)
            found = (await self._run_local(mirror, "rev-parse", f"--disambiguate={digits}")).decode().split()
            return {commit for commit in found[:MAX_BEGUN] if await self._has_commit(mirror, commit)}

    async def commits_between(self, name: str, before: str, last: str, most: int) -> list[str] | None:
        """The commits after `before` up to `last`, oldest first, along the first parents: at most one more
        than `most`. None if `last` does not come after `before`.

        Their history is fetched without files, and not kept, as in `commits_begun_by`.
        """
        async with folders.partial(self._repos) as draft:
            mirror = draft / "mirror"
            await aside(bare.make_empty, mirror, name, self.remotes.uid_for(name))
            refs = [f"{commit}:refs/sky/{commit}" for commit in (before, last)]
            try:
                await self.remotes.run(name, [*_FETCH, "--filter=tree:0"], refs, mirror)
            except GitFailed as failure:
                if failure.trouble is not Trouble.only_whole:
                    raise
                await self.remotes.run(name, [*_FETCH, "--filter=tree:0"], _EVERY_REF, mirror)
            try:
                await self._run_local(mirror, "merge-base", "--is-ancestor", before, last)
            except GitFailed as failure:
                if failure.trouble is not Trouble.other:
                    raise
                return None
            listed = await self._run_local(
                mirror,
                *("rev-list", "--first-parent", "--reverse", f"--max-count={most + 1}", last, f"^{before}"),
                output_limit_bytes=(most + 2) * COMMIT_LINE_BYTES,
            )
            return listed.decode().split()

    async def _has_commit(self, mirror: Path, commit: str) -> bool:
        """Whether the mirror has an object of this name that is a commit (it may be a tag)."""
        try:
            return (await self._run_local(mirror, "cat-file", "-t", commit)).strip() == b"commit"
        except GitFailed:
            return False

    # Checking out

    async def check_out(self, name: str, commit: str, place: Path) -> None:
        """Write the files of a fetched commit to the folder `place`, readable for everyone.

        Raises:
            SourceRefused: its files are too many, too large together, too deep, or have too long paths.
            TooBusy: there is no room for them beside what is in use.
        """
        mirror = self.path(name)
        most = self._git.max_files
        try:
            listing = await self._run_local(
                mirror,
                *("ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit),
                output_limit_bytes=most * ENTRY_BYTES,
            )
        except GitFailed as failure:
            if failure.trouble is not Trouble.too_large:
                raise
            raise too_many(name, most) from None
        size_bytes = await aside(check_tree, name, listing, self._git.max_size, most)
        uid = await aside(bare.owner_of, mirror)
        # Made among the mirrors, where their owner may pass, and in folders of its own, because it may not
        # put anything else in the place of the tree.
        async with self._space.reserved(place, size_bytes, name), folders.partial(self._repos) as draft:
            tree, index = draft / "tree", draft / "index"
            for folder in (tree, index):
                await aside(open_folder, folder)
                if uid is not None:
                    await aside(os.chown, folder, uid, uid)
            variables = {"GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": str(index / "index")}
            await self._run_local(mirror, "read-tree", "--reset", "-u", commit, environment=variables)
            await aside(take_place, tree, place)

    # Running Git

    async def _run_local(
        self,
        mirror: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> bytes:
        command = GitCommand(
            arguments,
            pid_files=self._repos,
            timeout_s=self._git.timeout,
            environment={"GIT_DIR": str(mirror), **(environment or {})},
            output_limit_bytes=output_limit_bytes,
            uid=await aside(bare.owner_of, mirror),
            file_bytes=self._git.max_size,
        )
        return await command.result(self._threads)


def check_tree(name: str, listing: bytes, limit_bytes: int, most: int) -> int:
    """Check the output of `git ls-tree -r -t -l -z`, before any file is written; the bytes that it will
    take on disk, with the blocks and folders of a file system.

    Raises:
        SourceRefused: the files are more than `most`, or too large together, one is too deep, or its path is
        too long.
    """
    total, entries = LAID_OUT_BYTES, listing.split(b"\0")[:-1]
    if len(entries) > most:
        raise too_many(name, most)
    for entry in entries:
        attributes, _, path = entry.partition(b"\t")
        size = attributes.split()[3]  # "-" for a folder
        total += laid_out(int(size) if size.isdigit() else 0)
        if len(path) > MAX_PATH_BYTES or path.count(b"/") > MAX_DEPTH:
            raise SourceRefused(
                f"{name} has a file deeper than {MAX_DEPTH} folders, or with a path longer than "
                f"{MAX_PATH_BYTES} bytes: {path[:80].decode('utf-8', 'backslashreplace')}…"
            )
    if total > limit_bytes:
        raise SourceRefused(
            f"{name} has {len(entries)} files and folders that take {total} bytes of disk, more than [git] "
            f"max_size permits ({limit_bytes})"
        )
    return total


def too_many(name: str, most: int) -> SourceRefused:
    return SourceRefused(f"{name} has more files and folders than [git] max_files permits ({most})")
