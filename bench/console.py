"""Figure 9: what the console costs. Alone: `python -m bench.console [--rounds N --seconds N]`.

An island with fake drivers has 500 jails and answers 100 requests a second over HTTP, in a process of its
own. Four settings take turns: an island with the console in its event loop (140x40, on a pseudo terminal
whose output is read), and a headless island alone, with three consoles attached, and beside three consoles
that play a recording. CPU time is that of the island's process only. But on a machine of few cores, three
busy consoles slow everything else too. So the island with three attached consoles is compared with the
same island beside three that are as busy without it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import math
import os
import pty
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console as Paper

from bench.playback import Player, Recording, record
from bench.rows import Row, ms, p50, p99

JAILS = 500
RATE = 100
LANES = 8
"""Connections of the load generator."""
CONSOLES = 3
WARM_S = 2.0
"""Time under load before a measurement, until everything has caught up after a pause."""
TOKEN = "bench"  # noqa: S105 - for an island that runs for a minute
HEADER = "X-Sky-Island-Token"
WIDTH, HEIGHT = 140, 40
BODY = b'{"url": "github.com/mmcloughlin/geohash", "call": "Encode(100.1, 80.9)"}'
REQUEST = b"POST /api/v1/function HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


# The island, in a process of its own


async def island(folder: Path, console: bool) -> None:
    """Serve until the process is killed; write the port to FOLDER/port."""
    from api import create_app
    from api.serve import serve
    from api.sockets import listen
    from skyisland import fakes
    from skyisland.drivers import fake
    from skyisland.events import Events
    from skyisland.island import Island
    from skyisland.jails.register import Jails
    from skyisland.model import FunctionRequest
    from skyisland.record.logs import LogRing
    from skyisland.record.metrics import Metrics

    def script(data: bytes) -> fake.Script:
        return fake.Script(duration_s=math.inf) if b'"3600"' in data else fake.Script(duration_s=0.004)

    events, ring, addresses = Events(), LogRing(), fakes.FakeAddresses(62)
    events.tap(ring.fold)
    driver = fake.FakeJails(script)
    made = Island(
        name="bench",
        version="0",
        policy=fakes.policy(max_running=2 * JAILS, exec_timeout_s=7200),
        events=events,
        sources=fakes.FakeSources(),
        builds=fakes.FakeBuilds(),
        jails=Jails(driver, fake.FakeClones(), addresses, events, island="bench", uids=None),
        network=addresses,
        history=fakes.FakeHistory(events),
    )
    await made.start()
    sleeping = FunctionRequest(url="github.com/user/repo", call="Sleep(3600)")
    calls = [asyncio.create_task(made.invoke(sleeping)) for _ in range(JAILS)]
    while len(driver.alive) < JAILS:  # noqa: ASYNC110 - the fake driver has no event for it
        await asyncio.sleep(0.05)
    app = create_app(made, token=TOKEN, token_header=HEADER, metrics=Metrics(), logs=ring)
    sock = await asyncio.to_thread(listen, "127.0.0.1", 0)
    port = sock.getsockname()[1]

    async def api(stop: Callable[[], Awaitable[object]]) -> None:
        (folder / "port").write_text(str(port))
        await serve(app, sock, stop)

    if console:
        from tui import serve_with_console
        from tui.watch.inprocess import InProcessPort

        way = InProcessPort(made, ring, f"http://127.0.0.1:{port}")
        await serve_with_console(way, api, log=folder / "log")
    else:
        await api(asyncio.Event().wait)
    for call in calls:
        call.cancel()


# The load


Lane = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _one(lanes: asyncio.Queue[Lane], port: int, times: list[float]) -> None:
    reader, writer = await lanes.get()
    while True:
        started = time.perf_counter()
        try:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):  # the server closed this connection
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - started)
        lanes.put_nowait((reader, writer))
        return


async def load(port: int, seconds: float) -> list[float]:
    """Make RATE calls a second; return their times in seconds, ascending."""
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


# Terminals


class Screen:
    """A console on a pseudo terminal whose output is read."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
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
            if self.first_picture is None:
                seen += data
                if b"sky-bench-" in seen:
                    self.first_picture = time.perf_counter() - self.started

    def picture_s(self) -> float:
        """Wait for the first picture; return the seconds from the start to it."""
        while self.first_picture is None:
            time.sleep(0.01)
        return self.first_picture

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Rounds:
    """The measurements of one setting, by round."""

    def __init__(self) -> None:
        self.times: list[list[float]] = []
        self.cpu: list[float] = []
        """Percent of one core, of the island's process."""

    def by_round(self) -> dict[str, list[float]]:
        return {
            "cpu_percent_by_round": [round(value, 2) for value in self.cpu],
            "p50_ms_by_round": [round(1000 * p50(times), 2) for times in self.times],
            "p99_ms_by_round": [round(1000 * p99(times), 2) for times in self.times],
        }


