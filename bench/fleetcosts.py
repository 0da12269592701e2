"""What the parts of a fleet cost on this machine: `python -m bench.fleetcosts` measures them for the model.

A server of its own, configured as `skyisland fleet init` does but for certificates; each figure is the median
of some rounds. Server and clients share the processors of one machine, so each alone can do more than this.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import nats
from nats.js.api import StorageType, StreamConfig

from bench.machine import machine
from skyisland.fleet.frames import pack
from skyisland.fleet.line import Message
from skyisland.fleet.members import Members, Pulse
from skyisland.status import Vacancy

RESULTS = Path(__file__).parent / "results" / "fleet-costs.json"
ROUNDS = 5
LISTENERS, PULSES = 50, 20_000
SERVER = """
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
max_payload: 4MB
jetstream {{ store_dir: "{store}", sync_interval: always }}
"""
PULSE = Pulse(
    node="node-0001",
    life="0123456789abcdef",
    started_at=1.8e9,
    sent_at=1.8e9,
    vacancy=Vacancy(places=64, free=60, queued=0, free_addresses=253, warm=8, load=0.5, cpus=8),
    platform="linux-amd64",
    go_version="go1.27.3",
    version="1.0.0",
)
HEAD_BYTES = 40
"""What a server adds to each message that it sends on: `MSG <subject> <sid> <bytes>`."""


async def median_of(measure: Callable[[], Awaitable[float]]) -> float:
    return statistics.median([await measure() for _ in range(ROUNDS)])


async def measured(url: str, monitor: str) -> dict[str, float]:
    """Every figure; seconds, bytes, and messages a second."""
    await (await nats.connect(url)).close()  # tries until the server is there
    pulse = pack(PULSE)
    figures: dict[str, float] = {"pulse_bytes": len(pulse) + HEAD_BYTES, "pulse_read_s": _reading(pulse)}
    figures["fan_out_per_s"] = await median_of(lambda: _fan_out(url, monitor, pulse))
    client = await nats.connect(url)
    js = client.jetstream()
    config = StreamConfig(name="T", subjects=["t.>"], storage=StorageType.FILE)
    await js.add_stream(config)
    figures["durable_publish_s"] = await median_of(lambda: _publishes(js, 100, at_once=1))
    figures["durable_publishes_per_s"] = 1 / await median_of(lambda: _publishes(js, 400, at_once=8))
    leases = await js.create_key_value(bucket="L", ttl=60)
    figures["lease_s"] = await median_of(lambda: _leases(leases))
    await client.close()
    return figures


def _reading(pulse: bytes) -> float:
    members, message = Members("node-0000"), Message("sky.f.pulse.node-0001", pulse)
    started = time.perf_counter()
    for _ in range(10_000):
        members.hear(message)
    return (time.perf_counter() - started) / 10_000


LISTENS = r"""exec 3<>/dev/tcp/127.0.0.1/$0
printf 'CONNECT {"verbose":false,"pedantic":false}\r\nSUB p.> 1\r\n' >&3
exec cat <&3 >/dev/null"""
"""A listener that costs as little as one can; for bash."""


async def _fan_out(url: str, monitor: str, pulse: bytes) -> float:
    """Messages a second that the server sends to many listeners."""
    host, port = url.removeprefix("nats://").split(":")
    command = ["bash", "-c", LISTENS, port]
    listeners = [subprocess.Popen(command) for _ in range(LISTENERS)]  # noqa: ASYNC220
    try:
        while await _asked(monitor, "subscriptions") < LISTENERS:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        sent = await _asked(monitor, "out_msgs")
        _, sender = await asyncio.open_connection(host, port)
        sender.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        started = time.perf_counter()
        sender.write((b"PUB p.node %d\r\n" % len(pulse) + pulse + b"\r\n") * PULSES)
        await sender.drain()
        while await _asked(monitor, "out_msgs") < sent + PULSES * LISTENERS:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        took_s = time.perf_counter() - started
        sender.close()
    finally:
        for listener in listeners:
            listener.kill()
            listener.wait()
    return PULSES * LISTENERS / took_s


async def _asked(monitor: str, figure: str) -> int:
    """One of the server's own figures; its subscriptions without those of its own."""
    async with httpx.AsyncClient() as client:
        if figure == "subscriptions":
            about = (await client.get(f"{monitor}/connz?subs=1")).json()
            return sum("p.>" in one.get("subscriptions_list", []) for one in about["connections"])
        return int((await client.get(f"{monitor}/varz")).json()[figure])


async def _publishes(js: Any, count: int, *, at_once: int) -> float:
    """Seconds per message of 1 KB that is on the disk before it is acknowledged."""
    places = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with places:
            await js.publish("t.x", bytes(1000), timeout=10)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return (time.perf_counter() - started) / count


async def _leases(bucket: Any) -> float:
    started = time.perf_counter()
    for number in range(50):
        await bucket.create(f"build.{time.monotonic_ns()}.{number}", b"a")
    return (time.perf_counter() - started) / 50


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    server = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
    port, monitor = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="sky-bench-", dir="/var/tmp") as folder:
        conf = Path(folder, "nats.conf")
        conf.write_text(SERVER.format(port=port, monitor=monitor, store=folder))
        running = subprocess.Popen([server, "-c", conf, "-l", Path(folder, "log")])
        try:
            figures = asyncio.run(measured(f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}"))
        finally:
            running.terminate()
            running.wait()
    version = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    kept = {"machine": machine(), "server": version.strip(), "figures": figures}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:24} {value:.6g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
