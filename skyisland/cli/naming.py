"""The commands of functions with a name: define, call, move, roll back, pause, see; and of their secrets."""

from __future__ import annotations

import re
import sys
from typing import Any, BinaryIO

import click
import msgspec

from skyisland.cli import EXIT_FUNCTION, GlobalOptions, Listing, completing
from skyisland.cli.calling import data_of, input_of, piped, print_output
from skyisland.cli.printing import PAIRS, as_json, moment, print_json, print_list, print_table, say
from skyisland.model import NamedCall, Verdict
from skyisland.named.definition import Definition, Revision, checked_name
from skyisland.named.functions import Named
from skyisland.named.webhooks import Scheme

COMMIT_CHARACTERS = 12
PAST = ("REVISION", "AT", "BY", "WHY", "VERSION", "COMMIT")


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return value if ctx.resilient_parsing else checked_name(value)


name_argument = click.argument("name", callback=_name, shell_complete=completing.names)
"""Refused here if it can be none: the island would be asked for another path."""


@click.group(cls=Listing, invoke_without_command=True)
@as_json
@click.pass_context
def names(ctx: click.Context, as_json: bool) -> None:
    """Functions with a name: list them, or what else the commands below do."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, as_json=as_json)


@names.command("list")
@as_json
@click.pass_obj
def listing(options: GlobalOptions, as_json: bool) -> None:
    """List them."""
    with options.client() as client:
        named = client.names()
    columns = ("NAME", "VERSION", "COMMIT", "REVISION", "SINCE", "FUNCTION", "STATE")
    print_list(named, columns, _row, "no function has a name", as_json=as_json, texts=columns[-2:])


def _row(named: Named) -> tuple[object, ...]:
    definition = named.definition
    return (
        named.name,
        _version(definition),
        named.commit[:COMMIT_CHARACTERS],
        named.revision,
        moment(named.at),
        f"{definition.url} {_function(definition)}",
        "paused" if named.paused else named.trouble,
    )


def _function(definition: Definition) -> str:
    return definition.handler or definition.function or "main"


def _version(definition: Definition) -> str:
    version = definition.version or "default branch"
    return f"{version}, pinned" if definition.pin else version


@names.command()
@name_argument
@as_json
@click.pass_obj
def show(options: GlobalOptions, name: str, as_json: bool) -> None:
    """Show what NAME stands for, and what it stood for before."""
    with options.client() as client:
        named, revisions = client.named(name), client.revisions(name)
    if as_json:
        print_json({**msgspec.to_builtins(named), "revisions": msgspec.to_builtins(revisions)})
        return
    print_table(PAIRS, _facts(named), "", texts=PAIRS[1:])
    print_table(PAST, map(_past, revisions), "")


def _facts(named: Named) -> list[tuple[str, object]]:
    definition = named.definition
    limits = definition.limits.given() if definition.limits is not None else {}
    facts: list[tuple[str, object]] = [
        ("name", named.name),
        ("function", f"{definition.url} {_function(definition)}"),
        ("version", _version(definition)),
        ("commit", named.commit),
        ("examples", f"{named.verified} passed" if named.verified else ""),
        ("calls", f"{named.running} under way" + (", paused" if named.paused else "")),
        ("env", ", ".join(definition.env)),
        ("secrets", ", ".join(f"{variable} ({secret})" for variable, secret in definition.secrets.items())),
        ("limits", ", ".join(f"{name} {value}" for name, value in limits.items())),
        ("timeout_s", definition.timeout_s),
        ("egress", definition.egress),
        (
            "webhook",
            f"{definition.webhook.scheme} ({definition.webhook.secret})" if definition.webhook else "",
        ),
        ("callers", ", ".join(definition.callers)),
        ("concurrency", definition.concurrency or None),
        ("warm", definition.warm.min or None),
        ("trouble", named.trouble),
    ]
    return [(fact, value) for fact, value in facts if value not in ("", None)]


def _past(revision: Revision) -> tuple[object, ...]:
    return (
        revision.revision,
        moment(revision.at),
        revision.by,
        revision.why,
        _version(revision.definition),
        revision.commit[:COMMIT_CHARACTERS],
    )


@names.command()
@name_argument
@click.argument("url", required=False, shell_complete=completing.packages)
@click.argument("function", default="main", shell_complete=completing.names_offered)
@click.option("--file", type=click.File("rb"), help="The whole definition as JSON; - to read it.")
@click.option("--handler", is_flag=True, help="FUNCTION is an HTTP handler: it answers ANY /fn/NAME.")
@click.option("--version", help="Branch, tag or commit; the default branch without it.")
@click.option("--pin", is_flag=True, help="Stay at the commit that the version means now.")
@click.option("--verify", is_flag=True, help="Only once the package's own Examples pass.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="An environment variable; may be repeated.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME[=SECRET]",
    help="A variable whose value is a secret; may be repeated.",
)
@click.option("--webhook", metavar="SCHEME=SECRET", help=f"Who signs requests: {', '.join(Scheme)}.")
@click.option("--caller", "callers", multiple=True, help="Whose token may call it; may be repeated.")
@click.option("--egress", type=click.Choice(["none", "address"]), default="none", help="Its network.")
@click.option("--timeout", "timeout_s", type=float, help="Seconds that a call may run.")
@click.option("--memory", "memory_bytes", type=int, help="Bytes of memory of a call.")
@click.option("--cpus", type=float, help="Cores of a call.")
@click.option("--concurrency", type=int, default=0, help="Calls at one time.")
@click.option("--warm", type=int, default=0, help="Jails that wait even when nobody calls.")
@click.option(
    "--revision", type=click.IntRange(0), help="The revision that the name must be at; 0 for a new name."
)
@as_json
@click.pass_obj
def define(
    options: GlobalOptions,
    /,
    name: str,
    url: str | None,
    function: str,
    file: BinaryIO | None,
    handler: bool,
    webhook: str | None,
    env: tuple[str, ...],
    secrets: tuple[str, ...],
    memory_bytes: int | None,
    cpus: float | None,
    warm: int,
    revision: int | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Have NAME stand for FUNCTION of the package at URL, once it is built.

    skyisland names define encode github.com/mmcloughlin/geohash Encode
    """
    if (file is None) is (url is None):
        raise click.UsageError("name the package's URL, or send the whole definition with --file")
    if file is not None:
        definition = _definition(file.read())
    else:
        given = {"memory_bytes": memory_bytes, "cpus": cpus}
        limits = {name: value for name, value in given.items() if value is not None}
        definition = _converted(
            {
                **fields,
                "url": url,
                "handler" if handler else "function": function,
                "env": dict(_pair(text, "--env") for text in env),
                "secrets": dict(_pair(text, "--secret", alone=True) for text in secrets),
                "webhook": _webhook(webhook) if webhook else None,
                "limits": limits or None,
                "warm": {"min": warm},
            }
        )
    with options.client() as client:
        _say_where(client.define(name, definition, revision), as_json)


