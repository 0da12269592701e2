"""Mirrors: a bare, shallow clone of each repository, and checkouts of its commits.

A repository's name and a commit enter; a fetched commit or a folder of files leaves. What Git could not
do leaves as `GitFailed`. A mirror is a cache: fetches add to it, and when one fails, a new mirror
replaces it, since losing one costs only a fetch. One task at a time may work on a mirror (`Sources`
locks it).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from skyisland.errors import DriverError, IslandError, SourceRefused, SourceUnavailable, TooBusy
from skyisland.host import folder as folders
from skyisland.host.folder import LAID_OUT_BYTES, laid_out, open_folder, sweep, take_place
from skyisland.host.internet import connected_networks
from skyisland.host.outbound import MAX_HOPS, Lookup, Refused, location_of
from skyisland.host.recent import Recent
from skyisland.host.tasks import aside
from skyisland.settings import Git as GitSettings
from skyisland.sources.git import OUTPUT_LIMIT_BYTES, GitCommand, GitFailed, Trouble, end_orphans
from skyisland.sources.space import RETRY_AFTER_S, Space
from skyisland.sources.url import CASELESS, FORGES, LISTING, Remote, moved, pin, remote_of

MAX_PACKS = 50
"""A mirror with more packs is fetched anew. Git's own gc.autoPackLimit repacks there; a shallow fetch is
cheaper."""

MAX_DEPTH = 100
"""Folders above a file. A judgement: Python's rmtree recurses per folder, and stops at 1000."""
MAX_PATH_BYTES = 1024
"""Longest path of a file: FreeBSD's PATH_MAX."""

ENTRY_BYTES = 256
"""Of a listing, for each file that git.max_files permits: 54 bytes and the path, which is rarely longer."""

MESSAGE_CHARACTERS = 400
"""How much of Git's message a caller sees. A judgement: one paragraph of a terminal."""

LISTING_BYTES = 256 << 10
"""Longest output of a command that talks to a server. Only `ls-remote` prints: the references that end in a
name, usually one. A server chooses how many there are."""

ASK_S = 10.0
"""How long a server may take to say where it redirects us to. It has just answered Git within a moment."""

REMOTES_KEPT = 10_000
"""Remotes that are remembered. A judgement: at 4 KiB each, 40 MiB at worst."""

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
_ATTRIBUTES = "* -text -eol -ident -filter !working-tree-encoding\n"
"""Git writes the bytes of the commit, and ignores the conversions in the repository's .gitattributes."""


def folder_of(name: str) -> str:
    """The folder name of a repository: a hash that makes it unique, then a part that people can read. Names
    that mean one repository have one, so that nobody multiplies its mirror."""
    if name.partition("/")[0] in CASELESS:
        name = name.lower()
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name)
    return f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{readable[:80]}"


