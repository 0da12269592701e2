"""What the console costs: `python -m bench.console [--seconds N]`.

An island of fake rooms holds 500 jails and answers 100 requests a second over HTTP, from a process of
its own. It runs headless, then with the console in its loop (140x40, on a pseudo terminal that is
read), then headless with three consoles attached. Processor time is the island's process alone; the
consoles that are attached pay for themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import math
import os
import pty
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console as Paper
from rich.table import Table

JAILS = 500
RATE = 100
LANES = 8
"""Connections of the load."""
TOKEN = "bench"  # noqa: S105 - of an island that lives for a minute
WIDTH, HEIGHT = 140, 40
BODY = b'{"url": "github.com/mmcloughlin/geohash", "call": "Encode(100.1, 80.9)"}'
REQUEST = b"POST /api/v1/function HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


# The island, in a process of its own


async def island(folder: Path, console: bool) -> None:
    """Serve until the process is ended; the port goes to FOLDER/port."""
    from api import create_app
    from api.serve import listen, serve
    from skyisland.drivers import fake
    from skyisland.events import Events
    from skyisland.island import Island, Policy
    from skyisland.jails import Jails
    from skyisland.logs import LogRing
    from skyisland.metrics import Metrics
    from skyisland.model import FunctionRequest

    def script(data: bytes) -> fake.Script:
        return fake.Script(duration_s=math.inf) if b'"3600"' in data else fake.Script(duration_s=0.004)

    events, ring, addresses = Events(), LogRing(), fake.FakeAddresses(62)
    events.tap(ring.fold)
    driver = fake.FakeJails(script)
    made = Island(
        name="bench",
        version="0",
        policy=Policy(max_running=2 * JAILS, exec_timeout_s=7200),
        events=events,
        sources=fake.FakeSources(),
        builds=fake.FakeBuilds(),
        jails=Jails(driver, fake.FakeClones(), addresses, events, island="bench", uids=None),
        network=addresses,
        history=fake.FakeHistory(events),
    )
    await made.start()
    sleeping = FunctionRequest(url="github.com/user/repo", call="Sleep(3600)")
    calls = [asyncio.create_task(made.invoke(sleeping)) for _ in range(JAILS)]
    while len(driver.alive) < JAILS:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    app = create_app(made, token=TOKEN, token_header="X-Sky-Island-Token", metrics=Metrics(), logs=ring)  # noqa: S106
    sock = await asyncio.to_thread(listen, "127.0.0.1", 0)
    port = sock.getsockname()[1]

    async def api(stop: Callable[[], Awaitable[object]]) -> None:
        (folder / "port").write_text(str(port))
        await serve(app, sock, stop)

    if console:
        from tui import serve_with_console
        from tui.inprocess import InProcess

        await serve_with_console(InProcess(made, ring, f"http://127.0.0.1:{port}"), api, log=folder / "log")
    else:
        await api(asyncio.Event().wait)
    for call in calls:
        call.cancel()


# The load


class Measured(NamedTuple):
    cpu: float
    """Percent of one core, of the island's process."""
    p50_ms: float
    p99_ms: float
    drawn_kb_s: float = 0.0


Lane = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _one(lanes: asyncio.Queue[Lane], port: int, times: list[float]) -> None:
    reader, writer = await lanes.get()
    while True:
        started = time.perf_counter()
        try:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):  # the server has ended this connection
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - started)
        lanes.put_nowait((reader, writer))
        return


async def load(port: int, seconds: float) -> list[float]:
    """RATE calls a second; their times in seconds, ascending."""
    lanes: asyncio.Queue[Lane] = asyncio.Queue()
    for _ in range(LANES):
        lanes.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    times: list[float] = []
    tasks = []
    begin = time.perf_counter()
    for n in range(int(RATE * seconds)):
        await asyncio.sleep(max(0.0, begin + n / RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(lanes, port, times)))
    await asyncio.gather(*tasks)
    return sorted(times)


