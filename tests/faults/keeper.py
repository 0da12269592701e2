"""Lives of an island that keeps calls. Its jails are fake, its file is real.

`keeper.py SETTINGS AT FIRST COUNT`: one life. It accepts COUNT calls, runs what there is, and tells each that
it accepted as the API's 202 does; at step AT (victim.py) it is ended with SIGKILL, at 0 when all is over.

`keeper.py SETTINGS CALLBACK`: a life for each of `POINTS`, which accepts one call with this callback and is
ended with SIGKILL when it has done what the point says; a last one ends when all is over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyisland.events import Events
from skyisland.later import callbacks
from skyisland.later.calls import CallState
from skyisland.later.keeping import Wanted
from skyisland.later.later import Later
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
        await settle(later)
        tell(steps=loop.step)
        loop.step = -1
        await island.stop()


POINTS = (
    "kept its order",
    "told that it was accepted",
    "noted that it began",
    "run it",
    "noted its result",
    "kept its callback",
    "sent its callback",
    "noted that it was sent",
    "taken its callback out of the queue",
    "taken its order out of the queue",
)
"""What the island has done for a call when it is killed."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(later: Later, point: str, call: str) -> None:
    """Have the island die at this point of this call, and of no other."""
    store = later._store

    def after(owner: Any, method: str, which: Callable[..., str]) -> None:
        before = getattr(owner, method)

        async def both(*args: Any, **more: Any) -> Any:
            done = await before(*args, **more)
            if which(*args) == call:
                die()
            return done

        setattr(owner, method, both)

    match point:
        case "kept its order":
            after(store.orders, "put", lambda order, *_: order.id)
        case "noted that it began":
            after(store.results, "note", lambda record, *_: record.id if record.state == "running" else "")
        case "run it":
            after(later._runner, "_run", lambda order, *_: order.id)
        case "noted its result":
            after(store.results, "note", lambda record, *_: record.id if record.state.final else "")
        case "kept its callback":
            after(store.callbacks, "put", lambda order, *_: order.id)
        case "sent its callback":
            after(callbacks, "post", lambda url, body, headers, *_: headers["webhook-id"])
        case "noted that it was sent":
            after(store.results, "note_callback", lambda call_id, *_: call_id)
        case "taken its callback out of the queue":
            after(store.callbacks, "done", lambda call_id: call_id)
        case "taken its order out of the queue":
            after(store.orders, "done", lambda call_id: call_id)


async def settle(later: Later) -> None:
    """Wait until all calls are over, and their callbacks taken."""
    for state in (CallState.queued, CallState.running):
        for record in await later.find(Wanted(state=state, limit=100_000)):
            await later.settled(record.id, 120.0)
    while later.callbacks.waiting:
        sending = later.callbacks._sending.values()
        await (asyncio.wait(sending) if sending else asyncio.sleep(0))


async def live_once(settings: Settings, callback: str, point: str) -> None:
    async with opened(settings, Events(), search_path="") as island:
        later = island.later
        await island.start()
        await settle(later)  # what the life before left
        if point:
            call = f"call-{POINTS.index(point)}"
            doom(later, point, call)
            record = await later.accept(REQUEST, "client", id=call, callback=callback)
            tell(accepted=record.id)
            if point == "told that it was accepted":
                die()
            await settle(later)
        await island.stop()


def lives(settings: Settings, callback: str) -> None:
    for point in (*POINTS, ""):
        child = os.fork()  # no thread runs yet, and to import all of it takes longer than a life
        if not child:
            asyncio.run(live_once(settings, callback, point))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        tell(point=point, killed=os.WIFSIGNALED(status), status=status)


def main() -> None:
    _, file, at, *numbers = sys.argv
    settings = Settings.load(Path(file), {})
    if not numbers:
        lives(settings, at)
        return
    MortalLoop.at = int(at)
    with asyncio.Runner(loop_factory=MortalLoop) as runner:
        runner.run(live(settings, *map(int, numbers)))


if __name__ == "__main__":
    main()
