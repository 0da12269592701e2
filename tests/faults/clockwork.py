"""One life of an island that calls a name by itself each minute: `clockwork.py SETTINGS AT MINUTE`.

First it makes up for the minute before, as an island does that was started anew; then its clock shows the
next minute, and at step AT of that (victim.py) it is ended with SIGKILL; at 0 it lives. Its jails are fake,
its files are real.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from skyisland.events import Events
from skyisland.island import Island
from skyisland.later.calls import CallState
from skyisland.later.keeping import Wanted
from skyisland.named.definition import Definition
from skyisland.named.schedule import Schedule
from skyisland.settings import Settings
from skyisland.wiring import opened
from tests.faults.victim import MortalLoop, tell

BEGIN = 1_795_000_020.0
"""A minute begins."""
REPORT = Definition(url="github.com/user/repo", function="F", schedule=Schedule(cron="* * * * *"))


async def live(settings: Settings, minute: int) -> None:
    async with opened(settings, Events(), search_path="") as island:
        named, shown = island.named, [BEGIN + (minute - 1) * 60 + 20]
        named._clock = named.schedules._clock = lambda: shown[0]
        named.schedules.start = lambda calls: setattr(named.schedules, "_calls", calls)  # type: ignore[method-assign]
        await island.start()
        if not named.all():
            await named.define("report", REPORT)
        await named.schedules.look()
        await settle(island)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MortalLoop)
        shown[0], loop.step = BEGIN + minute * 60, 0
        await named.schedules.look()
        steps, loop.step = loop.step, -1
        await settle(island)
        tell(steps=steps)
        await island.stop()


async def settle(island: Island) -> None:
    for state in (CallState.queued, CallState.running):
        for record in await island.later.find(Wanted(state=state)):
            await island.later.settled(record.id, 60.0)


def main() -> None:
    _, file, at, minute = sys.argv
    MortalLoop.at = int(at)
    settings = Settings.load(Path(file), {})
    with asyncio.Runner(loop_factory=MortalLoop) as runner:
        runner.run(live(settings, int(minute)))


if __name__ == "__main__":
    main()
