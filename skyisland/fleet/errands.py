"""Calls on their way between islands, as frames: what is asked, and what comes back word by word.

    CallFrame ▶      to one island, or to any of a platform
              ◀ Word refused                          it is not run there, and nothing of it was
              ◀ Word began                            its process is told what to do: it may have effects now
              ◀ Word alive, every BEAT_S              until the last one
              ◀ Word part … Word done                 the `ResultFrame`, in pieces that a message has room for

Secrets never travel: of a call by name goes the name with its revision, and the island that runs it has the
values.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from skyisland import errors
from skyisland.errors import DriverError, IslandError
from skyisland.fleet.frames import BadFrame, pack, unpack
from skyisland.model import FunctionRequest, Limits, Outcome, Resolved, Timings
from skyisland.rooms import Errand, Ran

BEAT_S = 0.4
LOST_S = 1.8
"""An island of which a caller hears nothing for so long has lost the call: four beats. Callers are told
within two seconds."""
WORD_BYTES = 512 << 10
"""A piece of a result. Half of what a server takes by default."""
RESULT_BYTES = 64 << 20
"""No result is longer: output, results and errors have limits of their own far below."""


class CallFrame(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call for another island."""

    id: str
    sender: str
    sent_at: float
    """By the sender's clock. Who gets it later than `LOST_S` drops it: nobody waits for it any more."""
    request: FunctionRequest
    """Without its arguments."""
    args: bytes | None = None
    inputs: bytes | None = None
    resolved: Resolved
    client: str
    caller_id: str = ""
    traceparent: str = ""
    text_only: bool = False
    limits: Limits
    timeout_s: float
    name: str = ""
    revision: int = 0

    @classmethod
    def of(cls, errand: Errand, sender: str, sent_at: float) -> CallFrame:
        request = errand.request
        return cls(
            id=errand.id,
            sender=sender,
            sent_at=sent_at,
            request=structs.replace(request, args=UNSET, inputs=UNSET),
            args=None if request.args is UNSET else bytes(request.args),
            inputs=None if request.inputs is UNSET else bytes(request.inputs),
            resolved=errand.resolved,
            client=errand.client,
            caller_id=errand.caller_id,
            traceparent=errand.traceparent,
            text_only=errand.text_only,
            limits=errand.limits,
            timeout_s=errand.timeout_s,
            name=errand.name,
            revision=errand.revision,
        )

    @property
    def errand(self) -> Errand:
        """What is to be done."""
        request = self.request
        if self.args is not None:
            request = structs.replace(request, args=Raw(self.args))
        if self.inputs is not None:
            request = structs.replace(request, inputs=Raw(self.inputs))
        return Errand(
            id=self.id,
            request=request,
            resolved=self.resolved,
            client=self.client,
            caller_id=self.caller_id,
            traceparent=self.traceparent,
            text_only=self.text_only,
            limits=self.limits,
            timeout_s=self.timeout_s,
            name=self.name,
            revision=self.revision,
        )


class Kind(StrEnum):
    """What a word says."""

    refused = "refused"
    began = "began"
    alive = "alive"
    part = "part"
    done = "done"


class Word(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the messages of an island that was asked to run a call."""

    kind: Kind
    node: str
    why: str = ""
    data: bytes = b""


class ResultFrame(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a call that was begun: an outcome, or an error."""

    outcome: Outcome | None = None
    timings: Timings = Timings()
    jail: str | None = None
    warm: bool = False
    code: str = ""
    message: str = ""
    details: bytes = b""
    """JSON."""
    retry_after_s: float | None = None

    @classmethod
    def of_error(cls, error: Exception) -> ResultFrame:
        if not isinstance(error, IslandError):
            error = DriverError(f"the island that ran it failed: {type(error).__name__}; see its log")
        return cls(
            code=error.code,
            message=error.message,
            details=msgspec.json.encode(error.details, enc_hook=str),
            retry_after_s=error.retry_after_s,
        )

    def ran(self, node: str) -> Ran:
        """What came of it.

        Raises:
            IslandError: that is an error; `BadFrame` if it is none that an island wrote.
        """
        if self.outcome is None:
            try:
                details: dict[str, Any] = msgspec.json.decode(self.details or b"{}", type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError, ValueError) as bad:
                raise BadFrame(f"an error whose details are none: {bad}") from None
            error = _error_of(self.code)(self.message, retry_after_s=self.retry_after_s)
            error.details = details
            raise error
        return Ran(outcome=self.outcome, timings=self.timings, jail=self.jail, warm=self.warm, node=node)


def ran_of(data: bytes, node: str) -> Ran:
    """What came of a call, by the bytes of its `ResultFrame`.

    Raises:
        IslandError: that is an error; `BadFrame` if they are none that an island wrote.
    """
    return unpack(data, ResultFrame, most_bytes=RESULT_BYTES).ran(node)


def _error_of(code: str) -> type[IslandError]:
    """The error with a code; an unknown one is the driver's."""
    every = (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, IslandError))
    return next((one for one in every if one.code == code), DriverError)


def words_of(result: ResultFrame, node: str) -> list[bytes]:
    """The messages that a result is told by."""
    data = pack(result)
    pieces = [data[start : start + WORD_BYTES] for start in range(0, len(data), WORD_BYTES)]
    return [
        pack(Word(kind=Kind.done if piece is pieces[-1] else Kind.part, node=node, data=piece))
        for piece in pieces
    ]
