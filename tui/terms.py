"""The terms of a name as words in a line of a dialog, read and written.

    env       MODE=test GREETING="hello there"
    secrets   TOKEN=STRIPE_KEY    the variable, and the secret's name; nothing shows a value
    limits    memory=64m cpus=0.5 cpu_time=2s pids=30 stdout=1m time=5s
    callers   shop ci

What stands there unchanged stays as it is, also where a line cannot show it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import structs

from skyisland.errors import BadRequest
from skyisland.named.definition import Ceilings, Definition
from skyisland.settings.values import read_duration, read_size, write_duration, write_size
from tui.words import line

TERMS = ("env", "secrets", "limits", "callers")
TIME = "time"
"""The word for `timeout_s`, which stands among the limits."""

Reader = Callable[[str], Any]
_LIMITS: Mapping[str, tuple[str, Reader, Callable[[Any], object]]] = {
    "memory": ("memory_bytes", read_size, write_size),
    "cpus": ("cpus", float, "{:g}".format),
    "cpu_time": ("cpu_time_s", read_duration, write_duration),
    "pids": ("pids", int, str),
    "stdout": ("stdout_bytes", read_size, write_size),
    TIME: ("timeout_s", read_duration, write_duration),
}
"""By their words: the field, and how its value is read and written."""


def shown(definition: Definition) -> dict[str, str]:
    """Each of the terms as it may be typed."""
    limits = definition.limits.given() if definition.limits is not None else {}
    limits |= {"timeout_s": definition.timeout_s} if definition.timeout_s is not None else {}
    written = {
        word: str(write(limits[field])) for word, (field, _, write) in _LIMITS.items() if field in limits
    }
    return {
        "env": _joined(definition.env),
        "secrets": _joined(definition.secrets),
        "limits": _joined(written),
        "callers": shlex.join(definition.callers),
    }


def _joined(pairs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in pairs.items())


def changed(definition: Definition, typed: Mapping[str, str]) -> Definition:
    """The definition with the terms that were typed in place of its own.

    Raises:
        BadRequest: one cannot be read; the text names it.
    """
    before = shown(definition)
    fields: dict[str, Any] = {}
    for term in TERMS:
        if typed[term] == line(before[term]).strip():
            continue  # also where a field cannot show it
        words = _words(term, typed[term])
        if term == "callers":
            fields["callers"] = tuple(words)
        elif term == "limits":
            fields |= _limits(_pairs(term, words))
        else:
            fields[term] = _pairs(term, words)
    return structs.replace(definition, **fields)


def _words(term: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadRequest(f"{term}: {error}", field=term) from None


def _pairs(term: str, words: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BadRequest(f"{term}: write NAME=VALUE, not {word!r}", field=term)
        pairs[name] = value
    return pairs


def _limits(pairs: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word, text in pairs.items():
        if word not in _LIMITS:
            raise BadRequest(f"limits: there are {', '.join(_LIMITS)}; not {word}", field="limits")
        field, read, _ = _LIMITS[word]
        try:
            values[field] = read(text)
        except ValueError:
            raise BadRequest(f"limits: {word} cannot be {text!r}", field="limits") from None
    timeout_s = values.pop("timeout_s", None)
    try:
        ceilings = msgspec.convert(values, Ceilings) if values else None
        msgspec.convert({"url": "", "timeout_s": timeout_s}, Definition)
    except msgspec.ValidationError as error:
        raise BadRequest(f"limits: {error}", field="limits") from None
    return {"limits": ceilings, "timeout_s": timeout_s}
