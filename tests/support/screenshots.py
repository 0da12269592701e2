"""The pictures that README.md and docs/ show: an attached console on a real island, with real failures.

python -m tests.support.screenshots [FOLDER]     PNG into screenshots/, by a headless Chromium

Root starts an island of its own on the examples. Callers keep calling it, well and badly, while an operator
goes from view to view. All that the pictures show happened; so no two runs give the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from api import create_app
from api.serve import serve
from api.sockets import listen
from examples import publish
from skyisland.events import Events
from skyisland.model import FunctionRequest
from skyisland.record.logs import LogRing
from skyisland.record.metrics import Metrics
from skyisland.settings import Settings
from skyisland.wiring import opened as opened_island
from tests.support import islands
from tests.support.browser import opened, served
from tests.support.daemon import HOST, TOKEN, Daemon, copy_of
from tests.support.operating import HEADER, Operator
from tests.support.pictures import draw_png
from tests.support.places import ROOT
from tui.console import Console
from tui.watch.inprocess import InProcessPort
from tui.watch.remote import RemotePort

WATCHER = "only-to-watch-0123456789"
FOLDER = Path("/var/tmp/skyisland")
"""Where the island lies, for as long. Pictures show the path, so it is the same on every machine."""
USUAL = (120, 35)
WATCHED_S = 75.0
"""How long the callers call before the first picture: the charts reach back so far."""
NAMES: dict[str, dict[str, Any]] = {
    "encode": {"url": f"{HOST}/geohash", "function": "Encode", "slo": {"latency_ms": 50, "target": 0.99}},
    "greet": {"url": f"{HOST}/greeting", "function": "Hello", "pin": True},
    "hello": {"url": f"{HOST}/greeting", "function": "Hello"},
    "nap": {"url": f"{HOST}/trouble", "function": "Sleep", "timeout_s": 0.5},
    "year": {"url": f"{HOST}/numerals", "function": "Year", "concurrency": 8, "warm": {"min": 1}},
}
PLAIN = (
    (22, {"url": f"{HOST}/geohash", "call": "Encode(48.8584, 2.2945)"}),
    (10, {"url": f"{HOST}/geohash", "call": "Encode(57.64911, 10.40744)"}),
    (8, {"url": f"{HOST}/geohash", "call": 'Decode("u09tunquc")'}),
    (14, {"url": f"{HOST}/greeting", "call": 'Hello("Ada")'}),
    (8, {"url": f"{HOST}/textkit", "call": 'Join([]string{"sky", "island"}, " ")'}),
    (6, {"url": f"{HOST}/textkit/slug", "call": 'Make("A real island")'}),
    (6, {"url": f"{HOST}/numerals", "call": "Year(1969)"}),
    (6, {"url": f"{HOST}/netkit", "call": "Addresses()", "ip4": True}),
    (4, {"url": f"{HOST}/trouble", "call": "Sleep(700000000)"}),
    (2, {"url": f"{HOST}/trouble", "call": 'Panic("no such station")'}),
    (2, {"url": f"{HOST}/trouble", "call": "Exit(3)"}),
    (1, {"url": f"{HOST}/trouble", "call": "Hog(512)"}),
    (1, {"url": f"{HOST}/textkit", "call": 'Number("forty")'}),
    (1, {"url": f"{HOST}/broken", "call": "F()"}),
    (1, {"url": f"{HOST}/geohash", "call": "Encod(48.8584, 2.2945)"}),
)
NAMED = (
    (8, "encode", [48.8584, 2.2945]),
    (5, "greet", ["Grace"]),
    (3, "year", [2026]),
    (1, "nap", [3_000_000_000]),
)
LATER: tuple[dict[str, Any], ...] = (
    {"url": f"{HOST}/geohash", "call": "Encode(48.8584, 2.2945)"},
    {"url": f"{HOST}/greeting", "call": 'Hello("later")'},
    {"url": f"{HOST}/numerals", "call": "Year(1969)"},
    {"url": f"{HOST}/trouble", "call": 'Panic("no such station")'},
    {"url": f"{HOST}/trouble", "call": "Exit(3)"},
    {"url": f"{HOST}/trouble", "call": "Sleep(500000000000)"},
    {"url": f"{HOST}/textkit", "call": "Words()", "stdin": "what answers later"},
)


@contextmanager
def island() -> Iterator[Daemon]:
    """A real one in a folder of its own; it knows the examples, and a package that does not compile."""
    folder = FOLDER
    folder.mkdir()
    folder.chmod(0o755)  # jails run as other users than root, and must reach the state folder
    try:
        repositories = folder / "repositories"
        repositories.mkdir()
        publish.publish(repositories)
        islands.make_repository(repositories / "broken", islands.EXTRA["broken"])
        islands.prepare(folder, folder / "prepared")
        copy_of(folder / "prepared", folder / "state", share=False)
        later: Any = {"async": {"backoff": "20s"}}  # long enough to be seen to wait
        with Daemon(
            folder,
            publish.rewrite(repositories),
            log={"level": "info"},
            **later,
            jails={"exec_timeout": "15m", "drain_timeout": "1s"},
            limits={"memory": "128m"},
            network={"ip4": {"bridge": "skyp", "cidr": "10.68.0.0/28"}},
            api={"operators": {"watcher": WATCHER}},
        ) as running:
            yield running
    finally:
        shutil.rmtree(folder)


class Callers:
    """Whoever calls the island: some at a steady pace, some whose calls take long."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._random = random.Random(15)  # noqa: S311 - not a secret
        self._enough = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        for name, definition in NAMES.items():
            self._operate("PUT", f"names/{name}", definition)
        self._operate("PUT", "names/encode", {**NAMES["encode"], "concurrency": 16})
        self._operate("POST", "names/hello/pause", {})
        self._operate("PUT", "admin/ips", {"ip": "10.68.0.4", "state": "unavailable"})
        self.call_later()
        for seconds in (600, 700):
            self._start(self._sleep, f"Sleep({seconds}000000000)", "trouble", False)
            self._start(self._sleep, f"Sleep({seconds + 5}000000000)", "trouble", True)
        for who in ("Ada", "Grace"):
            self._start(self._sleep, f'Wait("{who}", 800000000000)', "web", False)
        for _ in range(3):
            self._start(self._keep_calling)

    def compile(self) -> None:
        """One call that has every phase."""
        self._daemon.post(url=f"{HOST}/textkit", call='New("sky").Repeat(3).String()')

    def call_later(self) -> None:
        for call in LATER:
            self._daemon.request(
                "POST", "/api/v1/function", content=json.dumps(call), headers={"Prefer": "respond-async"}
            )

    def _operate(self, method: str, path: str, body: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self._daemon.port}/api/v1/{path}"
        reply = self._daemon.admin.request(method, url, json=body)
        assert reply.is_success, reply.text

    def end(self) -> None:
        """Call no more. Calls that are under way end with the island."""
        self._enough.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., object], *words: object) -> None:
        thread = threading.Thread(target=work, args=words)
        thread.start()
        self._threads.append(thread)

    def _sleep(self, call: str, package: str, ip4: bool) -> None:
        more = {"ip4": True} if ip4 else {}
        body = json.dumps({"url": f"{HOST}/{package}", "call": call, **more})
        with suppress(httpx.HTTPError):  # the island ends before the call
            self._daemon._client.post("/api/v1/function", content=body, timeout=900)

    def _keep_calling(self) -> None:
        weights = [one[0] for one in (*PLAIN, *NAMED)]
        while not self._enough.wait(self._random.expovariate(1.5)):
            (one,) = self._random.choices((*PLAIN, *NAMED), weights)
            with suppress(httpx.HTTPError):
                if len(one) == 2:
                    self._daemon.post(**one[1])
                else:
                    body = json.dumps({"args": one[2]})
                    self._daemon.request("POST", f"/api/v1/names/{one[1]}", content=body)


