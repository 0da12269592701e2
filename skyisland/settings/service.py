"""Sections about the service: sources, calls that answer later, the API, figures, the console, the log,
the fleet."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from msgspec import field, structs

from skyisland.settings.section import Section
from skyisland.settings.values import (
    BasePath,
    Collector,
    Count,
    CredentialFile,
    Duration,
    FleetName,
    FunctionTargets,
    NatsServer,
    OptionalPath,
    Origin,
    Positive,
    Proxies,
    Refused,
    SecretFile,
    Size,
    SizeLimit,
    StatsdAddress,
    Text,
    Tokens,
    UserName,
)


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
    mcp: bool = False
    """Let agents call functions by the Model Context Protocol, at /mcp: what its token may call, a client of
    it may."""
    tls_cert: CredentialFile = ""
    """The file with the server's certificate and its chain, PEM. With it and tls_key, the API speaks only
    TLS. Both are read again when they are written anew. Commands on this host trust this certificate."""
    tls_key: CredentialFile = ""
    """The file with the certificate's private key, PEM; "$CREDENTIALS_DIRECTORY/NAME" is one of systemd's."""

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


class Receipts(Section, frozen=True, kw_only=True):
    """Receipts of calls that were sent with `Prefer: receipt`. ssh-keygen signs them, of OpenSSH 8.1 or
    later."""

    key: OptionalPath = ""
    """The private key that signs them, without a passphrase, for the island alone (chmod 600); its public
    half lies beside it as FILE.pub. If empty: one of the island's own, made when the first receipt is."""


class Fleet(Section, frozen=True, kw_only=True):
    """Other islands that this one is one with, by servers of NATS that all of them reach. Without a name it
    is alone."""

    name: FleetName = ""
    """The fleet's name, the same on all its islands."""
    node: FleetName = ""
    """This island's name in the fleet, which no other has. If empty: the first part of the host's name."""
    servers: tuple[NatsServer, ...] = ()
    """The servers, any of which will do: ["tls://nats1:4222", "tls://nats2:4222"]. They run JetStream,
    version 2.10.25 or newer."""
    tls_ca: OptionalPath = ""
    """The file with the certificates of whoever signed the servers' certificates, PEM."""
    tls_cert: OptionalPath = ""
    """The file with this island's own certificate, PEM: it tells the servers which island this is."""
    tls_key: OptionalPath = ""
    """The file with that certificate's private key, PEM."""
    replicas: Literal[1, 3, 5] = 1
    """On how many servers each thing is kept that must not be lost: 3 where there are three servers or
    more."""
    segment: FleetName = ""
    """The network that this island's addresses (network.ip4) can be reached in. No two islands of one segment
    may have the same address; one that would does not join. If empty: nobody reaches them but this host."""
    spool: bool = False
    """Keep calls that answer later on this host while the servers are away. They run here, and are lost if
    this host is. If false, they are refused with 503 meanwhile."""
    verify: Literal[1, 2] = 1
    """How many islands must have compiled a binary, to the same bytes, before another one runs it without
    compiling it itself."""

    def __post_init__(self) -> None:
        if self.node == "all":
            raise Refused("node", self.node, "another name: to the commands, all means all nodes")
        if self.name and not self.servers:
            raise Refused("servers", [], "at least one server, because name is set")
        if self.servers and not self.name:
            raise Refused("name", "", "a name, because servers are set")
        for present, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_cert", "tls_ca")):
            if getattr(self, present) and not getattr(self, missing):
                raise Refused(missing, "", f"a file, because {present} is set")
        if self.name and not self.tls_ca and (open_ := [s for s in self.servers if s.startswith("tls://")]):
            raise Refused("tls_ca", "", f"a file, because {open_[0]} speaks TLS")
