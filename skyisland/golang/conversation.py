"""What the island says to the process of one call, and what it makes of what comes back.

A request and its `Call` enter; bytes for standard input leave, and the words of a program's command line. The
jail's `Outcome` enters at the end, and leaves as what the caller is told (`outcome`). A function gets a frame
(`harness`); a program gets its input and nothing else, for it knows no frame.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from msgspec import structs

from skyisland.golang import harness
from skyisland.golang.callee import EXAMPLE_WORDS, command_line
from skyisland.golang.outcome import ManyAnswers, OneAnswer, told_of_program
from skyisland.model import Call, Exchange, FunctionRequest, Outcome, Returned

Heard = Callable[[list[Returned]], None]
"""Who gets the answers of many inputs as they come."""


class Conversation:
    """With one process."""

    def __init__(
        self,
        request: FunctionRequest,
        call: Call,
        *,
        text_only: bool,
        timeout_s: float,
        most_bytes: int,
        heard: Heard | None = None,
        environment: tuple[tuple[str, str], ...] = (),
        exchange: Exchange | None = None,
    ) -> None:
        """`text_only`: nobody wants the results as JSON. `most_bytes`: as much output may a call have.
        `environment`: variables of a function, secrets among them. `exchange`: what a handler answers.

        Raises:
            BadRequest: this is no command line of a program.
        """
        self.timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._nonce = secrets.token_hex(16)
        self._answers: OneAnswer | ManyAnswers | None = None
        self._exchange = exchange
        self.words: tuple[str, ...] | None = None
        """The command line of a program; None for a function."""
        self.shown = call.text
        """The call for people."""
        if call.is_examples:
            self.words, self.shown, self.input = EXAMPLE_WORDS, call.text, b""
            return
        if call.is_program:
            self.words = command_line(request)
            self.shown, self.input = request.shown, request.input
            return
        data = request.data
        if data is not None:
            self.shown = request.shown
            if data.many:
                self._answers = ManyAnswers(self._nonce, data.json, heard)
        if exchange is None and self._answers is None:
            self._answers = OneAnswer(self._nonce)
        frame = harness.frame(
            call,
            self._nonce,
            text_only=text_only,
            data=data,
            timeout_s=timeout_s,
            environment=environment,
            peer=exchange.peer if exchange is not None else "",
        )
        self.input = frame + (exchange.request if exchange is not None else request.input)
        """What the process reads from its standard input."""

    @property
    def mark(self) -> bytes:
        """What the harness begins its words with; empty for a program, which has no harness."""
        return b"" if self.words is not None else self._nonce.encode()

    @property
    def heard(self) -> Callable[[bytes], bool] | None:
        """Who takes its standard output as it comes, and returns whether all is said; None if it is taken at
        the end.

        The function could forge its last word: it concerns its own answer alone."""
        if self._exchange is not None:
            return self._exchange.heard
        return None if self._answers is None else self._answers.take

    def told(self, outcome: Outcome) -> Outcome:
        """What the caller is told of the jail's outcome.

        Raises:
            BadCall: the harness refused the arguments.
        """
        if self.words is not None:
            return told_of_program(outcome, self._most_bytes)
        if refusal := harness.rejection(outcome, self._nonce):
            raise refusal
        if self._answers is None:  # what a handler wrote was heard
            return structs.replace(outcome, stdout=b"", printed=b"")
        return self._answers.told(outcome, self._most_bytes)
