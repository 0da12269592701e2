"""What can be done with an island can be done by API, client, command and console.

Each way is held against the table of operations: it exists and asks for the right one, or a line here says
why it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import shlex
from collections.abc import AsyncIterator, Callable
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

from skyisland.cli import GlobalOptions, main
from skyisland.client import Client
from skyisland.errors import IslandError
from skyisland.model import FunctionRequest, NamedCall
from skyisland.named.definition import Definition
from skyisland.operations import NAMED, OPERATIONS, Role
from skyisland.receipts.receipt import Built
from skyisland.status import AddressState
from tests.support.api import HEADER, REQUEST, TOKEN, Server, World
from tui.console import Console
from tui.invoke import CHOICES, TEXTS
from tui.watch.inprocess import InProcessPort
from tui.watch.port import Port
from tui.watch.remote import RemotePort

NO_CLIENT = {
    "health": "load balancers ask for it; every method of a client fails where nobody answers",
    "live": "as health",
    "ready": "as health",
    "metrics": "Prometheus reads its text itself",
    "events": "a stream without end, which the console follows on its own connection",
    "push": "the server of a repository asks for it, and signs",
}
COMMANDS = {
    "invoke": "invoke github.com/user/repo 'F(1)'",
    "functions": "functions github.com/user/repo",
    "versions": "sweep github.com/user/repo 'F(1)' --versions v9..",
    "receipt": "receipt inv-000000000000",
    "signers": "receipt signers",
    "reproduce": "receipt check tests/api/receipt/good.json --signers tests/api/receipt/signers",
    "calls": "calls",
    "kept": "calls show call-1",
    "cancel": "calls cancel call-1",
    "redrive": "calls redrive call-1",
    "forget_calls": "calls forget",
    "callback_secret": "calls secret",
    "capabilities": "capabilities",
    "stats": "stats",
    "snapshot": "status",
    "invocations": "requests --limit 3",
    "invocation": "request inv-000000000000",
    "report": "top",
    "function": "top fn-000000000000",
    "logs": "logs --jail sky-t-1",
    "jails": "jails",
    "kill_all": "kill --all",
    "jail": "jail 1",
    "output": "output 1",
    "kill": "kill 1",
    "addresses": "ips --json",
    "set_address": "ip 10.61.0.2 unavailable",
    "artifacts": "cache",
    "evict": "cache evict k",
    "rebuild": "rebuild k",
    "purge": "cache purge",
    "call": "names call encode 1",
    "names": "names",
    "named": "names show encode",
    "define": "names define encode github.com/user/repo F",
    "forget": "names delete encode",
    "revisions": "names history encode",
    "move": "names move encode",
    "roll_back": "names rollback encode",
    "pause": "names pause encode",
    "resume": "names resume encode",
    "secrets": "secrets",
    "set_secret": "secrets set KEY",
    "forget_secret": "secrets delete KEY",
}
"""The command line that does it."""
NO_COMMAND = {
    "health": "`status` tells more, and fails where nobody answers",
    "live": "as health",
    "ready": "as health",
    "metrics": "Prometheus reads its text itself",
    "events": "`console` shows them as they happen, `logs` prints the latest",
    "push": "the server of a repository asks for it, and signs",
}
CONSOLE = {
    "invoke": ("invoke", "invoke"),
    "functions": ("invoke", "functions"),
    "capabilities": ("view('host')", "snapshot"),
    "snapshot": ("view('overview')", "snapshot"),
    "invocations": ("view('requests')", "snapshot"),
    "invocation": ("view('requests')", "snapshot"),
    "report": ("view('overview')", "snapshot"),
    "function": ("view('overview')", "function"),
    "logs": ("view('logs')", "logs"),
    "events": ("view('overview')", "events"),
    "jails": ("view('jails')", "snapshot"),
    "kill_all": ("kill_all", "kill_all"),
    "jail": ("view('jails')", "snapshot"),
    "output": ("output", "output"),
    "kill": ("kill", "kill"),
    "addresses": ("view('ips')", "snapshot"),
    "set_address": ("set_address", "set_address"),
    "artifacts": ("view('cache')", "snapshot"),
    "evict": ("evict", "evict"),
    "rebuild": ("rebuild", "rebuild"),
    "purge": ("purge", "purge"),
    "names": ("view('names')", "names"),
    "named": ("view('names')", "names"),
    "revisions": ("view('names')", "revisions"),
    "call": ("invoke", "call"),
    "define": ("define", "define"),
    "move": ("move_name", "move"),
    "roll_back": ("roll_back", "roll_back"),
    "pause": ("pause_name", "pause"),
    "resume": ("pause_name", "resume"),
    "forget": ("forget_name", "forget"),
    "calls": ("view('calls')", "calls"),
    "kept": ("view('calls')", "kept"),
    "cancel": ("cancel_calls", "cancel"),
    "redrive": ("redrive", "redrive"),
    "forget_calls": ("forget_calls", "forget_calls"),
}
"""The action of a key that shows or does it, and the port's method that it goes through."""
NO_CONSOLE = {
    "health": "the header says whether the island answers",
    "live": "as health",
    "ready": "as health",
    "metrics": "Prometheus reads its text itself",
    "stats": "the meters are about calls; HTTP traffic is for monitoring",
    **dict.fromkeys(("secrets", "set_secret", "forget_secret"), "no screen takes a secret, lest it be seen"),
    "callback_secret": "a program needs it, no screen",
    **dict.fromkeys(("receipt", "signers", "reproduce"), "a receipt is a file"),
    "versions": "the dialog takes any version; what calls at many of them is a command",
    "push": "the server of a repository asks for it, and signs",
}
NO_NODE = {
    "metrics": "Prometheus scrapes each node",
    **dict.fromkeys(("events", "output"), "streams without end, which the node itself sends"),
    **dict.fromkeys(("secrets", "set_secret", "forget_secret"), "secrets never travel"),
    **dict.fromkeys(
        ("names", "named", "define", "forget", "revisions", "move", "roll_back", "pause", "resume"),
        "names are the whole fleet's",
    ),
}
"""What operators cannot ask of another node, though it is theirs to ask."""
SAMPLES: dict[str, Any] = {
    "jail": "1",
    "key": "k",
    "function": "fn-000000000000",
    "kept": "call-1",
    "invocation": "inv-000000000000",
    "url": REQUEST.url,
    "ip": "10.61.0.2",
    "state": AddressState.unavailable,
    "request": REQUEST,
    "name": "encode",
    "definition": Definition(url=REQUEST.url, function="Encode"),
    "secret": "KEY",
    "value": "a secret",
    "asked": NamedCall(),
    "built": Built(repository=REQUEST.url, package="", commit="c" * 40, function="Encode"),
}
"""An argument for each name of a parameter without a default."""


