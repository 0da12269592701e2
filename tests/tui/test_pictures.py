"""Every view and dialog at four sizes, character by character, and what colours must keep to.

When a picture is meant to change: `python -m tests.support.pictures --accept`, and look at the difference.
"""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.color import Color

from skyisland.model import Phase
from tests.support.pictures import SCENES, Scene, Stage, as_text, kept, play
from tui.draw.glyphs import ASCII, BARS, UNICODE
from tui.draw.tones import SKY, TONES


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


async def test_every_tone_can_be_read() -> None:
    """Contrast of text against its ground, by WCAG 2.1: 4.5 for text, 3 for what only draws."""
    stage = Stage()
    async with stage.console.run_test(size=(80, 24)):
        drawing = {"trough", *(f"bar-{phase}" for phase in Phase)}
        for tone in set(TONES) - drawing - {"cursor", "shade"}:
            style = stage.console.palette.tone(tone)
            ink = Color.from_rich_color(style.color) if style.color else Color.parse(SKY.foreground or "")
            grounds = [Color.from_rich_color(style.bgcolor)] if style.bgcolor else [
                Color.parse(colour)
                for colour in (SKY.background, SKY.surface, SKY.panel, SKY.variables["sky-cursor"])
                if colour
            ]  # fmt: skip
            for ground in grounds:
                assert _contrast(ink, ground) >= 3.0, (tone, ground)
            assert _contrast(ink, grounds[0]) >= 4.5, tone


def _contrast(one: Color, other: Color) -> float:
    """By WCAG 2.1, 1.4.3."""

    def luminance(colour: Color) -> float:
        parts = [part / 255 for part in colour.rgb]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


async def test_without_colours_the_cursor_is_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stage = Stage()
    async with stage.console.run_test(size=(80, 24)) as pilot:
        await stage.begin(pilot)
        assert stage.console.palette.tone("cursor").reverse
        assert stage.console.palette.tone("on").reverse


@pytest.mark.parametrize("theme", ["ansi-dark", "ansi-light", "textual-light", "nord"])
async def test_other_themes_draw_without_complaint(theme: str) -> None:
    stage = Stage()
    async with stage.console.run_test(size=(120, 35)) as pilot:
        await stage.begin(pilot)
        stage.console.theme = theme
        for key in "1234567":
            await pilot.press(key)
        await pilot.press("2", "K")
        assert "Kill this jail?" in str(stage.console.screen.query_one(".dialog").border_title)
