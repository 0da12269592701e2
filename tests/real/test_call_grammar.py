"""The grammar of calls beside Go's own parser.

What is a Go expression with permitted names is accepted, and its canonical text means the same to Go. What
is accepted of nonsense is one expression to Go, too, or none at all: it never reaches out of the brackets
around it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skyisland.errors import BadCall
from skyisland.golang.call import parse_call
from skyisland.golang.names import PREDECLARED
from skyisland.model import Call

Go = Callable[..., subprocess.CompletedProcess[str]]


class Verdict(msgspec.Struct):
    tree: str
    names: list[str] | None
    refusal: str


Judge = Callable[[list[str]], list[Verdict]]


@pytest.fixture(scope="module")
def judge(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    program = tmp_path_factory.mktemp("parsing") / "parsing"
    built = go("build", "-o", program, "main.go", cwd=Path(__file__).parent / "parsing")
    assert built.returncode == 0, built.stderr

    def verdicts(texts: list[str]) -> list[Verdict]:
        told = b"".join(text.encode() + b"\0" for text in texts)
        ran = subprocess.run([program], input=told, capture_output=True, check=True)
        return [msgspec.json.decode(line, type=Verdict) for line in ran.stdout.splitlines()]

    return verdicts


class Writer:
    """Writes Go expressions, as lists of tokens."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.locals = 0

    def of(self, *ways: str | list[str]) -> list[str]:
        way = self.random.choice(ways)
        return way.split() if isinstance(way, str) else way

    def several(self, one: Callable[[], list[str]], most: int = 3) -> list[str]:
        written: list[str] = []
        for _ in range(self.random.randint(0, most)):
            written += [*one(), ","]
        return written if self.random.random() < 0.3 else written[:-1]

    def type(self, depth: int = 2) -> list[str]:
        if depth == 0:
            return self.of("int", "string", "T", "time . Duration", "any", "error")
        inner = self.type(depth - 1)
        return self.of(
            inner, ["[]", *inner], ["*", *inner], ["map", "[", "string", "]", *inner], ["chan", *inner],
            ["<-", "chan", *inner], ["[", "3", "]", *inner], ["Pair", "[", *inner, "]"],
            ["func", "(", *inner, ")", *self.type(0)],
            ["func", "(", "x", *inner, ",", "y", "...", "int", ")"],
            ["struct", "{", "A", *inner, ";", "B", "int", "}"], "interface { }",
        )  # fmt: skip

    def expression(self, depth: int, known: list[str]) -> list[str]:
        if depth == 0:
            return self.of(
                "1", "0x1p-2", "'a'", '"é"', "`raw`", "2i", ".5", "nil", "true", "A", "B . C",
                "strings . X",
                *known, *known,
            )  # fmt: skip

        def inner() -> list[str]:
            return self.expression(depth - 1, known)

        way = self.random.randrange(13)
        match way:
            case 0 | 1:
                return [*self.callee(known), "(", *self.several(inner), ")"]
            case 2:
                return ["(", *inner(), ")", ".", "M", "(", *inner(), "...", ")"]
            case 3:
                return ["(", *inner(), ")", "[", *inner(), *self.of("]", ": ]", [":", *inner(), "]"])]
            case 4:
                return ["(", *inner(), ")", ".", "(", *self.type(), ")"]
            case 5:
                return [*self.of("-", "!", "*", "&", "^", "<-", "+"), *inner()]
            case 6:
                operator = self.of("+", "-", "<<", "&&", "==", "&^", "<", "/", "*")
                return [*inner(), *operator, *inner()]
            case 7:
                fields = self.several(lambda: [*self.of("A :", "1 :", '"k" :', ""), *inner()])
                return [*self.of("T", "[] T", "map [ string ] int", "big . Int"), "{", *fields, "}"]
            case 8:
                return ["(", *self.type(), ")", "(", *inner(), ")"]
            case 9:
                return [*self.of("[] byte", "string", "len", "new"), "(", *inner(), ")"]
            case 10:
                return ["F", "[", *self.type(), "]", "(", *inner(), ")"]
        return self.function(depth - 1, known)

    def callee(self, known: list[str]) -> list[str]:
        return self.of("F", "G . H", "strings . Map", "Default . F", *known[:1])

    def new_name(self) -> str:
        self.locals += 1
        return self.random.choice(["x", "y", "len", "strings", "größe", "_a"]) + str(self.locals % 3 or "")

    def function(self, depth: int, known: list[str]) -> list[str]:
        name, other = self.new_name(), self.new_name()
        head = self.of(
            "( )", ["(", name, *self.type(), ")"], ["(", name, ",", "_", "int", ")", *self.type(0)],
            ["(", name, "...", "int", ")", "(", other + "r", "error", ")"],
        )  # fmt: skip
        inside = [*known, name] if name in head else known
        return ["func", *head, *self.block(depth, inside)]

    def block(self, depth: int, known: list[str]) -> list[str]:
        known = list(known)
        written: list[str] = []
        for _ in range(self.random.randint(0, 3)):
            written += [*self.statement(depth, known), ";"]
        return ["{", *(written if self.random.random() < 0.5 else written[:-1]), "}"]

    def statement(self, depth: int, known: list[str]) -> list[str]:
        value = self.expression(depth, known)
        name = self.new_name()
        inside = [*known, name]
        block = self.block(depth - 1, inside) if depth > 0 else ["{", "}"]
        way = self.random.randrange(12)
        match way:
            case 0:
                known.append(name)
                return [name, ":=", *value]
            case 1:
                known.append(name)
                return ["var", name, *self.type(), "=", *value]
            case 2:
                return ["return", *value]
            case 3:
                call = ["F", "(", *value, ")"]
                return [
                    "if",
                    name,
                    ":=",
                    *call,
                    ";",
                    name,
                    "!=",
                    "nil",
                    *block,
                    *self.of("", ["else", *block]),
                ]
            case 4:
                return ["for", name, ":=", "0", ";", name, "<", "3", ";", name, "++", *block]
            case 5:
                return ["for", name, ",", "_", ":=", "range", "G", "(", *value, ")", *block]
            case 6:
                return ["for", *self.of("", "range 3", "true"), "{", "break", ";", "continue", "}"]
            case 7:
                cases = ["case", *value, ":", *self.statement(0, inside), ";", "default", ":"]
                return ["switch", name, ":=", "F", "(", ")", ";", name, "{", *cases, "}"]
            case 8:
                cases = ["case", *self.type(), ",", "nil", ":", "F", "(", name, ")"]
                return ["switch", name, ":=", "A", ".", "(", "type", ")", "{", *cases, "}"]
            case 9 if known:
                return [self.random.choice(known), *self.of("=", "+=", "&^="), *value]
            case 10 if known:
                return [self.random.choice(known), "++"]
            case 11:
                return ["_", ",", "B", ".", "C", "=", *value, ",", "1"]
        return ["G", "(", *value, ")"]

    def spaced(self, tokens: list[str]) -> str:
        """The tokens with white space between them; for some semicolons, line feeds."""
        written, before = "", ""
        for token in tokens:
            ends = re.fullmatch(r"[)}\]]|\w+|\+\+", before) and before not in ("for", "if", "switch", "case")
            if token == ";" and ends and self.random.random() < 0.3:
                written += "\n"
            else:
                written += token + self.random.choice((" ", "\t", "  "))
            if token in (",", "(", "{", ".", "+", ":=") and self.random.random() < 0.2:
                written += "\n"
            before = token
        return written.strip()


