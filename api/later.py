"""Calls that answer later: what a request prefers (RFC 7240), and what becomes of the calls.

    Prefer: respond-async            202 at once: the call is kept, and Location says where to ask for it
    Prefer: wait=5, respond-async    its answer if it comes within 5 s, else the same
    Idempotency-Key                  whatever is sent again with it gets the first answer
    X-Callback-Url                   gets the call's record when it is over

Callers see their own calls; operators see all, and admins also cancel, run again and forget those of others.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing

import msgspec
from msgspec import Struct, UnsetType
from quart import Quart, Response, request

from api import live
from api.auth import Gate
from api.clients import Clients, Request
from api.media import JSON, wanted
from api.problems import Reply, misfortune_of, refusal
from api.routes import answers, responds
from skyisland import codec
from skyisland import operations as op
from skyisland.errors import BadRequest, CallNotFound, TooBusy
from skyisland.island import Island
from skyisland.later.calls import CallState, Claim, Record, new_call_id
from skyisland.later.keeping import Wanted as Asked
from skyisland.model import FunctionRequest, NamedCall, Verdict
from skyisland.operations import EVENT_STREAM, Role
from skyisland.wire import Answer, Called, Problem

log = logging.getLogger("api.audit")

LONGEST_WAIT_S = 60.0
"""A wait is no longer, whatever is preferred. A judgement: proxies give up after a minute."""
ASK_AGAIN_S = 1
"""Retry-After of a call that is not over."""
UNSURE_S = 60.0
"""So long a key whose call is not there counts as one whose island was killed meanwhile; later, its result is
no longer kept."""
FORGOTTEN_AT_ONCE = 10_000
HEADERS = frozenset({b"prefer", b"idempotency-key", b"x-callback-url", b"priority"})
"""A request without any of these is answered as if this module were not there."""
_KEY = re.compile(r"[!-~]{1,255}")


def is_behind(header: bytes) -> bool:
    """Whether the header Priority (RFC 9218) leaves the way to all other calls: urgency 7, `background`."""
    return any(part.strip() == b"u=7" for part in header.split(b","))


class Preferences(Struct, frozen=True):
    """What of the header Prefer we honour."""

    later: bool = False
    """`respond-async`."""
    wait_s: float | None = None
    """`wait`, no longer than we do."""
    receipt: bool = False
    """`receipt`: the call's receipt is fetched soon."""

    @property
    def applied(self) -> str:
        """For the header Preference-Applied; empty for none."""
        wait = "" if self.wait_s is None else f"wait={self.wait_s:g}"
        return ", ".join(filter(None, (wait, "respond-async" if self.later else "")))


def preferences(header: str) -> Preferences:
    """Read the header Prefer; what is unknown, or not understood, is ignored as RFC 7240 has it."""
    later, wait_s, receipt = False, None, False
    for one in header.split(",")[:16]:
        name, _, value = (part.strip() for part in one.partition(";")[0].partition("="))
        if name.lower() == "respond-async":
            later = True
        elif name.lower() == "receipt":
            receipt = True
        elif name.lower() == "wait" and wait_s is None and re.fullmatch(r"[0-9]{1,6}", value.strip('"')):
            wait_s = min(float(value.strip('"')), LONGEST_WAIT_S)
    return Preferences(later, wait_s, receipt)


class Deferral(Struct, frozen=True):
    """What a request says of when, and how often, it is answered."""

    prefers: Preferences
    key: str = ""
    callback: str = ""
    call: str = ""
    """The id of a call that answers later; empty for one whose caller waits."""

    @classmethod
    def of(cls, headers: dict[bytes, bytes], prefers: Preferences) -> Deferral | None:
        """`headers`: those of `HEADERS` that there are; `prefers`: what Prefer says. None where the request
        is like any other."""
        key = headers.get(b"idempotency-key", b"").decode("latin-1").strip()
        callback = headers.get(b"x-callback-url", b"").decode("latin-1").strip()
        if not (prefers.later or key or callback):
            return None
        return cls(prefers, key, callback, new_call_id() if prefers.later else "")

    def check(self, form: str) -> None:
        """Refuse what cannot be done; `form`: of the answer that the caller prefers.

        Raises:
            BadRequest: names the header.
        """
        self._check_key()
        if self.callback and not self.call:
            text = (
                "X-Callback-Url: only a call that answers later has one; send Prefer: respond-async with it"
            )
            raise BadRequest(text, field="X-Callback-Url")
        if form != JSON:
            text = f"this is answered in {JSON} only; accept it, or send neither Prefer nor Idempotency-Key"
            raise BadRequest(text, field="Accept")

    def check_handler(self) -> None:
        """Refuse what a handler does not do: its caller waits for its answer.

        Raises:
            BadRequest: names the header.
        """
        self._check_key()
        for header, sent in (("Prefer", self.prefers.later), ("X-Callback-Url", self.callback)):
            if sent:
                text = (
                    f"{header}: a handler answers at once; leave out respond-async and X-Callback-Url, or "
                    "call a function with a name, POST /api/v1/names/NAME"
                )
                raise BadRequest(text, field=header)

    def _check_key(self) -> None:
        if self.key and not _KEY.fullmatch(self.key):
            text = "Idempotency-Key: send 1 to 255 printable characters of ASCII without spaces"
            raise BadRequest(text, field="Idempotency-Key")

    def claim(self, client: str, *request: bytes) -> Claim:
        """Its key, of this client, for a request of these parts."""
        digest = hashlib.sha256(b"\0".join(request)).digest()
        return Claim(client=client, key=self.key, body=digest, call=self.call)


