"""Arguments that are JSON, in the harness, without a jail: by the rules of encoding/json, and what is more.

The functions are those of shapes/shapes.go. prover/decoding.go holds the decoder against encoding/json, on
types and texts made by chance. One program is built for all of it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from skyisland.golang import harness
from skyisland.golang.callee import parse_callee
from skyisland.model import Data, Outcome, Returned, Verdict
from tests.support import answers as told

Go = Callable[..., subprocess.CompletedProcess[str]]

HERE = Path(__file__).parent
NONCE = "0123456789abcdef"
ROUNDS = 60_000
GENERIC = {"Swap": "Swap[string, int]", "Largest": "Largest[int]"}
PARAMETERS = {"Middle": ("a", "b"), "Join": ("separator", "words"), "Left": ("ctx", "name")}
NO_JSON = "which no JSON can be: write the whole call in `call`, without args"
MAIN = """package main

import (
	"fmt"
	"os"
	"strconv"

	"example.com/bench/harness"
	"example.com/bench/prover"
	. "example.com/bench/shapes"
)

func main() {{
	if os.Args[1] == "prove" {{
		seed, _ := strconv.ParseInt(os.Args[2], 10, 64)
		rounds, _ := strconv.Atoi(os.Args[3])
		fmt.Println(prover.Decoding(harness.Decode, seed, rounds, os.Stdout))
		return
	}}
	functions := map[string]any{{
{functions}	}}
	harness.Answer(functions[os.Args[1]], os.Args[2:]...)
}}
"""
EXPORT = """package harness

import "reflect"

