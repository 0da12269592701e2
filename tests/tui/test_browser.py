"""The console in a browser."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from skyisland.errors import SettingsError
from tests.support.browser import opened, served
from tui.web import serve_web

pytestmark = pytest.mark.host


def browser() -> aiohttp.ClientSession:
    """Keeps cookies of addresses too, as browsers do."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def test_one_page_works_in_a_real_browser(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, login, _), opened(login, tmp_path / "profile") as page:
        await page.draws("SKY ISLAND")
        await page.draws("sky-main-9a00")
        await page.do("Runtime.evaluate", expression="document.querySelector('textarea').focus()")
        await page.press("7")
        await page.draws("What this host enforces")
        outside = [asked for asked in page.asked_for if not asked.startswith(url)]
        assert outside == []
        assert page.complaints == []
        assert len(await page.picture()) > 20_000


async def test_other_sites_are_turned_away(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, login, _), browser() as http:
        await http.get(login)
        ours = url.replace("http", "ws") + "/ws"
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(ours, headers=headers)
            assert refused.value.status == 403
        async with http.get(url, headers={"Host": "evil.example"}) as reply:
            assert reply.status == 403
        async with http.ws_connect(ours, headers={"Origin": url}) as tab:
            assert (await tab.receive()).type is aiohttp.WSMsgType.BINARY


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


async def test_localhost_leads_to_the_console(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, *_), aiohttp.ClientSession() as http:
        origin = "http://" + url.split("/")[2]
        by_name = {"Host": origin.removeprefix("http://").replace("127.0.0.1", "localhost")}
        async with http.get(f"{origin}/?ticket=t", headers=by_name, allow_redirects=False) as reply:
            assert (reply.status, reply.headers["Location"]) == (302, f"{origin}/?ticket=t")
        async with http.get(f"{origin}/ws", headers=by_name) as reply:
            assert reply.status == 403


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
