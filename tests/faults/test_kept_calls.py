"""The island killed while it accepts, runs and settles calls that answer later: each has one result.

One chain of lives on one state folder. Each accepts more calls and is killed at a step that it has not been
killed at before; the last one runs what is left. `SKYISLAND_KEPT_CALLS`: how many calls in all, a fiftieth of
them in a life; a run of the tests has time for a few.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from skyisland.later.calls import read
from tests.faults.keeper import POINTS
from tests.support.places import ROOT

CALLS = int(os.environ.get("SKYISLAND_KEPT_CALLS", "90"))
IN_A_LIFE = max(30, CALLS // 50)
ATTEMPTS = 5
SIGKILLED = -9


def life(file: Path, at: int, first: int, count: int) -> tuple[set[str], int]:
    """The calls that it accepted, and how many steps it took; 0 if it was killed."""
    words = [str(word) for word in (file, at, first, count)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.keeper", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, SIGKILLED), done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    accepted = {line["accepted"] for line in told if "accepted" in line}
    return accepted, next((line["steps"] for line in told if "steps" in line), 0)


@pytest.mark.case("D1")
def test_whatever_was_accepted_has_one_result(state_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "skyisland.toml"
    file.write_text(
        f'state_dir = "{state_dir}"\n[jails]\ndriver = "fake"\n'
        f'[async]\nattempts = {ATTEMPTS}\nbackoff = "1ms"\nlongest_backoff = "5ms"\n'
    )
    accepted, steps = life(file, 0, 0, IN_A_LIFE)
    assert steps > IN_A_LIFE
    killed, dice = 0, random.Random(7)  # the same steps each time
    for first in range(IN_A_LIFE, CALLS, IN_A_LIFE):
        more, ended = life(file, dice.randrange(1, steps), first, IN_A_LIFE)
        accepted |= more
        killed += not ended
    assert killed > (CALLS - IN_A_LIFE) // IN_A_LIFE // 2
    _, ended = life(file, 0, CALLS, 0)
    assert ended
    with closing(sqlite3.connect(state_dir / "calls.db")) as db:
        rows = db.execute("SELECT id, state, record, result FROM calls").fetchall()
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM orders").fetchone() == (0,)
    kept = {call: (state, read(record), result) for call, state, record, result in rows}
    assert accepted <= kept.keys(), "an accepted call is lost"
    assert {state for state, _, _ in kept.values()} == {"done"}
    attempts = [len(record.attempts) for _, record, _ in kept.values()]
    print(f"{len(accepted)} accepted, {killed} kills, attempts {min(attempts)} to {max(attempts)}")
    assert 1 <= min(attempts) <= max(attempts) <= ATTEMPTS
    assert all(result for _, _, result in kept.values())
    assert all(record.attempts[-1].verdict == "ok" for _, record, _ in kept.values())


class Receiver(BaseHTTPRequestHandler):
    """Takes callbacks."""

    taken: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.headers["webhook-id"], body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.case("D1")
def test_killed_at_each_point_of_a_call_it_has_one_result_and_its_callback(
    state_dir: Path, tmp_path: Path
) -> None:
    Receiver.taken.clear()
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    callback = f"http://127.0.0.1:{receiver.server_port}/"
    file = tmp_path / "skyisland.toml"
    file.write_text(
        f'state_dir = "{state_dir}"\n[jails]\ndriver = "fake"\n'
        f'[async]\nbackoff = "1ms"\nlongest_backoff = "5ms"\ncallbacks = ["{callback}"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.keeper", file, callback],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    receiver.shutdown()
    receiver.server_close()
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    killed = {line["point"]: line["killed"] for line in told if "point" in line}
    assert killed == dict.fromkeys(POINTS, True) | {"": False}, done.stderr
    with closing(sqlite3.connect(state_dir / "calls.db")) as db:
        rows = db.execute("SELECT id, record, result, callback FROM calls").fetchall()
        for queue in ("orders", "callbacks"):
            assert db.execute(f"SELECT count(*) FROM {queue}").fetchone() == (0,)  # noqa: S608
    accepted = {line["accepted"] for line in told if "accepted" in line}
    assert accepted <= {call for call, *_ in rows} <= {f"call-{number}" for number in range(len(POINTS))}
    assert len(accepted) == len(POINTS) - 1, "that of the first point was not told"
    sent: dict[str, set[bytes]] = {}
    for call, body in Receiver.taken:
        sent.setdefault(call, set()).add(body)
    for call, content, result, delivered in rows:
        record = read(content)
        assert (record.state, record.attempts[-1].verdict, bool(result)) == ("done", "ok", True), call
        assert len(record.attempts) <= 2, call
        assert json.loads(delivered)["state"] == "delivered", call
        assert len(sent[call]) == 1, "a callback that comes twice says the same"
