"""The console in a browser, by textual-serve: an attached console for each tab, on loopback.

There is no login: whoever reaches the port is the operator. So it listens on loopback only. Any page in the
operator's browser can reach loopback too, so the `Origin` of a connection and the `Host` of a request must be
our own. Fonts and scripts come from here, and the page's policy forbids it to load anything else.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from skyisland.errors import SettingsError

PAGE = Path(__file__).with_name("web_page")
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
            templates_path=PAGE,
        )

    def initialize_logging(self) -> None:
        """Log errors only, without the local variables that the library would add."""
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")

    async def on_startup(self, app: web.Application) -> None:
        print(f"the console is on {self.public_url}   Ctrl+C ends it", flush=True)

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._only_ours)
        app.on_response_prepare.append(_guarded)
        return app

    @web.middleware
    async def _only_ours(self, request: web.Request, handler: object) -> web.StreamResponse:
        ours = self.public_url.partition("://")[2]
        origin = request.headers.get("Origin")
        if request.host != ours or (origin is not None and origin != self.public_url):
            raise web.HTTPForbidden(text=f"this console answers pages of {self.public_url} only\n")
        if request.path == "/ws" and origin is None:
            raise web.HTTPForbidden(text="a console needs a browser that says where it comes from\n")
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
        text = f"the console has no login and listens on loopback only, not on {host}; reach it by ssh -L"
        raise SettingsError(text)
    os.environ.pop("NO_COLOR", None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    WebConsole(command, host, port).serve()
