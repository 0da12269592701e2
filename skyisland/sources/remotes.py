"""Runs Git commands against repositories' remotes, wherever these lead.

A repository's name and a command enter; what Git printed leaves, and what it could not do as `GitFailed`.
The operator's rewrites, `.git` at a name's end, redirects and the addresses of a host are dealt with here:
Git itself follows nothing, and connects only to addresses that were looked at.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from msgspec import Struct

from skyisland.errors import DriverError, IslandError, SourceRefused, SourceUnavailable, TooBusy
from skyisland.host.internet import connected_networks
from skyisland.host.outbound import MAX_HOPS, Lookup, Refused, location_of
from skyisland.host.recent import Recent
from skyisland.host.tasks import aside
from skyisland.settings import Git as GitSettings
from skyisland.sources.credentials import Credentials, Shown, why
from skyisland.sources.git import GitCommand, GitFailed, Trouble
from skyisland.sources.space import RETRY_AFTER_S, Space
from skyisland.sources.url import FORGES, LISTING, Remote, moved, pin, remote_of

log = logging.getLogger(__name__)

MESSAGE_CHARACTERS = 400
"""How much of Git's message a caller sees. A judgement: one paragraph of a terminal."""

LISTING_BYTES = 256 << 10
"""Longest list of the references of a few names. A server chooses how many end in such a name."""
EVERY_REFERENCE_BYTES = 4 << 20
"""Longest list of all branches and tags. A judgement: an SDK with a module for each service has 30,000."""

ASK_S = 10.0
"""How long a server may take to say where it redirects us to. It has just answered Git within a moment."""

REMOTES_KEPT = 10_000
"""Remotes that are remembered. A judgement: at 4 KiB each, 40 MiB at worst."""


class _Errand(Struct, frozen=True):
    """A command for a repository's remote, whichever that is."""

    name: str
    verb: Sequence[str]
    refs: Sequence[str]
    mirror: Path | None
    limit_bytes: int


