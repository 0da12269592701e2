"""Fakes of every room that touches the host, for tests, pictures and a first look on a laptop.

Nothing here confines, clones, compiles or fetches anything, and `capabilities` says so. A fake jail
answers with what `Script` tells it to; everything else of the island around it is real.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, structs

from skyisland.errors import (
    AddressInUse,
    AddressNotFound,
    ArtifactNotFound,
    DriverError,
    NoAddress,
)
from skyisland.events import Event, Events, InvocationFinished
from skyisland.host.pipes import Capture, News
from skyisland.host.toolchain import Progress, silent
from skyisland.model import (
    Address,
    AddressInfo,
    AddressState,
    Artifact,
    Call,
    Capability,
    Clone,
    JailSpec,
    Snapshot,
    Source,
    Usage,
)

NOT_REAL = "this is the fake driver: nothing is confined"


class Script(Struct, frozen=True, kw_only=True):
    """How a fake process behaves once it has its input."""

    stdout: bytes = b"fake"
    stderr: bytes = b""
    exit_code: int = 0
    duration_s: float = 0.0
    """How long it takes; infinite for one that must be killed."""
    out_of_memory: bool = False
    disk_full: bool = False


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
            self._timer = loop.call_later(self.script.duration_s, self._finish)

        return memoryview(b"")

    def listen(self) -> None:
        self.stdout.listen()
        self.stderr.listen()

    async def feed(self, data: bytes | memoryview) -> None:
        self.offer(bytes(data))

    def _finish(self) -> None:
        for fd, data in ((self._out, self.script.stdout), (self._err, self.script.stderr)):
            while data:
                try:
                    data = data[os.write(fd, data) :]
                except (BlockingIOError, BrokenPipeError):
                    break  # a fake is not patient: what does not fit the pipe is lost
        self._end(-signal.SIGKILL if self.script.out_of_memory else self.script.exit_code)

    def _end(self, returncode: int) -> None:
        if self.returncode is None:
            self.returncode = returncode
            os.close(self._out)
            os.close(self._err)
            self._ended.set()
            self.news.tell()

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


class FakeResolved(Struct, frozen=True):
    url: str
    package: str
    commit: str
    stale: bool = False


class FakeSources:
    """Every URL is a repository, every version a commit of it."""

    def __init__(self) -> None:
        self.checkouts = 0

    async def resolve(self, url: str, version: str | None, *, refresh: bool) -> FakeResolved:
        parts = url.removeprefix("https://").split("/")
        name = "/".join(parts[:3])
        commit = hashlib.sha1(f"{name}@{version}".encode(), usedforsecurity=False).hexdigest()
        return FakeResolved(name, "/".join(parts[3:]), commit)

    async def checkout(self, resolved: FakeResolved) -> Source:
        self.checkouts += 1
        return Source(
            url=resolved.url,
            package=resolved.package,
            commit=resolved.commit,
            checkout=Path("/nonexistent/checkout"),
        )

    @contextmanager
    def using(self, source: Source) -> Iterator[Source]:
        yield source

    async def sweep(self) -> int:
        return 0

    async def purge(self, idle_s: float) -> int:
        return 0

    async def close(self) -> None:
        pass


class FakeBuilds:
    """Builds nothing, remembers everything."""

    def __init__(self) -> None:
        self.store: dict[str, Artifact] = {}
        self.in_use: list[str] = []
        self.fail: Exception | None = None
        """Raised by the next `build`."""

    def _key(self, url: str, package: str, commit: str, call: Call) -> str:
        what = call.function if call.arguments is not None else call.text
        return hashlib.sha256("\0".join((url, package, commit, what)).encode()).hexdigest()

    async def prepare(self, progress: Progress = silent, *, whole: bool = False) -> None:
        pass

    def known(self, resolved: FakeResolved, call: Call) -> Artifact | None:
        key = self._key(resolved.url, resolved.package, resolved.commit, call)
        found = self.store.get(key)
        if found is not None:
            self.store[key] = found = structs.replace(found, hits=found.hits + 1, used_at=time.time())
        return found

    async def build(self, source: Source, call: Call, *, refresh: bool, invocation: str | None) -> Artifact:
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        key = self._key(source.url, source.package, source.commit, call)
        now = time.time()
        self.store[key] = Artifact(
            key=key,
            sha256=key[::-1],
            path=Path("/nonexistent/artifact"),
            url=source.url,
            package=source.package,
            commit=source.commit,
            function=call.function,
            expression=None if call.arguments is not None else call.text,
            size_bytes=2_000_000,
            build_s=0.1,
            built_at=now,
            used_at=now,
        )
        return self.store[key]

    @contextmanager
    def using(self, artifact: Artifact) -> Iterator[None]:
        self.in_use.append(artifact.key)
        try:
            yield
        finally:
            self.in_use.remove(artifact.key)

    def artifacts(self) -> list[Artifact]:
        return list(self.store.values())

    async def evict(self, key: str) -> Artifact:
        try:
            return self.store.pop(key)
        except KeyError:
            raise ArtifactNotFound(f"no artifact {key!r} in the cache", key=key) from None

    async def purge(self) -> list[Artifact]:
        purged = list(self.store.values())
        self.store.clear()
        return purged

    async def close(self) -> None:
        pass


class FakeAddresses:
    """A pool of addresses that no interface ever gets."""

    name_servers: tuple[str, ...] = ()

    def __init__(self, count: int = 6) -> None:
        self.pool = {
            f"10.61.0.{n}": AddressInfo(ip=f"10.61.0.{n}", state=AddressState.available)
            for n in range(2, 2 + count)
        }

    async def prepare(self) -> int:
        return 0

    def require(self) -> None:
        if not any(a.state is AddressState.available for a in self.pool.values()):
            raise NoAddress("no address is free; try again later", retry_after_s=1)

    async def lease(self, jail: str) -> Address:
        self.require()
        ip = next(ip for ip, a in self.pool.items() if a.state is AddressState.available)
        self.pool[ip] = AddressInfo(ip=ip, state=AddressState.unavailable, jail=jail, since=time.time())
        return Address(ip=ip, prefix=24, gateway="10.61.0.1")

    async def attach(self, address: Address, jail: str, pid: int) -> None:
        pass

    async def release(self, address: Address, jail: str) -> None:
        if self.pool[address.ip].jail == jail:
            self.pool[address.ip] = AddressInfo(ip=address.ip, state=AddressState.available)

    def addresses(self) -> list[AddressInfo]:
        return list(self.pool.values())

    async def set_state(self, ip: str, state: AddressState) -> AddressInfo:
        if ip not in self.pool:
            raise AddressNotFound(f"{ip} is not in the pool", ip=ip)
        if self.pool[ip].jail and state is AddressState.available:
            raise AddressInUse(f"{ip} is leased to {self.pool[ip].jail}", ip=ip)
        self.pool[ip] = structs.replace(self.pool[ip], state=state, since=time.time())
        return self.pool[ip]

    def capabilities(self) -> list[Capability]:
        return [Capability(name="network", enforced=False, how=NOT_REAL)]

    async def close(self) -> None:
        pass


class FakeHistory:
    """The last thousand invocations, in memory."""

    def __init__(self, events: Events) -> None:
        self._last: deque[InvocationFinished] = deque(maxlen=1000)
        events.tap(self._fold)

    def _fold(self, event: Event) -> None:
        if isinstance(event, InvocationFinished):
            self._last.appendleft(event)

    async def invocations(self, limit: int) -> list[InvocationFinished]:
        return list(self._last)[:limit]

    async def close(self) -> None:
        pass
