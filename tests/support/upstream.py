"""What sources come from, in tests: repositories, and servers that serve, stall and lie."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from skyisland.events import Event, Events
from skyisland.model import KnownCommit, Source
from skyisland.settings import Git
from skyisland.sources.git import GitCommand
from skyisland.sources.sources import Sources

URL = "github.com/user/repo"
DAY_S = 86400.0
GIT_UID = 1_953_000_000
"""As whom Git works for sources that root has."""
FORGE = "127.0.0.2"
"""An address of this host that tests take for one of the Internet."""


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


class CommitMemory:
    """Known commits in memory alone."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], KnownCommit] = {}

    def get(self, url: str, version: str) -> KnownCommit | None:
        return self.commits.get((url, version))

    def versions(self, url: str) -> list[str]:
        return [version for repository, version in self.commits if repository == url]

    async def put(self, url: str, version: str, known: KnownCommit) -> None:
        self.commits[url, version] = known


class Room:
    """Sources with what a test wants to see of it."""

    def __init__(self, state: Path, rewrite: dict[str, str], **options: Any) -> None:
        self.repos, self.checkouts = state / "repos", state / "checkouts"
        self.fetched: list[Event] = []
        events = Events()
        events.tap(self.fetched.append)
        settings = {
            key: options.pop(key)
            for key in (
                "timeout",
                "max_size",
                "max_files",
                "max_running",
                "running_per_client",
                "max_queued",
                "queue_timeout",
                "cache_limit",
                "allowed_schemes",
                "credentials",
            )
            if key in options
        }
        self.known = options.setdefault("known", CommitMemory())
        self.sources = Sources(
            Git(rewrite=rewrite, **settings),
            self.repos,
            self.checkouts,
            events=events,
            **{"trust_s": DAY_S, "uid": GIT_UID if os.geteuid() == 0 else None, **options},
        )

    async def get(self, url: str = URL, version: str | None = None, *, refresh: bool = False) -> Source:
        return await self.sources.checkout(await self.sources.resolve(url, version, refresh=refresh))

    async def git(self, *words: str, **options: Any) -> bytes:
        """What a command of Git says that runs as those of the sources do."""
        command = GitCommand(words, pid_files=self.repos, timeout_s=10, **options)
        with ThreadPoolExecutor(1) as threads:
            return await command.result(threads)

    def nothing_half_made(self) -> bool:
        """Neither pid file nor partial folder."""
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


def alive(*, mentioning: str) -> bool:
    """Whether a process has this in its command line."""
    return subprocess.run(["pgrep", "-f", mentioning], capture_output=True, check=False).returncode == 0


class Server:
    """A server on a loopback port for the length of a test. `asked` holds its requests."""

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler], address: str = "127.0.0.1") -> None:
        self.asked: list[str] = []
        self.stalled = threading.Event()
        self._server = ThreadingHTTPServer((address, 0), partial(handler, self))
        self._server.daemon_threads = True
        self.address = f"{address}:{self._server.server_port}"
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

        do_POST = do_GET

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


async def forge_lookup(host: str, _: int) -> list[str]:
    """Where the names of servers lead, on the Internet of a test."""
    return {"forge.test": [FORGE], "vanity.test": [FORGE], "inner.test": ["127.0.0.1"]}.get(host, [host])
