"""The one table from what went wrong to a status and a body.

    {"error": "text for people", "code": "stable_name", "details": {…}}

or, for who asks for `application/problem+json`, the same by RFC 9457:

    {"type": "about:blank", "title": …, "status": …, "detail": "text for people", "code": …, "details": {…}}

4xx: the caller's fault; 502 and 504: what was called for them; 500 and 503: the island's. Retry-After says
when it is worth trying again.
"""

from __future__ import annotations

import logging
import math
from http import HTTPStatus

import msgspec
from msgspec import Struct
from werkzeug.exceptions import HTTPException

from api.media import JSON, PROBLEM
from skyisland.codec import encode
from skyisland.errors import BadRequest, IslandError
from skyisland.model import Invocation, Verdict
from skyisland.wire import Called, Problem

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
    "invocation_not_found": 404,
    "name_not_found": 404,
    "function_not_found": 404,
    "call_not_found": 404,
    "node_not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "address_in_use": 409,
    "call_stands": 409,
    "key_in_use": 409,
    "stale_revision": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "bad_state": 422,
    "build_failed": 422,
    "key_reused": 422,
    "too_busy": 429,
    "internal": 500,
    "bad_settings": 500,
    "driver_error": 500,
    "source_unavailable": 502,
    "node_lost": 502,
    "node_silent": 502,
    "unavailable": 503,
    "no_address": 503,
    "draining": 503,
    "paused": 503,
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
AGAIN_S = {"too_busy": 1, "no_address": 1, "draining": 5, "unavailable": 5, "paused": 5}
"""Retry-After of errors that name no time: a call ends within seconds, a restart takes some more."""

_REMEDIES = {401: ("WWW-Authenticate", "Bearer"), 415: ("Accept-Encoding", "gzip")}
"""What a client may do about it, as a header (RFC 9110, sections 15.5.2 and 15.5.16)."""

IN_DETAILS = {
    Verdict.exited: "its stderr",
    Verdict.signaled: "its stderr",
    Verdict.disk_full: "its stderr",
    Verdict.output_limit: "the beginning",
    Verdict.timed_out: "what it printed until then",
}
"""What the answer's `details` have of a function that did not end well."""


class TooLarge(BadRequest):
    """The body is longer than the settings permit."""

    code = "too_large"


class UnknownCoding(BadRequest):
    """The body is packed in a way that we do not know."""

    code = "unsupported_media_type"


class RequestTimeout(BadRequest):
    """The body did not come in time."""

    code = "request_timeout"


class BadState(BadRequest):
    """The text is not a state that an address can have."""

    code = "bad_state"


class Reply(Struct, frozen=True):
    """A response with its whole body, whether Quart sends it or the function's endpoint does."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    media: str = JSON


class ProblemDetails(Struct, frozen=True):
    """A problem by RFC 9457; `code` and `details` are members of our own."""

    title: str
    """The status in words: what `about:blank` calls for."""
    status: int
    detail: str
    code: str
    details: object = msgspec.UNSET
    type: str = "about:blank"


def reply(error: Exception, form: str = JSON, *, admin: bool = False) -> Reply:
    """The answer to a request that ended in `error`; an error that nobody foresaw goes to the log.

    `form`: `media.JSON` or `media.PROBLEM`. `admin`: who asked may read what is for admins
    (`details.reason`).
    """
    if isinstance(error, IslandError):
        return refusal(error, form, admin=admin)
    if isinstance(error, HTTPException):
        return _http(error, form)
    log.error("a request failed", exc_info=error)
    return _problem(500, Problem("the island failed; its log says why", IslandError.code), form)


def _problem(status: int, problem: Problem, form: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    if form == JSON:
        return Reply(status, encode(problem), headers)
    title = HTTPStatus(status).phrase
    details = ProblemDetails(title, status, problem.error, problem.code, problem.details)
    return Reply(status, encode(details), headers, PROBLEM)


def refusal(error: IslandError, form: str = JSON, *, admin: bool = False) -> Reply:
    status = STATUS.get(error.code, 500)
    if status == 500:
        log.error("%s: %s", error.code, error.message)
    headers: tuple[tuple[str, str], ...] = ()
    again_s = error.retry_after_s if error.retry_after_s is not None else AGAIN_S.get(error.code)
    if again_s is not None:
        headers = (("Retry-After", str(max(1, math.ceil(again_s)))),)
    if status in _REMEDIES:
        headers += (_REMEDIES[status],)
    private = {"reason": error.for_admins} if admin and error.for_admins else {}
    details = {**error.details, **private} or msgspec.UNSET
    return _problem(status, Problem(error.message, error.code, details), form, headers)


def misfortune(invocation: Invocation, form: str = JSON) -> Reply:
    """The answer to a call whose function did not end well."""
    return misfortune_of(Called.of(invocation), form)


def misfortune_of(called: Called, form: str = JSON) -> Reply:
    """The same of what was kept of the call."""
    more = IN_DETAILS.get(called.verdict)
    text = f"{called.message}; details has {more}" if more else called.message
    problem = Problem(text, str(called.verdict), called.answer)
    return _problem(STATUS[called.verdict], problem, form)


def _http(error: HTTPException, form: str) -> Reply:
    """Quart's own refusals: unknown path, wrong method …"""
    status = error.code or 500
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    kept = tuple((name, value) for name, value in error.get_headers() if name in ("Allow", "Location"))
    text = {
        404: "there is nothing here; /docs lists what is where",
        405: "this method does nothing here; the header Allow says which do",
    }.get(status, error.description or HTTPStatus(status).phrase)
    return _problem(status, Problem(text, code), form, kept)