def _converted(fields: dict[str, Any]) -> Definition:
    """The definition that the options make; one that is out of bounds is told by the option's own name."""
    try:
        return msgspec.convert(fields, Definition)
    except msgspec.ValidationError as error:
        ctx = click.get_current_context()
        reason, _, place = str(error).partition(" - at ")
        parts = re.findall(r"\w+", place)
        option = next((param for param in ctx.command.params if param.name in parts), None)
        wrong = reason.replace("Expected", "expected", 1)
        raise click.BadParameter(wrong, ctx=ctx, param=option, param_hint=None if option else place) from None


def _definition(content: bytes) -> Definition:
    try:
        return msgspec.json.decode(content, type=Definition)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--file: {error}") from None


def _pair(text: str, option: str, *, alone: bool = False) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and not alone:
        raise click.UsageError(f"{option}: write NAME=VALUE")
    return name, value if equals else name


def _webhook(text: str) -> dict[str, str]:
    scheme, secret = _pair(text, "--webhook")
    if scheme not in set(Scheme):
        raise click.UsageError(f"--webhook: there are {', '.join(Scheme)}, not {scheme}")
    return {"scheme": scheme, "secret": secret}


def _say_where(named: Named, as_json: bool) -> None:
    if as_json:
        print_json(named)
        return
    state = ", paused" if named.paused else ""
    commit = named.commit[:COMMIT_CHARACTERS]
    say(f"{named.name} is at {commit}, revision {named.revision} ({named.why}){state}")


