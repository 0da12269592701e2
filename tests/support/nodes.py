"""A fleet of which only the operators' part is there, on lines in memory."""

from __future__ import annotations

import time

from skyisland.fleet.operators import Operators
from skyisland.fleet.subjects import Subjects
from skyisland.rooms import Errand, Home, Ran
from skyisland.status import FleetStatus, LineState, MemberInfo, Vacancy
from tests.support.fleets import Hub


class Known:
    """What a node knows of the others (`operators.Others`)."""

    def __init__(self, node: str, *nodes: str, silent: tuple[str, ...] = ()) -> None:
        self.node = node
        self.nodes = nodes
        self.silent = list(silent)
        """Known, and never heard."""

    def known(self) -> list[str]:
        return [name for name in (*self.nodes, *self.silent) if name != self.node]


class Nowhere:
    """No other island has room."""

    async def run(self, errand: Errand) -> Ran | None:
        return None


class Room:
    """The fleet, as an island has it (`rooms.FleetRoom`)."""

    def __init__(self, hub: Hub, known: Known) -> None:
        self.known = known
        self.nodes = Operators(
            hub.line(known.node), Subjects("f", known.node), known, ask_s=0.3, gather_s=0.3
        )
        self.elsewhere = Nowhere()

    async def join(self, home: Home) -> None: ...

    async def drain(self) -> None: ...

    async def leave(self) -> None: ...

    def status(self) -> FleetStatus:
        now, vacancy = time.time(), Vacancy(places=4, free=4)
        return FleetStatus(
            fleet="prod",
            node=self.known.node,
            state=LineState.joined,
            since=now,
            members=[
                MemberInfo(node=node, silent=node in self.known.silent, heard_at=now, vacancy=vacancy)
                for node in sorted({*self.known.nodes, *self.known.silent})
            ],
        )
