"""What may stand in a subject, and the servers' refusals in the words of calls that answer later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from skyisland.fleet.line import Away
from skyisland.fleet.streams import Full
from skyisland.later.keeping import NotKept

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_word(text: str) -> bool:
    """Whether a text is one word of a subject. An id that somebody sent may be none: a dot, a star or `>` in
    it would be another subject, or many."""
    return _WORD.fullmatch(text) is not None


@contextmanager
def kept() -> Iterator[None]:
    """Have it said as `NotKept` that the servers are away, or full.

    Raises:
        NotKept
    """
    try:
        yield
    except Away as away:
        raise NotKept(away.message, retry_after_s=5) from away
    except Full as full:
        raise NotKept(f"the fleet's servers keep nothing more: {full}", retry_after_s=5) from full
