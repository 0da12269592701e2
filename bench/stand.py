"""The stand: a real island on a free port, the example repositories, and the binary that everybody runs."""

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
PATIENCE_S = 60.0
START_S = 1200.0
MOVE_S = 60.0
"""The first start compiles a part of Go's standard library."""


class Stand:
    """A folder with all that the bench needs, and the island of the moment."""

    def __init__(self, folder: Path) -> None:
        """`folder` must be open to other users: jails are some. What is there already is used again."""
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
        """An island with defaults but for `settings`; the block has it to itself."""
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
                process.wait(PATIENCE_S)

    def _settings(self, settings: dict[str, Any]) -> Path:
        file = self.folder / "skyisland.toml"
        self.port = _free_port()
        own = {
            "http_port": self.port,
            "state_dir": str(self.state),
            "admin_api_token": TOKEN,
            "git": {"rewrite": rewrite(self.repositories)},
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
        """One call as a client makes it; returns the answer."""
        reply: dict[str, Any] = self._ask("POST", PATH, body(package, call, **more))
        return reply

    def _ask(self, method: str, path: str, content: bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, content, {"X-Sky-Island-Token": TOKEN})
            answer = connection.getresponse()
            said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {said.decode(errors='replace')}")
        return json.loads(said)

    def snapshot(self) -> Any:
        return self.get("/api/v1/admin/snapshot")

    def settle(self) -> None:
        """Wait until the pool is full and nothing runs, so that one slice does not spill into the next."""

        def rests(status: Any) -> bool:
            moving = any(jail["state"] in ("dying", "creating") for jail in status["jails"])
            full = status["pool"]["size"] >= status["pool"]["wanted"]
            return status["running"] <= self._asleep and not moving and full

        self._until(rests)

    def warm_jails(self) -> list[int]:
        """The first process of each."""
        return [jail["pid"] for jail in self.snapshot()["jails"] if jail["state"] == "warm" and jail["pid"]]

    def helpers(self) -> list[int]:
        """Processes of the island that are no jail's, without the island's own."""
        inside = {pid for init in self.warm_jails() for pid in (init, *descendants(init))}
        return [pid for pid in descendants(self.pid) if pid not in inside]

    def http(self, *calls: tuple[str, str], package: str = "geohash", **more: Any) -> Http:
        """A load of these calls and how what they print begins, in turns; without any, the standard one."""
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
        """So many calls that sleep, each in its jail, for the length of the block."""
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
        until = time.monotonic() + MOVE_S
        while not fits(self.snapshot()):
            if time.monotonic() > until:
                raise SystemExit("the island does not get where the bench wants it")
            time.sleep(0.05)

    # The binary

    def binary(self) -> Path:
        """The artifact of the standard call, copied to where every peer can run it."""
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
        """The base system that the island's jails are made of."""
        return next(path for path in (self.state / "base").iterdir() if path.is_dir())


def body(package: str, call: str, **more: Any) -> bytes:
    return json.dumps({"url": f"{HOST}/{package}", "call": call, **more}).encode()


def standard_frame() -> bytes:
    """What the island writes to the binary for the standard call."""
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
