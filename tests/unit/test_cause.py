"""Why something did not end well, in one line, with bounded evidence."""

from __future__ import annotations

import pytest

from skyisland.cause import LINE_CHARACTERS, STDERR_BYTES, STDOUT_BYTES, Cause
from skyisland.errors import BuildFailed, IslandError, SourceUnavailable, TooBusy
from skyisland.golang.outcome import panic, told_of_program
from skyisland.model import GoError, Outcome, Verdict

PANIC = b"""about to fail
panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
github.com/user/repo.At(...)
\t/src/at.go:12 +0x1d
main.main()
\t/gen/main.go:9 +0x1d
"""

FAULT_LINE = "SIGSEGV: segmentation violation"
FAULT = f"{FAULT_LINE}\nPC=0x40 m=0 sigcode=0\n\ngoroutine 1:\n\nrip    0x40\ngs     0x0\n".encode()
SENT = f"""{FAULT_LINE}
PC=0x40c84e m=0 sigcode=0 addr=0x4353

goroutine 1 gp=0x2482932a61e0 m=0 mp=0x540680 [running]:
internal/runtime/syscall/linux.Syscall6()
\tinternal/runtime/syscall/linux/asm_linux_amd64.s:36 +0xe fp=0x24829330cdb8 sp=0x24829330cdb0 pc=0x40c84e

rip    0x40c84e
gs     0x0
""".encode()


def ended(verdict: Verdict, **fields: object) -> Cause:
    cause = Cause.of_outcome(Outcome(verdict=verdict, **fields), 5.0)  # type: ignore[arg-type]
    assert cause is not None
    return cause


def test_a_good_end_has_no_cause() -> None:
    assert Cause.of_outcome(Outcome(verdict=Verdict.ok, exit_code=0, stderr=b"warning"), 1.0) is None


def test_a_panic_is_told_with_its_place_and_what_was_printed() -> None:
    cause = ended(Verdict.exited, exit_code=2, stdout=b"12", stderr=PANIC, error=panic(PANIC))
    assert cause.kind == "exited 2"
    assert cause.text == "exited 2: panic: runtime error: index out of range [5] with length 3"
    assert cause.exit_code == 2
    assert cause.error is not None
    assert cause.error.trace == ("github.com/user/repo.At (/src/at.go:12)",)
    assert (cause.stdout, cause.stderr) == ("12", PANIC.decode())


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (Outcome(verdict=Verdict.exited, exit_code=3, stderr=b"one\ntwo \n\n"), "exited 3", "exited 3: two"),
        (Outcome(verdict=Verdict.exited, exit_code=3), "exited 3", "exited 3"),
        (Outcome(verdict=Verdict.exited, exit_code=2, stderr=FAULT), "exited 2", f"exited 2: {FAULT_LINE}"),
        (Outcome(verdict=Verdict.signaled, signal=11), "signaled 11", "killed by signal 11 (SIGSEGV)"),
        (Outcome(verdict=Verdict.signaled, signal=99), "signaled 99", "killed by signal 99"),
        (Outcome(verdict=Verdict.out_of_memory), "out_of_memory", "out of memory"),
        (Outcome(verdict=Verdict.timed_out, stderr=b"busy"), "timed_out", "timed out after 5 s"),
        (Outcome(verdict=Verdict.output_limit), "output_limit", "printed more than it may"),
        (Outcome(verdict=Verdict.disk_full, stderr=b"no space"), "disk_full", "its disk was full: no space"),
        (Outcome(verdict=Verdict.cpu_time), "cpu_time", "used up its processor time"),
        (Outcome(verdict=Verdict.killed, killed="the island stops"), "killed", "killed: the island stops"),
        (
            Outcome(verdict=Verdict.killed, killed="killed by the operator"),
            "killed",
            "killed: by the operator",
        ),
        (
            Outcome(verdict=Verdict.failed, error=GoError(message="no such\nkey", type="*e.E")),
            "failed",
            "failed: no such key",
        ),
        (
            told_of_program(Outcome(verdict=Verdict.exited, exit_code=7, stderr=b"usage: x"), 100),
            "exited 7",
            "exited 7: usage: x",
        ),
    ],
    ids=lambda value: value.verdict if isinstance(value, Outcome) else "",
)
def test_each_end_in_one_line(outcome: Outcome, kind: str, text: str) -> None:
    cause = Cause.of_outcome(outcome, 5.0)
    assert cause is not None
    assert (cause.kind, cause.text) == (kind, text)


def test_every_verdict_has_words() -> None:
    assert all(ended(verdict).text for verdict in Verdict if verdict is not Verdict.ok)


def test_a_build_is_told_by_its_first_line_about_a_file() -> None:
    output = "# github.com/user/repo\n./a.go:3:5: undefined: x\n./a.go:9:1: undefined: y"
    cause = Cause.of_error(BuildFailed("repo does not compile", output=output))
    assert (cause.kind, cause.text) == ("build_failed", "build: ./a.go:3:5: undefined: x")
    assert cause.compiler == output
    about_the_call = BuildFailed("repo has no exported Foo", output="call:1:1: undefined: repo.Foo")
    assert Cause.of_error(about_the_call).text == "build: repo has no exported Foo"
    assert Cause.of_error(BuildFailed("the build took too long")).compiler == ""


def test_a_signal_that_was_sent_is_told_in_the_words_of_gos_runtime() -> None:
    cause = ended(Verdict.exited, exit_code=2, stderr=SENT, error=panic(SENT))
    assert (cause.kind, cause.text) == ("exited 2", f"exited 2: {FAULT_LINE}")


def test_other_errors_are_told_by_their_code() -> None:
    assert Cause.of_error(TooBusy("32 calls wait")).text == "too busy: 32 calls wait"
    assert Cause.of_error(SourceUnavailable("no such repository")).kind == "source_unavailable"
    # A message that nobody wrote for people may hold anything.
    assert Cause.of_error(ValueError("the token is x")).text == f"{IslandError.code}: ValueError"


def test_no_part_of_a_secret_is_left_where_something_is_cut() -> None:
    secret = "s3cret" * 20
    for beginning in range(STDOUT_BYTES - len(secret), STDOUT_BYTES):
        said = secret.encode() * 3 + b"x" * beginning + secret.encode() + b"x" * 5000
        outcome = Outcome(verdict=Verdict.exited, exit_code=1, stdout=said, stderr=said[::-1] + b"\n" + said)
        cause = Cause.of_outcome(outcome, 1.0, (secret,))
        assert cause is not None
        assert "s3cret" not in cause.stdout + cause.stderr + cause.text


def test_what_strangers_wrote_has_a_bound() -> None:
    def worst(length: int) -> Cause:
        message, stderr = "é" * length, b"\xff" * length + b"\nlast"
        return ended(
            Verdict.exited,
            exit_code=2,
            stdout=stderr,
            stderr=stderr,
            error=GoError(message=message, type="panic", trace=("x" * 300,) * 8),
        )

    assert len(worst(1 << 20).text) == LINE_CHARACTERS
    assert worst(1 << 20).stderr == "last"
    assert worst(1 << 20).size_bytes < 20_000
    whole = ended(Verdict.exited, stderr=b"x" * STDERR_BYTES * 2)
    assert len(whole.stderr) == STDERR_BYTES, "one line without end is cut"
    output = "a" * (1 << 20)
    assert Cause.of_error(BuildFailed("x" * (1 << 20), output=output)).size_bytes < 4000
