"""The line to real servers: what goes over it, and what becomes of it when they go and come back."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import Signals

import pytest

from skyisland.errors import SettingsError
from skyisland.fleet.buckets import Entry, NatsBucket
from skyisland.fleet.files import PIECE_BYTES, NatsFiles
from skyisland.fleet.fleet import Fleet, Origin
from skyisland.fleet.line import Away, Message, Nobody, gather, request, serve
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.subjects import Subjects
from skyisland.model import Invocation
from skyisland.rooms import Errand, Visit
from skyisland.settings import Fleet as FleetSettings
from skyisland.status import LineState, Vacancy
from tests.support.fleets import NatsServer, free_port, newest_binary


@asynccontextmanager
async def line_to(server: NatsServer, fleet: str, node: str) -> AsyncIterator[NatsLine]:
    line = NatsLine(server.settings(fleet, node), Subjects(fleet, node).inbox)
    await line.start(5)
    try:
        yield line
    finally:
        await line.close()


async def reaches(line: NatsLine, state: LineState) -> None:
    async with asyncio.timeout(10):
        while line.state is not state:
            line.changed.clear()
            await line.changed.wait()


async def test_what_goes_over_it(nats_server: NatsServer, fleet_name: str) -> None:
    async with line_to(nats_server, fleet_name, "a") as a, line_to(nats_server, fleet_name, "b") as b:
        assert (a.state, a.largest_bytes, a.why) == (LineState.joined, 4 << 20, "")
        subjects = Subjects(fleet_name, "a")
        echo, one = subjects.at("b", "echo"), subjects.of("one")

        async def answer(message: Message) -> bytes:
            return message.data

        await serve(b, echo, answer)
        large = bytes(2_000_000)
        assert await request(a, echo, large, within_s=5) == large
        with pytest.raises(Nobody):
            await request(a, subjects.at("c", "echo"), b"", within_s=5)
        heard: list[bytes] = []
        for line in (a, b):
            await line.listen(one, lambda message: heard.append(message.data), queue="islands")
            await serve(line, subjects.of("all"), answer)
        await asyncio.gather(a.client.flush(), b.client.flush())
        for number in range(20):
            await a.publish(one, bytes((number,)))
        assert await gather(a, subjects.of("all"), b"x", within_s=5, most=2) == [b"x", b"x"]
        assert len(heard) == 20
        js = a.client.jetstream()
        assert (await js.account_info()).limits is not None


async def test_a_bucket_keeps_small_things(nats_server: NatsServer, fleet_name: str) -> None:
    async with line_to(nats_server, fleet_name, "a") as line:
        name = Subjects(fleet_name, "a").bucket("TEST")
        bucket, other = (NatsBucket(line, name, replicas=1, keep_s=60) for _ in range(2))
        first = await bucket.create("k", b"1")
        assert first is not None
        assert await other.create("k", b"2") is None
        assert await other.get("k") == Entry(b"1", first)
        second = await other.update("k", b"2", first)
        assert second is not None
        assert await bucket.update("k", b"3", first) is None
        assert not await bucket.delete("k", first)
        assert await bucket.delete("k", second)
        assert (await bucket.get("k"), await bucket.get("none")) == (None, None)
        assert await bucket.create("k", b"4") is not None
        for word in ("a", "b", "gone"):
            await bucket.put(f"many.{word}", word.encode())
        await bucket.put("many", b"")
        await bucket.put("many.a.b", b"")
        await bucket.delete("many.gone")
        found = await other.below("many")
        assert {word: entry.value for word, entry in found.items()} == {"a": b"a", "b": b"b"}


async def test_files_come_back_as_they_went(nats_server: NatsServer, fleet_name: str, tmp_path: Path) -> None:
    async with line_to(nats_server, fleet_name, "a") as line:
        name = Subjects(fleet_name, "a").bucket("BIN")
        files, others = (NatsFiles(line, name, keep_s=60, limit_bytes=16 << 20) for _ in range(2))
        assert not await files.has("none")
        for size in (0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 7):
            data = random.Random(size).randbytes(size)  # noqa: S311
            sha256 = hashlib.sha256(data).hexdigest()
            source, target = tmp_path / sha256, tmp_path / f"got {sha256}"
            source.write_bytes(data)
            await files.put(sha256, source)
            assert await others.has(sha256)
            assert (await others.get(sha256, target, size)).hex() == sha256
            assert target.read_bytes() == data
        with pytest.raises(Away, match="longer than its island said"):
            await files.get(sha256, tmp_path / "short", size - 1)
        with pytest.raises(Away):
            await files.get("none", tmp_path / "none", 1)


async def test_it_comes_back_with_all_that_was_listened_to(own_server: NatsServer) -> None:
    """What is published meanwhile is refused, and not sent later."""
    async with line_to(own_server, "f", "a") as line:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        again = asyncio.Event()

        async def joined() -> None:
            again.set()

        await line.whenever_joined(joined)
        again.clear()
        await line.listen("x", lambda message: heard.put_nowait(message.data))
        own_server.stop(Signals.SIGKILL)
        await reaches(line, LineState.away)
        later = await line.listen("y", lambda message: heard.put_nowait(message.data))
        with pytest.raises(Away):
            await line.publish("x", b"too early")
        with pytest.raises(Away):
            _ = line.client
        own_server.start()
        await reaches(line, LineState.joined)
        await again.wait()
        await line.publish("x", b"x")
        await line.publish("y", b"y")
        assert [await heard.get(), await heard.get()] == [b"x", b"y"]
        await later.end()
        await later.end()


async def test_an_island_starts_without_servers_and_joins_when_they_are_there(tmp_path: Path) -> None:
    server = NatsServer(Path("/nonexistent"), tmp_path, port=free_port())
    line = NatsLine(server.settings("f", "a"), "_INBOX.a")
    fleet = Fleet(Subjects("f", "a"), line, Origin(platform="linux-amd64"))

    class Home:
        go_version = "go1.25"

        def vacancy(self) -> Vacancy:
            return Vacancy(places=1, free=1)

        def has_room(self, client: str, *, ip4: bool = False) -> bool:
            return False

        async def receive(self, errand: Errand, visit: Visit) -> Invocation:
            raise AssertionError

    await line.start(0.05)
    await fleet.open()
    pulsed = asyncio.Event()
    await line.listen(fleet.subjects.pulses, lambda _: pulsed.set())
    await fleet.join(Home())
    try:
        assert (line.state, fleet.up) == (LineState.connecting, False)
        server.binary = newest_binary()
        server.start()
        await reaches(line, LineState.joined)
        async with asyncio.timeout(5):
            await pulsed.wait()
        assert (fleet.up, fleet.members.nodes()) == (True, ["a"])
    finally:
        await fleet.leave()
        await line.close()
        server.stop()
    assert fleet.status().state is LineState.closed


async def test_an_old_server_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"proto":1}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(old, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        settings = FleetSettings(name="f", node="a", servers=(f"nats://127.0.0.1:{port}",))
        line = NatsLine(settings, "_INBOX.a")
        await line.start(5)
        assert line.state is LineState.refused
        assert line.why == (
            f"its server 127.0.0.1:{port} (2.9.10) is older than 2.10.25; install a newer nats-server"
        )
        await line.close()


async def test_a_certificate_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    settings = FleetSettings(
        name="f", node="a", servers=("tls://127.0.0.1:1",), tls_ca=str(tmp_path / "absent.pem")
    )
    with pytest.raises(SettingsError, match=r"absent\.pem cannot be used"):
        await NatsLine(settings, "_INBOX.a").start(1)
