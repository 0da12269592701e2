"""What the API offers, for machines (/openapi.json) and for people (/docs, one page that loads nothing).

The shapes are those that requests are read with and answers are made of (`wire`, `model`, `events`): msgspec
describes them, so the description cannot say anything else than what the code does. What is told of paths,
roles and parameters stands in `OPERATIONS`; tests hold it against the routes, and schemathesis against
the answers.
"""

from __future__ import annotations

import functools
from html import escape
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from quart import Quart, Response

from api.auth import Role
from api.problems import Problem
from api.wire import AddressBody, Answer, FunctionBody, Jail, Snapshot, encode
from skyisland import __version__
from skyisland.events import PULSE_S, InvocationFinished
from skyisland.model import AddressInfo, Artifact, Capability
from skyisland.record.logs import Line

Schema = dict[str, Any]

JSON = "application/json"


class Operation(Struct, frozen=True, kw_only=True):
    """A method on a path."""

    method: str
    path: str
    does: str
    role: Role | None = None
    """Whose token it takes; None for nobody's. What an operator may, an admin may."""
    query: tuple[tuple[str, str, Schema], ...] = ()
    """Name, meaning and schema of each parameter."""
    body: type[Struct] | None = None
    answer: Any
    """A struct, or the fields of an object: a type each, in a list for an array of it."""
    media: str = JSON


def _number(most: int, default: int) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most, "default": default}


TEXT: Schema = {"type": "string"}
CHOICE: Schema = {"type": "boolean", "default": False}
BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
PATHS = {"jail": "A jail's number or name.", "key": "An artifact's key."}
OPERATIONS = (
    Operation(
        method="post",
        path="/api/v1/function",
        does="Run a call in a jail of its own. Takes a token where the island is not open to all.",
        role=Role.caller,
        body=FunctionBody,
        answer=Answer,
    ),
    Operation(method="get", path="/healthcheck", does="Whether the island answers.", answer={"status": str}),
    Operation(
        method="get", path="/api/v1/healthcheck", does="Whether the island answers.", answer={"status": str}
    ),
    Operation(
        method="get",
        path="/api/v1/capabilities",
        does="What this host enforces, and what it cannot.",
        answer={"capabilities": [Capability]},
    ),
    Operation(
        method="get",
        path="/metrics",
        does="Figures for Prometheus.",
        role=Role.operator,
        answer=str,
        media="text/plain",
    ),
    Operation(
        method="get",
        path="/api/v1/admin/api-stats",
        does="Traffic since the start.",
        role=Role.operator,
        answer=dict[str, Any],
    ),
    Operation(
        method="get",
        path="/api/v1/admin/snapshot",
        does="The island at this moment.",
        role=Role.operator,
        answer=Snapshot,
    ),
    Operation(
        method="get",
        path="/api/v1/admin/invocations",
        does="The latest calls that are over, newest first.",
        role=Role.operator,
        query=(("limit", "How many at most.", _number(1000, 100)),),
        answer={"invocations": [InvocationFinished]},
    ),
    Operation(
        method="get",
        path="/api/v1/admin/logs",
        does="The latest lines of the log, oldest first.",
        role=Role.operator,
        query=(
            ("jail", "Only those of this jail, by its name.", TEXT),
            ("after", "Only those with a higher `seq`.", _number(1 << 62, 0)),
            ("limit", "How many at most.", _number(5000, 500)),
        ),
        answer={"logs": [Line]},
    ),
    Operation(
        method="get",
        path="/api/v1/admin/events",
        does="What happens, as it happens: server-sent events without end. A `Gap` tells how many are lost; "
        f"a `Pulse`, every {PULSE_S:g} s and without an id, what the jails use.",
        role=Role.operator,
        query=(
            ("last_event_id", "Go on after this one (or the header Last-Event-ID).", TEXT),
            (
                "brief",
                "Leave out clones, and the steps of calls whose end is sent with them.",
                CHOICE,
            ),
        ),
        answer=str,
        media="text/event-stream",
    ),
    Operation(
        method="get",
        path="/api/v1/admin/jails",
        does="The jails that are alive.",
        role=Role.operator,
        answer={"jails": [Jail]},
    ),
    Operation(
        method="delete",
        path="/api/v1/admin/jails",
        does="Kill all jails.",
        role=Role.admin,
        answer={"deleted": [int]},
    ),
    Operation(
        method="get",
        path="/api/v1/admin/jail/{jail}",
        does="One jail.",
        role=Role.operator,
        answer={"details": Jail},
    ),
    Operation(
        method="delete",
        path="/api/v1/admin/jail/{jail}",
        does="Kill a jail; its caller is told.",
        role=Role.admin,
        answer={"deleted": int},
    ),
    *(
        Operation(
            method="get",
            path=path,
            does="The pool of addresses: each with the jail that holds it, or those of one state.",
            role=Role.operator,
            query=(("state", "Only these.", {"enum": ["available", "unavailable"]}),),
            answer=dict[str, Any],
        )
        for path in ("/api/v1/admin/ips", "/api/v1/admin/network/ips")
    ),
    *(
        Operation(
            method="put",
            path=path,
            does="Take an address out of the pool, or give it back.",
            role=Role.admin,
            body=AddressBody,
            answer=AddressInfo,
        )
        for path in ("/api/v1/admin/ips", "/api/v1/admin/network/ips", "/api/v1/admin/network/ip")
    ),
    Operation(
        method="get",
        path="/api/v1/admin/cache",
        does="The compiled functions.",
        role=Role.operator,
        answer={"artifacts": [Artifact]},
    ),
    Operation(
        method="delete",
        path="/api/v1/admin/cache/{key}",
        does="Forget a compiled function.",
        role=Role.admin,
        answer={"evicted": str},
    ),
    Operation(
        method="post",
        path="/api/v1/admin/cache/{key}/rebuild",
        does="Fetch and compile anew what a function was made of.",
        role=Role.admin,
        answer={"rebuilt": str},
    ),
    Operation(
        method="post",
        path="/api/v1/admin/cache/purge",
        does="Forget all compiled functions.",
        role=Role.admin,
        answer={"evicted": [str]},
    ),
)


