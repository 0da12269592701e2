"""The transcripts of docs/rest.md: commands as a reader would type them, and what an island answers.

In a block marked `console`, `$ curl …` is a command and `# …` a situation that no command makes; below each
stands the status, headers that matter, and the answer. A `$ …` that ends in `&` has no answer of its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from msgspec import Struct

from tests.support.places import ROOT

PAGE = ROOT / "docs" / "rest.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARYING = re.compile(
    r'(?<="OSRelease":")[^"]+|(?<="path":")[^"]+|(?<="(?:pid|jid|seq)":)\d+|(?<="deleted":)\d+|(?<=filled-)\d+'
    r"|inv-[0-9a-f]{12}|call-[0-9a-f]{24}|sky-[0-9a-f]{4}-[0-9a-f]+|\b(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{12})\b|go1\.[0-9.]+"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+|\d+\.\d+(?:m?s)?|\d{6,}"
)
"""What differs from one island to the next: ids, commits, keys, times, sizes."""
_LIKE_IT = '[^"]+?'


class Transcript(Struct, frozen=True):
    """A command or a situation, with what comes of it."""

    command: str
    """Without its `$`; empty for a situation."""
    situation: str
    status: int
    headers: dict[str, str]
    body: str

    @property
    def in_background(self) -> bool:
        return self.command.endswith("&")

    @property
    def code(self) -> str | None:
        found = re.search(r'"code":"(\w+)"', self.body)
        return found[1] if found else None

    @property
    def fields(self) -> set[str]:
        """Every name of a field that it shows; none where it is no JSON."""
        if not self.body.startswith("{"):
            return set()
        return set(re.findall(r'"([A-Za-z_]\w*)":', self.body))

    def request(self, **values: str) -> tuple[str, str, dict[str, str], str | None]:
        """Method, URL, headers and body of the command, with these values for its `$NAMES`."""
        words = shlex.split(_filled(self.command.removesuffix("&"), values))
        assert words.pop(0) == "curl"
        method, url, headers, body = "", "", {}, None
        while words:
            match words.pop(0):
                case "-X":
                    method = words.pop(0)
                case "-H":
                    name, _, value = words.pop(0).partition(": ")
                    headers[name] = value
                case "-d":
                    body = words.pop(0)
                case url:
                    assert not url.startswith("-"), url
        return method or ("GET" if body is None else "POST"), url, headers, body

    def pattern(self) -> re.Pattern[str]:
        """What the answer must match: `…` stands for anything, and what varies for its like."""
        parts = []
        for part in self.body.split("…"):
            plain = _VARYING.split(part)
            parts.append(_LIKE_IT.join(re.escape(text) for text in plain))
        return re.compile(".*?".join(parts), re.DOTALL)


def _filled(command: str, values: dict[str, str]) -> str:
    return re.sub(r"\$([A-Z]+)", lambda name: values[name[1]], command)


def transcripts() -> Iterator[Transcript]:
    """All of the page, in their order."""
    for block in _BLOCK.findall(PAGE.read_text()):
        lines = block.splitlines()
        while lines:
            mark, _, said = lines.pop(0).partition(" ")
            assert mark in "$#", f"neither a command nor a situation: {mark} {said}"
            command, situation = (said, "") if mark == "$" else ("", said)
            if said.endswith("&"):
                yield Transcript(command, situation, 0, {}, "")
                continue
            status, _, more = lines.pop(0).partition(" ")
            headers = dict(header.split(": ", 1) for header in more.split("; ") if header)
            yield Transcript(command, situation, int(status), headers, lines.pop(0))
