"""The test stand: a real island on a free port, the example repositories, and the binary of all peers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from bench.cpu import descendants
from bench.load import Connection, Http, post
from examples.publish import HOST, publish, rewrite
from skyisland.golang import harness
from skyisland.model import Call

TOKEN = "bench"  # noqa: S105 - of an island on loopback that lives for the bench
PATH = "/api/v1/function"
CALL = "Encode(57.64911, 10.40744)"
GEOHASH = "u4pruydqqvj8"
STOP_S = 60.0
"""Longest stop: jails.drain_timeout is 10 s."""
START_S = 1200.0
"""Longest start: the first one compiles a part of Go's standard library."""
SETTLE_S = 60.0
"""Longest wait for a state, such as a full pool."""


class Stand:
    """The folder with all that the bench needs, and the island that runs now."""

    def __init__(self, folder: Path) -> None:
        """`folder` must be readable for other users: jails run as such. State in it is reused."""
        self.folder = folder
        self.state = folder / "state"
        self.repositories = folder / "repositories"
        self.log = folder / "island.log"
        self.port = 0
        self.pid = 0
        self._asleep = 0
        shutil.rmtree(self.repositories, ignore_errors=True)
        self.repositories.mkdir(parents=True)
        publish(self.repositories)

    @contextmanager
    def island(self, **settings: Any) -> Iterator[Stand]:
        """Run an island with default settings, except `settings`, while the block runs."""
        file = self._settings(settings)
        with (
            self.log.open("wb") as log,
            subprocess.Popen(
                [_skyisland(), "-c", file, "serve", "--no-tui"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            ) as process,
        ):
            self.pid = process.pid
            try:
                self._until_up(process)
                yield self
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_S)

    def _settings(self, settings: dict[str, Any]) -> Path:
        file = self.folder / "skyisland.toml"
        self.port = _free_port()
        own = {
            "http_port": self.port,
            "state_dir": str(self.state),
            "admin_api_token": TOKEN,
            "git": {"rewrite": rewrite(self.repositories)},
            # An island that has been up for minutes has compiled the standard library; a new one would do so
            # while its peers are measured.
            "build": {"compile_ahead": False, **settings.pop("build", {})},
        }
        file.write_text(tomli_w.dumps({**own, **settings}))
        return file

    def _until_up(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                self.get("/healthcheck")
                return
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the island did not start; see {self.log}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    # Asking the island

    def get(self, path: str) -> Any:
        return self._ask("GET", path, b"")

    def call(self, package: str, call: str, **more: Any) -> dict[str, Any]:
        """Make one call over REST; return the answer."""
        reply: dict[str, Any] = self._ask("POST", PATH, body(package, call, **more))
        return reply

    def define(self, name: str, **definition: Any) -> None:
        """Have a name stand for a function."""
        self._ask("PUT", f"/api/v1/names/{name}", json.dumps(definition).encode())

    def _ask(self, method: str, path: str, content: bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, content, {"X-Sky-Island-Token": TOKEN})
            answer = connection.getresponse()
            reply = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {reply.decode(errors='replace')}")
        return json.loads(reply)

    def snapshot(self) -> Any:
        return self.get("/api/v1/admin/snapshot")

    def settle(self) -> None:
        """Wait until the pool is full and nothing runs, so that one measurement does not disturb the next."""

        def rests(status: Any) -> bool:
            moving = any(jail["state"] in ("dying", "creating") for jail in status["jails"])
            full = status["pool"]["size"] >= status["pool"]["wanted"]
            return status["running"] <= self._asleep and not moving and full

        self._until(rests)

    def warm_jails(self) -> list[int]:
        """The pid of the first process of each warm jail."""
        return [jail["pid"] for jail in self.snapshot()["jails"] if jail["state"] == "warm" and jail["pid"]]

    def helpers(self) -> list[int]:
        """The island's child processes outside jails."""
        inside = {pid for init in self.warm_jails() for pid in (init, *descendants(init))}
        return [pid for pid in descendants(self.pid) if pid not in inside]

    def http(self, *calls: tuple[str, str], package: str = "geohash", **more: Any) -> Http:
        """A load of these calls, in turn, each with the beginning of its output; or of the standard call."""
        wanted = calls or ((CALL, GEOHASH),)
        return Http(
            self.port,
            [
                (post(PATH, body(package, call, **more)), f'"data":"{printed}'.encode())
                for call, printed in wanted
            ],
        )

    @contextmanager
    def sleepers(self, number: int) -> Iterator[None]:
        """Keep a number of calls asleep, each in its jail, while the block runs."""
        request = post(PATH, body("trouble", "Sleep(1700000000000)"))
        self._asleep = number
        connections = []
        try:
            for begun in range(number):
                connections.append(Connection(self.port))
                connections[-1].send(request)
                if begun % 8 == 7 or begun == number - 1:
                    self._until(lambda status: status["running"] == len(connections))
            self.settle()
            yield
        finally:
            for connection in connections:
                connection.close()
            self._asleep = 0
            self.settle()

    def _until(self, fits: Callable[[Any], bool]) -> None:
        until = time.monotonic() + SETTLE_S
        while not fits(self.snapshot()):
            if time.monotonic() > until:
                raise SystemExit(f"the island did not reach the wanted state in {SETTLE_S:g} s")
            time.sleep(0.05)

    # The binary

    def binary(self) -> Path:
        """Copy the artifact of the standard call to where every peer can run it."""
        self.call("geohash", CALL)
        artifacts = self.get("/api/v1/admin/cache")["artifacts"]
        path = next(
            a["path"] for a in artifacts if a["url"] == f"{HOST}/geohash" and a["function"] == "Encode"
        )
        copy = self.folder / "function"
        shutil.copyfile(path, copy)
        copy.chmod(0o755)
        return copy

    @property
    def base(self) -> Path:
        """The base system of the island's jails."""
        return next(path for path in (self.state / "base").iterdir() if path.is_dir())


def body(package: str, call: str, **more: Any) -> bytes:
    return json.dumps({"url": f"{HOST}/{package}", "call": call, **more}).encode()


def standard_frame() -> bytes:
    """The frame that the island writes to the binary for the standard call."""
    arguments = tuple(CALL[len("Encode(") : -1].split(", "))
    nonce = base64.b16encode(os.urandom(16)).decode().lower()
    return harness.frame(Call(text=CALL, function="Encode", arguments=arguments), nonce)


def _skyisland() -> str:
    return str(Path(sys.executable).with_name("skyisland"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
