"""Fakes of the parts that stand around jails: sources, builds, addresses, history.

With the drivers of drivers/fake.py they make an island that touches neither network nor disk, for tests,
pictures, measurements and `jails.driver = "fake"`. Nothing here fetches, compiles or keeps anything.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import structs

from skyisland.errors import AddressInUse, AddressNotFound, ArtifactNotFound, InvocationNotFound, NoAddress
from skyisland.events import Event, Events, InvocationFinished
from skyisland.golang.catalogue import Catalogue, Entry, Example, Parameter, ReadyCall, Result
from skyisland.host.tasks import Progress, silent
from skyisland.model import Address, Artifact, Call, Resolved, Source
from skyisland.receipts.receipt import Built, Provenance
from skyisland.settings import Settings
from skyisland.status import AddressInfo, AddressState, Bounds, Capability, Policy
from skyisland.wire import PastVersion, Versions


def _offered(signature: str, synopsis: str, *parameters: Parameter, **more: Any) -> Entry:
    name = signature.removeprefix("func ").partition("(")[0]
    fields: dict[str, Any] = {
        "kind": "function",
        "name": name,
        "signature": signature,
        "synopsis": synopsis,
        "doc": synopsis,
        "call": f"{name}({', '.join(one.name for one in parameters)})",
        "type_parameters": [],
        "parameters": list(parameters),
        "results": [Result("", "string", {"type": "string"})],
        "fails": False,
        "callable": True,
        "why": "",
        "examples": [],
    }
    return Entry(**fields | more)


_LAT, _LNG = (Parameter(name, "float64", {"type": "number"}) for name in ("lat", "lng"))
_HASH = Parameter("hash", "string", {"type": "string"})
_EXAMPLE = Example(
    name="",
    doc="",
    code="fmt.Println(geohash.Encode(100.1, 80.9))",
    output="jcc92ytsf8kn\n",
    unordered=False,
    calls=[ReadyCall("geohash.Encode(100.1, 80.9)", "jcc92ytsf8kn\n")],
)
CATALOGUE = Catalogue(
    name="geohash",
    import_path="github.com/mmcloughlin/geohash",
    synopsis="Package geohash provides encoding and decoding of string and integer geohashes.",
    doc="Package geohash provides encoding and decoding of string and integer geohashes.\n",
    functions=[
        _offered("func Decode(hash string) (lat, lng float64)", "Decode is the point of a geohash.", _HASH),
        _offered(
            "func Encode(lat, lng float64) string",
            "Encode the point (lat, lng) as a string geohash.",
            _LAT,
            _LNG,
            examples=[_EXAMPLE],
        ),
        _offered("func Neighbors(hash string) []string", "Neighbors are the eight around it.", _HASH),
        _offered(
            "func Watch(points <-chan Point) string",
            "Watch encodes what comes.",
            Parameter("points", "<-chan Point", None),
            callable=False,
            why="parameter points is a channel, which a call cannot give",
        ),
    ],
    examples=[],
    schemas={},
    omitted=0,
)
"""What every fake package offers."""
NOT_REAL = "a fake: no interface has these addresses"


def policy(**changes: object) -> Policy:
    """The policy of the default settings, without a warm pool, with these changes."""
    default = Settings().policy
    return structs.replace(default, **{"warm": structs.replace(default.warm, max_jails=0), **changes})


def bounds(**changes: object) -> Bounds:
    """The warm pool's bounds of the default settings, with these changes."""
    return structs.replace(Settings().policy.warm, **changes)


