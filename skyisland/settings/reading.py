"""From the text of a file to settings.

`read_file` parses TOML or JSON into plain tables. `overlay` puts them over the defaults, section by
section and key by key, and collects every problem. Only `SettingsError` leaves.
"""

from __future__ import annotations

import difflib
import json
import keyword
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, structs

from skyisland.errors import SettingsError
from skyisland.settings.section import Section
from skyisland.settings.values import Refused

S = TypeVar("S", bound=Section)


class WrongKey(Struct, frozen=True):
    """One wrong key."""

    key: str
    """Its path: `jails.max_running`."""
    found: str
    """Its value, as the file spells it."""
    allowed: str
    """The permitted values, in words."""

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; allowed: {self.allowed}"


def settings_error(origin: str, problems: list[WrongKey]) -> SettingsError:
    """One error for all problems of one file or variable."""
    if len(problems) == 1:
        text = f"{origin}: {problems[0]}"
    else:
        text = f"{origin}: {len(problems)} problems\n" + "\n".join(f"  {problem}" for problem in problems)
    details = [structs.asdict(problem) for problem in problems]
    return SettingsError(text, origin=origin, problems=details)


def read_file(path: Path) -> dict[str, Any]:
    """Parse a file: as JSON if its name ends in .json or its text begins with a brace, else as TOML.

    Raises:
        SettingsError: it cannot be read or parsed.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: byte {error.start} is not UTF-8", origin=str(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"{path}: cannot be read: {reason}", origin=str(path)) from error
    is_json = path.suffix == ".json" or (path.suffix != ".toml" and text.lstrip().startswith("{"))
    try:
        tables = json.loads(text, object_pairs_hook=_unique_keys) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        language = "JSON" if is_json else "TOML"
        raise SettingsError(f"{path}: is not {language}: {reason}", origin=str(path)) from None
    if not isinstance(tables, dict):
        raise SettingsError(f"{path}: found {_show(tables)}; allowed: an object", origin=str(path))
    return tables


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {_key('', repeated)} is there twice")
    return table


def overlay(default: S, tables: Mapping[str, object], origin: str) -> S:
    """A copy of `default` with the values of the tables.

    Raises:
        SettingsError: lists every unknown key, wrong type and value out of range.
    """
    problems: list[WrongKey] = []
    settings = _section(default, tables, "", problems, _all_keys(default))
    if problems:
        raise settings_error(origin, problems)
    return settings


def _section(default: S, table: object, path: str, problems: list[WrongKey], all_keys: list[str]) -> S:
    if not isinstance(table, Mapping):
        problems.append(WrongKey(path, _show(table), "a table"))
        return default
    problems_before = len(problems)
    types = field_types(type(default))
    changes: dict[str, object] = {}
    for name, value in table.items():
        key = _key(path, name)
        if name not in types:
            problems.append(WrongKey(key, _unknown(path, name, list(types), all_keys), ", ".join(types)))
        elif isinstance(current := getattr(default, attribute(name)), Section):
            changes[attribute(name)] = _section(current, value, key, problems, all_keys)
        else:
            changes[attribute(name)] = _value(types[name], value, key, problems)
    if len(problems) == problems_before:
        try:
            return structs.replace(default, **changes)
        except Refused as refused:
            problems.append(WrongKey(_key(path, refused.key), _show(refused.found), refused.allowed))
    return default


def _value(hint: Any, value: object, key: str, problems: list[WrongKey]) -> object:
    """Convert a value of the file to its type. On failure, add a WrongKey; nobody uses the None then."""
    meta, bare = kind(hint)
    match get_origin(bare), get_args(bare), value:
        case (origin, (item, _), list()) if origin is tuple:
            read = _new if _is_section(item) else _value
            return tuple(read(item, each, f"{key}[{i}]", problems) for i, each in enumerate(value))
        case (origin, (_, item), dict()) if origin is dict:
            for name in value:
                if not name.isprintable():
                    problems.append(WrongKey(_key(key, name), "control characters", "printable characters"))
            if _is_section(item):
                return {name: _new(item, each, _key(key, name), problems) for name, each in value.items()}
            return {name: _value(item, each, _key(key, name), problems) for name, each in value.items()}
    extra = (meta.extra if meta else None) or {}
    try:
        if isinstance(value, str) and not value.isprintable():
            raise ValueError
        return extra["read"](value) if "read" in extra else msgspec.convert(value, hint)
    except (ValueError, msgspec.ValidationError):
        found = "a value not shown here" if "secret" in extra else _show(value)
        problems.append(WrongKey(key, found, allowed(hint)))
        return None


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _new(kind: type[Section], table: object, key: str, problems: list[WrongKey]) -> object:
    """A section that has no defaults as a whole, for one of its keys must be there."""
    if not isinstance(table, Mapping):
        problems.append(WrongKey(key, _show(table), "a table"))
        return None
    types, values, before = field_types(kind), dict[str, object](), len(problems)
    for name, value in table.items():
        if name in types:
            values[name] = _value(types[name], value, _key(key, name), problems)
        else:
            problems.append(WrongKey(_key(key, name), _unknown(key, name, list(types), []), ", ".join(types)))
    if len(problems) == before:
        try:
            return kind(**values)
        except Refused as refused:
            problems.append(WrongKey(_key(key, refused.key), _show(refused.found), refused.allowed))
    return None


@cache
def field_types(section: type[Section]) -> dict[str, Any]:
    """The annotated type of each key."""
    return {info.name.rstrip("_"): info.type for info in structs.fields(section)}


def attribute(key: str) -> str:
    """The attribute of a key: `async` is a word of Python's own."""
    return f"{key}_" if keyword.iskeyword(key) else key


