"""Settings: what a file may say, what is said about a file that may not, and what is written back."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import skyisland.settings
from skyisland.errors import SettingsError
from skyisland.figures import Slo
from skyisland.model import Limits
from skyisland.settings import (
    IP4,
    Build,
    Settings,
    commented_toml,
    dump,
    find_file,
)
from skyisland.settings.reading import overlay
from skyisland.settings.values import write_duration
from skyisland.status import Bounds, Policy

ROOT = Path(__file__).parents[2]

ORIGINAL = {
    "release": "11.1-RELEASE",
    "http_port": 3280,
    "admin_api_token": "asdfasdfasdfasdf",
    "admin_token_header": "X-Sky-Island-Token",
    "go_version": "1.9.2",
    "base_sys_pkg_dir": "/tmp/11.1-RELEASE",
    "filesystem": {"zfs_dataset": "zroot", "compression": False},
    "network": {
        "ip4": {
            "interface": "em0",
            "start_addr": "192.168.0.20",
            "mask": "255.255.255.0",
            "range": 220,
            "gateway": "192.168.0.1",
            "dns": ["4.2.2.1", "4.2.2.2"],
        }
    },
    "jails": {
        "base_jail_dir": "/zroot/jails",
        "cache_default_expiration": "8h",
        "cache_purge_after": "24h",
        "children_max": 0,
        "monitoring_addr": "127.0.0.1",
        "build_timeout": "10s",
        "exec_timeout": "5s",
    },
}
"""The example configuration of the Go program, key by key."""


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without system-wide settings, seen by an ordinary user; returns its /etc."""
    monkeypatch.setattr(skyisland.settings, "SYSTEM_FILES", (tmp_path / "skyisland.toml",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


# What a file may say


def test_the_originals_config_is_taken_as_it_is(load_settings: Callable[..., Settings]) -> None:
    settings = load_settings(json.dumps(ORIGINAL), "config.json")
    assert settings.release == "11.1-RELEASE"
    assert settings.admin_api_token == "asdfasdfasdfasdf"
    assert settings.jails.cache_default_expiration == 8 * 3600
    assert (settings.jails.build_timeout, settings.jails.exec_timeout) == (10.0, 5.0)
    assert settings.layout.jails == Path("/zroot/jails")
    assert settings.statsd == ("127.0.0.1", 8125)
    pool = [str(address) for address in settings.network.ip4.pool()]
    assert (pool[0], pool[-1], len(pool)) == ("192.168.0.20", "192.168.0.220", 201)
    assert settings.network.ip4.subnet.prefixlen == 24
    # Every key of the original is one of ours, and what it means survives the way through TOML.
    assert load_settings(dump(settings, secrets=True)) == settings


@pytest.mark.parametrize("name", ["config.json", "config", "config.conf"])
def test_json_is_known_by_its_name_or_its_brace(load_settings: Callable[..., Settings], name: str) -> None:
    assert load_settings(' {"http_port": 80}', name).http_port == 80


def test_toml_lies_over_the_defaults(load_settings: Callable[..., Settings]) -> None:
    settings = load_settings(
        """
        listen = "::1"
        [limits]
        memory = "64m"
        pids = 0
        [build]
        memory = 1073741824
        [git]
        allowed_schemes = ["https", "file"]
        rewrite = {"https://a/" = "file:///1/", "https://a/b/" = "file:///2/"}
        [metrics]
        statsd = "[::1]:9125"
        """
    )
    assert (settings.bind, settings.url) == ("[::1]:3280", "http://[::1]:3280")
    assert settings.limits.as_limits() == Limits(
        memory_bytes=64 << 20, pids=None, cpus=1.0, open_files=256, disk_bytes=128 << 20, file_bytes=64 << 20
    )
    assert settings.build.as_limits().memory_bytes == 1 << 30
    assert settings.build.as_limits().pids == Build().pids
    assert settings.git.rewrites == (("https://a/b/", "file:///2/"), ("https://a/", "file:///1/"))
    assert settings.statsd == ("::1", 9125)


def test_what_rules_a_call_is_of_three_sections(load_settings: Callable[..., Settings]) -> None:
    settings = load_settings(
        """
        [jails]
        exec_timeout = "3s"
        max_running = 5
        running_per_client = 2
        max_queued = 7
        queue_timeout = "11s"
        cache_purge_after = "13s"
        [limits]
        pids = 17
        require = ["memory"]
        [warm]
        max_jails = 19
        max_memory = 0
        idle_expires = "23s"
        [slo]
        target = "29ms"
        functions = {"example.com/r.F" = "31ms"}
        """
    )
    assert settings.policy == Policy(
        exec_timeout_s=3.0,
        max_running=5,
        running_per_client=2,
        max_queued=7,
        queue_timeout_s=11.0,
        behind_running=1,
        failures_kept_s=30.0,
        keep_s=13.0,
        slo=Slo(target_s=0.029, functions={"example.com/r.F": 0.031}),
        limits=settings.limits.as_limits(),
        require=("memory",),
        warm=Bounds(max_jails=19, max_memory_bytes=None, idle_expires_s=23.0),
    )


def test_a_client_reaches_a_server_that_listens_everywhere() -> None:
    assert Settings(listen="0.0.0.0").url == "http://127.0.0.1:3280"  # noqa: S104
    assert Settings(listen="0.0.0.0").bind == "0.0.0.0:3280"  # noqa: S104


def test_a_unix_socket_has_no_port(load_settings: Callable[..., Settings]) -> None:
    settings = load_settings(
        'listen = "unix:/run/sky/api.sock"\nsocket_mode = "660"\nsocket_group = "www-data"'
    )
    assert settings.url == settings.bind == "unix:/run/sky/api.sock"
    assert settings.unix_socket == "/run/sky/api.sock"
    assert Settings().unix_socket == ""
    for wrong in (
        'listen = "unix:api.sock"',
        f'listen = "unix:/{"x" * 100}"',
        'socket_mode = "rw"',
        'socket_group = "a b"',
    ):
        with pytest.raises(SettingsError, match=wrong.partition(" ")[0]):
            load_settings(wrong)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().http_port = 1  # type: ignore[misc]


# The pool of addresses


def test_a_subnet_is_the_pool_without_its_gateway() -> None:
    pool = list(IP4().pool())
    assert (pool[0], pool[-1], len(pool)) == (IPv4Address("10.61.0.2"), IPv4Address("10.61.0.254"), 253)
    middle = IP4(cidr="10.0.0.0/29", gateway="10.0.0.3")
    assert [address.packed[3] for address in middle.pool()] == [1, 2, 4, 5, 6]


def test_the_range_is_the_last_octet() -> None:
    one = IP4(start_addr="10.0.3.7", mask="255.255.0.0", range=7)
    assert list(one.pool()) == [IPv4Address("10.0.3.7")]
    assert one.gateway_address == IPv4Address("10.0.0.1")


# Which file, which folder


def test_without_a_file_the_defaults_count(nowhere: Path) -> None:
    settings = Settings.load(None, {"HOME": "/home/gopher"})
    assert settings == msgspec.structs.replace(
        Settings(), state_dir=Path("/home/gopher/.local/state/skyisland")
    )
    assert settings.bind == "127.0.0.1:3280"
    assert Settings.load(None, {"XDG_STATE_HOME": "/xdg"}).state_dir == Path("/xdg/skyisland")
    relative = {"HOME": "/home/gopher", "XDG_STATE_HOME": "xdg"}
    assert Settings.load(None, relative).state_dir == settings.state_dir
    with pytest.raises(SettingsError, match="state_dir: found neither"):
        Settings.load(None, {})


def test_root_keeps_its_state_in_var(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environ = {"HOME": "/home/gopher", "XDG_STATE_HOME": "/xdg"}
    assert Settings.load(None, environ).state_dir == Path("/var/lib/skyisland")


def test_the_users_own_file_comes_first_but_not_for_root(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"HOME": str(nowhere / "home")}
    assert find_file(environ) is None
    system = nowhere / "skyisland.toml"
    system.write_text("http_port = 1")
    assert find_file(environ) == system
    own = nowhere / "home/.config/skyisland/skyisland.toml"
    own.parent.mkdir(parents=True)
    own.write_text("http_port = 2\nstate_dir = '/s'")
    settings = Settings.load(None, environ)
    assert (settings.http_port, settings.state_dir) == (2, Path("/s"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Settings.load(None, environ).http_port == 1


def test_every_path_of_the_layout_is_in_the_state_folder_and_its_own() -> None:
    layout = Settings(state_dir=Path("/s")).layout
    names = [name for name in dir(type(layout)) if isinstance(getattr(type(layout), name), property)]
    paths = [getattr(layout, name) for name in names] + [layout.jails]
    assert all(path.parent == Path("/s") for path in paths)
    assert len(set(paths)) == len(paths) > 10


# Writing


def test_the_commented_file_is_that_of_the_code() -> None:
    assert (ROOT / "config/skyisland.toml").read_text() == commented_toml()


def test_the_commented_file_says_the_defaults() -> None:
    text = commented_toml()
    assert overlay(Settings(), tomllib.loads(text), "as it is") == Settings()
    uncommented = re.sub(r"(?m)^#(?=\w)", "", text)
    told = tomllib.loads(uncommented)
    assert overlay(Settings(), told, "uncommented") == Settings()
    # No key is missing: the dump, which has all, says nothing else.
    assert told == {**tomllib.loads(dump(Settings(), secrets=True))}
    assert max(map(len, text.splitlines())) <= 110


def test_nothing_else_reads_the_environment() -> None:
    readers = [
        str(file.relative_to(ROOT))
        for package in ("skyisland", "api", "tui")
        for file in (ROOT / package).rglob("*.py")
        if re.search(r"os\.environ(?!\.setdefault)|getenv", file.read_text())
    ]
    # The commands hand it to `Settings.load`; the console asks what Textual itself is told by it.
    textual = {"tui/web.py", "tui/supervisor.py"}
    assert {reader for reader in readers if not reader.startswith("skyisland/cli")} <= textual


durations = st.integers(1, 10**18).map(lambda ns: write_duration(ns / 10**9))
sizes = st.integers(1, 2**62) | st.integers(1, 2**40).map(lambda number: f"{number}k")
words = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20)
paths = words.filter(lambda word: ".." not in word).map(lambda word: f"/{word}")
urls = st.builds(
    "{}://{}/".format, st.sampled_from(["https", "file", "ssh"]), st.from_regex(r"[a-z.]+", fullmatch=True)
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "http_port": st.integers(1, 65535),
        "listen": st.ip_addresses().map(str),
        "state_dir": paths,
        "admin_api_token": st.text("abc-_!~", max_size=9),
        "base_sys_pkg_dir": words,
        "jails": st.fixed_dictionaries(
            {},
            optional={
                "driver": st.sampled_from(["auto", "bubblewrap", "freebsd", "fake"]),
                "exec_timeout": durations,
                "cache_purge_after": durations,
                "max_running": st.integers(1, 4000),
                "base_jail_dir": paths,
            },
        ),
        "network": st.fixed_dictionaries(
            {},
            optional={
                "ip4": st.fixed_dictionaries(
                    {},
                    optional={
                        "cidr": st.integers(0, 255).map(lambda octet: f"10.{octet}.0.0/16"),
                        "dns": st.lists(st.ip_addresses().map(str), max_size=3),
                        "nat": st.booleans(),
                        "pools": st.lists(
                            st.integers(0, 255).map(lambda octet: {"cidr": f"172.16.{octet}.0/24"}),
                            max_size=3,
                            unique_by=str,
                        ),
                    },
                )
            },
        ),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "memory": sizes,
                "cpus": st.floats(0, 4096) | st.integers(0, 64),
                "require": st.lists(st.sampled_from(["memory", "pids"])),
            },
        ),
        "git": st.fixed_dictionaries(
            {}, optional={"rewrite": st.dictionaries(urls, urls, max_size=3), "max_size": sizes}
        ),
        "metrics": st.fixed_dictionaries({}, optional={"prefix": words}),
    },
)


@given(plausible)
def test_what_is_written_reads_back_the_same(tables: dict[str, Any]) -> None:
    settings = overlay(Settings(), tables, "given")
    assert overlay(Settings(), tomllib.loads(dump(settings, secrets=True)), "dumped") == settings
