"""Jails: one process, one clone, one life.

A `JailDriver` makes a jail with its process started and waiting on its standard input, kills it and
takes it away; nothing more. `Jails` gives each one its number, name, host uid, clone and address,
keeps the register that operators see, publishes the facts, and promises that whatever happens to the
caller (an error, a cancellation at any point, the island's end) everything made for a jail is taken
back. Taking back happens after the answer: nobody waits for it but `drain`.

A clone that ran guest code is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
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
    JailCreated,
    JailDestroyed,
    JailKilled,
)
from skyisland.model import (
    Address,
    Artifact,
    Capability,
    Clone,
    JailInfo,
    JailSpec,
    JailState,
    Limits,
    Mount,
    Network,
    Outcome,
    Snapshot,
    Usage,
    Verdict,
)
from skyisland.process import Running, until_ended
from skyisland.storage import CloneDriver

log = logging.getLogger(__name__)


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

    def usage(self) -> Usage: ...


class JailDriver(Protocol):
    """Makes jails on this host. Naive: locks, events, leases and deadlines live around it."""

    name: str

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


class AddressPool(Protocol):
    """What `network.py` gives the jails: leases on addresses."""

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


class Inmate:
    """A jail's place in the register: what was made for it, and what became of it."""

    def __init__(
        self, spec: JailSpec, purpose: str, invocation: str | None, artifact: Artifact | None
    ) -> None:
        self.spec = spec
        self.purpose = purpose
        self.invocation = invocation
        self.artifact = artifact
        self.call = ""
        self.cached = False
        self.state = JailState.creating
        self.created_at = time.time()
        self.jail: Jail | None = None
        self.killed: str | None = None
        """Why somebody killed it."""

    def info(self) -> JailInfo:
        jail = self.jail
        return JailInfo(
            jid=self.spec.jid,
            name=self.spec.name,
            hostname=self.spec.name,
            path=str(self.spec.clone.path or self.spec.clone.origin.path),
            os_release=os.uname().release,
            state=self.state,
            pid=jail.pid if jail else None,
            created_at=self.created_at,
            purpose=self.purpose,
            url=self.artifact.url if self.artifact else "",
            call=self.call,
            invocation=self.invocation,
            ip4=self.spec.address.ip if self.spec.address else None,
            cached=self.cached,
            usage=jail.usage() if jail and self.state is not JailState.dying else Usage(),
        )

    async def converse(self, data: bytes, timeout_s: float) -> Outcome:
        """Hand `data` to the process and wait for its end, its deadline or a full output.

        Raises:
            DriverError: the process never started.
        """
        jail = self.jail
        assert jail is not None  # noqa: S101 - only `Jails.jail` hands out inmates, and with a jail
        process = jail.process
        timed_out = await until_ended(process, data, timeout_s)
        verdict, code, signal = Verdict.ok, None, None
        if self.killed:
            verdict = Verdict.killed
        elif timed_out:
            verdict = Verdict.timed_out
        elif jail.ran_out_of_memory():
            verdict = Verdict.out_of_memory
        elif process.stdout.overflow.is_set() or process.stderr.overflow.is_set():
            verdict = Verdict.output_limit
        else:
            code, signal = jail.ended()
            if signal is not None:
                verdict = Verdict.signaled
            elif code:
                verdict = Verdict.exited
        return Outcome(
            verdict=verdict,
            exit_code=code,
            signal=signal,
            stdout=bytes(process.stdout.data),
            stderr=bytes(process.stderr.data),
        )


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
        self.prefix = f"sky-{island}-"
        self._jids = itertools.count(first_jid)
        self._uids: asyncio.Queue[int] | None = None
        self._range = frozenset(uids or ())
        if uids is not None:
            self._uids = asyncio.Queue()
            for uid in sorted(self._range):
                self._uids.put_nowait(uid)
        self._register: dict[int, Inmate] = {}
        self._cleaning: set[asyncio.Task[None]] = set()
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
        while self._cleaning:
            await asyncio.wait(self._cleaning)

    async def close(self) -> None:
        """Kill and take away all jails."""
        await self.kill_all("the island stops")
        await self.drain()
        await self.driver.close()
        await self.clones.close()

    # One jail

    @asynccontextmanager
    async def jail(
        self,
        argv: tuple[str, ...],
        *,
        purpose: str,
        mounts: tuple[Mount, ...] = (),
        env: tuple[tuple[str, str], ...] = (),
        cwd: str = "/",
        limits: Limits,
        network: Network = Network.none,
        invocation: str | None = None,
        artifact: Artifact | None = None,
        call: str = "",
        cached: bool = False,
        uid: int | None = None,
    ) -> AsyncIterator[Inmate]:
        """A fresh jail for the length of the block; it is taken away after it, in the background.

        `uid`: a host uid outside the range, for jails that keep files from one to the next (builds).

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
            uid=uid if uid is not None or self._uids is None else await self._uids.get(),
        )
        inmate = Inmate(spec, purpose, invocation, artifact)
        inmate.call, inmate.cached = call, cached
        self._register[jid] = inmate
        try:
            # The making runs in a task of its own: a caller that is cancelled half-way leaves it to
            # come to its end, and what it made is taken back like any other jail.
            making = asyncio.ensure_future(self._make(inmate))
            try:
                await asyncio.shield(making)
            except asyncio.CancelledError:
                self._in_background(self._await_quietly(making))
                raise
            yield inmate
        finally:
            inmate.state = JailState.dying
            self._in_background(self._unmake(inmate, making))

    async def _make(self, inmate: Inmate) -> None:
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
            address = await self.addresses.lease(spec.name)
            inmate.spec = spec = structs.replace(spec, address=address)
            self.events.publish(AddressLeased(ip=address.ip, jail=spec.name, invocation=inmate.invocation))
        inmate.jail = await self.driver.create(spec)
        inmate.state = JailState.running
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

    async def _await_quietly(self, task: asyncio.Future[None]) -> None:
        with contextlib.suppress(Exception):
            await task

    async def _unmake(self, inmate: Inmate, making: asyncio.Future[None]) -> None:
        """Take back whatever was made, in the order that the host needs; try every step."""
        await self._await_quietly(making)
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

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    # The register

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
        killed = []
        for jid in list(self._register):
            with contextlib.suppress(JailNotFound):
                killed.append(await self.kill(jid, reason))
        return killed
