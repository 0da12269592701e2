"""The line to NATS servers (nats-py), kept up for as long as the island lives.

The library connects again by itself. Here are its options with their reasons, its words turned into ours, and
what it would do quietly: it keeps what is published while it is away and sends it later, when nobody waits
for it any more. So a line that is away takes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from skyisland.errors import SettingsError
from skyisland.fleet.line import Away, Heard, Listening, Message
from skyisland.host.tasks import Background, cancel_all
from skyisland.settings import Fleet
from skyisland.status import LineState

log = logging.getLogger(__name__)

OLDEST_SERVER = (2, 10, 25)
"""The first whose streams can be told to sync each message (`sync_interval`); older ones lose what they have
acknowledged when the power fails."""
RECONNECT_S = 0.2
"""Between two attempts. All islands lose a server at the same moment; it takes a millisecond to take one."""
PING_S = 5.0
"""Of the library's default, two minutes, a cut cable goes unnoticed for four."""
CONNECT_S = 2.0
"""For one server to answer. The next is tried then."""
PENDING_MESSAGES = 16_384
PENDING_BYTES = 64 << 20
"""Of a subscription, before the library drops more of them. The loop takes a thousand in a few
milliseconds."""


class NatsLine:
    """A line (`line.Line`) to the servers of `[fleet]`. `start` comes first, `close` last."""

    def __init__(self, settings: Fleet, inbox: str) -> None:
        """`inbox`: what subjects for answers to this island begin with."""
        self._settings = settings
        self._inbox = inbox
        self._client = Client()
        self._connecting: asyncio.Task[None] | None = None
        self._background = Background()
        self._listening: dict[_Listening, None] = {}
        self.state = LineState.connecting
        self.since = time.time()
        self.why = "it has not been tried"
        """Why it is not joined."""
        self.server = ""
        """The server that it is or was connected to, with its version."""
        self._whenever: list[Callable[[], Awaitable[None]]] = []
        self.changed = asyncio.Event()
        """Set at each change of `state`; who waits for one clears it first."""

    # Life

    async def start(self, patience_s: float) -> None:
        """Connect, and go on trying in the background where that takes longer.

        Raises:
            SettingsError: a file of `[fleet]` cannot be used.
        """
        tls = await asyncio.to_thread(_tls, self._settings)
        self._connecting = asyncio.create_task(self._connect(tls))
        await asyncio.wait({self._connecting}, timeout=patience_s)
        if self.state is LineState.connecting:
            log.warning("the fleet's servers cannot be reached: %s; it is tried again and again", self.why)

    async def _connect(self, tls: ssl.SSLContext | None) -> None:
        options: dict[str, Any] = {"tls": tls} if tls is not None else {}
        await self._client.connect(
            servers=list(self._settings.servers),
            name=f"sky island {self._settings.node}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_S,
            connect_timeout=CONNECT_S,
            ping_interval=PING_S,
            inbox_prefix=self._inbox,
            error_cb=self._failed,
            disconnected_cb=self._lost,
            reconnected_cb=self._found,
            **options,
        )
        await self._found()

    async def close(self) -> None:
        """May be repeated."""
        await cancel_all(self._connecting)
        self._set(LineState.closed, "the island stops")
        await self._background.drain()
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._connecting is not None and not self._client.is_closed:
            await self._client.close()

    def refuse(self, why: str) -> None:
        """This island must not join: nothing goes over the line in this life of the island any more."""
        if self.state not in (LineState.refused, LineState.closed):
            log.error("this island does not join the fleet %s: %s", self._settings.name, why)
            self._set(LineState.refused, why)
            self._background.start(self._disconnect())

    # What the library calls

    async def _failed(self, error: Exception) -> None:
        why = str(error) or type(error).__name__
        if self.state is LineState.joined and isinstance(error, nats.errors.SlowConsumerError):
            log.warning("messages of the fleet were dropped, for they came too fast: %s", error.subject)
        elif self.state is not LineState.joined and why != self.why:
            self.why = why
            log.info("the fleet's servers cannot be reached: %s", why)

    async def _lost(self) -> None:
        if self.state is LineState.joined:
            log.warning("the fleet's servers are away; this island goes on alone")
            self._set(LineState.away, "the connection was lost")

    async def _found(self) -> None:
        if self.state in (LineState.closed, LineState.refused):
            return
        version = self._client.connected_server_version
        url = self._client.connected_url
        self.server = f"{url.netloc if url is not None else '?'} ({version_text(version)})"
        if (version.major, version.minor, version.patch) < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            self.refuse(f"its server {self.server} is older than {oldest}; install a newer nats-server")
            return
        for listening in [*self._listening]:
            await listening.begin(self._client)
        self._set(LineState.joined, "")
        log.info("the fleet's server is %s", self.server)
        self._background.start(self._do(*self._whenever))

    async def whenever_joined(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this each time that the servers can be reached, after what was to be done before; and now, if
        they can. What it raises is logged."""
        self._whenever.append(work)
        if self.state is LineState.joined:
            await self._do(work)

    async def _do(self, *every: Callable[[], Awaitable[None]]) -> None:
        for work in every:
            try:
                await work()
            except Away as away:
                log.info("%s", away.message)
            except Exception:
                log.exception("something was not done after the fleet was joined")

    def _set(self, state: LineState, why: str) -> None:
        self.state, self.why, self.since = state, why, time.time()
        self.changed.set()

    # What goes over it

    @property
    def largest_bytes(self) -> int:
        return int(self._client.max_payload)

    @property
    def client(self) -> Client:
        """The library's client, for JetStream.

        Raises:
            Away
        """
        if self.state is not LineState.joined or not self._client.is_connected:
            raise Away(self.why or "the connection was lost")
        return self._client

    async def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        try:
            await self.client.publish(subject, data, reply=reply)
        except nats.errors.Error as error:
            raise Away(str(error)) from error

    async def listen(self, subject: str, heard: Heard, *, queue: str = "") -> Listening:
        listening = _Listening(self._listening, subject, heard, queue)
        if self._client.is_connected:
            await listening.begin(self._client)
        return listening

    def inbox(self) -> str:
        return str(self._client.new_inbox())


class _Listening:
    """A subscription, before it is made and after."""

    def __init__(self, all_: dict[_Listening, None], subject: str, heard: Heard, queue: str) -> None:
        self._all = all_
        self._subject, self._heard, self._queue = subject, heard, queue
        self._subscription: Subscription | None = None
        all_[self] = None

    async def begin(self, client: Client) -> None:
        """Subscribe; once, for the library does it again when it comes back."""
        if self._subscription is None:
            self._subscription = await client.subscribe(
                self._subject,
                queue=self._queue,
                cb=self._take,
                pending_msgs_limit=PENDING_MESSAGES,
                pending_bytes_limit=PENDING_BYTES,
            )

    async def _take(self, message: Msg) -> None:
        # The servers' word that nobody listens is an empty message with a status.
        nobody = not message.data and (message.headers or {}).get("Status") == "503"
        self._heard(Message(message.subject, message.data, message.reply, nobody))

    async def end(self) -> None:
        self._all.pop(self, None)
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error):  # it is closed, and all that was listened to
                await subscription.unsubscribe()


def version_text(version: Any) -> str:
    """A server's version as it calls itself: `2.11.9`."""
    return str(version).removeprefix("<nats server v").removesuffix(">")


def _tls(settings: Fleet) -> ssl.SSLContext | None:
    """What proves to each other that this is the server, and this the island. Blocks."""
    if not settings.tls_ca:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (settings.tls_ca, settings.tls_cert, settings.tls_key)))
        raise SettingsError(f"fleet: the files {files} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
