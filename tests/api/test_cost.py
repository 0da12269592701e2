"""What a call costs the island, counted: functions that Python enters. Other work on the machine changes
nothing of that.

Its time is measured in `bench/`. Whoever adds steps to the way of a call sees it here first.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from types import FrameType
from typing import Any

from tests.support.api import CALL, World

CALLS = 50
ENTERED = 870
"""Functions of Python that one cached call enters on the fake driver, its caller's included, until its jail
is gone: a twentieth more than were counted. Raise it for a reason, and lower it when you can."""


async def test_a_call_enters_so_many_functions(world: World) -> None:
    body = json.dumps(CALL).encode()
    request = b"POST /api/v1/function HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    entered = 0

    def count(_: FrameType, event: str, __: Any) -> None:
        nonlocal entered
        entered += event == "call"

    async with world.served() as server:
        reader, writer = await server.connect()

        async def call() -> None:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ([0-9]+)", head)
            assert length is not None
            assert json.loads(await reader.readexactly(int(length[1])))["data"] == "fake"

        await call()  # builds
        sys.setprofile(count)
        try:
            for _ in range(CALLS):
                await call()
            while world.driver.alive:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)
        finally:
            sys.setprofile(None)
        writer.close()
    assert entered / CALLS < ENTERED
