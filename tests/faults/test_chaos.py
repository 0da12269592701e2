"""Chaos: good calls, hostile ones, greedy clients, floods and bombs, while jails and the daemon are killed.

Every answer is checked by its client, the daemon once a second (that it answers, how many jails it has, its
memory, descriptors and threads), each of its ends (that nothing is left on the host) and each beginning
(that it knows and has what it compiled). In the end there may be no more mishaps than were made, and whoever
made one call at a time all the while was never refused, and answered in time (`MODEST_S`).

`make chaos` runs an hour of it. In a run of all tests it has `SECONDS`, because all of them together have
eight minutes. What is random comes from one seed, which is printed: `SKYISLAND_CHAOS_SEED=… make chaos`
makes the same choices again (in what order the host runs them is its own affair).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.crowd import (
    BOMBS,
    GREEDY,
    MAX_SIZE,
    MIXED,
    STALLED,
    Act,
    Acts,
    Body,
    bomb,
    hang_up,
    make_bombs,
)
from tests.support.daemon import PATIENCE_S, Daemon
from tests.support.http2 import FLOODS, GREETING
from tests.support.upstream import Server, Staller

pytestmark = [pytest.mark.host, pytest.mark.root]

SECONDS = float(os.environ.get("SKYISLAND_CHAOS_SECONDS", "25"))
SEED = int(os.environ.get("SKYISLAND_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CLIENTS = 10
LIVES = max(2, int(SECONDS // 25))
"""How often the daemon is killed or stopped, and started again."""
MOST = {"rss": 512 << 20, "descriptors": 600, "threads": 64, "jails": 48}
"""What the daemon may have at any time. Of jails: 8 that run, 8 warm, 2 builds, and those at their end."""
LATE = 0.002
"""So many of the calls may meet a deadline that is not theirs: the host stood still for `DEADLINE_S`."""
DEADLINE_S = 5

MODEST_S = {"modest call": 5.0, "modest build": 20.0}
"""99 of 100 answers to the modest client come within so many seconds, as README.md promises."""
MODEST_PAUSE_S = 0.25
MODEST_BUILDS = 20
"""One of so many of the modest client's calls is built anew."""
CROWDS: dict[str, tuple[int, str, Acts]] = {
    # name: (how many at a time, address, acts)
    "mixed": (CLIENTS, "127.0.0.1", MIXED),
    "greedy": (40, "127.0.0.66", GREEDY),
    "bombs": (4, "127.0.0.67", BOMBS),
}
ONCE = ("modest", "half_open", "long_texts", "http2", "watch", "kill")
HALF_OPEN, HALF_OPEN_S = 100, 5
"""So many connections are half open for so many seconds."""
FLOODER, MODEST = "127.0.0.68", "127.0.0.69"

ALWAYS_FAIR = {("too_busy", 429), ("killed", 502), ("draining", 503), ("unavailable", 503)}
"""The killer's deeds and the lack of room may meet any call, but for the modest client's there is room."""
FROM_OUTSIDE = {("driver_error", 500), ("signaled", 502)}
"""And so may a SIGKILL from the host to a jail's first process, one call each; or to the launcher, which
ends every jail."""


