"""Group W: the wire between islands, by the real server with the very files that `fleet init` writes.

`a` and `b` are nodes of the fleet; `b` is the one that an attacker has. `stranger` has a certificate of the
same authority, and an account of its own on the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.aio.msg import Msg

from skyisland.builds.exchange import Offer
from skyisland.cli import GlobalOptions, main
from skyisland.fleet.binaries import Binaries
from skyisland.fleet.buckets import NatsBucket
from skyisland.fleet.files import NatsFiles
from skyisland.fleet.fleet import Fleet, Origin
from skyisland.fleet.frames import pack
from skyisland.fleet.members import Pulse
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.subjects import Subjects
from skyisland.model import Invocation
from skyisland.rooms import Errand, Visit
from skyisland.settings import Fleet as FleetSettings
from skyisland.status import LineState, Vacancy
from tests.support.certificates import signed
from tests.support.fleets import NatsServer, free_port, newest_binary

HOST = "127.0.0.1"
A, B = Subjects("f", "a"), Subjects("f", "b")
MIB = 1 << 20


def init(folder: Path, *nodes: str, servers: tuple[str, ...] = (HOST,)) -> None:
    """`skyisland fleet init`, and the commands that it writes."""
    words = ["init", "f", "--output", str(folder), "--store", str(folder / "js")]
    words += ["--folder", str(folder / "servers" / servers[0])]
    words += [word for node in nodes for word in ("--node", node)]
    words += [word for server in servers for word in ("--server", server)]
    result = CliRunner().invoke(main.commands["fleet"], words, obj=GlobalOptions())
    assert result.exception is None, result.output
    subprocess.run(["sh", folder / "certificates.sh"], check=True, capture_output=True)


class Secured:
    """A server with what `fleet init` wrote for it, and another account beside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        init(folder, "a", "b")
        conf = (folder / "servers" / HOST / "nats.conf").read_text()
        init(folder, "a", "b", "stranger")
        other = 'accounts {\n  OTHER { users: [{ user: "CN=stranger,O=f" }] }'
        port = free_port()
        conf = conf.replace('"0.0.0.0:4222"', f'"{HOST}:{port}"').replace("accounts {", other, 1)
        self.server = NatsServer(newest_binary(), folder, port=port, config=conf)
        self.server.start()

    def tls(self, node: str) -> ssl.SSLContext:
        at = self.folder / "nodes" / node
        context = ssl.create_default_context(cafile=at / "ca.pem")
        context.load_cert_chain(at / "node.pem", at / "node.key")
        return context

    def settings(self, node: str) -> FleetSettings:
        at = self.folder / "nodes" / node
        return FleetSettings(
            name="f",
            node=node,
            servers=(f"tls://{HOST}:{self.server.port}",),
            tls_ca=str(at / "ca.pem"),
            tls_cert=str(at / "node.pem"),
            tls_key=str(at / "node.key"),
        )

    @asynccontextmanager
    async def client(self, node: str) -> AsyncIterator[tuple[Client, list[str]]]:
        """The library's own client with a node's certificate, and what the server said against it."""
        said: list[str] = []

        async def note(error: Exception) -> None:
            said.append(str(error))

        client = await nats.connect(
            f"tls://{HOST}:{self.server.port}",
            tls=self.tls(node),
            inbox_prefix=f"_INBOX.{node}".encode(),
            allow_reconnect=False,
            error_cb=note,
        )
        try:
            yield client, said
        finally:
            await client.close()

    def raw(self, node: str) -> ssl.SSLSocket:
        """A connection without any library."""
        plain = socket.create_connection((HOST, self.server.port), timeout=10)
        plain.recv(4096)  # INFO
        secure = self.tls(node).wrap_socket(plain, server_hostname=HOST)
        secure.sendall(b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\nPING\r\n')
        while b"PONG" not in secure.recv(4096):
            pass
        return secure


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("fleet"))
    yield made
    made.server.stop()


class Home:
    """An island that only says how much room it has."""

    go_version = "go1.25"

    def vacancy(self) -> Vacancy:
        return Vacancy(places=4, free=4)

    def has_room(self, client: str, *, ip4: bool = False) -> bool:
        return False

    async def receive(self, errand: Errand, visit: Visit) -> Invocation:
        raise AssertionError("there is no room")


@asynccontextmanager
async def island(secured: Secured, node: str = "a") -> AsyncIterator[Fleet]:
    """A node of the fleet, in it."""
    subjects = Subjects("f", node)
    line = NatsLine(secured.settings(node), subjects.inbox)
    await line.start(10)
    assert line.state is LineState.joined, line.why
    fleet = Fleet(subjects, line, Origin(platform="linux-amd64"))
    await fleet.open()
    await fleet.join(Home())
    try:
        yield fleet
    finally:
        await fleet.leave()
        await line.close()


