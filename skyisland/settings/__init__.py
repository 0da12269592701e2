"""Settings: defaults, a file over them, and one secret from the environment.

A file and the environment enter, one frozen `Settings` leaves; each problem is named in a
`SettingsError`. The file is TOML; the original's `config.json` is read too. It is the file that the
user names, or else the first of these that exists:

    $XDG_CONFIG_HOME/skyisland/skyisland.toml     (~/.config; not for root: sudo may keep a user's HOME)
    /usr/local/etc/skyisland.toml
    /etc/skyisland.toml

The admin token is the file's `admin_api_token`, else the variable SKYISLAND_ADMIN_API_TOKEN, else the
file `admin-token` in the state folder, where the first start stores a random one.

Nothing else in the program reads settings files. Of the environment, `serve` and `doctor` read PATH, and the
console TEXTUAL_DRIVER (`tui/supervisor`); all else enters by `Settings.load`, and each constructor gets its
own section. These functions block: call them before the event loop runs, or in a
thread.

`machine`, `pools` and `service` have every key with its default, `section` what a section is, `values` their
types, `layout` the paths below the state folder; `reading`, `writing` and `files` are the way from and to a
file. Uses: model and errors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import structs

from skyisland.errors import SettingsError
from skyisland.figures import Slo
from skyisland.settings.files import (
    CREDENTIALS,
    check_file,
    credential,
    others_read,
    stored_token,
    write_private,
)
from skyisland.settings.layout import Layout
from skyisland.settings.machine import (
    Build,
    CallLimits,
    Filesystem,
    JailLimits,
    Jails,
    Network,
)
from skyisland.settings.pools import IP4, Pool
from skyisland.settings.reading import WrongKey, overlay, read_file, settings_error
from skyisland.settings.section import Section
from skyisland.settings.service import (
    Api,
    Async,
    ConsoleSettings,
    Credential,
    Fleet,
    Git,
    Log,
    Metrics,
    Receipts,
    SloTargets,
    Traces,
    Warm,
)
from skyisland.settings.values import (
    UNIX,
    AbsolutePath,
    FileMode,
    GoVersion,
    Group,
    HeaderName,
    Listen,
    Port,
    Refused,
    Release,
    Text,
    Token,
    split_host_port,
)
from skyisland.settings.writing import commented, dump
from skyisland.status import Bounds, Policy

__all__ = [
    "IP4",
    "PUBLISHED_HOST",
    "Api",
    "Async",
    "Build",
    "CallLimits",
    "Credential",
    "Filesystem",
    "Fleet",
    "Git",
    "JailLimits",
    "Jails",
    "Layout",
    "Log",
    "Metrics",
    "Network",
    "Pool",
    "Receipts",
    "Refused",
    "Settings",
    "Traces",
    "Warm",
    "admin_token",
    "commented_toml",
    "dump",
    "find_file",
    "write_private",
]

TOKEN_VARIABLE = "SKYISLAND_ADMIN_API_TOKEN"  # noqa: S105 - its name, not its value
PUBLISHED_HOST = "here.skyisland.test"
"""The host in URLs of folders that commands publish; there is none of this name (RFC 6761)."""
SYSTEM_FILES = (Path("/usr/local/etc/skyisland.toml"), Path("/etc/skyisland.toml"))


log = logging.getLogger("skyisland.settings")


class Settings(Section, frozen=True, kw_only=True):
    """All settings of an island."""

    release: Release = ""
    """The FreeBSD release of the jails' base system. If empty: the host's."""
    http_port: Port = 3280
    """The port of the REST API."""
    listen: Listen = "127.0.0.1"
    """The address of the REST API. Whoever reaches it can run code in jails: think before you open it. Or a
    Unix socket: "unix:/run/skyisland/api.sock"; then there is no port."""
    socket_mode: FileMode = "0660"
    """The mode of the Unix socket. Who may write to it may connect."""
    socket_group: Group = ""
    """The group of the Unix socket. If empty: that of the island's user."""
    state_dir: AbsolutePath = Path("/var/lib/skyisland")
    """The folder for everything that the island keeps. Without this key: /var/lib/skyisland for root, and
    skyisland in $XDG_STATE_HOME (~/.local/state) for other users."""
    admin_api_token: Token = ""
    """The admin's token, or "$CREDENTIALS_DIRECTORY/NAME": a credential of systemd's that holds it. If empty:
    the variable SKYISLAND_ADMIN_API_TOKEN, or else the file admin-token in state_dir, where the first start
    stores a random one."""
    admin_token_header: HeaderName = "X-Sky-Island-Token"  # noqa: S105
    """The header that carries a token."""
    go_version: GoVersion = ""
    """The Go version to download. If empty: the toolchain that build.goroot describes. A toolchain older than
    1.24 is not used: a newer one compiles the same code."""
    base_sys_pkg_dir: Text = ""
    """A folder, or the URL of a mirror, with the archives of the base system (FreeBSD)."""
    filesystem: Filesystem = Filesystem()
    network: Network = Network()
    jails: Jails = Jails()
    limits: CallLimits = CallLimits()
    build: Build = Build()
    git: Git = Git()
    warm: Warm = Warm()
    async_: Async = Async()
    api: Api = Api()
    metrics: Metrics = Metrics()
    slo: SloTargets = SloTargets()
    traces: Traces = Traces()
    receipts: Receipts = Receipts()
    fleet: Fleet = Fleet()
    log: Log = Log()
    console: ConsoleSettings = ConsoleSettings()

    def __post_init__(self) -> None:
        most_jails = self.jails.max_running + self.build.max_running + self.warm.max_jails
        if self.jails.uid_count < most_jails:
            allowed = f"at least {most_jails}, jails.max_running + build.max_running + warm.max_jails"
            raise Refused("jails.uid_count", self.jails.uid_count, allowed)

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str]) -> Settings:
        """Load the file at `path`, or the one that `find_file` finds; without a file, the defaults.

        Raises:
            SettingsError: for each problem the file, the key's path, the value found and the values allowed;
                or that others may write the file.
        """
        path = path or find_file(environ)
        if path:
            check_file(path)
        tables = read_file(path) if path else {}
        settings = overlay(cls(), tables, str(path))
        if path and (settings.admin_api_token or settings.api.tokens) and (fault := others_read(path)):
            log.warning("%s holds tokens and %s; chmod 600 it, and make new ones", path, fault)
        if "state_dir" not in tables:
            settings = structs.replace(settings, state_dir=_default_state_dir(environ))
        settings = _with_credentials(settings, environ.get(CREDENTIALS.removeprefix("$"), ""))
        unknown = not settings.admin_api_token or settings.admin_api_token.startswith(CREDENTIALS)
        if unknown and (token := environ.get(TOKEN_VARIABLE)):
            settings = overlay(settings, {"admin_api_token": token}, f"environment variable {TOKEN_VARIABLE}")
        return settings

    @property
    def layout(self) -> Layout:
        """The paths below the state folder."""
        jails = self.jails.base_jail_dir
        return Layout(self.state_dir, Path(jails) if jails else self.state_dir / "jails")

    @property
    def repositories(self) -> Git:
        """`git`, with the folder where commands publish folders of this host (`cli/publishing`)."""
        published = {f"https://{PUBLISHED_HOST}/": f"{self.layout.published.as_uri()}/"}
        return structs.replace(self.git, rewrite=self.git.rewrite | published)

    @property
    def policy(self) -> Policy:
        """The limits and time-outs of calls."""
        return Policy(
            exec_timeout_s=self.jails.exec_timeout,
            limits=self.limits.as_limits(),
            max_running=self.jails.max_running,
            running_per_client=self.jails.running_per_client,
            max_queued=self.jails.max_queued,
            queue_timeout_s=self.jails.queue_timeout,
            behind_running=self.jails.behind_running or max(1, self.build.max_running // 2),
            failures_kept_s=self.jails.failures_expire,
            require=self.limits.require,
            keep_s=self.jails.cache_purge_after,
            warm=Bounds(
                max_jails=self.warm.max_jails,
                max_memory_bytes=self.warm.max_memory or None,
                idle_expires_s=self.warm.idle_expires,
            ),
            slo=Slo(target_s=self.slo.target, functions=self.slo.functions),
        )

    @property
    def bind(self) -> str:
        """The address that the server listens on: `127.0.0.1:3280`, `[::1]:3280`,
        `unix:/run/skyisland.sock`."""
        if self.unix_socket:
            return self.listen
        return f"{_bracketed(self.listen)}:{self.http_port}"

    @property
    def unix_socket(self) -> str:
        """The path of the Unix socket that the server listens on; empty where it is an address."""
        return self.listen.removeprefix(UNIX) if self.listen.startswith(UNIX) else ""

    @property
    def url(self) -> str:
        """The API's URL for a client on this host; `unix:` and a path for a Unix socket."""
        if self.unix_socket:
            return self.listen
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen, self.listen)  # noqa: S104
        scheme = "https" if self.api.tls_cert else "http"
        return f"{scheme}://{_bracketed(host)}:{self.http_port}"

    @property
    def statsd(self) -> tuple[str, int] | None:
        """Host and port of the StatsD server, if there is one."""
        address = self.metrics.statsd or self.jails.monitoring_addr
        return split_host_port(address, 8125) if address else None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = structs.asdict(self) | {"admin_api_token": "…" if self.admin_api_token else ""}
        return list(fields.items())

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def _bracketed(host: str) -> str:
    """A host as URLs spell it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def find_file(environ: Mapping[str, str]) -> Path | None:
    """The settings file when the user names none: the first that exists (see the module's text)."""
    files = list(SYSTEM_FILES)
    if os.geteuid() != 0 and (folder := _xdg(environ, "XDG_CONFIG_HOME", ".config")):
        files.insert(0, folder / "skyisland" / "skyisland.toml")
    return next((file for file in files if os.path.lexists(file)), None)


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Settings().state_dir
    if folder := _xdg(environ, "XDG_STATE_HOME", ".local/state"):
        return folder / "skyisland"
    problem = WrongKey("state_dir", "neither it nor XDG_STATE_HOME nor HOME", "an absolute path")
    raise settings_error("environment", [problem])


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """A folder by the XDG base directory specification, which says to ignore relative paths."""
    for value, below in ((environ.get(variable, ""), ""), (environ.get("HOME", ""), below_home)):
        if Path(value).is_absolute() and value.isprintable():
            return Path(value) / below
    return None


def _with_credentials(settings: Settings, folder: str) -> Settings:
    """The settings with the credentials of this service, which systemd laid into `folder`. Whoever is no such
    service has none."""
    if not folder:
        return settings
    files = {
        key: value.replace(CREDENTIALS, folder, 1)
        for key in ("tls_cert", "tls_key")
        if (value := getattr(settings.api, key)).startswith(CREDENTIALS)
    }
    token = settings.admin_api_token
    if token.startswith(CREDENTIALS):
        token = credential(Path(token.replace(CREDENTIALS, folder, 1)))
    return structs.replace(settings, api=structs.replace(settings.api, **files), admin_api_token=token)


def admin_token(settings: Settings, *, make: bool = True) -> str:
    """The admin's token: the settings' own, or else the one stored in the state folder.

    `make`: store a new one if there is none. The daemon does, clients do not.

    Raises:
        SettingsError: there is none, it cannot be stored, or its file is not private; or the island's service
            alone has it.
    """
    if settings.admin_api_token.startswith(CREDENTIALS):
        raise SettingsError(
            f"admin_api_token: {settings.admin_api_token} is a credential of the island's unit, which alone "
            f"has it; set {TOKEN_VARIABLE} for a command"
        )
    return settings.admin_api_token or stored_token(settings.layout.token, make=make)


def commented_toml() -> str:
    """The text of `config/skyisland.toml`: every key with its default and explanation, commented out."""
    return commented(
        Settings(),
        "Sky Island's settings. Every key is here with its default, commented out.\n\n"
        'Durations are written as in Go ("250ms", "10s", "1h30m"), sizes as numbers of bytes or with k, m, '
        'g, t for powers of 1024 ("64k", "256m"). `skyisland config check` lists what is wrong with a file, '
        "`skyisland config show` prints the settings in force.",
    )
