"""What jails write, for operators: while they do, and the end of it for a while after.

Who watches looks at what was read of the jail's pipes, a few times a second. So watching adds nothing to the
way of a call, and a slow watcher holds up nobody. What the harness says at the end of an output (its
records, behind a mark that the call alone has) is for the island, and left out.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator

from msgspec import Struct

from skyisland.cause import masked_bytes
from skyisland.errors import TooBusy
from skyisland.events import Latest
from skyisland.jails.inmate import Inmate
from skyisland.model import Outcome
from skyisland.status import Written

TAIL_BYTES = 16 << 10
"""Of each output of a call that is over, its last bytes."""
KEPT_BYTES = 4 << 20
"""Of all that are kept."""
PAUSE_S = 0.1
"""Between two looks at a jail that is watched."""
AT_ONCE = 64 << 10
"""Bytes of an output in one piece, for they are decoded on the event loop."""
WATCHERS = 32
"""How many may watch at once; each costs the island some twenty microseconds a second."""
_LENGTHS = 16
"""Hexadecimal digits behind a mark: the lengths of the text before it and of the record behind it."""


class Tail(Struct, frozen=True):
    """The end of what the jail of a call wrote."""

    jail: str
    invocation: str
    verdict: str
    stdout: bytes
    stderr: bytes
    cut: int

    @property
    def size_bytes(self) -> int:
        return 200 + len(self.stdout) + len(self.stderr)

    def piece(self) -> Written:
        return Written(
            stdout=self.stdout.decode(errors="replace"),
            stderr=self.stderr.decode(errors="replace"),
            cut=self.cut,
            ended=True,
            verdict=self.verdict,
        )


class Reader:
    """One output as it grows: the text of what it has more since the last look, without records."""

    def __init__(self, *, whole: bool) -> None:
        """`whole`: a record says how long it is, and more may follow; else all behind a mark is left out."""
        self._at = 0
        self._whole = whole
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def more(self, data: bytearray, mark: bytes, *, last: bool = False) -> str:
        """What came since, as much as is taken at once; with `last` also what might begin a mark."""
        text, stop = "", self._at + AT_ONCE
        while self._at < min(len(data), stop):
            found = data.find(mark, self._at, stop + len(mark)) if mark else -1
            if found != self._at:
                end = found if found >= 0 else len(data) - (0 if last else _beginning(data, mark, self._at))
                end = min(end, stop)
                if end == self._at:
                    break
                text += self._decode(data[self._at : end])
                self._at = end
                continue
            begin = found + len(mark) + _LENGTHS
            length = _number(data[begin - _LENGTHS // 2 : begin])
            if self._whole and length is not None and begin + length <= len(data):
                self._at = begin + length
            elif last or not self._whole:
                self._at = len(data)
            else:
                break  # the rest of it is on its way
        return text + (self._decode(b"", True) if last and self._at >= len(data) else "")


def _beginning(data: bytearray, mark: bytes, start: int) -> int:
    """How many of the last bytes may be the beginning of a mark."""
    most = min(len(mark) - 1, len(data) - start)
    return next((n for n in range(most, 0, -1) if data.endswith(mark[:n])), 0)


def _number(digits: bytearray) -> int | None:
    try:
        return int(digits, 16) if len(digits) == _LENGTHS // 2 else None
    except ValueError:
        return None


class Outputs:
    """Those of an island's jails."""

    def __init__(self, *, pause_s: float = PAUSE_S) -> None:
        self._tails: Latest[Tail] = Latest(lambda tail: tail.size_bytes, KEPT_BYTES)
        self._pause_s = pause_s
        self._watchers = 0

    def keep(self, jail: str, invocation: str, outcome: Outcome, secrets: tuple[str, ...] = ()) -> None:
        """Keep the end of what a call's jail wrote, without the secrets that it was given."""
        out, err = (masked_bytes(secrets, text) for text in (outcome.stdout, outcome.stderr))
        if out or err:
            cut = max(0, len(out) - TAIL_BYTES) + max(0, len(err) - TAIL_BYTES)
            if cut:
                out, err = out[-TAIL_BYTES:], err[-TAIL_BYTES:]
            self._tails.add(Tail(jail, invocation, str(outcome.verdict), out, err, cut))

    def tail(self, of: str) -> Tail | None:
        """What is kept of a jail by its name, or of an invocation by its id."""
        return next((tail for tail in reversed(self._tails) if of in (tail.jail, tail.invocation)), None)

    def follow(self, inmate: Inmate) -> AsyncGenerator[Written, None]:
        """What a jail wrote until now, and what it writes until its end. Of a call with secrets, its
        end alone and without them: pieces might show one.

        Raises:
            TooBusy: too many watch.
        """
        if self._watchers >= WATCHERS:
            raise TooBusy(f"{self._watchers} outputs are watched; close one", retry_after_s=5)
        return self._follow(inmate)

    async def _follow(self, inmate: Inmate) -> AsyncGenerator[Written, None]:
        self._watchers += 1
        try:
            out, err = Reader(whole=True), Reader(whole=False)
            over = False
            while True:
                piece = Written()
                if inmate.jail is not None and not inmate.secrets:
                    process, mark = inmate.jail.process, inmate.mark
                    piece = Written(
                        stdout=out.more(process.stdout.data, mark, last=over),
                        stderr=err.more(process.stderr.data, mark, last=over),
                    )
                if piece.stdout or piece.stderr:
                    yield piece
                    if max(len(piece.stdout), len(piece.stderr)) >= AT_ONCE // 4:
                        continue  # there may be more already
                elif over:
                    break
                # Once more after its end: by then its pipes are read to theirs, and the call has its verdict.
                over = inmate.over
                await asyncio.sleep(self._pause_s)
            tail = self.tail(inmate.spec.name)
            if tail is not None and inmate.secrets:
                yield tail.piece()
                return
            yield Written(ended=True, verdict=tail.verdict if tail else "")
        finally:
            self._watchers -= 1