// Decode lets the prover see decode, of a text with nothing behind the value.
func Decode(text string, to reflect.Value) string {
	s := source{text: text}
	wrong := s.decode(to)
	if wrong == nil && !s.end() {
		wrong = s.malformed("the end")
	}
	if wrong == nil {
		return ""
	}
	return wrong.path + ": " + wrong.reason
}
"""


class Bench:
    """The program of all functions."""

    def __init__(self, folder: Path, go: Go) -> None:
        shapes = (HERE / "shapes" / "shapes.go").read_text()
        names = re.findall(r"^func (\w+)", shapes, re.MULTILINE)
        functions = "".join(f'\t\t"{name}": {GENERIC.get(name, name)},\n' for name in names)
        files = {
            "go.mod": "module example.com/bench\n\ngo 1.21\n",
            "main.go": MAIN.format(functions=functions),
            "shapes/shapes.go": shapes,
            "prover/decoding.go": (HERE / "prover" / "decoding.go").read_text(),
            "harness/export.go": EXPORT,
            **{f"harness/{name}": text.decode() for name, text in harness.library().items()},
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        self.program = folder / "program"
        built = go("build", "-trimpath", "-o", self.program, ".", cwd=folder)
        assert built.returncode == 0, built.stderr

    def run(
        self, name: str, args: str, *, stdin: bytes = b"", timeout_s: float = 60.0, many: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        data = Data(json=args.encode(), many=many)
        frame = harness.frame(parse_callee(name), NONCE, data=data, timeout_s=timeout_s)
        command = [str(self.program), name, *PARAMETERS.get(name, ())]
        return subprocess.run(command, input=frame + stdin, capture_output=True, check=False)

    def answer(self, name: str, args: str, *, stdin: bytes = b"", timeout_s: float = 60.0) -> Returned:
        ran = self.run(name, args, stdin=stdin, timeout_s=timeout_s)
        assert (ran.returncode, ran.stderr) == (0, b"")
        _, [answer] = told.returned(ran.stdout, NONCE)
        return answer

    def refusal(self, name: str, args: str) -> str:
        ran = self.run(name, args)
        outcome = Outcome(verdict=Verdict.exited, exit_code=ran.returncode, stderr=ran.stderr)
        refused = harness.rejection(outcome, NONCE)
        assert refused is not None, ran
        assert refused.message.startswith(f"{refused.details['path']}: ")
        return refused.message


@pytest.fixture(scope="module")
def bench(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("arguments"), go)


@pytest.mark.parametrize("seed", [1, 2])
def test_by_the_rules_of_encoding_json(bench: Bench, seed: int) -> None:
    words = [str(bench.program), "prove", str(seed), str(ROUNDS)]
    *differences, accepted = subprocess.run(
        words, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert not differences
    assert int(accepted) > ROUNDS // 3


@pytest.mark.parametrize(
    ("name", "args", "printed"),
    [
        ("Middle", '[{"lat": 1, "lon": 2}, {"lat": 3, "LON": 4}]', "{2 3 }"),
        ("Middle", '{"b": {"lat": 3}, "a": {"lat": 1}}', "{2 0 }"),
        ("Track", '[[{"lat": 1}, {}]]', "2"),
        ("Track", "[null]", "0"),
        ("Names", '[{"b": {"lat": 1}, "a": null}]', "[a b]"),
        ("Show", '[{"a": [1, 2.5, "x", null, true]}]', "map[string]interface {} map[a:[1 2.5 x <nil> true]]"),
        ("Wait", '["1m30s"]', "1m30s"),
        ("Wait", "[1500]", "1.5µs"),
        ("Year", '["2020-01-02T03:04:05+02:00"]', "2020"),
        ("Reverse", '["abc"]', "[99 98 97]"),
        ("Reverse", '[{"base64": "/wA="}]', "[0 255]"),
        ("Reverse", "[[1, 2]]", "[2 1]"),
        ("Count", '["h\\u00e4"]', "3 <nil>"),
        ("Count", '[{"base64": "AAAA"}]', "3 <nil>"),
        ("Count", '[{"stdin": true}]', "5 <nil>"),
        ("Seek", '["hello"]', "4 <nil>"),
        ("Left", '["x"]', "true"),
        ("Left", '{"name": "x"}', "true"),
        ("Join", '["-", "a", "b"]', "a-b"),
        ("Join", '["-"]', ""),
        ("Join", '{"words": ["a", "b"], "separator": "-"}', "a-b"),
        ("Join", '{"separator": "-"}', ""),
        ("Wrap", '["bad", "while"]', "while: bad"),
        ("Set", '["high"]', "1"),
        ("Big", "[123456789012345678901234567890]", "123456789012345678901234567890"),
        ("Swap", '[{"Key": "a", "Value": 1}]', "{1 a}"),
        ("Largest", "[1, 7, 2]", "7"),
    ],
)  # fmt: skip
def test_becomes_what_the_parameter_is(bench: Bench, name: str, args: str, printed: str) -> None:
    assert bench.answer(name, args, stdin=b"stdin").text.decode() == printed


def test_what_is_written_is_printed_and_a_result(bench: Bench) -> None:
    answer = bench.answer("Render", '["bob"]')
    assert (answer.printed, answer.text, answer.error) == (b"hello bob\n", b"<nil>", None)
    assert answer.results == b'["hello bob\\n"]'
    assert bench.answer("Fill", "[3]").printed == b"xxx"


def test_a_context_ends_before_the_call_is_killed(bench: Bench) -> None:
    assert bench.answer("Stop", "[]", timeout_s=0.2).text == b"context deadline exceeded true"


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("Middle", '[{"lat": "x"}, {}]', "args[0].lat: wants a number (float64), not a text"),
        ("Middle", '{"a": {}, "b": {"lng": 5}}',
         "args.b.lng: is no field of shapes.Point; it has lat, lon, name"),
        ("Middle", '{"a": {}}', "args: b is missing; it wants an object (shapes.Point)"),
        ("Middle", '{"a": {}, "c": 1}', "args.c: is no parameter that takes a value; there are a, b"),
        ("Middle", "[{}]",
         "args: of these there are 1, and func(shapes.Point, shapes.Point) shapes.Point takes 2"),
        ("Middle", '[{"lat": 1, "LAT": 2}, {}]', "args[0].LAT: is there twice"),
        ("Track", '[[{"lat": 1}, {"lon": true}]]', "args[0][1].lon: wants a number (float64), not true"),
        ("Names", '[{"a b": 5}]', "args[0].a b: wants an object (shapes.Point), not a number"),
        ("Join", '["-", "a", 1]', "args[2]: wants a text (string), not a number"),
        ("Join", "[]", "args: of these there are 0, and func(string, ...string) string takes 1 or more"),
        ("Half", "[1.5]", "args[0]: wants a whole number of 64 bits (int), not 1.5"),
        ("Half", "[9223372036854775808]",
         "args[0]: wants a whole number of 64 bits (int), not 9223372036854775808"),
        ("Half", '{"n": 1}', "args: wants an array: the parameters' names are not known"),
        ("Wait", '["soon"]', 'args[0]: wants a duration such as "1m30s", or its nanoseconds (time.Duration): '
         'time: invalid duration "soon"'),
        ("Reverse", '[{"base64": "?"}]',
         'args[0].base64: wants {"base64": …}, of the standard alphabet, with its padding'),
        ("Seek", "[7]",
         'args[0]: wants a text, {"base64": …} or {"stdin": true} (io.ReadSeeker), not a number'),
        ("Say", '["x"]', f"args[0]: wants shapes.Speaker, {NO_JSON}"),
        ("Each", "[1]", f"args[0]: wants func(int) int, {NO_JSON}"),
        ("Set", '["mid"]', 'args[0]: wants a text (shapes.Level): "mid" is no level'),
        ("Show", "[1e999]",
         "args[0]: 1e999 is out of range for float64, which a number becomes where any type may stand"),
        ("Show", '["a]', "args[0]: is not JSON: a closing quote is missing at byte 4"),
        ("Show", "[1] 2", "args: is not JSON: the end is missing at byte 4"),
    ],
)  # fmt: skip
def test_says_where_and_what_is_wanted(bench: Bench, name: str, args: str, reason: str) -> None:
    assert bench.refusal(name, args) == reason


def test_nests_so_deep_and_no_deeper(bench: Bench) -> None:
    assert bench.answer("Show", f"[{'[' * 999}{']' * 999}]").text.startswith(b"[]interface")
    for deep in (1000, 500_000):
        assert bench.refusal("Show", f"[{'[' * deep}").endswith(": nests deeper than 1000")


def test_many_inputs_each_with_an_answer(bench: Bench) -> None:
    ran = bench.run("Half", '[[4], [13], ["x"], [5], {"n": 2}, 7, [6]]', many=True)
    assert (ran.returncode, ran.stderr) == (0, b"")
    rest, answers = told.returned(ran.stdout, NONCE, most=100)
    errors = [None if a.error is None else (a.error.type, a.error.message, a.error.at) for a in answers]
    assert errors == [
        None,
        ("panic", "unlucky", ""),
        ("argument", "wants a whole number of 64 bits (int), not a text", "inputs[2][0]"),
        ("*errors.errorString", "odd", ""),
        ("argument", "wants an array: the parameters' names are not known", "inputs[4]"),
        ("argument", "wants an array, or an object by the parameters' names", "inputs[5]"),
        None,
    ]
    assert answers[1].error is not None
    assert answers[1].error.trace == (
        "example.com/bench/shapes.Half (example.com/bench/shapes/shapes.go:89)",
    )
    assert [a.results for a in answers] == [b"[2]", None, None, b"[0]", None, None, b"[3]"]
    assert [a.printed for a in answers][::6] == [b"half of 4\n", b"half of 6\n"]
    assert rest == b"".join(a.printed + a.text for a in answers)


def test_a_function_that_ends_the_process_ends_them(bench: Bench) -> None:
    ran = bench.run("Half", "[[4], [99], [6]]", many=True)
    _, answers = told.returned(ran.stdout, NONCE, most=100)
    assert (ran.returncode, len(answers)) == (3, 1)


@pytest.mark.parametrize("inputs", ["[[4], [6]", "[[4]] 5", "5"])
def test_nothing_runs_if_the_inputs_are_no_array(bench: Bench, inputs: str) -> None:
    ran = bench.run("Half", inputs, many=True)
    assert (ran.returncode, ran.stdout) == (harness.EXIT_REJECTED, b"")
    assert b'"path":"inputs' in ran.stderr


def test_what_is_written_for_each_input_is_its_own(bench: Bench) -> None:
    _, answers = told.returned(bench.run("Render", '[["a"], ["b"]]', many=True).stdout, NONCE, most=2)
    assert [a.results for a in answers] == [b'["hello a\\n"]', b'["hello b\\n"]']


def test_a_megabyte_takes_no_time(bench: Bench) -> None:
    """Whatever is in it: the decoder is linear."""
    for pattern in ("[],", "{},", '"\\u0041",', "1e9,", '{"a":[0]},', "true,", '"\\ud83d",'):
        args = f"[[{pattern * ((1 << 20) // len(pattern))}0]]"
        assert bench.answer("Show", args).text.startswith(b"[]interface")
    names = ",".join(f'"{n}":{{}}' for n in range(60_000))
    assert json.loads(f"{{{names}}}")
    assert len(bench.answer("Names", f"[{{{names}}}]").text) > 300_000
