"""Tones: the colours and weights of text, named by what they mean.

A tone is the name of a component class of `Palette`, to which `console.tcss` gives its style. So themes,
`NO_COLOR` and ANSI terminals need no code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from textual.color import Color
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
    "sky-text": "ansi_default",
    "sky-dim": "ansi_default",
    "sky-frame": "ansi_default",
    "sky-focus": "ansi_cyan",
    "sky-cursor": "ansi_default",
    "sky-shade": "ansi_default",
    "sky-accent": "ansi_yellow",
    "sky-ok": "ansi_green",
    "sky-warn": "ansi_yellow",
    "sky-bad": "ansi_red",
    "sky-info": "ansi_cyan",
    "sky-banner": "ansi_default",
    "sky-banner-ground": "ansi_red",
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

BLACK, WHITE = Color(0, 0, 0), Color(255, 255, 255)
STEPS = 20
"""Tried on the way from a colour to black or white; the eye tells no more apart."""
TEXT_CONTRAST, DRAWN_CONTRAST = 4.5, 3.0
"""The least that WCAG 2.1 asks for: of text (1.4.3), and of what is drawn (1.4.11)."""


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
        "sky-frame": "#2b4357",
        "sky-cursor": "#1b4468",
        "sky-shade": "#16293a",
        "footer-key-foreground": "#f0b45a",
    },
)


PHASES = {
    Phase.resolve: "#8aa0b3",
    Phase.clone: "#5fb3d9",
    Phase.build: "#e0af4c",
    Phase.queue: "#c98b8b",
    Phase.jail: "#b48ede",
    Phase.exec: "#7fc96b",
}
"""A colour for each phase, the same in all themes as far as it can be read there."""
SHADED = (Phase.clone, Phase.build, Phase.jail)
"""Phases whose glyph is a shading, so it lies on a ground of its own."""


def contrast(one: Color, other: Color) -> float:
    """By WCAG 2.1: from 1 (the same) to 21 (black on white)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Color) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def legible(colour: Color, grounds: Sequence[Color], least: float = TEXT_CONTRAST) -> Color:
    """`colour`, or the nearest to it, towards black or white, that can be read on all of these grounds."""
    end = max((BLACK, WHITE), key=lambda end: min(contrast(end, ground) for ground in grounds))
    steps = (colour.blend(end, step / STEPS) for step in range(STEPS + 1))
    return next((each for each in steps if min(contrast(each, g) for g in grounds) >= least), end)


_SOURCES = {
    "text": "foreground",
    "accent": "accent",
    "ok": "success",
    "warn": "warning",
    "bad": "error",
    "info": "secondary",
}
"""The theme's colour of which each tone is made."""
_made: dict[str, dict[str, str]] = {}


def variables(theme: Theme) -> dict[str, str]:
    """The values of our variables in a theme that does not define them: of its colours, but so that all can
    be read. Few themes are made for text in their colours; on a light ground most warnings are pale."""
    if theme.ansi:
        return ANSI_VARIABLES
    if theme.name not in _made:
        _made[theme.name] = _derived(theme)
    return _made[theme.name]


def _derived(theme: Theme) -> dict[str, str]:
    named = theme.to_color_system().generate()
    of = {
        name: Color.parse(named[name])
        for name in ("background", "surface", "panel", "primary", *_SOURCES.values())
    }
    ground, ink = of["background"], of["foreground"]
    cursor, shade = (
        Color.parse(theme.variables[own]) if own in theme.variables else ground.blend(of["primary"], share)
        for own, share in (("sky-cursor", 0.3), ("sky-shade", 0.12))
    )
    grounds = (ground, of["surface"], of["panel"], cursor, shade)
    ours = {
        "sky-dim": legible(ink.blend(ground, 0.4), grounds),
        "sky-frame": ground.blend(ink, 0.3),
        "sky-focus": legible(of["secondary"], (ground,), DRAWN_CONTRAST),
        "sky-cursor": cursor,
        "sky-shade": shade,
        "sky-banner": legible(ground, (of["error"],)),
        "sky-banner-ground": of["error"],
    }
    for tone, name in _SOURCES.items():
        ours[f"sky-{tone}"] = legible(of[name], grounds)
    for phase, colour in PHASES.items():
        ours[f"sky-{phase}"] = legible(Color.parse(colour), grounds)
        if phase in SHADED:
            ours[f"sky-{phase}-ground"] = ground.blend(Color.parse(colour), 0.3)
    return {key: value.hex for key, value in ours.items()}
