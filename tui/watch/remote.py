"""The way to an island in another process: its REST API, and its facts as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Union
from urllib.parse import quote

import httpx
import msgspec

from skyisland.client import body, refusal
from skyisland.errors import IslandError
from skyisland.events import Event
from skyisland.model import AddressState, FunctionRequest, Timings, Verdict
from skyisland.record.logs import Line as LogLine
from tui.watch.inprocess import curl
from tui.watch.port import Answer, LinkLost, Snapshot

TIMEOUT_S = 10.0
SILENCE_S = 20.0
"""A stream that says nothing for so long is dead: the island has a pulse every 2 s."""
_SAID: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "no connection in time to"),
    (httpx.ConnectError, "no connection to"),
    (httpx.TimeoutException, "no answer in time from"),
    (httpx.RemoteProtocolError, "the connection was cut by"),
)


def _below(root: type[Event]) -> list[type[Event]]:
    return [kind for child in root.__subclasses__() for kind in (child, *_below(child))]


_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[tuple(_below(Event))])  # noqa: UP007
_VERDICTS = {str(verdict) for verdict in Verdict}


def _hook(kind: type[Any], value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError


_SNAPSHOT = msgspec.json.Decoder(Snapshot, dec_hook=_hook)
_LINES = msgspec.json.Decoder(dict[str, list[LogLine]])


class Remote:
    """A `Port` on the island at `base` (`http://host:port`)."""

    attached = True

    def __init__(
        self,
        base: str,
        *,
        token: str = "",
        header: str = "X-Sky-Island-Token",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`header`: the island's `admin_token_header`. `transport`: another way to the same API."""
        self.base = base.rstrip("/")
        self.where = self.base.removeprefix("http://")
        self._header = header
        self._last_id = ""
        # No proxy of the environment gets to see the token.
        self._client = httpx.AsyncClient(
            base_url=self.base, timeout=TIMEOUT_S, transport=transport, trust_env=False
        )
        self.authorize(token)

    def __repr__(self) -> str:
        return f"<Remote {self.base}>"

    def authorize(self, token: str) -> None:
        if token:
            self._client.headers.update({self._header.encode(): token.encode()})

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request.

        Raises:
            IslandError: the island's own refusal. LinkLost: nobody answered, or not in our language.
        """
        try:
            response = await self._client.request(method, path, **options)
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        if response.is_error:
            raise _refusal(response)
        return response

    def _lost(self, error: Exception) -> LinkLost:
        said = next((text for kind, text in _SAID if isinstance(error, kind)), f"{type(error).__name__} from")
        return LinkLost(f"{said} {self.base}")

    async def snapshot(self) -> Snapshot:
        response = await self._ask("GET", "/api/v1/admin/snapshot")
        try:
            snapshot = _SNAPSHOT.decode(response.content)
        except msgspec.MsgspecError as error:
            raise LinkLost(f"{self.base} is no island that this console understands: {error}") from None
        self._last_id = snapshot.last_event_id
        return snapshot

    async def events(self) -> AsyncIterator[list[Event]]:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        request = self._client.build_request(
            "GET", "/api/v1/admin/events", params={"brief": "true"}, headers=headers, timeout=timeout
        )
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        try:
            if response.is_error:
                await response.aread()
                raise _refusal(response)
            rest = b""
            async for chunk in response.aiter_bytes():
                *blocks, rest = (rest + chunk).split(b"\n\n")
                yield [event for block in blocks if (event := _event(block)) is not None]
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        finally:
            await response.aclose()

    async def logs(self, after: int = 0) -> list[LogLine]:
        response = await self._ask("GET", "/api/v1/admin/logs", params={"after": after, "limit": 2000})
        return _LINES.decode(response.content)["logs"]

    async def kill(self, jail: str) -> None:
        await self._ask("DELETE", f"/api/v1/admin/jail/{quote(jail, safe='')}")

    async def set_address(self, ip: str, state: AddressState) -> None:
        await self._ask("PUT", "/api/v1/admin/ips", json={"ip": ip, "state": str(state)})

    async def evict(self, key: str) -> None:
        await self._ask("DELETE", f"/api/v1/admin/cache/{quote(key, safe='')}")

    async def rebuild(self, key: str) -> None:
        await self._ask("POST", f"/api/v1/admin/cache/{quote(key, safe='')}/rebuild", timeout=None)

    async def invoke(self, request: FunctionRequest) -> Answer:
        try:
            response = await self._client.post("/api/v1/function", json=body(request), timeout=None)
        except (httpx.HTTPError, OSError) as error:
            raise self._lost(error) from None
        if not response.is_error:
            return _answer("ok", response.json())
        problem = _problem(response)
        if problem.get("code") in _VERDICTS and isinstance(problem.get("details"), dict):
            return _answer(problem["code"], problem["details"])
        raise _refusal(response)

    def curl(self, request: FunctionRequest) -> str:
        return curl(self.base, request)


def _event(block: bytes) -> Event | None:
    """The fact in one block of the stream; None for a comment, or a fact of a newer island."""
    for line in block.split(b"\n"):
        if line.startswith(b"data: "):
            try:
                return _EVENT.decode(line[6:])
            except msgspec.MsgspecError:
                return None
    return None


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("error"), str):
        raise LinkLost(f"{response.url.host} answered {response.status_code}, and not as an island does")
    return problem


def _refusal(response: httpx.Response) -> IslandError:
    """What the island said no with, as the error it was there."""
    return refusal(response.status_code, _problem(response))


def _answer(verdict: str, fields: dict[str, Any]) -> Answer:
    timings = {f"{name}_s": ms / 1000 for name, ms in fields["timings_ms"].items()}
    return Answer(
        id=fields["id"],
        verdict=verdict,
        timings=msgspec.convert(timings, Timings),
        data=fields["data"],
        stderr=fields["stderr"],
        exit_code=fields["exit_code"],
        jail=fields["jail"],
        commit=fields["version"],
        cached=fields["cached"],
        stale=fields["stale"],
    )
