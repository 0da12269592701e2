"""The harness built the way its docstring says, with the real compiler, and run without a jail."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from skyisland.errors import Complaint
from skyisland.golang import harness
from skyisland.golang.call import parse_call
from skyisland.golang.runtime import function_environment
from skyisland.model import Call, GoError, Limits, Outcome, Returned, Verdict
from tests.support import answers as told

Go = Callable[..., subprocess.CompletedProcess[str]]
NONCE = "0123456789abcdef"
SUBJECT = (Path(__file__).parent / "subject" / "subject.go").read_text()

FILES = {
    "go.mod": "module example.com/user/repo\n\ngo 1.15\n\nrequire example.com/dep v1.0.0\n",
    "repo.go": SUBJECT.replace("package subject", "package repo"),
    "vendor/modules.txt": "# example.com/dep v1.0.0\n## explicit\nexample.com/dep\n",
    "vendor/example.com/dep/dep.go": "package dep\n\nfunc Word() string { return `vendored` }\n",
    "mute.go": """package repo

import "time"

type mute struct{ why string }

func (m *mute) Error() string { panic(m.why) }

func (m *mute) RetryAfter() time.Duration { return time.Duration(len(m.why)) * time.Second }

func Mute(nil_ bool) error {
	if nil_ {
		return (*mute)(nil)
	}
	return &mute{"no words"}
}
""",
    "deep/internal/hidden/hidden.go": """package hidden

import "example.com/dep"

func Word() string { return dep.Word() }
""",
    "generic/generic.go": """//go:build go1.21

package generic

func Same[T any](v T) T { return v }
func Zero[T any]() (zero T) { return }
func Max[T int | float64](a, b T) T { return max(a, b) }
func Forget[T any](v T) {}
type List[T any] []T
func (l List[T]) Len() int { return len(l) }
""",
    "program/main.go": "package main\n\nfunc F() int { return 1 }\n\nfunc main() {}\n",
    "tests/only_test.go": "package tests\n",
    "plan9/only_plan9.go": "package plan9\n\nfunc F() int { return 1 }\n",
    "nothing/README": "no Go here\n",
    "syntax/syntax.go": "package syntax\n\nfunc F( {\n",
    "types/types.go": 'package types\n\nfunc F() int { return "a" }\n\nfunc G() { _ = G() }\n',
    "module/module.go": 'package module\n\nimport "example.com/no"\n\nfunc F() int { return no.X }\n',
    "nested/go.mod": "module example.com/user/nested/v2\n",
    "nested/part/part.go": "package part\n\nfunc F() int { return 2 }\n",
    "early/early.go": """package early

import "os"

func init() {
	os.Stdout.WriteString("ready ")
	os.Stderr.WriteString("no line feed")
}

func F(v int) int { return v }
""",
}


class Workshop:
    def __init__(self, folder: Path, go: Go) -> None:
        self.folder, self.go = folder, go
        self.checkout = folder / "checkout"
        self._numbers = itertools.count()
        for name, text in FILES.items():
            path = self.checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def build(
        self,
        text: str | Call,
        package: str = "",
        *,
        statement: bool = False,
        checkout: Path | None = None,
        extra: dict[Path, str] | None = None,
    ) -> tuple[Path, str]:
        """The binary, and what the compiler said."""
        call = parse_call(text) if isinstance(text, str) else text
        work = self.folder / f"work{next(self._numbers)}"
        work.mkdir()
        home = (checkout or self.checkout) / package
        replace = self._library()
        for path, content in (extra or {}).items():
            (work / path.name).write_text(content)
            replace[str(path)] = str(work / path.name)
        (work / "overlay.json").write_text(json.dumps({"Replace": replace}))
        overlay = f"-overlay={work / 'overlay.json'}"
        told = self.go("list", overlay, "-e", "-f", "{{.ImportPath}} {{.Name}}", ".", cwd=home)
        import_path, _, name = told.stdout.strip().partition(" ")
        if name in ("", "main"):  # which a build would have refused by now
            import_path, name = f"example.com/user/repo/{package}", "unknown"
        form = harness.Form(statement=statement)
        files = harness.render_main(call, import_path, name, form=form)
        for file, data in files.items():
            (work / file).write_bytes(data)
            replace[str(home / harness.FOLDER / file)] = str(work / file)
        (work / "overlay.json").write_text(json.dumps({"Replace": replace}))
        flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
        built = self.go("build", *flags, overlay, "-o", work / "out", f"./{harness.FOLDER}", cwd=home)
        assert (work / "out").exists() == (built.returncode == 0)
        return work / "out", built.stderr + built.stdout

    def _library(self) -> dict[str, str]:
        """The overlay that makes the harness a part of the standard library."""
        src = Path(self.go("env", "GOROOT", cwd=self.folder).stdout.strip()) / "src" / harness.LIBRARY
        replace = {}
        for name, data in harness.library().items():
            (self.folder / name).write_bytes(data)
            replace[str(src / name)] = str(self.folder / name)
        return replace

    def complaint(self, text: str | Call, package: str = "", *, statement: bool = False) -> Complaint:
        binary, said = self.build(text, package, statement=statement)
        assert not binary.exists()
        return harness.classify(said)

    def answer(self, text: str | Call, package: str = "", *, statement: bool = False) -> str:
        binary, said = self.build(text, package, statement=statement)
        assert binary.exists(), said
        call = parse_call(text) if isinstance(text, str) else text
        ran = run(binary, harness.frame(call, NONCE))
        assert (ran.returncode, ran.stderr) == (0, b"")
        return printed(ran).decode()


def run(binary: Path, stdin: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run with this environment alone."""
    return subprocess.run([binary], input=stdin, capture_output=True, env=environment, check=False)


