"""The commands that call at other versions: sweep, bisect, replay."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, BinaryIO

import click

from skyisland import past
from skyisland.cli import EXIT_FUNCTION, GlobalOptions
from skyisland.cli.calling import data_of, input_of, piped, print_output
from skyisland.cli.completing import names_offered, packages, requests_over
from skyisland.cli.printing import as_json, print_json, print_table, say
from skyisland.cli.publishing import is_folder
from skyisland.client import Client
from skyisland.events import shortened
from skyisland.model import FunctionRequest, NamedCall, Verdict

COLUMNS = ("VERSION", "COMMIT", "RESULT", "MS", "OUTPUT")
OUTPUT_CHARACTERS = 60
"""How much of an output stands in a table; `--json` has all of it."""


def _what(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with what it calls, as `invoke` takes it."""
    for option in (
        click.option("--stdin", metavar="FILE", type=click.File("rb"), help="What the function reads."),
        click.option("--type", "types", metavar="TYPE", multiple=True, help="A type argument."),
        click.option("--arg", metavar="VALUE", multiple=True, help="One argument, JSON or else a text."),
        click.option("--args", metavar="JSON", help="Arguments as JSON: an array, or an object by names."),
        click.argument("call", default="main", shell_complete=names_offered),
        click.argument("url", metavar="URL|NAME", shell_complete=packages),
    ):
        command = option(command)
    return command


def _request(
    client: Client,
    url: str,
    call: str,
    args: str | None,
    arg: tuple[str, ...],
    types: tuple[str, ...],
    stdin: BinaryIO | None,
) -> FunctionRequest:
    """What is called, of a package or of a name: that has no slash in it."""
    if is_folder(url):
        raise click.UsageError("a folder of this machine has no releases; name its repository")
    given = data_of(args, arg, None, texts=call == "main" and "/" in url)
    if data := stdin.read() if stdin else piped():
        given |= input_of(data)
    if "/" in url:
        return FunctionRequest(url=url, call=call, types=types, **given)
    if call != "main" or types:
        raise click.UsageError(f"{url} is a name, which says itself what is called; give it --args or --arg")
    named = client.named(url)
    if named.definition.env or named.definition.secrets:
        say(
            f"skyisland: without the environment and secrets of {url}, which its admin gave to one commit",
            err=True,
        )
    return past.of_name(named, NamedCall(**given))


def _row(step: past.Step) -> tuple[object, ...]:
    return step.short, step.commit[:12], step.outcome, f"{step.took_s * 1000:.1f}", _line_of(step)


def _line_of(step: past.Step) -> str:
    """The first line of an output, and whether there are more."""
    output = step.output.strip().splitlines()
    shown = shortened(output[0], OUTPUT_CHARACTERS) if output else ""
    return f"{shown} …" if len(output) > 1 else shown


