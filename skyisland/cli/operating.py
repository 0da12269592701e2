"""The commands that speak to a running island through its REST API.

Address and admin token come from the same settings as the island's own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, BinaryIO

import click
import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from skyisland.cli import EXIT_FUNCTION, Chosen, console_options
from skyisland.client import Called, Client
from skyisland.model import AddressState, FunctionRequest, Phase, Verdict
from skyisland.record.logs import printable
from skyisland.settings import admin_token

as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


def _client(chosen: Chosen, *, admin: bool = True) -> Client:
    settings = chosen.settings()
    token = admin_token(settings, make=False) if admin else ""
    return Client(settings.url, token=token, header=settings.admin_token_header)


def _json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> None:
    """A table for people. What comes from jails and callers is shown as it is, never obeyed."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(str("" if cell is None else cell))) for cell in row))
    Console().print(table if table.row_count else empty)


@click.command()
@click.argument("url")
@click.argument("call")
@click.option("--version", help="Branch, tag or commit; the default branch without it.")
@click.option("--ip4", is_flag=True, help="Lease an address for the jail.")
@click.option("--cache-bust", is_flag=True, help="Fetch and build again.")
@click.option("--cold", is_flag=True, help="Make a new jail, whatever is warm.")
@click.option("--stdin", type=click.File("rb"), help="What the function reads; - for standard input.")
@as_json
@click.pass_obj
def invoke(
    chosen: Chosen,
    url: str,
    call: str,
    version: str | None,
    ip4: bool,
    cache_bust: bool,
    cold: bool,
    stdin: BinaryIO | None,
    as_json: bool,
) -> None:
    """Run CALL of the Go package at URL: skyisland invoke github.com/user/repo 'Encode(100.1, 80.9)'

    Prints what the function printed. Exit code 4 if it did not end well.
    """
    request = FunctionRequest(
        url=url,
        call=call,
        version=version,
        ip4=ip4,
        cache_bust=cache_bust,
        cold=cold,
        stdin=stdin.read() if stdin else b"",
    )
    with _client(chosen, admin=False) as client:
        called = client.invoke(request)
    if as_json:
        _json({"verdict": called.verdict, **called.answer})
    else:
        _tell(called)
    sys.exit(0 if called.verdict is Verdict.ok else EXIT_FUNCTION)


def _tell(called: Called) -> None:
    """The function's output where it belongs; on a terminal, how long each phase took."""
    sys.stdout.buffer.write(called.stdout)
    sys.stdout.buffer.flush()
    if not sys.stderr.isatty():
        click.echo(called.answer.get("stderr", ""), nl=False, err=True)
    else:
        if called.stdout and not called.stdout.endswith(b"\n"):
            click.echo(err=True)
        for line in called.answer.get("stderr", "").splitlines():
            click.secho(printable(line), fg="yellow", err=True)
        spent = called.answer.get("timings_ms", {})
        phases = "  ".join(f"{p} {spent[p]:.1f}" for p in (*Phase, "total") if spent.get(p))
        click.secho(f"{called.answer.get('jail')}  ms: {phases}", dim=True, err=True)
    if called.message:
        click.secho(f"skyisland: {called.message}", fg="red", err=True)