def pulse(node: str) -> bytes:
    vacancy = Vacancy(places=999, free=999)
    said = Pulse(
        node=node, life="f" * 16, started_at=0.0, sent_at=0.0, vacancy=vacancy, platform="linux-amd64"
    )
    return pack(said)


async def until(true: Callable[[], object]) -> None:
    """Wait until a condition holds, ten seconds at most."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.case("W1")
async def test_a_node_cannot_say_a_pulse_of_another(secured: Secured) -> None:
    async with island(secured) as a, secured.client("b") as (b, said):
        await b.publish(A.pulse, pulse("a"))
        await until(lambda: said)
        assert "permissions violation for publish" in said[0].lower()
        await b.publish(B.pulse, pulse("a"))
        await b.publish(B.pulse, b"\x01garbage")
        await b.publish(B.pulse, pulse("b"))
        await until(lambda: a.members.get("b") is not None)
        assert a.members.bad == 2
        known = a.members.get("a")
        assert known is None or known.vacancy.places == 4
        assert a.line.state is LineState.joined


@pytest.mark.case("W2")
async def test_a_node_hears_nothing_that_is_anothers(secured: Secured) -> None:
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    async with island(secured) as a, secured.client("b") as (b, said):
        foreign = [
            A.at("a", "call"),
            A.at("a", ">"),
            f"{A.inbox}.>",
            "_INBOX.>",
            ">",
            "sky.>",
            "$JS.>",
            "$KV.>",
        ]
        for subject in foreign:
            await b.subscribe(subject, cb=hear)
        await until(lambda: len(said) == len(foreign))
        async with secured.client("a") as (client, _):
            await client.publish(A.at("a", "call"), b"secret arguments")
            await client.publish(f"{A.inbox}.1", b"a secret answer")
            await client.flush()
        await b.flush()
        assert heard == []
        await until(lambda: a.up)


@pytest.mark.case("W2")
async def test_answers_go_to_who_asked_and_nowhere_else(secured: Secured) -> None:
    heard: list[bytes] = []
    reply = f"{A.inbox}.call.1"
    async with secured.client("b") as (b, said), secured.client("a") as (a, _):

        async def answer(message: Msg) -> None:
            for word in (b"began", b"alive", b"done"):
                await b.publish(message.reply, word)

        async def hear(message: Msg) -> None:
            heard.append(message.data)

        await b.subscribe(B.at("b", "call"), cb=answer)
        await b.flush()
        await a.subscribe(f"{A.inbox}.call.*", cb=hear)
        await b.publish(reply, b"nobody asked")
        await until(lambda: said)
        assert "permissions violation for publish" in said[0].lower()
        await a.publish(B.at("b", "call"), b"run this", reply=reply)
        await until(lambda: len(heard) == 3)
        assert heard == [b"began", b"alive", b"done"]
        await b.publish(f"{A.inbox}.call.2", b"another's answer")
        await until(lambda: len(said) == 2)
        assert len(heard) == 3


@pytest.mark.case("W3")
async def test_another_account_of_the_server_hears_and_says_nothing(secured: Secured) -> None:
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    async with secured.client("stranger") as (stranger, _):
        await stranger.subscribe(">", cb=hear)
        await stranger.flush()
        async with island(secured) as a:
            await stranger.publish(A.of("pulse", "stranger"), pulse("stranger"))
            await stranger.publish(A.at("a", "call"), b"x")
            await stranger.flush()
            await until(lambda: a.members.get("a") is not None)
            assert a.members.get("stranger") is None
        with pytest.raises((nats.errors.Error, nats.js.errors.Error)):
            await stranger.jetstream(timeout=1).account_info()
        of_the_fleet = {subject for subject in heard if subject.startswith("sky.")}
        assert of_the_fleet == {A.of("pulse", "stranger"), A.at("a", "call")}, "its own words alone"


@pytest.mark.case("W4")
async def test_nobody_comes_in_without_a_certificate_of_a_node(secured: Secured, tmp_path: Path) -> None:
    url = f"tls://{HOST}:{secured.server.port}"

    async def come(context: ssl.SSLContext) -> None:
        with pytest.raises((nats.errors.Error, ssl.SSLError, ConnectionError, OSError, TimeoutError)):
            await nats.connect(url, tls=context, allow_reconnect=False, connect_timeout=2)

    ca = secured.folder / "nodes" / "a" / "ca.pem"
    await come(ssl.create_default_context(cafile=ca))
    mine = signed(tmp_path, "a")
    own = ssl.create_default_context(cafile=ca)
    own.load_cert_chain(mine.certificate, mine.key)
    await come(own)
    server = ssl.create_default_context(cafile=ca)
    at = secured.folder / "servers" / HOST
    server.load_cert_chain(at / "server.pem", at / "server.key")  # of the authority, and no node's
    await come(server)


@pytest.mark.case("W5")
async def test_a_message_that_is_too_long_costs_its_sender_the_connection(secured: Secured) -> None:
    async with island(secured) as a:
        with secured.raw("b") as b:
            with contextlib.suppress(OSError):
                b.sendall(b"PUB %b 5000000\r\n" % B.of("hungup").encode() + bytes(5_000_000) + b"\r\n")
            left = b""
            with contextlib.suppress(OSError):
                while data := b.recv(4096):
                    left += data
            assert b"Maximum Payload Violation" in left or left == b""
        await until(lambda: a.up)


@pytest.mark.case("W6")
async def test_a_node_that_does_not_read_is_cut_off_and_holds_nobody_up(secured: Secured) -> None:
    async with island(secured) as a, secured.client("a") as (client, _):
        with secured.raw("b") as b:
            b.sendall(b"SUB %b 1\r\nPING\r\n" % A.hung_up.encode())
            while b"PONG" not in b.recv(4096):
                pass
            for _ in range(20):
                await client.publish(A.hung_up, bytes(3 * MIB))
                await client.flush(timeout=10)

            def rest() -> int:
                count = 0
                with contextlib.suppress(OSError):
                    while data := b.recv(1 << 16):
                        count += len(data)
                return count

            assert await asyncio.to_thread(rest) < 60 * MIB, "all of it was kept for who does not read"
        await until(lambda: a.up)


@pytest.mark.case("W7")
async def test_a_node_cannot_take_a_stream_away(secured: Secured) -> None:
    async with secured.client("a") as (a, _), secured.client("b") as (b, said):
        await a.jetstream().add_stream(name="SKY_T", subjects=[A.kept("t", ">")])
        with pytest.raises((nats.errors.Error, nats.js.errors.Error)):
            await b.jetstream(timeout=0.3).delete_stream("SKY_T")
        assert "permissions violation" in said[0].lower()
        assert (await a.jetstream().stream_info("SKY_T")).config.name == "SKY_T"


@pytest.mark.case("W15")
async def test_a_node_says_what_it_compiled_under_its_own_name_alone(secured: Secured) -> None:
    """The islands' own way through the same permissions: a lease, the bytes, who compiled them."""
    async with island(secured, "a") as a, secured.client("b") as (b, said):
        assert isinstance(a.line, NatsLine)
        built = NatsBucket(a.line, A.bucket("BUILT"), replicas=1, keep_s=60)
        leases = NatsBucket(a.line, A.bucket("LEASE"), replicas=1, keep_s=60)
        files = NatsFiles(a.line, A.bucket("BIN"), keep_s=60, limit_bytes=MIB)
        binaries = Binaries(A, a.line, leases, built, files, verify=1)
        file, data = secured.folder / "binary", b"compiled"
        file.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        offer = Offer(
            sha256=sha256, size_bytes=8, package_name="p", build_s=1, built_at=1, go_version="go1.25"
        )
        async with binaries.turn("key"):
            await binaries.offer("key", offer, file)
        assert await binaries.find("key") == offer
        await b.publish(f"$KV.{A.bucket('BUILT')}.key.a", pack(offer))
        await until(lambda: said)
        assert "permissions violation for publish" in said[0].lower()
        await b.publish(f"$KV.{A.bucket('BUILT')}.key.b", pack(offer))
        await b.flush()
        assert len(said) == 1


