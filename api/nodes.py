"""One fleet for operators: `node=b` has another node answer, `node=all` every one.

    an operator ─▶ his node: token, role ─▶ node b: the same operation, in his name ─▶ its response

A change goes to one named node, whose log names the admin and the node that he spoke to. What all say is put
together: rows of lists get a field `from`, other answers stand in `nodes`, by their node's name; `silent`
names the nodes that said nothing in time, `refused` has what a node could not answer. What another node says
is foreign: only what is JSON of the operation's form is passed on.

A question of another node is put to this very application, as a request whose scope says who asks: no header
can do that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlencode

import msgspec
from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, HTTPScope
from quart import Quart, Response, g, request

from api.auth import Who
from api.media import PROBLEM
from api.problems import ProblemDetails
from skyisland.codec import encode
from skyisland.errors import BadRequest, Forbidden, NodeNotFound, NodeSilent
from skyisland.nodes import Nodes, Question, Told
from skyisland.operations import JSON, Operation, Role
from skyisland.operations.gathered import ALL
from skyisland.wire import Problem

log = logging.getLogger(__name__)

NODES = "nodes"
"""The key of `Everywhere` among the application's extensions."""
ASKED = "skyisland.asked"
"""Of a request's scope: the `Asker` of another node."""
PASSED_ON = ("content-type", "accept", "if-match", "if-none-match", "prefer")
"""Headers that an answer depends on."""
LONGEST_BYTES = 16 << 20
"""The longest answer for another node."""
TOO_LONG = b'{"error":"the answer is too long for another node; ask this node itself","code":"too_large"}'
NO_ANSWER = b'{"error":"the node gave no answer; its log says why","code":"internal"}'
OPERATORS = (Role.operator, Role.admin)


class Asker(msgspec.Struct, frozen=True):
    """Whose question a request is, by the word of the node that asks."""

    who: Who
    address: str


class Everywhere:
    """The nodes of this island's fleet, for the routes of an application."""

    def __init__(self, app: Quart, nodes: Nodes | None) -> None:
        self._app: ASGIFramework = app.asgi_app
        """Without what stands in front of it, which is for what comes from a socket."""
        self._nodes = nodes
        app.extensions[NODES] = self
        if nodes is not None:
            nodes.answer_by(self.answer)

    async def elsewhere(self, operation: Operation[Any], node: str) -> Response | None:
        """The response of the nodes that the request names; None where that is this one.

        Raises:
            NodeNotFound, NodeSilent
            BadRequest: a change for all nodes.
        """
        if self._nodes is None:
            raise NodeNotFound("this island is in no fleet; leave node out", node=node[:40])
        if ASKED in request.scope:
            raise BadRequest("a question of another node is answered here; leave node out", field="node")
        if node == self._nodes.node:
            return None
        question = await self._question()
        if node != ALL:
            told = await self._nodes.ask(node, question)
            if not await asyncio.to_thread(_readable, told):
                raise NodeSilent(_unread(told).error, node=node)
            return _response(told)
        if operation.method != "GET":
            raise BadRequest("a change is made at one node; name it in node", field="node")
        everybody = await self._nodes.ask_all(question)
        here = await self.answer(question, self._nodes.node)
        body = await asyncio.to_thread(together, operation, [here, *everybody.told], everybody.silent)
        return Response(body, 200, content_type=JSON)

    async def _question(self) -> Question:
        body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
        rest = [(name, value) for name, value in request.args.items(multi=True) if name != "node"]
        path = request.scope.get("raw_path", request.path.encode()).partition(b"?")[0].decode("latin-1")
        return Question(
            method=request.method,
            url=f"{path}?{urlencode(rest)}" if rest else path,
            headers=[(name, value) for name in PASSED_ON if (value := request.headers.get(name))],
            body=body,
            who=g.who.name,
            role=g.who.role,
            address=g.address or "",
        )

    async def answer(self, question: Question, asker: str) -> Told:
        """This island's answer to a question that was put to `asker`."""
        assert self._nodes is not None  # noqa: S101 - it is they who ask
        path, _, query = question.url.partition("?")
        role = Role.admin if question.role == Role.admin else Role.operator
        here = asker == self._nodes.node
        asked = Asker(
            Who(question.who, role), question.address if here else f"{question.address} by way of {asker}"
        )
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": question.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode("latin-1", "replace"),
            "root_path": "",
            "headers": [
                (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
                for name, value in question.headers
                if name in PASSED_ON
            ],
            "client": None,
            "server": ("localhost", 0),
            "extensions": {},
            "state": {},
            ASKED: asked,
        }
        return await _heard(self._app, scope, question.body, self._nodes.node)


