"""A real browser to look at the console with: headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.support.places import ROOT

SERVER = """
import sys
from tui.web import serve_web
serve_web(sys.argv[2:], port=int(sys.argv[1]))
"""


class Served(NamedTuple):
    """A console for browsers."""

    url: str
    login: str
    """The URL with the ticket that lets one browser in."""
    server: asyncio.subprocess.Process


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def _running(*words: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*words, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def served(folder: Path, console: Sequence[str] = ()) -> AsyncIterator[Served]:
    """`console`: the command of each tab's console; without it, the seeded island's."""
    port = _free_port()
    seeded = (sys.executable, "-m", "tests.support.subject", "attach", str(folder))
    command = (sys.executable, "-c", SERVER, str(port), *(console or seeded))
    environment = os.environ | {"XDG_STATE_HOME": str(folder / "xdg")}
    async with _running(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment) as server:
        assert server.stdout is not None
        line = await asyncio.wait_for(server.stdout.readline(), 60)
        login = re.search(rf"http://127\.0\.0\.1:{port}/\?ticket=\S+", line.decode())
        assert login is not None, line
        async with asyncio.timeout(30):
            while not _listens(port):  # noqa: ASYNC110 - the line comes a moment before the socket
                await asyncio.sleep(0.02)
        yield Served(f"http://127.0.0.1:{port}", login[0], server)


@asynccontextmanager
async def tunnel(url: str) -> AsyncIterator[int]:
    """Another port that leads to the server at `url`, as `ssh -L` makes one."""
    target = int(url.rsplit(":", 1)[1])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(carry(reader, ours), carry(theirs, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Page:
    """A tab of Chromium, and what it sent and got."""

    def __init__(self, devtools: aiohttp.ClientWebSocketResponse) -> None:
        self._devtools = devtools
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.asked_for: list[str] = []
        self.drawn = bytearray()
        self.complaints: list[str] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    def close(self) -> None:
        self._reading.cancel()

    async def _read(self) -> None:
        async for message in self._devtools:
            event = message.json()
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
                continue
            told = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                self.asked_for.append(told["request"]["url"])
            elif event["method"] == "Network.webSocketFrameReceived":
                frame = told["response"]
                if frame["opcode"] == 2:
                    self.drawn += base64.b64decode(frame["payloadData"])
            elif event["method"] == "Runtime.exceptionThrown" or (
                event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error"
            ):
                self.complaints.append(str(told))
            self._news.set()

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._devtools.send_json({"id": number, "method": method, "params": params})
        return (await self._answers[number])["result"]  # type: ignore[no-any-return]

    async def draws(self, text: str) -> None:
        async with asyncio.timeout(60):
            while text.encode() not in self.drawn:
                self._news.clear()
                await self._news.wait()

    async def value(self, expression: str) -> Any:
        """What the expression comes to in the tab, once that has loaded."""
        loaded = """new Promise(go => {
            const wait = () => document.readyState === "complete" ? go() : setTimeout(wait, 20);
            wait();
        })"""
        told = await self.do(
            "Runtime.evaluate",
            expression=f"{loaded}.then(() => {expression})",
            awaitPromise=True,
            returnByValue=True,
        )
        return told["result"]["value"]

    async def picture(self) -> bytes:
        """What the tab shows, as PNG."""
        told = await self.do("Page.captureScreenshot", format="png")
        return base64.b64decode(told["data"])

    async def press(self, key: str) -> None:
        known = {"key": key, "code": f"Digit{key}", "windowsVirtualKeyCode": ord(key)}
        await self.do("Input.dispatchKeyEvent", type="keyDown", text=key, **known)
        await self.do("Input.dispatchKeyEvent", type="keyUp", **known)


@asynccontextmanager
async def opened(
    url: str, profile: Path, size: tuple[int, int] = (1280, 800), *flags: str
) -> AsyncIterator[Page]:
    """A tab on `url`; `flags`: further ones of Chromium's."""
    command = (
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
        *flags,
        "about:blank",
    )
    quiet = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    async with _running(*command, **quiet), aiohttp.ClientSession() as http:
        told = profile / "DevToolsActivePort"
        async with asyncio.timeout(60):
            while not told.exists() or "\n" not in told.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        base = f"http://127.0.0.1:{told.read_text().split()[0]}"
        async with http.get(f"{base}/json") as reply:
            tab = next(tab for tab in await reply.json() if tab["type"] == "page")
        async with http.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
            page = Page(devtools)
            for domain in ("Network", "Page", "Runtime", "Log"):
                await page.do(f"{domain}.enable")
            await page.do("Page.navigate", url=url)
            yield page
            page.close()