class Chaos:
    """The clients, the killer, the watch, and what they saw."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.over = threading.Event()
        self.life = 0
        self.up = threading.Event()
        self.up.set()
        self.seen: dict[str, Counter[str]] = defaultdict(Counter)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.deeds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.checks = 0
        self.most: Counter[str] = Counter()

    # Clients

    def http(self, address: str) -> httpx.Client:
        """A client of the API with an address of its own."""
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.daemon.port}", transport=transport, timeout=PATIENCE_S
        )

    def client(self, number: int, address: str, acts: Acts) -> None:
        chance = random.Random(SEED * 1000 + number)
        names = list(acts)
        weights = [acts[name][0] for name in names]
        with self.http(address) as http:
            while not self.over.is_set():
                self.up.wait(1)
                (name,) = chance.choices(names, weights)
                if acts is MIXED and chance.random() < 0.05:
                    self.hang_up(http, chance)
                else:
                    self.ask(http, name, acts[name][1], chance)

    def modest(self) -> None:
        """One call at a time."""
        chance = random.Random(SEED * 1000 - 1)
        call, build = MIXED["good call"][1], MIXED["built anew"][1]
        with self.http(MODEST) as http:
            for count in itertools.count():
                while not (self.up.wait(1) or self.over.is_set()):
                    pass
                if count % MODEST_BUILDS == MODEST_BUILDS - 1:
                    self.ask(http, "modest build", build, chance)
                else:
                    self.ask(http, "modest call", call, chance)
                if self.over.wait(MODEST_PAUSE_S):
                    break

    def ask(self, http: httpx.Client, name: str, act: Act, chance: random.Random) -> None:
        make, statuses, right = act
        body, life, started = make(chance), self.life, time.monotonic()
        try:
            answer = http.post("/api/v1/function", json=body)
        except httpx.TransportError as error:
            if life == self.life and self.up.is_set() and not self.over.is_set():
                self.wrong.append(f"{name}: {error!r} although the daemon was up")
            self.seen[name]["cut by a restart"] += 1
            return
        if life == self.life and self.up.is_set():
            self.times[name].append(time.monotonic() - started)
        told = answer.json()
        code = (told.get("code", ""), answer.status_code)
        if answer.status_code in statuses and (answer.status_code != 200 or right(body, told["data"])):
            self.seen[name]["as it should"] += 1
        elif code[0] == "too_busy" and name in MODEST_S:
            self.wrong.append(f"{name}: refused: {answer.text[:300]}")
        elif code in ALWAYS_FAIR or code in FROM_OUTSIDE:
            self.seen[name][code[0]] += 1
        elif code == ("timed_out", 504):
            self.seen[name]["late"] += 1
        else:
            self.wrong.append(f"{name}: {answer.status_code} {answer.text[:300]}")

    def hang_up(self, http: httpx.Client, chance: random.Random) -> None:
        with suppress(httpx.TransportError):
            http.post("/api/v1/function", json=hang_up(chance), timeout=0.1)
        self.seen["hang-up"]["as it should"] += 1

    # Floods

    def half_open(self) -> None:
        """Connections whose request never ends; they are opened anew as they are cut off."""
        while not self.over.is_set():
            self.up.wait(1)
            with ExitStack() as stack:
                for _ in range(HALF_OPEN):
                    with suppress(OSError):
                        half = stack.enter_context(self.connection())
                        half.sendall(b"POST /api/v1/function HTTP/1.1\r\nHost: a\r\n")
                        self.deeds["connections left half open"] += 1
                self.over.wait(HALF_OPEN_S)

    def long_texts(self) -> None:
        """Requests of a megabyte, which are refused."""
        body = json.dumps({"url": "a.test/a/b", "call": "x" * 900_000}).encode()
        with self.http(FLOODER) as http:
            while not self.over.is_set():
                self.up.wait(1)
                with suppress(httpx.TransportError):
                    status = http.post("/api/v1/function", content=body).status_code
                    self.deeds[f"requests of a megabyte answered with {status}"] += 1

    def http2(self) -> None:
        """Floods of frames, until they are cut off."""
        for name in itertools.cycle(FLOODS):
            if self.over.is_set():
                break
            self.up.wait(1)
            with suppress(OSError), self.connection() as connection:
                connection.sendall(GREETING + FLOODS[name])
                while connection.recv(1 << 16):
                    pass
            self.deeds["floods of HTTP/2 frames"] += 1

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.daemon.port), PATIENCE_S, (FLOODER, 0))

    # The killer

    def kill(self) -> None:
        chance = random.Random(SEED)
        ends = time.monotonic() + SECONDS
        restarts = sorted(chance.uniform(0.1, 0.9) * SECONDS for _ in range(LIVES))
        begun = time.monotonic()
        while (now := time.monotonic()) < ends:
            if restarts and now - begun > restarts[0]:
                restarts.pop(0)
                self.restart(chance)
            with suppress(httpx.TransportError, ProcessLookupError, IndexError):
                jails = self.daemon.admin.get("/jails").json()["jails"]
                jail = chance.choice(jails)
                if chance.random() < 0.01:
                    for pid in self.daemon.launchers():
                        os.kill(pid, signal.SIGKILL)
                        self.deeds["launcher of jails killed"] += 1
                elif chance.random() < 0.7:
                    self.daemon.admin.delete(f"/jail/{jail['name']}")
                    self.deeds["jails killed by the operator"] += 1
                elif jail["pid"]:
                    os.kill(jail["pid"], signal.SIGKILL)
                    self.deeds["jails killed from outside"] += 1
            self.over.wait(chance.uniform(0.1, 0.6))
        self.over.set()

    def restart(self, chance: random.Random) -> None:
        self.up.clear()
        self.life += 1
        if chance.random() < 0.7:
            self.daemon.kill()
            self.deeds["daemon killed with SIGKILL"] += 1
        else:
            code = self.daemon.stop()
            self.deeds["daemon stopped with SIGTERM"] += 1
            if code != 0:
                self.wrong.append(f"stopped with {code}: {self.daemon.said[-2000:]}")
            if left := self.daemon.leftovers():
                self.wrong.append(f"left by one that stopped: {left}")
        self.daemon.start()
        if survivors := self.daemon.survivors():
            self.wrong.append(f"of an earlier life: {survivors}")
        first = self.daemon.call("textkit", 'Number("1")').json()
        if (first.get("data"), first.get("cached")) != ("1 <nil>", True):
            self.wrong.append(f"forgot what it had compiled: {first}")
        self.life += 1
        self.up.set()

    # The watch

    def watch(self) -> None:
        while not self.over.wait(1):
            if not self.up.is_set():
                continue
            life = self.life
            with suppress(OSError, ValueError):
                statm = Path(f"/proc/{self.daemon.pid}/statm").read_text().split()
                now = {
                    "rss": int(statm[1]) * os.sysconf("SC_PAGESIZE"),
                    "descriptors": len(os.listdir(f"/proc/{self.daemon.pid}/fd")),
                    "threads": len(os.listdir(f"/proc/{self.daemon.pid}/task")),
                }
                if health := self.look():
                    now["jails"] = len(health["jails"])
                self.checks += 1
                self.most |= Counter(now)
                self.wrong += [f"{n}: {now[n]} of {MOST[n]}" for n in now if now[n] > MOST[n]]
            if not self.daemon.running and life == self.life and self.up.is_set():
                self.wrong.append(f"the daemon died: {self.daemon.said[-2000:]}")
                self.over.set()

    def look(self) -> Body:
        """What the daemon tells of itself; nothing if it has just been killed."""
        life = self.life
        try:
            told: Body = self.daemon.admin.get("/jails").raise_for_status().json()
        except httpx.HTTPError as error:
            if life == self.life and self.up.is_set() and not self.over.is_set():
                self.wrong.append(f"no answer although the daemon was up: {error!r}")
            return {}
        return told

    # The end

    def mishaps(self) -> list[str]:
        """More of a kind than the killer's deeds, and a busy host, can have caused."""
        fates: Counter[str] = sum(self.seen.values(), Counter())
        outside = sum(fates[code] for code, _ in FROM_OUTSIDE)
        found = []
        most = self.deeds["jails killed from outside"] + CLIENTS * self.deeds["launcher of jails killed"]
        if outside > most:
            found.append(
                f"{outside} calls whose jail died, of which {most} can have been killed from outside"
            )
        if fates["late"] > (most := max(2, int(fates.total() * LATE))):
            found.append(f"{fates['late']} calls were late, {most} may be")
        for name, most_s in MODEST_S.items():
            if len(self.times[name]) >= 100 and (p99 := percentile(self.times[name], 0.99)) > most_s:
                found.append(f"{name}: p99 {p99:.3f} s, promised are {most_s:g} s")
        return found

    def table(self) -> str:
        lines = [f"seed {SEED}, {SECONDS:.0f} s, {CLIENTS} clients, {self.checks} checks of the daemon"]
        for name in sorted(self.seen):
            p50, p99 = (percentile(self.times[name], share) for share in (0.5, 0.99))
            fates = ", ".join(f"{count} {fate}" for fate, count in self.seen[name].most_common())
            lines.append(f"  {name:18} p50 {p50:6.3f} s  p99 {p99:6.3f} s  {fates}")
        lines += [f"  {count:6} {deed}" for deed, count in self.deeds.most_common()]
        lines.append(
            f"  at most {self.most['rss'] >> 20} MiB, {self.most['descriptors']} descriptors, "
            f"{self.most['threads']} threads, {self.most['jails']} jails"
        )
        return "\n".join([*lines, *(f"  WRONG {wrong}" for wrong in self.wrong[:20])])


