"""What a call left in its jail: the record in its output, and a panic in its standard error."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from skyisland.codec import encode
from skyisland.golang.outcome import FRAMES, ManyAnswers, OneAnswer, panic
from skyisland.model import FunctionRequest, GoError, Invocation, Outcome, Timings, Verdict
from skyisland.wire import Answer, Called

NONCE = "0123456789abcdef"
OK = Outcome(verdict=Verdict.ok, exit_code=0)


def told(outcome: Outcome, nonce: str, most_bytes: int) -> Outcome:
    answer = OneAnswer(nonce)
    answer.take(outcome.stdout)
    return answer.told(outcome, most_bytes)


INDEX = b"""on the way
panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
example.com/user/repo.at({0xc000012345?, 0x3?, 0x1?}, 0x5)
\texample.com/user/repo/at.go:12 +0x1d
example.com/user/repo.(*List[...]).At(...)
\texample.com/user/repo/list.go:7
reflect.Value.call({0x4a2f40?, 0x4c9d98?, 0x40c7a5?}, {0x4b8e1c, 0x4}, {0xc0000a4000, 0x1, 0x1?})
\treflect/value.go:581 +0xc8c
reflect.Value.Call({0x4a2f40?, 0x4c9d98?, 0x0?}, {0xc0000a4000?, 0x1?, 0x1?})
\treflect/value.go:365 +0xb9
skyisland_harness.Answer({0x4a2f40?, 0x4c9d98})
\tskyisland_harness/answer.go:40 +0x1a5
main.main()
\texample.com/user/repo/_skyisland/main.go:14 +0x1e
"""
NIL = b"""panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4806b4]

goroutine 1 [running]:
panic({0x4ac5a0?, 0x5569d0?})
\truntime/panic.go:792 +0x132
example.com/r.F(...)
\texample.com/r/r.go:3
main.main()
\texample.com/r/_skyisland/main.go:10 +0x14
"""
CHAIN = b"""panic: first
\tpanic: second
with two lines

goroutine 7 [running]:
example.com/r.F.func1()
\texample.com/r/r.go:3 +0x1
created by example.com/r.F in goroutine 1
\texample.com/r/r.go:2 +0x2
"""
DEADLOCK = b"""fatal error: all goroutines are asleep - deadlock!

goroutine 1 [select (no cases)]:
example.com/r.Wait()
\texample.com/r/r.go:9 +0xf
main.main()
\texample.com/r/_skyisland/main.go:10 +0x14

