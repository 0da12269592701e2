"""A seeded island for tests and pictures. Nothing of it is real, and its header says so.

`FakeIsland` implements the console's port on a frozen clock: the same seed shows the same screen to the
last character. Actions are answered as an island answers them, with the event that confirms them.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from msgspec import UNSET, Raw, structs

from skyisland import events as ev
from skyisland import fakes
from skyisland.cause import Cause
from skyisland.errors import ArtifactNotFound, BuildFailed, CallNotFound, IslandError, JailNotFound
from skyisland.events import Event, InvocationFinished
from skyisland.figures import Window
from skyisland.golang.catalogue import Catalogue
from skyisland.later.calls import Attempt, Callback, CallbackState, CallState, Delivery, Record
from skyisland.model import (
    Artifact,
    FunctionRequest,
    GoError,
    Limits,
    NamedCall,
    Outcome,
    Purpose,
    Timings,
    Verdict,
)
from skyisland.named.definition import Ceilings, Definition, Revision
from skyisland.named.functions import Named
from skyisland.record.functions import Functions
from skyisland.status import (
    AddressInfo,
    AddressState,
    Capability,
    HostLoad,
    JailInfo,
    JailState,
    PoolStatus,
    Status,
    Usage,
    Written,
)
from skyisland.wire import Answer, Called, FunctionPage, Snapshot, milliseconds
from tui.watch.port import LinkLost, LogLine, Others

NOON = 1_767_961_400.0
"""When the clock stands still: 2026-01-09 12:23:20 UTC."""

FUNCTIONS = [
    ("github.com/mmcloughlin/geohash", "Encode(100.1, 80.9)", 0.004),
    ("github.com/mmcloughlin/geohash", 'DecodeCenter("gxnp")', 0.004),
    ("github.com/rivo/uniseg", 'GraphemeClusterCount("sky island")', 0.006),
    ("github.com/montanaflynn/stats", "Median([]float64{3, 1, 2})", 0.011),
    ("github.com/gosimple/slug", 'Make("A Sky Island")', 0.009),
    ("gitlab.example/ops/pdf2txt/cmd", 'Text("report.pdf")', 0.160),
    ("gitlab.example/ops/thumb", 'Resize("cat.png", 200)', 0.084),
    ("git.example/etl/nightly", "Run(2026, 1, 8)", 1.9),
]
LIMITS = Limits(memory_bytes=256 << 20, pids=64, cpus=1.0, open_files=256)
VERDICTS = ("exited", "timed_out", "out_of_memory", "killed", "build_failed")


PANIC = b"""panic: runtime error: index out of range [4] with length 4

goroutine 1 [running]:
github.com/mmcloughlin/geohash.spread(...)
	/src/geohash.go:214
main.main()
	/main/main.go:31 +0x1d
