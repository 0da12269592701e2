"""The answer of a call by hand: what it printed, then how it went; or how it differs from the last one."""

from __future__ import annotations

import difflib
import signal
from itertools import takewhile

from msgspec import UNSET

from skyisland.errors import IslandError
from skyisland.events import shortened
from skyisland.model import FunctionRequest, Phase
from skyisland.wire import Answer, Called
from tui.draw.canvas import Line, Pager
from tui.draw.charts import waterfall, wrapped
from tui.watch.port import LinkLost
from tui.watch.rows import InvocationRow, seconds_of, state_of
from tui.words import clean, duration, line, short

SHOWN = 64 << 10
"""Characters of an output that are shown; `skyisland invoke` prints all of it."""
COMPARED = 200
"""Lines of two outputs that are compared, from the first that differs: that takes their number squared."""
ANSWERS = 200
"""Answers of many inputs that are shown."""


class AnswerPane(Pager):
    """The answer, or why there is none; or how it differs from the one before."""

    def __init__(self) -> None:
        super().__init__(id="reply")
        self.note = ("ctrl+r sends", "dim")
        self.request: InvocationRow | None = None
        self.called: Called | None = None
        self.before: Called | None = None
        """The answer of the call before."""
        self.comparing = False
        self.failure: IslandError | LinkLost | None = None
        self._made: tuple[object, list[Line]] = (None, [])

    def say(self, text: str) -> None:
        """Show that something is under way."""
        self.before = self.called or self.before
        self.called, self.failure, self.comparing = None, None, False
        self.note = (text, "info")
        self.paint()

    def take(self, request: FunctionRequest, called: Called) -> None:
        """Show an answer."""
        self.called, self.first = called, 0
        self.request = as_request(request, called, self.station.now)

    def content(self, width: int) -> list[Line]:
        about = (width, self.note, self.called, self.before, self.comparing, self.failure)
        if self._made[0] != about:
            self._made = about, self._written(width)
        return list(self._made[1])

    def _written(self, width: int) -> list[Line]:
        glyphs = self.glyphs
        if self.failure is not None:
            code = f"{self.failure.code}: " if isinstance(self.failure, IslandError) else ""
            lines = wrapped(f"{glyphs['bad']} {code}{clean(str(self.failure))}", width, "bad", indent=" ")
            output = getattr(self.failure, "details", {}).get("output")
            return lines + _text(str(output), width, "text") if output else lines
        if self.called is None or self.request is None:
            return [Line([(f" {self.note[0]}", self.note[1])])]
        if self.comparing and self.before is not None:
            return difference(self.before, self.called, width, glyphs["into"])
        answer = self.called.answer
        lines = [self._head(self.called)]
        if self.called.message:
            lines += wrapped(clean(self.called.message), width, "bad", indent=" ")
        lines += [Line([]), *self._output(answer, width)]
        if answer.stderr:
            lines += [Line([]), Line([(" errors", "strong")]), *_text(answer.stderr, width, "bad")]
        usual_s = self.board.usual_s(self.request)
        return [*lines, Line([]), *waterfall(self.request, self.station.now, width, glyphs, usual_s)]

    def _head(self, called: Called) -> Line:
        """How it ended, and what served it, in a line."""
        answer = called.answer
        glyph, tone = self.glyphs.state(state_of(called.verdict), called.verdict)
        facts = [
            _exit(answer),
            duration(answer.timings.total_s),
            f"{'warm ' if answer.warm else ''}jail {line(answer.jail)}" if answer.jail else "",
            f"at {line(answer.version)[:8]}" if answer.version else "",
            short(answer.id),
        ]
        return Line([(f" {glyph}", tone), ("   " + "   ".join(filter(None, facts)), "dim")])

    def _output(self, answer: Answer, width: int) -> list[Line]:
        lines = _text(answer.data, width, "text") if answer.data else []
        answers = answer.answers if answer.answers is not UNSET else []
        for number, each in enumerate(answers[:ANSWERS]):
            error = f"{each.error.type}: {each.error.message}" if each.error is not None else ""
            lines += wrapped(
                line(f"{number}: {shortened(each.data or error, 2000)}"),
                width,
                "bad" if each.failed else "text",
                indent=" ",
            )
        if len(answers) > ANSWERS:
            lines.append(Line([(f" and {len(answers) - ANSWERS} more", "dim")]))
        return lines or [Line([(" it printed nothing", "dim")])]


