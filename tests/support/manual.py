"""The manual page `config/skyisland.1`, made of the commands: `make pages`.

In the macros of man(7), which groff and mandoc read. It bears neither version nor date;
`tests/unit/test_pages.py` holds it to the commands.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from skyisland.cli import SECTIONS, main
from skyisland.cli.ending import EXIT_CODES
from skyisland.settings import SYSTEM_FILES, TOKEN_VARIABLE, Settings
from tests.support.places import ROOT

PAGE = ROOT / "config" / "skyisland.1"
FILES = {
    "~/.config/skyisland/skyisland.toml": "Settings of a user (in $XDG_CONFIG_HOME); not read for root.",
    ", ".join(map(str, SYSTEM_FILES)): "Settings of the host. The first file that exists is read, alone.",
    f"{Settings().state_dir}, ~/.local/state/skyisland": "What an island of root's, and of a user's, keeps.",
    "admin-token": "In that folder: the token that the first start makes.",
}
ENVIRONMENT = {
    TOKEN_VARIABLE: "The admin's token, where the settings have none.",
    "NO_COLOR": "If it is not empty, no colours; nor with TERM=dumb.",
    "COLUMNS": "The width of the terminal, if it does not know better.",
}


def manual() -> str:
    """The whole page."""
    return "\n".join([*_head(), *_commands(), *_tail()]) + "\n"


def _head() -> Iterator[str]:
    ctx = click.Context(main, info_name="skyisland")
    title, *_ = (main.help or "").split(":")
    yield r".\" Made of the commands by `make pages`."
    yield '.TH SKYISLAND 1 "" "Sky Island" "User Commands"'
    yield ".SH NAME"
    yield rf"skyisland \- {_text(title.lower())}"
    yield ".SH SYNOPSIS"
    yield f".B skyisland\n{_text(' '.join(main.collect_usage_pieces(ctx)))}"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(main.help or "")
    yield ".SH OPTIONS"
    yield from _options(main, ctx)


def _commands() -> Iterator[str]:
    yield ".SH COMMANDS"
    yield "Each takes"
    yield r".BR \-h ,\n.BR \-\-help .".replace("\\n", "\n")
    for title, rows in SECTIONS.items():
        yield f".SS {_text(title)}"
        for name in rows:
            yield from _command(main.commands[name], name)


def _command(command: click.Command, name: str) -> Iterator[str]:
    ctx = click.Context(command, info_name=name)
    yield ".TP"
    yield rf"\fB{_text(name)}\fR {_text(' '.join(command.collect_usage_pieces(ctx)))}"
    yield from _paragraphs(command.help or "", ".IP")
    yield ".RS"
    yield from _options(command, ctx)
    yield ".RE"
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _command(below, f"{name} {below.name}")


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
            names, told = record
            yield ".TP"
            yield re.sub(r"(?<![\w-])(\\-[\\\w-]+)", r"\\fB\1\\fR", _text(names))
            yield _text(told)


def _tail() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES.items():
        yield f".TP\n.B {code}\n{_text(meaning)}"
    yield ".SH ENVIRONMENT"
    for name, meaning in ENVIRONMENT.items():
        yield f".TP\n.B {_text(name)}\n{_text(meaning)}"
    yield ".SH FILES"
    for name, meaning in FILES.items():
        yield f".TP\n.I {_text(name)}\n{_text(meaning)}"
    yield ".SH SEE ALSO"
    yield ".BR git (1),\n.BR jail (8),\n.BR bwrap (1)"


def _paragraphs(text: str, between: str = ".PP") -> Iterator[str]:
    r"""The paragraphs of a help text; one that begins with \b has its lines as they are."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield between
        if paragraph.startswith("\b\n"):
            yield f".nf\n{_lines(paragraph[2:])}\n.fi"
        else:
            yield _lines(paragraph)


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.splitlines())


def _text(text: str) -> str:
    """Text as roff prints it: nothing of it is a request, and a hyphen can be copied into a shell."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