"""


def _cause(verdict: str, exec_s: float) -> Cause | None:
    """Of a call that ended so."""
    match verdict:
        case "build_failed":
            output = "./encode.go:14:9: undefined: Precision\n./encode.go:31:2: declared and not used: lat"
            return Cause.of_error(BuildFailed("the repository does not compile", output=output))
        case "exited":
            message = "runtime error: index out of range [4] with length 4"
            error = GoError(message=message, type="panic", trace=("geohash.spread at geohash.go:214",))
            outcome = Outcome(verdict=Verdict.exited, exit_code=2, stderr=PANIC, error=error)
        case "killed":
            outcome = Outcome(verdict=Verdict.killed, killed="killed by the operator")
        case _:
            outcome = Outcome(verdict=Verdict(verdict))
    return Cause.of_outcome(outcome, exec_s)


def _hex(rng: random.Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


class FakeIsland:
    """An island that exists on the screen only."""

    def __init__(self, *, seed: int = 7, jails: int = 37, requests: int = 480, addresses: int = 62) -> None:
        self.where = "127.0.0.1:3280"
        self.attached = True
        self.rng = random.Random(seed)  # noqa: S311 - the same every time, on purpose
        self.now = NOON
        self.asked: list[tuple[str, ...]] = []
        """Every action that reached the island."""
        self.requests: list[FunctionRequest] = []
        """Every call that reached the island."""
        self.refuse: IslandError | None = None
        """Raised by the next action."""
        self.failure: Exception | None = None
        """Raised by snapshot and events while it is set."""
        self.news: asyncio.Queue[list[Event]] = asyncio.Queue()
        self.token = ""
        self.closed = False
        self.addresses = {
            f"10.61.0.{n}": AddressInfo(ip=f"10.61.0.{n}", state=AddressState.available)
            for n in range(2, 2 + addresses)
        }
        self.artifacts = {artifact.key: artifact for artifact in self._artifacts()} if requests else {}
        self.jails = {jail.name: jail for jail in self._jails(jails)}
        self.recent = sorted(self._invocations(requests), key=lambda end: -end.at)
        for n in (9, 41):
            ip = f"10.61.0.{n}"
            if ip in self.addresses and self.addresses[ip].jail is None:
                self.addresses[ip] = AddressInfo(
                    ip=ip, state=AddressState.unavailable, since=self.now - 86400 * n
                )
        self.called = Functions(ev.Events(), fakes.policy().slo, lambda: self.now)
        self.called.recall(reversed(self.recent))
        self.lines = self._log()
        self.histories = self._names() if requests else {}
        self.deferred = {record.id: record for record in self._deferred()} if requests else {}
        """The calls that answer later."""

    # Making it up

    def _artifacts(self) -> Iterator[Artifact]:
        for url, call, _ in FUNCTIONS:
            digest = hashlib.sha256(f"{url}{call}".encode()).hexdigest()
            parts = url.split("/")
            yield Artifact(
                key=digest,
                sha256=digest[::-1],
                path=Path("/nonexistent") / digest,
                url="/".join(parts[:3]),
                package="/".join(parts[3:]),
                commit=digest[24:64],
                function=call.partition("(")[0],
                expression=call if "[]" in call else None,
                size_bytes=int((1.6 + self.rng.random() * 6) * 2**20),
                build_s=0.35 + self.rng.random() * 4,
                built_at=self.now - self.rng.randrange(3600, 80000),
                used_at=self.now - self.rng.randrange(1, 4000),
                hits=self.rng.randrange(3, 9000),
                go_version="go1.25.4",
            )

    def _jails(self, count: int) -> Iterator[JailInfo]:
        free = iter(self.addresses)
        for n in range(count):
            jid = 0x9A00 + n
            state = JailState.warm if n % 9 == 8 else JailState.creating if n % 17 == 5 else JailState.running
            build = n % 12 == 10
            url, call, _ = FUNCTIONS[self.rng.randrange(len(FUNCTIONS))]
            age = self.rng.expovariate(1 / 1.4) if n else 73.0
            if n == 1:
                age = 44.0
            name = f"sky-main-{jid:x}"
            ip = next(free, None) if n % 3 != 1 and not build and state is JailState.running else None
            if ip is not None:
                self.addresses[ip] = AddressInfo(
                    ip=ip, state=AddressState.unavailable, jail=name, since=self.now - age
                )
            warm = state is JailState.warm
            yield JailInfo(
                jid=jid,
                name=name,
                hostname=name,
                path=f"/var/lib/skyisland/clones/{name}",
                os_release="6.18",
                state=state,
                pid=None if state is JailState.creating else 29_400 + n,
                created_at=self.now - age,
                purpose=Purpose.build if build else Purpose.function,
                url="/".join(url.split("/")[:3]),
                call="" if warm else call,
                invocation=None if warm else f"inv-{_hex(self.rng, 12)}",
                ip4=ip,
                cached=n % 11 != 4,
                usage=Usage(
                    memory_bytes=int(self.rng.uniform(6, 210) * 2**20),
                    cpu_s=age * self.rng.random(),
                    pids=self.rng.randrange(1, 9),
                ),
            )

    def _invocations(self, count: int) -> Iterator[InvocationFinished]:
        rng = self.rng
        at = self.now - 0.02
        for n in range(count):
            url, call, usual = FUNCTIONS[min(int(rng.expovariate(0.5)), len(FUNCTIONS) - 1)]
            cold = n % 9 == 6
            bad = n % 23 == 11
            spent = {
                "queue_s": rng.uniform(0.00002, 0.0001) if n % 7 else rng.uniform(0.01, 0.08),
                "resolve_s": rng.uniform(0.0002, 0.0009) if not cold else rng.uniform(0.03, 0.2),
                "clone_s": rng.uniform(0.12, 0.4) if cold else 0.0,
                "build_s": rng.uniform(0.4, 1.5) if cold else 0.0,
                "jail_s": rng.uniform(0.0004, 0.009),
                "exec_s": usual * rng.lognormvariate(0, 0.5),
            }
            verdict = VERDICTS[n // 23 % len(VERDICTS)] if bad else "ok"
            if verdict == "timed_out":
                spent["exec_s"] = 5.0
            cause = _cause(verdict, spent["exec_s"])
            parts = url.split("/")
            yield InvocationFinished(
                at=at,
                invocation=f"inv-{_hex(rng, 12)}",
                url=url,
                call=call,
                verdict=verdict,
                timings=Timings(**spent, total_s=sum(spent.values()) + 0.0008),
                jail=f"sky-main-{0x9A00 - n:x}",
                commit=hashlib.sha256(f"{url}{call}".encode()).hexdigest()[24:64],
                cached=not cold,
                error=cause.error.message if cause and cause.error else "",
                cause=cause,
                client="10.1.7.24" if n % 3 else "alice",
                repository="/".join(parts[:3]),
                package="/".join(parts[3:]),
                function=call.partition("(")[0],
            )
            at -= rng.expovariate(6.0)

    def _log(self) -> list[LogLine]:
        said = [
            ("INFO", "jail created in 3 ms"),
            ("INFO", "answered in 14 ms: ok"),
            ("INFO", "fetched github.com/gosimple/slug at 6de5a67f"),
            ("WARNING", "used 212M of 256M memory"),
            ("ERROR", "panic: runtime error: index out of range [4] with length 4"),
            ("INFO", "destroyed in 2 ms"),
        ]
        names: list[str | None] = [*self.jails] or [None]
        lines = []
        for n in range(160):
            level, text = said[n * n % 7 % len(said)]
            jail = None if text.startswith("fetched") else names[n % len(names)]
            at = self.now - (160 - n) * 0.8
            lines.append(LogLine(at=at, level=level, text=text, jail=jail, seq=n + 1, logger="events"))
        return lines

    def _names(self) -> dict[str, list[Revision]]:
        """What each name stood for, latest first."""

        def revision(name: str, number: int, days: float, definition: Definition, why: str) -> Revision:
            return Revision(
                name=name,
                revision=number,
                definition=definition,
                repository="/".join(definition.url.split("/")[:3]),
                package="",
                commit=hashlib.sha256(
                    f"{name}{definition.version}{'' if definition.pin else number}".encode()
                ).hexdigest()[:40],
                at=self.now - 86400 * days,
                by="island" if why == "followed" else "deploy",
                why=why,
                paused=why == "paused",
            )

        slug = Definition(url="github.com/gosimple/slug", function="Make", version="master")
        hash_ = Definition(
            url="github.com/mmcloughlin/geohash",
            function="Encode",
            version="v0.10.0",
            pin=True,
            env={"PRECISION": "9"},
            secrets={"API_KEY": "maps"},
            limits=Ceilings(memory_bytes=64 << 20, cpus=0.5),
            callers=("alice", "shop"),
            concurrency=8,
        )
        hook = Definition(url="gitlab.example/ops/hook", handler="Handler", version="main")
        return {
            "encode": [
                revision("encode", 3, 0.2, hash_, "rolled back to 1"),
                revision("encode", 2, 1.1, structs.replace(hash_, version="v0.11.0"), "moved"),
                revision("encode", 1, 40, hash_, "defined"),
            ],
            "hook": [revision("hook", 1, 3, hook, "defined")],
            "nightly.report": [
                revision(
                    "nightly.report",
                    2,
                    0.01,
                    Definition(url="git.example/etl/nightly", function="Run"),
                    "paused",
                ),
                revision(
                    "nightly.report",
                    1,
                    9,
                    Definition(url="git.example/etl/nightly", function="Run"),
                    "defined",
                ),
            ],
            "slug": [revision("slug", 2, 2, slug, "followed"), revision("slug", 1, 5, slug, "defined")],
        }

    def _deferred(self) -> Iterator[Record]:
        url, hook = "git.example/etl/nightly", "https://shop.example/hooks/skyisland"

        def record(n: int, ago_s: float, state: CallState, **more: Any) -> Record:
            more.setdefault("client", "alice")
            record_id = f"call-{hashlib.sha256(str(n).encode()).hexdigest()[:24]}"
            more = {"url": url, "call": f"Run(2026, 1, {n})", **more}
            return Record(id=record_id, state=state, created_at=self.now - ago_s, **more)

        def attempt(n: int, ago_s: float, took_s: float | None, verdict: str = "", why: str = "") -> Attempt:
            at = self.now - ago_s
            ended = None if took_s is None else at + took_s
            return Attempt(
                number=n, id=f"inv-{n:012x}", started_at=at, ended_at=ended, verdict=verdict, message=why
            )

        slow = "the function ran longer than 5 s"
        yield record(8, 2, CallState.queued)
        yield record(7, 6, CallState.running, attempts=[attempt(1, 3.2, None)])
        yield record(
            6,
            95,
            CallState.queued,
            due_at=self.now + 41,
            attempts=[attempt(1, 90, 5, "timed_out", slow), attempt(2, 60, 5, "timed_out", slow)],
            message=slow,
            caller_id="report-6",
        )
        answer = (
            b'{"timestamp":1767960500,"data":"812 rows","id":"inv-1","jail":"sky-main-9a00","version":"6d",'
            b'"cached":true,"stale":false,"warm":true,"exit_code":0,"stderr":"read 3 files","timings_ms":{}}'
        )
        yield record(
            5,
            900,
            CallState.done,
            ended_at=self.now - 897,
            attempts=[structs.replace(attempt(1, 899, 1.9, "ok"), node="lx2")],
            verdict="ok",
            result=Raw(answer),
            callback=Callback(
                url=hook,
                state=CallbackState.delivered,
                deliveries=[
                    Delivery(at=self.now - 896, took_s=0.21, status=503, error="it answered 503"),
                    Delivery(at=self.now - 866, took_s=0.09, status=204),
                ],
            ),
        )
        yield record(
            4,
            4100,
            CallState.dead,
            ended_at=self.now - 3800,
            attempts=[attempt(n, 4200 - 100 * n, 5, "timed_out", slow) for n in (1, 2, 3)],
            verdict="timed_out",
            message=slow,
            callback=Callback(
                url=hook,
                state=CallbackState.dead,
                deliveries=[Delivery(at=self.now - 3799, took_s=0.04, status=410, error="it answered 410")],
            ),
        )
        yield record(3, 7300, CallState.cancelled, ended_at=self.now - 7200, client="10.1.7.24")
        yield record(
            2,
            9000,
            CallState.done,
            name="slug",
            url="github.com/gosimple/slug",
            call='("A Sky Island")',
            ended_at=self.now - 8999,
            attempts=[attempt(1, 9000, 0.009, "ok")],
            verdict="ok",
            callback=Callback(url=hook, due_at=self.now + 300),
            client="shop",
        )

    def capabilities(self) -> list[Capability]:
        return [
            Capability(
                name="namespaces", enforced=True, how="bubblewrap: user, mount, pid, net, ipc, uts, cgroup"
            ),
            Capability(name="memory", enforced=True, how="cgroup v2 memory.max on every jail"),
            Capability(name="pids", enforced=True, how="cgroup v2 pids.max"),
            Capability(
                name="cpu",
                enforced=False,
                how="the cpu controller is not delegated to this group",
                remedy="add Delegate=cpu memory pids to the unit and restart it",
            ),
            Capability(
                name="seccomp", enforced=True, how="no new namespaces, no keyrings, no bpf, no ptrace"
            ),
            Capability(
                name="overlay", enforced=True, how="copy-on-write root on tmpfs, bounded by the memory limit"
            ),
            Capability(name="network", enforced=True, how="bridge sky0, one veth for each leased address"),
            Capability(
                name="nat",
                enforced=False,
                how="nf_tables is not available to this kernel",
                remedy="modprobe nf_tables, or set network.nat = false",
            ),
        ]

    def status(self) -> Status:
        return Status(
            island="main",
            version="0.1.0",
            started_at=NOON - 276_300,
            draining=False,
            running=len(self.jails),
            queued=3 if self.jails else 0,
            driver="fake",
            storage="fake",
            policy=fakes.policy(limits=LIMITS),
            pool=PoolStatus(size=4, wanted=4, max_jails=8, hits=8121, misses=402, made=8125),
            jails=list(self.jails.values()),
            addresses=list(self.addresses.values()),
            artifacts=list(self.artifacts.values()),
            capabilities=self.capabilities(),
            places=sum(jail.state is JailState.running for jail in self.jails.values()),
            host=HostLoad(
                cpus=8,
                cpu=0.37,
                load=3.1,
                memory_bytes=16 << 30,
                memory_used_bytes=6_800 << 20,
                disk_bytes=80 << 30,
                disk_free_bytes=41 << 30,
            ),
            report=self.called.report(),
        )

    # The port

    async def snapshot(self) -> Snapshot:
        if self.failure is not None:
            raise self.failure
        return Snapshot.of(self.status(), at=self.now, recent=self.recent)

    async def others(self) -> Others:
        return Others({}, [])

    async def events(self) -> AsyncIterator[list[Event]]:
        while True:
            bunch = await self.news.get()
            if self.failure is not None:
                raise self.failure
            yield bunch

    async def logs(self, after: int = 0) -> list[LogLine]:
        return [entry for entry in self.lines if entry.seq > after]

    def tell(self, *events: Event) -> None:
        """Let these facts happen now."""
        self.news.put_nowait([structs.replace(event, at=self.now) for event in events])

    def lose(self, failure: Exception | None = None) -> None:
        """Break the line, until `failure` is None again."""
        self.failure = failure or LinkLost("connection refused by http://127.0.0.1:3280")
        self.news.put_nowait([])

    def _act(self, *what: str) -> None:
        self.asked.append(what)
        if self.refuse is not None:
            refusal, self.refuse = self.refuse, None
            raise refusal

    async def output(self, jail: str) -> AsyncIterator[Written]:
        yield Written(stdout="reading 3 files\n", stderr="\x1b[31mcat.png: no such file\n")
        yield Written(stdout="done\n")
        yield Written(ended=True, verdict="ok")

    async def kill(self, jail: str, node: str = "") -> None:
        self._act("kill", jail)
        self._end(jail)

    async def kill_all(self) -> int:
        self._act("kill_all")
        names = list(self.jails)
        for name in names:
            self._end(name)
        return len(names)

    def _end(self, jail: str) -> None:
        info = self.jails.pop(jail, None)
        if info is None:
            raise JailNotFound(f"this island has no jail {jail!r}", jail=jail)
        self.tell(
            ev.JailKilled(jail=jail, jid=info.jid, reason="killed by the operator", duration_s=0.001),
            ev.JailDestroyed(jail=jail, jid=info.jid, duration_s=0.002),
        )

    async def set_address(self, ip: str, state: AddressState, node: str = "") -> None:
        self._act("set_address", ip, str(state))
        self.addresses[ip] = structs.replace(self.addresses[ip], state=state, since=self.now)
        self.tell(ev.AddressStateSet(ip=ip, state=str(state)))

    async def evict(self, key: str) -> None:
        self._act("evict", key)
        artifact = self.artifacts.pop(key, None)
        if artifact is None:
            raise ArtifactNotFound(f"no artifact {key!r} in the cache", key=key)
        self.tell(
            ev.ArtifactEvicted(key=key, url=artifact.url, function=artifact.function, reason="operator")
        )

    async def rebuild(self, key: str) -> None:
        self._act("rebuild", key)
        artifact = self.artifacts[key]
        url, function = artifact.url, artifact.function
        self.tell(
            ev.BuildStarted(key=key, url=url, function=function),
            ev.BuildFinished(key=key, url=url, function=function, ok=True, duration_s=0.4),
        )

    async def purge(self) -> int:
        self._act("purge")
        gone = list(self.artifacts.values())
        self.artifacts.clear()
        self.tell(
            *(
                ev.ArtifactEvicted(key=one.key, url=one.url, function=one.function, reason="operator")
                for one in gone
            )
        )
        return len(gone)

    async def invoke(self, request: FunctionRequest) -> Called:
        self._act("invoke", request.url, request.call)
        self.requests.append(request)
        timings = Timings(queue_s=0.00004, resolve_s=0.00061, jail_s=0.0021, exec_s=0.0083, total_s=0.0117)
        answer = Answer(
            timestamp=int(self.now),
            id="inv-5ca1ab1e0001",
            data="gxnpxr2bq7dt",
            jail="sky-main-9a63",
            version="6de5a67fa1b2c3d4e5f60718293a4b5c6d7e8f90",
            cached=True,
            stale=False,
            warm=False,
            exit_code=0,
            stderr="",
            timings_ms=milliseconds(timings),
        )
        return Called(verdict=Verdict.ok, message="", answer=answer)

    async def functions(self, url: str, version: str | None = None) -> Catalogue:
        self._act("functions", url)
        return fakes.CATALOGUE

    async def function(self, function: str, window: Window = Window.five_minutes) -> FunctionPage:
        figures = self.called.function(function, window)
        return FunctionPage.of(figures, self.status(), self.recent, self.now)

    async def names(self) -> list[Named]:
        return [self._named(history[0]) for history in self.histories.values()]

    def _named(self, latest: Revision) -> Named:
        fields = {field: getattr(latest, field) for field in Revision.__struct_fields__}
        trouble = (
            "the repository does not compile: slug.go:7: undefined: Mark" if latest.name == "slug" else ""
        )
        return Named(**fields, running=3 if latest.name == "encode" else 0, trouble=trouble)

    async def revisions(self, name: str) -> list[Revision]:
        return self.histories[name]

    async def call(self, name: str, asked: NamedCall) -> Called:
        self._act("call", name)
        return await self.invoke(FunctionRequest(url=name))

    async def define(self, name: str, definition: Definition, revision: int | None = None) -> None:
        self._act("define", name)

    async def move(self, name: str, version: str | None = None) -> None:
        self._act("move", name, version or "")

    async def roll_back(self, name: str, to: int | None = None) -> None:
        self._act("roll_back", name, str(to))

    async def pause(self, name: str) -> None:
        self._act("pause", name)

    async def resume(self, name: str) -> None:
        self._act("resume", name)

    async def forget(self, name: str) -> None:
        self._act("forget", name)
        del self.histories[name]

    async def calls(self) -> list[Record]:
        return [structs.replace(record, result=UNSET) for record in self.deferred.values()]

    async def kept(self, kept: str) -> Record:
        if kept not in self.deferred:
            raise CallNotFound(f"no call {kept!r}")
        return self.deferred[kept]

    async def cancel(self, kept: str) -> None:
        self._act("cancel", kept)
        self.deferred[kept] = structs.replace(
            self.deferred[kept], state=CallState.cancelled, due_at=None, ended_at=self.now
        )

    async def redrive(self, kept: str) -> None:
        self._act("redrive", kept)
        self.deferred[kept] = structs.replace(
            self.deferred[kept], state=CallState.queued, attempts=[], ended_at=None, message=""
        )

    async def forget_calls(self, state: CallState | None = None) -> int:
        self._act("forget_calls", str(state or ""))
        gone = [one.id for one in self.deferred.values() if one.state.final and state in (None, one.state)]
        for one in gone:
            del self.deferred[one]
        return len(gone)

    async def forget_call(self, kept: str) -> None:
        self._act("forget_call", kept)
        del self.deferred[kept]

    def curl(self, request: FunctionRequest | NamedCall, name: str = "") -> str:
        if isinstance(request, NamedCall):
            return f"curl -X POST http://{self.where}/api/v1/names/{name}"
        return f"curl -X POST http://{self.where}/api/v1/function -d '{request.url} {request.call}'"

    def authorize(self, token: str) -> None:
        self.token = token

    async def close(self) -> None:
        self.closed = True
