"""The source room against real Git: repositories, servers that serve, stall and lie."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from skyisland import source as sources
from skyisland.errors import BadRequest, IslandError, SourceRefused, SourceUnavailable
from skyisland.events import Event, Events, SourceFetched
from skyisland.gitcommand import GitCommand, GitFailed, Trouble, size_of
from skyisland.model import Source
from skyisland.settings import Git
from skyisland.source import CommitMemory, KnownCommit, Sources

URL = "github.com/user/repo"
DAY_S = 86400.0


class Repository:
    """A repository that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/dev/null",
            **{
                f"GIT_{who}_{what}": "someone@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.path, env=environment, input=stdin, check=True, capture_output=True,
        )  # fmt: skip
        return done.stdout.decode().strip()

    def commit(self, **files: str) -> str:
        """Write files (`a_go` is a.go), commit them; the commit."""
        for name, content in files.items():
            path = self.path / name.replace("_", ".")
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")
        return self.git("rev-parse", "HEAD")


class Room:
    """Sources with what a test wants to see of it."""

    def __init__(self, state: Path, rewrite: dict[str, str], **options: Any) -> None:
        self.repos, self.checkouts = state / "repos", state / "checkouts"
        self.fetched: list[Event] = []
        events = Events()
        events.tap(self.fetched.append)
        settings = {
            key: options.pop(key)
            for key in ("timeout", "max_size", "cache_limit", "allowed_schemes")
            if key in options
        }
        self.known = options.setdefault("known", CommitMemory())
        self.sources = Sources(
            Git(rewrite=rewrite, **settings),
            self.repos,
            self.checkouts,
            events=events,
            **{"trust_s": DAY_S, **options},
        )

    async def get(self, url: str = URL, version: str | None = None, *, refresh: bool = False) -> Source:
        return await self.sources.checkout(await self.sources.resolve(url, version, refresh=refresh))

    def nothing_half_made(self) -> bool:
        """Neither leash nor partial folder."""
        return not [
            *self.repos.glob("sky-*"),
            *self.checkouts.glob("sky-*"),
            *self.repos.glob("*/objects/pack/*tmp*"),
        ]


@asynccontextmanager
async def room(state: Path, rewrite: dict[str, str], **options: Any) -> AsyncIterator[Room]:
    made = Room(state, rewrite, **options)
    await made.sources.sweep()
    try:
        yield made
    finally:
        await made.sources.close()
    assert made.nothing_half_made()


@pytest.fixture
def repository(state_dir: Path) -> Repository:
    repository = Repository(state_dir / "srv/user/repo")
    repository.commit(a_go="package a\n")
    return repository


@pytest.fixture
def mirrored(state_dir: Path) -> dict[str, str]:
    return {"https://github.com/": f"file://{state_dir}/srv/"}


def alive(*, mentioning: str) -> bool:
    """Whether a process has this in its command line."""
    return subprocess.run(["pgrep", "-f", mentioning], capture_output=True, check=False).returncode == 0


# Versions and files


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
    assert modes == {"": 0o755, "..": 0o755, "../..": 0o755, "sub": 0o755, "a.go": 0o644, "sub/run": 0o755}
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
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,
) -> None:
    monkeypatch.setattr(sources, "FRESH_S", 0.0)
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


# Repositories that mean harm