@names.command()
@name_argument
@click.argument("arg", nargs=-1)
@click.option("--args", help="Arguments as JSON: an array, or an object by the parameters' names.")
@click.option("--inputs", type=click.File("rb"), help="Arguments of many calls, a line each; - to read them.")
@click.option("--stdin", type=click.File("rb"), help="What the function reads; without it, what is piped in.")
@click.option("--raw", is_flag=True, help="Write the output as it is to a terminal, too.")
@as_json
@click.pass_obj
def call(
    options: GlobalOptions,
    name: str,
    arg: tuple[str, ...],
    args: str | None,
    inputs: BinaryIO | None,
    stdin: BinaryIO | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Call NAME with arguments, each JSON or else a text: skyisland names call encode 100.1 80.9

    Exit code 4 if it did not end well, or returned an error.
    """
    given = data_of(args, arg, inputs, texts=False)
    if data := stdin.read() if stdin else piped():
        given |= input_of(data)
    with options.client(admin=False) as client:
        called = client.call(name, NamedCall(**given))
    if as_json:
        print_json({"verdict": called.verdict, **msgspec.to_builtins(called.answer)})
    else:
        print_output(called, raw)
    sys.exit(0 if called.verdict is Verdict.ok else EXIT_FUNCTION)


@names.command()
@name_argument
@click.argument("version", required=False)
@as_json
@click.pass_obj
def move(options: GlobalOptions, name: str, version: str | None, as_json: bool) -> None:
    """Move NAME to VERSION, or to where its branch is now, once that is built."""
    with options.client() as client:
        _say_where(client.move(name, version), as_json)


@names.command()
@name_argument
@click.argument("revision", type=click.IntRange(1), required=False)
@as_json
@click.pass_obj
def rollback(options: GlobalOptions, name: str, revision: int | None, as_json: bool) -> None:
    """Have NAME stand for what an earlier REVISION stood for; without it, the latest other one.

    The next call runs it. The name stays there: it follows no branch until it is moved to one.
    """
    with options.client() as client:
        _say_where(client.roll_back(name, revision), as_json)


@names.command()
@name_argument
@as_json
@click.pass_obj
def pause(options: GlobalOptions, name: str, as_json: bool) -> None:
    """Refuse calls of NAME."""
    with options.client() as client:
        _say_where(client.pause(name), as_json)


@names.command()
@name_argument
@as_json
@click.pass_obj
def resume(options: GlobalOptions, name: str, as_json: bool) -> None:
    """Take calls of NAME again."""
    with options.client() as client:
        _say_where(client.resume(name), as_json)


@names.command()
@name_argument
@as_json
@click.pass_obj
def history(options: GlobalOptions, name: str, as_json: bool) -> None:
    """List what NAME stood for, latest first."""
    with options.client() as client:
        revisions = client.revisions(name)
    print_list(revisions, PAST, _past, "", as_json=as_json)


@names.command()
@name_argument
@as_json
@click.pass_obj
def delete(options: GlobalOptions, name: str, as_json: bool) -> None:
    """Forget NAME and its history."""
    with options.client() as client:
        deleted = client.forget(name)
    print_json({"deleted": deleted}) if as_json else say(f"deleted {deleted}")


@click.group(cls=Listing, invoke_without_command=True)
@as_json
@click.pass_context
def secrets(ctx: click.Context, as_json: bool) -> None:
    """Secrets of functions with a name: list, set, delete them.

    Nothing shows a value.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(secret_names, as_json=as_json)


@secrets.command("list")
@as_json
@click.pass_obj
def secret_names(options: GlobalOptions, as_json: bool) -> None:
    """List their names."""
    with options.client() as client:
        kept = client.secrets()
    print_list(kept, ("SECRET",), lambda name: (name,), "there is no secret", as_json=as_json)


@secrets.command("set")
@click.argument("secret", shell_complete=completing.secrets)
@as_json
@click.pass_obj
def set_secret(options: GlobalOptions, secret: str, as_json: bool) -> None:
    """Keep SECRET, whose value is read from standard input, or asked for: no command line shows it.

    A line break at the end of the input is no part of it.
    """
    if sys.stdin.isatty():
        value = click.prompt(secret, hide_input=True, confirmation_prompt=True)
    else:
        value = sys.stdin.read().removesuffix("\n")
    with options.client() as client:
        kept = client.set_secret(secret, value)
    print_json({"set": kept}) if as_json else say(f"set {kept}")


@secrets.command("delete")
@click.argument("secret", shell_complete=completing.secrets)
@as_json
@click.pass_obj
def delete_secret(options: GlobalOptions, secret: str, as_json: bool) -> None:
    """Forget SECRET, which no name may have any more."""
    with options.client() as client:
        deleted = client.forget_secret(secret)
    print_json({"deleted": deleted}) if as_json else say(f"deleted {deleted}")


COMMANDS: tuple[click.Command, ...] = (names, secrets)
