"""Every operation of the REST API of a running island, for commands; each method is one request.

Shapes are those of `wire` and `model`. What the island refuses is raised as the error that it was there; how
a function ended in its jail is no error but part of a `Called`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import httpx

from skyisland import operations as op
from skyisland.client.asking import BEHIND, Unreachable, way_to
from skyisland.codec import AnswerLines, NotAnIsland, encode, read_call
from skyisland.errors import BadRequest
from skyisland.events import InvocationFinished
from skyisland.figures import Report
from skyisland.golang.catalogue import Catalogue
from skyisland.host.trust import distrust
from skyisland.later.calls import CallState, Record
from skyisland.model import Artifact, FunctionRequest, NamedCall
from skyisland.named.definition import Definition, MoveBody, Revision, RollbackBody, SecretBody
from skyisland.named.functions import Named
from skyisland.operations import JSON, LINES, Operation
from skyisland.operations.gathered import ALL, Gathered, read_all
from skyisland.receipts.receipt import Built, Provenance, Signed
from skyisland.record.lines import LogLine
from skyisland.record.traffic import ApiStats
from skyisland.status import AddressInfo, AddressState, Capability, Written
from skyisland.wire import AddressBody, Called, FunctionPage, InputAnswer, Jail, Snapshot, Versions

T = TypeVar("T")

NO_ARGUMENTS = NamedCall()


def _way(behind: bool) -> dict[str, str] | None:
    return {"Priority": BEHIND} if behind else None


class Client:
    """A connection to the island at `url` (`http://127.0.0.1:3280`).

    Every method raises `Unreachable`, or the `IslandError` with which the island refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        header: str = "X-Sky-Island-Token",
        timeout_s: float = 30.0,
        remedy: str = "start one by `skyisland serve`",
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
        node: str = "",
    ) -> None:
        """`timeout_s`: how long to wait for an answer; calls and builds wait for as long as they take.
        `remedy`: what the user of this client may do where nobody listens. `tls`: as `trusting` makes it.
        `node`: the one of the fleet that is to answer, if it is not this one."""
        self.url = url
        self.node = node
        self._remedy = remedy
        base, path = way_to(url, tls)
        if path:
            transport = transport or httpx.HTTPTransport(uds=path, verify=tls or True)
        # No proxy of the environment gets to see the token.
        self._http = httpx.Client(
            base_url=base,
            headers={header.encode(): token.encode()} if token else None,
            timeout=timeout_s,
            trust_env=False,
            verify=tls
            or base.startswith("https:"),  # to load certificates takes 10 ms; plain HTTP needs none
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

    def _ask(
        self,
        operation: Operation[T],
        *,
        body: object = None,
        patient: bool = False,
        revision: int | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: object,
    ) -> T:
        """What the island answers. `patient`: for as long as it takes. `revision`: what is changed must be at
        this one, 0 for new."""
        response = self._send(operation, parameters, body, patient, revision, headers)
        try:
            return operation.read(response.status_code, response.content)
        except NotAnIsland as error:
            raise Unreachable(f"{self.url} {error}") from None

    def _send(
        self,
        operation: Operation[Any],
        parameters: Mapping[str, object],
        body: object,
        patient: bool,
        revision: int | None = None,
        more: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": JSON}
        if revision is not None:
            headers |= {"If-Match": f'"{revision}"'} if revision else {"If-None-Match": "*"}
        if self.node and "node" not in parameters:
            parameters = {**parameters, "node": self._named(operation)}
        try:
            return self._http.request(
                operation.method,
                operation.url(**parameters),
                content=None if body is None else encode(body),
                headers={**headers, **(more or {})},
                timeout=httpx.Timeout(self._http.timeout.connect, read=None)
                if patient
                else self._http.timeout,
            )
        except httpx.TimeoutException:
            raise Unreachable(f"no answer in time from {self.url}; is the island overloaded?") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._unreachable(error) from None

    def _named(self, operation: Operation[Any]) -> str:
        """The node that this is asked of.

        Raises:
            BadRequest: it is not asked of nodes, or all are meant.
        """
        if self.node == ALL:
            raise BadRequest("all nodes are asked by `everywhere`; name one node", field="node")
        if not operation.takes_node:
            raise BadRequest(f"{operation.name} is not asked of a node; leave the node out", field="node")
        return self.node

    def everywhere(self, operation: Operation[T], **parameters: object) -> Gathered[T]:
        """What all nodes of the island's fleet answer."""
        response = self._send(operation, {**parameters, "node": ALL}, None, patient=False)
        try:
            return read_all(operation, response.status_code, response.content)
        except NotAnIsland as error:
            raise Unreachable(f"{self.url} {error}") from None

    def _unreachable(self, error: Exception) -> Unreachable:
        if text := distrust(error):
            return Unreachable(f"{self.url}: {text}")
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http:"):
            return Unreachable(f"{self.url} cut the connection ({error}); does it speak TLS (api.tls_cert)?")
        why = error or type(error).__name__
        return Unreachable(f"no island at {self.url} ({why}); {self._remedy}")

    # Open to all

    def invoke(self, request: FunctionRequest, *, behind: bool = False, receipt: bool = False) -> Called:
        """Run a call, however long it takes. `behind`: it leaves the way to all others. `receipt`: with one,
        to be fetched soon."""
        more = {**(_way(behind) or {}), **({"Prefer": "receipt"} if receipt else {})}
        return self._called(self._send(op.INVOKE, {}, request, patient=True, more=more))

    def call(self, name: str, asked: NamedCall = NO_ARGUMENTS, *, behind: bool = False) -> Called:
        """Run the function that has this name, however long it takes."""
        return self._called(self._send(op.CALL, {"name": name}, asked, patient=True, more=_way(behind)))

    def _called(self, response: httpx.Response) -> Called:
        try:
            return read_call(response.status_code, response.content)
        except NotAnIsland as error:
            raise Unreachable(f"{self.url} {error}") from None

    def functions(self, url: str, version: str | None = None, *, patient: bool = True) -> Catalogue:
        """What the package at `url` offers; if `patient`, however long that takes the first time."""
        return self._ask(op.FUNCTIONS, url=url, version=version, patient=patient)

    def versions(self, url: str, *, after: str | None = None, until: str | None = None) -> Versions:
        """The releases of the package at `url`; or the commits after the version `after`, up to `until`."""
        return self._ask(op.VERSIONS, url=url, after=after, until=until, patient=True)

    def receipt(self, invocation: str) -> Signed:
        """The signed receipt of a call that was sent with `receipt=True`."""
        return self._ask(op.RECEIPT, invocation=invocation)

    def signers(self) -> str:
        """What the island's receipts are verified with."""
        return self._ask(op.SIGNERS)

    def reproduce(self, built: Built) -> Provenance:
        """Have built again what a receipt tells of, however long it takes."""
        return self._ask(op.REPRODUCE, body=built, patient=True)

    def invoke_later(
        self, request: FunctionRequest, *, key: str = "", callback: str = "", wait_s: int = 0
    ) -> Record:
        """Have a call kept, and run when there is room; tells what is known of it, after `wait_s` at most.

        `key`: an Idempotency-Key. `callback`: the URL that gets its record when it is over.
        """
        return self._later(op.INVOKE, {}, request, key, callback, wait_s)

    def call_later(
        self,
        name: str,
        asked: NamedCall = NO_ARGUMENTS,
        *,
        key: str = "",
        callback: str = "",
        wait_s: int = 0,
    ) -> Record:
        """The same for the function that has this name."""
        return self._later(op.CALL, {"name": name}, asked, key, callback, wait_s)

    def _later(
        self,
        operation: Operation[Any],
        parameters: Mapping[str, object],
        body: object,
        key: str,
        callback: str,
        wait_s: int,
    ) -> Record:
        headers = {"Prefer": "respond-async", "Idempotency-Key": key, "X-Callback-Url": callback}
        more = {name: one for name, one in headers.items() if one}
        response = self._send(operation, parameters, body, patient=True, more=more)
        try:
            record = op.KEPT.read(response.status_code, response.content)
        except NotAnIsland as error:
            raise Unreachable(f"{self.url} {error}") from None
        return self.kept(record.id, wait_s=wait_s) if wait_s else record

    def calls(
        self, *, state: CallState | None = None, name: str | None = None, since: int = 0, limit: int = 100
    ) -> list[Record]:
        """Calls that answer later, newest first, without results."""
        return self._ask(op.CALLS, state=state, name=name, since=since, limit=limit)

    def kept(self, kept: str, *, wait_s: int = 0) -> Record:
        """One of them, with its result if it is over; as soon as it is, or after `wait_s`."""
        prefer = {"Prefer": f"wait={wait_s}"} if wait_s else None
        return self._ask(op.KEPT, kept=kept, headers=prefer, patient=bool(wait_s))

    def cancel(self, kept: str) -> Record:
        """Cancel one that is not over."""
        return self._ask(op.CANCEL, kept=kept)

    def redrive(self, kept: str) -> Record:
        """Run a dead or cancelled one again."""
        return self._ask(op.REDRIVE, kept=kept)

    def forget_calls(self, *, call: str | None = None, state: CallState | None = None) -> list[str]:
        """Forget those that are over, or this one of them; returns their ids."""
        return self._ask(op.FORGET_CALLS, call=call, state=state)

    def callback_secret(self) -> str:
        """What this caller verifies callbacks with."""
        return self._ask(op.CALLBACK_SECRET)

    def invoke_many(self, request: FunctionRequest) -> Iterator[InputAnswer | Called]:
        """Run a call with many inputs: the answer of each as it comes, and last what came of the call."""
        headers = {"Content-Type": JSON, "Accept": LINES}
        timeout = httpx.Timeout(self._http.timeout.connect, read=None)
        try:
            with self._http.stream(
                op.INVOKE.method, op.INVOKE.url(), content=encode(request), headers=headers, timeout=timeout
            ) as response:
                if response.status_code != httpx.codes.OK:
                    yield read_call(response.status_code, response.read())
                    return
                lines = AnswerLines()
                for chunk in response.iter_bytes():
                    yield from lines.take(chunk)
                yield lines.end()
        except NotAnIsland as error:
            raise Unreachable(f"{self.url} {error}") from None
        except httpx.ConnectError as error:
            raise self._unreachable(error) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(f"{self.url}: {error or type(error).__name__}") from None

    def capabilities(self) -> list[Capability]:
        """What the host enforces, and what it cannot."""
        return self._ask(op.CAPABILITIES)

    # For operators and admins

    def stats(self) -> ApiStats:
        """HTTP traffic since the island started."""
        return self._ask(op.STATS)

    def snapshot(self) -> Snapshot:
        """The whole status."""
        return self._ask(op.SNAPSHOT)

    def invocations(self, limit: int = 100) -> list[InvocationFinished]:
        """Calls that are over, newest first."""
        return self._ask(op.INVOCATIONS, limit=limit)

    def invocation(self, invocation: str) -> InvocationFinished:
        """A call that is over, by its id."""
        return self._ask(op.INVOCATION, invocation=invocation)

    def report(self, window: str | None = None) -> Report:
        """Figures of a window of time (`5m` or `1h`): of all calls, and of each function."""
        return self._ask(op.REPORT, window=window)

    def function(self, function: str, window: str | None = None) -> FunctionPage:
        """One function that was called, by its id."""
        return self._ask(op.FUNCTION, function=function, window=window)

    def logs(self, *, jail: str | None = None, after: int = 0, limit: int = 500) -> list[LogLine]:
        """The latest lines of the log with a `seq` above `after`, oldest first."""
        return self._ask(op.LOGS, jail=jail, after=after, limit=limit)

    def jails(self) -> list[Jail]:
        """The jails that are alive."""
        return self._ask(op.JAILS)

    def jail(self, jail: str) -> Jail:
        """One jail, by its number or name."""
        return self._ask(op.JAIL, jail=jail)

    def output(self, jail: str) -> Iterator[Written]:
        """What a jail writes, as it comes, to its end. Its number, its name, or the id of its call."""
        if self.node:
            self._named(op.OUTPUT)
        timeout = httpx.Timeout(self._http.timeout.connect, read=None)
        request = self._http.build_request(op.OUTPUT.method, op.OUTPUT.url(jail=jail), timeout=timeout)
        try:
            response = self._http.send(request, stream=True)
            if response.status_code != httpx.codes.OK:
                op.OUTPUT.read(response.status_code, response.read())  # raises
        except NotAnIsland as error:
            raise Unreachable(f"{self.url} {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._unreachable(error) from None
        return self._parts(response)

    def _parts(self, response: httpx.Response) -> Iterator[Written]:
        begun = b""
        try:
            for chunk in response.iter_bytes():
                *whole, begun = (begun + chunk).split(b"\n")
                yield from (op.OUTPUT.read(response.status_code, line) for line in whole)
        except (httpx.HTTPError, OSError) as error:
            raise Unreachable(f"{self.url}: {error or type(error).__name__}") from None
        finally:
            response.close()

    def addresses(self) -> dict[str, str | None]:
        """Every address, and the jail that has it."""
        pool = self._ask(op.ADDRESSES)
        return {ip: jail for ip, jail in pool.items() if not isinstance(jail, list)}

    def addresses_in(self, state: AddressState) -> list[str]:
        """The addresses in this state."""
        addresses = self._ask(op.ADDRESSES, state=state).get(state)
        return addresses if isinstance(addresses, list) else []

    def artifacts(self) -> list[Artifact]:
        """The binaries in the cache."""
        return self._ask(op.ARTIFACTS)

    # For admins

    def kill(self, jail: str) -> int:
        """End a jail; returns its number."""
        return self._ask(op.KILL, jail=jail)

    def kill_all(self) -> list[int]:
        """End all jails; returns their numbers."""
        return self._ask(op.KILL_ALL)

    def set_address(self, ip: str, state: AddressState) -> AddressInfo:
        """Take an address out of the pool, or give it back."""
        return self._ask(op.SET_ADDRESS, body=AddressBody(ip=ip, state=state))

    def evict(self, key: str) -> str:
        """Delete a binary from the cache; returns its key."""
        return self._ask(op.EVICT, key=key)

    def rebuild(self, key: str) -> str:
        """Fetch and compile anew what a binary was made of; returns the key of the new one."""
        return self._ask(op.REBUILD, key=key, patient=True)

    def purge(self) -> list[str]:
        """Delete the binaries that no call is using; returns their keys."""
        return self._ask(op.PURGE)

    # Functions with a name

    def names(self) -> list[Named]:
        """Every name, and what it stands for."""
        return self._ask(op.NAMES)

    def named(self, name: str) -> Named:
        """What a name stands for."""
        return self._ask(op.NAME, name=name)

    def define(self, name: str, definition: Definition, revision: int | None = None) -> Named:
        """Have a name stand for this, once it is built. `revision`: the one that the name must be at, 0 for
        a new name; None for any."""
        return self._ask(op.DEFINE, name=name, body=definition, revision=revision, patient=True)

    def forget(self, name: str) -> str:
        """Forget a name and its history."""
        return self._ask(op.FORGET, name=name)

    def revisions(self, name: str) -> list[Revision]:
        """What a name stood for, latest first."""
        return self._ask(op.REVISIONS, name=name)

    def move(self, name: str, version: str | None = None, *, follow: bool = False) -> Named:
        """Move a name to another version, or to where its version points now, once that is built. `follow`:
        it follows its branch from then on, although it was pinned."""
        return self._ask(op.MOVE, name=name, body=MoveBody(version=version, follow=follow), patient=True)

    def roll_back(self, name: str, to: int | None = None) -> Named:
        """Have a name stand for what an earlier revision stood for; the latest other one without `to`."""
        return self._ask(op.ROLL_BACK, name=name, body=RollbackBody(revision=to), patient=True)

    def pause(self, name: str) -> Named:
        """Refuse calls of a name."""
        return self._ask(op.PAUSE, name=name)

    def resume(self, name: str) -> Named:
        """Take calls of a name again."""
        return self._ask(op.RESUME, name=name)

    def secrets(self) -> list[str]:
        """The names of the secrets."""
        return self._ask(op.SECRETS)

    def set_secret(self, secret: str, value: str) -> str:
        """Keep a secret; returns its name."""
        return self._ask(op.SET_SECRET, secret=secret, body=SecretBody(value=value))

    def forget_secret(self, secret: str) -> str:
        """Forget a secret that no name has; returns its name."""
        return self._ask(op.FORGET_SECRET, secret=secret)
