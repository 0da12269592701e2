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
from skyisland.sources.git import GitCommand, GitFailed, Trouble
from skyisland.sources.mirror import Mirrors
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
            "f" * 40,
            repository.git("rev-parse", "heavy"),
            "refs/heads/light",
        ):
            with pytest.raises(BadRequest, match="version: "):
                await it.get(version=version)
        with pytest.raises(IslandError):
            await it.get(version="a-file")


async def test_releases_and_the_beginnings_of_commits(
    state_dir: Path, repository: Repository, mirrored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = {}
    for tag in ("v1.0.0", "v1.2.0", "v1.10.0", "v2.0.0-rc1", "sub/v1.3.0"):
        commits[tag] = repository.commit(a_go=f"package a // {tag}\n")
        repository.git("tag", "--annotate", "--message", "x", tag)
    between = repository.commit(a_go="package a // between\n")
    tip = repository.commit(a_go="package a // tip\n")
    async with room(state_dir, mirrored) as it:
        for url, version, commit in [
            (URL, "latest", commits["v1.10.0"]),
            (URL, "v1", commits["v1.10.0"]),
            (URL, "1.2", commits["v1.2.0"]),
            (URL, "1.0.0", commits["v1.0.0"]),
            (URL, "v2", commits["v2.0.0-rc1"]),
            (f"{URL}/sub", "latest", commits["sub/v1.3.0"]),
            (f"{URL}/sub", "v1.2.0", commits["v1.2.0"]),
            (URL, "HEAD", tip),
            (URL, tip[:7], tip),
            (URL, between[:9].upper(), between),
        ]:
            resolved = await it.sources.resolve(url, version)
            assert (resolved.commit, resolved.stale, resolved.named) == (commit, False, True), version
        for version, hint in [
            ("v1.10.1", r"'v1\.10\.1'; there is .*v1\.10\.0"),
            ("mian", "there is main"),
            ("f" * 8, "and no commit that begins so"),
            ("refs/heads/v1.0.0", "no branch or tag"),
        ]:
            with pytest.raises(BadRequest, match=hint):
                await it.get(version=version)
    # What the beginning of a hash means does not change: nobody looks for it again.
    monkeypatch.setattr(Mirrors, "commits_begun_by", None)
    async with room(state_dir, mirrored, known=it.known, trust_s=0) as it:
        assert (await it.sources.resolve(URL, between[:9].upper())).commit == between


async def test_commits_that_begin_alike_are_named(
    state_dir: Path, repository: Repository, mirrored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def two(self: Mirrors, name: str, digits: str) -> set[str]:
        return {f"{digits}{digit}{'0' * (39 - len(digits))}" for digit in "ab"}

    monkeypatch.setattr(Mirrors, "commits_begun_by", two)
    async with room(state_dir, mirrored) as it:
        with pytest.raises(BadRequest, match=r"2 commits of .* begin with 1234567: 1234567a0+, 1234567b0+"):
            await it.get(version="1234567")


async def test_one_branch_has_one_commit_by_whichever_name(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    repository.git("branch", "--move", "trunk")
    by_name = (None, "trunk", "refs/heads/trunk", "HEAD")
    async with room(state_dir, mirrored) as it:
        for version in by_name:
            await it.sources.resolve(URL, version)
        for busting in by_name:
            tip = repository.commit(a_go=f"package a // {busting}\n")
            await it.sources.resolve(URL, busting, refresh=True)
            assert {(await it.sources.resolve(URL, version)).commit for version in by_name} == {tip}
    # Where the branch was asked for first, the default is known with it.
    async with room(state_dir, mirrored) as it:
        await it.sources.resolve(URL, "trunk")
        repository.commit()
        await it.sources.resolve(URL, None, refresh=True)
        assert (await it.sources.resolve(URL, "trunk")).commit == repository.git("rev-parse", "HEAD")
        # Another branch has two names.
        repository.git("branch", "dev")
        await it.sources.resolve(URL, "dev")
        repository.git("checkout", "--quiet", "dev")
        moved = repository.commit(a_go="package a // dev\n")
        await it.sources.resolve(URL, "refs/heads/dev", refresh=True)
        assert (await it.sources.resolve(URL, "dev")).commit == moved


async def test_a_head_that_points_nowhere_beside_branches_says_so(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    repository.git("branch", "dev")
    repository.git("symbolic-ref", "HEAD", "refs/heads/gone")
    deep = {"https://git.example.org/": f"file://{state_dir}/srv/"}
    async with room(state_dir, mirrored | deep) as it:
        for url in (URL, "git.example.org/user/repo/sub"):
            with pytest.raises(BadRequest, match=r"points nowhere\); name one of its branches: dev, main"):
                await it.get(url)
            assert (await it.get(url, "dev")).url == url.removesuffix("/sub")


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


async def test_what_is_doubted_is_asked_for_whatever_its_version(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    async with room(state_dir, mirrored) as it:
        first = await it.get()
        await it.get(version="main")
        second = repository.commit(a_go="package b\n")
        assert (await it.get(version="main")).commit == first.commit
        await it.sources.doubt(first.url)
        await it.sources.doubt("github.com/nobody/knows")
        assert {(await it.get(version=version)).commit for version in (None, "main")} == {second}
    # What is doubted serves all the same, where the remote is out of reach.
    async with room(state_dir, {"https://github.com/": "http://127.0.0.1:9/"}, known=it.known) as later:
        await later.sources.doubt(first.url)
        assert (await later.get()).commit == second
        assert (await later.get()).stale


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
        assert (await it.get(version="refs/pull/7/head")).compiled_in == request.compiled_in
        for version in ("pull/8/head", "pull/7", "pull/x/head"):
            with pytest.raises(BadRequest, match="no branch or tag"):
                await it.get(version=version)
    # A later life knows what the default branch named, and the name of the request no better.
    async with room(state_dir, mirrored, known=it.known) as it:
        assert it.sources.recorded(URL, "", tip).named
        assert not it.sources.recorded(URL, "", forks).named


async def test_the_versions_that_there_are_and_the_commits_between_two(
    state_dir: Path, repository: Repository, mirrored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.git("rev-parse", "HEAD")
    commits = []
    for tag in ("v1.0.0", "v1.1.0", "v1.10.0"):
        commits.append(repository.commit(a_go=f"package a // {tag}\n"))
        repository.git("tag", "--annotate", "--message", "x", tag)
    repository.git("checkout", "--quiet", "-b", "side", first)
    aside = repository.commit(b_go="package a // aside\n")
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "--message", "x", "side")
    merged = repository.git("rev-parse", "HEAD")
    async with room(state_dir, mirrored) as it:
        told = await it.sources.versions(f"{URL}/sub")
        assert (told.url, told.package, told.omitted) == (URL, "sub", 0)
        assert [(one.version, one.commit) for one in told.versions] == [
            ("v1.0.0", commits[0]),
            ("v1.1.0", commits[1]),
            ("v1.10.0", commits[2]),
        ]
        assert len((await it.sources.versions(URL, until="v1.1.0")).versions) == 2
        between = await it.sources.versions(URL, after=first)
        assert [one.commit for one in between.versions] == [*commits, merged]
        between = await it.sources.versions(URL, after="v1.0.0", until="v1.1.0")
        assert [one.commit for one in between.versions] == [commits[1]]
        for after, until in (("v1.1.0", "v1.0.0"), (aside, "v1.0.0")):
            with pytest.raises(BadRequest, match="does not come after"):
                await it.sources.versions(URL, after=after, until=until)

        async def late(*_: object) -> bytes:
            raise GitFailed(Trouble.timed_out)

        monkeypatch.setattr(it.sources._commits._mirrors, "_run_local", late)
        with pytest.raises(SourceUnavailable):
            await it.sources.versions(URL, after=first, until="v1.1.0")
