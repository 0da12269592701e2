"""The way to an island in another process: its REST API, and its facts as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, TypeVar, Union

import httpx
import msgspec

from skyisland import operations as op
from skyisland.client import way_to
from skyisland.codec import NotAnIsland, encode, read_call
from skyisland.events import Event
from skyisland.figures import Window
from skyisland.golang.catalogue import Catalogue
from skyisland.host.trust import OwnCertificate, distrust
from skyisland.later.calls import CallState, Record
from skyisland.model import FunctionRequest, NamedCall
from skyisland.named.definition import Definition, MoveBody, Revision, RollbackBody
from skyisland.named.functions import Named
from skyisland.operations import JSON, Operation
from skyisland.operations.gathered import ALL, read_all
from skyisland.record.lines import LogLine
from skyisland.status import AddressState, Written
from skyisland.wire import AddressBody, Called, FunctionPage, Snapshot
from tui.watch.calls import LISTED
from tui.watch.port import LinkLost, Others, curl_line

T = TypeVar("T")

TIMEOUT_S = 10.0
"""For an answer; snapshots take some milliseconds. Calls and builds may take as long as they do."""
SILENCE_S = 20.0
"""A stream without a byte for this long is dead: the island sends a pulse every 2 s."""
LOG_LINES = 2000
"""At most in one answer. Of an island that logs more between two polls, the console misses the oldest."""
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "no connection in time to"),
    (httpx.ConnectError, "no connection to"),
    (httpx.TimeoutException, "no answer in time from"),
    (httpx.RemoteProtocolError, "the connection was cut by"),
)


def _below(root: type[Event]) -> list[type[Event]]:
    return [kind for child in root.__subclasses__() for kind in (child, *_below(child))]


_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[tuple(_below(Event))])  # noqa: UP007


class RemotePort:
    """A `Port` on the island at `base` (`http://host:port`)."""

    attached = True

    def __init__(
        self,
        base: str,
        *,
        token: str = "",
        header: str = "X-Sky-Island-Token",
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`header`: the island's `admin_token_header`. `tls`: as `trusting` makes it.

        `transport`: another way to the same API.
        """
        self.base = base.rstrip("/")
        self.where = self.base.removeprefix("http://")
        self._header = header
        self._last_id = ""
        self._tls, self._distrusted = tls, False
        at, path = way_to(self.base, tls)
        if path:
            transport = transport or httpx.AsyncHTTPTransport(uds=path, verify=tls or True)
        # No proxy of the environment gets to see the token.
        self._client = httpx.AsyncClient(
            base_url=at,
            timeout=TIMEOUT_S,
            verify=tls or at.startswith("https:"),
            transport=transport,
            trust_env=False,
        )
        self.authorize(token)

    def __repr__(self) -> str:
        return f"<RemotePort {self.base}>"

    def authorize(self, token: str) -> None:
        if token:
            self._client.headers.update({self._header.encode(): token.encode()})

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(
        self,
        operation: Operation[T],
        *,
        body: object = None,
        patient: bool = False,
        revision: int | None = None,
        **parameters: object,
    ) -> T:
        """What the island answers. `patient`: for as long as it takes. `revision`: what is changed must be at
        this one, 0 for new.

        Raises:
            IslandError: the island refused.
            LinkLost: nobody answered, or somebody who is not an island.
        """
        response = await self._send(operation, operation.url(**parameters), body, patient, revision)
        try:
            return operation.read(response.status_code, response.content)
        except NotAnIsland as error:
            raise LinkLost(f"{self.base} {error}") from None

    async def _send(
        self,
        operation: Operation[Any],
        url: str,
        body: object = None,
        patient: bool = False,
        revision: int | None = None,
    ) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": JSON}
        if revision is not None:
            headers |= {"If-Match": f'"{revision}"'} if revision else {"If-None-Match": "*"}
        try:
            return await self._client.request(
                operation.method,
                url,
                content=None if body is None else encode(body),
                headers=headers,
                timeout=None if patient else TIMEOUT_S,
            )
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> LinkLost:
        if text := distrust(error):
            self._distrusted = True
            return LinkLost(f"{self.base}: {text}")
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), None)
        return LinkLost(f"{reason or f'{type(error).__name__} from'} {self.base}")

    async def snapshot(self) -> Snapshot:
        if self._distrusted and isinstance(self._tls, OwnCertificate):
            self._distrusted = False
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._tls.read)  # it was renewed while this console watched
        snapshot = await self._ask(op.SNAPSHOT)
        self._last_id = snapshot.last_event_id
        return snapshot

    async def others(self) -> Others:
        response = await self._send(op.SNAPSHOT, op.SNAPSHOT.url(node=ALL))
        try:
            found = read_all(op.SNAPSHOT, response.status_code, response.content)
        except NotAnIsland as error:
            raise LinkLost(f"{self.base} {error}") from None
        here = next((one.fleet.node for one in found.answers.values() if one.fleet is not None), "")
        return Others({node: one for node, one in found.answers.items() if node != here}, found.silent)

    async def events(self) -> AsyncIterator[list[Event]]:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        request = self._client.build_request(
            op.EVENTS.method, op.EVENTS.url(brief=True), headers=headers, timeout=timeout
        )
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        try:
            if response.is_error:
                op.EVENTS.read(response.status_code, await response.aread())  # raises
            rest = b""
            async for chunk in response.aiter_bytes():
                *blocks, rest = (rest + chunk).split(b"\n\n")
                yield [event for block in blocks if (event := _event(block)) is not None]
        except NotAnIsland as error:
            raise LinkLost(f"{self.base} {error}") from None
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        finally:
            await response.aclose()

    async def logs(self, after: int = 0) -> list[LogLine]:
        return await self._ask(op.LOGS, after=after, limit=LOG_LINES)

    async def output(self, jail: str) -> AsyncIterator[Written]:
        timeout = httpx.Timeout(TIMEOUT_S, read=None)  # a jail may be silent for long
        request = self._client.build_request(op.OUTPUT.method, op.OUTPUT.url(jail=jail), timeout=timeout)
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        try:
            if response.is_error:
                op.OUTPUT.read(response.status_code, await response.aread())  # raises
            begun = b""
            async for chunk in response.aiter_bytes():
                *whole, begun = (begun + chunk).split(b"\n")
                for line in whole:
                    yield op.OUTPUT.read(response.status_code, line)
        except NotAnIsland as error:
            raise LinkLost(f"{self.base} {error}") from None
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        finally:
            await response.aclose()

    async def kill(self, jail: str, node: str = "") -> None:
        await self._ask(op.KILL, jail=jail, node=node or None)

    async def kill_all(self) -> int:
        killed = await self._ask(op.KILL_ALL)
        return len(killed)

    async def set_address(self, ip: str, state: AddressState, node: str = "") -> None:
        await self._ask(op.SET_ADDRESS, body=AddressBody(ip=ip, state=state), node=node or None)

    async def evict(self, key: str) -> None:
        await self._ask(op.EVICT, key=key)

    async def rebuild(self, key: str) -> None:
        await self._ask(op.REBUILD, key=key, patient=True)

    async def purge(self) -> int:
        evicted = await self._ask(op.PURGE)
        return len(evicted)

    async def invoke(self, request: FunctionRequest) -> Called:
        return self._called(await self._send(op.INVOKE, op.INVOKE.path, request, patient=True))

    def _called(self, response: httpx.Response) -> Called:
        try:
            return read_call(response.status_code, response.content)
        except NotAnIsland as error:
            raise LinkLost(f"{self.base} {error}") from None

    async def functions(self, url: str, version: str | None = None) -> Catalogue:
        return await self._ask(op.FUNCTIONS, url=url, version=version, patient=True)

    async def function(self, function: str, window: Window = Window.five_minutes) -> FunctionPage:
        return await self._ask(op.FUNCTION, function=function, window=window)

    async def names(self) -> list[Named]:
        return await self._ask(op.NAMES)

    async def revisions(self, name: str) -> list[Revision]:
        return await self._ask(op.REVISIONS, name=name)

    async def call(self, name: str, asked: NamedCall) -> Called:
        return self._called(await self._send(op.CALL, op.CALL.url(name=name), asked, patient=True))

    async def define(self, name: str, definition: Definition, revision: int | None = None) -> None:
        await self._ask(op.DEFINE, name=name, body=definition, revision=revision, patient=True)

    async def move(self, name: str, version: str | None = None) -> None:
        await self._ask(op.MOVE, name=name, body=MoveBody(version=version), patient=True)

    async def roll_back(self, name: str, to: int | None = None) -> None:
        await self._ask(op.ROLL_BACK, name=name, body=RollbackBody(revision=to), patient=True)

    async def pause(self, name: str) -> None:
        await self._ask(op.PAUSE, name=name)

    async def resume(self, name: str) -> None:
        await self._ask(op.RESUME, name=name)

    async def forget(self, name: str) -> None:
        await self._ask(op.FORGET, name=name)

    async def calls(self) -> list[Record]:
        return await self._ask(op.CALLS, limit=LISTED)

    async def kept(self, kept: str) -> Record:
        return await self._ask(op.KEPT, kept=kept)

    async def cancel(self, kept: str) -> None:
        await self._ask(op.CANCEL, kept=kept)

    async def redrive(self, kept: str) -> None:
        await self._ask(op.REDRIVE, kept=kept)

    async def forget_calls(self, state: CallState | None = None) -> int:
        gone = await self._ask(op.FORGET_CALLS, state=state)
        return len(gone)

    async def forget_call(self, kept: str) -> None:
        await self._ask(op.FORGET_CALLS, call=kept)

    def curl(self, request: FunctionRequest | NamedCall, name: str = "") -> str:
        return curl_line(self.base, request, name)


def _event(block: bytes) -> Event | None:
    """The fact in one block of the stream; None for a comment, or a fact of a newer island."""
    for line in block.split(b"\n"):
        if line.startswith(b"data: "):
            try:
                return _EVENT.decode(line[6:])
            except msgspec.MsgspecError:
                return None
    return None
