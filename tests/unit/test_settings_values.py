"""Durations and sizes as settings write them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skyisland.settings.values import read_duration, read_size, write_duration, write_size

DURATIONS = """8h=28800 10s=10 250ms=.25 1h30m=5400 1.5s=1.5 .5m=30 2.s=2 1us=1e-6 1µs=1e-6 1ns=1e-9
1h1m1s1ms1us1ns=3661.001001001"""


@pytest.mark.parametrize(("text", "seconds"), [pair.split("=") for pair in DURATIONS.split()])
def test_durations_are_written_as_in_go(text: str, seconds: str) -> None:
    assert read_duration(text) == float(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *["0", "0s", "0h0m", "-5s", "+5s", "5", "s", "1d", "1e3s", "1h-1m", "٣s", "0.1ns", "9999999h"],
        *("", "1 s", "1s ", "9" * 80 + "h", 5, 5.0, True, None, ["1s"]),
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        read_duration(text)


@given(st.integers(1, 2**63 - 1))
def test_durations_survive_writing(nanoseconds: int) -> None:
    seconds = nanoseconds / 10**9
    assume(seconds * 10**9 < 2**63)
    assert read_duration(write_duration(seconds)) == seconds


@given(st.integers(0, 2**63 - 1), st.integers(0, 4))
def test_sizes_survive_writing(number: int, power: int) -> None:
    size = (number << 10 * power) % 2**63
    assert read_size(write_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"), [("64k", 65536), ("256M", 1 << 28), ("1t", 1 << 40), ("7", 7), (7, 7)]
)
def test_sizes(text: object, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "k", "1.5g", "64kb", "1 m", "-1", -1, 1.0, True, None, 2**63, "9999999999g"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        read_size(text)
