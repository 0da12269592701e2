"""What a process of the harness wrote, read at once."""

from __future__ import annotations

from skyisland.golang.harness import Records
from skyisland.model import Returned


def returned(stdout: bytes, nonce: str, most: int = 1) -> tuple[bytes, list[Returned]]:
    """Standard output without the harness's records, and what the first `most` of them say: none if the
    function ended the process itself."""
    records = Records(nonce, most)
    answers = records.take(stdout)
    kept = [part for answer in answers for part in (answer.printed, answer.text)]
    return b"".join((*kept, records.rest)), answers
