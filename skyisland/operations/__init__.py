"""Every operation of the REST API, in one table.

    operation     what an operation is: path, role, parameters, body and answer
    calling       of callers: functions, and calls that answer later
    naming        of functions with a name
    operating     of operators
    gathered      what all nodes of a fleet answer to one of them

    routes        `api.routes` registers a handler for each, reads its parameters and admits by its role
    description   /openapi.json and /docs are made of it
    clients       `client.Client` and the console's `tui.watch.remote.RemotePort` ask by it

What can be done with an island can be done by all of its ways; tests/api/test_parity.py holds the API, the
client, the commands and the console against this table, and names the exceptions with their reasons.
"""

from __future__ import annotations

from typing import Any

from skyisland.operations import calling, naming, operating
from skyisland.operations.calling import *
from skyisland.operations.naming import *
from skyisland.operations.operating import *
from skyisland.operations.operation import *

OPERATIONS: tuple[Operation[Any], ...] = tuple(
    row for room in (calling, naming, operating) for row in vars(room).values() if isinstance(row, Operation)
)
"""In the order of their modules, as the description and the pages show them."""
NAMED = {operation.name: operation for operation in OPERATIONS}

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