@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 32))
def test_expressions_of_go_are_accepted_and_mean_the_same(judge: Judge, seed: int) -> None:
    writer = Writer(Random(seed))  # noqa: S311
    texts = [writer.spaced(["F", "(", *writer.expression(4, []), ")"]) for _ in range(200)]
    written = judge(texts)
    good = [(text, said) for text, said in zip(texts, written, strict=True) if not said.refusal]
    assert len(good) > 100
    # The grammar of tree-sitter is no match for function literals as indices, or of types behind new.
    calls = [(text, said, call) for text, said in good if (call := attempt(text)) is not None]
    assert len(calls) >= 0.95 * len(good)
    for (text, said, call), canonical in zip(calls, judge([call.text for *_, call in calls]), strict=True):
        assert (canonical.refusal, canonical.tree) == ("", said.tree), (text, call.text)
        assert parse_call(call.text) == call


PIECES = re.split(
    r"[ \n]+",
    """F ( ) [ ] { } , . ; := = : + - * & < <- ... func func() func(x return if for range switch case default
    var x y int string T 1 `b` nil struct interface map chan go defer select main harness must1 strings. os.
    .(type) // /* */ import package type const _ ++ F() {} []int{ } );F( " ' \\\n""",
)
"""Of which nonsense is made, sometimes with sense."""


@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 32))
def test_nothing_that_is_accepted_escapes(judge: Judge, seed: int) -> None:
    random = Random(seed)  # noqa: S311
    writer = Writer(random)
    texts = []
    for _ in range(1500):
        tokens = ["F", "(", *writer.expression(3, []), ")"]
        for _ in range(random.randint(1, 3)):  # a token lost, doubled, moved or made another
            at = random.randrange(len(tokens))
            tokens[at : at + random.randint(0, 2)] = random.choices(PIECES, k=random.randint(0, 2))
            tokens = tokens or ["F"]
        texts.append(writer.spaced(tokens))
    accepted = [call for text in texts if (call := attempt(text)) is not None]
    assert accepted
    for call, said in zip(accepted, judge([call.text for call in accepted]), strict=True):
        assert "escapes" not in said.refusal, call.text
        for name in said.names or ():
            known = name in PREDECLARED or name in call.imports or name == "_"
            assert known or re.match(r"[A-Z]", name), (name, call.text)
            assert name not in ("main", "init", "harness")


def attempt(text: str) -> Call | None:
    try:
        return parse_call(text)
    except BadCall:
        return None
