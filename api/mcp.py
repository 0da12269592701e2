"""POST /mcp: the Model Context Protocol over Streamable HTTP, without sessions, where `api.mcp` is set.

    initialize    what we speak
    tools/list    the named functions that the token may call, with the JSON Schema of their parameters; and
                  `look`, what a package offers, and `call`, a call of any function
    tools/call    runs one, as any other call of this client

Each message is a request of its own, answered in JSON; there is nothing that the server says by itself, so
GET is refused, as the protocol has it for such a server. What a tool may do, its token may do: this door
grants nothing. What there is to list and to call is in `tools`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from msgspec import UNSET, Raw, Struct, UnsetType

from api.auth import Gate
from api.bodies import HungUp, read_body
from api.function import Client, FunctionEndpoint, UntilHangUp, asked_by, send_reply
from api.problems import Reply, reply
from api.tools import BadParams, Tools
from skyisland.codec import encode
from skyisland.errors import TooBusy
from skyisland.island import Island

PATH = "/mcp"
VERSIONS = ("2025-11-25", "2025-06-18")
"""Of the protocol, the latest first. A client that wants another is answered with the latest. Older ones have
batches, which we do not take."""
PARSE, INVALID, NO_METHOD, BAD_PARAMS, UNSUPPORTED = -32700, -32600, -32601, -32602, -32022
"""Codes of JSON-RPC 2.0, and the protocol's for its version."""


class Message(Struct, frozen=True, kw_only=True):
    """A request; a notification where there is no id; an answer where there is no method."""

    jsonrpc: Literal["2.0"]
    method: str | UnsetType = UNSET
    id: int | str | UnsetType = UNSET
    params: dict[str, Raw] = {}
    """Unread: who makes values of a mebibyte of JSON holds the event loop up for half a second."""
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class Wrong(Exception):
    """What came is no message; answered as an error of JSON-RPC."""

    def __init__(self, code: int, text: str, id: int | str | None = None) -> None:  # noqa: A002 - JSON-RPC's
        super().__init__(text)
        self.code, self.id = code, id


def read_message(body: bytes) -> Message:
    """The message that a body is.

    Raises:
        Wrong: it is no JSON, or no message; with the id that it has nevertheless.
    """
    try:
        body.decode()  # texts that are passed over are not looked at
        whole = msgspec.json.decode(body, type=Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong(PARSE, f"this is no JSON: {error}") from None
    try:
        told = msgspec.json.decode(whole, type=dict[str, Raw])
    except msgspec.ValidationError:
        raise Wrong(INVALID, "send one message of JSON-RPC 2.0, an object; there are no batches") from None
    try:
        named = msgspec.json.decode(told.get("id", b"null"), type=int | str | None)
    except msgspec.ValidationError:
        named = None
    try:
        message = msgspec.json.decode(whole, type=Message)
    except msgspec.ValidationError as error:
        # What a method takes is an object; all else that is wrong is so in the message itself.
        code = BAD_PARAMS if str(error).endswith("`$.params`") else INVALID
        raise Wrong(code, f"this is no message of JSON-RPC 2.0: {error}", named) from None
    if message.method is UNSET and message.result is UNSET and message.error is UNSET:
        raise Wrong(INVALID, "this is no message of JSON-RPC 2.0: it has no method", named)
    return message


class McpEndpoint:
    """The whole of one path."""

    def __init__(self, island: Island, function: FunctionEndpoint, gate: Gate) -> None:
        self._island, self._function, self._gate = island, function, gate
        self._tools = Tools(island, function.refusals)

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["method"] != "POST":
            await send_reply(_NOT_ALLOWED, send)
            return
        try:
            with self._function.admitted(scope) as client:
                settings = self._function.settings
                coding = asked_by(scope).coding
                body = await read_body(
                    receive, limit=settings.max_body, timeout_s=settings.body_timeout, coding=coding
                )
                with UntilHangUp(receive):
                    answer = await self._answer(_version(scope), body, client)
        except HungUp:
            return
        except TooBusy as error:
            await self._function.refusals.turn()
            answer = reply(error)
        except Exception as error:
            answer = reply(error, admin=self._gate.is_admins(scope["headers"]))
        await send_reply(answer, send)

    async def _answer(self, version: str, body: bytes, client: Client) -> Reply:
        try:
            message = read_message(body)
        except Wrong as wrong:
            return _failed(wrong.id, wrong.code, str(wrong), status=400)
        asked = None if message.id is UNSET else message.id
        if version and version not in VERSIONS:
            told = {"supported": VERSIONS, "requested": version[:40]}
            return _failed(asked, UNSUPPORTED, "unsupported protocol version", status=400, data=told)
        if asked is None or message.method is UNSET:  # a notification, or an answer to what we never asked
            return Reply(202, b"")
        methods: dict[str, Callable[[dict[str, Raw], Client], Awaitable[object]]] = {
            "initialize": self._initialize,
            "ping": _pong,
            "tools/list": self._tools.list,
            "tools/call": self._tools.call,
        }
        if message.method not in methods:
            return _failed(asked, NO_METHOD, f"there is no method {message.method[:80]!r}")
        try:
            result = await methods[message.method](message.params, client)
        except BadParams as wrong:
            return _failed(asked, BAD_PARAMS, str(wrong))
        return Reply(200, encode({"jsonrpc": "2.0", "id": asked, "result": result}))

    async def _initialize(self, params: dict[str, Raw], client: Client) -> object:
        asked = bytes(params.get("protocolVersion", b""))
        known = (version for version in VERSIONS if asked == encode(version))
        return {
            "protocolVersion": next(known, VERSIONS[0]),
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "skyisland", "version": self._island.version},
            "instructions": "Tools are Go functions, each run in a sandbox of its own. `look` tells what a "
            "package offers, `call` calls it.",
        }


async def _pong(params: dict[str, Raw], client: Client) -> object:
    return {}


def _version(scope: HTTPScope) -> str:
    values = [value for name, value in scope["headers"] if name == b"mcp-protocol-version"]
    return values[-1].decode("latin-1") if values else ""


def _failed(
    message: int | str | None, code: int, text: str, *, status: int = 200, data: object = UNSET
) -> Reply:
    error = {"code": code, "message": text} | ({} if data is UNSET else {"data": data})
    return Reply(status, encode({"jsonrpc": "2.0", "id": message, "error": error}))


_NOT_ALLOWED = Reply(
    405,
    b'{"error":"this speaks MCP by POST; it has no stream of its own","code":"method_not_allowed"}',
    (("Allow", "POST"),),
)
