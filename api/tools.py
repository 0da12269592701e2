"""Named functions as the tools of agents: the list, with the JSON Schema of their parameters, and calls.

What a tool may do, its token may do. What a function prints is a stranger's text, also to a model that reads
it. How the protocol frames all this is in `mcp`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from api.function import Client, RefusalPace
from skyisland.codec import encode
from skyisland.errors import BadRequest, Forbidden, IslandError, NotFound, Paused, TooBusy
from skyisland.golang.catalogue import Catalogue, Entry, Schema
from skyisland.host.tasks import Background
from skyisland.island import Island
from skyisland.model import Invocation, NamedCall
from skyisland.named.functions import Named
from skyisland.wire import Called, FunctionBody

T = TypeVar("T")

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


class BadParams(Exception):
    """What a message asks of tools cannot be; the text says why."""


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


class Tools:
    """What is asked of tools: the list of them, and a call of one. `params` are those of the message."""

    def __init__(self, island: Island, refusals: RefusalPace) -> None:
        self._island, self._refusals = island, refusals
        self._looking = Background()

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

    async def list(self, params: dict[str, Raw], client: Client) -> object:
        try:
            after = msgspec.json.decode(params.get("cursor", b'""'), type=str)
        except msgspec.ValidationError:
            raise BadParams("cursor must be a text") from None
        known = self._named(client)
        if after and after not in known:  # also one whose name is gone meanwhile
            raise BadParams(f"unknown cursor: {after[:80]}; begin the list anew")
        # By their places: in the order of names, `fn_call` comes before `encode`.
        named = [*known.items()][[*known].index(after) + 1 if after else 0 :]
        page = named[:PAGE]
        offered = await self._offered((one for _, one in page), client)
        tools = await asyncio.to_thread(
            lambda: [_tool(name, one, offered.get(one.name)) for name, one in page]
        )
        if not after:
            tools = [*BUILT_IN.values(), *tools]
        more = {"nextCursor": page[-1][0]} if len(named) > PAGE else {}
        return {"tools": tools, **more}

    async def _offered(self, named: Iterable[Named], client: Client) -> dict[str, Catalogue]:
        """What the packages of some names offer, by name; without those that take too long."""
        tasks = {one.name: asyncio.ensure_future(self._catalogue(one, client)) for one in named}
        for task in tasks.values():  # the next list has what this one, or its caller, does not wait for
            self._looking.start(_through(task))
        if tasks:
            await asyncio.wait(tasks.values(), timeout=SCHEMAS_S)
        found = {}
        for name, task in tasks.items():
            if task.done() and (catalogue := task.result()) is not None:
                found[name] = catalogue
        return found

    async def _catalogue(self, named: Named, client: Client) -> Catalogue | None:
        try:
            return await self._island.functions(named.definition.url, named.commit, client=client.share)
        except IslandError:
            return None

    async def call(self, params: dict[str, Raw], client: Client) -> object:
        try:
            tool = msgspec.json.decode(params.get("name", b"null"), type=str)
            given = msgspec.json.decode(params.get("arguments", b"{}"), type=dict[str, Raw] | None) or {}
        except msgspec.ValidationError:
            raise BadParams("name must be a text, and arguments an object") from None
        named = self._named(client).get(tool)
        if named is None and tool not in BUILT_IN:
            raise BadParams(f"unknown tool: {tool[:80]}")
        try:
            if tool == LOOK.name:
                return await self._look(given, client)
            if named is None:
                invocation = await self._island.invoke(_request(given), client=client.share)
            else:
                invocation = await self._island.named.calls.call(
                    named.name,
                    await self._asked(named, given, client),
                    who=client.who,
                    client=client.share,
                )
        except IslandError as error:  # for the model, which may do better
            if isinstance(error, TooBusy):
                await self._refusals.turn()
            return {"content": [_text(f"{error.code}: {error.message}")], "isError": True}
        return await asyncio.to_thread(_told, invocation)

    async def _asked(self, named: Named, given: dict[str, Raw], client: Client) -> NamedCall:
        """A call of a name, of what a tool was given: its parameters by name, or `args`."""
        if named.definition.function in ("", "main"):
            return _converted({"args": [], **given}, NamedCall)
        entry = _entry(named, await self._catalogue(named, client))
        parameters = {one.name for one in entry.parameters} if entry is not None else set()
        if given.keys() == {"args"} and "args" not in parameters:
            return _converted(given, NamedCall)
        return NamedCall(args=Raw(encode(given or [])))

    async def _look(self, given: dict[str, Raw], client: Client) -> object:
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
    args: Raw = Raw(b"null")
    types: tuple[str, ...] = ()
    version: str | None = None
    stdin: str | None = None


def _request(given: dict[str, Raw]) -> FunctionBody:
    asked = structs.asdict(_converted(given, Asked))
    if bytes(asked["args"]) == b"null":
        del asked["args"]
    return _converted({field: value for field, value in asked.items() if value}, FunctionBody)


def _converted(given: dict[str, Raw] | dict[str, Any], shape: type[T]) -> T:
    """What a tool was given, as a request.

    Raises:
        BadRequest: it does not fit.
    """
    try:
        return msgspec.json.decode(encode(given), type=shape)
    except msgspec.ValidationError as error:
        raise BadRequest(f"arguments: {error}") from None


async def _through(task: asyncio.Future[Any]) -> None:
    await asyncio.wait([task])


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
