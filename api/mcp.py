"""POST /mcp: the Model Context Protocol over Streamable HTTP, without sessions, where `api.mcp` is set.

    initialize    what we speak
    tools/list    the named functions that the token may call, with the JSON Schema of their parameters; and
                  `look`, what a package offers, and `call`, a call of any function
    tools/call    runs one, as any other call of this client

Each message is a request of its own, answered in JSON; there is nothing that the server says by itself, so
GET is refused, as the protocol has it for such a server. What a tool may do, its token may do: this door
grants nothing. What a function prints is a stranger's text, also to a model that reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from msgspec import UNSET, Raw, Struct, structs

from api.auth import Gate
from api.bodies import HungUp, read_body
from api.function import Client, FunctionEndpoint, UntilHangUp, asked_by, send_reply
from api.problems import Reply, reply
from skyisland.codec import encode
from skyisland.errors import BadRequest, Forbidden, IslandError, NotFound, Paused, TooBusy
from skyisland.golang.catalogue import Catalogue, Entry, Schema
from skyisland.host.tasks import Background
from skyisland.island import Island
from skyisland.model import Invocation, NamedCall
from skyisland.named.functions import Named
from skyisland.wire import Called, FunctionBody

T = TypeVar("T")

PATH = "/mcp"
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Of the protocol, the latest first. A client that wants another is answered with the latest."""
PAGE = 50
"""Tools of one page of the list. A judgement: a model reads them all."""
SCHEMAS_S = 10.0
"""How long a list waits for the schemas of functions that nobody looked at before; who is not ready by then
takes `args` as a plain array, until the next list."""
TEXT_BYTES = 256 << 10
"""Of an output that a model reads; more is cut. A judgement: that is its whole context."""
SCHEMA_BYTES = 64 << 10
"""Of one tool; a function whose types take more takes `args` as a plain array."""
ENTRIES = 100
"""Functions of a package that `look` tells without a name."""

PARSE, INVALID, NO_METHOD, BAD_PARAMS, UNSUPPORTED = -32700, -32600, -32601, -32602, -32022
"""Codes of JSON-RPC 2.0, and the protocol's for its version."""


class Message(Struct, frozen=True, kw_only=True):
    """A request, or a notification where there is no id."""

    jsonrpc: str
    method: str = ""
    id: int | str | None = None
    params: dict[str, Any] = {}