def percentile(times: list[float], share: float) -> float:
    """Such a share of the times are not longer."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] if times else 0.0


def test_chaos(daemon: Callable[..., Daemon], state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(Staller) as staller:
        running = daemon(
            jails={"exec_timeout": f"{DEADLINE_S}s", "max_running": 16, "max_queued": 16},
            limits={"memory": "64m", "pids": 64},
            git={
                "rewrite": {**make_bombs(state_dir), f"https://{STALLED}/": f"http://{staller.address}/"},
                "timeout": "5s",
                "max_size": MAX_SIZE,
            },
            api={"http2": True, "connections_per_client": 128},
        )
        reign(Chaos(running.start()), capsys)


def reign(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    running = chaos.daemon
    for package, call in (("textkit", 'Number("1")'), ("trouble", "Remember()")):
        assert running.call(package, call).status_code == 200
    assert running.post(**bomb("bombs", "Inodes()")).status_code in (502, 504)
    threads = [threading.Thread(target=getattr(chaos, name)) for name in ONCE]
    for count, address, acts in CROWDS.values():
        for _ in range(count):
            threads.append(threading.Thread(target=chaos.client, args=(len(threads), address, acts)))
    try:
        for thread in threads:
            thread.start()
    finally:
        for thread in threads:
            thread.join()
    chaos.wrong += chaos.mishaps()
    with capsys.disabled():
        print("\n" + chaos.table())
    assert chaos.wrong == []
    assert running.call("textkit", 'Number("7")').json()["data"] == "7 <nil>"
    running.quiet()
    assert running.stop() == 0
    assert running.leftovers() == []
    with closing(sqlite3.connect(running.state / "island.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
