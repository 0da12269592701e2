"""Glyphs and colours. A state is always a glyph and a word; colour only repeats what they say.

Tones are names of component classes: `console.tcss` gives them colours, so themes, `NO_COLOR` and
ANSI terminals need no other code. `Look(ascii=True)` draws with the 95 characters every font has.
"""

from __future__ import annotations

from textual.theme import Theme

from skyisland.model import Phase

Span = tuple[str, str]
"""Some text and its tone."""
Spans = list[Span]
"""One line of a panel."""

PHASES: tuple[Phase, ...] = (
    Phase.resolve,
    Phase.clone,
    Phase.build,
    Phase.queue,
    Phase.jail,
    Phase.exec,
)
"""In the order in which `Island.invoke` goes through them."""

TONES = (
    "text",
    "dim",
    "strong",
    "head",
    "title",
    "ok",
    "warn",
    "bad",
    "info",
    "key",
    "on",
    "mark",
    "rate",
    "cursor",
    "shade",
    "banner",
    "trough",
    *(str(phase) for phase in PHASES),
    *(f"bar-{phase}" for phase in PHASES),
)

_UNICODE = {
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
    "ok": "✓",
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
}
_ASCII = {
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
    "ok": "=",
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
}
_BARS = {
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
    "ok": "ok",
    "bad": "bad",
    "open": "info",
}


class Look:
    """Which characters this terminal gets."""

    def __init__(self, *, ascii: bool = False) -> None:  # noqa: A002 - as the option is named
        self.ascii = ascii
        self._glyphs = _ASCII if ascii else _UNICODE
        self.bars = _BARS[ascii]
        self.levels = " .:-=+*#" if ascii else "▁▂▃▄▅▆▇█"
        self.eighths = " #" if ascii else " ▏▎▍▌▋▊▉█"

    def __getitem__(self, name: str) -> str:
        return self._glyphs[name]

    def state(self, name: str, word: str | None = None) -> Span:
        """Glyph and word of a state, in its tone."""
        return f"{self._glyphs[name]} {word or name}", STATE_TONES[name]

    def bar(self, share: float, width: int) -> str:
        """A bar of `share` (0 to 1) of `width`, to an eighth of a cell; never empty for more than 0."""
        steps = len(self.eighths) - 1
        eighths = round(max(0.0, min(1.0, share)) * width * steps)
        if share > 0:
            eighths = max(1, eighths)
        full, rest = divmod(eighths, steps)
        return self.eighths[-1] * full + (self.eighths[rest] if rest else "")


ANSI_VARIABLES = {
    "sky-dim": "ansi_default",
    "sky-frame": "ansi_default",
    "sky-cursor": "ansi_default",
    "sky-shade": "ansi_default",
    "sky-resolve": "ansi_default",
    "sky-clone": "ansi_cyan",
    "sky-build": "ansi_yellow",
    "sky-queue": "ansi_red",
    "sky-jail": "ansi_magenta",
    "sky-exec": "ansi_green",
    "sky-clone-ground": "ansi_default",
    "sky-build-ground": "ansi_default",
    "sky-jail-ground": "ansi_default",
}
"""Our own colours on a terminal that chooses its sixteen itself."""

SKY = Theme(
    name="sky",
    primary="#2f6f9f",
    secondary="#5fb3d9",
    accent="#f0b45a",
    foreground="#d5e1ea",
    background="#0d141c",
    surface="#121c26",
    panel="#1a2733",
    success="#7fc96b",
    warning="#e0af4c",
    error="#ef6a6a",
    dark=True,
    variables={
        "sky-dim": "#7f92a3",
        "sky-frame": "#2b4357",
        "sky-cursor": "#1b4468",
        "sky-shade": "#16293a",
        "sky-resolve": "#8aa0b3",
        "sky-clone": "#5fb3d9",
        "sky-build": "#e0af4c",
        "sky-queue": "#c98b8b",
        "sky-jail": "#b48ede",
        "sky-exec": "#7fc96b",
        "sky-clone-ground": "#243f50",
        "sky-build-ground": "#574526",
        "sky-jail-ground": "#54456b",
        "footer-key-foreground": "#f0b45a",
    },
)
