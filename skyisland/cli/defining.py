"""`names define`: from options, or a file, to what a name shall stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, BinaryIO

import click
import msgspec

from skyisland.cli import GlobalOptions, completing
from skyisland.cli.printing import as_json, print_json, say
from skyisland.named.definition import Definition, checked_name
from skyisland.named.functions import Named
from skyisland.named.schedule import Missed, Overlap
from skyisland.named.webhooks import PUSHERS, Scheme

COMMIT_CHARACTERS = 12


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return value if ctx.resilient_parsing else checked_name(value)


name_argument = click.argument("name", callback=_name, shell_complete=completing.names)
"""Refused here if it can be none: the island would be asked for another path."""


@click.command()
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
@click.option(
    "--push", metavar="SCHEME=SECRET", help=f"Who tells of pushes, and signs: {', '.join(PUSHERS)}."
)
@click.option("--schedule", "cron", metavar="CRON", help='Call it by itself: "0 8 * * MON-FRI".')
@click.option("--zone", metavar="ZONE", help="Of the schedule: Europe/Berlin. UTC without it.")
@click.option("--missed", type=click.Choice([*Missed]), help="Times at which the island did not run.")
@click.option("--overlap", type=click.Choice([*Overlap]), help="Times at which the call before is not over.")
@click.option("--schedule-args", metavar="JSON", help="The arguments of such calls.")
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
    push: str | None,
    cron: str | None,
    zone: str | None,
    missed: str | None,
    overlap: str | None,
    schedule_args: str | None,
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
                "webhook": _signed(webhook, "--webhook", Scheme) if webhook else None,
                "push": _signed(push, "--push", PUSHERS) if push else None,
                "schedule": _schedule(cron, zone=zone, missed=missed, overlap=overlap, args=schedule_args),
                "limits": limits or None,
                "warm": {"min": warm},
            }
        )
    with options.client() as client:
        say_where(client.define(name, definition, revision), as_json)


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


def _signed(text: str, option: str, schemes: Iterable[Scheme]) -> dict[str, str]:
    scheme, secret = _pair(text, option)
    if scheme not in set(schemes):
        raise click.UsageError(f"{option}: there are {', '.join(schemes)}, not {scheme}")
    return {"scheme": scheme, "secret": secret}


def _schedule(cron: str | None, *, args: str | None, **given: str | None) -> dict[str, Any] | None:
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if args is not None:
        try:
            fields["args"] = msgspec.json.decode(args)
        except msgspec.DecodeError as error:
            raise click.UsageError(f"--schedule-args: {error}") from None
    if cron is None and fields:
        raise click.UsageError("--schedule is missing: the others say how it is kept")
    return {"cron": cron, **fields} if cron is not None else None


def say_where(named: Named, as_json: bool) -> None:
    if as_json:
        print_json(named)
        return
    state = ", paused" if named.paused else ""
    state += ", pinned there" if named.definition.pin else ""
    commit = named.commit[:COMMIT_CHARACTERS]
    say(f"{named.name} is at {commit}, revision {named.revision} ({named.why}){state}")
