"""`skyisland doctor`: what this host can and cannot do, for people or machines."""

from __future__ import annotations

import os
import sys

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from skyisland.doctor import Check, examine
from skyisland.settings import Settings
from skyisland.toolchain import Toolchains
from skyisland.wiring import network_driver


async def report(settings: Settings, *, as_json: bool) -> int:
    """Print every check; the exit code is 1 if one that calls depend on failed."""
    path = os.environ.get("PATH", "")
    checks = await examine(
        state_dir=settings.state_dir,
        uid=settings.jails.uid_start if os.geteuid() == 0 else None,
        toolchains=Toolchains(
            settings.layout.toolchain,
            goroot=settings.build.goroot,
            version=settings.go_version,
            search_path=path,
        ),
        network=network_driver(settings, "d0c0"),
        search_path=path,
    )
    if as_json:
        click.echo(msgspec.json.encode(checks))
    else:
        _print(checks)
    return 1 if any(check.vital and not check.ok for check in checks) else 0


def _print(checks: list[Check]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "What", "Found"):
        table.add_column(column)
    for check in checks:
        mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.vital else "[yellow]○[/]"
        found = check.found if check.ok or not check.remedy else f"{check.found}\n→ {check.remedy}"
        table.add_row(mark, check.name, found)
    Console().print(table)
    if not all(check.ok for check in checks):
        print("✗ calls cannot run   ○ calls run without it", file=sys.stderr)