def as_request(request: FunctionRequest, called: Called, now: float) -> InvocationRow:
    """The answer as a row of the board, for its waterfall."""
    answer, timings = called.answer, called.answer.timings
    row = InvocationRow(answer.id, request.url, request.shown, now - timings.total_s)
    row.verdict = line(called.verdict)
    row.error = line(shortened(answer.error.message)) if answer.error is not None else ""
    row.jail = answer.jail and line(answer.jail)
    row.commit = answer.version
    row.cached = answer.cached
    row.warm = answer.warm
    row.spent = {phase: spent for phase in Phase if (spent := seconds_of(timings, phase))}
    row.total_s = timings.total_s
    return row


def _text(text: str, width: int, tone: str) -> list[Line]:
    """Text of others, wrapped; the beginning, where it is long."""
    lines = wrapped(clean(text[:SHOWN]), width, tone, indent=" ")
    if len(text) > SHOWN:
        lines.append(Line([(f" and {len(text) - SHOWN} characters more", "dim")]))
    return lines


def _exit(answer: Answer) -> str:
    if isinstance(answer.signal, int):
        names = {int(number): number.name for number in signal.Signals}
        return names.get(answer.signal, f"signal {answer.signal}")
    return "" if answer.exit_code is None else f"exit {answer.exit_code}"


def difference(before: Called, now: Called, width: int, into: str) -> list[Line]:
    """What is another in `now` than `before`: how it went, and the lines of the output."""
    facts = [
        (name, was, became)
        for name, was, became in zip(
            ("result", "exit", "commit", "binary", "jail", "time"), _facts(before), _facts(now), strict=True
        )
        if was != became
    ]
    lines = [Line([(" compared with the call before", "strong")])]
    lines += [
        Line([(f" {name:<8}", "dim"), (was or "none", "bad"), (f" {into} ", "dim"), (became or "none", "ok")])
        for name, was, became in facts
    ]
    for title, old, new in (
        ("output", before.answer.data, now.answer.data),
        ("errors", before.answer.stderr, now.answer.stderr),
    ):
        lines += [Line([]), Line([(f" {title}", "strong")])]
        if old == new:
            lines.append(Line([(" the same", "dim")]))
        for sign, text in changes(old, new):
            tone = {"-": "bad", "+": "ok"}.get(sign, "dim")
            lines += wrapped(f"{sign} {line(text)}", width, tone, indent=" ")
    return lines


def _facts(called: Called) -> tuple[str, ...]:
    answer = called.answer
    return (
        line(called.verdict),
        _exit(answer),
        line(answer.version)[:12],
        "cached" if answer.cached else "built",
        "warm" if answer.warm else "made for it",
        duration(answer.timings.total_s),
    )


def changes(old: str, new: str) -> list[tuple[str, str]]:
    """Lines with `-` (only in `old`), `+` (only in `new`) or a blank (in both), and `…` for what is left out.

    What both begin with is skipped; of the rest `COMPARED` lines of each are compared.
    """
    if old == new:
        return []
    one, other = old[:SHOWN].splitlines(), new[:SHOWN].splitlines()
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    start = max(0, same - 1)
    ours, theirs = one[start : start + COMPARED], other[start : start + COMPARED]
    found: list[tuple[str, str]] = [("…", f"{start} lines are the same")] if start else []
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            found += [(" ", text) for text in ours[a:b]]
        else:
            found += [("-", text) for text in ours[a:b]] + [("+", text) for text in theirs[c:d]]
    if max(len(one), len(other)) > start + COMPARED or max(len(old), len(new)) > SHOWN:
        found.append(("…", "what follows was not compared"))
    return found
