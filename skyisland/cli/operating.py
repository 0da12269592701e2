"""The commands that act on a running island through its REST API: call, kill, set, evict, and the console.

Address and admin token come from the same settings as the island's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click
import msgspec
from msgspec import Raw

from skyisland.cli import EXIT_FUNCTION, GlobalOptions, console_options
from skyisland.cli.printing import as_json, print_json, say
from skyisland.cli.watching import cache_list
from skyisland.client import Client
from skyisland.codec import encode
from skyisland.model import FunctionRequest, Phase, Verdict
from skyisland.record.logs import printable
from skyisland.settings import admin_token
from skyisland.status import AddressState
from skyisland.wire import Called, InputAnswer


@click.command()
@click.argument("url")
@click.argument("call", default="main")
@click.option("--args", help="Arguments as JSON: an array, or an object by the parameters' names.")
@click.option("--arg", multiple=True, help="One argument, JSON or else a text; may be repeated.")
@click.option("--inputs", type=click.File("rb"), help="Arguments of many calls, a line each; - to read them.")
@click.option(
    "--type", "types", multiple=True, help="A type argument of a generic function; may be repeated."
)
@click.option("--version", help="Branch, tag or commit; the default branch without it.")
@click.option("--ip4", is_flag=True, help="Lease an address for the jail.")
@click.option("--cache-bust", is_flag=True, help="Fetch and build again.")
@click.option("--cold", is_flag=True, help="Make a new jail, whatever is warm.")
@click.option("--stdin", type=click.File("rb"), help="What the function reads; - for standard input.")
@click.option("--raw", is_flag=True, help="Write the output as it is to a terminal, too.")
@as_json
@click.pass_obj
def invoke(
    options: GlobalOptions,
    /,
    args: str | None,
    arg: tuple[str, ...],
    inputs: BinaryIO | None,
    stdin: BinaryIO | None,
    raw: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Run CALL of the Go package at URL: skyisland invoke github.com/user/repo 'Encode(100.1, 80.9)'

    With arguments as data, CALL is a function's bare name: skyisland invoke URL Encode --args '[100.1, 80.9]'
    Without CALL the program at URL is run.

    Prints what the function printed and returned; on a terminal, escapes in place of its control characters.
    Exit code 4 if it did not end well, or returned an error.
    """
    fields |= _data(args, arg, inputs, texts=fields["call"] == "main") | (
        _input(stdin.read()) if stdin else {}
    )
    request = FunctionRequest(**fields)
    with options.client(admin=False) as client:
        if inputs is not None:
            sys.exit(_print_lines(client.invoke_many(request)))
        called = client.invoke(request)
    if as_json:
        print_json({"verdict": called.verdict, **msgspec.to_builtins(called.answer)})
    else:
        _print_output(called, raw)
    sys.exit(0 if called.verdict is Verdict.ok else EXIT_FUNCTION)


def _print_lines(lines: Iterator[InputAnswer | Called]) -> int:
    """Print the answers of many inputs as they come, in JSON, a line each; returns the exit code."""
    code = 0
    for line in lines:
        if isinstance(line, InputAnswer):
            sys.stdout.buffer.write(encode(line) + b"\n")
            sys.stdout.buffer.flush()
            code = EXIT_FUNCTION if line.failed else code
        elif line.verdict is not Verdict.ok:
            say(f"skyisland: {line.message}", fg="red", err=True)
            code = EXIT_FUNCTION
    return code


def _data(args: str | None, arg: tuple[str, ...], inputs: BinaryIO | None, *, texts: bool) -> dict[str, Any]:
    """The field of a request for arguments that are data. `texts`: each `arg` is one, whatever is in it."""
    if (args is not None) + bool(arg) + (inputs is not None) > 1:
        raise click.UsageError("--args, --arg and --inputs exclude each other")
    if inputs is not None:
        lines = [line for line in inputs.read().splitlines() if line.strip()]
        checked = [_checked(line, f"--inputs: line {number}") for number, line in enumerate(lines, 1)]
        return {"inputs": Raw(b"[%b]" % b",".join(map(bytes, checked)))}
    if args is not None:
        return {"args": _checked(args.encode(), "--args")}
    if arg:
        return {"args": Raw(b"[%b]" % b",".join(map(encode if texts else _one, arg)))}
    return {}


def _checked(json: bytes, what: str) -> Raw:
    try:
        return msgspec.json.decode(json, type=Raw)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"{what} is not JSON: {error}") from None


def _one(text: str) -> bytes:
    """An argument as JSON: what is no JSON is a text."""
    try:
        return bytes(msgspec.json.decode(text, type=Raw))
    except msgspec.DecodeError:
        return msgspec.json.encode(text)


def _input(data: bytes) -> dict[str, Any]:
    """The field of a request for what the function reads: of bytes that are no text, the other one."""
    try:
        return {"stdin": data.decode()}
    except UnicodeDecodeError:
        return {"stdin_base64": data}


