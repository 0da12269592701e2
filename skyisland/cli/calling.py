"""The commands of callers: run a call, and see what a package offers."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO

import click
import msgspec
from msgspec import Raw, structs

from skyisland.cli import EXIT_FUNCTION, GlobalOptions
from skyisland.cli.completing import names_offered, packages
from skyisland.cli.printing import as_json, print_json, print_table, say
from skyisland.cli.publishing import found, is_folder
from skyisland.codec import encode
from skyisland.golang.catalogue import Entry
from skyisland.later.calls import Record
from skyisland.model import FunctionRequest, Phase, Verdict
from skyisland.receipts.receipt import file_of
from skyisland.record.lines import printable
from skyisland.wire import Called, InputAnswer

QUIET_S = 2.0
"""When nothing came on a pipe for so long, we say what we wait for."""


def answering_later(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a call that may answer later."""
    for option in (
        click.option("--callback", default="", help="With --async: the URL that gets its record."),
        click.option("--key", default="", help="With --async: an Idempotency-Key, which runs it once."),
        click.option("--async", "later", is_flag=True, help="Have it kept and run later; prints its id."),
    ):
        command = option(command)
    return command


def check_later(later: bool, key: str, callback: str) -> None:
    """Refuse options that nothing would come of."""
    if (key or callback) and not later:
        raise click.UsageError("--key and --callback go with --async")


def print_accepted(record: Record, as_json: bool) -> None:
    """What was kept: its id, for `skyisland calls show`."""
    print_json(record) if as_json else click.echo(record.id)


@click.command()
@click.argument("url", shell_complete=packages)
@click.argument("call", default="main", shell_complete=names_offered)
@click.option(
    "--args", metavar="JSON", help="Arguments as JSON: an array, or an object by the parameters' names."
)
@click.option(
    "--arg", metavar="VALUE", multiple=True, help="One argument, JSON or else a text; may be repeated."
)
@click.option(
    "--inputs",
    metavar="FILE",
    type=click.File("rb"),
    help="Arguments of many calls, a line each; - to read them.",
)
@click.option(
    "--type",
    "types",
    metavar="TYPE",
    multiple=True,
    help="A type argument of a generic function; may be repeated.",
)
@click.option("--version", metavar="VERSION", help="Branch, tag or commit; the default branch without it.")
@click.option("--ip4", is_flag=True, help="Lease an address for the jail.")
@click.option("--cache-bust", is_flag=True, help="Fetch and build again.")
@click.option("--cold", is_flag=True, help="Make a new jail, whatever is warm.")
@click.option(
    "--stdin",
    metavar="FILE",
    type=click.File("rb"),
    help="What the function reads; without it, what is piped in.",
)
@click.option("--raw", is_flag=True, help="Write the output as it is to a terminal, too.")
@answering_later
@click.option("--receipt", type=click.File("wb", lazy=True), help="Write its signed receipt to this file.")
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
    later: bool,
    key: str,
    callback: str,
    receipt: IO[bytes] | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Run a call of a Go package.

    \b
    skyisland invoke github.com/user/repo 'Encode(100.1, 80.9)'
    skyisland invoke github.com/user/repo Encode --args '[100.1, 80.9]'
    skyisland invoke github.com/user/program --arg -v < input

    URL may be a folder of this machine: ./mine. With arguments as data, CALL is a function's bare name.
    Without CALL, the program at URL is run. The function reads what is piped into the command.

    Prints what the function printed and returned; on a terminal, escapes in place of its control characters.
    Exit code 4 if it did not end well, or returned an error.
    """
    check_later(later, key, callback)
    if receipt and (later or inputs):
        raise click.UsageError("--receipt goes with one call that is waited for")
    if later and is_folder(fields["url"]):
        raise click.UsageError("a folder is published while the command runs; --async takes a repository")
    fields |= data_of(args, arg, inputs, texts=fields["call"] == "main")
    if data := stdin.read() if stdin else piped():  # of which `--inputs -` left nothing
        fields |= input_of(data)
    url, version = fields.pop("url"), fields.pop("version")
    with options.client(admin=False) as client, found(options, url, version) as (url, version):
        request = FunctionRequest(url=url, version=version, **fields)
        if later:
            print_accepted(client.invoke_later(request, key=key, callback=callback), as_json)
            return
        if inputs is not None:
            sys.exit(_print_lines(client.invoke_many(request)))
        called = client.invoke(request, receipt=receipt is not None)
        if receipt is not None:
            receipt.write(file_of(client.receipt(called.answer.id)))
    if as_json:
        print_json({"verdict": called.verdict, **msgspec.to_builtins(called.answer)})
    else:
        print_output(called, raw)
    sys.exit(0 if called.verdict is Verdict.ok else EXIT_FUNCTION)


def piped() -> bytes:
    """What is piped into the command or redirected from a file; nothing from a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:  # standard input is not one of the system's files
        return sys.stdin.buffer.read()
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return b""
    if not select.select([sys.stdin], [], [], QUIET_S)[0]:
        say("skyisland: reading standard input to its end; if the function reads none: </dev/null", err=True)
    return sys.stdin.buffer.read()


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


