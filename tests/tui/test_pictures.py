"""Every view and dialog at four sizes, character by character, and what colours must keep to.

When a picture is meant to change: `python -m tests.support.pictures --accept`, and look at the difference.
"""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from skyisland.model import Phase
from tests.support.operating import text_of, type_ahead
from tests.support.pictures import SCENES, Scene, Stage, as_text, kept, play
from tui.console import Console
from tui.draw.glyphs import ASCII, BARS, UNICODE
from tui.draw.table import Table
from tui.draw.tones import SKY, TONES, variables


@pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])
async def test_picture(scene: Scene) -> None:
    pictures = await play(scene, scene.sizes)
    for picture in pictures:
        lines = picture.text.splitlines()
        assert len(lines) == picture.size[1]
        assert max(map(cell_len, lines)) <= picture.size[0]
        assert scene.name != "ascii" or picture.text.isascii()
    assert as_text(pictures) == kept(scene).read_text()


def test_both_alphabets_know_every_state_and_phase() -> None:
    assert ASCII.keys() == UNICODE.keys()
    assert all(set(BARS[kind]) == set(Phase) for kind in (True, False))
    assert all(len(set(BARS[kind].values())) == len(Phase) for kind in (True, False))


THEMES = {theme.name: theme for theme in (SKY, *BUILTIN_THEMES.values()) if not theme.ansi}


@pytest.mark.parametrize("name", THEMES)
def test_every_tone_can_be_read_in_every_theme(name: str) -> None:
    """Contrast by WCAG 2.1: 4.5 of text on each ground that it may lie on, 3 of what only draws."""
    theme = THEMES[name]
    colours = variables(theme) | theme.to_color_system().generate() | theme.variables
    tones: dict[str, dict[str, Color]] = {}
    for tone, rules in re.findall(r"^Palette > \.tone--([\w-]+) \{(.*)\}$", Console.CSS, re.MULTILINE):
        found = re.findall(r"(color|background): \$([\w-]+)", rules)
        tones[tone] = {what: Color.parse(colours[variable]) for what, variable in found}
    assert tones.keys() == set(TONES)
    page = [Color.parse(colours[name]) for name in ("background", "surface", "panel")]
    selected, shade = tones["cursor"]["background"], tones["shade"]["background"]
    for tone, style in tones.items():
        if tone.startswith("bar-"):
            assert _contrast(style["color"], page[0]) >= 3.0, tone
        elif "color" in style and tone != "trough":
            own = [style["background"]] if "background" in style else [*page, selected, shade]
            for ground in own:
                assert _contrast(style["color"], ground) >= 4.5, (tone, ground.hex)
    assert _contrast(selected, page[0]) >= 1.15, "the selected row is like the others"


async def test_what_is_drawn_follows_the_theme() -> None:
    stage = Stage()
    async with stage.console.run_test(size=(80, 24)) as pilot:
        await stage.begin(pilot)
        stage.console.theme = "textual-light"
        await pilot.pause()
        table = stage.console.home.query_one("#over-jails", Table)
        for segment in table.render_line(1):  # the selected row
            style = segment.style
            assert style is not None
            assert _contrast(Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)) >= 4.5


def _contrast(one: Color, other: Color) -> float:
    """By WCAG 2.1, 1.4.3."""

    def luminance(colour: Color) -> float:
        parts = [part / 255 for part in colour.rgb]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


async def test_ascii_everywhere() -> None:
    stage = Stage(jails=12, requests=40, plain=True)
    dialogs = (
        "5 i",
        "2 o",
        "2 ctrl+p",
        "2 question_mark",
        "2 K",
        "3 s",
        "4 D",
        "4 P",
        "2 X",
        "2 colon",
        "9 a",
        "9 i",
        "9 U",
    )
    async with stage.console.run_test(size=(140, 40)) as pilot:
        await stage.begin(pilot)
        stage.console.say("a message")
        for keys in (*"1234567890", *dialogs, "2 slash"):
            await type_ahead(stage.console, *keys.split())
            await pilot.pause()
            assert [line for line in text_of(stage.console).splitlines() if not line.isascii()] == [], keys
            await type_ahead(stage.console, "escape")


async def test_without_colours_the_cursor_is_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stage = Stage()
    async with stage.console.run_test(size=(80, 24)) as pilot:
        await stage.begin(pilot)
        assert stage.console.palette.tone("cursor").reverse
        assert stage.console.palette.tone("on").reverse


@pytest.mark.parametrize("theme", ["ansi-light", "solarized-light"])
async def test_other_themes_draw_without_complaint(theme: str) -> None:
    stage = Stage()
    async with stage.console.run_test(size=(120, 35)) as pilot:
        await stage.begin(pilot)
        stage.console.theme = theme
        for key in "1234567890":
            await pilot.press(key)
        await pilot.press("2", "K")
        assert "Kill this jail?" in str(stage.console.screen.query_one(".dialog").border_title)