class Photographer:
    """An operator at a console on the island, who keeps what stands on the screen."""

    def __init__(self, operator: Operator, folder: Path) -> None:
        self.operator = operator
        self.folder = folder

    async def keep(self, name: str, *sizes: tuple[int, int]) -> None:
        console = self.operator.console
        for size in sizes or (USUAL,):
            await self.operator.pilot.resize_terminal(*size)
            await self.operator.press()
            await asyncio.sleep(1.2)  # charts and frame are drawn once a second
            suffix = f"-{size[0]}x{size[1]}" if len(sizes) > 1 else ""
            target = self.folder / f"{name}{suffix}.png"
            await asyncio.to_thread(draw_png, console.export_screenshot(title="Sky Island"), target)
            print(target, flush=True)
        if sizes:
            await self.operator.pilot.resize_terminal(*USUAL)

    async def show(self, name: str, *keys: str, sizes: tuple[tuple[int, int], ...] = ()) -> None:
        """Press the keys, keep the screen, and go back to the Overview."""
        await self.operator.press(*keys)
        await asyncio.sleep(0.8)  # what the view asks the island for
        await self.keep(name, *sizes)
        await self.home()

    async def find(self, call: str) -> None:
        """Go down the requests to the first one of this call."""
        for _ in range(200):  # not the top one, which is that of the latest call
            await self.operator.press("down")
            await self.operator.pilot.pause(0.05)
            if call in self.operator.screen.partition("Request  inv-")[2]:
                return
        raise AssertionError(f"no {call} among the requests")

    async def home(self) -> None:
        await self.operator.press("escape", "escape", "escape", "1")


