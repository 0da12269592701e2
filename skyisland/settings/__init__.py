"""Settings: defaults, a file over them, and one secret from the environment.

The file is TOML; the original's `config.json` is taken as it is. It is the one that is named, else the
first of these that exists, alone:

    $XDG_CONFIG_HOME/skyisland/skyisland.toml     (~/.config; not for root, whose HOME may be another's)
    /usr/local/etc/skyisland.toml
    /etc/skyisland.toml

The admin token is `admin_api_token` of the file, else the variable SKYISLAND_ADMIN_API_TOKEN, else the
file `admin-token` in the state folder, made with a random token at first start.

Nothing else in the program reads settings files or the environment: `Settings.load` is given both, and
each room is given its own section. These functions block; call them before the loop runs or in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import structs

from skyisland.model import Bounds, Policy
from skyisland.settings.files import stored_token, write_private
from skyisland.settings.layout import Layout
from skyisland.settings.reading import Problem, overlay, read_file, settings_error
from skyisland.settings.sections import (
    IP4,
    Api,
    Build,
    CallLimits,
    Filesystem,
    Git,
    JailLimits,
    Jails,
    Log,
    Metrics,
    Network,
    Section,
    Warm,
)
from skyisland.settings.values import (
    AbsolutePath,
    GoVersion,
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

__all__ = [
    "IP4",
    "Api",
    "Build",
    "CallLimits",
    "Filesystem",
    "Git",
    "JailLimits",
    "Jails",
    "Layout",
    "Log",
    "Metrics",
    "Network",
    "Refused",
    "Settings",
    "Warm",
    "admin_token",
    "commented_toml",
    "dump",
    "find_file",
    "write_private",
]

TOKEN_VARIABLE = "SKYISLAND_ADMIN_API_TOKEN"  # noqa: S105 - its name, not its value
SYSTEM_FILES = (Path("/usr/local/etc/skyisland.toml"), Path("/etc/skyisland.toml"))


class Settings(Section, frozen=True, kw_only=True):
    """All settings of an island."""

    release: Release = ""
    """The FreeBSD release that jails are made of. Without it, the host's."""
    http_port: Port = 3280
    """The port of the REST API."""
    listen: Listen = "127.0.0.1"
    """The address of the REST API. Who can reach it can run code in jails: think before you open it."""
    state_dir: AbsolutePath = Path("/var/lib/skyisland")
    """Everything that the island keeps. Without it, /var/lib/skyisland for root, and skyisland in
    $XDG_STATE_HOME (~/.local/state) for others."""
    admin_api_token: Token = ""
    """What admins show in the header. Without it, the variable SKYISLAND_ADMIN_API_TOKEN; without that, a
    random one that the first start puts into the file admin-token in state_dir."""
    admin_token_header: HeaderName = "X-Sky-Island-Token"  # noqa: S105
    """The header that carries the token."""
    go_version: GoVersion = ""
    """The Go version to download. Without it, whatever toolchain is at hand (see build.goroot); one before
    1.24 counts as none, for later ones compile the same code."""
    base_sys_pkg_dir: Text = ""
    """A folder, or the URL of a mirror, with the base system's archives (FreeBSD)."""
    filesystem: Filesystem = Filesystem()
    network: Network = Network()
    jails: Jails = Jails()
    limits: CallLimits = CallLimits()
    build: Build = Build()
    git: Git = Git()
    warm: Warm = Warm()
    api: Api = Api()
    metrics: Metrics = Metrics()
    log: Log = Log()

    def __post_init__(self) -> None:
        jails = self.jails.max_running + self.build.max_running + self.warm.max_jails
        if self.jails.uid_count < jails:
            allowed = f"at least {jails}, jails.max_running + build.max_running + warm.max_jails"
            raise Refused("jails.uid_count", self.jails.uid_count, allowed)

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str]) -> Settings:
        """The settings of the file at `path`, or of the one that `find_file` finds, or the defaults.

        Raises:
            SettingsError: file, key path, what was found and what is allowed, for each problem.
        """
        path = path or find_file(environ)
        tables = read_file(path) if path else {}
        settings = overlay(cls(), tables, str(path))
        if "state_dir" not in tables:
            settings = structs.replace(settings, state_dir=_default_state_dir(environ))
        if not settings.admin_api_token and (token := environ.get(TOKEN_VARIABLE)):
            settings = overlay(settings, {"admin_api_token": token}, f"environment variable {TOKEN_VARIABLE}")
        return settings

    @property
    def layout(self) -> Layout:
        """Where everything lies."""
        jails = self.jails.base_jail_dir
        return Layout(self.state_dir, Path(jails) if jails else self.state_dir / "jails")

    @property
    def policy(self) -> Policy:
        """What rules a call."""
        return Policy(
            exec_timeout_s=self.jails.exec_timeout,
            limits=self.limits.as_limits(),
            max_running=self.jails.max_running,
            max_queued=self.jails.max_queued,
            queue_timeout_s=self.jails.queue_timeout,
            require=self.limits.require,
            keep_s=self.jails.cache_purge_after,
            warm=Bounds(
                max_jails=self.warm.max_jails,
                max_memory_bytes=self.warm.max_memory or None,
                idle_expires_s=self.warm.idle_expires,
            ),
        )

    @property
    def bind(self) -> str:
        """What the server listens on: `127.0.0.1:3280`, `[::1]:3280`."""
        return f"{_in_url(self.listen)}:{self.http_port}"

    @property
    def url(self) -> str:
        """Where a client on this host finds the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen, self.listen)  # noqa: S104
        scheme = "https" if self.api.tls_cert else "http"
        return f"{scheme}://{_in_url(host)}:{self.http_port}"

    @property
    def statsd(self) -> tuple[str, int] | None:
        """Host and port of the StatsD server, if there is one."""
        address = self.metrics.statsd or self.jails.monitoring_addr
        return split_host_port(address, 8125) if address else None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = structs.asdict(self) | {"admin_api_token": "…" if self.admin_api_token else ""}
        return list(shown.items())

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def find_file(environ: Mapping[str, str]) -> Path | None:
    """The settings file that is used when none is named, by the module's rule."""
    files = list(SYSTEM_FILES)
    if os.geteuid() != 0 and (folder := _xdg(environ, "XDG_CONFIG_HOME", ".config")):
        files.insert(0, folder / "skyisland" / "skyisland.toml")
    return next((file for file in files if os.path.lexists(file)), None)


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Settings().state_dir
    if folder := _xdg(environ, "XDG_STATE_HOME", ".local/state"):
        return folder / "skyisland"
    found = Problem("state_dir", "neither it nor XDG_STATE_HOME nor HOME", "an absolute path")
    raise settings_error("environment", [found])


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """A folder of the XDG base directory specification, which has relative paths ignored."""
    for value, below in ((environ.get(variable, ""), ""), (environ.get("HOME", ""), below_home)):
        if Path(value).is_absolute() and value.isprintable():
            return Path(value) / below
    return None


def admin_token(settings: Settings, *, make: bool = True) -> str:
    """The token that admins must show: the settings' own, else the one stored in the state folder.

    `make`: store a new one if there is none, as the daemon does; clients do without.

    Raises:
        SettingsError: there is none, it cannot be stored, or others could have read or written it.
    """
    return settings.admin_api_token or stored_token(settings.layout.token, make=make)


def commented_toml() -> str:
    """The text of `config/skyisland.toml`: every key with its default commented out and explained."""
    return commented(
        Settings(),
        "Sky Island's settings. Every key stands here with its default, commented out.\n\n"
        'Durations are written as in Go ("250ms", "10s", "1h30m"), sizes as numbers of bytes or with k, m, '
        'g, t for powers of 1024 ("64k", "256m"). `skyisland config check` tells what is wrong with a file, '
        "`skyisland config show` what it amounts to.",
    )
