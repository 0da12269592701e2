"""Three islands and a server of NATS, killed at random while they take calls that answer later: each has one
result.

Every island is a process with fake jails, so the volume is of calls and not of jails. Callers send each call
with an Idempotency-Key to any island, and again to any, until one accepts it; meanwhile an island, or the
server, is killed and started again, `SKYISLAND_FLEET_KILLS` times a minute. `SKYISLAND_FLEET_CALLS`: how many
calls. `make test-fleet` and `make chaos-fleet` say so; other runs have no time for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from signal import SIGKILL

import httpx
import pytest
import tomli_w

from tests.support.daemon import SKYISLAND
from tests.support.fleets import NatsServer, free_port, newest_binary

CALLS = int(os.environ.get("SKYISLAND_FLEET_CALLS", "0"))
KILLS_A_MINUTE = float(os.environ.get("SKYISLAND_FLEET_KILLS", "12"))
CALLERS = 16
ATTEMPTS = 6
PATIENCE_S = 120.0
CALL = {"url": "github.com/user/repo", "call": "F(1)"}
ASYNC = {"Prefer": "respond-async"}


class Process:
    """One island, through all its lives."""

    def __init__(self, node: str, folder: Path, server: NatsServer) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"{node}.log"
        self._file = folder / f"{node}.toml"
        settings = {
            "state_dir": str(folder / node),
            "http_port": self.port,
            "jails": {"driver": "fake"},
            "fleet": {"name": "chaos", "node": node, "servers": [server.url]},
            "async": {"attempts": ATTEMPTS, "backoff": "100ms", "queued_per_client": 10_000},
        }
        self._file.write_text(tomli_w.dumps(settings))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            words: list[str] = [str(SKYISLAND), "-c", str(self._file), "serve", "--no-tui"]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def stop(self, *, kill: bool = False) -> None:
        assert self.process is not None
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(PATIENCE_S)

    async def ready(self, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    assert self.process is not None
                    assert self.process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.05)


class Run:
    """The callers, what they were told, and the killings."""

    def __init__(self, islands: list[Process], server: NatsServer, client: httpx.AsyncClient) -> None:
        self.islands, self.server, self.client = islands, server, client
        self.dice = random.Random(7)
        self.accepted: dict[int, str] = {}
        self.refused: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()

    async def call(self, number: int) -> None:
        """Send one call until somebody accepts it."""
        headers = ASYNC | {"Idempotency-Key": f"k{number}"}
        while True:
            island = self.dice.choice(self.islands)
            try:
                answer = await self.client.post(f"{island.url}/api/v1/function", json=CALL, headers=headers)
            except httpx.HTTPError:
                self.refused["no answer"] += 1
                await asyncio.sleep(0.1)
                continue
            if answer.status_code == 202:
                self.accepted[number] = answer.json()["id"]
                return
            assert answer.status_code in (409, 429, 503), answer.text
            self.refused[f"{answer.status_code} {answer.json()['code']}"] += 1
            await asyncio.sleep(0.2)

    async def send(self) -> None:
        numbers = iter(range(CALLS))

        async def caller() -> None:
            for number in numbers:
                await self.call(number)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def kill(self) -> None:
        """Kill, and start again, until cancelled; one in four times the server."""
        while True:
            await asyncio.sleep(60 / KILLS_A_MINUTE * self.dice.uniform(0.5, 1.0))
            if self.dice.random() < 0.25:
                self.killed["server"] += 1
                await asyncio.to_thread(self.server.stop, SIGKILL)
                await asyncio.to_thread(self.server.start)
            else:
                self.killed["island"] += 1
                island = self.dice.choice(self.islands)
                await asyncio.to_thread(island.stop, kill=True)
                island.start()
                await island.ready(self.client)

    async def record(self, call: str) -> dict[str, object]:
        """What became of a call, once it is over; asked of any island."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                island = self.dice.choice(self.islands)
                url = f"{island.url}/api/v1/calls/{call}"
                answer = await self.client.get(url, headers={"Prefer": "wait=20"})
                assert answer.status_code == 200, answer.text
                record: dict[str, object] = answer.json()
                if record["state"] not in ("queued", "running"):
                    return record


@pytest.mark.skipif(not CALLS, reason="make test-fleet, make chaos-fleet")
async def test_whatever_a_fleet_accepted_has_one_result(tmp_path: Path) -> None:
    server = NatsServer(newest_binary(), tmp_path)
    server.start()
    islands = [Process(node, tmp_path, server) for node in "abc"]
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            run = Run(islands, server, client)
            for island in islands:
                island.start()
            await asyncio.gather(*(island.ready(client) for island in islands))
            began = time.monotonic()
            killing = asyncio.create_task(run.kill())
            await run.send()
            sent_s = time.monotonic() - began
            killing.cancel()
            await asyncio.wait({killing})
            assert killing.cancelled(), killing.exception()
            for island in islands:
                if island.process is None or island.process.poll() is not None:
                    island.start()
                await island.ready(client)
            ids = [run.accepted[number] for number in range(CALLS)]
            assert len(set(ids)) == CALLS, "each key has one call"
            records = []
            for first in range(0, CALLS, CALLERS):
                records += await asyncio.gather(*(run.record(one) for one in ids[first : first + CALLERS]))
            took_s = time.monotonic() - began
    finally:
        for island in islands:
            if island.process is not None:
                island.stop()
        server.stop(SIGKILL)
    attempts = Counter(len(record["attempts"]) for record in records)  # type: ignore[arg-type]
    nodes = Counter(record["attempts"][-1]["node"] for record in records)  # type: ignore[index]
    print(f"{CALLS} calls accepted in {sent_s:.1f} s, all over after {took_s:.1f} s")
    print(f"killed {dict(run.killed)}, refused meanwhile {dict(run.refused)}")
    print(f"attempts {dict(sorted(attempts.items()))}, run by {dict(nodes)}")
    assert {record["state"] for record in records} == {"done"}
    assert all(record["result"] for record in records)
    assert max(attempts) <= ATTEMPTS
