"""Every operation of the REST API, in one table.

    routes        `api.routes` registers a handler for each, reads its parameters and admits by its role
    description   /openapi.json and /docs are made of it
    clients       `client.Client` and the console's `tui.watch.remote.RemotePort` ask by it

What can be done with an island can be done by all of its ways; tests/api/test_parity.py holds the API, the
client, the commands and the console against this table, and names the exceptions with their reasons.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from msgspec import Struct

from skyisland.codec import encode, read
from skyisland.events import PULSE_S, InvocationFinished
from skyisland.figures import Report, Window
from skyisland.golang.catalogue import Catalogue
from skyisland.later.calls import CallState, Record
from skyisland.model import Artifact
from skyisland.named.definition import DefinitionBody, MoveBody, Revision, RollbackBody, SecretBody
from skyisland.named.functions import Named
from skyisland.record.logs import LogLine
from skyisland.record.traffic import ApiStats
from skyisland.status import AddressInfo, AddressState, Capability, Written
from skyisland.wire import AddressBody, Answer, FunctionBody, FunctionPage, Jail, NamedCallBody, Snapshot

T = TypeVar("T")

JSON = "application/json"
LINES = "application/x-ndjson"
"""The answers of many inputs as they come."""
EVENT_STREAM = "text/event-stream"
"""What happens, as it happens: server-sent events."""


class Role(StrEnum):
    """Whose token an operation takes."""

    admin = "admin"
    operator = "operator"
    """Sees what an admin sees, and changes nothing."""
    caller = "caller"
    """Calls functions."""


class Parameter(Struct, frozen=True, kw_only=True):
    """A parameter of the query, which may be left out where it is not `required`."""

    name: str
    meaning: str
    default: str | int | bool | None = None
    """What counts without it; its type is the parameter's: None and str stand for text."""
    most: int | None = None
    """The largest number; the smallest is 0."""
    among: tuple[str, ...] = ()
    """The only texts."""
    required: bool = False
    """It may not be left out."""


