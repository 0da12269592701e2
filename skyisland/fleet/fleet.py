"""An island's part in its fleet: it says that it lives, hears who else does, and leaves with a word.

    open    what others say is heard, as soon as the servers can be reached
    join    this island may be called: it says its pulse from now on
    drain   it takes nothing more, and says so; what it has comes to its end
    leave   its last pulse says that it is gone

An island whose servers are away is alone, and does alone all that one can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from skyisland.fleet.binaries import Binaries
from skyisland.fleet.commits import SharedCommits
from skyisland.fleet.elsewhere import Forwarding
from skyisland.fleet.frames import pack
from skyisland.fleet.guests import Guests
from skyisland.fleet.line import Away, Line, Message
from skyisland.fleet.members import PULSE_S, Members, Pulse, shared
from skyisland.fleet.operators import Operators
from skyisland.fleet.subjects import Subjects
from skyisland.host.tasks import cancel_all
from skyisland.rooms import Home
from skyisland.status import FleetStatus, LineState

log = logging.getLogger(__name__)

HELLO_S = 0.3
"""After a hello, everybody's pulse is there. Two ways of 50 ms, as far as islands of a fleet are apart, and
as much for a busy loop."""
SOONEST_S = 0.2
"""Between two pulses, however many say hello."""


class FleetLine(Line, Protocol):
    """What the fleet needs of its line, beside what goes over it."""

    since: float
    why: str
    server: str

    async def whenever_joined(self, work: Callable[[], Awaitable[None]]) -> None: ...
    def refuse(self, why: str) -> None: ...


class Origin(Struct, frozen=True, kw_only=True):
    """What does not change about an island while it lives."""

    platform: str
    version: str = ""
    segment: str = ""
    pools: tuple[tuple[str, str], ...] = ()


class Fleet:
    """All islands, as this one knows them (`rooms.FleetRoom`)."""

    def __init__(
        self,
        subjects: Subjects,
        line: FleetLine,
        origin: Origin,
        commits: SharedCommits | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        self.subjects = subjects
        self.line = line
        self.members = Members(subjects.node)
        self.elsewhere = Forwarding(subjects, line, self.members, origin.platform)
        self._guests = Guests(subjects, line, self.members)
        self.nodes = Operators(line, subjects, self.members)
        """The other islands, for operators."""
        self.commits, self.binaries = commits, binaries
        for room in (commits, binaries):
            if room is not None:
                room.reachable = lambda: self.up
        self._origin = origin
        self._life = secrets.token_hex(8)
        self._started_at = time.time()
        self._home: Home | None = None
        self._beating: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        """Somebody wants this island's pulse at once."""
        self._entered = False
        """It knows who is there."""

    # Life

    async def open(self) -> None:
        """Hear who is there, as soon as the line can be reached."""
        await self.line.listen(self.subjects.pulses, self._hear)
        await self.line.listen(self.subjects.hello, self._greeted)
        await self.elsewhere.open()
        await self.nodes.start()
        for room in (self.commits, self.binaries):
            if room is not None:
                await room.open()
        await self.line.whenever_joined(self._enter)

    async def join(self, home: Home) -> None:
        """Take part: the island is ready to run calls."""
        self._home = home
        await self._guests.open(home)
        self._beating = asyncio.create_task(self._beat())

    async def drain(self) -> None:
        """Tell the others that nothing more is to be sent here. May be repeated."""
        await self._guests.close()
        self._wanted.set()

    async def leave(self) -> None:
        """Tell the others that this island is gone. May be repeated."""
        home, self._home = self._home, None
        beating, self._beating = self._beating, None
        await cancel_all(beating)
        if home is not None:
            await self._say(home, leaves=True)
        if self.commits is not None:
            await self.commits.close()

    # Pulses

    @property
    def up(self) -> bool:
        """Whether the fleet can be reached now. A server that answers nothing is away before the connection
        is found dead: this island hears its own pulse no more."""
        return self._entered and self._joined and not self.members.is_silent(self.subjects.node)

    @property
    def _joined(self) -> bool:
        return self.line.state is LineState.joined

    async def _enter(self) -> None:
        """Learn who is there, before this island says that it is."""
        self._entered = False
        await self.line.publish(self.subjects.hello, b"")
        await asyncio.sleep(HELLO_S)
        self._entered = True
        self._wanted.set()

    async def _beat(self) -> None:
        while True:
            self._wanted.clear()
            if self._home is not None and self._entered:
                await self._say(self._home)
            self.members.forget()
            await asyncio.sleep(SOONEST_S)
            try:
                async with asyncio.timeout(PULSE_S - SOONEST_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _say(self, home: Home, *, leaves: bool = False) -> None:
        pulse = Pulse(
            node=self.subjects.node,
            life=self._life,
            started_at=self._started_at,
            sent_at=time.time(),
            vacancy=home.vacancy(),
            platform=self._origin.platform,
            go_version=home.go_version,
            version=self._origin.version,
            segment=self._origin.segment,
            pools=self._origin.pools,
            leaves=leaves,
        )
        with contextlib.suppress(Away):
            await self.line.publish(self.subjects.pulse, pack(pulse))

    def _greeted(self, message: Message) -> None:
        self._wanted.set()

    def _hear(self, message: Message) -> None:
        pulse = self.members.hear(message)
        if pulse is None or pulse.life == self._life:
            return
        # Of two that cannot both be in the fleet, the one goes that came later: both find the same.
        if (pulse.started_at, pulse.life) < (self._started_at, self._life):
            if pulse.node == self.subjects.node:
                name = self.subjects.node
                self.line.refuse(f"another island is called {name} there; give this one another fleet.node")
            elif (both := shared(self._origin.segment, self._origin.pools, pulse)) is not None:
                first, last = both
                self.line.refuse(
                    f"{pulse.node} has addresses of this island in segment {pulse.segment}, from {first} to "
                    f"{last}; give this one another network.ip4"
                )

    # What operators see

    def status(self) -> FleetStatus:
        """The fleet, as far as this island knows."""
        line = self.line
        stalled = self._joined and self._entered and self._home is not None and not self.up
        return FleetStatus(
            fleet=self.subjects.fleet,
            node=self.subjects.node,
            state=LineState.away if stalled else line.state,
            since=line.since,
            why="the server answers nothing" if stalled else line.why,
            server=line.server,
            members=self.members.infos(),
        )
