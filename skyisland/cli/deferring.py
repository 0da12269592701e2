"""The commands of calls that answer later: list them, see one, cancel, run again, forget."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from skyisland.cli import EXIT_FUNCTION, GlobalOptions, Listing
from skyisland.cli.completing import calls_kept
from skyisland.cli.printing import as_json, moment, print_fields, print_json, print_list, say
from skyisland.client import Client
from skyisland.later.calls import CallState, Record
from skyisland.model import Verdict
from skyisland.wire import Answer

COLUMNS = ("CALL", "STATE", "ATTEMPTS", "ACCEPTED", "CLIENT", "FUNCTION", "MESSAGE")
FINAL = [state for state in CallState if state.final]


def _row(record: Record) -> tuple[object, ...]:
    return (
        record.id,
        record.state,
        len(record.attempts),
        moment(record.created_at),
        record.client,
        record.name or f"{record.url} {record.call}",
        record.message,
    )


@click.group(cls=Listing, invoke_without_command=True)
@click.option("--state", type=click.Choice([*CallState]), help="Only those.")
@click.option("--name", help="Only those of this named function.")
@click.option("--since", type=click.IntRange(0), default=0, help="Only since then, in seconds of the epoch.")
@click.option("--limit", type=click.IntRange(0, 1000), default=100, show_default=True, help="How many.")
@as_json
@click.pass_context
def calls(ctx: click.Context, /, as_json: bool, **wanted: Any) -> None:
    """List, show, cancel or run again the calls that answer later.

    Without a command, lists them, newest first.
    """
    if ctx.invoked_subcommand is None:
        with ctx.obj.client(admin=False) as client:
            found = client.calls(**wanted)
        print_list(found, COLUMNS, _row, "no call is kept", as_json=as_json, texts=COLUMNS[-2:])


@click.command()
@click.argument("call", shell_complete=calls_kept)
@click.option("--wait", "wait_s", type=click.IntRange(0), default=0, help="Seconds to wait for its end.")
@as_json
@click.pass_obj
def show(options: GlobalOptions, call: str, wait_s: int, as_json: bool) -> None:
    """Show a call: its state, attempts and result.

    Exit code 4 if it is over and did not end well.
    """
    with options.client(admin=False) as client:
        record = client.kept(call, wait_s=wait_s)
    _print(record, as_json)
    sys.exit(EXIT_FUNCTION if record.state.final and record.verdict != Verdict.ok else 0)


def _print(record: Record, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    print_fields(msgspec.structs.replace(record, result=msgspec.UNSET))
    if not isinstance(record.result, msgspec.UnsetType):
        answer = msgspec.json.decode(record.result, type=Answer)
        say(answer.output.decode(errors="replace"))


def _one(name: str, done: str, change: Callable[[Client, str], Record], help: str) -> click.Command:  # noqa: A002
    @click.command(name, help=help)
    @click.argument("call", shell_complete=calls_kept)
    @as_json
    @click.pass_obj
    def command(options: GlobalOptions, call: str, as_json: bool) -> None:
        with options.client(admin=False) as client:
            record = change(client, call)
        if as_json:
            print_json(record)
        else:
            say(f"{record.id} {done}: {record.state}")

    return command


cancel = _one("cancel", "cancelled", Client.cancel, "Cancel a call that is not over; its jail is killed.")
redrive = _one(
    "redrive", "runs again", Client.redrive, "Run a dead or cancelled call again, or send its callback again."
)


@click.command()
@click.argument("call", required=False, shell_complete=calls_kept)
@click.option("--state", type=click.Choice(FINAL), help="Only those.")
@as_json
@click.pass_obj
def forget(options: GlobalOptions, call: str | None, state: str | None, as_json: bool) -> None:
    """Forget the calls that are over, with their results; with CALL, that one."""
    if call is not None and state is not None:
        raise click.UsageError("CALL is one; --state goes without it")
    with options.client(admin=False) as client:
        gone = client.forget_calls(call=call, state=CallState(state) if state else None)
    if as_json:
        print_json({"forgotten": gone})
    else:
        say(f"forgotten: {call}" if call is not None else f"forgotten: {len(gone)} calls")


@click.command()
@as_json
@click.pass_obj
def secret(options: GlobalOptions, as_json: bool) -> None:
    """Print the secret that callbacks are verified with."""
    with options.client(admin=False) as client:
        found = client.callback_secret()
    print_json({"secret": found}) if as_json else say(found)


for command in (show, cancel, redrive, forget, secret):
    calls.add_command(command)

COMMANDS: tuple[click.Command, ...] = (calls,)