class Remotes:
    """Git's commands that need a server. They fail with `GitFailed`; `explain` turns it into our errors."""

    def __init__(
        self,
        git: GitSettings,
        lookup: Lookup,
        space: Space,
        pid_files: Path,
        threads: Executor,
        uid: int | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`uid`: see `uid_for`."""
        self._uid = uid
        self._credentials = credentials or Credentials(git.credentials, git.rewrites)
        self._git = git
        self._lookup = lookup
        self._space = space
        self._pid_files = pid_files
        self._threads = threads
        self._answered: Recent[str, Remote] = Recent(REMOTES_KEPT)
        """Repository name → the remote that answered, if it is not the one that the name says: with `.git`,
        or by a redirect. Its addresses are looked at each time."""

    def uid_for(self, name: str) -> int | None:
        """As whom Git works on a repository's mirror: a user of its own, where the island is root."""
        remote = remote_of(name, self._git.rewrites)
        # By SSH, with a token and in folders it reads what only the island's user may.
        ours = remote.scheme in ("ssh", "file") or self._credentials.of(name) is not None
        return None if ours else self._uid

    async def references(
        self, name: str, refs: Sequence[str], *options: str, limit_bytes: int = LISTING_BYTES
    ) -> bytes:
        """The output of `git ls-remote --symref` for the references `refs` of a repository; () for all.

        Raises:
            GitFailed: `too_large`, if they take more than `limit_bytes`; or there is no answer.
        """
        return await self.run(name, ["ls-remote", "--symref", *options], refs, limit_bytes=limit_bytes)

    async def run(
        self,
        name: str,
        verb: Sequence[str],
        refs: Sequence[str],
        mirror: Path | None = None,
        *,
        limit_bytes: int = LISTING_BYTES,
    ) -> bytes:
        """Run a command that talks to the repository's remote; return its standard output.

        Some servers know a repository only as `NAME.git`, others only as `NAME`: tries both, and the remote
        that answered last time first. A page that answers whatever is asked looks like a repository without
        references: such a one counts only if there is no other.
        """
        plain = remote_of(name, self._git.rewrites)
        forms = [plain]
        if plain.scheme.startswith("http") and name.partition("/")[0] not in FORGES:
            forms.append(remote_of(name, self._git.rewrites, ".git"))
        answered = self._answered.get(name)
        if answered is not None:
            forms = [answered, *(form for form in forms if form != answered)]
        errand = _Errand(name, verb, refs, mirror, limit_bytes)
        first: GitFailed | None = None
        empty = False
        for form in forms:
            try:
                output, remote = await self._run_where_it_leads(form, errand)
            except GitFailed as failure:
                first = first or failure
                if failure.trouble not in (Trouble.missing, Trouble.moved):
                    break
                continue
            if mirror is None and not output:
                empty = True
                continue
            if remote != plain:
                self._answered[name] = remote
            return output
        if empty:
            return b""
        assert first is not None  # noqa: S101 - there is one form at least
        self._answered.pop(name)
        raise first

    async def _run_where_it_leads(self, remote: Remote, errand: _Errand) -> tuple[bytes, Remote]:
        """Run a command against a remote, and against the one that it redirects to, and so on; return the
        remote that answered, too. Git follows no redirect: it would not look where that leads."""
        for _ in range(MAX_HOPS):
            try:
                return await self._run_against(remote, errand), remote
            except GitFailed as failure:
                if failure.trouble is not Trouble.moved:
                    raise
                remote = await self._moved(remote, failure)
        return await self._run_against(remote, errand), remote

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

    async def _run_against(self, remote: Remote, errand: _Errand) -> bytes:
        mirror = errand.mirror
        # A folder that the operator names may belong to another user of this host.
        trusting = remote.rewritten and remote.scheme == "file"
        options = ["--upload-pack=git -c safe.directory=* upload-pack"] if trusting else []
        # Where a stranger's server sends us, nothing is shown but what its own name would have shown there.
        shown = self._credentials.of(errand.name)
        if shown is not None and not shown.covers(remote.url):
            shown = None
        command = GitCommand(
            [*errand.verb, *options, "--", remote.url, *errand.refs],
            pid_files=self._pid_files,
            timeout_s=self._git.timeout,
            scheme=remote.scheme,
            config=[*await self._pinned(remote), *(shown.config() if shown else ())],
            environment={
                **({"GIT_DIR": str(mirror)} if mirror else {}),
                **(shown.environment() if shown else {}),
            },
            watch=mirror,
            watch_bytes=self._git.max_size,
            room=partial(self._space.grow, mirror) if mirror else None,
            output_limit_bytes=errand.limit_bytes,
            uid=self.uid_for(errand.name),
            file_bytes=2 * self._git.max_size,  # `watch_bytes` ends it before
        )
        try:
            return await command.result(self._threads)
        except GitFailed as failure:
            told = presentable(failure.stderr, remote.url, errand.name)
            if shown is None and remote.scheme != "ssh":
                raise GitFailed(failure.trouble, told) from None
            raise GitFailed(failure.trouble, told, await _reason(failure, told, shown)) from None
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

    def explain(self, name: str, failure: GitFailed) -> IslandError:
        """Turn Git's failure with a repository into our error. What a server says to a credential of ours,
        callers do not read, but admins and the log."""
        error = self._explained(name, failure)
        if failure.why:
            error.for_admins = failure.why
            log.warning("%s cannot be fetched: %s", name, failure.why)
        return error

    def _explained(self, name: str, failure: GitFailed) -> IslandError:
        reason = f": {failure.stderr}" if failure.stderr and not failure.why else ""
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


async def _reason(failure: GitFailed, told: str, shown: Shown | None) -> str:
    """For operators: what was wrong with a credential, and what Git said."""
    if not failure.stderr:
        return ""
    said = await aside(shown.blotted, told) if shown is not None else told
    known = why(failure.stderr)
    return f"{known} (Git: {said})" if known else f"Git: {said}"


def presentable(stderr: str, remote_url: str, name: str) -> str:
    """Git's message on one short line, fit for the caller.

    The repository's name replaces the remote's URL: a caller must not learn where a rewrite leads.
    """
    lines = [line.strip() for line in stderr.splitlines()]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines
    text = "; ".join(reasons).replace(remote_url, name).replace(remote_url.partition("://")[2], name)
    # A scheme begins where letters begin: tried at each letter, a long word would take quadratic time.
    text = re.sub(r"(?<![a-z+])[a-z+]+://[^\s']+", name, text)[:MESSAGE_CHARACTERS]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
