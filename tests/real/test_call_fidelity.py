"""Calls against the real compiler: what it refuses we refuse, what it prints we print.

The functions of one small package (subject/subject.go) are called in three ways: by the harness's
function form, with literals in a frame; as an expression, the way the expression form compiles it; and by
the plain program `fmt.Print(subject.Call(…))`. Compiling takes the time, so many calls share a program.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skyisland.golang import harness
from skyisland.golang.call import parse_call
from skyisland.golang.tokens import BLANK
from skyisland.model import Call
from tests.support import answers as told

Go = Callable[..., subprocess.CompletedProcess[str]]

SUBJECT = Path(__file__).parent / "subject" / "subject.go"
NONCE = "0123456789abcdef"
SEPARATOR = "--8f2a61--"

# What to aim at each parameter: b bool, s string, i whole number, f float, c complex, r rune, n nil, ? any
# of them; * repeats what stands before it.
_AIMS = """Bool:b String:s Int:i Int8:i Int16:i Int32:i Int64:i Uint:i Uint8:i Uint16:i Uint32:i Uint64:i
    Uintptr:i Byte:r Rune:r Float32:f Float64:f Complex64:c Complex128:c NamedInt:i NamedUint:i NamedFloat:f
    NamedBool:b NamedString:s NamedComplex:c Duration:i Month:i Any:? NamedAny:? Error:n Method:n Pointer:n
    Slice:n NamedSlice:n Map:n Chan:n Func:n Array:n Struct:n Two:is Fails:ff Three:iii Integers:i*
    Anything:?* Mixed:si* Strings:s* Nested:n* NewPoint:ii Variable:i"""
AIMS = dict(pair.split(":") for pair in _AIMS.split())


# Literals


def _signed(numbers: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(str.__add__, st.sampled_from(("", "", "-", "+")), numbers)


def _underscored(digits: str) -> str:
    return re.sub(r"(?<=\w)(?=(?:\w{3})+$)", "_", digits)


@st.composite
def _whole(draw: st.DrawFn) -> str:
    bits, off = st.sampled_from((7, 8, 15, 16, 31, 32, 53, 63, 64, 127, 512)), st.integers(-2, 2)
    edges = st.builds(lambda n, d: max(0, 2**n + d), bits, off)
    number = draw(st.one_of(st.integers(0, 300), st.integers(0, 2**70), edges))
    prefix, base = draw(st.sampled_from(("", "0x", "0X", "0o", "0O", "0", "0b", "0B"))), "d"
    if prefix:
        base = {"x": "x", "X": "X", "b": "b", "B": "b"}.get(prefix[-1], "o")
    digits = format(number, base)
    return prefix + (_underscored(digits) if draw(st.booleans()) else digits)


@st.composite
def _real(draw: st.DrawFn) -> str:
    part = st.integers(0, 99999)
    exponent = draw(
        st.one_of(st.integers(-60, 60), st.sampled_from((-400, -324, -46, 38, 39, 308, 309, 10**9)))
    )
    odd = (
        ".5",
        "5.",
        "0.0",
        "1e3",
        "2.50",
        "1_0.2_5e1_0",
        "010.5",
        "0e0",
        "3.4e38",
        "3.41e38",
        "1e-9999999999",
    )
    match draw(st.integers(0, 5)):
        case 0:
            return repr(draw(st.floats(0, allow_nan=False, allow_infinity=False)))
        case 1:
            return f"{draw(part)}.{draw(part)}{draw(st.sampled_from('eE'))}{exponent:+d}"
        case 2:
            return draw(st.sampled_from(odd))
        case 3:
            return f"0x{draw(part):x}p{exponent}"
        case 4:
            return f"0X{draw(part):X}.{draw(part):x}P{exponent:+d}"
    return f"{draw(part)}.0"


def _shown(but: str) -> st.SearchStrategy[str]:
    """Characters that a call may hold as they are."""
    return st.characters(exclude_categories=("C", "Zl", "Zp"), exclude_characters=[but, *BLANK])


def _elements(quote: str) -> st.SearchStrategy[str]:
    """What may stand between quotes."""
    return st.one_of(
        _shown(quote).filter(lambda c: c != "\\"),
        st.sampled_from([f"\\{c}" for c in "abfnrtv\\" + quote]),
        st.integers(0, 255).map(lambda n: f"\\{n:03o}"),
        st.integers(0, 255).map(lambda n: f"\\x{n:02x}"),
        st.one_of(st.integers(0, 0xD7FF), st.integers(0xE000, 0xFFFF)).map(lambda n: f"\\u{n:04X}"),
        st.integers(0x10000, 0x10FFFF).map(lambda n: f"\\U{n:08x}"),
    )


WHOLE, REAL = _signed(_whole()), _signed(_real())
IMAGINARY = st.one_of(WHOLE, REAL).map(lambda text: text + "i")
RUNE = _signed(_elements("'").map(lambda element: f"'{element}'"))
STRING = st.one_of(
    st.lists(_elements('"'), max_size=5).map(lambda elements: f'"{"".join(elements)}"'),
    st.text(_shown("`"), max_size=5).map(lambda text: f"`{text}\n\\n\t`"),
)
NUMBER = st.one_of(WHOLE, REAL, IMAGINARY, RUNE)
LITERAL = st.one_of(NUMBER, STRING, st.sampled_from(("true", "false", "nil")))
AIMED = {
    "b": st.sampled_from(("true", "false")),
    "s": STRING,
    "i": st.one_of(WHOLE, WHOLE, REAL, IMAGINARY, RUNE),
    "f": st.one_of(REAL, REAL, WHOLE, IMAGINARY, RUNE),
    "c": NUMBER,
    "r": RUNE,
    "n": st.just("nil"),
    "?": LITERAL,
}


@st.composite
def calls(draw: st.DrawFn) -> str:
    """Calls whose arguments fit more often than not."""
    name = draw(st.sampled_from(sorted(AIMS)))
    aims = AIMS[name]
    if aims.endswith("*"):
        aims = aims[:-2] + aims[-2] * draw(st.integers(0, 3))
    if draw(st.integers(0, 9)) == 0:
        aims = draw(st.sampled_from((aims + "?", aims[:-1])))
    arguments = [draw(LITERAL if draw(st.integers(0, 5)) == 0 else AIMED[aim]) for aim in aims]
    return f"{name}({', '.join(arguments)})"


_EDGES = """
Int8(127) Int8(128) Int8(-128) Int8(-129) Uint8(-1) Uint8(0x100) Uint8(255.0) Int(1e3) Int(1.5) Int('a')
Int(0i) Int(1i) Int(0777) Int(0o7_7) Int64(9223372036854775808) Uint64(18446744073709551615)
Any(9223372036854775807) Any(9223372036854775808) Any(-9223372036854775808) Any('a') Any(-'a') Any(1.0)
Any(1e400) Any(-1e-400) Any(2i) Any(nil) Any("x") Any(true) Any(-0.0)
Float32(3.5e38) Float32(3.4028235677973366e38) Float32(1e-50) Float32(-1e-50) Float32(16777217) Float32(0.1)
Float64(-0.0) Float64(1e-400) Float64(-1e-400) Float64(-0x1p-1080) Float64(0x1p-1074) Float64(0x1p1024)
Complex64(1e39i) Complex64(0.1) Complex64(-1e-50i) Complex128(-0i) Complex128(1_0.5i) Complex128(0123i)
Complex128(0x1p-2i) String(65) String('a') String(nil) Slice("abc") Bool(1) Duration(1000000000)
Duration(1.5) Duration("1s") Month(13) Array(nil) Struct(nil) Pointer(0) Error(nil) Error("x") Method(1)
Integers() Integers(nil) Integers(1,2,3) Anything() Anything(nil) Anything(nil,1,"a",'b',2.5,true,1i)
Mixed("%d") Mixed("%d",300) Mixed() Nested(nil,nil) Fails(1,0) Fails(0,0) Fails(-1,0) Two(1,"a") Two(1)
Three(1,2) Three(1,2,3,4) NamedFloat(1e39) Variable(21) NewPoint(1,-2) Strings("a","",`b`)
"""
EDGES = [
    *_EDGES.split(),
    f"Float64({'0' * 10001}.5)",
    f"Float64({'0' * 9997}.5)",
    *(f"Float64({number})" for number in (2**512 - 1, 2**512, -(2**512), f"{2**512}.0", f"{2**512}i")),
    f"String(`{'x' * 20000}`)",
]


class Bench:
    """A module with the subject in it, and programs that call its functions."""

    def __init__(self, folder: Path, go: Go) -> None:
        self.folder, self.go = folder, go
        (folder / "go.mod").write_text("module example.com/subject\n\ngo 1.21\n")
        (folder / "subject.go").write_text(SUBJECT.read_text())
        (folder / "harness").mkdir()
        for name, data in harness.library().items():
            (folder / "harness" / name).write_bytes(data)
        table = "".join(f'"{name}": {name},\n' for name in AIMS)
        choice = f"harness.Answer(map[string]interface{{}}{{\n{table}}}[os.Args[1]])"
        imports = '"os"\n. "example.com/subject"\n"example.com/subject/harness"'
        built = self._build("functions", {"main.go": _program(imports, f"func main() {{ {choice} }}")})
        assert built.returncode == 0, built.stderr

    def _build(self, folder: str, files: dict[str, bytes]) -> subprocess.CompletedProcess[str]:
        home = self.folder / folder
        home.mkdir(exist_ok=True)
        for name, content in files.items():
            (home / name).write_bytes(content)
        return self.go("build", "-trimpath", "-gcflags=-e", "-o", home / "program", ".", cwd=home)

    def run_function(self, call: Call) -> bytes | None:
        """What the function form prints; None where the harness refuses."""
        program = [str(self.folder / "functions" / "program"), call.function]
        ran = subprocess.run(program, input=harness.frame(call, NONCE), capture_output=True, check=False)
        if ran.returncode == harness.EXIT_REJECTED:
            assert ran.stderr.startswith(NONCE.encode() + b' {"argument":')
            assert not ran.stdout
            return None
        assert (ran.returncode, ran.stderr) == (0, b"")
        kept, _ = told.returned(ran.stdout, NONCE)
        return kept

    def run_compiled(self, calls: list[Call]) -> dict[str, list[bytes | None]]:
        """What the plain program and the expressions print; None where the compiler refuses."""
        refused = self._compile(calls, {"plain": set(), "expression": set()})
        assert not any(self._compile(calls, refused).values())
        results: dict[str, list[bytes | None]] = {}
        for way in refused:
            program = [str(self.folder / "compiled" / "program"), way]
            output = subprocess.run(program, capture_output=True, check=True).stdout
            printed = iter(output.split(SEPARATOR.encode()))
            results[way] = [None if i in refused[way] else next(printed) for i in range(len(calls))]
        return results

    def _compile(self, calls: list[Call], without: dict[str, set[int]]) -> dict[str, set[int]]:
        """Compile a program of all calls; return the numbers of those that the compiler refuses."""
        choice = 'if os.Args[1] == "plain" { plain() } else { expression() }'
        main = f'const separator = "{SEPARATOR}"\nfunc main() {{ {choice} }}'
        files = {"main.go": _program('"os"', main)}
        for way, dot, qualifier in (("plain", "", "subject."), ("expression", ".", "")):
            lines = "".join(
                f"/*line {way}{i}:1:1*/fmt.Print({qualifier}{call.text})\nfmt.Print(separator)\n"
                for i, call in enumerate(calls)
                if i not in without[way]
            )
            used = f"_, _ = fmt.Print, {qualifier}Int\n"
            body = f"func {way}() {{\n{used}{lines}}}"
            files[f"{way}.go"] = _program(f'"fmt"\n{dot} "example.com/subject"', body)
        built = self._build("compiled", files)
        refused = {
            way: {int(number) for number in re.findall(rf"{way}(\d+):\d+:\d+: ", built.stderr)}
            for way in without
        }
        assert any(refused.values()) == (built.returncode != 0), built.stderr
        return refused


def _program(imports: str, body: str) -> bytes:
    return f"package main\nimport (\n{imports}\n)\n{body}\n".encode()


@pytest.fixture(scope="module")
def bench(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("subject"), go)


def compare(bench: Bench, texts: list[str]) -> None:
    calls = [parse_call(text) for text in texts]
    assert all(call.arguments is not None for call in calls)
    compiled = bench.run_compiled(calls)
    for i, call in enumerate(calls):
        plain, expression = compiled["plain"][i], compiled["expression"][i]
        assert (call.text, bench.run_function(call), expression) == (call.text, plain, plain)


def test_edges_of_every_type(bench: Bench) -> None:
    compare(bench, EDGES)


@settings(max_examples=3, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.lists(calls(), min_size=120, max_size=160))
def test_literals_of_every_kind(bench: Bench, texts: list[str]) -> None:
    compare(bench, texts)