@click.command()
@as_json
@click.pass_obj
def jails(chosen: Chosen, as_json: bool) -> None:
    """List the living jails."""
    with _client(chosen) as client:
        found = client.jails()
    if as_json:
        _json(found)
        return
    _table(
        ("JID", "NAME", "STATE", "PID", "IP4", "AGE", "MEMORY", "FUNCTION"),
        (
            (
                jail["jid"],
                jail["name"],
                jail["state"],
                jail["pid"],
                jail["ip4"],
                f"{jail['age_s']:.0f}s",
                _size(jail["memory_bytes"]),
                f"{jail['url']} {jail['call']}".strip() or jail["purpose"],
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
    with _client(chosen) as client:
        found = client.jail(jail)
    if as_json:
        _json(found)
    else:
        _table(("", ""), _flat(found), "")


@click.command()
@click.argument("jail", required=False)
@click.option("--all", "everyone", is_flag=True, help="All jails of the island.")
@as_json
@click.pass_obj
def kill(chosen: Chosen, jail: str | None, everyone: bool, as_json: bool) -> None:
    """Kill a JAIL by its number or name, or --all; the caller is told."""
    if (jail is None) is not everyone:
        raise click.UsageError("name one jail, or use --all")
    with _client(chosen) as client:
        killed = client.kill_all() if jail is None else [client.kill(jail)]
    if as_json:
        _json({"deleted": killed})
    else:
        click.echo(f"killed: {', '.join(map(str, killed)) or 'no jail was alive'}")


@click.command()
@click.option("--state", type=click.Choice([*AddressState]), help="Only addresses in this state.")
@as_json
@click.pass_obj
def ips(chosen: Chosen, state: AddressState | None, as_json: bool) -> None:
    """List the addresses of the pool."""
    with _client(chosen) as client:
        if state is not None:
            found: Any = client.addresses_in(state)
            rows: Iterable[tuple[str, str | None]] = ((ip, "") for ip in found)
        else:
            found = client.addresses()
            rows = found.items()
    if as_json:
        _json(found)
    else:
        _table(("ADDRESS", "JAIL"), rows, "no address")


@click.command()
@click.argument("address")
@click.argument("state", type=click.Choice([*AddressState]))
@click.pass_obj
def ip(chosen: Chosen, address: str, state: AddressState) -> None:
    """Take ADDRESS out of the pool (unavailable), or give it back (available)."""
    with _client(chosen) as client:
        client.set_address(address, AddressState(state))
    click.echo(f"{address} is {state}")


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """The binaries that are kept: list (the default), evict, purge."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(cache_list, as_json=as_json)


@cache.command("list")
@as_json
@click.pass_obj
def cache_list(chosen: Chosen, as_json: bool) -> None:
    """List them, latest use first."""
    with _client(chosen) as client:
        found = client.artifacts()
    if as_json:
        _json(found)
        return
    now = time.time()
    _table(
        ("KEY", "FUNCTION", "COMMIT", "SIZE", "BUILD", "HITS", "USED"),
        (
            (
                artifact["key"][:12],
                f"{artifact['url']} {artifact['expression'] or artifact['function']}",
                artifact["commit"][:12],
                _size(artifact["size_bytes"]),
                f"{artifact['build_s']:.2f}s",
                artifact["hits"],
                f"{now - artifact['used_at']:.0f}s ago",
            )
            for artifact in sorted(found, key=lambda artifact: -artifact["used_at"])
        ),
        "nothing is cached",
    )


@cache.command()
@click.argument("key")
@click.pass_obj
def evict(chosen: Chosen, key: str) -> None:
    """Delete the binary with this KEY, or the one whose key begins with it."""
    with _client(chosen) as client:
        keys = [artifact["key"] for artifact in client.artifacts() if artifact["key"].startswith(key)]
        if len(keys) > 1:
            raise click.ClickException(f"{len(keys)} keys begin with {key}; name more of it")
        click.echo(f"evicted {client.evict(keys[0] if keys else key)}")


@cache.command()
@click.pass_obj
def purge(chosen: Chosen) -> None:
    """Delete all that no call is using."""
    with _client(chosen) as client:
        click.echo(f"evicted {len(client.purge())}")


@click.command()
@as_json
@click.pass_obj
def stats(chosen: Chosen, as_json: bool) -> None:
    """Figures of the API."""
    with _client(chosen) as client:
        found = client.stats()
    if as_json:
        _json(found)
    else:
        _table(("", ""), _flat(found), "")


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def _size(count: float | None) -> str:
    if count is None:
        return "-"
    for unit in ("B", "K", "M"):
        if count < 1024:
            return f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}G"


@click.command()
@console_options
@click.pass_obj
def console(chosen: Chosen, /, **look: Any) -> None:
    """Watch and steer a running island: ssh -t host skyisland console"""
    from tui import run_console
    from tui.watch.remote import Remote

    settings = chosen.settings()
    token = admin_token(settings, make=False)
    sys.exit(run_console(Remote(settings.url, token=token, header=settings.admin_token_header), **look))


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3281, show_default=True)
@click.option("--readonly", is_flag=True, help="Watch only: no key changes anything.")
@click.pass_obj
def web(chosen: Chosen, port: int, readonly: bool) -> None:
    """The console in a browser, on loopback: ssh -L 3281:localhost:3281 host skyisland web"""
    from tui.web import serve_web

    command = [sys.argv[0], *(["-c", str(chosen.file)] if chosen.file else []), "console"]
    serve_web([*command, "--readonly"] if readonly else command, port=port)


COMMANDS: tuple[click.Command, ...] = (console, web, invoke, jails, jail, kill, ips, ip, cache, stats)
