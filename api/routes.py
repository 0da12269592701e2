"""From the table of operations to Quart's routes: reads parameters, checks roles, writes answers.

A handler takes the parameters of its operation by name, its body as `body`, and returns what the answer
holds. Whose token was shown is `g.who`, from where `g.address`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec.structs import fields
from quart import Quart, Response, g, request

from api.auth import Gate
from api.clients import Clients
from api.nodes import NODES, Everywhere, admitted
from api.problems import Reply
from skyisland.codec import decode
from skyisland.errors import BadRequest
from skyisland.operations import JSON, NAMED, Operation, Parameter, Role

T = TypeVar("T")

log = logging.getLogger("api.audit")


def respond(reply: Reply) -> Response:
    """A reply as Quart's response."""
    return Response(reply.body, reply.status, dict(reply.headers), content_type=reply.media)


def audit(deed: str, *about: object, **fields: str) -> None:
    """One line of the log: who did what, from where."""
    client = {"who": g.who.name, "address": g.address}
    log.info(f"%s@%s {deed}", *client.values(), *about, extra=client | fields)


def guard(app: Quart, gate: Gate, clients: Clients) -> None:
    """Check the token before every operation that takes one."""

    async def admit() -> None:
        operation = NAMED.get(request.endpoint or "")
        if (asked := admitted(operation, request.scope)) is not None:
            g.who, g.address = asked.who, asked.address
            return
        # Callers are counted as well as admitted, by `FunctionEndpoint.admitted`.
        if operation is not None and operation.role not in (None, Role.caller):
            token = gate.token_of(request.scope["headers"])
            change = operation.role is Role.admin
            g.address = clients.address_of(request.scope)
            g.who = gate.admit(token, g.address, change=change)

    app.before_request(admit)


def answers(
    app: Quart, operation: Operation[T]
) -> Callable[[Callable[..., Awaitable[T]]], Callable[..., Awaitable[T]]]:
    """Decorates the handler of an operation that answers in JSON."""

    def register(handle: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        async def respond_to(**parameters: Any) -> Response:
            if operation.body is not None:
                content = await request.get_data(cache=True, as_text=False, parse_form_data=False)
                if not content and all(not field.required for field in fields(operation.body)):
                    content = b"{}"
                parameters["body"] = decode(content, operation.body)
            value = await handle(**parameters)
            response = Response(operation.write(value), 200, content_type=JSON)
            if operation.tag:
                response.headers["ETag"] = f'"{getattr(value, operation.tag)}"'
            return response

        responds(app, operation)(respond_to)
        return handle

    return register


def responds(
    app: Quart, operation: Operation[Any]
) -> Callable[[Callable[..., Awaitable[Response]]], Callable[..., Awaitable[Response]]]:
    """Decorates the handler of an operation that makes its response itself."""

    def register(handle: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        async def respond_to(**parameters: Any) -> Response:
            if operation.query:
                _refuse_others(operation.query)
            for parameter in operation.query:
                parameters[parameter.name] = _value(parameter, request.args.get(parameter.name))
            if operation.takes_node and (node := parameters.pop("node")) is not None:
                everywhere: Everywhere = app.extensions[NODES]
                response = await everywhere.elsewhere(operation, node)
                if response is not None:
                    return response
            return await handle(**parameters)

        for path in operation.paths:
            rule = path.replace("{", "<").replace("}", ">")
            app.add_url_rule(rule, operation.name, respond_to, methods=[operation.method])
        return handle

    return register


def _refuse_others(query: tuple[Parameter, ...]) -> None:
    """Refuse what an operation does not take, which would be a slip that nobody notices.

    Raises:
        BadRequest: names a parameter of the query that is unknown, or is there twice.
    """
    known = [parameter.name for parameter in query]
    for name, values in request.args.lists():
        if name not in known:
            text = f"unknown parameter {name[:40]!r}; there is {', '.join(known)}"
            raise BadRequest(text, field=name[:40])
        if len(values) > 1:
            raise BadRequest(f"{name} is there {len(values)} times; send it once", field=name)


def _value(parameter: Parameter, text: str | None) -> str | int | bool | None:
    """A parameter of the query; texts of `among` are left to the handler, which has an error of its own.

    Raises:
        BadRequest: it is missing, not a number within its bounds, or neither `true` nor `false`.
    """
    name, default, most = parameter.name, parameter.default, parameter.most
    if text is None and parameter.required:
        raise BadRequest(f"{name} is missing; send ?{name}=…", field=name)
    if text is None:
        return default
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise BadRequest(f"{name} must be true or false, not {text[:40]!r}", field=name)
        return text == "true"
    if most is not None:
        # 18 digits fit every bound; int() of a very long text would be refused by Python, or slow.
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= most):
            raise BadRequest(f"{name} must be a number from 0 to {most}, not {text[:40]!r}", field=name)
        return int(text)
    return text
