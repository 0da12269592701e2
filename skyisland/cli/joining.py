"""`skyisland fleet`: several machines that are one.

`init` writes what servers and nodes need, and touches nothing else; `status` asks an island of its fleet.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import click

from skyisland.cli import EXIT_FAILED, GlobalOptions, Listing
from skyisland.cli.printing import PAIRS, as_json, print_json, print_table, say, span
from skyisland.status import FleetStatus, LineState, MemberInfo

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,253}")
"""A name of DNS, or an address."""


def _names(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for name in (value,) if isinstance(value, str) else value:
        if name == "all":
            raise click.BadParameter("'all' stands for all nodes; choose another name", ctx, param)
        if not NAME.fullmatch(name):
            raise click.BadParameter(f"{name!r}: lower-case letters, digits, _ and -, 32 at most", ctx, param)
    return _once(ctx, param, value)


def _hosts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not HOST.fullmatch(host):
            raise click.BadParameter(f"{host!r}: a name of DNS, or an address", ctx, param)
    if len(value) == 2:
        raise click.BadParameter("two servers are no more than one: name one, or three", ctx, param)
    _once(ctx, param, value)
    return value


def _once(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not isinstance(value, str) and len(set(value)) < len(value):
        raise click.BadParameter("the same name twice", ctx, param)
    return value


@click.group(cls=Listing)
def fleet() -> None:
    """Write what a fleet needs, or show how it is."""


@click.command()
@click.argument("fleet_name", metavar="NAME", callback=_names)
@click.option("--node", "nodes", multiple=True, required=True, callback=_names, help="An island's name.")
@click.option(
    "--server", "servers", multiple=True, required=True, callback=_hosts, help="A host that runs nats-server."
)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Instead of ./fleet-NAME.")
@click.option("--folder", default="/etc/nats", show_default=True, help="Where a server's files will lie.")
@click.option("--store", default="/var/lib/nats", show_default=True, help="Where a server keeps its data.")
@click.option("--store-size", default="10GB", show_default=True, metavar="SIZE", help="How much of it.")
def init(
    fleet_name: str,
    nodes: tuple[str, ...],
    servers: tuple[str, ...],
    output: Path | None,
    folder: str,
    store: str,
    store_size: str,
) -> None:
    """Write what servers and nodes of a fleet need, and the commands for certificates.

    NAME is the fleet's. Name one server, or three. To add a node, name it beside the others and run it again:
    certificates that are there stay, and servers take their new files by `nats-server --signal reload`.
    """
    from skyisland.fleet.serverfiles import NODE_FOLDER, Plan, certificates_sh, nats_conf, node_toml
    from skyisland.settings import write_private

    plan = Plan(
        fleet=fleet_name, nodes=nodes, servers=servers, folder=folder, store=store, store_size=store_size
    )
    output = output or Path(f"fleet-{fleet_name}")
    files = {output / "servers" / host / "nats.conf": nats_conf(plan, host) for host in servers}
    files |= {output / "nodes" / node / "fleet.toml": node_toml(plan, node) for node in nodes}
    files[output / "certificates.sh"] = certificates_sh(plan)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, text, replace=True)
    say(f"sh {output}/certificates.sh")
    for host in servers:
        say(f"scp -r {output}/servers/{host}/. {host}:{folder}/   # there: nats-server -c {folder}/nats.conf")
    for node in nodes:
        say(f"scp -r {output}/nodes/{node}/. {node}:{NODE_FOLDER}/   # there: fleet.toml into its settings")


@click.command()
@as_json
@click.pass_obj
def status(options: GlobalOptions, as_json: bool) -> None:
    """Show the fleet, as the island of these settings sees it.

    The exit code is 1 where it has not joined.
    """
    with options.client() as client:
        seen = client.snapshot().fleet
    if as_json:
        print_json(seen)
    elif seen is not None:
        print_table(PAIRS, _summary(seen), "", texts=PAIRS[1:])
        print_table(MEMBERS, [_member(one, seen.node) for one in seen.members], "no island was heard")
    if seen is None:
        say("this island is in no fleet; skyisland fleet init --help tells how it is", err=True)
    if seen is None or seen.state is not LineState.joined:
        sys.exit(EXIT_FAILED)


def _summary(seen: FleetStatus) -> list[tuple[str, object]]:
    silent = ", ".join(one.node for one in seen.members if one.silent)
    return [
        ("fleet", f"{seen.fleet}, this node is {seen.node}"),
        ("state", f"{seen.state} for {span(time.time() - seen.since)}{f': {seen.why}' if seen.why else ''}"),
        ("server", seen.server or "none yet"),
        ("nodes", f"{len(seen.members)}{f', silent: {silent}' if silent else ''}"),
    ]


MEMBERS = ("NODE", "STATE", "FREE", "PLACES", "QUEUED", "WARM", "ADDRESSES", "CLOCK", "PLATFORM", "VERSION")


def _member(one: MemberInfo, here: str) -> tuple[object, ...]:
    vacancy = one.vacancy
    awake = "draining" if vacancy.draining else "here" if one.node == here else "up"
    return (
        one.node,
        "silent" if one.silent else awake,
        vacancy.free,
        vacancy.places,
        vacancy.queued,
        vacancy.warm,
        vacancy.free_addresses,
        f"{one.ahead_s:+.2f}s",
        one.platform,
        one.version,
    )


fleet.add_command(init)
fleet.add_command(status)
COMMANDS: tuple[click.Command, ...] = (fleet,)