def measure(pid: int, port: int, seconds: float, drawn: Callable[[], int] = lambda: 0) -> Measured:
    asyncio.run(load(port, 3))  # until caches are warm and the first picture is drawn
    spent, at, bytes_before = _cpu_s(pid), time.perf_counter(), drawn()
    times = asyncio.run(load(port, seconds))
    wall = time.perf_counter() - at
    return Measured(
        100 * (_cpu_s(pid) - spent) / wall,
        1000 * statistics.median(times),
        1000 * times[int(0.99 * len(times))],
        (drawn() - bytes_before) / wall / 1000,
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Terminals


class Screen:
    """A process on a pseudo terminal that is read."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self.drawn = 0
        self.first_picture: float | None = None
        self.started = time.perf_counter()
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.console", *words],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        seen = b""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            self.drawn += len(data)
            if self.first_picture is None:
                seen += data
                if b"sky-bench-" in seen:
                    self.first_picture = time.perf_counter() - self.started


@contextmanager
def running(folder: Path, console: bool) -> Iterator[tuple[int, int, Screen | None]]:
    """An island; gives its process, its port, and its screen if it has one."""
    told = folder / "port"
    told.unlink(missing_ok=True)
    words = ("--island", str(folder), *(["--console"] if console else []))
    screen = Screen(*words) if console else None
    process = screen.process if screen else subprocess.Popen([sys.executable, "-m", "bench.console", *words])
    try:
        while not (told.exists() and told.read_text()):
            time.sleep(0.05)
        yield process.pid, int(told.read_text()), screen
    finally:
        process.kill()
        process.wait()


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--seconds", type=float, default=20.0)
    reader.add_argument("--island", type=Path, help=argparse.SUPPRESS)
    reader.add_argument("--attach", help=argparse.SUPPRESS)
    reader.add_argument("--console", action="store_true", help=argparse.SUPPRESS)
    chosen = reader.parse_args()
    if chosen.island:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        asyncio.run(island(chosen.island, chosen.console))
        return
    if chosen.attach:
        from tui import run_console
        from tui.remote import Remote

        sys.exit(run_console(Remote(chosen.attach, token=TOKEN)))
    with tempfile.TemporaryDirectory() as place:
        compare(Path(place), chosen.seconds)


def compare(folder: Path, seconds: float) -> None:
    with running(folder, console=False) as (pid, port, _):
        headless = measure(pid, port, seconds)
        consoles = [Screen("--attach", f"http://127.0.0.1:{port}") for _ in range(3)]
        attached = measure(pid, port, seconds)
        first = [console.first_picture or math.nan for console in consoles]
        for console in consoles:
            console.process.terminate()
            console.process.wait()
        again = Screen("--attach", f"http://127.0.0.1:{port}")
        while again.first_picture is None:
            time.sleep(0.02)
        first.append(again.first_picture)
        again.process.terminate()
        again.process.wait()
    with running(folder, console=True) as (pid, port, screen):
        assert screen is not None
        inside = measure(pid, port, seconds, lambda: screen.drawn)
    paper = Paper()
    table = Table(title=f"{JAILS} jails, {RATE} requests a second, {WIDTH}x{HEIGHT}, {seconds:g} s each")
    for name in (
        "",
        "CPU %",
        "more than headless",
        "allowed",
        "p50 ms",
        "p99 ms",
        "more",
        "allowed",
        "kB/s drawn",
    ):
        table.add_column(name, justify="left" if not name else "right")
    rows = (
        ("headless", headless, "", ""),
        ("console in the loop", inside, "15", "25"),
        ("three attached", attached, "1", ""),
    )
    for name, found, cpu, p99 in rows:
        more = "" if found is headless else f"{found.cpu - headless.cpu:.1f}"
        later = "" if found is headless else f"{found.p99_ms - headless.p99_ms:.1f}"
        drawn = f"{found.drawn_kb_s:.1f}" if found.drawn_kb_s else ""
        table.add_row(
            name,
            f"{found.cpu:.1f}",
            more,
            cpu,
            f"{found.p50_ms:.1f}",
            f"{found.p99_ms:.1f}",
            later,
            p99,
            drawn,
        )
    paper.print(table)
    paper.print(
        f"start to first picture: {first[-1]:.2f} s attached (allowed: 1.5), {max(first[:3]):.2f} s for three"
    )


if __name__ == "__main__":
    main()