def asked_for(request: httpx.Request) -> str:
    """The operation that a request is for."""
    for operation in OPERATIONS:
        pattern = re.sub(r"\{\w+\}", "[^/]+", operation.path)
        if request.method == operation.method and re.fullmatch(pattern, request.url.path):
            return operation.name
    raise AssertionError(f"{request.method} {request.url.path} is in no table")


class Recording(httpx.HTTPTransport):
    """Remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(asked_for(request))
        return super().handle_request(request)


class RecordingAsync(httpx.AsyncHTTPTransport):
    """The same for the console."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(asked_for(request))
        return await super().handle_async_request(request)


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    async with world.served() as server:
        yield server


def arguments(method: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(method).parameters.values()
    return {one.name: SAMPLES[one.name] for one in parameters if one.default is inspect.Parameter.empty}


@pytest.mark.parametrize(
    ("ways", "reasons"), [(COMMANDS, NO_COMMAND), (CONSOLE, NO_CONSOLE)], ids=["commands", "console"]
)
def test_every_operation_has_a_way_or_a_reason(ways: dict[str, Any], reasons: dict[str, str]) -> None:
    assert len(NAMED) == len(OPERATIONS)
    assert set(ways) | set(reasons) == set(NAMED)
    assert not set(ways) & set(reasons)


def test_operators_can_ask_every_node_or_there_is_a_reason() -> None:
    theirs = [one for one in OPERATIONS if one.role in (Role.operator, Role.admin)]
    assert {one.name for one in theirs if not one.takes_node} == set(NO_NODE)
    assert all(one.role in (Role.operator, Role.admin) for one in OPERATIONS if one.takes_node)


def test_every_operation_has_a_route_and_every_route_an_operation(world: World) -> None:
    routed = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in world.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }
    described = {(operation.method, path) for operation in OPERATIONS for path in operation.paths}
    in_front_of_quart = {
        ("POST", "/api/v1/function"),
        ("POST", "/api/v1/names/{name}"),
        ("POST", "/api/v1/names/{name}/push"),
    }
    assert described == (routed | in_front_of_quart) - {("GET", "/openapi.json"), ("GET", "/docs")}


