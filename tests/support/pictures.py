"""The scenes of which the text is kept: every view and dialog, seeded, on a frozen clock.

The pictures in README.md and docs/ are none of these: `screenshots` takes them of a real island.

python -m tests.support.pictures FOLDER [SCENE…]       PNG, to look at, by a headless Chromium
python -m tests.support.pictures --accept [SCENE…]     the text that tests/tui compares with
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from textual.pilot import Pilot

from skyisland import events as ev
from skyisland.errors import Unauthorized
from skyisland.model import Phase, Purpose
from tests.support.fake_island import NOON, FakeIsland
from tests.support.operating import text_of, type_ahead
from tests.support.places import ROOT
from tui.console import Console

SIZES = ((80, 24), (120, 35), (140, 40), (200, 60))


class Stage:
    """A console on a seeded island, fed by hand."""

    def __init__(
        self, *, jails: int = 37, requests: int = 480, readonly: bool = False, plain: bool = False
    ) -> None:
        self.island = FakeIsland(jails=jails, requests=requests)
        self.time = NOON
        self.console = Console(
            self.island, clock=lambda: self.time, follow=False, readonly=readonly, ascii=plain
        )

    async def begin(self, pilot: Pilot[int]) -> None:
        await pilot.pause()
        self.console.station.receive(await self.island.snapshot())
        if self.island.jails:
            self.console.station.receive(self.living())
        await self.console.station.fetch_names()
        await self.console.station.fetch_calls()
        self.console.station.journal.take(await self.island.logs())
        await self.settle(pilot)

    def living(self) -> list[ev.Event]:
        """The calls of the jails that live, as they began, and a build."""
        facts: list[ev.Event] = []
        for jail in self.island.jails.values():
            if jail.invocation and jail.purpose == "function":
                of = partial(ev.PhaseFinished, invocation=jail.invocation, at=jail.created_at - 0.003)
                facts.append(
                    ev.InvocationStarted(
                        url=jail.url, call=jail.call, invocation=jail.invocation, at=jail.created_at - 0.003
                    )
                )
                facts.append(of(phase=Phase.resolve, duration_s=0.0006))
                facts.append(of(phase=Phase.queue, duration_s=0.0001))
                if jail.state == "running":
                    facts.append(of(phase=Phase.jail, duration_s=0.003))
        artifact = list(self.island.artifacts.values())[5]
        facts.append(
            ev.BuildStarted(key=artifact.key, url=artifact.url, function=artifact.function, at=NOON - 0.9)
        )
        for n, (name, jail) in enumerate(list(self.island.jails.items())[-8:]):
            at = NOON - 1.6 + n / 5
            facts.append(ev.JailCreated(jail=name, jid=jail.jid, pid=1, purpose=Purpose.function, at=at))
            if jail.ip4:
                facts.append(ev.AddressLeased(ip=jail.ip4, jail=name, at=at))
        facts += self.island.recent[:12]
        return sorted(facts, key=lambda fact: fact.at)

    async def settle(self, pilot: Pilot[int]) -> None:
        await pilot.pause()
        self.console.paint_all()
        await pilot.pause()


class Scene(NamedTuple):
    name: str
    keys: tuple[str, ...] = ()
    stage: Callable[[], Stage] = Stage
    then: Callable[[Stage, Pilot[int]], Awaitable[None]] | None = None
    sizes: tuple[tuple[int, int], ...] = SIZES
    shown: tuple[tuple[int, int], ...] = ((120, 35),)
    """At which sizes its PNG is drawn, unless scenes are named."""


async def _down(stage: Stage, pilot: Pilot[int]) -> None:
    stage.time += 41
    stage.console.station.connection.lost("connection refused by http://127.0.0.1:3280", stage.time)
    stage.console.station.connection.retry_at = stage.time + 3


async def _stale(stage: Stage, pilot: Pilot[int]) -> None:
    stage.time += 12


async def _unauthorized(stage: Stage, pilot: Pilot[int]) -> None:
    stage.console.station.connection.refused(str(Unauthorized("this island wants its admin token")))
    stage.console.action_token()


async def _send(stage: Stage, pilot: Pilot[int]) -> None:
    await type_ahead(stage.console, "ctrl+r")
    await pilot.pause()


async def _look(stage: Stage, pilot: Pilot[int]) -> None:
    await type_ahead(stage.console, *"github.com/mmcloughlin/geohash", "enter")
    await pilot.pause()
    await type_ahead(stage.console, "down")


async def _open_call(stage: Stage, pilot: Pilot[int]) -> None:
    await type_ahead(stage.console, "d")
    await stage.console.station.fetch_calls()


async def _type_filter(stage: Stage, pilot: Pilot[int]) -> None:
    await type_ahead(stage.console, "slash", *"fn:geohash >10ms")


SCENES = (
    Scene("overview", shown=((80, 24), (140, 40), (200, 60))),
    Scene("jails", ("2",)),
    Scene("ips", ("3", "down", "down")),
    Scene("cache", ("4", "down")),
    Scene("requests", ("5", *("down",) * 45)),
    Scene("logs", ("6",)),
    Scene("host", ("7",)),
    Scene("called", ("8",)),
    Scene("called-page", ("8", "down", "d"), shown=((120, 35),)),
    Scene("names", ("9",)),
    Scene("names-page", ("9", "d"), sizes=((120, 35),), shown=()),
    Scene("names-back", ("9", "U"), sizes=((80, 24),), shown=()),
    Scene("names-define", ("9", "E"), sizes=((80, 24),), shown=()),
    Scene("calls", ("0",)),
    Scene("calls-page", ("0", "down", "down", "down"), then=_open_call, shown=()),
    Scene("calls-forget", ("0", "F"), sizes=((80, 24),), shown=()),
    Scene("failure", ("5", "n", "d")),
    Scene("kill", ("space", "space", "K")),
    Scene("kill-all", ("X",), shown=()),
    Scene("address", ("3", "down", "s")),
    Scene("evict", ("4", "D")),
    Scene("purge", ("4", "P"), shown=()),
    Scene("invoke", ("5", *("down",) * 40, "i"), then=_send),
    Scene("functions", ("i",), stage=lambda: Stage(jails=0, requests=0), then=_look),
    Scene("help", ("question_mark",)),
    Scene("filter", ("2",), then=_type_filter),
    Scene("quit", ("q",), stage=lambda: _in_process()),
    Scene("token", then=_unauthorized),
    Scene("down", then=_down),
    Scene("stale", then=_stale),
    Scene("paused", ("p",)),
    Scene("empty", stage=lambda: Stage(jails=0, requests=0)),
    Scene("readonly", ("2",), stage=lambda: Stage(readonly=True)),
    Scene("ascii", stage=lambda: Stage(plain=True)),
    Scene("zoom", ("tab", "z")),
    Scene("small", sizes=((50, 12),), shown=((50, 12),)),
)


def _in_process() -> Stage:
    stage = Stage()
    stage.island.attached = False
    stage.console.follows = True
    stage.console.station.follow = _nothing  # type: ignore[method-assign]
    return stage


async def _nothing() -> None:
    pass


class Picture(NamedTuple):
    """A screen, as characters and as SVG."""

    size: tuple[int, int]
    text: str
    svg: str


async def play(scene: Scene, sizes: Sequence[tuple[int, int]], *, drawn: bool = False) -> list[Picture]:
    """The scene's last screen at each of these sizes; `drawn`: as SVG, too."""
    stage = scene.stage()
    pictures = []
    async with stage.console.run_test(size=sizes[0]) as pilot:
        await stage.begin(pilot)
        await type_ahead(stage.console, *scene.keys)
        if scene.then is not None:
            await scene.then(stage, pilot)
        for size in sizes:
            if size != sizes[0]:
                await pilot.resize_terminal(*size)
                await type_ahead(stage.console)
            await stage.settle(pilot)
            svg = stage.console.export_screenshot(title="Sky Island") if drawn else ""
            pictures.append(Picture(size, f"{text_of(stage.console)}\n", svg))
    return pictures


