"""Why a call or a build did not end well.

An `Outcome` or an `IslandError` enters, and a `Cause` leaves: what is counted together, one line for people,
and the evidence. It goes wherever the end of a call is told: its event, history, the REST API, the log, the
console.

All of it may be a stranger's text. So each part has a bound, and the whole takes some 8 KB at the most; what
is longer is cut before it is read, so the time is bounded too.
"""

from __future__ import annotations

import re
import signal as signals

from msgspec import Struct, structs

from skyisland.errors import BuildFailed, IslandError
from skyisland.model import GoError, Outcome, Verdict

LINE_CHARACTERS = 300
"""Of `Cause.text`: two lines of a terminal hold it."""
STDERR_BYTES = 2000
"""Of the end of standard error: some thirty lines. A panic's beginning is in `Cause.error`."""
STDOUT_BYTES = 500
"""Of the beginning of standard output: enough to see what it is."""
FATAL_BYTES = 64 << 10
"""Of the beginning of standard error: there the runtime's own word is looked for."""
_FATAL = re.compile(rb"^(?:fatal error|SIG[A-Z]+|panic): .{,300}", re.MULTILINE)
"""runtime.throw, runtime.sighandler and runtime.printpanics begin their lines so."""
COMPILER_CHARACTERS = 2000
"""Of what the compiler printed: it stops after ten errors itself. The caller's answer has more."""
MESSAGE_CHARACTERS = 1000
"""Of an error's message; the caller's answer has all of it."""

HIDDEN = "[secret]"
"""Stands for a secret."""
CANCELLED = "cancelled"
"""The kind of a call whose caller left before its answer."""


