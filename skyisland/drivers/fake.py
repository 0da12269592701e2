"""Drivers that make no jails and no clones, for tests, pictures and a first look on a laptop.

Nothing here confines or copies anything, and `capabilities` says so. A fake jail answers what its `Script`
says, through real pipes; all of the island around it is real. Fakes of the island's other parts: fakes.py.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from skyisland.errors import DriverError
from skyisland.host.pipes import Capture, News
from skyisland.model import Clone, JailSpec, Snapshot
from skyisland.status import Capability, Usage

NOT_REAL = "this is the fake driver: nothing is confined"


class Script(Struct, frozen=True, kw_only=True):
    """How a fake process behaves once it has its input."""

    stdout: bytes = b"fake"
    stderr: bytes = b""
    exit_code: int = 0
    duration_s: float = 0.0
    """How long it runs; infinite for one that must be killed."""
    out_of_memory: bool = False
    disk_full: bool = False
    stays: bool = False
    """Its time over, it writes what it has, and runs on."""


class FakeProcess:
    """Stands for a process: real pipes, no program."""

    _pids = itertools.count(1_000_000)

    def __init__(self, script: Callable[[bytes], Script], limits_stdout: int, limits_stderr: int) -> None:
        self.pid = next(self._pids)
        self.returncode: int | None = None
        self.script = Script()
        self._choose = script
        out_r, self._out = os.pipe()
        err_r, self._err = os.pipe()
        self.news = News()
        self.stdout = Capture(out_r, limits_stdout, self.news)
        self.stderr = Capture(err_r, limits_stderr, self.news)
        self._ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        os.set_blocking(self._out, False)
        os.set_blocking(self._err, False)

    def offer(self, data: bytes) -> memoryview:
        self.script = self._choose(data)
        if self.returncode is None and self.script.duration_s != float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.script.duration_s, self.finish)
        return memoryview(b"")

    def listen(self) -> None:
        self.stdout.listen()
        self.stderr.listen()

    async def feed(self, data: bytes | memoryview) -> None:
        self.offer(bytes(data))

    def finish(self) -> None:
        """End as the script says, and now."""
        for fd, data in ((self._out, self.script.stdout), (self._err, self.script.stderr)):
            while data:
                try:
                    data = data[os.write(fd, data) :]
                except (BlockingIOError, BrokenPipeError):
                    break  # what does not fit into the pipe is lost
        if self.script.stays:
            return
        self._end(-signal.SIGKILL if self.script.out_of_memory else self.script.exit_code)

    def _end(self, returncode: int) -> None:
        if self.returncode is None:
            self.returncode = returncode
            os.close(self._out)
            os.close(self._err)
            self._ended.set()
            self.news.announce()

    async def wait(self) -> int:
        await self._ended.wait()
        self.stdout.drain()
        self.stderr.drain()
        assert self.returncode is not None  # noqa: S101 - it has ended
        return self.returncode

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end(-signal.SIGKILL)


class FakeJail:
    def __init__(self, spec: JailSpec, driver: FakeJails) -> None:
        self.spec = spec
        self.driver = driver
        self.process = FakeProcess(driver.script, spec.limits.stdout_bytes, spec.limits.stderr_bytes)

    @property
    def pid(self) -> int | None:
        return self.process.pid

    @property
    def pidfd(self) -> int | None:
        return None

    async def kill(self) -> None:
        self.process.kill()

    async def destroy(self) -> None:
        self.process.kill()
        await self.process.wait()
        self.driver.alive.pop(self.spec.name, None)

    def ended(self) -> tuple[int | None, int | None]:
        code = self.process.returncode
        if code is None:
            raise DriverError("the fake process has not ended")
        return (None, -code) if code < 0 else (code, None)

    def ran_out_of_memory(self) -> bool:
        return self.process.script.out_of_memory

    def filled_its_disk(self) -> bool:
        return self.process.script.disk_full

    def usage(self) -> Usage:
        return Usage(memory_bytes=12 << 20, cpu_s=0.01, pids=1)


class FakeJails:
    """A `JailDriver` without jails. `script` chooses what the next process does with its input."""

    name = "fake"
    connects_late = True

    def __init__(self, script: Callable[[bytes], Script] | None = None) -> None:
        self.script = script or (lambda data: Script())
        self.alive: dict[str, FakeJail] = {}
        self.leftovers: list[str] = []
        """Names that `existing` reports as if an earlier life had left them."""
        self.fail: Exception | None = None
        """Raised by the next `create`."""

    async def prepare(self, base: Snapshot) -> None:
        pass

    async def create(self, spec: JailSpec) -> FakeJail:
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        jail = FakeJail(spec, self)
        self.alive[spec.name] = jail
        return jail

    async def existing(self) -> list[str]:
        return [*self.alive, *self.leftovers]

    async def remove(self, name: str) -> None:
        if name in self.leftovers:
            self.leftovers.remove(name)

    async def close(self) -> None:
        pass

    def capabilities(self) -> list[Capability]:
        return [
            Capability(name=name, enforced=False, how=NOT_REAL, remedy='set jails.driver = "auto"')
            for name in ("confinement", "memory", "pids", "cpu", "seccomp")
        ]


class FakeClones:
    """A `CloneDriver` that copies nothing."""

    name = "fake"

    def __init__(self) -> None:
        self.alive: dict[str, Clone] = {}

    async def prepare(self) -> Snapshot:
        return Snapshot("base@fake", Path("/nonexistent/base"))

    async def clone(self, base: Snapshot, name: str) -> Clone:
        self.alive[name] = Clone(name, base, None)
        return self.alive[name]

    async def destroy(self, clone: Clone) -> None:
        self.alive.pop(clone.name, None)

    async def existing(self) -> list[Clone]:
        return list(self.alive.values())

    async def close(self) -> None:
        pass

    def capabilities(self) -> list[Capability]:
        return [Capability(name="copy_on_write", enforced=False, how=NOT_REAL)]
