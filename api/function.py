"""POST /api/v1/function and POST /api/v1/names/NAME: run a call.

This path has to be fast. It is an ASGI application of its own in front of Quart, because Quart's routing,
contexts and two tasks for each request cost as much as all of Hypercorn. It reads the body, runs the call,
cancels it when the caller hangs up, and answers.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from msgspec import UNSET, Struct, structs
from quart import Quart, request

from api.auth import NOBODY, Gate
from api.bodies import HungUp, read_body
from api.clients import Clients, Request
from api.later import HEADERS, Deferral, deferred, is_behind, preferences
from api.lines import Lines
from api.live import Live
from api.media import JSON, TEXT, Wanted, wanted
from api.problems import Reply, misfortune, reply
from api.routes import answers
from skyisland import operations as op
from skyisland import trace
from skyisland.codec import decode, encode
from skyisland.errors import TooBusy
from skyisland.golang.catalogue import Catalogue
from skyisland.island import Island
from skyisland.model import Invocation, Timings, Verdict
from skyisland.operations import EVENT_STREAM, LINES
from skyisland.record.metrics import Metrics
from skyisland.settings import Api
from skyisland.story import new_id
from skyisland.wire import Answer, FunctionBody, NamedCallBody, Versions

WATCH_CALLER_AFTER_S = 0.005
"""Delay before we watch for a disconnect. Most calls finish sooner, and watching costs a task."""
REFUSALS_PER_S = 200
"""A refusal takes about 0.4 ms of processor time on an open connection; this many take a tenth of a core."""
LONGEST_REFUSAL_WAIT_S = 1.0
"""No longer than Retry-After asks callers to wait."""


CALLER_ID = re.compile(r"[\w.:@/+=~-]{1,128}", re.ASCII)
"""What a caller may call a call. A judgement: UUIDs and ids of tracers are like that, and nothing that a log,
a terminal or a header could take for something else."""
HEADER_CHARACTERS = 500
"""How much of a text a header of an answer holds. A judgement: proxies take headers of 4 KB together."""


class Client(NamedTuple):
    """Who calls."""

    who: str
    """The name of its token, "" without one."""
    share: str
    """Whose share of the island it takes: that name, or else its `client_of`."""


NAMES = op.CALL.path.removesuffix("{name}")


class RefusalPace:
    """Sends refusals of a full island one after another, `REFUSALS_PER_S` of them.

    Many clients repeat a refused call at once, whatever Retry-After says, and a refusal costs as much as any
    other answer. Without a pace the event loop would do nothing else, and running calls, operators and the
    health check would wait.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    async def turn(self) -> None:
        """Wait until one more refusal may be sent."""
        now = asyncio.get_running_loop().time()
        send_at = max(now, self._free_at)
        self._free_at = min(send_at + 1 / REFUSALS_PER_S, now + LONGEST_REFUSAL_WAIT_S)
        if send_at > now:
            await asyncio.sleep(send_at - now)


