"""What `skyisland doctor` says of a fleet: its servers, and whether this island could join.

It listens for a moment, under this island's name and beside it, and says no pulse of its own. What is wrong
keeps the island from its fleet, and from nothing else: no check here is vital.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import nats.errors
import nats.js.errors

from skyisland.doctor import Check, version_in
from skyisland.errors import SettingsError
from skyisland.fleet.line import Away, Message
from skyisland.fleet.members import PULSE_S, Members, shared
from skyisland.fleet.natsline import NatsLine
from skyisland.fleet.opening import named, pools_of, shared_store
from skyisland.fleet.subjects import Subjects
from skyisland.later.lines import Room
from skyisland.settings import Settings
from skyisland.status import LineState

PATIENCE_S = 5.0
"""For the first connection: a server that is not there is refused at once, one that is cut off is not."""
LEAST_PAYLOAD_BYTES = 4_000_000
"""A call's arguments, and its output, have 1 MiB each."""
MOST_SKEW_S = 0.5
"""A call is not run that is nearly 2 s old by its sender's clock."""
MENDED = (2, 11, 9)
"""The first server that hands everything out again after another has become the leader of three."""


class FleetChecks:
    """The checks of one island's fleet (`doctor.Examiner`)."""

    def __init__(self, settings: Settings, room: Room, *, listens_s: float = PULSE_S * 1.3) -> None:
        """`room`: of calls that wait. `listens_s`: how long the others have to be heard.

        Raises:
            SettingsError: the host's name cannot be a node's.
        """
        self._settings, self._pools = named(settings.fleet), pools_of(settings)
        self._all, self._room = settings, room
        self._listens_s = listens_s
        self._subjects = Subjects(self._settings.name, self._settings.node)

    async def examine(self) -> list[Check]:
        line, members = NatsLine(self._settings, self._subjects.inbox), Members(self._subjects.node)
        # What it says of a line, the checks say, too.
        logger = logging.getLogger("skyisland.fleet")
        level, logger.level = logger.level, logging.CRITICAL
        try:
            try:
                await line.start(PATIENCE_S)
            except SettingsError as error:
                return [_check("fleet", error.message, "name files that this user may read")]
            if line.state is not LineState.joined:
                return [_check("fleet", f"its servers cannot be used: {line.why}", _remedy(line.why))]

            def hear(message: Message) -> None:
                members.hear(message)

            await line.listen(self._subjects.pulses, hear)
            await line.publish(self._subjects.hello, b"")
            await asyncio.sleep(self._listens_s)
            return [
                self._server(line),
                _payload(line),
                await self._replicas(line),
                _clock(members, self._subjects.node),
                self._addresses(members),
            ]
        except Away as away:
            return [_check("fleet", away.message, "look at the servers' log")]
        finally:
            logger.level = level
            await line.close()

    def _server(self, line: NatsLine) -> Check:
        old = self._settings.replicas > 1 and version_in(line.server.partition("(")[2]) < MENDED
        wanted = ".".join(map(str, MENDED))
        return _check(
            "fleet server",
            f"{line.server}{', which may forget to hand out a call when its leader changes' if old else ''}",
            f"install nats-server {wanted} or newer where there are three" if old else "",
        )

    async def _replicas(self, line: NatsLine) -> Check:
        """Copies of what is kept, as wanted and as they are."""
        client, wanted = line.client, self._settings.replicas
        servers = max(1, len({url.netloc for url in client.servers}))
        try:
            infos: list[Any] = await client.jetstream(timeout=PATIENCE_S).streams_info()
        except (nats.errors.Error, nats.js.errors.Error) as error:
            return _check("fleet store", f"JetStream does not answer: {error}", "turn it on in nats.conf")
        ours = [info.config for info in infos if info.config.name.endswith(f"_{self._settings.name}")]
        fewer = [one.name for one in ours if (one.num_replicas or 1) < wanted]
        if fewer:
            remedy = f"nats stream edit --replicas {wanted} for each"
            return _check("fleet store", f"fewer than {wanted} copies of {', '.join(fewer)}", remedy)
        there = {one.name for one in ours}
        if there and (lacks := await self._lacking(line, there)):
            return _check("fleet store", f"calls that answer later cannot be kept: {lacks[0]}", lacks[1])
        if servers >= 3 and wanted < 3:
            found = f"one copy of everything on {servers} servers: one that fails takes it along"
            return _check("fleet store", found, "set fleet.replicas = 3 on all islands")
        return _check(
            "fleet store", f"{len(there)} streams, {wanted} {'copy' if wanted == 1 else 'copies'} each"
        )

    async def _lacking(self, line: NatsLine, there: set[str]) -> tuple[str, str] | None:
        """The first stream that the servers cannot make, and the remedy. Only they know whether they can, so
        what is missing is made, as each island would within a second, and added to `there`."""
        for stream in shared_store(self._all, line, self._subjects, self._room).streams:
            if stream.name not in there:
                try:
                    await stream.make()
                except Away as away:
                    why, _, remedy = (stream.refused or away.message).partition("; ")
                    return why, remedy or "look at the servers' log"
                there.add(stream.name)
        return None

    def _addresses(self, members: Members) -> Check:
        segment = self._settings.segment
        for node in members.known():
            pulse = members.get(node)
            if pulse is not None and (both := shared(segment, self._pools, pulse)) is not None:
                found = f"{node} has {both[0]} to {both[1]} in the segment {segment}, too"
                return _check("fleet addresses", found, "give one of the two another network.ip4")
        return _check(
            "fleet addresses", "no other node of this segment has them" if segment else "no segment"
        )


def _payload(line: NatsLine) -> Check:
    small = line.largest_bytes < LEAST_PAYLOAD_BYTES
    return _check(
        "fleet messages",
        f"{line.largest_bytes} bytes at the most{', fewer than a call may need' if small else ''}",
        "max_payload: 4MB in nats.conf" if small else "",
    )


def _clock(members: Members, node: str) -> Check:
    skews = {one.node: one.ahead_s for one in members.infos() if one.node != node}
    off = [f"{name} by {skew:+.1f} s" for name, skew in skews.items() if abs(skew) > MOST_SKEW_S]
    if off:
        remedy = "set the clocks by NTP (timedatectl set-ntp true, ntpd_enable=YES)"
        return _check("fleet clocks", f"other than this one: {', '.join(off)}", remedy)
    return _check("fleet clocks", f"those of {len(skews)} other nodes agree with this one")


def _remedy(why: str) -> str:
    if "older than" in why:
        return "install a newer nats-server"
    if "ertificate" in why or "SSL" in why:
        return "make certificates by the certificates.sh of skyisland fleet init"
    return "start nats-server, and open its port to this host"


def _check(name: str, found: str, remedy: str = "") -> Check:
    return Check(name=name, ok=not remedy, found=found, remedy=remedy)
