"""Tones: the colours and weights of text, named by what they mean.

A tone is the name of a component class of `Palette`, to which `console.tcss` gives its style. So themes,
`NO_COLOR` and ANSI terminals need no code of their own.
"""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.theme import Theme
from textual.widget import Widget

from skyisland.model import Phase

Span = tuple[str, str]
"""A text and its tone."""
Spans = list[Span]
"""One line of a panel."""

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
    *(str(phase) for phase in Phase),
    *(f"bar-{phase}" for phase in Phase),
)


class Palette(Widget):
    """The tones as the stylesheet and the theme define them. All canvases share one, which is never shown.

    With component classes on every canvas the console would start much slower: Textual computes each of
    them again whenever a widget gains or loses the focus.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"tone--{tone}" for tone in TONES}
    DEFAULT_CSS = "Palette { display: none; }"

    def tone(self, name: str) -> Style:
        """The style of the tone `name`, to be added to that of a canvas."""
        return self.get_component_rich_style(f"tone--{name}", partial=True)


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
"""The values of our variables for a terminal that defines its sixteen colours itself."""

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