class FunctionEndpoint:
    """The whole of one path, every method; and of a name's path, POST."""

    def __init__(self, island: Island, metrics: Metrics, gate: Gate, settings: Api, clients: Clients) -> None:
        self._island = island
        self._metrics = metrics
        self._gate = gate
        self._clients = clients
        self.settings = settings
        self._calls: Counter[str] = Counter()
        """Each client's calls, running or queued."""
        self._watching: list[Live] = []
        self.refusals = RefusalPace()

    async def __call__(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, name: str = ""
    ) -> None:
        """`name`: of the function that is called; without it, the body says which one."""
        if scope["method"] != "POST":
            await send_reply(OPTIONS if scope["method"] == "OPTIONS" else _NOT_ALLOWED, send)
            return
        asked = asked_by(scope)
        lines: Lines | Live | None = Lines(send, asked.id) if asked.wanted.answer == LINES else None
        try:
            with self.admitted(scope) as client:
                if asked.wanted.answer == EVENT_STREAM:
                    lines = self._live(send, asked)
                answer = await self._run(receive, client, asked, lines, name)
        except HungUp:
            if lines is not None:
                lines.cancel()
            return
        except asyncio.CancelledError:
            if lines is not None:
                lines.cancel()
            raise
        except TooBusy as error:
            await self.refusals.turn()
            answer = reply(error, asked.wanted.error)
        except Exception as error:
            answer = reply(error, asked.wanted.error, admin=self._gate.is_admins(scope["headers"]))
        if lines is not None and lines.begun:
            await lines.end(answer.body)
            return
        if lines is not None:
            lines.cancel()
        await send_reply(answer, send, ("X-Call-Id", asked.id))

    def _live(self, send: ASGISendCallable, asked: Asked) -> Live:
        """A response that tells what happens.

        Raises:
            TooBusy: so many are open as there may be streams of events.
        """
        self._watching = [live for live in self._watching if not live.over]
        most = self.settings.event_streams
        if len(self._watching) >= most:
            raise TooBusy(
                f"{most} calls are watched; send it without Accept: {EVENT_STREAM}", retry_after_s=1
            )
        live = Live(self._island, send, asked.id)
        self._watching.append(live)
        return live

    @contextmanager
    def admitted(self, scope: Request, *, open_to_all: bool = False) -> Iterator[Client]:
        """Count one more call of this client for the length of the block, and tell who it is. `open_to_all`:
        also where functions take a token.

        Raises:
            Unauthorized, Forbidden: it may not call.
            TooBusy: it has as many calls under way as the settings permit.
        """
        token = self._gate.token_of(scope["headers"])
        if open_to_all:
            who = self._gate.who(token) or NOBODY
        else:
            who = self._gate.admit_call(token, self._clients.address_of(scope))
        client, most = who.name or self._clients.client_of(scope), self.settings.calls_per_client
        if most and self._calls[client] >= most:
            raise TooBusy(f"you have {most} calls under way; wait for one of them", retry_after_s=1)
        self._calls[client] += 1
        try:
            yield Client(who.name, client)
        finally:
            self._calls[client] -= 1
            if not self._calls[client]:
                del self._calls[client]

    async def _run(
        self,
        receive: ASGIReceiveCallable,
        client: Client,
        asked: Asked,
        lines: Lines | Live | None,
        name: str,
    ) -> Reply:
        self._metrics.count("handlers.function.run")
        form = asked.wanted.acceptable
        body = await read_body(
            receive,
            limit=self.settings.max_body,
            timeout_s=self.settings.body_timeout,
            coding=asked.coding,
        )
        asks: FunctionBody | NamedCallBody
        run: Callable[..., Awaitable[Invocation]]
        if name:
            named = decode(body or b"{}", NamedCallBody)
            asks, run = named, partial(self._island.named.calls.call, name, named, who=client.who)
        else:
            request = decode(body, FunctionBody)
            asks, run = request, partial(self._island.invoke, request)
        if asks.inputs is not UNSET:
            asked.wanted.check_many()

        async def answer() -> Reply:
            """Run a call whose caller waits."""
            invocation = await run(
                client=client.share,
                id=asked.id,
                caller_id=asked.caller_id,
                traceparent=asked.traceparent,
                text_only=form not in (JSON, LINES, EVENT_STREAM),
                repeatable=asked.deferral is not None and bool(asked.deferral.key),
                heard=lines.add if isinstance(lines, Lines) else None,
                behind=asked.behind,
            )
            noted = asked.receipt and self._island.receipts.note(invocation, client.share)
            if invocation.outcome.answers:  # thousands take longer than the event loop may stand still
                return await asyncio.to_thread(answered, invocation, form, asked.wanted.error)
            told = answered(invocation, form, asked.wanted.error)
            return structs.replace(told, headers=(*told.headers, _RECEIPT)) if noted else told

        if asked.deferral is None:
            with UntilHangUp(receive):
                return await answer()
        asked.deferral.check(form)
        with UntilHangUp(receive):
            return await deferred(
                self._island,
                asked.deferral,
                body,
                asks,
                answer,
                name=name,
                who=client.who,
                client=client.share,
                caller_id=asked.caller_id,
                traceparent=asked.traceparent,
                error_form=asked.wanted.error,
                base_path=self.settings.base_path,
            )


def called_name(path: str) -> str:
    """The name in the path of a call by name; empty for another path."""
    name = path.removeprefix(NAMES)
    return "" if name == path or "/" in name else name


def look(app: Quart, island: Island, endpoint: FunctionEndpoint) -> None:
    """What can be called. Who asks counts as who calls does: to make a catalogue takes as long as a build."""

    @answers(app, op.FUNCTIONS)
    async def functions(url: str, version: str | None) -> Catalogue:
        with endpoint.admitted(request.scope) as client:
            return await island.functions(url, version or None, client=client.share)

    @answers(app, op.VERSIONS)
    async def versions(url: str, after: str | None, until: str | None) -> Versions:
        with endpoint.admitted(request.scope) as client:
            return await island.versions(url, after=after or None, until=until or None, client=client.share)


def answered(invocation: Invocation, form: str, error_form: str) -> Reply:
    """The response to a call that ran, however its function ended; `form`: one of `media.ANSWERS`."""
    timing = ("Server-Timing", server_timing(invocation.timings))
    if invocation.outcome.verdict not in (Verdict.ok, Verdict.failed):
        answer = misfortune(invocation, error_form)
        return Reply(answer.status, answer.body, (timing,), answer.media)
    if form in (JSON, LINES, EVENT_STREAM):
        body = encode(Answer.of(invocation))
        return Reply(200, body + b"\n" if form == LINES else body, (timing,), form)
    headers = (*_in_headers(invocation), timing, ("X-Content-Type-Options", "nosniff"))
    printed = invocation.outcome.stdout
    media = f"{TEXT}; charset=utf-8" if form == TEXT and _is_utf8(printed) else form
    return Reply(200, printed, headers, media)


