"""A jail in the island's register: one process, one clone, one life.

A `JailOrder` says what jail is wanted. `Jails` (register.py) makes it, and keeps an `Inmate` for it: what
was made, which invocation it works for, what became of it. `Inmate.converse` is the whole use of a jail:
bytes in, an outcome back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from msgspec import Struct

from skyisland.events import shortened
from skyisland.host.process import Ended, until_ended
from skyisland.jails.driver import Jail
from skyisland.model import Artifact, JailSpec, Limits, Mount, NetworkAccess, Outcome, Purpose, Verdict
from skyisland.status import USAGE_S, JailInfo, JailState, Usage

OS_RELEASE = os.uname().release
BUDGET_CHECK_S = 0.02
"""A jail's processor time is read no more often than this, so it may use that much too much on each core."""


class JailOrder(Struct, frozen=True, kw_only=True):
    """What jail is wanted, and for whom."""

    argv: tuple[str, ...]
    purpose: Purpose
    limits: Limits
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    network: NetworkAccess = NetworkAccess.none
    uid: int | None = None
    """A host uid outside the range of `Jails`, for jails that keep files from one to the next (builds); with
    None the jail has one of the range to itself."""
    warm: bool = False
    """Made ahead: it works for nobody until it is claimed."""
    artifact: Artifact | None = None
    """The binary that it runs; None for a build."""
    invocation: str | None = None
    """The invocation that it works for."""
    call: str = ""
    """The call's text."""
    cached: bool = False
    """The binary was there before the call."""


class Budget:
    """Kills a jail's process when the jail has used up its processor time.

    A timer checks when that can have happened at the earliest, all cores being busy. So a jail that spins is
    found out in a few checks, and one that waits costs a timer. Where the host does not count the time,
    nothing is killed (`capabilities` says so).
    """

    def __init__(self, jail: Jail) -> None:
        limits = jail.spec.limits
        self.used_up = False
        self._jail = jail
        self._limit_s = limits.cpu_time_s
        self._cores = limits.cpus or os.cpu_count() or 1
        self._timer: asyncio.TimerHandle | None = None
        if self._limit_s is not None:
            self._check(self._limit_s)

    def _check(self, limit_s: float) -> None:
        used_s = self._jail.usage().cpu_s or 0.0
        if used_s >= limit_s:
            self.used_up = True
            self._jail.process.kill()
            return
        pause_s = max(BUDGET_CHECK_S, (limit_s - used_s) / self._cores)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._check, limit_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Inmate:
    """A jail's place in the register."""

    def __init__(self, spec: JailSpec, order: JailOrder) -> None:
        self.spec = spec
        self.purpose = order.purpose
        self.artifact = order.artifact
        self.warm = order.warm
        """It was made ahead of its call."""
        self.invocation = order.invocation
        self.call = order.call
        self.cached = order.cached
        self.state = JailState.creating
        self.created_at = time.time()
        self.jail: Jail | None = None
        """What the driver made; None until it has."""
        self.killed: str | None = None
        """Why somebody killed it."""
        self.usage = Usage()
        """The latest sample of what it uses."""
        self.mark = b""
        """What the harness begins its words with in the outputs of this call; empty for whatever has none."""
        self.secrets: tuple[str, ...] = ()
        """What this call was given to use, and not to show."""
        self._sampled_at = -USAGE_S

    @property
    def over(self) -> bool:
        """It writes no more."""
        ended = self.jail is not None and self.jail.process.returncode is not None
        return ended or self.state is JailState.dying

    @property
    def alive(self) -> bool:
        """Its process runs, and nobody has killed it."""
        return self.jail is not None and self.jail.process.returncode is None and not self.killed

    def watch(self, ended: Callable[[], None] | None) -> None:
        """Call `ended` when its process ends, in place of what was called before; None for nothing.

        `converse` needs this place for itself.
        """
        if self.jail is not None:
            self.jail.process.news.listen(ended)

    def sample_usage(self) -> bool:
        """Ask the host what it uses, unless the last sample is young; returns whether the host was asked."""
        now = time.monotonic()
        if self.jail is None or self.state is JailState.dying or now - self._sampled_at < USAGE_S:
            return False
        self.usage, self._sampled_at = self.jail.usage(), now
        return True

    def info(self) -> JailInfo:
        jail = self.jail
        return JailInfo(
            jid=self.spec.jid,
            name=self.spec.name,
            hostname=self.spec.name,
            path=str(self.spec.clone.path or self.spec.clone.origin.path),
            os_release=OS_RELEASE,
            state=self.state,
            pid=jail.pid if jail else None,
            created_at=self.created_at,
            purpose=self.purpose,
            url=self.artifact.url if self.artifact else "",
            package=self.artifact.package if self.artifact else "",
            function=shortened(self.artifact.function) if self.artifact else "",
            call=shortened(self.call),
            invocation=self.invocation,
            ip4=self.spec.address.ip if self.spec.address else None,
            cached=self.cached,
            usage=Usage() if self.state is JailState.dying else self.usage,
        )

    async def converse(
        self, data: bytes, timeout_s: float, heard: Callable[[bytes], bool] | None = None
    ) -> Outcome:
        """Hand `data` to the process and wait for its end, its deadline or a full output.

        `heard` is called with its standard output, piece by piece as it comes. True is the process's word
        that it has said all and ends well: the outcome is there then, and the jail's end comes with its
        taking away, which nobody waits for.

        Raises:
            DriverError: the process never started.
        """
        jail = self.jail
        assert jail is not None  # noqa: S101 - `Jails.make` returns no inmate without one
        process = jail.process
        budget = Budget(jail)
        try:
            how = await until_ended(process, data, timeout_s, heard)
        finally:
            budget.close()
        verdict, code, signal = Verdict.ok, None, None
        if self.killed:
            verdict = Verdict.killed
        elif budget.used_up:
            verdict = Verdict.cpu_time
        elif how is not Ended.word and process.returncode != 0 and jail.ran_out_of_memory():
            verdict = Verdict.out_of_memory
        elif how is Ended.late:
            verdict = Verdict.timed_out
        elif process.stdout.overflowed or process.stderr.overflowed:
            verdict = Verdict.output_limit
        elif how is Ended.word:
            code = 0
        else:
            code, signal = jail.ended()
            if (signal is not None or code) and jail.filled_its_disk():
                verdict = Verdict.disk_full
            elif signal is not None:
                verdict = Verdict.signaled
            elif code:
                verdict = Verdict.exited
        return Outcome(
            verdict=verdict,
            exit_code=code,
            signal=signal,
            stdout=bytes(process.stdout.data),
            stderr=bytes(process.stderr.data),
            killed=self.killed or "",
        )
