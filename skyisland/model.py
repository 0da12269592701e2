"""The frozen values that travel through the island, left to right.

    FunctionRequest ─▶ Call ─▶ Resolved ─▶ Source ─▶ Artifact ─▶ JailSpec ─▶ Outcome ─▶ Invocation

Units stand in the names: `_s` seconds (floats), `_bytes` bytes. Times of day are seconds since the
epoch, UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

FUNCTION = "/function"
"""Where a jail finds its binary."""
SHOWN_BYTES = 1000
"""So much of JSON arguments is shown to operators; events keep less."""


class FunctionRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller asks for; field by field the body of POST /api/v1/function. Lengths are those that
    `sources.url` and `golang.call` permit: who reads the body refuses a longer text, before it is kept."""

    url: Annotated[str, Meta(max_length=2048)]
    """Repository, and the package in it: `github.com/user/repo/sub`, or as else people write it
    (`sources.written`)."""
    call: Annotated[str, Meta(max_length=64 << 10)] = ""
    """One Go expression on that package: `Encode(100.1, 80.9)`; with `args` or `inputs` the bare name of a
    function: `Encode`. Empty, or `main`, runs a program."""
    args: Raw | UnsetType = UNSET
    """Arguments as JSON: an array, or an object by the names of the function's parameters; for a program an
    array of texts, its command line."""
    inputs: Raw | UnsetType = UNSET
    """An array of such arguments: the function is called once for each, all in one jail."""
    types: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=16)] = ()
    """Type arguments of a generic function that is called with `args` or `inputs`."""
    ip4: bool = False
    """Lease an address from the pool and put it on the jail's own interface."""
    cache_bust: bool = False
    """Fetch and build again, whatever is cached."""
    version: Annotated[str, Meta(max_length=255)] | None = None
    """Branch, tag, release or commit (`sources.versions`); the default branch without it."""
    stdin: str | None = None
    """What the function reads from its standard input, as text."""
    stdin_base64: bytes | None = None
    """The same for input that is not text; JSON carries it in base64. Only one of the two is set."""
    cold: bool = False
    """Make a new jail for it, whatever is warm: nothing of the package, not even its init, ran before."""

    @property
    def input(self) -> bytes:
        """What the function reads from its standard input."""
        return self.stdin.encode() if self.stdin is not None else self.stdin_base64 or b""

    @property
    def data(self) -> Data | None:
        """The arguments, where they are JSON."""
        if self.args is not UNSET:
            return Data(json=bytes(self.args), many=False)
        return None if self.inputs is UNSET else Data(json=bytes(self.inputs), many=True)

    @property
    def size_bytes(self) -> int:
        """About how many bytes its fields take."""
        url, call = self.url, self.call
        count = len(url) + len(call)
        if not (url.isascii() and call.isascii()):
            count *= 4
        # One by one: this is on the way of every call, and a loop over the fields takes thrice as long.
        if self.args is not UNSET:
            count += len(memoryview(self.args))
        if self.inputs is not UNSET:
            count += len(memoryview(self.inputs))
        if self.types or self.version is not None:
            count += 4 * sum(map(len, (self.version or "", *self.types)))
        if self.stdin is not None:
            count += 4 * len(self.stdin)
        if self.stdin_base64 is not None:
            count += len(self.stdin_base64)
        return count

    def owned(self) -> FunctionRequest:
        """The same without a hold on the body that its arguments were read from, which may be much longer."""
        if self.args is UNSET and self.inputs is UNSET:
            return self
        if isinstance(self.args, Raw):
            return structs.replace(self, args=Raw(bytes(self.args)))
        return structs.replace(self, inputs=Raw(bytes(self.inputs)))  # type: ignore[arg-type] # it is set

    @property
    def shown(self) -> str:
        """The call for people, with the beginning of its arguments."""
        if self.args is not UNSET:
            json = memoryview(self.args)
        elif self.inputs is not UNSET:
            json = memoryview(self.inputs)
        else:
            return self.call or "main"
        beginning = bytes(json[:SHOWN_BYTES]).decode(errors="replace")
        name = self.call or "main"
        if self.types:
            name += f"[{', '.join(self.types)}]"
        if self.args is UNSET:
            return f"{name} for {beginning}"
        whole = beginning.startswith("[") and len(json) <= SHOWN_BYTES
        return f"{name}({beginning[1:-1] if whole else beginning})"


class NamedCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller sends to a name, field by field the body of POST /api/v1/names/NAME. The fields mean what
    those of `FunctionRequest` do; without `args`, the function is called without arguments."""

    args: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    stdin: str | None = None
    stdin_base64: bytes | None = None
    cold: bool = False

    @classmethod
    def of(cls, request: FunctionRequest) -> NamedCall:
        """What was sent to a name whose call became this request (`named.runner.request_of`)."""
        return cls(**{field: getattr(request, field) for field in NamedCall.__struct_fields__})


class Data(Struct, frozen=True, kw_only=True):
    """Arguments as JSON. Nobody has read them yet: the harness does, in the jail."""

    json: bytes
    many: bool
    """An array of arguments, for one call after another."""


class Call(Struct, frozen=True, kw_only=True):
    """A call, parsed and checked.

    Where every argument is a literal, the binary is built for the function alone and `arguments` go to it at
    run time. Otherwise `arguments` is None and the whole expression is compiled.
    """

    text: str
    """The expression without package qualifier, white space normalised."""
    function: str
    """The first exported name of the package in it: `Encode`; where there is none, `sub.Encode`."""
    arguments: tuple[str, ...] | None
    """Go literals as written (`-1.5`, `"a\\n"`, `'x'`, `true`, `nil`), or None for an expression."""
    qualifier: str | None = None
    """The package name the caller put in front, to be checked against the package's own."""
    serves: bool = False
    """It is an HTTP handler, or returns one."""
    takes_data: bool = False
    """Its arguments are JSON and come in the frame: only the form of a function will do."""
    imports: tuple[str, ...] = ()
    """Names of the other packages in `text`, in order."""
    apart: bool = False
    """It names nothing of the called package, only of others."""
    otherwise: Call | None = None
    """What the call means if `qualifier` is not the package's own name: None if nothing."""

    def meant_in(self, package: str) -> Call:
        """What the call means, now that the name of the called package is known."""
        mistaken = self.otherwise is not None and self.qualifier not in (None, package)
        return self.otherwise or self if mistaken else self

    @property
    def is_examples(self) -> bool:
        """It runs the package's Example functions. No function that can be called has this name."""
        return self.function == "examples"

    @property
    def is_program(self) -> bool:
        """It runs the package, which is a program. No function that can be called has this name."""
        return self.function == "main"


class KnownCommit(Struct, frozen=True):
    """What a remote said about a version."""

    commit: str
    at: float
    """When it did: seconds since the epoch."""


class Resolved(Struct, frozen=True, kw_only=True):
    """What a request's URL and version mean. The files of the commit may not be fetched yet."""

    url: str
    """The repository's canonical name: `github.com/user/repo`."""
    package: str
    """Folder of the package below the repository, "" for its root."""
    commit: str
    """Forty hex digits."""
    version: str | None = None
    """The version that the request names."""
    stale: bool = False
    """The remote could not be reached, and this is what it last said."""
    named: bool = True
    """A branch or a tag of the repository named the commit. One that a caller names may be a stranger's:
    forges serve the commits of forks and of pull requests by the repository's URL, too."""


class Exchange(Struct, frozen=True, kw_only=True):
    """An HTTP request that a handler answers, and who hears the answer, both as bytes of HTTP/1.1."""

    request: bytes
    """The whole request; empty to look whether there is a handler, and no more."""
    peer: str = ""
    """Address and port of who sent it."""
    heard: Callable[[bytes], bool] | None = None
    """Called with the answer, piece by piece as it comes; true where no more is wanted."""


