"""A real island of fake rooms, its API on a socket, and an operator at a console."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec import structs
from textual.events import Key
from textual.keys import _character_to_key
from textual.pilot import Pilot

from api import Api, create_app
from api.serve import serve
from api.sockets import listen
from skyisland import fakes
from skyisland.drivers.fake import FakeClones, FakeJails, Script
from skyisland.events import AddressStateSet, ArtifactEvicted, Events
from skyisland.fakes import FakeAddresses, FakeBuilds, FakeHistory, FakeSources
from skyisland.island import Island
from skyisland.jails.register import Jails
from skyisland.model import Artifact, FunctionRequest, Invocation, Limits, Resolved
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.rooms import FleetRoom
from skyisland.status import AddressInfo, AddressState
from tui.console import Console
from tui.watch.port import Port

TOKEN = "a-token-for-tests"
HEADER = "X-Sky-Island-Token"
SLOW = FunctionRequest(url="github.com/user/repo", call="Sleep(60)")


class TrueSources(FakeSources):
    """Repositories whose commits, asked for by name, are themselves."""

    async def resolve(self, url: str, version: str | None, *, refresh: bool, client: str = "") -> Resolved:
        resolved = await super().resolve(url, version, refresh=refresh)
        whole = version is not None and len(version) == 40
        return structs.replace(resolved, commit=version) if whole else resolved


class TellingAddresses(FakeAddresses):
    """The pool, with the events that the real one publishes."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events

    async def set_state(self, ip: str, state: AddressState) -> AddressInfo:
        info = await super().set_state(ip, state)
        self.events.publish(AddressStateSet(ip=ip, state=str(state)))
        return info


class TellingBuilds(FakeBuilds):
    """The cache, with the events that the real one publishes."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events

    async def evict(self, key: str) -> Artifact:
        gone = await super().evict(key)
        told = ArtifactEvicted(key=key, url=gone.url, function=gone.function, reason="operator")
        self.events.publish(told)
        return gone


class World:
    """An island whose function `Sleep` runs until it is killed; every other one answers at once."""

    def __init__(self, name: str = "test", fleet: FleetRoom | None = None) -> None:
        self.events, self.ring = Events(), LogRing()
        self.driver = FakeJails(self._script)
        self.addresses = TellingAddresses(self.events)
        self.builds = TellingBuilds(self.events)
        self.calls: list[asyncio.Task[Invocation]] = []
        self.island = Island(
            name=name,
            version="0",
            policy=fakes.policy(limits=Limits(memory_bytes=64 << 20), exec_timeout_s=60),
            events=self.events,
            sources=TrueSources(),
            builds=self.builds,
            jails=Jails(self.driver, FakeClones(), self.addresses, self.events, island=name, uids=None),
            network=self.addresses,
            history=FakeHistory(self.events),
            fleet=fleet,
        )
        self.events.tap(self.ring.fold)

    @staticmethod
    def _script(data: bytes) -> Script:
        sleeps = b'"60"' in data or b"60 fn" in data  # in quotes: the frame's nonce may hold any digits
        return Script(duration_s=math.inf) if sleeps else Script(stdout=b"gxnpxr2bq7dt")

    def call(self, request: FunctionRequest = SLOW) -> asyncio.Task[Invocation]:
        """Somebody's call, on its way."""
        task = asyncio.create_task(self.island.invoke(request))
        self.calls.append(task)
        return task

    def app(self) -> Api:
        return create_app(self.island, token=TOKEN, token_header=HEADER, metrics=Metrics(), logs=self.ring)

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[str]:
        """The API on a socket; gives its URL."""
        app = self.app()
        sock = await asyncio.to_thread(listen, "127.0.0.1", port)
        stop = asyncio.Event()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        task = asyncio.create_task(serve(app, sock, stop.wait, grace_s=1.0))
        try:
            yield url
        finally:
            stop.set()
            await task


async def type_ahead(console: Console, *keys: str) -> None:
    """Give a console all these keys at once; returns when the last has done its work, or the console ends."""
    for key in keys:
        letter = key if len(key) == 1 else None
        console.post_message(Key(_character_to_key(letter) if letter else key, letter))
    done = asyncio.Event()
    console.call_later(done.set)
    while not done.is_set() and console.return_code is None:  # noqa: ASYNC110 - no event tells of its end
        await asyncio.sleep(0.005)


def text_of(console: Console) -> str:
    """What stands on the screen, as characters."""
    strips = console.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


class Operator:
    """Somebody at the console, who looks before going on."""

    def __init__(self, console: Console, pilot: Pilot[int]) -> None:
        self.console = console
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await type_ahead(self.console, *keys)

    async def sees(self, truth: Callable[[], object], within_s: float = 30.0) -> None:
        """Wait until `truth` holds."""
        deadline = time.monotonic() + within_s
        while not truth():
            assert time.monotonic() < deadline, f"it did not come true; the screen:\n{self.screen}"
            await self.pilot.pause(0.02)

    @property
    def screen(self) -> str:
        """What stands on the screen, as text."""
        return text_of(self.console)

    async def reads(self, text: str) -> None:
        """Wait until the screen says so."""
        await self.sees(lambda: text in self.screen)

    async def is_told(self, text: str) -> None:
        """Wait until a notification says so."""
        await self.sees(lambda: text in self.toasts)

    @property
    def toasts(self) -> str:
        return "\n".join(toast.message for toast in self.console._notifications)


@asynccontextmanager
async def operating(
    port: Port, *, readonly: bool = False, size: tuple[int, int] = (120, 35)
) -> AsyncIterator[Operator]:
    """A console that follows `port`, painting fast."""
    console = Console(port, readonly=readonly, refresh_s=0.1)
    async with console.run_test(size=size) as pilot:
        operator = Operator(console, pilot)
        yield operator
