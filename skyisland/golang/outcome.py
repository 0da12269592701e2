"""What a call left in its jail: output, results, error, panic.

An `Outcome` enters as the jail's process left it, with the harness's record in its standard output
(`harness.Records`) and a panic in the words of Go's runtime in its standard error. Out comes what the island
tells its caller. All of it is the jail's word: it is bounded, and tells of this call alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Raw, structs

from skyisland.golang import harness
from skyisland.model import UNANSWERED, GoError, Outcome, Returned, Verdict

EXIT_PANIC = 2
"""The exit code of Go's runtime after a panic or a fatal error."""
FRAMES = 8
"""Most frames of a trace. A judgement: a line each, and the first ones tell."""
FRAME_CHARACTERS = 300
"""How much of a frame is kept. A judgement: names of functions and files are shorter."""
MESSAGE_CHARACTERS = 16 << 10
"""How much of a panic's text is kept: as much as of an error's (`maxMessage` in answer.go)."""

_ELEMENTS = msgspec.json.Decoder(list[Raw])
_OURS = (f"{harness.LIBRARY}.", "main.main", "created by ")
"""Where the caller's code ends: our main program, or the start of a goroutine."""
_RUNTIME = ("panic", "runtime.", "internal/")


class OneAnswer:
    """What a call of a function gives back."""

    def __init__(self, nonce: str) -> None:
        self._records = harness.Records(nonce, most=1)
        self._answer: Returned | None = None

    def take(self, output: bytes) -> bool:
        """Take more of the jail's standard output; returns whether the answer is there.

        It is the last that the main program does: it ends with code 0 then. What the function's own
        goroutines write later than that, or end the process with, is a race that they had lost before, but
        for moments.
        """
        for answer in self._records.take(output):
            self._answer = answer
        return self._answer is not None

    def told(self, outcome: Outcome, most_bytes: int) -> Outcome:
        """The outcome of a call without the harness's record, and with what that says.

        `most_bytes`: as much output may a call have; the jail's limit has room for the record, too.
        """
        answer, rest = self._answer, self._records.rest
        stdout = printed = rest
        results, error = None, None
        if answer is not None:
            stdout, printed = b"".join((answer.printed, answer.text, rest)), answer.printed + rest
            results, error = answer.results, answer.error
        verdict, exit_code = outcome.verdict, outcome.exit_code
        if len(stdout) > most_bytes:
            stdout, printed, results = stdout[:most_bytes], printed[:most_bytes], None
            if verdict in (Verdict.ok, Verdict.exited):
                verdict, exit_code = Verdict.output_limit, None
        if exit_code == EXIT_PANIC:
            error = panic(outcome.stderr) or error
        if verdict is Verdict.ok and error is not None:
            verdict = Verdict.failed
        return structs.replace(
            outcome,
            verdict=verdict,
            exit_code=exit_code,
            stdout=stdout,
            printed=printed,
            results=results,
            error=error,
        )


def told_of_program(outcome: Outcome, most_bytes: int) -> Outcome:
    """The outcome of a program: a code other than 0 is its word that it failed."""
    stdout, verdict, error = outcome.stdout[:most_bytes], outcome.verdict, None
    if len(outcome.stdout) > most_bytes and verdict in (Verdict.ok, Verdict.exited):
        return structs.replace(outcome, verdict=Verdict.output_limit, exit_code=None, stdout=stdout)
    if verdict is Verdict.exited:
        verdict = Verdict.failed
        error = panic(outcome.stderr) if outcome.exit_code == EXIT_PANIC else None
        error = error or GoError(message=f"exit status {outcome.exit_code}", type="exit")
    return structs.replace(outcome, verdict=verdict, stdout=stdout, printed=stdout, error=error)


class ManyAnswers:
    """What a call with many inputs gives back for each, as it comes."""

    def __init__(self, nonce: str, json: bytes, heard: Callable[[list[Returned]], None] | None) -> None:
        """`json`: the inputs. `heard`: who gets the answers; without it they are kept."""
        self._inputs = len(_ELEMENTS.decode(json))
        self._records = harness.Records(nonce, most=self._inputs)
        self._count = 0
        self._kept: list[Returned] = []
        self._heard = heard

    def take(self, output: bytes) -> bool:
        """Take more of the jail's standard output; returns whether each input has its answer."""
        answers = self._records.take(output)
        self._count += len(answers)
        if self._heard is None:
            self._kept += answers
        elif answers:
            self._heard(answers)
        return self._count == self._inputs

    def told(self, outcome: Outcome, most_bytes: int) -> Outcome:
        """The outcome with the answers that were kept; its output is what belongs to no input. A process that
        left inputs without answer did not end well, whatever its exit code."""
        rest = self._records.rest[:most_bytes]
        error = panic(outcome.stderr) if outcome.exit_code == EXIT_PANIC else None
        answers = tuple(self._kept) if self._heard is None else None
        verdict = outcome.verdict
        if self._count < self._inputs:
            verdict = Verdict.exited if verdict is Verdict.ok else verdict
            error = error or GoError(
                message=f"{self._count} of {self._inputs} inputs were answered", type=UNANSWERED
            )
        return structs.replace(
            outcome, verdict=verdict, stdout=rest, printed=rest, error=error, answers=answers
        )


def panic(stderr: bytes) -> GoError | None:
    """The panic or the fatal error that ended a Go program, of what it wrote; None if there was none.

    The runtime writes it last, at the beginning of a line unless the program left one unfinished:
    "panic: ", the text, a blank line, "goroutine 1 [running]:", and two lines for each frame.
    """
    text = "\n" + stderr.decode(errors="replace")
    kind, start = max(
        (("panic", text.rfind("\npanic: ")), ("fatal error", text.rfind("\nfatal error: "))), key=_at
    )
    if start < 0:
        kind, start = "panic", text.rfind("panic: ") - 1
    end = text.find("\n\ngoroutine ", start)
    if start < -1 or end < 0:
        return None
    message = text[start + len(kind) + 3 : end].partition("\n[signal ")[0]
    if kind == "fatal error":
        message = message.partition("\n")[0]  # the runtime's own stack may follow
    lines = text[end + 2 :].partition("\n\n")[0].split("\n")[1:]
    return GoError(message=message[:MESSAGE_CHARACTERS], type=kind, trace=tuple(_trace(lines)))


def _at(found: tuple[str, int]) -> int:
    return found[1]


def _trace(lines: list[str]) -> Iterator[str]:
    """The frames between the runtime's, on top, and the harness's: `repo.At (repo/at.go:12)`."""
    frames = [
        (function.rpartition("(")[0] or function, place.strip().partition(" +")[0])
        for function, place in zip(lines[::2], lines[1::2], strict=False)
    ]
    own = itertools.takewhile(lambda frame: not frame[0].startswith(_OURS), frames)
    called = itertools.dropwhile(lambda frame: frame[0].startswith(_RUNTIME), own)
    for function, place in itertools.islice(called, FRAMES):
        if not function.startswith("reflect.Value."):
            yield re.sub(r"[^ -~]", "?", f"{function} ({place})"[:FRAME_CHARACTERS])