Work = Callable[[Photographer], Awaitable[None]]


async def attached(
    daemon: Daemon,
    folder: Path,
    work: Work,
    *,
    token: str = TOKEN,
    plain: bool = False,
    readonly: bool = False,
) -> None:
    """Have `work` done at a console that is live, or refused."""
    port = RemotePort(f"http://127.0.0.1:{daemon.port}", token=token)
    console = Console(port, ascii=plain, readonly=readonly)
    async with console.run_test(size=USUAL) as pilot:
        operator = Operator(console, pilot)
        await operator.sees(lambda: console.station.connection.state in ("live", "unauthorized"))
        await work(Photographer(operator, folder))


async def _views(at: Photographer, callers: Callers) -> None:
    await asyncio.to_thread(callers.begin)
    await asyncio.sleep(WATCHED_S)
    await at.keep("overview", (80, 24), (140, 40), (200, 60))
    await at.show("jails", "2")
    await at.show("ips", "3", "down", "down")
    await at.show("cache", "4", "down")
    await asyncio.to_thread(callers.compile)
    await asyncio.sleep(3)
    await at.operator.press("5")
    await at.find("textkit.New")
    await at.keep("requests")
    await at.home()
    await at.show("logs", "6")
    await at.show("host", "7")
    await at.show("called", "8")
    await at.show("names", "9")
    await asyncio.to_thread(callers.call_later)
    await at.operator.press("0")
    await at.operator.reads("queued")
    await at.show("calls", "down", "down")
    await at.show("address", "3", "up", "s")
    await at.show("evict", "4", "D")
    await at.show("help", "question_mark")
    await at.show("zoom", "tab", "z")
    await at.operator.press("z")
    await at.keep("small", (50, 12))
    await at.operator.press("5")
    await at.find("geohash.Encode(4")
    await at.show("invoke", "i", "ctrl+r")
    await at.show("kill", "2", "space", "space", "K")


async def _quiet(at: Photographer) -> None:
    await at.keep("empty")
    await at.operator.press("i", *f"{HOST}/geohash", "enter")
    await at.operator.reads("EncodeWithPrecision")
    await at.operator.press("down")
    await at.keep("functions")