async def test_nothing_of_a_repository_or_of_our_environment_is_run(
    state_dir: Path, repository: Repository, mirrored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
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
        with pytest.raises(SourceRefused, match=r"bytes of files, more than \[git\] max_size"):
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
        with pytest.raises(SourceRefused, match="larger"):
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
        command = GitCommand(["index-pack", str(pack)], leashes=it.repos, timeout_s=10)
        with pytest.raises(GitFailed) as failure:
            await command.result(it.sources._mirrors._threads)
        assert failure.value.trouble is Trouble.too_large


# Servers


class Server:
    """A server on a loopback port for the length of a test. `asked` holds its requests."""

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.asked: list[str] = []
        self.stalled = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, self))
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.rewrite = {
            "https://git.test/": f"http://{self.address}/",
            "https://github.com/": f"http://{self.address}/",
        }
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.01))

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Quiet(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *arguments: Any, **options: Any) -> None:
        self.test = server
        super().__init__(*arguments, **options)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        self.test.asked.append(f"{self.command} {self.path}")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def backend(root: Path, *, speaks: str = "2") -> type[Quiet]:
    """Git's own server; `speaks` "0" is one that knows the old protocol only."""

    class Backend(Quiet):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "HOME": "/dev/null",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                **({"GIT_PROTOCOL": self.headers.get("Git-Protocol", "")} if speaks == "2" else {}),
            }
            done = subprocess.run(
                ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
            if b"command=fetch" in body:
                self.test.asked.append("fetch")
            self.answer(int(headers.pop("Status", "200").split()[0]), content, **headers)

        do_POST = do_GET  # noqa: N815

    return Backend


class Staller(Quiet):
    """Takes the request and never answers."""

    def do_GET(self) -> None:
        self.test.asked.append("stalled")
        self.test.stalled.set()
        with contextlib.suppress(OSError):
            self.connection.recv(1)


async def stalled(server: Server) -> None:
    await asyncio.to_thread(server.stalled.wait, 30)
    server.stalled.clear()


@pytest.fixture
def served(state_dir: Path, repository: Repository) -> Iterator[Server]:
    with Server(backend(state_dir / "srv")) as server:
        yield server


async def test_two_hundred_want_a_new_repository_and_it_is_fetched_once(
    state_dir: Path, repository: Repository, served: Server
) -> None:
    async with room(state_dir, served.rewrite) as it:
        found = await asyncio.gather(*(it.get() for _ in range(200)))
        assert {source.commit for source in found} == {repository.git("rev-parse", "HEAD")}
        assert len([event for event in it.fetched if isinstance(event, SourceFetched)]) == 1
        assert served.asked.count("fetch") == 1
        before = len(served.asked)
        for _ in range(10):
            await it.get()
        assert len(served.asked) == before


async def test_only_one_commit_is_fetched(state_dir: Path, repository: Repository, served: Server) -> None:
    (repository.path / "noise").write_bytes(os.urandom(1 << 20))
    repository.commit()
    (repository.path / "noise").unlink()
    repository.commit()
    async with room(state_dir, served.rewrite, max_size=1 << 19) as it:
        source = await it.get()
        assert not (source.checkout / "noise").exists()


async def test_a_remote_out_of_reach_leaves_what_is_known(state_dir: Path, repository: Repository) -> None:
    with Server(backend(state_dir / "srv")) as server:
        async with room(state_dir, server.rewrite) as it:
            fresh = await it.get()
    known = CommitMemory()
    await known.put(URL, "", KnownCommit(fresh.commit, 0.0))
    async with room(state_dir, server.rewrite, known=known) as it:
        stale = await it.get()
        assert (stale.commit, stale.stale) == (fresh.commit, True)
        assert (await it.get(refresh=True)).stale
        with pytest.raises(SourceUnavailable, match="Failed to connect") as refusal:
            await it.get(version="other")
        assert server.address not in refusal.value.message.split("Failed to connect")[0]


async def test_nobody_waits_twice_for_a_remote_out_of_reach(state_dir: Path, repository: Repository) -> None:
    known = CommitMemory()
    await known.put(URL, "", KnownCommit(repository.git("rev-parse", "HEAD"), 0.0))
    with Server(Staller) as server:
        async with room(state_dir, server.rewrite, known=known, timeout=0.3) as it:
            assert (await it.sources.resolve(URL, None)).stale
            assert (await it.sources.resolve(URL, None)).stale
            assert server.asked.count("stalled") == 1


async def test_a_server_that_stalls_is_given_up_in_time(state_dir: Path) -> None:
    with Server(Staller) as server:
        async with room(state_dir, server.rewrite, timeout=0.3) as it:
            with pytest.raises(SourceUnavailable, match=r"longer than \[git\] timeout permits \(0\.3 s\)"):
                await it.get()
            assert not alive(mentioning=server.address)


async def test_who_hangs_up_leaves_no_process(state_dir: Path) -> None:
    with Server(Staller) as server:
        async with room(state_dir, server.rewrite) as it:
            for ask in (partial(it.get), partial(it.get, version="a" * 40)):
                asking = asyncio.create_task(ask())
                await stalled(server)
                assert alive(mentioning=server.address)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert not alive(mentioning=server.address)
                assert it.nothing_half_made()
                assert list(it.repos.iterdir()) == []


async def test_closing_ends_what_is_under_way(state_dir: Path) -> None:
    with Server(Staller) as server:
        async with room(state_dir, server.rewrite) as it:
            asking = asyncio.create_task(it.get())
            await stalled(server)
            await it.sources.close()
            assert not alive(mentioning=server.address)
            with pytest.raises(asyncio.CancelledError):
                await asking


async def test_a_killed_daemons_git_is_found_and_ended(state_dir: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from skyisland.settings import Git
from skyisland.source import CommitMemory, Sources
async def main():
    sources = Sources(Git(rewrite={{rewrite}}), Path("{state_dir}/repos"), Path("{state_dir}/checkouts"),
                      trust_s=1, known=CommitMemory())
    await sources.sweep()
    await sources.checkout(await sources.resolve("{URL}", "{"a" * 40}"))
asyncio.run(main())
"""
    with Server(Staller) as server:
        program = program.replace("{rewrite}", repr(server.rewrite))
        daemon = subprocess.Popen([sys.executable, "-c", program])  # noqa: ASYNC220
        try:
            await stalled(server)
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
        assert alive(mentioning=server.address)
        it = Room(state_dir, server.rewrite)
        assert not it.nothing_half_made()
        assert await it.sources.sweep() == 2  # the process, and its mirror
        assert not alive(mentioning=server.address)
        assert it.nothing_half_made()
        assert await it.sources.sweep() == 0
        await it.sources.close()


async def test_a_server_of_the_old_protocol_gives_what_it_can(
    state_dir: Path, repository: Repository
) -> None:
    first = repository.git("rev-parse", "HEAD")
    tip = repository.commit(a_go="package b\n")
    with Server(backend(state_dir / "srv", speaks="0")) as server:
        async with room(state_dir, server.rewrite) as it:
            assert (await it.get()).commit == tip
            assert (await it.get(version=first)).commit == first
            with pytest.raises(BadRequest, match="has no commit"):
                await it.get(version="f" * 40)


async def test_a_mere_file_server_under_a_name_with_git_at_its_end(
    state_dir: Path, repository: Repository
) -> None:
    bare = state_dir / "www/repo.git"
    repository.git("clone", "--quiet", "--bare", ".", str(bare))
    repository.git("--git-dir", str(bare), "update-server-info")

    class Files(Quiet, SimpleHTTPRequestHandler):
        def __init__(self, server: Server, *arguments: Any) -> None:
            super().__init__(server, *arguments, directory=str(state_dir / "www"))

    with Server(Files) as server:
        async with room(state_dir, server.rewrite) as it:
            assert (await it.get("git.test/repo/sub")).url == "git.test/repo"
            assert (await it.get("git.test/repo.git/sub")).package == "sub"


async def test_a_private_repository_is_as_good_as_none(state_dir: Path) -> None:
    class Private(Quiet):
        def do_GET(self) -> None:
            self.answer(401, WWW_Authenticate='Basic realm="x"')

    with Server(Private) as server:
        async with room(state_dir, server.rewrite) as it:
            with pytest.raises(SourceUnavailable, match="or it is private"):
                await it.get()


async def test_redirects_are_not_followed(state_dir: Path, served: Server) -> None:
    class Redirector(Quiet):
        def do_GET(self) -> None:
            self.answer(301, Location=f"http://{served.address}{self.path}")

    with Server(Redirector) as server:
        async with room(state_dir, server.rewrite) as it:
            with pytest.raises(SourceUnavailable, match="has moved"):
                await it.get()
            assert server.asked != []
            assert served.asked == []


async def test_a_name_that_leads_into_the_own_network_is_refused(state_dir: Path, served: Server) -> None:
    port = served.address.rpartition(":")[2]

    async def rebinding(host: str, _: int) -> list[str]:
        return ["127.0.0.1"] if host == "evil.example.org" else ["140.82.121.4", "::1"]

    async with room(state_dir, {}, lookup=rebinding, allowed_schemes=("http", "https")) as it:
        for host in ("evil.example.org", "half.example.org"):
            for version in (None, "a" * 40):
                with pytest.raises(SourceRefused, match="not on the public Internet"):
                    await it.get(f"http://{host}:{port}/user/repo.git", version)
    assert served.asked == []


async def test_git_goes_where_a_name_was_found_to_lead(state_dir: Path, served: Server) -> None:
    port = served.address.rpartition(":")[2]
    async with room(state_dir, {}) as it:
        command = GitCommand(
            ["ls-remote", "--", f"http://name.invalid:{port}/user/repo", "HEAD"],
            leashes=it.repos,
            timeout_s=10,
            scheme="http",
            config=[("http.curloptResolve", f"name.invalid:{port}:127.0.0.1")],
        )
        assert (await command.result(it.sources._mirrors._threads)).endswith(b"\tHEAD\n")


async def test_git_speaks_the_permitted_transport_only(state_dir: Path, repository: Repository) -> None:
    async with room(state_dir, {}) as it:
        for url in (
            f"file://{repository.path}",
            str(repository.path),
            "ext::sh -c true",
            "http://127.0.0.1:1/x",
        ):
            command = GitCommand(["ls-remote", "--", url], leashes=it.repos, timeout_s=10, scheme="https")
            with pytest.raises(GitFailed, match="not allowed"):
                await command.result(it.sources._mirrors._threads)


@pytest.mark.parametrize(
    "lie",
    [
        b"001e# service=git-upload-pack\n0000zzzzgarbage",
        b"001e# service=git-upload-pack\n0000000eversion 2\n0000",
        b"001e# service=git-upload-pack\n0000"
        + b"0041"
        + b"a" * 40
        + b" refs/heads/../../x\0side-band\n0000",
        b"001e# service=git-upload-pack\n0000" + b"0030ERR \x1b]52;c;ZXZpbA==\x07 see file:///etc/x !!",
        b"\x00" * 100_000,
    ],
)
async def test_a_server_that_lies_is_believed_nothing(state_dir: Path, lie: bytes) -> None:
    class Liar(Quiet):
        def do_GET(self) -> None:
            self.answer(200, lie, Content_Type="application/x-git-upload-pack-advertisement")

        def do_POST(self) -> None:
            self.answer(200, lie, Content_Type="application/x-git-upload-pack-result")

    with Server(Liar) as server:
        async with room(state_dir, server.rewrite, timeout=5) as it:
            for version in (None, "a" * 40):
                with pytest.raises(SourceUnavailable) as refusal:
                    await it.get(version=version)
                assert refusal.value.message.isprintable()
            assert list(it.repos.iterdir()) == []


async def test_a_server_that_prints_without_end_is_cut_off(state_dir: Path) -> None:
    line = b"a" * 40 + b" refs/heads/" + b"x" * 3000 + b"\n"
    chunk = (f"{len(line) + 4:04x}".encode() + line) * 1000

    class Babbler(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            self.wfile.write(b"001e# service=git-upload-pack\n0000000eversion 1\n")
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(chunk)

    with Server(Babbler) as server:
        async with room(state_dir, server.rewrite, timeout=2) as it:
            with pytest.raises(IslandError):
                await it.get()
            assert not alive(mentioning=server.address)


async def test_git_runs_in_an_environment_of_ours_alone_and_cannot_fill_the_memory(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    async with room(state_dir, {}) as it:
        command = GitCommand(
            ["-c", "alias.tell=!env; ulimit -v", "tell"], leashes=it.repos, timeout_s=10, scheme="https"
        )
        *lines, limit = (await command.result(it.sources._mirrors._threads)).decode().splitlines()
    told = dict(line.split("=", 1) for line in lines)
    assert told["GIT_ALLOW_PROTOCOL"] == "https"
    assert told["HOME"] == "/dev/null"
    assert not {"SECRET", "GIT_SSL_NO_VERIFY", "VIRTUAL_ENV"} & set(told)
    assert int(limit) == 4 << 20


async def test_a_folder_that_outgrew_its_limit_fails_even_a_quick_command(state_dir: Path) -> None:
    (state_dir / "large").write_bytes(bytes(1000))
    (state_dir / "out").symlink_to("/")
    async with room(state_dir, {}) as it:
        for limit in (999, 100_000):
            command = GitCommand(
                ["version"], leashes=it.repos, timeout_s=10, watch=state_dir, watch_bytes=limit
            )
            if limit == 999:
                with pytest.raises(GitFailed, match="too_large"):
                    await command.result(it.sources._mirrors._threads)
            else:
                assert await command.result(it.sources._mirrors._threads)


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
