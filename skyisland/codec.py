"""Writes and reads the JSON that travels, whose shapes are in wire.py.

A request is read strictly (`decode`): unknown fields, a field given twice and wrong types are refused with
the field's name and the remedy. Types are checked while the text is read, so neither nesting nor the length
of a number matters. Content-Type is ignored, because clients of the original send none or a wrong one. An
answer is read leniently (`read`): a client skips the fields that only a newer island knows.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from skyisland.errors import BadRequest, Forbidden, IslandError, Unauthorized
from skyisland.model import Verdict
from skyisland.wire import Answer, Called, FunctionBody, InputAnswer, NamedCallBody, Problem

T = TypeVar("T")

_encoder = msgspec.json.Encoder(enc_hook=str)
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_COMPLAINT_AT = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"missing required field `(.*)`")
_TOO_LONG = re.compile(r"Expected `(.*)` of length <= ([0-9]+)")
_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
"""Half of a character in UTF-16 without the other; msgspec says of it that the text is truncated."""
_HALF_MISSING = "it ends too early, or a text has half of a surrogate pair, such as \\ud800"
_SHORTER = {
    "call": "pass large data on the function's standard input",
    "version": "name a branch, a tag or a commit",
}
"""What to do about a field that is too long."""


def encode(value: object) -> bytes:
    """JSON; paths as text."""
    return _encoder.encode(value)


def _decoder(shape: Any) -> msgspec.json.Decoder[Any]:
    if shape not in _decoders:
        _decoders[shape] = msgspec.json.Decoder(shape, dec_hook=_custom)
    return _decoders[shape]


def _custom(kind: type[Any], value: Any) -> Any:
    """Types that msgspec does not know: paths, and the details of a problem, which may be anything."""
    return Path(value) if kind is Path else value


def decode(body: bytes, shape: type[T]) -> T:
    """Read a request's body, strictly.

    Raises:
        BadRequest: names what is wrong, in `details["field"]` too where it is a field.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # some editors begin a text with it; RFC 8259 lets us skip it
    if not body.strip():
        raise BadRequest(f"the body is empty; send a JSON object with {_fields(shape)}")
    try:
        body.decode()  # msgspec does not look whether what it leaves raw is UTF-8
        value: T = _decoder(shape).decode(body)
        # msgspec takes the last of two fields of one name. This second reading costs some microseconds.
        json.loads(_without_data(body, value), object_pairs_hook=_once)
    except msgspec.ValidationError as error:
        raise _complaint(str(error), shape) from None
    except msgspec.DecodeError as error:
        why = _HALF_MISSING if "truncated" in str(error) and _HALF.search(body) else str(error)
        raise BadRequest(f"the body is not JSON: {why}; send a JSON object in UTF-8") from None
    except (RecursionError, ValueError) as error:
        raise BadRequest(f"the body is not JSON: {error}; send a JSON object in UTF-8") from None
    return value


def _without_data(body: bytes, value: object) -> bytes:
    """The body without the JSON that it carries for others, which they read: it may be long.

    A whole array or object begins nowhere in JSON but where it stands, or in another one, or in a text; and
    there it changes no name of a field.
    """
    if isinstance(value, (FunctionBody, NamedCallBody)):
        for data in (value.args, value.inputs):
            if data is not UNSET:
                return body.replace(data, b"0", 1)
    return body


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that has a field twice: parsers disagree on which of them counts."""
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise BadRequest(f"field {name!r} is there twice; send it once", field=name)
        names.add(name)


def _fields(shape: type) -> str:
    return ", ".join(field.encode_name for field in msgspec.structs.fields(shape))


def _complaint(complaint: str, shape: type) -> BadRequest:
    """msgspec's complaint in the words of a caller."""
    if match := _UNKNOWN.search(complaint):
        name = match[1][:64]
        return BadRequest(f"unknown field {name!r}; there are {_fields(shape)}", field=name)
    if match := _MISSING.search(complaint):
        return BadRequest(f"field {match[1]!r} is missing; it is required", field=match[1])
    match = _COMPLAINT_AT.fullmatch(complaint)
    what, field = (match[1], match[2]) if match else (complaint, None)
    if field is not None and (long := _TOO_LONG.fullmatch(what)):
        remedy = _SHORTER.get(field, "shorten it")
        unit = "elements" if long[1] == "array" else "characters"
        return BadRequest(f"field {field!r} has more than {long[2]} {unit}; {remedy}", field=field)
    what = what[:1].lower() + what[1:]
    if field is None:
        return BadRequest(f"the body: {what}; send a JSON object with {_fields(shape)}")
    return BadRequest(f"field {field!r}: {what}; correct or omit it", field=field)


