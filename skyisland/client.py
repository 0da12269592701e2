"""The REST API of a running island, for commands.

A call of a `Client` is one request. What the island refuses is raised as the error it was there, told
by its `code`; what a function did in its jail is no error but a `Called`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct

from skyisland.errors import Forbidden, IslandError, Unauthorized, Unavailable
from skyisland.model import AddressState, FunctionRequest, Verdict

ADMIN = "/api/v1/admin"


class Unreachable(Unavailable):
    """Nobody answers there, or nobody that is an island."""


class Called(Struct, frozen=True, kw_only=True):
    """What came of a call."""

    verdict: Verdict
    message: str
    """What the island says of a call that did not end well; else empty."""
    answer: dict[str, Any]
    """The fields of the API: `data`, `stderr`, `exit_code`, `timings_ms`, `id`, `version` …"""

    @property
    def stdout(self) -> bytes:
        """What the function printed, to the byte."""
        if (base64 := self.answer.get("data_base64")) is not None:
            return b64decode(base64)
        data: str = self.answer["data"]
        return data.encode()


def body(request: FunctionRequest) -> dict[str, Any]:
    """A request as POST /api/v1/function takes it; only what is not the default."""
    fields: dict[str, Any] = {"url": request.url, "call": request.call}
    if request.ip4:
        fields["ip4"] = True
    if request.cache_bust:
        fields["cache_bust"] = True
    if request.cold:
        fields["cold"] = True
    if request.version:
        fields["version"] = request.version
    if request.stdin:
        try:
            fields["stdin"] = request.stdin.decode()
        except UnicodeDecodeError:
            fields["stdin_base64"] = b64encode(request.stdin).decode()
    return fields


def refusal(status: int, problem: dict[str, Any]) -> IslandError:
    """The error that an answer of the API tells of."""
    code, details = str(problem.get("code", "")), problem.get("details")
    kind = _kinds(IslandError).get(code, {401: Unauthorized, 403: Forbidden}.get(status, IslandError))
    return kind(str(problem["error"]), **(details if isinstance(details, dict) else {}))


def _kinds(root: type[IslandError]) -> dict[str, type[IslandError]]:
    """Errors by their code; one without a code of its own is told as the one above it."""
    kinds: dict[str, type[IslandError]] = {}
    for child in root.__subclasses__():
        kinds |= _kinds(child)
    return kinds | {root.code: root}


class Client:
    """A connection to the island at `url` (`http://127.0.0.1:3280`)."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        header: str = "X-Sky-Island-Token",
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout_s`: how long to wait for an answer; calls wait for as long as they take."""
        self.url = url
        # No proxy of the environment gets to see the token.
        self._http = httpx.Client(
            base_url=url,
            headers={header.encode(): token.encode()} if token else None,
            timeout=timeout_s,
            trust_env=False,
            verify=url.startswith("https:"),  # certificates take a while to load
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON object that answers a request.

        Raises:
            Unreachable: nobody answers, or no island.
            IslandError: the island refused.
        """
        status, fields = self._exchange(method, path, **options)
        if status >= 400:
            raise refusal(status, fields)
        return fields

    def _exchange(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TimeoutException:
            raise Unreachable(f"no answer in time from {self.url}; is the island overloaded?") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(
                f"no island at {self.url} ({error or type(error).__name__}); start one by `skyisland serve`"
            ) from None
        try:
            fields = msgspec.json.decode(response.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            fields = {}
        if not fields if response.is_success else not isinstance(fields.get("error"), str):
            text = f"{self.url} answers {response.status_code}, but not as an island does; check the address"
            raise Unreachable(text)
        return response.status_code, fields

    # Calls

    def invoke(self, request: FunctionRequest) -> Called:
        """Run a call, however long it takes."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=None)
        status, fields = self._exchange("POST", "/api/v1/function", json=body(request), timeout=timeout)
        if status == 200:
            return Called(verdict=Verdict.ok, message="", answer=fields)
        code, details = fields.get("code"), fields.get("details")
        if code in set(Verdict) and isinstance(details, dict):
            return Called(verdict=Verdict(code), message=fields["error"], answer=details)
        raise refusal(status, fields)

    # What everybody sees

    def capabilities(self) -> list[dict[str, Any]]:
        """What the host enforces, and what it cannot."""
        found: list[dict[str, Any]] = self._ask("GET", "/api/v1/capabilities")["capabilities"]
        return found

    # What admins see and do

    def stats(self) -> dict[str, Any]:
        """The figures of api-stats."""
        return self._ask("GET", f"{ADMIN}/api-stats")

    def snapshot(self) -> dict[str, Any]:
        """The whole status."""
        return self._ask("GET", f"{ADMIN}/snapshot")

    def invocations(self, limit: int = 100) -> list[dict[str, Any]]:
        """Calls that are over, newest first."""
        fields = self._ask("GET", f"{ADMIN}/invocations", params={"limit": limit})
        found: list[dict[str, Any]] = fields["invocations"]
        return found

    def logs(self, *, jail: str | None = None, limit: int = 500) -> list[dict[str, Any]]:
        """Lines of the log, oldest first."""
        params: dict[str, Any] = {"limit": limit} | ({"jail": jail} if jail else {})
        found: list[dict[str, Any]] = self._ask("GET", f"{ADMIN}/logs", params=params)["logs"]
        return found

    def jails(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", f"{ADMIN}/jails")["jails"]
        return found

    def jail(self, jail: str) -> dict[str, Any]:
        """One jail, by its number or name."""
        found: dict[str, Any] = self._ask("GET", f"{ADMIN}/jail/{quote(jail, safe='')}")["details"]
        return found

    def kill(self, jail: str) -> int:
        """End a jail; returns its number."""
        jid: int = self._ask("DELETE", f"{ADMIN}/jail/{quote(jail, safe='')}")["deleted"]
        return jid

    def kill_all(self) -> list[int]:
        """End all jails; returns their numbers."""
        jids: list[int] = self._ask("DELETE", f"{ADMIN}/jails")["deleted"]
        return jids

    def addresses(self) -> dict[str, str | None]:
        """Every address, and the jail that has it."""
        return self._ask("GET", f"{ADMIN}/ips")

    def addresses_in(self, state: AddressState) -> list[str]:
        found: list[str] = self._ask("GET", f"{ADMIN}/ips", params={"state": state})[state]
        return found

    def set_address(self, ip: str, state: AddressState) -> dict[str, Any]:
        """Take an address out of the pool, or give it back."""
        return self._ask("PUT", f"{ADMIN}/ips", json={"ip": ip, "state": state})

    def artifacts(self) -> list[dict[str, Any]]:
        """The cache."""
        found: list[dict[str, Any]] = self._ask("GET", f"{ADMIN}/cache")["artifacts"]
        return found

    def evict(self, key: str) -> str:
        """Delete one from the cache; returns its key."""
        evicted: str = self._ask("DELETE", f"{ADMIN}/cache/{quote(key, safe='')}")["evicted"]
        return evicted

    def purge(self) -> list[str]:
        """Delete all that no call is using; returns their keys."""
        evicted: list[str] = self._ask("POST", f"{ADMIN}/cache/purge")["evicted"]
        return evicted