class Wrong(Exception):
    """What a message asks for is none; answered as an error of JSON-RPC."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Tool(Struct, frozen=True, kw_only=True, rename="camel"):
    """As the protocol shows it."""

    name: str
    description: str
    input_schema: Schema


LOOK = Tool(
    name="look",
    description="List the functions of a Go package in a Git repository, with their parameters and "
    "documentation; with `name`, all about one of them. Look before you call.",
    input_schema={
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "Repository and package: github.com/user/repo/sub"},
            "version": {"type": "string", "description": "Branch, tag or commit"},
            "name": {"type": "string", "description": "Of one function"},
        },
        "required": ["url"],
        "additionalProperties": False,
    },
)
CALL = Tool(
    name="call",
    description="Call a function of a Go package in a Git repository, run in a sandbox of its own.",
    input_schema={
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "Repository and package: github.com/user/repo/sub"},
            "call": {
                "type": "string",
                "description": "A function's bare name with `args`, or one Go expression: Encode(1.5, 2)",
            },
            "args": {
                "type": ["array", "object"],
                "description": "Arguments in their order, or by the names of the parameters",
            },
            "types": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Type arguments of a generic function",
            },
            "version": {"type": "string", "description": "Branch, tag or commit"},
            "stdin": {"type": "string", "description": "What the function reads from its standard input"},
        },
        "required": ["url", "call"],
        "additionalProperties": False,
    },
)
BUILT_IN = {LOOK.name: LOOK, CALL.name: CALL}
PLAIN: Schema = {
    "type": "object",
    "properties": {"args": {"type": "array", "description": "Arguments in their order"}},
    "additionalProperties": False,
}
PROGRAM: Schema = {
    "type": "object",
    "properties": {
        "args": {"type": "array", "items": {"type": "string"}, "description": "Its command line"},
        "stdin": {"type": "string", "description": "What it reads"},
    },
    "additionalProperties": False,
}


class McpEndpoint:
    """The whole of one path."""

    def __init__(self, island: Island, function: FunctionEndpoint, gate: Gate) -> None:
        self._island, self._function, self._gate = island, function, gate
        self._looking = Background()

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
            message = msgspec.json.decode(body, type=Message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _failed(None, PARSE, f"this is no message of JSON-RPC 2.0: {error}", status=400)
        if version and version not in VERSIONS:
            told = {"supported": VERSIONS, "requested": version[:40]}
            return _failed(message.id, UNSUPPORTED, "unsupported protocol version", status=400, data=told)
        if message.jsonrpc != "2.0":
            return _failed(message.id, INVALID, "jsonrpc must be 2.0", status=400)
        if message.id is None or not message.method:  # a notification, or an answer to what we never asked
            return Reply(202, b"")
        methods: dict[str, Callable[[dict[str, Any], Client], Awaitable[object]]] = {
            "initialize": self._initialize,
            "ping": _pong,
            "tools/list": self._list,
            "tools/call": self._call,
        }
        if message.method not in methods:
            return _failed(message.id, NO_METHOD, f"there is no method {message.method[:80]!r}")
        try:
            result = await methods[message.method](message.params, client)
        except Wrong as wrong:
            return _failed(message.id, wrong.code, str(wrong))
        return Reply(200, encode({"jsonrpc": "2.0", "id": message.id, "result": result}))

    async def _initialize(self, params: dict[str, Any], client: Client) -> object:
        asked = params.get("protocolVersion")
        return {
            "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "skyisland", "version": self._island.version},
            "instructions": "Tools are Go functions, each run in a sandbox of its own. `look` tells what a "
            "package offers, `call` calls it.",
        }

    # Tools

    def _named(self, client: Client) -> dict[str, Named]:
        """The named functions that this client may call, by the names of their tools, in their order."""
        found: dict[str, Named] = {}
        for named in sorted(self._island.named.all(), key=lambda one: one.name):
            if named.definition.handler:
                continue
            try:
                self._island.named.calls.check(named.name, who=client.who, later=False)
            except (Forbidden, Paused, NotFound):
                continue
            found.setdefault(f"fn_{named.name}" if named.name in BUILT_IN else named.name, named)
        return found

    async def _list(self, params: dict[str, Any], client: Client) -> object:
        after = params.get("cursor", "")
        if not isinstance(after, str):
            raise Wrong(BAD_PARAMS, "cursor must be a text")
        named = [(tool, one) for tool, one in self._named(client).items() if not after or tool > after]
        page = named[:PAGE]
        offered = await self._offered(one for _, one in page)
        tools = await asyncio.to_thread(
            lambda: [_tool(name, one, offered.get(one.name)) for name, one in page]
        )
        if not after:
            tools = [*BUILT_IN.values(), *tools]
        more = {"nextCursor": page[-1][0]} if len(named) > PAGE else {}
        return {"tools": tools, **more}

    async def _offered(self, named: Iterable[Named]) -> dict[str, Catalogue]:
        """What the packages of some names offer, by name; without those that take too long."""
        tasks = {one.name: asyncio.ensure_future(self._catalogue(one)) for one in named}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=SCHEMAS_S)
        found = {}
        for name, task in tasks.items():
            if not task.done():
                self._looking.start(_through(task))  # the next list has it
            elif (catalogue := task.result()) is not None:
                found[name] = catalogue
        return found

    async def _catalogue(self, named: Named) -> Catalogue | None:
        try:
            return await self._island.functions(named.definition.url, named.commit)
        except IslandError:
            return None

    async def _call(self, params: dict[str, Any], client: Client) -> object:
        tool, given = params.get("name"), params.get("arguments") or {}
        if not isinstance(tool, str) or not isinstance(given, dict):
            raise Wrong(BAD_PARAMS, "name must be a text, and arguments an object")
        named = self._named(client).get(tool)
        if named is None and tool not in BUILT_IN:
            raise Wrong(BAD_PARAMS, f"unknown tool: {tool[:80]}")
        try:
            if tool == LOOK.name:
                return await self._look(given, client)
            if named is None:
                invocation = await self._island.invoke(_request(given), client=client.share)
            else:
                invocation = await self._island.named.calls.call(
                    named.name,
                    await self._asked(named, given),
                    who=client.who,
                    client=client.share,
                )
        except IslandError as error:  # for the model, which may do better
            if isinstance(error, TooBusy):
                await self._function.refusals.turn()
            return {"content": [_text(f"{error.code}: {error.message}")], "isError": True}
        return await asyncio.to_thread(_told, invocation)

    async def _asked(self, named: Named, given: dict[str, Any]) -> NamedCall:
        """A call of a name, of what a tool was given: its parameters by name, or `args`."""
        if named.definition.function in ("", "main"):
            return _converted({"args": [], **given}, NamedCall)
        entry = _entry(named, await self._catalogue(named))
        parameters = {one.name for one in entry.parameters} if entry is not None else set()
        if given.keys() == {"args"} and "args" not in parameters:
            return _converted(given, NamedCall)
        return NamedCall(args=Raw(encode(given or [])))

    async def _look(self, given: dict[str, Any], client: Client) -> object:
        asked = _converted(given, Looked)
        offered = await self._island.functions(asked.url, asked.version, client=client.share)
        if asked.name:
            entries = [entry for entry in offered.functions if entry.name == asked.name]
            if not entries:
                close = ", ".join(offered.close_to(asked.name)) or "others"
                raise NotFound(f"{offered.name} has no {asked.name[:80]}; there is {close}")
            return {"content": [_text(encode(entries[0]).decode())]}
        shown = [entry for entry in offered.functions if entry.kind != "type"]
        lines = [f"package {offered.name} of {offered.import_path} at {offered.version}: {offered.synopsis}"]
        lines += [
            f"{one.declaration}  // {one.synopsis if one.callable else f'cannot be called: {one.why}'}"
            for one in shown[:ENTRIES]
        ]
        if len(shown) > ENTRIES:
            lines.append(f"and {len(shown) - ENTRIES} more; look at one by its name")
        return {"content": [_text("\n".join(lines))]}


class Looked(Struct, frozen=True, forbid_unknown_fields=True):
    """What `look` is given."""

    url: str
    version: str | None = None
    name: str = ""


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """What `call` is given."""

    url: str
    call: str
    args: list[Any] | dict[str, Any] | None = None
    types: tuple[str, ...] = ()
    version: str | None = None
    stdin: str | None = None


def _request(given: dict[str, Any]) -> FunctionBody:
    asked = {field: value for field, value in structs.asdict(_converted(given, Asked)).items() if value}
    if isinstance(given.get("args"), (list, dict)):
        asked["args"] = given["args"]
    return _converted(asked, FunctionBody)


def _converted(given: dict[str, Any], shape: type[T]) -> T:
    """What a tool was given, as a request.

    Raises:
        BadRequest: it does not fit.
    """
    try:
        return msgspec.json.decode(encode(given), type=shape)
    except msgspec.ValidationError as error:
        raise BadRequest(f"arguments: {error}") from None


async def _pong(params: dict[str, Any], client: Client) -> object:
    return {}


async def _through(task: asyncio.Future[Any]) -> None:
    await asyncio.wait([task])


def _version(scope: HTTPScope) -> str:
    values = [value for name, value in scope["headers"] if name == b"mcp-protocol-version"]
    return values[-1].decode("latin-1") if values else ""


def _failed(
    message: int | str | None, code: int, text: str, *, status: int = 200, data: object = UNSET
) -> Reply:
    error = {"code": code, "message": text} | ({} if data is UNSET else {"data": data})
    return Reply(status, encode({"jsonrpc": "2.0", "id": message, "error": error}))


# What is shown


def _entry(named: Named, offered: Catalogue | None) -> Entry | None:
    return offered.find(named.definition.function) if offered is not None else None


def _tool(name: str, named: Named, offered: Catalogue | None) -> Tool:
    definition, entry = named.definition, _entry(named, offered)
    what = f"{definition.function or 'the program'} of {definition.url} at {named.commit[:12]}."
    if definition.function in ("", "main"):
        return Tool(name=name, description=f"Run {what}", input_schema=PROGRAM)
    if entry is None or offered is None:
        return Tool(name=name, description=f"Call {what}", input_schema=PLAIN)
    schema = _schema(entry, offered.schemas)
    return Tool(
        name=name,
        description=f"{entry.doc.strip() or entry.declaration}\n\n{entry.declaration}\n{what}",
        input_schema=schema if len(encode(schema)) <= SCHEMA_BYTES else PLAIN,
    )


def _schema(entry: Entry, known: dict[str, Schema]) -> Schema:
    """Of the arguments by name, with the types that it refers to."""
    wanted = [one for one in entry.parameters if not one.given]
    properties = {
        one.name: {"type": "array", "items": one.schema or {}} if one.variadic else one.schema or {}
        for one in wanted
    }
    needed: dict[str, Any] = {}
    pending: list[str] = []
    moved = _moved(properties, known, pending)
    while pending:  # not by recursion: each of thousands of types may refer to the next
        if (name := pending.pop()) not in needed:
            needed[name] = _moved(known[name], known, pending)
    schema: Schema = {
        "type": "object",
        "properties": moved,
        "required": [one.name for one in wanted if not one.variadic],
        "additionalProperties": False,
    }
    return {**schema, "$defs": needed} if needed else schema


_REFERENCE = "#/schemas/"


def _moved(value: Any, known: dict[str, Schema], pending: list[str]) -> Any:
    """The same with references to `$defs`; the types that they refer to are added to `pending`. (A schema is
    no deeper than `catalogue.MOST_NESTED`.)"""
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str) and target.startswith(_REFERENCE):
            name = target.removeprefix(_REFERENCE)
            if name not in known:
                return {}
            pending.append(name)
            return {"$ref": f"#/$defs/{name}"}
        return {key: _moved(one, known, pending) for key, one in value.items()}
    if isinstance(value, list):
        return [_moved(one, known, pending) for one in value]
    return value


def _text(text: str) -> dict[str, str]:
    cut = text.encode()[:TEXT_BYTES].decode(errors="ignore")
    return {"type": "text", "text": cut if len(cut) == len(text) else f"{cut}\n[cut]"}


def _told(invocation: Invocation) -> object:
    """What a model reads of a call."""
    called = Called.of(invocation)
    answer = called.answer
    parts = [answer.data, called.message, answer.stderr if called.message else ""]
    told: dict[str, Any] = {
        "content": [_text("\n".join(part for part in parts if part))],
        "isError": bool(called.message),
    }
    results = invocation.outcome.results
    if results is not None and len(results) <= TEXT_BYTES:
        told["structuredContent"] = {"results": Raw(results), "id": answer.id, "version": answer.version}
    return told


_NOT_ALLOWED = Reply(
    405,
    b'{"error":"this speaks MCP by POST; it has no stream of its own","code":"method_not_allowed"}',
    (("Allow", "POST"),),
)
