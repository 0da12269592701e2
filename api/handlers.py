"""ANY /fn/NAME[/path]: an HTTP handler with a name answers, in a jail of its own.

The request is written as bytes of HTTP/1.1 for the handler, whose answer comes back as such (h11 writes and
reads both), and is passed on piece by piece as it comes. The handler sees the path behind its name; who asks,
by which name and way, is in `X-Forwarded-…`. What is between two neighbours alone (RFC 9110, section 7.6.1)
and the caller's token stay here.

What is sent again with an Idempotency-Key gets the answer that was sent before. A `Copy` of it is kept before
its last byte is sent, so who has all of it may ask at once. Where it broke off, the key stands for nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from urllib.parse import quote

import h11
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)

from api.auth import Gate
from api.bodies import HungUp, read_body
from api.clients import UNIX, Clients
from api.function import Asked, Client, FunctionEndpoint, UntilHangUp, asked_by, send_reply
from api.later import REPLAYED, Kept
from api.problems import Reply, misfortune, reply
from skyisland.errors import BadRequest, NotFound, TooBusy
from skyisland.island import Island
from skyisland.later.calls import Claim
from skyisland.later.keeping import NotKept
from skyisland.model import Exchange, Verdict
from skyisland.named.calls import EVERYBODY

log = logging.getLogger(__name__)

PREFIX = "/fn/"
HEADER_BYTES = 64 << 10
"""Longest head of a handler's answer. A judgement: browsers and proxies take no more than 16 KiB."""
AT_ONCE = 100
"""Chunks of an answer that are read before others have their turn: a millisecond."""
BETWEEN_NEIGHBOURS = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"http2-settings",
    )
)
FORWARDED = re.compile(rb"forwarded|x-forwarded-(?:for|host|proto|prefix|port)|x-real-ip")
NO_ANSWER = Reply(
    502,
    b'{"error":"the handler gave no answer; the log of the island has what it printed","code":"exited"}',
)


