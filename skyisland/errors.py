"""What can go wrong, as a tree.

These are refusals and failures of the island. How a function ended (an exit code, a signal, a
time-out) is not an error but an `Outcome`. The rule behind the status: 4xx means that the caller is at
fault, 502 and 504 a service that we called, 500 and 503 ourselves.

    IslandError
    ├── BadRequest                  400   a field of the request is wrong
    │   └── BadCall                 400   not a call that we run; `position` says where
    ├── Unauthorized                401   no token
    ├── Forbidden                   403   a wrong token
    │   └── SourceRefused           403   the settings do not permit this repository
    ├── NotFound                    404
    │   ├── JailNotFound · AddressNotFound · ArtifactNotFound · CallNotFound
    │   └── InvocationNotFound · FunctionNotFound · NameNotFound · NodeNotFound
    ├── AddressInUse                409
    ├── CallStands                  409   there is nothing about this call to do again
    ├── KeyInUse                    409   the call with this Idempotency-Key still runs; Retry-After
    ├── KeyReused                   422   this Idempotency-Key was used with another body
    ├── StaleRevision               412   somebody else changed the name meanwhile
    ├── BuildFailed                 422   compiler output in `details`
    ├── TooBusy                     429   Retry-After
    ├── SourceUnavailable           502   the remote did not answer, or has no such version
    ├── NodeLost                    502   another island of the fleet ran the call, and is gone
    ├── NodeSilent                  502   another node of the fleet did not answer
    ├── Unavailable                 503   Retry-After
    │   ├── NoAddress · Draining · Paused
    │   └── HostUnfit               503   this host cannot do what was asked; the remedy is in the text
    ├── SettingsError               (start-up only)
    └── DriverError                 500   a program of the host failed us

`code` is stable and part of the API. The message is for people and names the remedy.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


class IslandError(Exception):
    """The root. `details` can be encoded as JSON and reaches the caller."""

    code: ClassVar[str] = "internal"
    for_admins: str = ""
    """Why, in words that an admin may read and a caller may not."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s


class BadRequest(IslandError):
    """A field of the request is missing, unknown, of the wrong type or out of range."""

    code = "bad_request"


class BadCall(BadRequest):
    """The call is not a Go expression of the kind we run; `details["position"]` is a byte offset."""

    code = "bad_call"


class Unauthorized(IslandError):
    code = "unauthorized"


class Forbidden(IslandError):
    code = "forbidden"


class SourceRefused(Forbidden):
    """The settings do not permit this repository, or its URL tries what we never do (see `sources.url`)."""

    code = "source_refused"


class NotFound(IslandError):
    code = "not_found"


class JailNotFound(NotFound):
    code = "jail_not_found"


class AddressNotFound(NotFound):
    code = "address_not_found"


class ArtifactNotFound(NotFound):
    code = "artifact_not_found"


class InvocationNotFound(NotFound):
    code = "invocation_not_found"


class NameNotFound(NotFound):
    code = "name_not_found"


class FunctionNotFound(NotFound):
    code = "function_not_found"


class CallNotFound(NotFound):
    code = "call_not_found"


class NodeNotFound(NotFound):
    """The fleet has no such node, or this island is in none."""

    code = "node_not_found"


class AddressInUse(IslandError):
    code = "address_in_use"


class StaleRevision(IslandError):
    """The name has another revision than the change was made for; `details["revision"]` is the latest."""

    code = "stale_revision"


class CallStands(IslandError):
    """A call that is neither dead nor cancelled is not run again."""

    code = "call_stands"


class KeyInUse(IslandError):
    """The call with this Idempotency-Key still runs, and its caller waits for it."""

    code = "key_in_use"


class KeyReused(IslandError):
    """This Idempotency-Key was used before, with another body."""

    code = "key_reused"


class Complaint(StrEnum):
    """Why Go refused to compile a main program; the first that applies, in this order."""

    program = "program"
    """The package is a `package main`."""
    no_go_files = "no_go_files"
    """The folder holds no Go files, or none for this system."""
    missing_module = "missing_module"
    """A required module is neither vendored nor downloaded."""
    language = "language"
    """It is written in a later Go than its go.mod tells, or than Go takes for one without go.mod."""
    generic = "generic"
    """The function has type parameters: in the expression form Go may infer them."""
    type = "type"
    """The name is a type: the expression form is a conversion."""
    no_value = "no_value"
    """The call has no results: the statement form runs it."""
    undefined = "undefined"
    """The package has no such exported name."""
    mismatch = "mismatch"
    """The call does not fit the package: its arguments, methods or types are wrong."""
    package = "package"
    """The package itself does not compile."""


class BuildFailed(IslandError):
    """The repository's code does not compile; `details["output"]` is the compiler's output."""

    code = "build_failed"

    def __init__(self, message: str, *, complaint: Complaint | None = None, **details: Any) -> None:
        """`complaint`: Go's reason, None if unknown. `details` has it too."""
        if complaint is not None:
            details["complaint"] = str(complaint)
        super().__init__(message, **details)
        self.complaint = complaint


class TooBusy(IslandError):
    code = "too_busy"


class SourceUnavailable(IslandError):
    """The remote did not answer in time, refused us, or has no such version."""

    code = "source_unavailable"


class NodeLost(IslandError):
    """The island of the fleet that ran the call is not heard of any more; `details["node"]` is its name."""

    code = "node_lost"


class NodeSilent(IslandError):
    """Another node of the fleet did not answer in time."""

    code = "node_silent"


class Unavailable(IslandError):
    code = "unavailable"


class NoAddress(Unavailable):
    code = "no_address"


class Draining(Unavailable):
    code = "draining"


class Paused(Unavailable):
    """An admin paused the function's name."""

    code = "paused"


class HostUnfit(Unavailable):
    """This host cannot do what was asked (no rights for networking, no user namespaces …)."""

    code = "host_unfit"


class SettingsError(IslandError):
    """Unusable settings. The message names file, key path, the value found and the values allowed."""

    code = "bad_settings"


class DriverError(IslandError):
    """A program or interface of the host failed; the message has its output."""

    code = "driver_error"