class Operation(Struct, Generic[T], frozen=True, kw_only=True):
    """A method on a path; T is what a good answer holds."""

    name: str
    """In Python: of the client's method, and of the route."""
    method: str
    path: str
    """`{jail}` and `{key}` stand for a text without slashes."""
    aliases: tuple[str, ...] = ()
    """Other paths for the same, mostly the original's."""
    summary: str
    role: Role | None = None
    """None where it is open to all. An admin may do all that an operator may."""
    query: tuple[Parameter, ...] = ()
    body: type[Struct] | None = None
    answer: type[T]
    field: str = ""
    """The field of the answer's object that holds it; empty where the answer itself is it."""
    media: str = JSON
    tag: str = ""
    """The field of the answer that is its ETag: with `If-Match`, a change is made to that one only."""

    @property
    def paths(self) -> tuple[str, ...]:
        return self.path, *self.aliases

    def url(self, **parameters: object) -> str:
        """Path and query with these parameters; None leaves one of the query out."""
        path, query = self.path, {}
        for name, value in parameters.items():
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
            elif value is not None:
                query[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return f"{path}?{urlencode(query)}" if query else path

    def write(self, value: T) -> bytes:
        """The body of a good answer."""
        return encode({self.field: value} if self.field else value)

    def read(self, status: int, content: bytes) -> T:
        """What an answer holds.

        Raises:
            IslandError: the island refused.
            NotAnIsland: somebody else answered.
        """
        return read(status, content, self.answer, self.field)


IN_PATHS = {
    "jail": "A jail's number or name.",
    "key": "An artifact's key.",
    "function": "A function's id, of the list of them.",
    "invocation": "A call's id, `id` of its answer.",
    "name": "The name of a function.",
    "secret": "The name of a secret.",
    "kept": "The id of a call that answers later.",
}
"""What the parameters of paths mean."""

INVOKE = Operation(
    name="invoke",
    method="POST",
    path="/api/v1/function",
    summary="Run a call in a jail of its own. Takes a token where the island is not open to all.",
    role=Role.caller,
    body=FunctionBody,
    answer=Answer,
)
FUNCTIONS = Operation(
    name="functions",
    method="GET",
    path="/api/v1/functions",
    summary="What a package offers: functions with parameters, documentation, examples. Takes a token where "
    "the island is not open to all.",
    role=Role.caller,
    query=(
        Parameter(name="url", meaning="Repository, and the package in it.", required=True),
        Parameter(name="version", meaning="Branch, tag or commit; the default branch without it."),
    ),
    answer=Catalogue,
)
HEALTH = Operation(
    name="health",
    method="GET",
    path="/healthcheck",
    aliases=("/api/v1/healthcheck",),
    summary="Whether the island answers.",
    answer=str,
    field="status",
)
LIVE = Operation(
    name="live",
    method="GET",
    path="/livez",
    summary="Whether the process works; if not, start it anew.",
    answer=str,
    field="status",
)
READY = Operation(
    name="ready",
    method="GET",
    path="/readyz",
    summary="Whether a call would run at once; 503 says why not: the island drains, all places are taken, or "
    "no jail can be made.",
    answer=str,
    field="status",
)
CAPABILITIES = Operation(
    name="capabilities",
    method="GET",
    path="/api/v1/capabilities",
    summary="What this host enforces, and what it cannot.",
    answer=list[Capability],
    field="capabilities",
)
METRICS = Operation(
    name="metrics",
    method="GET",
    path="/metrics",
    summary="Figures for Prometheus.",
    role=Role.operator,
    answer=str,
    media="text/plain",
)
STATS = Operation(
    name="stats",
    method="GET",
    path="/api/v1/admin/api-stats",
    summary="Traffic since the start.",
    role=Role.operator,
    answer=ApiStats,
)
SNAPSHOT = Operation(
    name="snapshot",
    method="GET",
    path="/api/v1/admin/snapshot",
    summary="The island at this moment.",
    role=Role.operator,
    answer=Snapshot,
)
INVOCATIONS = Operation(
    name="invocations",
    method="GET",
    path="/api/v1/admin/invocations",
    summary="The latest calls that are over, newest first.",
    role=Role.operator,
    query=(Parameter(name="limit", meaning="How many at most.", default=100, most=1000),),
    answer=list[InvocationFinished],
    field="invocations",
)
INVOCATION = Operation(
    name="invocation",
    method="GET",
    path="/api/v1/admin/invocations/{invocation}",
    summary="One of them. `cause` says why it did not end well: the end of its stderr, the beginning of its "
    "output, the compiler's lines.",
    role=Role.operator,
    answer=InvocationFinished,
    field="invocation",
)
_WINDOW = Parameter(
    name="window", meaning="Of how long.", default=Window.five_minutes.value, among=tuple(Window)
)
REPORT = Operation(
    name="report",
    method="GET",
    path="/api/v1/admin/functions",
    summary="Figures of a window of time that ends now: of all calls, and of each function that was called.",
    role=Role.operator,
    query=(_WINDOW,),
    answer=Report,
)
FUNCTION = Operation(
    name="function",
    method="GET",
    path="/api/v1/admin/functions/{function}",
    summary="One function that was called: its figures, commits, binaries, jails and latest calls.",
    role=Role.operator,
    query=(_WINDOW,),
    answer=FunctionPage,
)
LOGS = Operation(
    name="logs",
    method="GET",
    path="/api/v1/admin/logs",
    summary="The latest lines of the log, oldest first.",
    role=Role.operator,
    query=(
        Parameter(name="jail", meaning="Only those of this jail, by its name."),
        Parameter(name="after", meaning="Only those with a higher `seq`.", default=0, most=1 << 62),
        Parameter(name="limit", meaning="How many at most.", default=500, most=5000),
    ),
    answer=list[LogLine],
    field="logs",
)
EVENTS = Operation(
    name="events",
    method="GET",
    path="/api/v1/admin/events",
    summary="What happens, as it happens: server-sent events without end. A `Gap` tells how many are lost; "
    f"a `Pulse`, every {PULSE_S:g} s and without an id, what the jails use.",
    role=Role.operator,
    query=(
        Parameter(name="last_event_id", meaning="Go on after this one (or the header Last-Event-ID)."),
        Parameter(
            name="brief",
            meaning="Leave out copy-on-write clones, and the steps of calls whose end is sent with them.",
            default=False,
        ),
    ),
    answer=str,
    media=EVENT_STREAM,
)
JAILS = Operation(
    name="jails",
    method="GET",
    path="/api/v1/admin/jails",
    summary="The jails that are alive.",
    role=Role.operator,
    answer=list[Jail],
    field="jails",
)
KILL_ALL = Operation(
    name="kill_all",
    method="DELETE",
    path="/api/v1/admin/jails",
    summary="Kill all jails.",
    role=Role.admin,
    answer=list[int],
    field="deleted",
)
JAIL = Operation(
    name="jail",
    method="GET",
    path="/api/v1/admin/jail/{jail}",
    summary="One jail.",
    role=Role.operator,
    answer=Jail,
    field="details",
)
OUTPUT = Operation(
    name="output",
    method="GET",
    path="/api/v1/admin/jails/{jail}/output",
    summary="What a jail writes, as it comes, to its end: JSON, a part a line. By its number, name or call's "
    "id; of a call that is over, the last 16 KiB of each output, for as long as there is room.",
    role=Role.operator,
    answer=Written,
    media=LINES,
)
KILL = Operation(
    name="kill",
    method="DELETE",
    path="/api/v1/admin/jail/{jail}",
    summary="Kill a jail; its caller is told.",
    role=Role.admin,
    answer=int,
    field="deleted",
)
ADDRESSES = Operation(
    name="addresses",
    method="GET",
    path="/api/v1/admin/ips",
    aliases=("/api/v1/admin/network/ips",),
    summary="The pool of addresses: each with the jail that holds it, or those of one state.",
    role=Role.operator,
    query=(Parameter(name="state", meaning="Only these.", among=tuple(AddressState)),),
    answer=dict[str, str | list[str] | None],
)
SET_ADDRESS = Operation(
    name="set_address",
    method="PUT",
    path="/api/v1/admin/ips",
    aliases=("/api/v1/admin/network/ips", "/api/v1/admin/network/ip"),
    summary="Take an address out of the pool, or give it back.",
    role=Role.admin,
    body=AddressBody,
    answer=AddressInfo,
)
ARTIFACTS = Operation(
    name="artifacts",
    method="GET",
    path="/api/v1/admin/cache",
    summary="The compiled functions.",
    role=Role.operator,
    answer=list[Artifact],
    field="artifacts",
)
EVICT = Operation(
    name="evict",
    method="DELETE",
    path="/api/v1/admin/cache/{key}",
    summary="Forget a compiled function.",
    role=Role.admin,
    answer=str,
    field="evicted",
)
REBUILD = Operation(
    name="rebuild",
    method="POST",
    path="/api/v1/admin/cache/{key}/rebuild",
    summary="Fetch and compile anew what a function was made of.",
    role=Role.admin,
    answer=str,
    field="rebuilt",
)
PURGE = Operation(
    name="purge",
    method="POST",
    path="/api/v1/admin/cache/purge",
    summary="Forget all compiled functions that no call is using.",
    role=Role.admin,
    answer=list[str],
    field="evicted",
)
CALL = Operation(
    name="call",
    method="POST",
    path="/api/v1/names/{name}",
    summary="Run the function that has this name, at the commit that it stands for. Takes a token where the "
    "island is not open to all, or the name is for some callers only.",
    role=Role.caller,
    body=NamedCallBody,
    answer=Answer,
)
NAMES = Operation(
    name="names",
    method="GET",
    path="/api/v1/names",
    summary="The functions that have a name.",
    role=Role.operator,
    answer=list[Named],
    field="names",
)
NAME = Operation(
    name="named",
    method="GET",
    path="/api/v1/names/{name}",
    summary="What a name stands for; its revision is the ETag.",
    role=Role.operator,
    answer=Named,
    tag="revision",
)
DEFINE = Operation(
    name="define",
    method="PUT",
    path="/api/v1/names/{name}",
    summary="Have a name stand for a function, once that is built. With `If-Match`, only if the name is at "
    "that revision; with `If-None-Match: *`, only if it is new.",
    role=Role.admin,
    body=DefinitionBody,
    answer=Named,
    tag="revision",
)
FORGET = Operation(
    name="forget",
    method="DELETE",
    path="/api/v1/names/{name}",
    summary="Forget a name and its history.",
    role=Role.admin,
    answer=str,
    field="forgotten",
)
REVISIONS = Operation(
    name="revisions",
    method="GET",
    path="/api/v1/names/{name}/revisions",
    summary="What a name stood for, latest first.",
    role=Role.operator,
    answer=list[Revision],
    field="revisions",
)
MOVE = Operation(
    name="move",
    method="POST",
    path="/api/v1/names/{name}/move",
    summary="Move a name to another version, or to where its version points now, once that is built.",
    role=Role.admin,
    body=MoveBody,
    answer=Named,
    tag="revision",
)
ROLL_BACK = Operation(
    name="roll_back",
    method="POST",
    path="/api/v1/names/{name}/rollback",
    summary="Have a name stand for what an earlier revision stood for, at its commit.",
    role=Role.admin,
    body=RollbackBody,
    answer=Named,
    tag="revision",
)
PAUSE = Operation(
    name="pause",
    method="POST",
    path="/api/v1/names/{name}/pause",
    summary="Refuse calls of a name.",
    role=Role.admin,
    answer=Named,
    tag="revision",
)
RESUME = Operation(
    name="resume",
    method="POST",
    path="/api/v1/names/{name}/resume",
    summary="Take calls of a name again.",
    role=Role.admin,
    answer=Named,
    tag="revision",
)
SECRETS = Operation(
    name="secrets",
    method="GET",
    path="/api/v1/secrets",
    summary="The names of the secrets. Nothing shows their values.",
    role=Role.operator,
    answer=list[str],
    field="secrets",
)
SET_SECRET = Operation(
    name="set_secret",
    method="PUT",
    path="/api/v1/secrets/{secret}",
    summary="Keep a secret, for the names that have it.",
    role=Role.admin,
    body=SecretBody,
    answer=str,
    field="secret",
)
FORGET_SECRET = Operation(
    name="forget_secret",
    method="DELETE",
    path="/api/v1/secrets/{secret}",
    summary="Forget a secret that no name has.",
    role=Role.admin,
    answer=str,
    field="forgotten",
)

CALLS = Operation(
    name="calls",
    method="GET",
    path="/api/v1/calls",
    summary="Calls that answer later, newest first, without results: a caller's own, an operator's all.",
    role=Role.caller,
    query=(
        Parameter(name="state", meaning="Only those.", among=tuple(CallState)),
        Parameter(name="name", meaning="Only those of this named function."),
        Parameter(
            name="since",
            meaning="Only those accepted at this time or later, in seconds since the epoch.",
            default=0,
            most=1 << 40,
        ),
        Parameter(name="limit", meaning="How many at most.", default=100, most=1000),
    ),
    answer=list[Record],
    field="calls",
)
KEPT = Operation(
    name="kept",
    method="GET",
    path="/api/v1/calls/{kept}",
    summary="A call that answers later: its state, attempts, and its result when it is over. With "
    "`Prefer: wait=30` as soon as it is over, or after 30 seconds.",
    role=Role.caller,
    answer=Record,
)
CANCEL = Operation(
    name="cancel",
    method="DELETE",
    path="/api/v1/calls/{kept}",
    summary="Cancel a call that answers later; one that is over stays as it is.",
    role=Role.caller,
    answer=Record,
)
REDRIVE = Operation(
    name="redrive",
    method="POST",
    path="/api/v1/calls/{kept}/redrive",
    summary="Run a dead or cancelled call again; of one that is done, send a callback again that failed.",
    role=Role.caller,
    answer=Record,
)
FORGET_CALLS = Operation(
    name="forget_calls",
    method="DELETE",
    path="/api/v1/calls",
    summary="Forget calls that are over, with their results: a caller's own, an admin's all.",
    role=Role.caller,
    query=(
        Parameter(
            name="state",
            meaning="Only those.",
            among=tuple(state for state in CallState if state.final),
        ),
    ),
    answer=list[str],
    field="forgotten",
)
CALLBACK_SECRET = Operation(
    name="callback_secret",
    method="GET",
    path="/api/v1/callback-secret",
    summary="What a caller verifies its callbacks with, by Standard Webhooks.",
    role=Role.caller,
    answer=str,
    field="secret",
)

OPERATIONS: tuple[Operation[Any], ...] = (
    INVOKE,
    FUNCTIONS,
    CALLS,
    KEPT,
    CANCEL,
    REDRIVE,
    FORGET_CALLS,
    CALLBACK_SECRET,
    HEALTH,
    LIVE,
    READY,
    CAPABILITIES,
    METRICS,
    STATS,
    SNAPSHOT,
    INVOCATIONS,
    INVOCATION,
    REPORT,
    FUNCTION,
    LOGS,
    EVENTS,
    JAILS,
    KILL_ALL,
    JAIL,
    OUTPUT,
    KILL,
    ADDRESSES,
    SET_ADDRESS,
    ARTIFACTS,
    EVICT,
    REBUILD,
    PURGE,
    CALL,
    NAMES,
    NAME,
    DEFINE,
    FORGET,
    REVISIONS,
    MOVE,
    ROLL_BACK,
    PAUSE,
    RESUME,
    SECRETS,
    SET_SECRET,
    FORGET_SECRET,
)
NAMED = {operation.name: operation for operation in OPERATIONS}
