"""The console in a browser, by textual-serve: an attached console for each tab, on loopback.

It listens on loopback only, which every user of the host can reach. So it prints an URL with a ticket that
lets one browser in, for which that gets a cookie; then the ticket is spent and another one printed. A browser
sends the cookie to any port of this host, so log in from a browser that visits no other user's server there.

Any page in the operator's browser can reach loopback too. So a request's `Host` must be an address or
`localhost`, which no DNS entry can fake, and its `Origin` that same host and port, whichever a tunnel gives
it. Fonts and scripts come from here, and the page's policy forbids it to load anything else. Each tab is a
process of the user who started this one, with that user's token.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from skyisland.errors import SettingsError
from skyisland.settings.values import names_an_address

PAGE = (Path(__file__).parent / "web_page" / "index.html").read_text()
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "font-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'"
)


class WebConsole(Server):
    """Serves the page, and runs a process of `command` for each tab."""

    def __init__(self, command: Sequence[str], host: str, port: int) -> None:
        super().__init__(
            # `exec`, so that the console's parent is this server and no shell.
            f"exec {shlex.join(command)}",
            host=host,
            port=port,
            title="Sky Island",
        )
        self._url = f"http://{host}:{port}"
        self._cookie = f"skyisland-{port}"
        self._sessions: set[str] = set()
        """Cookies of the browsers that were let in, for the life of this process."""
        self._ticket = ""

    def initialize_logging(self) -> None:
        """Log errors only, without the local variables that the library would add."""
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")

    async def on_startup(self, app: web.Application) -> None:
        self._print_ticket("the console is on", "(through a tunnel: at its port)   Ctrl+C ends it")

    def _print_ticket(self, before: str, after: str) -> None:
        self._ticket = secrets.token_urlsafe(32)
        print(f"{before} {self._url}/?ticket={self._ticket}   {after}", flush=True)

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._only_ours)
        app.middlewares.append(self._only_let_in)
        app.on_response_prepare.append(_guarded)
        return app

    async def handle_index(self, request: web.Request) -> web.Response:
        """The page. The library would write its own address into it, which is another behind a tunnel."""
        return web.Response(text=PAGE, content_type="text/html")

    @web.middleware
    async def _only_ours(self, request: web.Request, handler: object) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not names_an_address(request.host):
            text = "open this console as localhost or by an address, at the port that it or its tunnel has\n"
            raise web.HTTPForbidden(text=text)
        if origin is not None and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text="this console answers its own page only\n")
        if request.path == "/ws" and origin is None:
            raise web.HTTPForbidden(text="a console needs a browser that says where it comes from\n")
        reply: web.StreamResponse = await handler(request)  # type: ignore[operator]
        return reply

    @web.middleware
    async def _only_let_in(self, request: web.Request, handler: object) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if request.path == "/" and secrets.compare_digest(ticket.encode(), self._ticket.encode()):
            self._print_ticket("a browser was let in; for another one:", "")
            session = secrets.token_urlsafe(32)
            self._sessions.add(session)
            # To the same page without the ticket, which thus stays out of the history and of bookmarks.
            inside = web.HTTPSeeOther("/")
            inside.set_cookie(self._cookie, session, httponly=True, samesite="Strict", path="/")
            raise inside
        if request.cookies.get(self._cookie) not in self._sessions:
            raise web.HTTPUnauthorized(text="open the URL that `skyisland web` printed last\n")
        reply: web.StreamResponse = await handler(request)  # type: ignore[operator]
        return reply


async def _guarded(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"


def serve_web(command: Sequence[str], *, host: str = "127.0.0.1", port: int = 3281) -> None:
    """Serve until SIGINT or SIGTERM. `command` starts an attached console: `skyisland console`.

    Raises:
        SettingsError: `host` is no loopback address.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        text = f"the console speaks no TLS and listens on loopback only, not on {host}; reach it by ssh -L"
        raise SettingsError(text)
    os.environ.pop("NO_COLOR", None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    WebConsole(command, host, port).serve()
