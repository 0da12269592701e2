"""The commands that act on a running island through its REST API: kill, set, evict, and the console.

Address and admin token come from the same settings as the island's own.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from skyisland.cli import EXIT_FAILED, GlobalOptions, Listing, console_options
from skyisland.cli.completing import addresses, jail_names, keys
from skyisland.cli.printing import as_json, print_json, say
from skyisland.cli.watching import cache_list
from skyisland.settings import admin_token
from skyisland.status import AddressState

if TYPE_CHECKING:
    from skyisland.client import Client


@click.command()
@click.argument("jail", required=False, shell_complete=jail_names)
@click.option("--all", "everyone", is_flag=True, help="All jails of the island.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, also on a terminal.")
@as_json
@click.pass_obj
def kill(options: GlobalOptions, jail: str | None, everyone: bool, yes: bool, as_json: bool) -> None:
    """Kill a jail, or all of them.

    JAIL is its number or name, of another node of the fleet node/JAIL; its caller is told. On a terminal,
    --all asks first.
    """
    if (jail is None) is not everyone:
        raise click.UsageError("name one jail, or use --all")
    if jail is not None and "/" in jail:
        node, _, jail = jail.partition("/")
        options = options.at(node)
    with options.client() as client:
        if everyone and not yes and sys.stdin.isatty() and not _agreed(client):
            say("nothing was killed", err=True)
            sys.exit(EXIT_FAILED)
        killed = client.kill_all() if jail is None else [client.kill(jail)]
    if as_json:
        print_json({"deleted": killed})
    else:
        say(f"killed: {', '.join(map(str, killed)) or 'no jail was alive'}")


def _agreed(client: Client) -> bool:
    """Whether the operator wants so many jails killed; where none is alive, nobody is asked."""
    alive = client.jails()
    busy = sum(jail.invocation is not None for jail in alive)
    question = f"Kill all jails ({len(alive)} alive, {busy} with a call)?"
    return not alive or click.confirm(question, err=True)


@click.command()
@click.argument("address", shell_complete=addresses)
@click.argument("state", type=click.Choice([*AddressState]))
@as_json
@click.pass_obj
def ip(options: GlobalOptions, address: str, state: AddressState, as_json: bool) -> None:
    """Take an address out of the pool, or give it back.

    `unavailable` takes it out, `available` gives it back.
    """
    with options.client() as client:
        info = client.set_address(address, AddressState(state))
    print_json(info) if as_json else say(f"{info.ip} is {info.state}")


@click.group(cls=Listing, invoke_without_command=True)
@as_json
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """List, evict, rebuild or purge the binaries that are kept.

    Without a command, lists them.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(cache_list, as_json=as_json)


def _whole_key(client: Client, key: str) -> str:
    """The key of the one binary whose key begins so; else `key` itself, which the island will refuse."""
    keys = [artifact.key for artifact in client.artifacts() if artifact.key.startswith(key)]
    if len(keys) > 1:
        raise click.ClickException(f"{len(keys)} keys begin with {key}; name more of it")
    return keys[0] if keys else key


@click.command()
@click.argument("key", shell_complete=keys)
@as_json
@click.pass_obj
def evict(options: GlobalOptions, key: str, as_json: bool) -> None:
    """Delete a binary.

    KEY is its key, or the beginning of it.
    """
    with options.client() as client:
        evicted = client.evict(_whole_key(client, key))
    print_json({"evicted": evicted}) if as_json else say(f"evicted {evicted}")


@click.command()
@click.argument("key", shell_complete=keys)
@as_json
@click.pass_obj
def rebuild(options: GlobalOptions, key: str, as_json: bool) -> None:
    """Build a binary anew.

    KEY is its key, or the beginning of it. Fetches its repository and compiles the same commit.
    """
    with options.client() as client:
        rebuilt = client.rebuild(_whole_key(client, key))
    print_json({"rebuilt": rebuilt}) if as_json else say(f"rebuilt {rebuilt}")


@click.command()
@as_json
@click.pass_obj
def purge(options: GlobalOptions, as_json: bool) -> None:
    """Delete all binaries that no call is using."""
    with options.client() as client:
        evicted = client.purge()
    print_json({"evicted": evicted}) if as_json else say(f"evicted {len(evicted)}")


for command in (cache_list, evict, rebuild, purge):
    cache.add_command(command)


@click.command()
@console_options
@click.pass_obj
def console(options: GlobalOptions, /, **look: Any) -> None:
    """Watch and steer a running island.

    From elsewhere: ssh -t host skyisland console
    """
    from tui import check_theme, run_console

    check_theme(look["theme"])
    from tui.watch.remote import RemotePort

    options.check()
    settings = options.settings()
    token = admin_token(settings, make=False)
    header, tls = settings.admin_token_header, options.tls(settings)
    port = RemotePort(settings.url, token=token, header=header, tls=tls)
    sys.exit(run_console(port, command=options.line(), **look))


@click.command()
@click.option("--port", metavar="PORT", type=click.IntRange(1, 65535), default=3281, show_default=True)
@click.option("--readonly", is_flag=True, help="Watch only: no key changes anything.")
@click.pass_obj
def web(options: GlobalOptions, port: int, readonly: bool) -> None:
    """The console in a browser, on loopback.

    From elsewhere: ssh -L 3281:localhost:3281 host skyisland web
    """
    from tui import check_installed

    check_installed("textual", "textual_serve")
    from tui.web import serve_web

    options.check()
    command = [sys.argv[0], *options.words, "console"]
    serve_web([*command, "--readonly"] if readonly else command, port=port)


COMMANDS: tuple[click.Command, ...] = (console, web, kill, ip, cache, rebuild)
