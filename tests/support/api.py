"""A real island of fake rooms, its API, and a real server for what only the wire can show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from msgspec import Struct

from api import Api, create_app
from api.serve import serve
from api.sockets import STALL_S, listen
from api.stream import Feed
from skyisland import fakes
from skyisland.drivers.fake import FakeClones, FakeJails, Script
from skyisland.events import Event, Events
from skyisland.fakes import FakeAddresses, FakeBuilds, FakeHistory, FakeSources
from skyisland.island import Island
from skyisland.jails.register import Jails
from skyisland.later.keeping import NotKept, Store
from skyisland.model import FunctionRequest
from skyisland.receipts.signing import Signer
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.rooms import AddressRoom, FleetRoom, SourceRoom
from skyisland.settings import Api as ApiSettings
from skyisland.status import Policy

TOKEN = "a token for tests é"
HEADER = "X-Sky-Island-Token"
ADMIN = {HEADER.encode(): TOKEN.encode()}
E = TypeVar("E", bound=Event)
CALL = {"url": "github.com/mmcloughlin/geohash", "call": "Encode(100.1, 80.9)"}
REQUEST = FunctionRequest(url=CALL["url"], call=CALL["call"])


class World(Struct):
    """An island and everything around it."""

    island: Island
    driver: FakeJails
    builds: FakeBuilds
    events: Events
    metrics: Metrics
    logs: LogRing
    app: Api

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client that reaches the application without a socket."""
        transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://island", **options) as client:
            yield client

    @asynccontextmanager
    async def served(self, *, stall_s: float = STALL_S, **options: Any) -> AsyncIterator[Server]:
        """The application on a socket of its own."""
        sock = await asyncio.to_thread(listen, "127.0.0.1", 0, stall_s=stall_s)
        stop = asyncio.Event()
        port = sock.getsockname()[1]
        task = asyncio.create_task(serve(self.app, sock, stop.wait, **options))
        server = Server(port=port, stop=stop, task=task)
        try:
            yield server
        finally:
            stop.set()
            await server.task

    async def next(self, kind: type[E]) -> E:
        """The next event of this kind."""
        told: asyncio.Future[E] = asyncio.get_running_loop().create_future()

        def tell(event: E) -> None:
            if not told.done():
                told.set_result(event)

        untap = self.events.tap(tell, kind)
        try:
            return await asyncio.wait_for(told, 20)
        finally:
            untap()


class Server(Struct):
    """A running server."""

    port: int
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, text: bytes) -> bytes:
        """Send bytes and return all that comes until the server closes."""
        reader, writer = await self.connect()
        writer.write(text)
        try:
            return await reader.read(-1)
        finally:
            writer.close()


def make_world(
    policy: Policy | None = None,
    settings: ApiSettings | None = None,
    token: str = TOKEN,
    addresses: AddressRoom | None = None,
    store: Store | NotKept | None = None,
    sources: SourceRoom | None = None,
    fleet: FleetRoom | None = None,
    signer: Signer | None = None,
    **feed: Any,
) -> World:
    events, driver, builds = Events(), FakeJails(), FakeBuilds()
    addresses = addresses or FakeAddresses()
    island = Island(
        name="t",
        version="0.1",
        policy=policy or fakes.policy(),
        events=events,
        sources=sources or FakeSources(),
        builds=builds,
        jails=Jails(driver, FakeClones(), addresses, events, island="t", uids=None),
        network=addresses,
        history=FakeHistory(events),
        store=store,
        fleet=fleet,
        signer=signer,
    )
    metrics, logs = Metrics(), LogRing()
    events.tap(metrics.fold)
    events.tap(logs.fold)
    app = create_app(
        island,
        token=token,
        token_header=HEADER,
        metrics=metrics,
        logs=logs,
        feed=Feed(events, island.pulse, **feed) if feed else None,
        settings=settings,
    )
    return World(
        island=island, driver=driver, builds=builds, events=events, metrics=metrics, logs=logs, app=app
    )


def answers(world: World, text: bytes, record: dict[str, Any], **script: Any) -> list[dict[str, Any]]:
    """Every function prints this and ends with this record; returns the frames that it gets."""
    frames: list[dict[str, Any]] = []

    def play(data: bytes) -> Script:
        frames.append(json.loads(data[4 : 4 + int.from_bytes(data[:4], "big")]))
        said = json.dumps(record).encode()
        mark = frames[-1]["nonce"].encode()
        return Script(stdout=b"%b%b%08x%08x%b" % (text, mark, len(text), len(said), said), **script)

    world.driver.script = play
    return frames