class Terms(Struct, frozen=True, kw_only=True):
    """What a function's name adds to its calls: nothing for a plain call."""

    name: str = ""
    revision: int = 0
    resolved: Resolved | None = None
    """What runs, whatever the request's version means by now."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables with their values, secrets among them. They travel in the frame and stand nowhere else."""
    secrets: tuple[str, ...] = ()
    """The values among them that nobody is shown."""
    limits: Limits | None = None
    """Of its jail, in place of the island's."""
    timeout_s: float | None = None
    """How long it may run, in place of the island's limit."""
    examples: bool = False
    """Run the package's Example functions, whatever the request calls."""
    exchange: Exchange | None = None
    """What a handler answers; None for a function."""

    def __repr__(self) -> str:
        return f"<terms of {self.name}>"  # no secret in a log, whoever prints this


class Source(Struct, frozen=True, kw_only=True):
    """A package of a repository at a commit, checked out."""

    url: str
    """The repository as the caller names it, canonical: `github.com/user/repo`."""
    package: str
    """Folder of the package below the repository, "" for its root."""
    commit: str
    """Forty hex digits."""
    checkout: Path
    """The folder with the files of that commit. Only `sources` writes to it."""
    stale: bool = False
    """The remote could not be reached, and this is the last commit that we knew."""
    named: bool = True
    """See `Resolved.named`."""

    @property
    def compiled_in(self) -> str:
        """Whose compiled packages it shares: the repository's, or nobody's if no branch or tag named it."""
        return self.url if self.named else f"{self.url}@{self.commit}"

    @property
    def import_path(self) -> str:
        """The package's import path in Go: host and path, without the URL's scheme and port."""
        root = re.sub(r"^[a-z]+:/+|:[0-9]+(?=/)", "", self.url)
        return f"{root}/{self.package}" if self.package else root


class Artifact(Struct, frozen=True, kw_only=True):
    """A binary for one function (or one expression) of one package at one commit."""

    key: str
    """Hash of all that went into it: repository, package, commit, function, toolchain, main program."""
    sha256: str
    """Hash of the binary itself: its name in the store."""
    path: Path
    url: str
    package: str
    commit: str
    function: str
    expression: str | None
    """The compiled expression; None when the binary takes its arguments in the frame."""
    package_name: str = ""
    """What the package calls itself: `geohash`."""
    size_bytes: int
    build_s: float
    built_at: float
    used_at: float
    hits: int = 0
    go_version: str = ""


class Mount(Struct, frozen=True):
    """A path of the host that a jail sees."""

    source: Path
    target: str
    writable: bool = False


class Limits(Struct, frozen=True, kw_only=True):
    """What one jail may use; None for no limit."""

    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None
    """Cores: 0.5 is half of one."""
    cpu_time_s: float | None = None
    """Processor time of all processes together."""
    stdout_bytes: int = 1 << 20
    stderr_bytes: int = 1 << 16
    open_files: int | None = None
    disk_bytes: int | None = None
    """All files together, where the jail's disk is memory; None for as much as `memory_bytes`."""
    file_bytes: int | None = None
    """Largest single file."""

    def within(self, most: Limits) -> bool:
        """Whether each of these is as tight as the other's, at least."""
        pairs = zip(structs.astuple(self), structs.astuple(most), strict=True)
        return all(limit is None or (own is not None and own <= limit) for own, limit in pairs)


class NetworkAccess(StrEnum):
    """The network that a jail can use."""

    none = "none"
    host = "host"
    """The host's. Only for a build's download of modules, which runs no code of a repository."""
    lease = "lease"
    """An interface of its own with an address of the pool."""


class Address(Struct, frozen=True, kw_only=True):
    """An address leased to a jail, with what else its interface needs."""

    ip: str
    prefix: int
    gateway: str
    dns: tuple[str, ...] = ()


class Snapshot(Struct, frozen=True):
    """A generation of the base system. Clones are made of it."""

    name: str
    path: Path


class Clone(Struct, frozen=True):
    """A copy-on-write copy of a snapshot, for one jail."""

    name: str
    origin: Snapshot
    path: Path | None
    """Where it is mounted; None where the jail's own overlay makes it."""


class JailSpec(Struct, frozen=True, kw_only=True):
    """All a driver needs to make one jail with one process in it."""

    name: str
    """`sky-<island>-<number>`: name, hostname, cgroup."""
    jid: int
    """The number in its name; the kernel's own (jls(8)) once a FreeBSD has made it."""
    clone: Clone
    argv: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    limits: Limits = Limits()
    network: NetworkAccess = NetworkAccess.none
    address: Address | None = None
    dns: tuple[str, ...] = ()
    """Name servers. They are known before the address is, which a warm jail gets late."""
    uid: int | None = None
    """The unprivileged host uid of this jail alone; None when the island itself is not root."""


