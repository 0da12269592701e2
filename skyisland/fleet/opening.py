"""From settings to a fleet: its line, its buckets, and what stands on them. Here its drivers are chosen."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import structs

from skyisland import __version__
from skyisland.errors import SettingsError
from skyisland.fleet.binaries import Binaries
from skyisland.fleet.buckets import NatsBucket
from skyisland.fleet.commits import Known, SharedCommits
from skyisland.fleet.files import NatsFiles
from skyisland.fleet.fleet import Fleet, Origin
from skyisland.fleet.names import NatsNames
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.spool import SpooledStore
from skyisland.fleet.store import NatsStore
from skyisland.fleet.subjects import Subjects
from skyisland.host.toolchain import this_platform
from skyisland.later.keeping import NotKept, Store
from skyisland.later.lines import Room
from skyisland.named.names import Names
from skyisland.settings import Fleet as Section
from skyisland.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""For the first connection to the servers. An island that cannot have it starts alone."""
LEASES_KEPT_S = 60.0
"""By the servers. Islands tell a lease that is nobody's within seconds."""


@asynccontextmanager
async def opened(settings: Settings, known: Known) -> AsyncIterator[Fleet]:
    """The fleet that the settings name, which the island has not joined yet. `known`: what the island
    remembers of remotes itself.

    Raises:
        SettingsError: a file of `[fleet]` cannot be used, or the host's name is no island's.
    """
    section = named(settings.fleet)
    subjects = Subjects(section.name, section.node)
    line = NatsLine(section, subjects.inbox)
    origin = Origin(
        platform="-".join(this_platform()),
        version=__version__,
        segment=section.segment,
        pools=pools_of(settings),
    )

    def bucket(kind: str, keep_s: float, replicas: int) -> NatsBucket:
        return NatsBucket(line, subjects.bucket(kind), replicas=replicas, keep_s=keep_s)

    # Leases and answers of remotes outlive a server; of a binary that is lost, an island compiles its own.
    unused_s = settings.jails.cache_purge_after
    commits = bucket("COMMITS", settings.jails.cache_default_expiration, section.replicas)
    leases, offers = bucket("LEASE", LEASES_KEPT_S, section.replicas), bucket("BUILT", unused_s, 1)
    limit_bytes = settings.build.cache_limit
    files = NatsFiles(line, subjects.bucket("BIN"), keep_s=unused_s, limit_bytes=limit_bytes)
    fleet = Fleet(
        subjects,
        line,
        origin,
        SharedCommits(subjects, line, commits, known),
        Binaries(subjects, line, leases, offers, files, verify=section.verify),
    )
    try:
        await line.start(PATIENCE_S)
        await fleet.open()
        yield fleet
    finally:
        await line.close()


async def names_of(settings: Settings, fleet: Fleet) -> Names:
    """What keeps names, for all islands."""
    return await NatsNames.open(
        _line_of(fleet), fleet.subjects, settings.layout.fleet_names, replicas=settings.fleet.replicas
    )


async def store_of(settings: Settings, fleet: Fleet, own: Store | NotKept, room: Room) -> Store:
    """What keeps calls that answer later, for all islands. `own`: what keeps those of this one alone."""
    shared = await shared_store(settings, _line_of(fleet), fleet.subjects, room).open()
    if isinstance(own, NotKept):
        log.error("calls of this island's own are not kept: %s", own.message)
        return shared
    return await SpooledStore.open(shared, own, lambda: settings.fleet.spool and not fleet.up)


def shared_store(settings: Settings, line: NatsLine, subjects: Subjects, room: Room) -> NatsStore:
    """That of the fleet, not opened yet."""
    bounds = settings.async_
    return NatsStore(
        line,
        subjects,
        room,
        keep_s=bounds.keep,
        keep_dead_s=bounds.keep_dead,
        limit_bytes=bounds.results_limit,
        replicas=settings.fleet.replicas,
    )


def _line_of(fleet: Fleet) -> NatsLine:
    assert isinstance(fleet.line, NatsLine)  # noqa: S101 - `opened` gave it one
    return fleet.line


def named(section: Section) -> Section:
    """The section, with a name for this island where the host's is it.

    Raises:
        SettingsError: that cannot be one.
    """
    return structs.replace(section, node=section.node or node_name(socket.gethostname()))


def pools_of(settings: Settings) -> tuple[tuple[str, str], ...]:
    """First and last address of each pool."""
    return tuple((str(one.first), str(one.last)) for one in settings.network.ip4.ranges)


def node_name(host: str) -> str:
    """The name of an island in its fleet, made of its host's name.

    Raises:
        SettingsError: that cannot be one.
    """
    name = host.partition(".")[0].lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
        raise SettingsError(f"fleet.node: the host's name {host!r} cannot be the island's; set one")
    return name
