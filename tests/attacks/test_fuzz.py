"""What reads strangers' or operators' text: whatever comes, an answer or a refusal, and never long."""

# ruff: noqa: PT017 - a refusal is one of two right answers
from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyisland.codec import decode
from skyisland.drivers.freebsd import commands as freebsd_commands
from skyisland.drivers.zfs import commands as zfs_commands
from skyisland.errors import BadCall, BadRequest, DriverError, IslandError, SettingsError
from skyisland.golang.call import read_call
from skyisland.golang.harness import call_errors, classify
from skyisland.settings import Git, Settings
from skyisland.settings.reading import overlay
from skyisland.sources.url import parse_url
from skyisland.sources.versions import check_version
from skyisland.wire import AddressBody, FunctionBody

GO = st.sampled_from(
    [
        *"()[]{}.,;:+-*/&|^!<>=\"'`\\ \t\n\0",
        "func",
        "go ",
        "0x",
        "1e9",
        "nil",
        "Encode",
        "x.",
        "//",
        "/*",
        "…",
        "\u202e",
    ]
)
SOURCES = st.lists(GO | st.text(max_size=3), max_size=60).map("".join)


@pytest.mark.case("C5")
@settings(max_examples=300)
@given(text=SOURCES)
async def test_calls(text: str) -> None:
    started = time.monotonic()
    try:
        call = await read_call(text)
    except BadCall as refusal:
        assert refusal.message
    else:
        assert call.function[0].isupper()
        assert (await read_call(call.text)).text == call.text
    assert time.monotonic() - started < 5


@settings(max_examples=300)
@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
    shape=st.sampled_from([FunctionBody, AddressBody]),
)
def test_bodies(data: bytes, shape: type[msgspec.Struct]) -> None:
    try:
        assert isinstance(decode(data, shape), shape)
    except BadRequest as refusal:
        assert refusal.message.isprintable() or "\n" in refusal.message


@settings(max_examples=200)
@given(
    url=st.text(max_size=80)
    | st.lists(
        st.sampled_from(["github.com", "/", "..", ":", "@", "%2f", "ext::", "-", "file://", "a"]), max_size=12
    ).map("".join)
)
def test_urls_and_versions(url: str) -> None:
    for read in (lambda: parse_url(url, Git().allowed_schemes), lambda: check_version(url)):
        try:
            read()
        except IslandError as refusal:
            assert refusal.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*Settings.__struct_fields__, "Jails", "", "http port", "\x1b[31m"])
SECTION = st.sampled_from(
    [name for name in Settings.__struct_fields__ if hasattr(getattr(Settings(), name), "__struct_fields__")]
)


@settings(max_examples=200)
@given(tables=st.dictionaries(KEYS, VALUES, max_size=5), section=SECTION, data=st.data())
def test_settings(tables: dict[str, object], section: str, data: st.DataObject) -> None:
    keys = st.sampled_from(getattr(Settings(), section).__struct_fields__)
    tables[section] = data.draw(st.dictionaries(keys, VALUES, max_size=4) | VALUES)
    try:
        overlay(Settings(), tables, "fuzz")
    except SettingsError as refusal:
        assert all(line.isprintable() for line in refusal.message.splitlines())


JLS = st.dictionaries(
    st.sampled_from(["jail-information", "jail", "jid", "name", "path", "dying"]), VALUES, max_size=4
)


@settings(max_examples=200)
@given(
    said=st.text(max_size=200)
    | VALUES.map(lambda value: msgspec.json.encode(value).decode())
    | JLS.map(lambda jail: msgspec.json.encode({"jail-information": {"jail": [jail]}}).decode())
    | st.lists(st.sampled_from(["zroot/sky", "-", "yes", "\t", "\n", " ", "=", ":", "memoryuse", "1"])).map(
        "".join
    )
)
def test_what_the_programs_of_freebsd_and_zfs_say(said: str) -> None:
    for parse in (
        freebsd_commands.parse_jls,
        freebsd_commands.parse_mounts,
        freebsd_commands.parse_rules,
        freebsd_commands.parse_usage,
        zfs_commands.parse_list,
    ):
        try:
            parse(said)
        except DriverError as refusal:
            assert "understands" in refusal.message


@settings(max_examples=200)
@given(output=st.text(max_size=300))
def test_what_a_compiler_says(output: str) -> None:
    classify(output)
    for offset, message in call_errors(output + "\nskyisland.call:1:" + output):
        assert isinstance(offset, int)
        assert message