async def _heard(app: ASGIFramework, scope: Any, content: bytes, node: str) -> Told:
    """The whole response to a request."""
    asked: list[ASGIReceiveEvent] = [{"type": "http.request", "body": content, "more_body": False}]
    status, headers, body = 500, list[tuple[bytes, bytes]](), bytearray()

    async def receive() -> ASGIReceiveEvent:
        if not asked:  # whoever asked stays: a word that he left would cancel the handler
            await asyncio.get_running_loop().create_future()
        return asked.pop()

    async def send(message: ASGISendEvent) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body" and len(body) <= LONGEST_BYTES:
            body.extend(message["body"])

    typed: HTTPScope = scope
    await app(typed, receive, send)
    if not body:
        log.error("%s %s, asked by another node, had no answer (%s)", scope["method"], scope["path"], status)
        status, headers = max(status, 500), []
        body.extend(NO_ANSWER)
    elif len(body) > LONGEST_BYTES:
        status, headers, body = 413, [], bytearray(TOO_LONG)
    told = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return Told(
        node=node,
        status=status,
        body=bytes(body),
        media=told.get("content-type", JSON),
        headers=[(name, told[name.lower()]) for name in ("ETag", "Retry-After") if name.lower() in told],
    )


def admitted(operation: Operation[Any] | None, scope: Any) -> Asker | None:
    """Who asks, if a request is a question of another node.

    Raises:
        Forbidden: an operator may not do this, or no other node may ask it.
    """
    asked: Asker | None = scope.get(ASKED)
    if asked is None:
        return None
    if operation is None or operation.role not in OPERATORS or not operation.takes_node:
        raise Forbidden("no other node may ask this")
    if operation.role is Role.admin and asked.who.role is not Role.admin:
        raise Forbidden("this takes an admin's token")
    return asked


def _response(told: Told) -> Response:
    return Response(told.body, told.status, dict(told.headers), content_type=told.media)


def together(operation: Operation[Any], answers: Iterable[Told], silent: list[str]) -> bytes:
    """One body of what all nodes said, this one first."""
    nodes: dict[str, msgspec.Raw] = {}
    rows: list[msgspec.Raw] = []
    refused: dict[str, msgspec.Raw] = {}
    for told in answers:
        try:
            if not _readable(told):
                raise ValueError(told.media)
            if told.status >= 400:
                refused[told.node] = msgspec.Raw(told.body)
            elif operation.rows:
                rows += _rows(operation, told)
            else:
                nodes[told.node] = msgspec.Raw(told.body)
        except (ValueError, KeyError, RecursionError):
            refused[told.node] = msgspec.Raw(encode(_unread(told)))
    body: dict[str, Any] = {"silent": silent}
    if refused:
        body["refused"] = refused
    body |= {operation.field: rows} if operation.rows else {"nodes": nodes}
    return msgspec.json.encode(body)


def _readable(told: Told) -> bool:
    """Whether it is an object in JSON, and of a refusal one that says why. Linear."""
    shape: Any = dict[str, msgspec.Raw]
    if told.status >= 400:
        shape = ProblemDetails if told.media.startswith(PROBLEM) else Problem
    try:
        told.body.decode()  # texts that are passed over are not looked at
        msgspec.json.decode(told.body, type=shape)
    except (ValueError, RecursionError):
        return False
    return told.media.partition(";")[0] in (JSON, PROBLEM)


def _unread(told: Told) -> Problem:
    """What stands in the place of an answer that is none."""
    text = f"the node {told.node} answered {told.status}, but not in this one's JSON; compare their versions"
    return Problem(text, NodeSilent.code)


def _rows(operation: Operation[Any], told: Told) -> list[msgspec.Raw]:
    """The rows of a list, each with the name of its node, without reading them.

    Raises:
        ValueError, KeyError: it is no list of objects.
    """
    head = b'{"from":' + msgspec.json.encode(told.node)
    found = []
    for raw in msgspec.json.decode(told.body, type=dict[str, list[msgspec.Raw]])[operation.field]:
        row = bytes(raw).lstrip()
        if not row.startswith(b"{"):
            raise ValueError("a row is no object")
        rest = row[1:].lstrip()
        found.append(msgspec.Raw(head + (b"" if rest.startswith(b"}") else b",") + rest))
    return found