class NotAnIsland(Exception):
    """The answer is not an island's, or that of a version with other shapes. The text follows the address of
    whoever answered."""


def read(status: int, content: bytes, shape: type[T], field: str = "") -> T:
    """What a response holds: a `shape`, or an object with one in its field `field`.

    Raises:
        IslandError: the island refused; the error is of the kind that it was there.
        NotAnIsland
    """
    if not 200 <= status < 300:
        raise refusal(status, _problem(status, content))
    try:
        if field:
            content = bytes(_decoder(dict[str, Raw]).decode(content)[field])
        value: T = _decoder(shape).decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError) as error:
        raise _too_far(status, error) from None
    return value


def read_call(status: int, content: bytes) -> Called:
    """What came of a call: an answer, or a problem whose code is a verdict.

    Raises:
        IslandError: the call did not run; the error is of the kind that it was there.
        NotAnIsland
    """
    if 200 <= status < 300:
        answer = read(status, content, Answer)
        return Called.by(Verdict.failed if answer.failed else Verdict.ok, answer)
    problem = _problem(status, content)
    if problem.code in set(Verdict):
        try:
            answer = msgspec.convert(problem.details, Answer)
        except msgspec.ValidationError as error:
            raise NotAnIsland(
                f"answers {status}, but not as an island of this version does: {error}"
            ) from None
        return Called.by(Verdict(problem.code), answer)
    raise refusal(status, problem)


def read_line(line: bytes) -> InputAnswer:
    """The answer of one of many inputs.

    Raises:
        NotAnIsland
    """
    return read(200, line, InputAnswer)


def read_last(line: bytes) -> Called:
    """What came of a call with many inputs, of its last line: an answer, or a problem.

    Raises:
        IslandError: the call did not run to its end.
        NotAnIsland
    """
    try:
        ended_well = "id" in _decoder(dict[str, Raw]).decode(line)
    except msgspec.DecodeError as error:
        raise _too_far(200, error) from None
    return read_call(200 if ended_well else 502, line)


class AnswerLines:
    """The lines that a call with many inputs is answered by, cut from what comes."""

    def __init__(self) -> None:
        self._begun, self._held = b"", b""

    def take(self, chunk: bytes) -> Iterator[InputAnswer]:
        """The answers of inputs that are whole now.

        Raises:
            NotAnIsland
        """
        *whole, self._begun = (self._begun + chunk).split(b"\n")
        for line in whole:
            if self._held:
                yield read_line(self._held)
            self._held = line

    def end(self) -> Called:
        """What came of the call; as for `read_last`."""
        return read_last(self._held)


def _too_far(status: int, error: Exception) -> NotAnIsland:
    text = f"answers {status}, but not as an island of this version does ({error}); check the address"
    return NotAnIsland(text)


def _problem(status: int, content: bytes) -> Problem:
    try:
        problem: Problem = _decoder(Problem).decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotAnIsland(f"answers {status}, but not as an island does; check the address") from None
    return problem


def refusal(status: int, problem: Problem) -> IslandError:
    """A problem as the error that it was in the island; by its status where its code is of a newer one."""
    nearest = {401: Unauthorized, 403: Forbidden}.get(status, IslandError)
    error = _kinds(IslandError).get(problem.code, nearest)(problem.error)
    if isinstance(problem.details, dict):
        error.details.update(problem.details)
    return error


def _kinds(root: type[IslandError]) -> dict[str, type[IslandError]]:
    """Errors by their code; one without a code of its own counts as the one above it."""
    kinds: dict[str, type[IslandError]] = {}
    for child in root.__subclasses__():
        kinds |= _kinds(child)
    return kinds | {root.code: root}
