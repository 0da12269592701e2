"""The source room against servers that serve, stall and lie."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from skyisland.errors import BadRequest, IslandError, SourceRefused, SourceUnavailable
from skyisland.events import SourceFetched
from skyisland.model import KnownCommit
from skyisland.sources.git import GitCommand, GitFailed
from skyisland.sources.mirror import LISTING_BYTES
from tests.support.upstream import (
    URL,
    CommitMemory,
    Quiet,
    Repository,
    Room,
    Server,
    Staller,
    alive,
    backend,
    room,
    stalled,
)


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
from skyisland.sources.sources import Sources
async def main():
    sources = Sources(Git(rewrite={{rewrite}}), Path("{state_dir}/repos"), Path("{state_dir}/checkouts"),
                      trust_s=1, known=None)
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
            pid_files=it.repos,
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
            command = GitCommand(["ls-remote", "--", url], pid_files=it.repos, timeout_s=10, scheme="https")
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


async def test_a_listing_without_end_is_cut_off(
    state_dir: Path, repository: Repository, served: Server
) -> None:
    """`ls-remote` prints each reference that ends in the name asked for; a server can have any number."""
    commit = repository.git("rev-parse", "HEAD")
    references = "".join(
        f"create refs/heads/{number:05}/refs/heads/main {commit}\n" for number in range(5000)
    )
    repository.git("update-ref", "--stdin", stdin=references.encode())
    listed = repository.git("ls-remote", ".", "refs/heads/main")
    assert len(listed) > LISTING_BYTES, "without the limit, Git prints it all"
    async with room(state_dir, served.rewrite) as it:
        with pytest.raises(SourceRefused, match="lists more than"):
            await it.get(version="main")
        assert (await it.get(version=commit)).commit == commit
