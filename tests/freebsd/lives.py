"""Lives of an island on the stand-ins, each ended by SIGKILL at one step further than the one before.

    python -m tests.freebsd.lives FOLDER ACTOR alias|vnet work|start FIRST STRIDE

Steps are the beginnings of the programs that the island runs, and points within those that do several
things; the program dies with the island. `work`: each life begins by taking back what the life before
left, finds out whether anything is left, then makes and ends a jail with everything that a jail can
have, and is struck there. `start`: each is struck while it takes back what a struck one left. Prints
JSON: for each life the step and what the next one could not take back, which should be nothing.

It is a process of its own, so that it can fork without threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from skyisland.drivers.freebsd.network import FreeBSDNetwork
from skyisland.events import Events
from skyisland.host.programs import Programs
from skyisland.jails.addresses import Addresses
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Limits, Mount, NetworkAccess, Purpose
from skyisland.settings import IP4
from skyisland.status import AddressState
from tests.support.standins.island import freebsd_jails
from tests.support.standins.world import World

LIMITS = Limits(memory_bytes=64 << 20, pids=32, cpus=1.0)
END = 9999
"""A step that no life reaches."""


class Forgetful:
    """Remembers no word of an operator."""

    async def taken_out(self) -> dict[str, float | None]:
        return {}

    async def set_address_state(self, ip: str, state: AddressState) -> None:
        pass


class Host:
    def __init__(self, folder: Path, actor: Path, way: str) -> None:
        self.world = World(folder)
        self.actor = actor
        self.way = way
        self.shared = folder / "shared"
        self.shared.mkdir()
        with self.world.change() as state:
            state["pf"]["sky"] = []

    async def life(self, start: int, work: int) -> None:
        """Struck at step `start` of its start, else at step `work` of its work."""
        ip4 = IP4(cidr="10.61.0.0/24", interface="em0", nat=True)
        vnet, programs, events = self.way == "vnet", Programs(self.world.bin), Events()
        network = FreeBSDNetwork(ip4, island="c0de", vnet=vnet, programs=programs)
        addresses = Addresses(ip4, network, Forgetful(), events)
        jails = freebsd_jails(self.world, events, ahead=1, network=network, addresses=addresses)
        self.world.strike(start)
        await jails.prepare()
        await addresses.prepare()
        left = self.world.left()
        (self.world.folder / "left").write_text(json.dumps(left))
        self.world.strike(work)
        await addresses.await_turn("work", "caller")
        await self.work(jails)
        await jails.close()
        await addresses.close()

    async def work(self, jails: Jails) -> None:
        mounts = (
            Mount(self.actor, "/function"),
            Mount(self.shared, "/src"),
            Mount(self.shared, "/out", writable=True),
        )
        async with jails.jail(
            JailOrder(
                argv=("/function",),
                purpose=Purpose.function,
                mounts=mounts,
                limits=LIMITS,
                network=NetworkAccess.lease,
                invocation="work",
            )
        ) as inmate:
            outcome = await inmate.converse(b"say hello", 30)
            assert outcome.stdout == b"hello", outcome

    def live(self, *, start: int = END, work: int = END) -> dict[str, Any]:
        """A life in a process of its own: how it ended, where, and what it found on the host."""
        (self.world.folder / "left").unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(self.life(start, work))
            except BaseException as failure:
                print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        left = self.world.folder / "left"
        found = json.loads(left.read_text()) if left.exists() else None
        return {"code": code, "step": (self.world.steps() or [""])[-1], "found": found}


def main() -> None:
    folder, actor, way, phase = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    first, stride = int(sys.argv[5]), int(sys.argv[6])
    host = Host(folder / phase, actor, way)
    lives = [host.live()]
    for number in range(first, END, stride):
        if phase == "start":
            lives.append(host.live(work=14))
            lives.append(host.live(start=number))
        else:
            lives.append(host.live(work=number))
        if lives[-1]["code"] != -9:
            break
    lives.append(host.live())
    print(json.dumps({"lives": lives, "left": host.world.left()}))
    host.world.close()


if __name__ == "__main__":
    main()