async def test_the_client_has_a_method_of_its_name_for_every_operation(server: Server) -> None:
    assert not [name for name in NO_CLIENT if hasattr(Client, name)]

    def ask(name: str) -> list[str]:
        transport = Recording()
        with Client(server.url, token=TOKEN, header=HEADER, transport=transport) as client:
            method = getattr(client, name)
            with contextlib.suppress(IslandError):  # there is no jail 1, and no artifact k
                method(**arguments(method))
        return transport.asked

    for name in set(NAMED) - set(NO_CLIENT):
        assert await asyncio.to_thread(ask, name) == [name]


class Here(GlobalOptions):
    """The options in front of a command, which chose the island of the test."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.transport = Recording()
        self._server = server

    def client(self, *, admin: bool = True, timeout_s: float = 30.0) -> Client:
        token = TOKEN if admin else ""
        return Client(self._server.url, token=token, header=HEADER, transport=self.transport)


@pytest.mark.parametrize("name", COMMANDS)
async def test_commands_do_it(server: Server, name: str) -> None:
    here = Here(server)
    word, *rest = shlex.split(COMMANDS[name])
    result = await asyncio.to_thread(CliRunner().invoke, main.commands[word], rest, obj=here)
    assert here.transport.asked[-1:] == [name]
    assert result.exception is None or isinstance(result.exception, (IslandError, SystemExit))


@pytest.mark.parametrize("name", CONSOLE)
async def test_the_console_does_it(world: World, server: Server, name: str) -> None:
    action, way = CONSOLE[name]
    assert action in {binding.action for binding in Console.BINDINGS}  # type: ignore[union-attr]
    assert hasattr(Port, way)
    assert hasattr(InProcessPort, way)
    transport = RecordingAsync()
    remote = RemotePort(server.url, token=TOKEN, header=HEADER, transport=transport)
    method = getattr(remote, way)
    with contextlib.suppress(IslandError):
        if inspect.isasyncgenfunction(method):
            async with contextlib.aclosing(method(**arguments(method))) as stream:
                await anext(stream)
        else:
            await method(**arguments(method))
    await remote.close()
    assert transport.asked == [way]


def test_every_field_of_a_request_has_an_option_and_a_place_in_the_dialog() -> None:
    fields = set(FunctionRequest.__struct_fields__)
    command = main.commands["invoke"]
    assert isinstance(command, click.Command)
    # --arg makes one argument of `args`.
    options = {parameter.name for parameter in command.params} - {"as_json", "raw", "arg"}
    options -= {"later", "key", "callback", "receipt"}  # headers
    assert options == fields - {"stdin_base64"}  # --stdin reads bytes of every kind
    asked = {name for name, *_ in (*TEXTS, *CHOICES)}
    # Nobody types what is no text; many inputs come from a file.
    assert asked == fields - {"stdin_base64", "inputs"}