def _print_output(called: Called, raw: bool) -> None:
    """The function's output where it belongs; on a terminal, how long each phase took.

    `raw`: without escapes for what a terminal could take for an order. Files and pipes get every byte anyhow.
    """
    answer = called.answer
    if raw or not sys.stdout.isatty():
        sys.stdout.buffer.write(answer.output)
        sys.stdout.buffer.flush()
    else:
        say(answer.output.decode(errors="replace"), nl=False)
    if not sys.stderr.isatty():
        sys.stderr.write(answer.stderr)  # `click.echo` takes colours out of what goes to a file
        before = answer.stderr.encode() or (answer.output if _in_one_place() else b"")
        if called.message and before and not before.endswith(b"\n"):
            click.echo(err=True)
    else:
        if answer.output and not answer.output.endswith(b"\n"):
            click.echo(err=True)
        for line in answer.stderr.splitlines():
            click.secho(line if raw else printable(line), fg="yellow", err=True)
        spent = answer.timings_ms
        phases = "  ".join(f"{phase} {spent[phase]:.1f}" for phase in (*Phase, "total") if spent.get(phase))
        say(f"{answer.jail}  ms: {phases}", dim=True, err=True)
    if called.message:
        say(f"skyisland: {called.message}", fg="red", err=True)


def _in_one_place() -> bool:
    """Whether standard output and standard error are one file: `2>&1`."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except OSError:  # they are no files
        return False


@click.command()
@click.argument("jail", required=False)
@click.option("--all", "everyone", is_flag=True, help="All jails of the island.")
@as_json
@click.pass_obj
def kill(options: GlobalOptions, jail: str | None, everyone: bool, as_json: bool) -> None:
    """Kill a JAIL by its number or name, or --all; the caller is told."""
    if (jail is None) is not everyone:
        raise click.UsageError("name one jail, or use --all")
    with options.client() as client:
        killed = client.kill_all() if jail is None else [client.kill(jail)]
    if as_json:
        print_json({"deleted": killed})
    else:
        say(f"killed: {', '.join(map(str, killed)) or 'no jail was alive'}")


@click.command()
@click.argument("address")
@click.argument("state", type=click.Choice([*AddressState]))
@click.pass_obj
def ip(options: GlobalOptions, address: str, state: AddressState) -> None:
    """Take ADDRESS out of the pool (unavailable), or give it back (available)."""
    with options.client() as client:
        client.set_address(address, AddressState(state))
    say(f"{address} is {state}")


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """The binaries that are kept: list (the default), evict, rebuild, purge."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(cache_list, as_json=as_json)


def _whole_key(client: Client, key: str) -> str:
    """The key of the one binary whose key begins so; else `key` itself, which the island will refuse."""
    keys = [artifact.key for artifact in client.artifacts() if artifact.key.startswith(key)]
    if len(keys) > 1:
        raise click.ClickException(f"{len(keys)} keys begin with {key}; name more of it")
    return keys[0] if keys else key


@click.command()
@click.argument("key")
@click.pass_obj
def evict(options: GlobalOptions, key: str) -> None:
    """Delete the binary with this KEY, or the one whose key begins with it."""
    with options.client() as client:
        say(f"evicted {client.evict(_whole_key(client, key))}")


@click.command()
@click.argument("key")
@click.pass_obj
def rebuild(options: GlobalOptions, key: str) -> None:
    """Build the binary with this KEY, or the beginning of it, anew.

    Fetches its repository and compiles the same commit.
    """
    with options.client() as client:
        say(f"rebuilt {client.rebuild(_whole_key(client, key))}")


@click.command()
@click.pass_obj
def purge(options: GlobalOptions) -> None:
    """Delete all that no call is using."""
    with options.client() as client:
        click.echo(f"evicted {len(client.purge())}")


for command in (cache_list, evict, rebuild, purge):
    cache.add_command(command)


@click.command()
@console_options
@click.pass_obj
def console(options: GlobalOptions, /, **look: Any) -> None:
    """Watch and steer a running island: ssh -t host skyisland console"""
    from tui import check_installed, run_console

    check_installed()
    from tui.watch.remote import RemotePort

    settings = options.settings()
    token = admin_token(settings, make=False)
    sys.exit(run_console(RemotePort(settings.url, token=token, header=settings.admin_token_header), **look))


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3281, show_default=True)
@click.option("--readonly", is_flag=True, help="Watch only: no key changes anything.")
@click.pass_obj
def web(options: GlobalOptions, port: int, readonly: bool) -> None:
    """The console in a browser, on loopback: ssh -L 3281:localhost:3281 host skyisland web"""
    from tui import check_installed

    check_installed("textual", "textual_serve")
    from tui.web import serve_web

    command = [sys.argv[0], *(["-c", str(options.file)] if options.file else []), "console"]
    serve_web([*command, "--readonly"] if readonly else command, port=port)


COMMANDS: tuple[click.Command, ...] = (console, web, invoke, kill, ip, cache, rebuild)