def returned(ran: subprocess.CompletedProcess[bytes]) -> Returned:
    _, [answer] = told.returned(ran.stdout, NONCE)
    return answer


def printed(ran: subprocess.CompletedProcess[bytes]) -> bytes:
    """What a process printed, without the harness's record, of which there is one."""
    kept, answers = told.returned(ran.stdout, NONCE)
    assert len(answers) == 1
    return kept


def frame(text: str) -> bytes:
    return harness.frame(parse_call(text), NONCE)


@pytest.fixture(scope="module")
def workshop(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"), go)


@pytest.fixture(scope="module")
def rest(workshop: Workshop) -> Path:
    return workshop.build("Rest()")[0]


def test_endless_recursion_ends_with_a_stack_trace(workshop: Workshop) -> None:
    """And long before the memory is used up."""
    binary, _ = workshop.build("Endless(0)")
    ran = run(binary, frame("Endless(0)"), **dict(function_environment(Limits(memory_bytes=100 << 20))))
    assert ran.returncode == 2
    assert b"stack exceeds 23592960-byte limit" in ran.stderr
    assert b"Endless" in ran.stderr


class TestForms:
    def test_function_takes_any_arguments(self, workshop: Workshop) -> None:
        binary, _ = workshop.build("Two(1, `a`)")
        assert printed(run(binary, frame("Two(1, `a`)"))) == b"a1"
        assert printed(run(binary, frame('Two(-0x80, "\\u00e9")'))) == "é-128".encode()
        refused = run(binary, frame('Two("a", 128)'))
        assert (refused.returncode, refused.stdout) == (harness.EXIT_REJECTED, b"")
        outcome = Outcome(verdict=Verdict.exited, exit_code=refused.returncode, stderr=refused.stderr)
        error = harness.rejection(outcome, NONCE)
        assert error is not None
        assert error.message == "call: argument 1: a constant of kind string with this value is no int8"

    def test_function_without_results_prints_nothing(self, workshop: Workshop) -> None:
        assert workshop.answer("Void(1)") == ""
        assert workshop.answer("Nothing()") == ""

    def test_function_that_panics_exits_as_go_does(self, workshop: Workshop) -> None:
        ran = run(workshop.build("Panics(3)")[0], frame("Panics(3)"))
        assert (ran.returncode, ran.stdout) == (2, b"")
        assert ran.stderr.startswith(b"panic: 3")

    def test_value_is_no_function(self, workshop: Workshop) -> None:
        ran = run(workshop.build("Value(1)")[0], frame("Value(1)"))
        assert ran.returncode == harness.EXIT_REJECTED
        assert b'"argument":-1' in ran.stderr

    @pytest.mark.parametrize(
        ("text", "printed"),
        [
            ("Two(1, string('a'))", "a1"),
            ("NewPoint(1, 2).Sum()", "3"),
            ("NewPoint(1, 2).Move(1, -1)", "<2,1> <nil>"),
            ("repo.Struct(repo.Point{X: 1, Y: Value})", "<1,5>"),
            ("Point{1, 2}.Sum()", "3"),
            ("Lookup(Table{Key: 7})", "7"),
            ("Anything([]any{1, `\n`}...)", '[]interface {}{1, "\\n"} 2 2'),
            ("Anything(len(Strings(`a`)), 0b11, 1 - -1)", "[]interface {}{1, 3, 2} 3 3"),
        ],
    )  # fmt: skip
    def test_expression(self, workshop: Workshop, text: str, printed: str) -> None:
        assert workshop.answer(text) == printed

    @pytest.mark.parametrize("text", ["NewPoint(1, 2).Forget()", "Void(Value)"])
    def test_statement(self, workshop: Workshop, text: str) -> None:
        assert workshop.complaint(text) is Complaint.no_value
        assert workshop.answer(text, statement=True) == ""

    @pytest.mark.parametrize(
        ("text", "printed"),
        [("Same(1)", "1"), ("Max(1, 2.5)", "2.5"), ("Zero[int]()", "0"), ("List[int]{1}.Len()", "1")],
    )  # fmt: skip
    def test_generic(self, workshop: Workshop, text: str, printed: str) -> None:
        call = parse_call(text)
        if call.arguments is not None:
            assert workshop.complaint(call, "generic") is Complaint.generic
        assert workshop.answer(harness.as_expression(call), "generic") == printed

    def test_generic_without_results(self, workshop: Workshop) -> None:
        call = harness.as_expression(parse_call("Forget(1)"))
        assert workshop.complaint("Forget(1)", "generic") is Complaint.generic
        assert workshop.complaint(call, "generic") is Complaint.no_value
        assert workshop.answer(call, "generic", statement=True) == ""

    def test_conversion(self, workshop: Workshop) -> None:
        call = parse_call("Half(2.5)")
        assert workshop.complaint(call) is Complaint.type
        assert workshop.answer(harness.as_expression(call)) == "2.5"
        assert workshop.complaint("List(1)", "generic") is Complaint.type


ALWAYS = GoError(message="always", type="*errors.errorString")
ANSWERS: dict[str, tuple[bytes, GoError | None]] = {
    "Two(1, `a`)": (b'["a",1]', None),
    "Fails(1, 2)": (b"[0.5]", ALWAYS),
    "Error(nil)": (b"[]", None),
    "Pointer(nil)": (b"[null]", None),
    "Nothing()": (b"[]", None),
    "Fails(1, float32(2))": (b"[0.5]", ALWAYS),
    "Error(Error(nil))": (b"[]", None),
    "NewPoint(1, 2).Move(1, -1)": (b'[{"X":2,"Y":1}]', None),
    "Three(1, 2, len(Key))": (b"[1,2,3]", None),
}
"""What calls of each form give back."""


class TestRecords:
    @pytest.mark.parametrize("text", ANSWERS)
    def test_results_and_error(self, workshop: Workshop, text: str) -> None:
        binary, said = workshop.build(text)
        assert binary.exists(), said
        answer = returned(run(binary, frame(text)))
        assert (answer.results, answer.error) == ANSWERS[text]
        bare = harness.frame(parse_call(text), NONCE, text_only=True)
        assert returned(run(binary, bare)) == structs.replace(answer, results=None)

    def test_an_error_that_cannot_say_what_it_is(self, workshop: Workshop) -> None:
        binary, said = workshop.build("Mute(true)")
        assert binary.exists(), said
        errors = [returned(run(binary, frame(f"Mute({nil})"))).error for nil in ("true", "false")]
        assert [error and error.retry_after_s for error in errors] == [None, len("no words")]
        assert [error and error.message for error in errors] == [
            "it is a nil pointer, and its method Error panicked: "
            "runtime error: invalid memory address or nil pointer dereference",
            "its method Error panicked: no words",
        ]

    def test_a_statement_has_no_results(self, workshop: Workshop) -> None:
        binary, _ = workshop.build("NewPoint(1, 2).Forget()", statement=True)
        assert returned(run(binary, frame("NewPoint(1, 2).Forget()"))).results == b"[]"

    def test_what_was_printed_before_is_told_apart(self, workshop: Workshop) -> None:
        answer = returned(run(workshop.build("F(1)", "early")[0], frame("F(7)")))
        assert (answer.printed, answer.text, answer.results) == (b"ready ", b"7", b"[7]")


class TestPlaces:
    def test_internal_and_vendored(self, workshop: Workshop) -> None:
        assert workshop.answer("hidden.Word()", "deep/internal/hidden") == "vendored"

    def test_module_below_the_repository(self, workshop: Workshop) -> None:
        assert workshop.answer("F()", "nested/part") == "2"

    def test_no_module_at_all(self, workshop: Workshop, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "sub.go").write_text("package other\n\nfunc F() int { return 3 }\n")
        binary, said = workshop.build(
            "other.F()", "sub", checkout=tmp_path, extra={tmp_path / "go.mod": "module example.com/m\n"}
        )
        assert binary.exists(), said
        assert printed(run(binary, frame("F()"))) == b"3"

    def test_checkout_is_not_touched(self, workshop: Workshop) -> None:
        before = sorted(workshop.checkout.rglob("*"))
        workshop.build("Int(1)")
        assert sorted(workshop.checkout.rglob("*")) == before


class TestFrames:
    def test_what_follows_belongs_to_the_function(self, rest: Path) -> None:
        assert printed(run(rest, frame("Rest()") + b"all of\x00this")) == b'"all of\\x00this" <nil>'
        assert printed(run(rest, frame("Rest()"))) == b'"" <nil>'

    def test_expressions_leave_it_too(self, workshop: Workshop) -> None:
        binary, _ = workshop.build("Strings(Rest())")
        assert printed(run(binary, frame("Strings(Rest())") + b"x")) == b'["x" <nil>]'

    def test_not_one_byte_more_is_read(self, rest: Path) -> None:
        process = subprocess.Popen([rest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdin is not None
        assert process.stdout is not None
        for byte in frame("Rest()") + b"abc":
            process.stdin.write(bytes([byte]))
        process.stdin.close()
        with process.stdout:
            kept, _ = told.returned(process.stdout.read(), NONCE)
            assert kept == b'"abc" <nil>'
        assert process.wait() == 0

    def test_a_jail_thrown_away_ends_quietly(self, rest: Path) -> None:
        ran = run(rest, b"")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")

    @pytest.mark.parametrize(
        "stdin",
        [
            b"\x00",
            b"\x00\x00\x00\x05{",
            b"\xff\xff\xff\xff" + b"x" * 100,
            b"\x00\x00\x00\x00",
            b"\x00\x00\x00\x02{}",
            b'\x00\x00\x00\x0a{"args":[1',
            b'\x00\x00\x00\x18{"args":[],"nonce":"n"}}',
        ],
    )
    def test_a_torn_frame_calls_nothing(self, rest: Path, stdin: bytes) -> None:
        ran = run(rest, stdin)
        assert (ran.returncode, ran.stdout) == (harness.EXIT_TORN, b"")

    def test_refusal_is_understood_behind_what_the_package_printed(self, workshop: Workshop) -> None:
        binary, _ = workshop.build("F(1)", "early")
        ran = run(binary, frame("F(1.5)"))
        assert ran.stdout == b"ready "
        outcome = Outcome(verdict=Verdict.exited, exit_code=ran.returncode, stderr=ran.stderr)
        error = harness.rejection(outcome, NONCE)
        assert error is not None
        assert error.details == {"argument": 0, "told_by": "jail"}


class TestComplaints:
    @pytest.mark.parametrize(
        ("text", "package", "complaint"),
        [
            ("Nope(1)", "", Complaint.undefined),
            ("Nope(1, Value)", "", Complaint.undefined),
            ("Int(Nope)", "", Complaint.undefined),
            ("Int(len(Key), 2)", "", Complaint.mismatch),
            ("Int(Key)", "", Complaint.mismatch),
            ("Int(NewPoint(1, 2))", "", Complaint.mismatch),
            ("NewPoint(1, 2).Nope()", "", Complaint.mismatch),
            ("Value(1 + 1)", "", Complaint.mismatch),
            ("Int(Void(1))", "", Complaint.mismatch),
            ("Tiny(1 << 9)", "", Complaint.mismatch),
            ("Int[int](1)", "", Complaint.mismatch),
            ("Zero[int](Max)", "generic", Complaint.mismatch),
            ("F()", "program", Complaint.program),
            ("F()", "module", Complaint.missing_module),
            ("F()", "nothing", Complaint.no_go_files),
            ("F()", "tests", Complaint.no_go_files),
            ("F()", "plan9", Complaint.no_go_files),
            ("F()", "syntax", Complaint.package),
            ("F()", "types", Complaint.package),
        ],
    )  # fmt: skip
    def test_are_told_apart(self, workshop: Workshop, text: str, package: str, complaint: Complaint) -> None:
        assert workshop.complaint(text, package) is complaint

    def test_say_where_in_the_call(self, workshop: Workshop) -> None:
        call = parse_call('repo.Two( 1 , "é" + Value )')
        _, said = workshop.build(call)
        (offset, message), *_ = harness.call_errors(said)
        assert call.text.encode()[offset:].startswith(b'"')
        assert "mismatched types" in message
