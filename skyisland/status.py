"""What operators see of an island, and what they steer it by: frozen values, as model.py has those of a call.

Units stand in the names: `_s` seconds (floats), `_bytes` bytes.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from skyisland.figures import Report, Slo
from skyisland.model import Artifact, Limits, Phase, Purpose


class JailState(StrEnum):
    """Where a jail is in its life, in order."""

    creating = "creating"
    warm = "warm"
    """Made ahead: its process waits for a frame."""
    running = "running"
    dying = "dying"
    """Being taken away."""


USAGE_S = 1.0
"""Usage samples younger than this are reused: nobody sees a figure change more often."""


class Usage(Struct, frozen=True):
    """What a jail uses; None where the host does not count it."""

    memory_bytes: int | None = None
    cpu_s: float | None = None
    pids: int | None = None


class JailInfo(Struct, frozen=True, kw_only=True):
    """A living jail, as an operator sees it."""

    jid: int
    name: str
    hostname: str
    path: str
    os_release: str
    state: JailState
    pid: int | None
    created_at: float
    purpose: Purpose
    url: str = ""
    """The repository; empty for a build."""
    package: str = ""
    """Folder of the package below it."""
    function: str = ""
    """What its binary was made for."""
    call: str = ""
    invocation: str | None = None
    ip4: str | None = None
    cached: bool = False
    usage: Usage = Usage()


class AddressState(StrEnum):
    """Whether an address of the pool can be leased."""

    available = "available"
    unavailable = "unavailable"
    """Leased to a jail, or taken out of the pool by an operator."""


class AddressInfo(Struct, frozen=True, kw_only=True):
    """An address of the pool, as an operator sees it."""

    ip: str
    state: AddressState
    jail: str | None = None
    """The jail that it is leased to."""
    since: float | None = None
    """Time of the lease, or when an operator took it out; None for a free one."""

    @property
    def word(self) -> str:
        """`free`, `leased`, or `out`: taken out of the pool by an operator."""
        if self.state is AddressState.available:
            return "free"
        return "leased" if self.jail else "out"


class Capability(Struct, frozen=True, kw_only=True):
    """One thing this host can or cannot enforce."""

    name: str
    """`memory`, `pids`, `cpu`, `seccomp`, `user_namespaces`, `overlay`, `network`, `nat` …"""
    enforced: bool
    how: str
    """The mechanism when it is enforced, the reason when it is not."""
    remedy: str = ""
    """What to do about it; empty when it is enforced, or nothing can be done."""
    wanted: bool = True
    """The settings ask for it."""


class Bounds(Struct, frozen=True, kw_only=True):
    """What the warm pool may take."""

    max_jails: int
    """How many jails may wait at one time; 0 for no pool."""
    max_memory_bytes: int | None
    """What they may use together; None for no bound."""
    idle_expires_s: float
    """A jail that waited longer is destroyed."""


class Policy(Struct, frozen=True, kw_only=True):
    """The settings that rule a call. Their defaults are those of `settings/`, so there are none here."""

    exec_timeout_s: float
    """A call that runs longer is stopped."""
    limits: Limits
    """Of the jail of a call."""
    max_running: int
    """Calls that may be in a jail at one time."""
    running_per_client: int
    """As many of them one client may have; 0 for half."""
    max_queued: int
    """Calls that may wait for such a place; one more is refused."""
    queue_timeout_s: float
    """A call that waits longer for a place is refused."""
    behind_running: int
    """Calls behind all others that may be under way at one time, with their builds."""
    failures_kept_s: float
    """What failed at building, or at fetching, is not tried again for so long."""
    require: tuple[str, ...]
    """Capabilities by name; the island does not start without them."""
    keep_s: float
    """Checkouts that no build needed for longer are removed."""
    warm: Bounds
    """Of the warm pool."""
    slo: Slo
    """From which time on a call counts as slow."""


class PoolStatus(Struct, frozen=True, kw_only=True):
    """The warm pool: its jails now, and counts since the island's start."""

    size: int = 0
    """Jails that wait."""
    wanted: int = 0
    """Jails that should wait, by the latest demand."""
    max_jails: int = 0
    hits: int = 0
    """Calls that found a warm jail."""
    misses: int = 0
    """Calls that found none. Calls that want a new jail count as neither."""
    made: int = 0
    wasted: int = 0
    """Made and destroyed without a call."""
    make_s: float = 0.0
    """Time to make a jail, as a moving average."""
    memory_bytes: int = 0
    """Memory of the waiting jails at their last samples; 0 where the host does not count it."""


class HostLoad(Struct, frozen=True, kw_only=True):
    """How busy the host is, with all that runs on it; None where nobody counts it."""

    cpus: int
    """Processors."""
    cpu: float | None = None
    """The share of them that was busy since the last reading, from 0 to 1."""
    load: float | None = None
    """Processes that ran or wanted to, on average over a minute."""
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    """Without what the kernel would give back at once."""
    disk_bytes: int | None = None
    """Of the file system with the state folder."""
    disk_free_bytes: int | None = None
    """What is left there for the island."""


