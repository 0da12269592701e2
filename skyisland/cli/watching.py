"""The commands that show what a running island is and does; they ask its REST API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from skyisland import operations as op
from skyisland.cli import Chosen
from skyisland.cli.printing import as_json, moment, print_fields, print_json, print_table, size, span
from skyisland.events import InvocationFinished
from skyisland.model import AddressState
from skyisland.operations import Operation
from skyisland.wire import Snapshot

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
def status(chosen: Chosen, as_json: bool) -> None:
    """Show the island at this moment; with --json everything that it knows of itself."""
    with chosen.client() as client:
        found = client.snapshot()
    if as_json:
        print_json(found)
    else:
        print_table(("", ""), _summary(found), "")


def _summary(found: Snapshot) -> list[tuple[str, object]]:
    free = sum(address.state is AddressState.available for address in found.addresses)
    limits = [capability.name for capability in found.capabilities if not capability.enforced]
    pool = found.pool
    return [
        ("island", f"{found.island}, version {found.version}"),
        ("up", span(found.at - found.started_at) + (", stopping" if found.draining else "")),
        ("driver", f"{found.driver}, storage {found.storage}"),
        ("calls", f"{found.running} running, {found.queued} queued"),
        ("jails", f"{len(found.jails)}, {pool.size} of them warm"),
        ("addresses", f"{free} of {len(found.addresses)} available"),
        ("binaries", f"{len(found.artifacts)}, {size(sum(one.size_bytes for one in found.artifacts))}"),
        ("not enforced", ", ".join(limits) or "nothing"),
    ]


@click.command()
@as_json
@click.pass_obj
def capabilities(chosen: Chosen, as_json: bool) -> None:
    """Show what the island's host enforces, and what it cannot."""
    with chosen.client(admin=False) as client:
        found = client.capabilities()
    if as_json:
        print_json(found)
        return
    print_table(
        ("CAPABILITY", "ENFORCED", "HOW"),
        (
            (
                one.name,
                "yes" if one.enforced else "no",
                f"{one.how}\n→ {one.remedy}" if one.remedy else one.how,
            )
            for one in found
        ),
        "the island tells of nothing",
    )


@click.command()
@limit(op.INVOCATIONS)
@as_json
@click.pass_obj
def requests(chosen: Chosen, limit: int, as_json: bool) -> None:
    """List the latest calls that are over, newest first."""
    with chosen.client() as client:
        found = client.invocations(limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("ENDED", "REQUEST", "FUNCTION", "RESULT", "TOTAL", "BINARY", "JAIL"),
        (
            (
                moment(end.at),
                end.invocation,
                f"{end.url} {end.call}",
                _result(end),
                f"{end.timings.total_s * 1000:.1f}ms",
                "cached" if end.cached else "built",
                end.jail,
            )
            for end in found
        ),
        "no call is over",
    )


def _result(end: InvocationFinished) -> str:
    return f"{end.verdict}: {end.error}" if end.error else end.verdict


@click.command()
@click.option("--jail", metavar="NAME", help="Only the lines of this jail.")
@limit(op.LOGS)
@as_json
@click.pass_obj
def logs(chosen: Chosen, jail: str | None, limit: int, as_json: bool) -> None:
    """Print the latest lines of the island's log, oldest first."""
    with chosen.client() as client:
        lines = client.logs(jail=jail, limit=limit)
    if as_json:
        print_json(lines)
        return
    for line in lines:
        text = f"{moment(line.at)} {line.level:<7} {line.jail or line.logger}: {line.text}"
        click.secho(text, fg=LEVELS.get(line.level))


@click.command()
@as_json
@click.pass_obj
def jails(chosen: Chosen, as_json: bool) -> None:
    """List the living jails."""
    with chosen.client() as client:
        found = client.jails()
    if as_json:
        print_json(found)
        return
    print_table(
        ("JID", "NAME", "STATE", "PID", "IP4", "AGE", "MEMORY", "FUNCTION"),
        (
            (
                jail.jid,
                jail.name,
                jail.state,
                jail.pid,
                jail.ip4,
                f"{jail.age_s:.0f}s",
                size(jail.memory_bytes),
                f"{jail.url} {jail.call}".strip() or jail.purpose,
            )
            for jail in found
        ),
        "no jail is alive",
    )


@click.command()
@click.argument("jail")
@as_json
@click.pass_obj
def jail(chosen: Chosen, jail: str, as_json: bool) -> None:
    """Show one JAIL, by its number or name."""
    with chosen.client() as client:
        found = client.jail(jail)
    print_json(found) if as_json else print_fields(found)


@click.command()
@click.option("--state", type=click.Choice([*AddressState]), help="Only addresses in this state.")
@as_json
@click.pass_obj
def ips(chosen: Chosen, state: AddressState | None, as_json: bool) -> None:
    """List the addresses of the pool."""
    with chosen.client() as client:
        found: dict[str, str | None] | list[str]
        found = client.addresses() if state is None else client.addresses_in(state)
    if as_json:
        print_json(found)
        return
    rows: Iterable[tuple[str, str | None]]
    rows = found.items() if isinstance(found, dict) else ((ip, None) for ip in found)
    print_table(("ADDRESS", "JAIL"), rows, "no address")


@click.command()
@as_json
@click.pass_obj
def stats(chosen: Chosen, as_json: bool) -> None:
    """Show the HTTP traffic since the island started."""
    with chosen.client() as client:
        found = client.stats()
    print_json(found) if as_json else print_fields(found)


@click.command("list")
@as_json
@click.pass_obj
def cache_list(chosen: Chosen, as_json: bool) -> None:
    """List them, latest use first."""
    with chosen.client() as client:
        found = client.artifacts()
    if as_json:
        print_json(found)
        return
    now = time.time()
    print_table(
        ("KEY", "FUNCTION", "COMMIT", "SIZE", "BUILD", "HITS", "USED"),
        (
            (
                artifact.key[:12],
                f"{artifact.url} {artifact.expression or artifact.function}",
                artifact.commit[:12],
                size(artifact.size_bytes),
                f"{artifact.build_s:.2f}s",
                artifact.hits,
                f"{now - artifact.used_at:.0f}s ago",
            )
            for artifact in sorted(found, key=lambda artifact: -artifact.used_at)
        ),
        "nothing is cached",
    )


COMMANDS: tuple[click.Command, ...] = (status, capabilities, requests, logs, jails, jail, ips, stats)
