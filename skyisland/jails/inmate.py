"""A jail: one process, one clone, one life.

An `Inmate` is a jail's place in the island's register: what was made for it, which invocation it works
for, what became of it. `Jails` (register.py) makes one for each jail of the driver's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from skyisland.host.process import until_ended
from skyisland.jails.driver import Jail
from skyisland.model import (
    Artifact,
    JailInfo,
    JailSpec,
    JailState,
    Outcome,
    Usage,
    Verdict,
)

log = logging.getLogger(__name__)

OS_RELEASE = os.uname().release
LOOK_S = 0.02
"""Processor time is looked at no more often than this."""
USAGE_S = 1.0
"""A look sees nothing new within this time: what a driver told then is good enough for operators."""


class Budget:
    """Ends a jail's process when the jail has used up its processor time.

    It is looked at when that can have happened at the earliest, which a jail that spins finds out in a few
    looks; one that waits costs a timer. Where nobody counts the time, nothing is ended (`capabilities`).
    """

    def __init__(self, jail: Jail) -> None:
        limits = jail.spec.limits
        self.used_up = False
        self._jail = jail
        self._limit_s = limits.cpu_time_s
        self._cores = limits.cpus or os.cpu_count() or 1
        self._timer: asyncio.TimerHandle | None = None
        if self._limit_s is not None:
            self._look(self._limit_s)

    def _look(self, limit_s: float) -> None:
        used_s = self._jail.usage().cpu_s or 0.0
        if used_s >= limit_s:
            self.used_up = True
            self._jail.process.kill()
            return
        pause_s = max(LOOK_S, (limit_s - used_s) / self._cores)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._look, limit_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Inmate:
    """A jail's place in the register: what was made for it, and what became of it."""

    def __init__(self, spec: JailSpec, purpose: str, artifact: Artifact | None) -> None:
        self.spec = spec
        self.purpose = purpose
        self.artifact = artifact
        self.invocation: str | None = None
        self.call = ""
        self.cached = False
        self.state = JailState.creating
        self.created_at = time.time()
        self.jail: Jail | None = None
        self.killed: str | None = None
        """Why somebody killed it."""
        self.usage = Usage()
        """What it used when somebody last looked."""
        self._looked_at = -USAGE_S

    def work_for(self, invocation: str | None, call: str, *, cached: bool) -> None:
        """From now on it serves this invocation."""
        self.invocation, self.call, self.cached = invocation, call, cached

    def look(self) -> bool:
        """See what it uses, unless that was seen a moment ago; tells whether it took the system calls."""
        now = time.monotonic()
        if self.jail is None or self.state is JailState.dying or now - self._looked_at < USAGE_S:
            return False
        self.usage, self._looked_at = self.jail.usage(), now
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
            call=self.call,
            invocation=self.invocation,
            ip4=self.spec.address.ip if self.spec.address else None,
            cached=self.cached,
            usage=Usage() if self.state is JailState.dying else self.usage,
        )

    async def converse(self, data: bytes, timeout_s: float) -> Outcome:
        """Hand `data` to the process and wait for its end, its deadline or a full output.

        Raises:
            DriverError: the process never started.
        """
        jail = self.jail
        assert jail is not None  # noqa: S101 - only `Jails.jail` hands out inmates, and with a jail
        process = jail.process
        budget = Budget(jail)
        try:
            timed_out = await until_ended(process, data, timeout_s)
        finally:
            budget.close()
        verdict, code, signal = Verdict.ok, None, None
        if self.killed:
            verdict = Verdict.killed
        elif budget.used_up:
            verdict = Verdict.cpu_time
        elif process.returncode != 0 and jail.ran_out_of_memory():
            verdict = Verdict.out_of_memory
        elif timed_out:
            verdict = Verdict.timed_out
        elif process.stdout.overflowed or process.stderr.overflowed:
            verdict = Verdict.output_limit
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
        )
