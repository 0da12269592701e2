"""What callers ask for: answers of functions, now or later, and what a package offers."""

from __future__ import annotations

from skyisland.golang.catalogue import Catalogue
from skyisland.later.calls import CallState, Record
from skyisland.operations.operation import Operation, Parameter, Role
from skyisland.receipts.receipt import Built, Provenance, Signed
from skyisland.wire import Answer, FunctionBody, Versions

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

VERSIONS = Operation(
    name="versions",
    method="GET",
    path="/api/v1/versions",
    summary="The releases of a package, oldest first, as its repository has them now; or, with `after`, the "
    "commits after that version. Takes a token where the island is not open to all.",
    role=Role.caller,
    query=(
        Parameter(name="url", meaning="Repository, and the package in it.", required=True),
        Parameter(name="after", meaning="Commits after this branch, tag or commit, along first parents."),
        Parameter(name="until", meaning="Up to this one; else to the latest, or to the default branch."),
    ),
    answer=Versions,
)

RECEIPT = Operation(
    name="receipt",
    method="GET",
    path="/api/v1/receipts/{invocation}",
    summary="The signed receipt of a call that was sent with `Prefer: receipt`: a caller's own, an "
    "operator's all. It is kept in memory for a while.",
    role=Role.caller,
    answer=Signed,
)

SIGNERS = Operation(
    name="signers",
    method="GET",
    path="/api/v1/receipt-signers",
    summary="What the island's receipts are verified with: a line of allowed signers (ssh-keygen(1)).",
    answer=str,
    field="signers",
)

REPRODUCE = Operation(
    name="reproduce",
    method="POST",
    path="/api/v1/reproduce",
    summary="Build again what a receipt tells of, without running it: what comes of it. Takes a token where "
    "the island is not open to all.",
    role=Role.caller,
    body=Built,
    answer=Provenance,
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
        Parameter(name="call", meaning="Only this one, by its id."),
        Parameter(
            name="state",
            meaning="Only those in it.",
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
