"""Who is in the fleet: every island says each second that it is alive, and how much room it has.

A pulse says all that others need to choose where a call runs. Nobody is asked: what is known of an island is
its last pulse, and how long ago that was. Who says nothing for `SILENT_S` is silent, and gets no calls.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from msgspec import Struct, structs

from skyisland.fleet.frames import BadFrame, unpack
from skyisland.fleet.line import Message
from skyisland.status import MemberInfo, Vacancy

PULSE_S = 1.0
"""Between two pulses of an island."""
SILENT_S = 3.0
"""Two pulses may be lost or late; the third is not."""
FORGOTTEN_S = 3600.0
"""A silent island is shown for so long. A judgement: an operator was at lunch."""
PULSE_BYTES = 4096
"""No pulse is longer: 250 bytes are usual."""
MOST_MEMBERS = 10_000
"""More names than that are no fleet but a mistake, and are not remembered."""
HOMES = 2
"""Islands that keep a function warm. One may be full, or away."""


class Pulse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an island says of itself."""

    node: str
    life: str
    """Random, made when it started: who hears its own name with another one has a namesake."""
    started_at: float
    sent_at: float
    """By its own clock."""
    vacancy: Vacancy
    platform: str
    """System and processor: `linux-amd64`."""
    go_version: str = ""
    version: str = ""
    segment: str = ""
    """The network that its addresses lie in; empty if it shares none."""
    pools: tuple[tuple[str, str], ...] = ()
    """First and last address of each pool."""
    leaves: bool = False
    """It is its last one."""


class Member(Struct):
    """What is known of an island."""

    pulse: Pulse
    heard_at: float
    """Monotonic."""
    ahead_s: float = 0.0
    """How far its clock is ahead of this host's, as far as the pulse's way lets that be seen."""
    sent: int = 0
    """Calls that were sent there since, less those that have ended."""

    @property
    def free(self) -> int:
        """About how many places it has left."""
        return self.pulse.vacancy.free - self.sent


class Members:
    """The islands of the fleet, this one too."""

    def __init__(self, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: of how long ago a pulse was."""
        self._node = node
        self._clock = clock
        self._members: dict[str, Member] = {}
        self.bad = 0
        """Messages on the pulses' subjects that were none."""

    def hear(self, message: Message) -> Pulse | None:
        """Take a pulse; None if it is none, or not of the island whose subject it came on."""
        try:
            pulse = unpack(message.data, Pulse, most_bytes=PULSE_BYTES)
        except BadFrame:
            self.bad += 1
            return None
        if message.subject.rpartition(".")[2] != pulse.node:
            self.bad += 1
            return None
        if pulse.leaves:
            self._members.pop(pulse.node, None)
        elif pulse.node in self._members or len(self._members) < MOST_MEMBERS:
            self._members[pulse.node] = Member(pulse, self._clock(), pulse.sent_at - time.time())
        return pulse

    def get(self, node: str) -> Pulse | None:
        """The last pulse of an island; None if nobody has heard of it."""
        member = self._members.get(node)
        return member.pulse if member is not None else None

    def live(self, node: str) -> Member | None:
        """An island that is alive."""
        return None if self.is_silent(node) else self._members[node]

    def is_silent(self, node: str) -> bool:
        """Whether nothing was heard of it lately, or ever."""
        member = self._members.get(node)
        return member is None or self._clock() - member.heard_at > SILENT_S

    def silent(self) -> list[str]:
        """Those of whom nothing was heard lately, by name."""
        return sorted(node for node in self._members if self.is_silent(node))

    def nodes(self) -> list[str]:
        """All that are alive, this one too, by name."""
        return sorted(node for node in self._members if not self.is_silent(node))

    def known(self) -> list[str]:
        """All that were heard of late but this one, silent or not, by name."""
        return sorted(node for node in self._members if node != self._node)

    def others(self) -> Iterator[Member]:
        """All that are alive, but this one."""
        since = self._clock() - SILENT_S
        for node, member in self._members.items():
            if node != self._node and member.heard_at >= since:
                yield member

    def homes(self, key: str, platform: str) -> list[str]:
        """The islands that keep what has this key warm, of all that are alive and of this platform; this one
        may be among them. By the highest random weight (Thaler and Ravishankar, 1996): when an island comes
        or goes, only its own keys move."""
        able = [
            node
            for node, member in self._members.items()
            if member.pulse.platform == platform
            and not member.pulse.vacancy.draining
            and not self.is_silent(node)
        ]
        return sorted(able, key=lambda node: _weight(node, key), reverse=True)[:HOMES]

    @contextmanager
    def sent_to(self, node: str) -> Iterator[None]:
        """A call is there for the length of the block. A pulse that comes meanwhile counts it by itself; then
        it leaves a place more than that pulse says."""
        self._count(node, 1)
        try:
            yield
        finally:
            self._count(node, -1)

    def _count(self, node: str, calls: int) -> None:
        if (member := self._members.get(node)) is not None:
            member.sent += calls

    def room_at(self, node: str) -> int:
        """About how many places an island has free; 0 for one that is silent."""
        return 0 if self.is_silent(node) else max(0, self._members[node].free)

    def forget(self) -> None:
        """Those that have been silent for long."""
        since = self._clock() - FORGOTTEN_S
        self._members = {node: one for node, one in self._members.items() if one.heard_at >= since}

    def infos(self) -> list[MemberInfo]:
        """All, for operators, by name."""
        now, clock = time.time(), self._clock()
        return [
            MemberInfo(
                node=node,
                silent=self.is_silent(node),
                heard_at=now - (clock - member.heard_at),
                ahead_s=member.ahead_s,
                vacancy=structs.replace(member.pulse.vacancy, free=max(0, member.free)),
                platform=member.pulse.platform,
                go_version=member.pulse.go_version,
                version=member.pulse.version,
                started_at=member.pulse.started_at,
            )
            for node, member in sorted(self._members.items())
        ]


def _weight(node: str, key: str) -> bytes:
    return hashlib.blake2b(f"{node} {key}".encode(), digest_size=8).digest()


def shared(
    segment: str, pools: Iterable[tuple[str, str]], pulse: Pulse
) -> tuple[IPv4Address, IPv4Address] | None:
    """The addresses that an island's pools have in common with those of another one of its segment: first and
    last; None where there are none."""
    if not segment or segment != pulse.segment:
        return None
    try:
        theirs = [(IPv4Address(first), IPv4Address(last)) for first, last in pulse.pools]
    except ValueError:
        return None
    for first, last in ((IPv4Address(first), IPv4Address(last)) for first, last in pools):
        for their_first, their_last in theirs:
            if first <= their_last and their_first <= last:
                return max(first, their_first), min(last, their_last)
    return None
