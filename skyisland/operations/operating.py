"""What operators ask for: how the island is, what happens, its jails, addresses and binaries."""

from __future__ import annotations

from skyisland.events import PULSE_S, InvocationFinished
from skyisland.figures import Report, Window
from skyisland.model import Artifact
from skyisland.operations.operation import EVENT_STREAM, LINES, Operation, Parameter, Role
from skyisland.record.lines import LogLine
from skyisland.record.traffic import ApiStats
from skyisland.status import AddressInfo, AddressState, Capability, Written
from skyisland.wire import AddressBody, FunctionPage, Jail, Snapshot

_NODE = Parameter(name="node", meaning="Of this node of the fleet, or of `all`.")
_AT = Parameter(name="node", meaning="At this node of the fleet.")

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
    query=(_NODE,),
    answer=ApiStats,
)

SNAPSHOT = Operation(
    name="snapshot",
    method="GET",
    path="/api/v1/admin/snapshot",
    summary="The island at this moment.",
    role=Role.operator,
    query=(_NODE,),
    answer=Snapshot,
)

INVOCATIONS = Operation(
    name="invocations",
    method="GET",
    path="/api/v1/admin/invocations",
    summary="The latest calls that are over, newest first.",
    role=Role.operator,
    query=(Parameter(name="limit", meaning="How many at most.", default=100, most=1000), _NODE),
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
    query=(_NODE,),
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
    query=(_WINDOW, _NODE),
    answer=Report,
)

FUNCTION = Operation(
    name="function",
    method="GET",
    path="/api/v1/admin/functions/{function}",
    summary="One function that was called: its figures, commits, binaries, jails and latest calls.",
    role=Role.operator,
    query=(_WINDOW, _NODE),
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
        _NODE,
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
    query=(_NODE,),
    answer=list[Jail],
    field="jails",
)

KILL_ALL = Operation(
    name="kill_all",
    method="DELETE",
    path="/api/v1/admin/jails",
    summary="Kill all jails.",
    role=Role.admin,
    query=(_AT,),
    answer=list[int],
    field="deleted",
)

JAIL = Operation(
    name="jail",
    method="GET",
    path="/api/v1/admin/jail/{jail}",
    summary="One jail.",
    role=Role.operator,
    query=(_NODE,),
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
    query=(_AT,),
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
    query=(Parameter(name="state", meaning="Only these.", among=tuple(AddressState)), _NODE),
    answer=dict[str, str | list[str] | None],
)

SET_ADDRESS = Operation(
    name="set_address",
    method="PUT",
    path="/api/v1/admin/ips",
    aliases=("/api/v1/admin/network/ips", "/api/v1/admin/network/ip"),
    summary="Take an address out of the pool, or give it back.",
    role=Role.admin,
    query=(_AT,),
    body=AddressBody,
    answer=AddressInfo,
)

ARTIFACTS = Operation(
    name="artifacts",
    method="GET",
    path="/api/v1/admin/cache",
    summary="The compiled functions.",
    role=Role.operator,
    query=(_NODE,),
    answer=list[Artifact],
    field="artifacts",
)

EVICT = Operation(
    name="evict",
    method="DELETE",
    path="/api/v1/admin/cache/{key}",
    summary="Forget a compiled function.",
    role=Role.admin,
    query=(_AT,),
    answer=str,
    field="evicted",
)

REBUILD = Operation(
    name="rebuild",
    method="POST",
    path="/api/v1/admin/cache/{key}/rebuild",
    summary="Fetch and compile anew what a function was made of.",
    role=Role.admin,
    query=(_AT,),
    answer=str,
    field="rebuilt",
)

PURGE = Operation(
    name="purge",
    method="POST",
    path="/api/v1/admin/cache/purge",
    summary="Forget all compiled functions that no call is using.",
    role=Role.admin,
    query=(_AT,),
    answer=list[str],
    field="evicted",
)
