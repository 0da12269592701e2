"""Settings that cannot be used: file, key path, what was found, what is allowed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from skyisland.errors import SettingsError
from skyisland.settings import (
    IP4,
    Git,
    JailLimits,
    Jails,
    Pool,
    Refused,
    Settings,
    Warm,
    dump,
)
from skyisland.settings.reading import overlay, read_file
from skyisland.settings.values import write_duration


def problems(error: pytest.ExceptionInfo[SettingsError]) -> dict[str, tuple[str, str]]:
    return {each["key"]: (each["found"], each["allowed"]) for each in error.value.details["problems"]}


BAD = [
    ("http_port = 0", "http_port", "0", "a port from 1 to 65535"),
    ("http_port = 3280.0", "http_port", "3280.0", "a port from 1 to 65535"),
    ("http_port = true", "http_port", "true", "a port from 1 to 65535"),
    ("listen = 'localhost'", "listen", '"localhost"', 'an IP address such as "127.0.0.1" or "::"'),
    ("state_dir = 'here'", "state_dir", '"here"', "an absolute path without .."),
    ("state_dir = '/a/../b'", "state_dir", '"/a/../b"', "an absolute path without .."),
    ('release = "a\\u001b[2J"', "release", '"a\\u001b[2J"', 'a FreeBSD release such as "14.3-RELEASE"'),
    ("release = '/tmp/11.1-RELEASE'", "release", '"/tmp/11.1-RELEASE"', "a FreeBSD release"),
    ("admin_token_header = 'X Y'", "admin_token_header", '"X Y"', "the name of an HTTP header"),
    ("go_version = 2020-01-01", "go_version", "a date or time", "a Go version"),
    ("jails = []", "jails", "an empty array", "a table"),
    ("[jails]\nexec_timeout = '0s'", "jails.exec_timeout", '"0s"', "a duration above zero"),
    ("[jails]\nexec_timeout = '-1s'", "jails.exec_timeout", '"-1s"', "a duration above zero"),
    (
        "[jails]\ndriver = 'docker'",
        "jails.driver",
        '"docker"',
        '"auto", "namespaces", "bubblewrap", "freebsd" or "fake"',
    ),
    ("[fleet]\nnode = 'all'", "fleet.node", '"all"', "another name: to the commands, all means all nodes"),
    ("[fleet]\nname = 'a'", "fleet.servers", "an empty array", "at least one server, because name is set"),
    ("[jails]\nuid_start = 0", "jails.uid_start", "0", "an unprivileged uid from 1000"),
    ("[jails]\nuid_start = 65000", "jails.uid_start", "65000", "without 65534"),
    ("[jails]\nuid_count = 10", "jails.uid_count", "10", "at least 74"),
    ("[jails]\nuid_start = 2147483000", "jails.uid_count", "4096", "at most 648"),
    ("[jails]\nbase_jail_dir = 'x'", "jails.base_jail_dir", '"x"', "an absolute path"),
    ("[jails]\nmonitoring_addr = 'a:0'", "jails.monitoring_addr", '"a:0"', '"host" or "host:port"'),
    ("[filesystem]\ncompression = 'on'", "filesystem.compression", '"on"', "true or false"),
    ("[filesystem]\nstorage = 'zfs'", "filesystem.zfs_dataset", '""', 'because storage is "zfs"'),
    ("[filesystem]\nzfs_dataset = '-r'", "filesystem.zfs_dataset", '"-r"', "a ZFS dataset"),
    ("[network.ip4]\ncidr = '10.0.0.1/24'", "network.ip4.cidr", '"10.0.0.1/24"', "without host bits"),
    ("[network.ip4]\ncidr = '10.0.0.0/8'", "network.ip4.cidr", '"10.0.0.0/8"', "16 to 30 bits"),
    ("[network.ip4]\nmask = '0.0.0.255'", "network.ip4.mask", '"0.0.0.255"', "a network mask"),
    ("[network.ip4]\ndns = ['1.1.1.1', 'x']", "network.ip4.dns[1]", '"x"', "an IP address"),
    ("[network.ip4]\nbridge = 'sky/../0'", "network.ip4.bridge", '"sky/../0"', "an interface"),
    ("[limits]\ncpus = nan", "limits.cpus", "nan", "a number of cores"),
    ("[limits]\ncpus = inf", "limits.cpus", "inf", "a number of cores"),
    ("[limits]\nstdout = 0", "limits.stdout", "0", "a size above zero"),
    ("[limits]\npids = 1" + "0" * 60, "limits.pids", "a number far too large", "a whole number"),
    ("[limits]\nrequire = 'memory'", "limits.require", '"memory"', "an array"),
    ("[build]\ngoproxy = 'proxy'", "build.goproxy", '"proxy"', "URLs"),
    ("[build]\ngoproxy = 'https://me:pw@p'", "build.goproxy", '"https://…@p"', "URLs without credentials"),
    ("[git]\nallowed_schemes = ['ext']", "git.allowed_schemes[0]", '"ext"', '"https", "http"'),
    ("[git]\nallowed_schemes = []", "git.allowed_schemes", "an empty array", "at least one"),
    ("[git]\nrewrite = {'ext::x' = 'https://a/'}", "git.rewrite", '"ext::x"', "URLs that begin with"),
    ("[git]\nrewrite = {'https://a/' = '-x'}", "git.rewrite", '"-x"', "URLs that begin with"),
    ("[git]\nrewrite = {'https://[' = 'https://a/'}", "git.rewrite", '"https://["', "URLs"),
    ("[git]\nrewrite = {'https://a/' = 'https://me:pw@b/'}", "git.rewrite", '"https://…@b/"', "without user"),
    ("[git]\nrewrite = {'https://a/' = 1}", 'git.rewrite."https://a/"', "1", "a text"),
]


@pytest.mark.parametrize(("text", "key", "found", "allowed"), BAD, ids=[bad[0] for bad in BAD])
def test_a_bad_value_is_refused(
    load_settings: Callable[..., Settings], tmp_path: Path, text: str, key: str, found: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(text)
    [(seen_key, (seen_found, seen_allowed))] = problems(error).items()
    assert (seen_key, seen_found) == (key, found)
    assert allowed in seen_allowed
    assert str(error.value) == f"{tmp_path}/skyisland.toml: {key}: found {found}; allowed: {seen_allowed}"
    assert "pw" not in str(error.value)


def test_unknown_keys_are_refused_with_what_was_meant(load_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings('http_prot = 1\nexec_timeout = "1s"\n[jails]\nxyzzy = 1\n"\\u001b" = 2')
    said = problems(error)
    assert said["http_prot"][0] == "an unknown key (did you mean http_port?)"
    assert said["exec_timeout"][0] == "an unknown key (did you mean jails.exec_timeout?)"
    assert said["jails.xyzzy"][0] == "an unknown key"
    assert "exec_timeout" in said["jails.xyzzy"][1].split(", ")
    assert 'jails."\\u001b"' in said
    assert str(error.value).isprintable() is False  # one line per problem,
    assert all(
        line.isprintable() for line in str(error.value).splitlines()
    )  # and no control character in any


def test_all_problems_are_told_at_once(load_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="3 problems") as error:
        load_settings("http_port = 0\n[git]\nmax_size = -1\n[jails]\ndriver = 1")
    assert set(problems(error)) == {"http_port", "git.max_size", "jails.driver"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "http_port = ", "is not TOML"),
        ("a.toml", "a = 1\na = 2", "is not TOML"),
        ("a.toml", "a = " + "[" * 100_000, "is not TOML: "),
        ("a.toml", "a = " + "9" * 5000, "is not TOML: "),
        ("a.json", '{"http_port": 3280', "is not JSON"),
        ("a.json", '{"http_port": 1, "http_port": 2}', "http_port is there twice"),
        ("a.json", '{"a":' * 100_000, "is not JSON: "),
        ("a.json", "[]", "found an empty array; allowed: an object"),
        ("a.json", '{"http_port": null}', "http_port: found null"),
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_file_is_refused(
    load_settings: Callable[..., Settings], name: str, text: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)) as error:
        load_settings(text, name)
    assert name in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'release = "\xe9"')
    for path, said in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "latin", "byte 11"),
    ):
        with pytest.raises(SettingsError, match=said) as error:
            Settings.load(path, {})
        assert str(path) in str(error.value)


NINE: dict[str, Any] = {"start_addr": "10.9.0.10", "mask": "255.255.255.0", "range": 19}
NEXT = NINE | {"start_addr": "10.9.0.20", "range": 30}


@pytest.mark.parametrize(
    ("key", "ip4"),
    [
        ("range", {"start_addr": "10.0.0.20", "mask": "255.255.255.128", "range": 128}),
        ("range", {"start_addr": "10.0.0.20", "mask": "255.255.255.0", "range": 255}),
        ("range", {"start_addr": "10.0.0.20", "mask": "255.255.255.0", "range": 19}),
        ("range", {"start_addr": "10.0.0.20", "mask": "255.255.255.0"}),
        ("range", {"range": 20}),
        ("mask", {"start_addr": "10.0.0.20", "range": 30}),
        ("mask", {"start_addr": "10.0.0.20", "mask": "255.255.255.255", "range": 20}),
        ("mask", {"mask": "255.255.255.0"}),
        ("start_addr", {"start_addr": "10.0.0.0", "mask": "255.255.255.0", "range": 20}),
        ("start_addr", {"start_addr": "127.0.0.2", "mask": "255.255.255.0", "range": 20}),
        ("cidr", {"start_addr": "10.0.0.20", "mask": "255.255.255.0", "range": 30, "cidr": "10.1.0.0/24"}),
        ("cidr", {"cidr": "224.0.0.0/24"}),
        ("cidr", {"cidr": "169.254.0.0/24"}),
        ("gateway", {"start_addr": "10.0.0.1", "mask": "255.255.255.0", "range": 30}),
        ("gateway", {"start_addr": "10.0.0.2", "mask": "255.255.255.0", "range": 9, "gateway": "10.0.0.5"}),
        ("gateway", {"gateway": "10.62.0.1"}),
        ("gateway", {"gateway": "10.61.0.255"}),
        ("bridge", {"bridge": ""}),
        ("pools", {"pools": (Pool(cidr="10.61.0.0/25"),)}),
        ("pools", {"cidr": "10.0.0.0/24", "pools": (Pool(cidr="10.1.0.0/24"), Pool(cidr="10.1.0.0/24"))}),
        ("pools", {"cidr": "10.0.0.0/30", "pools": (Pool(**NINE), Pool(**NINE))}),
        (
            "pools",
            {
                **NINE,
                "pools": (Pool(**{**NINE, "range": 30, "start_addr": "10.9.0.20"}, gateway="10.9.0.9"),),
            },
        ),
    ],
)
def test_an_impossible_pool_is_refused(key: str, ip4: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        IP4(**ip4)
    assert refused.value.key == key
    with pytest.raises(SettingsError) as error:
        overlay(Settings(), {"network": {"ip4": tables(ip4)}}, "file")
    assert list(problems(error)) == [f"network.ip4.{key}"]


def tables(ip4: dict[str, Any]) -> dict[str, Any]:
    """As a file has them."""
    pools = [structs.asdict(pool) for pool in ip4.get("pools", ())]
    return ip4 | (
        {"pools": [{key: value for key, value in pool.items() if value} for pool in pools]} if pools else {}
    )


def test_a_wrong_pool_of_several_is_named(load_settings: Callable[..., Settings]) -> None:
    for text, key in (
        ("[{cidr = '10.0.0.1/24'}]", "pools[0].cidr"),
        ("[{cidr = '10.0.0.0/24'}, {}]", "pools[1].cidr"),
        ("[{start_addr = '10.0.0.9'}]", "pools[0].mask"),
        ("[{subnet = '10.0.0.0/24'}]", "pools[0].subnet"),
        ("['10.0.0.0/24']", "pools[0]"),
        ("'10.0.0.0/24'", "pools"),
    ):
        with pytest.raises(SettingsError) as error:
            load_settings(f"[network.ip4]\npools = {text}")
        assert list(problems(error)) == [f"network.ip4.{key}"]


def test_sections_check_themselves_in_code_too() -> None:
    assert JailLimits(memory=0).as_limits().memory_bytes is None
    with pytest.raises(Refused, match=r"jails\.uid_count"):
        Settings(warm=Warm(max_jails=9000))
    with pytest.raises(Refused, match="uid_start"):
        Jails(uid_start=65000)
    with pytest.raises(Refused, match="rewrite"):
        Git(rewrite={"ssh://git@a/": "ext::sh"})
    assert Git(rewrite={"ssh://git@a/": "ssh://git@b/"}).rewrites == (("ssh://git@a/", "ssh://git@b/"),)


durations = st.integers(1, 10**18).map(lambda ns: write_duration(ns / 10**9))
sizes = st.integers(1, 2**62) | st.integers(1, 2**40).map(lambda number: f"{number}k")
urls = st.builds(
    "{}://{}/".format, st.sampled_from(["https", "file", "ssh"]), st.from_regex(r"[a-z.]+", fullmatch=True)
)


def _all_keys(section: object) -> set[str]:
    keys: set[str] = set()
    for name in getattr(section, "__struct_fields__", ()):
        keys |= {name} | _all_keys(getattr(section, name))
    return keys


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.datetimes()
    | st.dates()
    | st.times()
    | durations
    | sizes
    | st.ip_addresses(v=4).map(str)
    | urls
)
keys = st.sampled_from(sorted(_all_keys(Settings()))) | st.text(st.characters())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=30,
)


def attempt(work: Callable[[], Any]) -> tuple[Any, SettingsError | None]:
    try:
        return work(), None
    except SettingsError as error:
        return None, error


@given(st.dictionaries(keys, values, max_size=8))
def test_no_table_whatever_brings_another_error(tables: dict[str, Any]) -> None:
    settings, error = attempt(lambda: overlay(Settings(), tables, "given"))
    if error is None:
        assert tomllib.loads(dump(settings))
    else:
        assert error.details["problems"]
        assert all(line.isprintable() for line in str(error).split("\n"))
        msgspec.json.encode(error.details)


@given(
    st.text(st.characters()) | st.text("{}[]\"'=.,:\n#\\u0 truefalsenan1e-_T"),
    st.sampled_from(["toml", "json", "x"]),
)
def test_no_text_whatever_brings_another_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    file = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    tables, error = attempt(lambda: read_file(file))
    assert isinstance(tables, dict) if error is None else str(file) in str(error)