def describe(header: str) -> Schema:
    """The description, as OpenAPI 3.1 has it; `header` carries the token."""
    shapes = [shape for operation in OPERATIONS for shape in _shapes(operation)]
    schemas, components = msgspec.json.schema_components(
        [*shapes, Problem], ref_template="#/components/schemas/{name}", schema_hook=_custom
    )
    known = dict(zip(shapes, schemas, strict=False))
    _refine(components)
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, known, schemas[-1])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sky Island",
            "version": __version__,
            "summary": "Any Go function of any Git repository, answered from a fresh jail.",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": header}},
        },
    }


def _shapes(operation: Operation) -> list[Any]:
    answer = operation.answer
    found = [operation.body] if operation.body else []
    if isinstance(answer, dict):
        return [*found, *(shape[0] if isinstance(shape, list) else shape for shape in answer.values())]
    return [*found, answer]


def _custom(kind: type) -> Schema:
    """What msgspec does not know: paths, which we send as text, and whatever a detail may be."""
    return {"type": "string"} if issubclass(kind, Path) else {"description": "Whatever helps."}


def _refine(components: dict[str, Schema]) -> None:
    """What the types do not tell of what is read."""
    function = components["FunctionBody"]
    function["properties"]["url"]["format"] = "go-package-url"
    function["properties"]["call"]["format"] = "go-call"
    function["properties"]["version"]["format"] = "git-version"
    for choice in function["properties"]["stdin_base64"]["anyOf"]:
        if choice["type"] == "string":
            choice["pattern"] = BASE64
    both = {name: {"type": "string"} for name in ("stdin", "stdin_base64")}
    function["not"] = {"properties": both, "required": list(both)}
    address = components["AddressBody"]["properties"]
    address["ip"]["format"] = "ipv4"
    address["state"] = {"enum": ["available", "unavailable", 0, 1]}


