"""The source room against real Git: versions, files, and what is kept of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from skyisland.errors import BadRequest, IslandError, SourceUnavailable
from skyisland.host.folder import size_of
from skyisland.sources.git import GitCommand
from tests.support.upstream import URL, Repository, room


async def test_default_branch_branch_tags_and_commits(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "--message", "x", "heavy")
    repository.git("branch", "both")
    second = repository.commit(a_go="package a // 2\n")
    repository.git("tag", "both")
    repository.git("tag", "a-file", "HEAD:a.go")
    async with room(state_dir, mirrored) as it:
        for version, commit in [
            (None, second),
            ("main", second),
            ("light", first),
            ("heavy", first),
            ("both", first),
            (first, first),
            (second.upper(), second),
        ]:
            source = await it.get(version=version)
            assert (source.url, source.package, source.commit, source.stale) == (URL, "", commit, False)
            assert (source.checkout / "a.go").read_text() == repository.git("show", f"{commit}:a.go") + "\n"
        for version in (
            "nope",
            "a.go",
            first[:12],
            "f" * 40,
            repository.git("rev-parse", "heavy"),
            "refs/heads/main",
        ):
            with pytest.raises(BadRequest, match="version: "):
                await it.get(version=version)
        with pytest.raises(IslandError):
            await it.get(version="a-file")


async def test_a_package_lies_below_the_root_that_is_looked_for(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    deep = {"https://git.example.org/": f"file://{state_dir}/srv/"}
    async with room(state_dir, mirrored | deep) as it:
        for url, name, package in [
            (f"{URL}/sub/p", URL, "sub/p"),
            (f"https://{URL}.git/sub", URL, "sub"),
            ("git.example.org/user/repo/sub/p", "git.example.org/user/repo", "sub/p"),
            ("git.example.org/user/repo", "git.example.org/user/repo", ""),
        ]:
            source = await it.get(url)
            assert (source.url, source.package) == (name, package)
            assert source.import_path == f"{name}/{package}".rstrip("/")
        with pytest.raises(SourceUnavailable, match=r"no repository git\.example\.org/user/nope"):
            await it.get("git.example.org/user/nope")
    # A later life finds the root without asking: the mirror tells.
    async with room(state_dir, {"https://git.example.org/": "file:///nowhere/"}) as it:
        source = await it.get("git.example.org/user/repo/sub", repository.git("rev-parse", "HEAD"))
        assert source.package == "sub"


async def test_a_checkout_is_readable_for_all_and_its_links_stay_links(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    secret = state_dir / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    (repository.path / "sub").mkdir()
    (repository.path / "sub/run").write_text("#!/bin/sh\n")
    (repository.path / "sub/run").chmod(0o755)
    (repository.path / "out").symlink_to(secret)
    (repository.path / "folder").symlink_to("/etc")
    repository.commit()
    old = os.umask(0o077)
    try:
        async with room(state_dir, mirrored) as it:
            checkout = (await it.get()).checkout
    finally:
        os.umask(old)
    modes = {
        path: stat.S_IMODE((checkout / path).lstat().st_mode)
        for path in ("", "..", "../..", "sub", "a.go", "sub/run")
    }
    assert modes == {"": 0o755, "..": 0o755, "../..": 0o700, "sub": 0o755, "a.go": 0o644, "sub/run": 0o755}
    assert (checkout / "out").readlink() == secret
    assert (checkout / "folder").readlink() == Path("/etc")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert not (checkout / ".git").exists()


async def test_a_trusted_version_asks_nobody(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    async with room(state_dir, mirrored) as it:
        first = await it.get()
        second = repository.commit(a_go="package b\n")
        assert (await it.get()).commit == first.commit
        assert (await it.get(refresh=True)).commit == second
        assert (await it.get()).commit == second
    # What is known survives a restart with whoever keeps it; so do mirrors and checkouts.
    async with room(state_dir, {"https://github.com/": "file:///nowhere/"}, known=it.known) as later:
        assert await later.get() == await it.get()
        assert later.fetched == []


async def test_what_is_trusted_no_longer_is_asked_for(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    async with room(state_dir, mirrored, trust_s=0) as it:
        await it.get()
        second = repository.commit(a_go="package b\n")
        assert (await it.get()).commit == second
        assert len(it.fetched) == 2


async def test_a_rewritten_branch_heals_itself(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    async with room(state_dir, mirrored) as it:
        gone = await it.sources.resolve(URL, "main")
        repository.git("commit", "--quiet", "--amend", "--allow-empty", "--message", "y")
        repository.git("reflog", "expire", "--expire=now", "--all")
        repository.git("gc", "--quiet", "--prune=now")
        with pytest.raises(SourceUnavailable, match="no longer has the commit"):
            await it.sources.checkout(gone)
        assert (await it.get(version="main")).commit == repository.git("rev-parse", "HEAD")


async def test_an_empty_repository_and_none(state_dir: Path, mirrored: dict[str, str]) -> None:
    Repository(state_dir / "srv/user/empty")
    async with room(state_dir, mirrored) as it:
        with pytest.raises(SourceUnavailable, match="empty"):
            await it.get("github.com/user/empty")
        with pytest.raises(SourceUnavailable, match=r"no repository github\.com/user/none") as refusal:
            await it.get("github.com/user/none")
        assert str(state_dir) not in refusal.value.message


async def test_the_operators_mirror_may_belong_to_another_user(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    if os.geteuid() == 0:
        for path in (repository.path, *repository.path.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
    async with room(state_dir, mirrored) as it:
        assert (await it.get()).checkout.is_dir()


async def test_a_caller_may_name_a_file_where_the_operator_permits_it(
    state_dir: Path, repository: Repository
) -> None:
    async with room(state_dir, {}, allowed_schemes=("https", "file")) as it:
        source = await it.get(f"file://{repository.path}/sub")
        assert (source.url, source.package) == (f"file://{repository.path}", "sub")


async def test_what_can_be_no_version_never_reaches_git(
    state_dir: Path, repository: Repository, mirrored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(state_dir, mirrored) as it:
        monkeypatch.setattr(GitCommand, "result", None)
        for version in ("--upload-pack=touch /tmp/sky", "a..b", "main@{1}", ""):
            with pytest.raises(BadRequest) as refusal:
                await it.get(version=version)
            assert refusal.value.details == {"field": "version"}


@pytest.mark.parametrize("busy", [False, True])
async def test_beyond_the_room_for_all_those_go_that_nobody_asked_for_longest(
    state_dir: Path,
    repository: Repository,
    mirrored: dict[str, str],
    busy: bool,
) -> None:
    async with room(state_dir, mirrored) as it:
        first = await it.get()
        room_bytes = sum([await asyncio.to_thread(size_of, path) for path in (it.repos, it.checkouts)])
    async with room(state_dir, mirrored, cache_limit=room_bytes + 10_000) as it:
        with it.sources.using(first) if busy else nullcontext():
            repository.commit(a_go="package a\n" + "// more\n" * 2000)
            second = await it.get(refresh=True)
        assert first.checkout.is_dir() == busy
        assert second.checkout.is_dir()


async def test_purging_spares_what_is_in_use_or_kept(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    async with room(state_dir, mirrored, trust_s=0) as it:
        first = await it.get()
        repository.commit(a_go="package b\n")
        second = await it.get()
        assert await it.sources.purge(idle_s=60) == 0
        with it.sources.using(first):
            assert await it.sources.purge(idle_s=0, keep={(URL, second.commit)}) == 1  # the mirror
            assert first.checkout.is_dir()
        assert second.checkout.is_dir()
        assert await it.sources.purge(idle_s=0) == 2
        assert [*it.repos.iterdir(), *it.checkouts.iterdir()] == []
        assert (await it.get()).checkout.is_dir()
        assert len(it.fetched) == 3


@contextmanager
def few_files() -> Iterator[None]:
    """The descriptors of this process are as many afterwards as before."""
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) <= before


async def test_no_descriptor_is_left_open(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    async with room(state_dir, mirrored) as it:
        await it.get()
        with few_files():
            for version in ("main", "nope", "f" * 40):
                with contextlib.suppress(IslandError):
                    await it.get(version=version, refresh=True)


async def test_a_commit_that_no_branch_or_tag_names_shares_nothing_with_the_repository(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    tip = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "--detach")
    forks = repository.commit(a_go="package a // a stranger's\n")
    repository.git("update-ref", "refs/pull/7/head", forks)
    repository.git("checkout", "--quiet", "main")
    async with room(state_dir, mirrored) as it:
        # The server gives whoever knows it a commit that is on no branch, by the repository's own URL.
        asked = await it.get(version=forks)
        assert (asked.url, asked.commit, asked.named) == (URL, forks, False)
        request = await it.get(version="pull/7/head")
        assert (request.commit, request.named) == (forks, False)
        assert asked.compiled_in == request.compiled_in == f"{URL}@{forks}"
        own = await it.get()
        assert (own.commit, own.named, own.compiled_in) == (tip, True, URL)
        assert (await it.get(version=tip)).named  # by its hash: the default branch named it
        again = await it.sources.resolve(URL, "pull/7/head")
        assert not again.named
        for version in ("pull/8/head", "pull/7", "refs/pull/7/head", "pull/x/head"):
            with pytest.raises(BadRequest, match="no branch or tag"):
                await it.get(version=version)
    # A later life knows what the default branch named, and the name of the request no better.
    async with room(state_dir, mirrored, known=it.known) as it:
        assert it.sources.recorded(URL, "", tip).named
        assert not it.sources.recorded(URL, "", forks).named