class Kept(Struct, frozen=True):
    """What a caller was answered, as it is kept for an Idempotency-Key."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]
    media: str = ""
    """Empty where it is among the headers."""

    def encoded(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def of(cls, held: Claim) -> Kept:
        """What the caller of a claim was answered."""
        return msgspec.json.decode(held.reply or b"", type=cls)


REPLAYED = ("Idempotent-Replayed", "true")
"""Of an answer that was given before."""


async def deferred(
    island: Island,
    deferral: Deferral,
    body: bytes,
    asks: FunctionRequest | NamedCall,
    run: Callable[[], Awaitable[Reply]],
    *,
    name: str,
    who: str,
    client: str,
    caller_id: str,
    traceparent: str,
    error_form: str,
    base_path: str,
) -> Reply:
    """The answer to a request that may be answered later, or was answered before.

    `body`: as it came, which an Idempotency-Key belongs to. `run`: answers it now. `name`: of the named
    function that is called, by `who`. `base_path`: where a proxy shows the API.
    """
    later, claim = island.later, None
    if deferral.key:
        claim = deferral.claim(client, name.encode(), body)
        held = await later.claim(claim)
        if held is not None and name:
            island.named.calls.check(name, who=who, later=bool(held.call))
        if held is not None and held.call:
            try:
                record = await later.get(held.call)
            except CallNotFound:
                if not deferral.call or time.time() - held.at > UNSURE_S:
                    raise
                # Whoever took the key was killed before it kept the call.
                deferral = msgspec.structs.replace(deferral, call=held.call)
            else:
                return await _told(island, record, deferral.prefers, error_form, base_path)
        elif held is not None:
            kept = Kept.of(held)
            return Reply(kept.status, kept.body, (*kept.headers, REPLAYED), kept.media)
    try:
        if deferral.call:
            record = await later.accept(
                asks,
                client,
                name=name,
                who=who,
                callback=deferral.callback,
                caller_id=caller_id,
                traceparent=traceparent,
                id=deferral.call,
            )
            return await _told(island, record, deferral.prefers, error_form, base_path)
        answer = await run()
    except BaseException:
        if claim is not None and not await _accepted(island, deferral.call):
            await later.release(claim)
        raise
    if claim is not None:
        await later.answered(claim, Kept(answer.status, answer.body, answer.headers, answer.media).encoded())
    return answer


async def _accepted(island: Island, call: str) -> bool:
    """Whether a call was kept, although its caller was not told."""
    if not call:
        return False
    try:
        await island.later.get(call)
    except Exception:
        return False
    return True


async def _told(
    island: Island, record: Record, prefers: Preferences, error_form: str, base_path: str
) -> Reply:
    """The answer of a call that is over in time; else where to ask for it."""
    if prefers.wait_s:
        record = await island.later.settled(record.id, prefers.wait_s)
    applied = (("Preference-Applied", prefers.applied),) if prefers.applied else ()
    if prefers.wait_s is not None and record.state in (CallState.done, CallState.dead):
        answer = _answer(record, error_form)
        return Reply(answer.status, answer.body, (*answer.headers, *applied), answer.media)
    where = ("Location", base_path + op.KEPT.url(kept=record.id))
    again = (("Retry-After", str(ASK_AGAIN_S)),) if not record.state.final else ()
    shown = msgspec.structs.replace(record, result=msgspec.UNSET)
    return Reply(202, codec.encode(shown), (where, *again, *applied))


def _answer(record: Record, error_form: str) -> Reply:
    """What a caller who waited is answered: the same as if the call had not been kept."""
    if isinstance(record.result, UnsetType):
        problem = record.error or Problem(record.message, record.verdict)
        return refusal(codec.refusal(500, problem), error_form)
    answer = msgspec.json.decode(record.result, type=Answer)
    verdict = Verdict(record.verdict)
    if verdict in (Verdict.ok, Verdict.failed):
        return Reply(200, bytes(record.result))
    return misfortune_of(Called.by(verdict, answer), error_form)


class Looker(Struct, frozen=True):
    """Whose calls somebody may see."""

    client: str
    """Whose share its own calls count to."""
    role: Role
    name: str

    @property
    def whose(self) -> str:
        """Of which client; empty for all."""
        return self.client if self.role is Role.caller else ""

    def change(self) -> str:
        """Of which client it may change the calls; empty for all."""
        return "" if self.role is Role.admin else self.client


Admitted = Callable[[Request], AbstractContextManager[object]]


def calls(
    app: Quart,
    island: Island,
    gate: Gate,
    clients: Clients,
    admitted: Admitted,
    streams: Callable[[], int],
) -> None:
    """`admitted`: counts a caller's request as one of its calls, as long as that takes. `streams`: how many
    calls may be watched at one time."""
    later = island.later

    def looker() -> Looker:
        scope = request.scope
        address = clients.address_of(scope)
        token = gate.token_of(scope["headers"])
        who = gate.who(token) if token else None
        if who is None or who.role is Role.caller:
            who = gate.admit_call(token, address)
        return Looker(who.name or clients.client_of(scope), who.role, who.name)

    def changed(by: Looker, deed: str, about: str) -> None:
        log.info("%s@%s %s %s", by.name or by.client, clients.address_of(request.scope), deed, about)

    @answers(app, op.CALLS)
    async def listing(state: str | None, name: str | None, since: int, limit: int) -> list[Record]:
        which = Asked(
            client=looker().whose, state=_state(state), name=name or "", since=float(since), limit=limit
        )
        return await later.find(which)

    @responds(app, op.KEPT)
    async def one(kept: str) -> Response:
        by = looker()
        if wanted(request.headers.get("Accept", "")).answer == EVENT_STREAM:
            return await watch(kept, by)
        prefers = preferences(request.headers.get("Prefer", ""))
        if prefers.wait_s and by.role is Role.caller:
            with admitted(request.scope):
                record = await later.settled(kept, prefers.wait_s, by.whose)
        else:
            record = await later.settled(kept, prefers.wait_s or 0.0, by.whose)
        response = Response(op.KEPT.write(record.shown_to(by.client)), 200, content_type=JSON)
        if prefers.wait_s is not None:
            response.headers["Preference-Applied"] = f"wait={prefers.wait_s:g}"
        if not record.state.final:
            response.headers["Retry-After"] = str(ASK_AGAIN_S)
        return response

    watching: set[str] = set()

    async def watch(call: str, by: Looker) -> Response:
        if len(watching) >= streams():
            raise TooBusy(f"{len(watching)} calls are watched; ask with Prefer: wait=30", retry_after_s=1)
        stream = await live.kept(island, call, by.whose, by.client)
        mine = f"{call} {secrets.token_hex(4)}"

        async def counted() -> AsyncGenerator[bytes, None]:
            watching.add(mine)
            try:
                async with aclosing(stream):
                    async for page in stream:
                        yield page
            finally:
                watching.discard(mine)

        response = Response(counted(), 200, headers=live.QUART_HEADERS)
        response.timeout = None  # it has no end but the call's
        return response

    @answers(app, op.CANCEL)
    async def cancel(kept: str) -> Record:
        by = looker()
        record = await later.cancel(kept, by.change())
        changed(by, "cancelled", record.id)
        return record.shown_to(by.client)

    @answers(app, op.REDRIVE)
    async def redrive(kept: str) -> Record:
        by = looker()
        record = await later.redrive(kept, by.change())
        changed(by, "had run again", record.id)
        return record.shown_to(by.client)

    @answers(app, op.FORGET_CALLS)
    async def forget(call: str | None, state: str | None) -> list[str]:
        by = looker()
        if call:
            only = _state(state)
            if only is not None and (await later.get(call, by.change())).state is not only:
                return []
            await later.forget_one(call, by.change())
            changed(by, "had forgotten", call)
            return [call]
        gone = await later.forget(Asked(client=by.change(), state=_state(state), limit=FORGOTTEN_AT_ONCE))
        changed(by, "had forgotten", f"{len(gone)} calls")
        return gone

    @answers(app, op.CALLBACK_SECRET)
    async def secret() -> str:
        return later.callbacks.secret_of(looker().client)


def _state(text: str | None) -> CallState | None:
    if text is None:
        return None
    try:
        return CallState(text)
    except ValueError:
        raise BadRequest(
            f"state is one of {', '.join(CallState)}, not {text[:40]!r}", field="state"
        ) from None