def _is_utf8(printed: bytes) -> bool:
    try:
        printed.decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_headers(invocation: Invocation) -> list[tuple[str, str]]:
    """What an answer has beside `data`. Texts are percent-encoded: a header holds printable ASCII."""
    outcome = invocation.outcome
    values: dict[str, object] = {
        "Version": invocation.commit,
        "Jail": invocation.jail or "",
        "Cached": invocation.cached,
        "Stale": invocation.stale,
        "Warm": invocation.warm,
        "Exit-Code": outcome.exit_code,
        "Failed": outcome.verdict is Verdict.failed,
    }
    if outcome.error is not None:
        values |= {"Error": outcome.error.message, "Error-Type": outcome.error.type}
    if invocation.node:
        values["Node"] = invocation.node
    if outcome.stderr:
        values["Stderr"] = outcome.stderr.decode(errors="replace")
    return [(f"X-Sky-Island-{name}", _header_text(value)) for name, value in values.items()]


def _header_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quote(str(value)[:HEADER_CHARACTERS], safe=_SAFE)


_SAFE = "".join(c for c in map(chr, range(0x20, 0x7F)) if c != "%")
"""Printable ASCII stands for itself, but for the sign of what does not."""


class Asked(Struct, frozen=True):
    """What the headers of a request say."""

    id: str
    """The invocation's, whatever becomes of it: `X-Call-Id` of the answer."""
    wanted: Wanted
    caller_id: str
    """What the caller calls it; empty if nothing, or nothing sane."""
    traceparent: str
    """The trace that the call is a part of; empty if none."""
    coding: bytes
    """How the body is packed; empty if it is not."""
    deferral: Deferral | None = None
    """When, and how often, it is answered; None at once, and each time."""
    behind: bool = False
    """It may wait until nobody else does."""
    receipt: bool = False
    """Its caller fetches a receipt."""


def server_timing(timings: Timings) -> str:
    """Each phase in milliseconds, for the header Server-Timing (W3C)."""
    return (
        f"queue;dur={timings.queue_s * 1000:.3f}, resolve;dur={timings.resolve_s * 1000:.3f}, "
        f"clone;dur={timings.clone_s * 1000:.3f}, build;dur={timings.build_s * 1000:.3f}, "
        f"jail;dur={timings.jail_s * 1000:.3f}, exec;dur={timings.exec_s * 1000:.3f}, "
        f"total;dur={timings.total_s * 1000:.3f}"
    )


class UntilHangUp:
    """Cancels its block when the caller hangs up.

    Raises:
        HungUp: the caller did.
    """

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self._caller: asyncio.Task[object] | None = None
        self._gone = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_CALLER_AFTER_S, self._listen)

    def _listen(self) -> None:
        # After the body, ASGI delivers nothing but a disconnect.
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
        # Above 0, another cancelled this task as well, such as a server that stops: that goes on.
        if self._gone and kind is asyncio.CancelledError and task is not None and task.uncancel() == 0:
            raise HungUp from None


_RECEIPT = ("Preference-Applied", "receipt")
ALLOW_POST = (("Allow", "OPTIONS, POST"),)
OPTIONS = Reply(200, b"", ALLOW_POST)
_NOT_ALLOWED = Reply(
    405,
    b'{"error":"this runs functions by POST","code":"method_not_allowed"}',
    ALLOW_POST,
)


def asked_by(scope: HTTPScope) -> Asked:
    accept, caller_id, traceparent, coding = b"", "", "", b""
    later: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = b"%b,%b" % (accept, value) if accept else value
        elif name == b"x-call-id" and CALLER_ID.fullmatch(text := value.decode("latin-1")):
            caller_id = text
        elif name == b"traceparent":
            traceparent = trace.read(value.decode("latin-1"))
        elif name == b"content-encoding":
            coding = b"%b,%b" % (coding, value) if coding else value
        elif name in HEADERS:
            later[name] = b"%b,%b" % (later[name], value) if name in later else value
    deferral, behind, receipt = None, False, False
    if later:
        prefers = preferences(later.get(b"prefer", b"").decode("latin-1"))
        deferral, receipt = Deferral.of(later, prefers), prefers.receipt
        behind = is_behind(later.get(b"priority", b""))
    call_id = deferral.call if deferral is not None and deferral.call else new_id()
    form = wanted(accept.decode("latin-1"))
    return Asked(call_id, form, caller_id, traceparent, coding, deferral, behind, receipt)


async def send_reply(answer: Reply, send: ASGISendCallable, *more: tuple[str, str]) -> None:
    """`more`: headers beside those of the reply."""
    headers = [
        (b"content-type", answer.media.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in (*answer.headers, *more)),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
