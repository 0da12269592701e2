"""The commands that show what a running island is and does; they ask its REST API."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import Any

import click
from msgspec import structs

from skyisland import operations as op
from skyisland.cli import GlobalOptions
from skyisland.cli.printing import (
    as_json,
    moment,
    print_fields,
    print_json,
    print_list,
    print_table,
    say,
    size,
    span,
)
from skyisland.errors import IslandError
from skyisland.events import InvocationFinished
from skyisland.golang.catalogue import Entry
from skyisland.model import Artifact
from skyisland.operations import Operation
from skyisland.record.logs import printable
from skyisland.status import AddressState, Capability
from skyisland.wire import Jail, Snapshot

COMPLETION_S = 3.0
"""Nobody waits longer for a key to be answered."""
LEVELS = {"WARNING": "yellow", "ERROR": "red"}
"""Colours of log lines on a terminal; others have none."""


def limit(operation: Operation[Any]) -> Callable[..., Any]:
    """The option --limit, within the bounds of the operation."""
    (bound,) = (parameter for parameter in operation.query if parameter.name == "limit")
    kind = click.IntRange(0, bound.most)
    return click.option("--limit", type=kind, default=bound.default, show_default=True, help=bound.meaning)


@click.command()
@as_json
@click.pass_obj
def status(options: GlobalOptions, as_json: bool) -> None:
    """Show the island at this moment; --json shows all of it."""
    with options.client() as client:
        snapshot = client.snapshot()
    if as_json:
        print_json(snapshot)
    else:
        print_table(("", ""), _summary(snapshot), "")


def _summary(island: Snapshot) -> list[tuple[str, object]]:
    available = sum(address.state is AddressState.available for address in island.addresses)
    missing = [capability.name for capability in island.capabilities if not capability.enforced]
    binaries = size(sum(artifact.size_bytes for artifact in island.artifacts))
    return [
        ("island", f"{island.island}, version {island.version}"),
        ("up", span(island.at - island.started_at) + (", stopping" if island.draining else "")),
        ("driver", f"{island.driver}, storage {island.storage}"),
        ("calls", f"{island.running} running, {island.queued} queued"),
        ("jails", f"{len(island.jails)}, {island.pool.size} of them warm"),
        ("addresses", f"{available} of {len(island.addresses)} available"),
        ("binaries", f"{len(island.artifacts)}, {binaries}"),
        ("not enforced", ", ".join(missing) or "nothing"),
        *([("meanwhile", island.ahead)] if island.ahead else ()),
    ]


@click.command()
@as_json
@click.pass_obj
def capabilities(options: GlobalOptions, as_json: bool) -> None:
    """Show what the island's host enforces, and what it cannot."""
    with options.client(admin=False) as client:
        known = client.capabilities()
    columns = ("CAPABILITY", "ENFORCED", "HOW", "REMEDY")
    print_list(known, columns, _capability, "none is known", as_json=as_json)


def _capability(one: Capability) -> tuple[object, ...]:
    return one.name, "yes" if one.enforced else "no", one.how, one.remedy


