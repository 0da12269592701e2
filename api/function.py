"""POST /api/v1/function: run a call.

This is the path that has to be fast, so it is an ASGI application of its own in front of Quart, whose
routing, contexts and two tasks a request cost as much as all of Hypercorn. It reads the body, runs the
call while it listens for the caller to hang up, and answers.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from api.auth import Gate
from api.problems import Reply, RequestTimeout, TooLarge, misfortune, reply
from api.wire import Answer, FunctionBody, decode, encode
from skyisland.errors import TooBusy
from skyisland.island import Island
from skyisland.model import Invocation, Timings, Verdict
from skyisland.record.metrics import Metrics
from skyisland.settings import Api

PATH = "/api/v1/function"
LISTEN_S = 0.005
"""A call is that old before its caller is listened to: most are over by then, and to listen takes a task."""
PATIENCE = 4
"""So many times the limit of a body that is too long are read, so that its sender hears why."""


REFUSALS_PER_S = 200
LONGEST_WAIT_S = 1.0


class HungUp(Exception):
    """The caller is gone; there is nobody to answer."""


class Pace:
    """Lets refusals for want of room out one after another, `REFUSALS_PER_S` of them.

    Most who are refused ask again at once, whatever Retry-After says, and to refuse costs as much as any
    answer: without a pace, the loop would do nothing else, and health, operators and running calls wait.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        mine = max(now, self._free_at)
        self._free_at = min(mine + 1 / REFUSALS_PER_S, now + LONGEST_WAIT_S)
        if mine > now:
            await asyncio.sleep(mine - now)


class FunctionEndpoint:
    """The whole of one path, every method."""

    def __init__(self, island: Island, metrics: Metrics, gate: Gate, settings: Api) -> None:
        self._island = island
        self._metrics = metrics
        self._gate = gate
        self._settings = settings
        self._header = gate.header.lower().encode()
        self._calls: Counter[str] = Counter()
        """Calls that each client has under way or waiting."""
        self._refusals = Pace()

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["method"] == "POST":
            try:
                client = self._admit(scope)
                try:
                    answer = await self._run(receive)
                finally:
                    self._dismiss(client)
            except HungUp:
                return
            except TooBusy as error:
                await self._refusals.turn()
                answer = reply(error)
            except Exception as error:
                answer = reply(error)
        else:
            answer = _OPTIONS if scope["method"] == "OPTIONS" else _NOT_ALLOWED
        await send_reply(answer, send)

    def _admit(self, scope: HTTPScope) -> str:
        """Count one more call of this client, if it may call and has not too many; returns who it is."""
        address = scope["client"][0] if scope["client"] else ""
        shown = next((value for name, value in scope["headers"] if name == self._header), b"")
        who = self._gate.admit_call(shown.decode("latin-1"), address)
        client, most = who.name or address, self._settings.calls_per_client
        if most and self._calls[client] >= most:
            raise TooBusy(f"you have {most} calls under way; wait for one of them", retry_after_s=1)
        self._calls[client] += 1
        return client

    def _dismiss(self, client: str) -> None:
        self._calls[client] -= 1
        if not self._calls[client]:
            del self._calls[client]

    async def _run(self, receive: ASGIReceiveCallable) -> Reply:
        self._metrics.count("handlers.function.run")
        request = decode(await self._body(receive), FunctionBody).request()
        with _UntilHangUp(receive):
            invocation = await self._island.invoke(request)
        return answered(invocation)

    async def _body(self, receive: ASGIReceiveCallable) -> bytes:
        chunks: list[bytes] = []
        size, limit = 0, self._settings.max_body
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                while size <= PATIENCE * limit:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise HungUp
                    chunk = message["body"]
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    if not message["more_body"]:
                        break
        except TimeoutError:
            text = f"the body did not come within {self._settings.body_timeout:g} s"
            raise RequestTimeout(text) from None
        if size > limit:
            raise TooLarge(f"the body is longer than {limit} bytes; send less", limit_bytes=limit)
        return b"".join(chunks)


def answered(invocation: Invocation) -> Reply:
    """The answer to a call that is over, however it ended."""
    if invocation.outcome.verdict is Verdict.ok:
        answer = Reply(200, encode(Answer.of(invocation)))
    else:
        answer = misfortune(invocation)
    return Reply(answer.status, answer.body, (("Server-Timing", server_timing(invocation.timings)),))


def server_timing(timings: Timings) -> str:
    """The phases in milliseconds, as the header of W3C's Server Timing has them."""
    return (
        f"queue;dur={timings.queue_s * 1000:.3f}, resolve;dur={timings.resolve_s * 1000:.3f}, "
        f"clone;dur={timings.clone_s * 1000:.3f}, build;dur={timings.build_s * 1000:.3f}, "
        f"jail;dur={timings.jail_s * 1000:.3f}, exec;dur={timings.exec_s * 1000:.3f}, "
        f"total;dur={timings.total_s * 1000:.3f}"
    )


class _UntilHangUp:
    """Cancels the block when the caller hangs up.

    Raises:
        HungUp: that happened.
    """

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self._caller: asyncio.Task[object] | None = None
        self._gone = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(LISTEN_S, self._listen)

    def _listen(self) -> None:
        # After the body, all that can come is a disconnect.
        self._caller = asyncio.ensure_future(self._receive())
        self._caller.add_done_callback(self._hung_up)

    def _hung_up(self, caller: asyncio.Task[object]) -> None:
        if self._task is not None and not caller.cancelled():
            self._gone = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        self._timer.cancel()
        if self._caller is not None:
            self._caller.cancel()
        if self._gone and kind is asyncio.CancelledError and task is not None and task.uncancel() == 0:
            raise HungUp from None


_ALLOW = (("Allow", "OPTIONS, POST"),)
_OPTIONS = Reply(200, b"", _ALLOW)
_NOT_ALLOWED = Reply(
    405,
    b'{"error":"this runs functions by POST","code":"method_not_allowed"}',
    _ALLOW,
)


async def send_reply(answer: Reply, send: ASGISendCallable) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.body)).encode()),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
