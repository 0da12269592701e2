"""One life of an island that keeps calls: `keeper.py SETTINGS AT FIRST COUNT`.

It accepts COUNT calls, runs what there is, and tells each that it accepted as the API's 202 does; at step AT
(victim.py) it is ended with SIGKILL, at 0 when all is over. Its jails are fake, its file is real.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from skyisland.events import Events
from skyisland.later.calls import CallState
from skyisland.later.keeping import Wanted
from skyisland.model import FunctionRequest
from skyisland.settings import Settings
from skyisland.wiring import opened
from tests.faults.victim import MortalLoop, tell

REQUEST = FunctionRequest(url="github.com/user/repo", call="F(1)")


async def live(settings: Settings, first: int, count: int) -> None:
    async with opened(settings, Events(), search_path="") as island:
        await island.start()
        loop, later = asyncio.get_running_loop(), island.later
        assert isinstance(loop, MortalLoop)
        loop.step = 0

        async def accept(number: int) -> None:
            record = await later.accept(REQUEST, f"client {number % 7}", id=f"call-{number}")
            tell(accepted=record.id)

        await asyncio.gather(*(accept(number) for number in range(first, first + count)))
        for state in (CallState.queued, CallState.running):
            for record in await later.find(Wanted(state=state, limit=100_000)):
                await later.settled(record.id, 120.0)
        tell(steps=loop.step)
        loop.step = -1
        await island.stop()


def main() -> None:
    _, file, at, first, count = sys.argv
    MortalLoop.at = int(at)
    settings = Settings.load(Path(file), {})
    with asyncio.Runner(loop_factory=MortalLoop) as runner:
        runner.run(live(settings, int(first), int(count)))


if __name__ == "__main__":
    main()