def data_of(
    args: str | None, arg: tuple[str, ...], inputs: BinaryIO | None, *, texts: bool
) -> dict[str, Any]:
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


def input_of(data: bytes) -> dict[str, Any]:
    """The field of a request for what the function reads: of bytes that are no text, the other one."""
    try:
        return {"stdin": data.decode()}
    except UnicodeDecodeError:
        return {"stdin_base64": data}


def print_output(called: Called, raw: bool) -> None:
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
@click.argument("url", shell_complete=packages)
@click.argument("name", required=False, shell_complete=names_offered)
@click.option("--version", metavar="VERSION", help="Branch, tag or commit; the default branch without it.")
@as_json
@click.pass_obj
def functions(options: GlobalOptions, url: str, name: str | None, version: str | None, as_json: bool) -> None:
    """List what a Go package offers.

    With NAME, all about that one: skyisland functions URL Encode
    """
    with options.client(admin=False) as client, found(options, url, version) as place:
        offered = client.functions(*place)
    entries = [entry for entry in offered.functions if name in (None, entry.name)]
    if not entries and name is not None:
        close = " or ".join(offered.close_to(name)) or "something else"
        raise click.ClickException(f"{offered.name} has no {name}; did you mean {close}?")
    if as_json:
        print_json(structs.replace(offered, functions=entries))
    elif name is not None:
        _print_entry(options, url, entries[0])
    else:
        say(f"{offered.import_path} at {offered.version[:12]}\n{offered.synopsis}")
        shown = [entry for entry in entries if entry.kind != "type"]
        print_table(
            ("FUNCTION", "ABOUT"),
            map(_function, shown),
            "nothing in it can be called",
            texts=("FUNCTION", "ABOUT"),
        )
        if offered.omitted:
            say(f"and {offered.omitted} more, for which there is no room")


def _function(entry: Entry) -> tuple[str, str]:
    about = entry.synopsis if entry.callable else f"cannot be called: {entry.why}"
    return entry.declaration.removeprefix("func "), about


def _print_entry(options: GlobalOptions, url: str, entry: Entry) -> None:
    """All about one name, with its examples as commands."""
    say(f"{entry.signature}\n\n{entry.doc}".rstrip())
    if entry.why:
        say(f"\n{entry.why}")
    if entry.call and not any(example.calls for example in entry.examples):
        say(f"\n{options.line('invoke', url, entry.call)}")
    for example in entry.examples:
        for ready in example.calls:
            say(f"\n{options.line('invoke', url, ready.call)}\n{ready.output.rstrip()}")
        if not example.calls:
            say(f"\n{example.code}\n// Output: {example.output.rstrip()}")


COMMANDS: tuple[click.Command, ...] = (invoke, functions)