class Subject:
    """An island, with a console in its event loop or headless. SIGSTOP holds it while another is measured."""

    def __init__(self, folder: Path, *, console: bool = False) -> None:
        folder.mkdir()
        words = ("--island", str(folder), *(["--console"] if console else []))
        self.screen = Screen(*words) if console else None
        command = [sys.executable, "-m", "bench.console", *words]
        self.process = self.screen.process if self.screen else subprocess.Popen(command)
        port_file = folder / "port"
        while not (port_file.exists() and port_file.read_text()):
            time.sleep(0.05)
        self.port = int(port_file.read_text())
        if self.screen:
            self.screen.picture_s()
        self.go_on(False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go_on(self, moving: bool) -> None:
        self.process.send_signal(signal.SIGCONT if moving else signal.SIGSTOP)

    def measure(self, seconds: float, samples: Rounds, *consoles: str) -> None:
        """Measure under load. With `consoles`, three consoles run meanwhile, started with these arguments."""
        self.go_on(True)
        with ExitStack() as stack:
            screens = [Screen(*consoles) for _ in range(CONSOLES)] if consoles else []
            for screen in screens:
                stack.callback(screen.end)
            for screen in screens:
                screen.picture_s()
            asyncio.run(load(self.port, WARM_S))
            spent, at = _cpu_s(self.process.pid), time.perf_counter()
            samples.times.append(asyncio.run(load(self.port, seconds)))
            wall = time.perf_counter() - at
            samples.cpu.append(100 * (_cpu_s(self.process.pid) - spent) / wall)
        self.go_on(False)

    def record(self, seconds: float) -> Recording:
        """Record what a console receives from this island under load."""

        async def both() -> Recording:
            listening = asyncio.create_task(record(self.url, {HEADER: TOKEN}, seconds))
            await load(self.port, seconds)
            return await listening

        self.go_on(True)
        recording = asyncio.run(both())
        self.go_on(False)
        return recording

    def end(self) -> None:
        if self.screen:
            self.screen.end()
        self.process.kill()
        self.process.wait()


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process, by the kernel's clock for it (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


# Figure 9


def cost(rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """Measure in turns: headless, console inside, consoles attached, consoles beside."""
    headless, inside, attached, beside = Rounds(), Rounds(), Rounds(), Rounds()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        alone = Subject(place / "headless")
        stack.callback(alone.end)
        one = Subject(place / "inside", console=True)
        stack.callback(one.end)
        recording = place / "recording"
        recording.write_bytes(msgspec.msgpack.encode(alone.record(seconds + 5 * WARM_S)))
        for _ in range(rounds):
            one.measure(seconds, inside)
            alone.measure(seconds, headless)
            alone.measure(seconds, attached, "--attach", alone.url)
            alone.measure(seconds, beside, "--play", str(recording))
        alone.go_on(True)
        pictures = []
        for _ in range(rounds):
            screen = Screen("--attach", alone.url)
            stack.callback(screen.end)
            pictures.append(screen.picture_s())
    around = f"{JAILS} jails, {RATE} requests/s, {WIDTH}x{HEIGHT}"
    elsewhere = "beside as many, not on its line"
    rows = [
        _more("9a", f"console in the island's process: its CPU ({around})", inside, headless, "headless", 15),
        _later("9b", "the same: the API's p99", inside, headless, "headless", 25),
        _more("9c", "three consoles attached: the island's CPU", attached, beside, elsewhere, 1),
        _later("9d", "the same: the API's p99", attached, beside, elsewhere, None),
        Row(
            figure="9e",
            what="a console attaches: first picture",
            ours=f"{statistics.median(pictures):.2f} s",
            target="≤ 1.5 s",
            hit=statistics.median(pictures) <= 1.5,
        ),
        _more(
            "9f", "three consoles beside it, not on its line: the island's CPU", beside, headless, "headless"
        ),
    ]
    settings = {"headless": headless, "inside": inside, "attached": attached, "beside": beside}
    samples = {name: setting.by_round() for name, setting in settings.items()}
    return rows, {**samples, "first_picture_s": [round(value, 3) for value in pictures]}


def _more(
    figure: str, what: str, ours: Rounds, peer: Rounds, peer_name: str, most: float | None = None
) -> Row:
    by_round = [a - b for a, b in zip(ours.cpu, peer.cpu, strict=True)]
    more = statistics.median(by_round)
    return Row(
        figure=figure,
        what=what,
        ours=f"{statistics.median(ours.cpu):.1f} % of a core",
        peer=f"{statistics.median(peer.cpu):.1f} %",
        peer_name=peer_name,
        note=f"{more:+.1f}; rounds {min(by_round):+.1f} to {max(by_round):+.1f}",
        target="" if most is None else f"≤ {most:g} more",
        hit=None if most is None else more <= most,
    )


def _later(figure: str, what: str, ours: Rounds, peer: Rounds, peer_name: str, most: float | None) -> Row:
    mine, theirs = ([1000 * p99(times) for times in samples.times] for samples in (ours, peer))
    later = statistics.median(a - b for a, b in zip(mine, theirs, strict=True))
    return Row(
        figure=figure,
        what=what,
        ours=ms(statistics.median(mine)),
        peer=ms(statistics.median(theirs)),
        peer_name=peer_name,
        note=f"{later:+.1f}",
        target="" if most is None else f"≤ {most:g} ms more",
        hit=None if most is None else later <= most,
    )


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--rounds", type=int, default=4)
    reader.add_argument("--seconds", type=float, default=6.0)
    reader.add_argument("--island", type=Path, help=argparse.SUPPRESS)
    reader.add_argument("--attach", help=argparse.SUPPRESS)
    reader.add_argument("--play", type=Path, help=argparse.SUPPRESS)
    reader.add_argument("--console", action="store_true", help=argparse.SUPPRESS)
    chosen = reader.parse_args()
    if chosen.island:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        asyncio.run(island(chosen.island, chosen.console))
        return
    if chosen.attach or chosen.play:
        from tui import run_console
        from tui.watch.remote import RemotePort

        player = Player(chosen.play) if chosen.play else None
        sys.exit(run_console(RemotePort(chosen.attach or "http://bench", token=TOKEN, transport=player)))
    from bench.report import table

    rows, _ = cost(chosen.rounds, chosen.seconds)
    Paper(width=None if sys.stdout.isatty() else 130).print(table(rows))


if __name__ == "__main__":
    main()