class Cause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something did not end well, with the evidence."""

    kind: str
    """What is counted together: a verdict, with its exit code or signal where it has one (`exited 2`,
    `signaled 11`), or the code of an error. There are some hundreds."""
    text: str
    """All in one line: `exited 2: panic: runtime error: index out of range [5] with length 3`."""
    exit_code: int | None = None
    signal: int | None = None
    error: GoError | None = None
    """The error that the function returned, or its panic; its message may be cut."""
    stderr: str = ""
    """The last lines of standard error."""
    stdout: str = ""
    """The beginning of standard output."""
    compiler: str = ""
    """The first lines that the compiler printed."""

    @classmethod
    def of_outcome(cls, outcome: Outcome, exec_s: float, secrets: tuple[str, ...] = ()) -> Cause | None:
        """Why a function did not end well; None if it did. `exec_s`: how long it ran. `secrets`: what it was
        given and may have printed; it is left out."""
        if outcome.verdict is Verdict.ok:
            return None
        if secrets:
            outcome = without(secrets, outcome)
        verdict, code, signal = outcome.verdict, outcome.exit_code, outcome.signal
        kind, stderr = str(verdict), _last_lines(outcome.stderr)
        error = outcome.error and _cut(outcome.error)
        said = f"{error.type}: {error.message}" if error else _telling_line(outcome.stderr)
        match verdict:
            case Verdict.exited:
                kind = head = kind if code is None else f"exited {code}"
            case Verdict.signaled:
                kind, head = f"signaled {signal}", f"killed by signal {_named(signal)}"
            case Verdict.failed if code:  # a program
                kind = head = f"exited {code}"
                said = said if error and error.type != "exit" else _telling_line(outcome.stderr)
            case Verdict.failed:
                head, said = kind, error.message if error else ""
            case Verdict.timed_out:
                head, said = f"timed out after {exec_s:.3g} s", ""
            case Verdict.killed:
                head, said = "killed", outcome.killed.removeprefix("killed ")
            case _:
                head = _WORDS[verdict]
        return cls(
            kind=kind,
            text=_line(head, said),
            exit_code=code,
            signal=signal,
            error=error,
            stderr=stderr,
            stdout=outcome.stdout[:STDOUT_BYTES].decode(errors="replace"),
        )

    @classmethod
    def of_error(cls, error: Exception, secrets: tuple[str, ...] = ()) -> Cause:
        """Why the island refused or failed: of what nobody foresaw, no more than its kind. `secrets`: as for
        an outcome; a jail has its word in what arguments are refused."""
        if not isinstance(error, IslandError):
            return cls(kind=IslandError.code, text=_line(IslandError.code, type(error).__name__))
        if not isinstance(error, BuildFailed):
            said = masked(secrets, error.message)
            return cls(kind=error.code, text=_line(error.code.replace("_", " "), said))
        output = str(error.details.get("output", ""))[:COMPILER_CHARACTERS]
        place = _FIRST_PLACE.search(output)
        return cls(
            kind=error.code, text=_line("build", place[0] if place else error.message), compiler=output
        )

    @classmethod
    def of_absence(cls) -> Cause:
        """Nobody waits for the answer any more."""
        return cls(kind=CANCELLED, text="cancelled: the caller left before the answer")

    @property
    def size_bytes(self) -> int:
        """About the memory of its texts."""
        trace = self.error.trace if self.error else ()
        texts = (self.text, self.stderr, self.stdout, self.compiler, self.error.message if self.error else "")
        return sum(len(text) if text.isascii() else 4 * len(text) for text in (*texts, *trace))


def masked(secrets: tuple[str, ...], told: str) -> str:
    """A text with a mark in place of each secret."""
    for secret in secrets:
        told = told.replace(secret, HIDDEN)
    return told


def masked_bytes(secrets: tuple[str, ...], told: bytes) -> bytes:
    """The same of what a jail wrote."""
    for secret in secrets:
        told = told.replace(secret.encode(), HIDDEN.encode())
    return told


def without(secrets: tuple[str, ...], outcome: Outcome) -> Outcome:
    """The outcome with a mark in place of each secret, and no more of standard output than is told."""
    longest = max(len(secret.encode()) for secret in secrets)
    room = STDOUT_BYTES + longest
    stdout, stderr = (masked_bytes(secrets, text) for text in (outcome.stdout[:room], outcome.stderr))
    error = outcome.error
    if error is not None:
        trace = tuple(masked(secrets, line) for line in error.trace)
        error = structs.replace(error, message=masked(secrets, error.message), trace=trace)
    if len(outcome.stdout) > room:
        stdout = stdout[:-longest]  # it may end in the beginning of one
    return structs.replace(outcome, stdout=stdout, stderr=stderr, error=error)


_WORDS = {
    Verdict.out_of_memory: "out of memory",
    Verdict.output_limit: "printed more than it may",
    Verdict.disk_full: "its disk was full",
    Verdict.cpu_time: "used up its processor time",
}
_FIRST_PLACE = re.compile(r"^(?!call:)[^\s:]{1,200}:[0-9]{1,7}(?::[0-9]{1,7})?: .*", re.MULTILINE)
"""The first line about a file; one about the call is said better in the message."""


def _line(head: str, said: str) -> str:
    text = " ".join(f"{head}: {said[: 2 * LINE_CHARACTERS]}".split()) if said else head
    return text if len(text) <= LINE_CHARACTERS else f"{text[: LINE_CHARACTERS - 1]}…"


def _last_lines(stderr: bytes) -> str:
    """The end of it, from the beginning of a line if there is one."""
    end = stderr[-STDERR_BYTES:]
    if len(stderr) > STDERR_BYTES:
        end = end.partition(b"\n")[2] or end
    return end.decode(errors="replace")


def _telling_line(stderr: bytes) -> str:
    """What Go's runtime says before its stacks and registers; without that, the last line."""
    told = _FATAL.findall(stderr[:FATAL_BYTES])
    line = told[-1] if told else stderr[-STDERR_BYTES:].rstrip().rpartition(b"\n")[2]
    return line.decode(errors="replace")


def _cut(error: GoError) -> GoError:
    if len(error.message) <= MESSAGE_CHARACTERS:
        return error
    return structs.replace(error, message=f"{error.message[: MESSAGE_CHARACTERS - 1]}…")


def _named(signal: int | None) -> str:
    try:
        return f"{signal} ({signals.Signals(signal or 0).name})"
    except ValueError:
        return str(signal)
