"""`skyisland doctor`: what this host can and cannot do, for people or machines."""

from __future__ import annotations

import asyncio
import os
import sys

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from skyisland.client import Client
from skyisland.doctor import Check, Examiner, examine, from_capabilities, vital
from skyisland.errors import IslandError
from skyisland.host.toolchain import Toolchains
from skyisland.jails.addresses import NoInterfaces
from skyisland.jails.driver import NetworkDriver
from skyisland.model import Capability
from skyisland.settings import Settings
from skyisland.wiring import FREEBSD, LINUX, clone_driver, jail_driver, network_driver, toolchains_for

NETWORK = ("network", "isolation", "nat")


TRIAL = "d0c0"
"""The island in whose name things are tried: no other has it."""


async def report(settings: Settings, *, full: bool, as_json: bool) -> int:
    """Print every check; the exit code is 1 if one that calls depend on failed."""
    path = os.environ.get("PATH", "")
    # To try the network takes the bridge's name and subnet, which a running island has already.
    running = await asyncio.to_thread(_of_running, settings)
    network = None if running else network_driver(settings, TRIAL)
    toolchains = toolchains_for(settings, path)
    checks = await examine(
        state_dir=settings.state_dir,
        uid=settings.jails.uid_start if os.geteuid() == 0 else None,
        toolchains=toolchains,
        launcher=settings.layout.launcher if _has_launcher(settings) else None,
        network=network,
        others=_others(settings, network, toolchains, full=full),
        search_path=path,
    )
    if network is not None:
        await network.close()
    checks += from_capabilities(running)
    if as_json:
        click.echo(msgspec.json.encode(checks))
    else:
        _print(checks)
    return 1 if any(check.vital and not check.ok for check in checks) else 0


def _has_launcher(settings: Settings) -> bool:
    """Whether its jails are made by a program that is compiled here."""
    return LINUX and os.geteuid() == 0 and settings.jails.driver in ("auto", "namespaces")


def _others(
    settings: Settings, network: NetworkDriver | None, toolchains: Toolchains, *, full: bool
) -> list[Examiner]:
    """What the drivers of this system have to look at themselves."""
    if not FREEBSD:
        return [Pool(settings)] if settings.filesystem.storage == "zfs" else []
    from skyisland.drivers.freebsd.checks import FreeBSDChecks
    from skyisland.drivers.freebsd.jails import FreeBSDJails
    from skyisland.drivers.zfs.clones import ZfsClones

    jails = jail_driver(settings, TRIAL, network or NoInterfaces("an island runs and has it"), toolchains)
    clones = clone_driver(settings, TRIAL, trial=True)
    if isinstance(jails, FreeBSDJails) and isinstance(clones, ZfsClones):
        return [FreeBSDChecks(jails, clones, full=full)]
    return []


class Pool:
    """Whether the pool that the settings name is there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def examine(self) -> list[Check]:
        from skyisland.drivers.zfs.clones import ZfsClones

        clones = clone_driver(self._settings, TRIAL, trial=True)
        return [await vital("zfs", clones.look)] if isinstance(clones, ZfsClones) else []


def _of_running(settings: Settings) -> list[Capability]:
    """What an island that runs with these settings says of its network; nothing if none does."""
    try:
        with Client(settings.url, timeout_s=5) as client:
            found = msgspec.convert(client.capabilities(), list[Capability])
    except (IslandError, msgspec.ValidationError):
        return []
    return [capability for capability in found if capability.name in NETWORK]


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