class Verdict(StrEnum):
    """How a process in a jail ended."""

    ok = "ok"
    failed = "failed"
    """The function returned an error; its process ended well."""
    exited = "exited"
    signaled = "signaled"
    out_of_memory = "out_of_memory"
    output_limit = "output_limit"
    timed_out = "timed_out"
    disk_full = "disk_full"
    """Its process failed, and no room was left for files."""
    cpu_time = "cpu_time"
    """It used more processor time than it may."""
    killed = "killed"
    """By an admin, or because the island stops."""


UNANSWERED = "inputs"
"""The type of the error of a call whose process ended before all of its many inputs had their answers."""


class GoError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error that a function returned, or what it panicked with."""

    message: str
    type: str
    """Its type in Go, such as `*errors.errorString`; `panic` or `fatal error` where Go ended the process."""
    at: str = ""
    """The part of the call that gave it; empty for the call itself."""
    trace: tuple[str, ...] = ()
    """Of a panic: where it happened, and who called that, in the caller's code."""
    retry_after_s: float | None = None
    """What its method `RetryAfter() time.Duration` gave, if it has one: so long a call that answers later
    waits before it is tried again. Below 0: it is not."""


class Returned(Struct, frozen=True, kw_only=True):
    """What a function gave back, and what it printed before. The jail's word, see `golang.harness`."""

    printed: bytes
    """What the function printed itself."""
    text: bytes
    """What `fmt.Print` prints of its results."""
    results: bytes | None
    """Its results as a JSON array; None where nobody wanted them or they are too large."""
    error: GoError | None


class Outcome(Struct, frozen=True, kw_only=True):
    """How a jail's process ended, and what it wrote."""

    verdict: Verdict
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    printed: bytes | None = None
    """Of a call: what of `stdout` the function printed itself; the rest is its results as text."""
    results: bytes | None = None
    """Of a call: its results as a JSON array; see `Returned.results`."""
    error: GoError | None = None
    """Of a call: the error that it returned, or its panic."""
    answers: tuple[Returned, ...] | None = None
    """Of a call with many inputs: what it gave back for each, as far as it got."""
    killed: str = ""
    """Why somebody killed its jail."""


class Phase(StrEnum):
    """The parts of a call's time, in the order in which a call goes through them."""

    resolve = "resolve"
    """From a version's name to a commit."""
    clone = "clone"
    """Fetching the repository and checking the commit out."""
    build = "build"
    """Compiling, or waiting for another call that compiles the same."""
    queue = "queue"
    """Waiting for one of `Policy.max_running` places."""
    jail = "jail"
    """Making a clone and the jail around it, or taking a warm jail."""
    exec = "exec"
    """From the frame's first byte to the process's end."""


class Timings(Struct, frozen=True, kw_only=True):
    """Seconds spent in each phase; a phase that did not happen is 0."""

    queue_s: float = 0.0
    resolve_s: float = 0.0
    clone_s: float = 0.0
    build_s: float = 0.0
    jail_s: float = 0.0
    exec_s: float = 0.0
    total_s: float = 0.0


class Invocation(Struct, frozen=True, kw_only=True):
    """A call that is over."""

    id: str
    request: FunctionRequest
    outcome: Outcome
    timings: Timings
    started_at: float
    jail: str | None
    """The name of the jail that ran it."""
    commit: str
    cached: bool
    """The binary was there before the call."""
    stale: bool
    warm: bool = False
    """The jail was made ahead of the call."""
    node: str = ""
    """The island of the fleet that ran it, if that was another one."""
    artifact: Artifact | None = None
    """The binary that ran."""
    limits: Limits | None = None
    """Of its jail."""
    timeout_s: float = 0.0
    """How long it might run."""


class Purpose(StrEnum):
    """What a jail is for."""

    function = "function"
    """One call, or a warm jail's wait for one."""
    build = "build"
    """The go command."""