class HandlerEndpoint:
    """Everything below `PREFIX`."""

    def __init__(self, island: Island, function: FunctionEndpoint, gate: Gate, clients: Clients) -> None:
        self._island, self._function, self._gate, self._clients = island, function, gate, clients

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        asked = asked_by(scope)
        copy = Copy(send) if asked.deferral is not None else None
        answer = Answering(send, asked.id, copy)
        try:
            refusal = await self._answered(scope, receive, answer, asked, copy)
        except HungUp:
            return
        except Exception as error:
            if answer.begun:
                return
            if isinstance(error, TooBusy):
                await self._function.refusals.turn()
            refusal = reply(error, asked.wanted.error, admin=self._gate.is_admins(scope["headers"]))
        if refusal is not None:
            await send_reply(refusal, send, ("X-Call-Id", asked.id))
        # Where an answer broke off, nothing more is sent, and the server closes the connection.

    async def _answered(
        self,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        answer: Answering,
        asked: Asked,
        copy: Copy | None,
    ) -> Reply | None:
        """What is sent in place of the handler's answer, if there is none. `copy`: of that answer, where the
        request has an Idempotency-Key."""
        name, target = _target(scope)
        definition = self._island.named.calls.handler(name)
        public = definition.webhook is not None or EVERYBODY in definition.callers
        with self._function.admitted(scope, open_to_all=public) as client:
            settings = self._function.settings
            body = await read_body(receive, limit=settings.max_body, timeout_s=settings.body_timeout)
            await self._island.named.calls.check_signature(name, list(scope["headers"]), body)
            request = self._request(scope, name, target, body, answer)
            run = partial(self._run, scope, receive, answer, asked, name, request, client)
            if asked.deferral is None or copy is None:
                return await run()
            asked.deferral.check_handler()
            claim = asked.deferral.claim(
                client.share, PREFIX.encode(), name.encode(), scope["method"].encode(), target, body
            )
            return await self._once(claim, name, client, copy, run)

    async def _once(
        self, claim: Claim, name: str, client: Client, copy: Copy, run: Callable[[], Awaitable[Reply | None]]
    ) -> Reply | None:
        """Run the request of a claim, unless it ran before: then the answer is sent again.

        Raises:
            KeyReused, KeyInUse
        """
        later = self._island.later
        if (held := await later.claim(claim)) is not None:
            self._island.named.calls.check(name, who=client.who, later=False)
            await copy.again(Kept.of(held))
            return None
        copy.keep = partial(later.answered, claim)
        try:
            refusal = await run()
            if refusal is not None:
                await copy.end(refusal)
        finally:
            if not copy.ended:
                await later.release(claim)
        return refusal

    async def _run(
        self,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        answer: Answering,
        asked: Asked,
        name: str,
        request: bytes,
        client: Client,
    ) -> Reply | None:
        """Have the handler answer; what is sent in place of its answer, if there is none.

        Raises:
            HungUp
            h11.RemoteProtocolError: its answer broke off.
        """
        address, port = self._clients.address_of(scope), (scope["client"] or ("", 0))[1]
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

        def hear(piece: bytes) -> bool:
            pieces.put_nowait(piece)
            return False  # whether that is all shows when it is read

        exchange = Exchange(
            request=request,
            peer=f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
            heard=hear,
        )
        running = asyncio.ensure_future(
            self._island.named.calls.answer(
                name,
                exchange,
                who=client.who,
                client=client.share,
                id=asked.id,
                caller_id=asked.caller_id,
                traceparent=asked.traceparent,
            )
        )
        running.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            with UntilHangUp(receive):
                while not answer.ended and (piece := await pieces.get()) is not None:
                    await answer.take(piece)
            # Who has the whole answer may leave before the handler's process ends.
            invocation = await running
        except h11.RemoteProtocolError:
            if answer.begun:
                raise
            return NO_ANSWER
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if answer.begun:
            return None
        ended_well = invocation.outcome.verdict is Verdict.ok
        return NO_ANSWER if ended_well else misfortune(invocation, asked.wanted.error)

    def _request(self, scope: HTTPScope, name: str, target: bytes, body: bytes, answer: Answering) -> bytes:
        """The request as the handler reads it."""
        headers = [*self._headers(scope, bool(body)), *self._forwarded(scope, name)]
        if not any(header.lower() == b"host" for header, _ in headers):
            headers.insert(0, (b"Host", b"localhost"))
        if body and not any(header in (b"content-length", b"transfer-encoding") for header, _ in headers):
            headers.append((b"content-length", str(len(body)).encode()))  # HTTP/2 needs none
        try:
            return answer.asked(scope["method"].encode(), target, headers, body)
        except h11.LocalProtocolError as error:
            raise BadRequest(f"the request is not one of HTTP/1.1: {error}") from None

    def _headers(self, scope: HTTPScope, body: bool) -> Iterator[tuple[bytes, bytes]]:
        """The caller's headers, without those that are not the handler's business."""
        token = self._gate.header.lower().encode()
        named = {
            word.strip().lower()
            for header, value in scope["headers"]
            if header == b"connection"
            for word in value.split(b",")
        }
        for header, value in scope["headers"]:
            if header in BETWEEN_NEIGHBOURS or header in named or header == token or header.startswith(b":"):
                continue
            if FORWARDED.fullmatch(header) or (header == b"authorization" and self._is_ours(value)):
                continue
            yield header, value

    def _is_ours(self, authorization: bytes) -> bool:
        """Whether a token of the island stands in it; what else does is for the handler."""
        token = self._gate.token_of([(b"authorization", authorization)])
        return bool(token) and self._gate.who(token) is not None

    def _forwarded(self, scope: HTTPScope, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Who asks, for whom, by which way: names and paths are those that the caller used."""
        host = next((value for header, value in scope["headers"] if header == b"host"), b"")
        scheme = self._told(scope, b"x-forwarded-proto").lower()
        yield b"X-Forwarded-For", self._clients.address_of(scope).encode()
        if host := self._told(scope, b"x-forwarded-host") or host:
            yield b"X-Forwarded-Host", host
        yield b"X-Forwarded-Proto", scheme if scheme in (b"http", b"https") else scope["scheme"].encode()
        yield b"X-Forwarded-Prefix", quote(self._function.settings.base_path + PREFIX + name).encode()

    def _told(self, scope: HTTPScope, header: bytes) -> bytes:
        """What a proxy that is believed says by this header: the last of a list, as each proxy appends."""
        if not self._clients.trusts(scope["client"][0] if scope["client"] else UNIX):
            return b""
        values = [value for name, value in scope["headers"] if name == header]
        return values[-1].rpartition(b",")[2].strip() if values else b""


def _target(scope: HTTPScope) -> tuple[str, bytes]:
    """The handler's name, and the target that it sees, to the byte as it was sent.

    Raises:
        NotFound: there is no name.
    """
    _, found, rest = scope["raw_path"].partition(PREFIX.encode())
    name, slash, path = rest.partition(b"/")
    if not found or not name.isascii():
        raise NotFound("there is nothing here; handlers are at /fn/NAME")
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    return name.decode(), slash + path + query if slash else b"/" + query


class Copy:
    """A handler's answer, or what is sent in its place, for who sends the same Idempotency-Key again."""

    def __init__(self, send: ASGISendCallable) -> None:
        self._send = send
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self.keep: Callable[[bytes], Awaitable[None]]
        """Keeps it."""
        self.ended = False
        """It is whole, and was given to be kept."""

    def add(self, message: ASGISendEvent) -> None:
        """What is about to be sent."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]
            ]
        elif message["type"] == "http.response.body":
            self._body += message["body"]

    async def end(self, refusal: Reply | None = None) -> None:
        """Keep what was added, or `refusal` in its place. What cannot be kept is an answer all the same."""
        kept = Kept(self._status, bytes(self._body), tuple(self._headers))
        if refusal is not None:
            kept = Kept(refusal.status, refusal.body, refusal.headers, refusal.media)
        try:
            await self.keep(kept.encoded())
        except NotKept as error:
            log.error("the answer to an Idempotency-Key: %s", error.message)
        self.ended = True

    async def again(self, kept: Kept) -> None:
        """Send what was sent before."""
        media = (("content-type", kept.media), ("content-length", str(len(kept.body)))) if kept.media else ()
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (*kept.headers, *media, REPLAYED)
        ]
        await self._send({"type": "http.response.start", "status": kept.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": kept.body, "more_body": False})


class Answering:
    """A handler's answer, passed on as it comes."""

    def __init__(self, send: ASGISendCallable, id_: str, copy: Copy | None = None) -> None:
        self._send, self._id, self._copy = send, id_, copy
        self._http = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=HEADER_BYTES)
        self.begun = False
        """Its status is sent."""
        self.ended = False
        """All of it is sent."""

    def asked(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """The request that it is an answer to, as bytes.

        Raises:
            h11.LocalProtocolError: it is none.
        """
        events = [h11.Request(method=method, target=target, headers=headers), h11.EndOfMessage()]
        if body:
            events.insert(1, h11.Data(data=body))
        return b"".join(self._http.send(event) or b"" for event in events)

    async def take(self, piece: bytes) -> None:
        """Pass on what is whole.

        Raises:
            h11.RemoteProtocolError: this is no answer.
        """
        if piece:  # h11 takes none for the connection's end
            self._http.receive_data(piece)
        messages: list[ASGISendEvent] = []
        body = bytearray()
        for number in itertools.count(1):
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                messages.append(self._start(event))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.ended = True
            elif not isinstance(event, h11.InformationalResponse):
                break
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        if body or self.ended:
            messages.append({"type": "http.response.body", "body": bytes(body), "more_body": not self.ended})
        if self._copy is not None:
            for message in messages:
                self._copy.add(message)
            if self.ended:  # the head may be all of the answer: nothing is sent before it is kept
                await self._copy.end()
        for message in messages:
            self.begun = True
            await self._send(message)

    def _start(self, response: h11.Response) -> HTTPResponseStartEvent:
        named = {
            word.strip().lower()
            for header, value in response.headers
            if header == b"connection"
            for word in value.split(b",")
        }
        # The server frames the answer anew, and dates it; the id is the invocation's alone.
        ours = BETWEEN_NEIGHBOURS | named | {b"transfer-encoding", b"date", b"x-call-id"}
        headers = [(header, value) for header, value in response.headers if header not in ours]
        headers.append((b"x-call-id", self._id.encode()))
        # Any status from 200 to 999 passes, as it does through Go's own server and its ReverseProxy.
        return {"type": "http.response.start", "status": response.status_code, "headers": headers}