class FakeSources:
    """Every URL is a repository, every version a commit of it."""

    def __init__(self) -> None:
        self.checkouts = 0

    async def resolve(self, url: str, version: str | None, *, refresh: bool, client: str = "") -> Resolved:
        parts = url.removeprefix("https://").split("/")
        name = "/".join(parts[:3])
        commit = version or ""
        if re.fullmatch("[0-9a-f]{40}", commit) is None:
            commit = hashlib.sha1(f"{name}@{version}".encode(), usedforsecurity=False).hexdigest()
        return Resolved(url=name, package="/".join(parts[3:]), commit=commit, version=version)

    def permitted(self, resolved: Resolved, client: str) -> Resolved:
        return resolved

    async def versions(
        self, url: str, *, after: str | None = None, until: str | None = None, client: str = ""
    ) -> Versions:
        """The releases v1.0.0 to v1.9.0; or the commits of four after `after`."""
        names = [f"v1.{n}.0" for n in range(10)] if after is None else [f"{after}+{n}" for n in range(1, 5)]
        found = [await self.resolve(url, name, refresh=False) for name in names]
        told = [
            PastVersion(name if after is None else one.commit, one.commit)
            for name, one in zip(names, found, strict=True)
        ]
        return Versions(url=found[0].url, package=found[0].package, versions=told)

    async def doubt(self, name: str) -> None:
        pass

    def recorded(self, url: str, package: str, commit: str) -> Resolved:
        return Resolved(url=url, package=package, commit=commit, version=commit)

    async def checkout(self, resolved: Resolved, client: str = "") -> Source:
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
        what = call.function if call.arguments is not None and not call.serves else call.text
        return hashlib.sha256("\0".join((url, package, commit, what)).encode()).hexdigest()

    async def prepare(self, progress: Progress = silent, *, whole: bool = False) -> None:
        pass

    def work_ahead(self, busy: Callable[[], bool]) -> None:
        pass

    def disturb(self) -> None:
        pass

    ahead = ""

    shares = False
    go_version = "go1.25"

    async def borrow(self, resolved: Resolved, call: Call, client: str = "") -> Artifact | None:
        return None

    def known(self, resolved: Resolved, call: Call, client: str) -> Artifact | None:
        key = self._key(resolved.url, resolved.package, resolved.commit, call)
        artifact = self.store.get(key)
        if artifact is not None:
            artifact = structs.replace(artifact, hits=artifact.hits + 1, used_at=time.time())
            self.store[key] = artifact
        return artifact

    async def build(
        self, source: Source, call: Call, *, refresh: bool, invocation: str | None, client: str
    ) -> Artifact:
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

    async def known_catalogue(self, resolved: Resolved | Artifact) -> Catalogue | None:
        return None

    async def catalogue(self, source: Source, *, client: str) -> Catalogue:
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        return structs.replace(CATALOGUE, url=source.url, package=source.package, version=source.commit)

    @contextmanager
    def using(self, artifact: Artifact) -> Iterator[None]:
        self.in_use.append(artifact.key)
        try:
            yield
        finally:
            self.in_use.remove(artifact.key)

    async def rebuild(self, artifact: Artifact, source: Source) -> Artifact:
        self.store[artifact.key] = structs.replace(artifact, built_at=time.time())
        return self.store[artifact.key]

    async def reproduce(self, built: Built, source: Source, *, client: str) -> Artifact:
        arguments = () if built.expression is None else None
        call = Call(text=built.expression or "", function=built.function, arguments=arguments)
        return await self.build(source, call, refresh=True, invocation=None, client=client)

    async def made(self, artifact: Artifact, source: Source) -> Provenance:
        return Provenance(
            repository=artifact.url,
            package=artifact.package,
            commit=artifact.commit,
            function=artifact.function,
            expression=artifact.expression,
            package_name=artifact.package_name,
            go_mod_sha256="",
            go_sum_sha256="",
            toolchain="go1.0",
            platform="none/none",
            flags=(),
            recipe=artifact.key,
            binary_sha256=artifact.sha256,
        )

    def artifacts(self) -> list[Artifact]:
        return list(self.store.values())

    def find(self, key: str) -> Artifact:
        try:
            return self.store[key]
        except KeyError:
            raise ArtifactNotFound(f"no artifact {key!r} in the cache", key=key) from None

    async def evict(self, key: str) -> Artifact:
        return self.store.pop(self.find(key).key)

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

    async def await_turn(self, invocation: str, client: str) -> None:
        pass

    def end_turn(self, invocation: str) -> None:
        pass

    async def lease(self, jail: str, invocation: str) -> Address:
        self.require()
        ip = next(ip for ip, a in self.pool.items() if a.state is AddressState.available)
        self.pool[ip] = AddressInfo(ip=ip, state=AddressState.unavailable, jail=jail, since=time.time())
        return Address(ip=ip, prefix=24, gateway="10.61.0.1")

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        pass

    async def release(self, address: Address, jail: str) -> None:
        if self.pool[address.ip].jail == jail:
            self.pool[address.ip] = AddressInfo(ip=address.ip, state=AddressState.available)

    @property
    def free(self) -> int:
        return sum(1 for one in self.pool.values() if one.state is AddressState.available)

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

    async def invocation(self, id: str) -> InvocationFinished:  # noqa: A002
        for end in self._last:
            if end.invocation == id:
                return end
        raise InvocationNotFound(f"no call {id!r} is over", invocation=id)

    async def close(self) -> None:
        pass
