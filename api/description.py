"""The API's description, for machines (/openapi.json) and for people (/docs, one page that loads nothing).

It is made of the table of operations and of the shapes that requests are read with and answers are written
with (`operations`, `wire`, `model`, `events`): msgspec describes the types, so the description says what the
code does. Tests hold it against the routes, and schemathesis against the answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import msgspec
from quart import Quart, Response, request

from api import media
from api.problems import ProblemDetails
from skyisland import __version__
from skyisland.codec import encode
from skyisland.golang.callee import MAX_WORDS
from skyisland.named import definition
from skyisland.named.definition import NAME, RESERVED, SECRET
from skyisland.named.webhooks import PUSHERS
from skyisland.operations import CALL, IN_PATHS, INVOKE, JSON, KEPT, OPERATIONS, Operation, Parameter, Role
from skyisland.wire import Problem

Schema = dict[str, Any]
_ARRAY: Schema = {"type": "array", "items": {}}
_NONE: Schema = {"not": {}}
"""Of a field that may not be there. `False` says the same, but generators of clients do not know it."""
Shapes = dict[Any, Schema]

CALL_HEADERS: list[Schema] = [
    {
        "name": "X-Call-Id",
        "in": "header",
        "description": "What the caller calls it: kept in history, log and events.",
        "schema": {"type": "string"},
    },
    {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async` has it answered with 202 and run later; `wait=5, respond-async` "
        "only if it takes longer than 5 s.",
        "schema": {"type": "string"},
    },
]
MORE_HEADERS = (
    "The header `Idempotency-Key` (1 to 255 visible characters of ASCII) has what is sent again with it run "
    "nothing: it gets the first answer, and 422 if the body differs. With `Prefer: respond-async`, "
    "`X-Callback-Url` gets the record of the call when it is over."
)
"""What depends on other requests, or on each other, no schema of a parameter says."""
IF_MATCH: list[Schema] = [
    {"name": name, "in": "header", "description": meaning, "schema": {"enum": [sample]}}
    for name, meaning, sample in (
        ("If-Match", "Only if the name is at this revision, its ETag.", '"1"'),
        ("If-None-Match", "`*`: only if the name is new.", "*"),
    )
]
BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


PATTERNS = {"name": f"^{NAME.pattern}$", "secret": f"^{SECRET.pattern}$"}
VARIABLE = f"^{definition.VARIABLE.pattern}$"


def describe(header: str, base_path: str = "") -> Schema:
    """The description, as OpenAPI 3.1 has it; `header` carries the token.

    `base_path`: where a proxy shows the API.
    """
    shapes = [shape for operation in OPERATIONS for shape in (operation.body, operation.answer) if shape]
    schemas, components = msgspec.json.schema_components(
        [*shapes, Problem, ProblemDetails], ref_template="#/components/schemas/{name}", schema_hook=_custom
    )
    schema_of = dict(zip(shapes, schemas, strict=False))
    _refine(components)
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        for path in operation.paths:
            described = _operation(operation, path, schema_of, [*schemas[-2:]])
            paths.setdefault(path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sky Island",
            "version": __version__,
            "summary": "Any Go function of any Git repository, answered from a fresh jail.",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        **({"servers": [{"url": base_path}]} if base_path else {}),
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": header},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _custom(kind: type) -> Schema:
    """Types that msgspec does not know: paths, which travel as text, and the details of a problem."""
    return {"type": "string"} if issubclass(kind, Path) else {"description": "Whatever helps."}


def _refine(components: dict[str, Schema]) -> None:
    """Adds what the code checks beyond the types."""
    function = components["FunctionBody"]
    function["properties"]["url"]["format"] = "go-package-url"
    function["properties"]["args"] = {"anyOf": [_ARRAY, {"type": "object"}]}
    function["properties"]["inputs"] = _ARRAY
    function["properties"]["types"]["items"]["format"] = "go-type"
    function["properties"]["version"]["format"] = "git-version"
    _refine_input(function)
    expression: Schema = {"call": {"format": "go-call"}, "args": _NONE, "inputs": _NONE, "types": _NONE}
    name: Schema = {"call": {"format": "go-function"}}
    words = {"type": "array", "maxItems": MAX_WORDS, "items": {"type": "string", "pattern": "^[^\0]*$"}}
    program: Schema = {"call": {"enum": ["", "main"]}, "args": words, "inputs": _NONE, "types": _NONE}
    _restrict(
        function,
        {"properties": expression, "required": ["call"]},
        {"properties": name | {"inputs": _NONE}, "required": ["call", "args"]},
        {"properties": name | {"args": _NONE}, "required": ["call", "inputs"]},
        {"properties": program},
    )
    _refine_names(components)
    address = components["AddressBody"]["properties"]
    address["ip"]["format"] = "ipv4"
    states: list[Schema] = [
        {"type": "string", "enum": ["available", "unavailable"]},
        {"type": "integer", "enum": [0, 1]},
    ]
    address["state"] = {"anyOf": states}


def _restrict(shape: Schema, *cases: Schema) -> None:
    """It is of one of these cases. Within `allOf`, for generators of clients make a type of each `anyOf`."""
    shape["allOf"] = [{"anyOf": [*cases]}]


def _refine_input(body: Schema) -> None:
    """What a function reads: text or bytes."""
    for choice in body["properties"]["stdin_base64"]["anyOf"]:
        if choice["type"] == "string":
            choice["pattern"] = BASE64
    both = {name: {"type": "string"} for name in ("stdin", "stdin_base64")}
    body["not"] = {"properties": both, "required": list(both)}


def _refine_names(components: dict[str, Schema]) -> None:
    """The same for functions with a name."""
    call = components["NamedCallBody"]
    _refine_input(call)
    call["properties"]["args"] = {"anyOf": [_ARRAY, {"type": "object"}]}
    call["properties"]["inputs"] = _ARRAY
    _restrict(call, {"properties": {"inputs": _NONE}}, {"properties": {"args": _NONE}})
    components["SecretBody"]["properties"]["value"]["pattern"] = "^[^\0]+$"
    defined = components["DefinitionBody"]
    fields = defined["properties"]
    fields["url"]["format"] = "go-package-url"
    fields["types"]["items"]["format"] = "go-type"
    fields["version"]["format"] = "git-version"
    variable = {"pattern": VARIABLE, "not": {"enum": sorted(RESERVED)}}
    fields["env"] |= {
        "propertyNames": variable,
        "additionalProperties": {"type": "string", "pattern": "^[^\0]*$"},
    }
    fields["secrets"] |= {"propertyNames": variable, "additionalProperties": _in_path("secret")}
    components["Webhook"]["properties"]["secret"] |= _in_path("secret")
    fields["push"] |= {"properties": {"scheme": {"enum": [*PUSHERS]}}}
    schedule = components["Schedule"]["properties"]
    schedule["cron"]["format"], schedule["zone"]["format"] = "cron", "iana-time-zone"
    schedule["args"]["anyOf"] = [
        _ARRAY if kind.get("type") == "array" else kind for kind in schedule["args"]["anyOf"]
    ]
    words: Schema = {
        "type": "array",
        "maxItems": 100,
        "items": {"type": "string", "pattern": "^[^\0]{0,100}$"},
    }
    no_handler: Schema = {"handler": {"enum": [""]}, "webhook": {"type": "null"}}
    program: Schema = {
        "function": {"enum": ["", "main"]},
        "types": {"maxItems": 0},
        "schedule": {"properties": {"args": {"anyOf": [{"type": "null"}, words]}}},
    }
    program |= no_handler
    handler: Schema = {
        "handler": {"format": "go-function"},
        "function": {"enum": [""]},
        "types": {"maxItems": 0},
        "schedule": {"type": "null"},
    }
    _restrict(
        defined,
        {"properties": {"function": {"format": "go-function"}} | no_handler, "required": ["function"]},
        {"properties": program | {"env": {"maxProperties": 0}, "secrets": {"maxProperties": 0}}},
        {"properties": handler, "required": ["handler"]},
    )


def _in_path(name: str) -> Schema:
    """A parameter of a path."""
    return {"type": "string", "minLength": 1, "pattern": PATTERNS.get(name, "^[^/]+$")}


def _id(operation: Operation[Any], path: str) -> str:
    """The name of an operation's method in clients that are generated; of an alias, one with a number."""
    place = operation.paths.index(path)
    return f"{operation.name}_{place + 1}" if place else operation.name