def _operation(operation: Operation, known: dict[Any, Schema], problem: Schema) -> Schema:
    told: Schema = {
        "summary": operation.does,
        "operationId": f"{operation.method} {operation.path}",
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": PATHS[name],
                "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
            }
            for name in PATHS
            if f"{{{name}}}" in operation.path
        ]
        + [
            {"name": name, "in": "query", "description": meaning, "schema": schema}
            for name, meaning, schema in operation.query
        ],
        "responses": {
            "200": {
                "description": "Done.",
                "content": {operation.media: {"schema": _answer(operation.answer, known)}},
            },
            "4XX": _refusal("The caller's: what is wrong, and what to do.", problem),
            "5XX": _refusal("The function's end, or the island's trouble.", problem),
        },
    }
    if operation.body:
        content = {JSON: {"schema": known[operation.body]}}
        told["requestBody"] = {"required": True, "content": content}
    if operation.role:
        told["security"] = [{"token": []}, {}] if operation.role is Role.caller else [{"token": []}]
    return told


def _refusal(text: str, problem: Schema) -> Schema:
    return {"description": text, "content": {JSON: {"schema": problem}}}


def _answer(answer: Any, known: dict[Any, Schema]) -> Schema:
    if not isinstance(answer, dict):
        return known[answer]
    fields = {
        name: {"type": "array", "items": known[shape[0]]} if isinstance(shape, list) else known[shape]
        for name, shape in answer.items()
    }
    return {"type": "object", "properties": fields, "required": list(fields)}


# For people

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sky Island</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark }}
code {{ font: 0.9em ui-monospace, monospace }}
section {{ border-top: 1px solid #8885; padding: 0.6rem 0 }}
h2 {{ font-size: 1rem; margin: 0 }}
h2 b {{ display: inline-block; min-width: 4.5em }}
p {{ margin: 0.2rem 0 }}
table {{ border-collapse: collapse; margin: 0.3rem 0 }}
td {{ padding: 0.1rem 1rem 0.1rem 0; vertical-align: top }}
</style>
<h1>Sky Island {version}</h1>
<p>The same for machines: <a href="/openapi.json">/openapi.json</a>. Tokens travel in the header
<code>{header}</code>.</p>
{sections}
</html>
"""


def page(description: Schema, header: str) -> str:
    """The description as a page that needs nothing from elsewhere."""
    sections = []
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            operation = next(o for o in OPERATIONS if (o.path, o.method) == (path, method))
            token = f"<p>Token: {operation.role}.</p>" if operation.role else ""
            rows = [(p["name"], p["description"]) for p in told["parameters"]]
            if operation.body:
                rows += [
                    (field.encode_name, _kind(field)) for field in msgspec.structs.fields(operation.body)
                ]
            cells = "".join(f"<tr><td><code>{escape(a)}</code><td>{escape(b)}" for a, b in rows)
            sections.append(
                f"<section><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
                f"<p>{escape(told['summary'])}</p>{token}<table>{cells}</table></section>"
            )
    version = description["info"]["version"]
    return _PAGE.format(version=version, header=escape(header), sections="\n".join(sections))


def _kind(field: msgspec.structs.FieldInfo) -> str:
    text = getattr(field.type, "__name__", str(field.type)).replace("None", "null")
    return text if field.required else f"{text}, {msgspec.json.encode(field.default).decode()} without it"


@functools.lru_cache(maxsize=4)
def _made(header: str) -> tuple[bytes, str]:
    description = describe(header)
    return encode(description), page(description, header)


def tell(routes: Quart, header: str) -> None:
    """GET /openapi.json and /docs."""

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        return Response(_made(header)[0], 200, content_type=JSON)

    @routes.get("/docs")
    async def docs() -> Response:
        response = Response(_made(header)[1], 200, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return response
