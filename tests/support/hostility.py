"""What attempts are made with, and what is looked at afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from skyisland.jails.inmate import Inmate
from skyisland.jails.register import Jails
from skyisland.model import Outcome
from skyisland.status import JailState

ISLAND = f"{os.getpid() & 0xFFFF:04x}"
"""Of this run alone: another on the same host does not meet it."""
_FIRST = 1_951_000_000 + (os.getpid() & 0xFFFF) * 64
UIDS = range(_FIRST, _FIRST + 32)
STRANGER = _FIRST + 63
"""A host uid that owns nothing but what a test starts as it."""
MIB = 1 << 20

Start = Callable[..., subprocess.Popen[bytes]]
Outside = Callable[..., str]
Inside = Callable[..., Awaitable[Outcome]]
Said = Callable[..., Awaitable[str]]


async def running(jails: Jails) -> Inmate:
    """A jail that runs, as soon as one does."""
    while True:
        for info in jails.living():
            if info.state is JailState.running:
                return jails.find(info.jid)
        await jails.events.ring.news()


def processes_of(uids: range) -> list[int]:
    """Host processes of these users."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                owner = entry.stat().st_uid
                state = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if owner in uids and state != "Z":
                found.append(int(entry.name))
    return found


def left_on_the_host() -> list[str]:
    """Mounts and interfaces with an island's name."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"sky-{ISLAND}" in line]
    return mounts + [name for name in os.listdir("/sys/class/net") if name.startswith(f"sky-{ISLAND}")]


async def heard(jails: Jails, words: bytes, timeout_s: float = 10) -> Inmate:
    """The jail that runs, once it has printed these words."""
    inmate = await running(jails)
    assert inmate.jail is not None
    async with asyncio.timeout(timeout_s):
        while not inmate.jail.process.stdout.data.startswith(words):  # noqa: ASYNC110 - in a pipe
            await asyncio.sleep(0.005)
    return inmate