def _operation(operation: Operation[Any], path: str, shapes: Shapes, problems: list[Schema]) -> Schema:
    described: Schema = {
        "summary": operation.summary,
        "operationId": _id(operation, path),
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": meaning,
                "schema": _in_path(name),
            }
            for name, meaning in IN_PATHS.items()
            if f"{{{name}}}" in path
        ]
        + [
            {
                "name": parameter.name,
                "in": "query",
                "required": parameter.required,
                "description": parameter.meaning,
                "schema": _parameter(parameter),
            }
            for parameter in operation.query
        ]
        + (IF_MATCH if operation.tag and operation.method == "PUT" else [])
        + (CALL_HEADERS if operation in (INVOKE, CALL) else []),
        "responses": {
            "200": {"description": "Done.", "content": _contents(operation, shapes)},
            "4XX": _refusal("The caller's: what is wrong, and what to do.", *problems),
            "5XX": _refusal("The function's end, or the island's trouble.", *problems),
        },
    }
    if operation in (INVOKE, CALL):
        described["description"] = MORE_HEADERS
        accepted = {JSON: {"schema": shapes[KEPT.answer]}}
        described["responses"]["202"] = {"description": "Accepted: it answers later.", "content": accepted}
    if operation.body:
        content = {JSON: {"schema": shapes[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    if operation.role:
        needless: list[Schema] = [{}] if operation.role is Role.caller else []
        described["security"] = [{"token": []}, {"bearer": []}, *needless]
    return described


def _parameter(parameter: Parameter) -> Schema:
    if parameter.among:
        return {"enum": list(parameter.among)}
    if isinstance(parameter.default, bool):
        return {"type": "boolean", "default": parameter.default}
    if parameter.most is not None:
        return {"type": "integer", "minimum": 0, "maximum": parameter.most, "default": parameter.default}
    return {"type": "string"}


def _contents(operation: Operation[Any], shapes: Shapes) -> Schema:
    contents = {operation.media: {"schema": _answer(operation, shapes)}}
    if operation in (INVOKE, CALL):
        contents |= {form: {"schema": {"type": "string"}} for form in media.ANSWERS if form != JSON}
    return contents


def _refusal(text: str, problem: Schema, details: Schema) -> Schema:
    contents = {JSON: {"schema": problem}, media.PROBLEM: {"schema": details}}
    return {"description": text, "content": contents}


def _answer(operation: Operation[Any], shapes: Shapes) -> Schema:
    schema = shapes[operation.answer]
    if not operation.field:
        return schema
    return {"type": "object", "properties": {operation.field: schema}, "required": [operation.field]}


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
<p>The same for machines: <a href="{up}openapi.json">openapi.json</a>. Tokens travel in the header
<code>{header}</code>, or as <code>Authorization: Bearer</code>.</p>
{sections}
</html>
"""


def page(description: Schema, header: str, up: str = "") -> str:
    """The description as a page that needs nothing from elsewhere. `up`: the way to where it lies."""
    sections = []
    for operation in OPERATIONS:
        for path in operation.paths:
            described = description["paths"][path][operation.method.lower()]
            token = f"<p>Token: {operation.role}.</p>" if operation.role else ""
            rows = [(parameter["name"], parameter["description"]) for parameter in described["parameters"]]
            if operation.body:
                rows += [
                    (field.encode_name, _kind(field)) for field in msgspec.structs.fields(operation.body)
                ]
            cells = "".join(f"<tr><td><code>{escape(a)}</code><td>{escape(b)}" for a, b in rows)
            sections.append(
                f"<section><h2><b>{operation.method}</b> <code>{escape(path)}</code></h2>"
                f"<p>{escape(operation.summary)}</p>{token}<table>{cells}</table></section>"
            )
    version = description["info"]["version"]
    return _PAGE.format(version=version, header=escape(header), up=up, sections="\n".join(sections))


def _kind(field: msgspec.structs.FieldInfo) -> str:
    text = getattr(field.type, "__name__", str(field.type)).replace("None", "null")
    if field.required or field.default in (msgspec.UNSET, msgspec.NODEFAULT):
        return text
    return f"{text}, {msgspec.json.encode(field.default).decode()} without it"


@functools.lru_cache(maxsize=4)
def _made(header: str, base_path: str) -> bytes:
    return encode(describe(header, base_path))


@functools.lru_cache(maxsize=4)
def _page(header: str, up: str) -> str:
    return page(describe(header), header, up)


def serve(app: Quart, header: str, base_path: Callable[[], str]) -> None:
    """GET /openapi.json and /docs."""

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(_made(header, base_path()), 200, content_type=JSON)

    @app.get("/docs")
    async def docs() -> Response:
        # Relative, so that it is found wherever a proxy shows the page.
        asked: bytes = request.scope["raw_path"]
        text = _page(header, "../" if asked.endswith(b"/") else "")
        response = Response(text, 200, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return response
