"""Mirrors: what was fetched of each repository, bare and shallow, and its commits laid out as files.

A mirror is a cache: it is added to while that works and fetched anew when it does not, for losing one
costs a fetch. One task at a time may work on a mirror (`Sources` sees to that).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from skyisland.errors import DriverError, IslandError, SourceRefused, SourceUnavailable
from skyisland.host.folder import open_folder, partial, sweep, take_place
from skyisland.host.tasks import aside
from skyisland.settings import Git as GitSettings
from skyisland.sources.git import GitCommand, GitFailed, Trouble, end_orphans
from skyisland.sources.url import FORGES, Remote, pin, remote_of

COMMANDS = 64
"""Git commands at one time; a server that stalls keeps one of them busy until the time-out."""

PACKS = 50
"""A mirror of more packs than this is fetched anew: cheaper than to repack it."""

DEEPEST_PATH = 100
LONGEST_PATH = 1024
"""Files deeper down or with longer paths (bytes) are refused: no program should have to delete them."""

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
_ATTRIBUTES = "* -text -eol -ident -filter !working-tree-encoding\n"
"""A checkout is what the commit says, byte for byte, whatever the repository's .gitattributes ask for."""

Lookup = Callable[[str, int], Awaitable[list[str]]]


async def lookup(host: str, port: int) -> list[str]:
    """The addresses of a host, by this host's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def folder_of(name: str) -> str:
    """A repository's folder: told apart by the hash, and to be recognised by people."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name)
    return f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{readable[:80]}"


