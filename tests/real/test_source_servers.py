"""The source room against servers that serve, stall and lie."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from skyisland.errors import BadRequest, IslandError, SourceRefused, SourceUnavailable, TooBusy
from skyisland.events import SourceFetched
from skyisland.host import outbound
from skyisland.model import KnownCommit
from skyisland.sources.git import GitFailed
from skyisland.sources.remotes import LISTING_BYTES
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
    forge_lookup,
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
                      trust_s=1, known=type("Nothing", (), dict(get=lambda *_: None))())
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


async def test_a_page_that_answers_everything_hides_no_repository(
    state_dir: Path, repository: Repository
) -> None:
    class Groups(backend(state_dir / "srv")):  # type: ignore[misc]
        """A page for whoever asks for a group or a file of it, and for `repo` without `.git` at its end."""

        path: str

        def do_GET(self) -> None:
            if self.path.startswith(("/user/repo.git/", "/user/bare/")):
                self.path = self.path.replace("/repo.git/", "/repo/").replace("/bare/", "/repo/")
                super().do_GET()
            else:
                self.answer(200, b"<html>sign in</html>", Content_Type="text/html")

        do_POST = do_GET

    with Server(Groups) as server:
        async with room(state_dir, server.rewrite) as it:
            for url in ("git.test/user/repo/sub", "git.test/user/bare/sub"):
                source = await it.get(url)
                assert (source.url, source.package) == (url.removesuffix("/sub"), "sub")
            with pytest.raises(SourceUnavailable, match=r"git\.test/user is empty"):
                await it.get("git.test/user/nothing/at/all")


async def test_a_private_repository_is_as_good_as_none(state_dir: Path) -> None:
    class Private(Quiet):
        def do_GET(self) -> None:
            self.answer(401, WWW_Authenticate='Basic realm="x"')

    with Server(Private) as server:
        async with room(state_dir, server.rewrite) as it:
            with pytest.raises(SourceUnavailable, match="or it is private"):
                await it.get()


def redirector(to: str) -> type[Quiet]:
    """Sends requests for `/user/old` to `to`, and whatever else on and on to itself."""

    class Redirector(Quiet):
        def do_GET(self) -> None:
            old, _, rest = self.path.partition("/user/old")
            self.answer(301, Location=to + rest if not old else self.path)

    return Redirector


@pytest.mark.parametrize("where", ["127.0.0.1", "inner.test", "localhost"])
async def test_a_redirect_into_the_private_network_is_not_followed(
    state_dir: Path, repository: Repository, served: Server, forge: str, where: str
) -> None:
    inner = f"http://{where}:{served.address.rpartition(':')[2]}/user/repo"
    with Server(redirector(inner), forge) as server:
        # A Git left to itself looks at no address (`inner.test`, which only we know, it is told).
        plain = ["-c", f"http.curloptResolve=inner.test:{served.address.rpartition(':')[2]}:127.0.0.1"]
        listed = repository.git(*plain, "ls-remote", f"http://{server.address}/user/old", "HEAD")
        assert listed.endswith("HEAD")
        assert served.asked
        served.asked.clear()
        port = server.address.rpartition(":")[2]
        mine = {"https://git.test/": f"http://{server.address}/"}
        async with room(state_dir, mine, lookup=forge_lookup, allowed_schemes=("https", "http")) as it:
            # Neither a server that a caller chose sends us there, nor one that the operator did.
            for url in (f"http://forge.test:{port}/user/old//", "git.test/user/old//"):
                for version in (None, "a" * 40):
                    with pytest.raises(SourceRefused, match="not on the public Internet"):
                        await it.get(url, version)
    assert served.asked == []


async def test_a_redirect_to_the_same_host_or_a_public_one_is_followed(
    state_dir: Path, repository: Repository, forge: str
) -> None:
    class Renamed(backend(state_dir / "srv")):  # type: ignore[misc]
        def do_GET(self) -> None:
            if self.path.startswith("/user/old"):
                self.answer(301, Location=self.path.replace("/user/old", "/user/repo"))
            else:
                super().do_GET()

    with Server(Renamed, forge) as server:
        port = server.address.rpartition(":")[2]
        elsewhere = redirector(f"http://forge.test:{port}/user/old")
        with Server(elsewhere, forge) as first:
            urls = (f"http://forge.test:{first.address.rpartition(':')[2]}/user/old//", "git.test/user/old//")
            async with room(
                state_dir, server.rewrite, lookup=forge_lookup, allowed_schemes=("https", "http")
            ) as it:
                for url in urls:
                    source = await it.get(url)
                    assert (source.url, source.commit) == (
                        url.rstrip("/"),
                        repository.git("rev-parse", "HEAD"),
                    )
                # The new place is remembered, and the old one asked no more.
                first.asked.clear()
                await it.get(urls[0], refresh=True)
                assert first.asked == []


async def test_redirects_without_end_or_use_are_no_repository(state_dir: Path, forge: str) -> None:
    for to in ("/user/old", "https://", "http://user@forge.test/user/old", "ftp://forge.test/user/old"):
        with Server(redirector(to)) as server:
            async with room(state_dir, server.rewrite) as it:
                with pytest.raises(SourceUnavailable, match="has moved"):
                    await it.get("git.test/user/old//")
                # Two names are tried, in two forms: by Git four times, and three times asked where it leads.
                assert len(server.asked) <= 2 * 2 * (4 + 3)


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
        said = await it.git(
            "ls-remote",
            "--",
            f"http://name.invalid:{port}/user/repo",
            "HEAD",
            scheme="http",
            config=[("http.curloptResolve", f"name.invalid:{port}:127.0.0.1")],
        )
        assert said.endswith(b"\tHEAD\n")


async def test_git_speaks_the_permitted_transport_only(state_dir: Path, repository: Repository) -> None:
    async with room(state_dir, {}) as it:
        for url in (
            f"file://{repository.path}",
            str(repository.path),
            "ext::sh -c true",
            "http://127.0.0.1:1/x",
        ):
            with pytest.raises(GitFailed, match="not allowed"):
                await it.git("ls-remote", "--", url, scheme="https")


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


async def test_a_greedy_client_of_a_server_that_stalls_leaves_places_to_others(
    state_dir: Path, repository: Repository, served: Server
) -> None:
    with Server(Staller) as staller:
        rewrite = {"https://slow.test/": f"http://{staller.address}/", **served.rewrite}

        async def attacked(**limits: Any) -> tuple[bool, list[BaseException]]:
            """Whether a modest client is answered beside 40 stalled calls, and what these hear by then."""
            shutil.rmtree(state_dir / "repos", ignore_errors=True)
            shutil.rmtree(state_dir / "checkouts", ignore_errors=True)
            async with room(state_dir, rewrite, max_running=4, timeout=30, **limits) as it:
                greedy = [
                    asyncio.create_task(it.sources.resolve(f"slow.test/r{n}.git", None, client="greedy"))
                    for n in range(40)
                ]
                await stalled(staller)
                try:
                    async with asyncio.timeout(5):
                        await it.sources.checkout(
                            await it.sources.resolve(URL, None, client="modest"), client="modest"
                        )
                    answered = True
                except TimeoutError:
                    answered = False
                refused = [task.exception() for task in greedy if task.done()]
                for task in greedy:
                    task.cancel()
                await asyncio.wait(greedy)
                return answered, [error for error in refused if error is not None]

        assert await attacked(running_per_client=4) == (False, []), "where one client may take every place"
        answered, refused = await attacked(running_per_client=2, max_queued=10, queue_timeout=30)
        assert answered
        assert len(refused) >= 40 - 2 - 10
        assert all(isinstance(error, TooBusy) for error in refused)


async def test_who_waits_too_long_for_a_place_is_told_so(state_dir: Path) -> None:
    with Server(Staller) as server:
        async with room(state_dir, server.rewrite, running_per_client=1, queue_timeout=0.05) as it:
            first = asyncio.create_task(it.get(version="main"))
            await stalled(server)
            with pytest.raises(TooBusy, match=r"a place to fetch .* within 0\.05 s"):
                await it.get(version="other")
            first.cancel()
            await asyncio.wait([first])


async def test_names_that_stall_hold_up_no_other_and_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, real = threading.Event(), socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        if host.startswith("slow"):
            answer.wait(30)
            raise OSError("nobody knows")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        # The event loop's own threads, which its resolver uses, are soon taken.
        with ThreadPoolExecutor(4) as few:
            taken = [few.submit(slow, f"slow{n}.test", 1) for n in range(16)]
            assert not wait([few.submit(slow, "127.0.0.1", 1)], timeout=0.2).done
            stalled_ = [outbound.lookup(f"slow{n}.test", 1, timeout_s=0.3) for n in range(16)]
            found = asyncio.gather(*stalled_, return_exceptions=True)
            assert await outbound.lookup("127.0.0.1", 1, timeout_s=5) == ["127.0.0.1"]
            assert {type(error) for error in await found} == {TimeoutError}  # an OSError, by its number
            answer.set()
            assert all(isinstance(one.exception(), OSError) for one in taken)
    finally:
        answer.set()
