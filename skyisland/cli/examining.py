"""`skyisland doctor`: what this host can and cannot do, for people or machines."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from pathlib import Path

from skyisland.choosing import examiners, network_driver, toolchains_for
from skyisland.cli.printing import folded, print_json, print_table, say
from skyisland.client import Client
from skyisland.doctor import TRIAL_ISLAND, Check, examine, from_capabilities
from skyisland.errors import IslandError, SettingsError
from skyisland.host.trust import trusting
from skyisland.host.uids import LOCKS, Uids
from skyisland.settings import Settings
from skyisland.settings.files import CREDENTIALS
from skyisland.sources.credentials import Credentials
from skyisland.sources.git import confinement
from skyisland.status import Capability
from skyisland.wiring import fleet_examiners

OK, FAILS, LACKS = "✓", "✗", "○"
NETWORK = ("network", "isolation", "nat")
"""The capabilities of a network driver."""


async def report(settings: Settings, *, full: bool, as_json: bool) -> int:
    """Print every check; the exit code is 1 if one that calls depend on failed."""
    path = os.environ.get("PATH", "")
    # A trial of the network needs the bridge's name and subnet, which a running island has already.
    running = await asyncio.to_thread(_of_running, settings)
    network = None if running else network_driver(settings, TRIAL_ISLAND)
    toolchains = toolchains_for(settings, path)
    checks = await examine(
        state_dir=settings.state_dir,
        uid=settings.jails.uid_start if os.geteuid() == 0 else None,
        toolchains=toolchains,
        examiners=[*examiners(settings, network, toolchains, full=full), *fleet_examiners(settings)],
        network=network,
        search_path=path,
    )
    if network is not None:
        await network.close()
    if os.geteuid() == 0 and not await asyncio.to_thread(_is_locked, settings.layout.lock):
        checks.append(await asyncio.to_thread(_uids, settings.jails.uid_start, settings.jails.uid_count))
    if os.geteuid() == 0 and sys.platform == "linux":
        checks.append(await asyncio.to_thread(_git_user, settings.jails.uid_start + 1))
    if settings.git.credentials:
        checks.append(
            await asyncio.to_thread(_credentials, settings, os.environ.get("CREDENTIALS_DIRECTORY", ""))
        )
    checks += from_capabilities(running)
    if as_json:
        print_json(checks)
    else:
        _print(checks)
    return 1 if any(check.vital and not check.ok for check in checks) else 0


def _of_running(settings: Settings) -> list[Capability]:
    """The network capabilities of the island that runs with these settings; none if no island runs."""
    try:
        tls = trusting(settings.url, own=settings.api.tls_cert)
        with Client(settings.url, timeout_s=5, tls=tls) as client:
            capabilities = client.capabilities()
    except IslandError:
        return []
    return [capability for capability in capabilities if capability.name in NETWORK]


def _print(checks: list[Check]) -> None:
    if sys.stdout.isatty():
        width = max(len(check.name) for check in checks)
        for check in checks:
            _print_check(check, width, max(shutil.get_terminal_size().columns, 2 * width))
    else:
        print_table(("CHECK", "STATE", "FOUND", "REMEDY"), map(_row, checks), "nothing was examined")
    if not all(check.ok for check in checks):
        say(f"{FAILS} calls cannot run   {LACKS} calls run without it", err=True)


def _row(check: Check) -> tuple[str, str, str, str]:
    state = "ok" if check.ok else "fails" if check.vital else "lacks"
    return check.name, state, check.found, "" if check.ok else check.remedy


def _print_check(check: Check, width: int, columns: int) -> None:
    """What was found, and the remedy below it, beside the name of what was looked at."""
    mark, colour = (OK, "green") if check.ok else (FAILS, "red") if check.vital else (LACKS, "yellow")
    margin = " " * (width + 4)
    lines = folded(check.found, columns, margin)
    if check.remedy and not check.ok:
        lines += folded(f"→ {check.remedy}", columns, margin)
    say(mark, fg=colour, nl=False)
    say(f" {check.name.ljust(width)}  " + "\n".join(lines)[len(margin) :])


def _is_locked(file: Path) -> bool:
    """Whether an island runs on this state folder. Beside it, its own uids would seem to be another's."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def _git_user(uid: int) -> Check:
    lacks = confinement(uid).lacks
    return Check(
        name="git's user",
        ok=not lacks,
        found=f"uid {uid} with what strangers wrote, and no way to more rights"
        if not lacks
        else f"{lacks}: uid {uid} may gain rights by what is set-uid, and Git by SSH, with a token or in "
        "folders keeps all of root's",
        remedy="install util-linux" if lacks else "",
    )


def _credentials(settings: Settings, folder: str) -> Check:
    """Whether the files of credentials are there and private; those of the unit only within it."""
    if folder or not any(
        CREDENTIALS in text for one in settings.git.credentials.values() for text in (one.token, one.key)
    ):
        try:
            Credentials(settings.git.credentials, settings.git.rewrites, folder).check()
        except SettingsError as error:
            problem, _, remedy = error.message.partition("; ")
            return Check(name="credentials", ok=False, found=problem, remedy=remedy, vital=True)
        found = f"the files of {len(settings.git.credentials)} are there, and private"
    else:
        found = "those of the unit are looked at when it starts"
    return Check(name="credentials", ok=True, found=found, vital=True)


def _uids(first: int, count: int) -> Check:
    uids = Uids(range(first + 2, first + count), LOCKS)
    alone = uids.alone()
    uids.close()
    return Check(
        name="uids",
        ok=alone,
        found=f"{first} to {first + count - 1}{'' if alone else ', of which another island uses some'}",
        remedy="" if alone else "set jails.uid_start to a range of its own",
    )
