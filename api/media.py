"""What a caller accepts: from the header Accept to the form of an answer (RFC 9110, 12.5.1).

    application/json            an answer, and an error, with all their fields; also where nothing is said
    text/plain                  what the function printed and returned, as it is; the rest in headers
    application/octet-stream    the same, called bytes
    text/event-stream           phases and outputs of the call as they come, and last its answer (live.py)
    application/x-ndjson        of many inputs the answer of each as it comes, a line; then the rest, a line
    application/problem+json    errors by RFC 9457; where nothing else is accepted, answers are JSON

Where JSON is not accepted, errors are `application/problem+json`: a header has no room for what a compiler
says.
"""

from __future__ import annotations

import functools
import re

from msgspec import Struct

from skyisland.errors import IslandError
from skyisland.operations import EVENT_STREAM, LINES

JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"
PROBLEM = "application/problem+json"
ANSWERS = (JSON, TEXT, BYTES, LINES, EVENT_STREAM)
"""The forms of an answer, the one first that serves who does not care."""

_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE)


class NotAcceptable(IslandError):
    """The caller accepts no form that an answer can have."""

    code = "not_acceptable"


class Wanted(Struct, frozen=True):
    """The forms of answers and errors."""

    answer: str | None
    """One of `ANSWERS`; None if the caller accepts none of them."""
    error: str
    """`JSON` or `PROBLEM`."""

    @property
    def acceptable(self) -> str:
        """The form of an answer.

        Raises:
            NotAcceptable
        """
        if self.answer is None:
            raise NotAcceptable(f"an answer is one of {', '.join(ANSWERS)}; accept one of them")
        return self.answer

    def check_many(self) -> None:
        """Refuse a form that has no room for the answers of many inputs.

        Raises:
            NotAcceptable
        """
        if self.answer in (TEXT, BYTES):
            message = f"inputs: their answers are {LINES} or {JSON}, not {self.answer}; accept one of them"
            raise NotAcceptable(message, field="inputs")


AS_JSON = Wanted(JSON, JSON)


@functools.lru_cache(maxsize=64)
def wanted(accept: str) -> Wanted:
    """The forms that the caller prefers; `accept` is the header's value, empty without it."""
    if not accept.strip():
        return AS_JSON
    qualities: dict[str, float] = {}
    for one in accept.split(","):
        media, *parameters = one.split(";")
        matches = (_QUALITY.fullmatch(parameter) for parameter in parameters)
        quality = next((float(match[1]) for match in matches if match), 1.0)
        qualities[media.strip().lower()] = quality

    def quality_of(media: str) -> float:
        ranges = (media, f"{media.partition('/')[0]}/*", "*/*")
        return next((qualities[one] for one in ranges if one in qualities), 0.0)

    problem = qualities.get(PROBLEM, 0.0)
    best, quality = max(((media, quality_of(media)) for media in ANSWERS), key=lambda pair: pair[1])
    if quality == 0:
        return Wanted(JSON, PROBLEM) if problem else Wanted(None, JSON)
    takes_json = best in (LINES, EVENT_STREAM) or quality_of(JSON)
    return Wanted(best, PROBLEM if problem or not takes_json else JSON)