def kept(scene: Scene) -> Path:
    """Where the scene's screens are kept as text."""
    return ROOT / "tests" / "tui" / "screens" / f"{scene.name}.txt"


def as_text(pictures: Sequence[Picture]) -> str:
    """All sizes of a scene, one below the other."""
    return "\n".join(f"=== {p.size[0]}x{p.size[1]}\n{p.text}" for p in pictures)


def draw_png(svg: str, target: Path) -> None:
    """By a headless Chromium, which has every glyph."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    width, height = (int(float(number)) + 1 for number in box.groups())
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f"<body style='margin:0;background:#0d141c'>{svg}</body>")
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                "--hide-scrollbars", f"--user-data-dir={folder}/profile", f"--window-size={width},{height}",
                f"--screenshot={target}", str(page),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def main(argv: list[str]) -> None:
    if argv[:1] == ["--accept"]:
        for scene in SCENES:
            if not argv[1:] or scene.name in argv[1:]:
                kept(scene).parent.mkdir(exist_ok=True)
                kept(scene).write_text(as_text(asyncio.run(play(scene, scene.sizes))))
        return
    if not argv:
        sys.exit(__doc__)
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        for picture in asyncio.run(play(scene, scene.sizes, drawn=True)):
            size = f"{picture.size[0]}x{picture.size[1]}"
            name = f"{scene.name}-{size}"
            if argv[1:] and not {scene.name, name} & set(argv[1:]):
                continue
            if not argv[1:] and picture.size not in scene.shown:
                continue
            target = folder / f"{name if argv[1:] or len(scene.shown) > 1 else scene.name}.png"
            draw_png(picture.svg, target)
            print(target)


if __name__ == "__main__":
    main(sys.argv[1:])