@pytest.mark.case("W8")
def test_a_node_cannot_pretend_to_be_a_server_of_the_cluster(tmp_path: Path) -> None:
    hosts = (HOST, "127.0.0.2", "127.0.0.3")
    init(tmp_path, "a", "b", servers=hosts)
    assert "replicas = 3" in (tmp_path / "nodes" / "a" / "fleet.toml").read_text()
    conf = (tmp_path / "servers" / HOST / "nats.conf").read_text()
    port, route = free_port(), free_port()
    conf = conf.replace("0.0.0.0:4222", f"{HOST}:{port}").replace("0.0.0.0:6222", f"{HOST}:{route}")
    server = NatsServer(newest_binary(), tmp_path, port=port, config=conf)
    server.start()
    try:
        for certificate, comes_in in (("nodes/b/node", False), ("servers/127.0.0.2/server", True)):
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            context.load_cert_chain(tmp_path / f"{certificate}.pem", tmp_path / f"{certificate}.key")
            assert opens_a_route(context, route) is comes_in
    finally:
        server.stop()


def opens_a_route(context: ssl.SSLContext, port: int) -> bool:
    """Whether a server takes the one with this certificate for another server."""
    said = b""
    with context.wrap_socket(socket.create_connection((HOST, port), 10), server_hostname=HOST) as route:
        route.sendall(b'CONNECT {"name":"x","cluster":"f"}\r\nPING\r\n')
        while b"Authorization Violation" not in said and b"PONG" not in said:
            said += (got := route.recv(4096))
            if not got:
                break
    return b"PONG" in said