class CallInfo(Struct, frozen=True, kw_only=True):
    """A call under way."""

    invocation: str
    url: str
    call: str
    client: str
    """Who called."""
    name: str = ""
    """The name that was called; empty for a plain call."""
    started_at: float
    phase: Phase | None
    """The part of it that began last; None before the first."""
    since: float
    """When that began: of `queue`, since when it waits for a place."""
    jail: str | None


class Vacancy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much room an island has for calls; what the other islands of its fleet are told."""

    places: int
    """Calls that may run at one time."""
    free: int
    """Of these places, those that nobody has."""
    queued: int = 0
    """Calls that wait for a place."""
    free_addresses: int = 0
    """Addresses of the pool that can be leased now."""
    warm: int = 0
    """Jails that wait for a call."""
    draining: bool = False
    """It takes no new calls."""
    load: float | None = None
    """See `HostLoad`."""
    cpus: int = 0


class LineState(StrEnum):
    """Whether the servers of a fleet can be reached."""

    connecting = "connecting"
    """Not since the island's start."""
    joined = "joined"
    away = "away"
    """They could be, and cannot now."""
    refused = "refused"
    """They could be, but this island must not join: `FleetStatus.why` says what has to change."""
    closed = "closed"
    """The island stops."""


class MemberInfo(Struct, frozen=True, kw_only=True):
    """An island of the fleet, as another one knows it."""

    node: str
    silent: bool
    """Nothing was heard of it for some seconds: it has stopped, or cannot be reached."""
    heard_at: float
    """When its last pulse came."""
    ahead_s: float = 0.0
    """How far its clock is ahead of this island's; below 0, behind."""
    vacancy: Vacancy
    """As of then."""
    platform: str = ""
    go_version: str = ""
    version: str = ""
    """Of its program."""
    started_at: float = 0.0


class FleetStatus(Struct, frozen=True, kw_only=True):
    """The fleet, as one island sees it."""

    fleet: str
    node: str
    """This island."""
    state: LineState
    since: float
    """Since when it is in that state."""
    why: str = ""
    """Why it has not joined; empty if it has."""
    server: str = ""
    """The NATS server that it is connected to, or was last, with its version."""
    members: list[MemberInfo] = []
    """All islands, this one too, by name."""


class Backlog(Struct, frozen=True, kw_only=True):
    """Calls that answer later, counted."""

    waiting: int = 0
    """For their first attempt, or the next one."""
    running: int = 0
    oldest_s: float = 0.0
    """How long ago the oldest of those that wait was accepted; 0 if none waits."""
    dead: int = 0
    """Those that are kept."""
    ended: dict[str, int] = {}
    """Since the island's start, by their state: `done`, `dead`, `cancelled`."""
    callbacks_waiting: int = 0
    """Those to be sent, or sent again."""
    callbacks_ended: dict[str, int] = {}
    """Since the island's start: `delivered`, or `dead`."""


class Status(Struct, frozen=True, kw_only=True):
    """The island at one moment."""

    island: str
    version: str
    started_at: float
    draining: bool
    running: int
    queued: int
    """Calls that wait for a place."""
    driver: str
    storage: str
    policy: Policy
    pool: PoolStatus
    jails: list[JailInfo]
    addresses: list[AddressInfo]
    artifacts: list[Artifact]
    capabilities: list[Capability]
    ahead: str = ""
    """What the island does while nobody calls, and how far it is; empty when there is nothing."""
    places: int = 0
    """Places to run in use, of `Policy.max_running`."""
    calls: list[CallInfo] = []
    """Those under way, oldest first; a thousand at the most."""
    host: HostLoad | None = None
    """How busy the host is; None before it was read."""
    report: Report | None = None
    """Figures of the last five minutes: of the whole island and of each function."""
    fleet: FleetStatus | None = None
    """The fleet that it is a part of; None where it is alone."""


class Written(Struct, frozen=True, omit_defaults=True):
    """A part of what a jail wrote, to those who watch it. Bytes that are no UTF-8 are replaced."""

    stdout: str = ""
    stderr: str = ""
    cut: int = 0
    """So many bytes came before these, and are not kept."""
    ended: bool = False
    """The last part: the jail writes no more."""
    verdict: str = ""
    """In the last part, how the call ended; empty where that is not kept, and of a build."""


class ScheduleFigures(Struct, frozen=True, kw_only=True):
    """How the schedule of a name goes, for monitoring."""

    name: str
    next: float | None
    """When the name is called next, seconds since the epoch; None while it is paused."""
    last: float | None
    """The latest time that it was called for."""
    calls: int
    missed: int
    skipped: int
    waits: bool
    """A call that is due cannot be kept, or waits for the one before."""


class ByItself(Struct, frozen=True, kw_only=True):
    """What names do without being asked."""

    schedules: list[ScheduleFigures]
    pushes: dict[str, int]
    """Pushes by what became of them, since the island runs."""
