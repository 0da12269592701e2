"""The commands of functions with a name: define, call, move, roll back, pause, see; and of their secrets."""

from __future__ import annotations

import sys
import time
from typing import BinaryIO

import click
import msgspec

from skyisland.cli import EXIT_FUNCTION, GlobalOptions, Listing, completing
from skyisland.cli.calling import (
    answering_later,
    check_later,
    data_of,
    input_of,
    piped,
    print_accepted,
    print_output,
)
from skyisland.cli.defining import COMMIT_CHARACTERS, define, name_argument, say_where
from skyisland.cli.printing import PAIRS, as_json, moment, print_json, print_list, print_table, say, span
from skyisland.model import NamedCall, Verdict
from skyisland.named.definition import Definition, Revision, checked_name
from skyisland.named.functions import Named
from skyisland.named.schedule import local

PAST = ("REVISION", "AT", "BY", "WHY", "VERSION", "COMMIT")


@click.group(cls=Listing, invoke_without_command=True)
@as_json
@click.pass_context
def names(ctx: click.Context, as_json: bool) -> None:
    """Functions with a name: list them, or what else the commands below do."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, as_json=as_json)


names.add_command(define)


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
        ("push", f"{definition.push.scheme} ({definition.push.secret})" if definition.push else ""),
        ("pushed", _pushed(named)),
        *_scheduled(named),
        ("trouble", named.trouble),
    ]
    return [(fact, value) for fact, value in facts if value not in ("", None)]


def _pushed(named: Named) -> str:
    if (pushed := named.pushed) is None:
        return ""
    return f"{moment(pushed.at)} {pushed.ref}: {pushed.state}{f', {pushed.why}' if pushed.why else ''}"


def _scheduled(named: Named) -> list[tuple[str, object]]:
    schedule, scheduled = named.definition.schedule, named.scheduled
    if schedule is None or scheduled is None:
        return []
    passed = [
        f"{number} {what}"
        for number, what in (
            (scheduled.calls, "called"), (scheduled.missed, "missed"), (scheduled.skipped, "skipped"),
        )
        if number
    ]  # fmt: skip
    return [
        ("schedule", _schedule(named)),
        ("next", ", ".join(local(at, schedule.zone) for at in scheduled.next[:2])),
        ("last", f"{local(scheduled.last, schedule.zone)}, {scheduled.call}" if scheduled.last else ""),
        ("so far", ", ".join(passed)),
        ("waits", scheduled.trouble),
    ]


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
@click.argument("arg", nargs=-1)
@click.option("--args", help="Arguments as JSON: an array, or an object by the parameters' names.")
@click.option("--inputs", type=click.File("rb"), help="Arguments of many calls, a line each; - to read them.")
@click.option("--stdin", type=click.File("rb"), help="What the function reads; without it, what is piped in.")
@click.option("--raw", is_flag=True, help="Write the output as it is to a terminal, too.")
@answering_later
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
    later: bool,
    key: str,
    callback: str,
    as_json: bool,
) -> None:
    """Call NAME with arguments, each JSON or else a text: skyisland names call encode 100.1 80.9

    Exit code 4 if it did not end well, or returned an error.
    """
    check_later(later, key, callback)
    given = data_of(args, arg, inputs, texts=False)
    if data := stdin.read() if stdin else piped():
        given |= input_of(data)
    with options.client(admin=False) as client:
        if later:
            print_accepted(client.call_later(name, NamedCall(**given), key=key, callback=callback), as_json)
            return
        called = client.call(name, NamedCall(**given))
    if as_json:
        print_json({"verdict": called.verdict, **msgspec.to_builtins(called.answer)})
    else:
        print_output(called, raw)
    sys.exit(0 if called.verdict is Verdict.ok else EXIT_FUNCTION)


@names.command()
@name_argument
@click.argument("version", required=False)
@click.option("--follow", is_flag=True, help="Follow its branch from now on, though it was pinned.")
@as_json
@click.pass_obj
def move(options: GlobalOptions, name: str, version: str | None, follow: bool, as_json: bool) -> None:
    """Move NAME to VERSION, or to where its branch is now, once that is built.

    Without VERSION, a name that is pinned, or was rolled back, stays pinned there; with --follow it does not.
    """
    with options.client() as client:
        say_where(client.move(name, version, follow=follow), as_json)


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
        say_where(client.roll_back(name, revision), as_json)


@names.command()
@name_argument
@as_json
@click.pass_obj
def pause(options: GlobalOptions, name: str, as_json: bool) -> None:
    """Refuse calls of NAME."""
    with options.client() as client:
        say_where(client.pause(name), as_json)


@names.command()
@name_argument
@as_json
@click.pass_obj
def resume(options: GlobalOptions, name: str, as_json: bool) -> None:
    """Take calls of NAME again."""
    with options.client() as client:
        say_where(client.resume(name), as_json)


@names.command("next")
@click.argument("name", required=False, shell_complete=completing.names)
@as_json
@click.pass_obj
def next_times(options: GlobalOptions, name: str | None, as_json: bool) -> None:
    """List when names are called by themselves next; with NAME, when that is, several times."""
    with options.client() as client:
        named = [client.named(checked_name(name))] if name else client.names()
    times = [(at, one) for one in named if one.scheduled for at in one.scheduled.next[: 5 if name else 1]]
    times.sort(key=lambda pair: pair[0])
    if as_json:
        print_json([{"name": one.name, "at": at} for at, one in times])
        return
    now = time.time()
    rows = [(one.name, local(at, _zone(one)), span(max(0.0, at - now)), _schedule(one)) for at, one in times]
    empty = f"{name} has no schedule, or is paused" if name else "no name is called by itself"
    print_table(("NAME", "NEXT", "IN", "SCHEDULE"), rows, empty)


def _zone(named: Named) -> str:
    return named.definition.schedule.zone if named.definition.schedule is not None else ""


def _schedule(named: Named) -> str:
    schedule = named.definition.schedule
    return f"{schedule.cron} {schedule.zone}" if schedule is not None else ""


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