class Mirrors:
    """Runs Git for `Sources`. Git's failures leave as `GitFailed`; `explain` turns them into our errors."""

    def __init__(self, git: GitSettings, repos: Path, lookup: Lookup, space: Space) -> None:
        self._git = git
        self._space = space
        self._repos = repos
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(git.max_running, "sky-git")
        self._answered: Recent[str, Remote] = Recent(REMOTES_KEPT)
        """Repository name → the remote that answered, if it is not the one that the name says: with `.git`,
        or by a redirect. Its addresses are looked at each time."""

    def prepare(self) -> tuple[int, dict[Path, str]]:
        """Remove what an earlier life left; return how much, and each mirror's repository name. Blocks."""
        self._repos.mkdir(mode=0o700, parents=True, exist_ok=True)
        swept = end_orphans(self._repos) + sweep(self._repos)
        mirrors = {path.parent: path.read_text() for path in self._repos.glob("*/description")}
        for mirror in mirrors:
            _remove_leftovers(mirror)
        return swept, mirrors

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def path(self, name: str) -> Path:
        return self._repos / folder_of(name)

    async def ls_remote(self, name: str, refs: Sequence[str]) -> bytes:
        """The output of `git ls-remote` for the references `refs` of a repository."""
        try:
            return await self._run_remote(name, ["ls-remote"], refs)
        except GitFailed as failure:
            if failure.trouble is not Trouble.too_large:
                raise
            raise SourceRefused(
                f"the server of {name} lists more than {LISTING_BYTES} bytes of references that end in "
                f"{' or '.join(refs)}; call it by the forty digits of a commit",
                field="version",
            ) from None

    # Fetching

    async def fetch(self, name: str, commit: str) -> None:
        """Fetch a commit into the repository's mirror, if it is not there.

        Tries the cheapest way first: into the old mirror, into a new one, then all branches and tags.
        """
        mirror = self.path(name)
        exists = await aside(mirror.is_dir)
        if exists and await self._has_commit(mirror, commit):
            return
        if exists and await aside(_count_packs, mirror) < MAX_PACKS:
            try:
                await self._fetch_into(mirror, name, commit)
            except GitFailed as failure:
                # A new mirror helps where the old one is full or damaged.
                if failure.trouble not in (Trouble.other, Trouble.only_whole, Trouble.too_large):
                    raise
            else:
                return
            finally:
                await aside(_remove_leftovers, mirror)
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
            await aside(_make_empty_mirror, mirror, name)
            await self._run_remote(name, [*_FETCH, "--depth=1"], ["+HEAD:refs/sky/head"], mirror)
            commit = await aside(_rename_head, mirror)
            await aside(take_place, mirror, self.path(name))
            return commit

    async def _fetch_anew(self, name: str, commit: str, *, whole: bool = False) -> None:
        """Fetch into a new mirror; it replaces the old one once it has the commit."""
        async with folders.partial(self._repos) as draft:
            mirror = draft / "mirror"
            await aside(_make_empty_mirror, mirror, name)
            await self._fetch_into(mirror, name, commit, whole=whole)
            await aside(take_place, mirror, self.path(name))

    async def _fetch_into(self, mirror: Path, name: str, commit: str, *, whole: bool = False) -> None:
        if whole:
            refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            await self._run_remote(name, _FETCH, refs, mirror)
        else:
            await self._run_remote(name, [*_FETCH, "--depth=1"], [f"{commit}:refs/sky/{commit}"], mirror)
        if not await self._has_commit(mirror, commit):
            raise GitFailed(Trouble.no_commit)

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
        async with (
            self._space.reserved(place, size_bytes, name),
            folders.partial(place.parents[1]) as draft,
        ):
            tree = draft / "tree"
            await aside(open_folder, tree)
            variables = {"GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": str(draft / "index")}
            await self._run_local(mirror, "read-tree", "--reset", "-u", commit, environment=variables)
            await aside(take_place, tree, place)

    # Running Git

    async def _run_remote(
        self, name: str, verb: Sequence[str], refs: Sequence[str], mirror: Path | None = None
    ) -> bytes:
        """Run a command that talks to the repository's remote; return its standard output.

        Some servers know a repository only as `NAME.git`, others only as `NAME`: tries both, and the remote
        that answered last time first.
        """
        plain = remote_of(name, self._git.rewrites)
        forms = [plain]
        if plain.scheme.startswith("http") and name.partition("/")[0] not in FORGES:
            forms.append(remote_of(name, self._git.rewrites, ".git"))
        answered = self._answered.get(name)
        if answered is not None:
            forms = [answered, *(form for form in forms if form != answered)]
        first: GitFailed | None = None
        for form in forms:
            try:
                output, remote = await self._run_where_it_leads(form, name, verb, refs, mirror)
            except GitFailed as failure:
                first = first or failure
                if failure.trouble not in (Trouble.missing, Trouble.moved):
                    break
            else:
                if remote != plain:
                    self._answered[name] = remote
                return output
        assert first is not None  # noqa: S101 - there is one form at least
        self._answered.pop(name)
        raise first

    async def _run_where_it_leads(
        self, remote: Remote, name: str, verb: Sequence[str], refs: Sequence[str], mirror: Path | None
    ) -> tuple[bytes, Remote]:
        """Run a command against a remote, and against the one that it redirects to, and so on; return the
        remote that answered, too. Git follows no redirect: it would not look where that leads."""
        for _ in range(MAX_HOPS):
            try:
                return await self._run_against(remote, name, verb, refs, mirror), remote
            except GitFailed as failure:
                if failure.trouble is not Trouble.moved:
                    raise
                remote = await self._moved(remote, failure)
        return await self._run_against(remote, name, verb, refs, mirror), remote

    async def _moved(self, remote: Remote, failure: GitFailed) -> Remote:
        """Where the remote redirects us to.

        Raises:
            GitFailed: it says nothing of use; `failure`, or with the reason.
            SourceRefused: it leads into a private network.
        """
        addresses, _ = await self._addresses(remote)
        location = await location_of(
            remote.url.rstrip("/") + LISTING, addresses, timeout_s=min(ASK_S, self._git.timeout)
        )
        if location is None:
            raise failure
        try:
            return moved(remote, location)
        except Refused as refusal:
            raise GitFailed(Trouble.moved, str(refusal)) from None

    async def _run_against(
        self, remote: Remote, name: str, verb: Sequence[str], refs: Sequence[str], mirror: Path | None
    ) -> bytes:
        # A folder that the operator names may belong to another user of this host.
        trusting = remote.rewritten and remote.scheme == "file"
        options = ["--upload-pack=git -c safe.directory=* upload-pack"] if trusting else []
        command = GitCommand(
            [*verb, *options, "--", remote.url, *refs],
            pid_files=self._repos,
            timeout_s=self._git.timeout,
            scheme=remote.scheme,
            config=await self._pinned(remote),
            environment={"GIT_DIR": str(mirror)} if mirror else {},
            watch=mirror,
            watch_bytes=self._git.max_size,
            room=partial(self._space.grow, mirror) if mirror else None,
            output_limit_bytes=LISTING_BYTES,
        )
        try:
            return await command.result(self._threads)
        except GitFailed as failure:
            raise GitFailed(failure.trouble, presentable(failure.stderr, remote.url, name)) from None
        finally:
            if mirror is not None:
                self._space.grown(mirror)

    async def _pinned(self, remote: Remote) -> list[tuple[str, str]]:
        """The configuration that lets Git connect only to the addresses that we resolved and checked."""
        _, pinned = await self._addresses(remote)
        return [("http.curloptResolve", pinned)] if pinned is not None else []

    async def _addresses(self, remote: Remote) -> tuple[list[str] | None, str | None]:
        """The addresses of a remote, all public, and as Git takes them; None twice if the operator chose it.

        Raises:
            SourceRefused: one of them is private.
        """
        if not remote.public_only:
            return None, None
        try:
            addresses = await self._lookup(remote.host, remote.port)
        except OSError as error:
            raise GitFailed(Trouble.other, f"its host cannot be found: {error.strerror}") from None
        return addresses, pin(remote, addresses, connected_networks())

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
        )
        return await command.result(self._threads)

    def explain(self, name: str, failure: GitFailed) -> IslandError:
        """Turn Git's failure with a repository into our error."""
        reason = f": {failure.stderr}" if failure.stderr else ""
        if "No space left on device" in failure.stderr:
            return DriverError(f"there is no room to fetch {name}{reason}")
        match failure.trouble:
            case Trouble.missing:
                return SourceUnavailable(f"there is no repository {name}, or it is private{reason}")
            case Trouble.moved:
                return SourceUnavailable(f"{name} has moved; call it by its new URL{reason}")
            case Trouble.too_large:
                size = self._git.max_size
                return SourceRefused(f"{name} is larger than [git] max_size permits ({size} bytes){reason}")
            case Trouble.no_room:
                return TooBusy(
                    "repositories that are being fetched take all the room that [git] cache_limit permits; "
                    "try again later",
                    retry_after_s=RETRY_AFTER_S,
                )
            case Trouble.timed_out:
                limit = f"{self._git.timeout:g} s"
                return SourceUnavailable(f"fetching {name} took longer than [git] timeout permits ({limit})")
            case _:
                return SourceUnavailable(f"{name} cannot be fetched{reason}")


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


