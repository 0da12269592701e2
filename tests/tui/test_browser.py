"""The console in a browser."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from skyisland.errors import SettingsError
from tests.support.browser import opened, served, tunnel
from tui.web import serve_web

pytestmark = pytest.mark.host


NAMES = (
    ("localhost:9000", "http://localhost:9000", 200),
    ("127.0.0.1:9000", "http://127.0.0.1:9000", 200),
    ("[::1]:9000", "https://[::1]:9000", 200),
    ("localhost", "http://localhost", 200),
    ("localhost:9000", "http://localhost:8000", 403),
    ("localhost:9000", "http://127.0.0.1:9000", 403),
    ("localhost:9000", "http://localhost:9000.evil.example", 403),
    ("localhost:9000", "null", 403),
    ("evil.example:9000", "http://evil.example:9000", 403),
    ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example", 403),
    ("localhost.evil.example", "http://localhost.evil.example", 403),
)
"""Host, Origin, and what a browser that was let in is told."""


def browser() -> aiohttp.ClientSession:
    """Keeps cookies of addresses too, as browsers do."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def test_one_page_works_in_a_real_browser_at_a_tunnels_port(tmp_path: Path) -> None:
    rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    another = TestServer(web.Application())
    async with served(tmp_path) as (url, login, _), tunnel(url) as port, another:
        near = f"http://localhost:{port}"
        entry = login.replace(url, near)
        async with opened(entry, tmp_path / "profile", (1280, 800), rebound) as page:
            await page.draws("SKY ISLAND")
            await page.draws("sky-main-9a00")
            await page.do("Runtime.evaluate", expression="document.querySelector('textarea').focus()")
            await page.press("7")
            await page.draws("What this host enforces")
            outside = [asked for asked in page.asked_for if not asked.startswith(near)]
            assert outside == []
            assert page.complaints == []
            assert len(await page.picture()) > 20_000
            # A page of another server on this host: the same site to the browser, which sends the cookie.
            await page.do("Page.navigate", url=f"http://localhost:{another.port}/")
            tried = """new Promise(end => {
                const tab = new WebSocket("ws://localhost:%d/ws");
                tab.onopen = () => end("open");
                tab.onerror = () => end("refused");
            })"""
            assert await page.value(tried % port) == "refused"
            # A page whose name leads here: the same origin to the browser.
            await page.do("Page.navigate", url=f"http://evil.example:{port}/")
            assert "open this console as localhost" in await page.value("document.body.innerText")


async def test_other_sites_are_turned_away(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, login, _), browser() as http:
        await http.get(login)
        ours = url.replace("http", "ws") + "/ws"
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(ours, headers=headers)
            assert refused.value.status == 403
        async with http.ws_connect(ours, headers={"Origin": url}) as tab:
            assert (await tab.receive()).type is aiohttp.WSMsgType.BINARY
        for host, origin, status in NAMES:
            headers = {"Host": host, "Origin": origin}
            async with http.get(f"{url}/static/js/textual.js", headers=headers) as reply:
                assert reply.status == status, headers


async def test_only_the_browser_with_the_ticket_is_let_in(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, login, server), browser() as mine, browser() as another:
        ws, headers = url.replace("http", "ws") + "/ws", {"Origin": url}
        for path in ("/", "/?ticket=", "/?ticket=guessed", "/static/js/textual.js"):
            async with another.get(url + path) as reply:
                assert (reply.status, await reply.text()) == (
                    401,
                    "open the URL that `skyisland web` printed last\n",
                )
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await another.ws_connect(ws, headers=headers)
        assert refused.value.status == 401
        async with mine.get(login) as reply:
            assert (reply.status, str(reply.url)) == (200, url + "/")
            (entered,) = reply.history
            assert {"HttpOnly", "SameSite=Strict"} <= set(entered.headers["Set-Cookie"].split("; "))
        async with mine.ws_connect(ws, headers=headers) as tab:
            assert (await tab.receive()).type is aiohttp.WSMsgType.BINARY
        async with another.get(login) as reply:
            assert reply.status == 401, "a ticket lets one browser in"
        assert server.stdout is not None
        line = (await server.stdout.readline()).decode()
        async with another.get(line.split()[-1]) as reply:
            assert reply.status == 200


async def test_a_tab_ends_with_its_server(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, login, server), browser() as http:
        await http.get(login)
        async with http.ws_connect(url.replace("http", "ws") + "/ws", headers={"Origin": url}) as tab:
            await tab.receive()
            child = int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()[0])
            os.kill(server.pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                while Path(f"/proc/{child}").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


def test_only_loopback() -> None:
    with pytest.raises(SettingsError, match="loopback only"):
        serve_web(["true"], host="0.0.0.0")  # noqa: S104
