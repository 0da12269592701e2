"""Glyphs: the signs for states, the parts of bars and frames, in Unicode and in plain ASCII.

The console shows a state as a glyph and a word. Colour only repeats them.
"""

from __future__ import annotations

import math

from skyisland.model import Phase
from tui.draw.tones import Span

UNICODE = {
    "creating": "◔",
    "warm": "○",
    "running": "●",
    "building": "◑",
    "dying": "◌",
    "killing": "✗",
    "ready": "●",
    "failed": "✗",
    "evicting": "◌",
    "available": "·",
    "leased": "■",
    "out": "✗",
    "setting": "◌",
    "active": "●",
    "paused": "◌",
    "trouble": "!",
    "changing": "◑",
    "ok": "✓",
    "fault": "!",
    "bad": "✗",
    "open": "◐",
    "live": "●",
    "stale": "◐",
    "down": "✗",
    "island": "◆",
    "cursor": "▌",
    "mark": "◆",
    "up": "▴",
    "sorted_up": "▴",
    "sorted_down": "▾",
    "thumb": "█",
    "track": "│",
    "block": "█",
    "line": "━",
    "point": "╵",
    "more": "…",
    "dot": "·",
    "into": "→",
    "times": "×",  # noqa: RUF001
}
ASCII = {
    "creating": "+",
    "warm": "o",
    "running": "*",
    "building": "%",
    "dying": "-",
    "killing": "x",
    "ready": "*",
    "failed": "x",
    "evicting": "-",
    "available": ".",
    "leased": "#",
    "out": "x",
    "setting": "-",
    "active": "*",
    "paused": "-",
    "trouble": "!",
    "changing": "%",
    "ok": "=",
    "fault": "!",
    "bad": "x",
    "open": ">",
    "live": "*",
    "stale": "?",
    "down": "x",
    "island": "<>",
    "cursor": ">",
    "mark": "@",
    "up": "^",
    "sorted_up": "^",
    "sorted_down": "v",
    "thumb": "#",
    "track": "|",
    "block": "#",
    "line": "=",
    "point": "'",
    "more": "~",
    "dot": ".",
    "into": "->",
    "times": "x",
}
BARS = {
    False: {
        Phase.resolve: "╌",
        Phase.clone: "░",
        Phase.build: "▒",
        Phase.queue: "·",
        Phase.jail: "▓",
        Phase.exec: "█",
    },
    True: {
        Phase.resolve: "r",
        Phase.clone: "c",
        Phase.build: "b",
        Phase.queue: "q",
        Phase.jail: "j",
        Phase.exec: "e",
    },
}

STATE_TONES = {
    "creating": "info",
    "warm": "info",
    "running": "ok",
    "building": "build",
    "dying": "dim",
    "killing": "bad",
    "ready": "ok",
    "failed": "bad",
    "evicting": "warn",
    "available": "dim",
    "leased": "ok",
    "out": "bad",
    "setting": "warn",
    "active": "ok",
    "paused": "warn",
    "trouble": "bad",
    "changing": "info",
    "ok": "ok",
    "fault": "warn",
    "bad": "bad",
    "open": "info",
}


class Glyphs:
    """The characters for this terminal: Unicode, or the 95 of ASCII that every font has."""

    def __init__(self, *, ascii: bool = False) -> None:  # noqa: A002 - as the option is named
        self.ascii = ascii
        self._glyphs = ASCII if ascii else UNICODE
        self.bars = BARS[ascii]
        self.levels = " .:-=+*#" if ascii else "▁▂▃▄▅▆▇█"
        self._heat = " .:+#" if ascii else " ░▒▓█"
        self.eighths = " #" if ascii else " ▏▎▍▌▋▊▉█"

    def __getitem__(self, name: str) -> str:
        return self._glyphs[name]

    def state(self, name: str, word: str | None = None) -> Span:
        """Glyph and word of the state `name`, in its tone; `word` in place of the name."""
        return f"{self._glyphs[name]} {word or name}", STATE_TONES[name]

    def heat(self, share: float) -> str:
        """A cell of a heat map, darker the higher `share` (0 to 1) is; empty only for 0."""
        return self._heat[math.ceil(max(0.0, min(1.0, share)) ** 0.5 * (len(self._heat) - 1))]

    def bar(self, share: float, width: int) -> str:
        """A bar over `share` (0 to 1) of `width` cells, exact to an eighth of a cell; empty only for 0."""
        steps = len(self.eighths) - 1
        eighths = round(max(0.0, min(1.0, share)) * width * steps)
        if share > 0:
            eighths = max(1, eighths)
        full, rest = divmod(eighths, steps)
        return self.eighths[-1] * full + (self.eighths[rest] if rest else "")