async def _lost(at: Photographer, daemon: Daemon) -> None:
    """Held up, so that it says nothing; then at its end."""
    await asyncio.sleep(15)
    daemon.signal(signal.SIGSTOP)
    await asyncio.sleep(12)
    await at.keep("stale")
    daemon.signal(signal.SIGCONT)
    await asyncio.to_thread(daemon.stop)
    await asyncio.sleep(12)
    await at.keep("down")


async def _keep(name: str, at: Photographer, *keys: str, watched_s: float = 0) -> None:
    await asyncio.sleep(watched_s)
    await at.show(name, *keys)


async def draw_browser(daemon: Daemon, target: Path) -> None:
    """`skyisland web`, in a tab."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*daemon.words, "console"]
        async with served(Path(folder), words) as (_, login, _):  # noqa: SIM117
            async with opened(login, Path(folder) / "profile", (1500, 900)) as page:
                await page.draws("Sleep")
                await asyncio.sleep(20)  # until its charts have something to show
                target.write_bytes(await page.picture())
    print(target, flush=True)


async def draw(folder: Path) -> None:
    os.environ["SKYISLAND_ADMIN_API_TOKEN"] = TOKEN
    with ExitStack() as stack:
        daemon = await asyncio.to_thread(stack.enter_context, island())
        await attached(daemon, folder, _quiet)
        callers = Callers(daemon)
        try:
            await attached(daemon, folder, lambda at: _views(at, callers))
            await attached(daemon, folder, lambda at: _keep("ascii", at, watched_s=20), plain=True)
            await attached(
                daemon, folder, lambda at: _keep("readonly", at, "2"), token=WATCHER, readonly=True
            )
            await attached(daemon, folder, lambda at: _keep("filter", at, "2", "slash", *"fn:Sleep >10s"))
            await attached(daemon, folder, lambda at: _keep("paused", at, "p", watched_s=20))
            await attached(daemon, folder, lambda at: at.keep("token"), token="")
            await draw_browser(daemon, folder / "browser.png")
            await attached(daemon, folder, lambda at: _lost(at, daemon))
        finally:
            callers.end()
            if daemon.running:
                daemon.signal(signal.SIGCONT)
                await asyncio.to_thread(daemon.stop)
            await asyncio.to_thread(callers.join)
        await draw_quit(folder, daemon.folder)


async def draw_quit(folder: Path, state: Path) -> None:
    """The question that a console beside the API asks: the same island's next life, in this process."""
    events, ring = Events(), LogRing()
    events.tap(ring.fold)
    settings = Settings.load(state / "skyisland.toml", {})
    async with opened_island(settings, events, search_path=os.environ["PATH"]) as island:
        await island.start()
        app = create_app(island, token=TOKEN, token_header=HEADER, metrics=Metrics(), logs=ring)
        stop = asyncio.Event()
        listening = listen("127.0.0.1", settings.http_port)
        serving = asyncio.create_task(serve(app, listening, stop.wait, grace_s=1.0))
        console = Console(InProcessPort(island, ring, settings.url))
        async with console.run_test(size=USUAL) as pilot:
            at = Photographer(Operator(console, pilot), folder)
            calls = [FunctionRequest(url=f"{HOST}/trouble", call="Sleep(20000000000)")] * 3
            calls += [msgspec.convert(body, FunctionRequest) for _, body in PLAIN[:7]]
            tasks = [asyncio.create_task(island.invoke(call)) for call in calls]
            await asyncio.sleep(10)
            await at.operator.press("q")
            await at.keep("quit")
        stop.set()
        await serving
        await island.drain(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await island.stop()


def main(argv: list[str]) -> None:
    if os.geteuid() != 0:
        sys.exit("only root can make jails with addresses; run as root: make screenshots")
    folder = Path(argv[0]) if argv else ROOT / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    asyncio.run(draw(folder))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
