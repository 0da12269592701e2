"""What jails write, for those who watch."""

from __future__ import annotations

import pytest

from skyisland.jails.outputs import KEPT_BYTES, TAIL_BYTES, Outputs, Reader
from skyisland.model import Outcome, Verdict
from skyisland.status import Written

MARK = b"0123456789abcdef" * 2


def record(text: bytes, answer: bytes = b"{}") -> bytes:
    """Text of an answer, and the record behind it."""
    return b"%b%b%08x%08x%b" % (text, MARK, len(text), len(answer), answer)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 31, 33, 1000])
def test_records_are_left_out_wherever_the_output_is_cut(step: int) -> None:
    """In time that grows with the output: each byte is looked at once, but for the beginnings of marks."""
    written = b"printed \xc3\xa4 " + MARK[:9] + record(b"one") + record(b"two") + b" and " + MARK[:31]
    data, reader, seen = bytearray(), Reader(whole=True), ""
    for start in range(0, len(written), step):
        data += written[start : start + step]
        seen += reader.more(data, MARK)
    seen += reader.more(data, MARK, last=True)
    assert seen == "printed ä " + (MARK[:9] + b"onetwo and " + MARK[:31]).decode()


def test_what_the_harness_says_on_standard_error_is_left_out_with_all_behind_it() -> None:
    data = bytearray(b"log\n" + MARK + b' {"argument":0}\n')
    assert Reader(whole=False).more(data, MARK, last=True) == "log\n"


def test_a_record_that_is_none_hides_nothing_but_itself_and_ends() -> None:
    for forged in (MARK + b"x" * 16, MARK + b"f" * 16, MARK):
        data, reader = bytearray(b"a" + forged + b"rest"), Reader(whole=True)
        assert reader.more(data, MARK) == "a"
        assert reader.more(data, MARK, last=True) == ""


def test_a_long_output_is_read_in_parts() -> None:
    data, reader = bytearray(b"x" * 1_000_000), Reader(whole=True)
    parts = []
    while part := reader.more(data, MARK):
        parts.append(len(part))
    assert sum(parts) == 1_000_000
    assert max(parts) <= 64 << 10


def test_ends_are_kept_newest_and_bounded() -> None:
    outputs = Outputs()
    for number in range(2 * KEPT_BYTES // TAIL_BYTES):
        stdout = b"%06d" % number * TAIL_BYTES
        outputs.keep(
            f"sky-{number}", f"inv-{number}", Outcome(verdict=Verdict.ok, stdout=stdout, stderr=b"e")
        )
    assert outputs.tail("inv-0") is None
    tail = outputs.tail(f"sky-{number}")
    assert tail is not None
    assert tail is outputs.tail(f"inv-{number}")
    assert tail.piece() == Written(
        stdout=stdout[-TAIL_BYTES:].decode(), stderr="e", cut=5 * TAIL_BYTES, ended=True, verdict="ok"
    )
    outputs.keep("silent", "inv-s", Outcome(verdict=Verdict.ok, stdout=b"", stderr=b""))
    assert outputs.tail("silent") is None