def names_offered(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """What the package at the URL offers, for a shell that completes; nothing if that takes long."""
    options = GlobalOptions(context.find_root().params.get("file"))
    try:
        with options.client(admin=False, timeout_s=COMPLETION_S) as client:
            offered = client.functions(context.params["url"], context.params.get("version"), patient=False)
    except IslandError:
        return []
    return [entry.name for entry in offered.functions if entry.name.startswith(incomplete)]


@click.command()
@click.argument("url")
@click.argument("name", required=False, shell_complete=names_offered)
@click.option("--version", help="Branch, tag or commit; the default branch without it.")
@as_json
@click.pass_obj
def functions(options: GlobalOptions, url: str, name: str | None, version: str | None, as_json: bool) -> None:
    """List what the Go package at URL offers; with NAME, all about one: skyisland functions URL Encode"""
    with options.client(admin=False) as client:
        offered = client.functions(url, version)
    entries = [entry for entry in offered.functions if name in (None, entry.name)]
    if not entries and name is not None:
        close = " or ".join(offered.close_to(name)) or "something else"
        raise click.ClickException(f"{offered.name} has no {name}; did you mean {close}?")
    if as_json:
        print_json(structs.replace(offered, functions=entries))
    elif name is not None:
        _print_entry(url, entries[0])
    else:
        say(f"{offered.import_path} at {offered.version[:12]}\n{offered.synopsis}")
        shown = [entry for entry in entries if entry.kind != "type"]
        print_table(("FUNCTION", "ABOUT"), map(_function, shown), "nothing in it can be called")
        if offered.omitted:
            say(f"and {offered.omitted} more, for which there is no room")


def _function(entry: Entry) -> tuple[str, str]:
    about = entry.synopsis if entry.callable else f"cannot be called: {entry.why}"
    return entry.declaration.removeprefix("func "), about


def _print_entry(url: str, entry: Entry) -> None:
    """All about one name, with its examples as commands."""
    say(f"{entry.signature}\n\n{entry.doc}".rstrip())
    if entry.why:
        say(f"\n{entry.why}")
    if entry.call and not any(example.calls for example in entry.examples):
        say(f"\nskyisland invoke {shlex.quote(url)} {shlex.quote(entry.call)}")
    for example in entry.examples:
        for ready in example.calls:
            say(f"\nskyisland invoke {shlex.quote(url)} {shlex.quote(ready.call)}\n{ready.output.rstrip()}")
        if not example.calls:
            say(f"\n{example.code}\n// Output: {example.output.rstrip()}")


@click.command()
@limit(op.INVOCATIONS)
@as_json
@click.pass_obj
def requests(options: GlobalOptions, limit: int, as_json: bool) -> None:
    """List the latest calls that are over, newest first."""
    with options.client() as client:
        ends = client.invocations(limit)
    columns = ("ENDED", "REQUEST", "FUNCTION", "RESULT", "TOTAL", "BINARY", "JAIL")
    print_list(ends, columns, _request, "no call is over", as_json=as_json)


def _request(end: InvocationFinished) -> tuple[object, ...]:
    return (
        moment(end.at),
        end.invocation,
        f"{end.url} {end.call}",
        f"{end.verdict}: {end.error}" if end.error else end.verdict,
        f"{end.timings.total_s * 1000:.1f}ms",
        "cached" if end.cached else "built",
        end.jail,
    )


@click.command()
@click.option("--jail", metavar="NAME", help="Only the lines of this jail.")
@limit(op.LOGS)
@as_json
@click.pass_obj
def logs(options: GlobalOptions, jail: str | None, limit: int, as_json: bool) -> None:
    """Print the latest lines of the island's log, oldest first."""
    with options.client() as client:
        lines = client.logs(jail=jail, limit=limit)
    if as_json:
        print_json(lines)
        return
    for line in lines:
        text = f"{moment(line.at)} {line.level:<7} {line.jail or line.logger}: {line.text}"
        click.secho(printable(text), fg=LEVELS.get(line.level))


@click.command()
@as_json
@click.pass_obj
def jails(options: GlobalOptions, as_json: bool) -> None:
    """List the living jails."""
    with options.client() as client:
        alive = client.jails()
    columns = ("JID", "NAME", "STATE", "PID", "IP4", "AGE", "MEMORY", "FUNCTION")
    print_list(alive, columns, _jail, "no jail is alive", as_json=as_json)


def _jail(jail: Jail) -> tuple[object, ...]:
    return (
        jail.jid,
        jail.name,
        jail.state,
        jail.pid,
        jail.ip4,
        span(jail.age_s),
        size(jail.memory_bytes),
        f"{jail.url} {jail.call}".strip() or jail.purpose,
    )


@click.command()
@click.argument("jail")
@as_json
@click.pass_obj
def jail(options: GlobalOptions, jail: str, as_json: bool) -> None:
    """Show one JAIL, by its number or name."""
    with options.client() as client:
        details = client.jail(jail)
    print_json(details) if as_json else print_fields(details)


@click.command()
@click.option("--state", type=click.Choice([*AddressState]), help="Only addresses in this state.")
@as_json
@click.pass_obj
def ips(options: GlobalOptions, state: AddressState | None, as_json: bool) -> None:
    """List the addresses of the pool."""
    with options.client() as client:
        if as_json:
            print_json(client.addresses() if state is None else client.addresses_in(state))
            return
        pool = client.snapshot().addresses
    rows = ((one.ip, one.state, one.jail) for one in pool if state in (None, one.state))
    print_table(("ADDRESS", "STATE", "JAIL"), rows, "no address")


@click.command()
@as_json
@click.pass_obj
def stats(options: GlobalOptions, as_json: bool) -> None:
    """Show the HTTP traffic since the island started."""
    with options.client() as client:
        traffic = client.stats()
    print_json(traffic) if as_json else print_fields(traffic)


@click.command("list")
@as_json
@click.pass_obj
def cache_list(options: GlobalOptions, as_json: bool) -> None:
    """List them, latest use first."""
    with options.client() as client:
        artifacts = client.artifacts()
    artifacts.sort(key=lambda artifact: -artifact.used_at)
    columns = ("KEY", "FUNCTION", "COMMIT", "SIZE", "BUILD", "HITS", "USED")
    print_list(artifacts, columns, _artifact, "nothing is cached", as_json=as_json)


def _artifact(artifact: Artifact) -> tuple[object, ...]:
    return (
        artifact.key[:12],
        f"{artifact.url} {artifact.expression or artifact.function}",
        artifact.commit[:12],
        size(artifact.size_bytes),
        f"{artifact.build_s:.2f}s",
        artifact.hits,
        f"{span(time.time() - artifact.used_at)} ago",
    )


COMMANDS: tuple[click.Command, ...] = (
    functions,
    status,
    capabilities,
    requests,
    logs,
    jails,
    jail,
    ips,
    stats,
)