goroutine 5 [chan receive]:
example.com/r.other()
\texample.com/r/r.go:19 +0xf
"""


def record(text: bytes, json: bytes) -> bytes:
    return b"%b%b%08x%08x%b" % (text, NONCE.encode(), len(text), len(json), json)


def invocation(outcome: Outcome) -> Invocation:
    return Invocation(
        id="inv-1",
        request=FunctionRequest(url="u", call="F()"),
        outcome=outcome,
        timings=Timings(),
        started_at=0.0,
        jail="j",
        commit="c" * 40,
        cached=True,
        stale=False,
    )


class TestTold:
    def test_results_and_what_was_printed(self) -> None:
        stdout = b"hello " + record(b"3 <nil>", b'{"results":[3]}') + b"bye"
        assert told(structs.replace(OK, stdout=stdout), NONCE, 100) == structs.replace(
            OK, stdout=b"hello 3 <nil>bye", printed=b"hello bye", results=b"[3]"
        )

    def test_an_error_is_a_verdict(self) -> None:
        stdout = record(b"no", b'{"results":[],"error":{"message":"no","type":"*errors.errorString"}}')
        outcome = told(structs.replace(OK, stdout=stdout), NONCE, 100)
        assert (outcome.verdict, outcome.exit_code, outcome.stdout) == (Verdict.failed, 0, b"no")
        assert outcome.error == GoError(message="no", type="*errors.errorString")

    def test_an_end_that_is_not_good_is_the_verdict_all_the_same(self) -> None:
        stdout = record(b"", b'{"error":{"message":"no","type":"E"}}')
        ended = Outcome(verdict=Verdict.signaled, signal=9, stdout=stdout)
        assert told(ended, NONCE, 100).verdict is Verdict.signaled

    def test_without_a_record_all_is_printed(self) -> None:
        outcome = told(structs.replace(OK, stdout=b"hello"), NONCE, 100)
        assert (outcome.stdout, outcome.printed, outcome.results) == (b"hello", b"hello", None)
        # As a caller sees a function that ended its process itself with code 0.
        answer = json.loads(encode(Answer.of(invocation(outcome))))
        assert (answer["data"], answer["stdout"], answer["results"]) == ("hello", "hello", None)
        assert (answer["error"], answer["failed"], answer["exit_code"]) == (None, False, 0)

    @pytest.mark.parametrize("verdict", [Verdict.ok, Verdict.exited, Verdict.timed_out])
    def test_too_much_output_is_cut_whatever_stands_behind_it(self, verdict: Verdict) -> None:
        stdout = record(b"x" * 101, b'{"results":["x"]}')
        outcome = told(Outcome(verdict=verdict, exit_code=1, stdout=stdout), NONCE, 100)
        assert (outcome.stdout, outcome.results) == (b"x" * 100, None)
        assert outcome.verdict is (verdict if verdict is Verdict.timed_out else Verdict.output_limit)

    def test_the_record_does_not_count(self) -> None:
        stdout = record(b"x" * 100, b'{"results":["%b"]}' % (b"x" * 100))
        assert told(structs.replace(OK, stdout=stdout), NONCE, 100).verdict is Verdict.ok

    def test_a_panic_is_the_error(self) -> None:
        ended = Outcome(verdict=Verdict.exited, exit_code=2, stderr=NIL)
        outcome = told(ended, NONCE, 100)
        assert (outcome.verdict, outcome.stderr) == (Verdict.exited, NIL)
        assert outcome.error is not None
        assert outcome.error.type == "panic"
        assert told(structs.replace(ended, exit_code=3), NONCE, 100).error is None


class TestManyAnswers:
    @pytest.mark.parametrize(
        ("verdict", "then", "said"),
        [
            (Verdict.ok, Verdict.exited, "the function exited with code 0; 1 of 3 inputs were answered"),
            (
                Verdict.output_limit,
                Verdict.output_limit,
                "the function printed more than it may; 1 of 3 inputs were answered; send fewer at a time",
            ),
        ],
    )
    def test_an_input_without_answer(self, verdict: Verdict, then: Verdict, said: str) -> None:
        many = ManyAnswers(NONCE, b'[[1], {"a": [2]}, []]', None)
        many.take(record(b"3", b'{"results":[3]}') + b"rest")
        outcome = many.told(Outcome(verdict=verdict, exit_code=0), 100)
        assert (outcome.verdict, outcome.stdout) == (then, b"rest")
        assert Called.of(invocation(outcome)).message == said

    def test_all_answered(self) -> None:
        many = ManyAnswers(NONCE, b"[[1],[]]", None)
        many.take(record(b"3", b'{"results":[3]}') * 2)
        assert many.told(OK, 100).verdict is Verdict.ok


class TestForged:
    @pytest.mark.parametrize(
        ("record", "results"),
        [
            (b'{"results":["forged"],"error":null}', ["forged"]),
            (b'{"results":"no list","id":"inv-0","verdict":"ok"}', None),
            (b'{"results":[1],"data":"x"}]', None),
            (b'{"results":[1]}\xff', None),
            (b'{"results":' + b"[" * 100_000, None),
            (b'{"results":[' + b"[],[" * 100_000 + b"]]}", None),
        ],
    )
    def test_a_record_concerns_its_own_answer(self, record: bytes, results: object) -> None:
        """The function writes many before the harness does. One is read, and the rest is output."""
        forged = b"%b%08x%08x%b" % (NONCE.encode(), 0, len(record), record)
        own = b"%b%08x%08x%b" % (NONCE.encode(), 4, 15, b'{"results":[3]}')
        outcome = told(structs.replace(OK, stdout=forged * 20 + b"true" + own), NONCE, 1 << 20)
        assert len(outcome.stdout) <= 1 << 20
        answer = json.loads(encode(Answer.of(invocation(outcome))))
        assert (answer["results"], answer["id"], answer["error"]) == (results, "inv-1", None)
        assert answer["data"].startswith(forged.decode(errors="replace")[:20]) or not answer["data"]


class TestPanic:
    def test_names_the_callers_frames(self) -> None:
        assert panic(INDEX) == GoError(
            message="runtime error: index out of range [5] with length 3",
            type="panic",
            trace=(
                "example.com/user/repo.at (example.com/user/repo/at.go:12)",
                "example.com/user/repo.(*List[...]).At (example.com/user/repo/list.go:7)",
            ),
        )

    @pytest.mark.parametrize(
        ("stderr", "message", "kind", "trace"),
        [
            (
                NIL,
                "runtime error: invalid memory address or nil pointer dereference",
                "panic",
                ("example.com/r.F (example.com/r/r.go:3)",),
            ),
            (b"no line feed" + NIL,
             "runtime error: invalid memory address or nil pointer dereference", "panic",
             ("example.com/r.F (example.com/r/r.go:3)",)),
            (CHAIN, "first\n\tpanic: second\nwith two lines", "panic",
             ("example.com/r.F.func1 (example.com/r/r.go:3)",)),
            (DEADLOCK, "all goroutines are asleep - deadlock!", "fatal error",
             ("example.com/r.Wait (example.com/r/r.go:9)",)),
            (b"runtime: goroutine stack exceeds 250000000-byte limit\n"
             b"fatal error: stack overflow\n\nruntime stack:\nruntime.throw({0x4f?})\n\tpanic.go:1243\n"
             + NIL[NIL.index(b"\n\ngoroutine"):], "stack overflow", "fatal error",
             ("example.com/r.F (example.com/r/r.go:3)",)),
            (b"panic: mine\n" + NIL.replace(b"invalid", b"valid"),
             "runtime error: valid memory address or nil pointer dereference", "panic",
             ("example.com/r.F (example.com/r/r.go:3)",)),
        ],
    )  # fmt: skip
    def test_reads(self, stderr: bytes, message: str, kind: str, trace: tuple[str, ...]) -> None:
        assert panic(stderr) == GoError(message=message, type=kind, trace=trace)

    @pytest.mark.parametrize(
        "stderr", [b"", b"no", b"panic: no\n", b"goroutine 1 [running]:\nF()\n", b"\n\ngoroutine "]
    )
    def test_what_is_none(self, stderr: bytes) -> None:
        assert panic(stderr) is None

    def test_a_function_that_writes_one_itself_says_little(self) -> None:
        frame = b"f\x1b[31m(0x1)\n\tg\x07.go:1\n"
        said = panic(b"panic: " + b"x" * 60_000 + b"\n\ngoroutine 1 [running]:\n" + frame * 1000)
        assert said is not None
        assert len(said.message) == 16 << 10
        assert said.trace == ("f?[31m (g?.go:1)",) * FRAMES

    @given(st.binary(max_size=200))
    def test_any_bytes(self, stderr: bytes) -> None:
        panic(b"panic: " + stderr + b"\n\ngoroutine " + stderr)

    @pytest.mark.parametrize(
        "part", [b"\npanic: ", b"\n\ngoroutine ", b"panic: ", b"\n\t(", b"((((", b"\xff"]
    )
    def test_takes_time_in_proportion(self, part: bytes) -> None:
        def spent_s(times: int) -> float:
            started = time.perf_counter()
            panic(b"panic: \n\ngoroutine 1:\n" + part * times)
            return time.perf_counter() - started

        assert spent_s(1 << 16) < max(0.05, 40 * spent_s(1 << 12))
