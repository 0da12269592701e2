"""Every protocol that a driver keeps: `JailDriver` with its `Jail`, `CloneDriver`, `NetworkDriver`.

A driver changes the host, and nothing else: it has no locks, events, leases or deadlines. Those are around
it, in this folder. What it makes has the name that it is given (a clone and an interface that of their jail),
so what a killed island left is found again by its name. All that takes something away may be repeated. A
driver fails with `DriverError` or `HostUnfit`, whose text has the host's own words and the remedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from skyisland.host.process import Running
from skyisland.model import Address, Clone, JailSpec, Snapshot
from skyisland.status import Capability, Usage

MOUNT_POINTS = ("dev", "proc", "usr/local/go", "src", "gen", "std", "mod", "cache", "out", "helper")
"""Folders where jails have something mounted. The base has them where the jail's own root is read-only."""


def jail_prefix(island: str) -> str:
    """What the names of an island's jails begin with: its reaper touches no others."""
    return f"sky-{island}-"


def jail_number(name: str) -> int:
    """The number that an island gave to a jail and to no other: the end of its name."""
    return int(name.rpartition("-")[2], 16)


def island_tag(island: str) -> str:
    """A hash of the island's name in four characters, for names of interfaces: they have 15 at most."""
    return hashlib.sha256(island.encode()).hexdigest()[:4]


def resolv_conf(name_servers: Iterable[str]) -> bytes:
    """The file of a jail that asks these (resolv.conf(5))."""
    return "".join(f"nameserver {server}\n" for server in name_servers).encode()


class JailDriver(Protocol):
    """Makes jails on this host."""

    name: str
    connects_late: bool
    """A living jail can be given an address, by `NetworkDriver.attach` with its pid."""

    async def prepare(self, base: Snapshot) -> None:
        """Make ready for jails on clones of `base`, and try one. May be repeated.

        Raises:
            HostUnfit: this host cannot make jails; the text names the remedy.
        """
        ...

    async def create(self, spec: JailSpec) -> Jail:
        """A jail whose process is started and waits for its standard input.

        Its `spec` has the kernel's number where the kernel numbers jails.

        Raises:
            DriverError, HostUnfit: nothing of the attempt is left.
        """
        ...

    async def existing(self) -> list[str]:
        """The names of this island's jails on the host, those of an earlier life included."""
        ...

    async def remove(self, name: str) -> None:
        """Kill a jail and take it away, by its name alone: one of an earlier life. May be repeated."""
        ...

    async def close(self) -> None:
        """Take away what `prepare` made."""
        ...

    def capabilities(self) -> list[Capability]:
        """What this driver enforces here, and what it cannot."""
        ...


class Jail(Protocol):
    """A living jail, as its driver made it."""

    spec: JailSpec

    @property
    def process(self) -> Running:
        """Its process. The pipes are the function's standard streams."""
        ...

    @property
    def pid(self) -> int | None:
        """The process id of the jail's first process, as the host counts; None where that is not known."""
        ...

    @property
    def pidfd(self) -> int | None:
        """A descriptor of that process, by which whoever uses `pid` finds out that it is still the same one;
        None where there is none."""
        ...

    async def kill(self) -> None:
        """Kill every process in it. May be repeated."""
        ...

    async def destroy(self) -> None:
        """Kill, and take away all that the driver made for it. May be repeated."""
        ...

    def ended(self) -> tuple[int | None, int | None]:
        """Exit code and signal of the process that has ended, one of them None.

        Raises:
            DriverError: it never started; the text says why.
        """
        ...

    def ran_out_of_memory(self) -> bool:
        """Whether a process of the jail was killed for the limit on memory."""
        ...

    def filled_its_disk(self) -> bool:
        """Whether no room was left for files when its process ended; False where the driver cannot know."""
        ...

    def usage(self) -> Usage:
        """What it uses now. A few system calls, which do not wait."""
        ...


class CloneDriver(Protocol):
    """Makes and destroys clones of the base system."""

    name: str

    async def prepare(self) -> Snapshot:
        """Find the base system, or make it; its snapshot. May be repeated.

        Raises:
            DriverError, HostUnfit
        """
        ...

    async def clone(self, base: Snapshot, name: str) -> Clone:
        """A fresh clone of `base` for the jail `name`.

        Raises:
            DriverError: nothing of the attempt is left.
        """
        ...

    async def destroy(self, clone: Clone) -> None:
        """Remove a clone with all that was written to it. May be repeated."""
        ...

    async def existing(self) -> list[Clone]:
        """Every clone on the host, those of an earlier life included."""
        ...

    async def close(self) -> None:
        """Remove what was made ahead of any jail. May be repeated."""
        ...

    def capabilities(self) -> list[Capability]:
        """What this storage enforces here, and what it cannot."""
        ...


class NetworkDriver(Protocol):
    """Gives jails their interfaces on this host. `Addresses` decides which address each gets."""

    async def prepare(self) -> int:
        """Learn what this host can do, and remove what an earlier life of this island left.

        Returns how much was removed. Makes nothing that stays. May be repeated.

        Raises:
            HostUnfit: it cannot give a jail an interface; the text names the remedy.
        """
        ...

    async def open(self, dns: tuple[str, ...]) -> None:
        """Make or mend what all jails share, their way to these name servers included.

        It comes before each lease, so it is quick when there is nothing to do.

        Raises:
            HostUnfit, DriverError
        """
        ...

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        """Give the network namespace of process `pid` an interface with this address. With `pidfd`, only if
        `pid` is still the number of that process.

        Raises:
            DriverError: nothing of the attempt is left.
        """
        ...

    async def detach(self, jail: str) -> None:
        """Take the jail's interface away. May be repeated."""
        ...

    async def close(self) -> None:
        """Remove all that it made. May be repeated."""
        ...

    def capabilities(self) -> list[Capability]:
        """Whether jails can have interfaces here (`network`), and what protects the host from them."""
        ...