def kind(hint: Any) -> tuple[Meta | None, Any]:
    """Split an annotated type of `values` into its `Meta` and the bare type."""
    if get_origin(hint) is Annotated:
        bare, *metas = get_args(hint)
        return next(meta for meta in metas if isinstance(meta, Meta)), bare
    return None, hint


def allowed(hint: Any) -> str:
    """The values that a type permits, in words."""
    meta, bare = kind(hint)
    if meta and meta.description:
        return meta.description
    match get_origin(bare), get_args(bare):
        case (origin, options) if origin is Literal:
            *most, last = (f'"{option}"' for option in options)
            return f"{', '.join(most)} or {last}"
        case (origin, (item, _)) if origin is tuple:
            return f"an array; in it {'tables' if _is_section(item) else allowed(item)}"
        case (origin, _) if origin is dict:
            return "a table of texts"
    return {bool: "true or false", str: "a text"}[bare]


def _show(value: object) -> str:
    """A value as a file would spell it, on one line and without control characters."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case Mapping():
            return "a table"
        case list():
            return "an array" if value else "an empty array"
        case int() if value.bit_length() > 128:
            return "a number far too large"
        case int() | float():
            return str(value)
        case str():
            text = re.sub(r"//[^/\s]*@", "//…@", value)  # credentials of a URL
            text = text if len(text) <= 60 else text[:59] + "…"
            return json.dumps(text, ensure_ascii=not text.isprintable())
    return "a date or time"


def _key(path: str, name: str) -> str:
    """A key's path, its last part quoted if TOML requires it."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name):
        name = _show(name)
    return f"{path}.{name}" if path else name


def _all_keys(section: Section, path: str = "") -> list[str]:
    keys = []
    for name in field_types(type(section)):
        keys.append(key := _key(path, name))
        if isinstance(value := getattr(section, attribute(name)), Section):
            keys += _all_keys(value, key)
    return keys


def _unknown(path: str, name: str, siblings: list[str], all_keys: list[str]) -> str:
    """Describe an unknown key and guess the one that was meant: a similar sibling, or another section's."""
    # 0.7 is a judgement: one letter in four may be wrong.
    guesses = [_key(path, close) for close in difflib.get_close_matches(name[:60], siblings, n=1, cutoff=0.7)]
    guesses = guesses or [key for key in all_keys if key == name or key.endswith(f".{name}")]
    return f"an unknown key (did you mean {' or '.join(guesses)}?)" if guesses else "an unknown key"
