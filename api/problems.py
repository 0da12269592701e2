"""The one table from what went wrong to a status and a body.

    {"error": "text for people", "code": "stable_name", "details": {…}}

4xx is the caller; 502 and 504 what we called for them; 500 and 503 us. What can be tried again says
when, in Retry-After.
"""

from __future__ import annotations

import logging
import math
import signal
from http import HTTPStatus

import msgspec
from msgspec import Struct
from werkzeug.exceptions import HTTPException

from api.wire import Answer, encode
from skyisland.errors import BadRequest, IslandError
from skyisland.model import Invocation, Verdict

log = logging.getLogger(__name__)

STATUS = {
    # Refusals and failures of the island: codes of skyisland.errors, of the API's own refusals.
    "bad_request": 400,
    "bad_call": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "source_refused": 403,
    "foreign_origin": 403,
    "not_found": 404,
    "jail_not_found": 404,
    "address_not_found": 404,
    "artifact_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "address_in_use": 409,
    "too_large": 413,
    "bad_state": 422,
    "build_failed": 422,
    "too_busy": 429,
    "internal": 500,
    "bad_settings": 500,
    "driver_error": 500,
    "source_unavailable": 502,
    "unavailable": 503,
    "no_address": 503,
    "draining": 503,
    "host_unfit": 503,
    # What happened to a function in its jail: verdicts.
    "exited": 502,
    "signaled": 502,
    "out_of_memory": 502,
    "output_limit": 502,
    "disk_full": 502,
    "cpu_time": 502,
    "killed": 502,
    "timed_out": 504,
}
AGAIN_S = {"too_busy": 1, "no_address": 1, "draining": 5, "unavailable": 5}
"""Retry-After where the error itself does not know better."""


class TooLarge(BadRequest):
    """The body is longer than we read."""

    code = "too_large"


class RequestTimeout(BadRequest):
    """The body did not come in time."""

    code = "request_timeout"


class BadState(BadRequest):
    """No state that an address can have."""

    code = "bad_state"


class Reply(Struct, frozen=True):
    """An answer, whoever sends it."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Problem(Struct, frozen=True):
    """The body of every answer that is not a good one."""

    error: str
    code: str
    details: object = msgspec.UNSET


def reply(error: Exception) -> Reply:
    """What a request is answered that ended in `error`; what is nobody's plan goes to the log."""
    if isinstance(error, IslandError):
        return refusal(error)
    if isinstance(error, HTTPException):
        return _http(error)
    log.error("a request failed", exc_info=error)
    return Reply(500, encode(Problem("the island failed; its log says why", IslandError.code)))


def refusal(error: IslandError) -> Reply:
    status = STATUS.get(error.code, 500)
    if status == 500:
        log.error("%s: %s", error.code, error.message)
    headers: tuple[tuple[str, str], ...] = ()
    again_s = error.retry_after_s if error.retry_after_s is not None else AGAIN_S.get(error.code)
    if again_s is not None:
        headers = (("Retry-After", str(max(1, math.ceil(again_s)))),)
    details = error.details or msgspec.UNSET
    return Reply(status, encode(Problem(error.message, error.code, details)), headers)


def misfortune(invocation: Invocation) -> Reply:
    """What a call is answered whose function did not end well."""
    verdict = invocation.outcome.verdict
    problem = Problem(_told(invocation), str(verdict), Answer.of(invocation))
    return Reply(STATUS[verdict], encode(problem))


def _told(invocation: Invocation) -> str:
    outcome = invocation.outcome
    match outcome.verdict:
        case Verdict.exited:
            return f"the function exited with code {outcome.exit_code}; details has its stderr"
        case Verdict.signaled:
            return f"the function was ended by signal {_signal(outcome.signal)}; details has its stderr"
        case Verdict.out_of_memory:
            return "the function needed more memory than its jail may use"
        case Verdict.output_limit:
            return "the function printed more than it may; details has the beginning"
        case Verdict.disk_full:
            return "the function failed when its disk was full; details has its stderr"
        case Verdict.cpu_time:
            return "the function used more processor time than it may"
        case Verdict.timed_out:
            return "the function did not end in time; details has what it printed until then"
        case _:
            return "the jail was killed by the operator, or because the island stops"


def _signal(number: int | None) -> str:
    try:
        return f"{number} ({signal.Signals(number or 0).name})"
    except ValueError:
        return str(number)


def _http(error: HTTPException) -> Reply:
    """Quart's own refusals: no such path, not this method, too long …"""
    status = error.code or 500
    code = "too_large" if status == 413 else HTTPStatus(status).phrase.lower().replace(" ", "_")
    kept = tuple((name, value) for name, value in error.get_headers() if name in ("Allow", "Location"))
    text = {
        404: "there is nothing here; see the README for what is where",
        405: "this method does nothing here; the header Allow says which do",
    }.get(status, error.description or HTTPStatus(status).phrase)
    return Reply(status, encode(Problem(text, code)), kept)