class Mirrors:
    """Git's side of the source room. Failures that depend on the question leave as `GitFailed`."""

    def __init__(self, git: GitSettings, repos: Path, lookup: Lookup) -> None:
        self._git = git
        self._repos = repos
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(COMMANDS, "sky-git")
        self._suffixes: dict[str, str] = {}

    def prepare(self) -> tuple[int, dict[Path, str]]:
        """Sweep; how much there was to sweep, and the mirrors with their repositories' names. Blocks."""
        self._repos.mkdir(parents=True, exist_ok=True)
        swept = end_orphans(self._repos) + sweep(self._repos)
        mirrors = {path.parent: path.read_text() for path in self._repos.glob("*/description")}
        for mirror in mirrors:
            _tidy(mirror)
        return swept, mirrors

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def path(self, name: str) -> Path:
        return self._repos / folder_of(name)

    async def ask(self, name: str, refs: Sequence[str]) -> bytes:
        """What `git ls-remote` prints on the references `refs` of a repository."""
        return await self._remotely(name, ["ls-remote"], refs)

    # Fetching

    async def fetch(self, name: str, commit: str) -> None:
        """Have a commit in the repository's mirror, by the shortest way that its remote permits."""
        mirror = self.path(name)
        there = await aside(mirror.is_dir)
        if there and await self._holds(mirror, commit):
            return
        if there and await aside(_packs, mirror) < PACKS:
            try:
                await self._fetch_into(mirror, name, commit)
            except GitFailed as failure:
                # What an old mirror stands in the way of (it is full, or damaged), a new one may do.
                if failure.trouble not in (Trouble.other, Trouble.only_whole, Trouble.too_large):
                    raise
            else:
                return
            finally:
                await aside(_tidy, mirror)
        try:
            await self._fetch_anew(name, commit)
        except GitFailed as failure:
            if failure.trouble is not Trouble.only_whole:
                raise
            await self._fetch_anew(name, commit, whole=True)

    async def discover(self, name: str) -> str:
        """Fetch the default branch of a repository that has no mirror yet; returns its commit.

        One connection, where to ask for the commit first would take two.
        """
        async with partial(self._repos) as made:
            mirror = made / "mirror"
            await aside(_make_empty, mirror, name)
            await self._remotely(name, [*_FETCH, "--depth=1"], ["+HEAD:refs/sky/head"], mirror)
            commit = await aside(_name_head, mirror)
            await aside(take_place, mirror, self.path(name))
            return commit

    async def _fetch_anew(self, name: str, commit: str, *, whole: bool = False) -> None:
        """Fetch into a new mirror, which takes the place of the old one once it holds the commit."""
        async with partial(self._repos) as made:
            mirror = made / "mirror"
            await aside(_make_empty, mirror, name)
            await self._fetch_into(mirror, name, commit, whole=whole)
            await aside(take_place, mirror, self.path(name))

    async def _fetch_into(self, mirror: Path, name: str, commit: str, *, whole: bool = False) -> None:
        if whole:
            await self._remotely(
                name, _FETCH, ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], mirror
            )
        else:
            await self._remotely(name, [*_FETCH, "--depth=1"], [f"{commit}:refs/sky/{commit}"], mirror)
        if not await self._holds(mirror, commit):
            raise GitFailed(Trouble.no_commit)

    async def _holds(self, mirror: Path, commit: str) -> bool:
        """Whether it is there, and a commit (a tag's object is none)."""
        try:
            return (await self._locally(mirror, "cat-file", "-t", commit)).strip() == b"commit"
        except GitFailed:
            return False

    # Laying out

    async def lay_out(self, name: str, commit: str, place: Path) -> None:
        """Put the files of a commit that was fetched at `place`, readable for everyone.

        Raises:
            SourceRefused: there are more, larger or deeper ones than we take.
        """
        mirror = self.path(name)
        listing = await self._locally(mirror, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        await aside(check_tree, name, listing, self._git.max_size)
        async with partial(place.parents[1]) as made:
            tree = made / "tree"
            await aside(open_folder, tree)
            where = {"GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": str(made / "index")}
            await self._locally(mirror, "read-tree", "--reset", "-u", commit, environment=where)
            await aside(take_place, tree, place)

    # Running Git

    async def _remotely(
        self, name: str, verb: Sequence[str], refs: Sequence[str], mirror: Path | None = None
    ) -> bytes:
        """Talk to a repository's remote; where it answers only to its name with `.git`, by that."""
        suffix = self._suffixes.get(name, "")
        remote = remote_of(name, self._git.rewrites, suffix)
        try:
            return await self._talk(name, remote, verb, refs, mirror)
        except GitFailed as failure:
            told = failure.trouble in (Trouble.missing, Trouble.moved)
            if not told or not remote.scheme.startswith("http") or name.partition("/")[0] in FORGES:
                raise
            suffix = "" if suffix else ".git"
            try:
                printed = await self._talk(
                    name, remote_of(name, self._git.rewrites, suffix), verb, refs, mirror
                )
            except GitFailed:
                raise failure from None
            self._suffixes[name] = suffix
            return printed

    async def _talk(
        self, name: str, remote: Remote, verb: Sequence[str], refs: Sequence[str], mirror: Path | None
    ) -> bytes:
        # A folder that the operator names may belong to another user of this host.
        trusting = remote.rewritten and remote.scheme == "file"
        options = ["--upload-pack=git -c safe.directory=* upload-pack"] if trusting else []
        command = GitCommand(
            [*verb, *options, "--", remote.url, *refs],
            leashes=self._repos,
            timeout_s=self._git.timeout,
            scheme=remote.scheme,
            config=await self._pinned(remote),
            environment={"GIT_DIR": str(mirror)} if mirror else {},
            watch=mirror,
            watch_bytes=self._git.max_size,
        )
        try:
            return await command.result(self._threads)
        except GitFailed as failure:
            raise GitFailed(failure.trouble, presentable(failure.said, remote.url, name)) from None

    async def _pinned(self, remote: Remote) -> list[tuple[str, str]]:
        """Hold Git to addresses of the host that were found to be public."""
        if not remote.public_only:
            return []
        try:
            addresses = await self._lookup(remote.host, remote.port)
        except OSError as error:
            raise GitFailed(Trouble.other, f"its host cannot be found: {error.strerror}") from None
        return [("http.curloptResolve", pin(remote, addresses))]

    async def _locally(
        self, mirror: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> bytes:
        command = GitCommand(
            arguments,
            leashes=self._repos,
            timeout_s=self._git.timeout,
            environment={"GIT_DIR": str(mirror), **(environment or {})},
        )
        return await command.result(self._threads)

    def explain(self, name: str, failure: GitFailed) -> IslandError:
        """Our error for Git's trouble with a repository."""
        said = f": {failure.said}" if failure.said else ""
        if "No space left on device" in failure.said:
            return DriverError(f"there is no room to fetch {name}{said}")
        match failure.trouble:
            case Trouble.missing:
                return SourceUnavailable(f"there is no repository {name}, or it is private{said}")
            case Trouble.moved:
                return SourceUnavailable(f"{name} has moved; call it by its new URL{said}")
            case Trouble.too_large:
                size = self._git.max_size
                return SourceRefused(f"{name} is larger than [git] max_size permits ({size} bytes){said}")
            case Trouble.timed_out:
                limit = f"{self._git.timeout:g} s"
                return SourceUnavailable(f"fetching {name} took longer than [git] timeout permits ({limit})")
            case _:
                return SourceUnavailable(f"{name} cannot be fetched{said}")


def check_tree(name: str, listing: bytes, limit_bytes: int) -> None:
    """Look at `git ls-tree -r -l -z` before a file is written.

    Raises:
        SourceRefused: its files are too large together, or too deep.
    """
    total = 0
    for entry in listing.split(b"\0")[:-1]:
        about, _, path = entry.partition(b"\t")
        size = about.split()[3]
        total += int(size) if size.isdigit() else 0
        if len(path) > LONGEST_PATH or path.count(b"/") > DEEPEST_PATH:
            raise SourceRefused(
                f"{name} has a file deeper than {DEEPEST_PATH} folders, or with a path longer than "
                f"{LONGEST_PATH} bytes: {path[:80].decode('utf-8', 'backslashreplace')}…"
            )
    if total > limit_bytes:
        raise SourceRefused(
            f"{name} has {total} bytes of files, more than [git] max_size permits ({limit_bytes})"
        )


def presentable(said: str, remote: str, name: str) -> str:
    """What Git and the remote said, for a caller's eyes: one short line, without where a rewrite leads."""
    lines = [line.strip() for line in said.splitlines()]
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines
    text = "; ".join(told).replace(remote, name).replace(remote.partition("://")[2], name)
    text = re.sub(r"[a-z+]+://[^\s']+", name, text)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)[:400]


def _make_empty(mirror: Path, name: str) -> None:
    """What `git init --bare` makes (gitrepository-layout(5)), without a process, and what we add to it."""
    for folder in ("info", "objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/sky"):
        (mirror / folder).mkdir(parents=True)
    (mirror / "HEAD").write_text("ref: refs/heads/main\n")
    (mirror / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
    )
    (mirror / "description").write_text(name)
    (mirror / "info" / "attributes").write_text(_ATTRIBUTES)


def _name_head(mirror: Path) -> str:
    """Name the reference that `discover` fetched after its commit, as those of other commits are."""
    head = mirror / "refs" / "sky" / "head"
    commit = head.read_text().strip()
    head.rename(head.with_name(commit))
    return commit


def _packs(mirror: Path) -> int:
    return len(list(mirror.glob("objects/pack/*.pack")))


def _tidy(mirror: Path) -> None:
    """Remove what a fetch leaves that was killed."""
    for pattern in ("*.lock", "refs/sky/*.lock", "objects/pack/*tmp*", "objects/??/tmp_*"):
        for path in mirror.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