def presentable(stderr: str, remote_url: str, name: str) -> str:
    """Git's message on one short line, fit for the caller.

    The repository's name replaces the remote's URL: a caller must not learn where a rewrite leads.
    """
    lines = [line.strip() for line in stderr.splitlines()]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines
    text = "; ".join(reasons).replace(remote_url, name).replace(remote_url.partition("://")[2], name)
    # A scheme begins where letters begin: tried at each letter, a long word would take quadratic time.
    text = re.sub(r"(?<![a-z+])[a-z+]+://[^\s']+", name, text)
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text[:MESSAGE_CHARACTERS]


def _make_empty_mirror(mirror: Path, name: str) -> None:
    """Make what `git init --bare` makes (gitrepository-layout(5)), without a process, and add our files."""
    for folder in ("info", "objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/sky"):
        (mirror / folder).mkdir(parents=True)
    (mirror / "HEAD").write_text("ref: refs/heads/main\n")
    (mirror / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
    )
    (mirror / "description").write_text(name)
    (mirror / "info" / "attributes").write_text(_ATTRIBUTES)


def _rename_head(mirror: Path) -> str:
    """Rename the reference of `fetch_default_branch` to refs/sky/COMMIT, as `_fetch_into` names them."""
    head = mirror / "refs" / "sky" / "head"
    commit = head.read_text().strip()
    head.rename(head.with_name(commit))
    return commit


def _count_packs(mirror: Path) -> int:
    return len(list(mirror.glob("objects/pack/*.pack")))


def _remove_leftovers(mirror: Path) -> None:
    """Remove the lock files and temporary packs of a killed fetch."""
    for pattern in ("*.lock", "refs/sky/*.lock", "objects/pack/*tmp*", "objects/??/tmp_*"):
        for path in mirror.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
