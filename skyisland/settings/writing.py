"""From settings to TOML: `dump` writes the values, `commented` every key as a comment with explanation."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import tomli_w
from msgspec import structs

from skyisland.settings.reading import attribute, field_types, kind
from skyisland.settings.section import Section

_WIDTH = 100


def dump(settings: Section, *, secrets: bool = False) -> str:
    """TOML that reads back as `settings`; tokens are left out unless `secrets`."""
    return tomli_w.dumps(_plain(settings, secrets))


def _plain(section: Section, secrets: bool) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, hint in field_types(type(section)).items():
        value = getattr(section, attribute(name))
        meta, _ = kind(hint)
        extra = (meta.extra if meta else None) or {}
        if isinstance(value, Section):
            table[name] = _plain(value, secrets)
        elif secrets or "secret" not in extra:
            table[name] = (extra.get("write") or _as_toml)(value)
    return table


def _as_toml(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(one, True) if isinstance(one, Section) else one for name, one in value.items()}
    if isinstance(value, tuple):
        return [_given(one) if isinstance(one, Section) else one for one in value]
    return value


def _given(section: Section) -> dict[str, Any]:
    """What a table of an array says, without what it leaves at its default."""
    defaults = {info.name: info.default for info in structs.fields(section)}
    return {name: value for name, value in _plain(section, True).items() if value != defaults[name]}


def commented(settings: Section, preface: str) -> str:
    """Every key of the settings with its value, commented out, below its explanation."""
    return "\n".join([*_comment(preface), *_commented_table(settings, "")]) + "\n"


def _commented_table(section: Section, path: str) -> Iterator[str]:
    plain = _plain(section, secrets=True)
    tables = {
        name: value for name in plain if isinstance(value := getattr(section, attribute(name)), Section)
    }
    explanations = docs(type(section))
    for name, value in plain.items():
        if name not in tables:
            yield ""
            yield from _comment(explanations[name])
            yield f"#{name} = {_literal(value)}"
    for name, table in tables.items():
        yield ""
        yield from _comment(inspect.getdoc(type(table)) or "")
        yield f"[{path}{name}]"
        yield from _commented_table(table, f"{path}{name}.")


def _literal(value: object) -> str:
    """A value as TOML on one line, so that one `#` comments it out."""
    match value:
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return "{" + ", ".join(f"{_literal(key)} = {_literal(each)}" for key, each in value.items()) + "}"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip("\n")


def _comment(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += ["#"] if lines else []
        lines += textwrap.wrap(
            paragraph,
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


@cache
def docs(section: type[Section]) -> dict[str, str]:
    """The string beneath each field; one that a subclass redefines without a string keeps the inherited."""
    strings: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not issubclass(cls, Section):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
        for field, below in zip(body.body, body.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    strings[name] = " ".join(text.split())
    return strings
