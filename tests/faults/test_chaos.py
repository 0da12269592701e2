"""Chaos: good calls and hostile ones by ten clients, while jails and the daemon itself are killed.

Every answer is checked by its client, the daemon once a second (that it answers, how many jails it has, its
memory, descriptors and threads), each of its ends (that nothing is left on the host) and each beginning
(that it knows and has what it compiled). In the end there may be no more mishaps than were made.

`make chaos` runs an hour of it. In a run of all tests it has `SECONDS`, because all of them together have
eight minutes. What is random comes from one seed, which is printed: `SKYISLAND_CHAOS_SEED=… make chaos`
makes the same choices again (in what order the host runs them is its own affair).
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon import HOST, Daemon

pytestmark = [pytest.mark.host, pytest.mark.root]

SECONDS = float(os.environ.get("SKYISLAND_CHAOS_SECONDS", "40"))
SEED = int(os.environ.get("SKYISLAND_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CLIENTS = 10
LIVES = max(2, int(SECONDS // 25))
"""How often the daemon is killed or stopped, and started again."""
MOST = {"rss": 512 << 20, "descriptors": 600, "threads": 64, "jails": 48}
"""What the daemon may have at any time. Of jails: 8 that run, 8 warm, 2 builds, and those at their end."""
LATE = 0.002
"""So many of the calls may meet a deadline that is not theirs: the host stood still for `DEADLINE_S`."""
DEADLINE_S = 5

# An act: what is sent, and what may come of it (statuses, then what is in the data of a good answer).
Body = dict[str, Any]
Act = tuple[Callable[[random.Random], Body], set[int], Callable[[Body, str], bool]]


def _call(package: str, call: str, **more: Any) -> Body:
    return {"url": f"{HOST}/{package}", "call": call, **more}


def _number(chance: random.Random) -> Body:
    return _call("textkit", f'Number("{chance.randrange(10**6)}")')


def _same_number(body: Body, data: str) -> bool:
    return data == f"{body['call'][8:-2]} <nil>"


def _fixed(call: str, **more: Any) -> Callable[[random.Random], Body]:
    return lambda _: _call("trouble", call, **more)


def _any(_: Body, __: str) -> bool:
    return True


ACTS: dict[str, tuple[int, Act]] = {
    # name: (weight, act)
    "good call": (30, (_number, {200}, _same_number)),
    "cold call": (5, (lambda c: {**_number(c), "cold": True}, {200}, _same_number)),
    "built anew": (1, (lambda c: {**_number(c), "cache_bust": True}, {200}, _same_number)),
    "panic": (4, (_fixed('Panic("chaos")'), {502}, _any)),
    "exit": (4, (_fixed("Exit(3)"), {502}, _any)),
    "signal": (3, (_fixed("Signal(11)"), {502}, _any)),
    "memory": (3, (_fixed("Hog(256)"), {502}, _any)),
    "flood": (3, (_fixed("Flood(8)"), {502}, _any)),
    "sleep": (3, (_fixed("Sleep(60000000000)"), {504}, _any)),
    "stray": (4, (_fixed("Stray()"), {200}, lambda _, data: data == "started: <nil>")),
    "mark": (4, (_fixed("Remember()"), {200}, lambda _, data: data == "false")),
    "no such function": (2, (lambda _: _call("textkit", "Nothing()"), {422}, _any)),
    "no call": (3, (lambda _: _call("textkit", "X()); os.Exit(0);("), {400}, _any)),
    "no body": (2, (lambda _: {"uri": 1}, {400}, _any)),
    "refused source": (2, (lambda _: {"url": "127.0.0.1/a/b", "call": "F()"}, {403}, _any)),
}
ALWAYS_FAIR = {("too_busy", 429), ("killed", 502), ("draining", 503), ("unavailable", 503)}
"""The killer's deeds and the lack of room may meet any call."""
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

    def client(self, number: int) -> None:
        chance = random.Random(SEED * 1000 + number)
        names = list(ACTS)
        weights = [ACTS[name][0] for name in names]
        with httpx.Client(base_url=f"http://127.0.0.1:{self.daemon.port}", timeout=60) as http:
            while not self.over.is_set():
                self.up.wait(1)
                (name,) = chance.choices(names, weights)
                if chance.random() < 0.05:
                    self.hang_up(http, chance)
                else:
                    self.ask(http, name, chance)

    def ask(self, http: httpx.Client, name: str, chance: random.Random) -> None:
        make, statuses, right = ACTS[name][1]
        body, life, started = make(chance), self.life, time.monotonic()
        try:
            answer = http.post("/api/v1/function", json=body)
        except httpx.TransportError as error:
            if life == self.life and self.up.is_set() and not self.over.is_set():
                self.wrong.append(f"{name}: {error!r} although the daemon was up")
            self.seen[name]["cut by a restart"] += 1
            return
        self.times[name].append(time.monotonic() - started)
        told = answer.json()
        code = (told.get("code", ""), answer.status_code)
        if answer.status_code in statuses and (answer.status_code != 200 or right(body, told["data"])):
            self.seen[name]["as it should"] += 1
        elif code in ALWAYS_FAIR or code in FROM_OUTSIDE:
            self.seen[name][code[0]] += 1
        elif code == ("timed_out", 504):
            self.seen[name]["late"] += 1
        else:
            self.wrong.append(f"{name}: {answer.status_code} {answer.text[:300]}")

    def hang_up(self, http: httpx.Client, chance: random.Random) -> None:
        with suppress(httpx.TransportError):
            http.post("/api/v1/function", json=_fixed("Sleep(800000000)")(chance), timeout=0.1)
        self.seen["hang-up"]["as it should"] += 1

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
        return found

    def table(self) -> str:
        lines = [f"seed {SEED}, {SECONDS:.0f} s, {CLIENTS} clients, {self.checks} checks of the daemon"]
        for name in sorted(self.seen):
            times = sorted(self.times[name]) or [0.0]
            p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
            fates = ", ".join(f"{count} {fate}" for fate, count in self.seen[name].most_common())
            lines.append(f"  {name:18} p50 {statistics.median(times):6.3f} s  p99 {p99:6.3f} s  {fates}")
        lines += [f"  {count:6} {deed}" for deed, count in self.deeds.most_common()]
        lines.append(
            f"  at most {self.most['rss'] >> 20} MiB, {self.most['descriptors']} descriptors, "
            f"{self.most['threads']} threads, {self.most['jails']} jails"
        )
        return "\n".join([*lines, *(f"  WRONG {wrong}" for wrong in self.wrong[:20])])


def test_chaos(daemon: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]) -> None:
    running = daemon(
        jails={"exec_timeout": f"{DEADLINE_S}s", "max_running": 8, "max_queued": 16},
        limits={"memory": "64m", "pids": 64},
    )
    chaos = Chaos(running.start())
    for package, call in (("textkit", 'Number("1")'), ("trouble", "Remember()")):
        assert running.call(package, call).status_code == 200
    threads = [threading.Thread(target=chaos.client, args=(number,)) for number in range(CLIENTS)]
    threads += [threading.Thread(target=chaos.watch), threading.Thread(target=chaos.kill)]
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
