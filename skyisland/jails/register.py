"""All jails of an island.

`Jails` gives each jail its number, name, host uid, clone and address, keeps the register that operators
see, and publishes the facts. It promises that everything made for a jail is taken back, whatever happens
to the caller: an error, a cancellation at any point, the island's end. Jails are taken back in the
background, after the answer; only `drain` waits for it.

A clone that ran guest code is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from msgspec import structs

from skyisland.errors import DriverError, IslandError, JailNotFound
from skyisland.events import (
    AddressLeased,
    AddressReleased,
    CloneCreated,
    CloneDestroyed,
    Events,
    JailClaimed,
    JailCreated,
    JailDestroyed,
    JailKilled,
)
from skyisland.host.tasks import Background
from skyisland.host.uids import Uids
from skyisland.jails.driver import CloneDriver, JailDriver, jail_prefix
from skyisland.jails.inmate import Inmate, JailOrder
from skyisland.model import Address, Clone, JailSpec, NetworkAccess, Purpose, Snapshot
from skyisland.status import Capability, JailInfo, JailState, Usage

log = logging.getLogger(__name__)

BROKEN_S = 30.0
"""How long a jail that could not be made counts. Load balancers send no calls meanwhile, so after that
somebody must try again."""

SAMPLES_PER_TURN = 16
"""Jails whose usage is sampled in one turn of the event loop: that takes less than a millisecond."""


class AddressPool(Protocol):
    """What `Addresses` (addresses.py) gives the jails: leases."""

    @property
    def name_servers(self) -> tuple[str, ...]:
        """Name servers of jails that may get an address."""
        ...

    async def lease(self, jail: str, invocation: str) -> Address:
        """The lowest free address, put on record for `jail`; the invocation has had its turn.

        Raises:
            NoAddress: none is free.
            HostUnfit: this host or these rights cannot give a jail an interface.
        """
        ...

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        """See `NetworkDriver.attach`."""
        ...

    async def release(self, address: Address, jail: str) -> None:
        """Take the interface away and the address back; may be repeated."""
        ...


class Jails:
    """All jails of this island."""

    def __init__(
        self,
        driver: JailDriver,
        clones: CloneDriver,
        addresses: AddressPool,
        events: Events,
        *,
        island: str,
        uids: Iterable[int] | None,
        uid_locks: Path | None = None,
        first_number: int = 1,
    ) -> None:
        """`island`: this island's tag in names, which numbers from `first_number` on follow. `uids`:
        unprivileged host uids, None when not root.

        Each jail has one of `uids` to itself, unless its order names another. `uid_locks`: see `Uids`.
        """
        self.driver = driver
        self.clones = clones
        self.addresses = addresses
        self.events = events
        self.prefix = jail_prefix(island)
        self._numbers = itertools.count(first_number)
        self._uids = None if uids is None else Uids(uids, uid_locks)
        self._register: dict[str, Inmate] = {}
        """By name."""
        self._undestroyed: list[Inmate] = []
        """Discarded, and the host could not destroy the jail: the next sweep tries again."""
        self._cleaning = Background()
        self._failure: tuple[float, str] | None = None
        """When no jail could be made (monotonic), and why; None once one could."""
        self._base: Snapshot | None = None

    @property
    def broken(self) -> str:
        """Why the latest jail could not be made, if that was within `BROKEN_S`; else nothing."""
        if self._failure is None or time.monotonic() - self._failure[0] > BROKEN_S:
            return ""
        return self._failure[1]

    # Life of the island

    async def prepare(self) -> int:
        """Make the base ready and sweep what an earlier life left.

        Returns how many jails and clones were swept.

        Raises:
            HostUnfit, DriverError: this host can make no jails; the text names the remedy.
        """
        if self._uids is not None and not self._uids.enter():
            log.warning(
                "another island of this host has the same host uids: no two jails get one of them at a time, "
                "but builds do; set jails.uid_start to a range of its own"
            )
        self._base = await self.clones.prepare()
        await self.driver.prepare(self._base)
        return await self.sweep()

    async def sweep(self) -> int:
        """Take away every jail and clone on the host that has our prefix and is not in the register, and try
        again to destroy jails that could not be destroyed before.

        Returns how many there were. One that cannot be taken away is logged, and holds up neither the others
        nor the start of the island.
        """
        again, self._undestroyed = self._undestroyed, []
        for inmate in again:
            await self._unmake(inmate)
        swept = len(again) - len(self._undestroyed)
        alive = {inmate.spec.name for inmate in self._register.values()}
        for name in await self.driver.existing():
            if name.startswith(self.prefix) and name not in alive:
                swept += await self._step("remove the jail", name, self.driver.remove(name))
        for clone in await self.clones.existing():
            if clone.name.startswith(self.prefix) and clone.name not in alive:
                swept += await self._step("destroy the clone", clone.name, self.clones.destroy(clone))
        return swept

    async def drain(self) -> None:
        """Wait until all discarded jails are gone."""
        await self._cleaning.drain()

    async def close(self) -> None:
        """Kill all jails and take them away."""
        await self.kill_all("the island stops")
        await self.drain()
        await self.driver.close()
        await self.clones.close()
        if self._uids is not None:
            self._uids.close()

    # One jail

    @asynccontextmanager
    async def jail(self, order: JailOrder) -> AsyncIterator[Inmate]:
        """A fresh jail for the length of the block, made as `make` makes it."""
        inmate = await self.make(order)
        try:
            yield inmate
        finally:
            self.discard(inmate)

    async def make(self, order: JailOrder) -> Inmate:
        """A jail whose process waits for its input. The caller must `discard` it.

        Raises:
            NoAddress, HostUnfit, DriverError: it cannot be made; nothing is left of it.
        """
        assert self._base is not None, "prepare first"  # noqa: S101
        number = next(self._numbers)
        name = f"{self.prefix}{number:x}"
        spec = JailSpec(
            name=name,
            jid=number,
            clone=Clone(name, self._base, None),
            argv=order.argv,
            mounts=order.mounts,
            env=order.env,
            cwd=order.cwd,
            limits=order.limits,
            network=order.network,
            dns=self.addresses.name_servers if order.purpose is Purpose.function else (),
            uid=order.uid if order.uid is not None or self._uids is None else await self._uids.take(),
        )
        inmate = Inmate(spec, order)
        self._register[name] = inmate
        # A task of its own makes the jail. If the caller is cancelled meanwhile it comes to its end all the
        # same, and what it made is taken back like any other jail.
        making = asyncio.ensure_future(self._make(inmate))
        try:
            await asyncio.shield(making)
        except BaseException as error:
            if isinstance(error, DriverError):
                self._failure = (time.monotonic(), error.message)
            inmate.state = JailState.dying
            self._cleaning.start(self._unmake(inmate, making))
            raise
        return inmate

    async def claim(
        self, inmate: Inmate, invocation: str, call: str, network: NetworkAccess = NetworkAccess.none
    ) -> None:
        """Give a warm jail to an invocation, with an address if `network` is a lease.

        Raises:
            NoAddress, HostUnfit, DriverError: there is no address; the jail is still to be discarded.
        """
        inmate.invocation, inmate.call, inmate.cached = invocation, call, True
        inmate.state = JailState.running
        if network is NetworkAccess.lease:
            await self._lease(inmate)
            await self._connect(inmate)
        self.events.publish(JailClaimed(jail=inmate.spec.name, jid=inmate.spec.jid, invocation=invocation))

    def discard(self, inmate: Inmate) -> None:
        """Take a jail away, in the background. May be repeated."""
        if inmate.state is not JailState.dying:
            inmate.state = JailState.dying
            self._cleaning.start(self._unmake(inmate))

    async def _make(self, inmate: Inmate) -> None:
        started = time.perf_counter()
        spec = inmate.spec
        assert self._base is not None  # noqa: S101 - checked by `make`
        clone = await self.clones.clone(self._base, spec.name)
        inmate.spec = spec = structs.replace(spec, clone=clone)
        self.events.publish(
            CloneCreated(
                clone=clone.name, duration_s=time.perf_counter() - started, invocation=inmate.invocation
            )
        )
        if spec.network is NetworkAccess.lease:
            await self._lease(inmate)
        spec = inmate.spec
        inmate.jail = await self.driver.create(spec)
        inmate.spec = spec = inmate.jail.spec
        await self._connect(inmate)
        self._failure = None
        inmate.state = JailState.warm if inmate.warm else JailState.running
        if inmate.killed:
            await inmate.jail.kill()
        self.events.publish(
            JailCreated(
                jail=spec.name,
                jid=spec.jid,
                pid=inmate.jail.pid,
                purpose=inmate.purpose,
                url=inmate.artifact.url if inmate.artifact else "",
                call=inmate.call,
                ip4=spec.address.ip if spec.address else None,
                duration_s=time.perf_counter() - started,
                invocation=inmate.invocation,
            )
        )

    async def _lease(self, inmate: Inmate) -> None:
        name = inmate.spec.name
        address = await self.addresses.lease(name, inmate.invocation or "")
        inmate.spec = structs.replace(inmate.spec, address=address)
        self.events.publish(AddressLeased(ip=address.ip, jail=name, invocation=inmate.invocation))

    async def _connect(self, inmate: Inmate) -> None:
        """Give a living jail its interface, if the driver has not done so. Its process waits for input."""
        address, jail = inmate.spec.address, inmate.jail
        if address is not None and jail is not None and jail.pid and self.connects_late:
            await self.addresses.attach(address, inmate.spec.name, jail.pid, jail.pidfd)

    async def _unmake(self, inmate: Inmate, making: asyncio.Future[None] | None = None) -> None:
        """Take back what was made, in the order that the host needs; a step that fails stops no other.

        Only what succeeded is published. A jail that cannot be destroyed stays in the register and keeps its
        uid: another jail under that uid could signal and trace its processes.
        """
        if making is not None:
            with contextlib.suppress(Exception):
                await making
        started = time.perf_counter()
        spec, jail = inmate.spec, inmate.jail
        destroyed = jail is None or await self._step("destroy the jail", spec.name, jail.destroy())
        if spec.address is not None:
            release = self.addresses.release(spec.address, spec.name)
            if await self._step("release the address", spec.name, release):
                inmate.spec = structs.replace(spec, address=None)
                self.events.publish(AddressReleased(ip=spec.address.ip, jail=spec.name))
        if await self._step("destroy the clone", spec.name, self.clones.destroy(spec.clone)):
            self.events.publish(CloneDestroyed(clone=spec.name, duration_s=time.perf_counter() - started))
        if not destroyed:
            self._undestroyed.append(inmate)
            return
        if self._uids is not None and spec.uid is not None and spec.uid in self._uids:
            self._uids.give_back(spec.uid)
        del self._register[spec.name]
        if jail is not None:
            self.events.publish(
                JailDestroyed(jail=spec.name, jid=spec.jid, duration_s=time.perf_counter() - started)
            )

    async def _step(self, what: str, name: str, step: Coroutine[Any, Any, None]) -> bool:
        """Try one step; whether it succeeded."""
        try:
            await step
        except (IslandError, OSError):
            # What is left bears our prefix, so the sweep of the next start finds it.
            log.exception("cannot %s %s", what, name)
            return False
        return True

    # What the host enforces

    @property
    def connects_late(self) -> bool:
        """Whether a living jail can be given an address, as a warm one needs."""
        return self.driver.connects_late

    def capabilities(self) -> list[Capability]:
        """What driver and storage enforce here."""
        return [*self.driver.capabilities(), *self.clones.capabilities()]

    # The register

    async def sample_usage(self) -> None:
        """Ask the host what every jail uses, for `living` and `usage`.

        That is some system calls per jail, so calls get their turns in between. Samples are shared by all
        who ask within `USAGE_S`.
        """
        sampled = 0
        for inmate in list(self._register.values()):
            sampled += inmate.sample_usage()
            if sampled == SAMPLES_PER_TURN:
                sampled = 0
                await asyncio.sleep(0)

    def usage(self) -> dict[str, Usage]:
        """The latest sample of each jail, by its name."""
        return {inmate.spec.name: inmate.usage for inmate in self._register.values()}

    def living(self) -> list[JailInfo]:
        return [inmate.info() for inmate in self._register.values()]

    def find(self, jail: str | int) -> Inmate:
        """By number or name.

        Raises:
            JailNotFound: this island has no such jail; jails of others are never touched.
        """
        if (named := self._register.get(str(jail))) is not None:
            return named
        numbered = [inmate for inmate in self._register.values() if str(inmate.spec.jid) == str(jail)]
        if not numbered:
            raise JailNotFound(f"this island has no jail {str(jail)!r}", jail=str(jail))
        # One in the making has the number of its name, which the kernel may have given to another.
        return min(numbered, key=lambda inmate: inmate.jail is None)

    def working_for(self, invocation: str) -> Inmate | None:
        """The jail of this invocation, if it has one now."""
        return next((one for one in self._register.values() if one.invocation == invocation), None)

    async def kill(self, jail: str | int, reason: str = "killed by the operator") -> JailInfo:
        """Kill a jail; its caller gets an outcome that says so.

        Raises:
            JailNotFound
        """
        inmate = self.find(jail)
        info = inmate.info()
        started = time.perf_counter()
        inmate.killed = inmate.killed or reason
        if inmate.jail is not None:
            await inmate.jail.kill()
        self.events.publish(
            JailKilled(
                jail=info.name,
                jid=info.jid,
                reason=reason,
                duration_s=time.perf_counter() - started,
                invocation=inmate.invocation,
            )
        )
        return info

    async def kill_all(self, reason: str = "killed by the operator") -> list[JailInfo]:
        """Kill all jails that nobody has killed or discarded; returns them."""
        killed = []
        for name, inmate in list(self._register.items()):
            if inmate.killed is None and inmate.state is not JailState.dying:
                with contextlib.suppress(JailNotFound):
                    killed.append(await self.kill(name, reason))
        return killed
