"""The source room against repositories that mean harm, and Git on its leash."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import shutil
import struct
import subprocess
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from skyisland.errors import SourceRefused, SourceUnavailable, TooBusy
from skyisland.host.folder import size_of
from skyisland.sources import bare, git
from skyisland.sources.git import GitFailed, Trouble
from tests.support.upstream import GIT_UID, Repository, Room, Server, room


async def test_nothing_of_a_repository_or_of_our_environment_is_run(
    state_dir: Path, repository: Repository, mirrored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("git.cmd")  # which runs Git once, in our environment
    marker = state_dir / "marker"
    hooks = state_dir / "hooks"
    hooks.mkdir()
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / hook).chmod(0o755)
    configuration = state_dir / "gitconfig"
    configuration.write_text(
        f'[core]\n hooksPath = {hooks}\n[filter "evil"]\n smudge = touch {marker}; cat\n required = true\n'
    )
    other = Repository(state_dir / "srv/other")
    other.commit(x_go="package x\n")
    (repository.path / ".gitattributes").write_text("* filter=evil text eol=crlf ident\n")
    repository.git("submodule", "--quiet", "add", f"file://{other.path}", "module")
    content = "package a // $Id$\n"
    commit = repository.commit(a_go=content)
    # The attack works on a Git that is left to itself.
    victim = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "GIT_CONFIG_GLOBAL": str(configuration)}
    clone = ["git", "clone", "--quiet", f"file://{repository.path}", str(state_dir / "victim")]
    subprocess.run(clone, env=victim, check=True, capture_output=True)
    assert marker.exists()
    marker.unlink()
    for name, value in {
        "GIT_CONFIG_GLOBAL": str(configuration),
        "GIT_DIR": str(repository.path / ".git"),
        "GIT_TRACE": str(marker),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(hooks),
    }.items():
        monkeypatch.setenv(name, value)
    async with room(state_dir, mirrored) as it:
        checkout = (await it.get(version=commit)).checkout
    assert (checkout / "a.go").read_bytes() == content.encode()
    assert list((checkout / "module").iterdir()) == []
    assert not marker.exists()


async def test_a_tree_with_evil_names_is_refused(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"[core]\n fsmonitor = touch /tmp/x\n")
    for name in (".git", ".GIT", ".."):
        inner = b"100644 config\0" + bytes.fromhex(blob)
        tree = repository.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=inner)
        outer = f"40000 {name}\0".encode() + bytes.fromhex(tree)
        evil = repository.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=outer)
        repository.git("update-ref", "refs/heads/evil", repository.git("commit-tree", "-m", "x", evil))
        async with room(state_dir, mirrored) as it:
            with pytest.raises(SourceUnavailable):
                await it.get(version="evil")
            assert list(it.checkouts.iterdir()) == []


async def test_a_repository_beyond_the_limit_is_refused_and_gone(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    (repository.path / "noise").write_bytes(os.urandom(3 << 20))
    repository.commit()
    async with room(state_dir, mirrored, max_size=1 << 20) as it:
        with pytest.raises(SourceRefused, match=r"\[git\] max_size"):
            await it.get()
        assert list(it.repos.iterdir()) == []
        assert list(it.checkouts.iterdir()) == []


async def test_files_that_only_compressed_are_small_are_refused(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    (repository.path / "zeros").write_bytes(bytes(3 << 20))
    repository.commit()
    async with room(state_dir, mirrored, max_size=1 << 20) as it:
        with pytest.raises(SourceRefused, match=r"bytes of disk, more than \[git\] max_size"):
            await it.get()
        assert list(it.checkouts.iterdir()) == []


async def test_a_tree_of_ten_thousand_million_files_is_refused(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    entry = f"100644 blob {repository.git('hash-object', '-w', '--stdin')}\tf"
    for _ in range(10):
        lines = "\n".join(entry.rpartition("\t")[0] + f"\t{digit}" for digit in range(10))
        entry = f"040000 tree {repository.git('mktree', stdin=lines.encode())}\tx"
    tree = entry.split()[2]
    repository.git("update-ref", "refs/heads/bomb", repository.git("commit-tree", "-m", "x", tree))
    async with room(state_dir, mirrored) as it:
        with pytest.raises(SourceRefused, match=r"\[git\] max_files"):
            await it.get(version="bomb")
        assert list(it.checkouts.iterdir()) == []


async def test_a_tree_too_deep_to_be_deleted_is_refused(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    entry = f"100644 blob {repository.git('hash-object', '-w', '--stdin')}\tf"
    for _ in range(150):
        entry = f"040000 tree {repository.git('mktree', stdin=entry.encode())}\td"
    tree = entry.split()[2]
    repository.git("update-ref", "refs/heads/deep", repository.git("commit-tree", "-m", "x", tree))
    async with room(state_dir, mirrored) as it:
        with pytest.raises(SourceRefused, match="deeper than 100 folders"):
            await it.get(version="deep")


def delta_bomb() -> bytes:
    """A pack of a few kilobytes: a blob of 64 KiB, and a delta that repeats it 6,000 times (400 MB)."""

    def head(kind: int, size: int) -> bytes:
        encoded, size = bytearray([kind << 4 | size & 15]), size >> 4
        while size:
            encoded[-1] |= 128
            encoded.append(size & 127)
            size >>= 7
        return bytes(encoded)

    def varint(size: int) -> bytes:
        encoded = bytearray()
        while size > 127:
            encoded.append(size & 127 | 128)
            size >>= 7
        return bytes([*encoded, size])

    base, copies = bytes(1 << 16), 6000
    name = hashlib.sha1(b"blob 65536\0" + base, usedforsecurity=False).digest()
    # One copy instruction without offset and size bytes: 64 KiB from the start.
    delta = varint(len(base)) + varint(len(base) * copies) + b"\x80" * copies
    pack = b"PACK" + struct.pack(">II", 2, 2)
    pack += head(3, len(base)) + zlib.compress(base) + head(7, len(delta)) + name + zlib.compress(delta)
    return pack + hashlib.sha1(pack, usedforsecurity=False).digest()


async def test_a_delta_that_would_fill_the_memory_is_not_unfolded(state_dir: Path) -> None:
    pack = state_dir / "bomb.pack"
    pack.write_bytes(delta_bomb())
    async with room(state_dir, {}) as it:
        with pytest.raises(GitFailed) as failure:
            await it.git("index-pack", str(pack))
        assert failure.value.trouble is Trouble.too_large


async def test_git_runs_in_an_environment_of_ours_alone_and_cannot_fill_the_memory(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    async with room(state_dir, {}) as it:
        said = await it.git("-c", "alias.tell=!env; ulimit -v", "tell", scheme="https")
    *lines, limit = said.decode().splitlines()
    told = dict(line.split("=", 1) for line in lines)
    assert told["GIT_ALLOW_PROTOCOL"] == "https"
    assert told["HOME"] == "/dev/null"
    assert not {"SECRET", "GIT_SSL_NO_VERIFY", "VIRTUAL_ENV"} & set(told)
    assert int(limit) == 4 << 20


async def test_a_folder_that_outgrew_its_limit_fails_even_a_quick_command(state_dir: Path) -> None:
    (state_dir / "large").write_bytes(bytes(1000))
    (state_dir / "out").symlink_to("/")
    async with room(state_dir, {}) as it:
        with pytest.raises(GitFailed, match="too_large"):
            await it.git("version", watch=state_dir, watch_bytes=999)
        assert await it.git("version", watch=state_dir, watch_bytes=100_000)


async def test_a_small_repository_of_very_many_files_is_refused(
    state_dir: Path, repository: Repository, mirrored: dict[str, str]
) -> None:
    entry = f"100644 blob {repository.git('hash-object', '-w', '--stdin')}\tf"
    for _ in range(4):
        lines = "\n".join(entry.rpartition("\t")[0] + f"\t{digit}" for digit in range(10))
        entry = f"040000 tree {repository.git('mktree', stdin=lines.encode())}\tx"
    tree = entry.split()[2]
    repository.git("update-ref", "refs/heads/bomb", repository.git("commit-tree", "-m", "x", tree))
    async with room(state_dir, mirrored, max_files=12_000) as it:
        bomb = await it.get(version="bomb")
        sizes = [await asyncio.to_thread(size_of, path) for path in (it.repos, bomb.checkout)]
        assert sizes[0] < 100_000, "as it travels, it is small"
        assert sizes[1] > 10_000 * 4096
        assert await it.sources.purge(idle_s=0) == 2
    for limits, setting in (({"max_files": 11_000}, "max_files"), ({"max_size": 40_000_000}, "max_size")):
        async with room(state_dir, mirrored, **limits) as it:
            with pytest.raises(SourceRefused, match=rf"\[git\] {setting}"):
                await it.get(version="bomb")
            assert list(it.checkouts.iterdir()) == []


@pytest.mark.parametrize("refused", [False, True])
async def test_repositories_one_after_another_stay_within_the_room_for_all(
    state_dir: Path, mirrored: dict[str, str], refused: bool
) -> None:
    """Also those that are refused after they were fetched."""
    for number in range(4):
        repository = Repository(state_dir / f"srv/user/r{number}")
        (repository.path / "noise").write_bytes(os.urandom(1 << 20))
        (repository.path / "zeros").write_bytes(bytes(1 << 20))
        repository.commit()

    async def taken(**limits: int) -> int:
        if refused:
            limits["max_size"] = 3 << 19  # the mirror has room, the files have not
        async with room(state_dir, mirrored, **limits) as it:
            for number in range(4):
                with pytest.raises(SourceRefused) if refused else nullcontext():
                    await it.get(f"github.com/user/r{number}")
            bytes_ = await asyncio.to_thread(lambda: size_of(it.repos) + size_of(it.checkouts))
            await it.sources.purge(idle_s=0)
        return bytes_

    limit = 7 << 19
    folders = 10 * 4096  # `repos`, `checkouts`, and one for each repository's checkouts
    assert await taken() > limit + folders
    assert await taken(cache_limit=limit) <= limit + folders


async def test_what_is_in_use_stays_and_who_finds_no_room_beside_it_is_refused(
    state_dir: Path, mirrored: dict[str, str]
) -> None:
    for name in ("one", "two"):
        repository = Repository(state_dir / f"srv/user/{name}")
        (repository.path / "noise").write_bytes(bytes(1 << 20))
        repository.commit()
    async with room(state_dir, mirrored, cache_limit=3 << 19) as it:
        one = await it.get("github.com/user/one")
        with it.sources.using(one):
            with pytest.raises(TooBusy, match=r"\[git\] cache_limit"):
                await it.get("github.com/user/two")
            assert one.checkout.is_dir()
        assert (await it.get("github.com/user/two")).checkout.is_dir()
        assert not one.checkout.is_dir()
    async with room(state_dir, mirrored, cache_limit=1 << 20) as it:
        with pytest.raises(SourceRefused, match=r"\[git\] cache_limit"):
            await it.get("github.com/user/one")


@pytest.mark.root
async def says(it: Room, command: str, uid: int | None, **options: Any) -> str:
    """What a shell command says that a taken-over Git runs."""
    return (await it.git("-c", f"alias.taken=!{command}", "taken", uid=uid, **options)).decode()


async def status_of(it: Room, uid: int | None) -> dict[str, str]:
    lines = (await says(it, "cat /proc/self/status", uid)).splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.root
@pytest.mark.parametrize("uid", [None, GIT_UID])
async def test_git_of_a_root_has_no_capability_and_gains_none(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, uid: int | None
) -> None:
    async with room(state_dir, {}) as it:
        confined = await status_of(it, uid)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(confined[kind], 16) == 0
        assert confined["NoNewPrivs"] == "1"
        assert set(confined["Uid"].split()) == {str(uid or 0)}
        monkeypatch.setattr(git, "confinement", lambda uid: git.Confinement())
        assert int((await status_of(it, uid))["CapEff"], 16) != 0, "else there is nothing to take"


@pytest.mark.root
async def test_git_that_strangers_feed_reads_nothing_of_roots_and_has_limits(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state_dir / "secret").write_text("of root")
    (state_dir / "secret").chmod(0o600)
    async with room(state_dir, {}) as it:
        look = f"cat {state_dir}/secret 2>&1 || true"
        assert await says(it, look, None) == "of root"
        assert "Permission denied" in await says(it, look, GIT_UID)
        limits = await says(it, "cat /proc/self/limits", GIT_UID, file_bytes=1 << 20)
        soft = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()}
        assert soft["Max file size"] == str(1 << 20)
        assert soft["Max processes"] == str(git.PROCESSES)
        assert soft["Max address space"] == str(4 << 30)
        held = await says(it, "ls -l /proc/self/fd", GIT_UID)
        locks = [line for line in held.splitlines() if ".pid" in line]
        assert {line[:4] for line in locks} == {"lr-x"}, "else it could say whom the next daemon kills"
    # Where there is no setpriv, it is another user all the same.
    git.confinement.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "setpriv" else "/usr/bin/" + name)
    async with room(state_dir, {}) as it:
        confined = await status_of(it, GIT_UID)
        assert (confined["Uid"].split()[0], int(confined["CapEff"], 16)) == (str(GIT_UID), 0)
        assert "setpriv" in git.confinement(GIT_UID).lacks
    git.confinement.cache_clear()


@pytest.mark.root
async def test_mirrors_are_gits_own_and_no_link_in_one_leads_out(
    state_dir: Path, repository: Repository, served: Server
) -> None:
    outside = state_dir / "outside"
    outside.mkdir()
    for name in ("tmp_pack_of_another", "head", "x.lock"):
        (outside / name).write_text("kept")
    async with room(state_dir, served.rewrite) as it:
        checkout = (await it.get()).checkout
        (mirror,) = (path for path in it.repos.iterdir() if path.is_dir())
        assert (mirror.stat().st_uid, mirror.stat().st_mode & 0o777) == (GIT_UID, 0o700)
        assert checkout.parent.stat().st_uid == 0, "nobody but root puts another folder in its place"
        shutil.rmtree(mirror / "objects/pack")
        shutil.rmtree(mirror / "refs/sky")
        (mirror / "objects/pack").symlink_to(outside)
        (mirror / "refs/sky").symlink_to(outside)
        assert list(mirror.glob("objects/pack/*tmp*")), "a look by its path leads out"
        await asyncio.to_thread(bare.remove_leftovers, mirror)
        with pytest.raises(GitFailed):
            await asyncio.to_thread(bare.rename_head, mirror)
        assert await asyncio.to_thread(bare.count_packs, mirror) == 0
        repository.commit(b_go="package a\n")
        assert (await it.get(refresh=True)).commit == repository.git("rev-parse", "HEAD")
        (mirror / "description").unlink()
        (mirror / "description").symlink_to("/etc/passwd")
    async with room(state_dir, served.rewrite) as it:
        assert not mirror.exists(), "whoever does not say its name is forgotten"
    assert {path.name for path in outside.iterdir()} == {"tmp_pack_of_another", "head", "x.lock"}
