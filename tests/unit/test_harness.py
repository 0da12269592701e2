"""The main programs as text, the frame, and the harness's word; the programs themselves run in tests/real."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import BadCall, BadRequest, Complaint
from skyisland.golang import harness
from skyisland.golang.call import parse_call
from skyisland.golang.callee import parse_callee
from skyisland.model import Call, Data, GoError, Outcome, Returned, Verdict
from tests.support import answers as told

GOLDEN = Path(__file__).parent / "golden"
PATH = "github.com/mmcloughlin/geohash"


class TestMain:
    @pytest.mark.parametrize(
        ("name", "text", "statement"),
        [
            ("function", "geohash.Encode(100.1, 80.9)", False),
            ("expression", 'New(Option{Name: "}{`x"}).Len()', False),
            ("statement", "Default.Reset()", True),
        ],
    )
    def test_golden(self, name: str, text: str, statement: bool) -> None:
        form = harness.Form(statement=statement)
        files = harness.render_main(parse_call(text), PATH, "geohash", form=form)
        assert files == {"main.go": (GOLDEN / f"{name}.go").read_bytes()}

    def test_the_library_is_the_files_beside_the_module(self) -> None:
        folder = Path(harness.__file__).parent
        assert harness.library() == {path.name: path.read_bytes() for path in folder.glob("*.go")}

    def test_one_program_for_all_arguments(self) -> None:
        programs = [
            harness.render_main(parse_call(text), PATH, "geohash")
            for text in ("Encode(1, 2)", 'Encode("x")', "geohash.Encode()")
        ]
        assert programs[0] == programs[1] == programs[2]

    def test_as_expression_compiles_the_arguments(self) -> None:
        call = harness.as_expression(parse_call("Encode(1,2)"))
        assert b"Encode(1, 2)" in harness.render_main(call, PATH, "geohash")["main.go"]

    def test_another_package_is_refused(self) -> None:
        with pytest.raises(BadCall, match=r"the package is geohash, not hash;"):
            harness.render_main(parse_call("hash.Encode()"), PATH, "geohash")
        with pytest.raises(BadCall, match="package main"):
            harness.render_main(parse_call("Encode()"), PATH, "main")

    @pytest.mark.parametrize("path", ["", 'a"\nimport "os', "a b", "a`b", "a\\b", "a\n"])
    def test_no_other_code_comes_in_by_the_import_path(self, path: str) -> None:
        with pytest.raises(BadRequest, match="import path"):
            harness.render_main(parse_call("F()"), path, "geohash")


class TestFrame:
    def test_form(self) -> None:
        frame = harness.frame(parse_call(r'F(-1, "a\n\"")'), "n")
        assert frame == b"\x00\x00\x00\x2a" + rb'{"args":["-1","\"a\\n\\\"\""],"nonce":"n"}'

    def test_expressions_take_nothing(self) -> None:
        assert harness.frame(parse_call("F(G())"), "n")[4:] == b'{"args":[],"nonce":"n"}'

    def test_says_that_no_json_is_wanted(self) -> None:
        frame = harness.frame(parse_call("F()"), "n", text_only=True)
        assert frame[4:] == b'{"args":[],"nonce":"n","want":"text"}'

    def test_data_follows_the_header(self) -> None:
        call, json = parse_callee("F"), b"[[1], [2]]"
        frame = harness.frame(call, "n", data=Data(json=json, many=True), timeout_s=1.5)
        header = b'{"args":[],"nonce":"n","json":10,"timeout_ms":1500,"many":true}'
        assert frame == len(header).to_bytes(4, "big") + header + json
        once = harness.frame(call, "n", data=Data(json=b"[1]", many=False), timeout_s=60, text_only=True)
        assert once[4:] == b'{"args":[],"nonce":"n","want":"text","json":3,"timeout_ms":60000}[1]'

    @given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=20))
    def test_length_is_that_of_the_header(self, arguments: list[str], nonce: str) -> None:
        frame = harness.frame(Call(text="", function="F", arguments=tuple(arguments)), nonce)
        assert int.from_bytes(frame[:4], "big") == len(frame) - 4
        assert json.loads(frame[4:]) == {"args": arguments, "nonce": nonce}


def trailer(text: bytes, record: bytes, nonce: str = "n0") -> bytes:
    """What the harness writes at the end of standard output."""
    return b"%b%b%08x%08x%b" % (text, nonce.encode(), len(text), len(record), record)


class TestReturned:
    def test_a_record_is_cut_off(self) -> None:
        stdout = b"hello " + trailer(b"3 <nil>", b'{"results":[3]}') + b"bye"
        kept, [answer] = told.returned(stdout, "n0")
        assert kept == b"hello 3 <nil>bye"
        assert answer == Returned(printed=b"hello ", text=b"3 <nil>", results=b"[3]", error=None)

    def test_an_error(self) -> None:
        record = b'{"results":[],"error":{"message":"no","type":"*errors.errorString","at":"New()"}}'
        _, [answer] = told.returned(trailer(b"no", record), "n0")
        assert answer.error == GoError(message="no", type="*errors.errorString", at="New()")

    def test_as_many_as_are_wanted(self) -> None:
        """What follows them is output like any other, so a forger makes no work."""
        stdout = b"".join(b"a%b" % trailer(b"%d" % n, b'{"results":[%d]}' % n) for n in range(3))
        kept, answers = told.returned(stdout, "n0", most=2)
        assert [(one.printed, one.text, one.results) for one in answers] == [
            (b"a", b"0", b"[0]"),
            (b"a", b"1", b"[1]"),
        ]
        assert kept == b"a0a1a" + trailer(b"2", b'{"results":[2]}')

    @pytest.mark.parametrize(
        "tail",
        [
            b"n0",
            b"n00000000300000",
            b"n0-0000001-0000001",
            b"n00000000000000003{}}",
            b'n000000000000000ff{"results":[1]}',
            b"n00000000000000004\xff\xff\xff\xff",
            b"n0000000000000000f" + b'{"results":"\xff"}',
            b"n0000000000000000b" + b'{"error":0}',
            b"n000000000ffffffff" + b'{"results":' + b"[" * 100_000,
        ],
    )
    def test_what_is_no_record_says_nothing(self, tail: bytes) -> None:
        assert told.returned(b"text" + tail, "n0") == (b"text", [])

    def test_without_a_record_all_is_output(self) -> None:
        assert told.returned(b"n1 text", "n0") == (b"n1 text", [])

    @given(st.binary(max_size=40))
    def test_any_bytes(self, tail: bytes) -> None:
        kept, answers = told.returned(b"text n0" + tail, "n0")
        assert kept.startswith(b"text ")
        assert len(answers) <= 1


class TestRecords:
    OUTPUT = (
        b"".join(b"a%d%b" % (n, trailer(b"t%d" % n, b'{"results":[%d]}' % n)) for n in range(4)) + b"rest"
    )

    @given(st.lists(st.integers(0, 250), max_size=12))
    def test_in_whatever_pieces_they_come(self, cuts: list[int]) -> None:
        records = harness.Records("n0", most=100)
        bounds = [0, *sorted(cuts), len(self.OUTPUT)]
        answers = [
            answer
            for begin, end in itertools.pairwise(bounds)
            for answer in records.take(self.OUTPUT[begin:end])
        ]
        assert [(a.printed, a.text, a.results) for a in answers] == [
            (b"a%d" % n, b"t%d" % n, b"[%d]" % n) for n in range(4)
        ]
        assert records.rest == b"rest"

    def test_each_as_soon_as_it_is_whole(self) -> None:
        records = harness.Records("n0", most=100)
        whole = trailer(b"3", b'{"results":[3]}')
        assert records.take(whole[:-1]) == []
        assert len(records.take(whole[-1:])) == 1

    def test_nothing_behind_what_is_none(self) -> None:
        records = harness.Records("n0", most=100)
        good = trailer(b"3", b'{"results":[3]}')
        assert len(records.take(good + b"x" + trailer(b"", b"no") + good)) == 1
        assert records.take(good) == []
        assert records.rest == b"x"

    @pytest.mark.case("B12")
    def test_a_mebibyte_byte_by_byte_takes_linear_time(self) -> None:
        records = harness.Records("n0" * 16, most=100)
        before = time.process_time()
        for _ in range(1 << 20):
            records.take(b"n")
        assert time.process_time() - before < 20
        assert len(records.rest) == 1 << 20


def ended(stderr: bytes, exit_code: int = harness.EXIT_REJECTED) -> Outcome:
    return Outcome(verdict=Verdict.exited, exit_code=exit_code, stderr=stderr)


class TestRejection:
    def test_names_the_argument(self) -> None:
        refused = harness.rejection(ended(b'n0 {"argument":1,"reason":"out of range"}\n'), "n0")
        assert refused is not None
        assert refused.message == "call: argument 2: out of range"
        assert refused.details == {"argument": 1, "told_by": "jail"}

    def test_names_the_place_in_json(self) -> None:
        line = b'n0 {"argument":-1,"reason":"wants a text","path":"args[1].lat\\u001b"}\n'
        refused = harness.rejection(ended(line), "n0")
        assert refused is not None
        assert refused.message == "args[1].lat?: wants a text"
        assert refused.details == {"path": "args[1].lat?", "told_by": "jail"}

    def test_of_the_call_as_a_whole(self) -> None:
        refused = harness.rejection(ended(b'n0 {"argument":-1,"reason":"no function"}\n'), "n0")
        assert refused is not None
        assert refused.message == "call: no function"

    def test_a_function_that_found_the_nonce_says_little_and_is_named(self) -> None:
        """It can refuse a call in the harness's name: nothing in a jail is kept from the function."""
        line = b'n0 {"argument":0,"reason":"\\u001b[31m' + b"x" * 60_000 + b'"}\n'
        refused = harness.rejection(ended(line), "n0")
        assert refused is not None
        assert refused.message == f"call: argument 1: ?[31m{'x' * 495}"
        assert refused.details == {"argument": 0, "told_by": "jail"}

    def test_behind_what_the_package_printed_when_it_began(self) -> None:
        noise = b'hello\nn0 {"argument":7,"reason":"early"}\nno line feed'
        refused = harness.rejection(ended(noise + b'n0 {"argument":0,"reason":"late"}\n'), "n0")
        assert refused is not None
        assert refused.message == "call: argument 1: late"

    @pytest.mark.parametrize(
        "outcome",
        [
            ended(b""),
            ended(b'n1 {"argument":0,"reason":"another nonce"}\n'),
            ended(b'n0 {"argument":0}\n'),
            ended(b"n0 []\n"),
            ended(b'n0 {"argument":-2,"reason":"no such"}\n'),
            ended(b'n0 {"argument":65536,"reason":"no such"}\n'),
            ended(b'n0 {"argument":0,"reason":"cut'),
            ended(b'n0 {"argument":0,"reason":"\xff"}\n'),
            ended(b'n0 {"argument":0,"reason":"another code"}\n', exit_code=1),
            Outcome(verdict=Verdict.ok, exit_code=0, stderr=b'n0 {"argument":0,"reason":"ok"}\n'),
            Outcome(verdict=Verdict.signaled, signal=9, stderr=b'n0 {"argument":0,"reason":"dead"}\n'),
        ],
    )
    def test_guests_cannot_speak_for_the_harness(self, outcome: Outcome) -> None:
        assert harness.rejection(outcome, "n0") is None


class TestComplaints:
    def test_what_is_not_about_the_call_is_about_the_package(self) -> None:
        output = "# example.com/p\n./p.go:3:9: undefined: x\n./p.go:4:2: F() (no value) used as value\n"
        assert harness.classify(output) is Complaint.package
        assert harness.classify("") is Complaint.package
        assert harness.call_errors(output) == []

    def test_offsets_count_from_the_beginning_of_the_call(self) -> None:
        output = (
            "# p/_skyisland\n/gen/skyisland.call:1:5: cannot use x as y\n\thave z\n../main.go:1:2: other\n"
        )
        assert harness.call_errors(output) == [(4, "cannot use x as y")]
