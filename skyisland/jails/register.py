"""All jails of an island.

`Jails` gives each one its number, name, host uid, clone and address, keeps the register that operators
see, publishes the facts, and promises that whatever happens to the caller (an error, a cancellation at
any point, the island's end) everything made for a jail is taken back. Taking back happens after the
answer: nobody waits for it but `drain`.

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
from typing import Any, Protocol

from msgspec import structs

from skyisland.errors import IslandError, JailNotFound
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
from skyisland.jails.driver import CloneDriver, JailDriver, jail_prefix
from skyisland.jails.inmate import Inmate
from skyisland.model import (
    Address,
    Artifact,
    Clone,
    JailInfo,
    JailSpec,
    JailState,
    Limits,
    Mount,
    Network,
    Snapshot,
    Usage,
)

log = logging.getLogger(__name__)

FEW = 16
"""Jails that are looked at in one turn of the event loop."""


class AddressPool(Protocol):
    """What `addresses.py` gives the jails: leases on addresses."""

    @property
    def name_servers(self) -> tuple[str, ...]:
        """What a jail that may get an address asks for names."""
        ...

    async def lease(self, jail: str) -> Address:
        """The lowest free address, put on record for `jail`.

        Raises:
            NoAddress: none is free.
            HostUnfit: this host or these rights cannot give a jail an interface.
        """
        ...

    async def attach(self, address: Address, jail: str, pid: int) -> None:
        """Give the network namespace of process `pid` an interface with this address."""
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
        first_jid: int = 1,
    ) -> None:
        """`island`: this island's tag in names. `uids`: unprivileged host uids, None when not root.

        Each jail has one of `uids` to itself, unless `jail` is told another.
        """
        self.driver = driver
        self.clones = clones
        self.addresses = addresses
        self.events = events
        self.prefix = jail_prefix(island)
        self._jids = itertools.count(first_jid)
        self._range = frozenset(uids or ())
        self._uids: asyncio.Queue[int] | None = None
        if uids is not None:
            self._uids = asyncio.Queue()
            for uid in sorted(self._range):
                self._uids.put_nowait(uid)
        self._register: dict[int, Inmate] = {}
        self._cleaning = Background()
        self._base: Snapshot | None = None

    # Life of the island

    async def prepare(self) -> int:
        """Make the base ready and sweep what an earlier life left; returns how much that was."""
        self._base = await self.clones.prepare()
        await self.driver.prepare(self._base)
        return await self.sweep()

    async def sweep(self) -> int:
        """Take away every jail and clone on the host that bears this island's name and is not alive."""
        alive = {inmate.spec.name for inmate in self._register.values()}
        swept = 0
        for name in await self.driver.existing():
            if name.startswith(self.prefix) and name not in alive:
                await self.driver.remove(name)
                swept += 1
        for clone in await self.clones.existing():
            if clone.name.startswith(self.prefix) and clone.name not in alive:
                await self.clones.destroy(clone)
                swept += 1
        return swept

    async def drain(self) -> None:
        """Wait until everything that is being taken back is gone."""
        await self._cleaning.drain()

    async def close(self) -> None:
        """Kill and take away all jails."""
        await self.kill_all("the island stops")
        await self.drain()
        await self.driver.close()
        await self.clones.close()

    # One jail

    @asynccontextmanager
    async def jail(self, argv: tuple[str, ...], **order: Any) -> AsyncIterator[Inmate]:
        """A fresh jail for the length of the block, made as `make` makes it."""
        inmate = await self.make(argv, **order)
        try:
            yield inmate
        finally:
            self.discard(inmate)

    async def make(
        self,
        argv: tuple[str, ...],
        *,
        purpose: str,
        limits: Limits,
        mounts: tuple[Mount, ...] = (),
        env: tuple[tuple[str, str], ...] = (),
        cwd: str = "/",
        network: Network = Network.none,
        uid: int | None = None,
        warm: bool = False,
        invocation: str | None = None,
        artifact: Artifact | None = None,
        call: str = "",
        cached: bool = False,
    ) -> Inmate:
        """A jail whose process waits for its input; whoever asked for it must `discard` it.

        `uid`: a host uid outside the range, for jails that keep files from one to the next (builds).
        `warm`: it is made ahead and works for nobody until it is claimed.

        Raises:
            NoAddress, HostUnfit, DriverError: it cannot be made; nothing is left of it.
        """
        assert self._base is not None, "prepare first"  # noqa: S101
        jid = next(self._jids)
        name = f"{self.prefix}{jid:x}"
        spec = JailSpec(
            name=name,
            jid=jid,
            clone=Clone(name, self._base, None),
            argv=argv,
            mounts=mounts,
            env=env,
            cwd=cwd,
            limits=limits,
            network=network,
            dns=self.addresses.name_servers if purpose == "function" else (),
            uid=uid if uid is not None or self._uids is None else await self._uids.get(),
        )
        inmate = Inmate(spec, purpose, artifact)
        inmate.work_for(invocation, call, cached=cached)
        self._register[jid] = inmate
        # The making runs in a task of its own: a caller that is cancelled half-way leaves it to come to
        # its end, and what it made is taken back like any other jail.
        making = asyncio.ensure_future(self._make(inmate, JailState.warm if warm else JailState.running))
        try:
            await asyncio.shield(making)
        except BaseException:
            inmate.state = JailState.dying
            self._cleaning.start(self._unmake(inmate, making))
            raise
        return inmate

    async def claim(
        self, inmate: Inmate, invocation: str, call: str, network: Network = Network.none
    ) -> None:
        """Give a warm jail to an invocation, and an address if it needs one.

        Raises:
            NoAddress, HostUnfit, DriverError: there is no address; the jail is still to be discarded.
        """
        inmate.work_for(invocation, call, cached=True)
        inmate.state = JailState.running
        if network is Network.lease:
            await self._lease(inmate)
            await self._connect(inmate)
        self.events.publish(JailClaimed(jail=inmate.spec.name, jid=inmate.spec.jid, invocation=invocation))

    def discard(self, inmate: Inmate) -> None:
        """Take a jail back, in the background. May be repeated."""
        if inmate.state is not JailState.dying:
            inmate.state = JailState.dying
            self._cleaning.start(self._unmake(inmate))

    async def _make(self, inmate: Inmate, state: JailState) -> None:
        started = time.perf_counter()
        spec = inmate.spec
        assert self._base is not None  # noqa: S101 - checked by `jail`
        clone = await self.clones.clone(self._base, spec.name)
        inmate.spec = spec = structs.replace(spec, clone=clone)
        self.events.publish(
            CloneCreated(
                clone=clone.name, duration_s=time.perf_counter() - started, invocation=inmate.invocation
            )
        )
        if spec.network is Network.lease:
            await self._lease(inmate)
        spec = inmate.spec
        inmate.jail = await self.driver.create(spec)
        await self._connect(inmate)
        inmate.state = state
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
        address = await self.addresses.lease(name)
        inmate.spec = structs.replace(inmate.spec, address=address)
        self.events.publish(AddressLeased(ip=address.ip, jail=name, invocation=inmate.invocation))

    async def _connect(self, inmate: Inmate) -> None:
        """Give a living jail its interface, where that is how it gets one; its function waits meanwhile."""
        address, jail = inmate.spec.address, inmate.jail
        if address is not None and jail is not None and jail.pid and self.driver.connects_late:
            await self.addresses.attach(address, inmate.spec.name, jail.pid)

    async def _unmake(self, inmate: Inmate, making: asyncio.Future[None] | None = None) -> None:
        """Take back whatever was made, in the order that the host needs; try every step."""
        if making is not None:
            with contextlib.suppress(Exception):
                await making
        started = time.perf_counter()
        spec = inmate.spec
        if inmate.jail is not None:
            await self._step("destroy the jail", spec.name, inmate.jail.destroy())
        if spec.address is not None:
            release = self.addresses.release(spec.address, spec.name)
            await self._step("release the address", spec.name, release)
            self.events.publish(AddressReleased(ip=spec.address.ip, jail=spec.name))
        await self._step("destroy the clone", spec.name, self.clones.destroy(spec.clone))
        self.events.publish(CloneDestroyed(clone=spec.name, duration_s=time.perf_counter() - started))
        if self._uids is not None and spec.uid in self._range:
            self._uids.put_nowait(spec.uid)
        del self._register[spec.jid]
        if inmate.jail is not None:
            self.events.publish(
                JailDestroyed(jail=spec.name, jid=spec.jid, duration_s=time.perf_counter() - started)
            )

    async def _step(self, what: str, name: str, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except (IslandError, OSError):
            # The reaper finds it by its name at the latest when the island starts again.
            log.exception("cannot %s of %s", what, name)

    # The register

    async def look(self) -> None:
        """See what every jail uses, for `living` and `usage`: some system calls each, a few jails at a time,
        so that calls go on meanwhile. Several who ask at one time share the work."""
        looked = 0
        for inmate in list(self._register.values()):
            looked += inmate.look()
            if looked == FEW:
                looked = 0
                await asyncio.sleep(0)

    def usage(self) -> dict[str, Usage]:
        """What every jail used at the last `look`, by name."""
        return {inmate.spec.name: inmate.usage for inmate in self._register.values()}

    def living(self) -> list[JailInfo]:
        return [inmate.info() for inmate in self._register.values()]

    def find(self, jail: str | int) -> Inmate:
        """By number or name.

        Raises:
            JailNotFound: this island has no such jail; ids of others are never looked at.
        """
        for inmate in self._register.values():
            if str(inmate.spec.jid) == str(jail) or inmate.spec.name == jail:
                return inmate
        raise JailNotFound(f"this island has no jail {str(jail)!r}", jail=str(jail))

    async def kill(self, jail: str | int, reason: str = "killed by the operator") -> JailInfo:
        """End a jail now; its caller gets an outcome that says so.

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
        """End all jails that are not already at their end."""
        killed = []
        for jid, inmate in list(self._register.items()):
            if inmate.killed is None and inmate.state is not JailState.dying:
                with contextlib.suppress(JailNotFound):
                    killed.append(await self.kill(jid, reason))
        return killed
