"""One life of an island that may be ended with SIGKILL at a step of a call: `victim.py SETTINGS AT CALL…`.

A step is one turn of the event loop, which is where a coroutine goes on that awaited something. The
loop counts them from the moment of the call, and at step number AT kills the process, before anything
of that step is done; AT 0 lets it live. Each life first tells, a JSON object a line, what it found on
the host; then, if it lives, how many steps the call took and what it answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from skyisland.events import Events, IslandStarted
from skyisland.island import Island
from skyisland.model import FunctionRequest
from skyisland.settings import Settings
from skyisland.wiring import opened
from tests.support.daemon import family, host_objects, processes


class MortalLoop(asyncio.SelectorEventLoop):
    """Counts its turns, and dies at one."""

    at = 0
    step = -1
    """Below 0 it does not count yet."""

    def _run_once(self) -> None:
        if self.step >= 0:
            self.step += 1
            if self.step == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
        super()._run_once()  # type: ignore[misc]


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def live(settings: Settings, url: str, call: str, fresh: bool) -> None:
    events = Events()
    swept = []
    events.tap(lambda event: swept.append(event.swept) if isinstance(event, IslandStarted) else None)
    async with opened(settings, events, search_path=os.environ["PATH"]) as island:
        await island.start()
        tell(swept=sum(swept), left=await asyncio.to_thread(left, settings, island))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MortalLoop)
        loop.step = 0
        request = FunctionRequest(url=url, call=call, cache_bust=fresh)
        invocation = await island.invoke(request)
        await island.jails.drain()
        steps, loop.step = loop.step, -1
        tell(steps=steps, said=invocation.outcome.stdout.decode())
        await island.stop()


def left(settings: Settings, island: Island) -> list[str]:
    """What an earlier life left that is still there, and what it left broken."""
    state, own = settings.state_dir, {os.getpid(), *(pid for pid, _ in family(os.getpid()))}
    found = processes(state, island.name, but=own)
    kept = ("cgroup", "zfs")  # for the next jails
    found += [line for line in host_objects(state, island.name) if not line.startswith(kept)]
    for folder in ("repos", "checkouts", "artifacts", "base", "."):
        found += [str(path) for path in (state / folder).glob("sky-*")]
    found += [jail.name for jail in island.jails.living()]
    for artifact in island.builds.artifacts():
        if hashlib.sha256(Path(artifact.path).read_bytes()).hexdigest() != artifact.sha256:
            found.append(f"a broken artifact {artifact.path}")
    return found


def main() -> None:
    _, file, at, url, call, fresh = sys.argv
    MortalLoop.at = int(at)
    settings = Settings.load(Path(file), {})
    with asyncio.Runner(loop_factory=MortalLoop) as runner:
        runner.run(live(settings, url, call, fresh == "fresh"))


if __name__ == "__main__":
    main()