def _show(how_far: str) -> None:
    """How far a sweep is, on a terminal, in one line that the next one takes the place of."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
        say(how_far, err=True, nl=False)


@click.command()
@_what
@click.option(
    "--versions", metavar="V1..V2", default="..", help="Releases with both ends, or some: v1.0,v1.2."
)
@click.option("--diff", is_flag=True, help="Also how the output changed from one to the next.")
@as_json
@click.pass_obj
def sweep(
    options: GlobalOptions, /, url: str, call: str, versions: str, diff: bool, as_json: bool, **given: Any
) -> None:
    """Make one call at each release of its repository, oldest first.

    \b
    skyisland sweep github.com/user/repo 'Encode(1, 2)' --versions v1.0..v1.9
    skyisland sweep NAME --args '[1, 2]' --versions v1.2.. --diff

    A row is marked where outcome, output or results are not those of the row before. Exit code 4 if one did
    not end well.
    """
    steps: list[past.Step] = []
    with options.client() as client:
        request = _request(client, url, call, **given)
        known = client.versions(request.url)
        for step in past.sweep(client, request, past.chosen(versions, known.versions)):
            steps.append(step)
            _show(f"{step.short}: {step.outcome}")
    _show("")
    if as_json:
        print_json(steps)
    else:
        marked = [(*_row(step)[:1], "*" if step.changed else "", *_row(step)[1:]) for step in steps]
        print_table((COLUMNS[0], "NEW", *COLUMNS[1:]), marked, "there is no version", texts=COLUMNS[-1:])
        if diff:
            for before, now in pairwise(steps):
                for line in past.difference(before, now):
                    say(line)
    sys.exit(0 if all(step.outcome == Verdict.ok for step in steps) else EXIT_FUNCTION)


@click.command()
@_what
@click.option("--good", required=True, metavar="VERSION", help="One that answers as expected.")
@click.option("--bad", required=True, metavar="VERSION", help="A later one that does not.")
@click.option("--expect", metavar="OUTPUT", help="What a good one prints; without it, a good one ends well.")
@click.option("--commits", is_flag=True, help="Among commits, also between two releases.")
@as_json
@click.pass_obj
def bisect(
    options: GlobalOptions,
    /,
    url: str,
    call: str,
    good: str,
    bad: str,
    expect: str | None,
    commits: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the first version that does not answer as expected.

    \b
    skyisland bisect github.com/user/repo 'Add(1, 2)' --good v1.0.0 --bad v1.9.0 --expect 3

    Among the releases between two releases, else among the commits, along first parents: half of what is left
    with each call. A version that does not compile is a bad one.
    """

    def tell(step: past.Step, is_good: bool) -> None:
        if not as_json:
            word = "good" if is_good else "bad "
            say(f"{word}  {step.short}  {step.outcome}  {_line_of(step)}")

    with options.client() as client:
        request = _request(client, url, call, **given)
        versions = past.candidates(client, request.url, good, bad, commits=commits)
        found = past.bisect(client, request, versions, expect, tell)
    if as_json:
        print_json(found)
        return
    say(f"the first bad one is {found.bad.short} (commit {found.bad.commit})")
    say(f"{len(found.tried)} calls among {found.candidates} versions; {found.good.short} is good")
    for line in past.difference(found.good, found.bad):
        say(line)


@click.command()
@click.argument("call", metavar="ID", shell_complete=requests_over)
@click.option("--version", metavar="VERSION", help="At this one; without it, at the commit of then.")
@click.option("--raw", is_flag=True, help="Write the output as it is to a terminal, too.")
@as_json
@click.pass_obj
def replay(options: GlobalOptions, call: str, version: str | None, raw: bool, as_json: bool) -> None:
    """Make a call again that is over: its commit, arguments and input.

    ID is that of a call (`skyisland requests` lists them) or of one that answered later. Prints what `invoke`
    would; how then and now compare is said on standard error. Exit code 4 if it did not end well.
    """
    with options.client() as client:
        replayed = past.replay(client, call, version)
    then, now = replayed.then, replayed.now
    if as_json:
        print_json(
            {
                "verdict": now.verdict,
                "then": then,
                "same_binary": replayed.same_binary,
                "plain": replayed.plain,
                "answer": now.answer,
            }
        )
    else:
        print_output(now, raw)
        if sys.stdout.isatty() and now.answer.output and not now.answer.output.endswith(b"\n"):
            click.echo(err=True)
        was = f"then {then.verdict} at {then.commit[:12]} in {then.timings.exec_s * 1000:.1f} ms"
        took = f"now {now.verdict} at {now.answer.version[:12]} in {now.answer.timings_ms['exec']:.1f} ms"
        binary = "the binary of then" if replayed.same_binary else "another binary than then"
        say(f"skyisland: {was}; {took}, with {binary}", err=True)
        if replayed.plain:
            say(f"skyisland: as a plain call, without what {then.name} lends its calls", err=True)
    sys.exit(0 if now.verdict is Verdict.ok else EXIT_FUNCTION)


COMMANDS: tuple[click.Command, ...] = (sweep, bisect, replay)
