"""Every protocol that a driver keeps: `JailDriver` with its `Jail`, `CloneDriver`, `NetworkDriver`.

A driver does one thing to the host, when it is told to. It is naive: no locks, no events, no leases, no
deadlines; those are around it, in this folder. It names what it makes by the name that it is given (a clone
and an interface have the name of their jail), so that what a killed island left can be found again by its
name, and whatever takes something away may be repeated. A driver fails with `DriverError` or `HostUnfit`,
whose text has the host's own words and the remedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from skyisland.host.process import Running
from skyisland.model import Address, Capability, Clone, JailSpec, Snapshot, Usage

MOUNT_POINTS = ("dev", "proc", "usr/local/go", "src", "gen", "std", "mod", "cache", "out", "helper")
"""Folders that jails have something mounted at; where nobody else can make them, the base has them."""


def jail_prefix(island: str) -> str:
    """What the names of an island's jails begin with: its reaper touches no others."""
    return f"sky-{island}-"


def island_tag(island: str) -> str:
    """A hash of the island's name in four characters, for names of interfaces: they have 15 at most."""
    return hashlib.sha256(island.encode()).hexdigest()[:4]


def resolv_conf(name_servers: Iterable[str]) -> bytes:
    """The file of a jail that asks these (resolv.conf(5))."""
    return "".join(f"nameserver {server}\n" for server in name_servers).encode()


class JailDriver(Protocol):
    """Makes jails on this host. Naive: locks, events, leases and deadlines live around it."""

    name: str
    connects_late: bool
    """A living jail can be given an address (`AddressPool.attach` with its pid)."""

    async def prepare(self, base: Snapshot) -> None:
        """Whatever is needed once per start of the island, a trial included; may be repeated.

        Raises:
            HostUnfit: this host cannot make jails; the text names the remedy.
        """
        ...

    async def create(self, spec: JailSpec) -> Jail:
        """A jail whose process is started and waits for its standard input.

        If it raises, nothing of the attempt is left.

        Raises:
            DriverError, HostUnfit: with the host program's own words.
        """
        ...

    async def existing(self) -> list[str]:
        """Names of this island's jails on the host, those of an earlier life included."""
        ...

    async def remove(self, name: str) -> None:
        """Kill and take away a jail by its name alone, for the reaper. May be repeated."""
        ...

    async def close(self) -> None:
        """Take back what `prepare` made for this run."""
        ...

    def capabilities(self) -> list[Capability]: ...


class Jail(Protocol):
    """A living jail, as its driver made it."""

    spec: JailSpec

    @property
    def process(self) -> Running:
        """The process in it, whose pipes are the function's standard streams."""
        ...

    @property
    def pid(self) -> int | None:
        """The host's number of the jail's first process."""
        ...

    async def kill(self) -> None:
        """End every process in it, at once. May be repeated."""
        ...

    async def destroy(self) -> None:
        """Kill, and take away all that the driver made for it. May be repeated."""
        ...

    def ended(self) -> tuple[int | None, int | None]:
        """Exit code or signal of the process that has ended, one of them None.

        Raises:
            DriverError: it never started; the text says why.
        """
        ...

    def ran_out_of_memory(self) -> bool: ...

    def filled_its_disk(self) -> bool:
        """Whether there was no room left for files when its process ended, as far as the driver can tell."""
        ...

    def usage(self) -> Usage: ...


class CloneDriver(Protocol):
    """Makes and destroys clones of the base system."""

    name: str

    async def prepare(self) -> Snapshot:
        """Bring the base system into being, or find it; may be repeated.

        Raises:
            DriverError, HostUnfit: with the host program's own words and the remedy.
        """
        ...

    async def clone(self, base: Snapshot, name: str) -> Clone:
        """A fresh clone of `base` for the jail `name`."""
        ...

    async def destroy(self, clone: Clone) -> None:
        """Remove it and all that was written to it; a clone that is gone already is no error."""
        ...

    async def existing(self) -> list[Clone]:
        """Every clone that exists on the host, for the reaper."""
        ...

    async def close(self) -> None:
        """Take back what was made ahead of any jail; may be repeated."""
        ...

    def capabilities(self) -> list[Capability]:
        """What this storage enforces here."""
        ...


class NetworkDriver(Protocol):
    """Gives jails interfaces on this host. Naive: leases and their order are the pool's."""

    async def prepare(self) -> int:
        """Learn what this host can do, and remove what an earlier life of this island left; how much
        that was. Makes nothing that stays, may be repeated.

        Raises:
            HostUnfit: it cannot give a jail an interface; the text names the remedy.
        """
        ...

    async def open(self, dns: tuple[str, ...]) -> None:
        """Make, or mend, what all jails share, their way to these name servers included. Quick when there
        is nothing to do.

        Raises:
            HostUnfit, DriverError
        """
        ...

    async def attach(self, address: Address, jail: str, pid: int) -> None:
        """Give the network namespace of process `pid` an interface with this address.

        Raises:
            DriverError: nothing of the attempt is left.
        """
        ...

    async def detach(self, jail: str) -> None:
        """Take the jail's interface away. May be repeated; one that is gone already is no error."""
        ...

    async def close(self) -> None:
        """Take back everything. May be repeated."""
        ...

    def capabilities(self) -> list[Capability]: ...
